import json

import numpy as np
import pytest

from pixel_cnn_pp.data import store, writing

RANDOM = np.random.default_rng(0)


def touch(folder):
    (folder / "made").write_text("here")


def test_an_entry_is_written_once_for_a_key(tmp_path):
    calls = []

    def write(folder):
        calls.append(folder)
        touch(folder)

    first = store.entry(tmp_path, "set", ["a", 1], write)
    again = store.entry(tmp_path, "set", ["a", 1], write)
    other = store.entry(tmp_path, "set", ["a", 2], write)
    assert first == again != other and len(calls) == 2
    assert (first / "made").read_text() == "here"
    assert sorted(tmp_path.glob("cache/*")) == sorted([first, other])


def test_an_entry_whose_writing_fails_leaves_nothing(tmp_path):
    def fail(folder):
        touch(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.entry(tmp_path, "set", [], fail)
    assert list(tmp_path.glob("cache/*")) == []
    assert (store.entry(tmp_path, "set", [], touch) / "made").exists()


def test_of_two_processes_that_write_an_entry_the_first_one_wins(tmp_path):
    def write(folder):
        store.entry(tmp_path, "set", [], touch)  # the other process, meanwhile
        (folder / "second").write_text("too late")

    folder = store.entry(tmp_path, "set", [], write)
    assert [path.name for path in folder.iterdir()] == ["made"]
    assert list(tmp_path.glob("cache/*")) == [folder]


def write_entry(folder):
    """An entry of two splits, with classes and uncropped images."""
    for split in store.SPLITS:
        with writing.split_writer(folder, split, (4, 3, 2), np.uint8, False, True) as writer:
            for label in (0, 1, 0):
                writer.append(RANDOM.integers(0, 256, (5, 6, 2)).astype(np.uint8), label)
    writing.write_about(folder, 256, num_classes=2)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def drop_key(path):
    values = json.loads(path.read_text())
    values.popitem()
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("name", "how", "reason"),
    [
        ("about.json", drop_key, "other keys in"),
        ("about.json", lambda path: path.write_text(""), "Expecting value"),
        ("test/about.json", drop_key, "other keys in test/about.json"),
        ("train/images.npy", cut, "train/images.npy: mmap length"),
        ("train/images.npy", lambda path: path.write_bytes(b""), "train/images.npy: "),
        ("test/images.npy", lambda path: path.unlink(), "No such file"),
        ("test/labels.npy", cut, "test/labels.npy: mmap length"),
        ("test/labels.npy", lambda path: np.save(path, np.array([0, 1, 2])), "labels in"),
        ("train/sizes.npy", lambda path: np.save(path, np.ones((2, 2), int)), "train/sizes.npy is"),
        ("train/uncropped.npy", cut, "train/uncropped.npy: mmap length"),
        ("train/uncropped.npy", lambda path: path.unlink(), "No such file"),
    ],
)
def test_a_damaged_entry_is_made_anew_with_a_line(name, how, reason, tmp_path, capsys):
    calls = []

    def write(folder):
        calls.append(folder)
        write_entry(folder)

    def entry():
        return store.entry(tmp_path, "set", [], write, store.damage)

    folder = entry()
    assert entry() == folder and len(calls) == 1 and capsys.readouterr().out == ""
    how(folder / name)
    assert entry() == folder and len(calls) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder} is damaged (") and line.endswith("), and is made anew.")
    assert reason in line
    assert store.load_stored(folder, "train").images.shape == (3, 4, 3, 2)
    assert entry() == folder and len(calls) == 2
    assert list(tmp_path.glob("cache/*")) == [folder]


def test_the_state_of_a_file_changes_with_it(tmp_path):
    path = tmp_path / "file"
    assert store.file_state(path) == (0, 0)
    path.write_text("one")
    first = store.file_state(path)
    assert first[0] == 3
    path.write_text("more")
    assert store.file_state(path) != first


def test_more_than_the_disk_holds_is_refused_beforehand(tmp_path):
    store.check_space(tmp_path, 1)
    with pytest.raises(OSError, match=r"Not enough disk space: .* take 1099511627776 MiB, and \d+"):
        store.check_space(tmp_path, 2**60)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("lengths", [[], [1], [3, 0, 999999]])
def test_an_array_written_piece_by_piece_is_the_whole_array(dtype, lengths, tmp_path):
    pieces = [RANDOM.integers(0, 256, (length, 2, 1)).astype(dtype) for length in lengths]
    with writing.array_writer(tmp_path / "a.npy", (2, 1), dtype) as append:
        for piece in pieces:
            append(piece)
    whole = np.concatenate([np.zeros((0, 2, 1), dtype), *pieces])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), whole, strict=True)


def write_split(folder, images, labels, size, keeps_uncropped, split="train", has_alpha=False):
    shape = (*size, images[0].shape[-1])
    with writing.split_writer(folder, split, shape, np.uint8, has_alpha, keeps_uncropped) as writer:
        for image, label in zip(images, labels, strict=True):
            writer.append(image, label)
        assert len(writer) == len(images)
        writer.left_out = "one left out"


def test_a_split_has_the_centres_and_the_whole_images(tmp_path):
    sizes = [(4, 5), (6, 4), (5, 5), (9, 7)]
    images = [RANDOM.integers(0, 200, (*size, 3), np.uint8) for size in sizes]
    write_split(tmp_path, images, [2, 0, 1, 2], (4, 4), keeps_uncropped=True)
    writing.write_about(tmp_path, 256, 3)
    stored = store.load_stored(tmp_path, "train")
    centres = [images[0][:, :4], images[1][1:5], images[2][:4, :4], images[3][2:6, 1:5]]
    np.testing.assert_array_equal(stored.images, centres)
    np.testing.assert_array_equal(stored.labels, np.array([2, 0, 1, 2], np.int32), strict=True)
    assert isinstance(stored.images, np.memmap)
    assert (stored.num_levels, stored.num_classes) == (256, 3)
    assert stored.highest == max(image.max() for image in images)
    assert stored.description == "4 images; one left out"
    np.testing.assert_array_equal(stored.uncropped.sizes, sizes)
    for index, image in enumerate(images):
        height, width = sizes[index]
        whole = stored.uncropped.crop(index, 0, 0, height, width)
        np.testing.assert_array_equal(whole, image)
        corner = stored.uncropped.crop(index, height - 4, width - 3, 4, 3)
        np.testing.assert_array_equal(corner, image[-4:, -3:])


@pytest.mark.parametrize(("alpha", "num_kept"), [([255, 255], 3), ([255, 254], 4), ([0, 255], 4)])
def test_alpha_is_dropped_where_it_is_opaque_in_both_splits(alpha, num_kept, tmp_path):
    for split, lowest in zip(store.SPLITS, alpha, strict=True):
        image = RANDOM.integers(0, 200, (4, 4, 4), np.uint8)
        image[..., 3] = 255
        image[1, 2, 3] = lowest
        write_split(tmp_path, [image], [None], (4, 4), split == "train", split, has_alpha=True)
    writing.write_about(tmp_path, 256, None)
    for split in store.SPLITS:
        stored = store.load_stored(tmp_path, split)
        assert stored.images.shape == (1, 4, 4, num_kept)
        assert stored.labels is None
        assert (stored.highest == 255) == (num_kept == 4)
        if stored.uncropped is not None:
            np.testing.assert_array_equal(stored.uncropped.crop(0, 0, 0, 4, 4), stored.images[0])


def test_levels_are_those_given_where_all_values_lie_below(tmp_path):
    write_split(tmp_path, [np.full((4, 4, 1), 11, np.uint8)], [None], (4, 4), False)
    writing.write_about(tmp_path, 65536, None)
    assert store.load_stored(tmp_path, "train", 12).num_levels == 12
    found = store.load_stored(tmp_path, "train")
    assert found.num_levels == 65536
    assert found.description.endswith(
        "; 65536 levels, but no value is above 11: perhaps --num_levels 16"
    )
    message = "`num_levels` must be above the highest value of the images, 11. Received: num_level"
    with pytest.raises(ValueError, match=message):
        store.load_stored(tmp_path, "train", 11)


def test_a_split_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Each split must have images. Received: none for test"):
        write_nothing(tmp_path)


def write_nothing(folder):
    with writing.split_writer(folder, "test", (4, 4, 1), np.uint8):
        pass
