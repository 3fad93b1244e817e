"""Dropout and the noise of an image: functions of seeds, the same as ever, and without bias."""

import math

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_cases import BFLOAT16_EPS, FLOAT32_EPS

from pixel_cnn_pp import layers

# 2^n / t for each rate: of the numbers of n bits, the t least ones are kept. 0.5 to 3 / 256 are
# multiples of 2^-n; the others take 16 bits, of which at least one number is kept.
KEPT_VALUES = {
    0.5: 2.0,
    0.25: 4 / 3,
    0.8125: 16 / 3,
    3 / 256: 256 / 253,
    0.1: 65536 / 58982,
    0.99999: 65536.0,
    0.999999: 65536.0,
}

# What the version before room was found for higher seeds drew on TensorFlow, for images 5 and 6:
# units kept at a rate of 0.5, as bits, and uniforms.
RECORDED_NOISE = {
    (0, 0): (
        [0x0CA81F77, 0x141DB3A9],
        [
            [0.4280409812927246, 0.2251502275466919, 0.641603946685791],
            [0.8636116981506348, 0.8271198272705078, 0.8248183727264404],
        ],
    ),
    (3, 8): (
        [0x583D70A8, 0x2F97C84B],
        [
            [0.761864423751831, 0.11533105373382568, 0.26030170917510986],
            [0.4522324800491333, 0.24390077590942383, 0.13595902919769287],
        ],
    ),
    (32767, 2**31 - 1): (
        [0x74E9401B, 0xE8F5A332],
        [
            [0.5809783935546875, 0.31927013397216797, 0.6931508779525757],
            [0.9378944635391235, 0.3231614828109741, 0.4488205909729004],
        ],
    ),
}
# Other rates, for the seed (3, 8).
RECORDED_KEPT = {0.5: [0x583D70, 0x2F97C8], 0.25: [0xE7CE67, 0x7FAB3F], 0.3: [0xBD2FAE, 0xEDFBBE]}


def as_bits(kept):
    """Rows of 0 and 1 as whole numbers, the first one as the highest bit."""
    return [int("".join(str(int(bit)) for bit in row), 2) for row in np.asarray(kept)]


def masks(rate, seed, num_calls=2, dtype="float32", shape=(40, 50, 51), first_image=0):
    """What places that follow one another make of ones: [num_calls, *shape]."""
    dropout = layers.Dropout(rate)
    num_bytes = dropout.num_bytes(math.prod(shape[1:]))
    seed = ops.convert_to_tensor(seed)
    drawn = dropout.draw(seed, shape[0], num_calls * num_bytes, first_image)
    ones = ops.ones(shape, dtype)
    outputs = [dropout.drop(ones, drawn, call * num_bytes)(ones) for call in range(num_calls)]
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
    np.testing.assert_allclose(outputs[outputs > 0], KEPT_VALUES[rate], rtol=eps)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.99999, 0.999999])
def test_dropout_leaves_the_mean_as_it_is_at_any_rate(rate):
    # Enough units that of the highest rate, 1 - 2^-16, some 100 are kept.
    outputs = np.asarray(masks(rate, [5, 6], num_calls=1, shape=(16, 400, 1024)), np.float64)
    kept_value = KEPT_VALUES[rate]
    assert set(np.unique(outputs)) == {0.0, np.float32(kept_value)}
    standard_error = np.sqrt((kept_value - 1) / outputs.size)
    assert abs(np.mean(outputs) - 1) < 4 * standard_error


@pytest.mark.parametrize("seed", RECORDED_NOISE)
def test_seeds_below_32768_draw_the_noise_that_they_always_drew(seed):
    kept, uniforms = RECORDED_NOISE[seed]
    assert as_bits(masks(0.5, list(seed), 1, shape=(2, 32), first_image=5)[0] > 0) == kept
    seeds = layers.image_seeds(ops.convert_to_tensor(seed), 2, 5)
    np.testing.assert_array_equal(layers.image_uniforms(seeds, (3,)), np.float32(uniforms))


@pytest.mark.parametrize("rate", RECORDED_KEPT)
def test_rates_of_any_number_of_bits_drop_the_units_that_they_always_dropped(rate):
    kept = masks(rate, [3, 8], 1, shape=(2, 24), first_image=5)[0] > 0
    assert as_bits(kept) == RECORDED_KEPT[rate]


def test_seeds_of_which_only_the_high_bits_differ_share_no_noise():
    seeds = [5 + high for high in (0, 2**15, 2**16, 2**17, 2**30, 2**31 - 2**15)]
    num_images, num_units = 4, 512
    kept, uniforms = [], []
    for seed in seeds:
        kept.append(masks(0.5, [seed, 9], 1, shape=(num_images, num_units))[0] > 0)
        numbers = layers.image_seeds(ops.convert_to_tensor([seed, 9]), num_images)
        uniforms.append(layers.image_uniforms(numbers, (num_units,)))
    for noise in (np.concatenate(kept).astype("float64"), np.concatenate(uniforms)):
        # 24 images of 512 numbers: independent ones correlate by no more than standard errors.
        correlations = np.corrcoef(noise) - np.eye(len(noise))
        assert np.abs(correlations).max() < 5 / np.sqrt(num_units)


def test_images_of_other_seeds_steps_and_numbers_have_seeds_of_their_own():
    rng = np.random.default_rng(0)
    chosen = np.concatenate([[0, 1, 2**15, 2**16, 2**31 - 1], rng.integers(0, 2**31, 5)])
    drawn = [
        np.asarray(layers.image_seeds(ops.convert_to_tensor([seed, step], "int32"), 3, first))
        for seed in chosen
        for step in (0, 1, 2, 100000, 2**31 - 1)
        for first in (0, 3, 60000)
    ]
    numbers = np.concatenate(drawn).astype("int64")
    # TensorFlow takes 31 bits of each number.
    assert numbers.min() >= 0 and numbers.max() < 2**31
    assert len(np.unique(numbers, axis=0)) == len(numbers) == 10 * 5 * 9


def test_two_seeds_meet_after_thousands_of_steps_at_the_earliest():
    # Those that agree in their low bits number their steps from starts that are far apart.
    seeds = np.stack([np.arange(2**16) * 2**15, np.zeros(2**16, "int64")])
    starts = np.asarray(layers.image_seeds(ops.convert_to_tensor(seeds), 2**16))[:, 1]
    gaps = np.diff(np.sort([*starts, min(starts) + 2**31]))
    assert gaps.min() > 10000


def test_uniforms_of_an_image_are_a_function_of_its_numbers():
    numbers = np.array([[3, 1], [4, 1], [3, 2]])
    uniforms = np.asarray(layers.image_uniforms(numbers, (4, 6, 50)))
    assert uniforms.shape == (3, 4, 6, 50) and uniforms.dtype == np.float32
    assert uniforms.min() > 0 and uniforms.max() < 1
    np.testing.assert_array_equal(layers.image_uniforms(numbers[1:], (4, 6, 50)), uniforms[1:])
    # 1200 numbers: a correlation has the standard error 1 / sqrt(1200).
    correlations = np.corrcoef(uniforms.reshape(3, -1)) - np.eye(3)
    assert np.abs(correlations).max() < 4 / np.sqrt(1200)


def test_the_noise_of_an_image_may_be_a_function_of_its_levels():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 6, 3)).astype("uint8")
    images[1] = images[0]
    images[1, 2, 3, 1] ^= 1  # one sub-pixel, by one level
    digests = np.asarray(layers.image_digests(images))
    assert digests.shape == (50, 2) and digests.dtype == np.int32
    assert len(np.unique(digests, axis=0)) == 50
    np.testing.assert_array_equal(layers.image_digests(images[7:9].astype("int32")), digests[7:9])
    np.testing.assert_array_equal(tf.function(layers.image_digests)(images), digests)
