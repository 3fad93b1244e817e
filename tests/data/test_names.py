import dataclasses
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets
from absl import flags
from PIL import Image

from pixel_cnn_pp import config, data, plots
from pixel_cnn_pp.data import image_store

ROOT = pathlib.Path(data.__file__).parents[1]


def numbered_images(num_images, with_labels=True):
    """Images [N, 3, 2, 1] whose every pixel is the image's number, and labels that follow it."""
    numbers = np.arange(num_images)
    images = np.broadcast_to(numbers[:, None, None, None], (num_images, 3, 2, 1)).astype(np.uint8)
    labels = (numbers * 7 % 5).astype(np.int64) if with_labels else None
    return data.ImageData(images, labels, num_levels=256, num_classes=5 if with_labels else None)


def drain(stream):
    """The batches of a stream as a list of tuples of NumPy arrays."""
    return [
        tuple(part.numpy() for part in (batch if isinstance(batch, tuple) else (batch,)))
        for batch in stream
    ]


def visited(batches):
    """The numbers of the images in the order in which they came."""
    return np.concatenate([batch[0][:, 0, 0, 0] for batch in batches])


def test_image_data_cannot_be_reassigned():
    with pytest.raises(dataclasses.FrozenInstanceError):
        numbered_images(3).num_levels = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 3, 2), np.uint8)}, r"`images` .*\[N, H, W, C\].*\(4, 3, 2\)"),
        ({"images": np.zeros((0, 3, 2, 1), np.uint8)}, r"`images` .*not be empty.*\(0, 3, 2, 1\)"),
        ({"images": np.zeros((4, 3, 2, 1), np.float32)}, r"`images` .*integers.*float32"),
        ({"images": [[[[1]]]]}, r"`images` .*NumPy array.*list"),
        ({"images": np.full((4, 3, 2, 1), 16, np.uint8)}, r"\[0, 15\]. Received: values in \[16,"),
        ({"images": np.full((4, 3, 2, 1), -1, np.int32)}, r"\[0, 15\]. Received: values in \[-1,"),
        ({"labels": np.array([0, 1, 2])}, r"one class for every image.*3 labels for 4 images"),
        ({"labels": np.array([[0], [1], [2], [0]])}, r"`labels` .*\[N\].*\(4, 1\)"),
        ({"labels": np.array([0.0, 1.0, 2.0, 0.0])}, r"`labels` .*integers.*float64"),
        ({"labels": np.array([0, 1, 3, 0])}, r"`labels` .*\[0, 2\].*\[0, 3\]"),
        ({"labels": None}, r"given together.*labels=None, num_classes=3"),
        ({"num_classes": None}, r"given together.*labels=an array, num_classes=None"),
        ({"num_classes": 0}, r"`num_classes` .*at least 1.*num_classes=0"),
        ({"num_levels": 1}, r"`num_levels` .*at least 2.*num_levels=1"),
        (
            {
                "uncropped": image_store.UncroppedImages(
                    np.zeros(3, np.uint8), np.ones((1, 2)), 3, 3
                )
            },
            r"`uncropped` must hold one image for every image. Received: 1 for 4",
        ),
        ({"num_levels": 16.0}, r"`num_levels` .*whole number.*num_levels=16.0"),
    ],
)
def test_image_data_says_in_one_line_what_is_wrong(change, message):
    fields = {
        "images": np.full((4, 3, 2, 1), 15, np.uint8),
        "labels": np.array([0, 1, 2, 0], np.int32),
        "num_levels": 16,
        "num_classes": 3,
    }
    data.ImageData(**fields)
    with pytest.raises(ValueError, match=message) as caught:
        data.ImageData(**(fields | change))
    assert "\n" not in str(caught.value)


def test_the_known_names_are_these():
    sets = ("digits", "photos", "cifar", "imagenet32", "imagenet64", "celeba")
    assert data.names() == (*sets, "folder:PATH", "npz:PATH")


@pytest.mark.parametrize("name", ["mnist", "folder", "folder:", "zip:a.zip", "digits:", ""])
def test_an_unknown_name_lists_the_known_ones(name):
    known = "digits, photos, cifar, imagenet32, imagenet64, celeba, folder:PATH, npz:PATH"
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
        ("imagenet64", 32, r"must be 64 for 'imagenet64', or None. Received: image_size=32"),
        ("celeba", 149, r"`image_size` .*\[1, 148\] for 'celeba'. Received: image_size=149"),
        ("folder:x", 10, r"`image_size` must be a multiple of 4. Received: image_size=10"),
        ("npz:x", 8.0, r"`image_size` .*whole number.*image_size=8.0"),
        ("photos", 161, r"`image_size` .*\[1, 160\]. Received: image_size=161"),
        ("photos", 0, r"`image_size` .*\[1, 160\]. Received: image_size=0"),
        ("photos", 32.0, r"`image_size` .*whole number.*image_size=32.0"),
    ],
)
def test_a_size_that_the_data_set_lacks_is_refused(name, image_size, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, "test", image_size=image_size)


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


# Data sets on disk


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


def test_known_limits_save_reading_the_images():
    class Unread(np.ndarray):
        min = max = property(lambda self: pytest.fail("read"))

    images = np.zeros((2, 4, 4, 1), np.uint16).view(Unread)
    known = data.ImageData(images, None, 4096, None, value_range=(0, 4095))
    assert known.num_levels == 4096
    data.ImageData(images.astype(np.uint8).view(Unread), None, 256, None)  # no type for more
    with pytest.raises(ValueError, match=r"\[0, 4095\]. Received: values in \[0, 4096\]"):
        data.ImageData(images, None, 4096, None, value_range=(0, 4096))


def test_a_folder_with_a_broken_file_of_16_bits_trains_on_the_rest(folder, tmp_path):
    run_dir = tmp_path / "run"
    arguments = f"-d folder:{folder} -i {tmp_path / 'data'} -o {run_dir} --image_size 8 -c "
    arguments += "--crop random --augment flip --num_levels 1000 --test_fraction 0.3 -x 1 -ns 0 "
    arguments += "-q 1 -n 4 -m 2 -b 8 -u 8 -g 0"
    done = subprocess.run(
        [sys.executable, "train.py", *arguments.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 left out as unreadable: b/39.png (" in done.stdout
    assert re.search(r"epoch 1/1  step 3  train \d+\.\d+  test \d+\.\d+ bits/dim", done.stdout)
    run = config.from_json((run_dir / "config.json").read_text())
    assert run.model.image_shape == (8, 8, 1)
    assert (run.model.num_levels, run.model.num_classes) == (1000, 2)
    assert (run.data.num_levels, run.data.crop, run.training.augment) == (1000, "random", "flip")


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


# Files of images


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


def test_an_epoch_order_is_a_permutation():
    order = data.epoch_order(1000, seed=3, epoch=5)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))


def test_the_epoch_order_never_changes():
    # Recorded with NumPy 2.2.6. Another order would break the resuming of a run in mid-epoch.
    assert data.epoch_order(10, seed=0, epoch=0).tolist() == [3, 7, 6, 4, 1, 0, 2, 8, 5, 9]
    assert data.epoch_order(10, seed=0, epoch=1).tolist() == [9, 4, 0, 8, 1, 5, 3, 2, 6, 7]
    assert data.epoch_order(10, seed=1, epoch=0).tolist() == [2, 9, 8, 3, 6, 7, 1, 4, 0, 5]
    assert data.epoch_order(1000, seed=3, epoch=5)[:5].tolist() == [566, 626, 643, 282, 283]


def test_neighbouring_seeds_and_epochs_have_other_orders():
    pairs = [(seed, epoch) for seed in range(12) for epoch in range(12)]
    assert len({data.epoch_order(50, *pair).tobytes() for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_images": 0}, r"`num_images` .*at least 1. Received: num_images=0"),
        ({"seed": -1}, r"`seed` .*\[0, 4294967295\]. Received: seed=-1"),
        ({"seed": 2**32}, r"`seed` .*Received: seed=4294967296"),
        ({"epoch": 1.0}, r"`epoch` must be a whole number .*Received: epoch=1.0"),
        ({"epoch": True}, r"`epoch` must be a whole number .*Received: epoch=True"),
    ],
)
def test_the_epoch_order_refuses_what_is_no_seed(change, message):
    with pytest.raises(ValueError, match=message):
        data.epoch_order(**({"num_images": 4, "seed": 0, "epoch": 0} | change))


def test_training_follows_the_epoch_order_in_whole_batches():
    stream = data.train_batches(numbered_images(11), batch_size=4, seed=3, epoch=2)
    assert int(stream.cardinality()) == 2
    np.testing.assert_array_equal(visited(drain(stream)), data.epoch_order(11, 3, 2)[:8])


def test_training_batches_have_static_shapes_and_the_dtypes_of_images_and_labels():
    images, labels = data.train_batches(numbered_images(11), 4, seed=0, epoch=0).element_spec
    assert (images.shape, images.dtype) == ((4, 3, 2, 1), "uint8")
    assert (labels.shape, labels.dtype) == ((4,), "int32")


def test_labels_travel_with_their_images():
    numbered = numbered_images(11)
    streams = (data.train_batches(numbered, 4, seed=1, epoch=0), data.eval_batches(numbered, 4))
    for stream in streams:
        for images, labels, *_ in drain(stream):
            np.testing.assert_array_equal(labels, numbered.labels[images[:, 0, 0, 0]])


def test_training_without_labels_gives_images_alone():
    stream = data.train_batches(numbered_images(6, with_labels=False), 4, seed=0, epoch=0)
    assert stream.element_spec.shape == (4, 3, 2, 1)
    np.testing.assert_array_equal(visited(drain(stream)), data.epoch_order(6, 0, 0)[:4])


@pytest.mark.parametrize("start_batch", range(4))
def test_a_resumed_epoch_is_the_tail_of_the_uninterrupted_one(start_batch):
    numbered = numbered_images(14)
    whole = drain(data.train_batches(numbered, 4, seed=5, epoch=1))
    rest = drain(data.train_batches(numbered, 4, seed=5, epoch=1, start_batch=start_batch))
    assert len(rest) == 3 - start_batch
    for expected, found in zip(whole[start_batch:], rest, strict=True):
        for expected_part, found_part in zip(expected, found, strict=True):
            np.testing.assert_array_equal(found_part, expected_part)


def test_no_image_is_left_out_of_every_epoch():
    epochs = [data.train_batches(numbered_images(7), 4, seed=0, epoch=epoch) for epoch in range(12)]
    assert set(np.concatenate([visited(drain(stream)) for stream in epochs])) == set(range(7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 12}, r"`batch_size` must not exceed .* 11. Received: batch_size=12"),
        ({"batch_size": 0}, r"`batch_size` .*at least 1. Received: batch_size=0"),
        ({"start_batch": 3}, r"`start_batch` .*\[0, 2\]. Received: start_batch=3"),
        ({"start_batch": -1}, r"`start_batch` .*\[0, 2\]. Received: start_batch=-1"),
        ({"seed": None}, r"`seed` .*whole number.*Received: seed=None"),
        ({"augment": "turn"}, r"`augment` must be one of none, flip. Received: augment='turn'"),
    ],
)
def test_training_refuses_batches_that_do_not_exist(change, message):
    arguments = {"batch_size": 4, "seed": 0, "epoch": 0} | change
    with pytest.raises(ValueError, match=message):
        data.train_batches(numbered_images(11), **arguments)


# Augmentation


def noise(num_images, height=5, width=4, num_levels=256):
    """Images [N, H, W, 1] of which none is like another, nor like its mirror image."""
    shape = (num_images, height, width, 1)
    images = np.random.default_rng(0).integers(0, num_levels, shape, np.uint8)
    return data.ImageData(images, None, num_levels, None)


def flips(stream, images, order):
    """Which images come mirrored, by the numbers of the images; fails where one is otherwise."""
    found = {}
    arrived = np.concatenate([batch for (batch,) in drain(stream)])
    for row, image in zip(order, arrived, strict=False):
        is_flipped = np.array_equal(image, images[row, :, ::-1])
        assert is_flipped or np.array_equal(image, images[row])
        found[row] = is_flipped
    return found


def test_half_of_the_images_are_mirrored_whatever_the_batches_are():
    some = noise(600)
    order = data.epoch_order(600, 3, 1)
    found = flips(data.train_batches(some, 100, 3, 1, augment="flip"), some.images, order)
    # Five standard deviations of 600 fair coins are 61.
    assert 239 <= sum(found.values()) <= 361
    again = flips(data.train_batches(some, 7, 3, 1, augment="flip"), some.images, order)
    assert again.items() <= found.items()
    resumed = data.train_batches(some, 100, 3, 1, start_batch=4, augment="flip")
    assert flips(resumed, some.images, order[400:]).items() <= found.items()
    order = data.epoch_order(600, 3, 2)
    other = flips(data.train_batches(some, 100, 3, 2, augment="flip"), some.images, order)
    assert 239 <= sum(found[row] == other[row] for row in range(600)) <= 361


def test_images_are_not_changed_where_they_lie():
    some = noise(40)
    before = some.images.copy()
    drain(data.train_batches(some, 40, 0, 0, augment="flip"))
    np.testing.assert_array_equal(some.images, before)
    assert flips(data.train_batches(some, 40, 0, 0), before, data.epoch_order(40, 0, 0)) == (
        dict.fromkeys(range(40), False)
    )


def many_sizes(num_images):
    """Images whose pixels are their own rows and columns, 16 * row + column, of many sizes."""
    sizes = np.stack([4 + np.arange(num_images) % 7, 8 + np.arange(num_images) % 3], axis=-1)
    places = [16 * np.arange(height)[:, None] + np.arange(width) for height, width in sizes]
    values = np.concatenate([place.ravel() for place in places]).astype(np.uint8)
    uncropped = image_store.UncroppedImages(values, sizes, num_channels=1, num_kept=1)
    centres = [place[(len(place) - 4) // 2 :][:4, :8, None] for place in places]
    return data.ImageData(np.array(centres, np.uint8), None, 256, None, uncropped), sizes


def crop_corners(stream, order):
    """{number of the image: first row and column of its crop}; fails where it is no crop."""
    arrived = np.concatenate([batch for (batch,) in drain(stream)])
    place = 16 * np.arange(4)[:, None] + np.arange(8)
    np.testing.assert_array_equal(arrived[..., 0] - arrived[:, :1, :1, 0], [place] * len(arrived))
    corners = arrived[:, 0, 0, 0]
    return {
        row: (corner // 16, corner % 16)
        for row, corner in zip(order.tolist(), corners.tolist(), strict=False)
    }


def test_every_epoch_crops_anew_whatever_the_batches_are():
    some, sizes = many_sizes(700)
    found = crop_corners(data.train_batches(some, 100, 5, 0), data.epoch_order(700, 5, 0))
    again = crop_corners(data.train_batches(some, 9, 5, 0), data.epoch_order(700, 5, 0))
    assert again.items() <= found.items()
    other = crop_corners(data.train_batches(some, 100, 5, 1), data.epoch_order(700, 5, 1))
    assert other != found
    # Every corner that fits is taken, and no other: 100 images of 10 rows have 7, of 4 rows one.
    for height in range(4, 11):
        tops = {top for row, (top, _) in found.items() if sizes[row, 0] == height}
        assert tops == set(range(height - 4 + 1))
    for width in range(8, 11):
        lefts = {left for row, (_, left) in found.items() if sizes[row, 1] == width}
        assert lefts == set(range(width - 8 + 1))
    # A test image is its centre, always.
    (centres, _, _), *_ = drain(data.eval_batches(some, 700))
    np.testing.assert_array_equal(centres, some.images)


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_parts_of_all_workers_are_the_global_batches(num_workers):
    some, _ = many_sizes(50)
    some = dataclasses.replace(some, labels=np.arange(50) % 5, num_classes=5)
    whole = {
        "train": data.train_batches(some, 12, 3, 1, start_batch=1, augment="flip"),
        "eval": data.eval_batches(some, 12),
    }
    parts = {
        "train": lambda worker: data.train_batches(
            some, 12, 3, 1, start_batch=1, augment="flip", worker=worker
        ),
        "eval": lambda worker: data.eval_batches(some, 12, worker=worker),
    }
    for kind, stream in whole.items():
        by_worker = [drain(parts[kind]((index, num_workers))) for index in range(num_workers)]
        for expected, found in zip(drain(stream), zip(*by_worker, strict=True), strict=True):
            assert {len(part[0]) for part in found} == {12 // num_workers}
            for field, expected_field in enumerate(expected):
                joined = np.concatenate([part[field] for part in found])
                np.testing.assert_array_equal(joined, expected_field, strict=True)


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        ((0, 3), "`batch_size` must be a multiple of the number of workers, 3. .*batch_size=4"),
        ((2, 2), r"`index of the worker` must be a whole number in \[0, 1\]. Received: .*=2"),
        ((0, 0), "`number of workers` must be a whole number of at least 1. Received: .*=0"),
    ],
)
def test_workers_that_do_not_exist_are_refused(worker, message):
    with pytest.raises(ValueError, match=message):
        data.train_batches(numbered_images(11), 4, seed=0, epoch=0, worker=worker)
    with pytest.raises(ValueError, match=message):
        data.eval_batches(numbered_images(11), 4, worker=worker)


def test_batches_come_from_disk_as_from_memory(tmp_path):
    some = noise(30)
    np.save(tmp_path / "images.npy", np.repeat(some.images, 4, axis=-1))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")[..., :1]  # as without its alpha
    on_disk = dataclasses.replace(some, images=mapped)
    for stream, expected in (
        (data.train_batches(on_disk, 7, 0, 0), data.train_batches(some, 7, 0, 0)),
        (data.eval_batches(on_disk, 7), data.eval_batches(some, 7)),
    ):
        for found_batch, expected_batch in zip(drain(stream), drain(expected), strict=True):
            for found, wanted in zip(found_batch, expected_batch, strict=True):
                np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize(("batch_size", "num_batches"), [(1, 11), (4, 3), (11, 1), (16, 1)])
def test_evaluation_sees_every_image_once_in_order(batch_size, num_batches):
    numbered = numbered_images(11)
    stream = data.eval_batches(numbered, batch_size)
    assert stream.element_spec[0].shape == (batch_size, 3, 2, 1)
    images, labels, mask = (np.concatenate(parts) for parts in zip(*drain(stream), strict=True))
    assert len(images) == num_batches * batch_size
    assert mask.dtype == bool
    np.testing.assert_array_equal(images[mask], numbered.images)
    np.testing.assert_array_equal(labels[mask], numbered.labels)


def test_padding_comes_last_and_is_masked():
    *_, (images, _, mask) = drain(data.eval_batches(numbered_images(10), 4))
    np.testing.assert_array_equal(mask, [True, True, False, False])
    np.testing.assert_array_equal(images[:, 0, 0, 0], [8, 9, 9, 9])


def test_evaluation_without_labels_gives_zeros():
    for _, labels, _ in drain(data.eval_batches(numbered_images(5, with_labels=False), 4)):
        np.testing.assert_array_equal(labels, np.zeros(4, np.int32), strict=True)


def test_evaluation_refuses_an_empty_batch():
    with pytest.raises(ValueError, match=r"`batch_size` .*at least 1. Received: batch_size=0"):
        data.eval_batches(numbered_images(5), 0)


def test_more_than_256_levels_travel_unharmed():
    images = np.arange(300 * 2, dtype=np.uint16).reshape(300, 1, 2, 1)
    many_levels = data.ImageData(images, labels=None, num_levels=600, num_classes=None)
    ((found, _, _),) = drain(data.eval_batches(many_levels, 300))
    np.testing.assert_array_equal(found, images, strict=True)
