"""Writes files that a person may have already: complete, or not at all."""

import contextlib
import os
import pathlib
import secrets


def checked_path(name, value):
    """A path that a user gives, as a `pathlib.Path`.

    Args:
      name: Name of the argument, for the message.
      value: Anything.

    Raises:
      ValueError: If the value is not a string or a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        received = " ".join(repr(value).split())[:200]
        raise ValueError(f"`{name}` must be a path. Received: {name}={received}")
    return pathlib.Path(value)


def replace(path, write):
    """Writes one file, as `replace_all` does.

    Args:
      path: File to write or replace.
      write: Function of an open binary file.

    Raises:
      OSError: If the file cannot be written. Then an older file is unchanged.
    """
    replace_all({path: write})


def replace_all(writes):
    """Writes files that belong together, such as a picture and its array.

    Each is written beside its final path. When all of them are complete and on the disk, they are
    renamed. If one cannot be written, for example because the disk is full, none is replaced.

    Args:
      writes: {path of a file: function of an open binary file}. Missing folders are created. If a
        path is a link, the file that it points to is replaced.

    Raises:
      OSError: If a file cannot be written. Its `filename` is the final path.
    """
    unfinished = {}
    try:
        for path, function in writes.items():
            final = pathlib.Path(os.path.realpath(path))
            final.parent.mkdir(parents=True, exist_ok=True)
            # In the same folder, because a rename is atomic only within one disk. The name is
            # short, because that of the file may be as long as the disk allows.
            beside = final.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tmp")
            unfinished[beside] = final
            try:
                write(beside, function)
            except OSError as error:
                raise _named(error, path) from None
        for beside, final in unfinished.items():
            beside.replace(final)
    finally:
        for beside in unfinished:
            with contextlib.suppress(OSError):
                beside.unlink()


def write(path, function):
    """Writes a file by a function of the open file, and waits until its bytes are on the disk."""
    with open(path, "wb") as file:
        function(file)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path):
    """Waits until the names of the files in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _named(error, path):
    """The same error about the path that the user knows."""
    if error.errno is None:
        return error
    return OSError(error.errno, error.strerror, str(path))
