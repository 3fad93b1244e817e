import numpy as np
import pytest

from pixel_cnn_pp.data import arrays, store

RANDOM = np.random.default_rng(0)
OPTIONS = {"image_size": None, "crop": "center", "test_fraction": None, "num_levels": None}


def load_both(load, path, data_dir, **options):
    """The stored training and test split."""
    options = OPTIONS | options
    return [load(path, split, data_dir, **options) for split in store.SPLITS]


def load_arrays(path, data_dir, **options):
    return load_both(arrays.load_arrays, path, data_dir, **options)


def as_set(images):
    return {image.tobytes() for image in images}


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def whole_numbers(high, *shape, dtype=np.uint8):
    return RANDOM.integers(0, high, shape).astype(dtype)


def test_an_npz_of_images_and_labels_is_split_by_number(tmp_path, data_dir):
    images, labels = whole_numbers(256, 70, 8, 12, 3), RANDOM.integers(0, 5, 70)
    labels[0] = 4
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    train, test = load_arrays(tmp_path / "set.npz", data_dir)
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for stored in (train, test):
        assert [label_of[image.tobytes()] for image in stored.images] == stored.labels.tolist()
        assert (stored.num_levels, stored.num_classes) == (256, 5)
        assert isinstance(stored.images, np.memmap) and stored.labels.dtype == np.int32
    assert as_set(train.images) | as_set(test.images) == as_set(images)
    assert len(train.images) + len(test.images) == 70

    # More images leave these on their sides.
    more = np.concatenate([images, whole_numbers(256, 30, 8, 12, 3)])
    np.savez(tmp_path / "set.npz", images=more)
    again, _ = load_arrays(tmp_path / "set.npz", data_dir)
    assert as_set(again.images) & as_set(images) == as_set(train.images)


@pytest.mark.parametrize(
    ("train_name", "test_name"),
    [("train_images", "test_images"), ("train_images", "val_images"), ("x_train", "x_test")],
)
def test_an_npz_may_have_its_own_test_split(train_name, test_name, tmp_path, data_dir):
    def labels_name(name):
        return name.replace("images", "labels").replace("x_", "y_")

    arrays = {
        train_name: whole_numbers(256, 5, 8, 12),
        labels_name(train_name): np.array([[0], [1], [1], [0], [1]]),  # [N, 1], as some have them
        test_name: whole_numbers(256, 3, 8, 12),
        labels_name(test_name): np.array([2, 0, 1]),
        "names": np.array([{}]),
    }
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **arrays)
    train, test = load_arrays(path, data_dir)
    np.testing.assert_array_equal(train.images[..., 0], arrays[train_name])
    np.testing.assert_array_equal(test.images[..., 0], arrays[test_name])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 1, 0, 1], [2, 0, 1])
    assert train.num_classes == test.num_classes == 3
    with pytest.raises(
        ValueError, match=rf"left out where the data have {test_name}. Received: test_"
    ):
        load_arrays(path, data_dir, test_fraction=0.5)


@pytest.mark.parametrize(
    ("dtype", "high", "num_levels", "stored_as"),
    [
        (bool, 2, 2, np.uint8),
        (np.uint8, 3, 256, np.uint8),
        (np.int64, 3, 4, np.uint8),
        (np.int16, 256, 256, np.uint8),
        (np.uint16, 257, 512, np.uint16),
        (np.int32, 65536, 65536, np.uint16),
    ],
)
def test_levels_follow_from_type_and_values(dtype, high, num_levels, stored_as, tmp_path, data_dir):
    images = whole_numbers(high, 9, 4, 8, dtype=dtype)
    images[0, 0, 0] = high - 1
    np.save(tmp_path / "set.npy", images)
    train, test = load_arrays(tmp_path / "set.npy", data_dir)
    every = np.concatenate([train.images, test.images])
    assert train.num_levels == test.num_levels == num_levels
    assert every.dtype == stored_as
    assert as_set(every) == as_set(images.astype(stored_as))
    given = load_arrays(tmp_path / "set.npy", data_dir, num_levels=high)
    assert given[0].num_levels == high
    if high > 2:
        with pytest.raises(
            ValueError, match=rf"highest value of the images, {high - 1}. Received: "
        ):
            load_arrays(tmp_path / "set.npy", data_dir, num_levels=high - 1)


def test_arrays_can_be_cropped(tmp_path, data_dir):
    images = whole_numbers(256, 9, 10, 13)
    np.save(tmp_path / "set.npy", images)
    train, test = load_arrays(tmp_path / "set.npy", data_dir, image_size=8, crop="random")
    every = np.concatenate([train.images, test.images])
    assert as_set(every) == as_set(np.ascontiguousarray(images[:, 1:9, 2:10]))
    assert train.uncropped.sizes.tolist() == [[10, 13]] * len(train.images)
    with pytest.raises(
        ValueError, match=r"`image_size` must be at most 10, .*Received: image_size=12"
    ):
        load_arrays(tmp_path / "set.npy", data_dir, image_size=12)


IMAGES = np.zeros((9, 8, 12), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"pictures": IMAGES, "classes": IMAGES},
            "must hold `images`, .*Received: .*bad.npz with no",
        ),
        ({"images": IMAGES / 2}, "at most 16 bits. Received: float64 in 'images' of .*bad.npz"),
        (
            {"images": IMAGES.astype(int) - 1},
            r"\[0, 65535\]. Received: values in \[-1, -1\] in 'imag",
        ),
        (
            {"images": IMAGES.astype(int) + 2**16},
            r"\[0, 65535\]. Received: values in \[65536, 65536\] in",
        ),
        ({"images": IMAGES[0]}, r"shape \[N, H, W\] or .*Received: shape \(8, 12\) in .*bad.npz"),
        ({"images": IMAGES[:, :0]}, r"not empty. Received: shape \(9, 0, 12\) in 'images' of"),
        ({"images": IMAGES[:, :6]}, "multiples of 4, or .* Received: 6 x 12"),
        ({"images": IMAGES[:1]}, "at least two images, .*Received: 1 in .*bad.npz"),
        (
            {"images": IMAGES, "labels": np.zeros(8, int)},
            r"Labels must be 9 whole .* of shape \(8,\)",
        ),
        (
            {"images": IMAGES, "labels": np.zeros(9)},
            r"Labels must be 9 whole .*Received: float64 of",
        ),
        (
            {"images": IMAGES, "labels": np.arange(9) - 1},
            r"Received: values in \[-1, 7\] for 'images'",
        ),
        (
            {"train_images": IMAGES, "test_images": IMAGES[:, 4:]},
            r"of one shape, .*Received: shape \(9, 4, 12\) in 'test_images' of",
        ),
        (
            {"train_images": IMAGES, "test_images": IMAGES, "test_labels": np.zeros(9, int)},
            "Both splits must have labels, or none. Received: .*bad.npz with labels of one",
        ),
    ],
)
def test_arrays_that_are_no_images_are_one_line(arrays, message, tmp_path, data_dir):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_arrays(tmp_path / "bad.npz", data_dir)
    assert "\n" not in str(caught.value)
    assert not list(data_dir.glob("cache/*"))


def test_arrays_that_are_not_there_are_one_line(tmp_path, data_dir):
    for name in ("none.npz", "none.npy"):
        with pytest.raises(FileNotFoundError, match=name):
            load_arrays(tmp_path / name, data_dir)
