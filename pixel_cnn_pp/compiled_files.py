"""Where a script keeps what XLA has compiled and what was traced, so that the next start need not.

TensorFlow finds a file by the function and by the exact program of XLA, and checks both. It does
not check the machine, nor its own version, so there is a folder for each of them. An incomplete
file, as after a power failure, would end the script. So a file counts only if the process that
wrote it has noted its size at its end.

The graphs of traced functions are kept there too, under names that are made of the sources of this
package.
"""

import atexit
import contextlib
import hashlib
import os
import pathlib
import platform
import shutil
import sys
import time
from importlib import metadata

# The environment variable that names the folder. If it is empty, nothing is kept.
VARIABLE = "PIXEL_CNN_PP_CACHE"

_FLAG = "--tf_xla_persistent_cache_directory"
# A file has some megabytes. The oldest are removed above this size of all.
_MOST_BYTES = 2**28
_SECONDS_OF_A_DAY = 24 * 60 * 60
# Nothing is kept on a disk with less space than this, because TensorFlow stops if it is full.
_LEAST_FREE_BYTES = 2**30

# (folder, version of the code) after `keep`, if this process keeps files.
_kept = None


def keep(tensorflow):
    """Tells TensorFlow, before it is imported, to keep and to use the files of this machine.

    Args:
      tensorflow: Path of a file of TensorFlow, which changes with its version.

    If the folder cannot be used, or if the user has given TensorFlow a folder, it does nothing.
    """
    global _kept
    flags = os.environ.get("TF_XLA_FLAGS", "")
    root = os.environ.get(VARIABLE, pathlib.Path(_caches(), "pixel_cnn_pp"))
    is_possible = root and not set(str(root)) & set(" \t\n'\"")  # TensorFlow's flags have no quotes
    if _FLAG in flags or not is_possible or "tensorflow" in sys.modules:
        return
    folder = pathlib.Path(root, "compiled", _machine(tensorflow))
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever can write there can make this process run anything.
        is_own = folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o022
        if not is_own or shutil.disk_usage(folder).free < _LEAST_FREE_BYTES:
            return
        _clean(folder.parent)
        _kept = folder, _version_of_code()
        os.environ["TF_XLA_FLAGS"] = f"{flags} {_FLAG}={folder}".strip()
        atexit.register(_note_sizes, folder, {path.name for path in folder.glob("*.pb")})


def path_of(key):
    """Path of the file to keep what follows from a key and from the code of this package.

    Args:
      key: Anything whose `repr` says all that the contents depend on, apart from the code.

    Returns:
      `pathlib.Path`, or None if this process keeps no files. The file need not exist.
    """
    if _kept is None:
        return None
    folder, version = _kept
    return folder / f"graph_{hashlib.sha256(repr((version, key)).encode()).hexdigest()}.pb"


def _version_of_code():
    """What changes with the sources of this package, and with Keras."""
    package = pathlib.Path(__file__).parent
    contents = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        contents.update(path.read_bytes())
    return contents.hexdigest(), metadata.version("keras")


def _caches():
    """The folder for files that can be made again."""
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


def _machine(tensorflow):
    """Name of a folder for all that what is compiled depends on, apart from the function."""
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        of_interest = ("vendor_id", "model name", "cpu family", "model", "stepping", "flags")
        processor = [line for line in lines if line.split("\t")[0].strip() in of_interest]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = [f"{name}={os.environ.get(name)}" for name in ("XLA_FLAGS", "TF_XLA_FLAGS")]
    version = os.path.realpath(tensorflow), os.stat(tensorflow).st_mtime_ns
    everything = repr((version, platform.machine(), processor, cores, settings))
    return hashlib.sha256(everything.encode()).hexdigest()[:32]


def _size_of(path):
    """The file with the size of a file."""
    return path.with_suffix(".size")


def _clean(root):
    """Removes incomplete files from the folders, and the oldest ones if there are too many."""
    found = []
    for path in root.glob("*/*.pb"):
        noted, size = _size_of(path), path.stat().st_size
        if noted.exists() and noted.read_text() == str(size):
            found.append((path.stat().st_mtime, size, path))
        else:
            path.unlink()
            noted.unlink(missing_ok=True)
    for path in root.glob("*/*.tmp"):
        if path.stat().st_mtime < time.time() - _SECONDS_OF_A_DAY:  # not being written now
            path.unlink()
    found.sort(reverse=True)
    total = 0
    for _, size, path in found:
        total += size
        if total > _MOST_BYTES:
            path.unlink()
            _size_of(path).unlink()


def _note_sizes(folder, known):
    """Notes the sizes of the files that are new."""
    with contextlib.suppress(OSError):
        for path in folder.glob("*.pb"):
            if path.name not in known:
                _size_of(path).write_text(str(path.stat().st_size))
