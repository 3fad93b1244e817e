"""Convolutions that are fast on TensorFlow's CPUs, and on the accelerators of JAX."""

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp.layers.gradients import custom_gradient


def convolve(x, kernel, pads, strides=1, before=None, bias=None):
    """Convolves images with zeros around them.

    Args:
      x: Float tensor [B, H, W, F_in].
      kernel: Float tensor [kh, kw, F_in, F].
      pads: Numbers of zeros (top, bottom), (left, right).
      strides: Distance of the inputs of neighbouring outputs.
      before: What is applied to x first, `layers.Drop` or `one_pass.ConcatElu`. Or None.
      bias: Float tensor [F], added to the result. Or None.

    Returns:
      Float tensor [B, H', W', F], with H' = (H + top + bottom - kh) // strides + 1 and
      W' = (W + left + right - kw) // strides + 1.
    """
    if strides == 1 and _has_slow_gradient():
        return _convolve_on_cpu(x, kernel, pads, before, bias)
    x = prepared(x, before)
    uses_xla = keras.backend.backend() == "jax" and not is_on_cpu()
    padded = _pad_for_xla(x, pads) if uses_xla else _pad(x, pads)
    if strides > 1:
        # XLA knows a fast gradient of the kernel only if the filters use all rows and columns.
        height, width = (
            (size - k) // strides * strides + k
            for size, k in zip(ops.shape(padded)[1:3], kernel.shape, strict=False)
        )
        padded = window(padded, (0, 0), (height, width))
    outputs = ops.conv(padded, kernel, strides, padding="valid", data_format="channels_last")
    return plus(outputs, bias)


def plus(x, bias):
    """x + bias, or x if there is no bias."""
    return x if bias is None else x + bias


def prepared(x, before):
    """before(x), or x if there is no `before`."""
    return x if before is None else before(x)


def window(x, start, size):
    """The part of images [B, H, W, F] that begins at (row, column) and has this (height, width)."""
    (row, column), (height, width) = start, size
    if keras.backend.backend() == "jax":
        return x[:, row : row + height, column : column + width]
    # TensorFlow's gradient of that takes many times as long.
    num_images, _, _, features = ops.shape(x)
    return ops.slice(x, (0, *start, 0), (num_images, *size, features))


def _pad(x, pads):
    """Adds zeros (top, bottom), (left, right) around images [B, H, W, F]."""
    return ops.pad(x, [(0, 0), *pads, (0, 0)])


def _has_slow_gradient():
    """Whether the gradient of the kernel is slow: on a CPU, but not with JAX."""
    is_tensorflow = keras.backend.backend() == "tensorflow"
    return is_tensorflow and is_on_cpu()


def _pad_for_xla(x, pads):
    """Does the same as `_pad`, in a form from which XLA makes fast code for a GPU.

    Zeros of `ops.pad` would become a part of every convolution of the result, and each of them
    would need a copy with zeros of its own. And XLA reads around them number by number. Here a
    position outside reads the nearest one inside, and the number is replaced by a zero.
    """
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return x
    height, width = x.shape[1:3]
    rows, columns = np.arange(-top, height + bottom), np.arange(-left, width + right)
    is_inside = (rows == np.clip(rows, 0, height - 1))[:, None, None]
    is_inside = is_inside & (columns == np.clip(columns, 0, width - 1))[:, None]

    @custom_gradient
    def pad(x):
        read = ops.take(x, np.clip(rows, 0, height - 1), axis=1)
        read = ops.take(read, np.clip(columns, 0, width - 1), axis=2)

        def gradient(upstream):
            return upstream[:, top : top + height, left : left + width]

        return ops.where(is_inside, read, 0), gradient

    return pad(x)


def is_on_cpu():
    """Whether the backend computes on a CPU."""
    return keras.distribution.list_devices()[0].startswith("cpu")


def _convolve_on_cpu(x, kernel, pads, before, bias):
    """Convolves padded images, with a faster gradient of the kernel than that of TensorFlow.

    TensorFlow's gradient takes up to three times as long as the convolution. Here it is one
    matrix product for each tap of the filter, of the inputs with the gradient of the outputs. Both
    have the same padded layout. Therefore the tap (i, j) shifts all positions of all images by the
    same number. The shift takes a slice of the rows [positions, F], without a copy. The padding
    must add kh - 1 rows and kw - 1 columns in total.

    `before` is part of the function, because TensorFlow keeps all arguments of such a function
    until its gradient is computed.
    """
    kernel_height, kernel_width, in_features, features = kernel.shape
    (top, bottom), (left, right) = pads

    # A gradient belongs to each argument. So without a bias, there is one argument less.
    @custom_gradient
    def convolve(x, kernel, *bias):
        padded = _pad(prepared(x, before), pads)
        outputs = ops.conv(padded, kernel, padding="valid", data_format="channels_last")
        if bias:  # TensorFlow makes one operation of the convolution and the sum
            outputs = outputs + bias[0]

        def gradient(upstream):
            bias_gradient = [ops.sum(upstream, axis=(0, 1, 2)) for _ in bias]
            # The gradient of the inputs is a convolution with the filter rotated by 180 degrees.
            upstream = _pad(upstream, ((bottom, top), (right, left)))
            # One flip of all taps takes a tenth of the time of two flips of rows and columns.
            turned = ops.flip(ops.reshape(kernel, (-1, in_features, features)), axis=0)
            turned = ops.transpose(ops.reshape(turned, kernel.shape), (0, 1, 3, 2))
            x_gradient = ops.conv(upstream, turned, padding="valid", data_format="channels_last")
            if before is not None:
                x_gradient = before.gradient(padded, (top, left), x_gradient)
            inputs = ops.reshape(padded, (-1, in_features))
            outputs_gradient = ops.reshape(upstream, (-1, features))
            width = ops.shape(padded)[2]
            taps = []
            for i in range(kernel_height):
                for j in range(kernel_width):
                    shift = (i - bottom) * width + (j - right)
                    x_rows, y_rows = inputs, outputs_gradient
                    if (i, j) > (bottom, right):  # shift > 0, but `shift` may be a tensor
                        x_rows, y_rows = x_rows[shift:], y_rows[:-shift]
                    elif (i, j) < (bottom, right):
                        x_rows, y_rows = x_rows[:shift], y_rows[-shift:]
                    taps.append(ops.matmul(ops.transpose(x_rows), y_rows))
            return x_gradient, ops.reshape(ops.stack(taps), kernel.shape), *bias_gradient

        return outputs, gradient

    return convolve(x, kernel) if bias is None else convolve(x, kernel, bias)
