"""Checks of the images and conditions that a user gives to a model."""

import functools

import keras
import numpy as np
from keras import ops

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


def check_images(images, num_channels, num_levels, side_multiple):
    """Checks that a value is a batch of images.

    Inside a compiled function, only the shape and the dtype are checked.

    Args:
      images: The value to check, which should be images [B, H, W, C].
      num_channels: C.
      num_levels: L.
      side_multiple: H and W must be multiples of this number.

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
    if any(side is not None and not is_side(side, side_multiple) for side in shape[1:3]):
        raise ValueError(
            f"Height and width of images must be {describe_sides(side_multiple)}. Received: images "
            f"of shape {shape}"
        )
    _check_whole_numbers("images", images, num_levels - 1)


def is_side(side, side_multiple):
    """Whether a number can be the height or the width of an image."""
    return side >= 1 and side % side_multiple == 0


def describe_sides(side_multiple):
    """The rule of `is_side` in words, for messages."""
    return "at least 1" if side_multiple == 1 else f"multiples of {side_multiple}"


def check_condition(condition, images_shape, config):
    """Checks that there is a condition for each image, or none for an unconditional model.

    Inside a compiled function, only the shape and the dtype are checked.

    Args:
      condition: The value to check, which should be what the configuration says, or None.
      images_shape: (B, H, W, C), with None for a size that is unknown.
      config: Configuration of the model.

    Raises:
      ValueError: If the condition is missing, or given to an unconditional model, or of another
        shape or dtype, or if a value is out of its range.
    """
    shape = conditions.shape_of(config)
    if shape is None:
        check_labels(condition, images_shape, config.num_classes)
        return
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
        _check_whole_numbers("condition", condition, config.condition_levels - 1)
    else:
        _check_finite("condition", condition)


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


def check_labels(labels, images_shape, num_classes):
    """Checks that there is a label for each image, or no label for an unconditional model.

    Args:
      labels: The value to check, which should be labels [B], or None.
      images_shape: (B, H, W, C), with None for a size that is unknown.
      num_classes: Number of classes, or None for an unconditional model.

    Raises:
      ValueError: If labels are missing, or given to an unconditional model, or have another shape,
        or if a value is not a whole number in [0, num_classes - 1].
    """
    if labels is not None:
        _check_is_array("labels", labels)
    if num_classes is None:
        if labels is not None:
            raise ValueError(
                "labels must be None: this model is not class-conditional. "
                f"Received: labels of shape {tuple(labels.shape)}"
            )
        return
    if labels is None:
        raise ValueError(
            f"labels must be given: this model is conditioned on {num_classes} classes. "
            "Received: labels=None"
        )
    label_shape = tuple(labels.shape)
    is_one_each = None in (*label_shape, images_shape[0]) or label_shape == images_shape[:1]
    if len(label_shape) != 1 or not is_one_each:
        raise ValueError(
            f"labels must have the shape [B], one for each of the images of shape {images_shape}. "
            f"Received: labels of shape {label_shape}"
        )
    _check_whole_numbers("labels", labels, num_classes - 1)


def _check_is_array(name, value):
    if not hasattr(value, "shape"):
        raise ValueError(f"{name} must be an array or a tensor. Received: {type(value).__name__}")


def _check_whole_numbers(name, values, largest):
    dtype = _numpy_dtype(values)
    kind = "f" if dtype == "bfloat16" else getattr(dtype, "kind", "")
    if kind not in ("i", "u", "f"):
        raise ValueError(f"{name} must be whole numbers. Received: dtype {dtype}")
    if 0 in values.shape or (kind == "u" and np.iinfo(dtype).max <= largest):
        return  # no value can be out of range
    found = _summary(values, kind)
    if found is None:  # inside a compiled function: there are no values yet
        return
    smallest, greatest, is_whole = found
    if not is_whole:
        raise ValueError(
            f"{name} must be whole numbers in [0, {largest}]. Received: fractions or NaN"
        )
    if smallest < 0 or greatest > largest:
        raise ValueError(
            f"{name} must be whole numbers in [0, {largest}]. "
            f"Received: values in [{smallest}, {greatest}]"
        )


def _check_finite(name, values):
    dtype = _numpy_dtype(values)
    kind = "f" if dtype == "bfloat16" else getattr(dtype, "kind", "")
    if kind not in ("i", "u", "f"):
        raise ValueError(f"{name} must be real numbers. Received: dtype {dtype}")
    found = None if 0 in values.shape else _summary(values, kind)
    if found is not None and not np.isfinite(np.array(found[:2], "float64")).all():
        raise ValueError(f"{name} must be finite. Received: infinity or NaN")


def _numpy_dtype(values):
    """The dtype of an array or a tensor as NumPy has it, or its name where NumPy has none."""
    if isinstance(values, np.ndarray):
        return values.dtype
    name = keras.backend.standardize_dtype(values.dtype)
    try:
        return np.dtype(name)
    except TypeError:
        return name


def _summary(values, kind):
    """Smallest and greatest value, and whether all are whole. None inside a compiled function.

    Tensors are reduced on their device. Only three numbers are copied to the host.
    """
    if isinstance(values, np.ndarray):
        is_whole = kind != "f" or np.array_equal(values, np.round(values))
        return values.min(), values.max(), is_whole
    is_whole = ops.all(values == ops.round(values)) if kind == "f" else True
    try:
        return tuple(
            ops.convert_to_numpy(x)[()] for x in (ops.min(values), ops.max(values), is_whole)
        )
    except (NotImplementedError, TypeError, ValueError):
        return None
