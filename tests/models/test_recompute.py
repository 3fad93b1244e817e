"""What is computed again for its gradient gives the same gradient, and takes less memory."""

import dataclasses

import numpy as np
import pytest
import specimens
import tensorflow as tf
from keras import ops
from specimens import SPECIMENS

from pixel_cnn_pp.config import ModelConfig


def gradients_of(model, images, labels):
    """Nats of a batch, with dropout, and their gradients by all weights."""
    with tf.GradientTape() as tape:
        raw_params = model(images, labels, training=True, seed=[1, 2])
        nats = ops.sum(model.loss_of(raw_params, images))
    return nats, tape.gradient(nats, [weight.value for weight in model.weights])


@pytest.mark.parametrize(
    "name",
    [
        "one_component",
        "small_channels",
        "energy",
        "two_resolutions",
        "pixel_cnn",
        "gated_two",
        "row_lstm",
        "diagonal_bilstm",
    ],
)
def test_what_is_computed_again_has_the_same_gradients(name):
    config = SPECIMENS[name]
    images, labels = specimens.images(config, 4), specimens.labels(config, 4)
    (nats, gradients), (other_nats, others) = (
        gradients_of(specimens.fresh(config, dtype="float64", recompute=recompute), images, labels)
        for recompute in (False, True)
    )
    assert float(nats) == pytest.approx(float(other_nats), rel=1e-13)
    for gradient, other in zip(gradients, others, strict=True):
        assert np.any(gradient)
        # float64: sums of some 1e4 terms, 1e-16 each.
        np.testing.assert_allclose(other, gradient, rtol=1e-10, atol=1e-10)


def test_computing_again_takes_less_than_half_of_the_memory():
    # Large enough that what the blocks keep is most of it.
    # At one resolution, because there are fewer kinds of blocks to trace.
    network = {"nr_filters": 16, "nr_resnet": 3, "num_resolutions": 1}
    config = ModelConfig((16, 20, 2), nr_logistic_mix=1, **network)
    images, labels = specimens.images(config, 32), None
    num_bytes = []
    for recompute in (False, True):
        model = specimens.fresh(config, recompute=recompute)
        step = tf.function(gradients_of, autograph=False)
        (device,) = {weight.value.device for weight in model.weights}
        step(model, images, labels)
        before = tf.config.experimental.get_memory_info(device)["current"]
        tf.config.experimental.reset_memory_stats(device)
        step(model, images, labels)
        num_bytes.append(tf.config.experimental.get_memory_info(device)["peak"] - before)
    kept, recomputed = num_bytes
    assert 0 < recomputed < kept / 2


@pytest.mark.parametrize("name", ["small_nin", "pixel_cnn", "row_lstm", "diagonal_bilstm"])
def test_a_vector_that_is_learned_gets_its_gradient(name):
    config = dataclasses.replace(SPECIMENS[name], num_classes=None, condition_shape=(3,))
    images = specimens.images(config, 4)
    vectors = tf.Variable(specimens.labels(config, 4).astype("float64"))
    gradients = []
    for recompute in (False, True):
        model = specimens.fresh(config, dtype="float64", recompute=recompute)
        with tf.GradientTape() as tape:
            nats = -ops.sum(model.log_prob(images, vectors))
        gradients.append(tape.gradient(nats, vectors).numpy())
    assert np.abs(gradients[0]).min() > 0
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-10, atol=1e-10)
