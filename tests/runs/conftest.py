"""The digits, and the run that the tests of a run share."""

import types

import pytest
import short_run

from pixel_cnn_pp import data
from pixel_cnn_pp.runs import loop


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
