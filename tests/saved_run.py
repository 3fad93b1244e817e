"""A model with its optimizer as a checkpoint holds them, every variable at a value of its own."""

import shutil

import keras
import numpy as np
import pytest

from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP
from pixel_cnn_pp.runs import checkpoints

TINY = ModelConfig(
    image_shape=(4, 8, 1),
    num_levels=5,
    nr_resnet=1,
    nr_filters=4,
    nr_logistic_mix=2,
    num_classes=3,
)
RUN = RunConfig(TINY, DataConfig(data_set="digits"), TrainingConfig(class_conditional=True))
STATE = checkpoints.TrainingState(step=30, epoch=5)


def trained(seed, config=TINY):
    """A model and its optimizer, every variable of both at values of its own."""
    model = PixelCNNPP(config)
    optimizer = keras.optimizers.Adamax(use_ema=True)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(seed)
    for variable in [*model.weights, *optimizer.variables]:
        # The number of steps is the only integer.
        is_float = variable.dtype.startswith("float")
        variable.assign(rng.normal(size=variable.shape) if is_float else rng.integers(1, 1000))
    return model, optimizer


def value_of(variable):
    return np.asarray(variable).copy()


def values(variables):
    return [value_of(variable) for variable in variables]


def assert_all_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def files_of(run_dir):
    """Path -> bytes of every file below a directory."""
    paths = [path for path in run_dir.rglob("*") if path.is_file()]
    return {path.relative_to(run_dir): path.read_bytes() for path in paths}


def assert_one_line(caught):
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="session")
def pair():
    """A model and its optimizer; never changed."""
    return trained(seed=1)


@pytest.fixture(scope="session")
def other_pair():
    """Another model and its optimizer, of the same configuration; tests may restore into it."""
    return trained(seed=2)


@pytest.fixture(scope="session")
def saved_run(pair, tmp_path_factory):
    """The directory of a run with one checkpoint of `pair`; never changed."""
    path = tmp_path_factory.mktemp("run")
    checkpoints.save_config(path, RUN)
    checkpoints.save(path, *pair, STATE)
    return path


@pytest.fixture
def run_dir(saved_run, tmp_path):
    """A copy of the saved run that a test may change."""
    return shutil.copytree(saved_run, tmp_path / "run")
