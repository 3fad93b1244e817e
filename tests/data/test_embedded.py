import numpy as np
import pytest
import sklearn.datasets

from pixel_cnn_pp import data


def test_every_seventh_digit_is_the_test_split():
    whole = sklearn.datasets.load_digits()
    test = data.load("digits", "test")
    np.testing.assert_array_equal(test.images[..., 0], whole.images[6::7])
    np.testing.assert_array_equal(test.labels, whole.target[6::7])
    assert (test.images.shape, test.images.dtype) == ((256, 8, 8, 1), np.uint8)
    assert (test.num_levels, test.num_classes, test.labels.dtype) == (17, 10, np.int32)


def test_all_other_digits_are_the_train_split():
    whole = sklearn.datasets.load_digits()
    train = data.load("digits", "train", image_size=8)
    np.testing.assert_array_equal(train.images[..., 0], np.delete(whole.images, np.s_[6::7], 0))
    np.testing.assert_array_equal(train.labels, np.delete(whole.target, np.s_[6::7]))
    assert len(train.images) == 1541
    assert train.images.max() == 16


def test_both_splits_of_the_digits_have_every_class():
    for split in ("train", "test"):
        assert set(data.load("digits", split).labels) == set(range(10))


def test_the_photos_are_crops_of_the_two_photographs():
    for split, num_images in (("train", 5400), ("test", 130)):
        photos = data.load("photos", split)
        assert (photos.images.shape, photos.images.dtype) == ((num_images, 32, 32, 3), np.uint8)
        assert (photos.num_levels, photos.num_classes, photos.labels.dtype) == (256, 2, np.int32)
        np.testing.assert_array_equal(np.bincount(photos.labels), [num_images // 2] * 2)
    pagoda = sklearn.datasets.load_sample_image("china.jpg")
    np.testing.assert_array_equal(photos.images[0], pagoda[:32, 80:112])
    dahlia = sklearn.datasets.load_sample_image("flower.jpg")
    np.testing.assert_array_equal(photos.images[-1], dahlia[384:416, 208:240])


def test_the_largest_crop_is_as_wide_as_the_test_strip():
    assert data.load("photos", "test", image_size=160).images.shape == (4, 160, 160, 3)


@pytest.mark.parametrize("image_size", [7, 32, 90])  # 90 does not fit left of the test strip.
def test_no_pixel_of_a_photograph_is_in_both_splits(monkeypatch, image_size):
    height, width = 101, 640
    # Every pixel carries its own number, (photograph * H + row) * W + column, in three bytes.
    numbers = np.arange(2 * height * width).reshape(2, height, width)
    tagged = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], -1).astype(np.uint8)
    photographs = {"china.jpg": tagged[0], "flower.jpg": tagged[1]}
    monkeypatch.setattr("sklearn.datasets.load_sample_image", photographs.__getitem__)

    def pixels(split):
        photos = data.load("photos", split, image_size=image_size)
        found = photos.images.astype(np.int64) @ [65536, 256, 1]  # [N, H, W]
        # Every crop is one whole square of the photograph that its label names.
        square = width * np.arange(image_size)[:, None] + np.arange(image_size)
        np.testing.assert_array_equal(
            found - found[:, :1, :1], np.broadcast_to(square, found.shape)
        )
        np.testing.assert_array_equal(
            found // (height * width), photos.labels[:, None, None] + 0 * found
        )
        return found

    def corners(first_column, end_column, stride):
        return [
            (photograph, row, column)
            for photograph in range(2)
            for row in range(0, height - image_size + 1, stride)
            for column in range(first_column, end_column - image_size + 1, stride)
        ]

    train, test = pixels("train"), pixels("test")
    in_train, in_test = (
        np.bincount(part.ravel(), minlength=numbers.size) for part in (train, test)
    )
    assert not np.any((in_train > 0) & (in_test > 0))
    assert in_test.max() == 1

    def corner_set(part):
        places = np.stack(np.unravel_index(part[:, 0, 0], numbers.shape), axis=-1)
        return sorted(map(tuple, places.tolist()))

    assert corner_set(test) == corners(80, 240, image_size)
    assert corner_set(train) == sorted(corners(0, 80, 8) + corners(240, 640, 8))
