"""Decoded images on disk: made once, memory-mapped, whole or not there, and never out of date.

An entry has a folder for each split, with images.npy, labels.npy where there are classes, and what
was found out while they were written.
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

SPLITS = ("train", "test")
# Part of every key. To be raised where the same sources would be stored in another way.
_VERSION = 1


def entry(data_dir, name, key, write):
    """The folder in which `write` has put its files for this key, now or some time before.

    It is written beside its place and renamed into it, so that it is whole even where the process
    is killed, and two processes that write the same do not harm each other.

    Args:
      data_dir: Folder in which `cache` holds all entries; made where it is missing.
      name: Start of the folder's name, for people.
      key: What the files depend on, as JSON can write it: sources with their sizes and times of
        change, and options. Anything else makes another entry.
      write: Function of an empty folder, called where there is no such entry yet.
    Returns:
      Path of the folder.
    Raises:
      OSError: If the folder cannot be written.
    """
    text = json.dumps([_VERSION, key], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    cache_dir = pathlib.Path(data_dir) / "cache"
    folder = cache_dir / f"{name}-{digest[:20]}"
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=f"{name}-", suffix=".partial") as parent:
        written = pathlib.Path(parent) / folder.name
        written.mkdir()
        write(written)
        _flush(written)
        try:
            written.rename(folder)
        except OSError:
            if not folder.is_dir():  # Otherwise another process was faster.
                raise
    return folder


def _flush(folder):
    """Makes the files reach the disk before their folder has its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def file_state(path):
    """Size of a file and time of its last change, which tell whether it is still the same.

    Args:
      path: File.
    Returns:
      Pair of whole numbers.
    """
    try:
        state = os.stat(path)
    except FileNotFoundError:  # A link to nowhere: reading it will say so.
        return 0, 0
    return state.st_size, state.st_mtime_ns


def check_space(folder, num_bytes):
    """Refuses to begin what will not fit.

    Args:
      folder: Existing folder on the disk in question.
      num_bytes: How much will be written.
    Raises:
      OSError: If less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            f"Not enough disk space: the decoded images take {num_bytes / 2**20:.0f} MiB, and "
            f"{free / 2**20:.0f} MiB are free in {folder.parent}"
        )


@contextlib.contextmanager
def array_writer(path, row_shape, dtype):
    """Writes a .npy file piece by piece, of which nobody needs to know the length beforehand.

    Args:
      path: File to write.
      row_shape: Shape behind the first axis, a tuple.
      dtype: NumPy dtype.
    Yields:
      Function of an array [n, *row_shape], which is appended.
    """
    num_rows = 0

    def write_header():
        # NumPy leaves room in the header for the first axis to grow.
        description = np.lib.format.dtype_to_descr(np.dtype(dtype))
        shape = (num_rows, *row_shape)
        fields = {"descr": description, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, fields)

    with open(path, "wb") as file:

        def append(rows):
            nonlocal num_rows
            assert (rows.shape[1:], rows.dtype) == (tuple(row_shape), dtype), rows.shape
            file.write(np.ascontiguousarray(rows).data)
            num_rows += len(rows)

        write_header()
        start = file.tell()
        yield append
        file.seek(0)
        write_header()
        assert file.tell() == start


@dataclasses.dataclass(frozen=True, eq=False)
class UncroppedImages:
    """Images of many sizes, all pixels of all images one after another.

    Args:
      values: uint8 or uint16 array [sum(H * W * C)], possibly memory-mapped.
      sizes: int64 array [N, 2], height and width of each.
      num_channels: C.
      num_kept: How many of the channels are shown, the first ones.
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
        """One crop.

        Args:
          index: Number of the image.
          top: Its first row.
          left: Its first column.
          height: H of the crop.
          width: W of the crop.
        Returns:
          Array [H, W, C], a view.
        """
        (whole_height, whole_width), start = self.sizes[index], self._starts[index]
        image = self.values[start : start + whole_height * whole_width * self.num_channels]
        image = image.reshape(whole_height, whole_width, self.num_channels)
        return image[top : top + height, left : left + width, : self.num_kept]


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImages:
    """One split, as it lies in the cache.

    Attributes:
      images: uint8 or uint16 array [N, H, W, C], memory-mapped.
      labels: int32 array [N], or None.
      num_levels: L.
      num_classes: Number of classes, or None.
      highest: The highest value of all splits.
      uncropped: UncroppedImages that `images` are the centres of, or None.
      description: How many images there are, of what, and what was left out; one line.
    """

    images: np.ndarray
    labels: np.ndarray | None
    num_levels: int
    num_classes: int | None
    highest: int
    uncropped: UncroppedImages | None
    description: str


class SplitWriter:
    """Writes the images of one split one after another; `split_writer` makes it.

    Attributes:
      left_out: What is not among the images, in words; "" for nothing.
    """

    def __init__(self, size, has_alpha, append_image, append_pixels):
        """Takes the size (H, W) to write, and what the writers of two arrays or one append with."""
        self.left_out = ""
        self._size = size
        self._append_image = append_image
        self._append_pixels = append_pixels
        self._labels = []
        self._sizes = []
        self._has_alpha = has_alpha
        self._highest = 0
        self._lowest_alpha = np.iinfo(np.uint16).max

    def __len__(self):
        """Number of images so far."""
        return len(self._labels)

    def append(self, pixels, label):
        """Appends the centre of an image.

        Args:
          pixels: Array [H, W, C], at least of the size that is written.
          label: Whole number, or None.
        """
        (height, width), whole = self._size, pixels.shape[:2]
        top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
        centre = pixels[top : top + height, left : left + width]
        self._append_image(centre[np.newaxis])
        if self._append_pixels is not None:
            self._append_pixels(pixels.ravel())
        seen = centre if self._append_pixels is None else pixels
        if self._has_alpha:
            self._lowest_alpha = min(self._lowest_alpha, int(seen[..., -1].min()))
            seen = seen[..., :-1]
        self._highest = max(self._highest, int(seen.max()))
        self._labels.append(label)
        self._sizes.append(whole)

    def finish(self, folder):
        """Writes what there is beside the pixels."""
        if not self._labels:
            raise ValueError(f"Each split must have images. Received: none for {folder.name}")
        if self._labels[0] is not None:
            np.save(folder / "labels.npy", np.array(self._labels, np.int32))
        if self._append_pixels is not None:
            np.save(folder / "sizes.npy", np.array(self._sizes, np.int64))
        about = {
            "highest": self._highest,
            "lowest_alpha": self._lowest_alpha if self._has_alpha else None,
            "left_out": self.left_out,
        }
        (folder / "about.json").write_text(json.dumps(about))


@contextlib.contextmanager
def split_writer(folder, split, image_shape, dtype, has_alpha=False, keeps_uncropped=False):
    """Writes a split into an entry of the cache.

    Args:
      folder: Folder of the entry.
      split: "train" or "test".
      image_shape: (H, W, C) of the images to write.
      dtype: uint8 or uint16.
      has_alpha: Whether the last channel is alpha.
      keeps_uncropped: Whether to write the whole images too.
    Yields:
      SplitWriter.
    """
    folder = folder / split
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        writer = array_writer(folder / "images.npy", image_shape, dtype)
        append_image, append_pixels = stack.enter_context(writer), None
        if keeps_uncropped:
            writer = array_writer(folder / "uncropped.npy", (), dtype)
            append_pixels = stack.enter_context(writer)
        split_writer = SplitWriter(image_shape[:2], has_alpha, append_image, append_pixels)
        yield split_writer
        split_writer.finish(folder)


def write_about(folder, num_levels, num_classes):
    """Writes what the splits of an entry have in common.

    Args:
      folder: Folder of the entry.
      num_levels: L that follows from the files.
      num_classes: Number of classes, or None.
    """
    about = {"num_levels": num_levels, "num_classes": num_classes}
    (folder / "about.json").write_text(json.dumps(about))


def load_stored(folder, split, num_levels=None):
    """Loads one split of an entry of the cache.

    Args:
      folder: Folder of the entry.
      split: "train" or "test".
      num_levels: L, or None for that of the entry.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the images have values of `num_levels` or above.
    """
    about = json.loads((folder / "about.json").read_text())
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
    if num_levels is not None and num_levels <= highest:
        raise ValueError(
            f"`num_levels` must be above the highest value of the images, {highest}. "
            f"Received: num_levels={num_levels}"
        )
    labels, uncropped = None, None
    if about["num_classes"] is not None:
        labels = np.load(folder / "labels.npy")
    if (folder / "uncropped.npy").exists():
        uncropped = UncroppedImages(
            np.load(folder / "uncropped.npy", mmap_mode="r"),
            np.load(folder / "sizes.npy"),
            num_channels,
            num_kept,
        )
    description = f"{len(images)} image{'s' if len(images) != 1 else ''}"
    if splits[split]["left_out"]:
        description += f"; {splits[split]['left_out']}"
    if num_levels is None and about["num_levels"] > 256 and 2 * highest < about["num_levels"]:
        description += (
            f"; {about['num_levels']} levels, but no value is above {highest}: perhaps "
            f"--num_levels {2 ** max(1, highest.bit_length())}"
        )
    return StoredImages(
        images=images[..., :num_kept],
        labels=labels,
        num_levels=num_levels or about["num_levels"],
        num_classes=about["num_classes"],
        highest=highest,
        uncropped=uncropped,
        description=description,
    )
