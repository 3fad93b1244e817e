"""Mode and mean of a pixel under a mixture of logistics."""

import numpy as np
from keras import ops

from pixel_cnn_pp.likelihoods import logistic
from pixel_cnn_pp.likelihoods.logistic import logistic_bin_log_mass
from pixel_cnn_pp.likelihoods.mixture import MixtureParams
from pixel_cnn_pp.likelihoods.scale import from_unit_scale, level_dtype, to_unit_scale

# Number of levels that the search for the mode tries at a time. It only limits the memory.
_CHUNK = 256
# Up to this many levels, `mean` sums over all levels of earlier channels. With more levels, it sums
# over this many quantiles.
_MAX_NODES = 16


def mode(mixture, params):
    """The most probable pixel.

    The search starts from several pixels and takes the best of them. In these pixels, every channel
    is the centre of a component, level 0 or level L - 1. The bins of the last two are open-ended
    and can have much mass. Then the search sets one channel after the other to its most probable
    level given the other channels. For this it tries all L levels. It repeats this a few times.

    The result is exact for C = 1. For more channels, it is nearly always the global maximum.

    Args:
      mixture: LogisticMixture.
      params: MixtureParams.

    Returns:
      Tensor [..., C], whole numbers of `level_dtype`.
    """
    starts = []  # the values of every channel, x in [-1, 1]: each [..., N, K]
    for channel in range(mixture.num_channels):
        loc = mixture.conditional_loc(_insert_axis(params), channel, starts)
        centres = _nearest_level(mixture, loc)  # [..., N, K]
        ends = ops.ones_like(centres)
        starts = _cross(starts, ops.stack([centres, -ends, ends], axis=-3))
    starts = from_unit_scale(ops.stack(starts, axis=-1), mixture.num_levels)  # [..., N, K, C]
    *batch_shape, num_nodes, num_components, num_channels = ops.shape(starts)
    starts = ops.reshape(starts, (*batch_shape, num_nodes * num_components, num_channels))
    best = _best(mixture, params, starts)
    num_sweeps = 1 if mixture.num_channels == 1 else 3
    for _ in range(num_sweeps):
        for channel in range(mixture.num_channels):
            for first in range(0, mixture.num_levels, _CHUNK):
                tried = ops.arange(first, min(first + _CHUNK, mixture.num_levels))
                tried = ops.cast(tried, best.dtype)[:, None]  # [n, 1]
                is_channel = ops.arange(mixture.num_channels) == channel  # [C]
                candidates = ops.where(is_channel, tried, best[..., None, :])  # [..., n, C]
                candidates = ops.concatenate([best[..., None, :], candidates], axis=-2)
                best = _best(mixture, params, candidates)
    return ops.cast(best, level_dtype(mixture.num_levels))


def mean(mixture, params):
    """The expected level of every channel.

    The result is exact for C = 1 and for L <= 16. Otherwise the mean of a later channel is an
    average over 16 quantiles of each earlier channel, which are not rounded to levels. The error is
    well below one level.

    Args:
      mixture: LogisticMixture.
      params: MixtureParams.

    Returns:
      Float tensor [..., C], in [0, L - 1].
    """
    weights = ops.softmax(params.mixture_logits, axis=-1)  # [..., K]
    is_exact = mixture.num_levels <= _MAX_NODES
    params = _insert_axis(params)
    nodes = []  # the values of every earlier channel, x in [-1, 1]: each [..., N, K]
    node_probs = ops.ones_like(params.mixture_logits)  # [..., N, K]
    means = []
    for channel in range(mixture.num_channels):
        loc = mixture.conditional_loc(params, channel, nodes)  # [..., N, K]
        log_scale = params.log_scale[..., channel, :]  # [..., 1, K]
        if channel == 0 or is_exact:
            mean_level = logistic.discretized_logistic_mean(loc, log_scale, mixture.num_levels)
        else:
            mean_level = logistic.clipped_logistic_mean(loc, log_scale, mixture.num_levels)
        mean_level = ops.sum(mean_level * node_probs, axis=-2)  # [..., K]
        means.append(ops.sum(mean_level * weights, axis=-1))
        if channel + 1 < mixture.num_channels:
            values, probs = _nodes(mixture, loc, log_scale, is_exact)  # [..., n, N, K]
            nodes = _cross(nodes, values)
            node_probs = _merge_nodes(node_probs[..., None, :, :] * probs)
    return ops.stack(means, axis=-1)


def _best(mixture, params, candidates):
    """The most probable of n candidates [..., n, C], as [..., C]."""
    log_prob = mixture.log_prob(_insert_axis(params), candidates)  # [..., n]
    chosen = ops.one_hot(
        ops.argmax(log_prob, axis=-1), candidates.shape[-2], dtype=candidates.dtype
    )  # [..., n]
    return ops.sum(candidates * chosen[..., None], axis=-2)


def _nodes(mixture, loc, log_scale, is_exact):
    """n values of a channel and their probabilities, for an average: [..., n, N, K] each."""
    loc, log_scale = loc[..., None, :, :], log_scale[..., None, :, :]
    if is_exact:
        levels = ops.arange(mixture.num_levels)[:, None, None]  # [n, 1, 1]
        probs = ops.exp(logistic_bin_log_mass(levels, loc, log_scale, mixture.num_levels))
        return to_unit_scale(levels, mixture.num_levels, loc.dtype) + 0 * probs, probs
    quantiles = (np.arange(_MAX_NODES) + 0.5) / _MAX_NODES
    noise = np.log(quantiles) - np.log1p(-quantiles)
    noise = ops.convert_to_tensor(noise[:, None, None], dtype=loc.dtype)
    values = _nearest_level(mixture, loc + ops.exp(log_scale) * noise)
    return values, ops.ones_like(values) / _MAX_NODES


def _nearest_level(mixture, values):
    """Rounds values to the nearest level. Values and result are in the scale [-1, 1]."""
    levels = from_unit_scale(values, mixture.num_levels)
    return to_unit_scale(levels, mixture.num_levels, values.dtype)


def _insert_axis(params):
    """Adds an axis of size 1 after the batch axes, so that one pixel has many candidates."""
    return MixtureParams(
        params.mixture_logits[..., None, :],
        params.loc[..., None, :, :],
        params.log_scale[..., None, :, :],
        None if params.coeffs is None else params.coeffs[..., None, :, :],
    )


def _cross(nodes, values):
    """Combines nodes, a list of [..., N, K] for each channel, with n values of a new channel.

    The values have the shape [..., n, N, K]. Returns the list with the new channel at its end. Each
    element has the shape [..., n N, K].
    """
    nodes = [_merge_nodes(node[..., None, :, :] + 0 * values) for node in nodes]
    return [*nodes, _merge_nodes(values)]


def _merge_nodes(x):
    """[..., n, N, K] -> [..., n N, K]."""
    shape = ops.shape(x)
    return ops.reshape(x, (*shape[:-3], shape[-3] * shape[-2], shape[-1]))
