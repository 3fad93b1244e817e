"""listing.py and layout.py: each picture once, in the right split, or refused by name."""

import os

import numpy as np
import pytest
from loading import as_set, load_folder
from PIL import Image

from pixel_cnn_pp.data import layout, listing, splits

RANDOM = np.random.default_rng(0)


def write(root, *names):
    """Writes a picture of its own for each name; returns {name: bytes of its pixels}."""
    pixels = {}
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = RANDOM.integers(0, 256, (8, 12), np.uint8)
        Image.fromarray(image).save(path)
        pixels[name] = image.tobytes()
    return pixels


def listed(root):
    return [file.name for file in listing.list_folder(root).files]


def test_a_folder_is_listed_by_name(tmp_path):
    for name in ("b.png", "a/x.JPG", "a/deep/y.tif", "a/.hidden.png", ".git/z.png", "a/notes.txt"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = listing.list_folder(tmp_path / "set")
    assert [file.name for file in found.files] == ["a/deep/y.tif", "a/x.JPG", "b.png"]
    assert all(os.path.isfile(file.path) for file in found.files)
    assert found.passed_over == {".txt": 1}


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    message = r"must hold pictures \(\.png, .*Received: .* with none, but .txt \(1\)"
    with pytest.raises(ValueError, match=message):
        listing.list_folder(tmp_path)


def test_links_add_nothing_that_is_there_already(tmp_path):
    root = tmp_path / "around" / "set"
    names = [f"{folder}/{number}.png" for folder in "ab" for number in range(5)]
    write(root, *names)
    write(tmp_path / "around", "outside.png")
    write(tmp_path / "elsewhere", "more.png")
    (root / "a" / "up").symlink_to("..")
    (root / "b" / "up").symlink_to("../..")
    (root / "b" / "self").symlink_to("self")
    (root / "aa").symlink_to("a")
    (root / "b" / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "9.png").symlink_to("../a/0.png")
    os.link(root / "a" / "1.png", root / "b" / "8.png")
    found = listing.list_folder(root)
    assert found.repeated == ["a/up", "aa", "b/up"]
    kept = layout.arranged(found.files, splits.Options(), root, found.repeated)
    kept_names = sorted(file.name for files in kept.files.values() for file in files)
    assert kept_names == sorted([*names, "b/elsewhere/more.png"])
    assert kept.notes == ["2 links to files that are read already"]


def test_a_picture_of_both_splits_is_of_the_test_split_alone(tmp_path):
    pixels = write(tmp_path / "set", *(f"{s}/{n}.png" for s in ("test", "train") for n in range(4)))
    (tmp_path / "set" / "train" / "link.png").symlink_to("../test/0.png")
    os.link(tmp_path / "set" / "train" / "1.png", tmp_path / "set" / "test" / "hard.png")
    train, test = load_folder(tmp_path / "set", tmp_path / "data")
    assert as_set(train.images) == {pixels[f"train/{n}.png"] for n in (0, 2, 3)}
    assert as_set(test.images) == {pixels[f"test/{n}.png"] for n in range(4)} | {
        pixels["train/1.png"]
    }
    assert "; 2 links to files that are read already" in train.description


def test_a_named_pipe_and_what_is_no_picture_are_counted(tmp_path):
    write(tmp_path / "set", "1.png", "2.png")
    os.mkfifo(tmp_path / "set" / "pipe.png")
    for name in ("a.txt", "b.TXT", "README"):
        (tmp_path / "set" / name).write_text("")
    train, _ = load_folder(tmp_path / "set", tmp_path / "data")
    assert "passed over: .txt (2), without ending (1), not a file (1)" in train.description or (
        "passed over: .txt (2), not a file (1), without ending (1)" in train.description
    )
    before = sorted(os.listdir(tmp_path / "data" / "cache"))
    (tmp_path / "set" / "more.txt").write_text("")  # Nothing is decoded anew for that.
    train, _ = load_folder(tmp_path / "set", tmp_path / "data")
    assert ".txt (3)" in train.description
    assert sorted(os.listdir(tmp_path / "data" / "cache")) == before


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path / "set", "a/1.png", "b/2.png")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("/b"):  # Root may read everything.
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        OSError, match=r"must be readable. Received: .*/set/b \(Permission denied\)"
    ):
        listing.list_folder(tmp_path / "set")


def test_names_of_odd_bytes_are_read_and_can_be_printed(tmp_path):
    write(tmp_path / "set", "1.png")
    os.rename(tmp_path / "set" / "1.png", os.fsencode(tmp_path) + b"/set/caf\xe9.png")
    write(tmp_path / "set", "2.png")
    assert listed(tmp_path / "set") == ["2.png", "caf\\xe9.png"]
    train, test = load_folder(tmp_path / "set", tmp_path / "data")
    assert len(train.images) + len(test.images) == 2


@pytest.mark.parametrize(
    ("train_name", "test_name"),
    [("Train", "Test"), ("training", "testing"), ("TRAIN", "Validation"), ("trn", "dev")],
)
def test_the_usual_names_of_splits_are_known_in_any_case(train_name, test_name, tmp_path):
    pixels = write(
        tmp_path / "set", *(f"{s}/{c}/1.png" for s in (train_name, test_name) for c in "ab")
    )
    train, test = load_folder(tmp_path / "set", tmp_path / "data")
    assert as_set(train.images) == {pixels[f"{train_name}/{c}/1.png"] for c in "ab"}
    assert as_set(test.images) == {pixels[f"{test_name}/{c}/1.png"] for c in "ab"}
    assert train.class_names == ("a", "b")


def test_what_is_beside_the_splits_is_told(tmp_path):
    write(
        tmp_path / "set", *(f"{s}/1.png" for s in ("train", "test", "valid", "extra")), "loose.png"
    )
    train, test = load_folder(tmp_path / "set", tmp_path / "data")
    assert (len(train.images), len(test.images)) == (1, 1)
    for note in ("1 in no split not used", "1 in extra/ not used", "1 in valid/ not used"):
        assert f"; {note}" in train.description and f"; {note}" in test.description


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/train/1.png", "a/test/1.png"], "right in the folder .* Received: a/test in .*set"),
        (["train2017/1.png", "val2017/1.png"], "Received: train2017 in .*set"),
        (["test_set/1.png", "other/1.png"], "Received: test_set in .*set"),
        (["images-train/1.png", "images-val/1.png"], "Received: images-train in .*set"),
        (["bus/1.png", "car/1.png", "train/1.png"], "Received: .*set with bus/ beside it"),
        (["train/1.png", "train/2.png", "3.png"], "Received: .*set with pictures beside it"),
        (["train/1.png", "test/1.png", "holdout/1.png"], "Received: .*set with holdout/ beside"),
        (["train/1.png", "Train/1.png", "test/2.png"], "Received: .*set with Train/ and train/"),
        (["test/1.png", "a/1.png"], "with test/ must have train/ too. Received: .*set without it"),
    ],
)
def test_what_looks_like_a_split_and_is_not_used_is_refused(names, message, tmp_path):
    write(tmp_path / "set", *names)
    with pytest.raises(ValueError, match=message) as caught:
        load_folder(tmp_path / "set", tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_a_split_that_is_a_link_to_another_is_refused(tmp_path):
    write(tmp_path / "set", "train/1.png", "train/2.png")
    (tmp_path / "set" / "test").symlink_to("train")
    with pytest.raises(ValueError, match=r"no link to another .*Received: test in .*set"):
        load_folder(tmp_path / "set", tmp_path / "data")


def test_classes_may_be_called_anything_within_a_split(tmp_path):
    names = [f"{split}/{name}/1.png" for split in ("train", "test") for name in ("bus", "train")]
    write(tmp_path / "set", *names)
    assert load_folder(tmp_path / "set", tmp_path / "data")[0].class_names == ("bus", "train")
