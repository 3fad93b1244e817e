import io
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pixel_cnn_pp.data import imagenet, store

RANDOM = np.random.default_rng(0)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def colours(num_images, size):
    return RANDOM.integers(0, 256, (num_images, size, size, 3), np.uint8)


def load_both(load, data_dir, image_size=None):
    return [load(split, data_dir, image_size) for split in store.SPLITS]


def load_imagenet(data_dir, size=32):
    return load_both(lambda split, *rest: imagenet.load_imagenet(split, *rest, size=size), data_dir)


def write_folder(data_dir, name, images):
    for number, pixels in enumerate(images):
        path = data_dir / name / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def write_tar(data_dir, name, images):
    data_dir.mkdir(parents=True, exist_ok=True)
    with tarfile.open(data_dir / f"{name}.tar", "w") as archive:
        for number, pixels in enumerate(images):
            member = tarfile.TarInfo(f"{name}/{number:05}.png")
            data = encoded(pixels)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        archive.addfile(tarfile.TarInfo(f"{name}/._00000.png"))  # as some systems add


def write_batch(path, images, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    np.savez(path, data=flat, labels=labels, mean=flat.mean(axis=0))


def test_what_tensorflow_datasets_has_prepared_is_the_last_resort(monkeypatch, tmp_path):
    images = {"train": colours(5, 64), "valid": colours(3, 64)}
    for part, pixels in images.items():
        write_tar(tmp_path / "downloaded", f"{part}_64x64", pixels)
    monkeypatch.setattr(
        tfds.download.DownloadManager,
        "download",
        lambda self, urls: [str(tmp_path / "downloaded" / url.split("/")[-1]) for url in urls],
    )
    with pytest.raises(OSError, match=r"could be neither .*Error: its download has been withdrawn"):
        load_imagenet(tmp_path / "data", size=64)
    tfds.builder("downsampled_imagenet/64x64", data_dir=tmp_path / "data").download_and_prepare()
    train, test = load_imagenet(tmp_path / "data", size=64)
    for stored, expected in ((train, images["train"]), (test, images["valid"])):
        # TensorFlow Datasets shuffles once, when it writes.
        assert sorted(map(bytes, stored.images)) == sorted(map(bytes, expected))
        assert stored.labels is None and stored.num_levels == 256
    assert train.description == (
        "5 images, of van den Oord et al. (2016), from TensorFlow Datasets; the whole split has "
        "1281149"
    )
    assert test.description.endswith("the whole split has 49999")


@pytest.mark.parametrize("write", [write_folder, write_tar])
@pytest.mark.parametrize(("size", "place"), [(32, ""), (64, "imagenet64")])
def test_imagenet_of_van_den_oord_is_read_from_folders_and_tar_files(write, size, place, tmp_path):
    images = {"train": colours(5, size), "valid": colours(3, size)}
    for part, pixels in images.items():
        write(tmp_path / place, f"{part}_{size}x{size}", pixels)
    train, test = load_imagenet(tmp_path, size)
    np.testing.assert_array_equal(train.images, images["train"])
    np.testing.assert_array_equal(test.images, images["valid"])
    assert train.labels is None and train.num_classes is None and train.num_levels == 256
    assert train.description.startswith("5 images, of van den Oord et al. (2016), from ")
    assert test.description.endswith("; the whole split has 49999")
    assert "Chrabaszcz" not in train.description + test.description


@pytest.mark.parametrize("layout", ["folder", "zip", "alone", "own folder"])
def test_imagenet_of_chrabaszcz_is_read_from_batches_and_said_to_be_other_data(layout, tmp_path):
    # Ten batches, as in the original, whose names sort otherwise than their numbers.
    images, labels = colours(21, 32), RANDOM.integers(1, 1001, 21)
    labels[:2] = [1, 1000]
    folder = {"alone": "", "own folder": "imagenet32"}.get(layout, "Imagenet32_train_npz")
    start = "train_data" if layout == "own folder" else "imagenet32_train"
    for number in range(10):
        rows = slice(2 * number, 2 * number + 2)
        path = tmp_path / folder / f"{start}_batch_{number + 1}.npz"
        write_batch(path, images[rows], labels[rows])
    folder = {"alone": "", "own folder": "imagenet32"}.get(layout, "Imagenet32_val_npz")
    name = "imagenet32_val_data" if layout == "alone" else "val_data"
    write_batch(tmp_path / folder / f"{name}.npz", images[20:], labels[20:])
    if layout == "zip":
        for part in ("train", "val"):
            source = tmp_path / f"Imagenet32_{part}_npz"
            with zipfile.ZipFile(f"{source}.zip", "w") as archive:
                for path in source.iterdir():
                    archive.write(path, f"{source.name}/{path.name}")
                    path.unlink()
            source.rmdir()
    train, test = load_imagenet(tmp_path)
    np.testing.assert_array_equal(train.images, images[:20])
    np.testing.assert_array_equal(test.images, images[20:])
    np.testing.assert_array_equal(train.labels, labels[:20] - 1)
    assert (train.num_classes, test.num_classes) == (1000, 1000)
    for stored in (train, test):
        assert "of Chrabaszcz et al. (2017), from " in stored.description
        assert stored.description.endswith("bits/dim of the two cannot be compared")


def test_of_both_imagenets_that_of_the_literature_is_read(tmp_path):
    old, new = colours(2, 32), colours(2, 32)
    for part in ("train", "valid"):
        write_folder(tmp_path, f"{part}_32x32", old)
        write_batch(tmp_path / f"imagenet32_{part[:5]}_data.npz", new, np.array([1, 2]))
    for stored in load_imagenet(tmp_path):
        np.testing.assert_array_equal(stored.images, old)
        assert "van den Oord" in stored.description


def test_grey_pictures_of_imagenet_become_colour_and_broken_ones_are_named(tmp_path):
    images = [*colours(10, 32), RANDOM.integers(0, 256, (32, 32), np.uint8)]
    for part in ("train", "valid"):
        write_folder(tmp_path, f"{part}_32x32", images)
    (tmp_path / "train_32x32" / "00003.png").write_bytes(b"")
    train, test = load_imagenet(tmp_path)
    np.testing.assert_array_equal(test.images[10], np.stack([images[10]] * 3, axis=-1))
    np.testing.assert_array_equal(train.images[3], images[4])
    assert train.description.startswith("10 images; 1 left out as unreadable: 00003.png (cannot id")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda folder: write_tar(folder, "train_32x32", colours(2, 32)),
            r"Both splits of imagenet32 must be there. .*train_32x32.tar, and nothing like it",
        ),
        (
            lambda folder: write_batch(folder / "imagenet32_val.npz", colours(2, 32), np.ones(2)),
            r"Both splits of imagenet32 must be there. .*_val.npz, and nothing like it for the",
        ),
        (
            lambda folder: [
                write_folder(folder, f"{part}_32x32", colours(2, 64)) for part in ("train", "valid")
            ],
            r"Pictures must be 32 x 32. Received: 0000\d.png of 64 x 64",
        ),
        (
            lambda folder: [
                (folder / f"{part}_32x32.tar").write_bytes(b"") for part in ("train", "valid")
            ],
            r"A tar file must be whole. Received: .*train_32x32.tar \(",
        ),
        (
            lambda folder: [
                write_batch(folder / f"imagenet32_{part}.npz", colours(2, 32), np.array([0, 1]))
                for part in ("train", "val")
            ],
            r"`labels` \[N\] in \[1, 1000\]. Received: .*imagenet32_train.npz with others",
        ),
        (
            lambda folder: [
                write_batch(folder / f"imagenet32_{part}.npz", colours(2, 64), np.array([1, 1]))
                for part in ("train", "val")
            ],
            r"must hold `data`, uint8 \[N, 3072\], .* Received: .*imagenet32_train.npz with others",
        ),
        (
            lambda folder: [
                (folder / f"Imagenet32_{part}_npz.zip").write_bytes(b"")
                for part in ("train", "val")
            ],
            r"A zip file must be whole. Received: .*Imagenet32_train_npz.zip \(",
        ),
    ],
)
def test_an_imagenet_that_is_not_whole_is_one_line(prepare, message, tmp_path):
    prepare(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load_imagenet(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("cache/*"))
