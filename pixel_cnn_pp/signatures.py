"""The signatures of an exported model: what a client can ask of it. `export` says what they are.

The functions take the tensors of a client, and check them in the graph. They loop over the stages
of the model.
"""

import functools

import numpy as np
import tensorflow as tf

from pixel_cnn_pp import config, likelihoods, sampling
from pixel_cnn_pp.models import conditions
from pixel_cnn_pp.models.stages import multiple


def of(model, jit_compile):
    """The signatures of a model.

    Args:
      model: `models.AutoregressiveModel`.
      jit_compile: As in `export.export_saved_model`.

    Returns:
      {name: concrete function of TensorFlow}.
    """
    found = {}
    for name, (function, arguments) in _Endpoints(model, jit_compile).signatures().items():
        specs = {key: tf.TensorSpec(*spec, key) for key, spec in arguments.items()}
        # The functions are not attributes of what is saved, because those are traced again.
        found[name] = _function(_with_labels(function)).get_concrete_function(**specs)
    default = found["log_prob" if "log_prob" in found else "sample"]
    return {**found, "serving_default": default}


class _Endpoints:
    """The exported functions."""

    def __init__(self, model, jit_compile):
        self._model, self._config = model, model.config
        self._level_dtype = _level_dtype(model.stages[-1])

        def compile_step(step):
            return tf.function(step, jit_compile=True, autograph=False) if jit_compile else step

        # All signatures that draw images share these functions, so each is traced only once.
        self._draw_images = [
            _function(sampling.make_draw_images(stage.model, compile_step))
            for stage in model.stages
        ]

    def signatures(self):
        """{name of a signature: (function, {name of an argument: its spec})}."""
        height, width, channels = self._config.image_shape
        given, likelihood = self._condition_spec(), self._model.likelihood
        seed = {"seed": ([], tf.int32)}
        images = {"images": ([None, None, None, channels], self._level_dtype), **given}
        completed = {
            "images": ([None, height, width, channels], self._level_dtype),
            "mask": ([None, height, width], tf.bool),
        }
        draws = {
            "sample": (self.sample, {"num_samples": ([], tf.int32), **seed, **given}),
            "complete": (self.complete, completed | seed | given),
        }
        for number, stage in enumerate(self._model.stages[:-1]):
            pictures = {"pictures": ([None, *stage.model.config.image_shape], _level_dtype(stage))}
            sample_from = functools.partial(self.sample_from, number)
            draws[f"sample_from_{stage.name}"] = sample_from, pictures | seed
        controls = {
            "temperature": ([], tf.float32),
            "log_scale_offset": ([], tf.float32),
            "mode": ([], tf.string),
        }
        controls = {name: spec for name, spec in controls.items() if name in likelihood.controls}
        found = draws | {"config": (self.config, {})}
        if likelihood.why_no_log_prob is None:
            found["log_prob"] = self.log_prob, images
        if controls:
            for name, (function, arguments) in draws.items():
                found[f"{name}_with_controls"] = function, arguments | controls
        return found

    def config(self):
        """The configuration of the model."""
        return {"json": tf.constant(config.to_json(self._config))}

    def _condition_spec(self):
        """{name of the argument for the condition: its spec}, empty for an unconditional model."""
        if self._config.num_classes is not None:
            return {"labels": ([None], tf.int32)}
        shape = conditions.shape_of(self._config)
        if shape is None:
            return {}
        if len(shape) == 1:
            return {"condition": ([None, *shape], tf.float32)}
        dtype = tf.as_dtype(likelihoods.level_dtype(self._config.condition_levels))
        return {"condition": ([None, None, None, shape[-1]], dtype)}

    def log_prob(self, images, condition=None):
        """Computes nats and bits/dim of images."""
        images, condition = self._checked(images, condition)
        nats = self._model.log_prob(images, condition)
        num_dims = tf.cast(tf.reduce_prod(tf.shape(images)[1:]), nats.dtype)
        return {"nats": nats, "bits_per_dim": likelihoods.bits_per_dim(-nats, num_dims)}

    def sample(self, num_samples, seed, condition=None, **controls):
        """Draws new images."""
        num_samples = _require(
            num_samples > 0,
            "`num_samples` must be a whole number of at least 1. Received: num_samples={}",
            num_samples,
        )
        return self._draw(*self._nothing_known(num_samples), seed, condition, **controls)

    def sample_from(self, number, pictures, seed, **controls):
        """Draws images from the pictures of a stage, which has this number."""
        pictures = _require_some("pictures", pictures)
        num_levels = self._model.stages[number].model.config.num_levels
        pictures = _require_levels("pictures", pictures, num_levels)
        nothing_known = self._nothing_known(tf.shape(pictures)[0])
        return self._draw_stages(number + 1, *nothing_known, seed, pictures, **controls)

    def complete(self, images, mask, seed, condition=None, **controls):
        """Draws the pixels of images where the mask is false, and keeps the others."""
        mask = _require(
            tf.shape(mask)[0] == tf.shape(images)[0],
            "`mask` must be one for each of the images. Received: {} masks, {} images",
            mask,
            (tf.shape(mask)[0], tf.shape(images)[0]),
        )
        images = tf.where(mask[..., None], images, 0)  # unknown pixels may have any values
        return self._draw(images, mask, seed, condition, **controls)

    def _nothing_known(self, num_images):
        """Images and a mask, for images that are drawn completely."""
        shape = [num_images, *self._config.image_shape]
        return tf.zeros(shape, self._level_dtype), tf.zeros(shape[:-1], tf.bool)

    def _draw(self, images, mask, seed, condition, **controls):
        images, condition = self._checked(images, condition)
        return self._draw_stages(0, images, mask, seed, condition, **controls)

    def _draw_stages(
        self,
        first,
        images,
        mask,
        seed,
        condition,
        temperature=1.0,
        log_scale_offset=0.0,
        mode="sample",
    ):
        """Draws the stages from the one with the number `first`, and returns the last one."""
        seed = _require(
            seed >= 0, "`seed` must be a whole number in [0, 2^31 - 1]. Received: seed={}", seed
        )
        temperature = _require(
            (temperature >= np.finfo("float32").tiny) & (temperature < np.inf),
            "`temperature` must be a number above 0. Received: temperature={}",
            tf.convert_to_tensor(temperature),
        )
        log_scale_offset = _require(
            tf.math.is_finite(log_scale_offset),
            "`log_scale_offset` must be a number. Received: log_scale_offset={}",
            tf.convert_to_tensor(log_scale_offset),
        )
        mode = tf.convert_to_tensor(mode)
        mode = _require(
            tf.reduce_any(mode == sampling.MODES),
            f"`mode` must be one of {', '.join(sampling.MODES)}. Received: mode={{}}",
            mode,
        )
        controls = {
            "temperature": temperature,
            "log_scale_offset": log_scale_offset,
            "mode": tf.cast(mode == "map", tf.float32),
        }
        for number, stage in enumerate(self._model.stages[first:], start=first):
            # As `sampling.sample` does: the known pixels of each stage are those of the images.
            known = tf.cast(stage.view.of(images, self._config.num_levels), _level_dtype(stage))
            likelihood, dtype = stage.model.likelihood, stage.model.variable_dtype
            # A stage whose likelihood does not know a control has its default.
            own = [
                value if name in likelihood.controls else float(name == "temperature")
                for name, value in controls.items()
            ]
            condition = self._draw_images[number](
                known,
                stage.view.known(mask),
                condition,
                sampling.seed_of(seed, number),
                tf.cast(tf.stack(own), dtype),
            )
        return {"images": condition}

    def _checked(self, images, condition):
        """Checks both as `AutoregressiveModel.check_inputs` does, and returns them."""
        images = _require_some("images", images)
        sides, factor = tf.shape(images)[1:3], multiple(self._model)
        images = _require(
            tf.reduce_all(sides > 0),
            "Height and width of images must be at least 1. Received: images of shape {}",
            images,
            (tf.shape(images),),
        )
        if factor > 1:
            images = _require(
                tf.reduce_all(sides % factor == 0),
                f"Height and width of images must be multiples of {factor}, by which the first "
                "picture of this model is smaller. Received: images of shape {}",
                images,
                (tf.shape(images),),
            )
        images = _require_levels("images", images, self._config.num_levels)
        return images, None if condition is None else self._checked_condition(condition, images)

    def _checked_condition(self, condition, images):
        """Checks labels, real vectors or pictures, and returns them."""
        (name,) = self._condition_spec()
        received = (tf.shape(condition)[0], tf.shape(images)[0])
        condition = _require(
            received[0] == received[1],
            f"{name} must be one for each of the images. Received: {{}} {name}, {{}} images",
            condition,
            received,
        )
        if self._config.num_classes is not None:
            return _require_range(name, condition, self._config.num_classes)
        if condition.shape.rank == 2:
            return _require(
                tf.reduce_all(tf.math.is_finite(condition)),
                "condition must be finite. Received: infinity or NaN",
                condition,
                (),
            )
        times = conditions.times_larger(self._config)
        condition = _require(
            tf.reduce_all(tf.shape(condition)[1:3] * times == tf.shape(images)[1:3]),
            f"condition must be pictures whose sides times {times} are those of the images. "
            "Received: pictures of shape {}, images of shape {}",
            condition,
            (tf.shape(condition), tf.shape(images)),
        )
        return _require_levels(name, condition, self._config.condition_levels)


def _level_dtype(stage):
    """The dtype of the pictures of a stage."""
    return tf.as_dtype(likelihoods.level_dtype(stage.model.config.num_levels))


def _with_labels(function):
    """The function, which takes its argument `condition` by the name `labels` too."""

    def call(**arguments):
        if "labels" in arguments:
            arguments["condition"] = arguments.pop("labels")
        return function(**arguments)

    return call


def _function(function):
    return tf.function(function, autograph=False)


def _require(condition, message, value, received=None):
    """Returns the value, or raises an InvalidArgumentError of one line if the condition is false.

    `received` are the tensors that the message shows. By default it is the value itself.
    """
    text = tf.strings.format(message, (value,) if received is None else received)
    with tf.control_dependencies([tf.debugging.Assert(condition, [text])]):
        return tf.identity(value)


def _require_some(name, values):
    return _require(
        tf.shape(values)[0] > 0,
        f"{name} must be at least 1. Received: {name} of shape {{}}",
        values,
        (tf.shape(values),),
    )


def _require_levels(name, values, num_levels):
    """As `_require_range`, for values whose dtype may have no others."""
    return _require_range(name, values, num_levels) if num_levels <= values.dtype.max else values


def _require_range(name, values, size):
    smallest, largest = tf.reduce_min(values), tf.reduce_max(values)
    return _require(
        (smallest >= 0) & (largest < size),
        f"{name} must be whole numbers in [0, {size - 1}]. Received: values in [{{}}, {{}}]",
        values,
        (smallest, largest),
    )
