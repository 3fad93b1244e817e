"""Exports a model as a SavedModel, which only needs TensorFlow to run.

    PATH/saved_model.pb                 the functions and their signatures
    PATH/variables/                     the weights
    PATH/assets.extra/config.json       the configuration of the model, for people to read

The signatures take and return images as integers.
"""

import os
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

from pixel_cnn_pp import config, files, likelihoods, models, sampling
from pixel_cnn_pp.models import conditions

_SAVED_MODEL = "saved_model.pb"


def export_saved_model(model, path, jit_compile=True, overwrite=False):
    """Writes a model as a SavedModel, for TensorFlow Serving or for TensorFlow itself.

    It has the signatures below. Each takes any number of images. Images are uint8 for L <= 256 and
    int32 for more levels. Class-conditional models also take labels, int32 [B].

        log_prob         images [B, H, W, C]{, labels}   -> nats [B], bits_per_dim [B]
        sample           num_samples, seed{, labels}     -> images [num_samples, H, W, C]
        complete         images, mask [B, H, W], seed{, labels} -> images [B, H, W, C]
        config                                           -> json, the configuration as a string
        serving_default  is log_prob

    `nats` is log p(x), as in the model's `log_prob`. `log_prob` takes any H and W that the model
    takes. The other signatures take the H and W of the configuration. `sample_with_controls` and
    `complete_with_controls` also take temperature and log_scale_offset (floats) and mode ("sample"
    or "map"), as in `sampling.sample`. They only take the controls that the likelihood has. A model
    that is trained with the energy distance has no `log_prob` and no controls. Its
    `serving_default` is `sample`.

    The same seed gives the same images as `sampling.sample` on the machine that exported the model.
    With `jit_compile` they are equal to the last bit. Without it, products are rounded differently.
    In float32 this changes about one draw in ten thousand. In bfloat16 it changes most images.

    Args:
      model: `models.AutoregressiveModel`. Its current weights are saved.
      path: Directory to write. It is either complete or not written.
      jit_compile: Whether XLA compiles the sampler when it is used, once for every batch size. This
        makes sampling faster, but the first call takes seconds. TensorFlow Serving must then have
        XLA. On CPUs it needs the option --xla_cpu_compilation_enabled.
      overwrite: Whether to replace an existing SavedModel.

    Raises:
      ValueError: If `model` is not a model of this package, or if the Keras backend is not
        TensorFlow.
      OSError: If `path` exists already, or cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Exporting a SavedModel needs Keras's TensorFlow backend. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    models.checked(model)
    check_path(path, overwrite)
    path = pathlib.Path(path).absolute()
    _put_back(path)
    incomplete = path.with_name(f".incomplete_{path.name}_{os.getpid()}")
    for leftover in path.parent.glob(f".incomplete_{path.name}*"):
        if not _is_running(leftover.name.rpartition("_")[2]):  # its process was killed
            shutil.rmtree(leftover, ignore_errors=True)
    incomplete.mkdir(parents=True)
    try:
        served, signatures = _served(model, jit_compile)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        try:
            tf.saved_model.save(served, str(incomplete), signatures, options)
        except tf.errors.OpError as error:
            raise OSError(f"{path} could not be written: {error.message}") from None
        (incomplete / "assets.extra").mkdir()
        (incomplete / "assets.extra" / "config.json").write_text(config.to_json(model.config))
        _move(incomplete, path)
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def check_path(path, overwrite=False):
    """Checks that `export_saved_model` can write to a path. This needs no model.

    Args:
      path: As in `export_saved_model`.
      overwrite: As in `export_saved_model`.

    Raises:
      ValueError: If `path` is no path.
      OSError: If `path` exists already, or cannot be written.
    """
    path = files.checked_path("path", path).absolute()
    if path.is_dir() and os.listdir(path):
        if not overwrite:
            raise FileExistsError(
                f"The directory to write must be new or empty, or be overwritten. Received: {path}"
            )
        if not (path / _SAVED_MODEL).exists():
            raise FileExistsError(
                f"Only a SavedModel is overwritten. Received: {path}, which holds something else"
            )
    elif path.exists() and not path.is_dir():
        raise FileExistsError(f"The SavedModel is a directory. Received: {path}, which is a file")
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"Not a directory: {parent}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"Not a directory to write to: {parent}")


def _is_running(number):
    """Whether a text is the number of a process of this machine that runs."""
    try:
        os.kill(int(number), 0)
    except PermissionError:
        return True  # of another user
    except (ValueError, OverflowError, OSError):
        return False
    return True


def _move(incomplete, path):
    """Renames a complete directory to its final path, and removes what was there before."""
    replaced = _replaced(path)
    shutil.rmtree(replaced, ignore_errors=True)
    if path.exists():
        path.rename(replaced)
    try:
        incomplete.rename(path)
    except OSError:
        _put_back(path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _put_back(path):
    """Renames what was there before to its path, if nothing came in its place."""
    if _replaced(path).exists() and not path.exists():
        _replaced(path).rename(path)


def _replaced(path):
    return path.with_name(f".replaced_{path.name}")


def _served(model, jit_compile):
    """The object to save, and its signatures."""
    served = tf.Module()
    # The object holds only the weights. With the model, Keras would save all layers as objects.
    served.weights = [weight.value for weight in model.weights]
    endpoints = _Endpoints(model, jit_compile)
    signatures = {}
    for name, (function, arguments) in endpoints.signatures().items():
        specs = {key: tf.TensorSpec(*spec, key) for key, spec in arguments.items()}
        # The functions are not attributes of `served`, because those are traced and saved again.
        signatures[name] = _function(_with_labels(function)).get_concrete_function(**specs)
    default = signatures["log_prob" if "log_prob" in signatures else "sample"]
    return served, {**signatures, "serving_default": default}


class _Endpoints:
    """The exported functions. They take the tensors of a client, and check them in the graph."""

    def __init__(self, model, jit_compile):
        self._model, self._config = model, model.config
        self._level_dtype = tf.as_dtype(likelihoods.level_dtype(self._config.num_levels))

        def compile_step(step):
            return tf.function(step, jit_compile=True, autograph=False) if jit_compile else step

        # All signatures that draw images share this function, so it is traced only once.
        self._draw_images = _function(sampling.make_draw_images(model, compile_step))

    def signatures(self):
        """{name of a signature: (function, {name of an argument: its spec})}."""
        height, width, channels = self._config.image_shape
        given = self._condition_spec()
        controls = {
            "temperature": ([], tf.float32),
            "log_scale_offset": ([], tf.float32),
            "mode": ([], tf.string),
        }
        images = {"images": ([None, None, None, channels], self._level_dtype), **given}
        drawn = {"num_samples": ([], tf.int32), "seed": ([], tf.int32), **given}
        completed = {
            "images": ([None, height, width, channels], self._level_dtype),
            "mask": ([None, height, width], tf.bool),
            "seed": ([], tf.int32),
            **given,
        }
        found = {
            "sample": (self.sample, drawn),
            "complete": (self.complete, completed),
            "config": (self.config, {}),
        }
        likelihood = self._model.likelihood
        if likelihood.why_no_log_prob is None:
            found["log_prob"] = self.log_prob, images
        controls = {name: spec for name, spec in controls.items() if name in likelihood.controls}
        if controls:
            found["sample_with_controls"] = self.sample, drawn | controls
            found["complete_with_controls"] = self.complete, completed | controls
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

    def sample(
        self,
        num_samples,
        seed,
        condition=None,
        temperature=1.0,
        log_scale_offset=0.0,
        mode="sample",
    ):
        """Draws new images."""
        num_samples = _require(
            num_samples > 0,
            "`num_samples` must be a whole number of at least 1. Received: num_samples={}",
            num_samples,
        )
        shape = self._config.image_shape
        images = tf.zeros([num_samples, *shape], self._level_dtype)
        mask = tf.zeros([num_samples, *shape[:2]], tf.bool)
        return self._draw(images, mask, seed, condition, temperature, log_scale_offset, mode)

    def complete(
        self,
        images,
        mask,
        seed,
        condition=None,
        temperature=1.0,
        log_scale_offset=0.0,
        mode="sample",
    ):
        """Draws the pixels of images where the mask is false, and keeps the others."""
        mask = _require(
            tf.shape(mask)[0] == tf.shape(images)[0],
            "`mask` must be one for each of the images. Received: {} masks, {} images",
            mask,
            (tf.shape(mask)[0], tf.shape(images)[0]),
        )
        images = tf.where(mask[..., None], images, 0)  # unknown pixels may have any values
        return self._draw(images, mask, seed, condition, temperature, log_scale_offset, mode)

    def _draw(self, images, mask, seed, condition, temperature, log_scale_offset, mode):
        images, condition = self._checked(images, condition)
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
        is_map = tf.cast(mode == "map", tf.float32)
        controls = tf.stack([temperature, log_scale_offset, is_map])
        controls = tf.cast(controls, self._model.variable_dtype)
        return {"images": self._draw_images(images, mask, condition, seed, controls)}

    def _checked(self, images, condition):
        """Checks both as `AutoregressiveModel.check_inputs` does, and returns them."""
        num_levels = self._config.num_levels
        shape = tf.shape(images)
        images = _require(
            shape[0] > 0,
            "images must be at least 1. Received: images of shape {}",
            images,
            (shape,),
        )
        images = _require(
            tf.reduce_all(shape[1:3] > 0),
            "Height and width of images must be at least 1. Received: images of shape {}",
            images,
            (shape,),
        )
        if num_levels <= images.dtype.max:
            images = _require_range("images", images, num_levels)
        if condition is None:
            return images, None
        return images, self._checked_condition(condition, images)

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
        if self._config.condition_levels <= condition.dtype.max:
            condition = _require_range(name, condition, self._config.condition_levels)
        return condition


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


def _require_range(name, values, size):
    smallest, largest = tf.reduce_min(values), tf.reduce_max(values)
    return _require(
        (smallest >= 0) & (largest < size),
        f"{name} must be whole numbers in [0, {size - 1}]. Received: values in [{{}}, {{}}]",
        values,
        (smallest, largest),
    )
