"""Checks of the images and conditions that a user gives to a model."""

import functools

from keras import ops

from pixel_cnn_pp.likelihoods import whole_numbers
from pixel_cnn_pp.models import conditions


def takes_labels(method):
    """Lets a method with the argument `condition` take it as `labels=` too."""

    @functools.wraps(method)
    def with_labels(*args, **kwargs):
        if "labels" in kwargs:
            if "condition" in kwargs:
                raise ValueError(
                    "`labels` must be left out where `condition` is given. Received: both"
                )
            kwargs["condition"] = kwargs.pop("labels")
        return method(*args, **kwargs)

    return with_labels


def unpack(images, condition):
    """Returns (images, condition). `fit` passes both as one pair in the first argument."""
    if isinstance(images, list | tuple) and len(images) == 2:
        return images
    return images, condition


def check_images(images, num_channels, num_levels):
    """Checks that a value is a batch of images.

    Args:
      images: The value to check, which should be images [B, H, W, C].
      num_channels: C.
      num_levels: L.

    Returns:
      As `whole_numbers.check`.

    Raises:
      ValueError: If the shape is wrong, or a value is not a whole number in [0, L - 1].
    """
    _check_is_array("images", images)
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[0] == 0 or shape[-1] != num_channels:
        raise ValueError(
            f"images must have the shape [B, H, W, {num_channels}], B at least 1. Received: images "
            f"of shape {shape}"
        )
    if 0 in shape[1:3]:
        raise ValueError(
            f"Height and width of images must be at least 1. Received: images of shape {shape}"
        )
    return whole_numbers.check("images", images, num_levels - 1)


def check_condition(condition, images_shape, config):
    """Checks that there is a condition for each image, or none for an unconditional model.

    Args:
      condition: The value to check, which should be what the configuration says, or None.
      images_shape: (B, H, W, C), with None for a size that is unknown.
      config: Configuration of the model.

    Returns:
      As `whole_numbers.check`.

    Raises:
      ValueError: If the condition is missing, or given to an unconditional model, or of another
        shape or dtype, or if a value is out of its range.
    """
    shape = conditions.shape_of(config)
    if shape is None:
        return _check_labels(condition, images_shape, config.num_classes)
    what = "real vectors" if len(shape) == 1 else "pictures"
    listed = ", ".join(map(str, shape))
    if condition is None:
        raise ValueError(
            f"condition must be given: this model is conditioned on {what} [B, {listed}]. "
            "Received: condition=None"
        )
    _check_is_array("condition", condition)
    if len(shape) == 3:
        shape = (*_picture_sides(images_shape, conditions.times_larger(config)), shape[2])
        listed = ", ".join(map(str, shape))
    received = tuple(condition.shape)
    expected = (images_shape[0], *shape)
    is_right = len(received) == len(expected) and all(
        None in (own, size) or own == size for own, size in zip(received, expected, strict=True)
    )
    if not is_right:
        raise ValueError(
            f"condition must have the shape [B, {listed}], {what}, one for each of the images of "
            f"shape {images_shape}. Received: condition of shape {received}"
        )
    if len(shape) == 3:
        return whole_numbers.check("condition", condition, config.condition_levels - 1)
    _check_finite("condition", condition)
    return None


def _picture_sides(images_shape, times_larger):
    """The sides of the pictures that belong to images, None where they are unknown."""
    sides = []
    for side, times in zip(images_shape[1:3], times_larger, strict=True):
        if side is not None and side % times:
            raise ValueError(
                "Height and width of images must be multiples of "
                f"{' and '.join(map(str, times_larger))}, because they are so many times those of "
                f"the condition. Received: images of shape {images_shape}"
            )
        sides.append(None if side is None else side // times)
    return sides


def _check_labels(labels, images_shape, num_classes):
    """Checks that there is a label for each image, or no label for an unconditional model.

    Args:
      labels: The value to check, which should be labels as `conditions.labels_of` takes them, or
        None.
      images_shape: (B, H, W, C), with None for a size that is unknown.
      num_classes: Number of classes, or None for an unconditional model.

    Raises:
      ValueError: If labels are missing, or given to an unconditional model, or have another shape,
        or if a value is not a whole number in [0, num_classes - 1].
    """
    if labels is not None:
        labels = conditions.labels_of(labels, num_classes)
        _check_is_array("labels", labels)
    if num_classes is None:
        if labels is not None:
            raise ValueError(
                "labels must be None: this model is not class-conditional. "
                f"Received: labels of shape {tuple(labels.shape)}"
            )
        return None
    if labels is None:
        raise ValueError(
            f"labels must be given: this model is conditioned on {num_classes} classes. "
            "Received: labels=None"
        )
    label_shape = tuple(labels.shape)
    is_one_each = None in (*label_shape, images_shape[0]) or label_shape == images_shape[:1]
    if len(label_shape) != 1 or not is_one_each:
        raise ValueError(
            f"labels must have the shape [B], one for each of the images of shape {images_shape}, "
            f"or be one-hot rows [B, {num_classes}]. Received: labels of shape {label_shape}"
        )
    return whole_numbers.check("labels", labels, num_classes - 1)


def _check_is_array(name, value):
    if not hasattr(value, "shape"):
        raise ValueError(f"{name} must be an array or a tensor. Received: {type(value).__name__}")


def _check_finite(name, values):
    dtype = whole_numbers.numpy_dtype(values)
    if whole_numbers.kind_of(dtype) not in ("i", "u", "f"):
        raise ValueError(f"{name} must be real numbers. Received: dtype {dtype}")
    is_finite = ops.all(ops.isfinite(ops.cast(values, "float32")))
    found = whole_numbers.concrete([is_finite])
    if found is not None and not found[0]:
        raise ValueError(f"{name} must be finite. Received: infinity or NaN")
