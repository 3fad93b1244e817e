import os

import numpy as np
import pytest
from PIL import Image

from pixel_cnn_pp import data

LEVELS = np.array([[0, 1, 2], [13, 15, 16]], np.uint8)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_a_colour_picture_of_256_levels_is_read_as_it_is(ending, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(pixels).save(path, lossless=True)
    read = data.load_file(path, num_channels=3, num_levels=256)
    assert read.images.dtype == np.uint8 and read.labels is None
    np.testing.assert_array_equal(read.images, pixels[None])


@pytest.mark.parametrize("num_levels", [256, 17])
def test_the_levels_of_a_picture_are_taken_as_they_stand(num_levels, tmp_path):
    Image.fromarray(LEVELS).save(tmp_path / "grey.png")
    read = data.load_file(tmp_path / "grey.png", num_channels=1, num_levels=num_levels)
    np.testing.assert_array_equal(read.images, LEVELS[None, ..., None])


def test_12_bits_in_16_are_the_same_levels_at_every_door(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (9, 8, 12)).astype(np.uint16)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    np.save(tmp_path / "all.npy", pixels)
    folder = {
        image.tobytes()
        for split in ("train", "test")
        for image in data.load(f"folder:{tmp_path}", split, tmp_path / "d", num_levels=4096).images
    }
    assert folder == {image.tobytes() for image in pixels}
    one = data.load_file(tmp_path / "0.png", 1, 4096)
    assert one.images.dtype == np.int32
    np.testing.assert_array_equal(one.images[0, ..., 0], pixels[0])
    np.testing.assert_array_equal(
        data.load_file(tmp_path / "all.npy", 1, 4096).images[..., 0], pixels
    )


@pytest.mark.parametrize(
    ("pixels", "num_levels", "message"),
    [
        (
            LEVELS,
            16,
            r"highest value of the images, 16. Received: num_levels=16 for .*a.[pn]",
        ),
        (
            LEVELS,
            4096,
            "at most 256, the levels that the files can hold. Received: .*=4096",
        ),
        (
            LEVELS > 9,
            256,
            "at most 2, the levels that the files can hold. Received: .*=256",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["png", "npy"])
def test_other_levels_are_refused_and_never_scaled(pixels, num_levels, message, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path) if ending == "png" else np.save(path, pixels[None])
    with pytest.raises(ValueError, match=message):
        data.load_file(path, 1, num_levels)


def test_a_picture_with_a_palette_has_its_colours(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[1, 2] = [255, 0, 10]
    path = tmp_path / "palette.png"
    Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(data.load_file(path, 3, 256).images, pixels[None])


def test_a_larger_picture_is_cropped_at_its_centre(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = data.load_file(tmp_path / "a.png", 3, 256, image_size=8)
    np.testing.assert_array_equal(read.images, pixels[None, :8, 3:11])
    with pytest.raises(ValueError, match=r"`image_size` must be at most 9, .*: image_size=10"):
        data.load_file(tmp_path / "a.png", 3, 256, image_size=10)


def test_the_levels_and_labels_of_an_npz_are_read_as_they_are(tmp_path):
    images = np.stack([LEVELS, LEVELS[::-1]])[..., None]
    np.savez(tmp_path / "drawn.npz", images=images, labels=[4, 2], originals=images)
    read = data.load_file(tmp_path / "drawn.npz", 1, 17, num_classes=6)
    np.testing.assert_array_equal(read.images, images)
    assert (read.labels.tolist(), read.num_classes) == ([4, 2], 6)
    named = data.load_file(tmp_path / "drawn.npz", 1, 17, 3, class_names=("2", "3", "4"))
    assert (named.labels.tolist(), named.given_labels.tolist()) == ([2, 0], [4, 2])
    alone = data.load_file(tmp_path / "drawn.npz", 1, 17)
    assert (alone.labels.tolist(), alone.class_names) == ([1, 0], ("2", "4"))
    with pytest.raises(
        ValueError, match=r"classes of the run: 0, 1, 2. Received: 4 in .*drawn.npz"
    ):
        data.load_file(tmp_path / "drawn.npz", 1, 17, num_classes=3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"latents": LEVELS, "weights": LEVELS}, "must hold `images`, .*Received: .*bad.npz with"),
        ({"images": LEVELS}, r"must have the shape \[N, H, W\] or .*\(2, 3\) in 'images' of .*bad"),
        (
            {"images": LEVELS[None] / 2},
            "whole numbers .*Received: float64 in 'images' of .*bad.npz",
        ),
        ({"images": LEVELS[None] + 1}, "above the highest value of the images, 17. Received: .*17"),
        ({"images": LEVELS[None, None]}, "Images must have C = 1. Received: C = 3 in .*bad.npz"),
        (
            {"train_images": LEVELS[None], "test_images": LEVELS[None]},
            "one set of images here; .*npz:PATH, .* Received: .*bad.npz with train_images",
        ),
    ],
)
def test_an_npz_without_such_images_is_one_line(arrays, message, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        data.load_file(tmp_path / "bad.npz", num_channels=1, num_levels=17)
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
        data.load_file(path, num_channels=1, num_levels=256)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_a_named_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(
        ValueError, match=r"must lie in a file. Received: .*pipe.png, which is none"
    ):
        data.load_file(tmp_path / "pipe.png", 1, 256)
