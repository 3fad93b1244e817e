"""The cache of decoded images on disk.

Images are decoded once and then memory-mapped. An entry of the cache is either complete or does not
exist. If the source files change, a new entry is made.

An entry has a folder for each split. The folder holds images.npy, labels.npy if there are classes,
and a description of the images. writing.py writes them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np

from pixel_cnn_pp.data import labels as labels_of

SPLITS = ("train", "test")
# Part of every key. Raise this number when the same sources are to be stored in another way.
_VERSION = 2


def entry(data_dir, name, key, write, find_damage=None):
    """Finds the cache entry of a key, or makes it with `write`.

    The entry is written to a temporary folder, which is renamed when it is complete. Therefore no
    incomplete entry remains if the process is killed, and two processes may write the same entry.

    Args:
      data_dir: Folder that holds the cache, in its folder `cache`. It is created if it is missing.
      name: Start of the folder's name, for people.
      key: Everything that the files depend on, as values that JSON can hold: the sources with their
        sizes and times of change, and the options. A different key makes a different entry.
      write: Function of an empty folder. It is called if the entry does not exist.
      find_damage: Function of the folder of an entry that says what is wrong with it, or returns
        None, such as `damage`. A damaged entry is made anew.
    Returns:
      Path of the folder of the entry.
    Raises:
      OSError: If the folder cannot be written.
    """
    text = json.dumps([_VERSION, key], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    cache_dir = pathlib.Path(data_dir) / "cache"
    folder = cache_dir / f"{name}-{digest[:20]}"
    if folder.is_dir():
        damage = None if find_damage is None else find_damage(folder)
        if damage is None:
            return folder
        print(f"{folder} is damaged ({damage}), and is made anew.")
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=f"{name}-", suffix=".partial") as parent:
        written = pathlib.Path(parent) / folder.name
        written.mkdir()
        write(written)
        _flush(written)
        with contextlib.suppress(OSError):  # There is none, or it is whole by now.
            if find_damage is not None and find_damage(folder) is not None:
                folder.rename(pathlib.Path(parent) / "damaged")
        try:
            written.rename(folder)
        except OSError:
            if not folder.is_dir():  # If it exists, another process has made the same entry.
                raise
    return folder


def _flush(folder):
    """Writes all files to the disk. This happens before their folder gets its final name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def damage(folder):
    """Says what is wrong with a cache entry, without reading its pixels.

    Args:
      folder: Folder of the entry.
    Returns:
      One line, or None if nothing is wrong.
    """
    try:
        about = _checked_keys(folder / "about.json", _KEYS)
        splits = [folder / split for split in SPLITS if (folder / split).is_dir()]
        if not splits:
            return "no split"
        for split in splits:
            _checked_keys(split / "about.json", _KEYS_OF_SPLIT)
            num_images = len(_checked_array(split / "images.npy", 4))
            if about["num_classes"] is not None:
                labels = _checked_array(split / "labels.npy", 1, num_images)
                if labels.min() < 0 or labels.max() >= about["num_classes"]:
                    return f"labels in [{labels.min()}, {labels.max()}] in {split.name}"
            names = ("uncropped.npy", "sizes.npy")
            if any((split / name).exists() for name in names):
                values = _checked_array(split / names[0], 1)
                sizes = _checked_array(split / names[1], 2, num_images)
                if len(values) % int(sizes.prod(axis=1).sum()):
                    return f"uncropped images of another size in {split.name}"
    except Exception as error:  # A damaged file raises anything.
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


_KEYS = {"num_levels", "num_classes", "class_names", "most_levels"}
_KEYS_OF_SPLIT = {"highest", "lowest_alpha", "left_out"}


def _checked_keys(path, keys):
    values = json.loads(path.read_text())
    if not isinstance(values, dict) or set(values) != keys:
        raise ValueError(f"other keys in {path.parent.name}/{path.name}")
    return values


def _checked_array(path, rank, length=None):
    where = f"{path.parent.name}/{path.name}"
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{where}: {error}") from None
    is_right = array.ndim == rank and array.size and array.dtype.kind in "iu"
    if not is_right or length not in (None, len(array)):
        raise ValueError(f"{where} is {array.dtype} {array.shape}")
    return array


def file_state(path):
    """Size of a file and time of its last change. They show whether the file has changed.

    Args:
      path: File.
    Returns:
      Pair of whole numbers: bytes and nanoseconds.
    """
    try:
        state = os.stat(path)
    except FileNotFoundError:  # A broken link. Reading the file will report it.
        return 0, 0
    return state.st_size, state.st_mtime_ns


def check_space(folder, num_bytes):
    """Checks that the disk has room for data before they are written.

    Args:
      folder: Existing folder on the disk.
      num_bytes: Number of bytes that will be written.
    Raises:
      OSError: If the disk has less free space.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            f"Not enough disk space: the decoded images take {num_bytes / 2**20:.0f} MiB, and "
            f"{free / 2**20:.0f} MiB are free in {folder.parent}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class UncroppedImages:
    """Images of different sizes. One array holds the pixels of all images, one after the other.

    Args:
      values: uint8 or uint16 array [sum(H * W * C)]. It may be memory-mapped.
      sizes: int64 array [N, 2], height and width of each image.
      num_channels: C, the number of stored channels.
      num_kept: Number of channels to return, the first ones.
    """

    values: np.ndarray
    sizes: np.ndarray
    num_channels: int
    num_kept: int

    @functools.cached_property
    def _starts(self):
        ends = np.cumsum(self.sizes.prod(axis=1) * self.num_channels)
        return np.concatenate([[0], ends[:-1]])

    def crop(self, index, top, left, height, width):
        """Returns one crop of one image.

        Args:
          index: Number of the image.
          top: First row of the crop.
          left: First column of the crop.
          height: H of the crop.
          width: W of the crop.
        Returns:
          Array [H, W, num_kept], a view of the stored values.
        """
        (whole_height, whole_width), start = self.sizes[index], self._starts[index]
        image = self.values[start : start + whole_height * whole_width * self.num_channels]
        image = image.reshape(whole_height, whole_width, self.num_channels)
        return image[top : top + height, left : left + width, : self.num_kept]


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImages:
    """One split of a cache entry.

    Attributes:
      images: uint8 or uint16 array [N, H, W, C], memory-mapped.
      labels: int32 array [N], or None.
      num_levels: L.
      num_classes: Number of classes, or None.
      class_names: Their names, strings. None if the classes have no names.
      highest: The highest value in all splits.
      uncropped: UncroppedImages whose central crops are `images`, or None.
      description: One line: the number and kind of the images, and which files were left out.
    """

    images: np.ndarray
    labels: np.ndarray | None
    num_levels: int
    num_classes: int | None
    class_names: tuple[str, ...] | None
    highest: int
    uncropped: UncroppedImages | None
    description: str


def load_stored(folder, split, num_levels=None, class_names=None):
    """Loads one split of a cache entry.

    Args:
      folder: Folder of the entry.
      split: "train" or "test".
      num_levels: L, or None for the number of levels of the entry.
      class_names: The classes of a run, which the labels are to be numbers of, or None for the
        classes of the entry.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the images have values of `num_levels` or more, or their source has fewer
        levels; or if the labels are no classes of the run.
    """
    about = read_about(folder)
    splits = {
        path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/about.json")
    }
    folder = folder / split
    images = np.load(folder / "images.npy", mmap_mode="r")
    num_channels = num_kept = images.shape[-1]
    opaque = about["num_levels"] - 1
    highest = max(part["highest"] for part in splits.values())
    if splits[split]["lowest_alpha"] is not None:
        if all(part["lowest_alpha"] == opaque for part in splits.values()):
            num_kept -= 1
        else:
            highest = opaque
    if num_levels is not None:
        check_levels(num_levels, highest, about["most_levels"])
    labels, uncropped = None, None
    names = about["class_names"]
    num_classes = about["num_classes"]
    if num_classes is not None:
        labels = np.load(folder / "labels.npy")
    if names is not None and class_names is not None:
        own = np.array(names)[np.unique(labels)]  # Only those of this split need be known.
        numbers = dict(zip(own, labels_of.numbered(own, class_names, "in the data"), strict=True))
        labels = np.array([numbers.get(name, -1) for name in names], np.int32)[labels]
        names, num_classes = class_names, len(class_names)
    if (folder / "uncropped.npy").exists():
        uncropped = UncroppedImages(
            np.load(folder / "uncropped.npy", mmap_mode="r"),
            np.load(folder / "sizes.npy"),
            num_channels,
            num_kept,
        )
    description = f"{len(images)} image{'s' if len(images) != 1 else ''}"
    if names is not None:
        description += f"; {labels_of.counted(labels, names)}"
    if splits[split]["left_out"]:
        description += f"; {splits[split]['left_out']}"
    if num_levels is None and about["num_levels"] >= 256 and 2 * highest < about["num_levels"]:
        description += (
            f"; {about['num_levels']} levels, but no value is above {highest}: perhaps "
            f"--num_levels {2 ** max(1, highest.bit_length())}"
        )
    return StoredImages(
        images=images[..., :num_kept],
        labels=labels,
        num_levels=num_levels or about["num_levels"],
        num_classes=num_classes,
        class_names=None if names is None else tuple(names),
        highest=highest,
        uncropped=uncropped,
        description=description,
    )


def read_about(folder):
    """The properties that all splits of a cache entry share, as `writing.write_about` has them."""
    return json.loads((folder / "about.json").read_text())


def check_levels(num_levels, highest, most_levels):
    """Checks that images have the levels of a run. They are taken as they stand, never scaled.

    Args:
      num_levels: L of the run.
      highest: The highest value of the images.
      most_levels: The number of levels that their file can hold, or None.
    Raises:
      ValueError: If a value is L or more, or if the file can hold fewer than L levels: then the
        same number means another brightness in it.
    """
    if num_levels <= highest:
        raise ValueError(
            f"`num_levels` must be above the highest value of the images, {highest}. "
            f"Received: num_levels={num_levels}"
        )
    if most_levels is not None and num_levels > most_levels:
        raise ValueError(
            f"`num_levels` must be at most {most_levels}, the levels that the files can hold. "
            f"Received: num_levels={num_levels}"
        )
