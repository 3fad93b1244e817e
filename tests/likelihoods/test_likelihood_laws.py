"""What holds for every likelihood, over one list of them."""

import inspect
import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras import ops
from mixture_cases import FLOAT64_EPS

from pixel_cnn_pp import layers, likelihoods
from pixel_cnn_pp.likelihoods import (
    Bernoulli,
    DequantizedMixture,
    DiscretizedMixture,
    EnergyDistance,
    Likelihood,
    LinearSoftmax,
    Softmax,
)


def make_head():
    head = layers.SampleHead(3, dtype="float64")
    head.build((None, None, None, head.NUM_FEATURES))
    rng = np.random.default_rng(4)
    for weight in head.weights:
        weight.assign(rng.normal(size=weight.shape))
    return head


# Functions that make them: nothing is built before a test asks for it.
SPECIMENS = {
    "mixture_rgb": lambda: DiscretizedMixture(3, 256, 2),
    "mixture_2_levels": lambda: DiscretizedMixture(4, 2, 3),
    "mixture_3_levels": lambda: DiscretizedMixture(1, 3, 2),
    "mixture_1000_levels": lambda: DiscretizedMixture(2, 1000, 2),
    "mixture_old_floor": lambda: DiscretizedMixture(1, 1000, 3, min_log_scale=-7.0),
    "dequantized": lambda: DequantizedMixture(2, 17, 2),
    "dequantized_gray": lambda: DequantizedMixture(1, 256, 3),
    "linear_softmax": lambda: LinearSoftmax(3, 5),
    "linear_softmax_2_levels": lambda: LinearSoftmax(4, 2),
    "linear_softmax_gray": lambda: LinearSoftmax(1, 256),
    "softmax": lambda: Softmax(3, 3),
    "softmax_rgb": lambda: Softmax(3, 256),
    "softmax_1000_levels": lambda: Softmax(2, 1000),
    "bernoulli": lambda: Bernoulli(1),
    "bernoulli_4_channels": lambda: Bernoulli(4),
    "energy": lambda: EnergyDistance(256, make_head()),
}
WITH_LOG_PMF = [name for name in SPECIMENS if name != "energy"]
NEUTRAL = {"temperature": 1.0, "log_scale_offset": 0.0, "mode": 0.0}
OTHER = {"temperature": 0.5, "log_scale_offset": 1.0, "mode": 1.0}

EACH = pytest.mark.parametrize("name", SPECIMENS)
EACH_WITH_LOG_PMF = pytest.mark.parametrize("name", WITH_LOG_PMF)


def case(name, *batch_shape, seed=0, dtype="float64"):
    """A likelihood, raw parameters [*batch_shape, P] and levels [*batch_shape, C]."""
    likelihood = SPECIMENS[name]()
    rng = np.random.default_rng(seed)
    # Narrow and wide components, means on and off the scale, certain and uncertain levels.
    raw_params = 2 * rng.normal(size=(*batch_shape, likelihood.num_params))
    levels = rng.integers(0, likelihood.num_levels, (*batch_shape, likelihood.num_channels))
    return likelihood, raw_params.astype(dtype), levels


def channels_of(levels):
    return [levels[..., channel] for channel in range(levels.shape[-1])]


def log_pmfs(likelihood, raw_params, levels):
    """Log-probabilities of all levels of every channel, given the earlier levels: C of [..., L]."""
    channels = channels_of(levels)
    return [
        likelihood.log_pmf(raw_params, channel, channels[:channel])
        for channel in range(likelihood.num_channels)
    ]


def draw_pixels(likelihood, raw_params, uniforms, **changed):
    """Whole pixels [..., C], channel after channel, each on those drawn before it."""
    controls = tf.constant(list({**NEUTRAL, **changed}.values()), raw_params.dtype)
    channels = []
    for channel in range(likelihood.num_channels):
        drawn = likelihood.draw(raw_params, channel, channels, uniforms, controls)
        assert drawn.dtype == likelihoods.level_dtype(likelihood.num_levels)
        channels.append(drawn)
    return np.stack(channels, axis=-1)


def uniforms_for(likelihood, *batch_shape, seed=1):
    return np.random.default_rng(seed).uniform(size=(*batch_shape, likelihood.num_uniforms))


def test_the_list_has_every_likelihood_and_what_they_differ_in():
    def below(base):
        return {base}.union(*map(below, base.__subclasses__()))

    specimens = [make() for make in SPECIMENS.values()]
    concrete = {each for each in below(Likelihood) if not inspect.isabstract(each)}
    assert concrete == {type(each) for each in specimens}
    assert {each.num_levels for each in specimens} >= {2, 3, 256, 1000}
    for kind in (DiscretizedMixture, LinearSoftmax, Softmax):
        of_kind = [each for each in specimens if type(each) is kind]
        assert len({each.num_channels for each in of_kind}) > 1
        assert len({each.num_levels for each in of_kind}) > 1
    assert {each.num_channels for each in specimens} == {1, 2, 3, 4}


def test_units_and_controls_are_these():
    def answers(kind):
        return kind.unit, kind.loss_name, kind.controls

    bits, all_controls = "bits_per_dim", ("temperature", "log_scale_offset", "mode")
    assert answers(DiscretizedMixture) == ("bits/dim", bits, all_controls)
    assert answers(DequantizedMixture) == ("bits/dim (bound)", bits, all_controls)
    assert answers(EnergyDistance) == ("energy distance", "energy_distance", ())
    for kind in (LinearSoftmax, Softmax, Bernoulli):
        assert answers(kind) == ("bits/dim", bits, ("temperature", "mode"))


@EACH_WITH_LOG_PMF
def test_probabilities_of_all_levels_of_a_channel_sum_to_1(name):
    likelihood, raw_params, levels = case(name, 4, 6)
    for log_pmf in log_pmfs(likelihood, raw_params, levels):
        assert log_pmf.shape == (4, 6, likelihood.num_levels)
        # An argument (x - loc) / s is good to eps of |x| + |loc|, up to 8 or so, over s.
        tolerance = 8 * FLOAT64_EPS * (np.exp(8.5) + likelihood.num_levels)
        np.testing.assert_allclose(np.exp(log_pmf).sum(-1), 1, rtol=0, atol=tolerance)


@EACH_WITH_LOG_PMF
def test_log_probabilities_of_the_channels_add_up_to_that_of_the_pixel(name):
    likelihood, raw_params, levels = case(name, 4, 6)
    if likelihood.noise_shape(4, 6) is not None:
        # Its draws have the mass of the bins, which `log_prob` bounds.
        likelihood = DiscretizedMixture(
            likelihood.num_channels, likelihood.num_levels, likelihood.num_components
        )
    expected = likelihood.log_prob(raw_params, levels)
    found = 0.0
    for channel, log_pmf in enumerate(log_pmfs(SPECIMENS[name](), raw_params, levels)):
        found += np.take_along_axis(np.asarray(log_pmf), levels[..., channel, None], -1)[..., 0]
    assert expected.shape == found.shape == (4, 6)
    # As above, an argument's rounding; relative, because a far tail is as large as its arguments.
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=8 * FLOAT64_EPS * np.exp(8.5))


@EACH_WITH_LOG_PMF
def test_parts_of_the_levels_have_the_sum_of_their_levels(name):
    likelihood, raw_params, levels = case(name, 4, 6)
    num_levels, channels = likelihood.num_levels, channels_of(levels)
    rng = np.random.default_rng(2)
    for channel, log_pmf in enumerate(map(np.asarray, log_pmfs(likelihood, raw_params, levels))):
        given = likelihood.given(raw_params, channel, channels[:channel])
        # With parts that reach over the last level, and others that are behind it.
        for size, num_parts in ((1, num_levels), (1, 3), (3, 5), (num_levels, 2)):
            first = rng.integers(0, num_levels, (4, 6), np.int32)
            first[0] = 0
            found = likelihood.part_probs(given, first, size, num_parts)
            expected = np.zeros((4, 6, num_parts))
            for at in np.ndindex(4, 6):
                for part in range(num_parts):
                    start = first[at] + part * size
                    expected[(*at, part)] = np.exp(log_pmf[at][start : start + size]).sum()
            # As above, an argument's rounding; a logarithm's error is a relative one here.
            tolerance = 1e-11 + 8 * FLOAT64_EPS * (np.exp(8.5) + num_levels)
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-300)


@EACH_WITH_LOG_PMF
def test_the_log_probability_of_a_level_is_that_in_the_table_of_all_levels(name):
    likelihood, raw_params, levels = case(name, 4, 6)
    channels = channels_of(levels)
    for channel, log_pmf in enumerate(log_pmfs(likelihood, raw_params, levels)):
        arguments = (raw_params, channel, channels[:channel], channels[channel])
        found = likelihood.log_prob_of_channel(*arguments)
        expected = np.take_along_axis(np.asarray(log_pmf), levels[..., channel, None], -1)[..., 0]
        np.testing.assert_allclose(found, expected, rtol=1e-13)


@EACH_WITH_LOG_PMF
def test_draws_follow_the_probabilities_of_the_levels(name):
    num_draws = 2048
    likelihood, raw_params, _ = case(name, seed=3, dtype="float32")
    raw_params = np.repeat(raw_params[None], num_draws, axis=0)
    pixels = draw_pixels(
        likelihood, raw_params, uniforms_for(likelihood, num_draws).astype("float32")
    )
    # P(x < v) + u P(v) at the drawn level v is uniform in (0, 1), whatever the earlier channels
    # are, and so independent of theirs.
    rng = np.random.default_rng(2)
    num_bins = 16 if likelihood.num_channels == 1 else 4
    cells = np.zeros(num_draws, int)
    for channel, log_pmf in enumerate(log_pmfs(likelihood, raw_params, pixels)):
        pmf = np.exp(np.asarray(log_pmf, np.float64))
        at = pixels[:, channel, None].astype(int)
        own = np.take_along_axis(pmf, at, -1)[:, 0]
        below = np.take_along_axis(np.cumsum(pmf, axis=-1), at, -1)[:, 0] - own
        uniform = (below + rng.uniform(size=num_draws) * own) / pmf.sum(-1)
        cells = cells * num_bins + np.minimum((uniform * num_bins).astype(int), num_bins - 1)
    num_cells = num_bins**likelihood.num_channels
    counts = np.bincount(cells, minlength=num_cells)
    expected = num_draws / num_cells
    statistic = np.sum((counts - expected) ** 2 / expected)
    # One false alarm in 10000 for another seed; with this one, never.
    assert statistic < scipy.stats.chi2.isf(1e-4, num_cells - 1)


@EACH
def test_a_likelihood_takes_as_many_uniforms_as_it_says_and_each_of_them_matters(name):
    likelihood, raw_params, _ = case(name, 200)
    uniforms = uniforms_for(likelihood, 200)
    pixels = draw_pixels(likelihood, raw_params, uniforms)
    assert pixels.shape == (200, likelihood.num_channels)
    for i in range(likelihood.num_uniforms):
        other = uniforms.copy()
        other[:, i] = 1 - other[:, i]
        assert np.any(draw_pixels(likelihood, raw_params, other) != pixels), i


@EACH
def test_a_control_has_an_effect_where_a_likelihood_names_it_and_no_other_has(name):
    likelihood, raw_params, _ = case(name, 200)
    uniforms = uniforms_for(likelihood, 200)
    pixels = draw_pixels(likelihood, raw_params, uniforms)
    for control, value in OTHER.items():
        changed = draw_pixels(likelihood, raw_params, uniforms, **{control: value})
        assert np.any(changed != pixels) == (control in likelihood.controls), control
    np.testing.assert_array_equal(draw_pixels(likelihood, raw_params, uniforms), pixels)


@EACH
def test_another_number_of_raw_parameters_is_refused_in_one_line(name):
    likelihood, raw_params, levels = case(name, 2, 3, 5)
    raw_params = np.repeat(raw_params, 2, axis=-1)
    noise_shape = likelihood.noise_shape(3, 5)
    noise = None if noise_shape is None else np.full((2, *noise_shape), 0.5)
    uniforms = uniforms_for(likelihood, 2, 3, 5)
    calls = [
        lambda: likelihood.loss(raw_params, levels, noise),
        lambda: draw_pixels(likelihood, raw_params, uniforms),
    ]
    if name in WITH_LOG_PMF:
        calls.append(lambda: log_pmfs(likelihood, raw_params, levels))
    for call in calls:
        with pytest.raises(ValueError, match=f"must be {likelihood.num_params}.*Received: ") as e:
            call()
        assert "\n" not in str(e.value)


@EACH
def test_the_loss_takes_noise_of_the_shape_that_a_likelihood_says(name):
    likelihood, raw_params, levels = case(name, 2, 3, 5)
    shape = likelihood.noise_shape(3, 5)
    rng = np.random.default_rng(0)
    noise = [None if shape is None else rng.uniform(size=(2, *shape)) for _ in range(2)]
    losses = [np.asarray(likelihood.loss(raw_params, levels, each)) for each in noise]
    assert losses[0].shape == (2,)
    assert np.all((losses[0] != losses[1]) == (shape is not None))
    if name in WITH_LOG_PMF:
        log_prob = likelihood.log_prob(raw_params, levels, noise[0])
        assert log_prob.shape == (2, 3, 5)
        np.testing.assert_allclose(losses[0], -np.sum(log_prob, axis=(1, 2)), rtol=1e-12)


@EACH
def test_only_likelihoods_without_probabilities_refuse_to_score(name):
    likelihood = SPECIMENS[name]()
    if name in WITH_LOG_PMF:
        likelihood.require_log_prob()
    else:
        with pytest.raises(ValueError, match=r"has no likelihood.*Received: "):
            likelihood.require_log_prob()
    assert likelihood.using({}) is likelihood or name == "energy"


@EACH
def test_there_is_a_distribution_of_the_discretized_mixture_and_of_no_other(name):
    likelihood, raw_params, levels = case(name, 2, 3, 5)
    if type(likelihood) is DiscretizedMixture:
        found = likelihood.distribution(raw_params).log_prob(levels)
        expected = np.sum(likelihood.log_prob(raw_params, levels), axis=(1, 2))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        return
    with pytest.raises(ValueError, match=f"Received: a model of {likelihood.name}") as caught:
        likelihood.distribution(raw_params)
    assert "\n" not in str(caught.value)


def at_the_edges(likelihood):
    """float32 raw parameters [N, P] of any size, and levels [N, C] at the ends and between."""
    rng = np.random.default_rng(0)
    sizes = [0.0, 1e-3, 1.0, 30.0, 1e4]
    raw_params = np.concatenate(
        [size * rng.choice([-1.0, 1.0], (9, likelihood.num_params)) for size in sizes]
        + [rng.choice(sizes, (45, likelihood.num_params)) * rng.choice([-1.0, 1.0])]
    )
    ends = [0, likelihood.num_levels // 2, likelihood.num_levels - 1]
    levels = list(itertools.islice(itertools.cycle(itertools.product(ends, repeat=4)), 90))
    return tf.constant(raw_params, tf.float32), np.array(levels)[:, : likelihood.num_channels]


@EACH
def test_losses_probabilities_and_their_gradients_are_finite_at_the_edges(name):
    likelihood = SPECIMENS[name]()
    raw_params, levels = at_the_edges(likelihood)
    noise_shape = likelihood.noise_shape(1, 1)
    noise = None if noise_shape is None else tf.fill((90, *noise_shape), tf.constant(0.25))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(raw_params)
        values = [likelihood.loss(raw_params[:, None, None], levels[:, None, None], noise)]
        if name in WITH_LOG_PMF:
            values += log_pmfs(likelihood, raw_params, levels)
        sums = [ops.sum(value) for value in values]
    for value, total in zip(values, sums, strict=True):
        assert np.all(np.isfinite(value))
        assert np.all(np.isfinite(tape.gradient(total, raw_params)))


@EACH
def test_draws_are_levels_at_the_edges(name):
    likelihood = SPECIMENS[name]()
    raw_params, _ = at_the_edges(likelihood)
    for uniform in (2.0**-126, 0.5, 1 - 2.0**-24):
        uniforms = np.full((90, likelihood.num_uniforms), uniform, "float32")
        for changed in ({}, {"temperature": 1e-3}, {"temperature": 1e3}, {"mode": 1.0}):
            # In int32 nothing wraps around.
            pixels = draw_pixels(likelihood, raw_params, uniforms, **changed).astype("int32")
            assert pixels.min() >= 0 and pixels.max() < likelihood.num_levels


@pytest.mark.parametrize("kind", [DiscretizedMixture, DequantizedMixture])
def test_the_controls_of_a_mixture_change_its_logits_and_log_scales(kind):
    likelihood = kind(3, 256, 2)
    rng = np.random.default_rng(0)
    # 10 groups of 2: the logits, then for each channel means, log-scales and a coefficient. No
    # log-scale is under the floor, before or after.
    raw_params = rng.uniform(-1, 1, (300, 10, 2))
    is_log_scale = np.isin(np.arange(10), [2, 5, 8])[:, None]
    is_logit = np.arange(10)[:, None] == 0
    raw_params = np.where(is_log_scale, raw_params - 3, raw_params)
    uniforms = uniforms_for(likelihood, 300)
    temperature, offset = 0.7, 0.4
    changed = np.where(is_logit, raw_params / temperature, raw_params)
    changed = np.where(is_log_scale, changed + np.log(temperature) - offset, changed)
    expected = draw_pixels(likelihood, changed.reshape(300, 20), uniforms)
    found = draw_pixels(
        likelihood,
        raw_params.reshape(300, 20),
        uniforms,
        temperature=temperature,
        log_scale_offset=offset,
    )
    np.testing.assert_array_equal(found, expected)


def test_the_mode_of_a_mixture_is_the_centre_of_the_component_that_was_drawn():
    likelihood = DiscretizedMixture(2, 256, 3)
    _, raw_params, _ = case("mixture_rgb", 300)
    raw_params = raw_params[:, : likelihood.num_params]
    uniforms = uniforms_for(likelihood, 300)
    params = likelihood.mixture.split(raw_params)
    gumbel_noise = -np.log(-np.log(uniforms[:, :3]))
    component = np.argmax(params.mixture_logits + gumbel_noise, axis=-1)
    loc, coeffs = (
        np.take_along_axis(np.asarray(values), component[:, None, None], -1)[..., 0]
        for values in (params.loc, params.coeffs)
    )

    def nearest(value):
        return np.clip(np.rint(127.5 * value + 127.5), 0, 255)

    first = nearest(loc[:, 0])
    second = nearest(loc[:, 1] + coeffs[:, 0] * (first / 127.5 - 1))
    pixels = draw_pixels(likelihood, raw_params, uniforms, mode=1.0)
    np.testing.assert_array_equal(pixels, np.stack([first, second], axis=-1))
