"""A run on Keras's JAX backend: the numbers of TensorFlow, its files, the loop and the scripts."""

import inspect
import json
import re

import keras
import numpy as np
import pytest
from processes import run_script
from short_run import FLAGS, scalars

from pixel_cnn_pp.runs import checkpoints, jax_devices

# One channel: XLA's tanh, through which further channels go, is right to 1e-9 only in float64.
NAMES = ["pixel_cnn_pp", "pixel_cnn"]


def trainers(num_devices, names, **options):
    """Name -> a trainer in float64 on so many devices; stands alone, for any Keras backend."""
    import keras

    from pixel_cnn_pp import config
    from pixel_cnn_pp.runs.backend import Trainer, devices

    # In float64, rounding cannot hide behind Adamax, which makes a whole step of it.
    keras.config.set_floatx("float64")
    shape = {"image_shape": (8, 4, 1), "num_levels": 4, "num_classes": 3}
    models = {
        "pixel_cnn_pp": config.ModelConfig(
            **shape, nr_resnet=2, nr_filters=2, nr_logistic_mix=2, receptive_field="11x5",
            dropout_p=0.3,
        ),
        "pixel_cnn": config.PixelCNNConfig(
            **shape, nr_resnet=1, nr_filters=4, nr_output_filters=6
        ),
    }  # fmt: skip
    settings = config.TrainingConfig(
        class_conditional=True, batch_size=8 // num_devices, learning_rate=0.01, **options
    )
    object.__setattr__(settings, "dtype", "float64")
    strategy = devices.make_strategy(num_devices, log=lambda line: None)
    return {
        name: Trainer(
            config.RunConfig(models[name], config.DataConfig(data_set="digits"), settings), strategy
        )
        for name in names
    }


def some_data():
    """Images and labels, the same everywhere."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(0, 4, (40, 8, 4, 1)).astype(np.uint8)
    return images, rng.integers(0, 3, 40).astype(np.int32)


def results(trainer, steps):
    """What steps come to, and what they leave behind: {name: array}."""
    import numpy as np

    from pixel_cnn_pp import data

    images, labels = some_data()
    found = []
    for number in steps:
        part = slice(8 * (number % 5), 8 * (number % 5) + 8)
        found.append(trainer.train_step(images[part], labels[part]))
    test = data.ImageData(images[:13], labels[:13], 4, 3)
    numbers = {
        "losses": [result.bits_per_dim for result in found],
        "norms": [result.gradient_norm for result in found],
        "test": trainer.evaluate(test).bits_per_dim,
        "learning_rate": trainer.learning_rate,
    }
    # Last, because on JAX their values are deleted by everything that a trainer computes.
    variables = [*trainer.model.weights, *trainer.optimizer.variables]
    return {**numbers, **{f"variable_{i}": np.asarray(x) for i, x in enumerate(variables)}}


ON_JAX = f"""
import pathlib, sys
import numpy as np
import keras
from pixel_cnn_pp import models
from pixel_cnn_pp.runs import checkpoints
assert keras.backend.backend() == "jax"
{inspect.getsource(trainers)}
{inspect.getsource(some_data)}
{inspect.getsource(results)}
folder = pathlib.Path(sys.argv[1])

def save(name, found):
    np.savez(folder / (name + ".npz"), **found)

# With all that divides a step at once.
for name, trainer in trainers(2, {NAMES}, accumulate_steps=2, recompute=True).items():
    assert trainer.num_replicas == 2
    trainer.restore(folder / (name + "_start"), 40, 8)
    save(name + ", two devices", results(trainer, range(20)))
((name, trainer),) = trainers(1, ["pixel_cnn_pp"]).items()
trainer.restore(folder / "pixel_cnn_pp_half", 40, 8)
save("second half", results(trainer, range(10, 20)))
trainer.restore(folder / "pixel_cnn_pp_start", 40, 8)
kept, weight = trainer.model, trainer.model.weights[0]
save("first half", results(trainer, range(10)))
trainer.save(folder / "half_by_jax", checkpoints.TrainingState(10, 1), keep=1)
# A second model with the averages is not touched by what follows. And of the first, no value is
# read that is not the newest.
other = models.make(kept.config, dtype="float64")
trainer.copy_averages(other)
before = other.get_weights()
results(trainer, range(2))
trainer.train_step(*(x[:8] for x in some_data()))
assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))
try:
    np.asarray(weight)
except RuntimeError as error:
    assert "deleted" in str(error)
else:
    raise AssertionError("a value of before is read")
trainer.model
assert np.isfinite(np.asarray(weight)).all()
"""


@pytest.fixture(scope="module")
def compared(run_python, tmp_path_factory):
    """Name -> (what JAX found, what TensorFlow found) in the same steps from the same start."""
    folder = tmp_path_factory.mktemp("jax")
    expected = {}
    try:
        made = trainers(1, NAMES)
        for name, trainer in made.items():
            images, labels = some_data()
            trainer.initialize(images[:16], labels[:16])
            trainer.save(folder / f"{name}_start", checkpoints.TrainingState(0, 0), keep=1)
            first = results(trainer, range(10))
            trainer.save(folder / f"{name}_half", checkpoints.TrainingState(10, 1), keep=1)
            second = results(trainer, range(10, 20))
            losses = {x: [*first[x], *second[x]] for x in ("losses", "norms")}
            expected |= {f"{name}, two devices": {**second, **losses}}
            if name == "pixel_cnn_pp":
                expected |= {"first half": first, "second half": second}
        run_python(
            ON_JAX,
            folder,
            KERAS_BACKEND="jax",
            JAX_PLATFORMS="cpu",
            JAX_ENABLE_X64="1",
            JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # the compiler takes the time here
            XLA_FLAGS="--xla_force_host_platform_device_count=2",
        )
        found = {}
        for path in folder.glob("*.npz"):
            with np.load(path) as arrays:
                found[path.stem] = dict(arrays)
        assert found.keys() == expected.keys()
        trainer = made["pixel_cnn_pp"]
        trainer.restore(folder / "half_by_jax", 40, 8)
        expected["resumed by TensorFlow"] = expected["second half"]
        found["resumed by TensorFlow"] = results(trainer, range(10, 20))
    finally:
        keras.config.set_floatx("float32")
    return {name: (found[name], expected[name]) for name in expected}


@pytest.mark.parametrize(
    ("name", "num_steps"),
    [
        ("pixel_cnn_pp, two devices", 20),
        ("pixel_cnn, two devices", 20),
        ("first half", 10),
        ("second half", 10),
        ("resumed by TensorFlow", 10),
    ],
)
def test_jax_trains_as_tensorflow_does_with_the_same_dropout(name, num_steps, compared):
    found, expected = compared[name]
    assert found.keys() == expected.keys()
    assert len(found["losses"]) == num_steps and len(found["test"]) == 13
    for key in expected:
        # float64: twenty steps with sums of at most some 1e4 terms, 1e-16 each.
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-10, atol=1e-10, err_msg=key)


SCRIPTS = """
import json, sys
from processes import run_script
for arguments in json.loads(sys.argv[1]):
    done = run_script(*arguments)
    print("DONE", json.dumps([done.returncode, done.stdout, done.stderr]))
"""


@pytest.fixture(scope="module")
def scripts_on_jax(run_python, tmp_path_factory):
    """A run by train.py, and what the scripts said: (its directory, [(status, stdout, stderr)])."""
    run_dir = tmp_path_factory.mktemp("scripts") / "run"
    train = ["train.py", *FLAGS.split(), "-o", str(run_dir)]
    commands = [
        [*train, "-x", "1", "-ns", "1", "--profile", "2-3"],
        ["train.py", "-r", "-o", str(run_dir), "-x", "2", "-ns", "0"],
        ["evaluate.py", str(run_dir)],
        ["sample.py", str(run_dir), "--num_samples", "4", "--out", str(run_dir / "drawn")],
        ["export.py", str(run_dir), str(run_dir / "exported")],
    ]
    printed = run_python(SCRIPTS, json.dumps(commands), KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    lines = [line for line in printed.splitlines() if line.startswith("DONE ")]
    return run_dir, [json.loads(line.removeprefix("DONE ")) for line in lines]


def test_every_script_runs_on_jax_or_says_in_one_line_that_it_does_not(scripts_on_jax):
    run_dir, (trained, resumed, scored, drawn, exported) = scripts_on_jax
    for status, _, stderr in (trained, resumed, scored, drawn):
        assert status == 0, stderr
    assert "1 replica\n" in trained[1] and "Saved epoch 1" in trained[1]
    assert "Resumed from epoch 1, step 24." in resumed[1]
    # What the last epoch printed is what both backends score the checkpoint with.
    (test,) = re.findall(r"epoch 2/2 .* test ([0-9.]+) bits/dim", resumed[1])
    assert f"averaged weights: {test} +-" in scored[1]
    assert run_script("evaluate.py", run_dir).stdout == scored[1]
    assert exported[0] == 1 and exported[2].count("\n") == 1
    assert "needs Keras's TensorFlow backend. Received: KERAS_BACKEND=jax" in exported[2]


def test_a_run_on_jax_leaves_the_files_that_a_run_leaves(scripts_on_jax):
    run_dir, _ = scripts_on_jax
    names = {path.name for path in (run_dir / "samples").iterdir()}
    assert names == {"epoch_0001.npz", "epoch_0001.png", "epoch_0001_completed.png"}
    assert list(run_dir.glob("tensorboard/plugins/profile/*/*.xplane.pb"))
    curves = scalars(run_dir)
    assert list(curves["test/bits_per_dim"]) == [24, 48]
    assert curves["learning_rate"][24] == pytest.approx(0.01 * 0.999**25, rel=1e-6)


def test_both_backends_draw_the_same_images(scripts_on_jax, tmp_path):
    run_dir, _ = scripts_on_jax
    run_script("sample.py", run_dir, "--num_samples", "4", "--out", tmp_path / "drawn")
    with np.load(run_dir / "drawn.npz") as one, np.load(tmp_path / "drawn.npz") as other:
        # That rounding tips one of these 256 draws happens once in a thousand seeds.
        np.testing.assert_array_equal(one["images"], other["images"])


def test_several_machines_are_refused_on_jax_in_one_line(tf_configs, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_configs(2)[0])
    with pytest.raises(ValueError, match=r"^TF_CONFIG must not be set: with KERAS_BACKEND=jax, a"):
        jax_devices.make_strategy()


def test_a_gpu_gets_compiler_options_that_its_release_of_jax_knows(monkeypatch):
    assert jax_devices.compiler_options() is None, "on a CPU"
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    monkeypatch.setattr(jax_devices.jax, "__version_info__", (0, 7, 2))
    new = jax_devices.compiler_options()
    assert "CONVOLUTION" in new["xla_gpu_enable_command_buffer"].split(",")
    assert new["xla_gpu_command_buffer_scheduling_mode"] == "CONCURRENT"
    monkeypatch.setattr(jax_devices.jax, "__version_info__", (0, 6, 2))
    assert new.items() - jax_devices.compiler_options().items() == {
        ("xla_gpu_command_buffer_scheduling_mode", "CONCURRENT")
    }
