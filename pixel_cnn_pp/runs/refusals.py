"""Checks before a training starts, and error messages of one line."""

import contextlib
import dataclasses
import shutil

import tensorflow as tf


@contextlib.contextmanager
def one_line_errors(num_workers, training):
    """A context that shortens errors of TensorFlow or JAX to one line, if the user can fix them.

    Args:
      num_workers: Number of processes that train together.
      training: TrainingConfig.

    Raises:
      ValueError: If a batch does not fit into the memory of a device.
      ConnectionError: If another worker is lost.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise _too_large(training, _reason(error)) from None
    except RuntimeError as error:
        text = str(error)
        if not text.startswith("RESOURCE_EXHAUSTED"):  # as JAX begins its message
            raise
        raise _too_large(training, text.partition("\n")[0][:200]) from None
    except tf.errors.OpError as error:
        if num_workers == 1:
            raise
        raise ConnectionError(
            "Another worker was lost, and training stopped. Start all workers again with "
            f"--load_params: they go on from the last checkpoint. Reason: {_reason(error)}"
        ) from None


def _too_large(training, reason):
    return ValueError(
        "A batch must fit into the memory of its device: try --accumulate_steps, --recompute "
        f"or a smaller --batch_size. Received: batch_size={training.batch_size} ({reason})"
    )


def _reason(error):
    """The cause of an error. A message may first have paragraphs that locate it in the graph."""
    return error.message.strip().split("\n\n")[-1].partition("\n")[0][:200]


def check_disk(run_dir, model, keep):
    """Checks that the disk has room for `keep` checkpoints and one that is being written.

    Raises:
      OSError: If it has not.
    """
    # A checkpoint has weights, averages and two slots of the optimizer, all in float32.
    checkpoint_bytes = 4 * 4 * model.count_params()
    stored = run_dir.glob("checkpoints/step_*/*.npz")
    needed = (keep + 1) * checkpoint_bytes - sum(path.stat().st_size for path in stored)
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise OSError(
            f"The disk of {run_dir} must have {needed / 2**20:.0f} MiB free for {keep} checkpoints "
            f"and one that is being written. Received: {free / 2**20:.0f} MiB free"
        )


def check_data(run, train_data, test_data):
    """Checks that the shape, levels and classes of the data are those of the model.

    Raises:
      ValueError: If they are not.
    """
    model = run.model
    for name, images in (("train", train_data), ("test", test_data)):
        changes = {
            "image_shape": images.images.shape[1:],
            "num_levels": images.num_levels,
            "num_classes": None if model.num_classes is None else images.num_classes,
        }
        if getattr(model, "condition_shape", None) is not None:
            _check_condition(model, name, images)
        found = dataclasses.replace(model, **changes)
        if found != model:
            raise ValueError(
                f"The {name} images must fit the model. Received: {found.image_shape}, "
                f"{found.num_levels} levels, {found.num_classes} classes; the model has "
                f"{model.image_shape}, {model.num_levels} levels, {model.num_classes} classes"
            )


def _check_condition(model, name, images):
    """Checks that the data have the pictures that the images of a model are conditioned on."""
    found = None
    if images.condition_levels is not None:
        found = images.labels.shape[1:], images.condition_levels
    expected = model.condition_shape, model.condition_levels
    if found != expected:
        raise ValueError(
            f"The {name} images must have the conditions of the model, of shape {expected[0]} and "
            f"{expected[1]} levels. Received: {found}"
        )


def check_progress(run, state, num_images):
    """Checks that a data set has the images that are done in the current epoch.

    Args:
      run: RunConfig.
      state: TrainingState.
      num_images: Number of training images.

    Raises:
      ValueError: If it has become shorter since the run was stopped.
    """
    if state.num_images > num_images:
        raise ValueError(
            f"The data set of a resumed run must be the one that it was trained on. Received: "
            f"{run.data.data_set} with {num_images} training images, and {state.num_images} of "
            "them are done in the current epoch. It has become shorter"
        )
