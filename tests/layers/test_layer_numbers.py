"""Layers equal slow, obvious NumPy, see nothing ahead, and are initialised from data."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_cases import (
    FLOAT32_EPS,
    SINGLE_LAYERS,
    SPECIMENS,
    built,
    random_images,
    specimen_inputs,
)

from pixel_cnn_pp.layers import (
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
)


def numpy_kernel(layer):
    """g v / ||v|| in float64, one output channel after the other."""
    v, g = np.asarray(layer.v, np.float64), np.asarray(layer.g, np.float64)
    output_axis = v.ndim - 2 if isinstance(layer, WeightNormConv2DTranspose) else v.ndim - 1
    v = np.moveaxis(v, output_axis, 0)
    kernel = np.stack([g_k * v_k / np.sqrt(np.sum(v_k**2)) for g_k, v_k in zip(g, v, strict=True)])
    return np.moveaxis(kernel, 0, output_axis)


def numpy_conv(x, kernel, strides, pads):
    """Slow obvious convolution of float64 numbers, with zeros (top, bottom), (left, right)."""
    x = np.pad(np.asarray(x, np.float64), [(0, 0), *pads, (0, 0)])
    height, width = kernel.shape[:2]
    rows = (x.shape[1] - height) // strides + 1
    columns = (x.shape[2] - width) // strides + 1
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for row in range(rows):
        for column in range(columns):
            top, left = row * strides, column * strides
            patch = x[:, top : top + height, left : left + width]
            out[:, row, column] = np.einsum("bijc,ijcf->bf", patch, kernel)
    return out


def numpy_conv_transpose(x, kernel, strides):
    """Slow obvious transposed convolution: every pixel adds its filter, s H + kh - 1 rows."""
    x = np.asarray(x, np.float64)
    height, width = kernel.shape[:2]
    rows, columns = (size * strides for size in x.shape[1:3])
    out = np.zeros((len(x), rows + height - 1, columns + width - 1, kernel.shape[2]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            top, left = row * strides, column * strides
            out[:, top : top + height, left : left + width] += np.einsum(
                "bc,ijfc->bijf", x[:, row, column], kernel
            )
    return out


def same_pads(size, filter_size, strides):
    """TensorFlow's "same": as few zeros as give ceil(size / strides), the odd one behind."""
    total = max((-(-size // strides) - 1) * strides + filter_size - size, 0)
    return total // 2, total - total // 2


def numpy_layer(layer, x):
    """The layer in float64, and a bound of what float32 may make of it, as an array each."""

    def linear(x, kernel):
        if isinstance(layer, WeightNormDense):
            return np.einsum("bhwc,cf->bhwf", np.asarray(x, np.float64), kernel)
        height, width = layer.kernel_size
        if isinstance(layer, WeightNormConv2DTranspose):
            out = numpy_conv_transpose(x, kernel, layer.strides)
            if isinstance(layer, DownShiftedConv2DTranspose):
                side = (width - 1) // 2
                return out[:, : out.shape[1] - height + 1, side : out.shape[2] - side]
            if isinstance(layer, DownRightShiftedConv2DTranspose):
                return out[:, : out.shape[1] - height + 1, : out.shape[2] - width + 1]
            if layer.padding == "same":
                # The gradient of the "same" convolution: its zeros are cut away here.
                top, left = (
                    same_pads(size * layer.strides, filter_size, layer.strides)[0]
                    for size, filter_size in zip(x.shape[1:3], layer.kernel_size, strict=True)
                )
                rows, columns = (size * layer.strides for size in x.shape[1:3])
                return out[:, top : top + rows, left : left + columns]
            return out
        if isinstance(layer, DownShiftedConv2D):
            pads = [(height - 1, 0), ((width - 1) // 2, width // 2)]
        elif isinstance(layer, DownRightShiftedConv2D):
            pads = [(height - 1, 0), (width - 1, 0)]
        elif layer.padding == "same":
            pads = [
                same_pads(size, filter_size, layer.strides)
                for size, filter_size in zip(x.shape[1:3], layer.kernel_size, strict=True)
            ]
        else:
            pads = [(0, 0), (0, 0)]
        return numpy_conv(x, kernel, layer.strides, pads)

    kernel, bias = numpy_kernel(layer), np.asarray(layer.b, np.float64)
    magnitude = linear(np.abs(x), np.abs(kernel)) + np.abs(bias)
    # A sum of n products in float32, in any order: n + 1 rounding errors of eps / 2 (Higham 2002,
    # section 3.1); the kernel's norm is such a sum as well.
    num_roundings = 2 * (layer.v.shape.num_elements() // layer.filters + 2)
    return linear(x, kernel) + bias, num_roundings * FLOAT32_EPS / 2 * magnitude


@pytest.mark.parametrize("name", SINGLE_LAYERS)
@pytest.mark.parametrize("image_size", [(4, 6), (5, 7)])
def test_layers_equal_slow_numpy(name, image_size):
    x = random_images(2, *image_size, 5)
    layer = built(name, x.shape)
    expected, bound = numpy_layer(layer, x)
    outputs = np.asarray(layer(x), np.float64)
    assert outputs.shape == expected.shape
    assert np.all(np.abs(outputs - expected) <= bound)


def test_a_dense_layer_takes_vectors_and_images_of_one_row():
    # TensorFlow's own product of [B, 1, W, F] with a matrix is broken on some CPUs.
    x = random_images(3, 1, 7, 5)
    layer = built("dense", x.shape)
    expected, bound = numpy_layer(layer, x)
    assert np.all(np.abs(np.asarray(layer(x), np.float64) - expected) <= bound)
    vectors = x.reshape(21, 5)
    assert layer(vectors).shape == (21, 4)
    assert np.all(np.abs(layer(vectors) - expected.reshape(21, 4)) <= bound.reshape(21, 4))


def first_seen(layer, position):
    """Row and column of the first output that may see the input at `position`."""
    if isinstance(layer, WeightNormConv2DTranspose):
        return tuple(layer.strides * index for index in position)
    strides = getattr(layer, "strides", 1)
    return tuple(-(-index // strides) for index in position)


@pytest.mark.parametrize(
    ("name", "which"),
    [(name, "x") for name in SPECIMENS if "down" in name]
    + [(name, "a") for name in SPECIMENS if name.startswith(("block", "channels"))],
)
def test_shifted_layers_and_blocks_never_look_ahead(name, which):
    height, width = 4, 6
    positions = [(row, column) for row in range(height) for column in range(width)]
    inputs = specimen_inputs(name, (1, height, width, 5))
    inputs = [np.repeat(values, len(positions), axis=0) for values in inputs]
    changed = [values.copy() for values in inputs]
    for number, (row, column) in enumerate(positions):  # each position in an image of its own
        changed["xa".index(which)][number, row, column] += 1.0
    layer = built(name, inputs[0].shape)
    before, after = np.asarray(layer(*inputs)), np.asarray(layer(*changed))

    sees_to_the_right = "down_right" not in name
    for number, position in enumerate(positions):
        row, column = first_seen(layer, position)
        np.testing.assert_array_equal(after[number, :row], before[number, :row])
        visible = row < before.shape[1]
        if not sees_to_the_right:
            np.testing.assert_array_equal(after[number, :, :column], before[number, :, :column])
            visible = visible and column < before.shape[2]
        # With stride 2 the last row (and column) has no output behind it.
        assert np.any(after[number] != before[number]) == visible


@pytest.mark.parametrize("name", SINGLE_LAYERS)
def test_after_initialisation_the_mean_is_0_and_the_deviation_init_scale(name):
    inputs = random_images(6, 4, 6, 5)
    layer = built(name, inputs.shape)  # g is not 1 and b is not 0

    def uncropped(x):
        return np.asarray(layer.linear(x, layer.kernel()) + layer.b, np.float64)

    for x in (inputs, inputs, random_images(6, 4, 6, 5, seed=3)):
        before = uncropped(x)
        returned = layer.initialize(x)
        np.testing.assert_array_equal(returned, layer(x))
        after = uncropped(x)
        # The mean of n float32 numbers is good to about sqrt(n) eps of the largest one; the scaling
        # to the new deviation takes the error along.
        num_values = np.prod(before.shape[:3])
        largest = np.max(np.abs(before) / np.std(before, (0, 1, 2)))
        tolerance = np.sqrt(num_values) * FLOAT32_EPS * largest * layer.init_scale
        np.testing.assert_allclose(np.mean(after, (0, 1, 2)), 0.0, atol=tolerance)
        np.testing.assert_allclose(np.std(after, (0, 1, 2)), layer.init_scale, atol=tolerance)


def test_a_constant_channel_is_initialised_to_finite_numbers():
    layer = WeightNormDense(4)
    layer.build((2, 3, 5, 1))
    outputs = layer.initialize(np.ones((2, 3, 5, 1), "float32"))
    assert all(np.all(np.isfinite(weight)) for weight in layer.weights)
    # The variance is 0: a scale of 1 / sqrt(1e-10) blows the rounding of the mean up by 1e5.
    np.testing.assert_allclose(outputs, 0.0, atol=1e5 * 4 * FLOAT32_EPS)


def test_fresh_weights_are_those_of_the_paper():
    layer = WeightNormConv2D(40, (3, 3))
    layer.build((None, 4, 6, 30))
    np.testing.assert_array_equal(layer.g, np.ones(40))
    np.testing.assert_array_equal(layer.b, np.zeros(40))
    v = np.asarray(layer.v)  # 10800 numbers: standard errors 0.05 / sqrt(n) and / sqrt(2 n)
    assert abs(np.mean(v)) < 4 * 0.05 / np.sqrt(v.size)
    assert abs(np.std(v) - 0.05) < 4 * 0.05 / np.sqrt(2 * v.size)


@pytest.mark.parametrize("name", SINGLE_LAYERS)
def test_a_kernel_of_zeros_gives_no_nan(name):
    x = random_images(2, 4, 6, 5)
    layer = built(name, x.shape)
    layer.v.assign(ops.zeros_like(layer.v))
    with tf.GradientTape() as tape:
        outputs = layer(x)
        scalar = ops.sum(outputs)
    np.testing.assert_array_equal(outputs, np.broadcast_to(layer.b, outputs.shape))
    for gradient in tape.gradient(scalar, [weight.value for weight in layer.weights]):
        assert np.all(np.isfinite(gradient))
    layer.initialize(x)
    for weight in layer.weights:
        assert np.all(np.isfinite(weight))
