"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

import functools
import pathlib
import pickle
import tarfile

import numpy as np

from pixel_cnn_pp.data import public_sets, store

_SHAPE = (32, 32, 3)
# Of each data set: its folder in the archive, the files of each split, the key of the labels, the
# number of classes.
_FILES = {
    "cifar10": (
        "cifar-10-batches-py",
        {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]},
        b"labels",
        10,
    ),
    "cifar100": ("cifar-100-python", {"train": ["train"], "test": ["test"]}, b"fine_labels", 100),
}
_ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
# What the pickles of NumPy arrays name. Anything else could run a program.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def load_cifar(split, data_dir, image_size, name="cifar10"):
    """Loads CIFAR-10 or CIFAR-100: 32 x 32 pixels, RGB, 10 or 100 classes.

    There are 50000 training images and 10000 test images. The loader looks for the archive for
    Python, cifar-10-python.tar.gz or cifar-100-python.tar.gz, or its folder, in `data_dir`.
    Otherwise TensorFlow Datasets downloads them to `data_dir`, which takes 162 MiB.

    Args:
      split: "train" or "test".
      data_dir: Folder of the data sets.
      image_size: 32 or None.
      name: "cifar10" or "cifar100".
    Returns:
      StoredImages, images uint8 [N, 32, 32, 3].
    Raises:
      ValueError: If `image_size` is another number, or the archive is damaged.
      OSError: If the data set is not there and cannot be downloaded.
    """
    title = {"cifar10": "cifar", "cifar100": "cifar100"}[name]
    public_sets.check_fixed_size(title, image_size, 32)
    folder, files, _, num_classes = _FILES[name]
    for root in (pathlib.Path(data_dir), pathlib.Path(data_dir) / title):
        for source in (root / folder, root / _ARCHIVES[name]):
            if source.exists():
                paths = [source] if source.is_file() else [source / f for f in files[split]]
                entry = public_sets.entry(
                    name,
                    [[str(path.resolve()), *store.file_state(path)] for path in paths],
                    split,
                    data_dir,
                    _SHAPE,
                    functools.partial(_append, source, name, split),
                    num_classes,
                )
                return store.load_stored(entry, split)
    entry = public_sets.tfds_entry(
        name,
        split,
        data_dir,
        _SHAPE,
        public_sets.rgb,
        {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[name],
        num_classes=num_classes,
    )
    return store.load_stored(entry, split)


class _Unpickler(pickle.Unpickler):
    """Reads pickles of NumPy arrays, and refuses all that could run a program."""

    def find_class(self, module, name):
        """The object of a name in a pickle, if it is harmless."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _append(source, name, split, writer):
    """Appends the images of a split from the archive or its folder."""
    folder, files, labels_key, num_classes = _FILES[name]
    for file in files[split]:
        try:
            if source.is_dir():
                with (source / file).open("rb") as stream:
                    batch = _Unpickler(stream, encoding="bytes").load()
            else:
                with tarfile.open(source) as archive:
                    stream = archive.extractfile(f"{folder}/{file}")
                    batch = _Unpickler(stream, encoding="bytes").load()
            pixels, labels = batch[b"data"], np.array(batch[labels_key])
            is_right = (
                pixels.dtype == np.uint8
                and pixels.shape == (len(labels), 3 * 32 * 32)
                and labels.dtype.kind == "i"
                and ((labels >= 0) & (labels < num_classes)).all()
            )
        except FileNotFoundError:
            raise
        except Exception as error:  # A damaged pickle can raise anything.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(
                f"The archive of {name} must be whole. Received: {source}, {file} ({reason})"
            ) from None
        if not is_right:
            raise ValueError(
                f"A batch of {name} must hold uint8 images [N, 3072] and labels [N] in "
                f"[0, {num_classes - 1}]. Received: {source}, {file} with others"
            )
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for image, label in zip(images, labels.tolist(), strict=True):
            writer.append(image, label)
    return {}
