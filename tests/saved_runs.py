"""Runs on disk, as training leaves them behind."""

import dataclasses

import specimens

from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints, optimizers

DIGITS = RunConfig(
    ModelConfig(
        image_shape=(8, 8, 1),
        num_levels=17,
        nr_resnet=2,
        nr_filters=4,
        nr_logistic_mix=2,
        num_classes=10,
        receptive_field="11x5",  # of a third of the layers
    ),
    DataConfig(data_set="digits"),
    TrainingConfig(class_conditional=True, nr_gpu=0, num_samples=0),
)


def save(run_dir, run):
    """A directory as a run leaves it behind 7 steps, its averages at values of their own."""
    model = specimens.fresh(run.model)
    optimizer = optimizers.make_optimizer(run.training)
    optimizer.build(model.trainable_variables)
    model.initialize(specimens.images(run.model, 20), specimens.labels(run.model, 20))
    for average, weight in zip(
        checkpoints.averages(model, optimizer), model.trainable_variables, strict=True
    ):
        average.assign(0.9 * weight)
    optimizer.iterations.assign(7)
    checkpoints.save_config(run_dir, run)
    checkpoints.save(run_dir, model, optimizer, checkpoints.TrainingState(step=7, epoch=1))


def variant(run=DIGITS, class_conditional=True, **fields):
    """A run whose model has other fields."""
    if not class_conditional:
        fields["num_classes"] = None
    return dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, **fields),
        training=dataclasses.replace(run.training, class_conditional=class_conditional),
    )


def files_of(directory):
    """Path -> bytes of every file below a directory."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory): path.read_bytes() for path in paths}
