"""The cache of decoded images on disk.

Images are decoded once and then memory-mapped. An entry of the cache is either complete or does not
exist. If the source files change, a new entry is made.

An entry has a folder for each split. The folder holds images.npy, labels.npy if there are classes,
and a description of the images.
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
# Part of every key. Raise this number when the same sources are to be stored in another way.
_VERSION = 1


def entry(data_dir, name, key, write):
    """Finds the cache entry of a key, or makes it with `write`.

    The entry is written to a temporary folder, which is renamed when it is complete. Therefore no
    incomplete entry remains if the process is killed, and two processes may write the same entry.

    Args:
      data_dir: Folder that holds the cache, in its folder `cache`. It is created if it is missing.
      name: Start of the folder's name, for people.
      key: Everything that the files depend on, as values that JSON can hold: the sources with their
        sizes and times of change, and the options. A different key makes a different entry.
      write: Function of an empty folder. It is called if the entry does not exist.
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
            if not folder.is_dir():  # If it exists, another process has made the same entry.
                raise
    return folder


def _flush(folder):
    """Writes all files to the disk. This happens before their folder gets its final name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


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


@contextlib.contextmanager
def array_writer(path, row_shape, dtype):
    """Writes an .npy file piece by piece. Its length need not be known at the start.

    Args:
      path: File to write.
      row_shape: Shape of one row, without the first axis, a tuple.
      dtype: NumPy dtype.
    Yields:
      Function that appends an array [n, *row_shape].
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
      highest: The highest value in all splits.
      uncropped: UncroppedImages whose central crops are `images`, or None.
      description: One line: the number and kind of the images, and which files were left out.
    """

    images: np.ndarray
    labels: np.ndarray | None
    num_levels: int
    num_classes: int | None
    highest: int
    uncropped: UncroppedImages | None
    description: str


class SplitWriter:
    """Writes the images of one split, one after the other. `split_writer` makes the writer.

    Attributes:
      left_out: Description of the files that were left out, or "" if there are none.
    """

    def __init__(self, size, has_alpha, append_image, append_pixels):
        """Makes the writer.

        Args:
          size: (H, W) of the images to write.
          has_alpha: Whether the last channel is alpha.
          append_image: Function of `array_writer` that appends to the array of images.
          append_pixels: The same for the array of uncropped pixels, or None.
        """
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
        """Number of images that were appended."""
        return len(self._labels)

    def append(self, pixels, label):
        """Appends the central crop of an image.

        Args:
          pixels: Array [H, W, C], at least as large as the size of the writer.
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
        """Writes the labels, the sizes and the description of the images."""
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
    """Writes a split to a cache entry.

    Args:
      folder: Folder of the entry.
      split: "train" or "test".
      image_shape: (H, W, C) of the images to write.
      dtype: uint8 or uint16.
      has_alpha: Whether the last channel is alpha.
      keeps_uncropped: Whether to write the uncropped images too.
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
    """Writes the properties that all splits of a cache entry share.

    Args:
      folder: Folder of the entry.
      num_levels: L as found from the source files.
      num_classes: Number of classes, or None.
    """
    about = {"num_levels": num_levels, "num_classes": num_classes}
    (folder / "about.json").write_text(json.dumps(about))


def load_stored(folder, split, num_levels=None):
    """Loads one split of a cache entry.

    Args:
      folder: Folder of the entry.
      split: "train" or "test".
      num_levels: L, or None for the number of levels of the entry.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the images have values of `num_levels` or more.
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
