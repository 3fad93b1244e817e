"""Likelihoods that give every level a probability of its own."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from mixture_cases import FLOAT32_EPS, SMALL_PIXELS, all_pixels, assert_frequencies, uniforms

from pixel_cnn_pp.likelihoods import Bernoulli, LinearSoftmax, Softmax

NEUTRAL = [1.0, 0.0, 0.0]
EACH_SOFTMAX = pytest.mark.parametrize("softmax_class", [LinearSoftmax, Softmax])


def random_softmax(softmax_class, num_channels, num_levels, seed, batch_shape=()):
    """A softmax, and random raw parameters for it."""
    softmax = softmax_class(num_channels, num_levels)
    rng = np.random.default_rng(seed)
    return softmax, rng.normal(size=(*batch_shape, softmax.num_params)).astype("float32")


def draw_pixels(likelihood, raw_params, quantiles, controls=NEUTRAL):
    """Whole pixels [N, C], channel after channel."""
    channels = []
    for channel in range(likelihood.num_channels):
        channels.append(likelihood.draw(raw_params, channel, channels, quantiles, controls))
    assert all(x.dtype == "uint8" for x in channels)
    return np.stack(channels, axis=-1)


def test_a_linear_softmax_of_the_papers_images_has_1536_raw_parameters_a_pixel():
    assert LinearSoftmax(3, 256).num_params == 1536
    assert Softmax(3, 256).num_params == 768


@EACH_SOFTMAX
@pytest.mark.parametrize(("num_channels", "num_levels"), SMALL_PIXELS)
def test_softmax_probabilities_of_all_pixels_sum_to_1(softmax_class, num_channels, num_levels):
    softmax, raw_params = random_softmax(softmax_class, num_channels, num_levels, seed=3)
    pixels = all_pixels(num_channels, num_levels)
    raw_params = np.repeat(raw_params[None], len(pixels), axis=0)
    log_prob = np.asarray(softmax.log_prob(raw_params, pixels), np.float64)
    assert log_prob.shape == (num_levels**num_channels,)
    # A sum of L float32 numbers for every channel, a few roundings each.
    assert abs(np.sum(np.exp(log_prob)) - 1.0) < 16 * num_channels * FLOAT32_EPS


@EACH_SOFTMAX
def test_softmax_log_prob_is_that_of_its_definition(softmax_class):
    num_channels, num_levels = 3, 5
    softmax, raw_params = random_softmax(softmax_class, num_channels, num_levels, 1, (2, 4))
    levels = np.random.default_rng(0).integers(0, num_levels, (2, 4, num_channels))
    groups = raw_params.astype("float64").reshape(2, 4, -1, num_levels)
    # (group of the coefficients, earlier channel) for each channel
    pairs = [[], [(3, 0)], [(4, 0), (5, 1)]] if softmax_class is LinearSoftmax else [[], [], []]
    y = (levels - 2) / 2
    expected = np.zeros((2, 4))
    for index in np.ndindex(2, 4):
        logits = groups[index]
        for channel, earlier in enumerate(pairs):
            of_channel = logits[channel] + sum(logits[i] * y[index][j] for i, j in earlier)
            log_probs = of_channel - np.logaddexp.reduce(of_channel)
            expected[index] += log_probs[levels[index][channel]]
    log_prob = softmax.log_prob(raw_params, levels.astype("uint8"))
    np.testing.assert_allclose(log_prob, expected, rtol=16 * FLOAT32_EPS)


@EACH_SOFTMAX
@pytest.mark.parametrize(("num_channels", "num_levels"), [(1, 17), (2, 4), (3, 3)])
def test_frequencies_of_draws_agree_with_the_softmax(softmax_class, num_channels, num_levels):
    softmax, raw_params = random_softmax(softmax_class, num_channels, num_levels, seed=2)
    num_draws = 20000
    repeated = np.repeat(raw_params[None], num_draws, axis=0)
    draws = draw_pixels(softmax, repeated, uniforms(num_draws, num_channels, seed=3))
    pixels = all_pixels(num_channels, num_levels)
    log_prob = softmax.log_prob(repeated[: len(pixels)], pixels)
    assert_frequencies(draws, log_prob, num_levels)


@EACH_SOFTMAX
def test_the_temperature_and_the_mode_of_a_softmax(softmax_class):
    softmax, raw_params = random_softmax(softmax_class, 1, 6, seed=5)
    probs = np.exp(raw_params / 0.5)
    edges = np.cumsum(probs) / probs.sum()
    quantiles = uniforms(500, 1, seed=0)
    repeated = np.repeat(raw_params[None], 500, axis=0)
    draws = draw_pixels(softmax, repeated, quantiles, [0.5, 0.0, 0.0])
    np.testing.assert_array_equal(draws[:, 0], np.searchsorted(edges, quantiles[:, 0]))
    modes = draw_pixels(softmax, repeated, quantiles, [0.5, 0.0, 1.0])
    assert (modes == np.argmax(raw_params)).all()
    # The lowest temperature that there is draws the mode as well.
    coldest = draw_pixels(softmax, repeated, quantiles, [float(np.finfo("float32").tiny), 0.0, 0.0])
    np.testing.assert_array_equal(coldest, modes)


def test_a_bernoulli_is_that_of_scipy():
    raw_params = np.random.default_rng(0).normal(size=(4, 6, 3)) * 3
    levels = np.random.default_rng(1).integers(0, 2, (4, 6, 3))
    bernoulli = Bernoulli(3)
    assert (bernoulli.num_params, bernoulli.num_levels) == (3, 2)
    probs = scipy.special.expit(raw_params)
    expected = scipy.stats.bernoulli.logpmf(levels, probs).sum(-1)
    np.testing.assert_allclose(bernoulli.log_prob(raw_params, levels), expected, rtol=1e-13)
    for channel in range(3):
        log_pmf = bernoulli.log_pmf(raw_params, channel, [])
        expected = scipy.stats.bernoulli.logpmf([0, 1], probs[..., channel, None])
        np.testing.assert_allclose(log_pmf, expected, rtol=1e-13)


def test_the_temperature_and_the_mode_of_a_bernoulli():
    raw_params = np.random.default_rng(0).normal(size=(500, 2))
    quantiles = np.random.default_rng(1).uniform(size=(500, 2))
    draws = draw_pixels(Bernoulli(2), raw_params, quantiles, [0.5, 0.0, 0.0])
    # 1 above the probability of 0, that of the logit over the temperature.
    np.testing.assert_array_equal(draws, quantiles >= scipy.special.expit(-raw_params / 0.5))
    modes = draw_pixels(Bernoulli(2), raw_params, quantiles, [0.5, 0.0, 1.0])
    np.testing.assert_array_equal(modes, raw_params > 0)
