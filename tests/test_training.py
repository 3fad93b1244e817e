import concurrent.futures
import contextlib
import dataclasses
import errno
import io
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import types

import numpy as np
import pytest
import specimens
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from pixel_cnn_pp import data, evaluation, likelihoods, plots, tf1_import
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints, devices, monitoring, optimizers, training

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
out, run_dir, kind = sys.argv[1:]
(cpu,) = tf.config.list_physical_devices("CPU")
if kind != "workers":
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
# In float64, rounding cannot hide behind Adamax, which makes a whole step of it.
keras.config.set_floatx("float64")
from pixel_cnn_pp import config, data
from pixel_cnn_pp.runs import checkpoints, devices, training

# Smaller than a user may ask for: to trace every layer for every replica takes its time.
def check(model, checked=config.ModelConfig.__post_init__):
    object.__setattr__(model, "nr_resnet", 1)
    checked(model)
    object.__setattr__(model, "nr_resnet", 0)

config.ModelConfig.__post_init__ = check

@functools.cache  # TensorFlow confuses the replicas of two strategies
def strategy(num_devices):
    return devices.make_strategy(num_devices, log=lambda line: None)

strategy({"workers": 0, "alone": 1, "by 2": 2, "by 4": 4}[kind])
rng = np.random.default_rng(0)
images = rng.integers(0, 4, (40, 8, 4, 1)).astype(np.uint8)
labels = rng.integers(0, 3, 40).astype(np.int32)

def trainer(num_devices, num_classes, **options):
    model = config.ModelConfig(image_shape=(8, 4, 1), num_levels=4, nr_filters=2,
                               nr_logistic_mix=2, dropout_p=0.5, num_classes=num_classes)
    settings = config.TrainingConfig(class_conditional=num_classes is not None, batch_size=8,
                                     learning_rate=0.01, dtype="float32", **options)
    object.__setattr__(settings, "dtype", "float64")
    run = config.RunConfig(model, config.DataConfig(data_set="digits"), settings)
    made = training.Trainer(run, strategy(num_devices))
    made.initialize(images[:16], labels[:16])
    return made

found = {}

def train(name, made, steps):
    size = 8 // made.num_workers
    results = []
    for number in steps:
        first = 8 * (number % 5) + size * made.worker_index
        part = slice(first, first + size)
        results.append(made.train_step(images[part], labels[part]))
    classes = None if "unconditional" in name else 3
    test = data.ImageData(images[:13], labels[:13] if classes else None, 4, classes)
    found.update({f"{name}/losses": [result.bits_per_dim for result in results],
                  f"{name}/norms": [result.gradient_norm for result in results],
                  f"{name}/test": made.evaluate(test).bits_per_dim})
    for kind, variables in (("weight", made.model.weights),
                            ("optimizer", made.optimizer.variables)):
        found.update({f"{name}/{kind}_{i}": np.asarray(v) for i, v in enumerate(variables)})

# TensorFlow knows one number of replicas in a process, or one alone.
if kind == "alone":
    made = trainer(1, 3)
    train("1, first half", made, range(10))
    made.save(run_dir, checkpoints.TrainingState(10, 1), keep=1)
    train("1, second half", made, range(10, 20))
    train("unconditional 1", trainer(1, None), range(20))
elif kind == "by 2":
    # With all that divides a step at once.
    made = trainer(2, 3, accumulate_steps=2, recompute=True)
    train("2, first half", made, range(10))
    train("2, second half", made, range(10, 20))
    made.restore(run_dir)
    train("2, resumed from 1", made, range(10, 20))
elif kind == "by 4":
    train("unconditional 4", trainer(4, None), range(20))
else:
    made = trainer(0, 3)
    assert made.num_workers == 2
    train("workers, first half", made, range(10))
    train("workers, second half", made, range(10, 20))
np.savez(out, **found)
"""


@pytest.fixture(scope="module")
def replicas(run_python, tf_configs, tmp_path_factory):
    """What one replica did in 20 steps with dropout, and others with the same global batches."""
    folder = tmp_path_factory.mktemp("replicas")
    for kind in ("alone", "by 2", "by 4"):
        run_python(REPLICAS, folder / f"{kind}.npz", folder / "run", kind)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # Worker 1 writes nothing of what is compared: it has the same.
        list(
            pool.map(
                lambda out, tf_config: run_python(
                    REPLICAS, out, folder / "run", "workers", TF_CONFIG=tf_config
                ),
                (folder / "workers.npz", folder / "other_worker.npz"),
                tf_configs(2),
            )
        )
    found = {}
    for path in folder.glob("*.npz"):
        with np.load(path) as arrays:
            prefix = "other " if path.stem == "other_worker" else ""
            found |= {prefix + name: arrays[name] for name in arrays}
    return found


@pytest.mark.parametrize(
    ("one", "other", "num_steps"),
    [
        ("1, first half", "2, first half", 10),
        ("1, second half", "2, second half", 10),
        ("1, second half", "2, resumed from 1", 10),
        ("1, first half", "workers, first half", 10),
        ("1, second half", "workers, second half", 10),
        ("1, second half", "other workers, second half", 10),
        ("unconditional 1", "unconditional 4", 20),
    ],
)
def test_however_a_batch_is_divided_a_step_is_the_same(replicas, one, other, num_steps):
    names = [name.removeprefix(f"{one}/") for name in replicas if name.startswith(f"{one}/")]
    kinds = {name.split("_")[0] for name in names}
    assert kinds == {"losses", "norms", "test", "weight", "optimizer"}
    assert replicas[f"{one}/losses"].shape == (num_steps,)
    assert replicas[f"{one}/test"].shape == (13,)
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


# Speed


@pytest.fixture(scope="module")
def eight_steps():
    """Function (options of the training) -> the trainer, and its results on one batch."""
    images = np.random.default_rng(0).integers(0, 4, (8, 8, 4, 1)).astype(np.uint8)
    model = ModelConfig(
        image_shape=(8, 4, 1), num_levels=4, nr_filters=1, nr_logistic_mix=1, dropout_p=0.5
    )
    # Smaller than a user may ask for: XLA takes its time.
    object.__setattr__(model, "nr_resnet", 0)
    strategy = cpu_strategy()

    def train(**options):
        settings = TrainingConfig(batch_size=8, learning_rate=0.01, **options)
        trainer = training.Trainer(RunConfig(model, RUN.data, settings), strategy)
        trainer.initialize(images, None)
        return trainer, [trainer.train_step(images) for _ in range(8)]

    return train


@pytest.fixture(scope="module")
def in_float32(eight_steps):
    return eight_steps()


def test_a_step_that_xla_compiles_is_the_same_to_rounding(eight_steps, in_float32):
    trainer, compiled = eight_steps(jit_compile=True)
    plain_trainer, plain = in_float32
    # The first step only, in float32: its sums have some 1e3 terms at 6e-8 each. What they differ
    # by grows from step to step, on some processors beyond any bound.
    assert compiled[0].bits_per_dim == pytest.approx(plain[0].bits_per_dim, rel=1e-6)
    assert compiled[0].gradient_norm == pytest.approx(plain[0].gradient_norm, rel=1e-4)
    assert compiled[-1].bits_per_dim < compiled[0].bits_per_dim
    assert trainer.step == plain_trainer.step == len(compiled) == len(plain)


def test_bfloat16_trains_weights_that_stay_in_float32(eight_steps, in_float32):
    trainer, results = eight_steps(dtype="mixed_bfloat16")
    assert trainer.model.compute_dtype == "bfloat16"
    for variable in [*trainer.model.weights, *trainer.optimizer.variables]:
        assert variable.dtype in ("float32", "int64", "int32")
    losses = [result.bits_per_dim for result in results]
    assert losses[-1] < losses[0]
    # bfloat16 has 8 bits, 4e-3: it is another computation, of the same loss.
    expected = [result.bits_per_dim for result in in_float32[1]]
    assert losses != expected
    np.testing.assert_allclose(losses, expected, rtol=0.05)


# Whole runs


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train"), data.load("digits", "test")


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    """An uninterrupted run, in this process: its directory, lines and trainer."""
    run_dir = str(tmp_path_factory.mktemp("finished") / "run")
    run = changed(RUN, save_dir=run_dir, profile="2-3")
    lines, trainers = [], []
    with pytest.MonkeyPatch.context() as patched:

        def kept(*arguments, trainer=training.Trainer):
            trainers.append(trainer(*arguments))
            return trainers[-1]

        patched.setattr(training, "Trainer", kept)
        patched.setattr(training, "_STEPS_BETWEEN_POINTS", 10)
        training.train(run, *digits, log=lines.append)
    (trainer,) = trainers
    return types.SimpleNamespace(run=run, run_dir=run_dir, lines=lines, trainer=trainer)


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
    # Within an epoch there is a line a minute, which a slow machine may come to.
    epochs = [line for line in rest if line not in saved and " of " not in line]
    for number, line in enumerate(epochs, start=1):
        assert re.fullmatch(
            rf"epoch {number}/4  step {24 * number}  train \d\.\d{{4}}  test \d\.\d{{4}} bits/dim  "
            r"\d+ images/s  \d+ % waiting for data  \d+ (s|min) left",
            line,
        )
    assert len(epochs) == 4
    assert epochs[-1].endswith("  0 s left")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (29.4, "29 s"), (90, "2 min"), (3540, "59 min"), (3900, "1 h 05 min")],
)
def test_time_is_told_as_a_person_does(seconds, words):
    assert training._describe_time(seconds) == words


def test_a_run_of_the_energy_distance_trains_tells_and_draws(digits, tmp_path):
    model = dataclasses.replace(RUN.model, energy_distance=True)
    run = changed(RUN, save_dir=str(tmp_path), max_epochs=1, num_samples=1, batch_size=256)
    lines = []
    training.train(dataclasses.replace(run, model=model), *digits, log=lines.append)
    assert re.search(r"train \d+\.\d{4}  test \d+\.\d{4} energy distance  ", "\n".join(lines))
    tags = scalars(tmp_path)
    assert {"train/energy_distance", "test/energy_distance"} < set(tags)
    assert not any("bits_per_dim" in tag for tag in tags)
    assert (tmp_path / "samples/epoch_0001.png").exists()
    # What is told of the test images is of the averaged weights, those of the head included.
    model = checkpoints.load(str(tmp_path), "ema")
    images, labels = digits[1].images, digits[1].labels
    losses = model.loss_of(model(images, labels), images)
    expected = likelihoods.bits_per_dim(np.mean(losses, dtype=np.float64), 64)
    (found,) = scalars(tmp_path)["test/energy_distance"].values()
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_tensorboard_has_the_numbers_of_every_epoch(finished):
    found = scalars(finished.run_dir)
    names = {
        "train/bits_per_dim",
        "train/gradient_norm",
        "test/bits_per_dim",
        "learning_rate",
        "images_per_second",
        "seconds_per_step",
        "data_wait_share",
    }
    of_steps = {"step/bits_per_dim", "step/gradient_norm"}
    others = {"samples", "completions", "_hparams_/session_start_info"}
    assert found.keys() == names | of_steps | others
    for name in names:
        assert list(found[name]) == [24, 48, 72, 96]
    for name in of_steps:  # every tenth step of an epoch
        assert list(found[name]) == [10, 20, 34, 44, 58, 68, 82, 92]
    for name in ("step/gradient_norm", "train/gradient_norm"):
        assert all(0 < norm < np.inf for norm in found[name].values())
    assert all(0 < share < 1 for share in found["data_wait_share"].values())
    for step, seconds in found["seconds_per_step"].items():
        assert seconds * found["images_per_second"][step] == pytest.approx(64, rel=1e-5)  # float32
    for step, rate in found["learning_rate"].items():
        assert rate == pytest.approx(0.01 * 0.999 ** (step + 1), rel=1e-6)  # float32
    epochs = [line for line in finished.lines if line.startswith("epoch")]
    for line, step in zip(epochs, (24, 48, 72, 96), strict=True):
        printed = re.search(
            r"train (\S+)  test (\S+) bits/dim  (\S+) images/s  (\S+) % waiting", line
        ).groups()
        assert printed == (
            f"{found['train/bits_per_dim'][step]:.4f}",
            f"{found['test/bits_per_dim'][step]:.4f}",
            f"{found['images_per_second'][step]:.0f}",
            f"{100 * found['data_wait_share'][step]:.0f}",
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


def test_completions_of_test_images_are_written_at_every_checkpoint(finished):
    found = scalars(finished.run_dir)["completions"]
    assert list(found) == [48, 96]
    for epoch, step in ((2, 48), (4, 96)):
        picture = np.asarray(
            Image.open(f"{finished.run_dir}/samples/epoch_{epoch:04d}_completed.png")
        )
        width, height, encoded = found[step]
        assert (int(height), int(width)) == picture.shape[:2]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture)


def test_the_steps_asked_for_are_profiled(finished):
    assert list(pathlib.Path(finished.run_dir).rglob("*.xplane.pb"))


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
    trainer = finished.trainer
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


SIGNALLED = """
import os, runpy, signal, sys
from pixel_cnn_pp import scripts
scripts._import_tensorflow()  # as quietly as train.py does
from pixel_cnn_pp.runs import training

train_step = training.Trainer.train_step
number, step = signal.Signals[sys.argv.pop(1)], int(sys.argv.pop(1))

def signalled(trainer, *batch, **options):
    if trainer.step == step:
        os.kill(os.getpid(), number)
    return train_step(trainer, *batch, **options)

training.Trainer.train_step = signalled
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of train.py that was killed in its third epoch, resumed, terminated there, resumed."""
    run_dir = tmp_path_factory.mktemp("resumed") / "run"
    # Python must not be told from outside to write lines at once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment["PYTHONPATH"] = str(ROOT)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments, "-o", run_dir],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )

    killed = run("-c", SIGNALLED, "SIGKILL", "60", *FLAGS.split())
    copy = shutil.copytree(run_dir, run_dir.with_name("killed"))
    stopped = run("-c", SIGNALLED, "SIGTERM", "56", "-r", "-x", "4")
    again = run("train.py", "-r")
    return types.SimpleNamespace(
        run_dir=run_dir, killed_dir=copy, killed=killed, stopped=stopped, again=again
    )


def test_a_killed_run_leaves_its_checkpoint_and_what_it_has_told(resumed):
    assert resumed.killed.returncode == -signal.SIGKILL
    # The first one was written before the first step.
    assert sorted(os.listdir(resumed.killed_dir / "checkpoints")) == [
        "step_000000000000",
        "step_000000000048",
    ]
    _, first, second, saved = resumed.killed.stdout.splitlines()
    assert first.startswith("epoch 1/3  step 24 ") and second.startswith("epoch 2/3  step 48 ")
    assert saved == f"Saved epoch 2 to {resumed.run_dir}."
    assert list(scalars(resumed.killed_dir)["train/bits_per_dim"]) == [24, 48]


def test_sigterm_lets_a_step_end_saves_and_exits_cleanly(resumed):
    assert resumed.stopped.returncode == 0 and resumed.stopped.stderr == ""
    _, from_where, stopped = resumed.stopped.stdout.splitlines()
    assert from_where == "Resumed from epoch 2, step 48."
    # The signal came in step 57, and what all workers do next was settled when it began.
    assert stopped == (
        "Stopped by SIGTERM at step 58 and saved: "
        f"python train.py --save_dir {resumed.run_dir} --load_params goes on."
    )


def test_resuming_needs_no_more_flags_than_the_directory(resumed, finished):
    assert resumed.again.returncode == 0 and resumed.again.stderr == ""
    _, line, third, fourth, saved = resumed.again.stdout.splitlines()
    assert line == "Resumed from epoch 2 and 640 images, step 58."
    assert third.startswith("epoch 3/4  step 72 ") and fourth.startswith("epoch 4/4  step 96 ")
    assert saved == f"Saved epoch 4 to {resumed.run_dir}."
    others = {"save_dir": finished.run_dir, "load_params": False, "num_samples": 1}
    found = checkpoints.load_config(resumed.run_dir)
    assert found.training.load_params and found.training.num_samples == 0
    assert changed(found, **others, profile="2-3") == finished.run


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


def test_an_interrupted_run_equals_an_uninterrupted_one(resumed, finished):
    expected, found = scalars(finished.run_dir), scalars(resumed.run_dir)
    for name in ("train/bits_per_dim", "test/bits_per_dim", "learning_rate"):
        assert found[name] == expected[name]
    assert_same_checkpoint(resumed.run_dir, finished.run_dir)


# What goes wrong on the way, on a run that goes on from its second epoch


@pytest.fixture
def go_on(finished, digits, tmp_path, monkeypatch):
    """Function (fields of the training) -> lines of a run that goes on in `go_on.run_dir`."""
    run_dir = shutil.copytree(finished.run_dir, tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints/step_000000000096")
    shutil.rmtree(run_dir / "tensorboard")
    # To compile its steps once is enough; it is set to the checkpoint.
    monkeypatch.setattr(training, "Trainer", lambda run, strategy: finished.trainer)
    lines = []

    def train(log=lines.append, **values):
        values = {"num_samples": 0, "profile": None, "load_params": True, **values}
        run = changed(finished.run, save_dir=str(run_dir), **values)
        lines.clear()
        training.train(run, *digits, strategy=finished.trainer.strategy, log=log)
        return list(lines)

    train.run_dir = run_dir
    return train


def steps_on_disk(run_dir):
    """The steps of the checkpoints of a run; nothing else may lie beside them."""
    return [int(name.removeprefix("step_")) for name in sorted(os.listdir(run_dir / "checkpoints"))]


@pytest.mark.parametrize(
    ("number", "step", "last_step", "where"),
    [
        (signal.SIGINT, 55, 56, "epoch 2 and 512 images, step 56"),
        (signal.SIGTERM, 71, 72, "epoch 3, step 72"),  # the last step of its epoch
    ],
)
def test_whichever_step_a_signal_comes_before_no_step_is_lost(
    number, step, last_step, where, go_on, finished, monkeypatch
):
    class Stopping(training._StopRequest):
        """Gets the signal when the loop looks behind so many steps."""

        @property
        def is_requested(self):
            if finished.trainer.step == step and not self._is_requested:
                signal.raise_signal(number)
            return self._is_requested

        @is_requested.setter
        def is_requested(self, value):
            self._is_requested = value

    with monkeypatch.context() as patched:
        patched.setattr(training, "_StopRequest", Stopping)
        lines = go_on()
    assert lines[-1] == (
        f"Stopped by {number.name} at step {last_step} and saved: "
        f"python train.py --save_dir {go_on.run_dir} --load_params goes on."
    )
    assert steps_on_disk(go_on.run_dir) == [48, last_step]
    again = go_on()
    assert again[1] == f"Resumed from {where}."
    assert_same_checkpoint(go_on.run_dir, finished.run_dir)


def test_a_second_ctrl_c_is_obeyed_at_once(request):
    # A shell lets what it runs in the background ignore Ctrl-C.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, previous))
    with training._StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_requested and stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_checkpoints_are_written_within_an_epoch_too(go_on):
    lines = go_on(save_minutes=1e-9, keep=3, max_epochs=3)
    assert steps_on_disk(go_on.run_dir) == [70, 71, 72]
    assert [line for line in lines if line.startswith("Saved")] == [
        f"Saved epoch 3 to {go_on.run_dir}."
    ]
    shutil.rmtree(go_on.run_dir / "checkpoints/step_000000000072")
    assert go_on(max_epochs=3)[1] == "Resumed from epoch 2 and 1472 images, step 71."


def test_a_run_of_which_nothing_is_left_says_so(go_on):
    _, _, line = go_on(max_epochs=2)
    assert line == "All 2 epochs are done; --max_epochs says how many to train."


@pytest.fixture
def full_disk(monkeypatch):
    """Within it, no array of step 72 can be written whole."""

    @contextlib.contextmanager
    def full(write=checkpoints._write):
        def half(path, content):
            if "step_000000000072" in str(path) and path.name == "averages.npz":
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(checkpoints, "_write", half)
            yield

    return full


def test_a_checkpoint_that_fails_is_told_of_and_training_goes_on(go_on, full_disk, finished):
    steps_at_lines = {}

    def log(line):
        steps_at_lines[line] = steps_on_disk(go_on.run_dir)

    with full_disk():
        go_on(log=log, save_interval=1)
    last = f"{go_on.run_dir}/checkpoints/step_000000000048"
    line = (
        "No checkpoint could be written at step 72 (No space left on device); the last one is "
        f"{last}. Training goes on."
    )
    assert steps_at_lines[line] == [48]
    assert steps_on_disk(go_on.run_dir) == [48, 96]
    assert_same_checkpoint(go_on.run_dir, finished.run_dir)


def test_the_last_checkpoint_must_be_written(go_on, full_disk):
    message = (
        r"^No checkpoint could be written at step 72 \(No space left on device\); the last one"
    )
    with full_disk(), pytest.raises(OSError, match=message) as caught:
        go_on(max_epochs=3)
    assert "\n" not in str(caught.value)
    assert steps_on_disk(go_on.run_dir) == [48]


def test_a_disk_without_room_for_checkpoints_is_refused_before_training(go_on, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2**10))
    message = (
        rf"^The disk of {go_on.run_dir} must have \d+ MiB free for 5 checkpoints and one that is "
        r"being written\. Received: 0 MiB free$"
    )
    with pytest.raises(OSError, match=message):
        go_on(keep=5)
    assert steps_on_disk(go_on.run_dir) == [48]


def test_a_directory_that_cannot_be_written_is_told_of_before_the_model_is_built(
    digits, tmp_path, monkeypatch
):
    def build(*_):
        raise AssertionError("the model is built")

    def refuse(dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), dir)

    monkeypatch.setattr(training, "Trainer", build)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        training.train(changed(RUN, save_dir=str(tmp_path / "file/run")), *digits)
    # Who runs the tests may have every right.
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        training.train(changed(RUN, save_dir=str(tmp_path / "run")), *digits)


# What TensorFlow says in many lines


MESSAGE = """Graph execution error:

Detected at node add defined at (most recent call last):
  File "train.py", line 8, in <module>

  File "train.py", line 7, in main

{}
\t [[{{{{node add}}}}]]
Hint: Look elsewhere. [Op:__inference_f_14]"""


@pytest.mark.parametrize(
    ("num_workers", "error", "expected", "message"),
    [
        (
            1,
            tf.errors.ResourceExhaustedError(None, None, MESSAGE.format("OOM at shape[8,8]")),
            ValueError,
            r"^A batch must fit into the memory of its device: try --accumulate_steps, --recompute "
            r"or a smaller --batch_size\. Received: batch_size=64 \(OOM at shape\[8,8\]\)$",
        ),
        (
            2,
            tf.errors.UnavailableError(None, None, MESSAGE.format("Connection reset by peer")),
            ConnectionError,
            r"^Another worker was lost, and training stopped\. Start all workers again with "
            r"--load_params: they go on .*\. Reason: Connection reset by peer$",
        ),
        (2, tf.errors.UnavailableError(None, None, ""), ConnectionError, "Reason: $"),
        (1, tf.errors.InternalError(None, None, "a\nb"), tf.errors.InternalError, "a\nb"),
    ],
    ids=["memory", "peer", "no message", "something else"],
)
def test_what_a_user_can_mend_is_one_line(num_workers, error, expected, message):
    with (
        pytest.raises(expected, match=message),
        training._one_line_errors(num_workers, RUN.training),
    ):
        raise error


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

    strategy = types.SimpleNamespace(num_replicas_in_sync=1)
    worker_index, num_workers, worker = 0, 1, (0, 1)

    def __init__(self, last=None):
        self.step = 0
        self.last = last

    def train_step(self, images, labels, is_last):
        self.step += 1
        is_changed = self.step == 4 and self.last is not None
        loss = self.last if is_changed else 0.5**self.step
        return training.StepResult(loss, gradient_norm=float(self.step), is_last=is_last)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train_epoch(trainer, log):
    """The seventh epoch, of four steps, done by a trainer."""
    run = changed(RUN, batch_size=1)
    images = data.ImageData(np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int32), 17, 10)
    loop = training._Loop(trainer, run, images, images, log)
    loop._state = checkpoints.TrainingState(step=0, epoch=6)
    epoch = training._Epoch(loop._state, 4, 1, "bits/dim")
    loop._train_epoch(epoch, training._StopRequest(), monitoring.Monitor(run, is_chief=False))
    return epoch


def test_a_terminal_sees_a_bar_and_no_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LINES", -1)
    lines = []
    epoch = train_epoch(FakeTrainer(), lines.append)
    assert epoch.mean_bits_per_dim == (0.5 + 0.25 + 0.125 + 0.0625) / 4
    assert epoch.mean_gradient_norm == 2.5
    assert lines == []
    assert "\repoch 7:" in sys.stderr.getvalue() and "| 0/4 [" in sys.stderr.getvalue()


def test_a_pipe_gets_plain_lines_and_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(training, "_SECONDS_BETWEEN_LINES", -1)
    lines = []
    train_epoch(FakeTrainer(), lines.append)
    assert lines == [
        f"epoch 7  step {number} of 4  {0.5**number:.4f} bits/dim" for number in range(1, 5)
    ]
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_training_with_the_step_named(loss):
    message = f"The loss is {loss} at step 4: training stopped"
    with pytest.raises(FloatingPointError, match=message) as caught:
        train_epoch(FakeTrainer(last=loss), print)
    assert "\n" not in str(caught.value)
