"""The run of a chain: each of its stages is a run of its own.

    RUN_DIR/config.json          the configuration of the chain
    RUN_DIR/stages/NAME/         the run of a stage, see `checkpoints`

A stage trains alone, so several machines can share the stages of a directory.
"""

import dataclasses

from pixel_cnn_pp import config, data
from pixel_cnn_pp.runs import checkpoints, loop, stored


def runs_of(preset, of_stages, data_config, image_data, class_conditional):
    """The configurations of a new chain and of the runs of its stages.

    Args:
      preset: `config.ChainPreset`.
      of_stages: List of (class of the model, {field: value} of its options, TrainingConfig), one
        for each stage. `save_dir` of the training is the directory of the chain.
      data_config: DataConfig of the whole images.
      image_data: ImageData of the whole images.
      class_conditional: Whether the first stage is conditioned on the classes of the images.

    Returns:
      RunConfig of the chain, and {name: RunConfig} of its stages.

    Raises:
      ValueError: If the images have no such views, or a value breaks its rule.
    """
    chain = preset.model_config(
        [(model_class, values) for model_class, values, _ in of_stages],
        image_data.images.shape[1:],
        image_data.num_levels,
        image_data.num_classes if class_conditional else None,
    )
    run_dir = of_stages[0][2].save_dir
    found = {}
    for number, name in enumerate(chain.stage_names):
        training = dataclasses.replace(
            of_stages[number][2],
            save_dir=str(checkpoints.stage_directory(run_dir, name)),
            load_params=False,
        )
        found[name] = config.RunConfig(
            chain.stages[number], checkpoints.data_of_stage(data_config, chain, number), training
        )
    training = dataclasses.replace(of_stages[0][2], load_params=False)
    return config.RunConfig(chain, data_config, training), found


def create(run_dir, run, of_stages):
    """Writes the configurations of a new chain and of its stages.

    Args:
      run_dir: Directory to write.
      run: RunConfig of the chain.
      of_stages: {name: RunConfig}.

    Raises:
      ValueError: If the directory holds the checkpoints of another run.
      OSError: If it cannot be written.
    """
    if checkpoints.latest(run_dir) is not None:
        raise ValueError(
            f"{run_dir} holds a run that is no chain: choose another --save_dir. "
            f"Received: save_dir={run_dir}"
        )
    for name, own in of_stages.items():
        checkpoints.save_config(checkpoints.stage_directory(run_dir, name), own)
    # The last file: with it, the directory is a run.
    checkpoints.save_config(run_dir, run)


def resumed(run_dir, name, run, given):
    """The configuration of a stage that is trained with these flags.

    Args:
      run_dir: Path of the run of the chain.
      name: Name of the stage.
      run: The stored RunConfig of the stage.
      given: {field: value} that the user gives, for all stages.

    Returns:
      RunConfig, whose `save_dir` is the directory of the stage.

    Raises:
      ValueError: As in `config.resume`.
    """
    if run.model.embedding_resnet == 0:  # the first stage has no picture to embed
        given = {key: x for key, x in given.items() if not key.startswith("embedding_")}
    place = str(checkpoints.stage_directory(run_dir, name))
    return config.resume(run, {**given, "save_dir": place})


def is_done(run):
    """Whether the training of a stage has reached its last epoch or minute."""
    if checkpoints.latest(run.training.save_dir) is None:
        return False
    values = stored.read_latest(
        run.training.save_dir, lambda path: stored.load_state(path, run.model)
    )
    training = run.training
    is_over = training.max_minutes is not None and (
        values.get("seconds", 0) >= 60 * training.max_minutes
    )
    return is_over or values["epoch"] >= training.max_epochs


def train(of_stages, train_data, test_data, strategy=None, log=print):
    """Trains stages one after the other, as far as they are not done.

    Args:
      of_stages: {name: RunConfig} of the stages to train, in their order.
      train_data: ImageData of whole images to train on.
      test_data: ImageData of whole images to score after every epoch.
      strategy: As in `loop.train`.
      log: Function of a string, called with one line at a time.

    Raises:
      OSError: If another process trains the only stage that is left. Otherwise the others are
        trained first.
      ValueError, FloatingPointError: As in `loop.train`.
    """
    busy = None
    for name, run in of_stages.items():
        if is_done(run):
            log(f"Stage {name} is trained, in {run.training.save_dir}.")
            continue
        log(f"Stage {name}:")
        has_begun = checkpoints.latest(run.training.save_dir) is not None
        run = dataclasses.replace(
            run, training=dataclasses.replace(run.training, load_params=has_begun)
        )
        views = run.data.view, run.data.condition_view
        try:
            loop.train(
                run,
                data.ViewedData(train_data, *views),
                data.ViewedData(test_data, *views),
                strategy,
                log,
            )
        except BlockingIOError as error:  # Another machine trains this stage.
            busy = error
            log(f"Stage {name} is left out: {error}")
            continue
        if not is_done(run):  # It was stopped by a signal.
            return
    if busy is not None:
        raise busy
