"""Dequantized data: a bound that never beats the integral over the bins."""

import functools

import numpy as np
import pytest
import scipy.stats
from mixture_cases import (
    FLOAT32_EPS,
    all_pixels,
    as_raw,
    as_tensors,
    random_params,
)

from pixel_cnn_pp.likelihoods import DequantizedMixture, DiscretizedMixture, MixtureParams


def as_float64(params):
    return MixtureParams(*(None if x is None else np.asarray(x, np.float64) for x in params))


def mass_of_the_bins(params, levels, num_levels):
    """What the continuous mixture puts into the bins of pixels [N, C], all of them closed."""
    params, values = as_float64(params), (levels * 2 - (num_levels - 1)) / (num_levels - 1)
    weights = np.exp(params.mixture_logits) / np.exp(params.mixture_logits).sum()
    mass = np.ones((len(levels), len(weights)))
    for channel in range(levels.shape[-1]):
        loc = np.repeat(params.loc[channel][None], len(levels), axis=0)
        for j in range(channel):
            coeffs = params.coeffs[channel * (channel - 1) // 2 + j]
            loc = loc + coeffs * values[:, j : j + 1]
        edges = [values[:, channel, None] + side / (num_levels - 1) for side in (-1, 1)]
        scale = np.exp(params.log_scale[channel])
        below, above = (scipy.stats.logistic.cdf(edge, loc, scale) for edge in edges)
        mass *= above - below
    return mass @ weights


@pytest.mark.parametrize(("num_channels", "num_levels"), [(1, 8), (2, 5), (3, 3)])
def test_the_bound_of_dequantized_data_is_never_better_than_the_integral_over_the_bin(
    num_channels, num_levels
):
    likelihood = DequantizedMixture(num_channels, num_levels, num_components=2)
    # Wide enough that the nodes below resolve every density.
    params = random_params(num_channels, 2, seed=6, narrowest=-2.5)
    params = as_tensors(params, "float64")
    raw_params = as_raw(params)[None]
    pixels = all_pixels(num_channels, num_levels)
    # Gauss-Legendre over the bin, the product of a channel's nodes.
    nodes, weights = np.polynomial.legendre.leggauss(24)
    noise = np.stack(np.meshgrid(*[(nodes + 1) / 2] * num_channels, indexing="ij"), -1)
    noise = noise.reshape(-1, num_channels)
    weights = functools.reduce(np.multiply.outer, [weights / 2] * num_channels).ravel()
    log_density = np.stack(
        [
            np.asarray(likelihood.log_prob(raw_params, np.repeat([x], len(noise), 0), noise))
            for x in pixels
        ]
    )  # [pixels, nodes]
    bound, integral = log_density @ weights, np.exp(log_density) @ weights
    np.testing.assert_allclose(integral, mass_of_the_bins(params, pixels, num_levels), rtol=1e-9)
    assert (bound < np.log(integral)).all()
    # The sampler clips to the outermost levels, whose bins it so opens: that only adds mass.
    discretized = DiscretizedMixture(num_channels, num_levels, num_components=2)
    discretized = np.asarray(discretized.log_prob(raw_params, pixels))
    assert (np.log(integral) <= discretized + 1e-12).all()
    assert discretized.sum() > np.log(integral).sum() + 0.1, "at the ends there is such mass"


def test_a_density_far_out_in_the_tails_is_finite():
    likelihood = DequantizedMixture(1, 256, num_components=1)
    raw_params = as_raw(as_tensors(MixtureParams([[0.0]], [[[-50.0]]], [[[-7.0]]], None)))
    log_prob = likelihood.log_prob(raw_params, np.array([[255]]), np.array([[0.5]]))
    # -distance / s - log(s) - log(127.5); exp(7) times 51 in float32.
    expected = -51 * np.exp(7.0) + 7 - np.log(127.5)
    np.testing.assert_allclose(log_prob, [expected], rtol=4 * FLOAT32_EPS)
