"""The cached steps of layers and blocks give piece by piece what the call gives, in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_cases import FLOAT64_EPS, random_images, randomised

from pixel_cnn_pp import layers
from pixel_cnn_pp.layers import (
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    GatedResidualBlock,
    WeightNormDense,
)

# No two of the sizes of its inputs are alike, strided ones included.
STEP_SHAPE = (2, 6, 10, 7)


STRIDES = pytest.mark.parametrize("strides", [1, 2])


NONLINEARITIES = pytest.mark.parametrize("nonlinearity", layers.NONLINEARITIES)


CONDITIONED = pytest.mark.parametrize("conditioned", [False, True], ids=["alone", "with_h"])


def step_layer(make_layer, *args, **kwargs):
    """A float64 layer with random weights for images of STEP_SHAPE, and what its step takes."""
    layer = make_layer(4, *args, dtype="float64", **kwargs)
    layer.build(STEP_SHAPE)
    return randomised(layer), layer.step_weights()


def step_images(*shape, seed=0):
    return random_images(*(shape or STEP_SHAPE), seed=seed).astype("float64")


def rows_of(images):
    """Images [B, H, W, F] as the cached step has them: rows [W, B, F], stacked [H, W, B, F]."""
    return np.transpose(images, (1, 2, 0, 3))


def at_or_zeros(positions, index):
    """positions[index], zeros before the first one."""
    return positions[index] if index >= 0 else np.zeros_like(positions[0])


def assert_stepped(rows, images):
    """The rows [W, B, F] of a cached step are those of images [B, H, W, F].

    The same products are summed up in another order: some roundings, of which the largest result
    gives the size.
    """
    images = np.asarray(images)
    rows = np.stack([np.stack([np.asarray(pixel) for pixel in row]) for row in rows])
    assert rows.dtype == images.dtype == np.float64
    assert rows.shape == rows_of(images).shape
    atol = 16 * FLOAT64_EPS * np.max(np.abs(images))
    np.testing.assert_allclose(rows, rows_of(images), rtol=0, atol=atol)


@pytest.mark.parametrize("kernel_size", [(2, 3), (1, 3), (3, 5)])
@STRIDES
def test_a_downward_convolution_gives_row_by_row_what_the_call_gives(kernel_size, strides):
    layer, weights = step_layer(DownShiftedConv2D, kernel_size, strides=strides)
    images = step_images()
    x = rows_of(images)
    rows = [
        layer.row(weights, *(at_or_zeros(x, row - i) for i in range(kernel_size[0])))
        for row in range(0, len(x), strides)
    ]
    assert_stepped(rows, layer(images))


@pytest.mark.parametrize("kernel_size", [(2, 2), (2, 1), (2, 3)])
@STRIDES
def test_a_rightward_convolution_gives_pixel_by_pixel_what_the_call_gives(kernel_size, strides):
    layer, weights = step_layer(DownRightShiftedConv2D, kernel_size, strides=strides)
    images = step_images()
    x = rows_of(images)

    def next_row(row):
        above = layer.row_above(weights, at_or_zeros(x, row - 1))
        columns = range(0, x.shape[1], strides)
        assert len(above) == len(columns)
        for column, above_pixel in zip(columns, above, strict=True):
            window = range(column - kernel_size[1] + 1, column + 1)
            pixels = [at_or_zeros(x[row], i) for i in window]
            yield layer.pixel(weights, above_pixel, *pixels)

    assert_stepped([list(next_row(row)) for row in range(0, len(x), strides)], layer(images))


@pytest.mark.parametrize("kernel_size", [(2, 3), (2, 5)])
@pytest.mark.parametrize("as_offset", [int, tf.constant])
def test_a_downward_transposed_convolution_gives_two_rows_for_each_row(kernel_size, as_offset):
    layer, weights = step_layer(DownShiftedConv2DTranspose, kernel_size)
    images = step_images()
    rows = [layer.row(weights, x, as_offset(i)) for x in rows_of(images) for i in (0, 1)]
    assert_stepped(rows, layer(images))


def test_a_rightward_transposed_convolution_gives_two_pixels_for_each_and_then_a_row_at_once():
    layer, weights = step_layer(DownRightShiftedConv2DTranspose)
    images, rows = step_images(), []
    for x in rows_of(images):
        rows.append([outputs for pixel in x for outputs in layer.pixel(weights, pixel)])
        rows.append(layer.row(weights, x))
    assert_stepped(rows, layer(images))


def test_a_dense_layer_gives_for_a_row_or_a_pixel_what_the_call_gives():
    layer, weights = step_layer(WeightNormDense)
    images = step_images()
    assert_stepped([layer.step(weights, x) for x in rows_of(images)], layer(images))
    assert_stepped([[layer.step(weights, p) for p in x] for x in rows_of(images)], layer(images))


def step_block(convolution, nonlinearity, a_channels, conditioned):
    """As `step_layer`, a block; and what the call takes: {name of an argument: images}."""
    batch_size, height, width, _ = STEP_SHAPE
    inputs = {"x": step_images(seed=1)}
    if a_channels:
        inputs["a"] = step_images(batch_size, height, width, a_channels, seed=2)
    if conditioned:
        inputs["h"] = step_images(batch_size, 3, seed=3)
    block = GatedResidualBlock(convolution, nonlinearity, dtype="float64")
    block.build(*(inputs[name].shape if name in inputs else None for name in "xah"))
    return randomised(block), block.step_weights(), inputs


def zeros_of(sizes, *shape):
    return {name: np.zeros((*shape, size)) for name, size in sizes.items()}


def assert_sizes(tensors, sizes, *shape):
    """Tensors are of the sizes that the block has announced."""
    keras.tree.assert_same_structure(tensors, sizes)
    tensors, sizes = keras.tree.flatten(tensors), keras.tree.flatten(sizes)
    assert [tuple(tensor.shape) for tensor in tensors] == [(*shape, size) for size in sizes]


@NONLINEARITIES
@CONDITIONED
@pytest.mark.parametrize("a_channels", [0, 7], ids=["no_a", "a"])
def test_a_downward_block_gives_row_by_row_what_the_call_gives(
    nonlinearity, a_channels, conditioned
):
    block, weights, inputs = step_block(DownShiftedConv2D, nonlinearity, a_channels, conditioned)
    batch_size, height, width, _ = STEP_SHAPE
    sizes = block.state_sizes()
    above, rows = zeros_of(sizes, width, batch_size), []
    for row in range(height):
        x, a = (rows_of(inputs[name])[row] if name in inputs else None for name in "xa")
        outputs, above = block.row(weights, x, above, a, inputs.get("h"))
        assert_sizes(above, sizes, width, batch_size)
        rows.append(outputs)
    assert_stepped(rows, block(**inputs))


@NONLINEARITIES
@CONDITIONED
@pytest.mark.parametrize("a_channels", [7, 14], ids=["down", "down_and_right"])
def test_a_rightward_block_gives_pixel_by_pixel_what_the_call_gives(
    nonlinearity, a_channels, conditioned
):
    convolution = DownRightShiftedConv2D
    block, weights, inputs = step_block(convolution, nonlinearity, a_channels, conditioned)
    batch_size, height, width, filters = STEP_SHAPE
    x, a = rows_of(inputs["x"]), rows_of(inputs["a"])
    down, right = a[..., :filters], a[..., filters:] if a_channels > filters else None
    sizes = block.state_sizes()
    state_above, rows = zeros_of(sizes, width, batch_size), []
    for row in range(height):
        above = block.row_above(weights, state_above, down[row], inputs.get("h"))
        assert_sizes(above, block.above_sizes(), width, batch_size)
        state, states, outputs = zeros_of(sizes, batch_size), [], []
        for column in range(width):
            above_pixel = keras.tree.map_structure(lambda tensor, i=column: tensor[i], above)
            a_pixel = None if right is None else right[row, column]
            pixel, state = block.pixel(weights, x[row, column], state, above_pixel, a_pixel)
            assert_sizes(state, sizes, batch_size)
            states.append(state)
            outputs.append(pixel)
        state_above = {name: np.stack([state[name] for state in states]) for name in sizes}
        rows.append(outputs)
    assert_stepped(rows, block(**inputs))
