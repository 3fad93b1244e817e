import os
import pathlib
import shutil

import handmade
import numpy as np
import pytest
from loading import as_set, load_both, load_folder
from PIL import Image

from pixel_cnn_pp.data import arrays, folders, pictures

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
            r"--convert .*odd.png \(grey of 8 bits\) in .*, 12 others RGB of 8 bits$",
        ),
        (
            {"odd.png": colours()[..., 0].astype(np.uint16)},
            {},
            r"--skip_odd .* Received: odd.png \(grey of 16 bits\) in .*, 12 others",
        ),
        (
            {"odd.png": colours(8, 16)},
            {},
            r"one size, or `image_size` must .*Received: odd.png \(8 x 16\), 12 others of 8 x 12",
        ),
        (
            {"a/b.png": colours()},
            {},
            r"sub-folders, .*Received: .*/0.png in none, 1 pictures in som",
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


def test_images_may_have_any_one_size(tmp_path, data_dir):
    root = save(tmp_path / "set", {f"{number}.png": colours(9, 13) for number in range(4)})
    assert load_folder(root, data_dir)[0].images.shape[1:] == (9, 13, 3)


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


def one_of_each_kind():
    """Pictures of several kinds; the most are RGB of 8 bits."""
    grey = colours(channels=1)
    deep = RANDOM.integers(0, 65536, (8, 12)).astype(np.uint16)
    alpha = colours(channels=4)
    return {f"{n}.png": colours() for n in range(9)} | {
        "grey.png": grey,
        "deep.png": deep,
        "alpha.png": alpha,
    }


def by_shape(stored):
    return as_set(np.concatenate([part.images for part in stored]))


def test_odd_files_are_counted_by_kind_and_can_be_left_out(tmp_path, data_dir):
    pictures = one_of_each_kind() | {"tall.png": colours(16), "grey2.png": colours(channels=1)}
    root = save(tmp_path / "set", pictures)
    message = (
        r"Received: deep.png \(grey of 16 bits\), 2 grey of 8 bits such as grey.png in .*set, "
        r"11 others RGB.* of 8 bits"
    )
    with pytest.raises(ValueError, match=message):
        load_folder(root, data_dir)
    stored = load_folder(root, data_dir, skip_odd=True)
    assert by_shape(stored) == as_set(pictures[f"{n}.png"] for n in range(9))
    told = " ".join(part.description for part in stored)
    for words in ("grey of 16 bits (1)", "16 x 12 (1)", "alpha that is not opaque (1)"):
        assert words in told


def test_pictures_can_be_made_of_one_kind(tmp_path, data_dir):
    pictures = one_of_each_kind()
    root = save(tmp_path / "set", pictures)
    eight = np.round(pictures["deep.png"] / 257).astype(np.uint8)
    colour = {f"{n}.png": pictures[f"{n}.png"] for n in range(9)}
    colour |= {"alpha.png": pictures["alpha.png"][..., :3]}
    grey = {"grey.png": pictures["grey.png"], "deep.png": eight}
    stored = load_folder(root, data_dir, convert="rgb")
    expected = [*colour.values(), *(np.stack([each] * 3, axis=-1) for each in grey.values())]
    assert by_shape(stored) == as_set(map(np.ascontiguousarray, expected))
    stored = load_folder(root, data_dir, convert="grey")
    expected = [np.asarray(Image.fromarray(each).convert("L")) for each in colour.values()]
    assert by_shape(stored) == as_set([*expected, *grey.values()])


def test_a_conversion_keeps_the_bits_that_all_pictures_have(tmp_path, data_dir):
    pixels = [RANDOM.integers(0, 65536, (8, 12)).astype(np.uint16) for _ in range(4)]
    root = save(tmp_path / "set", {f"{n}.png": each for n, each in enumerate(pixels)})
    train, _ = load_folder(root, data_dir, convert="rgb")
    assert (train.images.dtype, train.images.shape[-1], train.num_levels) == (np.uint16, 3, 65536)
    assert as_set(train.images[..., 1]) <= as_set(pixels)


def test_squeezed_files_have_their_brightness_under_a_run_of_256_levels(tmp_path, data_dir):
    pixels = [RANDOM.integers(0, 2, (8, 12)).astype(bool) for _ in range(4)]
    root = save(tmp_path / "set", {f"{n}.png": each for n, each in enumerate(pixels)})
    assert load_folder(root, data_dir)[0].num_levels == 2
    stored = load_folder(root, data_dir, num_levels=256)
    assert by_shape(stored) == as_set(255 * each.astype(np.uint8) for each in pixels)
    with pytest.raises(ValueError, match=r"at most 2, the levels that the files can hold"):
        load_folder(root, data_dir, num_levels=17)


def test_the_pages_of_stacks_are_images_and_a_lone_stack_is_split_by_them(tmp_path, data_dir):
    stacks = RANDOM.integers(0, 65536, (3, 20, 8, 12)).astype(np.uint16)
    for number, stack in enumerate(stacks):
        (tmp_path / "set").mkdir(exist_ok=True)
        pages = [{"pixels": page[..., np.newaxis]} for page in stack]
        (tmp_path / "set" / f"{number}.tif").write_bytes(handmade.tiff(*pages))
    train, test = load_folder(tmp_path / "set", data_dir)
    # The pages of a file stay together.
    parts = {len(train.images), len(test.images)}
    assert parts == {20, 40} and by_shape([train, test]) == as_set(stacks.reshape(60, 8, 12))
    assert f"; {len(train.images)} pages in {len(train.images) // 20} files, each an image" in (
        train.description
    )
    (tmp_path / "set" / "1.tif").unlink()
    (tmp_path / "set" / "2.tif").unlink()
    train, test = load_folder(tmp_path / "set", data_dir)
    assert by_shape([train, test]) == as_set(stacks[0])
    assert 1 <= len(test.images) <= 8
    assert not as_set(train.images) & as_set(test.images)


def test_a_run_s_classes_number_the_sub_folders_of_other_data(tmp_path, data_dir):
    root = save(tmp_path / "set", {f"{c}/{n}.png": colours() for c in "bc" for n in range(4)})
    stored = load_folder(root, data_dir, class_names=("a", "b", "c"))
    own = load_folder(root, data_dir)
    for part, natural in zip(stored, own, strict=True):
        assert part.num_classes == 3
        np.testing.assert_array_equal(part.labels, natural.labels + 1)
    with pytest.raises(ValueError, match=r"must be classes of the run: a, b. Received: c in"):
        load_folder(root, data_dir, class_names=("a", "b"))


def test_no_picture_is_decoded_twice_and_of_animations_the_first_frame(
    tmp_path, data_dir, monkeypatch
):
    frames = [Image.fromarray(colours(channels=1)) for _ in range(3)]
    root = save(tmp_path / "set", {f"{n}.png": colours(channels=1) for n in range(5)})
    frames[0].save(root / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    root.joinpath("moving.webp").rename(tmp_path / "moving.webp")
    decoded = []
    read = pictures.read
    monkeypatch.setattr(pictures, "read", lambda file: decoded.append(file) or read(file))
    stored = load_folder(root, data_dir)
    assert sorted(map(os.path.basename, decoded)) == [f"{n}.png" for n in range(5)]
    assert all("animated" not in part.description for part in stored)
    (tmp_path / "moving").mkdir()
    for number in range(2):
        shutil.copy(tmp_path / "moving.webp", tmp_path / "moving" / f"{number}.webp")
    train, _ = load_folder(tmp_path / "moving", data_dir)
    assert "; 1 animated, of which the first frame was read" in train.description
