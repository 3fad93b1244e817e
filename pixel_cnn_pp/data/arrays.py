"""Loads the user's own images from files of arrays, .npz or .npy. Copies them once to the cache."""

import math

import numpy as np

from pixel_cnn_pp.data import decoding, splits, store

# Name of the array of training images -> possible names of the array of test images. The first
# name in the file is used. An empty tuple means that this module makes the test split.
_ARRAY_NAMES = {
    "train_images": ("test_images", "valid_images", "val_images"),
    "x_train": ("x_test", "x_valid", "x_val"),
    "images": (),
}


def load_arrays(path, split, data_dir, image_size, crop, test_fraction, num_levels):
    """Loads one split of a file of arrays.

    Args:
      path: An .npz or .npy file. An .npz holds one of these sets of arrays, where all labels are
        optional:
          - `images` and `labels`,
          - `train_images`, `train_labels`, `test_images` and `test_labels`,
          - `x_train`, `y_train`, `x_test` and `y_test`, the names that Keras uses,
          - one array of any name.
        Images have the shape [N, H, W] or [N, H, W, C] and are whole numbers in [0, 65535].
      split: "train" or "test".
      data_dir: Folder with the cache. `path` may also be relative to this folder.
      image_size: H = W of square crops, or None for whole images.
      crop: "center", or "random". With "random", the training split also gets `uncropped`.
      test_fraction: As in `load_folder`. The name of an image is its number in the array.
      num_levels: L. None means 256 for 8-bit images, 2 for booleans, and otherwise the smallest
        power of two that is greater than the highest value.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the file does not hold such images or labels.
      OSError: If the file cannot be read, or the cache cannot be written.
    """
    splits.check_crop(image_size, crop)
    path = splits.located(path, data_dir)
    state = store.file_state(path)
    folder = store.entry(
        data_dir,
        path.stem,
        ["arrays", str(path.resolve()), state, image_size, crop, test_fraction],
        lambda folder: _write_arrays(folder, path, image_size, crop, test_fraction),
    )
    return store.load_stored(folder, split, num_levels)


def _labels_name(images_name):
    return images_name.replace("images", "labels").replace("x_", "y_")


_IMAGES_NAMES = [name for train, tests in _ARRAY_NAMES.items() for name in (train, *tests)]
_KNOWN_NAMES = {*_IMAGES_NAMES, *map(_labels_name, _IMAGES_NAMES)}


def _write_arrays(folder, path, image_size, crop, test_fraction):
    """Copies a file of arrays into an entry of the cache."""
    parts = _array_splits(decoding.read_arrays(path, _KNOWN_NAMES), path, test_fraction)
    every = [images for _, images, _, _ in parts]
    shape = every[0].shape[1:]
    for name, images, labels, _ in parts:
        _check_images(name, images, shape, path)
        if labels is not None:
            _check_labels(name, labels, len(images), path)
    splits.check_size(size := shape[:2] if image_size is None else (image_size, image_size))
    if min(shape[:2]) < min(size):
        raise ValueError(
            f"`image_size` must be at most {min(shape[:2])}, the size of the images in {path}. "
            f"Received: image_size={image_size}"
        )
    highest = max(int(images.max()) for images in every)
    is_8_bits = all(images.dtype == np.uint8 for images in every)
    num_levels = 256 if is_8_bits else 2 ** max(1, highest.bit_length())
    dtype = np.dtype(np.uint8 if num_levels <= 256 else np.uint16)
    num_channels = 1 if len(shape) == 2 else shape[2]
    all_labels = [labels for _, _, labels, _ in parts if labels is not None]
    num_images = sum(len(rows) for _, _, _, rows in parts)
    num_bytes = num_images * math.prod(size) * num_channels * dtype.itemsize
    store.check_space(folder, num_bytes)
    for split, (_, images, labels, rows) in zip(store.SPLITS, parts, strict=True):
        keeps_uncropped = crop == "random" and split == "train"
        with store.split_writer(
            folder, split, (*size, num_channels), dtype, keeps_uncropped=keeps_uncropped
        ) as writer:
            for start in range(0, len(rows), decoding.CHUNK):
                chunk = rows[start : start + decoding.CHUNK]
                for row, pixels in zip(chunk, images[chunk].astype(dtype), strict=True):
                    label = None if labels is None else labels[row].item()
                    writer.append(pixels.reshape(*shape[:2], num_channels), label)
    num_classes = max(int(labels.max()) for labels in all_labels) + 1 if all_labels else None
    store.write_about(folder, num_levels, num_classes)


def _array_splits(arrays, path, test_fraction):
    """[(name, images, labels or None, rows)]: first the training split, then the test split.

    `rows` are the indices of the images of the split.
    """
    train_name = next((name for name in _ARRAY_NAMES if name in arrays), None)
    if train_name is None and len(arrays) == 1:
        ((train_name, images),) = arrays.items()
    elif train_name is None:
        raise ValueError(
            "An npz must hold `images`, or `train_images` and `test_images`, or one array. "
            f"Received: {path} with none of them"
        )
    images = arrays[train_name]
    if images.ndim not in (3, 4):
        raise ValueError(
            "Images must have the shape [N, H, W] or [N, H, W, C]. "
            f"Received: shape {images.shape} in {path}"
        )
    labels = arrays.get(_labels_name(train_name))
    test_names = _ARRAY_NAMES.get(train_name, ())
    test_name = next((name for name in test_names if name in arrays), None)
    if test_name is None:
        is_test = splits.choose_test([str(row) for row in range(len(images))], test_fraction, path)
        return [
            (train_name, images, labels, np.flatnonzero(is_test == wanted))
            for wanted in (False, True)
        ]
    if test_fraction is not None:
        raise ValueError(
            f"`test_fraction` must be left out where the data have {test_name}. "
            f"Received: test_fraction={test_fraction}"
        )
    test_images, test_labels = arrays[test_name], arrays.get(_labels_name(test_name))
    if (labels is None) != (test_labels is None):
        raise ValueError(
            f"Both splits must have labels, or none. Received: {path} with labels of one"
        )
    return [
        (train_name, images, labels, np.arange(len(images))),
        (test_name, test_images, test_labels, np.arange(len(test_images))),
    ]


def _check_images(name, images, shape, path):
    where = f"in {name!r} of {path}"
    if images.shape[1:] != shape or 0 in images.shape:
        raise ValueError(
            "Images of both splits must be of one shape, and not empty. "
            f"Received: shape {images.shape} {where}"
        )
    if images.dtype.kind not in "uib":
        raise ValueError(
            f"Images must be whole numbers of at most 16 bits. Received: {images.dtype} {where}"
        )
    lowest, highest = int(images.min()), int(images.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(
            "Images must be whole numbers in [0, 65535]. "
            f"Received: values in [{lowest}, {highest}] {where}"
        )


def _check_labels(name, labels, num_images, path):
    where = f"for {name!r} of {path}"
    if labels.dtype.kind not in "ui" or labels.shape not in ((num_images,), (num_images, 1)):
        raise ValueError(
            f"Labels must be {num_images} whole numbers, one for each image. "
            f"Received: {labels.dtype} of shape {labels.shape} {where}"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest > np.iinfo(np.int32).max:
        raise ValueError(
            "Labels must be whole numbers in [0, 2**31 - 1]. "
            f"Received: values in [{lowest}, {highest}] {where}"
        )
