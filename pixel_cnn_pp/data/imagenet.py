"""Down-sampled ImageNet: the images of van den Oord et al. (2016) or Chrabaszcz et al. (2017)."""

import dataclasses
import functools
import io
import math
import pathlib
import re
import tarfile
import zipfile
import zlib

import numpy as np

from pixel_cnn_pp.data import array_files, decoding, listing, pictures, public_sets, store

# Number of images in each split of van den Oord et al. (2016).
_IMAGENET_SIZES = {"train": 1281149, "test": 49999}
_IMAGENET_CLASSES = 1000


def load_imagenet(split, data_dir, image_size, size):
    """Loads down-sampled ImageNet: the images of van den Oord et al. (2016), or later ones.

    The first of these sources that exists is used. The files are in `data_dir`, or in its folder
    imagenet32 (imagenet64 for 64 x 64 pixels).

    1. The images of van den Oord et al. (2016), Pixel Recurrent Neural Networks, ICML: folders or
       tar files of pictures, train_32x32 and valid_32x32. There are 1281149 training and 49999
       validation images. Papers report bits/dim on the validation images, so they are the split
       `test` here. Their official download no longer exists.
    2. The images of Chrabaszcz et al. (2017), A Downsampled Variant of ImageNet as an Alternative
       to the CIFAR datasets: folders or zip files of npz batches, Imagenet32_train_npz and
       Imagenet32_val_npz, or the batches themselves.
    3. TensorFlow Datasets.

    Args:
      split: "train" or "test".
      data_dir: Folder of the data sets.
      image_size: `size` or None.
      size: H = W of the images, 32 or 64.
    Returns:
      StoredImages, images uint8 [N, size, size, 3].
    Raises:
      ValueError: If `image_size` is another number, or the files are damaged.
      OSError: If the images are not there, or the cache cannot be written.
    """
    public_sets.check_fixed_size(f"imagenet{size}", image_size, size)
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
        folder = public_sets.tfds_entry(
            f"downsampled_imagenet/{size}x{size}",
            "train" if split == "train" else "validation",
            data_dir,
            shape,
            functools.partial(public_sets.rgb_of_size, shape),
            f"imagenet{size} ({names['train']} and {names['test']}, folders or tar files, or "
            f"Imagenet{size}_train_npz and Imagenet{size}_val_npz)",
            is_offered=False,
        )
    stored = store.load_stored(folder, split)
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
    """Path of the first folder or tar file with this name, or None."""
    paths = [root / f"{name}{ending}" for root in roots for ending in ("", ".tar")]
    return next((path for path in paths if path.exists()), None)


def _npz_batches(roots, split, size):
    """Paths of the npz batches of a split, or of zip files with them, sorted by their numbers."""
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
    """A sorting key that puts batch_2 before batch_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _entry_of_pictures(name, source, split, data_dir, shape):
    """The cache entry of one split, made from a folder or a tar file of pictures."""
    if source.is_dir():
        files = listing.list_folder(source).files
        states = [[file.name, *file.state] for file in files]
        items, num_items = lambda: ((file.name, file.path, None) for file in files), len(files)
    else:
        states = store.file_state(source)
        items, num_items = lambda: _tar_items(source), None
    return public_sets.entry(
        name,
        [str(source.resolve()), states],
        split,
        data_dir,
        shape,
        lambda writer: decoding.append_decoded(
            writer,
            items(),
            pictures.decoder(functools.partial(public_sets.rgb_of_size, shape)),
            num_items,
        ),
    )


def _tar_items(path):
    """Yields the pictures of a tar file, in the order of the file."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and listing.is_picture(member.name):
                    yield member.name, archive.extractfile(member).read(), None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"A tar file must be whole. Received: {path} ({reason})") from None


def _entry_of_batches(name, paths, split, data_dir, shape):
    """The cache entry of one split, made from npz batches."""

    def append(writer):
        for path in paths:
            for source in _npz_sources(path):
                images, labels = _read_batch(source, path, shape)
                for pixels, label in zip(images, labels, strict=True):
                    writer.append(pixels, label)
        return {}

    states = [[str(path.resolve()), *store.file_state(path)] for path in paths]
    return public_sets.entry(name, states, split, data_dir, shape, append, _IMAGENET_CLASSES)


def _npz_sources(path):
    """Yields the path itself, or, for a zip file, the npz files in it."""
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
    """Reads a batch, and returns its images [N, H, W, 3] and labels [N].

    In the file, channels come before height and width, and the first class is 1.
    """
    arrays = array_files.loaded(source, path, ("data", "labels"))
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
