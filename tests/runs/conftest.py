"""What the tests of runs share: the digits, a run that was trained, a run that was only saved."""

import shutil
import types

import pytest
import saved_run as made
import short_run

from pixel_cnn_pp import data
from pixel_cnn_pp.runs import checkpoints, loop


@pytest.fixture(scope="session")
def digits():
    return data.load("digits", "train"), data.load("digits", "test")


@pytest.fixture(scope="session")
def finished(digits, tmp_path_factory):
    """An uninterrupted run, in this process: its directory, lines and trainer."""
    run_dir = str(tmp_path_factory.mktemp("finished") / "run")
    run = short_run.changed(short_run.RUN, save_dir=run_dir, profile="2-3")
    lines, trainers = [], []
    with pytest.MonkeyPatch.context() as patched:

        def kept(*arguments, trainer=loop.Trainer):
            trainers.append(trainer(*arguments))
            return trainers[-1]

        patched.setattr(loop, "Trainer", kept)
        patched.setattr(loop, "_STEPS_BETWEEN_POINTS", 10)
        loop.train(run, *digits, log=lines.append)
    (trainer,) = trainers
    return types.SimpleNamespace(run=run, run_dir=run_dir, lines=lines, trainer=trainer)


@pytest.fixture(scope="session")
def pair():
    """A model and its optimizer; never changed."""
    return made.trained(seed=1)


@pytest.fixture(scope="session")
def other_pair():
    """Another model and its optimizer, of the same configuration; tests may restore into it."""
    return made.trained(seed=2)


@pytest.fixture(scope="session")
def saved_run(pair, tmp_path_factory):
    """The directory of a run with one checkpoint of `pair`; never changed."""
    path = tmp_path_factory.mktemp("run")
    checkpoints.save_config(path, made.RUN)
    checkpoints.save(path, *pair, made.STATE)
    return path


@pytest.fixture
def run_dir(saved_run, tmp_path):
    """A copy of the saved run that a test may change."""
    return shutil.copytree(saved_run, tmp_path / "run")
