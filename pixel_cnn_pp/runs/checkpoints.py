"""The files of a run: its configuration and its checkpoints.

    RUN_DIR/config.json
    RUN_DIR/stages/NAME/               of a chain: the run of a stage; it has no checkpoints itself
    RUN_DIR/checkpoints/step_000001234/state.json      progress of the training, and the model
                                       weights.npz     the weights
                                       averages.npz    their Polyak averages, under the same names
                                       optimizer.npz   the optimizer's slots and step

A checkpoint is written under a temporary name. It is renamed when it is complete and on the disk.
An old one is renamed before it is removed. Therefore an incomplete checkpoint is never read. In the
files, the key of an array is the name of its variable.
"""

import contextlib
import dataclasses
import json
import pathlib
import secrets
import shutil

import numpy as np

from pixel_cnn_pp import config, files, models
from pixel_cnn_pp.runs import locks, model_files, stored
from pixel_cnn_pp.runs.stored import TrainingState, latest

__all__ = [
    "TrainingState",
    "averages",
    "data_of_stage",
    "latest",
    "load",
    "load_config",
    "load_stages",
    "restore",
    "save",
    "save_config",
    "stage_directory",
]


def save_config(run_dir, run):
    """Writes the configuration of a run. Creates its directory if necessary.

    Args:
      run_dir: Path of the run.
      run: RunConfig.

    Raises:
      OSError: If the directory cannot be made or written, or if another process writes to it.
    """
    run_dir = pathlib.Path(run_dir)
    with locks.locked(run_dir):
        files.replace(
            run_dir / "config.json", lambda file: file.write(config.to_json(run).encode())
        )


def load_config(run_dir):
    """Reads the configuration of a run.

    Args:
      run_dir: Path of the run.

    Returns:
      RunConfig.

    Raises:
      ValueError: If there is no configuration, or it is not valid.
    """
    run_dir = files.checked_path("run_dir", run_dir)
    if model_files.is_model_file(run_dir):
        return model_files.run_of(model_files.load(run_dir))
    path = run_dir / "config.json"
    try:
        text = path.read_text()
    except OSError as error:
        raise ValueError(
            f"A run directory must hold a config.json. Received: {run_dir} ({error.strerror})"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"A configuration must be JSON. Received: {path}, no text") from None
    try:
        return config.from_json(text)
    except ValueError as error:
        raise ValueError(f"{error} (in {path})") from None


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
      FloatingPointError: If a weight or an average is not finite. Then nothing is written.
      OSError: If the checkpoint cannot be written, if another process writes to the run, or if its
        directory was removed while it was locked. Then the earlier checkpoints remain.
    """
    weights = {key: np.asarray(weight) for key, weight in model.keyed_weights().items()}
    averages, slots = _split_variables(model, optimizer)
    for name, arrays in (("weights", weights), ("averages", averages)):
        for key, value in arrays.items():
            if not np.isfinite(value).all():
                raise FloatingPointError(f"The {name} are not finite at step {state.step}: {key}")
    text = json.dumps({**dataclasses.asdict(state), "model": dataclasses.asdict(model.config)})
    run_dir = pathlib.Path(run_dir)
    with locks.locked(run_dir) as lock:
        return _save(run_dir, lock.is_real, state.step, weights, averages, slots, text, keep)


def _save(run_dir, is_locked, step, weights, averages, slots, text, keep):
    """Writes a checkpoint from its parts, and returns its path."""
    folder = run_dir / "checkpoints"
    folder.mkdir(exist_ok=True)
    if is_locked:  # Otherwise another process may write to these now.
        for leftover in (*folder.glob(".incomplete_*"), *folder.glob(".removed_*")):
            shutil.rmtree(leftover, ignore_errors=True)
    # No run has more steps than twelve digits can count. So the names sort like the numbers.
    complete = folder / f"step_{step:012d}"

    def write_state(file):
        file.write(text.encode())

    if complete.exists():  # no step was done since, but an epoch may have ended
        files.replace(complete / "state.json", write_state)
        return complete
    # Without a lock, another process may write the same step. So the name is a new one.
    incomplete = folder / f".incomplete_{complete.name}_{secrets.token_hex(4)}"
    incomplete.mkdir()
    try:
        for name, arrays in (
            ("weights.npz", weights),
            ("averages.npz", averages),
            ("optimizer.npz", slots),
        ):
            files.write(incomplete / name, lambda file, arrays=arrays: np.savez(file, **arrays))
        files.write(incomplete / "state.json", write_state)
        files.sync_folder(incomplete)
        incomplete.rename(complete)
    except OSError:
        shutil.rmtree(incomplete, ignore_errors=True)  # frees the space if the disk is full
        raise
    files.sync_folder(folder)
    for old in sorted(stored.all_in(folder), key=stored.step_of)[:-keep]:
        removed = folder / f".removed_{old.name}_{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):  # the new checkpoint is there
            old.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
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

    def read(checkpoint):
        values = stored.load_state(checkpoint, model.config)
        state = TrainingState(**stored.in_images(values, num_images, batch_size))
        if state.num_images and not state.image_loss_sum and num_images is None:
            raise ValueError(
                "`num_images` must be given for a checkpoint that an earlier version wrote within "
                f"an epoch. Received: num_images=None, {checkpoint}"
            )
        averages, slots = _split_variables(model, optimizer, as_arrays=False)
        _assign(checkpoint / "weights.npz", model.keyed_weights())
        _assign(checkpoint / "averages.npz", averages)
        _assign(checkpoint / "optimizer.npz", slots)
        return state

    return stored.read_latest(run_dir, read)


def load(run_dir, weights="ema"):
    """Loads a trained model from the directory of its run, or from a file of Keras.

    Args:
      run_dir: Path of the run, or of a .keras file, which `model.save` has written.
      weights: "ema" for the Polyak averages, "raw" for the weights of the last step. A .keras file
        has one set of weights, and this is not used.

    Returns:
      AutoregressiveModel.

    Raises:
      ValueError: If `weights` is another word, if the directory holds no run or no checkpoint, or
        if the checkpoint is damaged or of another configuration.
    """
    if not isinstance(weights, str) or weights not in stored.WEIGHTS_FILES:
        raise ValueError(
            f"`weights` must be one of {', '.join(stored.WEIGHTS_FILES)}. "
            f"Received: weights={weights!r}"
        )
    run_dir = files.checked_path("run_dir", run_dir)
    if model_files.is_model_file(run_dir):
        return model_files.load(run_dir)
    run = load_config(run_dir)
    if isinstance(run.model, config.ChainConfig):
        names = load_stages(run_dir, run)
        for name in names:
            if latest(stage_directory(run_dir, name)) is None:
                raise ValueError(
                    f"All stages of a chain must be trained. Received: no checkpoint of stage "
                    f"{name}; python train.py --save_dir {run_dir} --load_params trains it."
                )
        of_stages = [load(stage_directory(run_dir, name), weights) for name in names]
        return models.Chain(of_stages, run.model.views)

    def read(checkpoint):
        # The sizes in a damaged configuration may be of no model that fits into the memory.
        stored.load_state(checkpoint, run.model)
        model = models.make(run.model, fresh=False)
        _assign(
            checkpoint / stored.WEIGHTS_FILES[weights],
            model.keyed_weights(),
        )
        return model

    return stored.read_latest(run_dir, read)


def stage_directory(run_dir, name):
    """The directory of the run of a stage of a chain."""
    return pathlib.Path(run_dir) / "stages" / name


def load_stages(run_dir, run=None):
    """Reads the configurations of the runs of all stages of a chain.

    Args:
      run_dir: Path of the run of the chain.
      run: RunConfig of the chain. None to read it.

    Returns:
      {name: RunConfig}, in the order of the stages.

    Raises:
      ValueError: If a stage is not there, cannot be read, or is of another chain.
    """
    run = load_config(run_dir) if run is None else run
    found = {}
    for number, name in enumerate(run.model.stage_names):
        own = found[name] = load_config(stage_directory(run_dir, name))
        differ = config.differences(own.model, run.model.stages[number])
        # Where the data lie may differ from machine to machine.
        expected = data_of_stage(run.data, run.model, number)
        expected = dataclasses.replace(expected, data_dir=own.data.data_dir)
        differ += config.differences(own.data, expected)
        if differ:
            raise ValueError(
                f"Stage {name} must be that of the chain in {run_dir}. Received: another one, with "
                f"{', '.join(differ)} (stage != chain)"
            )
    return found


def data_of_stage(data_config, chain, number):
    """The DataConfig of a stage: that of the chain, with the views of the stage."""
    return dataclasses.replace(
        data_config,
        view=chain.views[number],
        condition_view=None if number == 0 else chain.views[number - 1],
    )


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


def _split_variables(model, optimizer, as_arrays=True):
    """The variables of an optimizer, as two dicts.

    The first has the averages, and its keys are the keys of their weights. The second has all other
    variables, and its keys are their names.
    """
    convert = np.asarray if as_arrays else lambda variable: variable
    average_variables = averages(model, optimizer)
    average_names = {variable.name for variable in average_variables}
    keys = {weight.path: key for key, weight in model.keyed_weights().items()}
    # The names of slots contain the name of the model. Keras adds a number to that name, which is
    # another one in another process.
    prefix = f"{model.name}_"
    return (
        {
            keys[weight.path]: convert(average)
            for weight, average in zip(model.trainable_variables, average_variables, strict=True)
        },
        {
            variable.name.removeprefix(prefix): convert(variable)
            for variable in optimizer.variables
            if variable.name not in average_names
        },
    )


def _assign(path, variables):
    """Sets variables to the arrays of a file. If one of them does not fit, none is changed."""
    arrays = stored.read_arrays(path)
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
