"""What folders and files of arrays have in common: where they lie, crops, a test split."""

import hashlib
import pathlib

import numpy as np

_TEST_FRACTION = 0.1


def located(path, data_dir):
    """The path, or that in the data directory: a run can go on where its data have moved."""
    path = pathlib.Path(path).expanduser()
    moved = pathlib.Path(data_dir) / path
    return moved if moved.exists() and not path.exists() else path


def choose_test(names, test_fraction, where):
    """Which images are the test split: a function of their names alone.

    An image is in the test split where the hash of its name, as a number in [0, 1), is below the
    fraction. So no other image, added or removed, moves it to the other side.

    Args:
      names: Strings.
      test_fraction: Fraction in (0, 1), or None for a tenth.
      where: What is split, for the error.
    Returns:
      Boolean array [N], with at least one of either kind.
    Raises:
      ValueError: If there are less than two names.
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
    # Of a handful of images, one side can be empty.
    is_test[np.argmin(places)] = True
    is_test[np.argmax(places)] = False
    return is_test


def check_size(size):
    """Refuses a size (H, W) of images that no network takes."""
    if size[0] % 4 or size[1] % 4 or 0 in size:
        raise ValueError(
            "Height and width must be multiples of 4, or `image_size` must say what to crop the "
            f"images to. Received: {size[0]} x {size[1]}"
        )


def check_crop(image_size, crop):
    """Refuses random crops without a size of the crops."""
    if crop == "random" and image_size is None:
        raise ValueError("`crop` must go with an `image_size`. Received: crop='random' alone")
