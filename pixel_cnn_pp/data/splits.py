"""Code that folders and files of arrays share: their options, their paths and their test split."""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np

_TEST_FRACTION = 0.1


@dataclasses.dataclass(frozen=True)
class Options:
    """How the user's own images are read: the options of `names.load` that concern them."""

    image_size: int | None = None
    crop: str = "center"
    test_fraction: float | None = None
    num_levels: int | None = None
    class_names: tuple[str, ...] | None = None
    channels_first: bool | None = None
    convert: str | None = None
    skip_odd: bool = False

    def key(self):
        """What an entry of the cache depends on: all but what is checked when it is loaded."""
        fields = vars(self).items()
        return {name: value for name, value in fields if name not in ("num_levels", "class_names")}

    def size(self, usual):
        """The height and width that images of a usual size (H, W) will have."""
        return usual if self.image_size is None else (self.image_size, self.image_size)

    def check_crop(self):
        """Raises a ValueError for random crops without an `image_size`."""
        if self.crop == "random" and self.image_size is None:
            raise ValueError("`crop` must go with an `image_size`. Received: crop='random' alone")

    def check_own_test_split(self, words):
        """Raises a ValueError for a `test_fraction` of data that have a test split."""
        if self.test_fraction is not None:
            raise ValueError(
                f"`test_fraction` must be left out where the data have {words}. "
                f"Received: test_fraction={self.test_fraction}"
            )


def located(path, data_dir):
    """The path itself if it exists, otherwise the path relative to the data directory.

    Therefore a run can be resumed after its data were moved to another data directory.
    """
    path = pathlib.Path(path).expanduser()
    moved = pathlib.Path(data_dir) / path
    return moved if moved.exists() and not path.exists() else path


def choose_test(names, test_fraction, where):
    """Chooses the images of the test split by their names alone.

    An image is in the test split if the hash of its name, as a number in [0, 1), is below the
    fraction. Therefore an image stays in its split when other images are added or removed.

    Args:
      names: Strings, N of them.
      test_fraction: Fraction in (0, 1), or None for a tenth.
      where: Path of the data, for the message.
    Returns:
      Boolean array [N], true for the test split. At least one value is true and one is false.
    Raises:
      ValueError: If there are fewer than two names.
    """
    if len(names) < 2:
        raise ValueError(
            "There must be at least two images, to train on one and test on the other. "
            f"Received: {len(names)} in {where}"
        )
    fraction = _TEST_FRACTION if test_fraction is None else test_fraction
    digests = [hashlib.sha256(os.fsencode(name)).digest() for name in names]
    places = np.array([int.from_bytes(digest[:8], "big") for digest in digests]) / 2**64
    is_test = places < fraction
    # With only a few images, one of the splits could be empty.
    is_test[np.argmin(places)] = True
    is_test[np.argmax(places)] = False
    return is_test


def check_size(size):
    """Raises a ValueError if images of this size (H, W) have no pixels."""
    if 0 in size:
        raise ValueError(f"Height and width must be at least 1. Received: {size[0]} x {size[1]}")
