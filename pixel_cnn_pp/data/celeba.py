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
        folder = public_sets.tfds_entry(
            "celeb_a",
            "train" if split == "train" else "validation",
            data_dir,
            shape,
            convert,
            "CelebA (list_eval_partition.txt and img_align_celeba)",
        )
    stored = store.load_stored(folder, split)
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
        states = [[name, *store.file_state(base / name)] for name in names]

        def items():
            return ((name, base / name, None) for name in names)

    else:
        states = [[names, *store.file_state(images)]]

        def items():
            return _zip_items(images, names)

    return public_sets.entry(
        "celeba",
        [str(images.resolve()), states],
        split,
        data_dir,
        shape,
        lambda writer: decoding.append_decoded(
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
    face = public_sets.rgb(name, pixels, header)[_CELEBA_ROWS, _CELEBA_COLUMNS]
    face = Image.fromarray(np.ascontiguousarray(face))
    return np.asarray(face.resize((image_size, image_size), Image.Resampling.BILINEAR))
