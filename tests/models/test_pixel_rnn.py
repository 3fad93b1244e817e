"""What holds of the Row LSTM and the Diagonal BiLSTM alone: networks by hand, fields, sizes."""

import numpy as np
import pytest
import slow_rnn
import specimens
import tensorflow as tf
from fields import field_of_view
from specimens import SPECIMENS
from test_pixel_cnn import masked_conv

from pixel_cnn_pp import models
from pixel_cnn_pp.config import DiagonalBiLSTMConfig, RowLSTMConfig

NAMES = [name for name in SPECIMENS if name.startswith(("row_lstm", "diagonal_bilstm"))]


def as_layers_take_it(config, condition):
    """The condition of one image, from what a user gives: [F], [H, W, F] or None."""
    if config.num_classes is not None:
        return np.eye(config.num_classes)[condition]
    if config.condition_shape is None:
        return None
    # Every pixel of the picture stands for a block of pixels of the image.
    picture = 2 * condition.astype("float64") / (config.condition_levels - 1) - 1
    height, width = (
        side // own for side, own in zip(config.image_shape[:2], picture.shape[:2], strict=True)
    )
    return np.kron(picture, np.ones((height, width, 1)))


def network(model, image, condition):
    """The raw parameters of one image, from the paper's table 1 and figure 5."""
    config = model.config
    num_channels, num_levels = config.image_shape[-1], config.num_levels

    def arrays(layer):
        return [np.asarray(weight) for weight in slow_rnn.weights_of(layer)]

    x = 2 * image.astype("float64") / (num_levels - 1) - 1
    x = masked_conv(x, model.input_layer, 7, "A", num_channels)
    for block in model.blocks:
        if config.kind == "row_lstm":
            h = slow_rnn.row_lstm(x, condition, arrays(block.lstm), num_channels)
        else:
            directions = arrays(block.lstm.from_left), arrays(block.lstm.from_right)
            h = slow_rnn.diagonal_bilstm(x, condition, *directions, num_channels)
        x = x + masked_conv(h, block.up, 1, "B", num_channels)
    for layer in model.hidden:
        x = masked_conv(np.maximum(x, 0), layer, 1, "B", num_channels)
    groups = np.repeat(np.arange(num_channels), 1 if num_levels == 2 else num_levels)
    return masked_conv(np.maximum(x, 0), model.output_layer, 1, "B", num_channels, groups)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_that_of_its_equations(name):
    model = specimens.opinionated(name)
    config = model.config
    images, condition = specimens.images(config, 2), specimens.labels(config, 2)
    raw_params = np.asarray(model(images, condition))
    for i, image in enumerate(images):
        own = None if condition is None else as_layers_take_it(config, condition[i])
        np.testing.assert_allclose(raw_params[i], network(model, image, own), 1e-10, 1e-10)


def test_the_field_of_a_row_lstm_is_a_triangle_above():
    # One layer: every row up brings a column on both sides, and the input-to-state filter one more
    # on the left. The first layer brings the 7x7 filter with mask A.
    config = RowLSTMConfig(
        image_shape=(9, 20, 1), num_levels=4, nr_resnet=1, nr_filters=3, nr_output_filters=4
    )
    row, column = 6, 9
    seen = {(-up, side) for up in range(row + 1) for side in range(-up - 1, up + 1)}
    first = {(i, j) for i in range(-3, 1) for j in range(-3, 4) if i < 0 or j < 0}
    expected = np.zeros((9, 20), bool)
    for i, j in {(a + i, b + j) for a, b in seen for i, j in first}:
        if row + i >= 0 and 0 <= column + j < 20:
            expected[row + i, column + j] = True
    np.testing.assert_array_equal(field_of_view(config, row, column, scale=0.5), expected)
    assert expected[row - 1, column - 5] and not expected[row - 1, column + 5], "a triangle"


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_field_of_a_diagonal_bilstm_is_all_that_comes_before_but_one_pixel(num_layers):
    config = DiagonalBiLSTMConfig(
        (6, 9, 1), num_levels=4, nr_resnet=num_layers, nr_filters=3, nr_output_filters=4
    )
    for row, column in ((4, 2), (3, 5), (0, 3)):
        expected = np.arange(6 * 9).reshape(6, 9) < 9 * row + column
        if row > 0 and column + 3 < 8:
            # Features of a pixel never have the pixel itself, because of mask A. The pixel on its
            # right has it. The last pixel of a row has no pixel on its right, so that the map that
            # is moved down does not have it either. The 7x7 filter reaches 3 columns.
            expected[row - 1, 8] = False
        np.testing.assert_array_equal(field_of_view(config, row, column, scale=0.5), expected)


@pytest.mark.parametrize("config_class", [RowLSTMConfig, DiagonalBiLSTMConfig])
def test_the_papers_network_for_cifar_10_has_the_size_of_its_layers(config_class):
    h, hidden = 128, 1024
    expected = 4 * 7 * 3 * 2 * h + 2 * h  # of a 7x7 filter the upper four rows are stored
    states = 2 * h  # the learned hidden and cell state
    if config_class is RowLSTMConfig:
        # Of K_is the masked tap on the right is not stored.
        lstm = 2 * 2 * h * 4 * h + 4 * h + 3 * h * 4 * h + states
    else:
        lstm = 2 * (2 * h * 4 * h + 4 * h + 2 * h * 4 * h + states)
    expected += 12 * (lstm + h * 2 * h + 2 * h)
    expected += (2 * h * hidden + hidden) + (hidden * hidden + hidden)
    expected += hidden * 3 * 256 + 3 * 256
    model = models.make(config_class(), fresh=False)
    assert model.count_params() == expected
    # The state of the first row and what lies outside of the image is learned (section 5.2).
    assert {"hidden", "cell"} <= {weight.name for weight in model.trainable_weights}


@pytest.mark.parametrize("name", ["row_lstm", "diagonal_bilstm"])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_of_a_compiled_function_are_those_of_the_eager_call(name, recompute):
    # In a compiled function, the loops are inside of functions that all blocks share.
    config = SPECIMENS[name]
    images, labels = specimens.images(config, 2), specimens.labels(config, 2)
    model = specimens.fresh(config, dtype="float64", recompute=recompute)

    def gradients():
        with tf.GradientTape() as tape:
            nats = tf.reduce_sum(model.loss_of(model(images, labels, training=True), images))
        return tape.gradient(nats, [weight.value for weight in model.weights])

    compiled = tf.function(gradients, autograph=False)()
    for weight, actual, expected in zip(model.weights, compiled, gradients(), strict=True):
        assert np.any(expected), weight.path
        # Sums of some 1e3 terms of size 1.
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)
