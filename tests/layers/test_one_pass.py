"""What lies between the products of a block, compiled by XLA to one pass over memory."""

import numpy as np
import pytest
import tensorflow as tf
from layer_cases import FLOAT64_EPS

from pixel_cnn_pp import layers
from pixel_cnn_pp.layers import blocks, one_pass

SHAPE = 2, 5, 7, 8


def numbers_of_block(dtype, rate, in_one_pass, monkeypatch):
    """Outputs of a block with two inputs, and their gradients by inputs and weights, in float64."""
    rng = np.random.default_rng(0)
    block = layers.GatedResidualBlock(layers.DownRightShiftedConv2D, dtype=dtype)
    block.build(SHAPE, SHAPE)
    for weight in block.weights:
        weight.assign(0.5 * rng.standard_normal(weight.shape).astype("float32"))
    # Numbers that every dtype has. Many are 0, where the slopes of elu meet.
    inputs = [rng.integers(-32, 33, SHAPE) / 16 * rng.integers(0, 2, SHAPE) for _ in range(3)]
    inputs = [tf.cast(x, block.compute_dtype) for x in inputs]
    dropout = layers.Dropout(rate)
    drawn = dropout.draw(tf.constant([1, 2]), 2, dropout.num_bytes(5 * 7 * 16))
    monkeypatch.setattr(one_pass, "_MIN_SIZE", 0 if in_one_pass else 2**40)

    @tf.function(autograph=False)
    def compute(x, a, upstream):
        assert one_pass.pays(x) == in_one_pass
        weights = [weight.value for weight in block.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch([x, a, *weights])
            outputs = block(
                x, a, dropout=lambda like, shape: dropout.drop(like, drawn, shape=shape)
            )
            total = tf.reduce_sum(tf.cast(outputs * upstream, "float64"))
        return [outputs, *tape.gradient(total, [x, a, *weights])]

    return [tf.cast(number, "float64").numpy() for number in compute(*inputs)]


@pytest.mark.parametrize("rate", [0.5, 0.3])  # 1 and 16 bits for each unit
def test_a_block_in_one_pass_has_the_same_numbers_and_gradients(rate, monkeypatch):
    found = numbers_of_block("float64", rate, True, monkeypatch)
    expected = numbers_of_block("float64", rate, False, monkeypatch)
    for ours, plain in zip(found, expected, strict=True):
        # Sums of at most 2 * 5 * 7 * 32 terms.
        scale = np.abs(plain).max()
        np.testing.assert_allclose(ours, plain, rtol=0, atol=1000 * FLOAT64_EPS * scale)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_one_pass_rounds_no_more_than_operation_by_operation(dtype, monkeypatch):
    exact = numbers_of_block("float64", 0.5, False, monkeypatch)
    errors = [
        np.sqrt(
            np.mean(
                [
                    np.mean((ours - true) ** 2) / np.mean(true**2)
                    for ours, true in zip(
                        numbers_of_block(dtype, 0.5, in_one_pass, monkeypatch), exact, strict=True
                    )
                ]
            )
        )
        for in_one_pass in (True, False)
    ]
    assert errors[0] < 1.1 * errors[1]


def test_small_or_unknown_images_and_rows_are_not_compiled():
    found = []

    def trace(shape):
        signature = [tf.TensorSpec(shape, tf.float32)]
        run = tf.function(lambda x: found.append(one_pass.pays(x)), input_signature=signature)
        run.get_concrete_function()

    for shape in ((16, 32, 32, 64), (2, 8, 8, 4), (None, 32, 32, 64), (32, 16, 4096)):
        trace(shape)
    assert found == [True, False, False, False]
    assert not one_pass.pays(tf.zeros((16, 32, 32, 64)))  # not in a graph


def test_results_are_rounded_to_the_nearest_bfloat16():
    rng = np.random.default_rng(0)
    exponents = np.array([-130.0, -10, 0, 5, 120])[:, None]
    numbers = (rng.standard_normal((5, 400)) * 2.0**exponents).astype("float32")
    between = 1 + np.arange(8) * 2.0**-8  # every second one lies between two numbers
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38]
    numbers = tf.constant(np.concatenate([numbers.ravel(), between, special]), tf.float32)
    found = tf.cast(one_pass._rounded(numbers), tf.float32)
    expected = tf.cast(tf.cast(numbers, tf.bfloat16), tf.float32)
    np.testing.assert_array_equal(found, expected)


def test_concat_elu_is_exact_near_zero():
    x = np.array([-1e-6, 3e-4, -0.02, 0.5, -3.0, -90.0])
    expected = np.stack([np.where(y > 0, y, np.expm1(y)) for y in (x, -x)]).ravel()
    found = one_pass.compiled(one_pass._concat_elu)(tf.constant(x, tf.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    plain = blocks.concat_elu(tf.constant(x, tf.float32))
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-6)
