"""Models that are exported, by the script and by its function, and how a signature is called."""

import dataclasses

import pytest
import script_runs
import specimens
import tensorflow as tf
from processes import run_in_new_process

from pixel_cnn_pp import export, sampling
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.runs import checkpoints

# One of each kind: what the README's digits are, exported by the script without XLA; and without
# classes, with levels that uint8 does not hold, exported with XLA. Both of a small receptive field,
# which compiles in a third of the time; one of the specimens is exported as a full network.
DIGITS = ModelConfig(
    image_shape=(8, 8, 1),
    num_levels=17,
    nr_resnet=2,
    nr_filters=6,
    nr_logistic_mix=2,
    num_classes=10,
    receptive_field="11x5",
)
DEEP_COLOR = ModelConfig(
    image_shape=(4, 8, 2),
    num_levels=1000,
    nr_resnet=2,
    nr_filters=4,
    nr_logistic_mix=2,
    receptive_field="11x5",
)


def initialized(config, **kwargs):
    """A model that has seen images."""
    model = specimens.fresh(config, **kwargs)
    model.initialize(specimens.images(config, 16), specimens.labels(config, 16))
    return model


def call(served, signature, **arguments):
    """The outputs of a signature as arrays, its inputs in the dtypes that it asks for."""
    function = served.signatures[signature]
    _, specs = function.structured_input_signature
    assert arguments.keys() == specs.keys()
    outputs = function(
        **{name: tf.constant(value, specs[name].dtype) for name, value in arguments.items()}
    )
    return {name: output.numpy() for name, output in outputs.items()}


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run of digits, as training leaves it behind."""
    path = tmp_path_factory.mktemp("run") / "digits"
    script_runs.save(path, dataclasses.replace(script_runs.DIGITS, model=DIGITS))
    return path


@pytest.fixture(scope="session")
def exported(digits_run, tmp_path_factory):
    """What the script made of the run: where, and what it printed."""
    path = tmp_path_factory.mktemp("served") / "digits" / "1"
    done = run_in_new_process("export.py", digits_run, path, "--nojit_compile")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return path, done.stdout


@pytest.fixture(scope="session")
def digits_model(digits_run):
    return checkpoints.load(digits_run, "ema")


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


def exported_chain(name, tmp_path_factory):
    """A chain of the specimens, in float64, and where it is exported to."""
    model = specimens.opinionated(name)
    path = tmp_path_factory.mktemp(name) / "1"
    export.export_saved_model(model, path, jit_compile=False)
    return model, path


@pytest.fixture(scope="session")
def gray_and_colour(tmp_path_factory):
    return exported_chain("gray_and_colour", tmp_path_factory)


@pytest.fixture(scope="session")
def three_sizes(tmp_path_factory):
    return exported_chain("three_sizes", tmp_path_factory)


@pytest.fixture(scope="session")
def seventy(digits_model):
    """Drawn in process: more than a block of the noise holds."""
    return sampling.sample(digits_model, 70, specimens.labels(DIGITS, 70), seed=5)
