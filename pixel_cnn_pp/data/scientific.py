"""Opens files of arrays of other programs: IDX as MNIST has it, HDF5, and MATLAB's .mat."""

import contextlib
import math

import numpy as np

_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
HDF5_START = b"\x89HDF\r\n\x1a\n"
MAT_STARTS = (b"MATLAB 5", b"MATLAB 7")


class MissingPackageError(ValueError):
    """A package is not installed that only some files need."""


@contextlib.contextmanager
def needed_for(extra):
    """Turns a failing import into an error that says how to install the package.

    Args:
      extra: Name of the extra of this project that installs it.
    Raises:
      MissingPackageError: If an import in the context fails.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{error.name} must be installed to read this file: "
            f"pip install 'pixel_cnn_pp[{extra}]'. Received: an environment without it"
        ) from None


def is_idx(start):
    """Whether a file that starts so is an IDX file of arrays with one to four axes."""
    return start[:2] == b"\0\0" and len(start) > 3 and start[2] in _IDX_TYPES and 0 < start[3] < 5


def idx(path):
    """The array of an IDX file, memory-mapped (yann.lecun.com/exdb/mnist)."""
    with open(path, "rb") as file:
        _, _, kind, rank = file.read(4)
        shape = tuple(int(size) for size in np.frombuffer(file.read(4 * rank), ">u4"))
        place, size = file.tell(), file.seek(0, 2)
    dtype = np.dtype(_IDX_TYPES[kind])
    if len(shape) != rank or math.prod(shape) * dtype.itemsize != size - place:
        raise ValueError(f"an IDX file claims the shape {shape} and holds {size - place} bytes")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", place, shape)


def hdf5(path, stack):
    """The data sets of an HDF5 file: {name: (shape, dtype, function that loads it)}.

    Args:
      path: File.
      stack: `contextlib.ExitStack` that keeps the file open.
    """
    with needed_for("hdf5"):
        import h5py

    file = stack.enter_context(h5py.File(path, "r"))
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.shape:
            is_text = h5py.check_string_dtype(item.dtype) is not None
            load = (lambda: item.asstr()[()].astype(str)) if is_text else (lambda: item)
            name = name if isinstance(name, str) else name.decode("utf-8", "replace")
            found[name] = (item.shape, item.dtype, load)

    file.visititems(visit)
    return found


def mat(path, start, stack):
    """The arrays of a .mat file, as MATLAB has their axes: as from `hdf5`."""
    if start.startswith(b"MATLAB 7"):
        found = hdf5(path, stack)
        # HDF5 counts axes from the last one.
        return {
            name: (shape[::-1], dtype, lambda load=load: np.asarray(load()).transpose())
            for name, (shape, dtype, load) in found.items()
            if not name.startswith("#")
        }
    with needed_for("mat"):
        import scipy.io

    arrays = {
        name: array
        for name, array in scipy.io.loadmat(path).items()
        if not name.startswith("__") and isinstance(array, np.ndarray)
    }
    return {
        name: (array.shape, array.dtype, lambda array=array: array)
        for name, array in arrays.items()
    }


def with_images_first(images, labels, where):
    """Brings images of MATLAB to [N, H, W] or [N, H, W, C], and labels to whole numbers.

    MATLAB counts the images by the last axis, as SVHN does. Python writes .mat files too, and
    counts by the first. The number of labels tells which, or else that height and width are equal.

    Args:
      images: Array.
      labels: Array of N labels, or None.
      where: Which array it is, for the message.
    Returns:
      Images and labels.
    Raises:
      ValueError: If it cannot be told.
    """
    shape = images.shape
    if labels is not None:
        labels = labels.reshape(-1)
        if labels.dtype.kind == "f" and (labels == labels.astype(np.int64)).all():
            labels = labels.astype(np.int64)  # MATLAB's numbers are floats.
        counts = [length == len(labels) for length in (shape[0], shape[-1])]
    else:
        counts = [shape[1] == shape[2] != shape[0], shape[0] == shape[1] != shape[-1]]
        if len(shape) == 4 and counts == [True, True]:
            counts = [shape[3] <= 4, shape[2] <= 4]
    if counts == [False, True]:
        return np.moveaxis(images, -1, 0), labels
    if counts == [True, False]:
        return images, labels
    raise ValueError(
        "The first or the last axis of images in a .mat must count them, and labels or square "
        f"images must tell which. Received: shape {shape} {where}"
    )
