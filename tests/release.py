"""Checkpoints as the original release writes them, of any network, and the recorded ones."""

import shutil

import numpy as np
import pytest
import specimens
import tensorflow as tf
from specimens import GOLDEN

from pixel_cnn_pp import tf1_import
from pixel_cnn_pp.config import ModelConfig, TrainingConfig
from pixel_cnn_pp.runs import optimizers

AVERAGE = "/ExponentialMovingAverage"
FORMATS = ("V1", "V2")
STEP = 7  # updates that `unnamed_variables` speak of


def network_variables(model):
    """{name: array}, the weights of a model and averages of values of their own."""
    rng = np.random.default_rng(1)
    weights = {k: np.asarray(v) for k, v in tf1_import.release_variables(model).items()}
    averages = {k + AVERAGE: rng.standard_normal(v.shape, "float32") for k, v in weights.items()}
    return weights | averages


def unnamed_variables(model, num_labels=0):
    """{name: array}, what the release saves without a name.

    First the labels of its pictures, a vector for each GPU in a network with classes, then Adam's
    step, which is 1 before the first update, then of each weight the second and the first moment.
    """
    rng = np.random.default_rng(2)
    values = [np.arange(16)] * num_labels + [np.float32(STEP + 1)]
    for weight in tf1_import.release_variables(model).values():
        values.append(rng.random(weight.shape, "float32"))
        values.append(rng.standard_normal(weight.shape, "float32"))
    return {f"Variable_{i}" if i else "Variable": value for i, value in enumerate(values)}


def save(variables, **paths):
    """Writes variables {name: array} to a path in the format V1, to another in V2, or to both.

    By the operations that TensorFlow 1's Saver runs, without the graph that takes it seconds.
    """
    names, values = list(variables), [tf.constant(value) for value in variables.values()]
    whole = [""] * len(names)
    for version, path in paths.items():
        if version == "V1":
            tf.raw_ops.SaveSlices(
                filename=str(path), tensor_names=names, shapes_and_slices=whole, data=values
            )
        else:
            tf.raw_ops.SaveV2(
                prefix=str(path), tensor_names=names, shape_and_slices=whole, tensors=values
            )


TINY = ModelConfig(
    image_shape=(8, 12, 3), nr_resnet=1, nr_filters=4, nr_logistic_mix=2, num_classes=3
)
# The recorded checkpoint of a network with classes, in the newer format and in the older.
RECORDED_FILES = {"V2": GOLDEN / "init_train_cond.ckpt", "V1": GOLDEN / "init_train_cond_v1.ckpt"}
V2_FILES = ("init_train_cond.ckpt.index", "init_train_cond.ckpt.data-00000-of-00001")


def copy_v2(folder, prefix="params.ckpt"):
    """A copy of the recorded checkpoint; its prefix."""
    for name in V2_FILES:
        shutil.copy(GOLDEN / name, folder / name.replace("init_train_cond.ckpt", prefix))
    return folder / prefix


def copy_v1(folder):
    return shutil.copy(RECORDED_FILES["V1"], folder / "older.ckpt")


def named_weights(model):
    return {name: np.asarray(v) for name, v in tf1_import.release_variables(model).items()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


def averages_of(variables):
    return {
        name.removesuffix(AVERAGE): value
        for name, value in variables.items()
        if name.endswith(AVERAGE)
    }


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message


def fresh_pair(config):
    """A model, and the optimizer of the release, built on its weights."""
    model = specimens.fresh(config)
    optimizer = optimizers.make_optimizer(TrainingConfig(optimizer="adam"))
    optimizer.build(model.trainable_variables)
    return model, optimizer


@pytest.fixture(scope="session")
def tiny():
    """A network with classes; never changed."""
    return specimens.fresh(TINY)


@pytest.fixture(scope="session")
def tiny_variables(tiny):
    """What the release would save of it, trained on two GPUs; never changed."""
    return network_variables(tiny) | unnamed_variables(tiny, num_labels=2)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_variables, tmp_path_factory):
    """Prefix of that checkpoint; never changed."""
    path = tmp_path_factory.mktemp("tiny") / "params.ckpt"
    save(tiny_variables, V2=path)
    return path


class FakeReader:
    """What TensorFlow's reader says of a checkpoint, of variables that were never written."""

    def __init__(self, variables):
        self._variables = variables

    def get_variable_to_shape_map(self):
        return {name: list(np.shape(value)) for name, value in self._variables.items()}

    def get_variable_to_dtype_map(self):
        return {name: tf.as_dtype(value.dtype) for name, value in self._variables.items()}

    def get_tensor(self, name):
        return self._variables[name]


@pytest.fixture
def pretend(monkeypatch):
    """Function of variables {name: array}: the path of a checkpoint that seems to hold them."""

    def pretend_to_hold(variables):
        monkeypatch.setattr(tf.train, "load_checkpoint", lambda path: FakeReader(variables))
        return RECORDED_FILES["V1"]

    return pretend_to_hold
