"""How a chunk of images passes through the stages of a model, stage after stage.

One range coder codes all stages of a chunk: the symbols of a stage follow those of the stage before
it. What a stage is conditioned on are the pictures of the stage before, which both sides have.

The sides of a canvas are multiples of all factors by which the stages make an image smaller. A tile
may have any sides. Its last row and column are repeated up to the sides of the canvas, before a
smaller picture is made of it. Of a picture of a stage, only that part is coded which the tile
reaches.
"""

from typing import NamedTuple

import numpy as np

from pixel_cnn_pp.codec import coder, walk


class Pictures(NamedTuple):
    """The pictures that a stage models of the images of a chunk.

    levels: int32 array [h, w, B, c]. The last row and column of each picture are repeated.
    heights, widths: Integer arrays [B], the sides of the pictures; 0 for those that are not there.
    """

    levels: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    def as_images(self):
        """The levels as images [B, h, w, c]."""
        return np.moveaxis(self.levels, 2, 0)

    def filled(self):
        """These pictures, each repeated to the sides of the canvas."""
        levels = self.levels.copy()
        for index, (height, width) in enumerate(zip(self.heights, self.widths, strict=True)):
            if height > 0:
                levels[:height, width:, index] = levels[:height, width - 1 : width, index]
                levels[height:, :, index] = levels[height - 1 : height, :, index]
        return self._replace(levels=levels)


def num_rows(model, height):
    """The number of rows of all stages, for a canvas of this height."""
    return sum(height // stage.view.factor for stage in model.stages)


def pictures(model, levels, sides):
    """What each stage of a model models of the images of a chunk.

    Args:
      model: `models.AutoregressiveModel`.
      levels: int32 array [H, W, B, C], the levels of the images.
      sides: (heights, widths), integer arrays [B].

    Returns:
      List of Pictures, one for each stage.
    """
    images = Pictures(levels, *sides).filled().as_images()
    found = []
    for stage in model.stages:
        own = np.moveaxis(stage.view.of(images, model.config.num_levels), 0, 2)
        own = np.ascontiguousarray(own, np.int32)
        found.append(Pictures(own, *_sides_of(stage, sides)).filled())
    return found


def encode(model, levels, sides, condition, report=None):
    """Encodes the images of a chunk.

    Args:
      model: `models.AutoregressiveModel` with a likelihood.
      levels, sides: As in `pictures`.
      condition: NumPy array of what the B images are conditioned on, or None.
      report: Function (number of rows), called after some rows. None for no calls.

    Returns:
      (bytes, bits [B], seconds): the code; the sum of -log2(frequency / 2^24) over what is coded of
      each image; and how long the range coder took.
    """
    writer = coder.writer()
    bits, seconds = np.zeros(levels.shape[2]), 0.0
    for stage, own in zip(model.stages, pictures(model, levels, sides), strict=True):
        num_levels = stage.model.config.num_levels
        encoder = coder.Encoder(writer, own.levels.copy(), own.heights, own.widths, num_levels)
        walk.walk(stage.model, encoder, condition, report)
        bits += encoder.bits()
        seconds += encoder.seconds
        condition = own.as_images()
    return coder.written(writer), bits, seconds


def decode(model, data, levels, sides, condition, report=None):
    """Decodes the images of a chunk.

    Args:
      model, sides, condition, report: As in `encode`.
      data: The bytes.
      levels: As in `pictures`. The levels of the images are written to it.

    Returns:
      Whether the pictures of all stages are those of the images. If they are not, the bytes are not
      those of an encoder.

    Raises:
      AssertionError: Of constriction, for bytes that no encoder writes.
    """
    height, width, batch_size, _ = levels.shape
    reader, found = coder.reader(data), []
    for stage in model.stages:
        config, factor = stage.model.config, stage.view.factor
        shape = (height // factor, width // factor, batch_size, config.image_shape[-1])
        own = Pictures(np.zeros(shape, np.int32), *_sides_of(stage, sides))
        decoder = coder.Decoder(reader, *own, config.num_levels)
        walk.walk(stage.model, decoder, condition, report)
        found.append(own.filled())
        condition = found[-1].as_images()
    levels[...] = found[-1].levels
    return all(
        np.array_equal(one.levels, other.levels)
        for one, other in zip(found, pictures(model, levels, sides), strict=True)
    )


def _sides_of(stage, sides):
    """The sides of the pictures of a stage, of images with these sides."""
    return tuple(-(-np.asarray(side) // stage.view.factor) for side in sides)
