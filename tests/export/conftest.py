"""A run that is exported with and without XLA: by the script, and by its function."""

import dataclasses

import pytest
import saved_runs
import specimens
import tensorflow as tf
from processes import run_in_new_process
from served import DEEP_COLOR, DIGITS, initialized

from pixel_cnn_pp import export, sampling
from pixel_cnn_pp.runs import checkpoints


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A run of digits, as training leaves it behind."""
    path = tmp_path_factory.mktemp("run") / "digits"
    saved_runs.save(path, dataclasses.replace(saved_runs.DIGITS, model=DIGITS))
    return path


@pytest.fixture(scope="session")
def exported(run_dir, tmp_path_factory):
    """What the script made of the run: where, and what it printed."""
    path = tmp_path_factory.mktemp("served") / "digits" / "1"
    done = run_in_new_process("export.py", run_dir, path, "--nojit_compile")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return path, done.stdout


@pytest.fixture(scope="session")
def digits(run_dir):
    return checkpoints.load(run_dir, "ema")


@pytest.fixture(scope="session")
def served_digits(exported):
    return tf.saved_model.load(str(exported[0]))


@pytest.fixture(scope="session")
def deep_color():
    return initialized(DEEP_COLOR)


@pytest.fixture(scope="session")
def deep_color_path(deep_color, tmp_path_factory):
    path = tmp_path_factory.mktemp("deep_color") / "1"
    export.export_saved_model(deep_color, path)
    return path


@pytest.fixture(scope="session")
def served_deep_color(deep_color_path):
    return tf.saved_model.load(str(deep_color_path))


@pytest.fixture(scope="session")
def seventy(digits):
    """Drawn in process: more than a block of the noise holds."""
    return sampling.sample(digits, 70, specimens.labels(DIGITS, 70), seed=5)
