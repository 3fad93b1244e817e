"""Loads the user's own images from files of arrays. Copies them once to the cache."""

import dataclasses
import math

import numpy as np

from pixel_cnn_pp.data import array_files, array_names, decoding, scientific, splits, store, writing
from pixel_cnn_pp.data import labels as labels_of

_TEST_NAMES = ("test", "valid")  # The first one is used.


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """The images of one array, and how its axes become [N, H, W, C].

    Attributes:
      name: Name of the array and its file, for messages.
      array: Array whose first axis counts the images.
      channels_first: Whether the axes are [N, C, H, W].
    """

    name: str
    array: np.ndarray
    channels_first: bool = False

    def __len__(self):
        """N."""
        return self.array.shape[0]

    @property
    def shape(self):
        """(H, W, C) of an image."""
        first, *others = self.array.shape[1:]
        if len(others) == 1:
            return first, *others, 1
        return (*others, first) if self.channels_first else (first, *others)

    def rows(self, indices):
        """The images of some increasing indices, [n, H, W, C]."""
        # A data set of HDF5 is read by slices.
        first = indices[0]
        found = np.asarray(self.array[first : indices[-1] + 1])[indices - first]
        if found.ndim == 3:
            return found[..., np.newaxis]
        return np.moveaxis(found, 1, -1) if self.channels_first else found

    def value_range(self):
        """The lowest and the highest value."""
        chunks = [
            np.asarray(self.array[start : start + decoding.CHUNK])
            for start in range(0, len(self), decoding.CHUNK)
        ]
        return min(int(c.min()) for c in chunks), max(int(c.max()) for c in chunks)


def load_arrays(path, split, data_dir, options):
    """Loads one split of a file of arrays.

    Args:
      path: A file of arrays, or a folder of them (`array_files.opened`). It holds images, perhaps
        labels, and perhaps both for a training and a test split, under one of their usual names
        (`array_names.role`). Images have the shape [N, H, W] or [N, H, W, C] and are whole numbers
        in [0, 65535].
      split: "train" or "test".
      data_dir: Folder with the cache. `path` may also be relative to this folder.
      options: `splits.Options`. If `num_levels` is None, there are 256 levels for 8-bit images, 2
        for booleans, and otherwise the smallest power of two that is greater than the highest
        value.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the file does not hold such images or labels.
      OSError: If the file cannot be read, or the cache cannot be written.
    """
    options.check_crop()
    path = splits.located(path, data_dir)
    files = array_files.files_of(path) if path.is_dir() else [path]
    state = [[file.name, *store.file_state(file)] for file in files]
    folder = store.entry(
        data_dir,
        path.stem,
        ["arrays", str(path.resolve()), state, options.key()],
        lambda folder: _write_arrays(folder, path, options),
        store.damage,
    )
    return store.load_stored(folder, split, options.num_levels, options.class_names)


def read_arrays(path, channels_first=None):
    """Reads all images of a file of arrays, which has no splits or only one.

    Args:
      path: As in `load_arrays`.
      channels_first: As in `splits.Options`.
    Returns:
      Array [N, H, W, C] of whole numbers, and labels [N] as from `labels.flattened`, or None.
    Raises:
      ValueError, OSError: As in `load_arrays`.
    """
    with array_files.opened(path) as members:
        chosen = array_names.arranged(members, path)
        if len(chosen) > 1:
            raise ValueError(
                "A file must hold one set of images here; as a data set, npz:PATH, its test split "
                f"is scored. Received: {path} with {array_names.described(members)}"
            )
        ((images, labels),) = _opened(members, chosen, path, channels_first).values()
        _check_images([images])
        return np.array(images.rows(np.arange(len(images)))), labels


def _opened(members, chosen, path, channels_first):
    """{split: (Images, labels or None)} of the chosen arrays."""
    found = {}
    for split, (name, labels_name) in chosen.items():
        where = f"in {name!r} of {path}" if name else f"in {path}"
        array = members[name].load()
        given = None if labels_name is None else np.asarray(members[labels_name].load())
        if array.ndim not in (3, 4):
            raise ValueError(
                "Images must have the shape [N, H, W] or [N, H, W, C]. "
                f"Received: shape {array.shape} {where}"
            )
        if 0 in array.shape:
            raise ValueError(f"Images must not be empty. Received: shape {array.shape} {where}")
        if members[name].is_matlab:
            array, given = scientific.with_images_first(array, given, where)
        labels = None
        if given is not None:
            labels = labels_of.flattened(given, len(array), f"for {name!r} of {path}")
        found[split] = _with_axes(where, array, channels_first), labels
    return found


def _with_axes(where, array, channels_first):
    # No picture has 4 rows and more channels than those: that is [N, C, H, W].
    looks_swapped = array.ndim == 4 and array.shape[1] <= 4 < array.shape[3]
    if looks_swapped and channels_first is None:
        raise ValueError(
            "Images must have the shape [N, H, W, C]. This looks like [N, C, H, W]: "
            "--channels_first takes it so, --nochannels_first as it stands. "
            f"Received: shape {array.shape} {where}"
        )
    return Images(where, array, bool(channels_first) and array.ndim == 4)


def _write_arrays(folder, path, options):
    """Copies a file of arrays into an entry of the cache."""
    with array_files.opened(path, folder.parent) as members:
        chosen = array_names.arranged(members, path)
        parts = _array_splits(_opened(members, chosen, path, options.channels_first), path, options)
        highest = _check_images([images for images, _, _ in parts])
        shape = parts[0][0].shape
        size = options.size(shape[:2])
        splits.check_size(size)
        if min(shape[:2]) < min(size):
            raise ValueError(
                f"`image_size` must be at most {min(shape[:2])}, the size of the images in {path}. "
                f"Received: image_size={options.image_size}"
            )
        types = {images.array.dtype for images, _, _ in parts}
        num_levels = 256 if types == {np.dtype(np.uint8)} else 2 ** max(1, highest.bit_length())
        dtype = np.dtype(np.uint8 if num_levels <= 256 else np.uint16)
        num_images = sum(len(rows) for _, _, rows in parts)
        num_bytes = num_images * math.prod(size) * shape[2] * dtype.itemsize
        store.check_space(folder, num_bytes)
        all_labels = [labels for _, labels, _ in parts if labels is not None]
        class_names = labels_of.names_of(*all_labels) if all_labels else None
        for split, (images, labels, rows) in zip(store.SPLITS, parts, strict=True):
            keeps_uncropped = options.crop == "random" and split == "train"
            with writing.split_writer(
                folder, split, (*size, shape[2]), dtype, keeps_uncropped=keeps_uncropped
            ) as writer:
                numbers = [None] * len(images)
                if labels is not None:
                    numbers = labels_of.numbered(labels, class_names, path).tolist()
                for start in range(0, len(rows), decoding.CHUNK):
                    chunk = rows[start : start + decoding.CHUNK]
                    for row, pixels in zip(chunk, images.rows(chunk).astype(dtype), strict=True):
                        writer.append(pixels, numbers[row])
        writing.write_about(
            folder, num_levels, class_names=class_names, most_levels=most_levels(types)
        )


def most_levels(types):
    """The number of levels that arrays of some NumPy dtypes can hold."""
    return min(2 if dtype.kind == "b" else 2 ** (8 * dtype.itemsize) for dtype in types)


def _array_splits(found, path, options):
    """[(Images, labels or None, rows)]: first the training split, then the test split.

    `rows` are the indices of the images of the split.
    """
    test_name = next((name for name in _TEST_NAMES if name in found), None)
    if len(found) == 1 and test_name is None:
        ((images, labels),) = found.values()
        numbers = [str(row) for row in range(len(images))]
        is_test = splits.choose_test(numbers, options.test_fraction, path)
        return [(images, labels, np.flatnonzero(is_test == wanted)) for wanted in (False, True)]
    if "train" not in found:
        raise ValueError(
            f"A file with {test_name} images must have training images too. "
            f"Received: {path} without them"
        )
    options.check_own_test_split(f"a {test_name} split")
    (images, labels), (test_images, test_labels) = found["train"], found[test_name]
    if (labels is None) != (test_labels is None):
        raise ValueError(
            f"Both splits must have labels, or none. Received: {path} with labels of one"
        )
    if images.shape != test_images.shape:
        raise ValueError(
            "Images of both splits must be of one shape. Received: shape "
            f"{images.array.shape} {images.name}, {test_images.array.shape} {test_images.name}"
        )
    return [
        (images, labels, np.arange(len(images))),
        (test_images, test_labels, np.arange(len(test_images))),
    ]


def _check_images(every):
    """Checks the types and values of images, and returns their highest value."""
    found = 0
    for images in every:
        if images.array.dtype.kind not in "uib":
            raise ValueError(
                "Images must be whole numbers of at most 16 bits; pixel_cnn_pp.to_levels makes "
                f"them of floats. Received: {images.array.dtype} {images.name}"
            )
        lowest, highest = images.value_range()
        if lowest < 0 or highest > 65535:
            raise ValueError(
                "Images must be whole numbers in [0, 65535]. "
                f"Received: values in [{lowest}, {highest}] {images.name}"
            )
        found = max(found, highest)
    return found
