"""Mode and mean of a pixel, against brute force."""

import numpy as np
import pytest
from mixture_cases import (
    FLOAT32_EPS,
    SMALL_PIXELS,
    all_pixels,
    as_tensors,
    random_params,
    uniforms,
    with_candidates,
)

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.likelihoods import LogisticMixture, MixtureParams, mixture_statistics


@pytest.mark.parametrize(("num_channels", "num_levels"), SMALL_PIXELS)
def test_mean_and_mode_equal_brute_force(num_channels, num_levels):
    mixture = LogisticMixture(num_channels, num_levels)
    batch = 20
    params = random_params(num_channels, 3, seed=1, batch_shape=(batch,))
    pixels = all_pixels(num_channels, num_levels)
    candidates = MixtureParams(*[None if values is None else values[:, None] for values in params])
    log_prob = np.asarray(mixture.log_prob(candidates, pixels), np.float64)  # [batch, n]
    expected = np.einsum("bn,nc->bc", np.exp(log_prob), pixels)
    mean = np.asarray(mixture_statistics.mean(mixture, params))
    if num_channels == 1 or num_levels <= 16:
        # A sum of up to L probabilities, each good to a few eps.
        tolerance = 8 * FLOAT32_EPS * num_levels
    else:
        # 16 quantiles stand for an earlier channel: under a quarter of a level per level skipped.
        tolerance = 0.25 * num_levels / 16
    np.testing.assert_allclose(mean, expected, atol=tolerance)

    mode = np.asarray(mixture_statistics.mode(mixture, params))
    assert mode.dtype == likelihoods.level_dtype(num_levels)
    index = np.ravel_multi_index(mode.T, (num_levels,) * num_channels)
    found = log_prob[np.arange(batch), index]
    best = np.max(log_prob, axis=-1)
    # Equally probable pixels may be told apart by a rounding only.
    is_best = found >= best - 4 * FLOAT32_EPS * np.abs(best)
    # A search for C = 1; else from a start that is nearly always below the highest peak.
    assert np.all(is_best) if num_channels == 1 else np.mean(is_best) >= 0.9
    assert np.all(found > best - 0.1)


@pytest.mark.parametrize("seed", range(8))
def test_mean_and_mode_of_two_fine_channels_are_close_to_brute_force(seed):
    mixture = LogisticMixture(2, 256)
    params = random_params(2, 3, seed)
    pixels = all_pixels(2, 256)
    log_prob = np.asarray(mixture.log_prob(with_candidates(params), pixels), np.float64)
    expected = np.exp(log_prob) @ pixels
    mean = np.asarray(mixture_statistics.mean(mixture, params))
    # Channel 0 is exact; its 16 quantiles make the other one "well under one level".
    np.testing.assert_allclose(mean[0], expected[0], atol=8 * FLOAT32_EPS * 256)
    np.testing.assert_allclose(mean[1], expected[1], atol=0.25)
    mode = np.asarray(mixture_statistics.mode(mixture, params))
    found = log_prob[256 * int(mode[0]) + int(mode[1])]
    np.testing.assert_allclose(found, np.max(log_prob), rtol=4 * FLOAT32_EPS)


def test_no_change_of_one_channel_improves_the_mode():
    mixture = LogisticMixture(3, 256)
    params = random_params(3, 5, seed=11, batch_shape=(20,))
    mode = np.asarray(mixture_statistics.mode(mixture, params)).astype("int32")
    best = np.asarray(mixture.log_prob(params, mode))
    candidates = MixtureParams(*[values[:, None] for values in params])
    for channel in range(3):
        others = np.repeat(mode[:, None], 256, axis=1)
        others[:, :, channel] = np.arange(256)
        log_prob = np.asarray(mixture.log_prob(candidates, others))
        assert np.all(np.max(log_prob, axis=1) <= best + 4 * FLOAT32_EPS * np.abs(best))


def test_mode_finds_the_mass_in_the_open_ended_bins():
    # Both channels lie at their ends, and the middle of no component is near: (0, 255) holds most.
    mixture = LogisticMixture(2, 256)
    params = as_tensors(MixtureParams([0.0], [[-0.2], [0.2]], [[3.0], [3.0]], [[-0.9]]))
    np.testing.assert_array_equal(mixture_statistics.mode(mixture, params), [0, 255])


@pytest.mark.parametrize("seed", range(3))
def test_mean_of_three_fine_channels_agrees_with_draws(seed):
    mixture = LogisticMixture(3, 256)
    params = random_params(3, 4, seed)
    num_draws = 100000
    draws = np.asarray(
        mixture.sample(params, uniforms(num_draws, 4, seed=7), uniforms(num_draws, 3, seed=8)),
        np.float64,
    )
    standard_error = np.std(draws, axis=0) / np.sqrt(num_draws)
    error = np.abs(np.mean(draws, axis=0) - np.asarray(mixture_statistics.mean(mixture, params)))
    # The first channel is exact, the later ones "well under one level".
    assert np.all(error < 4 * standard_error + [0.0, 0.25, 0.25])


def test_mean_and_mode_of_one_channel_of_65536_levels():
    mixture = LogisticMixture(1, 65536)
    params = random_params(1, 3, seed=2)
    log_prob = mixture.log_prob(with_candidates(params), np.arange(65536)[:, None])
    log_prob = np.asarray(log_prob, np.float64)
    expected = np.exp(log_prob) @ np.arange(65536)
    np.testing.assert_allclose(
        mixture_statistics.mean(mixture, params), [expected], atol=8 * FLOAT32_EPS * 65536
    )
    mode = mixture_statistics.mode(mixture, params)
    assert mode.dtype == "int32"
    found = log_prob[int(mode[0])]
    np.testing.assert_allclose(found, np.max(log_prob), rtol=4 * FLOAT32_EPS)
