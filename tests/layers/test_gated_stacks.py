"""The layer of Gated PixelCNN equals its equations in slow NumPy, and so do its gradients."""

import keras
import numpy as np
import pytest
import slow_gated
import tensorflow as tf
from layer_cases import FLOAT64_EPS, random_images, randomised

from pixel_cnn_pp.layers import GatedStacks, RowsConv2D

B, H, W = 2, 4, 6

# (is_first, C, n, features of the condition as (shape of c after the batch)).
EACH_CASE = pytest.mark.parametrize(
    ("is_first", "num_channels", "size", "c_shape"),
    [
        (True, 1, 5, None),
        (True, 2, 3, (3,)),
        (True, 3, 5, (H, W, 2)),
        (False, 1, 3, (H, W, 2)),
        (False, 3, 3, (3,)),
        (False, 4, 7, None),
    ],
    ids=str,
)


def make(is_first, num_channels, size, c_shape):
    """A layer in float64 and its inputs. Its features are no multiple of the channels."""
    layer = GatedStacks(5, size, num_channels, is_first, dtype="float64")
    features = num_channels if is_first else 5
    inputs = [random_images(B, H, W, features, seed=seed) for seed in (1, 2)]
    if c_shape is not None:
        inputs.append(random_images(B, *c_shape, seed=3))
    inputs = [x.astype("float64") / 2 for x in inputs]
    layer.build(*(x.shape for x in inputs))
    randomised(layer)
    for weight in layer.weights:  # so that no gate is saturated
        weight.assign(weight / 4)
    return layer, inputs


def of_equations(layer, inputs, weights):
    """[v', h'] of a batch."""
    v, h, c = (*inputs, None)[:3]
    outputs = [
        slow_gated.stacks(
            v[i], h[i], None if c is None else c[i], weights, layer.num_channels, layer.is_first
        )
        for i in range(B)
    ]
    return [np.stack(each) for each in zip(*outputs, strict=True)]


@EACH_CASE
def test_a_layer_of_gated_pixel_cnn_is_its_equations(is_first, num_channels, size, c_shape):
    layer, inputs = make(is_first, num_channels, size, c_shape)
    expected = of_equations(layer, inputs, [weight.numpy() for weight in layer.weights])
    for outputs, own in zip(layer(*inputs), expected, strict=True):
        # The same products are summed up in another order.
        np.testing.assert_allclose(outputs, own, rtol=0, atol=64 * FLOAT64_EPS)
        assert np.std(own) > 0.1


@EACH_CASE
def test_its_gradients_are_those_of_its_equations(is_first, num_channels, size, c_shape):
    layer, inputs = make(is_first, num_channels, size, c_shape)
    rng = np.random.default_rng(4)
    sources = [tf.constant(x) for x in inputs] + [weight.value for weight in layer.weights]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs = layer(*sources[: len(inputs)])
        cotangents = [rng.normal(size=x.shape) for x in outputs]
        total = sum(tf.reduce_sum(d * x) for d, x in zip(cotangents, outputs, strict=True))
    gradients = [np.asarray(gradient) for gradient in tape.gradient(total, sources)]
    values = [source.numpy() for source in sources]
    for i, gradient in enumerate(gradients):
        # The derivative along a direction, by a complex step.
        direction = rng.normal(size=gradient.shape)
        moved = [x + (1e-30j * direction if j == i else 0j) for j, x in enumerate(values)]
        found = of_equations(layer, moved[: len(inputs)], moved[len(inputs) :])
        expected = sum(np.sum(d * x.imag) / 1e-30 for d, x in zip(cotangents, found, strict=True))
        assert expected != 0
        # Sums of some 1e4 terms of size 1.
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_its_form_says_all_that_it_computes_with():
    # Blocks of one form are traced once: whatever makes another function must be in it.
    layer = GatedStacks(5, 3, 2, is_first=True, name="stacks")
    assert {"filters": 5, "size": 3, "num_channels": 2, "is_first": True}.items() <= (
        layer.get_config().items()
    )
    again = GatedStacks.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    again.build((1, 4, 6, 2), (1, 4, 6, 2))
    # (n // 2 + 1) x n taps, and 1 x (n // 2 + 1).
    assert again.vertical.w.shape == (2, 3, 2, 10)
    assert again.horizontal.w.shape == (1, 2, 2, 10)
    assert again.compute_output_shape((1, 4, 6, 2), (1, 4, 6, 2)) == ((1, 4, 6, 5), (1, 4, 6, 5))


def test_a_convolution_of_rows_reads_both_sides_and_nothing_below():
    layer = RowsConv2D(4, 5, dtype="float64")
    x = random_images(1, 7, 9, 3).astype("float64")
    layer.build(x.shape)
    randomised(layer)
    (before,) = np.asarray(layer(x))
    changed = x.copy()
    changed[0, 3, 4, 1] += 1
    (after,) = np.asarray(layer(changed))
    differs = (before != after).any(axis=-1)
    expected = np.zeros((7, 9), bool)
    expected[3:6, 2:7] = True  # rows 3, 4 and 5 read row 3, from two columns on each side
    np.testing.assert_array_equal(differs, expected)
    assert layer.compute_output_shape(x.shape) == (1, 7, 9, 4)


def test_fresh_kernels_do_not_let_the_vertical_stack_die_out():
    # By Glorot's rule, each layer would shrink it to less than a half: ten of them to 1e-4.
    keras.utils.set_random_seed(1)
    v = random_images(1, 8, 8, 16) / 2
    first = np.std(v)
    for _ in range(10):
        layer = GatedStacks(16, 3, 1)
        layer.build(v.shape, v.shape)
        v, _ = layer(v, v)
    assert 0.05 * first < np.std(v) < first
