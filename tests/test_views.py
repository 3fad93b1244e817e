"""Views of images, against slow arithmetic with fractions."""

import fractions

import numpy as np
import pytest
import tensorflow as tf
from comparisons import one_line

from pixel_cnn_pp import views

EACH = pytest.mark.parametrize(
    "name", ["image", "gray:16", "gray:3", "mean:2", "mean:3", "every:2"]
)


def images_of(num_levels, shape=(3, 6, 12, 3), dtype=None):
    dtype = dtype or ("uint8" if num_levels <= 256 else "uint16")
    return np.random.default_rng(0).integers(0, num_levels, shape).astype(dtype)


def exact_gray(pixel, num_gray, num_levels):
    """floor((0.299 R + 0.587 G + 0.114 B) / (L / G)), with fractions."""
    weights = [fractions.Fraction(weight) for weight in ("0.299", "0.587", "0.114")]
    gray = sum(weight * int(level) for weight, level in zip(weights, pixel, strict=True))
    return gray * num_gray // num_levels


def slow_view(name, images, num_levels):
    """The view of one pixel after the other."""
    kind, _, number = name.partition(":")
    if kind == "image":
        return images
    number = int(number)
    if kind == "gray":
        found = [exact_gray(pixel, number, num_levels) for pixel in images.reshape(-1, 3)]
        return np.reshape(found, (*images.shape[:3], 1))
    batch, height, width, channels = images.shape
    found = np.zeros((batch, height // number, width // number, channels), int)
    for b, i, j, c in np.ndindex(found.shape):
        block = images[b, i * number : (i + 1) * number, j * number : (j + 1) * number, c]
        mean = fractions.Fraction(int(block.astype(int).sum()), number**2)
        found[b, i, j, c] = block[0, 0] if kind == "every" else round(mean)  # half to even
    return found


@EACH
@pytest.mark.parametrize("num_levels", [3, 17, 256, 65536])
def test_a_view_is_that_of_slow_fractions_for_arrays_and_tensors_of_every_dtype(name, num_levels):
    images = images_of(num_levels)
    if name == "gray:16" and num_levels < 16:
        with one_line("Images must have 16 to 134217 levels for the view gray:16. Received: 3"):
            views.parse(name).levels_of(num_levels)
        return
    view = views.parse(name)
    expected = slow_view(name, images, num_levels)
    found = view.of(images, num_levels)
    np.testing.assert_array_equal(found, expected)
    assert found.shape[1:] == view.shape_of(images.shape[1:])
    levels = view.levels_of(num_levels)
    assert levels == (int(name[5:]) if name.startswith("gray") else num_levels)
    assert found.max() < levels
    assert found.dtype == ("uint8" if levels <= 256 else "uint16")
    for dtype in ("int64", "float32", "float64"):
        np.testing.assert_array_equal(view.of(images.astype(dtype), num_levels), expected)
    compiled = tf.function(
        lambda x: view.of(x, num_levels),
        input_signature=[tf.TensorSpec([None, None, None, 3], images.dtype)],
    )
    for tensor in (view.of(tf.constant(images), num_levels), compiled(images)):
        np.testing.assert_array_equal(tensor, expected)
        assert tensor.dtype == (images.dtype if name in ("image", "every:2") else tf.int32)


def test_gray_is_exact_where_floats_are_not():
    # Every gray colour, all corners, and many others. Floats find 15 for (16, 16, 16) and the like.
    grid = np.array(np.meshgrid(*[range(0, 256, 17)] * 3)).reshape(3, -1).T
    grays = np.repeat(np.arange(256)[:, None], 3, axis=1)
    pixels = np.concatenate([grays, grid]).astype(np.uint8)
    found = views.parse("gray:16").of(pixels[:, None, None], 256)[:, 0, 0, 0]
    np.testing.assert_array_equal(found, [exact_gray(pixel, 16, 256) for pixel in pixels])
    assert found[: len(grays)].tolist() == [level // 16 for level in range(256)]
    floats = pixels @ np.array([0.299, 0.587, 0.114])
    assert (found != np.floor(floats / 16)).any(), "the test has colours where rounding shows"


def test_halves_are_rounded_to_the_even_number():
    blocks = np.array([[0, 0, 1, 1], [1, 1, 2, 2], [0, 1, 2, 3], [5, 5, 5, 7], [0, 0, 0, 1]])
    means = views.parse("mean:2").of(blocks.reshape(5, 2, 2, 1), 8)
    assert means.ravel().tolist() == [0, 2, 2, 6, 0]  # of 0.5, 1.5, 1.5, 5.5, 0.25


def test_the_largest_sums_do_not_wrap_around():
    white = np.full((1, 128, 128, 1), 65535, np.uint16)
    view = views.parse("mean:128")
    assert view.levels_of(65536) == 65536
    for images in (white, tf.constant(white)):
        assert np.asarray(view.of(images, 65536)).ravel().tolist() == [65535]
    gray = views.parse("gray:32")
    assert gray.levels_of(65536) == 32
    colour = white.repeat(3, axis=-1)
    for images in (colour, tf.constant(colour)):
        assert np.asarray(gray.of(images, 65536)).min() == 31
    with one_line("Images must have 2 to 32768 levels for the view mean:256. Received: 65536"):
        views.parse("mean:256").levels_of(65536)
    with one_line("Images must have 33 to 65075 levels for the view gray:33. Received: 65536"):
        views.parse("gray:33").levels_of(65536)


@EACH
def test_a_view_is_known_where_all_pixels_are_that_it_is_of(name):
    view = views.parse(name)
    mask = np.random.default_rng(0).random((4, 6, 12)) < 0.8
    expected = np.ones((4, 6 // view.factor, 12 // view.factor), bool)
    for b, i, j in np.ndindex(mask.shape):
        counts = view.kind != "every" or (i % view.factor == 0 and j % view.factor == 0)
        if counts:
            expected[b, i // view.factor, j // view.factor] &= mask[b, i, j]
    assert 0 < expected.mean() < 1
    for given in (mask, tf.constant(mask)):
        np.testing.assert_array_equal(view.known(given), expected)
    # The other pixels do not count.
    images = images_of(256, (4, 6, 12, 3))
    others = np.where(mask[..., None], images, 255 - images)
    np.testing.assert_array_equal(view.of(images, 256)[expected], view.of(others, 256)[expected])


@EACH
def test_a_view_is_made_from_its_name_again(name):
    assert views.parse(name).name == name
    assert views.parse(np.str_(name)) == views.parse(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "grey:16", "gray", "gray:1", "gray:016", "gray:1466", "mean:0", "mean:1", "mean:-2",
        "mean:2.0", "mean:2 ", "mean:٢", "every:10000", "image:2", None, 4, ["mean:2"],
        np.zeros((3, 3)),
    ],
)  # fmt: skip
def test_what_is_no_view_is_refused_in_one_line(name):
    with one_line("A view must be image, gray:G, mean:N or every:N, G from 2 to 1465 and N from 2"):
        views.parse(name)


def test_images_that_have_no_such_view_are_refused_in_one_line():
    for name, shape, part in (
        ("gray:16", (4, 6, 1), "Images must have 3 channels for the view gray:16. Received: 1"),
        ("mean:4", (8, 6, 3), "multiples of 4 for the view mean:4. Received: 8 x 6"),
        ("every:2", (5, 4, 1), "multiples of 2 for the view every:2. Received: 5 x 4"),
    ):
        view = views.parse(name)
        images = np.zeros((2, *shape), np.uint8)
        with one_line(part):
            view.shape_of(shape)
        for given in (images, tf.constant(images)):
            with one_line(part):
                view.of(given, 256)


def test_sides_that_are_not_known_yet_stay_unknown():
    assert views.parse("mean:2").shape_of((None, 6, 3)) == (None, 3, 3)
    with one_line("Received: None x 5"):
        views.parse("every:2").shape_of((None, 5, 3))
