"""The convolution with a gradient of its own on CPUs."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_cases import FLOAT64_EPS

from pixel_cnn_pp.layers import convolution


@pytest.mark.parametrize(
    ("kernel_size", "pads"),
    [
        ((2, 3), ((1, 0), (1, 1))),
        ((1, 3), ((0, 0), (1, 1))),
        ((3, 5), ((2, 0), (2, 2))),
        ((1, 2), ((0, 0), (0, 1))),
        ((2, 2), ((1, 0), (1, 0))),
        ((2, 1), ((1, 0), (0, 0))),
        ((3, 4), ((2, 0), (3, 0))),
        ((4, 7), ((3, 0), (3, 3))),
        ((1, 1), ((0, 0), (0, 0))),
    ],
)
@pytest.mark.parametrize("is_static", [True, False])
def test_the_gradients_of_a_convolution_on_the_cpu_are_those_of_the_plain_one(
    kernel_size, pads, is_static
):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 7, 4)), rng.normal(size=(*kernel_size, 4, 3))
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
