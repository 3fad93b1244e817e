import numpy as np
import pytest
from loading import as_set, load_arrays

RANDOM = np.random.default_rng(0)


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
        ValueError, match=r"left out where the data have a (test|valid) split. Received: test_"
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
            {"latents": IMAGES, "weights": IMAGES},
            r"must hold `images`, .*: .*bad.npz with latents \(9, 8, 12\), weights \(9, 8, 12\)$",
        ),
        (
            {"images": IMAGES / 2},
            "to_levels makes them of floats. Received: float64 in 'images' of .*bad.npz",
        ),
        (
            {"images": IMAGES.astype(int) - 1},
            r"\[0, 65535\]. Received: values in \[-1, -1\] in 'imag",
        ),
        (
            {"images": IMAGES.astype(int) + 2**16},
            r"\[0, 65535\]. Received: values in \[65536, 65536\] in",
        ),
        ({"images": IMAGES[0]}, r"shape \[N, H, W\] or .*Received: shape \(8, 12\) in .*bad.npz"),
        ({"images": IMAGES[:, :0]}, r"not be empty. Received: shape \(9, 0, 12\) in 'images' of"),
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
            r"of one shape. Received: .*, \(9, 4, 12\) in 'test_images' of",
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


@pytest.mark.parametrize(
    ("names", "is_alone"),
    [
        (("arr_0",), True),
        (("arr_0", "arr_1"), False),
        (("data", "labels"), False),
        (("X", "y"), False),
        (("image", "label"), False),
        (("imgs", "target", "latents"), False),
    ],
)
def test_the_usual_names_are_known(names, is_alone, tmp_path, data_dir):
    images, labels = whole_numbers(256, 30, 8, 12), np.arange(30) % 3
    np.savez(tmp_path / "a.npz", **dict(zip(names, (images, labels, labels), strict=False)))
    stored = load_arrays(tmp_path / "a.npz", data_dir)
    assert as_set(np.concatenate([part.images for part in stored])) == as_set(images)
    for part in stored:
        assert (part.labels is None) == is_alone
        assert is_alone or part.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    "names",
    [
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_data", "train_label", "val_data", "val_label"),
        ("Xtr", "ytr", "Xte", "yte"),
        ("trainImages", "trainLabels", "testImages", "testLabels"),
    ],
)
def test_the_usual_names_of_splits_are_known(names, tmp_path, data_dir):
    sets = [whole_numbers(256, 5, 8, 12), np.arange(5), whole_numbers(256, 3, 8, 12), np.arange(3)]
    np.savez(tmp_path / "a.npz", **dict(zip(names, sets, strict=True)))
    train, test = load_arrays(tmp_path / "a.npz", data_dir)
    np.testing.assert_array_equal(train.images[..., 0], sets[0])
    np.testing.assert_array_equal(test.images[..., 0], sets[2])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 3, 4], [0, 1, 2])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("data", "pixels"), "one array of images .* Received: .*a.npz with data and pixels"),
        (("test_images",), "must have training images too. Received: .*a.npz without"),
        (("images", "train_images"), "must hold `images`, .* with images .*, train_images"),
    ],
)
def test_names_that_leave_a_choice_are_refused(names, message, tmp_path, data_dir):
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names, IMAGES))
    with pytest.raises(ValueError, match=message):
        load_arrays(tmp_path / "a.npz", data_dir)


def test_classes_are_the_labels_that_occur_and_keep_their_names(tmp_path, data_dir):
    images, labels = whole_numbers(256, 40, 8, 12), np.array([10**9, 1, 2, 4] * 10)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    stored = load_arrays(tmp_path / "a.npz", data_dir)
    number_of = {1: 0, 2: 1, 4: 2, 10**9: 3}
    label_of = {image.tobytes(): number_of[n] for image, n in zip(images, labels, strict=True)}
    for part in stored:
        assert (part.num_classes, part.class_names) == (4, ("1", "2", "4", "1000000000"))
        assert part.labels.tolist() == [label_of[image.tobytes()] for image in part.images]
        counts = np.bincount(part.labels, minlength=4)
        assert part.description == (
            f"{len(part.images)} images; 4 classes: 1 ({counts[0]}), 2 ({counts[1]}), "
            f"4 ({counts[2]}), 1000000000 ({counts[3]})"
        )
    # A run's classes say which numbers the same labels get.
    again = load_arrays(
        tmp_path / "a.npz", data_dir, class_names=("4", "2", "1", "9", "1000000000")
    )
    for part, before in zip(again, stored, strict=True):
        assert part.num_classes == 5
        np.testing.assert_array_equal(part.labels, np.array([2, 1, 0, 4])[before.labels])
    with pytest.raises(ValueError, match=r"classes of the run: 1, 2, 4. Received: 1000000000"):
        load_arrays(tmp_path / "a.npz", data_dir, class_names=("1", "2", "4"))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first_are_taken_only_where_that_is_said(channels, tmp_path, data_dir):
    images = whole_numbers(256, 9, channels, 8, 12)
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(
        ValueError, match=r"--channels_first takes it so, .*\(9, ., 8, 12\) in .*npy"
    ):
        load_arrays(tmp_path / "a.npy", data_dir)
    stored = load_arrays(tmp_path / "a.npy", data_dir, channels_first=True)
    every = np.concatenate([part.images for part in stored])
    assert as_set(every) == as_set(np.ascontiguousarray(np.moveaxis(images, 1, -1)))
    if channels == 4:
        as_it_stands = load_arrays(tmp_path / "a.npy", data_dir, channels_first=False)
        assert as_it_stands[0].images.shape[1:] == (4, 8, 12)


def test_four_rows_of_colours_do_not_look_swapped(tmp_path, data_dir):
    np.save(tmp_path / "a.npy", whole_numbers(256, 9, 4, 8, 3))
    assert load_arrays(tmp_path / "a.npy", data_dir)[0].images.shape[1:] == (4, 8, 3)


def test_bytes_of_zeros_and_ones_get_a_hint_and_no_more_levels_than_they_hold(tmp_path, data_dir):
    np.save(tmp_path / "a.npy", whole_numbers(2, 9, 8, 12))
    train, _ = load_arrays(tmp_path / "a.npy", data_dir)
    assert train.num_levels == 256
    assert "256 levels, but no value is above 1: perhaps --num_levels 2" in train.description
    with pytest.raises(ValueError, match=r"at most 256, the levels that the files can hold. Rec"):
        load_arrays(tmp_path / "a.npy", data_dir, num_levels=4096)
