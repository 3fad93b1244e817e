"""The files of a run: its configuration and its checkpoints.

    RUN_DIR/config.json
    RUN_DIR/checkpoints/step_000001234/state.json      progress of the training, and the model
                                       weights.npz     the weights
                                       averages.npz    their Polyak averages, under the same names
                                       optimizer.npz   the optimizer's slots and step

A checkpoint is written under a temporary name. It is renamed when it is complete and on the disk.
Therefore an incomplete checkpoint is never read. In the files, the key of an array is the name of
its variable.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import zipfile

import numpy as np

from pixel_cnn_pp import config, models

_WEIGHTS_FILES = {"ema": "averages.npz", "raw": "weights.npz"}


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """The progress of a training.

    Attributes:
      step: Number of updates that are done.
      epoch: Number of complete epochs that are done.
      num_images: Number of images that are done in the current epoch. It is 0 between two epochs.
      image_loss_sum: Sum of the losses of these images, bits/dim.
    """

    step: int
    epoch: int
    num_images: int = 0
    image_loss_sum: float = 0.0


def save_config(run_dir, run):
    """Writes the configuration of a run. Creates its directory if necessary.

    Args:
      run_dir: Path of the run.
      run: RunConfig.

    Raises:
      OSError: If the directory cannot be made or written.
    """
    run_dir = pathlib.Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    incomplete = run_dir / ".incomplete_config.json"
    _write(incomplete, lambda file: file.write(config.to_json(run).encode()))
    incomplete.replace(run_dir / "config.json")


def load_config(run_dir):
    """Reads the configuration of a run.

    Args:
      run_dir: Path of the run.

    Returns:
      RunConfig.

    Raises:
      ValueError: If there is no configuration, or it is not valid.
    """
    path = pathlib.Path(run_dir) / "config.json"
    try:
        text = path.read_text()
    except OSError as error:
        raise ValueError(
            f"A run directory must hold a config.json. Received: {run_dir} ({error.strerror})"
        ) from None
    return config.from_json(text)


def latest(run_dir):
    """The newest complete checkpoint of a run.

    Args:
      run_dir: Path of the run.

    Returns:
      Path of the checkpoint's directory, or None.
    """
    found = pathlib.Path(run_dir).glob("checkpoints/step_*")
    return max(found, key=lambda path: path.name, default=None)


def save(run_dir, model, optimizer, state, keep=2):
    """Writes a checkpoint, and removes old checkpoints.

    Args:
      run_dir: Path of the run.
      model: AutoregressiveModel.
      optimizer: Keras optimizer, built on the model's weights, with `use_ema`.
      state: TrainingState.
      keep: Number of checkpoints to keep, including this one.

    Returns:
      Path of the checkpoint.

    Raises:
      FloatingPointError: If a weight is not finite. Then nothing is written.
      OSError: If the checkpoint cannot be written. Then the earlier checkpoints remain.
    """
    weights = {_key(weight): np.asarray(weight) for weight in model.weights}
    for key, value in weights.items():
        if not np.isfinite(value).all():
            raise FloatingPointError(f"The weights are not finite at step {state.step}: {key}")
    averages, slots = _split_variables(model, optimizer)
    folder = pathlib.Path(run_dir) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".incomplete_*"):
        shutil.rmtree(leftover)
    # No run has more steps than twelve digits can count. So the names sort like the numbers.
    complete = folder / f"step_{state.step:012d}"
    text = json.dumps({**dataclasses.asdict(state), "model": dataclasses.asdict(model.config)})
    if complete.exists():  # no step was done since, but an epoch may have ended
        _write_state(complete, text)
        return complete
    incomplete = folder / f".incomplete_{complete.name}"
    incomplete.mkdir()
    try:
        _write_arrays(incomplete / "weights.npz", weights)
        _write_arrays(incomplete / "averages.npz", averages)
        _write_arrays(incomplete / "optimizer.npz", slots)
        _write_state(incomplete, text)
        _sync_folder(incomplete)
    except OSError:
        shutil.rmtree(incomplete, ignore_errors=True)  # frees the space if the disk is full
        raise
    incomplete.rename(complete)
    _sync_folder(folder)
    for old in sorted(folder.glob("step_*"))[:-keep]:
        shutil.rmtree(old)
    return complete


def restore(run_dir, model, optimizer, num_images=None, batch_size=None):
    """Loads the newest checkpoint of a run into a model and its optimizer.

    Args:
      run_dir: Path of the run.
      model: AutoregressiveModel of the run's configuration.
      optimizer: Keras optimizer as in `save`.
      num_images: Number of images in an epoch. This and `batch_size` are needed only for a
        checkpoint that an earlier version wrote within an epoch, because that version summed the
        losses in another way. Such a checkpoint is refused without them.
      batch_size: Size of the global batches after resuming.

    Returns:
      TrainingState.

    Raises:
      ValueError: If there is no checkpoint, or it is damaged or of another network.
    """
    checkpoint = _require_latest(run_dir)
    values = _load_state(checkpoint, model)
    state = TrainingState(**_in_images(values, num_images, batch_size))
    if state.num_images and not state.image_loss_sum and num_images is None:
        raise ValueError(
            "`num_images` must be given for a checkpoint that an earlier version wrote within an "
            f"epoch. Received: num_images=None, {checkpoint}"
        )
    averages, slots = _split_variables(model, optimizer, as_arrays=False)
    _assign(checkpoint / "weights.npz", {_key(weight): weight for weight in model.weights})
    _assign(checkpoint / "averages.npz", averages)
    _assign(checkpoint / "optimizer.npz", slots)
    return state


def load(run_dir, weights="ema"):
    """Loads a trained model from the directory of its run.

    Args:
      run_dir: Path of the run.
      weights: "ema" for the Polyak averages, "raw" for the weights of the last step.

    Returns:
      AutoregressiveModel.

    Raises:
      ValueError: If `weights` is another word, if the directory holds no run or no checkpoint, or
        if the checkpoint is damaged or of another configuration.
    """
    if weights not in _WEIGHTS_FILES:
        raise ValueError(
            f"`weights` must be one of {', '.join(_WEIGHTS_FILES)}. Received: weights={weights!r}"
        )
    run = load_config(run_dir)
    checkpoint = _require_latest(run_dir)
    model = models.make(run.model, fresh=False)
    _load_state(checkpoint, model)
    _assign(
        checkpoint / _WEIGHTS_FILES[weights], {_key(weight): weight for weight in model.weights}
    )
    return model


def averages(model, optimizer):
    """The Polyak averages of the weights.

    Args:
      model: AutoregressiveModel.
      optimizer: Keras optimizer, built on the model's trainable weights, with `use_ema`.

    Returns:
      List of the optimizer's variables, in the order of `model.trainable_variables`.
    """
    by_name = {variable.name: variable for variable in optimizer.variables}
    # The name that Keras gives to a slot contains the path of its weight.
    return [by_name[_average_name(weight)] for weight in model.trainable_variables]


def _average_name(weight):
    return weight.path.replace("/", "_") + "_average"


def _key(weight):
    """The path of a weight without the name of the model."""
    return weight.path.split("/", 1)[1]


def _split_variables(model, optimizer, as_arrays=True):
    """The variables of an optimizer, as two dicts.

    The first has the averages, and its keys are the keys of their weights. The second has all other
    variables, and its keys are their names.
    """
    convert = np.asarray if as_arrays else lambda variable: variable
    average_variables = averages(model, optimizer)
    average_names = {variable.name for variable in average_variables}
    # The names of slots contain the name of the model. Keras adds a number to that name, which is
    # another one in another process.
    prefix = f"{model.name}_"
    return (
        {
            _key(weight): convert(average)
            for weight, average in zip(model.trainable_variables, average_variables, strict=True)
        },
        {
            variable.name.removeprefix(prefix): convert(variable)
            for variable in optimizer.variables
            if variable.name not in average_names
        },
    )


def _require_latest(run_dir):
    checkpoint = latest(run_dir)
    if checkpoint is None:
        raise ValueError(
            f"A run directory must hold a checkpoint. Received: {run_dir} (none there)"
        )
    return checkpoint


def _load_state(checkpoint, model):
    """Reads state.json as a dict, and checks that the checkpoint is of the same network.

    Raises:
      ValueError: If it is of another network. The message names the fields that differ.
    """
    path = checkpoint / "state.json"
    try:
        values = json.loads(path.read_text())
        stored_config = config.model_config(values.pop("model"))
        TrainingState(**_in_images(values))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"A checkpoint must be whole. Received: {path} ({reason})") from None
    different = config.differences(stored_config, model.config)
    if different:
        raise ValueError(
            "A checkpoint must be of the model's configuration. "
            f"Received: {checkpoint} with {', '.join(different)} (checkpoint != model)"
        )
    return values


def _in_images(values, num_images=None, batch_size=None):
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


def _assign(path, variables):
    """Sets variables to the arrays of a file. If one of them does not fit, none is changed."""
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"A checkpoint must be whole. Received: {path} ({reason})") from None
    unfit = [
        f"{key}: {_shape(arrays, key)} in the file, {_shape(variables, key)} in the model"
        for key in sorted(arrays.keys() | variables.keys())
        if _shape(arrays, key) != _shape(variables, key)
    ]
    if unfit:
        more = f", and {len(unfit) - 1} more" if len(unfit) > 1 else ""
        raise ValueError(
            f"A checkpoint must hold the model's variables. Received: {path} ({unfit[0]}{more})"
        )
    for key, variable in variables.items():
        variable.assign(arrays[key])


def _shape(arrays, key):
    return tuple(arrays[key].shape) if key in arrays else "nothing"


def _write_state(checkpoint, text):
    """Replaces the state.json of a checkpoint. At any time the file is complete, old or new."""
    incomplete = checkpoint / ".incomplete_state.json"
    _write(incomplete, lambda file: file.write(text.encode()))
    incomplete.replace(checkpoint / "state.json")


def _write_arrays(path, arrays):
    _write(path, lambda file: np.savez(file, **arrays))


def _write(path, write):
    """Writes a file, and waits until its bytes are on the disk."""
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path):
    """Waits until the names of the files in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
