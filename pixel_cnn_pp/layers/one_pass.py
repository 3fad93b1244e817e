"""Functions from tensors to tensors in one pass over memory.

On a CPU, each operation of TensorFlow reads and writes whole tensors, and in bfloat16 it converts
number by number. XLA makes one loop of many operations, which computes in float32 in between. It
is used where a training step computes with big tensors. Compilation takes some 0.1 s for each
shape.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp.layers import convolution
from pixel_cnn_pp.layers.gradients import custom_gradient

# A call of what XLA compiled costs as much as a pass over some ten thousand numbers.
_MIN_SIZE = 2**16


def pays(x):
    """Whether to compute functions of images x [B, H, W, F] in one pass."""
    if keras.backend.backend() != "tensorflow" or not convolution.is_on_cpu():
        return False
    # TensorFlow is imported here, because layers also run on other backends without it.
    import tensorflow as tf

    is_big = len(x.shape) == 4 and None not in x.shape and math.prod(x.shape) >= _MIN_SIZE
    return is_big and tf.inside_function()


@functools.cache
def compiled(function, *settings):
    """Compiles a function by XLA. It computes in float32 where a tensor is bfloat16.

    Args:
      function: Function (*settings, *tensors) that returns tensors.
      *settings: Its first arguments.

    Returns:
      Function of tensors. Its results are bfloat16 if a tensor is.
    """
    import tensorflow as tf

    def run(*tensors):
        wide = [ops.cast(x, "float32") if x.dtype == "bfloat16" else x for x in tensors]
        results = function(*settings, *wide)
        if all(x.dtype != "bfloat16" for x in tensors):
            return results
        return keras.tree.map_structure(_rounded, results)

    run.__name__ = function.__name__  # what a profile shows
    return tf.function(run, autograph=False, jit_compile=True)


def _rounded(x):
    """float32 to the nearest bfloat16, ties to even, as `cast`, for which XLA makes slow code."""
    one, half, sixteen = (ops.convert_to_tensor(np.uint32(n)) for n in (1, 0x7FFF, 16))
    bits = ops.view(x, "uint32")
    bits = bits + half + ops.bitwise_and(ops.right_shift(bits, sixteen), one)
    return ops.view(ops.cast(ops.right_shift(bits, sixteen), "uint16"), "bfloat16")


class ConcatElu:
    """drop(concat_elu(x)), for a convolution that applies it first."""

    def __init__(self, drop=None):
        """Keeps the argument, `layers.Drop` or None."""
        self._drop = drop

    def __call__(self, x):
        """[..., F] -> [..., 2 F]."""

        @custom_gradient
        def compute(x):
            outputs = compiled(_concat_elu)(x)
            if self._drop is not None:
                outputs = self._drop(outputs)
            return outputs, lambda upstream: self.gradient(outputs, (0, 0), upstream)

        return compute(x)

    def gradient(self, outputs, start, upstream):
        """As `layers.Drop.gradient`."""
        # If a unit is dropped, its upstream becomes 0, so that its slope does not matter.
        factor = 1
        if self._drop is not None:
            factor, upstream = self._drop.factor, self._drop(upstream)
        return compiled(_concat_elu_gradient, *start, factor)(outputs, upstream)


def concat_elu(x):
    """elu of [x, -x], as `layers.concat_elu`."""
    return ConcatElu()(x)


def add_gated(x, c):
    """x + value * sigmoid(gate), with value and gate the halves of c: [..., F] and [..., 2 F]."""

    @custom_gradient
    def compute(x, c):
        def gradient(upstream):
            return upstream, ops.concatenate(compiled(_gated_gradients)(c, upstream), axis=-1)

        return compiled(_add_gated)(x, c), gradient

    return compute(x, c)


def _concat_elu(x):
    # tanh is a short polynomial, and exact near 0, where exp(y) - 1 is not:
    # exp(y) - 1 = 2 tanh(y / 2) / (1 - tanh(y / 2)).
    half = ops.tanh(-0.5 * ops.abs(x))
    below = 2 * half / (1 - half)
    signed = ops.stack([ops.maximum(x, below), ops.maximum(-x, below)], axis=-2)
    return ops.reshape(signed, (*x.shape[:-1], 2 * x.shape[-1]))


def _concat_elu_gradient(row, column, factor, outputs, upstream):
    height, width = upstream.shape[1:3]
    outputs = outputs[:, row : row + height, column : column + width]
    # The slope of elu is 1, or where its result y is negative, y + 1.
    slope = ops.minimum(outputs * (1 / factor) + 1, 1)
    of_x, of_minus_x = ops.split(upstream * slope, 2, axis=-1)
    return of_x - of_minus_x


def _add_gated(x, c):
    value, gate = ops.split(c, 2, axis=-1)
    return x + value * ops.sigmoid(gate)


def _gated_gradients(c, upstream):
    value, gate = ops.split(c, 2, axis=-1)
    share = ops.sigmoid(gate)
    of_value = upstream * share
    # As one tensor, XLA would compute it number by number in bfloat16.
    return of_value, of_value * value * (1 - share)
