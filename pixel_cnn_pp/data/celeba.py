"""CelebA (Liu et al., ICCV 2015)."""

import dataclasses
import functools
import os
import pathlib
import re
import zipfile
import zlib

import numpy as np
from PIL import Image

from pixel_cnn_pp.data import decoding, pictures, public_sets, store

# Shape of the aligned images, and the rows and columns that are kept. This is the "approximately
# central crop of 148 x 148" of Real NVP (Dinh et al., ICLR 2017), after Larsen et al. (ICML 2016).
_CELEBA_SHAPE = (218, 178)
_CELEBA_ROWS, _CELEBA_COLUMNS = slice(40, 188), slice(15, 163)
# The crop of 128 x 128 of Kolesnikov & Lampert (ICML 2017), section 4: 50 rows are cut off at the
# top and 40 at the bottom, 25 columns on each side. A twentieth of all images is the test split.
_CELEBA128_ROWS, _CELEBA128_COLUMNS = slice(50, 178), slice(25, 153)
_CELEBA128_TEST_PERCENT = 5
# The numbers by which CelebA's list marks the training and the validation split.
_CELEBA_SPLITS = {"train": 0, "test": 1}


def load_celeba(split, data_dir, image_size):
    """Loads the aligned faces of CelebA (Liu et al., ICCV 2015), cropped to 148 x 148 and resized.

    There are 162770 training images. The test split is CelebA's validation split of 19867 images,
    because Real NVP and later papers report bits/dim on it. CelebA's own test split of 19962 images
    is not used.

    Images are resized to 64 x 64, or to `image_size`, with Pillow's bilinear filter. This filter
    averages over all pixels, as in NVAE (Vahdat and Kautz, 2020). The resizing of Real NVP uses
    only few of the pixels, which gives sharper images and higher bits/dim.

    The loader looks in the folder celeba in `data_dir`, and then in `data_dir` itself. It needs
    list_eval_partition.txt (or .csv), and img_align_celeba as a folder or zip file. If neither is
    there, it uses TensorFlow Datasets.

    Args:
      split: "train" or "test".
      data_dir: Folder of the data sets.
      image_size: H = W, in [1, 148], or None for 64.
    Returns:
      StoredImages, images uint8 [N, H, W, 3], without labels.
    Raises:
      ValueError: If `image_size` is out of its range, or the files are incomplete or damaged.
      OSError: If the files are not there and cannot be downloaded, or the cache cannot be written.
    """
    image_size = 64 if image_size is None else image_size
    max_size = _CELEBA_ROWS.stop - _CELEBA_ROWS.start
    if not 1 <= image_size <= max_size:
        raise ValueError(
            f"`image_size` must lie in [1, {max_size}] for 'celeba'. "
            f"Received: image_size={image_size!r}"
        )
    part = "training" if split == "train" else "validation"
    return _load(
        "celeba",
        split,
        data_dir,
        (image_size, image_size, 3),
        functools.partial(_celeba_face, image_size),
        _names_of_split,
        {"tfds_split": "train" if split == "train" else "validation"},
        f"the {part} split of CelebA",
    )


def load_celeba128(split, data_dir, image_size):
    """Loads CelebA as Kolesnikov & Lampert (2017) do: crops of 128 x 128, without resizing.

    The 202599 aligned images are divided at random: 5 per cent are the test split. The paper's own
    division is not known. This one is always the same.

    Args:
      split: "train" or "test".
      data_dir: As in `load_celeba`.
      image_size: 128 or None.
    Returns:
      StoredImages, images uint8 [N, 128, 128, 3], without labels.
    Raises:
      ValueError: If `image_size` is another number, or the files are incomplete or damaged.
      OSError: As in `load_celeba`.
    """
    public_sets.check_fixed_size("celeba128", image_size, 128)
    train_percent = 100 - _CELEBA128_TEST_PERCENT
    part = f"[:{train_percent}%]" if split == "train" else f"[{train_percent}%:]"
    return _load(
        "celeba128",
        split,
        data_dir,
        (128, 128, 3),
        _celeba128_face,
        _names_at_random,
        {
            "tfds_split": "+".join(f"{each}{part}" for each in ("train", "validation", "test")),
            "split": split,
        },
        f"{train_percent if split == 'train' else _CELEBA128_TEST_PERCENT} % of CelebA",
    )


def _load(name, split, data_dir, shape, convert, names_of, tfds_options, part):
    """Loads a split from the files of CelebA, or from TensorFlow Datasets."""
    for root in (pathlib.Path(data_dir) / "celeba", pathlib.Path(data_dir)):
        partition, images = _celeba_files(root)
        if (partition is None) != (images is None):
            raise ValueError(
                "CelebA must be there with list_eval_partition.txt and img_align_celeba. "
                f"Received: {root} with {partition or images} only"
            )
        if partition is not None:
            source = str(images)
            names = names_of(partition, split)
            folder = _entry_of_celeba(name, names, images, split, data_dir, shape, convert)
            break
    else:
        source = "TensorFlow Datasets"
        folder = public_sets.tfds_entry(
            "celeb_a",
            data_dir=data_dir,
            shape=shape,
            convert=convert,
            title="CelebA (list_eval_partition.txt and img_align_celeba)",
            **tfds_options,
        )
    stored = store.load_stored(folder, split)
    return dataclasses.replace(stored, description=f"{stored.description}, {part}, from {source}")


def _celeba_files(root):
    """Paths of the list of the splits, and of the folder or zip file of the images.

    A path is None if the file is missing.
    """
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


def _lines(partition):
    """The lines of CelebA's list: [name of a file, number of its split]."""
    lines = [re.split(r"[\s,]+", line.strip()) for line in partition.read_text().splitlines()]
    lines = [line for line in lines if line != [""] and line != ["image_id", "partition"]]
    if any(len(line) != 2 or line[1] not in ("0", "1", "2") for line in lines):
        raise ValueError(
            "CelebA's list must hold a file and 0, 1 or 2 a line. "
            f"Received: {partition} with other lines"
        )
    return lines


def _names_of_split(partition, split):
    """The names of the images of a split of CelebA's list."""
    return [name for name, number in _lines(partition) if number == str(_CELEBA_SPLITS[split])]


def _names_at_random(partition, split):
    """The names of the images of a random split of all images of CelebA's list."""
    names = sorted(name for name, _ in _lines(partition))
    order = np.random.RandomState(0).permutation(len(names))
    num_test = len(names) * _CELEBA128_TEST_PERCENT // 100
    chosen = order[num_test:] if split == "train" else order[:num_test]
    return [names[number] for number in sorted(chosen)]


def _entry_of_celeba(entry_name, names, images, split, data_dir, shape, convert):
    """The cache entry of one split of CelebA."""
    if images.is_dir():
        nested = images / images.name  # One archive has a folder in the folder.
        base = nested if nested.is_dir() else images
        states = [[name, *store.file_state(base / name)] for name in names]

        def items():
            return ((name, base / name, None) for name in names)

    else:
        states = [[names, *store.file_state(images)]]

        def items():
            return _zip_items(images, names)

    return public_sets.entry(
        entry_name,
        [str(images.resolve()), states],
        split,
        data_dir,
        shape,
        lambda writer: decoding.append_decoded(
            writer, items(), pictures.decoder(convert), len(names)
        ),
    )


def _zip_items(path, names):
    """Yields the pictures with these names from any folder of a zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {os.path.basename(member): member for member in archive.namelist()}
            for name in names:
                yield name, archive.read(members[name]) if name in members else b"", None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"A zip file must be whole. Received: {path} ({error})") from None


def _celeba_face(image_size, name, pixels, header):
    """Crops an aligned image and resizes it."""
    face = _cropped(name, pixels, header, _CELEBA_ROWS, _CELEBA_COLUMNS)
    face = Image.fromarray(np.ascontiguousarray(face))
    return np.asarray(face.resize((image_size, image_size), Image.Resampling.BILINEAR))


def _celeba128_face(name, pixels, header):
    """Crops an aligned image to 128 x 128."""
    return _cropped(name, pixels, header, _CELEBA128_ROWS, _CELEBA128_COLUMNS)


def _cropped(name, pixels, header, rows, columns):
    if pixels.shape[:2] != _CELEBA_SHAPE:
        raise ValueError(
            "Images of CelebA must be the aligned ones, 218 x 178. "
            f"Received: {name} of {pixels.shape[0]} x {pixels.shape[1]}"
        )
    return public_sets.rgb(name, pixels, header)[rows, columns]
