"""distributions.py: a TensorFlow Probability distribution like others, over C integer channels."""

import doctest
import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from pixel_cnn_pp.likelihoods import LogisticMixture, MixtureParams, distributions
from pixel_cnn_pp.likelihoods.distributions import DiscretizedLogisticMixture, image_distribution

tfd = tfp.distributions

FLOAT32_EPS = float(np.finfo("float32").eps)
SEED = (3, 8)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def parameters(batch_shape=(), num_channels=3, num_components=4):
    """Keyword arguments of the distribution."""
    num_coeffs = num_channels * (num_channels - 1) // 2
    return {
        "mixture_logits": numbers(*batch_shape, num_components, seed=1),
        "loc": numbers(*batch_shape, num_channels, num_components, seed=2),
        "log_scale": numbers(*batch_shape, num_channels, num_components, seed=3) - 2.0,
        "coeffs": np.tanh(numbers(*batch_shape, num_coeffs, num_components, seed=4)),
    }


def broadcasting_parameters():
    """Parameters of which every one has another batch shape; together they make [6, 5]."""
    return {
        "mixture_logits": numbers(4, seed=1),
        "loc": numbers(5, 3, 4, seed=2),
        "log_scale": numbers(1, 3, 4, seed=3) - 2.0,
        "coeffs": np.tanh(numbers(6, 1, 3, 4, seed=4)),
    }


def broadcast_parameters():
    """The same numbers, every parameter with the whole batch shape."""
    ends = {"mixture_logits": (4,), "loc": (3, 4), "log_scale": (3, 4), "coeffs": (3, 4)}
    return {
        name: np.broadcast_to(value, (6, 5, *ends[name]))
        for name, value in broadcasting_parameters().items()
    }


def expected_log_prob(arguments, value, num_levels=256):
    mixture = LogisticMixture(arguments["loc"].shape[-2], num_levels)
    params = MixtureParams(*(tf.constant(values) for values in arguments.values()))
    return mixture.log_prob(params, np.asarray(value))


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
    np.testing.assert_array_equal(pixels.mean(), mixture.mean(params))
    np.testing.assert_array_equal(pixels.mode(), mixture.mode(params))
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


def test_stateless_seeds_determine_the_draws():
    pixels = DiscretizedLogisticMixture(**parameters((5,)))
    draws = pixels.sample(20, seed=SEED)
    np.testing.assert_array_equal(pixels.sample(20, seed=tf.constant(SEED)), draws)
    np.testing.assert_array_equal(tf.function(pixels.sample)(20, seed=tf.constant(SEED)), draws)
    for other in ((3, 9), (4, 8), (8, 3)):
        assert np.mean(pixels.sample(20, seed=other) != draws) > 0.5


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


def test_draws_of_a_batch_and_of_a_sample_differ_from_each_other():
    arguments = {name: np.stack([value] * 5) for name, value in parameters().items()}
    arguments["loc"] *= 0.1  # few draws end in the open-ended bins, where they could be equal
    pixels = DiscretizedLogisticMixture(**arguments, num_levels=65536)
    draws = np.asarray(pixels.sample(6, seed=SEED)).reshape(30, 3)
    assert len(np.unique(draws, axis=0)) == 30


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
        return draw_and_score(image_distribution(raw_params, 2, 17))

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


def test_image_distribution_scores_and_draws_whole_images():
    raw_params = numbers(2, 4, 6, 50)
    images = image_distribution(raw_params, 3, 256)
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
    one_channel = image_distribution(numbers(2, 4, 6, 15), 1, 17)
    assert one_channel.event_shape == [4, 6, 1]


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


@pytest.mark.parametrize("compile_function", [lambda function: function, tf.function])
def test_validate_args_rejects_values_that_are_no_levels(compile_function):
    careless = DiscretizedLogisticMixture(**parameters(), num_levels=17)
    careful = careless.copy(validate_args=True)
    log_prob = compile_function(careful.log_prob)
    good = tf.constant([0.0, 16.0, 3.0])
    np.testing.assert_allclose(log_prob(good), careless.log_prob(good), rtol=8 * FLOAT32_EPS)
    for bad in ([1.0, 2.5, 3.0], [1.0, 17.0, 3.0], [-1.0, 2.0, 3.0]):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"Values must be whole numbers in \[0, 16\]"
        ):
            log_prob(tf.constant(bad))


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
        image_distribution(numbers(2, 4, 6, 47), 3, 256)
    assert "\n" not in str(error.value)
