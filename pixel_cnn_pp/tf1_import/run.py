"""Makes a model, or the directory of a run, from a checkpoint of the original release."""

import dataclasses
import pathlib
import tempfile

from pixel_cnn_pp import models
from pixel_cnn_pp.config import RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints, locks, optimizers
from pixel_cnn_pp.tf1_import.checkpoint import ReleaseCheckpoint


def load_release(ckpt_prefix, weights="ema", config=None, ignore=()):
    """Makes a model from a checkpoint of the original release.

    Args:
      ckpt_prefix: Path of the checkpoint, such as "params_cifar.ckpt". It is the prefix of its
        files, one of its files, the single file of the older format, or a directory with one
        checkpoint.
      weights: "ema" for the Polyak averages, "raw" for the weights of the last step.
      config: ModelConfig of the network, or None for a network that the release trains: 32 x 32
        pixels, 3 channels, 256 levels, concat_elu and dropout 0.5. With None, the numbers of
        blocks, filters, components and classes follow from the shapes in the checkpoint.
      ignore: Names of variables in the checkpoint that do not belong to the network. They may be
        patterns such as "global/*".

    Returns:
      PixelCNNPP.

    Raises:
      ValueError: If `weights` is another word, if there are no averages, if there is no checkpoint,
        if it is damaged or of another network or configuration, or if `config` is needed.

    Example:
      model = pcnn.load_release("params_cifar.ckpt")
    """
    checkpoint = ReleaseCheckpoint(ckpt_prefix, ignore)
    checkpoint.check_holds(weights)
    given = {} if config is None else dataclasses.asdict(config)
    model = models.make(checkpoint.config(**given), fresh=False)
    checkpoint.load_weights(model, weights)
    return model


def import_run(checkpoint, run_dir, model_config, data_config, log=print):
    """Makes the directory of a run from a checkpoint of the release. The run can be resumed.

    The run has the raw weights, their averages, and the moments and the step of Adam, as far as the
    checkpoint holds them. The learning rate continues from the step. A checkpoint of the release
    does not hold the epoch, so it is 0.

    Args:
      checkpoint: ReleaseCheckpoint.
      run_dir: Path of the new run.
      model_config: ModelConfig, from `checkpoint.config`.
      data_config: DataConfig, the data set to score and to train on.
      log: Function of a string. It gets lines that say what was found and what was missing.

    Raises:
      ValueError: If the directory holds a run already, if a shape is wrong, if a value is not
        finite, or if the checkpoint is damaged.
      OSError: If the directory cannot be written.
    """
    run_dir = pathlib.Path(run_dir)
    if (run_dir / "config.json").exists() or checkpoints.latest(run_dir) is not None:
        raise ValueError(f"{run_dir} holds a run already: choose another directory.")
    # Check that the directory can be written before the model is built. Create nothing before the
    # checkpoint is read.
    parent = next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise NotADirectoryError(
            f"`run_dir` must be a directory. Received: {run_dir}, {parent} is a file"
        )
    with tempfile.TemporaryFile(dir=parent):
        pass
    settings = TrainingConfig(
        save_dir=str(run_dir),
        class_conditional=model_config.num_classes is not None,
        optimizer="adam",
    )
    model = models.make(model_config, fresh=False)
    checkpoint.load_weights(model, "raw")
    optimizer = optimizers.make_optimizer(settings)
    optimizer.build(model.trainable_variables)
    checkpoint.load_optimizer(model, optimizer)
    log(f"{checkpoint.path}: {model.count_params():,} parameters, {_describe(model_config)}")
    if not checkpoint.has_averages:
        log("Averages: none in the checkpoint, the raw weights stand in for them.")
    step = int(optimizer.iterations)
    if checkpoint.why_no_moments is None:
        rate = float(optimizer.learning_rate)
        log(f"Optimizer: Adam with its moments, {step} steps done, next learning rate {rate:.3g}.")
    else:
        log(f"Optimizer: Adam starts anew, {checkpoint.why_no_moments}.")
    state = checkpoints.TrainingState(step=step, epoch=0)
    with locks.locked(run_dir):
        checkpoints.save(run_dir, model, optimizer, state)
        checkpoints.save_config(run_dir, RunConfig(model_config, data_config, settings))
    log(f"Wrote {run_dir}, a run on {data_config.data_set} at epoch 0.")


def _describe(config):
    """Describes a model's configuration in one line."""
    height, width, channels = config.image_shape
    classes = "no" if config.num_classes is None else config.num_classes
    return (
        f"{config.nr_resnet} blocks a stage, {config.nr_filters} filters, "
        f"{config.nr_logistic_mix} components, {config.resnet_nonlinearity}, {classes} classes; "
        f"taken to be for {height}x{width}x{channels} images of {config.num_levels} levels, "
        f"trained with dropout {config.dropout_p}"
    )
