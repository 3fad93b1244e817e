"""What happens where a walk stops: the level of a sub-pixel is written, or read.

A chunk of images is coded by one range coder, sub-pixel after sub-pixel in raster order, and at
each sub-pixel image after image. The stages of a model share the range coder.
"""

import abc
import time

import constriction
import numpy as np

from pixel_cnn_pp.codec import frequencies

# `perfect` is set, because the package's documentation and its code differ in the default. Of two
# whole tables, False takes the frequencies exactly as they are: see `frequencies.frequencies`.
_FAMILY = constriction.stream.model.Categorical(perfect=False)


def writer():
    """A range coder that writes."""
    return constriction.stream.queue.RangeEncoder()


def written(writer):
    """What a range coder has written: little-endian words of 32 bits, as bytes."""
    return writer.get_compressed().astype("<u4").tobytes()


def reader(data):
    """A range coder that reads these bytes."""
    return constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4"))


class Canvas(abc.ABC):
    """The levels of a chunk of images, and a coder. A walk calls it at each of its stops.

    The images may differ in size. Outside of an image nothing is coded: a sub-pixel there is equal
    to the one on its left, or 0 in the first column. Both sides know this.

    Attributes:
      levels: int32 array [H, W, B, C].
      error: None, or the exception that ended the coding. After it, all levels are 0.
      seconds: How long the coder has worked.
    """

    def __init__(self, range_coder, levels, heights, widths, num_levels):
        """Makes a canvas.

        Args:
          range_coder: The `writer` or the `reader` of the chunk.
          levels: int32 array [H, W, B, C]. Only those inside of the images are used.
          heights: Integer array [B], at most H. 0 for an image that is not there.
          widths: Integer array [B], at most W.
          num_levels: L.
        """
        self.levels = levels
        self.error = None
        self.seconds = 0.0
        self._range_coder = range_coder
        self._heights, self._widths = np.asarray(heights), np.asarray(widths)
        self._is_full = bool(
            (self._heights == levels.shape[0]).all() and (self._widths == levels.shape[1]).all()
        )
        self._sizes = frequencies.part_sizes(num_levels)
        self._num_levels = num_levels
        self._num_stops = 0
        self._inside = slice(None)
        self._found = None  # the first level [B] of the part that the steps so far have found

    def stop(self, table, row, column, channel, step):
        """Codes one step of one sub-pixel.

        Args:
          table: float32 array [B, M], the result of `frequencies.table`.
          row, column, channel, step: Integers, where the walk is.

        Returns:
          int32 array [B], the first level of the part that the step has found.
        """
        start = time.perf_counter()
        if self.error is None:
            try:
                self._check_order(row, column, channel, step)
                self._step(table, row, column, channel, step)
            except Exception as error:  # It would end the walk with a traceback of the backend.
                self.error = error
        found = np.zeros(len(table), np.int32) if self.error is not None else self._found
        self.seconds += time.perf_counter() - start
        return found

    @abc.abstractmethod
    def _code(self, table, parts):
        """Codes the parts [N] of the images that are inside. Returns them."""

    def _check_order(self, row, column, channel, step):
        _, width, _, channels = self.levels.shape
        number = ((row * width + column) * channels + channel) * len(self._sizes) + step
        if number != self._num_stops:
            raise RuntimeError(f"The walk must stop in order. Received: {number}")
        self._num_stops += 1

    def _step(self, table, row, column, channel, step):
        levels = self.levels[row, column, :, channel]
        if step == 0:
            if channel == 0 and not self._is_full:
                self._inside = (row < self._heights) & (column < self._widths)
            if not self._is_full:
                left = self.levels[row, column - 1, :, channel] if column > 0 else 0
                levels[...] = np.where(self._inside, levels, left)
            self._found = np.zeros(len(levels), np.int32)
        size = self._sizes[step]
        parts = (levels - self._found) // size
        inside = self._inside
        parts[inside] = self._code(np.ascontiguousarray(table[inside]), parts[inside])
        # A new array: the one before may still be in use.
        self._found = np.minimum(self._found + parts * size, self._num_levels - 1)
        if size == 1:
            levels[...] = self._found


class Encoder(Canvas):
    """Writes the levels of the images."""

    def __init__(self, writer, levels, heights, widths, num_levels):
        """As `Canvas`."""
        super().__init__(writer, levels, heights, widths, num_levels)
        self._bits = np.zeros(levels.shape[2])

    def bits(self):
        """Floats [B], the sum of -log2(frequency / 2^24) over what is coded of each image."""
        return self._bits

    def _code(self, table, parts):
        if len(parts):
            self._range_coder.encode(parts, _FAMILY, table)
            counts = table[np.arange(len(parts)), parts] + 1.0
            self._bits[self._inside] += frequencies.PRECISION - np.log2(counts)
        return parts


class Decoder(Canvas):
    """Reads the levels of the images."""

    def _code(self, table, parts):
        return self._range_coder.decode(_FAMILY, table) if len(parts) else parts
