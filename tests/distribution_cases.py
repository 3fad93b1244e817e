"""Parameters of the mixture as a TensorFlow Probability distribution, and what it should say."""

import numpy as np
import tensorflow as tf

from pixel_cnn_pp.likelihoods import LogisticMixture, MixtureParams

FLOAT32_EPS = float(np.finfo("float32").eps)


SEED = (3, 8)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def parameters(batch_shape=(), num_channels=3, num_components=4):
    """Keyword arguments of the distribution."""
    num_coeffs = num_channels * (num_channels - 1) // 2
    return {
        "mixture_logits": numbers(*batch_shape, num_components, seed=1),
        "loc": numbers(*batch_shape, num_channels, num_components, seed=2),
        "log_scale": numbers(*batch_shape, num_channels, num_components, seed=3) - 2.0,
        "coeffs": np.tanh(numbers(*batch_shape, num_coeffs, num_components, seed=4)),
    }


def broadcasting_parameters():
    """Parameters of which every one has another batch shape; together they make [6, 5]."""
    return {
        "mixture_logits": numbers(4, seed=1),
        "loc": numbers(5, 3, 4, seed=2),
        "log_scale": numbers(1, 3, 4, seed=3) - 2.0,
        "coeffs": np.tanh(numbers(6, 1, 3, 4, seed=4)),
    }


def broadcast_parameters():
    """The same numbers, every parameter with the whole batch shape."""
    ends = {"mixture_logits": (4,), "loc": (3, 4), "log_scale": (3, 4), "coeffs": (3, 4)}
    return {
        name: np.broadcast_to(value, (6, 5, *ends[name]))
        for name, value in broadcasting_parameters().items()
    }


def expected_log_prob(arguments, value, num_levels=256):
    mixture = LogisticMixture(arguments["loc"].shape[-2], num_levels)
    params = MixtureParams(*(tf.constant(values) for values in arguments.values()))
    return mixture.log_prob(params, np.asarray(value))
