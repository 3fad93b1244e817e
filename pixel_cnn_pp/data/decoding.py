"""Decodes many files in parallel, and reports the files that cannot be read."""

import concurrent.futures
import itertools
import sys

from tqdm import tqdm

_GROUP = 8  # Number of files that a thread takes at a time: to hand one over takes as long.
CHUNK = 512  # Number of files or rows in memory at a time.

# A download may damage a few files. If more than this part cannot be read, something else is wrong,
# such as a copy that is still running. The user should see this before days of training.
_MAX_UNREADABLE = 0.1
_NUM_NAMED = 3


def append_decoded(writer, items, decode, total):
    """Decodes images in parallel, and appends them in the order of the items.

    Args:
      writer: SplitWriter.
      items: Iterable of (name, encoded image, label).
      decode: Function (name, encoded image) -> list of arrays [H, W, C]. If the image cannot be
        read, it returns the reason, a string.
      total: Number of items, for the progress bar. None if it is unknown.
    Returns:
      {name: reason} of the images that cannot be read.
    """
    unreadable = {}

    def decode_item(item):
        name, encoded, label = item
        return name, decode(name, encoded), label

    for name, found, label in in_threads(decode_item, items, total):
        if isinstance(found, str):
            unreadable[name] = found
        else:
            for pixels in found:
                writer.append(pixels, label)
    return unreadable


def in_threads(function, items, total):
    """Calls a function on many items in parallel threads.

    Threads help here, because codecs and disks work without holding Python's lock.

    Args:
      function: Function of an item.
      items: Iterable.
      total: Number of items, for the progress bar. None if it is unknown.
    Yields:
      The results in the order of the items.
    """
    items = iter(items)
    bar = tqdm(total=total, unit="image", leave=False, disable=None, file=sys.stderr)
    with bar, concurrent.futures.ThreadPoolExecutor() as pool:
        while chunk := list(itertools.islice(items, CHUNK)):
            groups = [chunk[start : start + _GROUP] for start in range(0, len(chunk), _GROUP)]
            for results in pool.map(lambda group: [function(item) for item in group], groups):
                yield from results
            bar.update(len(chunk))


def check_readable(unreadable, num_files, where):
    """Raises an error if too many files cannot be read.

    Args:
      unreadable: {name: reason} of the files that cannot be read.
      num_files: Number of all files.
      where: The folder or file that holds them, for the message.
    Raises:
      ValueError: If more than a tenth of the files are unreadable.
    """
    if len(unreadable) > _MAX_UNREADABLE * num_files:
        raise ValueError(
            f"At most {_MAX_UNREADABLE:.0%} of the pictures may be unreadable. "
            f"Received: {len(unreadable)} of {num_files} in {where}: {_named(unreadable)}"
        )


def _named(unreadable):
    """The first few of the unreadable files, each with its reason."""
    named = [
        f"{name} ({reason})" for name, reason in itertools.islice(unreadable.items(), _NUM_NAMED)
    ]
    return ", ".join(named) + (", ..." if len(unreadable) > _NUM_NAMED else "")


def describe_left_out(unreadable, num_small=0, size=None, odd=None, notes=()):
    """Describes in words which files were left out of the images.

    Args:
      unreadable: {name: reason} of the files that cannot be read.
      num_small: Number of images that are smaller than `size`.
      size: (H, W).
      odd: {what is odd about images, in words: their number}, of those that were left out for it.
      notes: What else is to be said, strings.
    Returns:
      String, empty if no file was left out.
    """
    parts = []
    if unreadable:
        parts.append(f"{len(unreadable)} left out as unreadable: {_named(unreadable)}")
    if num_small:
        parts.append(f"{num_small} left out as smaller than {size[0]} x {size[1]}")
    if odd:
        each = ", ".join(f"{words} ({number})" for words, number in odd.items())
        parts.append(f"{sum(odd.values())} left out as odd: {each}")
    parts += notes
    return "; ".join(parts)
