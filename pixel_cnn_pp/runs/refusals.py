"""What a run cannot be trained on, or breaks by, told in one line."""

import contextlib
import dataclasses
import shutil

import tensorflow as tf


@contextlib.contextmanager
def one_line_errors(num_workers, training):
    """Says in one line what TensorFlow says in many where a user can do something about it."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(
            "A batch must fit into the memory of its device: try --accumulate_steps, --recompute "
            f"or a smaller --batch_size. Received: batch_size={training.batch_size} "
            f"({_reason(error)})"
        ) from None
    except tf.errors.OpError as error:
        if num_workers == 1:
            raise
        raise ConnectionError(
            "Another worker was lost, and training stopped. Start all workers again with "
            f"--load_params: they go on from the last checkpoint. Reason: {_reason(error)}"
        ) from None


def _reason(error):
    """What went wrong, of a message that may open with paragraphs on where in the graph it did."""
    return error.message.strip().split("\n\n")[-1].partition("\n")[0][:200]


def check_disk(run_dir, model, keep):
    """Refuses a disk without room for the checkpoints that are kept, and one that is written."""
    # Weights, averages and two slots of the optimizer, float32.
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
    """Refuses data of another kind than the model's."""
    model = run.model
    for name, images in (("train", train_data), ("test", test_data)):
        found = dataclasses.replace(
            model,
            image_shape=images.images.shape[1:],
            num_levels=images.num_levels,
            num_classes=None if model.num_classes is None else images.num_classes,
        )
        if found != model:
            raise ValueError(
                f"The {name} images must fit the model. Received: {found.image_shape}, "
                f"{found.num_levels} levels, {found.num_classes} classes; the model has "
                f"{model.image_shape}, {model.num_levels} levels, {model.num_classes} classes"
            )
