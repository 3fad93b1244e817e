"""The energy distance, which scores samples in place of a likelihood."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from pixel_cnn_pp import layers, likelihoods


def make_energy_distance():
    """The energy distance of 2 channels of 17 levels, with a head of random weights in float64."""
    head = layers.SampleHead(2, name="head", dtype="float64")
    head.build((None, None, None, head.NUM_FEATURES))
    rng = np.random.default_rng(4)
    for weight in head.weights:
        weight.assign(rng.normal(size=weight.shape))
    return likelihoods.EnergyDistance(17, head), head


def test_the_energy_distance_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    images, samples = rng.uniform(-1, 1, (2, 3, 5, 2)), rng.uniform(-1, 1, (4, 2, 3, 5, 2))

    def distance(a, b):
        return np.sum((1e-10 + np.sum((a - b) ** 2, -1) * 8**2) ** 0.75, axis=(1, 2))

    to_images = np.mean([distance(images, sample) for sample in samples], axis=0)
    pairs = itertools.combinations(samples, 2)
    between = np.mean([distance(a, b) for a, b in pairs], axis=0)
    found = likelihoods.energy_distance(tf.constant(images), tf.constant(samples), num_levels=17)
    np.testing.assert_allclose(found, 2 * to_images - between, rtol=1e-12)


def test_the_loss_is_the_energy_distance_of_the_samples_that_the_head_makes_of_the_noise():
    likelihood, head = make_energy_distance()
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 4, 6, 64))
    levels = rng.integers(0, 17, (3, 4, 6, 2))
    noise = rng.uniform(size=(3, *likelihood.noise_shape(4, 6)))
    assert noise.shape == (3, 10, 4, 6, 4)
    samples = np.stack([head(features, 2 * noise[:, i] - 1) for i in range(10)])
    expected = likelihoods.energy_distance(tf.constant(levels / 8 - 1), tf.constant(samples), 17)
    np.testing.assert_allclose(likelihood.loss(features, levels, noise), expected, rtol=1e-12)


def test_a_draw_is_the_channel_of_the_sample_that_the_head_makes_of_the_uniforms():
    likelihood, head = make_energy_distance()
    rng = np.random.default_rng(0)
    features, uniforms = rng.normal(size=(50, 64)), rng.uniform(size=(50, 4))
    expected = np.rint(8 * np.asarray(head(features, 2 * uniforms - 1)) + 8)
    stepwise = likelihood.using({"head": head.step_weights()})
    for each in (likelihood, stepwise):
        draws = [each.draw(features, c, [None] * c, uniforms, [1.0, 0.0, 0.0]) for c in (0, 1)]
        np.testing.assert_array_equal(np.stack(draws, axis=-1), expected)


@pytest.mark.parametrize(
    "ask",
    [
        lambda likelihood: likelihood.log_prob(np.zeros((1, 64)), np.zeros((1, 2))),
        lambda likelihood: likelihood.log_pmf(np.zeros((1, 64)), 0, []),
        lambda likelihood: likelihood.require_log_prob(),
    ],
)
def test_the_energy_distance_refuses_to_give_probabilities_in_one_line(ask):
    with pytest.raises(ValueError, match=r"has no likelihood.*Received: ") as caught:
        ask(make_energy_distance()[0])
    assert "\n" not in str(caught.value)
