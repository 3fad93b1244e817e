import dataclasses

import numpy as np
import pytest

from pixel_cnn_pp import data
from pixel_cnn_pp.data import store


def test_image_data_cannot_be_reassigned():
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.ImageData(np.zeros((3, 4, 4, 1), np.uint8), None, 256, None).num_levels = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 3, 2), np.uint8)}, r"`images` .*\[N, H, W, C\].*\(4, 3, 2\)"),
        ({"images": np.zeros((0, 3, 2, 1), np.uint8)}, r"`images` .*not be empty.*\(0, 3, 2, 1\)"),
        ({"images": np.zeros((4, 3, 2, 1), np.float32)}, r"`images` .*integers.*float32"),
        ({"images": [[[[1]]]]}, r"`images` .*NumPy array.*list"),
        ({"images": np.full((4, 3, 2, 1), 16, np.uint8)}, r"\[0, 15\]. Received: values in \[16,"),
        ({"images": np.full((4, 3, 2, 1), -1, np.int32)}, r"\[0, 15\]. Received: values in \[-1,"),
        ({"labels": np.array([0, 1, 2])}, r"one class for every image.*3 labels for 4 images"),
        ({"labels": np.array([[0], [1], [2], [0]])}, r"`labels` .*\[N\].*\(4, 1\)"),
        ({"labels": np.array([0.0, 1.0, 2.0, 0.0])}, r"`labels` .*integers.*float64"),
        ({"labels": np.array([0, 1, 3, 0])}, r"`labels` .*\[0, 2\].*\[0, 3\]"),
        ({"labels": None}, r"given together.*labels=None, num_classes=3"),
        ({"num_classes": None}, r"given together.*labels=an array, num_classes=None"),
        ({"num_classes": 0}, r"`num_classes` .*at least 1.*num_classes=0"),
        ({"num_levels": 1}, r"`num_levels` .*at least 2.*num_levels=1"),
        (
            {"uncropped": store.UncroppedImages(np.zeros(3, np.uint8), np.ones((1, 2)), 3, 3)},
            r"`uncropped` must hold one image for every image. Received: 1 for 4",
        ),
        ({"num_levels": 16.0}, r"`num_levels` .*whole number.*num_levels=16.0"),
    ],
)
def test_image_data_says_in_one_line_what_is_wrong(change, message):
    fields = {
        "images": np.full((4, 3, 2, 1), 15, np.uint8),
        "labels": np.array([0, 1, 2, 0], np.int32),
        "num_levels": 16,
        "num_classes": 3,
    }
    data.ImageData(**fields)
    with pytest.raises(ValueError, match=message) as caught:
        data.ImageData(**(fields | change))
    assert "\n" not in str(caught.value)


def test_known_limits_save_reading_the_images():
    class Unread(np.ndarray):
        min = max = property(lambda self: pytest.fail("read"))

    images = np.zeros((2, 4, 4, 1), np.uint16).view(Unread)
    known = data.ImageData(images, None, 4096, None, value_range=(0, 4095))
    assert known.num_levels == 4096
    data.ImageData(images.astype(np.uint8).view(Unread), None, 256, None)  # no type for more
    with pytest.raises(ValueError, match=r"\[0, 4095\]. Received: values in \[0, 4096\]"):
        data.ImageData(images, None, 4096, None, value_range=(0, 4096))
