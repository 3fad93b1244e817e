"""Functions from tensors to tensors in one pass over memory.

On a CPU, each operation of TensorFlow reads and writes whole tensors, and in bfloat16 it converts
number by number. XLA makes one loop of many operations, which computes in float32 in between. It
is used where a training step computes with big tensors. Compilation takes some 0.1 s for each
shape.
"""

import functools
import math

import keras
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
    """The function of tensors, with its first arguments given, compiled by XLA."""
    import tensorflow as tf

    return tf.function(
        lambda *tensors: function(*settings, *tensors), autograph=False, jit_compile=True
    )


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
    wide = _wide(x)
    # tanh is a short polynomial, and exact near 0, where exp(y) - 1 is not:
    # exp(y) - 1 = 2 tanh(y / 2) / (1 - tanh(y / 2)).
    half = ops.tanh(-0.5 * ops.abs(wide))
    below = 2 * half / (1 - half)
    signed = ops.stack([ops.maximum(wide, below), ops.maximum(-wide, below)], axis=-2)
    return _narrow(ops.reshape(signed, (*x.shape[:-1], 2 * x.shape[-1])), x)


def _concat_elu_gradient(row, column, factor, outputs, upstream):
    height, width = upstream.shape[1:3]
    outputs = outputs[:, row : row + height, column : column + width]
    # The slope of elu is 1, or where its result y is negative, y + 1.
    slope = ops.minimum(_wide(outputs) * (1 / factor) + 1, 1)
    of_x, of_minus_x = ops.split(_wide(upstream) * slope, 2, axis=-1)
    return _narrow(of_x - of_minus_x, upstream)


def _add_gated(x, c):
    value, gate = ops.split(_wide(c), 2, axis=-1)
    return _narrow(_wide(x) + value * ops.sigmoid(gate), x)


def _gated_gradients(c, upstream):
    value, gate = ops.split(_wide(c), 2, axis=-1)
    share = ops.sigmoid(gate)
    of_value = _wide(upstream) * share
    # As one tensor, XLA would compute number by number in bfloat16.
    return _narrow(of_value, c), _narrow(of_value * value * (1 - share), c)


def _wide(x):
    """x in a precision to compute with."""
    return ops.cast(x, "float32") if x.dtype == "bfloat16" else x


def _narrow(x, like):
    return ops.cast(x, like.dtype)
