"""--max_minutes: a run that ends when its time is over, and goes on when it gets more."""

import itertools
import json
import types

import numpy as np
import pytest
from short_run import assert_same_checkpoint, changed, scalars

from pixel_cnn_pp import data
from pixel_cnn_pp.config import DataConfig, PixelCNNConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints, epoch, loop
from pixel_cnn_pp.runs.epoch import Epoch, StepResult

# An epoch of 5 steps, of a network that is traced in a second.
RUN = RunConfig(
    PixelCNNConfig(
        image_shape=(4, 4, 1), num_levels=2, nr_resnet=1, nr_filters=2, nr_output_filters=2
    ),
    DataConfig(data_set="digits"),
    TrainingConfig(
        batch_size=8, init_batch_size=8, max_epochs=3, nr_gpu=0, num_samples=0, polyak_decay=0.5
    ),
)
LEVELS = np.random.default_rng(0).integers(0, 2, (40, 4, 4, 1)).astype(np.uint8)
IMAGES = data.ImageData(LEVELS, None, 2, None)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that goes on by ten seconds when it is read: twice within a step."""
    seconds = itertools.count(0, 10)
    monkeypatch.setattr(
        epoch, "time", types.SimpleNamespace(perf_counter=lambda: float(next(seconds)))
    )


def train(run_dir, **changes):
    """The lines of a run behind the first two, which are of the device and the data."""
    lines = []
    loop.train(changed(RUN, save_dir=str(run_dir), **changes), IMAGES, IMAGES, log=lines.append)
    return [line for line in lines if "parameters" not in line]


def state(run_dir):
    found = json.loads((checkpoints.latest(run_dir) / "state.json").read_text())
    return [found[name] for name in ("step", "epoch", "num_images", "seconds")]


def test_a_run_whose_time_is_over_is_scored_saved_and_goes_on_with_more(tmp_path):
    first = train(tmp_path / "run", max_minutes=1)
    found = scalars(tmp_path / "run")
    assert list(found["test/bits_per_dim"]) == [3] and found["training_minutes"] == {3: 1.0}
    score = float(found["test/bits_per_dim"][3])
    assert first == [
        f"The time is over, after 1.0 minutes of training at step 3: test {score:.4f} bits/dim. "
        f"Saved to {tmp_path / 'run'}; with more --max_minutes it goes on."
    ]
    assert state(tmp_path / "run") == [3, 0, 24, 60.0]
    again = train(tmp_path / "run", max_minutes=1, load_params=True)
    assert again == [
        "Resumed from epoch 0 and 24 images, step 3.",
        "All 1 minutes are done; --max_minutes says how many to train.",
    ]
    # 120 seconds are 6 steps, one of the second epoch.
    _, end_of_epoch, last = train(tmp_path / "run", max_minutes=2, load_params=True)
    assert end_of_epoch.startswith("epoch 1/3  step 5 ")
    assert last.startswith("The time is over, after 2.0 minutes of training at step 6: test ")
    assert state(tmp_path / "run") == [6, 1, 8, 120.0]
    assert scalars(tmp_path / "run")["training_minutes"] == pytest.approx({3: 1, 5: 100 / 60, 6: 2})
    train(tmp_path / "other", max_minutes=2)
    assert_same_checkpoint(tmp_path / "run", tmp_path / "other")


def test_time_that_is_over_with_an_epoch_is_not_scored_twice(tmp_path):
    lines = train(tmp_path / "run", max_minutes=100 / 60)
    assert len(lines) == 2 and lines[0].startswith("epoch 1/3  step 5  train ")
    assert lines[1] == (
        "The time is over, after 1.7 minutes of training at step 5. "
        f"Saved to {tmp_path / 'run'}; with more --max_minutes it goes on."
    )
    assert state(tmp_path / "run") == [5, 1, 0, 100.0]


def test_without_a_limit_the_time_is_counted_and_ends_nothing(tmp_path):
    lines = train(tmp_path / "run", max_epochs=1)
    assert len(lines) == 2 and lines[1].startswith("Saved epoch 1")
    assert state(tmp_path / "run") == [5, 1, 0, 100.0]


@pytest.mark.parametrize(
    ("seconds", "is_stopped", "ends"),
    [
        ((60, 60), True, True),
        ((60, 59), True, True),  # the clock of the first worker decides
        ((59, 60), True, False),
        ((60, 60), False, False),  # the others do not know it before the next step
    ],
)
def test_several_workers_end_by_the_clock_of_the_first_and_all_at_once(seconds, is_stopped, ends):
    answers = {}

    def worker(index, agree):
        made = object.__new__(loop._Loop)
        made._run, made._is_chief = changed(RUN, max_minutes=1), index == 0
        made._trainer = types.SimpleNamespace(num_workers=2, agree=agree)
        made._state = checkpoints.TrainingState(step=3, epoch=0, seconds=seconds[index])
        done = Epoch(made._state, 40, 8, "bits/dim")
        done.is_stopped = is_stopped
        return made._ends_by_time(done)

    for index in range(2):  # what each of them says
        worker(index, lambda digest, index=index: answers.setdefault(index, digest) and False)
    is_alike = len(set(answers.values())) == 1
    assert [worker(index, lambda digest: is_alike) for index in range(2)] == [ends, ends]
    assert len(answers) == 2 * is_stopped


def test_a_step_takes_from_asking_for_its_batch_to_its_end():
    done = Epoch(checkpoints.TrainingState(step=7, epoch=1, seconds=5.0), 40, 8, "bits/dim")
    for _ in done.timed(range(5)):
        done.add(StepResult(1.0, 1.0, False))
    # Three readings in a step: before the batch, behind it, behind the step.
    assert done.seconds == 5.0 + 5 * 20.0 and done.seconds_per_step == 20.0
    assert done.data_wait_share == 0.5
