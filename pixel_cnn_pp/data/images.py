"""`ImageData`, one split of a data set, and the checks of its arrays."""

import dataclasses

import numpy as np

from pixel_cnn_pp.data import labels as labels_of
from pixel_cnn_pp.data import store


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """One split of a data set: integer images, and their classes if there are any.

    Args:
      images: Integer array [N, H, W, C] in [0, L - 1]. It may be memory-mapped. The loaders return
        uint8 or uint16.
      labels: Integer array [N] in [0, num_classes - 1], or None. The loaders return int32.
      num_levels: L, whole number of at least 2.
      num_classes: Whole number of at least 1, or None if `labels` is None.
      uncropped: `store.UncroppedImages`, or None. Training cuts new crops from these images in
        every epoch. Then `images` are their central crops.
      value_range: Lowest and highest value of the images, if they are known. Then the check does
        not have to read the images.
      class_names: Names of the classes, strings, or None if they have none.
    Raises:
      ValueError: If a rank, a dtype, a length or a range is wrong.

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
    class_names: tuple[str, ...] | None = None

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

    @property
    def condition_levels(self):
        """None: the labels are classes. See `viewed.ViewedData`."""
        return None

    @property
    def source(self):
        """The data whose images are read, cut and mirrored: these. See `viewed.ViewedData`."""
        return self

    def of_batch(self, images, rows):
        """The images and labels of a batch of the images with these numbers."""
        return images, None if self.labels is None else self.labels[rows]

    @property
    def given_labels(self):
        """The labels as they were given, where they were numbers: the names of their classes."""
        return labels_of.given_labels(self.labels, self.class_names)


def check_whole_number(name, value, low, high=None):
    """Checks that a value is a whole number in [low, high]; `high` is None for no upper limit.

    Raises:
      ValueError: If it is not.
    """
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):
        rule = f"of at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"`{name}` must be a whole number {rule}. Received: {name}={value!r}")


def check_integer_array(name, array, shape, rank, high, value_range=None):
    """Checks that a value is a non-empty array of whole numbers in [0, high].

    Args:
      name: Name of the array, for the message.
      array: The value to check.
      shape: The shape in words, such as "[N]", for the message.
      rank: Number of axes.
      high: The highest allowed value.
      value_range: Lowest and highest value, if they are known. Then the array is not read.
    Raises:
      ValueError: If it is not such an array, or if it is empty.
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
        return  # The dtype allows no value outside, so that a large array need not be read.
    lowest, highest = value_range or (int(array.min()), int(array.max()))
    if lowest < 0 or highest > high:
        raise ValueError(
            f"`{name}` must lie in [0, {high}]. Received: values in [{lowest}, {highest}]"
        )
