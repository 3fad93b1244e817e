"""Data sets by name: the table of them, and the one way to load any."""

import dataclasses
import functools

import numpy as np

from pixel_cnn_pp.data import arrays, celeba, cifar, embedded, folders, imagenet, store
from pixel_cnn_pp.data.images import ImageData, check_whole_number

# Name -> loader (split, image_size) -> ImageData.
_EMBEDDED = {"digits": embedded.load_digits, "photos": embedded.load_photos}
# Name -> loader (split, data_dir, image_size) -> store.StoredImages.
_SETS = {
    "cifar": cifar.load_cifar,
    "imagenet32": functools.partial(imagenet.load_imagenet, size=32),
    "imagenet64": functools.partial(imagenet.load_imagenet, size=64),
    "celeba": celeba.load_celeba,
}
# Kind of a path -> loader (path, split, and the options of `load`) -> store.StoredImages.
_PATHS = {"folder": folders.load_folder, "npz": arrays.load_arrays}


def names():
    """Returns the known data set names, a tuple of strings; PATH stands for a path."""
    return (*_EMBEDDED, *_SETS, *(f"{kind}:PATH" for kind in _PATHS))


def check_name(name):
    """Refuses the name of a data set that `load` would not know; reads nothing.

    Args:
      name: As of `load`.

    Raises:
      ValueError: If the name is unknown.
    """
    kind, _, path = name.partition(":")
    is_path = kind in _PATHS and path != ""
    if name not in _EMBEDDED and name not in _SETS and not is_path:
        raise ValueError(f"`name` must be one of {', '.join(names())}. Received: name={name!r}")


def load(
    name,
    split,
    data_dir="data",
    image_size=None,
    crop="center",
    test_fraction=None,
    num_levels=None,
    num_train_images=None,
    log=print,
):
    """Loads one split of a data set; what is large stays on disk, memory-mapped.

    Args:
      name: One of `names()`, such as "cifar", "folder:pictures" or "npz:images.npz".
      split: "train" or "test".
      data_dir: Folder that holds data sets, or will, and the cache of decoded images. Not used by
        `digits` and `photos`, which come with scikit-learn.
      image_size: H = W of the images, or None for the data set's own.
      crop: "center", or "random" for other crops of the training images in every epoch; of
        `folder:` and `npz:`, with an `image_size`.
      test_fraction: Part of the images of a `folder:` or `npz:` without a test split that is made
        one, chosen by their names alone; None for a tenth.
      num_levels: L of a `folder:` or `npz:`; None for what follows from the files.
      num_train_images: How many images the training split is cut down to, drawn once and for all;
        None for all of them.
      log: Function of a line, told what was found and left out.
    Returns:
      `ImageData`, always the same images in the same order.
    Raises:
      ValueError: If the name or the split is unknown, the data set has no images of that size or
        not as many, or its files hold no such images.
      OSError: If the data are neither in `data_dir` nor can be downloaded.

    >>> load("digits", "test").images.shape
    (256, 8, 8, 1)
    """
    check_name(name)
    if split not in store.SPLITS:
        raise ValueError(
            f"`split` must be one of {', '.join(store.SPLITS)}. Received: split={split!r}"
        )
    found = _load_whole(name, split, data_dir, image_size, crop, test_fraction, num_levels, log)
    if split == "test" or num_train_images is None:
        return found
    return _some(found, name, num_train_images)


def _load_whole(name, split, data_dir, image_size, crop, test_fraction, num_levels, log):
    """The whole of a split, as `load` describes it."""
    kind, separator, path = name.partition(":")
    if separator:
        _check_options(image_size, crop, test_fraction, num_levels)
        stored = _PATHS[kind](path, split, data_dir, image_size, crop, test_fraction, num_levels)
    else:
        _refuse_options(name, crop=crop, test_fraction=test_fraction, num_levels=num_levels)
        if name in _EMBEDDED:
            return _EMBEDDED[name](split, image_size)
        stored = _SETS[name](split, data_dir, image_size)
    log(f"{name}, {split}: {stored.description}")
    return ImageData(
        stored.images,
        stored.labels,
        stored.num_levels,
        stored.num_classes,
        stored.uncropped,
        value_range=(0, stored.highest),
    )


def _some(images, name, number):
    """So many images of an `ImageData`, in their order."""
    check_whole_number("num_train_images", number, 1, len(images.images))
    if images.uncropped is not None:
        raise ValueError(
            "`num_train_images` must be left out where crops are random. "
            f"Received: num_train_images={number} of {name}"
        )
    rows = np.sort(np.random.RandomState(0).permutation(len(images.images))[:number])
    labels = None if images.labels is None else images.labels[rows]
    return ImageData(np.asarray(images.images[rows]), labels, images.num_levels, images.num_classes)


def _refuse_options(name, **options):
    """Refuses options of `folder:` and `npz:` for a data set that is always the same."""
    for option, value in options.items():
        if value not in (None, "center"):
            raise ValueError(
                f"`{option}` must be left out for {name!r}, which is always the same. "
                f"Received: {option}={value!r}"
            )


def _check_options(image_size, crop, test_fraction, num_levels):
    """Checks what a configuration has checked already, for those who call `load` themselves."""
    if image_size is not None:
        check_whole_number("image_size", image_size, 4)
        if image_size % 4:
            raise ValueError(
                f"`image_size` must be a multiple of 4. Received: image_size={image_size}"
            )
    if crop not in ("center", "random"):
        raise ValueError(f"`crop` must be one of center, random. Received: crop={crop!r}")
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise ValueError(
            f"`test_fraction` must lie between 0 and 1. Received: test_fraction={test_fraction!r}"
        )
    if num_levels is not None:
        check_whole_number("num_levels", num_levels, 2, 65536)


def load_split(settings, split, **changes):
    """Loads one split of the data set that a run names.

    Args:
      settings: DataConfig.
      split: "train" or "test".
      **changes: Arguments of `load` in place of those of `settings`, such as `data_dir`.
    Returns:
      `ImageData`, as `load` returns it.
    Raises:
      ValueError, OSError: As `load` does.
    """
    options = {**dataclasses.asdict(settings), **changes}
    return load(options.pop("data_set"), split, **options)
