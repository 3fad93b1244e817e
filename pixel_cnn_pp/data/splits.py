"""Code that folders and files of arrays share: their paths, their crops and their test split."""

import hashlib
import pathlib

import numpy as np

_TEST_FRACTION = 0.1


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
    digests = [hashlib.sha256(name.encode()).digest() for name in names]
    places = np.array([int.from_bytes(digest[:8], "big") for digest in digests]) / 2**64
    is_test = places < fraction
    # With only a few images, one of the splits could be empty.
    is_test[np.argmin(places)] = True
    is_test[np.argmax(places)] = False
    return is_test


def check_size(size):
    """Raises a ValueError if no network accepts images of this size (H, W)."""
    if size[0] % 4 or size[1] % 4 or 0 in size:
        raise ValueError(
            "Height and width must be multiples of 4, or `image_size` must say what to crop the "
            f"images to. Received: {size[0]} x {size[1]}"
        )


def check_crop(image_size, crop):
    """Raises a ValueError for random crops without an `image_size`."""
    if crop == "random" and image_size is None:
        raise ValueError("`crop` must go with an `image_size`. Received: crop='random' alone")
