"""Many files to images, in parallel, and what of them could not be read."""

import concurrent.futures
import itertools
import sys
import zipfile
import zlib

import numpy as np
from tqdm import tqdm

CHUNK = 512  # Files or rows in memory at a time.

# A download may lose a few files. Where more than a tenth cannot be read, something else is wrong,
# such as a copy that is still running, and whoever looks should look before days of training.
_MAX_UNREADABLE = 0.1
_NUM_NAMED = 3


def append_decoded(writer, items, decode, total):
    """Decodes images in parallel, and appends them in their order.

    Args:
      writer: SplitWriter.
      items: Iterable of (name, what to decode, label).
      decode: Function (name, what to decode) -> array [H, W, C] to append, or the reason, a string,
        why it cannot be read.
      total: How many items there are, for the progress bar; None where it is not known.
    Returns:
      {name: reason} of the images that cannot be read.
    """
    unreadable = {}

    def decode_item(item):
        name, encoded, label = item
        return name, decode(name, encoded), label

    for name, pixels, label in in_threads(decode_item, items, total):
        if isinstance(pixels, str):
            unreadable[name] = pixels
        else:
            writer.append(pixels, label)
    return unreadable


def in_threads(function, items, total):
    """Calls a function on many items in parallel, as it pays where codecs and disks work.

    Args:
      function: Function of an item.
      items: Iterable.
      total: How many items there are, for the progress bar; None where it is not known.
    Yields:
      The results in the order of the items.
    """
    items = iter(items)
    bar = tqdm(total=total, unit="image", leave=False, disable=None, file=sys.stderr)
    with bar, concurrent.futures.ThreadPoolExecutor() as pool:
        while chunk := list(itertools.islice(items, CHUNK)):
            yield from pool.map(function, chunk)
            bar.update(len(chunk))


def check_readable(unreadable, num_files, where):
    """Refuses a set of which too many files cannot be read.

    Args:
      unreadable: {name: reason}.
      num_files: Number of files.
      where: What holds them.
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


def describe_left_out(unreadable, num_small=0, size=None):
    """What is not among the images, in words; "" for nothing.

    Args:
      unreadable: {name: reason}.
      num_small: How many images are smaller than `size`.
      size: (H, W).
    Returns:
      String.
    """
    parts = []
    if unreadable:
        parts.append(f"{len(unreadable)} left out as unreadable: {_named(unreadable)}")
    if num_small:
        parts.append(f"{num_small} left out as smaller than {size[0]} x {size[1]}")
    return "; ".join(parts)


def read_arrays(file, wanted):
    """Reads a file of arrays.

    Args:
      file: Path of an .npz, or of an .npy, whose array is then called `images` and memory-mapped;
        or a binary file of an .npz.
      wanted: Names of the arrays to read; others may be of any kind.
    Returns:
      {name: array}, of the wanted ones that are there, or of the one array where it is alone.
    Raises:
      ValueError: If it is broken.
      OSError: If it cannot be opened.
    """
    try:
        if str(file).endswith(".npy"):
            return {"images": np.load(file, mmap_mode="r")}
        with np.load(file) as arrays:
            is_alone = len(arrays.files) == 1
            return {name: arrays[name] for name in arrays.files if is_alone or name in wanted}
    except (ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"Arrays must lie in a whole .npz or .npy. Received: {file} ({error})"
        ) from None
