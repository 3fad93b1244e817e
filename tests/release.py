"""Checkpoints as the original release writes them, made by TensorFlow 1's own Saver."""

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
    """Writes variables {name: array} to a path in the format V1, to another in V2, or to both."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = {
            name: tf.compat.v1.Variable(value, name=name, use_resource=False)
            for name, value in variables.items()
        }
        session.run([variable.initializer for variable in made.values()])
        for version, path in paths.items():
            version = getattr(tf.compat.v1.train.SaverDef, version)
            saver = tf.compat.v1.train.Saver(made, write_version=version)
            saver.save(session, str(path), write_meta_graph=False, write_state=False)
