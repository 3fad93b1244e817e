"""Pictures as tiles, and tiles in chunks."""

import numpy as np
import pytest

from pixel_cnn_pp.codec import plan

CASES = [
    ([(5, 9, 3), (2, 2, 1)], (4, 4), 4),
    ([(5, 9, 3), (2, 2, 1), (7, 12, 2)], None, 2),
    ([(5, 9, 3)], (6, 16), 2),
    ([(1, 1, 5)], None, 3),
]


@pytest.mark.parametrize("case", CASES)
def test_every_pixel_is_in_one_tile(case):
    shapes = case[0]
    sides = [(height, width) for height, width, number in shapes for _ in range(number)]
    seen = [np.zeros(side, int) for side in sides]
    for chunk in plan.make(*case):
        for tile in chunk.tiles:
            tile.of(seen[tile.picture])[...] += 1
    for counts in seen:
        np.testing.assert_array_equal(counts, 1)


@pytest.mark.parametrize("case", CASES)
def test_canvases_hold_their_tiles_and_are_not_wider_than_the_widest(case):
    shapes, tile_shape, batch_size = case
    chunks = list(plan.make(*case))
    for chunk in chunks:
        assert 1 <= len(chunk.tiles) <= batch_size
        assert chunk.height == max(tile.height for tile in chunk.tiles)
        assert max(tile.width for tile in chunk.tiles) <= chunk.width
        assert chunk.width <= max(width for _, width, _ in shapes)
        levels, (heights, widths) = plan.canvas(chunk, batch_size, 2)
        assert levels.shape == (chunk.height, chunk.width, batch_size, 2)
        assert len(heights) == len(widths) == batch_size
        assert not heights[len(chunk.tiles) :].any()
    if tile_shape is not None:  # each width is compiled once
        assert len({chunk.width for chunk in chunks}) == 1


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_of_tiles_and_chunks_are_known_before(case):
    chunks = list(plan.make(*case))
    assert plan.num_chunks(*case) == len(chunks)
    assert plan.num_tiles(case[0], case[1]) == sum(len(chunk.tiles) for chunk in chunks)


def test_the_plan_of_a_huge_picture_is_not_made_at_once():
    shapes = [(2**31 - 1, 2**31 - 1, 2**31 - 1)]
    assert plan.num_chunks(shapes, (32, 32), 64) > 2**60
    first = next(plan.make(shapes, (32, 32), 64))
    assert len(first.tiles) == 64
