"""Dropout and the noise of an image: functions of seeds, the same as ever, and without bias."""

import math

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_cases import BFLOAT16_EPS, FLOAT32_EPS

from pixel_cnn_pp import layers


def masks(rate, seed, num_calls=2, dtype="float32", shape=(40, 50, 51), first_image=0):
    """What consecutive calls of one Dropout make of ones: [num_calls, *shape]."""
    num_units = num_calls * layers.round_up_to_8(math.prod(shape[1:]))
    dropout = layers.Dropout(rate, seed, shape[0], num_units, first_image)
    outputs = [dropout(ops.ones(shape, dtype)) for _ in range(num_calls)]
    assert all(output.dtype == dtype for output in outputs)
    return ops.stack([ops.cast(output, "float32") for output in outputs])


def test_dropout_is_the_same_for_the_same_seed():
    expected = masks(0.5, [3, 8])
    np.testing.assert_array_equal(masks(0.5, [3, 8]), expected)
    traced = tf.function(lambda seed: masks(0.5, seed))
    np.testing.assert_array_equal(traced(tf.constant([3, 8])), expected)


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.3])
def test_dropout_of_an_image_depends_on_its_number_not_on_its_batch(rate):
    whole = masks(rate, [3, 8], shape=(6, 5, 7))
    parts = [masks(rate, [3, 8], shape=(2, 5, 7), first_image=first) for first in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_dropout_differs_between_seeds_steps_and_calls():
    kept = [masks(0.5, seed) > 0 for seed in ([3, 8], [3, 9], [4, 8], [8, 3])]
    kept.append(masks(0.5, [3, 8], first_image=40) > 0)
    kept = np.concatenate(kept)
    size = kept[0].size
    for first in range(len(kept)):
        for second in range(first):
            # Independent masks agree on half of the units; 5 standard errors, 45 pairs.
            agreement = np.mean(kept[first] == kept[second])
            assert abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(size)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.8125, 3 / 256])
def test_dropout_keeps_one_minus_rate_of_the_units_and_scales_them(dtype, rate):
    outputs = np.asarray(masks(rate, [1, 2], dtype=dtype))
    kept = np.mean(outputs > 0)
    standard_error = np.sqrt(rate * (1 - rate) / outputs.size)
    assert abs(kept - (1 - rate)) < 4 * standard_error
    eps = BFLOAT16_EPS if dtype == "bfloat16" else FLOAT32_EPS
    np.testing.assert_allclose(outputs[outputs > 0], 1 / (1 - rate), rtol=eps)


def test_uniforms_of_an_image_are_a_function_of_its_numbers():
    numbers = np.array([[3, 1], [4, 1], [3, 2]])
    uniforms = np.asarray(layers.image_uniforms(numbers, (4, 6, 50)))
    assert uniforms.shape == (3, 4, 6, 50) and uniforms.dtype == np.float32
    assert uniforms.min() > 0 and uniforms.max() < 1
    np.testing.assert_array_equal(layers.image_uniforms(numbers[1:], (4, 6, 50)), uniforms[1:])
    # 1200 numbers: a correlation has the standard error 1 / sqrt(1200).
    correlations = np.corrcoef(uniforms.reshape(3, -1)) - np.eye(3)
    assert np.abs(correlations).max() < 4 / np.sqrt(1200)
