"""The logistic distribution of one sub-pixel: mass of a level, mean level, limit of its scale."""

import math

import numpy as np
from keras import ops

from pixel_cnn_pp.likelihoods.scale import to_unit_scale

# Lower limit of the log-scales for up to 256 levels, as in the original release.
_MIN_LOG_SCALE = -7.0
# Number of levels that a sum takes at a time. It limits the memory and does not change the result.
_CHUNK = 256


def min_log_scale(num_levels):
    """The lower limit of a logistic's log-scale, in the scale [-1, 1].

    Up to 256 levels it is -7, as in the original release. With more levels it is
    -7 - log((L - 1) / 255), so that the narrowest logistic has the same width in levels at every L:
    0.116 of a level.

    Args:
      num_levels: L, at least 2.

    Returns:
      Float.

    >>> min_log_scale(256), round(min_log_scale(65536), 3)
    (-7.0, -12.549)
    """
    return _MIN_LOG_SCALE - math.log(max(1.0, (num_levels - 1) / 255))


def logistic_bin_log_mass(levels, loc, log_scale, num_levels):
    """Log of the mass that a logistic puts into the bin [x - 1/2, x + 1/2] around a level.

    With a and b the standardised upper and lower edge of the bin,

        sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(-(a - b))),

    so the logarithm is a sum of terms that are precise in both tails:

        log P = -softplus(-a) - softplus(b) + log(-expm1(-(a - b))).

    The outermost bins are open-ended (Salimans et al. 2017, equation 2): level 0 drops the terms of
    the lower edge, and level L - 1 drops the terms of the upper edge. If the mass is below 1e-5,
    the original release uses the density in the middle of the bin. This function is exact instead.

    Args:
      levels: Tensor that broadcasts against `loc`, whole numbers in [0, L - 1].
      loc: Float tensor, the logistic's mean in the scale [-1, 1].
      log_scale: Float tensor that broadcasts against `loc`, the log of its scale.
      num_levels: L, at least 2.

    Returns:
      Tensor of the broadcast shape, nats.
    """
    upper, lower, width, is_bottom, is_top = _bin(levels, loc, log_scale, num_levels)
    # exp(-log_scale) underflows above log_scale = 80. The limit keeps the logarithm finite there.
    width = ops.maximum(width, float(np.finfo("float32").tiny))
    log_below_upper = -ops.softplus(-upper)
    log_above_lower = -ops.softplus(lower)
    inside = log_below_upper + log_above_lower + ops.log(-ops.expm1(-width))
    return ops.where(is_bottom, log_below_upper, ops.where(is_top, log_above_lower, inside))


def logistic_bin_mass(levels, loc, log_scale, num_levels, size):
    """The mass that a logistic puts into a bin of several levels.

    The bin of x is that of the levels x to x + size - 1 together, as far as they exist. The product
    of `logistic_bin_log_mass` is computed as it stands. So the result is as precise in both tails,
    down to the smallest number of the dtype, and takes less than half the time.

    Args:
      levels, loc, log_scale, num_levels: As in `logistic_bin_log_mass`.
      size: Number of levels in a bin.

    Returns:
      Tensor of the broadcast shape, in [0, 1].
    """
    upper, lower, width, is_bottom, is_top = _bin(levels, loc, log_scale, num_levels, size)
    below_upper = ops.where(is_top, 1, 1 / (1 + ops.exp(-upper)))
    above_lower = ops.where(is_bottom, 1, 1 / (1 + ops.exp(lower)))
    return below_upper * above_lower * ops.where(is_bottom | is_top, 1, -ops.expm1(-width))


def _bin(levels, loc, log_scale, num_levels, size=1):
    """The standardised bin of levels: (upper edge, lower edge, width, is at 0, is at L - 1)."""
    levels = ops.cast(levels, loc.dtype)
    half_bin = 1.0 / (num_levels - 1)
    inverse_scale = ops.exp(-log_scale)
    distance = to_unit_scale(levels, num_levels, loc.dtype) - loc
    upper = (distance + (2 * size - 1) * half_bin) * inverse_scale
    lower = (distance - half_bin) * inverse_scale
    # The width is computed in closed form, because the difference of the two edges loses digits.
    width = 2 * size * half_bin * inverse_scale
    return upper, lower, width, levels < 0.5, levels > num_levels - size - 0.5


def discretized_logistic_mean(loc, log_scale, num_levels):
    """E[level] = sum{ P(level > v) : v = 0 .. L - 2 }, in levels; shapes as `loc`."""
    inverse_scale = ops.exp(-log_scale)
    total = ops.zeros_like(loc)
    for first in range(0, num_levels - 1, _CHUNK):
        edges = np.arange(first, min(first + _CHUNK, num_levels - 1)) + 0.5
        edges = to_unit_scale(ops.convert_to_tensor(edges, dtype=loc.dtype), num_levels, loc.dtype)
        above = ops.sigmoid((loc[..., None] - edges) * inverse_scale[..., None])
        total = total + ops.sum(above, axis=-1)
    return total


def clipped_logistic_mean(loc, log_scale, num_levels):
    """E[clip(x, -1, 1)] = -1 + s (softplus((loc + 1) / s) - softplus((loc - 1) / s)), in levels."""
    scale = ops.exp(log_scale)
    expected = -1.0 + scale * (ops.softplus((loc + 1) / scale) - ops.softplus((loc - 1) / scale))
    return (expected + 1.0) * ((num_levels - 1) / 2)
