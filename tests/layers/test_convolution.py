"""The convolution with a gradient of its own on CPUs."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_cases import FLOAT64_EPS

from pixel_cnn_pp.layers import DownRightShiftedConv2D, DownShiftedConv2D, convolution


@pytest.mark.parametrize(
    ("layer", "kernel_size"),
    [
        (DownShiftedConv2D, (2, 3)),
        (DownShiftedConv2D, (1, 3)),
        (DownShiftedConv2D, (3, 5)),
        (DownRightShiftedConv2D, (2, 2)),
        (DownRightShiftedConv2D, (2, 1)),
        (DownRightShiftedConv2D, (3, 4)),
    ],
)
@pytest.mark.parametrize("is_static", [True, False])
def test_the_gradients_of_a_convolution_on_the_cpu_are_those_of_the_plain_one(
    layer, kernel_size, is_static
):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 7, 4)), rng.normal(size=(*kernel_size, 4, 3))
    pads = layer(3, kernel_size)._pads()
    weights = tf.constant(rng.normal(size=(2, 5, 7, 3)))

    def gradients(convolve):
        def run(x, kernel):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                outputs = convolve(x, kernel)
                total = tf.reduce_sum(weights * outputs)
            return [outputs, *tape.gradient(total, [x, kernel])]

        shape = x.shape if is_static else (None, None, None, 4)
        signature = [tf.TensorSpec(shape, tf.float64), tf.TensorSpec(kernel.shape, tf.float64)]
        return tf.function(run, input_signature=signature)(x, kernel)

    found = gradients(lambda x, kernel: convolution._convolve_on_cpu(x, kernel, pads))
    expected = gradients(
        lambda x, kernel: ops.conv(convolution._pad(x, pads), kernel, padding="valid")
    )
    for ours, plain in zip(found, expected, strict=True):
        # Sums of at most 2 * 5 * 7 float64 terms of size 1 or so.
        np.testing.assert_allclose(ours, plain, rtol=0, atol=100 * FLOAT64_EPS)
