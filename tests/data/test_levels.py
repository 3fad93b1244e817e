import numpy as np
import pytest

import pixel_cnn_pp as pcnn


@pytest.mark.parametrize("num_levels", [2, 17, 256, 4096, 65536])
@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1), (0, 255)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_level_comes_back_from_its_float(num_levels, value_range, dtype):
    levels, (low, high) = np.arange(num_levels), value_range
    floats = (low + levels / (num_levels - 1) * (high - low)).astype(dtype)
    found = pcnn.to_levels(floats, num_levels, value_range)
    np.testing.assert_array_equal(found, levels)
    assert found.dtype == (np.uint8 if num_levels <= 256 else np.uint16)


def test_lists_booleans_and_bytes_are_taken_too():
    assert pcnn.to_levels([[True, False]], 2, (0, 1)).tolist() == [[1, 0]]
    assert pcnn.to_levels(np.array([0, 255], np.uint8), 256, (0, 255)).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([0.0, 1.5], 256, (0, 1)),
            r"`images` must lie in \[0, 1\]. Received: values in \[0, 1.5\]",
        ),
        (([-1.0, 1.0], 256, (0, 1)), r"must lie in \[0, 1\]. Received: values in \[-1, 1\]"),
        (([0.5, np.nan], 256, (0, 1)), r"must lie in \[0, 1\]. Received: values in \[nan, nan\]"),
        ((["a"], 256, (0, 1)), "must be an array of numbers. Received: list"),
        ((None, 256, (0, 1)), "must be an array of numbers. Received: NoneType"),
        (([0.5], 1, (0, 1)), r"`num_levels` must be .* in \[2, 65536\]. Received: num_levels=1"),
        (([0.5], 256.0, (0, 1)), r"`num_levels` must be .* Received: num_levels=256.0"),
        (([0.5], 256, (1, 0)), r"pair of numbers, the lower first. Received: value_range=\(1, 0\)"),
        (([0.5], 256, None), "pair of numbers, the lower first. Received: value_range=None"),
    ],
)
def test_what_cannot_be_levels_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        pcnn.to_levels(*arguments)
    assert "\n" not in str(caught.value)
