"""Checks of the arguments that a user gives to the sampler."""

import math
import numbers

import numpy as np

# The modes, and the default values of the controls of `sampling.sample`.
MODES = ("sample", "map")
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


def controls(model, **values):
    """Checks the controls of a drawing, and gives each stage its own.

    Args:
      model: `models.AutoregressiveModel`.
      **values: `temperature`, `log_scale_offset` and `mode`, as in `sampling.sample`.

    Returns:
      List of arrays [3], one for each stage, as `likelihoods.Likelihood.draw` takes them.

    Raises:
      ValueError: If a value breaks its rule, or if no stage has the control, or not the stage for
        which it is given.
    """
    stages = model.stages
    of_stages = [dict(DEFAULT_CONTROLS) for _ in stages]
    for name, value in values.items():
        if isinstance(value, list | tuple):
            if len(value) != len(stages):
                raise ValueError(
                    f"`{name}` must be one value, or one for each of the {len(stages)} stages. "
                    f"Received: {name}={_in_one_line(value)}"
                )
            for stage, own, each in zip(stages, of_stages, value, strict=True):
                _check_control(name, each)
                _check_has_control(stage.model.likelihood, name, each)
                own[name] = each
            continue
        _check_control(name, value)
        _check_has_control(model.likelihood, name, value)
        for stage, own in zip(stages, of_stages, strict=True):
            if name in stage.model.likelihood.controls:
                own[name] = value
    return [
        np.array(
            [own["temperature"], own["log_scale_offset"], own["mode"] == "map"],
            stage.model.variable_dtype,
        )
        for stage, own in zip(stages, of_stages, strict=True)
    ]


def _check_control(name, value):
    """Checks one value of a control."""
    if name == "mode":
        check_choice(name, value, MODES)
    elif name == "temperature":
        smallest = np.finfo("float32").tiny
        check_number(name, value, numbers.Real, "a number above 0", smallest)
    else:
        check_number(name, value, numbers.Real, "a number")


def _check_has_control(likelihood, name, value):
    """Checks that a control is known to a likelihood, unless its value is the default."""
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
