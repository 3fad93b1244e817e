"""The table of the data sets, and the function that loads one by its name."""

import dataclasses
import functools

import numpy as np

from pixel_cnn_pp.data import (
    binarized_mnist,
    celeba,
    cifar,
    embedded,
    imagenet,
    mnist,
    own,
    store,
    tfds_sets,
)
from pixel_cnn_pp.data import splits as splits_of
from pixel_cnn_pp.data.images import ImageData, check_whole_number
from pixel_cnn_pp.data.viewed import ViewedData

# Name -> loader (split, image_size) -> ImageData.
_EMBEDDED = {"digits": embedded.load_digits, "photos": embedded.load_photos}
# Name -> loader (split, data_dir, image_size) -> store.StoredImages.
_SETS = {
    "mnist": mnist.load_mnist,
    "fashion_mnist": functools.partial(mnist.load_mnist, name="fashion_mnist"),
    "binarized_mnist": binarized_mnist.load_binarized_mnist,
    "cifar": cifar.load_cifar,
    "cifar100": functools.partial(cifar.load_cifar, name="cifar100"),
    "imagenet32": functools.partial(imagenet.load_imagenet, size=32),
    "imagenet64": functools.partial(imagenet.load_imagenet, size=64),
    "celeba": celeba.load_celeba,
    "celeba128": celeba.load_celeba128,
}
# Prefix of a name with a path, or with a name of TensorFlow Datasets -> loader (path, split,
# data_dir, splits.Options) -> store.StoredImages.
_PATHS = {
    "folder": functools.partial(own.load_own, is_of_pictures=True),
    "npz": own.load_own,
    "file": own.load_own,
    "tfds": tfds_sets.load_tfds,
}


def names():
    """Returns the names of the data sets, a tuple of strings.

    In them, PATH stands for a path, and NAME for the name of a data set of TensorFlow Datasets.
    """
    of_paths = (f"{kind}:{'NAME' if kind == 'tfds' else 'PATH'}" for kind in _PATHS)
    return (*_EMBEDDED, *_SETS, *of_paths)


def check_name(name):
    """Checks that `load` knows the name of a data set. Reads no files.

    Args:
      name: As in `load`.

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
    class_names=None,
    channels_first=None,
    convert=None,
    skip_odd=False,
):
    """Loads one split of a data set. Large arrays stay on disk and are memory-mapped.

    Args:
      name: One of `names()`, such as "cifar", "folder:pictures", "file:images.tar" or
        "tfds:eurosat/rgb". What a file is gets found out, whether it is called `folder:`, `npz:` or
        `file:`. What is said below of a data set at a path holds for `tfds:` too.
      split: "train" or "test".
      data_dir: Folder of the data sets, and of the cache of decoded images. Downloads go there.
        `digits` and `photos` do not use it, because they are part of scikit-learn.
      image_size: H = W of the images, or None for the size of the data set.
      crop: "center" or "random". With "random", training cuts new crops in every epoch. This works
        for data sets at a path only, and needs an `image_size`.
      test_fraction: Fraction of the images that becomes the test split, for a data set at a
        path that has none. Whether an image is chosen depends only on its name. None for a
        tenth.
      num_levels: L of a data set at a path. None to find it from the files.
      num_train_images: Number of training images to use. They are chosen at random, but always the
        same. None for all images.
      log: Function of a string. It gets one line that says what was found and what was left out.
      class_names: Names of the classes of a run, of which the labels of a data set at a
        path become the numbers. None for the classes that occur, in their order.
      channels_first: Whether arrays at a path are [N, C, H, W]. None refuses arrays
        that look like it.
      convert: "rgb" or "grey" to convert pictures at a path, or None.
      skip_odd: Whether to leave out pictures at a path that have other channels, bits or sizes than
        most. Otherwise they are refused.
    Returns:
      `ImageData`, always the same images in the same order.
    Raises:
      ValueError: If the name or the split is unknown, if the data set has no images of that size or
        too few images, or if its files hold no such images.
      OSError: If the data are not in `data_dir` and cannot be downloaded.

    >>> load("digits", "test").images.shape
    (256, 8, 8, 1)
    """
    check_name(name)
    if split not in store.SPLITS:
        raise ValueError(
            f"`split` must be one of {', '.join(store.SPLITS)}. Received: split={split!r}"
        )
    options = splits_of.Options(
        image_size=image_size,
        crop=crop,
        test_fraction=test_fraction,
        num_levels=num_levels,
        class_names=None if class_names is None else tuple(class_names),
        channels_first=channels_first,
        convert=convert,
        skip_odd=skip_odd,
    )
    found = _load_whole(name, split, data_dir, options, log)
    if split == "test" or num_train_images is None:
        return found
    return _some(found, name, num_train_images)


def _load_whole(name, split, data_dir, options, log):
    """Loads all images of a split."""
    kind, separator, path = name.partition(":")
    if separator:
        _check_options(options)
        stored = _PATHS[kind](path, split, data_dir, options)
    else:
        _refuse_options(name, options)
        if name in _EMBEDDED:
            return _EMBEDDED[name](split, options.image_size)
        stored = _SETS[name](split, data_dir, options.image_size)
    log(f"{name}, {split}: {stored.description}")
    return ImageData(
        stored.images,
        stored.labels,
        stored.num_levels,
        stored.num_classes,
        stored.uncropped,
        value_range=(0, stored.highest),
        class_names=stored.class_names,
    )


def _some(images, name, number):
    """Chooses `number` images of an `ImageData`, and keeps their order."""
    check_whole_number("num_train_images", number, 1, len(images.images))
    if images.uncropped is not None:
        raise ValueError(
            "`num_train_images` must be left out where crops are random. "
            f"Received: num_train_images={number} of {name}"
        )
    rows = np.sort(np.random.RandomState(0).permutation(len(images.images))[:number])
    labels = None if images.labels is None else images.labels[rows]
    return ImageData(
        np.asarray(images.images[rows]),
        labels,
        images.num_levels,
        images.num_classes,
        class_names=images.class_names,
    )


def _refuse_options(name, options):
    """Raises an error for options that only data sets at a path have."""
    for field in dataclasses.fields(options):
        option, value = field.name, getattr(options, field.name)
        # The classes of a run concern other data sets only.
        if option not in ("image_size", "class_names") and value != field.default:
            raise ValueError(
                f"`{option}` must be left out for {name!r}, which is always the same. "
                f"Received: {option}={value!r}"
            )


def _check_options(options):
    """Checks the options of `load`, because not all callers have checked them already."""
    image_size, test_fraction = options.image_size, options.test_fraction
    if image_size is not None:
        check_whole_number("image_size", image_size, 1)
    if options.crop not in ("center", "random"):
        raise ValueError(f"`crop` must be one of center, random. Received: crop={options.crop!r}")
    if options.convert not in (None, "rgb", "grey"):
        raise ValueError(
            f"`convert` must be one of rgb, grey. Received: convert={options.convert!r}"
        )
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise ValueError(
            f"`test_fraction` must lie between 0 and 1. Received: test_fraction={test_fraction!r}"
        )
    if options.num_levels is not None:
        check_whole_number("num_levels", options.num_levels, 2, 65536)
    options.check_crop()


def load_split(settings, split, num_classes=None, **changes):
    """Loads one split of the data set that a run uses.

    Args:
      settings: DataConfig.
      split: "train" or "test".
      num_classes: Number of classes of the run's model, if there is one.
      **changes: Arguments of `load`, such as `data_dir`, that replace those of `settings`.
    Returns:
      `ImageData`, as in `load`; or `ViewedData` if `settings` name a view.
    Raises:
      ValueError, OSError: As in `load`.
    """
    options = {**dataclasses.asdict(settings), **changes}
    view, condition_view = options.pop("view"), options.pop("condition_view")
    name = options.pop("data_set")
    if (
        options["class_names"] is None
        and name.startswith(("npz:", "file:"))
        and num_classes is not None
    ):
        # In runs of earlier versions the labels are the numbers of the classes.
        options["class_names"] = tuple(map(str, range(num_classes)))
    found = load(name, split, **options)
    if view is None and condition_view is None:
        return found
    return ViewedData(found, view, condition_view)
