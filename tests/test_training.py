import dataclasses
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import specimens
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from pixel_cnn_pp import (
    checkpoints,
    data,
    devices,
    evaluation,
    optimizers,
    plots,
    tf1_import,
    training,
)
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig

ROOT = specimens.GOLDEN.parent.parent

# A run of 24 steps an epoch, which writes two checkpoints.
RUN = RunConfig(
    ModelConfig(
        image_shape=(8, 8, 1),
        num_levels=17,
        nr_resnet=1,
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
    "-d digits -t 2 -q 1 -n 4 -m 2 -c -l 0.01 -e 0.999 -b 64 -u 32 -p 0.25 -x 3 -g 0 "
    "--polyak_decay 0.9 -ns 0 -s 3"
)


def changed(run, **values):
    """The run with fields of its training replaced."""
    return dataclasses.replace(run, training=dataclasses.replace(run.training, **values))


def value_of(variable):
    return np.asarray(variable).copy()


def cpu_strategy():
    return devices.make_strategy(0)


# Five steps as recorded


@pytest.fixture(scope="module", params=sorted(specimens.RECORDED))
def five_steps(request):
    """The five recorded steps of a case, done by a Trainer from the recorded start."""
    case = request.param
    start = specimens.golden(f"{case}_start.npz")
    settings = TrainingConfig(optimizer="adam", batch_size=8)
    run = RunConfig(specimens.RECORDED[case], RUN.data, settings)
    trainer = training.Trainer(run, cpu_strategy())
    variables = tf1_import.release_variables(trainer.model)
    for name, variable in variables.items():
        variable.assign(start.get(f"init1/{name}", start[f"init0/{name}"]))
    averages_by_path = {
        weight.path: average
        for weight, average in zip(
            trainer.model.trainable_variables,
            checkpoints.averages(trainer.model, trainer.optimizer),
            strict=True,
        )
    }
    losses, weights, averages = [], [], []
    for number in range(5):
        labels = start["y_train"][number] if "y_train" in start else None
        losses.append(trainer.train_step(start["x_train_u8"][number], labels).bits_per_dim)
        weights.append({name: value_of(weight) for name, weight in variables.items()})
        averages.append(
            {name: value_of(averages_by_path[weight.path]) for name, weight in variables.items()}
        )
    return types.SimpleNamespace(
        recorded={**start, **specimens.golden(f"{case}_after.npz")},
        noise=specimens.golden(f"{case}.json")["max_abs_vs_float64"],
        trainer=trainer,
        losses=losses,
        weights=weights,
        averages=averages,
    )


def test_five_adam_steps_reproduce_the_recorded_losses(five_steps):
    np.testing.assert_allclose(five_steps.losses, five_steps.recorded["train_bpd"], rtol=1e-4)


def test_five_adam_steps_reproduce_the_recorded_parameters(five_steps):
    error = np.concatenate(
        [
            np.abs(weight - five_steps.recorded[f"after/{name}"]).ravel()
            for name, weight in five_steps.weights[-1].items()
        ]
    )
    # Adam makes a whole step of a gradient near zero, so single parameters differ between equally
    # right runs: we compare quantiles, with three times the recorded noise of float32.
    for quantile, noise in five_steps.noise["after_quantiles"].items():
        assert np.quantile(error, float(quantile)) < 3 * noise, quantile


def test_the_averages_follow_the_recurrence_of_keras_exactly(five_steps):
    momentum = np.float32(0.9995)
    expected = five_steps.weights[0]  # the first step sets them
    for weights, averages in zip(five_steps.weights, five_steps.averages, strict=True):
        if averages is not five_steps.averages[0]:
            expected = {
                name: momentum * expected[name] + (np.float32(1) - momentum) * weight
                for name, weight in weights.items()
            }
        for name, average in averages.items():
            np.testing.assert_array_equal(average, expected[name])


@pytest.mark.parametrize("five_steps", ["init_train_cond"], indirect=True)
def test_five_adam_steps_end_in_the_moments_of_the_recorded_checkpoint(five_steps):
    checkpoint = tf1_import.ReleaseCheckpoint(specimens.GOLDEN / "init_train_cond.ckpt")
    model = specimens.fresh(specimens.RECORDED["init_train_cond"])
    optimizer = optimizers.make_optimizer(TrainingConfig(optimizer="adam"))
    optimizer.build(model.trainable_variables)
    checkpoint.load_optimizer(model, optimizer)
    assert int(optimizer.iterations) == five_steps.trainer.step == 5
    errors = []
    for slot, ours in zip(optimizer.variables, five_steps.trainer.optimizer.variables, strict=True):
        if slot.name.endswith(("_momentum", "_velocity")):
            recorded = value_of(slot)
            errors.append(np.abs(value_of(ours) - recorded).max() / np.abs(recorded).max())
    assert len(errors) == 2 * len(model.trainable_variables)
    # The release approximates the likelihood of 3 % of the bins, so that its gradients, and with
    # them the moments, are up to 1.4 % of the largest away from ours. Those of another variable, or
    # the other moment of the same one, are off by all of it.
    assert max(errors) < 0.05


def test_the_trainer_knows_its_step_and_its_next_learning_rate(five_steps):
    assert five_steps.trainer.step == 5
    expected = 0.001 * 0.999995**6
    assert five_steps.trainer.learning_rate == pytest.approx(expected, rel=2e-7)  # float32


# Devices

REPLICAS = """
import functools, sys
import keras, numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
# In float64, rounding cannot hide behind Adamax, which makes a whole step of it.
keras.config.set_floatx("float64")
from pixel_cnn_pp import config, data, devices, training

@functools.cache  # TensorFlow confuses the replicas of two strategies
def strategy(num_devices):
    return devices.make_strategy(num_devices, log=lambda line: None)

rng = np.random.default_rng(0)
images = rng.integers(0, 4, (40, 8, 4, 1)).astype(np.uint8)
labels = rng.integers(0, 3, 40).astype(np.int32)

def trainer(num_devices, num_classes, **options):
    model = config.ModelConfig(image_shape=(8, 4, 1), num_levels=4, nr_filters=4,
                               nr_logistic_mix=2, dropout_p=0.5, num_classes=num_classes)
    # Smaller than a user may ask for: to trace every layer for every replica takes its time.
    object.__setattr__(model, "nr_resnet", 0)
    settings = config.TrainingConfig(class_conditional=num_classes is not None, batch_size=8,
                                     learning_rate=0.01, dtype="float32", **options)
    object.__setattr__(settings, "dtype", "float64")
    run = config.RunConfig(model, config.DataConfig(data_set="digits"), settings)
    made = training.Trainer(run, strategy(num_devices))
    assert made.strategy.num_replicas_in_sync == num_devices
    made.initialize(images[:16], labels[:16])
    return made

# TensorFlow knows one number of replicas in a process, or one alone.
kinds = {
    "by 2": {
        "1": (1, 3, {}),
        "2": (2, 3, {}),
        "accumulated": (1, 3, {"accumulate_steps": 4}),
        "accumulated by 2": (2, 3, {"accumulate_steps": 2}),
        "recomputed": (2, 3, {"recompute": True}),
        "unconditional 1": (1, None, {}),
        "unconditional 2": (2, None, {}),
    },
    "by 4": {"4": (4, 3, {})},
}[sys.argv[2]]
found = {}
for name, (num_devices, num_classes, options) in kinds.items():
    made = trainer(num_devices, num_classes, **options)
    parts = [slice(8 * (number % 5), 8 * (number % 5) + 8) for number in range(20)]
    results = [made.train_step(images[part], labels[part]) for part in parts]
    losses = [result.bits_per_dim for result in results]
    norms = [result.gradient_norm for result in results]
    classes = None if "unconditional" in name else 3
    test = data.ImageData(images[:13], labels[:13] if classes else None, 4, classes)
    found |= {f"{name}/losses": losses, f"{name}/norms": norms,
              f"{name}/test": made.evaluate(test).bits_per_dim}
    for kind, variables in (("weight", made.model.weights),
                            ("optimizer", made.optimizer.variables)):
        found |= {f"{name}/{kind}_{i}": np.asarray(v) for i, v in enumerate(variables)}
np.savez(sys.argv[1], **found)
"""


@pytest.fixture(scope="module")
def replicas(run_python, tmp_path_factory):
    """What one replica did in 20 steps with dropout, and others with the same global batches."""
    found = {}
    for kinds in ("by 2", "by 4"):
        path = tmp_path_factory.mktemp("replicas") / "found.npz"
        run_python(REPLICAS, path, kinds)
        with np.load(path) as arrays:
            found |= dict(arrays)
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "2"),
        ("1", "4"),
        ("1", "accumulated"),
        ("1", "accumulated by 2"),
        ("1", "recomputed"),
        ("unconditional 1", "unconditional 2"),
    ],
)
def test_however_a_batch_is_divided_a_step_is_the_same(replicas, one, other):
    names = [name.removeprefix(f"{one}/") for name in replicas if name.startswith(f"{one}/")]
    kinds = {name.split("_")[0] for name in names}
    assert kinds == {"losses", "norms", "test", "weight", "optimizer"}
    assert replicas[f"{one}/losses"].shape == (20,) and replicas[f"{one}/test"].shape == (13,)
    for name in names:
        assert replicas[f"{one}/{name}"].dtype in (np.float64, np.int64)
        # float64: twenty steps with sums of at most some 1e4 terms, 1e-16 each.
        np.testing.assert_allclose(
            replicas[f"{other}/{name}"],
            replicas[f"{one}/{name}"],
            rtol=1e-10,
            atol=1e-10,
            err_msg=name,
        )


# Whole runs


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train"), data.load("digits", "test")


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    """An uninterrupted run, in this process: its directory and the lines that it printed."""
    run = changed(RUN, save_dir=str(tmp_path_factory.mktemp("finished") / "run"))
    lines = []
    training.train(run, *digits, log=lines.append)
    return types.SimpleNamespace(run=run, run_dir=run.training.save_dir, lines=lines)


def scalars(run_dir):
    """Tag -> {step: value} of the events of a run; of images, the encoded picture."""
    # 0: keep all of them.
    events = event_accumulator.EventAccumulator(f"{run_dir}/tensorboard", {"tensors": 0})
    events.Reload()
    return {
        tag: {event.step: tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def test_a_run_says_what_it_trains_and_how_it_goes(finished):
    first, *rest = finished.lines
    assert re.fullmatch(
        r"digits: 1541 training and 256 test images, 8x8x1, 17 levels; [\d,]+ parameters, "
        r"1 replica",
        first,
    )
    saved = [line for line in rest if line.startswith("Saved")]
    assert saved == [f"Saved epoch {epoch} to {finished.run_dir}." for epoch in (2, 4)]
    epochs = [line for line in rest if line not in saved]
    for number, line in enumerate(epochs, start=1):
        assert re.fullmatch(
            rf"epoch {number}/4  step {24 * number}  train \d\.\d{{4}}  test \d\.\d{{4}} bits/dim  "
            r"\d+ images/s",
            line,
        )
    assert len(epochs) == 4


def test_tensorboard_has_the_numbers_of_every_epoch(finished):
    found = scalars(finished.run_dir)
    names = {"train/bits_per_dim", "test/bits_per_dim", "learning_rate", "images_per_second"}
    assert found.keys() == names | {"samples"}
    for name in names:
        assert list(found[name]) == [24, 48, 72, 96]
    for step, rate in found["learning_rate"].items():
        assert rate == pytest.approx(0.01 * 0.999 ** (step + 1), rel=1e-6)  # float32
    epochs = [line for line in finished.lines if line.startswith("epoch")]
    for line, step in zip(epochs, (24, 48, 72, 96), strict=True):
        printed = re.search(r"train (\S+)  test (\S+) bits/dim  (\S+) images/s", line).groups()
        assert printed == (
            f"{found['train/bits_per_dim'][step]:.4f}",
            f"{found['test/bits_per_dim'][step]:.4f}",
            f"{found['images_per_second'][step]:.0f}",
        )


def test_a_run_learns(finished):
    found = scalars(finished.run_dir)
    for name in ("train/bits_per_dim", "test/bits_per_dim"):
        assert found[name][96] < found[name][24]


def test_samples_are_written_at_every_checkpoint(finished):
    found = scalars(finished.run_dir)["samples"]
    assert list(found) == [48, 96]
    for epoch, step in ((2, 48), (4, 96)):
        stem = f"{finished.run_dir}/samples/epoch_{epoch:04d}"
        with np.load(f"{stem}.npz") as file:
            images, labels = file["images"], file["labels"]
        assert images.shape == (64, 8, 8, 1) and images.dtype == np.uint8
        assert images.max() <= 16
        np.testing.assert_array_equal(labels, np.arange(64) % 10)
        picture = np.asarray(Image.open(f"{stem}.png"))
        # A column a class; 8 pixels are shown as 32.
        np.testing.assert_array_equal(picture, plots.image_grid(images, 10, 17, scale=4))
        width, height, encoded = found[step]
        assert (int(height), int(width)) == picture.shape[:2]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture)


def test_a_finished_run_holds_its_configuration_and_its_state(finished):
    assert checkpoints.load_config(finished.run_dir) == finished.run
    names = sorted(os.listdir(f"{finished.run_dir}/checkpoints"))
    assert names == ["step_000000000048", "step_000000000096"]


def test_the_test_score_is_that_of_the_averaged_weights(finished, digits):
    _, test_data = digits
    averaged, raw = (
        evaluation.score(
            checkpoints.load(finished.run_dir, weights).log_prob,
            data.eval_batches(test_data, 100),
            is_conditional=True,
        ).mean
        for weights in ("ema", "raw")
    )
    logged = scalars(finished.run_dir)["test/bits_per_dim"][96]
    # float32, as in test_evaluation.py.
    assert logged == pytest.approx(averaged, rel=6e-6)
    assert abs(raw - averaged) > 100 * 6e-6 * averaged


def test_evaluation_counts_every_image_once(finished, digits):
    _, test_data = digits
    trainer = training.Trainer(finished.run, cpu_strategy())
    state = trainer.restore(finished.run_dir)
    assert (state.step, state.epoch, trainer.step) == (96, 4, 96)
    weights = [value_of(weight) for weight in trainer.model.weights]
    model = checkpoints.load(finished.run_dir)
    for num_images in (5, 70):
        part = data.ImageData(test_data.images[:num_images], test_data.labels[:num_images], 17, 10)
        found = trainer.evaluate(part)
        np.testing.assert_allclose(
            found.bits_per_dim, value_of(model.bits_per_dim(part.images, part.labels)), rtol=6e-6
        )
    # The averages stood in for them only within the call.
    for weight, before in zip(trainer.model.weights, weights, strict=True):
        np.testing.assert_array_equal(value_of(weight), before)


KILLED = """
import os, runpy, signal, sys
from pixel_cnn_pp import training

train_step = training.Trainer.train_step

def killed(trainer, *batch, **options):
    if trainer.step == 60:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(trainer, *batch, **options)

training.Trainer.train_step = killed
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of train.py that was killed in its third epoch, and resumed: both processes."""
    run_dir = tmp_path_factory.mktemp("resumed") / "run"
    # Python must not be told from outside to write lines at once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment["PYTHONPATH"] = str(ROOT)
    how = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    killed = subprocess.run([sys.executable, "-c", KILLED, *FLAGS.split(), "-o", run_dir], **how)
    copy = shutil.copytree(run_dir, run_dir.with_name("killed"))
    again = subprocess.run([sys.executable, "train.py", "-o", run_dir, "-r", "-x", "4"], **how)
    return types.SimpleNamespace(run_dir=run_dir, killed_dir=copy, killed=killed, again=again)


def test_a_killed_run_leaves_its_checkpoint_and_what_it_has_told(resumed):
    assert resumed.killed.returncode == -signal.SIGKILL
    assert os.listdir(resumed.killed_dir / "checkpoints") == ["step_000000000048"]
    _, first, second, saved = resumed.killed.stdout.splitlines()
    assert first.startswith("epoch 1/3  step 24 ") and second.startswith("epoch 2/3  step 48 ")
    assert saved == f"Saved epoch 2 to {resumed.run_dir}."
    assert list(scalars(resumed.killed_dir)["train/bits_per_dim"]) == [24, 48]


def test_resuming_needs_no_more_flags_than_the_directory(resumed, finished):
    assert resumed.again.returncode == 0 and resumed.again.stderr == ""
    _, line, third, fourth, saved = resumed.again.stdout.splitlines()
    assert line == "Resumed from epoch 2, step 48."
    assert third.startswith("epoch 3/4  step 72 ") and fourth.startswith("epoch 4/4  step 96 ")
    assert saved == f"Saved epoch 4 to {resumed.run_dir}."
    others = {"save_dir": finished.run_dir, "load_params": False, "num_samples": 1}
    found = checkpoints.load_config(resumed.run_dir)
    assert found.training.load_params and found.training.num_samples == 0
    assert changed(found, **others) == finished.run


def test_an_interrupted_run_equals_an_uninterrupted_one(resumed, finished):
    expected, found = scalars(finished.run_dir), scalars(resumed.run_dir)
    for name in ("train/bits_per_dim", "test/bits_per_dim", "learning_rate"):
        assert found[name] == expected[name]
    # Weights, averages, slots and step, bit for bit.
    for name in ("weights.npz", "averages.npz", "optimizer.npz"):
        with (
            np.load(checkpoints.latest(finished.run_dir) / name) as expected,
            np.load(checkpoints.latest(resumed.run_dir) / name) as found,
        ):
            assert found.files == expected.files
            for key in expected.files:
                np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def test_a_directory_with_a_run_is_not_trained_over(finished, digits):
    message = f"{finished.run_dir} holds a run already: add --load_params to go on with it"
    with pytest.raises(ValueError, match=message) as caught:
        training.train(finished.run, *digits)
    assert "\n" not in str(caught.value)


def test_data_of_another_kind_than_the_model_are_one_line(digits, tmp_path):
    train_data, test_data = digits
    run = changed(RUN, save_dir=str(tmp_path / "run"))
    unfit = {
        "8x4": dataclasses.replace(test_data, images=test_data.images[:, :, :4]),
        "levels": dataclasses.replace(test_data, num_levels=18),
        "classes": dataclasses.replace(test_data, num_classes=11),
        "unlabelled": dataclasses.replace(test_data, labels=None, num_classes=None),
    }
    for other in unfit.values():
        with pytest.raises(ValueError, match=r"The test images must fit the model\. Rec") as caught:
            training.train(run, train_data, other)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=r"The train images must fit the model\. Received"):
            training.train(run, other, test_data)
    assert os.listdir(tmp_path) == []


class FakeTrainer:
    """Its losses are 1/2, 1/4, 1/8, ..., and then, if asked for, something else."""

    def __init__(self, last=None):
        self.step = 0
        self.last = last

    def train_step(self, images):
        self.step += 1
        return self.last if self.step == 4 and self.last is not None else 0.5**self.step


class Terminal(io.StringIO):
    def isatty(self):
        return True


BATCHES = [np.zeros((1, 4, 4, 1), np.uint8)] * 4


def test_a_terminal_sees_a_bar_and_no_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LINES", -1)
    lines = []
    losses = training._train_epoch(FakeTrainer(), BATCHES, 7, lines.append)
    assert losses == [0.5, 0.25, 0.125, 0.0625]
    assert lines == []
    assert "\repoch 7:" in sys.stderr.getvalue() and "| 0/4 [" in sys.stderr.getvalue()


def test_a_pipe_gets_plain_lines_and_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LINES", -1)
    lines = []
    training._train_epoch(FakeTrainer(), BATCHES, 7, lines.append)
    assert lines == [
        f"epoch 7  step {number} of 4  {0.5**number:.4f} bits/dim" for number in range(1, 5)
    ]
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_training_with_the_step_named(loss):
    message = f"The loss is {loss} at step 4: training stopped"
    with pytest.raises(FloatingPointError, match=message) as caught:
        training._train_epoch(FakeTrainer(last=loss), BATCHES, 7, print)
    assert "\n" not in str(caught.value)
