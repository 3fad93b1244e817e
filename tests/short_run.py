"""A run of a tiny network that is over in seconds, for what has to hold of every run."""

import dataclasses
import os
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from pixel_cnn_pp import data
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints, loop

# A run of 24 steps an epoch, which writes two checkpoints. Of the networks the one with the fewest
# layers: what takes the time is to trace them.
RUN = RunConfig(
    ModelConfig(
        image_shape=(8, 8, 1),
        num_levels=17,
        nr_resnet=2,
        receptive_field="11x5",
        nr_filters=4,
        nr_logistic_mix=2,
        dropout_p=0.25,
        num_classes=10,
    ),
    DataConfig(data_set="digits"),
    TrainingConfig(
        save_interval=2,
        class_conditional=True,
        learning_rate=0.01,
        lr_decay=0.999,
        batch_size=64,
        init_batch_size=32,
        max_epochs=4,
        nr_gpu=0,
        polyak_decay=0.9,
        num_samples=1,
        seed=3,
    ),
)
# What train.py is told to start the same run, without samples and to one epoch less.
FLAGS = (
    "-d digits -t 2 -q 2 --receptive_field 11x5 -n 4 -m 2 -c -l 0.01 -e 0.999 -b 64 -u 32 -p 0.25 "
    "-x 3 -g 0 --polyak_decay 0.9 -ns 0 -s 3"
)


def changed(run, **values):
    """The run with fields of its training replaced."""
    return dataclasses.replace(run, training=dataclasses.replace(run.training, **values))


def value_of(variable):
    return np.asarray(variable).copy()


def scalars(run_dir):
    """Tag -> {step: value} of the events of a run; of images, the encoded picture."""
    # 0: keep all of them.
    events = event_accumulator.EventAccumulator(f"{run_dir}/tensorboard", {"tensors": 0})
    events.Reload()
    return {
        tag: {event.step: tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def assert_same_checkpoint(run_dir, other_dir):
    """Weights, averages, slots and step, bit for bit."""
    for name in ("weights.npz", "averages.npz", "optimizer.npz"):
        with (
            np.load(checkpoints.latest(run_dir) / name) as found,
            np.load(checkpoints.latest(other_dir) / name) as expected,
        ):
            assert found.files == expected.files
            for key in expected.files:
                np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def steps_on_disk(run_dir):
    """The steps of the checkpoints of a run; nothing else may lie beside them."""
    return [int(name.removeprefix("step_")) for name in sorted(os.listdir(run_dir / "checkpoints"))]


@pytest.fixture(scope="session")
def digits():
    return data.load("digits", "train"), data.load("digits", "test")


@pytest.fixture(scope="session")
def finished(digits, tmp_path_factory):
    """An uninterrupted run, in this process: its directory, lines and trainer."""
    run_dir = str(tmp_path_factory.mktemp("finished") / "run")
    run = changed(RUN, save_dir=run_dir, profile="2-3")
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
