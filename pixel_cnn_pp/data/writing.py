"""Writes the images of an entry of the cache, one after the other, to its files on disk."""

import contextlib
import json

import numpy as np


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


def write_about(folder, num_levels, num_classes=None, class_names=None, most_levels=None):
    """Writes the properties that all splits of a cache entry share.

    Args:
      folder: Folder of the entry.
      num_levels: L as found from the source files.
      num_classes: Number of classes, or None. With names it need not be given.
      class_names: Names of the classes, or None.
      most_levels: The highest number of levels that the source files can hold, or None.
    """
    if class_names is not None:
        num_classes = len(class_names)
    about = {
        "num_levels": num_levels,
        "num_classes": num_classes,
        "class_names": class_names,
        "most_levels": most_levels,
    }
    (folder / "about.json").write_text(json.dumps(about))
