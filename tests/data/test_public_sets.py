import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pixel_cnn_pp import data
from pixel_cnn_pp.data import celeba, cifar, imagenet, store

RANDOM = np.random.default_rng(0)


def load_both(load, data_dir, image_size=None):
    return [load(split, data_dir, image_size) for split in store.SPLITS]


@pytest.fixture
def mock(tmp_path):
    """Five random examples of each set, as TensorFlow Datasets makes them for tests."""
    with tfds.testing.mock_data(num_examples=5):
        yield tmp_path


def test_cifar_is_what_tensorflow_datasets_gives(mock):
    for split in store.SPLITS:
        stored = cifar.load_cifar(split, mock, 32)
        expected = list(tfds.as_numpy(tfds.load("cifar10", split=split)))
        assert (stored.images.shape, stored.images.dtype) == ((5, 32, 32, 3), np.uint8)
        assert (stored.num_levels, stored.num_classes, stored.labels.dtype) == (256, 10, np.int32)
        assert stored.description == "5 images"
        np.testing.assert_array_equal(stored.labels, [example["label"] for example in expected])


def test_celeba_of_tensorflow_datasets_is_read_where_nothing_else_is(mock):
    train, test = load_both(celeba.load_celeba, mock, 12)
    assert train.images.shape == test.images.shape == (5, 12, 12, 3)
    assert "the validation split of CelebA, from TensorFlow Datasets" in test.description


def test_what_cannot_be_had_is_one_line_with_folder_and_reason(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route\nto host " + "and so on " * 1000)

    monkeypatch.setattr(tfds, "builder", fail)
    for load, title in (
        (cifar.load_cifar, "CIFAR-10"),
        (celeba.load_celeba, "CelebA .*img_align_celeba"),
        (lambda *args: imagenet.load_imagenet(*args, size=32), "imagenet32 .*valid_32x32"),
    ):
        message = rf"{title}.*data_dir='some/where'.*Reason: ConnectionError: no route to host and "
        with pytest.raises(OSError, match=message) as caught:
            load("train", "some/where", None)
        assert type(caught.value) is OSError
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_cifar_is_prepared_from_the_archive_once_and_read_back(monkeypatch, tmp_path):
    # An archive in the original's format, with 3 images a file: a class byte, then C, H, W bytes.
    archive = tmp_path / "archive" / "cifar-10-batches-bin"
    archive.mkdir(parents=True)
    files = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]
    records = RANDOM.integers(0, 256, (len(files), 3, 1 + 3 * 32 * 32), np.uint8)
    records[..., 0] %= 10
    for file, record in zip(files, records, strict=True):
        (archive / file).write_bytes(record.tobytes())
    class_names = "".join(f"class {label}\n" for label in range(10))
    (archive / "batches.meta.txt").write_text(class_names)
    monkeypatch.setattr(
        tfds.download.DownloadManager,
        "download_and_extract",
        lambda self, url: str(archive.parent),
    )
    loaded = load_both(cifar.load_cifar, tmp_path / "data")
    for stored, expected in zip(loaded, (records[:5], records[5:]), strict=True):
        expected = expected.reshape(-1, records.shape[-1])
        found = stored.images.transpose(0, 3, 1, 2).reshape(len(expected), -1)
        found = np.concatenate([stored.labels[:, None], found], axis=1)
        # TensorFlow Datasets shuffles once, when it writes.
        assert sorted(found.tolist()) == sorted(expected.tolist())
    monkeypatch.setattr(Image, "open", None)
    for stored, again in zip(loaded, load_both(cifar.load_cifar, tmp_path / "data"), strict=True):
        np.testing.assert_array_equal(again.images, stored.images)


def test_imagenet_and_cifar_have_one_size():
    message = r"`image_size` must be 32 for 'imagenet32', or None. Received: image_size=64"
    with pytest.raises(ValueError, match=message):
        imagenet.load_imagenet("train", "data", 64, size=32)
    with pytest.raises(
        ValueError, match=r"must be 32 for 'cifar', or None. Received: image_size=8"
    ):
        cifar.load_cifar("train", "data", 8)


def batches(folder, files, labels_key, num_classes):
    """Writes pickles as Krizhevsky's are: protocol 2, keys in bytes, channels first."""
    folder.mkdir(parents=True)
    found = {}
    for file in files:
        pixels = RANDOM.integers(0, 256, (3, 3072), np.uint8)
        labels = RANDOM.integers(0, num_classes, 3).tolist()
        content = pickle.dumps({b"data": pixels, labels_key: labels, b"batch_label": b"a"}, 2)
        (folder / file).write_bytes(content.replace(b"numpy._core", b"numpy.core"))
        found[file] = pixels.reshape(3, 3, 32, 32).transpose(0, 2, 3, 1), labels
    return found


CIFAR = {
    "cifar": (
        "cifar-10-batches-py",
        [f"data_batch_{n}" for n in range(1, 6)],
        "test_batch",
        b"labels",
    ),
    "cifar100": ("cifar-100-python", ["train"], "test", b"fine_labels"),
}


@pytest.mark.parametrize("name", CIFAR)
@pytest.mark.parametrize("packed", [False, True])
def test_cifar_is_read_from_its_archive_before_a_download_is_tried(
    name, packed, tmp_path, monkeypatch
):
    folder, train_files, test_file, key = CIFAR[name]
    num_classes = 10 if name == "cifar" else 100
    found = batches(tmp_path / folder, [*train_files, test_file], key, num_classes)
    if packed:
        archive = tmp_path / (folder.replace("batches-py", "python") + ".tar.gz")
        with tarfile.open(archive, "w:gz") as file:
            file.add(tmp_path / folder, folder)
        shutil.rmtree(tmp_path / folder)
    monkeypatch.setattr(tfds, "builder", None)
    for split, files in (("train", train_files), ("test", [test_file])):
        stored = data.load(name, split, tmp_path, log=lambda line: None)
        np.testing.assert_array_equal(stored.images, np.concatenate([found[f][0] for f in files]))
        assert stored.labels.tolist() == [label for f in files for label in found[f][1]]
        assert stored.num_classes == num_classes


class _Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_pickle_that_would_run_a_program_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, train_files, test_file, key = CIFAR["cifar"]
    batches(tmp_path / folder, [*train_files, test_file], key, 10)
    (tmp_path / folder / "test_batch").write_bytes(pickle.dumps({b"data": _Harmful()}, 2))
    with pytest.raises(ValueError, match=r"must be whole. .*test_batch \(posix.system is not allo"):
        data.load("cifar", "test", tmp_path)
    assert not (tmp_path / "harmed").exists()
    (tmp_path / folder / "test_batch").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"The archive of cifar10 must be whole. Received: "):
        data.load("cifar", "test", tmp_path)
