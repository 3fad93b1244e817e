"""Masked convolutions of groups of features equal the slow, obvious ones, and step by step too."""

import numpy as np
import pytest
import tensorflow as tf
from layer_cases import FLOAT64_EPS, random_images, randomised

from pixel_cnn_pp.layers import MaskedConv2D

# Features of neither side are a multiple of 2, 3 or 4 channels.
SHAPE, FILTERS = (2, 4, 6, 7), 5

EACH_LAYER = pytest.mark.parametrize(
    "arguments",
    [
        (size, mask, num_channels, is_output)
        for size in (1, 3, 7)
        for mask in "AB"
        for num_channels in (1, 2, 3, 4)
        for is_output in (False, True)
    ]
    # A filter of one row, and outputs in two halves or four parts, each with all groups.
    + [((1, 5), "A", 3, False, 2), ((1, 3), "B", 2, False, 4), ((3, 5), "B", 4, False, 2)],
    ids=lambda arguments: "_".join(map(str, arguments)),
)


def make(size, mask, num_channels, is_output, num_parts=1):
    """A layer with random weights in float64. Outputs have 2 features for each channel."""
    filters = 2 * num_channels if is_output else num_parts * FILTERS
    layer = MaskedConv2D(filters, size, mask, num_channels, is_output, num_parts, dtype="float64")
    layer.build(SHAPE)
    return randomised(layer)


def out_group(layer, feature):
    """The channel that an output feature belongs to."""
    if layer.is_output:
        return feature // (layer.filters // layer.num_channels)
    return feature % (layer.filters // layer.num_parts) % layer.num_channels


def reaches(layer):
    """How far the filter reaches up, and to the left or the right."""
    height, width = (layer.size, layer.size) if isinstance(layer.size, int) else layer.size
    return height // 2, width // 2


def numpy_masked(layer, x, w, b):
    """The equation, tap after tap and feature after feature."""
    batch_size, height, width, in_features = x.shape
    reach_up, reach = reaches(layer)
    out = np.zeros((batch_size, height, width, layer.filters)) + b
    for row, column in np.ndindex(height, width):
        for up in range(reach_up + 1):
            for right in range(-reach, reach + 1):
                if row - up < 0 or not 0 <= column + right < width:
                    continue
                if up == 0 and right > 0:
                    continue
                seen = x[:, row - up, column + right]
                kernel = w[reach_up - up, reach + right].copy()
                if up == right == 0:
                    for i, f in np.ndindex(in_features, layer.filters):
                        earlier, own = i % layer.num_channels, out_group(layer, f)
                        if not (earlier < own or (layer.mask == "B" and earlier == own)):
                            kernel[i, f] = 0
                out[:, row, column] += seen @ kernel
    return out


def images():
    return random_images(*SHAPE).astype("float64")


@EACH_LAYER
def test_a_masked_convolution_is_its_equation(arguments):
    layer, x = make(*arguments), images()
    expected = numpy_masked(layer, x, layer.w.numpy(), layer.b.numpy())
    # The same products are summed up in another order.
    atol = 16 * FLOAT64_EPS * np.max(np.abs(expected))
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("is_output", [False, True])
@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_gradients_of_a_masked_convolution_are_those_of_its_equation(size, mask, is_output):
    layer, x = make(size, mask, 3, is_output), tf.constant(images())
    rng = np.random.default_rng(3)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x)
        cotangent = rng.normal(size=outputs.shape)
        total = tf.reduce_sum(cotangent * outputs)
    sources = [x, layer.w.value, layer.b.value]
    gradients = [each.numpy() for each in tape.gradient(total, sources)]
    values = [each.numpy() for each in sources]
    # The equation is linear in x, in w and in b, so that its difference along a direction is exact.
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)
        moved = [value + (direction if j == i else 0) for j, value in enumerate(values)]
        terms = cotangent * (numpy_masked(layer, *moved) - numpy_masked(layer, *values))
        # A sum of so many terms, differences of numbers up to some 100.
        atol = terms.size * FLOAT64_EPS * 100
        np.testing.assert_allclose(np.sum(gradient * direction), np.sum(terms), atol=atol)
    # What the mask hides never learns.
    hidden = gradients[1][-1, size // 2]
    for i, f in np.ndindex(hidden.shape):
        reads = i % 3 < out_group(layer, f) or (mask == "B" and i % 3 == out_group(layer, f))
        assert (hidden[i, f] != 0) == reads
    assert not gradients[1][-1, size // 2 + 1 :].any()


@EACH_LAYER
def test_a_masked_convolution_gives_channel_by_channel_what_the_call_gives(arguments):
    layer, x = make(*arguments), images()
    weights, (reach_up, reach) = layer.step_weights(), reaches(layer)
    batch_size, height, width, in_features = SHAPE
    groups = np.arange(in_features) % layer.num_channels
    in_order = np.argsort(groups, kind="stable")
    rows = np.transpose(x[..., in_order], (1, 2, 0, 3))  # [H, W, B, F_in], by groups
    nothing = np.zeros((batch_size, in_features))
    outputs = np.zeros((height, width, batch_size, layer.filters))
    for row in range(height):
        window = range(row - reach_up, row)
        above = [rows[i] if i >= 0 else 0 * rows[0] for i in window]
        above = np.array(layer.row_above(weights, above)) if reach_up else None
        for column in range(width):
            before = above[column] if reach_up else np.zeros((batch_size, 1)) + weights["bias"]
            if reach:
                window = range(column - reach, column)
                left = [rows[row, i] if i >= 0 else nothing for i in window]
                before = before + layer.left(weights, np.concatenate(left, axis=-1))
            parts = []
            for channel in range(layer.num_channels):
                # No later group is known as yet.
                known = np.where(np.sort(groups) <= channel, rows[row, column], np.nan)
                if layer.mask == "A":
                    known = np.where(np.sort(groups) < channel, known, np.nan)
                own = layer.of_group(channel, before)
                parts.append(own + layer.centre(weights, channel, known))
            outputs[row, column] = np.concatenate(parts, axis=-1)
    expected = np.array(layer.in_group_order(layer(x)))
    in_order = sorted(range(layer.filters), key=lambda f: out_group(layer, f))
    np.testing.assert_array_equal(expected, np.array(layer(x))[..., in_order])
    atol = 16 * FLOAT64_EPS * np.max(np.abs(expected))
    expected = np.transpose(expected, (1, 2, 0, 3))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=atol)


def test_the_halves_of_a_gate_have_the_same_groups():
    layer = make((1, 3), "B", 3, False, 2)
    assert [out_group(layer, f) for f in range(10)] == [0, 1, 2, 0, 1, 0, 1, 2, 0, 1]
    outputs = np.arange(10.0)
    # Of every group first the features of the first half, then those of the second.
    expected = [0, 3, 5, 8, 1, 4, 6, 9, 2, 7]
    np.testing.assert_array_equal(layer.in_group_order(outputs), expected)
    np.testing.assert_array_equal(layer.of_group(1, np.array(expected)), [1, 4, 6, 9])
    assert layer.w.shape == (1, 2, SHAPE[-1], 10), "without the tap on the right"


def test_a_filter_without_a_centre_is_our_own_mistake():
    with pytest.raises(AssertionError, match="the filter has a centre"):
        MaskedConv2D(4, 2, "A", 1)
