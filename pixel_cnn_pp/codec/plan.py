"""Pictures as tiles, and tiles in chunks that are coded side by side.

The plan follows from numbers that stand in the header of a file. So a decoder makes the same plan.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

# The most sub-pixels of a chunk, with its padding. It limits the memory: 4 bytes each.
MAX_CHUNK = 2**27
# The most images of a batch.
MAX_BATCH = 1024


class Tile(NamedTuple):
    """A part of a picture: the number of the picture, the upper left corner, and the size."""

    picture: int
    top: int
    left: int
    height: int
    width: int

    def of(self, picture):
        """This part of the picture [H, W, C], as a view."""
        rows = slice(self.top, self.top + self.height)
        return picture[rows, self.left : self.left + self.width]


class Chunk(NamedTuple):
    """Tiles that are coded side by side, and the size of the canvas that holds each of them."""

    tiles: list
    height: int
    width: int


def num_tiles(shapes, tile_shape):
    """Number of tiles of pictures, without making them.

    Args:
      shapes: List of (height, width, number of pictures of this size).
      tile_shape: (height, width) of a tile, or None for whole pictures.

    Returns:
      Integer.

    >>> num_tiles([(5, 9, 10)], (4, 4))
    60
    """
    if tile_shape is None:
        return sum(number for _, _, number in shapes)
    return sum(
        number * math.prod(-(-side // tile) for side, tile in zip(sides, tile_shape, strict=True))
        for *sides, number in shapes
    )


def make(shapes, tile_shape, batch_size):
    """Divides pictures into tiles, from left to right and from top to bottom, and into chunks.

    The tiles at the right and lower edges of a picture may be smaller. A canvas may be wider than
    its tile. What is outside of the tile is not coded. With tiles all canvases have the same width,
    because each width is compiled once.
    Whole pictures have canvases of their own width. Then a chunk has only pictures of one width.

    Args:
      shapes: List of (height, width, number of pictures of this size).
      tile_shape: (height, width) of a tile, or None for whole pictures.
      batch_size: The most tiles in a chunk.

    Yields:
      Chunk after Chunk. They are not kept, because a forged header may promise many.
    """
    for width in _canvas_widths(shapes, tile_shape):
        tiles = _tiles(shapes, tile_shape, width)
        while own := list(itertools.islice(tiles, batch_size)):
            yield Chunk(own, max(tile.height for tile in own), width)


def num_chunks(shapes, tile_shape, batch_size):
    """Number of chunks that `make` makes, without making them."""
    total = 0
    for width in _canvas_widths(shapes, tile_shape):
        own = [shape for shape in shapes if tile_shape or shape[1] == width]
        total += -(-num_tiles(own, tile_shape) // batch_size)
    return total


def _canvas_widths(shapes, tile_shape):
    """The widths of the canvases, in the order in which they are first needed."""
    widths = [width for _, width, _ in shapes]
    if tile_shape is not None:
        widths = [min(tile_shape[1], max(widths))]
    return list(dict.fromkeys(widths))


def _tiles(shapes, tile_shape, canvas_width):
    """The tiles that have a canvas of this width."""
    picture = 0
    for height, width, number in shapes:
        if tile_shape is None and width != canvas_width:
            picture += number
            continue
        tile_height, tile_width = (height, width) if tile_shape is None else tile_shape
        for _ in range(number):
            for top in range(0, height, tile_height):
                for left in range(0, width, tile_width):
                    own_height = min(tile_height, height - top)
                    own_width = min(tile_width, width - left)
                    yield Tile(picture, top, left, own_height, own_width)
            picture += 1


def rounded_up(chunk, multiple):
    """A chunk whose canvas has the least sides that hold the tiles and are multiples of a number.

    >>> rounded_up(Chunk([], 5, 8), 4)
    Chunk(tiles=[], height=8, width=8)
    """
    sides = (-(-side // multiple) * multiple for side in (chunk.height, chunk.width))
    return Chunk(chunk.tiles, *sides)


def canvas(chunk, batch_size, num_channels):
    """An empty canvas for a chunk.

    Args:
      chunk: Chunk of at most B tiles.
      batch_size: B.
      num_channels: C.

    Returns:
      (levels, (heights, widths)): int32 zeros [H, W, B, C], and the sides [B] of the tiles, 0 for
      those that fill the batch up.
    """
    levels = np.zeros((chunk.height, chunk.width, batch_size, num_channels), np.int32)
    sides = np.zeros((2, batch_size), int)
    sides[:, : len(chunk.tiles)] = np.transpose([(t.height, t.width) for t in chunk.tiles])
    return levels, sides


def condition_of(chunk, batch_size, condition):
    """What the B images of a chunk are conditioned on.

    Args:
      chunk: Chunk of at most B tiles.
      batch_size: B.
      condition: Array [N, ...], what each picture is conditioned on; or None.

    Returns:
      Array [B, ...], with zeros for images that fill the batch up. None without a condition.
    """
    if condition is None:
        return None
    own = np.zeros((batch_size, *condition.shape[1:]), condition.dtype)
    own[: len(chunk.tiles)] = condition[[tile.picture for tile in chunk.tiles]]
    return own


def grouped(shapes):
    """Groups the sizes of pictures that follow each other.

    >>> grouped([(2, 3), (2, 3), (5, 3)])
    [(2, 3, 2), (5, 3, 1)]
    """
    groups = []
    for height, width in shapes:
        if groups and groups[-1][:2] == (height, width):
            groups[-1] = (height, width, groups[-1][2] + 1)
        else:
            groups.append((height, width, 1))
    return groups
