import pathlib
import re

import array_formats
import handmade
import numpy as np
import pytest
from absl import flags
from PIL import Image

from pixel_cnn_pp import config, data
from pixel_cnn_pp.data import store
from pixel_cnn_pp.runs import loop

ROOT = pathlib.Path(__file__).parents[2]


def test_the_known_names_are_these():
    sets = (
        *("digits", "photos", "mnist", "fashion_mnist", "binarized_mnist"),
        *("cifar", "cifar100", "imagenet32", "imagenet64", "celeba", "celeba128"),
    )
    assert data.names() == (*sets, "folder:PATH", "npz:PATH", "file:PATH", "tfds:NAME")


@pytest.mark.parametrize(
    "name", ["kmnist", "tfds:", "folder", "folder:", "zip:a.zip", "digits:", ""]
)
def test_an_unknown_name_lists_the_known_ones(name):
    known = ", ".join(data.names())
    with pytest.raises(ValueError, match=f"`name` must be one of {known}. Received: name='{name}'"):
        data.load(name, "train")


@pytest.mark.parametrize("name", data.names())
def test_an_unknown_split_lists_the_known_ones(name):
    message = r"`split` must be one of train, test. Received: split='valid'"
    with pytest.raises(ValueError, match=message):
        data.load(name, "valid")


@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        ("digits", 16, r"`image_size` must be 8 for 'digits', or None. Received: image_size=16"),
        ("cifar", 8, r"`image_size` must be 32 for 'cifar', or None. Received: image_size=8"),
        ("mnist", 32, r"`image_size` must be 28 for 'mnist', or None. Received: image_size=32"),
        ("fashion_mnist", 32, r"must be 28 for 'fashion_mnist', or None. Received: image_size=32"),
        ("binarized_mnist", 8, r"must be 28 for 'binarized_mnist', or None. Rec.*image_size=8"),
        ("imagenet64", 32, r"must be 64 for 'imagenet64', or None. Received: image_size=32"),
        ("celeba", 149, r"`image_size` .*\[1, 148\] for 'celeba'. Received: image_size=149"),
        ("folder:x", 0, r"`image_size` .*whole number.*image_size=0"),
        ("npz:x", 8.0, r"`image_size` .*whole number.*image_size=8.0"),
        ("photos", 161, r"`image_size` .*\[1, 160\]. Received: image_size=161"),
        ("photos", 0, r"`image_size` .*\[1, 160\]. Received: image_size=0"),
        ("photos", 32.0, r"`image_size` .*whole number.*image_size=32.0"),
    ],
)
def test_a_size_that_the_data_set_lacks_is_refused(name, image_size, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, "test", image_size=image_size)


@pytest.fixture
def folder(tmp_path):
    """A folder of grey images of 16 bits and several sizes in two classes, one broken; its data."""
    random = np.random.default_rng(0)
    for number in range(40):
        pixels = random.integers(0, 1000, (8 + number % 5, 12)).astype(np.uint16)
        path = tmp_path / "set" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    return tmp_path / "set"


OPTIONS = {"image_size": 8, "crop": "random", "num_levels": 1000, "test_fraction": 0.3}


def test_a_data_set_on_disk_is_named_by_its_path_and_says_what_was_found(folder, tmp_path):
    lines = []
    name = f"folder:{folder}"
    loaded = {
        split: data.load(name, split, tmp_path / "data", log=lines.append, **OPTIONS)
        for split in ("train", "test")
    }
    train, test = loaded.values()
    assert len(train.images) + len(test.images) == 39
    assert train.images.shape[1:] == test.images.shape[1:] == (8, 8, 1)
    assert (train.num_levels, train.num_classes, train.images.dtype) == (1000, 2, np.uint16)
    assert isinstance(train.images, np.memmap)
    assert train.uncropped is not None and test.uncropped is None
    for line, (split, part) in zip(lines, loaded.items(), strict=True):
        assert line.startswith(f"{name}, {split}: {len(part.images)} images")
    assert "1 left out as unreadable: b/39.png (" in "".join(lines)

    settings = config.DataConfig(name, str(tmp_path / "data"), **OPTIONS)
    again = data.load_split(settings, "test", log=lines.append)
    np.testing.assert_array_equal(again.images, test.images)


def test_so_many_training_images_are_always_the_same_ones_in_their_order(folder, tmp_path):
    whole = data.load("digits", "train")
    some = data.load_split(config.DataConfig("digits", num_train_images=200), "train")
    assert (some.num_levels, some.num_classes) == (17, 10)
    rows = [np.flatnonzero((whole.images == image).all(axis=(1, 2, 3))) for image in some.images]
    assert all(len(found) == 1 for found in rows)  # no two digits are alike
    rows = np.concatenate(rows)
    assert len(rows) == 200 and np.all(np.diff(rows) > 0)
    # A draw from all of them: the standard deviation of the mean of 200 rows is 31.
    assert abs(np.mean(rows) - 1540 / 2) < 4 * 31
    np.testing.assert_array_equal(some.labels, whole.labels[rows])
    again = data.load("digits", "train", num_train_images=200)
    np.testing.assert_array_equal(again.images, some.images)
    assert len(data.load("digits", "test", num_train_images=200).images) == 256
    with pytest.raises(ValueError, match="`num_train_images` must be left out where crops are ra"):
        data.load(f"folder:{folder}", "train", tmp_path / "data", num_train_images=8, **OPTIONS)


def test_an_array_on_disk_is_named_by_its_path(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 16, (30, 8, 12))
    np.savez(tmp_path / "set.npz", x_train=images[:20], x_test=images[20:])
    test = data.load(f"npz:{tmp_path / 'set.npz'}", "test", tmp_path / "data")
    np.testing.assert_array_equal(test.images[..., 0], images[20:])
    assert test.num_levels == 16
    assert capsys.readouterr().out == f"npz:{tmp_path / 'set.npz'}, test: 10 images\n"


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("digits", {"crop": "random"}, "`crop` must be left out for 'digits', .*: crop='random'"),
        ("cifar", {"test_fraction": 0.1}, "`test_fraction` must be left out for 'cifar', .*=0.1"),
        ("celeba", {"num_levels": 256}, "`num_levels` must be left out for 'celeba', .*=256"),
        ("folder:x", {"crop": "top"}, "`crop` must be one of center, random. .*: crop='top'"),
        ("folder:x", {"crop": "random"}, "`crop` must go with an `image_size`. Received: crop='ra"),
        ("npz:x", {"test_fraction": 1}, "`test_fraction` must lie between 0 and 1. .*_fraction=1"),
        ("digits", {"num_train_images": 1542}, r"`num_train_images` must .* in \[1, 1541\]"),
        ("npz:x", {"num_levels": 1}, r"`num_levels` must .* in \[2, 65536\]. .*: num_levels=1"),
        ("folder:x", {}, "must be a folder of pictures. Received: x, which is none"),
        ("npz:x.npz", {}, "No such file or directory: 'x.npz'"),
    ],
)
def test_options_that_mean_nothing_are_refused(name, option, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        data.load(name, "train", tmp_path / "data", **option)
    assert not (tmp_path / "data" / "cache").exists() or not any(tmp_path.glob("data/cache/*"))


def test_a_folder_with_a_broken_file_of_16_bits_trains_on_the_rest(folder, tmp_path):
    settings = config.DataConfig(f"folder:{folder}", str(tmp_path / "data"), **OPTIONS)
    lines = []
    train, test = (data.load_split(settings, split, log=lines.append) for split in store.SPLITS)
    assert "1 left out as unreadable: b/39.png (" in "".join(lines)
    model = config.ModelConfig(
        (8, 8, 1), 1000, nr_resnet=2, receptive_field="11x5", nr_filters=4, num_classes=2
    )
    training = config.TrainingConfig(
        str(tmp_path / "run"),
        class_conditional=True,
        augment="flip",
        batch_size=8,
        max_epochs=1,
        num_samples=0,
        nr_gpu=0,
    )
    loop.train(config.RunConfig(model, settings, training), train, test, log=lines.append)
    found = r"epoch 1/1  step 3  train \d+\.\d+  test \d+\.\d+ bits/dim"
    assert re.search(found, "\n".join(lines))


def test_every_command_that_names_a_data_set_in_the_documents_takes_it():
    lines = [
        line.partition("#")[0]
        for path in (ROOT / "README.md", ROOT / "docs" / "data.md")
        for line in path.read_text().splitlines()
        if re.match(r"python train.py .*--data_set", line)
    ]
    assert len(lines) > 8
    kinds = set()
    for line in lines:
        flag_values = flags.FlagValues()
        config.define_flags(config.RunConfig, flag_values)
        config.define_preset(flag_values)
        flag_values(line.split()[1:])
        kinds.add(flag_values.data_set.partition(":")[0])
    assert kinds <= {name.partition(":")[0] for name in data.names()}
    assert kinds >= {"cifar", "imagenet32", "imagenet64", "celeba", "folder", "npz"}


def test_each_picture_of_an_archive_without_splits_has_its_own_size(tmp_path):
    # Every third one is too small. Its place tells, because the value is the number.
    pictures = [np.full((4 if n % 3 == 0 else 8, 8, 1), n, np.uint8) for n in range(30)]
    members = {f"{n:02}.png": handmade.png(each, 8, 0) for n, each in enumerate(pictures)}
    (tmp_path / "set.tar").write_bytes(array_formats.tar(members, False))
    options = {"image_size": 8, "test_fraction": 0.4, "log": lambda line: None}
    train, test = (
        data.load(f"file:{tmp_path / 'set.tar'}", split, tmp_path / "data", **options).images
        for split in store.SPLITS
    )
    found = sorted([*train[:, 0, 0, 0].tolist(), *test[:, 0, 0, 0].tolist()])
    assert found == [n for n in range(30) if n % 3]


def test_labels_of_a_run_before_classes_had_names_are_their_numbers(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 12), np.uint8)
    settings = config.DataConfig(f"npz:{tmp_path / 'set.npz'}", str(tmp_path / "data"))
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(30) % 3 + 1)
    # Labels 1 to 3 were four classes.
    before = data.load_split(settings, "train", num_classes=4, log=print)
    now = data.load_split(settings, "train", log=print)
    assert (before.num_classes, now.num_classes) == (4, 3)
    np.testing.assert_array_equal(before.labels, now.labels + 1)
    assert now.class_names == ("1", "2", "3")
    np.testing.assert_array_equal(now.given_labels, before.given_labels)


@pytest.mark.parametrize("names", [("train-0.tar", "train-1.tar", "val-0.tar"), ("0.tar", "1.tar")])
def test_archives_in_a_folder_are_of_the_splits_that_their_names_say(names, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (len(names), 5, 8, 12, 3), np.uint8)
    (tmp_path / "set").mkdir()
    for name, part in zip(names, images, strict=True):
        members = {f"{number}.png": handmade.png(each, 8, 2) for number, each in enumerate(part)}
        (tmp_path / "set" / name).write_bytes(array_formats.tar(members, False))
    name = f"file:{tmp_path / 'set'}"
    train, test = (data.load(name, split, tmp_path / "data").images for split in store.SPLITS)
    if len(names) == 3:
        np.testing.assert_array_equal(train, images[:2].reshape(10, 8, 12, 3))
        np.testing.assert_array_equal(test, images[2])
    else:
        found = {image.tobytes() for image in np.concatenate([train, test])}
        assert found == {image.tobytes() for image in images.reshape(10, 8, 12, 3)}
    (tmp_path / "set" / "more.tar").write_bytes(array_formats.tar(members, False))
    if len(names) == 3:
        with pytest.raises(ValueError, match=r"by their splits, .* Received: more.tar in .*set"):
            data.load(name, "train", tmp_path / "data")
