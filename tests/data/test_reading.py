import numpy as np
import pytest
from PIL import Image

from pixel_cnn_pp import data, plots

LEVELS = np.array([[0, 1, 2], [13, 15, 16]], np.uint8)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_a_colour_picture_of_256_levels_is_read_as_it_is(ending, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(pixels).save(path, lossless=True)
    read = data.read_images(path, num_channels=3, num_levels=256)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels[None])


def test_the_brightness_of_a_picture_is_brought_to_the_levels(tmp_path):
    path = tmp_path / "grey.png"
    shown = plots.image_grid(LEVELS[None, ..., None], 1, num_levels=17)[..., 0]
    Image.fromarray(shown).save(path)
    read = data.read_images(path, num_channels=1, num_levels=17)
    np.testing.assert_array_equal(read, LEVELS[None, ..., None])


def test_a_picture_of_16_bits_keeps_them(tmp_path):
    pixels = np.array([[0, 1, 40000], [65535, 256, 7]], np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(pixels).save(path)
    read = data.read_images(path, num_channels=1, num_levels=65536)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, pixels[None, ..., None])


def test_a_picture_with_a_palette_has_its_colours(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[1, 2] = [255, 0, 10]
    path = tmp_path / "palette.png"
    Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(data.read_images(path, 3, 256), pixels[None])


def test_the_levels_of_an_npz_are_read_as_they_are(tmp_path):
    images = np.stack([LEVELS, LEVELS[::-1]])[..., None]
    np.savez(tmp_path / "drawn.npz", images=images, labels=[1, 2])
    np.testing.assert_array_equal(data.read_images(tmp_path / "drawn.npz", 1, 17), images)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": LEVELS}, "An npz must hold `images`. Received: .*bad.npz"),
        ({"images": LEVELS}, r"`images of .*bad.npz` must have the shape \[N, H, W, C\] and"),
        (
            {"images": LEVELS[None, ..., None] / 2},
            "`images of .*bad.npz` must be a NumPy array of integers",
        ),
        ({"images": LEVELS[None, ..., None] + 1}, r"`images of .*bad.npz` must lie in \[0, 16\]"),
        ({"images": LEVELS[None, None]}, "Images must have C = 1. Received: C = 3 in .*bad.npz"),
    ],
)
def test_an_npz_without_such_images_is_one_line(arrays, message, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_images(tmp_path / "bad.npz", num_channels=1, num_levels=17)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cut.npz", "cut.png"])
def test_a_file_that_was_cut_short_is_one_line(name, tmp_path):
    path = tmp_path / name
    if name.endswith("npz"):
        np.savez(path, images=LEVELS[None, ..., None])
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises((ValueError, OSError)) as caught:
        data.read_images(path, num_channels=1, num_levels=256)
    assert str(caught.value) and "\n" not in str(caught.value)
