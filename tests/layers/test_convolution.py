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
    bias = rng.normal(size=3)
    weights = tf.constant(rng.normal(size=(2, 5, 7, 3)))

    def gradients(convolve):
        def run(*inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = convolve(*inputs)
                total = tf.reduce_sum(weights * outputs)
            return [outputs, *tape.gradient(total, inputs)]

        shape = x.shape if is_static else (None, None, None, 4)
        shapes = shape, kernel.shape, bias.shape
        signature = [tf.TensorSpec(shape, tf.float64) for shape in shapes]
        return tf.function(run, input_signature=signature)(x, kernel, bias)

    found = gradients(
        lambda x, kernel, bias: convolution._convolve_on_cpu(x, kernel, pads, None, bias)
    )
    expected = gradients(
        lambda x, kernel, bias: ops.conv(convolution._pad(x, pads), kernel, padding="valid") + bias
    )
    for ours, plain in zip(found, expected, strict=True):
        # Sums of at most 2 * 5 * 7 float64 terms of size 1 or so.
        np.testing.assert_allclose(ours, plain, rtol=0, atol=100 * FLOAT64_EPS)


def gradients_of(function, *inputs):
    """The result of a function and the gradients of its weighted sum."""
    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
        weights = np.random.default_rng(1).normal(size=outputs.shape)
        total = tf.reduce_sum(tf.cast(weights, outputs.dtype) * outputs)
    return [outputs, *tape.gradient(total, inputs)]


@pytest.mark.parametrize("pads", [((1, 0), (1, 1)), ((0, 2), (0, 3)), ((0, 0), (0, 0))])
def test_the_padding_for_xla_adds_zeros_even_beside_what_is_no_number(pads):
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 4))
    ours = gradients_of(lambda x: convolution._pad_for_xla(x, pads), x)
    for found, expected in zip(
        ours, gradients_of(lambda x: convolution._pad(x, pads), x), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    x[:] = np.nan
    found = ops.convert_to_numpy(convolution._pad_for_xla(tf.constant(x), pads))
    assert np.isnan(found).sum() == x.size and not found[~np.isnan(found)].any()
