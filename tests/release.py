"""Checkpoints as the original release writes them, of any network."""

import numpy as np
import tensorflow as tf

from pixel_cnn_pp import tf1_import

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
