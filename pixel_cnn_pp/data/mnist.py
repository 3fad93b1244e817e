"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017)."""

import dataclasses
import pathlib

import numpy as np

from pixel_cnn_pp.data import array_files, public_sets, store

SHAPE = (28, 28, 1)
NUM_CLASSES = 10
# The number of images in the published files.
SIZES = {"train": 60000, "test": 10000}
_TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
# Where people have the files, in the data directory: `raw` is torchvision's, `data/fashion` is that
# of the authors' repository. The last one is the data directory itself.
_FOLDERS = {
    "mnist": ("mnist", "mnist/raw", "MNIST", "MNIST/raw", ""),
    "fashion_mnist": (
        *("fashion_mnist", "fashion_mnist/raw", "FashionMNIST", "FashionMNIST/raw"),
        *("fashion-mnist", "fashion-mnist/data/fashion", ""),
    ),
}
# The files of both sets have the same names. The first training labels tell them apart.
_FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
}
_PREFIXES = {"train": "train", "test": "t10k"}


@dataclasses.dataclass(frozen=True)
class IdxFiles:
    """The four original files of a data set.

    Attributes:
      folder: Path of the folder that holds them.
      images: {split: path}.
      labels: {split: path}.
    """

    folder: pathlib.Path
    images: dict
    labels: dict


def load_mnist(split, data_dir, image_size, name="mnist"):
    """Loads MNIST or Fashion-MNIST: 28 x 28 pixels, grey, 10 classes.

    There are 60000 training and 10000 test images. The loader looks for the original files
    (`idx_files`). They are read as they are, without the cache. Otherwise TensorFlow Datasets
    downloads the data set to `data_dir`; it has another order of the images.

    Args:
      split: "train" or "test".
      data_dir: Folder of the data sets.
      image_size: 28 or None.
      name: "mnist" or "fashion_mnist".
    Returns:
      StoredImages, images uint8 [N, 28, 28, 1].
    Raises:
      ValueError: If `image_size` is another number, or the files are incomplete or damaged.
      OSError: If the data set is not there and cannot be downloaded.
    """
    public_sets.check_fixed_size(name, image_size, SHAPE[0])
    files = idx_files(data_dir, name)
    if files is not None:
        return _read(files, split)
    return store.load_stored(tfds_entry(name, split, data_dir), split)


def tfds_entry(name, split, data_dir):
    """The cache entry of one split from TensorFlow Datasets, as from `public_sets.tfds_entry`."""
    return public_sets.tfds_entry(
        name,
        split,
        data_dir,
        SHAPE,
        grey_digit,
        f"{_TITLES[name]} (train-images-idx3-ubyte and the three other files)",
        num_classes=NUM_CLASSES,
    )


def grey_digit(name, pixels, header):
    """Checks that a picture is 28 x 28, grey and of 8 bits, and returns its pixels [28, 28, 1]."""
    if pixels.shape != SHAPE or header.num_bits != 8:
        raise ValueError(
            "Images of MNIST must be 28 x 28 and grey, of 8 bits. "
            f"Received: {name} of {pixels.shape[0]} x {pixels.shape[1]} ({header})"
        )
    return pixels


def idx_files(data_dir, name):
    """Finds the four original files of a data set, plain or packed by gzip.

    They are train-images-idx3-ubyte, train-labels-idx1-ubyte, and the same with t10k. Some copies
    have a dot before `idx`.

    Args:
      data_dir: Folder of the data sets.
      name: "mnist" or "fashion_mnist".
    Returns:
      IdxFiles, of the first folder that has one of them. None if no folder has.
    Raises:
      ValueError: If some of the four are missing, or if they are those of the other data set.
    """
    for place in _FOLDERS[name]:
        folder = pathlib.Path(data_dir) / place
        images, labels = (
            {split: _file(folder, f"{prefix}-{kind}") for split, prefix in _PREFIXES.items()}
            for kind in ("images?idx3", "labels?idx1")
        )
        found = [path for path in (*images.values(), *labels.values()) if path is not None]
        if len(found) == 4:
            _check_which(labels["train"], name)
            return IdxFiles(folder, images, labels)
        if found:
            raise ValueError(
                f"{_TITLES[name]} must be there with images and labels, of train and of t10k, in "
                f"one folder. Received: {folder} with {', '.join(p.name for p in found)} only"
            )
    return None


def _file(folder, stem):
    """Path of the file with this stem in a folder, or None. In it, ? stands for one character."""
    found = [*folder.glob(f"{stem}-ubyte"), *folder.glob(f"{stem}-ubyte.gz")]
    return next((path for path in found if path.is_file()), None)


def _check_which(path, name):
    """Raises an error if training labels are those of the other data set."""
    start = tuple(read_idx(path, "labels")[:10].tolist())
    for other, labels in _FIRST_LABELS.items():
        if other != name and start == labels:
            raise ValueError(
                f"The files must be those of {_TITLES[name]}. Received: {path.parent} with "
                f"{_TITLES[other]}, which is --data_set {other}"
            )


def read_idx(path, kind):
    """Reads one of the four files.

    Args:
      path: Its path.
      kind: "images" or "labels".
    Returns:
      uint8 array [N, 28, 28, 1], or [N] of labels in [0, 9].
    Raises:
      ValueError: If the file is damaged, or holds something else.
    """
    with array_files.opened(path) as members:
        (member,) = members.values()
        is_right = member.dtype == np.uint8 and member.shape[0] > 0
        if kind == "images":
            is_right = is_right and member.shape[1:] == SHAPE[:2]
        else:
            is_right = is_right and len(member.shape) == 1
        array = np.array(member.load()) if is_right else None
    if array is None or (kind == "labels" and array.max() >= NUM_CLASSES):
        expected = "[N, 28, 28]" if kind == "images" else "[N] in [0, 9]"
        raise ValueError(
            f"The {kind} of MNIST must be bytes {expected}. "
            f"Received: {path} with {member.dtype} {member.shape}"
        )
    return array[..., np.newaxis] if kind == "images" else array


def _read(files, split):
    """The images and labels of one split."""
    images = read_idx(files.images[split], "images")
    labels = read_idx(files.labels[split], "labels").astype(np.int32)
    if len(images) != len(labels):
        raise ValueError(
            "There must be one label for each image. Received: "
            f"{files.images[split]} with {len(images)}, {files.labels[split]} with {len(labels)}"
        )
    description = f"{len(images)} images, from {files.folder}"
    if len(images) != SIZES[split]:
        description += f"; the whole split has {SIZES[split]}"
    return in_memory(images, labels, description)


def in_memory(images, labels, description, num_levels=256):
    """Makes the StoredImages of images [N, H, W, 1] that are in memory."""
    return store.StoredImages(
        images=images,
        labels=labels,
        num_levels=num_levels,
        num_classes=None if labels is None else NUM_CLASSES,
        class_names=None,
        highest=int(images.max()),
        uncropped=None,
        description=description,
    )
