"""One split of a data set as the rest of the package takes it, and the checks of what is in it."""

import dataclasses

import numpy as np

from pixel_cnn_pp.data import store


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """One split of a data set: integer images, and their classes where it has any.

    Args:
      images: integer array [N, H, W, C] in [0, L - 1], possibly memory-mapped; the loaders give
        uint8 or uint16.
      labels: integer array [N] in [0, num_classes - 1], or None; the loaders give int32.
      num_levels: L, whole number of at least 2.
      num_classes: whole number of at least 1, or None where `labels` is None.
      uncropped: `store.UncroppedImages` that training crops anew in every epoch, `images`
        being their centres; or None.
      value_range: lowest and highest value, where they are known, so that the images need not be
        read to check them.
    Raises:
      ValueError: If a rank, a dtype, a length or a range is another one.

    >>> images = np.array([[[[0], [3]]], [[[2], [1]]]], np.uint8)  # [2, 1, 2, 1]
    >>> ImageData(images, labels=None, num_levels=4, num_classes=None).images.shape
    (2, 1, 2, 1)
    """

    images: np.ndarray
    labels: np.ndarray | None
    num_levels: int
    num_classes: int | None
    uncropped: store.UncroppedImages | None = None
    value_range: dataclasses.InitVar[tuple[int, int] | None] = None

    def __post_init__(self, value_range):
        """Checks every field against the others."""
        check_whole_number("num_levels", self.num_levels, 2)
        highest = self.num_levels - 1
        check_integer_array("images", self.images, "[N, H, W, C]", 4, highest, value_range)
        if (self.labels is None) != (self.num_classes is None):
            raise ValueError(
                "`labels` and `num_classes` must be given together, or both be None. Received: "
                f"labels={'None' if self.labels is None else 'an array'}, "
                f"num_classes={self.num_classes!r}"
            )
        if self.labels is not None:
            check_whole_number("num_classes", self.num_classes, 1)
            check_integer_array("labels", self.labels, "[N]", 1, self.num_classes - 1)
            if len(self.labels) != len(self.images):
                raise ValueError(
                    "`labels` must hold one class for every image. Received: "
                    f"{len(self.labels)} labels for {len(self.images)} images"
                )
        if self.uncropped is not None and len(self.uncropped.sizes) != len(self.images):
            raise ValueError(
                "`uncropped` must hold one image for every image. Received: "
                f"{len(self.uncropped.sizes)} for {len(self.images)}"
            )


def check_whole_number(name, value, low, high=None):
    """Refuses a value that is no whole number of at least `low`, and of at most `high` if given."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):
        rule = f"of at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"`{name}` must be a whole number {rule}. Received: {name}={value!r}")


def check_integer_array(name, array, shape, rank, high, value_range=None):
    """Refuses what is no array of whole numbers in [0, high].

    Args:
      name: What it is called in the error.
      array: What is checked.
      shape: The shape in words, such as "[N]".
      rank: Number of axes.
      high: The highest value allowed.
      value_range: Lowest and highest value, where they are known and need not be looked for.
    Raises:
      ValueError: If it is something else, or empty.
    """
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.integer):
        received = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"`{name}` must be a NumPy array of integers. Received: {received}")
    if array.ndim != rank or array.size == 0:
        raise ValueError(
            f"`{name}` must have the shape {shape} and not be empty. Received: shape {array.shape}"
        )
    limits = np.iinfo(array.dtype)
    if limits.min == 0 and limits.max <= high:
        return  # No value of this type is outside: gigabytes need not be read.
    lowest, highest = value_range or (int(array.min()), int(array.max()))
    if lowest < 0 or highest > high:
        raise ValueError(
            f"`{name}` must lie in [0, {high}]. Received: values in [{lowest}, {highest}]"
        )
