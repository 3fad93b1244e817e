import os
import pathlib

import numpy as np
import pytest
from loading import as_set, load_both, load_folder
from PIL import Image

from pixel_cnn_pp.data import arrays, folders

RANDOM = np.random.default_rng(0)


def colours(height=8, width=12, channels=3):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RANDOM.integers(0, 256, shape, np.uint8)


def save(root, pictures):
    """Writes {name: pixels} as PNG files; returns the folder."""
    for name, pixels in pictures.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def test_a_flat_folder_is_split_by_the_names_of_its_files(tmp_path, data_dir):
    pictures = {f"{number}.png": colours() for number in range(60)}
    root = save(tmp_path / "set", pictures)
    train, test = load_folder(root, data_dir)
    assert as_set(train.images) | as_set(test.images) == as_set(pictures.values())
    assert len(train.images) + len(test.images) == 60
    assert 1 <= len(test.images) <= 14  # a tenth, and three standard deviations
    assert train.labels is None and train.num_classes is None
    assert (train.images.shape[1:], train.images.dtype) == ((8, 12, 3), np.uint8)
    assert (train.num_levels, train.highest, train.uncropped) == (256, 255, None)

    # Files that come or go move no other to the other side.
    os.remove(root / "7.png")
    save(root, {"more.png": colours()})
    again = load_folder(root, data_dir)
    for before, after in zip((train, test), again, strict=True):
        known = as_set(pictures.values()) - {pictures["7.png"].tobytes()}
        assert as_set(after.images) & known == as_set(before.images) & known

    # The names alone decide, in whatever folder the files lie.
    moved = save(tmp_path / "moved", pictures)
    assert as_set(load_folder(moved, data_dir)[1].images) == as_set(test.images)
    half = load_folder(moved, data_dir, test_fraction=0.5)[1]
    assert as_set(half.images) > as_set(test.images) and 15 <= len(half.images) <= 45


def test_sub_folders_are_the_classes_in_the_order_of_their_names(tmp_path, data_dir):
    pictures = {f"{name}/{n}.png": colours() for name in ("cat", "ant", "bee") for n in range(8)}
    root = save(tmp_path / "set", pictures)
    label_of = {pixels.tobytes(): "abc".index(name[0]) for name, pixels in pictures.items()}
    train, test = load_folder(root, data_dir)
    for stored in (train, test):
        labels = [label_of[image.tobytes()] for image in stored.images]
        np.testing.assert_array_equal(stored.labels, labels)
        assert (stored.num_classes, stored.labels.dtype) == (3, np.int32)


@pytest.mark.parametrize("test_name", ["test", "valid", "val"])
def test_a_folder_may_have_its_own_test_split(test_name, tmp_path, data_dir):
    sides = {
        "train": {f"train/{name}/1.png": colours() for name in "ab"},
        "test": {f"{test_name}/{name}/1.png": colours() for name in "bc"},
    }
    root = save(tmp_path / "set", sides["train"] | sides["test"])
    train, test = load_folder(root, data_dir)
    np.testing.assert_array_equal(train.images, list(sides["train"].values()))
    np.testing.assert_array_equal(test.images, list(sides["test"].values()))
    assert (train.labels.tolist(), test.labels.tolist(), test.num_classes) == ([0, 1], [1, 2], 3)
    message = rf"`test_fraction` must be left out where the data have a {test_name} split. Received"
    with pytest.raises(ValueError, match=message):
        load_folder(root, data_dir, test_fraction=0.3)


def test_test_comes_before_valid_and_a_lone_train_is_split(tmp_path, data_dir):
    pictures = {f"{part}/{n}.png": colours() for part in ("train", "valid", "test") for n in "12"}
    root = save(tmp_path / "set", pictures)
    _, test = load_folder(root, data_dir)
    np.testing.assert_array_equal(test.images, [pictures["test/1.png"], pictures["test/2.png"]])
    lone = save(tmp_path / "lone", {f"train/{n}.png": colours() for n in range(9)})
    train, test = load_folder(lone, data_dir)
    assert len(train.images) + len(test.images) == 9
    assert train.labels is None


def test_larger_images_are_cropped_and_smaller_ones_left_out(tmp_path, data_dir):
    sizes = {"a.png": (8, 9), "b.png": (13, 8), "c.png": (7, 20), "d.png": (8, 8)}
    pictures = {f"train/{name}": colours(*size) for name, size in sizes.items()}
    pictures["test/e.png"] = colours(10, 12)
    root = save(tmp_path / "set", pictures)
    train, test = load_folder(root, data_dir, image_size=8, crop="random")
    centres = [
        pictures["train/a.png"][:, :8],
        pictures["train/b.png"][2:10],
        pictures["train/d.png"],
    ]
    np.testing.assert_array_equal(train.images, centres)
    np.testing.assert_array_equal(test.images, [pictures["test/e.png"][1:9, 2:10]])
    assert train.description == "3 images; 1 left out as smaller than 8 x 8"
    assert test.uncropped is None
    np.testing.assert_array_equal(train.uncropped.sizes, [(8, 9), (13, 8), (8, 8)])
    whole = train.uncropped.crop(1, 0, 0, 13, 8)
    np.testing.assert_array_equal(whole, pictures["train/b.png"])
    assert load_folder(root, data_dir, image_size=8)[0].uncropped is None


def test_broken_files_are_named_and_the_rest_is_loaded(tmp_path, data_dir):
    pictures = {f"train/{number:02}.png": colours(16, 16) for number in range(20)}
    root = save(tmp_path / "set", pictures | {"test/00.png": colours(16, 16)})
    cut = root / "train" / "03.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / "train" / "08.png").write_text("no picture")
    for _ in range(2):  # decoded, and from the cache
        train, test = load_folder(root, data_dir)
        kept = [pixels for name, pixels in pictures.items() if name[6:8] not in ("03", "08")]
        np.testing.assert_array_equal(train.images, kept)
        assert train.description == (
            "18 images; 2 left out as unreadable: train/03.png (image file is truncated), "
            "train/08.png (cannot identify image file)"
        )
        assert test.description == "1 image"

    (root / "train" / "09.png").write_text("no picture")
    message = r"At most 10% of the pictures may be unreadable. Received: 3 of 21 in .*train/03.png"
    with pytest.raises(ValueError, match=message) as caught:
        load_folder(root, data_dir)
    assert "\n" not in str(caught.value)


def test_a_second_load_decodes_nothing_and_a_changed_file_is_seen(tmp_path, data_dir, monkeypatch):
    root = save(tmp_path / "set", {f"{number}.png": colours() for number in range(12)})
    train, _ = load_folder(root, data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        again, _ = load_folder(root, data_dir)
        np.testing.assert_array_equal(again.images, train.images)
        load_folder(pathlib.Path(os.path.relpath(root)), data_dir)
    changed = colours()
    save(root, {"0.png": changed})
    os.utime(root / "0.png", ns=(1, 1))
    every = np.concatenate([stored.images for stored in load_folder(root, data_dir)])
    assert changed.tobytes() in as_set(every)


def test_a_path_is_looked_for_in_the_data_directory_too(tmp_path, data_dir):
    save(data_dir / "set", {f"{number}.png": colours() for number in range(4)})
    np.save(data_dir / "set.npy", np.zeros((4, 8, 12), np.uint8))
    for load, name in ((folders.load_folder, "set"), (arrays.load_arrays, "set.npy")):
        train, test = load_both(load, name, data_dir)
        assert len(train.images) + len(test.images) == 4


def test_grey_of_16_bits_has_its_levels_or_those_given(tmp_path, data_dir):
    pictures = {f"{n}.png": RANDOM.integers(0, 4096, (8, 12)).astype(np.uint16) for n in range(9)}
    pictures["0.png"][0, 0] = 4095
    root = save(tmp_path / "set", pictures)
    train, test = load_folder(root, data_dir)
    every = np.concatenate([train.images, test.images])
    assert as_set(every) == as_set(pictures.values()) and every.dtype == np.uint16
    assert train.num_levels == 65536
    assert "no value is above 4095: perhaps --num_levels 4096" in train.description
    assert load_folder(root, data_dir, num_levels=4096)[1].num_levels == 4096
    with pytest.raises(
        ValueError, match=r"must be above the highest value of the images, 4095. Rec"
    ):
        load_folder(root, data_dir, num_levels=4095)


def test_black_and_white_has_two_levels(tmp_path, data_dir):
    pictures = {f"{n}.png": RANDOM.integers(0, 2, (8, 12)).astype(bool) for n in range(9)}
    root = save(tmp_path / "set", pictures)
    train, test = load_folder(root, data_dir)
    every = np.concatenate([train.images, test.images])
    assert (train.num_levels, train.images.shape[1:]) == (2, (8, 12, 1))
    assert as_set(every.astype(bool)) == as_set(pictures.values())


def test_files_that_were_squeezed_to_fewer_bits_keep_their_brightness(tmp_path, data_dir):
    black_and_white = RANDOM.integers(0, 2, (8, 12)).astype(bool)
    pictures = {"train/a.png": colours(channels=1), "train/b.png": black_and_white}
    root = save(tmp_path / "set", pictures | {"test/c.png": colours(channels=1)})
    train, _ = load_folder(root, data_dir)
    assert train.num_levels == 256
    np.testing.assert_array_equal(train.images[1, ..., 0], 255 * black_and_white)


def test_alpha_is_dropped_where_all_of_it_is_opaque(tmp_path, data_dir):
    opaque = colours(channels=4)
    opaque[..., 3] = 255
    mixed = {"train/a.png": colours(), "train/b.png": opaque, "test/c.png": opaque}
    train, test = load_folder(save(tmp_path / "mixed", mixed), data_dir)
    np.testing.assert_array_equal(train.images, [mixed["train/a.png"], opaque[..., :3]])
    np.testing.assert_array_equal(test.images, [opaque[..., :3]])

    clear = colours(channels=4)
    some = {"train/a.png": opaque, "train/b.png": clear, "test/c.png": opaque}
    train, test = load_folder(save(tmp_path / "some", some), data_dir)
    np.testing.assert_array_equal(train.images, [opaque, clear])
    np.testing.assert_array_equal(test.images, [opaque])

    root = save(tmp_path / "odd", mixed | {"train/odd.png": clear})
    with pytest.raises(ValueError, match=r"or none .*Received: train/odd.png in .*odd"):
        load_folder(root, data_dir)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            {"odd.png": colours(channels=1)},
            {},
            r"the same channels and bits. .*odd.png \(grey of 8 bits\), 12 others RGB of 8 bits$",
        ),
        (
            {"odd.png": colours()[..., 0].astype(np.uint16)},
            {},
            r"the same channels and bits. Received: .*odd.png \(grey of 16 bits\), 12 others",
        ),
        (
            {"odd.png": colours(8, 16)},
            {},
            r"one size, or `image_size` must .*Received: .*odd.png of 8 x 16, 12 others of 8 x 12",
        ),
        (
            {"a/b.png": colours()},
            {},
            r"sub-folders, .*Received: .*/1.png in none, 1 pictures in som",
        ),
        (
            {"test/b.png": colours()},
            {},
            r"with test/ must have train/ too. Received: .*set without",
        ),
        (
            {},
            {"image_size": 12},
            r"Each split must have images of at least 12 x 12. Received: .*set",
        ),
        (
            {},
            {"crop": "random"},
            r"`crop` must go with an `image_size`. Received: crop='random' alo",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(change, options, message, tmp_path, data_dir):
    root = save(tmp_path / "set", {f"{number}.png": colours() for number in range(12)} | change)
    with pytest.raises(ValueError, match=message) as caught:
        load_folder(root, data_dir, **options)
    assert "\n" not in str(caught.value)
    assert not list(data_dir.glob("cache/*"))


def test_images_of_one_odd_size_are_one_line(tmp_path, data_dir):
    root = save(tmp_path / "set", {f"{number}.png": colours(9, 12) for number in range(4)})
    with pytest.raises(
        ValueError, match=r"multiples of 4, or `image_size` must .* Received: 9 x 12"
    ):
        load_folder(root, data_dir)


def test_a_missing_an_empty_and_a_nearly_empty_folder_are_one_line(tmp_path, data_dir):
    with pytest.raises(
        OSError, match=r"must be a folder of pictures. Received: .*none, which is non"
    ):
        load_folder(tmp_path / "none", data_dir)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold pictures .* Received: .*empty with none"):
        load_folder(tmp_path / "empty", data_dir)
    lone = save(tmp_path / "lone", {"a.png": colours()})
    with pytest.raises(ValueError, match=r"at least two images, .* Received: 1 in .*lone"):
        load_folder(lone, data_dir)


def test_a_cache_that_cannot_be_written_is_an_os_error(tmp_path):
    root = save(tmp_path / "set", {f"{number}.png": colours() for number in range(4)})
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory"):
        load_folder(root, tmp_path / "file")
