"""What the scripts are given: runs on disk, a checkpoint of the release, sets of noise."""

import dataclasses
import shutil
import sys

import numpy as np
import pytest
import release
import specimens
import tensorflow as tf

from pixel_cnn_pp import data
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP
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


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A class-conditional run; never changed."""
    path = tmp_path_factory.mktemp("saved") / "run"
    save(path, DIGITS)
    return path


@pytest.fixture(scope="session")
def unconditional_run(tmp_path_factory):
    """A run without classes; never changed."""
    path = tmp_path_factory.mktemp("unconditional") / "run"
    save(path, variant(class_conditional=False))
    return path


@pytest.fixture(scope="session")
def energy_run(tmp_path_factory):
    """A run that was trained by the energy distance; never changed."""
    path = tmp_path_factory.mktemp("energy") / "run"
    save(path, variant(energy_distance=True))
    return path


@pytest.fixture
def copied_run(trained_run, tmp_path):
    """A copy of the class-conditional run that a test may change."""
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.fixture(scope="session")
def release_checkpoint(tmp_path_factory):
    """A checkpoint of the release, of a network for digits; the prefix of its files."""
    config = dataclasses.replace(
        DIGITS.model,
        nr_resnet=1,
        receptive_field="full",
        resnet_nonlinearity="elu",
    )
    model = PixelCNNPP(config)
    variables = release.network_variables(model) | release.unnamed_variables(model, num_labels=1)
    path = tmp_path_factory.mktemp("release") / "params_digits.ckpt"
    release.save(variables, V2=path)
    return path


@pytest.fixture
def noise(monkeypatch):
    """Sets of noise beside the others, one of any size and without labels, others that do not fit
    a model: a function as `data.load`."""
    options = {
        "noise": {},
        "npz:noise": {},
        "colours": {"channels": 3},
        "levels": {"num_levels": 16},
        "classes": {"num_classes": 12},
    }
    load = data.load

    def load_noise(split, image_size=None, channels=1, num_levels=17, num_classes=None):
        num_images, seed = (5, 0) if split == "test" else (3, 1)
        shape = (num_images, image_size or 8, 8, channels)
        images = np.random.default_rng(seed).integers(0, num_levels, shape).astype(np.uint8)
        labels = None
        if num_classes is not None:
            labels = np.arange(num_images) * (num_classes - 1) // (num_images - 1)
        return data.ImageData(images, labels, num_levels, num_classes)

    def load_or_make(name, split, **settings):
        if name not in options:
            return load(name, split, **settings)
        # Bytes have 256 levels, unless the caller knows better.
        num_levels = settings.get("num_levels") or (256 if ":" in name else 17)
        asked = {"image_size": settings.get("image_size"), "num_levels": num_levels}
        return load_noise(split, **{**asked, **options[name]})

    # By its path: `data.names` is a function.
    monkeypatch.setattr(sys.modules["pixel_cnn_pp.data.names"], "load", load_or_make)
    return load_or_make


@pytest.fixture
def eagerly():
    """Saves the time to compile what runs but twice."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
