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
import tensorflow as tf

from pixel_cnn_pp import config, files, models, signatures

_SAVED_MODEL = "saved_model.pb"


def export_saved_model(model, path, jit_compile=True, overwrite=False):
    """Writes a model as a SavedModel, for TensorFlow Serving or for TensorFlow itself.

    It has the signatures below. Each takes any number of images. Images are uint8 for L <= 256 and
    int32 for more levels. Class-conditional models also take labels, int32 [B].

        log_prob         images [B, H, W, C]{, labels}   -> nats [B], bits_per_dim [B]
        sample           num_samples, seed{, labels}     -> images [num_samples, H, W, C]
        complete         images, mask [B, H, W], seed{, labels} -> images [B, H, W, C]
        sample_from_STAGE  pictures [B, h, w, c], seed   -> images [B, H, W, C]
        config                                           -> json, the configuration as a string
        serving_default  is log_prob

    `nats` is log p(x), as in the model's `log_prob`. `log_prob` takes any H and W that the model
    takes. The other signatures take the H and W of the configuration. `sample_with_controls` and
    `complete_with_controls` also take temperature and log_scale_offset (floats) and mode ("sample"
    or "map"), as in `sampling.sample`. They only take the controls that the likelihood has. A model
    that is trained with the energy distance has no `log_prob` and no controls. Its
    `serving_default` is `sample`.

    A chain has `sample_from_STAGE` for each of its stages but the last, such as `sample_from_gray`.
    It draws images from pictures of this stage. There is one with controls too. The controls hold
    for all stages that know them. The `nats` of a chain are those of its bound.

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
        served, functions = _served(model, jit_compile)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        try:
            tf.saved_model.save(served, str(incomplete), functions, options)
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
    return served, signatures.of(model, jit_compile)
