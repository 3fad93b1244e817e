"""MNIST, Fashion-MNIST and binarized MNIST, from files of the original formats and through tfds."""

import gzip
import hashlib
import pathlib

import array_formats
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist as tfds_mnist

from pixel_cnn_pp import data
from pixel_cnn_pp.data import binarized_mnist, mnist, store

RANDOM = np.random.default_rng(0)
SIZES = {"train": 37, "test": 11}
IMAGES = {split: RANDOM.integers(0, 256, (n, 28, 28), np.uint8) for split, n in SIZES.items()}
LABELS = {split: RANDOM.integers(0, 10, n).astype(np.uint8) for split, n in SIZES.items()}


def write_idx(folder, packed=False, dot="-", images=IMAGES, labels=LABELS):
    """Writes the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for kind, array in ((f"images{dot}idx3", images), (f"labels{dot}idx1", labels)):
            content = array_formats.idx(array[split])
            end = ".gz" if packed else ""
            path = folder / f"{prefix}-{kind}-ubyte{end}"
            path.write_bytes(gzip.compress(content) if packed else content)


def load_both(name, data_dir, lines=None):
    log = (lambda line: None) if lines is None else lines.append
    return {split: data.load(name, split, data_dir, log=log) for split in store.SPLITS}


@pytest.fixture
def no_download(monkeypatch):
    monkeypatch.setattr(tfds, "builder", None)


@pytest.mark.parametrize(
    ("name", "place", "packed", "dot"),
    [
        ("mnist", "", True, "-"),
        ("mnist", "mnist", False, "."),
        ("mnist", "MNIST/raw", False, "-"),
        ("fashion_mnist", "FashionMNIST/raw", True, "-"),
        ("fashion_mnist", "fashion-mnist/data/fashion", True, "-"),
        ("fashion_mnist", "", False, "-"),
    ],
)
def test_the_original_files_are_read_where_people_have_them_before_a_download_is_tried(
    name, place, packed, dot, tmp_path, no_download
):
    write_idx(tmp_path / place, packed, dot)
    lines = []
    for split, found in load_both(name, tmp_path, lines).items():
        np.testing.assert_array_equal(found.images[..., 0], IMAGES[split])
        assert found.labels.tolist() == LABELS[split].tolist()
        assert (found.images.shape[-1], found.num_levels, found.num_classes) == (1, 256, 10)
    assert lines[0] == (
        f"{name}, train: 37 images, from {tmp_path / place}; the whole split has 60000"
    )
    assert not (tmp_path / "cache").exists()


def test_the_digits_are_not_taken_for_fashion_nor_the_reverse(tmp_path, no_download):
    # The published training labels start so.
    starts = {"mnist": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "fashion_mnist": [9, 0, 0, 3, 0, 2, 7, 2, 5]}
    starts["fashion_mnist"].append(5)
    for name, other in (("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")):
        start = np.array(starts[name] + LABELS["train"][10:].tolist())
        write_idx(tmp_path, labels={**LABELS, "train": start})
        assert len(load_both(name, tmp_path)["train"].images) == 37
        with pytest.raises(ValueError, match=f"with .*, which is --data_set {name}$"):
            data.load(other, "test", tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def write(array):
    return lambda path: path.write_bytes(array_formats.idx(array))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train-images-idx3-ubyte", cut, r"whole file, .*train-images-idx3-ubyte.* \(.+\)$"),
        ("t10k-labels-idx1-ubyte", pathlib.Path.unlink, "MNIST must be .* Received: .* only$"),
        ("t10k-images-idx3-ubyte", write(IMAGES["test"][:9]), "one label for each .* with 9, .*11"),
        ("t10k-images-idx3-ubyte", write(IMAGES["test"][:, 1:]), r"\[N, 28, 28\]. .*27, 28\)$"),
        ("t10k-images-idx3-ubyte", write(IMAGES["test"][:0]), r"\[N, 28, 28\]. .*\(0, 28, 28\)$"),
        ("t10k-labels-idx1-ubyte", write(LABELS["test"] + 5), r"\[N\] in \[0, 9\]. Received: .*"),
    ],
)
def test_damaged_and_incomplete_files_are_refused_in_one_line(
    file, change, message, packed, tmp_path, no_download
):
    write_idx(tmp_path, packed)
    path = tmp_path / (f"{file}.gz" if packed else file)
    change(path)
    with pytest.raises(ValueError, match=message) as caught:
        data.load("mnist", "test" if "t10k" in file else "train", tmp_path)
    assert "\n" not in str(caught.value)


def by_the_formula(images):
    """The documented binarisation of training and test images, one after the other."""
    bits = np.random.Philox(key=2008)
    found = {}
    for split in ("train", "test"):
        x = images[split].reshape(-1, 28, 28, 1)
        raw = bits.random_raw(x.size).reshape(x.shape)
        u = (raw >> np.uint64(11)) * 2.0**-53
        found[split] = np.where(255 * u < x, 1, 0)
    return found


def test_digits_are_binarised_by_the_documented_draws_whatever_split_is_read(
    tmp_path, no_download, monkeypatch
):
    monkeypatch.setattr(binarized_mnist, "_CHUNK", 10)  # several chunks
    write_idx(tmp_path)
    lines, expected = [], by_the_formula(IMAGES)
    for split, found in load_both("binarized_mnist", tmp_path, lines).items():
        np.testing.assert_array_equal(found.images, expected[split])
        assert found.labels.tolist() == LABELS[split].tolist()
        assert (found.images.dtype, found.num_levels, found.num_classes) == (np.uint8, 2, 10)
        # The mean of a pixel is its value: 4 standard errors of the mean of all of them.
        difference = expected[split].mean() - IMAGES[split].mean() / 255
        assert abs(difference) < 4 * 0.5 / np.sqrt(IMAGES[split].size)
    assert lines[1].endswith(
        "binarised once with the seed 2008, which is not the set of Larochelle"
    )


def test_black_stays_black_and_white_stays_white():
    images = np.repeat(np.array([0, 255], np.uint8), 50 * 784).reshape(-1, 28, 28, 1)
    np.testing.assert_array_equal(binarized_mnist.binarised(images), images // 255)


def write_amat(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(" ".join(map(str, each.ravel())) + "\n" for each in images))


@pytest.mark.parametrize("place", ["", "binarized_mnist"])
def test_the_files_of_larochelle_are_taken_before_the_digits(place, tmp_path, no_download):
    write_idx(tmp_path)
    levels = {split: images // 128 for split, images in IMAGES.items()}
    for split in ("train", "test"):
        write_amat(tmp_path / place / f"binarized_mnist_{split}.amat", levels[split])
    write_amat(tmp_path / place / "binarized_mnist_valid.amat", levels["test"])
    lines = []
    for split, found in load_both("binarized_mnist", tmp_path, lines).items():
        np.testing.assert_array_equal(found.images[..., 0], levels[split])
        assert (found.num_levels, found.labels, found.num_classes) == (2, None, None)
    path = tmp_path / place / "binarized_mnist_train.amat"
    assert lines[0] == (
        f"binarized_mnist, train: 37 images, the fixed binarisation of Larochelle, from {path}"
    )
    good = path.read_text()
    for bad in (good[:-20], good.replace("1", "2", 1), good.replace("0 ", "0.5 ", 1), ""):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"lines of 784 times 0 or 1. Received: .*train.amat"):
            data.load("binarized_mnist", "train", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"Received: .* with binarized_mnist_test.amat only"):
        data.load("binarized_mnist", "train", tmp_path)


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """TensorFlow Datasets gets the small files where it would download the published ones."""
    write_idx(tmp_path / "served")

    def download(manager, urls):
        names = {key: url.rpartition("/")[2].removesuffix(".gz") for key, url in urls.items()}
        return {key: str(tmp_path / "served" / name) for key, name in names.items()}

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download)
    monkeypatch.setattr(tfds_mnist, "_TRAIN_EXAMPLES", SIZES["train"])
    monkeypatch.setattr(tfds_mnist, "_TEST_EXAMPLES", SIZES["test"])
    return tmp_path / "data"


def test_what_is_nowhere_comes_from_tensorflow_datasets_and_keeps_its_binarisation(
    downloads, monkeypatch
):
    digests = {
        split: hashlib.sha256(labels.tobytes()).hexdigest() for split, labels in LABELS.items()
    }
    monkeypatch.setattr(binarized_mnist, "_LABELS_DIGESTS", digests)
    expected, lines = by_the_formula(IMAGES), []
    for split, found in load_both("binarized_mnist", downloads, lines).items():
        np.testing.assert_array_equal(found.images, expected[split])
        assert found.labels.tolist() == LABELS[split].tolist()
    assert "37 images from TensorFlow Datasets; binarised once with the seed 2008" in lines[0]
    for split, found in load_both("mnist", downloads).items():
        # In another order.
        assert {image.tobytes() for image in found.images} == {
            image.tobytes() for image in IMAGES[split]
        }
        assert sorted(found.labels.tolist()) == sorted(LABELS[split].tolist())
    monkeypatch.setattr(binarized_mnist, "_LABELS_DIGESTS", {"train": "of another version"})
    lines = []
    data.load("binarized_mnist", "train", downloads, log=lines.append)
    assert "in an order that is not that of the original files; binarised" in lines[0]


def test_the_prepared_set_of_larochelle_is_taken_before_the_digits(downloads, monkeypatch):
    levels = {"train": IMAGES["train"] // 128, "valid": IMAGES["test"][:1] // 128}
    levels["test"] = IMAGES["test"] // 128
    for part, images in levels.items():
        write_amat(downloads.parent / f"binarized_mnist_{part}.amat", images)
    monkeypatch.setattr(
        tfds.download.DownloadManager,
        "download",
        lambda manager, urls: {
            key: str(downloads.parent / url.rpartition("/")[2]) for key, url in urls.items()
        },
    )
    tfds.builder("binarized_mnist", data_dir=str(downloads)).download_and_prepare()
    write_idx(downloads)
    lines = []
    for split, found in load_both("binarized_mnist", downloads, lines).items():
        assert {image.tobytes() for image in found.images} == {
            image.tobytes() for image in levels[split]
        }
        assert (found.num_levels, found.labels) == (2, None)
    assert lines[1] == (
        "binarized_mnist, test: 11 images, the fixed binarisation of Larochelle, from "
        "TensorFlow Datasets"
    )


def test_what_cannot_be_downloaded_names_the_files_that_would_do(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds, "builder", fail)
    for name in ("mnist", "fashion_mnist", "binarized_mnist"):
        with pytest.raises(OSError, match=r"train-images-idx3-ubyte .*no route to host$"):
            data.load(name, "train", tmp_path)
    assert mnist.SIZES == {"train": 60000, "test": 10000}
