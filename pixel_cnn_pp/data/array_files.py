"""Opens files of arrays: which arrays they hold, and their values, memory-mapped where possible."""

import contextlib
import dataclasses
import errno
import gzip
import math
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable

import numpy as np

from pixel_cnn_pp.data import array_names, scientific, store


@dataclasses.dataclass(frozen=True)
class Member:
    """One array of a file.

    Attributes:
      shape: Its shape.
      dtype: Its NumPy dtype.
      load: Function that returns the array. It may be memory-mapped, or a data set of HDF5.
      role: What the array is, as from `array_names.role`, where its file tells, or None.
      is_matlab: Whether its axes may be as MATLAB has them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable
    role: tuple | None = None
    is_matlab: bool = False


@contextlib.contextmanager
def opened(path, scratch=None):
    """Opens a file of arrays. What it is tells its first bytes, not its name.

    Args:
      path: Path of an .npy, .npz, IDX, HDF5 or .mat file, or of a folder of such files. An .npy
        or an IDX file may be packed by gzip.
      scratch: Folder for compressed arrays while the file is open. None for one of the system.
    Yields:
      {name: Member}. The array of a file that has only one may have the name "".
    Raises:
      ValueError: If the file is damaged, or of another kind.
      OSError: If the file cannot be read.
    """
    path = pathlib.Path(path)
    with (
        tempfile.TemporaryDirectory(dir=scratch, prefix="arrays-") as folder,
        contextlib.ExitStack() as stack,
    ):
        folder = pathlib.Path(folder)
        if not path.is_dir():
            yield _members(path, folder, stack)
            return
        found = {}
        for file in files_of(path):
            members = _members(file, pathlib.Path(tempfile.mkdtemp(dir=folder)), stack)
            for name, member in members.items():
                role = _role_in(file.name, name, len(members) == 1)
                full_name = f"{file.name}/{name}" if name else file.name
                found[full_name] = dataclasses.replace(member, role=role)
        yield found


def files_of(folder):
    """The files of arrays that lie in a folder, by their first bytes: paths, sorted by name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and _kind(_start(path), path)
    ]


def is_file(path):
    """Whether a file is one of arrays, by its first bytes."""
    return _kind(_start(path), path) is not None


def _role_in(file_name, name, is_alone):
    """What an array of a file in a folder is: the file's name tells what its own does not."""
    split, kind = array_names.role(name) if name else (None, None)
    if name and is_alone and kind is None:
        split = None
    of_file = array_names.role(file_name, is_file=True)
    return split or of_file[0], kind or (of_file[1] if is_alone else None)


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
    except scientific.MissingPackageError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path, error):
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(
        f"Arrays must lie in a whole file, such as an .npz or .npy. Received: {path} ({reason})"
    )


def _start(path):
    with path.open("rb") as file:
        return file.read(8)


def _kind(start, path):
    """What a file is by its first bytes; by its end too where several kinds start so. Or None."""
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start == scientific.HDF5_START:
        return "hdf5"
    if start.startswith(scientific.MAT_STARTS):
        return "mat"
    if start.startswith(b"\x1f\x8b"):
        is_archive = path.name.lower().endswith((".tar.gz", ".tgz"))
        return None if is_archive else "gzip"
    if start.startswith(b"PK"):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            if not any(name.endswith(".npy") for name in archive.namelist()):
                return None  # An archive of pictures.
        return "npz"
    return "idx" if scientific.is_idx(start) else None


def _members(path, folder, stack):
    if path.exists() and not path.is_dir() and not path.is_file():
        # To open a named pipe would wait for ever.
        raise ValueError(f"Arrays must lie in a file. Received: {path}, which is none")
    start = _start(path)
    with whole_file(path):
        kind = _kind(start, path)
        if kind in ("npy", "idx"):
            array = _mapped(path) if kind == "npy" else scientific.idx(path)
            return {"": Member(array.shape, array.dtype, lambda: array)}
        if kind == "npz":
            return _members_of_npz(path, folder)
        if kind in ("hdf5", "mat"):
            found = (
                scientific.hdf5(path, stack)
                if kind == "hdf5"
                else scientific.mat(path, start, stack)
            )
            return {
                name: Member(*properties, is_matlab=kind == "mat")
                for name, properties in found.items()
            }
    if kind == "gzip":
        unpacked = folder / path.with_suffix("").name
        with whole_file(path), gzip.open(path) as packed, unpacked.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
        if _kind(_start(unpacked), unpacked) not in (None, "gzip"):
            return _members(unpacked, folder, stack)
    raise ValueError(
        f"Arrays must lie in an .npy, .npz, IDX, HDF5 or .mat file. Received: {path}, which is none"
    )


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
