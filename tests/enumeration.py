"""Whole distributions: of so few levels and pixels that every image can be scored."""

import numpy as np
import scipy.stats

from pixel_cnn_pp import models


def random_model(config, seed):
    """A model whose pixels depend on each other: all its weights are at random."""
    rng = np.random.default_rng(seed)
    model = models.make(config)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape))
    return model


def all_images(config):
    """Every image of a configuration, uint8 [L^(H W C), H, W, C]."""
    num_dims = int(np.prod(config.image_shape))
    numbers = np.arange(config.num_levels**num_dims)[:, None]
    levels = numbers // config.num_levels ** np.arange(num_dims) % config.num_levels
    return levels.astype(np.uint8).reshape(-1, *config.image_shape)


def assert_follows(counts, probs):
    """Pearson's test of counts under probabilities, which may sum to less than 1: the rest."""
    num_draws = counts.sum()
    expected = probs * num_draws
    common = expected >= 5  # the usual rule
    counts, expected = counts[common], expected[common]
    counts = np.append(counts, num_draws - counts.sum())
    expected = np.append(expected, num_draws - expected.sum())
    if expected[-1] < 5:
        counts = np.append(counts[:-2], counts[-2:].sum())
        expected = np.append(expected[:-2], expected[-2:].sum())
    statistic = np.sum((counts - expected) ** 2 / expected)
    # One seed in a thousand would fail.
    assert statistic < scipy.stats.chi2.ppf(0.999, df=len(counts) - 1)
