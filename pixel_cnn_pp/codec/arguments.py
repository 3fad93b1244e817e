"""Checks of the arguments that a user gives to the codec."""

import numpy as np

from pixel_cnn_pp.codec import container
from pixel_cnn_pp.models import conditions, inputs
from pixel_cnn_pp.models.stages import multiple


def pictures_of(model, images):
    """List of arrays [H, W, C], and whether the images are one array."""
    channels, num_levels = model.config.image_shape[-1], model.config.num_levels
    is_array = hasattr(images, "shape")
    if is_array:
        images = np.asarray(images)
        inputs.check_images(images, channels, num_levels)
        return list(images), True
    if not isinstance(images, list | tuple) or not images:
        raise ValueError(
            "images must be an array [N, H, W, C] or a list of at least one array [H, W, C]. "
            f"Received: {type(images).__name__}"
        )
    pictures = [np.asarray(image) for image in images]
    for picture in pictures:
        inputs.check_images(picture[np.newaxis], channels, num_levels)
    return pictures, False


def checked_tile_shape(model, tile_shape):
    """The size of the tiles as a tuple of integers, or None."""
    if tile_shape is None:
        return None
    tile_shape = tuple(tile_shape)
    if len(tile_shape) != 2 or not all(isinstance(x, int) and x >= 1 for x in tile_shape):
        raise ValueError(
            f"`tile_shape` must be (height, width), at least 1. Received: tile_shape={tile_shape!r}"
        )
    factor = multiple(model)
    if any(side % factor for side in tile_shape):
        raise ValueError(
            f"`tile_shape` must be multiples of {factor}, by which the first picture of this model "
            f"is smaller. Received: tile_shape={tile_shape!r}"
        )
    return tile_shape


def condition_of(model, condition, shapes, is_array, tile_shape):
    """The condition of pictures as an array, or None."""
    num_pictures = sum(number for _, _, number in shapes)
    if model.config.num_classes is not None:
        condition = conditions.labels_of(condition, model.config.num_classes)
    condition = None if condition is None else np.asarray(condition)
    height, width, _ = shapes[0]
    if condition is not None and condition.ndim == 4 and (not is_array or tile_shape is not None):
        raise ValueError(
            "Images that are conditioned on pictures must be an array, without tiles. "
            "Received: others"
        )
    shape = (num_pictures, height, width, model.config.image_shape[-1])
    inputs.check_condition(condition, shape, model.config)
    return condition


def labels_of(model, condition):
    """The labels that a file keeps, a tuple, or None."""
    if condition is None or model.config.num_classes is None:
        return None
    return tuple(int(label) for label in condition)


def condition_digest(model, condition):
    """Digest of a condition that a file does not keep, or b""."""
    if condition is None or model.config.num_classes is not None:
        return b""
    return container.pixels_digest(0, [np.ascontiguousarray(condition.astype("<f8")).tobytes()])
