"""What is on disk: the configuration of a run, and its checkpoints.

    RUN_DIR/config.json
    RUN_DIR/checkpoints/step_000001234/state.json      where training stood, of which network
                                       weights.npz     the weights
                                       averages.npz    their Polyak averages, under the same names
                                       optimizer.npz   the optimizer's slots and step

A checkpoint is written under another name and gets its own when it is complete and on the disk, so
that one that was cut short is never read. Arrays are keyed by the name of the variable.
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
    """Where training stands.

    Attributes:
      step: Updates done.
      epoch: Whole epochs done.
      num_images: Images of the next epoch that are done, 0 between two epochs.
      image_loss_sum: Sum of their losses, bits/dim.
    """

    step: int
    epoch: int
    num_images: int = 0
    image_loss_sum: float = 0.0


def save_config(run_dir, run):
    """Writes the configuration of a run, creating its directory.

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
      ValueError: If there is none, or it cannot be read as one.
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
    """Writes a checkpoint, and removes those that are too old to keep.

    Args:
      run_dir: Path of the run.
      model: AutoregressiveModel.
      optimizer: Keras optimizer, built on the model's weights, with `use_ema`.
      state: TrainingState.
      keep: How many checkpoints stay, this one included.

    Returns:
      Path of the checkpoint.

    Raises:
      FloatingPointError: If a weight is not finite; nothing is written then.
      OSError: If it cannot be written; the earlier checkpoints stay.
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
    # Twelve digits: more steps than any run has, so that names sort as numbers.
    complete = folder / f"step_{state.step:012d}"
    text = json.dumps({**dataclasses.asdict(state), "model": dataclasses.asdict(model.config)})
    if complete.exists():  # a run that did no other step; it may have ended an epoch
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
        shutil.rmtree(incomplete, ignore_errors=True)  # gives a full disk back what it took
        raise
    incomplete.rename(complete)
    _sync_folder(folder)
    for old in sorted(folder.glob("step_*"))[:-keep]:
        shutil.rmtree(old)
    return complete


def restore(run_dir, model, optimizer, num_images=None, batch_size=None):
    """Sets model and optimizer to the newest checkpoint of a run.

    Args:
      run_dir: Path of the run.
      model: AutoregressiveModel of the run's configuration.
      optimizer: Keras optimizer as in `save`.
      num_images: Images of an epoch. This and `batch_size` are needed where an earlier version
        stopped within an epoch: it summed the losses in another way.
      batch_size: Size of the global batches to go on with.

    Returns:
      TrainingState.

    Raises:
      ValueError: If there is no checkpoint, it is damaged, or it is of another network.
    """
    checkpoint = _require_latest(run_dir)
    values = _load_state(checkpoint, model)
    state = TrainingState(**_in_images(values, num_images, batch_size))
    averages, slots = _split_variables(model, optimizer, as_arrays=False)
    _assign(checkpoint / "weights.npz", {_key(weight): weight for weight in model.weights})
    _assign(checkpoint / "averages.npz", averages)
    _assign(checkpoint / "optimizer.npz", slots)
    return state


def load(run_dir, weights="ema"):
    """A trained model from its directory.

    Args:
      run_dir: Path of the run.
      weights: "ema" for the Polyak averages, "raw" for the weights of the last step.

    Returns:
      AutoregressiveModel.

    Raises:
      ValueError: If `weights` is another word, the directory holds no run or no checkpoint, or the
        checkpoint is damaged or of another configuration.
    """
    if weights not in _WEIGHTS_FILES:
        raise ValueError(
            f"`weights` must be one of {', '.join(_WEIGHTS_FILES)}. Received: weights={weights!r}"
        )
    run = load_config(run_dir)
    checkpoint = _require_latest(run_dir)
    model = models.make(run.model)
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
    # Keras names a slot after the path of its weight.
    return [by_name[_average_name(weight)] for weight in model.trainable_variables]


def _average_name(weight):
    return weight.path.replace("/", "_") + "_average"


def _key(weight):
    """The name of a weight within its model: its path without the name of the model."""
    return weight.path.split("/", 1)[1]


def _split_variables(model, optimizer, as_arrays=True):
    """The variables of an optimizer: averages by the key of their weight, the others by name."""
    convert = np.asarray if as_arrays else lambda variable: variable
    average_variables = averages(model, optimizer)
    average_names = {variable.name for variable in average_variables}
    # Slots are named after the model too, and Keras numbers the models of a process.
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
    """Where training stood, a dict; refuses another network's checkpoint, naming what differs."""
    path = checkpoint / "state.json"
    try:
        values = json.loads(path.read_text())
        stored_config = config.model_config(values.pop("model"))
        TrainingState(**_in_images(values))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"A checkpoint must be whole. Received: {path} ({reason})") from None
    if type(stored_config) is not type(model.config):
        different = [f"kind: {stored_config.kind!r} != {model.config.kind!r}"]
    else:
        different = config.differences(stored_config, model.config)
    if different:
        raise ValueError(
            "A checkpoint must be of the model's configuration. "
            f"Received: {checkpoint} with {', '.join(different)} (checkpoint != model)"
        )
    return values


def _in_images(values, num_images=None, batch_size=None):
    """Values of a TrainingState, also those of a version that summed the losses of steps.

    That version kept `loss_sum` and not the size of its batches B. It follows from the counts: with
    N // B steps an epoch, step = epoch * (N // B) + num_images / B. Where no B fulfils that, the
    size of the batches changed on the way, and the size to go on with stands in.

    Args:
      values: As they are in a state.json, but for the model.
      num_images: Images of an epoch, N; None where the sum is of no interest.
      batch_size: The global batch to go on with.
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
    """Sets variables to the arrays of a file, all of them or none."""
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
    """Writes the state.json of a checkpoint, which is the old one or the new one at any time."""
    incomplete = checkpoint / ".incomplete_state.json"
    _write(incomplete, lambda file: file.write(text.encode()))
    incomplete.replace(checkpoint / "state.json")


def _write_arrays(path, arrays):
    _write(path, lambda file: np.savez(file, **arrays))


def _write(path, write):
    """Writes a file and sees to it that its bytes are on the disk."""
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path):
    """Sees to it that the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
