"""The narrowest logistic is as wide, in levels, at every number of levels."""

import numpy as np
import pytest
import tensorflow as tf

from pixel_cnn_pp import config, likelihoods, models
from pixel_cnn_pp.likelihoods import DiscretizedMixture, LogisticMixture, logistic


def bits_of_the_narrowest(num_levels, min_log_scale=None):
    """Bits of inner levels, each under a mixture of one component at it and as narrow as can be."""
    likelihood = DiscretizedMixture(1, num_levels, 1, min_log_scale)
    levels = np.unique(np.linspace(1, num_levels - 2, 100).astype(int))[:, None]
    loc = likelihoods.to_unit_scale(levels, num_levels)
    raw_params = np.concatenate([0 * loc, loc, 0 * loc - 1e4], axis=-1)
    return -np.asarray(likelihood.log_prob(raw_params.astype("float32"), levels)) / np.log(2)


@pytest.mark.parametrize("num_levels", [2, 3, 17, 255, 256])
def test_up_to_256_levels_the_floor_is_that_of_the_release(num_levels):
    assert logistic.min_log_scale(num_levels) == -7.0
    params = LogisticMixture(1, num_levels).split(tf.constant([0.0, 0.0, -1e4]))
    assert params.log_scale[0, 0] == -7.0


@pytest.mark.parametrize("num_levels", [257, 1000, 4096, 65536])
def test_above_256_levels_the_narrowest_logistic_keeps_its_width_in_levels(num_levels):
    half_range = (num_levels - 1) / 2
    width = np.exp(logistic.min_log_scale(num_levels)) * half_range
    assert width == pytest.approx(np.exp(-7.0) * 127.5, rel=1e-12)


@pytest.mark.parametrize("num_levels", [256, 4096, 65536])
def test_the_narrowest_inner_sub_pixel_costs_almost_nothing(num_levels):
    # Half a level is 4.3 of its scales: log2 of 1 - 2 sigmoid(-4.3). In float32 at 16 bits, the
    # distance from a mean is good to 1% of such a scale.
    half_level = 0.5 / (np.exp(-7.0) * 127.5)
    expected = -np.log2(np.tanh(half_level / 2))
    assert expected < 0.05
    bits = bits_of_the_narrowest(num_levels)
    assert np.max(bits) < 0.05
    np.testing.assert_allclose(bits, expected, rtol=2e-3)


@pytest.mark.parametrize(("num_levels", "expected"), [(4096, 2.9), (65536, 6.9)])
def test_an_explicit_floor_of_minus_7_is_that_of_earlier_versions(num_levels, expected):
    params = LogisticMixture(1, num_levels, -7.0).split(tf.constant([0.0, 0.0, -1e4]))
    assert params.log_scale[0, 0] == -7.0
    bits = bits_of_the_narrowest(num_levels, min_log_scale=-7.0)
    np.testing.assert_allclose(bits, expected, atol=0.05)


def test_a_constant_16_bit_picture_is_learned_to_under_a_tenth_of_a_bit():
    model = models.make(
        config.ModelConfig(
            image_shape=(4, 4, 1),
            num_levels=65536,
            nr_filters=4,
            nr_logistic_mix=1,
            receptive_field="11x5",
            dropout_p=0.0,
        )
    )
    picture = tf.fill((1, 4, 4, 1), 40000)
    weights = model.trainable_variables
    squares = [tf.Variable(tf.zeros(weight.shape)) for weight in weights]
    num_steps = 1500

    @tf.function
    def train():
        """RMSProp, of which the means end with steps of a hundredth of the floor's scale.

        The bias of the log-scales keeps its rate, by which it reaches the floor within the steps.
        """
        for square in squares:
            square.assign(tf.zeros_like(square))
        for step in tf.range(num_steps):
            rate = 0.05 * 2e-6 ** (tf.cast(step, tf.float32) / num_steps)
            with tf.GradientTape() as tape:
                bits = model.bits_per_dim(picture)[0]
            gradients = tape.gradient(bits, [weight.value for weight in weights])
            for weight, gradient, square in zip(weights, gradients, squares, strict=True):
                square.assign(0.9 * square + 0.1 * gradient**2)
                rates = rate
                if weight is model.output_layer.b:  # logits, means, log-scales
                    rates = tf.stack([rate, rate, 0.0125])
                weight.assign_sub(rates * gradient / (tf.sqrt(square) + 1e-30))
        return model.bits_per_dim(picture)[0]

    # So steep a valley is missed from four starts in ten: any of eight will do.
    results = []
    for seed in range(2, 10):
        rng = np.random.default_rng(seed)
        for weight in weights:
            fresh = {"v": 0.05 * rng.normal(size=weight.shape), "g": 1.0, "b": 0.0}[weight.name]
            weight.assign(np.broadcast_to(fresh, weight.shape))
        results.append(float(train()))
        if results[-1] < 0.1:
            break
    assert min(results) < 0.1, results


@pytest.mark.parametrize("min_log_scale", [None, -7.0])
def test_a_distribution_of_raw_parameters_has_the_floor_that_it_is_given(min_log_scale):
    from pixel_cnn_pp.likelihoods.distributions import DiscretizedLogisticMixture

    mixture = LogisticMixture(1, 4096, min_log_scale)
    raw_params = tf.constant([0.0, 0.0, -1e4])
    pixel = DiscretizedLogisticMixture.from_raw_params(
        raw_params, 1, 4096, min_log_scale=min_log_scale
    )
    expected = mixture.log_prob(mixture.split(raw_params), np.array([2047]))
    np.testing.assert_array_equal(pixel.log_prob([2047]), expected)
