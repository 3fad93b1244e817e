"""The distribution compiled, of unknown sizes, with variables, and inside other distributions."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp
from distribution_cases import (
    FLOAT32_EPS,
    SEED,
    broadcasting_parameters,
    expected_log_prob,
    numbers,
    parameters,
)

from pixel_cnn_pp.likelihoods import LogisticMixture
from pixel_cnn_pp.likelihoods.distributions import DiscretizedLogisticMixture, image_distribution

tfd = tfp.distributions


def test_integer_seeds_mean_what_they_mean_to_tensorflow_probability():
    # They pick a sequence, which starts anew with the global seed.
    for distribution in (
        tfd.Normal(np.zeros(20), 1.0),
        DiscretizedLogisticMixture(**parameters((20,))),
    ):

        def draw(seed, distribution=distribution):
            tf.random.set_seed(5)
            return [distribution.sample(2, seed=seed) for _ in range(2)]

        first, second = draw(3)
        assert np.any(first != second)
        np.testing.assert_array_equal(draw(3), [first, second])
        assert np.any(draw(4)[0] != first)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_frequencies_of_samples_agree_with_log_prob(jit_compile):
    # As many components as channels: were the noise of both the same, the draws would show it.
    arguments = parameters(num_channels=2, num_components=2)
    arguments["log_scale"] = np.zeros_like(arguments["log_scale"])  # every pixel occurs
    pixels = DiscretizedLogisticMixture(**arguments, num_levels=4)
    num_draws = 20000
    # XLA draws by another algorithm than the other devices do, as for any TFP distribution.
    sample = tf.function(lambda seed: pixels.sample(num_draws, seed=seed), jit_compile=jit_compile)
    draws = np.asarray(sample(tf.constant(SEED)))
    np.testing.assert_array_equal(sample(tf.constant(SEED)), draws)
    assert np.mean(sample(tf.constant([3, 9])) != draws) > 0.4
    counts = np.bincount(4 * draws[:, 0].astype(int) + draws[:, 1], minlength=16)
    values = np.array(list(itertools.product(range(4), repeat=2)))
    expected = num_draws * np.exp(np.asarray(pixels.log_prob(values), np.float64))
    assert np.min(expected) > 5  # as Pearson's test wants it
    statistic = np.sum((counts - expected) ** 2 / expected)
    # One false alarm in 10000 for another seed; with this one, never.
    assert statistic < scipy.stats.chi2.isf(1e-4, 15)


def everything(mixture_logits, loc, log_scale, coeffs, value):
    """log_prob, its gradients, mean and mode."""
    arguments = [mixture_logits, loc, log_scale, coeffs]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        log_prob = DiscretizedLogisticMixture(*arguments, num_levels=17).log_prob(value)
    pixels = DiscretizedLogisticMixture(*arguments, num_levels=17)
    return log_prob, *tape.gradient(log_prob, arguments), pixels.mean(), pixels.mode()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_numbers_are_the_eager_ones(jit_compile):
    arguments = [tf.constant(value) for value in parameters((2, 5), num_channels=2).values()]
    value = tf.constant(np.random.default_rng(0).integers(0, 17, (2, 5, 2)), tf.uint8)
    eager = everything(*arguments, value)
    compiled = tf.function(everything, jit_compile=jit_compile)(*arguments, value)
    for ours, theirs in zip(compiled, eager, strict=True):
        assert ours.dtype == theirs.dtype
        largest = np.max(np.abs(np.asarray(theirs, np.float64)))
        # Fused operations round elsewhere: an argument (x - loc) / s, up to about 100 here, is
        # good to 100 eps. Integers are equal.
        tolerance = 100 * FLOAT32_EPS * largest if theirs.dtype == tf.float32 else 0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def draw_and_score(distribution):
    """Everything that a distribution says of itself."""
    draws = distribution.sample(3, seed=SEED)
    shapes = distribution.batch_shape_tensor(), distribution.event_shape_tensor()
    return (
        draws,
        distribution.log_prob(draws),
        distribution.log_prob(draws[0]),
        distribution.mean(),
        distribution.mode(),
        *shapes,
    )


def test_the_batch_may_be_known_only_when_the_function_runs():
    arguments = parameters((2, 5), num_channels=2)
    for name in ("mixture_logits", "loc", "log_scale"):  # only coeffs have the whole batch shape
        arguments[name] = arguments[name][:1]

    def pixels(*arguments):
        return draw_and_score(DiscretizedLogisticMixture(*arguments, num_levels=17))

    signature = [tf.TensorSpec([None, None, *x.shape[2:]]) for x in arguments.values()]
    dynamic = tf.function(pixels, input_signature=signature)(*arguments.values())
    for ours, theirs in zip(dynamic, pixels(*arguments.values()), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=16 * FLOAT32_EPS)
    np.testing.assert_array_equal(dynamic[-2], [2, 5])


def test_the_image_size_may_be_known_only_when_the_function_runs():
    raw_params = numbers(2, 4, 6, 18)  # 1 + 2 C + C (C - 1) / 2 = 6 groups of K = 3

    def images(raw_params):
        return draw_and_score(image_distribution(raw_params, LogisticMixture(2, 17)))

    signature = [tf.TensorSpec([None, None, None, 18])]
    dynamic = tf.function(images, input_signature=signature)(raw_params)
    for ours, theirs in zip(dynamic, images(raw_params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=16 * FLOAT32_EPS)
    np.testing.assert_array_equal(dynamic[-2], [2])
    np.testing.assert_array_equal(dynamic[-1], [4, 6, 2])


@pytest.mark.parametrize("value", [[0, 255, 17], [255, 0, 0], [128, 127, 100]])
def test_every_parameter_has_a_finite_gradient(value):
    variables = [tf.Variable(value) for value in broadcasting_parameters().values()]
    pixels = DiscretizedLogisticMixture(*variables)
    assert {variable.ref() for variable in pixels.trainable_variables} == {
        variable.ref() for variable in variables
    }
    for make in (lambda: pixels, lambda: DiscretizedLogisticMixture(*variables)):
        with tf.GradientTape() as tape:
            log_prob = make().log_prob(value)
        for variable, gradient in zip(variables, tape.gradient(log_prob, variables), strict=True):
            assert gradient.shape == variable.shape
            assert np.all(np.isfinite(gradient))
            assert np.any(np.asarray(gradient) != 0)


def test_a_distribution_follows_its_variables():
    arguments = parameters((5,))
    loc = tf.Variable(arguments["loc"])
    pixels = DiscretizedLogisticMixture(**{**arguments, "loc": loc})
    compiled = tf.function(pixels.log_prob)
    value = [10, 20, 30]
    expected = expected_log_prob(arguments, value)
    np.testing.assert_allclose(compiled(value), expected, rtol=8 * FLOAT32_EPS)
    loc.assign(arguments["loc"] + 0.5)
    moved = expected_log_prob({**arguments, "loc": arguments["loc"] + 0.5}, value)
    assert np.all(np.abs(moved - expected) > 1e-3)
    np.testing.assert_allclose(pixels.log_prob(value), moved, rtol=8 * FLOAT32_EPS)
    np.testing.assert_allclose(compiled(value), moved, rtol=8 * FLOAT32_EPS)


def test_a_copy_has_the_parameters_of_the_original_but_for_those_named():
    arguments = parameters((5,))
    pixels = DiscretizedLogisticMixture(**arguments, num_levels=17, name="pixels")
    copy = pixels.copy(num_levels=4, validate_args=True)
    assert (pixels.num_levels, copy.num_levels) == (17, 4)
    assert (pixels.validate_args, copy.validate_args) == (False, True)
    for name, value in arguments.items():
        assert pixels.parameters[name] is value
        assert copy.parameters[name] is value
        np.testing.assert_array_equal(getattr(copy, name), value)
    assert set(pixels.parameters) == {
        *arguments,
        "num_levels",
        "validate_args",
        "allow_nan_stats",
        "name",
    }
    assert set(DiscretizedLogisticMixture.parameter_properties()) == set(arguments)
    value = [1, 2, 3]
    expected = expected_log_prob(arguments, value, num_levels=4)
    np.testing.assert_array_equal(copy.log_prob(value), expected)


def test_it_works_inside_independent_sample_and_joint_distributions():
    pixels = DiscretizedLogisticMixture(**parameters((4, 6)))
    image = tfd.Independent(pixels, reinterpreted_batch_ndims=2)
    draws = image.sample(5, seed=SEED)
    assert draws.shape == [5, 4, 6, 3]
    # A sum of 24 float32 numbers.
    np.testing.assert_allclose(
        image.log_prob(draws), np.sum(pixels.log_prob(draws), axis=(1, 2)), rtol=24 * FLOAT32_EPS
    )
    np.testing.assert_array_equal(image.mean(), pixels.mean())
    np.testing.assert_array_equal(image.mode(), pixels.mode())

    pixel = DiscretizedLogisticMixture(**parameters())
    same_everywhere = tfd.Sample(pixel, [4, 6])
    draws = same_everywhere.sample(5, seed=SEED)
    assert draws.shape == [5, 4, 6, 3]
    np.testing.assert_allclose(
        same_everywhere.log_prob(draws),
        np.sum(pixel.log_prob(draws), axis=(1, 2)),
        rtol=24 * FLOAT32_EPS,
    )

    arguments = parameters()
    joint = tfd.JointDistributionSequential(
        [
            tfd.Normal(0.0, 1.0),
            lambda shift: DiscretizedLogisticMixture(
                **{**arguments, "loc": arguments["loc"] + shift}
            ),
        ]
    )
    shift, value = joint.sample(seed=SEED)
    expected = expected_log_prob({**arguments, "loc": arguments["loc"] + shift}, value)
    expected = expected + tfd.Normal(0.0, 1.0).log_prob(shift)
    np.testing.assert_allclose(joint.log_prob([shift, value]), expected, rtol=8 * FLOAT32_EPS)


@pytest.mark.parametrize("name", ["log_prob", "prob"])
def test_values_that_are_no_levels_are_refused_and_none_is_cast(name):
    pixels = DiscretizedLogisticMixture(**parameters(), num_levels=17)
    score = getattr(pixels, name)
    compiled = tf.function(score)
    expected = score(tf.constant([0, 16, 3], tf.uint8))
    for good in ([0, 16, 3], [0.0, 16.0, 3.0], np.array([0, 16, 3], "int64")):
        np.testing.assert_allclose(score(good), expected, rtol=8 * FLOAT32_EPS)
        np.testing.assert_allclose(compiled(tf.constant(good)), expected, rtol=8 * FLOAT32_EPS)
    rule = r"value must be whole numbers in \[0, 16\]. Received: "
    for bad in ([1.0, 2.5, 3.0], [1, 17, 3], [-1, 2, 3], [300, 0, 0]):
        for value in (bad, np.array(bad), tf.constant(bad)):
            with pytest.raises(ValueError, match=rule):
                score(value)
        with pytest.raises(tf.errors.InvalidArgumentError, match=rule.partition(". Rec")[0]):
            compiled(tf.constant(bad))
