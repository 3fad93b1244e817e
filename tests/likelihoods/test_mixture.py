"""The mixture of logistics: a probability, read from raw parameters, drawn from by uniforms."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from mixture_cases import (
    FLOAT32_EPS,
    LOCS,
    LOG_SCALES,
    SMALL_PIXELS,
    all_pixels,
    as_tensors,
    assert_frequencies,
    random_params,
    uniforms,
    with_candidates,
)

from pixel_cnn_pp.likelihoods import LogisticMixture, MixtureParams


@pytest.mark.parametrize("num_levels", [2, 256])
def test_log_prob_and_its_gradients_are_finite_at_the_extremes(num_levels):
    mixture = LogisticMixture(3, num_levels)
    cases = np.array(list(itertools.product(LOCS, LOG_SCALES, (0, num_levels // 2))))
    loc, log_scale, level = (column.astype("float32") for column in cases.T)
    levels = np.stack([level, np.full_like(level, num_levels - 1), np.zeros_like(level)], axis=-1)
    params = [
        tf.constant(np.stack([0 * loc, 50 * np.sign(loc)], axis=-1)),
        tf.constant(np.stack([loc, -loc], axis=-1)[:, None, :] * np.ones((1, 3, 1), "float32")),
        tf.constant(log_scale[:, None, None] * np.ones((1, 3, 2), "float32")),
        tf.constant(np.ones((len(loc), 3, 2), "float32")),
    ]
    with tf.GradientTape() as tape:
        tape.watch(params)
        log_prob = mixture.log_prob(MixtureParams(*params), levels)
    assert np.all(np.isfinite(log_prob))
    for gradient in tape.gradient(log_prob, params):
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(("num_channels", "num_levels"), [*SMALL_PIXELS, (1, 65536), (2, 256)])
def test_probabilities_of_all_pixels_sum_to_1(num_channels, num_levels):
    mixture = LogisticMixture(num_channels, num_levels)
    pixels = np.stack(np.indices((num_levels,) * num_channels), -1).reshape(-1, num_channels)
    num_seeds = 1 if len(pixels) > 10000 else 5
    for seed in range(num_seeds):
        params = random_params(num_channels, 3, seed, narrowest=-5.0)
        log_prob = np.asarray(mixture.log_prob(with_candidates(params), pixels), np.float64)
        # A log mass is good to eps of (|x| + |loc|) / s, and where there is mass both are about 1
        # at most and 1 / s at most exp(5).
        total = np.sum(np.exp(log_prob))
        assert abs(total - 1.0) < FLOAT32_EPS * 2 * np.exp(5.0)


@pytest.mark.parametrize("loc", [-20.0, -1.0, 0.3, 1.01, 500.0])
@pytest.mark.parametrize("log_scale", [-7.0, 0.0, 10.0])
def test_probabilities_sum_to_1_for_means_and_scales_off_the_range(loc, log_scale):
    mixture = LogisticMixture(1, 256)
    params = as_tensors(MixtureParams([[0.0]], [[[loc]]], [[[log_scale]]], None))
    log_prob = np.asarray(mixture.log_prob(params, np.arange(256)[:, None]), np.float64)
    arguments = (2 + abs(loc)) * np.exp(-log_scale)
    assert abs(np.sum(np.exp(log_prob)) - 1.0) < 2 * FLOAT32_EPS * (1 + arguments)


def test_log_prob_of_uint8_and_float_images_is_the_same():
    mixture = LogisticMixture(3, 256)
    levels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3))
    params = random_params(3, 5, seed=1, batch_shape=(2, 4, 6))
    expected = np.asarray(mixture.log_prob(params, levels.astype("uint8")))
    assert expected.shape == (2, 4, 6)
    for dtype in ("int32", "int64", "float32", "float64"):
        np.testing.assert_array_equal(mixture.log_prob(params, levels.astype(dtype)), expected)


def test_log_prob_depends_on_a_channel_only_through_it_and_the_later_ones():
    mixture = LogisticMixture(3, 256)
    params = random_params(3, 1, seed=1)
    # With one component the channels' log-probabilities add: find each by wide-open others.
    levels = np.array([100, 30, 200])
    by_channel = []
    for channel in range(3):
        log_scale = np.full((3, 1), 80.0, "float32")
        log_scale[channel] = -1.0
        changed = params._replace(log_scale=ops.convert_to_tensor(log_scale))
        rows = [np.asarray(mixture.log_prob(changed, levels))]
        for other in range(3):
            moved = levels + 50 * (np.arange(3) == other)
            rows.append(np.asarray(mixture.log_prob(changed, moved)))
        by_channel.append([row != rows[0] for row in rows[1:]])
    np.testing.assert_array_equal(by_channel, np.tril(np.ones((3, 3), bool)))


@pytest.mark.parametrize("num_channels", [1, 2, 3, 4])
def test_split_uses_every_group_exactly_once(num_channels):
    mixture = LogisticMixture(num_channels, 256)
    num_groups = mixture.params_per_component()
    assert num_groups == 1 + 2 * num_channels + num_channels * (num_channels - 1) // 2
    num_components = 3
    # Groups 0.1, 0.2, ...: over the floor of the log-scales, and invertible through tanh.
    raw_params = 0.1 * (1 + np.arange(num_groups * num_components, dtype="float32"))
    params = mixture.split(raw_params[None, None] * np.ones((2, 5, 1), "float32"))
    parts = [params.mixture_logits[..., None, :], params.loc, params.log_scale]
    if num_channels == 1:
        assert params.coeffs is None
    else:
        parts.append(np.arctanh(np.asarray(params.coeffs, np.float64)))
    groups = np.concatenate([np.asarray(part) for part in parts], axis=-2)  # [2, 5, groups, K]
    assert groups.shape == (2, 5, num_groups, num_components)
    found = np.sort(groups[0, 1].ravel())
    # tanh(4.5), the largest, is 5e-4 from 1 as its derivative is: eps grows by 1 / 5e-4.
    np.testing.assert_allclose(found, raw_params, rtol=FLOAT32_EPS / 5e-4)


def test_rounded_channels_condition_the_later_ones():
    mixture = LogisticMixture(2, 3)  # levels 0, 1, 2 are -1, 0, 1
    params = as_tensors(
        MixtureParams([0.0], [[0.4], [0.3]], [[-7.0], [-7.0]], coeffs=[[1.0]]), "float32"
    )
    uniforms = np.array([0.5], "float32"), np.array([0.5, 0.5], "float32")
    # 0.4 is rounded to 0, and 0.3 + 0 to 0; unrounded, 0.3 + 0.4 would round to 1.
    np.testing.assert_array_equal(mixture.sample(params, *uniforms), [1, 1])
    first = mixture.draw_value(params, 0, [], uniforms[1][:1])
    second = mixture.draw_value(params, 1, [first], uniforms[1][1:])
    unrounded = np.concatenate([first, second])
    np.testing.assert_allclose(unrounded, [0.4, 0.7], rtol=2 * FLOAT32_EPS)


def test_draws_are_a_function_of_the_uniforms():
    mixture = LogisticMixture(3, 256)
    params = random_params(3, 5, seed=0, batch_shape=(2, 4, 6))
    noise = uniforms(2, 4, 6, 5, seed=1), uniforms(2, 4, 6, 3, seed=2)
    draws = mixture.sample(params, *noise)
    assert draws.shape == (2, 4, 6, 3)
    assert draws.dtype == "uint8"
    np.testing.assert_array_equal(mixture.sample(params, *noise), draws)
    np.testing.assert_array_equal(tf.function(mixture.sample)(params, *noise), draws)
    assert np.any(mixture.sample(params, noise[0], uniforms(2, 4, 6, 3, seed=3)) != draws)
    # The last channel's uniform changes the last channel only.
    other = noise[1].copy()
    other[..., 2] = uniforms(2, 4, 6, seed=4)
    changed = np.asarray(mixture.sample(params, noise[0], other)) != np.asarray(draws)
    assert np.any(changed[..., 2])
    assert not np.any(changed[..., :2])


@pytest.mark.parametrize(("num_channels", "num_levels"), [(1, 17), (1, 256), (2, 4), (3, 3)])
def test_frequencies_of_draws_agree_with_log_prob(num_channels, num_levels):
    mixture = LogisticMixture(num_channels, num_levels)
    params = random_params(num_channels, 3, seed=4)
    num_draws = 20000
    draws = mixture.sample(
        params, uniforms(num_draws, 3, seed=5), uniforms(num_draws, num_channels, seed=6)
    )
    log_prob = mixture.log_prob(with_candidates(params), all_pixels(num_channels, num_levels))
    assert_frequencies(draws, log_prob, num_levels)
