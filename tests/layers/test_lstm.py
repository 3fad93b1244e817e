"""The layers of PixelRNN equal their equations in slow NumPy, and so do their gradients."""

import numpy as np
import pytest
import slow_rnn
import tensorflow as tf
from keras import ops
from layer_cases import FLOAT64_EPS, random_images, randomised

from pixel_cnn_pp import layers
from pixel_cnn_pp.layers import DiagonalBiLSTMLayer, DiagonalLSTMLayer, RowLSTMLayer, down_shift
from pixel_cnn_pp.layers.lstm import skew, unskew
from pixel_cnn_pp.layers.recurrence import recurrence

B = 2
# (layer, C, sides, shape of the condition behind the batch).
EACH_CASE = pytest.mark.parametrize(
    ("layer_class", "num_channels", "sides", "c_shape"),
    [
        (RowLSTMLayer, 1, (5, 3), None),
        (RowLSTMLayer, 2, (3, 5), (3,)),
        (RowLSTMLayer, 3, (4, 4), (4, 4, 2)),
        (RowLSTMLayer, 4, (1, 3), None),
        (RowLSTMLayer, 1, (3, 1), None),
        (DiagonalBiLSTMLayer, 1, (5, 3), None),
        (DiagonalBiLSTMLayer, 2, (3, 5), (3,)),
        (DiagonalBiLSTMLayer, 3, (4, 4), (4, 4, 2)),
        (DiagonalBiLSTMLayer, 4, (1, 3), None),
        (DiagonalBiLSTMLayer, 1, (3, 1), None),
    ],
    ids=str,
)


def make(layer_class, num_channels, sides, c_shape=None):
    """A layer in float64 and its inputs. Its features are no multiple of the channels."""
    layer = layer_class(5, num_channels, dtype="float64")
    inputs = [random_images(B, *sides, 7, seed=1)]
    if c_shape is not None:
        inputs.append(random_images(B, *c_shape, seed=2))
    inputs = [x.astype("float64") / 2 for x in inputs]
    layer.build(*(x.shape for x in inputs))
    randomised(layer)
    for weight in layer.weights:  # so that no gate is saturated
        weight.assign(weight / 3)
    return layer, inputs


def weights_of(layer):
    """The weights of a layer, in the order of `of_equations`."""
    if isinstance(layer, DiagonalBiLSTMLayer):
        return [*slow_rnn.weights_of(layer.from_left), *slow_rnn.weights_of(layer.from_right)]
    return slow_rnn.weights_of(layer)


def of_equations(layer, inputs, weights):
    """The outputs for a batch, from slow NumPy."""
    x, c = (*inputs, None)[:2]
    outputs = []
    for i in range(B):
        own = x[i], None if c is None else c[i]
        if isinstance(layer, DiagonalBiLSTMLayer):
            half = len(weights) // 2
            directions = weights[:half], weights[half:]
            outputs.append(slow_rnn.diagonal_bilstm(*own, *directions, layer.num_channels))
        else:
            outputs.append(slow_rnn.row_lstm(*own, weights, layer.num_channels))
    return np.stack(outputs)


@EACH_CASE
def test_a_layer_is_its_equations(layer_class, num_channels, sides, c_shape):
    layer, inputs = make(layer_class, num_channels, sides, c_shape)
    expected = of_equations(layer, inputs, [weight.numpy() for weight in weights_of(layer)])
    # The same products are summed up in another order; states are at most 2.
    np.testing.assert_allclose(layer(*inputs), expected, rtol=0, atol=64 * FLOAT64_EPS)
    assert np.std(expected) > 0.1


@EACH_CASE
def test_its_gradients_are_those_of_its_equations(layer_class, num_channels, sides, c_shape):
    layer, inputs = make(layer_class, num_channels, sides, c_shape)
    rng = np.random.default_rng(4)
    values = [*inputs, *(weight.numpy() for weight in weights_of(layer))]
    cotangent = rng.normal(size=(B, *sides, 5))

    def gradients_of(*inputs):
        sources = [*inputs, *(weight.value for weight in weights_of(layer))]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            total = tf.reduce_sum(cotangent * layer(*inputs))
        return tape.gradient(total, sources)

    if sides[0] < sides[1]:  # a compiled function is traced for seconds
        gradients_of = tf.function(gradients_of, autograph=False)
    gradients = [np.asarray(gradient) for gradient in gradients_of(*map(tf.constant, inputs))]
    for i, gradient in enumerate(gradients):
        # The derivative along a direction, by a complex step.
        direction = rng.normal(size=gradient.shape)
        moved = [x + (1e-30j * direction if j == i else 0j) for j, x in enumerate(values)]
        found = of_equations(layer, moved[: len(inputs)], moved[len(inputs) :])
        expected = np.sum(cotangent * found.imag) / 1e-30
        # Of a single row nobody sees the direction from right to left.
        assert expected != 0 or sides[0] == 1
        # Sums of some 1e3 terms of size 1.
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_a_skewed_map_has_row_r_moved_right_by_r_and_is_brought_back():
    x = random_images(2, 3, 5, 4)
    expected = np.stack([slow_rnn.skewed(image) for image in x])
    np.testing.assert_array_equal(skew(tf.constant(x)), expected)
    np.testing.assert_array_equal(unskew(tf.constant(expected)), x)


# The order of pixels. The two usual mistakes in a Diagonal BiLSTM break it.


def assert_keeps_the_order(layer_class):
    """A changed pixel changes no output before it, but its own, and all in the rows below."""
    height, width = 4, 5
    size = height * width
    layer, (x,) = make(layer_class, 1, (height, width))
    x = np.repeat(x[:1], size, axis=0)
    changed = x.copy()
    changed.reshape(size, size, -1)[np.arange(size), np.arange(size)] += 1
    differs = (np.asarray(layer(changed)) != np.asarray(layer(x))).any(axis=-1)
    differs = differs.reshape(size, size)  # [changed pixel, output]
    assert not np.tril(differs, -1).any(), "an output before the pixel"
    assert differs.diagonal().all()
    rows = np.arange(size) // width
    assert differs[rows[:, None] < rows].all(), "the field has no blind spot"


class AppendsZerosAtTheBottom(DiagonalBiLSTMLayer):
    """A row of zeros is appended, and not put in front: the map is not moved down."""

    def call(self, x, h=None):
        right = ops.pad(self.from_right(x, h), ((0, 0), (0, 1), (0, 0), (0, 0)))
        return self.from_left(x, h) + right[:, : x.shape[1]]


class PadsTheWrongSide(DiagonalBiLSTMLayer):
    """The filter of 2 x 1 is padded at the bottom: it reads the row below, not the row above."""

    def call(self, x, h=None):
        def direction(layer, x):
            gates = ops.transpose(skew(layer.gates(x, h)), (2, 1, 0, 3))
            kernel, hidden, cell = layer.initial_state()
            hiddens = recurrence(gates, kernel, hidden, cell, hidden, (0, 1), is_delayed=True)
            return unskew(ops.transpose(hiddens, (2, 1, 0, 3)))

        right = ops.flip(direction(self.from_right, ops.flip(x, axis=2)), axis=2)
        return direction(self.from_left, x) + down_shift(right)


def test_the_diagonal_bilstm_keeps_the_order_and_the_two_usual_mistakes_do_not():
    assert_keeps_the_order(DiagonalBiLSTMLayer)
    for mistake in (AppendsZerosAtTheBottom, PadsTheWrongSide):
        with pytest.raises(AssertionError, match="an output before the pixel"):
            assert_keeps_the_order(mistake)


def test_what_is_right_in_the_wrong_layers_is_what_the_right_layer_computes(monkeypatch):
    # With the mistake mended, the second wrong layer is the right one: nothing else is wrong in it.
    wrong, (x,) = make(PadsTheWrongSide, 2, (4, 3))
    right, _ = make(DiagonalBiLSTMLayer, 2, (4, 3))
    right.set_weights(wrong.get_weights())
    assert not np.allclose(wrong(x), right(x))
    mended = recurrence
    monkeypatch.setitem(
        globals(),
        "recurrence",
        lambda *args, is_delayed: mended(*args[:-1], (0, -1), is_delayed=is_delayed),
    )
    np.testing.assert_array_equal(wrong(x), right(x))


# Step by step.


@pytest.mark.parametrize("num_channels", [1, 3])
def test_a_walk_through_a_row_from_right_to_left_is_the_row_of_the_mirrored_direction(num_channels):
    layer = DiagonalLSTMLayer(5, num_channels, is_mirrored=True, dtype="float64")
    x = random_images(B, 3, 4, 7).astype("float64")
    layer.build(x.shape)
    randomised(layer)
    weights = layer.step_weights()
    expected = np.asarray(layer(x))
    order = np.argsort(np.arange(5) % num_channels, kind="stable")
    in_order = np.argsort(np.arange(7) % num_channels, kind="stable")
    above = np.broadcast_to(np.asarray(weights["hidden"]), (4, B, 5))
    for row in range(3):
        inputs = x[:, row][..., in_order].transpose(1, 0, 2)
        above = layer.row(weights, tf.constant(inputs), layer.row_above(weights, above))
        found = np.asarray(above).transpose(1, 0, 2)
        np.testing.assert_allclose(
            found, expected[:, row][..., order], rtol=0, atol=64 * FLOAT64_EPS
        )


@pytest.mark.parametrize("name", ["RowLSTMLayer", "DiagonalLSTMLayer", "DiagonalBiLSTMLayer"])
def test_the_form_of_a_layer_says_all_that_it_computes_with(name):
    # Blocks of one form are traced once: whatever makes another function must be in it.
    options = {"is_mirrored": True} if name == "DiagonalLSTMLayer" else {}
    layer = getattr(layers, name)(5, 3, **options)
    assert {"filters": 5, "num_channels": 3, **options}.items() <= layer.get_config().items()
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert layer.compute_output_shape((2, 4, 6, 7)) == (2, 4, 6, 5)
