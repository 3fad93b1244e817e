"""The checkpoints of a run on the disk: which there are, and what their files hold.

Files may be damaged, and older versions wrote other values. Here they become values that are right,
or an error of one line.
"""

import dataclasses
import json
import math
import pathlib
import re

import numpy as np

from pixel_cnn_pp import config

# {weights of a model: the file of a checkpoint that has them}.
WEIGHTS_FILES = {"ema": "averages.npz", "raw": "weights.npz"}


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """The progress of a training.

    Attributes:
      step: Number of updates that are done.
      epoch: Number of complete epochs that are done.
      num_images: Number of images that are done in the current epoch. It is 0 between two epochs.
      image_loss_sum: Sum of the losses of these images, bits/dim.
      seconds: Time of all steps of the run, without scores of test images and checkpoints. It is 0
        in checkpoints of earlier versions.
    """

    step: int
    epoch: int
    num_images: int = 0
    image_loss_sum: float = 0.0
    seconds: float = 0.0


def latest(run_dir):
    """The newest complete checkpoint of a run.

    Args:
      run_dir: Path of the run.

    Returns:
      Path of the checkpoint's directory, or None.
    """
    return max(all_in(pathlib.Path(run_dir) / "checkpoints"), key=step_of, default=None)


def all_in(folder):
    """The checkpoints in a folder. Whatever else lies there, such as step_backup, is none."""
    return [path for path in folder.glob("step_*") if step_of(path) is not None and path.is_dir()]


def step_of(path):
    """The step of a checkpoint, by its name. None if the name is not that of a checkpoint."""
    number = re.fullmatch(r"step_([0-9]+)", path.name)
    return None if number is None else int(number[1])


def read_arrays(path):
    """The arrays of a file, {key: array}. All of them are numbers. Weights must be finite."""
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # A damaged file raises anything from inside zipfile and NumPy.
        raise NotWholeError(path, str(error) or type(error).__name__) from None
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise NotWholeError(path, f"{key} is of no numbers")
        if path.name in WEIGHTS_FILES.values() and not np.isfinite(array).all():
            raise NotWholeError(path, f"{key} is not finite")
    return arrays


class NotWholeError(ValueError):
    """A file of a checkpoint is damaged."""

    def __init__(self, path, reason):
        """Makes the error from the path of the file and the reason."""
        reason = " ".join(str(reason).split())[:200]
        super().__init__(f"A checkpoint must be whole. Received: {path} ({reason})")


def read_latest(run_dir, read):
    """Calls a function of the newest checkpoint, and returns its result.

    Raises:
      ValueError: If there is no checkpoint, or the function raises it. If the checkpoint is
        damaged, the message names an older one that is whole.
    """
    while True:
        checkpoint = latest(run_dir)
        if checkpoint is None:
            raise ValueError(
                f"A run directory must hold a checkpoint. Received: {run_dir} (none there)"
            )
        try:
            return read(checkpoint)
        except NotWholeError as error:
            if not checkpoint.is_dir():  # The training has removed it, and has a newer one.
                continue
            others = sorted(all_in(checkpoint.parent), key=step_of, reverse=True)
            whole = next((other for other in others if _is_whole(other)), None)
            if whole is None:
                raise
            raise ValueError(
                f"{error}; {whole.name} is whole: remove {checkpoint} to go back to it."
            ) from None


def _is_whole(checkpoint):
    """Whether all files of a checkpoint can be read."""
    try:
        read_state(checkpoint / "state.json")
        for name in ("weights.npz", "averages.npz", "optimizer.npz"):
            read_arrays(checkpoint / name)
    except NotWholeError:
        return False
    return True


def load_state(checkpoint, model_config):
    """Reads state.json as a dict, and checks that the checkpoint is of the same network.

    Raises:
      ValueError: If it is of another network. The message names the fields that differ.
    """
    values, stored_config = read_state(checkpoint / "state.json")
    different = config.differences(stored_config, model_config)
    if different:
        raise ValueError(
            "A checkpoint must be of the model's configuration. "
            f"Received: {checkpoint} with {', '.join(different)} (checkpoint != model)"
        )
    return values


def read_state(path):
    """The progress in a state.json, a dict, and the configuration of the model."""
    try:
        values = json.loads(path.read_text())
        stored_config = config.model_config(values.pop("model"))
        state = TrainingState(**in_images(values))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NotWholeError(path, error) from None
    for field in dataclasses.fields(TrainingState):
        value = getattr(state, field.name)
        if field.type is int:
            is_right = type(value) is int and value >= 0
        else:
            is_right = type(value) in (int, float) and math.isfinite(value)
        if not is_right:
            raise NotWholeError(path, f"{field.name} is {value!r}")
    return values, stored_config


def in_images(values, num_images=None, batch_size=None):
    """Converts the values of a state.json to the fields of a TrainingState.

    An earlier version stored `loss_sum`, the sum of the losses of steps instead of images. It did
    not store the batch size B, which must be found from the counts. An epoch has N // B steps, so
    step = epoch * (N // B) + num_images / B. If no B satisfies this equation, the batch size
    changed during the run. Then B is taken to be `batch_size`.

    Args:
      values: The values in a state.json, without the model.
      num_images: Number of images in an epoch, N. None if the sum of the losses is not needed.
      batch_size: Size of the global batches after resuming.
    Returns:
      A dict, field -> value.
    """
    if "loss_sum" not in values:
        return values
    values = dict(values)
    loss_sum, num_done = values.pop("loss_sum"), values["num_images"]
    if num_done and num_images is not None:
        found = (
            size
            for size in range(1, num_done + 1)
            if num_done % size == 0
            and values["step"] == values["epoch"] * (num_images // size) + num_done // size
        )
        values["image_loss_sum"] = loss_sum * next(found, batch_size)
    return values
