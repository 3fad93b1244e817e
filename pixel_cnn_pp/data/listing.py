"""Lists the picture files of a folder: each once, whatever links lead to it."""

import collections
import dataclasses
import os

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".gif", ".bmp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpf", ".avif"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class ListedFile:
    """A picture file of a folder.

    Attributes:
      name: Path relative to the folder, with slashes. Bytes that are no text are escaped.
      path: Path of the file.
      state: Its size and the time of its last change, as from `store.file_state`.
      identity: What tells the file from others, whatever its name. None for a broken link.
      is_link: Whether a link leads to it.
    """

    name: str
    path: str
    state: tuple[int, int] = (0, 0)
    identity: tuple[int, int] | None = None
    is_link: bool = False


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
      files: List of ListedFile, sorted by name.
      passed_over: {ending of the name: number of files}, of files that are no pictures.
      repeated: Names of links to folders that are listed already, by another name.
    """

    files: list
    passed_over: collections.Counter
    repeated: list


def is_picture(name):
    """Whether a file is a picture by its name, and not hidden."""
    return not is_hidden(name) and name.lower().endswith(SUFFIXES)


def is_hidden(name):
    """Whether a file or folder is hidden, by the last part of its name."""
    return name.rpartition("/")[2].startswith((".", "__MACOSX"))


def ending(name):
    """The ending of a file's name, in words."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix or "without ending"


def list_folder(folder):
    """Lists the picture files in a folder and its sub-folders, except hidden ones.

    Links are followed, but a folder is listed once, and those around `folder` never.

    Args:
      folder: Folder.
    Returns:
      Listing.
    Raises:
      ValueError: If there are no picture files.
      OSError: If the folder or a folder in it cannot be read.
    """
    files, passed_over, repeated = [], collections.Counter(), []
    seen = _folders_around(folder)
    # Links come after all else, so that what lies in the folder has its own name.
    folders, links = [(os.fspath(folder), "", False)], []
    while folders or links:
        if not folders:
            entry, name = links.pop(0)
            try:
                state = os.stat(entry.path)
            except OSError:  # A broken link, or a circle. Reading a picture will report it.
                if is_picture(entry.name):
                    files.append(ListedFile(name, entry.path, is_link=True))
                continue
            if not entry.is_dir():
                _add(files, passed_over, entry, name, state, True)
                continue
            if (state.st_dev, state.st_ino) in seen:
                repeated.append(name)
                continue
            folders.append((entry.path, f"{name}/", True))
        path, prefix, is_link = folders.pop()
        state = os.stat(path)
        seen.add((state.st_dev, state.st_ino))
        for entry in _entries(path):
            if is_hidden(entry.name):
                continue
            name = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            if entry.is_symlink():
                links.append((entry, name))
            elif entry.is_dir():
                folders.append((entry.path, f"{name}/", is_link))
            else:
                _add(files, passed_over, entry, name, entry.stat(), is_link)
    if not files:
        endings = ", ".join(SUFFIXES)
        found = f", but {described(passed_over)}" if passed_over else ""
        raise ValueError(
            f"A folder must hold pictures ({endings}). Received: {folder} with none{found}"
        )
    return Listing(sorted(files, key=lambda file: file.name), passed_over, sorted(repeated))


def described(passed_over):
    """Numbers of files by their ending, in words: the most first."""
    return ", ".join(f"{ending} ({number})" for ending, number in passed_over.most_common(8))


def _add(files, passed_over, entry, name, state, is_link):
    if not entry.is_file():  # Such as a named pipe. To open it would wait for ever.
        passed_over["not a file"] += 1
    elif not is_picture(entry.name):
        passed_over[ending(entry.name)] += 1
    else:
        identity = (state.st_dev, state.st_ino)
        times = (state.st_size, state.st_mtime_ns)
        files.append(ListedFile(name, entry.path, times, identity, is_link))


def _entries(path):
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise OSError(
            f"Every folder of pictures must be readable. Received: {path} ({error.strerror})"
        ) from None


def _folders_around(folder):
    """The identities of the folders that hold a folder."""
    path, found = os.path.realpath(folder), set()
    while (parent := os.path.dirname(path)) != path:
        state = os.stat(parent)
        found.add((state.st_dev, state.st_ino))
        path = parent
    return found
