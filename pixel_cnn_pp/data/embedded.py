"""Two small data sets for trials, digits and photos. Both are part of scikit-learn."""

import numpy as np

from pixel_cnn_pp.data import public_sets
from pixel_cnn_pp.data.images import ImageData, check_whole_number


def load_digits(split, image_size):
    """Loads the handwritten digits of the UCI repository, which are part of scikit-learn.

    There are 1797 grey images of 8 x 8 pixels, with L = 17 and 10 classes. The test split is the
    256 images whose index is 6 modulo 7. The training split is the other 1541 images. In large
    parts of the file the classes repeat with period 10. Since 7 and 10 have no common factor, both
    splits contain every class.

    Args:
      split: "train" or "test".
      image_size: 8 or None.
    Returns:
      ImageData, images uint8 [N, 8, 8, 1].
    Raises:
      ValueError: If `image_size` is another number.
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


# Columns of both photographs that form the test split, chosen by eye. This strip shows a part of
# the pagoda, the sky, the trees, the leaves and the petals, and leaves another part of each of them
# for training.
_TEST_COLUMNS = slice(80, 240)
_TRAIN_STRIDE = 8  # Pixels between neighbouring training crops, vertically and horizontally.


def load_photos(split, image_size):
    """Loads square crops of scikit-learn's photographs, a pagoda (class 0) and a dahlia (class 1).

    Each photograph has 427 x 640 pixels, RGB, L = 256. The test split is columns 80 to 239 of both,
    cut into tiles that do not overlap. The training split is all crops at a stride of 8 pixels that
    lie completely in columns 0 to 79 or completely in columns 240 to 639.

    No pixel is in both splits. However, the splits touch each other, and training crops overlap.
    This data set is for trials. It is not a benchmark.

    Args:
      split: "train" or "test".
      image_size: H = W, at most 160. None for 32, which gives 5400 training and 130 test images.
    Returns:
      ImageData, images uint8 [N, H, W, 3].
    Raises:
      ValueError: If `image_size` is out of its range.
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
    """Cuts a picture [H, W, C] into crops on a regular grid, row by row: [N, size, size, C]."""
    if min(picture.shape[:2]) < size:
        return np.zeros((0, size, size, picture.shape[-1]), picture.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (size, size), axis=(0, 1))
    windows = windows[::stride, ::stride].transpose(0, 1, 3, 4, 2)  # [rows, columns, H, W, C]
    return windows.reshape(-1, size, size, picture.shape[-1])
