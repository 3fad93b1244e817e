"""What the scripts are given: runs and a checkpoint of the release, and sets of noise."""

import dataclasses
import shutil

import numpy as np
import pytest
import release
import saved_runs
import tensorflow as tf

from pixel_cnn_pp import data
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory):
    """A class-conditional run; never changed."""
    path = tmp_path_factory.mktemp("saved") / "run"
    saved_runs.save(path, saved_runs.DIGITS)
    return path


@pytest.fixture(scope="session")
def unconditional_run(tmp_path_factory):
    """A run without classes; never changed."""
    path = tmp_path_factory.mktemp("unconditional") / "run"
    saved_runs.save(path, saved_runs.variant(class_conditional=False))
    return path


@pytest.fixture(scope="session")
def energy_run(tmp_path_factory):
    """A run that was trained by the energy distance; never changed."""
    path = tmp_path_factory.mktemp("energy") / "run"
    saved_runs.save(path, saved_runs.variant(energy_distance=True))
    return path


@pytest.fixture
def run_dir(saved_run, tmp_path):
    """A copy of the class-conditional run that a test may change."""
    return shutil.copytree(saved_run, tmp_path / "run")


@pytest.fixture(scope="session")
def release_checkpoint(tmp_path_factory):
    """A checkpoint of the release, of a network for digits; the prefix of its files."""
    config = dataclasses.replace(
        saved_runs.DIGITS.model,
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
        "odd": {"image_size": 6},
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

    monkeypatch.setattr(data, "load", load_or_make)
    return load_or_make


@pytest.fixture
def eagerly():
    """Saves the time to compile what runs but twice."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
