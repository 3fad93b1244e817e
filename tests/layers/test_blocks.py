"""The gated residual block, the block from channels to later channels, and the sample head."""

import numpy as np
import pytest
import tensorflow as tf
from layer_cases import FLOAT32_EPS, FLOAT64_EPS, SPECIMENS, built, specimen_inputs

from pixel_cnn_pp import layers
from pixel_cnn_pp.layers import blocks


@pytest.mark.parametrize("name", [name for name in SPECIMENS if name.startswith("block")])
def test_a_block_initialises_each_of_its_layers_on_the_initialised_ones_before(name):
    x, a, h = specimen_inputs(name, (6, 4, 6, 5))
    block = built(name, x.shape)  # g is not 1 and b is not 0
    kept = np.asarray(block.hw)
    rng = np.random.default_rng(2)
    mask = 2.0 * rng.integers(0, 2, (6, 4, 6, 10 if block.nonlinearity == "concat_elu" else 5))
    returned = block.initialize(x, a, h, dropout=lambda c, shape: layers.Drop(mask > 0, 2.0))

    nonlinearity = layers.NONLINEARITIES[block.nonlinearity]
    c, skip = block.conv_in(nonlinearity(x)), block.skip(nonlinearity(a))
    t = block.conv_out(nonlinearity(c + skip) * mask.astype("float32"))
    for outputs, deviation in ((c, 1.0), (skip, 1.0), (t, 0.1)):
        outputs = np.asarray(outputs, np.float64)
        # As above; no pre-activation here was more than 10 deviations from 0.
        tolerance = np.sqrt(6 * 4 * 6) * FLOAT32_EPS * 10 * deviation
        np.testing.assert_allclose(np.mean(outputs, (0, 1, 2)), 0.0, atol=tolerance)
        np.testing.assert_allclose(np.std(outputs, (0, 1, 2)), deviation, atol=tolerance)
    np.testing.assert_array_equal(block.hw, kept)
    value, gate = np.split(np.asarray(t) + (h @ kept)[:, None, None], 2, axis=-1)
    # h @ hw has terms of a size of about 10: a few roundings of such numbers.
    np.testing.assert_allclose(returned, x + value / (1 + np.exp(-gate)), atol=64 * FLOAT32_EPS)


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("name", ["channels_down", "channels_down_right"])
def test_groups_of_channels_see_the_short_cut_and_the_groups_before_them(name, conditioned):
    x, a, h = specimen_inputs(name)
    block = built(name, x.shape)
    h = h if conditioned else None
    expected = []
    for group, inner in enumerate(block.blocks):
        inputs = np.concatenate([a, *expected], axis=-1)
        expected.append(np.asarray(inner(x[..., group : group + 1], inputs, h)))
    np.testing.assert_array_equal(block(x, a, h), np.concatenate(expected, axis=-1))
    assert {inner.conv_in.kernel_size for inner in block.blocks} == {(1, 1)}
    # Without a short-cut the first group has no other input.
    alone = SPECIMENS[name]()
    alone.build(x.shape)
    assert [inner.skip is None for inner in alone.blocks] == [True, False, False, False, False]


def test_dropout_drops_units_of_every_group_of_channels():
    x, a, h = specimen_inputs("channels_down")
    block = built("channels_down", x.shape)
    kept = np.ones((3, 4, 6, block.num_dropped()), "float32")
    assert kept.shape[-1] == 10
    whole = np.asarray(block(x, a, h, dropout=lambda c, shape: layers.Drop(kept > 0, 1.0)))
    np.testing.assert_array_equal(whole, block(x, a, h))
    kept[..., 4:6] = 0  # the third of five groups, concat_elu makes two of one
    differs = (
        np.asarray(block(x, a, h, dropout=lambda c, shape: layers.Drop(kept > 0, 1.0))) != whole
    ).any((0, 1, 2))
    np.testing.assert_array_equal(differs, [False, False, True, True, True])


def test_a_head_is_the_equation_of_the_release():
    features, noise = specimen_inputs("head")
    head = built("head", features.shape)
    f = layers.concat_elu(features + head.noise_in(noise))
    f = layers.concat_elu(head.hidden(f))
    expected = np.tanh(head.output_layer(f))
    np.testing.assert_allclose(head(features, noise), expected, atol=4 * FLOAT32_EPS)
    step = head.step(head.step_weights(), features[:, 0, 0], noise[:, 0, 0])
    np.testing.assert_allclose(step, expected[:, 0, 0], atol=16 * FLOAT32_EPS)


def test_a_head_initialises_its_layers_one_after_the_other():
    features, noise = specimen_inputs("head", (6, 4, 6, 5))
    head = built("head", features.shape)
    samples = head.initialize(features, noise)
    np.testing.assert_array_equal(samples, head(features, noise))
    outputs = np.arctanh(np.asarray(samples, np.float64))
    # arctanh magnifies the rounding of numbers near 1; most here are within a few tenths of 0.
    np.testing.assert_allclose(outputs.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std((0, 1, 2)), 0.1, atol=1e-5)


def test_concat_elu_in_the_form_on_jax_has_the_same_values_and_gradients():
    x = np.array([[-3.0, -0.25, 0.0, 1e-3, 2.5]])
    weights = np.array([[1.0, -2.0, 3.0, -4.0, 5.0, 6.0, -7.0, 8.0, -9.0, 10.0]])

    def found(function, dtype):
        inputs = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(inputs)
            total = tf.reduce_sum(outputs * tf.constant(weights, dtype))
        return outputs, tape.gradient(total, inputs)

    expected = found(blocks.concat_elu, "float64")
    # In bfloat16, outputs are below 4 and gradients below 16, of a few roundings.
    for dtype, eps in (("float64", FLOAT64_EPS), ("bfloat16", 2**-8)):
        for ours, plain in zip(found(blocks._concat_elu_on_jax, dtype), expected, strict=True):
            np.testing.assert_allclose(tf.cast(ours, "float64"), plain, rtol=0, atol=16 * eps)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_concat_elu_in_the_form_for_xla_has_exactly_the_values_of_the_other(dtype):
    x = tf.constant([[-90.0, -3.0, -0.25, -1e-6, -0.0, 0.0, 1e-6, 2.5, 90.0]], dtype)

    @tf.function(jit_compile=True)
    def compiled():
        plain = blocks.concat_elu(x)
        with layers.for_xla():
            return plain, blocks.concat_elu(x)

    plain, for_xla = (tf.cast(y, "float64") for y in compiled())
    np.testing.assert_array_equal(for_xla, plain)
