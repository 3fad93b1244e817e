"""Conversion between levels and the scale [-1, 1].

Images outside the network are integers in [0, L - 1]. The network and its mixture use the scale
[-1, 1]. These functions are the only conversions between the two.
"""

import math

from keras import ops


def level_dtype(num_levels):
    """The integer dtype of images with `num_levels` levels: uint8 up to 256, int32 above."""
    return "uint8" if num_levels <= 256 else "int32"


def to_unit_scale(levels, num_levels, dtype="float32"):
    """Maps whole numbers in [0, L - 1] to [-1, 1]: x = (v - (L - 1)/2) / ((L - 1)/2).

    Args:
      levels: Integer or float tensor of any shape, whole numbers in [0, L - 1].
      num_levels: L, at least 2.
      dtype: Float dtype of the result.

    Returns:
      Tensor of the same shape, `dtype`, in [-1, 1].
    """
    half_range = (num_levels - 1) / 2
    return (ops.cast(levels, dtype) - half_range) / half_range


def from_unit_scale(values, num_levels):
    """Maps [-1, 1] to the nearest whole number in [0, L - 1]. Values outside are clipped.

    Args:
      values: Float tensor of any shape.
      num_levels: L, at least 2.

    Returns:
      Float tensor of the same shape and dtype, whole numbers in [0, L - 1].
    """
    half_range = (num_levels - 1) / 2
    return ops.clip(ops.round(values * half_range + half_range), 0, num_levels - 1)


def bits_per_dim(nats, num_dims):
    """Converts the negative log-likelihood of an image from nats to bits per dimension.

    bits_per_dim = nats / (num_dims * log(2)), with num_dims = H * W * C.
    """
    return nats / (num_dims * math.log(2.0))


def nats(bits_per_dim, num_dims):
    """The nats of an image of H * W * C = `num_dims` sub-pixels, from its bits per dimension."""
    return bits_per_dim * (num_dims * math.log(2.0))
