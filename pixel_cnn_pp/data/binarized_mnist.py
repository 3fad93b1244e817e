"""MNIST in black and white: the fixed set of Larochelle and Murray (2011), or one made from MNIST.

Nats of the two cannot be compared exactly, because a pixel is drawn otherwise. So the load line
says which of them was taken.
"""

import dataclasses
import hashlib
import pathlib

import numpy as np

from pixel_cnn_pp.data import mnist, public_sets, store

# The seed of the binarisation. Another seed would make another data set.
_KEY = 2008
_NUM_PIXELS = 28 * 28
_CHUNK = 1000  # Number of images that are binarised at a time.
# SHA-256 of the labels of MNIST in the order of the original files, one byte each.
_LABELS_DIGESTS = {
    "train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}


def load_binarized_mnist(split, data_dir, image_size):
    """Loads MNIST with two levels, 28 x 28 pixels.

    The first of these sources that exists is used. Nothing but the last is downloaded, so what is
    in `data_dir` decides alone which binarisation is taken.

    1. The files of Larochelle, binarized_mnist_train.amat and binarized_mnist_test.amat, in
       `data_dir` or its folder binarized_mnist. There are 50000 training images; the 10000 of
       binarized_mnist_valid.amat are not used. They have no labels.
    2. The same images, which TensorFlow Datasets has prepared in `data_dir`.
    3. The original files of MNIST (`mnist.idx_files`), binarised by `binarised`.
    4. MNIST from TensorFlow Datasets, brought to the order of the original files and binarised in
       the same way.

    Args:
      split: "train" or "test".
      data_dir: Folder of the data sets.
      image_size: 28 or None.
    Returns:
      StoredImages, images uint8 [N, 28, 28, 1] of 0 and 1, L = 2.
    Raises:
      ValueError: If `image_size` is another number, or the files are incomplete or damaged.
      OSError: If the images are not there and cannot be downloaded.
    """
    public_sets.check_fixed_size("binarized_mnist", image_size, 28)
    files = _amat_files(data_dir)
    if files is not None:
        images = _read_amat(files[split])
        description = f"{len(images)} images, the fixed binarisation of Larochelle, from "
        return mnist.in_memory(images, None, f"{description}{files[split]}", num_levels=2)
    if _is_prepared(data_dir):
        entry = public_sets.tfds_entry(
            "binarized_mnist", split, data_dir, mnist.SHAPE, mnist.grey_digit, "Binarized MNIST"
        )
        stored = store.load_stored(entry, split, num_levels=2)
        description = f"{stored.description}, the fixed binarisation of Larochelle, from "
        return dataclasses.replace(stored, description=f"{description}TensorFlow Datasets")
    files = mnist.idx_files(data_dir, "mnist")
    if files is not None:
        digits = mnist.load_mnist(split, data_dir, 28)
        num_before = len(mnist.read_idx(files.images["train"], "images")) if split == "test" else 0
        images, labels, source = digits.images, digits.labels, digits.description
    else:
        images, labels, num_before, source = _tfds_digits(split, data_dir)
    return mnist.in_memory(
        binarised(images, num_before),
        labels,
        f"{source}; binarised once with the seed {_KEY}, which is not the set of Larochelle",
        num_levels=2,
    )


def binarised(images, num_before=0):
    """Draws black and white images whose mean are grey images.

    A pixel of value x becomes 1 if 255 u < x, with u uniform in [0, 1): so with probability x / 255
    up to the rounding of u to 53 bits. Every pixel has its own u, in the order of the training
    images and then the test images of the original files, row by row. u is the upper 53 bits of a
    number of the generator Philox4x64-10 with the key 2008.

    Args:
      images: uint8 array [N, 28, 28, 1].
      num_before: Number of images that come before them in that order.
    Returns:
      uint8 array [N, 28, 28, 1] of 0 and 1.
    """
    bits = np.random.Philox(key=_KEY)
    bits.advance(num_before * _NUM_PIXELS // 4)  # The generator makes four numbers at a time.
    found = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _CHUNK):
        x = images[start : start + _CHUNK]
        raw = bits.random_raw(x.size).reshape(x.shape)
        u = (raw >> np.uint64(11)) * 2.0**-53
        found[start : start + _CHUNK] = 255 * u < x
    return found


def _amat_files(data_dir):
    """{split: path} of the files of Larochelle, or None."""
    for root in (pathlib.Path(data_dir), pathlib.Path(data_dir) / "binarized_mnist"):
        files = {split: root / f"binarized_mnist_{split}.amat" for split in store.SPLITS}
        found = [path.name for path in files.values() if path.is_file()]
        if len(found) == len(files):
            return files
        if found:
            raise ValueError(
                "Binarized MNIST must be there with binarized_mnist_train.amat and "
                f"binarized_mnist_test.amat. Received: {root} with {found[0]} only"
            )
    return None


def _read_amat(path):
    """Reads a file of Larochelle: a line of 784 times 0 or 1 for each image."""
    lines = [line.replace(b" ", b"") for line in path.read_bytes().splitlines()]
    levels = np.frombuffer(b"".join(lines), np.uint8) - np.uint8(ord("0"))
    is_right = bool(lines) and levels.max(initial=0) <= 1
    is_right = is_right and all(len(line) == _NUM_PIXELS for line in lines)
    if not is_right:
        raise ValueError(
            f"A file of binarized MNIST must hold lines of {_NUM_PIXELS} times 0 or 1. "
            f"Received: {path} with others"
        )
    return levels.reshape(-1, *mnist.SHAPE)


def _is_prepared(data_dir):
    """Whether TensorFlow Datasets has prepared the set of Larochelle. It is not imported here."""
    return any(pathlib.Path(data_dir).glob("binarized_mnist/*/dataset_info.json"))


def _tfds_digits(split, data_dir):
    """Images, labels, the number of images before them, and their source in words."""
    entries = {part: mnist.tfds_entry("mnist", part, data_dir) for part in store.SPLITS}
    stored = store.load_stored(entries[split], split)
    num_before = 0
    if split == "test":
        num_before = len(store.load_stored(entries["train"], "train").images)
    source = f"{stored.description} from TensorFlow Datasets"
    places = _original_places(split, len(stored.images))
    images, labels = np.empty_like(stored.images), np.empty_like(stored.labels)
    images[places], labels[places] = stored.images, stored.labels
    if hashlib.sha256(labels.astype(np.uint8)).hexdigest() != _LABELS_DIGESTS[split]:
        # Another version may shuffle in another way.
        images, labels = np.array(stored.images), stored.labels
        source += ", in an order that is not that of the original files"
    return images, labels, num_before, source


def _original_places(split, num_images):
    """The place of each image of TensorFlow Datasets in the original file: integers [N].

    TensorFlow Datasets sorts the images by the MD5 of the name of the split and their number.
    """
    digests = [hashlib.md5(f"{split}{number}".encode()).digest() for number in range(num_images)]
    return np.array(sorted(range(num_images), key=digests.__getitem__))
