"""Data sets of the literature: where people have them, how they are split, cropped and resized."""

import contextlib
import dataclasses
import functools
import io
import math
import os
import pathlib
import re
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

from pixel_cnn_pp.data import image_store, pictures


def check_fixed_size(name, image_size, fixed_size):
    """Refuses another size than the one that a data set has.

    Args:
      name: Name of the set.
      image_size: What is asked for, or None.
      fixed_size: H = W of its images.
    Raises:
      ValueError: If it is another one.
    """
    if image_size not in (None, fixed_size):
        raise ValueError(
            f"`image_size` must be {fixed_size} for {name!r}, or None. "
            f"Received: image_size={image_size!r}"
        )


def load_cifar(split, data_dir, image_size):
    """CIFAR-10 through TensorFlow Datasets: 50000 and 10000 images of 32 x 32 pixels, 10 classes.

    The first call downloads 162 MiB into `data_dir`.
    """
    check_fixed_size("cifar", image_size, 32)
    folder = _tfds_entry("cifar10", split, data_dir, (32, 32, 3), _rgb, "CIFAR-10", num_classes=10)
    return image_store.load_stored(folder, split)


def _tfds_entry(
    name, tfds_split, data_dir, shape, convert, title, num_classes=None, is_offered=True
):
    """The cache's entry of one split of a set of TensorFlow Datasets.

    Args:
      name: Name of the set.
      tfds_split: "train", "test" or "validation"; the last is called test here.
      data_dir: Folder of the sets.
      shape: (H, W, C).
      convert: As `pictures.decoder` takes it.
      title: What people call the set, for the error.
      num_classes: Number of classes, or None to leave labels out.
      is_offered: Whether the set can be downloaded, or only read where it was prepared before.
    Returns:
      Path of the folder.
    Raises:
      OSError: If the set is neither there nor can be downloaded.
    """
    with _tfds_errors(title, data_dir):
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()  # It redraws itself, which is noise in a log file.
        builder = tfds.builder(name, data_dir=data_dir)
        if not is_offered and not builder.is_prepared():
            raise FileNotFoundError("its download has been withdrawn")
        builder.download_and_prepare()

    def items():
        # The files' own bytes: TensorFlow's decoder of JPEG rounds otherwise than Pillow's.
        decoders = {"image": tfds.decode.SkipDecoding()}
        with _tfds_errors(title, data_dir):
            stream = builder.as_dataset(split=tfds_split, decoders=decoders)
            for number, example in enumerate(tfds.as_numpy(stream)):
                label = None if num_classes is None else int(example["label"])
                yield f"number {number}", example["image"], label

    prepared = sorted(pathlib.Path(builder.data_path).glob("*"))
    states = [[path.name, *image_store.file_state(path)] for path in prepared]
    return _entry(
        name.replace("/", "-"),
        [builder.info.full_name, states],
        "train" if tfds_split == "train" else "test",
        data_dir,
        shape,
        lambda writer: image_store.append_decoded(
            writer, items(), pictures.decoder(convert), total=None
        ),
        num_classes,
    )


@contextlib.contextmanager
def _tfds_errors(title, data_dir):
    """Turns what TensorFlow Datasets raises into one line."""
    try:
        yield
    except Exception as error:  # No network, disk, server or package: anything can come.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(
            f"{title} could be neither read from data_dir={str(data_dir)!r} nor downloaded into "
            f"it (which needs a network and disk space). Reason: {reason[:200]}"
        ) from None


def _entry(name, key, split, data_dir, shape, append, num_classes=None):
    """The cache's entry of one split of images with 256 levels.

    Args:
      name: Start of the entry's name.
      key: As `image_store.entry` takes it; the shape is added.
      split: "train" or "test".
      data_dir: Folder of the sets.
      shape: (H, W, C).
      append: Function of a `image_store.SplitWriter` that appends the images; it returns
        {name: reason} of those that cannot be read.
      num_classes: Number of classes, or None.
    Returns:
      Path of the folder.
    """

    def write(folder):
        with image_store.split_writer(folder, split, shape, np.uint8) as writer:
            unreadable = append(writer)
            num_files = len(writer) + len(unreadable)
            image_store.check_readable(unreadable, num_files, f"the {split} split of {name}")
            writer.left_out = image_store.describe_left_out(unreadable)
        image_store.write_about(folder, 256, num_classes)

    return image_store.entry(data_dir, name, [key, split, list(shape)], write)


# Images in each split of van den Oord et al. (2016).
_IMAGENET_SIZES = {"train": 1281149, "test": 49999}
_IMAGENET_CLASSES = 1000


def load_imagenet(split, data_dir, image_size, size):
    """Down-sampled ImageNet: the images of van den Oord et al. (2016), or later ones.

    Pixel Recurrent Neural Networks (ICML 2016) made 1281149 training and 49999 validation images,
    on which the literature since then reports bits/dim; the latter are `test` here. Their download
    has been withdrawn. They are looked for in `data_dir`, and in the folder imagenet32 (imagenet64)
    in it: folders or tar files of pictures, train_32x32 and valid_32x32. Where those are missing,
    the images of Chrabaszcz et al. (2017), A Downsampled Variant of ImageNet as an Alternative to
    the CIFAR datasets, are read: folders or zip files of npz batches, Imagenet32_train_npz and
    Imagenet32_val_npz, or the batches alone. Last, TensorFlow Datasets is asked.
    """
    check_fixed_size(f"imagenet{size}", image_size, size)
    roots = [pathlib.Path(data_dir) / f"imagenet{size}", pathlib.Path(data_dir)]
    names = {"train": f"train_{size}x{size}", "test": f"valid_{size}x{size}"}
    sources = {part: _pictures_named(roots, name) for part, name in names.items()}
    batches = {part: _npz_batches(roots, part, size) for part in names}
    for found in (sources, batches):
        for part, other in (("train", "test"), ("test", "train")):
            if found[part] and not found[other]:
                raise ValueError(
                    f"Both splits of imagenet{size} must be there. Received: {data_dir} with "
                    f"{found[part] if found is sources else found[part][0]}, and nothing like it "
                    f"for the {other} split"
                )
    shape = (size, size, 3)
    if sources[split]:
        folder = _entry_of_pictures(f"imagenet{size}", sources[split], split, data_dir, shape)
    elif batches[split]:
        folder = _entry_of_batches(f"imagenet{size}", batches[split], split, data_dir, shape)
    else:
        folder = _tfds_entry(
            f"downsampled_imagenet/{size}x{size}",
            "train" if split == "train" else "validation",
            data_dir,
            shape,
            functools.partial(_rgb_of_size, shape),
            f"imagenet{size} ({names['train']} and {names['test']}, folders or tar files, or "
            f"Imagenet{size}_train_npz and Imagenet{size}_val_npz)",
            is_offered=False,
        )
    stored = image_store.load_stored(folder, split)
    if batches[split] and not sources[split]:
        found = (
            f"{stored.description}, of Chrabaszcz et al. (2017), from {batches[split][0].parent}. "
            "They are other data than those of van den Oord et al. (2016), down-sampled otherwise: "
            "bits/dim of the two cannot be compared"
        )
    else:
        source = sources[split] or "TensorFlow Datasets"
        found = f"{stored.description}, of van den Oord et al. (2016), from {source}"
        if len(stored.images) != _IMAGENET_SIZES[split]:
            found += f"; the whole split has {_IMAGENET_SIZES[split]}"
    return dataclasses.replace(stored, description=found)


def _pictures_named(roots, name):
    """The first folder or tar file of this name, or None."""
    paths = [root / f"{name}{ending}" for root in roots for ending in ("", ".tar")]
    return next((path for path in paths if path.exists()), None)


def _npz_batches(roots, split, size):
    """The npz batches of a split, or else the zip files of them, in the order of their numbers."""
    part = {"train": "train", "test": "val"}[split]
    start = f"[iI]mage[nN]et{size}_{part}*"
    own_folder, _ = roots
    for root in roots:
        batches = [*root.glob(f"{start}.npz"), *root.glob(f"{start}/**/*.npz")]
        if root == own_folder:
            batches += root.glob(f"{part}_data*.npz")
        found = batches or [*root.glob(f"{start}.zip")]
        if found:
            return sorted(found, key=_by_numbers)
    return []


def _by_numbers(path):
    """Sorts batch_2 before batch_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _entry_of_pictures(name, source, split, data_dir, shape):
    """The cache's entry of one split, from a folder or a tar file of pictures."""
    if source.is_dir():
        files = pictures.list_folder(source)
        states = [[file.name, *image_store.file_state(file.path)] for file in files]
        items, num_items = lambda: ((file.name, file.path, None) for file in files), len(files)
    else:
        states = image_store.file_state(source)
        items, num_items = lambda: _tar_items(source), None
    return _entry(
        name,
        [str(source.resolve()), states],
        split,
        data_dir,
        shape,
        lambda writer: image_store.append_decoded(
            writer, items(), pictures.decoder(functools.partial(_rgb_of_size, shape)), num_items
        ),
    )


def _tar_items(path):
    """The pictures of a tar file, in its order."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                base_name = os.path.basename(member.name)
                is_picture = base_name.lower().endswith(pictures.SUFFIXES)
                if member.isfile() and is_picture and not base_name.startswith("."):
                    yield member.name, archive.extractfile(member).read(), None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"A tar file must be whole. Received: {path} ({reason})") from None


def _entry_of_batches(name, paths, split, data_dir, shape):
    """The cache's entry of one split, from npz batches."""

    def append(writer):
        for path in paths:
            for source in _npz_sources(path):
                images, labels = _read_batch(source, path, shape)
                for pixels, label in zip(images, labels, strict=True):
                    writer.append(pixels, label)
        return {}

    states = [[str(path.resolve()), *image_store.file_state(path)] for path in paths]
    return _entry(name, states, split, data_dir, shape, append, _IMAGENET_CLASSES)


def _npz_sources(path):
    """A path itself, or the npz files in a zip."""
    if path.suffix != ".zip":
        yield path
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if member.endswith(".npz")]
            for member in sorted(members, key=_by_numbers):
                yield io.BytesIO(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"A zip file must be whole. Received: {path} ({error})") from None


def _read_batch(source, path, shape):
    """Images [N, H, W, 3] and labels [N] of a batch, in which channels come first, classes at 1."""
    arrays = image_store.read_arrays(source, ("data", "labels"))
    flat, labels = arrays.get("data"), arrays.get("labels")
    is_right = (
        flat is not None
        and labels is not None
        and flat.dtype == np.uint8
        and flat.ndim == 2
        and flat.shape[1] == math.prod(shape)
        and labels.shape == (len(flat),)
        and len(labels) > 0
        and 1 <= labels.min() <= labels.max() <= _IMAGENET_CLASSES
    )
    if not is_right:
        raise ValueError(
            f"A batch of ImageNet must hold `data`, uint8 [N, {math.prod(shape)}], and `labels` "
            f"[N] in [1, {_IMAGENET_CLASSES}]. Received: {path} with others"
        )
    height, width, channels = shape
    images = flat.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return images, labels.astype(np.int64) - 1


def _rgb(name, pixels, header):
    """A picture as colour of 8 bits, [H, W, 3]."""
    pixels = pictures.without_opaque_alpha(pixels, header)
    if header.num_bits > 8 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            f"Pictures must be grey or RGB of at most 8 bits. Received: {name} ({header})"
        )
    pixels = pixels * np.uint8(255 // (2**header.num_bits - 1))
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _rgb_of_size(shape, name, pixels, header):
    """The same, where the size must be this one."""
    if pixels.shape[:2] != shape[:2]:
        raise ValueError(
            f"Pictures must be {shape[0]} x {shape[1]}. Received: {name} of {pixels.shape[0]} x "
            f"{pixels.shape[1]}"
        )
    return _rgb(name, pixels, header)


# Rows and columns of the aligned images, 218 x 178, that are kept: the "approximately central crop
# of 148 x 148" of Real NVP (Dinh et al., ICLR 2017), after Larsen et al. (ICML 2016).
_CELEBA_SHAPE = (218, 178)
_CELEBA_ROWS, _CELEBA_COLUMNS = slice(40, 188), slice(15, 163)
# Numbers of the training and the validation split in CelebA's list.
_CELEBA_SPLITS = {"train": 0, "test": 1}


def load_celeba(split, data_dir, image_size):
    """Faces of CelebA (Liu et al., ICCV 2015), aligned, cropped to 148 x 148 and made smaller.

    162770 training images; test is the official validation split, 19867 images, on which Real NVP
    and those after it report bits/dim (the official test split, 19962 images, is left alone). They
    are brought to 64 x 64, or `image_size`, by Pillow's bilinear filter, which averages over all
    pixels, as NVAE (Vahdat and Kautz, 2020) has it. Real NVP's own resizing takes few of the
    pixels, which gives sharper images and higher bits/dim.

    Looked for in `data_dir`, and in the folder celeba in it: list_eval_partition.txt (or .csv) and
    the folder or zip file img_align_celeba; otherwise TensorFlow Datasets is asked.
    """
    image_size = 64 if image_size is None else image_size
    max_size = _CELEBA_ROWS.stop - _CELEBA_ROWS.start
    if not 1 <= image_size <= max_size:
        raise ValueError(
            f"`image_size` must lie in [1, {max_size}] for 'celeba'. "
            f"Received: image_size={image_size!r}"
        )
    shape = (image_size, image_size, 3)
    convert = functools.partial(_celeba_face, image_size)
    for root in (pathlib.Path(data_dir) / "celeba", pathlib.Path(data_dir)):
        partition, images = _celeba_files(root)
        if (partition is None) != (images is None):
            raise ValueError(
                "CelebA must be there with list_eval_partition.txt and img_align_celeba. "
                f"Received: {root} with {partition or images} only"
            )
        if partition is not None:
            source = str(images)
            folder = _entry_of_celeba(partition, images, split, data_dir, shape, convert)
            break
    else:
        source = "TensorFlow Datasets"
        folder = _tfds_entry(
            "celeb_a",
            "train" if split == "train" else "validation",
            data_dir,
            shape,
            convert,
            "CelebA (list_eval_partition.txt and img_align_celeba)",
        )
    stored = image_store.load_stored(folder, split)
    part = "training" if split == "train" else "validation"
    found = f"{stored.description}, the {part} split of CelebA, from {source}"
    return dataclasses.replace(stored, description=found)


def _celeba_files(root):
    """The list of the splits, and the folder or zip file of the images; None where missing."""
    lists = [
        root / place / f"list_eval_partition.{ending}"
        for place in ("", "Eval")
        for ending in ("txt", "csv")
    ]
    images = [
        root / place / f"img_align_celeba{ending}"
        for place in ("", "Img")
        for ending in ("", ".zip")
    ]
    return tuple(next((path for path in paths if path.exists()), None) for paths in (lists, images))


def _entry_of_celeba(partition, images, split, data_dir, shape, convert):
    """The cache's entry of one split of CelebA."""
    lines = [re.split(r"[\s,]+", line.strip()) for line in partition.read_text().splitlines()]
    lines = [line for line in lines if line != [""] and line != ["image_id", "partition"]]
    if any(len(line) != 2 or line[1] not in ("0", "1", "2") for line in lines):
        raise ValueError(
            "CelebA's list must hold a file and 0, 1 or 2 a line. "
            f"Received: {partition} with other lines"
        )
    names = [name for name, number in lines if number == str(_CELEBA_SPLITS[split])]
    if images.is_dir():
        nested = images / images.name  # One archive has a folder in the folder.
        base = nested if nested.is_dir() else images
        states = [[name, *image_store.file_state(base / name)] for name in names]

        def items():
            return ((name, base / name, None) for name in names)

    else:
        states = [[names, *image_store.file_state(images)]]

        def items():
            return _zip_items(images, names)

    return _entry(
        "celeba",
        [str(images.resolve()), states],
        split,
        data_dir,
        shape,
        lambda writer: image_store.append_decoded(
            writer, items(), pictures.decoder(convert), len(names)
        ),
    )


def _zip_items(path, names):
    """The pictures of these names, wherever in a zip file they lie."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {os.path.basename(member): member for member in archive.namelist()}
            for name in names:
                yield name, archive.read(members[name]) if name in members else b"", None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"A zip file must be whole. Received: {path} ({error})") from None


def _celeba_face(image_size, name, pixels, header):
    """The crop of an aligned image that is kept, made smaller."""
    if pixels.shape[:2] != _CELEBA_SHAPE:
        raise ValueError(
            "Images of CelebA must be the aligned ones, 218 x 178. "
            f"Received: {name} of {pixels.shape[0]} x {pixels.shape[1]}"
        )
    face = _rgb(name, pixels, header)[_CELEBA_ROWS, _CELEBA_COLUMNS]
    face = Image.fromarray(np.ascontiguousarray(face))
    return np.asarray(face.resize((image_size, image_size), Image.Resampling.BILINEAR))
