"""Data sets that come with scikit-learn, small ones to try things on: digits and photos."""

import numpy as np

from pixel_cnn_pp.data import public_sets
from pixel_cnn_pp.data.images import ImageData, check_whole_number


def load_digits(split, image_size):
    """Handwritten digits of the UCI repository, as they come with scikit-learn.

    1797 grey images of 8 x 8 pixels, L = 17, 10 classes. Test is every image whose index is 6
    modulo 7, 256 of them; train is the rest, 1541. (For long stretches of the file the classes
    repeat with period 10, which has no factor in common with 7: neither split misses a class.)
    """
    public_sets.check_fixed_size("digits", image_size, 8)
    from sklearn import datasets

    digits = datasets.load_digits()
    is_test = np.arange(len(digits.images)) % 7 == 6
    chosen = is_test if split == "test" else ~is_test
    return ImageData(
        images=digits.images[chosen, :, :, np.newaxis].astype(np.uint8),
        labels=digits.target[chosen].astype(np.int32),
        num_levels=17,
        num_classes=10,
    )


# Test columns of either photograph, chosen by eye: the strip cuts through the pagoda, the sky and
# the trees of one, the leaves and the petals of the other, and leaves some of each on its outside.
_TEST_COLUMNS = slice(80, 240)
_TRAIN_STRIDE = 8  # Pixels from one training crop to the next, down and across.


def load_photos(split, image_size):
    """Square crops of scikit-learn's two photographs, a pagoda (class 0) and a dahlia (class 1).

    Each is 427 x 640 pixels, RGB, L = 256. Test is columns 80 to 239 of both, cut into tiles that
    do not overlap. Train is all crops at a stride of 8 pixels that lie wholly in columns 0 to 79
    or wholly in columns 240 to 639. So no pixel is in both splits, but the two splits adjoin, and
    training crops overlap each other: a small set to try things on, not a benchmark.

    `image_size` is 32 unless given (5400 training and 130 test images), at most 160.
    """
    from sklearn import datasets

    image_size = 32 if image_size is None else image_size
    max_size = _TEST_COLUMNS.stop - _TEST_COLUMNS.start
    check_whole_number("image_size", image_size, 1, max_size)
    images, labels = [], []
    for label, file_name in enumerate(("china.jpg", "flower.jpg")):
        photo = datasets.load_sample_image(file_name)  # [427, 640, 3]
        if split == "test":
            crops = _crops(photo[:, _TEST_COLUMNS], image_size, stride=image_size)
        else:
            left, right = photo[:, : _TEST_COLUMNS.start], photo[:, _TEST_COLUMNS.stop :]
            crops = np.concatenate(
                [_crops(part, image_size, _TRAIN_STRIDE) for part in (left, right)]
            )
        images.append(crops)
        labels.append(np.full(len(crops), label, np.int32))
    return ImageData(np.concatenate(images), np.concatenate(labels), num_levels=256, num_classes=2)


def _crops(picture, size, stride):
    """All crops [N, size, size, C] of a picture [H, W, C] on a regular grid, row by row."""
    if min(picture.shape[:2]) < size:
        return np.zeros((0, size, size, picture.shape[-1]), picture.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (size, size), axis=(0, 1))
    windows = windows[::stride, ::stride].transpose(0, 1, 3, 4, 2)  # [rows, columns, H, W, C]
    return windows.reshape(-1, size, size, picture.shape[-1])
