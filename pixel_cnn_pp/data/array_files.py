"""Opens files of arrays: which arrays they hold, and their values, memory-mapped where possible."""

import contextlib
import dataclasses
import errno
import math
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable

import numpy as np

from pixel_cnn_pp.data import store


@dataclasses.dataclass(frozen=True)
class Member:
    """One array of a file.

    Attributes:
      shape: Its shape.
      dtype: Its NumPy dtype.
      load: Function that returns the array. It may be memory-mapped.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable


@contextlib.contextmanager
def opened(path, scratch=None):
    """Opens a file of arrays. What it is tells its first bytes, not its name.

    Args:
      path: Path of an .npy or .npz file.
      scratch: Folder for compressed arrays while the file is open. None for one of the system.
    Yields:
      {name: Member}. The array of an .npy has the name "".
    Raises:
      ValueError: If the file is damaged, or of another kind.
      OSError: If the file cannot be read.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="arrays-") as folder:
        yield _members(pathlib.Path(path), pathlib.Path(folder))


def loaded(file, path, wanted):
    """Reads arrays of an .npz into memory.

    Args:
      file: Path, or an open binary file.
      path: Path to name in messages.
      wanted: Names of the arrays to read.
    Returns:
      {name: array} of those that are there.
    Raises:
      ValueError: If the file is damaged.
      OSError: If it cannot be read.
    """
    with whole_file(path), np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files if name in wanted}


@contextlib.contextmanager
def whole_file(path):
    """Turns whatever a damaged file raises from inside a library into a ValueError of one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # EINVAL: to a place before the file's start.
            raise
        raise _damaged(path, error) from None
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path, error):
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(
        f"Arrays must lie in a whole file, such as an .npz or .npy. Received: {path} ({reason})"
    )


def _members(path, folder):
    if path.exists() and not path.is_dir() and not path.is_file():
        # To open a named pipe would wait for ever.
        raise ValueError(f"Arrays must lie in a file. Received: {path}, which is none")
    with path.open("rb") as file:
        start = file.read(8)
    with whole_file(path):
        if start.startswith(b"\x93NUMPY"):
            array = _mapped(path)
            return {"": Member(array.shape, array.dtype, lambda: array)}
        if start.startswith(b"PK"):
            return _members_of_npz(path, folder)
    raise ValueError(f"Arrays must lie in an .npz or .npy. Received: {path}, which is none")


def _mapped(path):
    """The array of an .npy file, memory-mapped."""
    with path.open("rb") as file:
        shape, _, dtype = _header(file)
    if 0 in shape:
        return np.empty(shape, dtype)  # Nothing can be mapped.
    return np.load(path, mmap_mode="r")


def _header(file):
    """Shape, order and dtype of an .npy, whose first bytes are read."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _members_of_npz(path, folder):
    members = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename
            if not name.endswith(".npy"):
                continue
            with archive.open(entry) as file:
                shape, _, dtype = _header(file)
                # A header may claim anything. Only what is there is room made for.
                size = entry.file_size - file.tell()
                if not dtype.hasobject and math.prod(shape) * dtype.itemsize != size:
                    raise ValueError(f"{name} claims the shape {shape} and holds {size} bytes")
            members[name[:-4]] = Member(shape, dtype, _extraction(path, entry, folder))
    return members


def _extraction(path, entry, folder):
    """Makes a function that unpacks an array of an .npz beside and memory-maps it."""

    def load():
        target = folder / f"{entry.header_offset}.npy"
        if not target.exists():
            store.check_space(folder, entry.file_size)
            with (
                whole_file(path),
                zipfile.ZipFile(path) as archive,
                archive.open(entry) as packed,
                target.open("wb") as file,
            ):
                shutil.copyfileobj(packed, file, 2**20)  # Checks the sum at the end.
        with whole_file(path):
            return _mapped(target)

    return load
