import concurrent.futures
import functools
import os

import numpy as np
import processes
import pytest

REPLICAS = """
import functools, sys
import keras, numpy as np, tensorflow as tf
out, run_dir, kind = sys.argv[1:]
(cpu,) = tf.config.list_physical_devices("CPU")
if kind != "workers":
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
# In float64, rounding cannot hide behind Adamax, which makes a whole step of it.
keras.config.set_floatx("float64")
from pixel_cnn_pp import config, data
from pixel_cnn_pp.runs import checkpoints, devices
from pixel_cnn_pp.runs.trainer import Trainer

@functools.cache  # TensorFlow confuses the replicas of two strategies
def strategy(num_devices):
    return devices.make_strategy(num_devices, log=lambda line: None)

strategy({"workers": 0, "by 2": 2}[kind])
rng = np.random.default_rng(0)
images = rng.integers(0, 4, (40, 8, 4, 1)).astype(np.uint8)
labels = rng.integers(0, 3, 40).astype(np.int32)

def trainer(num_devices, num_classes, **options):
    # Few layers: to trace each of them for every replica takes its time.
    model = config.ModelConfig(image_shape=(8, 4, 1), num_levels=4, nr_resnet=2, nr_filters=2,
                               nr_logistic_mix=2, receptive_field="11x5", num_classes=num_classes)
    settings = config.TrainingConfig(class_conditional=num_classes is not None, batch_size=8,
                                     learning_rate=0.01, dtype="float32", **options)
    object.__setattr__(settings, "dtype", "float64")
    run = config.RunConfig(model, config.DataConfig(data_set="digits"), settings)
    made = Trainer(run, strategy(num_devices))
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

# TensorFlow knows one number of replicas in a process, and one alone.
if kind == "by 2":
    made = trainer(1, 3)
    train("1, first half", made, range(10))
    made.save(run_dir, checkpoints.TrainingState(10, 1), keep=1)
    train("1, second half", made, range(10, 20))
    # With all that divides a step at once.
    made = trainer(2, 3, accumulate_steps=2, recompute=True)
    train("2, first half", made, range(10))
    train("2, second half", made, range(10, 20))
    made.restore(run_dir, 40, 8)
    train("2, resumed from 1", made, range(10, 20))
    train("unconditional 1", trainer(1, None), range(10))
else:
    made = trainer(0, 3)
    assert made.num_workers == 2
    train("workers, first half", made, range(10))
    train("workers, second half", made, range(10, 20))
    train("unconditional workers", trainer(0, None), range(10))
np.savez(out, **found)
"""


def set_tf_config(tf_config):
    os.environ["TF_CONFIG"] = tf_config


@pytest.fixture(scope="module")
def replicas(tf_configs, tmp_path_factory):
    """What one replica did in 20 steps with dropout, and others with the same global batches."""
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "replicas.py").write_text(REPLICAS)

    def run(name, kind, tf_config=None):
        """Writes what a kind of replicas did; each kind needs a process of its own."""
        own_folder = tmp_path_factory.mktemp("process")
        done = processes.run(
            own_folder,
            folder / "replicas.py",
            folder / f"{name}.npz",
            folder / "run",
            kind,
            prepare=tf_config and functools.partial(set_tf_config, tf_config),
        )
        assert done.returncode == 0, done.stderr[-4000:]

    run("by 2", "by 2")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # Worker 1 writes nothing of what is compared: it has the same.
        names = ("workers", "other_worker")
        list(pool.map(run, names, ("workers", "workers"), tf_configs(2)))
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
        ("unconditional 1", "unconditional workers", 10),
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
