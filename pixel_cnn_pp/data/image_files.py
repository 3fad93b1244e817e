"""Folders of pictures and files of arrays: anybody's own images, decoded once into the cache."""

import collections
import hashlib
import math
import pathlib

import numpy as np

from pixel_cnn_pp.data import image_store, pictures

_TEST_FRACTION = 0.1
# What a set may call its test split; the first that is there counts.
_TEST_NAMES = ("test", "valid", "val")


# Folders of pictures


def load_folder(path, split, data_dir, image_size, crop, test_fraction, num_levels):
    """Loads one split of a folder of pictures.

    Args:
      path: Folder. Its sub-folders are the classes; or it holds `train` and one of `test`, `valid`
        and `val`, of which this is true.
      split: "train" or "test".
      data_dir: Folder with the cache; `path` may also be a path in it.
      image_size: H = W of square crops; smaller images are left out. None where all images have
        one size.
      crop: "center", or "random" for the training split to have `uncropped` too.
      test_fraction: Part of the images that is the test split, chosen by their names alone; None
        for a tenth, or where the folder has a test split of its own.
      num_levels: L, or None for that of the files' bits.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the folder holds no such images, or images of several kinds or sizes.
      OSError: If it cannot be read, or the cache cannot be written.
    """
    _check_crop(image_size, crop)
    root = _located(path, data_dir)
    listed = _list_splits(root, test_fraction)
    states = {
        part: [[file.name, *image_store.file_state(file.path)] for file in files]
        for part, files in listed.items()
    }
    folder = image_store.entry(
        data_dir,
        root.resolve().name,
        ["folder", str(root.resolve()), states, image_size, crop],
        lambda folder: _write_folder(folder, root, listed, image_size, crop),
    )
    return image_store.load_stored(folder, split, num_levels)


def _located(path, data_dir):
    """The path, or that in the data directory: a run can go on where its data have moved."""
    path = pathlib.Path(path).expanduser()
    moved = pathlib.Path(data_dir) / path
    return moved if moved.exists() and not path.exists() else path


def _list_splits(root, test_fraction):
    """{split: list of _File, sorted by their names}."""
    if not root.is_dir():
        raise OSError(f"There must be a folder of pictures. Received: {root}, which is none")
    own = {name for name in ("train", *_TEST_NAMES) if (root / name).is_dir()}
    test_name = next((name for name in _TEST_NAMES if name in own), None)
    if test_name is not None and "train" not in own:
        raise ValueError(
            f"A folder with {test_name}/ must have train/ too. Received: {root} without it"
        )
    if test_name is not None:
        if test_fraction is not None:
            raise ValueError(
                f"`test_fraction` must be left out where the data have a {test_name} split. "
                f"Received: test_fraction={test_fraction}"
            )
        listed = {
            split: pictures.list_folder(root / name, prefix=f"{name}/")
            for split, name in (("train", "train"), ("test", test_name))
        }
    else:
        files = pictures.list_folder(root / "train" if own else root)
        is_test = _choose_test([file.name for file in files], test_fraction, root)
        listed = {split: [] for split in image_store.SPLITS}
        for file, chosen in zip(files, is_test, strict=True):
            listed["test" if chosen else "train"].append(file)
    every = listed["train"] + listed["test"]
    loose = [file for file in every if file.label is None]
    if loose and len(loose) < len(every):
        raise ValueError(
            "Pictures must lie in sub-folders, which are the classes, or all in none. "
            f"Received: {loose[0].path} in none, {len(every) - len(loose)} pictures in some"
        )
    return listed


def _choose_test(names, test_fraction, where):
    """Which images are the test split: a function of their names alone.

    An image is in the test split where the hash of its name, as a number in [0, 1), is below the
    fraction. So no other image, added or removed, moves it to the other side.

    Args:
      names: Strings.
      test_fraction: Fraction in (0, 1), or None for a tenth.
      where: What is split, for the error.
    Returns:
      Boolean array [N], with at least one of either kind.
    Raises:
      ValueError: If there are less than two names.
    """
    if len(names) < 2:
        raise ValueError(
            "There must be at least two images, to train on one and test on the other. "
            f"Received: {len(names)} in {where}"
        )
    fraction = _TEST_FRACTION if test_fraction is None else test_fraction
    digests = [hashlib.sha256(name.encode()).digest() for name in names]
    places = np.array([int.from_bytes(digest[:8], "big") for digest in digests]) / 2**64
    is_test = places < fraction
    # Of a handful of images, one side can be empty.
    is_test[np.argmin(places)] = True
    is_test[np.argmax(places)] = False
    return is_test


def _write_folder(folder, root, listed, image_size, crop):
    """Decodes a folder of pictures into an entry of the cache."""
    every = listed["train"] + listed["test"]
    paths = [file.path for file in every]
    found = dict(
        zip(every, image_store.in_threads(pictures.try_header, paths, len(paths)), strict=True)
    )
    headers = {file: header for file, header in found.items() if not isinstance(header, str)}
    unreadable = {file.name: reason for file, reason in found.items() if isinstance(reason, str)}
    image_store.check_readable(unreadable, len(every), root)
    num_channels, num_bits = _common_kind(headers)
    size = _common_size(headers, image_size)
    usable = {
        split: [file for file in files if file in headers and _fits(headers[file], size)]
        for split, files in listed.items()
    }
    for split, files in usable.items():
        if not files:
            raise ValueError(
                f"Each split must have images of at least {size[0]} x {size[1]}. "
                f"Received: {root} with none in the {split} split"
            )
    num_pixels = math.prod(size) * sum(map(len, usable.values()))
    if crop == "random":
        num_pixels += sum(headers[file].height * headers[file].width for file in usable["train"])
    dtype = np.dtype(np.uint8 if num_bits <= 8 else np.uint16)
    image_store.check_space(folder, num_pixels * num_channels * dtype.itemsize)

    has_alpha = num_channels in (2, 4)
    is_mixed = any(header.has_alpha != has_alpha for header in headers.values())

    def convert(name, pixels, header):
        if header.num_bits < num_bits:
            pixels = pixels * np.uint8((2**num_bits - 1) // (2**header.num_bits - 1))
        if header.has_alpha != has_alpha:
            opaque = np.full((*pixels.shape[:2], 1), 2**num_bits - 1, dtype)
            pixels = np.concatenate([pixels, opaque], axis=-1)
        elif is_mixed and pixels[..., -1].min() < 2**num_bits - 1:
            raise ValueError(
                "All images of a folder must have an alpha channel, or none that is not opaque. "
                f"Received: {name} in {root} with one, among images without"
            )
        return pixels

    class_names = sorted({file.label for file in every} - {None})
    numbers = {name: number for number, name in enumerate(class_names)} | {None: None}
    for split, files in usable.items():
        items = ((file.name, file.path, numbers[file.label]) for file in files)
        keeps_uncropped = crop == "random" and split == "train"
        with image_store.split_writer(
            folder, split, (*size, num_channels), dtype, has_alpha, keeps_uncropped
        ) as writer:
            unreadable |= image_store.append_decoded(
                writer, items, pictures.decoder(convert), len(files)
            )
            broken = {file.name for file in listed[split]} & unreadable.keys()
            num_small = sum(file in headers for file in listed[split]) - len(files)
            writer.left_out = image_store.describe_left_out(
                {name: unreadable[name] for name in sorted(broken)}, num_small, size
            )
    image_store.check_readable(unreadable, len(every), root)
    image_store.write_about(folder, 2**num_bits, len(class_names) or None)


def _common_kind(headers):
    """The number of channels and bits that all images of a folder can be brought to, exactly."""
    # Programs that squeeze files write fewer bits where they suffice: a grey of 8 bits that is
    # black and white becomes one of 1 bit. It stands for the same values, 0 and 255.
    kinds = {
        file: (header.num_channels - header.has_alpha, max(header.num_bits, 8))
        for file, header in headers.items()
    }
    (usual, num_usual), *others = collections.Counter(kinds.values()).most_common()
    if others:
        odd = next(file for file, kind in kinds.items() if kind != usual)
        example = next(header for file, header in headers.items() if kinds[file] == usual)
        raise ValueError(
            "All images of a folder must have the same channels and bits. "
            f"Received: {odd.path} ({headers[odd]}), {num_usual} others {example}"
        )
    bits = {header.num_bits for header in headers.values()}
    num_channels = max(header.num_channels for header in headers.values())
    return num_channels, bits.pop() if len(bits) == 1 else usual[1]


def _common_size(headers, image_size):
    """The height and width that the images of a folder will have."""
    if image_size is not None:
        return image_size, image_size
    sizes = {file: (header.height, header.width) for file, header in headers.items()}
    (usual, num_usual), *others = collections.Counter(sizes.values()).most_common()
    if others:
        odd = next(file for file, size in sizes.items() if size != usual)
        raise ValueError(
            "All images of a folder must have one size, or `image_size` must say what to crop them "
            f"to. Received: {odd.path} of {sizes[odd][0]} x {sizes[odd][1]}, {num_usual} others of "
            f"{usual[0]} x {usual[1]}"
        )
    _check_size(usual)
    return usual


def _fits(header, size):
    return header.height >= size[0] and header.width >= size[1]


def _check_size(size):
    if size[0] % 4 or size[1] % 4 or 0 in size:
        raise ValueError(
            "Height and width must be multiples of 4, or `image_size` must say what to crop the "
            f"images to. Received: {size[0]} x {size[1]}"
        )


def _check_crop(image_size, crop):
    if crop == "random" and image_size is None:
        raise ValueError("`crop` must go with an `image_size`. Received: crop='random' alone")


# Files of arrays


def load_arrays(path, split, data_dir, image_size, crop, test_fraction, num_levels):
    """Loads one split of a file of arrays.

    Args:
      path: An .npz with `images` and perhaps `labels`, or with `train_images`, `test_images` and
        perhaps `train_labels`, `test_labels`, or with Keras's `x_train`, `y_train`, `x_test`,
        `y_test`, or with one array of whatever name; or an .npy. Images are whole numbers in
        [0, 65535], [N, H, W] or [N, H, W, C].
      split: "train" or "test".
      data_dir: Folder with the cache; `path` may also be a path in it.
      image_size: H = W of square crops, or None for whole images.
      crop: "center", or "random" for the training split to have `uncropped` too.
      test_fraction: As `load_folder` has it; the names are the numbers of the images.
      num_levels: L; None for 256 where the images are of 8 bits, 2 where they are booleans, and
        otherwise for the smallest power of two above the highest value.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the file holds no such images or labels.
      OSError: If it cannot be read, or the cache cannot be written.
    """
    _check_crop(image_size, crop)
    path = _located(path, data_dir)
    state = image_store.file_state(path)
    folder = image_store.entry(
        data_dir,
        path.stem,
        ["arrays", str(path.resolve()), state, image_size, crop, test_fraction],
        lambda folder: _write_arrays(folder, path, image_size, crop, test_fraction),
    )
    return image_store.load_stored(folder, split, num_levels)


# Images of the training split -> those of the test split, the first that is there; none of them
# where the split is made here. Labels are named after their images.
_ARRAY_NAMES = {
    "train_images": ("test_images", "valid_images", "val_images"),
    "x_train": ("x_test", "x_valid", "x_val"),
    "images": (),
}


def _labels_name(images_name):
    return images_name.replace("images", "labels").replace("x_", "y_")


_IMAGES_NAMES = [name for train, tests in _ARRAY_NAMES.items() for name in (train, *tests)]
_KNOWN_NAMES = {*_IMAGES_NAMES, *map(_labels_name, _IMAGES_NAMES)}


def _write_arrays(folder, path, image_size, crop, test_fraction):
    """Copies a file of arrays into an entry of the cache."""
    splits = _array_splits(image_store.read_arrays(path, _KNOWN_NAMES), path, test_fraction)
    every = [images for _, images, _, _ in splits]
    shape = every[0].shape[1:]
    for name, images, labels, _ in splits:
        _check_images(name, images, shape, path)
        if labels is not None:
            _check_labels(name, labels, len(images), path)
    _check_size(size := shape[:2] if image_size is None else (image_size, image_size))
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
    all_labels = [labels for _, _, labels, _ in splits if labels is not None]
    num_images = sum(len(rows) for _, _, _, rows in splits)
    num_bytes = num_images * math.prod(size) * num_channels * dtype.itemsize
    image_store.check_space(folder, num_bytes)
    for split, (_, images, labels, rows) in zip(image_store.SPLITS, splits, strict=True):
        keeps_uncropped = crop == "random" and split == "train"
        with image_store.split_writer(
            folder, split, (*size, num_channels), dtype, keeps_uncropped=keeps_uncropped
        ) as writer:
            for start in range(0, len(rows), image_store.CHUNK):
                chunk = rows[start : start + image_store.CHUNK]
                for row, pixels in zip(chunk, images[chunk].astype(dtype), strict=True):
                    label = None if labels is None else labels[row].item()
                    writer.append(pixels.reshape(*shape[:2], num_channels), label)
    num_classes = max(int(labels.max()) for labels in all_labels) + 1 if all_labels else None
    image_store.write_about(folder, num_levels, num_classes)


def _array_splits(arrays, path, test_fraction):
    """[(name, images, labels or None, rows)] of the training and the test split."""
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
        is_test = _choose_test([str(row) for row in range(len(images))], test_fraction, path)
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
