"""image_sets.py: the data sets of the literature, from files in the formats that people have."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pixel_cnn_pp.data import image_sets, image_store

RANDOM = np.random.default_rng(0)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def colours(num_images, size):
    return RANDOM.integers(0, 256, (num_images, size, size, 3), np.uint8)


def load_both(load, data_dir, image_size=None):
    return [load(split, data_dir, image_size) for split in image_store.SPLITS]


def load_imagenet(data_dir, size=32):
    return load_both(
        lambda split, *rest: image_sets.load_imagenet(split, *rest, size=size), data_dir
    )


# TensorFlow Datasets


@pytest.fixture
def mock(tmp_path):
    """Five random examples of each set, as TensorFlow Datasets makes them for tests."""
    with tfds.testing.mock_data(num_examples=5):
        yield tmp_path


def test_cifar_is_what_tensorflow_datasets_gives(mock):
    for split in image_store.SPLITS:
        cifar = image_sets.load_cifar(split, mock, 32)
        expected = list(tfds.as_numpy(tfds.load("cifar10", split=split)))
        assert (cifar.images.shape, cifar.images.dtype) == ((5, 32, 32, 3), np.uint8)
        assert (cifar.num_levels, cifar.num_classes, cifar.labels.dtype) == (256, 10, np.int32)
        assert cifar.description == "5 images"
        np.testing.assert_array_equal(cifar.labels, [example["label"] for example in expected])


def test_celeba_of_tensorflow_datasets_is_read_where_nothing_else_is(mock):
    train, test = load_both(image_sets.load_celeba, mock, 12)
    assert train.images.shape == test.images.shape == (5, 12, 12, 3)
    assert "the validation split of CelebA, from TensorFlow Datasets" in test.description


def test_what_cannot_be_had_is_one_line_with_folder_and_reason(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route\nto host " + "and so on " * 1000)

    monkeypatch.setattr(tfds, "builder", fail)
    for load, title in (
        (image_sets.load_cifar, "CIFAR-10"),
        (image_sets.load_celeba, "CelebA .*img_align_celeba"),
        (lambda *args: image_sets.load_imagenet(*args, size=32), "imagenet32 .*valid_32x32"),
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
    loaded = load_both(image_sets.load_cifar, tmp_path / "data")
    for cifar, expected in zip(loaded, (records[:5], records[5:]), strict=True):
        expected = expected.reshape(-1, records.shape[-1])
        found = cifar.images.transpose(0, 3, 1, 2).reshape(len(expected), -1)
        found = np.concatenate([cifar.labels[:, None], found], axis=1)
        # TensorFlow Datasets shuffles once, when it writes.
        assert sorted(found.tolist()) == sorted(expected.tolist())
    monkeypatch.setattr(Image, "open", None)
    for cifar, again in zip(
        loaded, load_both(image_sets.load_cifar, tmp_path / "data"), strict=True
    ):
        np.testing.assert_array_equal(again.images, cifar.images)


# Down-sampled ImageNet


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


def test_imagenet_and_cifar_have_one_size():
    message = r"`image_size` must be 32 for 'imagenet32', or None. Received: image_size=64"
    with pytest.raises(ValueError, match=message):
        image_sets.load_imagenet("train", "data", 64, size=32)
    with pytest.raises(
        ValueError, match=r"must be 32 for 'cifar', or None. Received: image_size=8"
    ):
        image_sets.load_cifar("train", "data", 8)


# CelebA

PARTITION = {f"{number:06}.jpg": number % 3 for number in range(1, 31)}


def faces():
    """{name: pixels}, smooth, as JPEG wants them."""
    small = RANDOM.integers(0, 256, (len(PARTITION), 9, 8, 3), np.uint8)
    return {
        name: np.asarray(Image.fromarray(pixels).resize((178, 218)))
        for name, pixels in zip(PARTITION, small, strict=True)
    }


def write_celeba(root, layout):
    """CelebA as people have it; returns {name: pixels as they are in the file}."""
    files = {name: encoded(pixels, "JPEG", quality=95) for name, pixels in faces().items()}
    place, inner, ending = {
        "flat": ("", "img_align_celeba", "txt"),
        "official": ("Eval", "Img/img_align_celeba", "txt"),
        "kaggle": ("", "img_align_celeba/img_align_celeba", "csv"),
        "zip": ("", "img_align_celeba", "txt"),
    }[layout]
    (root / place).mkdir(parents=True, exist_ok=True)
    lines = [
        f"{name},{part}" if ending == "csv" else f"{name} {part}"
        for name, part in PARTITION.items()
    ]
    lines = ["image_id,partition", *lines] if ending == "csv" else lines
    (root / place / f"list_eval_partition.{ending}").write_text("\n".join(lines) + "\n")
    if layout == "zip":
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"{inner}/{name}", data)
    else:
        (root / inner).mkdir(parents=True)
        for name, data in files.items():
            (root / inner / name).write_bytes(data)
    return {name: np.asarray(Image.open(io.BytesIO(data))) for name, data in files.items()}


def averaged_in_half(pixels):
    """A picture made half as large by Pillow's bilinear filter, in slow NumPy.

    The filter is a triangle of half-width 2 pixels around the middle of each pair, so 1/8, 3/8,
    3/8, 1/8 over four pixels, and 3/7, 3/7, 1/7 at the edges; each direction is rounded.
    """
    for axis in (1, 0):
        pixels = np.moveaxis(pixels.astype(float), axis, 0)
        size = len(pixels) // 2
        rows = []
        for row in range(size):
            weights = {2 * row - 1: 1, 2 * row: 3, 2 * row + 1: 3, 2 * row + 2: 1}
            weights = {at: weight for at, weight in weights.items() if 0 <= at < len(pixels)}
            total = sum(weights.values())
            rows.append(sum(weight / total * pixels[at] for at, weight in weights.items()))
        pixels = np.moveaxis(np.floor(np.array(rows) + 0.5), 0, axis)
    return pixels


@pytest.mark.parametrize(
    ("layout", "place"), [("flat", ""), ("official", "celeba"), ("kaggle", ""), ("zip", "celeba")]
)
def test_celeba_is_cropped_and_made_smaller_as_in_the_literature(layout, place, tmp_path):
    pixels = write_celeba(tmp_path / place, layout)
    train, test = load_both(image_sets.load_celeba, tmp_path, 148)
    for stored, part in ((train, 0), (test, 1)):
        # Rows 40 to 187, columns 15 to 162; part 1 is the validation split.
        expected = [pixels[name][40:188, 15:163] for name in PARTITION if PARTITION[name] == part]
        np.testing.assert_array_equal(stored.images, expected)
        assert stored.labels is None and stored.num_levels == 256
    assert train.description.startswith("10 images, the training split of CelebA, from ")
    half = image_sets.load_celeba("test", tmp_path, 74)
    expected = [averaged_in_half(image) for image in test.images]
    # Pillow's weights have 22 bits: a sum at the edge of rounding may fall to the other side.
    assert np.abs(half.images - np.array(expected)).max() <= 1
    assert np.mean(half.images != np.array(expected)) < 1e-2
    assert image_sets.load_celeba("test", tmp_path, None).images.shape == (10, 64, 64, 3)


def test_a_face_that_is_missing_or_broken_is_named(tmp_path):
    write_celeba(tmp_path, "flat")
    (tmp_path / "img_align_celeba" / "000003.jpg").unlink()
    (tmp_path / "img_align_celeba" / "000004.jpg").write_bytes(b"cut")
    train, test = load_both(image_sets.load_celeba, tmp_path, 16)
    assert "9 images; 1 left out as unreadable: 000003.jpg (No such file" in train.description
    assert "9 images; 1 left out as unreadable: 000004.jpg (cannot identify" in test.description


def test_a_celeba_that_is_not_whole_is_one_line(tmp_path):
    write_celeba(tmp_path, "flat")
    partition = tmp_path / "list_eval_partition.txt"
    for text, image_size, message in (
        ("000001.jpg 3\n", 64, "a file and 0, 1 or 2 a line. Received: .*partition.txt with other"),
        (partition.read_text(), 152, r"\[1, 148\] for 'celeba'. Received: image_size=152"),
    ):
        partition.write_text(text)
        with pytest.raises(ValueError, match=message):
            image_sets.load_celeba("train", tmp_path, image_size)
    Image.new("RGB", (100, 100)).save(tmp_path / "img_align_celeba" / "000003.jpg")
    with pytest.raises(
        ValueError, match=r"aligned ones, 218 x 178. Received: 000003.jpg of 100 x 1"
    ):
        image_sets.load_celeba("train", tmp_path, None)
    partition.unlink()
    message = (
        r"with list_eval_partition.txt and img_align_celeba. Received: .*img_align_celeba only"
    )
    with pytest.raises(ValueError, match=message):
        image_sets.load_celeba("train", tmp_path, None)
