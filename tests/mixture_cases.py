"""Parameters of mixtures, pixels, uniforms, and how draws are compared with probabilities."""

import itertools
import pathlib

import numpy as np
import scipy.stats
from keras import ops

from pixel_cnn_pp.likelihoods import MixtureParams

GOLDEN = pathlib.Path(__file__).parent / "golden"


FLOAT32_EPS = float(np.finfo("float32").eps)
FLOAT64_EPS = float(np.finfo("float64").eps)


# (C, L) of which all L^C pixels can be scored.
SMALL_PIXELS = [(1, 2), (1, 17), (1, 256), (2, 2), (2, 16), (2, 17), (3, 2), (3, 5), (4, 3)]


LOG_SCALES = (-7.0, -5.5, -3.0, -1.0, 0.0, 2.0, 5.0, 10.0)


LOCS = (-1e4, -30.0, -1.5, -1.0, -0.3, 0.0, 0.004, 0.7, 1.0, 2.0, 1e4)


def random_params(num_channels, num_components, seed, batch_shape=(), narrowest=-7.0):
    """Parameters spread so that narrow, wide, inner and outer components all occur."""
    rng = np.random.default_rng(seed)
    num_coeffs = num_channels * (num_channels - 1) // 2

    def normal(*shape):
        return rng.normal(size=(*batch_shape, *shape)).astype("float32")

    return as_tensors(
        MixtureParams(
            mixture_logits=normal(num_components),
            loc=0.7 * normal(num_channels, num_components),
            log_scale=np.maximum(1.5 * normal(num_channels, num_components) - 2.0, narrowest),
            coeffs=np.tanh(normal(num_coeffs, num_components)) if num_coeffs else None,
        )
    )


def as_tensors(params, dtype="float32"):
    return MixtureParams(
        *[
            None if values is None else ops.convert_to_tensor(np.asarray(values), dtype)
            for values in params
        ]
    )


def with_candidates(params):
    """Parameters with an axis of one, against which all pixels broadcast."""
    return MixtureParams(*[None if values is None else values[None] for values in params])


def all_pixels(num_channels, num_levels):
    """All L^C pixels, [L^C, C]."""
    return np.array(list(itertools.product(range(num_levels), repeat=num_channels)))


def as_raw(params):
    """Raw parameters that `LogisticMixture.split` reads as these, for log-scales over the floor."""
    num_channels, num_coeffs = params.loc.shape[-2], 0
    groups = [params.mixture_logits]
    for channel in range(num_channels):
        groups += [params.loc[..., channel, :], params.log_scale[..., channel, :]]
        # Coefficients are dealt in order, as evenly as can be.
        share = num_channels * (num_channels - 1) // 2 * (channel + 1) // num_channels
        groups += [np.arctanh(params.coeffs[..., i, :]) for i in range(num_coeffs, share)]
        num_coeffs = share
    return ops.concatenate(groups, axis=-1)


def uniforms(*shape, seed):
    """Float32 numbers in (0, 1)."""
    return np.random.default_rng(seed).uniform(1e-7, 1 - 1e-7, shape).astype("float32")


def assert_frequencies(draws, log_prob, num_levels):
    """Pearson's test of drawn pixels [N, C] against the log-probabilities of all of them."""
    num_draws, num_channels = draws.shape
    index = np.ravel_multi_index(np.asarray(draws).T, (num_levels,) * num_channels)
    counts = np.bincount(index, minlength=num_levels**num_channels)
    expected = num_draws * np.exp(np.asarray(log_prob, np.float64))
    # It wants 5 expected in every cell: the rare ones are pooled.
    is_rare = expected < 5
    counts = np.append(counts[~is_rare], np.sum(counts[is_rare]))
    expected = np.append(expected[~is_rare], np.sum(expected[is_rare]))
    counts, expected = counts[expected > 1], expected[expected > 1]
    assert len(counts) > 5
    statistic = np.sum((counts - expected) ** 2 / expected)
    # One false alarm in 10000 for another seed; with this one, never.
    assert statistic < scipy.stats.chi2.isf(1e-4, len(counts) - 1)
