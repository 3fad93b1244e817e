"""The distribution of a pixel as TensorFlow Probability has it: shapes, numbers, errors."""

import doctest

import numpy as np
import pytest
import tensorflow as tf
from distribution_cases import (
    FLOAT32_EPS,
    SEED,
    broadcast_parameters,
    broadcasting_parameters,
    expected_log_prob,
    numbers,
    parameters,
)

from pixel_cnn_pp.likelihoods import (
    LogisticMixture,
    MixtureParams,
    distributions,
    mixture_statistics,
)
from pixel_cnn_pp.likelihoods.distributions import DiscretizedLogisticMixture, image_distribution


def test_the_example_of_the_docstring_runs():
    assert doctest.testmod(distributions).failed == 0
    assert doctest.testmod(distributions).attempted > 0


def test_shapes_are_those_of_broadcast_parameters():
    pixels = DiscretizedLogisticMixture(**broadcasting_parameters())
    assert pixels.batch_shape == [6, 5]
    assert pixels.event_shape == [3]
    np.testing.assert_array_equal(pixels.batch_shape_tensor(), [6, 5])
    np.testing.assert_array_equal(pixels.event_shape_tensor(), [3])
    assert pixels.dtype == tf.uint8
    assert pixels.sample(seed=SEED).shape == [6, 5, 3]
    assert pixels.sample((2, 7), seed=SEED).shape == [2, 7, 6, 5, 3]
    assert pixels.log_prob(pixels.sample((2, 7), seed=SEED)).shape == [2, 7, 6, 5]
    assert pixels.log_prob([1, 2, 3]).shape == [6, 5]
    assert pixels.log_prob(np.ones((9, 1, 1, 3), "uint8")).shape == [9, 6, 5]
    assert pixels.mean().shape == [6, 5, 3]
    assert pixels.mode().shape == [6, 5, 3]
    assert pixels[1:4].batch_shape == [3, 5]


def test_broadcasting_parameters_give_the_numbers_of_broadcast_ones():
    narrow = DiscretizedLogisticMixture(**broadcasting_parameters())
    whole = DiscretizedLogisticMixture(**broadcast_parameters())
    draws = narrow.sample(4, seed=SEED)
    np.testing.assert_array_equal(draws, whole.sample(4, seed=SEED))
    # The same float32 operations on the same numbers; vectorised code may round one ulp apart.
    for name, *arguments in (("log_prob", draws), ("mean",)):
        narrow_values = getattr(narrow, name)(*arguments)
        whole_values = getattr(whole, name)(*arguments)
        np.testing.assert_allclose(narrow_values, whole_values, rtol=8 * FLOAT32_EPS)
    np.testing.assert_array_equal(narrow.mode(), whole.mode())


def test_mean_and_mode_have_the_batch_shape_that_only_the_logits_have():
    arguments = parameters()
    arguments["mixture_logits"] = numbers(6, 5, 4)
    pixels = DiscretizedLogisticMixture(**arguments)
    assert pixels.mean().shape == pixels.mode().shape == [6, 5, 3]
    assert pixels.sample(2, seed=SEED).shape == [2, 6, 5, 3]
    assert pixels.log_prob([1, 2, 3]).shape == [6, 5]


def test_log_prob_mean_and_mode_are_the_likelihoods():
    arguments = parameters((2, 5))
    pixels = DiscretizedLogisticMixture(**arguments)
    value = np.random.default_rng(0).integers(0, 256, (2, 5, 3)).astype("uint8")
    log_prob = pixels.log_prob(value)
    np.testing.assert_array_equal(log_prob, expected_log_prob(arguments, value))
    np.testing.assert_array_equal(pixels.prob(value), tf.exp(log_prob))
    mixture = LogisticMixture(3, 256)
    params = MixtureParams(*(tf.constant(values) for values in arguments.values()))
    np.testing.assert_array_equal(pixels.mean(), mixture_statistics.mean(mixture, params))
    np.testing.assert_array_equal(pixels.mode(), mixture_statistics.mode(mixture, params))
    assert pixels.mode().dtype == tf.uint8
    assert pixels.mean().dtype == tf.float32


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32"])
def test_values_of_any_dtype_score_the_same(dtype):
    pixels = DiscretizedLogisticMixture(**parameters((5,)))
    value = np.random.default_rng(0).integers(0, 256, (5, 3))
    expected = pixels.log_prob(value.astype("uint8"))
    np.testing.assert_array_equal(pixels.log_prob(value.astype(dtype)), expected)
    np.testing.assert_array_equal(pixels.log_prob(tf.constant(value, dtype)), expected)


def test_without_coeffs_channels_do_not_shift_each_other():
    arguments = parameters((5,))
    value = [10, 200, 30]
    without = DiscretizedLogisticMixture(**{**arguments, "coeffs": None})
    zeros = DiscretizedLogisticMixture(**{**arguments, "coeffs": tf.zeros((3, 4))})
    np.testing.assert_array_equal(without.log_prob(value), zeros.log_prob(value))
    np.testing.assert_array_equal(without.sample(4, seed=SEED), zeros.sample(4, seed=SEED))
    assert without[2:].log_prob(value).shape == [3]
    single = DiscretizedLogisticMixture(**{**parameters(num_channels=1), "coeffs": None})
    assert single.event_shape == [1]
    assert single.log_prob(single.sample(7, seed=SEED)).shape == [7]


@pytest.mark.parametrize(("num_levels", "dtype"), [(2, tf.uint8), (256, tf.uint8), (257, tf.int32)])
def test_samples_are_levels(num_levels, dtype):
    pixels = DiscretizedLogisticMixture(**parameters(), num_levels=num_levels)
    draws = pixels.sample(500, seed=SEED)
    assert draws.dtype == pixels.dtype == pixels.mode().dtype == dtype
    assert np.min(draws) == 0
    assert np.max(draws) == num_levels - 1


def test_float64_parameters_give_float64_log_prob():
    arguments = parameters()
    exact = DiscretizedLogisticMixture(
        **{name: tf.constant(value, tf.float64) for name, value in arguments.items()}
    )
    log_prob = exact.log_prob([3, 4, 255])
    assert log_prob.dtype == exact.mean().dtype == tf.float64
    assert exact.sample(5, seed=SEED).dtype == tf.uint8
    # A log mass of about 10 nats, and arguments of about 10, are good to eps of that.
    expected = expected_log_prob(arguments, [3, 4, 255])
    np.testing.assert_allclose(log_prob, expected, rtol=16 * FLOAT32_EPS)


def test_from_raw_params_splits_them_and_passes_the_rest_on():
    raw_params = numbers(2, 5, 18)  # 1 + 2 C + C (C - 1) / 2 = 6 groups of K = 3
    pixels = DiscretizedLogisticMixture.from_raw_params(
        raw_params, num_channels=2, num_levels=17, validate_args=True, name="pixels"
    )
    params = LogisticMixture(2, 17).split(raw_params)
    for name, value in params._asdict().items():
        np.testing.assert_array_equal(getattr(pixels, name), value)
    assert pixels.batch_shape == [2, 5]
    assert pixels.event_shape == [2]
    assert (pixels.num_levels, pixels.validate_args, pixels.name) == (17, True, "pixels")


def test_image_distribution_scores_and_draws_whole_images():
    raw_params = numbers(2, 4, 6, 50)
    images = image_distribution(raw_params, LogisticMixture(3, 256))
    assert images.batch_shape == [2]
    assert images.event_shape == [4, 6, 3]
    assert images.dtype == tf.uint8
    draws = images.sample(5, seed=SEED)
    assert draws.shape == [5, 2, 4, 6, 3]
    mixture = LogisticMixture(3, 256)
    per_pixel = mixture.log_prob(mixture.split(raw_params), draws)
    np.testing.assert_allclose(
        images.log_prob(draws), np.sum(per_pixel, axis=(2, 3)), rtol=24 * FLOAT32_EPS
    )
    assert images.log_prob(draws[0]).shape == [2]
    one_channel = image_distribution(numbers(2, 4, 6, 15), LogisticMixture(1, 17))
    assert one_channel.event_shape == [4, 6, 1]


def test_stateless_seeds_determine_the_draws():
    pixels = DiscretizedLogisticMixture(**parameters((5,)))
    draws = pixels.sample(20, seed=SEED)
    np.testing.assert_array_equal(pixels.sample(20, seed=tf.constant(SEED)), draws)
    np.testing.assert_array_equal(tf.function(pixels.sample)(20, seed=tf.constant(SEED)), draws)
    for other in ((3, 9), (4, 8), (8, 3)):
        assert np.mean(pixels.sample(20, seed=other) != draws) > 0.5


def test_draws_of_a_batch_and_of_a_sample_differ_from_each_other():
    arguments = {name: np.stack([value] * 5) for name, value in parameters().items()}
    arguments["loc"] *= 0.1  # few draws end in the open-ended bins, where they could be equal
    pixels = DiscretizedLogisticMixture(**arguments, num_levels=65536)
    draws = np.asarray(pixels.sample(6, seed=SEED)).reshape(30, 3)
    assert len(np.unique(draws, axis=0)) == 30


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mixture_logits": np.zeros(3)}, r"mixture_logits must have the shape \[..., 4\]"),
        ({"mixture_logits": 0.0}, r"mixture_logits must have the shape \[..., 4\]"),
        ({"loc": np.zeros(4)}, r"loc must have a static shape \[..., C, K\]"),
        ({"loc": np.zeros((0, 4))}, r"loc must have a static shape \[..., C, K\]"),
        ({"log_scale": np.zeros((2, 4))}, r"log_scale must have the shape \[..., 3, 4\]"),
        ({"coeffs": np.zeros((2, 4))}, r"coeffs must have the shape \[..., 3, 4\]"),
        ({"coeffs": np.zeros(4)}, r"coeffs must have the shape \[..., 3, 4\]"),
        ({"loc": tf.zeros((3, 4), tf.bfloat16)}, "Parameters must be float32 or float64"),
        ({"num_levels": 1}, "num_levels must be a whole number, at least 2"),
        ({"num_levels": 2.5}, "num_levels must be a whole number, at least 2"),
        ({"num_levels": "256"}, "num_levels must be a whole number, at least 2"),
    ],
)
def test_bad_parameters_get_one_line(changed, message):
    with pytest.raises(ValueError, match=message) as error:
        DiscretizedLogisticMixture(**{**parameters(), **changed})
    assert "Received: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [1, [1], [1, 2], [1, 2, 3, 4]])
def test_a_value_of_another_number_of_channels_gets_one_line(value):
    pixels = DiscretizedLogisticMixture(**parameters())
    with pytest.raises(ValueError, match="The last axis of value must be the 3 channels") as error:
        pixels.log_prob(value)
    assert "\n" not in str(error.value)


def test_raw_parameters_of_another_length_get_one_line():
    with pytest.raises(ValueError, match="must be a multiple of 10 for 3 channels") as error:
        image_distribution(numbers(2, 4, 6, 47), LogisticMixture(3, 256))
    assert "\n" not in str(error.value)
