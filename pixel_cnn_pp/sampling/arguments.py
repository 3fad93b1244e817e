"""Checks of the arguments that a user gives to the sampler."""

import math
import numbers

import numpy as np

# The default values of the controls of `sampling.sample`.
DEFAULT_CONTROLS = {"temperature": 1.0, "log_scale_offset": 0.0, "mode": "sample"}


def canvas(model, num_samples, image_shape, init_images, known_mask):
    """The known pixels of the images that are to be drawn.

    Args:
      model: `models.AutoregressiveModel`.
      num_samples, image_shape, init_images, known_mask: As in `sampling.sample`.

    Returns:
      Pair of arrays: images [N, H, W, C] with the known pixels, and 0 at all others; and a mask
      [N, H, W] that is true for the known pixels.

    Raises:
      ValueError: If an argument has a wrong form, or does not fit the model or the other arguments.
    """
    if (init_images is None) != (known_mask is None):
        given, missing = ("init_images", "known_mask")[:: 1 if known_mask is None else -1]
        raise ValueError(
            f"`init_images` and `known_mask` belong together. "
            f"Received: `{given}` without `{missing}`"
        )
    if image_shape is None:
        own_shape = model.config.image_shape
        image_shape = own_shape if init_images is None else np.shape(init_images)[-3:]
    is_sequence = isinstance(image_shape, (tuple, list, np.ndarray))
    shape, channels = tuple(image_shape) if is_sequence else (), model.config.image_shape[-1]
    is_shape = len(shape) == 3 and all(isinstance(side, numbers.Integral) for side in shape)
    if not is_shape or min(shape[:2]) < 1 or shape[2] != channels:
        raise ValueError(
            f"`image_shape` must be (height, width, {channels}), height and width "
            f"at least 1. Received: image_shape={image_shape!r}"
        )
    if init_images is None:
        return np.zeros((num_samples, *shape), "uint8"), np.zeros((num_samples, *shape[:2]), bool)
    init_images, known_mask = np.asarray(init_images), np.asarray(known_mask)
    for name, array, end in (
        ("init_images", init_images, shape),
        ("known_mask", known_mask, shape[:2]),
    ):
        if array.shape not in (end, (num_samples, *end)):
            raise ValueError(
                f"`{name}` must have the shape {end} or {(num_samples, *end)}. "
                f"Received: {name} of shape {array.shape}"
            )
    if known_mask.dtype != bool:
        raise ValueError(f"`known_mask` must be booleans. Received: dtype {known_mask.dtype}")
    init_images = np.broadcast_to(init_images, (num_samples, *shape))
    known_mask = np.broadcast_to(known_mask, (num_samples, *shape[:2]))
    # Unknown pixels may have any values, including NaN.
    nothing = np.zeros([], init_images.dtype)
    return np.where(known_mask[..., None], init_images, nothing), known_mask


def check_controls(likelihood, **values):
    """Checks that only controls that the likelihood has differ from their defaults.

    Args:
      likelihood: `likelihoods.Likelihood`.
      **values: {name of a control: its value}.

    Raises:
      ValueError: If a control that the likelihood does not have differs from its default.
    """
    for name, value in values.items():
        if name not in likelihood.controls and value != DEFAULT_CONTROLS[name]:
            raise ValueError(
                f"`{name}` must be left out: it has no meaning for a model of {likelihood.name}. "
                f"Received: {name}={value!r}"
            )


def check_choice(name, value, choices):
    """Raises a ValueError if the value is not one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(choices)}. Received: {name}={_in_one_line(value)}"
        )


def check_number(name, value, kind, rule, smallest=-math.inf):
    """Raises a ValueError if the value is not a finite number of this kind, or is too small."""
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < smallest:
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={_in_one_line(value)}")


def _in_one_line(value):
    return " ".join(repr(value).split())
