"""likelihoods.py: exact in every tail, a probability, equal to the original where that is exact."""

import decimal
import functools
import inspect
import itertools
import pathlib
import re
from decimal import Decimal

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras import ops

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.likelihoods import (
    DequantizedLogisticMixture,
    LogisticMixture,
    MixtureParams,
    Softmax,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
LOSSES = np.load(GOLDEN / "loss_values.npz")
DRAWS = np.load(GOLDEN / "mixture_sampling.npz")

FLOAT32_EPS = float(np.finfo("float32").eps)

# (C, L) of which all L^C pixels can be scored.
SMALL_PIXELS = [(1, 2), (1, 17), (1, 256), (2, 2), (2, 16), (2, 17), (3, 2), (3, 5), (4, 3)]


def random_params(num_channels, num_components, seed, batch_shape=(), narrowest=-7.0):
    """Parameters spread so that narrow, wide, inner and outer components all occur."""
    rng = np.random.default_rng(seed)
    num_coeffs = num_channels * (num_channels - 1) // 2

    def normal(*shape):
        return rng.normal(size=(*batch_shape, *shape)).astype("float32")

    return as_tensors(
        MixtureParams(
            mixture_logits=normal(num_components),
            loc=0.7 * normal(num_channels, num_components),
            log_scale=np.maximum(1.5 * normal(num_channels, num_components) - 2.0, narrowest),
            coeffs=np.tanh(normal(num_coeffs, num_components)) if num_coeffs else None,
        )
    )


def as_tensors(params, dtype="float32"):
    return MixtureParams(
        *[
            None if values is None else ops.convert_to_tensor(np.asarray(values), dtype)
            for values in params
        ]
    )


def with_candidates(params):
    """Parameters with an axis of one, against which all pixels broadcast."""
    return MixtureParams(*[None if values is None else values[None] for values in params])


def all_pixels(num_channels, num_levels):
    """All L^C pixels, [L^C, C]."""
    return np.array(list(itertools.product(range(num_levels), repeat=num_channels)))


def exact_logistic_cdf(t):
    tail = (-abs(t)).exp()
    return tail / (1 + tail) if t < 0 else 1 / (1 + tail)


def exact_log_mass(level, loc, log_scale, num_levels):
    """The definition, with the difference taken in the lower tail, in 60-digit decimals."""
    half_bin = Decimal(1) / (num_levels - 1)
    x = Decimal(2 * level - (num_levels - 1)) / (num_levels - 1)
    inverse_scale = (-log_scale).exp()
    upper, lower = (x + half_bin - loc) * inverse_scale, (x - half_bin - loc) * inverse_scale
    if level == 0:
        return exact_logistic_cdf(upper).ln()
    if level == num_levels - 1:
        return exact_logistic_cdf(-lower).ln()
    if upper + lower > 0:  # the logistic is symmetric
        upper, lower = -lower, -upper
    return (exact_logistic_cdf(upper) - exact_logistic_cdf(lower)).ln()


def reference_log_mass(levels, loc, log_scale, approximate=False):
    """Float64, L = 256: log sigmoid of the nearer edge, minus what the farther one leaves of it.

    With `approximate`, the release's own value inside where the mass is at most 1e-5: the density
    in the middle of the bin, log-pdf - log(127.5).
    """
    x = (tf.constant(levels, tf.float64) - 127.5) / 127.5
    middle = (x - loc) * tf.exp(-log_scale)
    half_width = tf.exp(-log_scale) / 255
    # Mirrored into the lower tail, where logarithms keep their digits.
    near, far = -tf.abs(middle) + half_width, -tf.abs(middle) - half_width
    log_near, log_far = tf.math.log_sigmoid(near), tf.math.log_sigmoid(far)
    inside = log_near + tf.math.log1p(-tf.exp(log_far - log_near))
    if approximate:
        log_density = middle - log_scale - 2 * tf.math.softplus(middle) - np.log(127.5)
        inside = tf.where(inside > np.log(1e-5), inside, log_density)
    outermost = tf.where(
        levels == 0,
        tf.math.log_sigmoid(middle + half_width),
        tf.math.log_sigmoid(-middle + half_width),
    )
    return tf.where((levels == 0) | (levels == 255), outermost, inside)


def reference_pixels(raw_params, levels, approximate=False):
    """The release's likelihood of three channels in float64, from the raw parameters.

    Returns the log mass of every channel and component [..., 3, K], log pi times their product
    [..., K], and the size of the logistics' arguments: (|x| + |loc| + half a bin) / scale.
    """
    num_components = raw_params.shape[-1] // 10
    logits, rest = raw_params[..., :num_components], raw_params[..., num_components:]
    rest = tf.reshape(rest, [*rest.shape[:-1], 3, 3 * num_components])
    loc, log_scale, coeffs = tf.split(rest, 3, axis=-1)
    log_scale, coeffs = tf.maximum(log_scale, -7.0), tf.tanh(coeffs)
    x = (tf.constant(levels, tf.float64)[..., None] - 127.5) / 127.5  # [..., 3, 1]
    red, green = x[..., 0, :], x[..., 1, :]
    loc = tf.stack(
        [
            loc[..., 0, :],
            loc[..., 1, :] + coeffs[..., 0, :] * red,
            loc[..., 2, :] + coeffs[..., 1, :] * red + coeffs[..., 2, :] * green,
        ],
        axis=-2,
    )
    levels = np.broadcast_to(levels[..., None], loc.shape)
    log_mass = reference_log_mass(levels, loc, log_scale, approximate)
    joint = tf.nn.log_softmax(logits) + tf.reduce_sum(log_mass, axis=-2)
    arguments = (1 / 255 + tf.abs(x) + tf.abs(loc)) * tf.exp(-log_scale)
    return log_mass, joint, arguments


def golden_pixels(num_components):
    """The recorded case and its float64 values, exact and as the release approximates."""
    raw_params, levels = LOSSES[f"mix{num_components}/l"], LOSSES["x_u8"]
    values = {"raw_params": raw_params, "levels": levels}
    for kind in ("exact", "release"):
        with tf.GradientTape() as tape:
            source = tf.constant(raw_params, tf.float64)
            tape.watch(source)
            log_mass, joint, arguments = reference_pixels(source, levels, kind == "release")
            log_prob = tf.reduce_logsumexp(joint, axis=-1)
            loss = -tf.reduce_sum(log_prob)
        values[kind] = {
            "log_mass": log_mass.numpy(),
            "log_prob": log_prob.numpy(),
            "responsibility": tf.exp(joint - log_prob[..., None]).numpy(),
            "gradient": tape.gradient(loss, source).numpy(),
        }
    values["arguments"] = arguments.numpy()
    values["outermost"] = np.isin(levels, (0, 255))[..., None] & np.ones_like(log_mass, bool)
    # The release approximates inside, where the mass is at most 1e-5.
    values["approximated"] = ~values["outermost"] & (np.exp(values["exact"]["log_mass"]) <= 1e-5)
    # What float32 may do to one log mass: an argument (x - loc) / s is good to eps of the sizes of
    # x and loc over s, the rest to eps of its own size. The release also subtracts two sigmoids,
    # good to eps of 1, so that the logarithm is only good to eps over the mass.
    rounding = FLOAT32_EPS * (1 + values["arguments"] + np.abs(values["exact"]["log_mass"]))
    cancelling = ~values["outermost"] & ~values["approximated"]
    mass = np.where(cancelling, np.exp(values["exact"]["log_mass"]), 1.0)
    values["rounding"] = rounding
    values["release_rounding"] = rounding + np.where(cancelling, FLOAT32_EPS / mass, 0.0)
    # Its approximation sums m - 2 softplus(m), terms of up to three times the size of the result.
    values["release_rounding"][values["approximated"]] *= 3
    # The same for a pixel, through the components that matter to it.
    matters = values["release"]["responsibility"][..., None, :] > 1e-9
    for name in ("rounding", "release_rounding"):
        values[f"pixel_{name}"] = np.sum(
            np.max(np.where(matters, values[name], 0.0), axis=-1), axis=-1
        )
    # Pixels in which no component that matters is approximated: there the release is exact.
    values["release_is_exact"] = ~np.any(matters & values["approximated"], axis=(-1, -2))
    return values


def our_gradient(raw_params, levels):
    """log-probabilities of the pixels and the gradient of their negative sum."""
    mixture = LogisticMixture(3, 256)
    with tf.GradientTape() as tape:
        source = tf.constant(raw_params)
        tape.watch(source)
        log_prob = mixture.log_prob(mixture.split(source), levels)
        loss = -tf.reduce_sum(log_prob)
    return log_prob.numpy(), tape.gradient(loss, source).numpy()


@pytest.mark.parametrize("num_components", [1, 5, 10])
def test_log_masses_are_the_recorded_ones_where_the_release_is_exact(num_components):
    golden = golden_pixels(num_components)
    recorded = LOSSES[f"mix{num_components}/log_prob_per_channel_component"]
    params = LogisticMixture(3, 256).split(golden["raw_params"])
    x = LOSSES["x"][..., None]
    loc = np.array(params.loc)
    coeffs = np.asarray(params.coeffs)
    loc[..., 1, :] += coeffs[..., 0, :] * x[..., 0, :]
    loc[..., 2, :] += coeffs[..., 1, :] * x[..., 0, :] + coeffs[..., 2, :] * x[..., 1, :]
    ours = likelihoods.logistic_bin_log_mass(
        golden["levels"][..., None], ops.convert_to_tensor(loc), params.log_scale, 256
    )
    ours = np.asarray(ours, np.float64)
    is_exact = ~golden["approximated"]
    assert 0.5 < np.mean(is_exact) < 0.7  # the recording covers both
    # Twice: once for either side.
    error = np.abs(ours - recorded)
    assert np.all(error[is_exact] < 2 * (golden["rounding"] + golden["release_rounding"])[is_exact])
    # Where the release approximates (mass <= 1e-5) it is off by up to 2 nats, so that ours, which
    # is exact everywhere, is held against float64; and the release against float64 with its
    # approximation, so that this is known to be the only difference.
    assert np.max(error[~is_exact]) > 1.0
    assert np.all(np.abs(ours - golden["exact"]["log_mass"]) < 2 * golden["rounding"])
    error = np.abs(recorded - golden["release"]["log_mass"])
    assert np.all(error < 2 * golden["release_rounding"])


@pytest.mark.parametrize("num_components", [1, 5, 10])
def test_likelihoods_are_the_recorded_ones_where_the_release_is_exact(num_components):
    golden = golden_pixels(num_components)
    recorded = LOSSES[f"mix{num_components}/log_prob_per_pixel"]
    ours, _ = our_gradient(golden["raw_params"], golden["levels"])
    is_exact = golden["release_is_exact"]
    assert np.sum(is_exact) > 20
    rounding, release_rounding = golden["pixel_rounding"], golden["pixel_release_rounding"]
    error = np.abs(ours - recorded)
    assert np.all(error[is_exact] < 2 * (rounding + release_rounding)[is_exact])
    # Elsewhere as above: ours against float64, the release against its approximation.
    assert np.all(np.abs(ours - golden["exact"]["log_prob"]) < 2 * rounding)
    assert np.all(np.abs(recorded - golden["release"]["log_prob"]) < 2 * release_rounding)


@pytest.mark.parametrize("num_components", [1, 5, 10])
def test_gradients_are_the_recorded_ones_where_the_release_is_exact(num_components):
    golden = golden_pixels(num_components)
    recorded = LOSSES[f"mix{num_components}/grad_sum"]
    _, ours = our_gradient(golden["raw_params"], golden["levels"])
    assert np.all(np.isfinite(ours))
    is_exact = golden["release_is_exact"]
    # A derivative of log P is as good as P, relative to the pixel's largest one.
    scale = np.max(np.abs(golden["exact"]["gradient"]), axis=-1)
    rounding, release_rounding = golden["pixel_rounding"], golden["pixel_release_rounding"]
    error = np.max(np.abs(ours - recorded), axis=-1) / scale
    assert np.all(error[is_exact] < 2 * (rounding + release_rounding)[is_exact])
    # Elsewhere the approximation has other derivatives: as above, both against float64.
    error = np.max(np.abs(ours - golden["exact"]["gradient"]), axis=-1) / scale
    assert np.all(error < 2 * rounding)
    scale = np.max(np.abs(golden["release"]["gradient"]), axis=-1)
    error = np.max(np.abs(recorded - golden["release"]["gradient"]), axis=-1) / scale
    assert np.all(error < 2 * release_rounding)


@pytest.mark.parametrize("num_components", [1, 5, 10])
def test_unrounded_draws_are_the_recorded_ones(num_components):
    case = f"mix{num_components}"
    mixture = LogisticMixture(3, 256)
    params = mixture.split(DRAWS[f"{case}/l"])
    uniforms = DRAWS[f"{case}/u_mix"], DRAWS[f"{case}/u_logistic"]
    component = DRAWS[f"{case}/selected_component"]
    selected = mixture.select(params, uniforms[0])
    index = component[..., None, None]
    expected_loc = np.take_along_axis(np.asarray(params.loc), index, axis=-1)
    np.testing.assert_array_equal(selected.loc, expected_loc)

    draws = np.asarray(mixture.sample(params, *uniforms, quantize=False))
    # A draw is a sum of its mean, of scale * noise and of the earlier channels' shifts, each good
    # to an ulp or two of its own size; what is clipped is exact.
    noise = np.log(uniforms[1]) - np.log1p(-uniforms[1])
    size = 2 + np.abs(expected_loc[..., 0])
    size += np.exp(np.asarray(selected.log_scale)[..., 0]) * np.abs(noise)
    size = np.maximum.accumulate(size, axis=-1)
    error = np.abs(draws - DRAWS[f"{case}/x"])
    assert np.all(error <= 4 * FLOAT32_EPS * size)
    is_clipped = np.abs(DRAWS[f"{case}/x"]) == 1.0
    assert np.mean(is_clipped) > 0.2
    # Where both are clipped there is no rounding left, wherever the unclipped value was.
    assert np.mean(error[is_clipped] == 0.0) > 0.99


LOG_SCALES = (-7.0, -5.5, -3.0, -1.0, 0.0, 2.0, 5.0, 10.0)
LOCS = (-1e4, -30.0, -1.5, -1.0, -0.3, 0.0, 0.004, 0.7, 1.0, 2.0, 1e4)


@pytest.mark.parametrize("num_levels", [2, 17, 256, 65536])
def test_log_mass_and_its_gradients_are_exact_in_every_tail(num_levels):
    middle = num_levels // 2
    levels = sorted({0, 1, num_levels // 3, middle, num_levels - 2, num_levels - 1})
    cases = list(itertools.product(levels, LOCS, LOG_SCALES))
    exact, step = [], Decimal(10) ** -18
    with decimal.localcontext(decimal.Context(prec=60, Emin=-(10**12), Emax=10**12)):
        for level, loc, log_scale in cases:
            loc, log_scale = Decimal(float(np.float32(loc))), Decimal(log_scale)

            def mass(loc_step, log_scale_step, at=(level, loc, log_scale)):
                return exact_log_mass(at[0], at[1] + loc_step, at[2] + log_scale_step, num_levels)

            by_loc = (mass(step, 0) - mass(-step, 0)) / (2 * step)
            by_log_scale = (mass(0, step) - mass(0, -step)) / (2 * step)
            exact.append([float(mass(0, 0)), float(by_loc), float(by_log_scale)])
    expected, expected_by_loc, expected_by_log_scale = np.array(exact).T

    level, loc, log_scale = (np.array(column) for column in zip(*cases, strict=True))
    with tf.GradientTape() as tape:
        sources = [tf.constant(loc, tf.float32), tf.constant(log_scale, tf.float32)]
        tape.watch(sources)
        log_mass = likelihoods.logistic_bin_log_mass(level, *sources, num_levels)
    by_loc, by_log_scale = tape.gradient(log_mass, sources)

    # (x - loc) / s is good to eps of the sizes of x and loc over s, log P to that and to eps of its
    # own size. Its derivatives are sigmoids of such numbers, over s; by log s times such a number.
    x = (level - (num_levels - 1) / 2) / ((num_levels - 1) / 2)
    inverse_scale = np.exp(-log_scale)
    arguments = 1 + (np.abs(x) + np.abs(loc) + 1 / (num_levels - 1)) * inverse_scale
    assert np.all(np.abs(log_mass - expected) < 2 * FLOAT32_EPS * (arguments + np.abs(expected)))
    error = np.abs(by_loc - expected_by_loc)
    assert np.all(error < 2 * FLOAT32_EPS * arguments * inverse_scale)
    error = np.abs(by_log_scale - expected_by_log_scale)
    assert np.all(error < 4 * FLOAT32_EPS * arguments)


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


def test_log_mass_of_a_huge_scale_is_finite():
    # exp(-100) is 0 in float32; the mass inside is then far under the smallest float32.
    log_mass = likelihoods.logistic_bin_log_mass(
        np.array([0, 7, 255]), ops.zeros(3), ops.full((3,), 100.0), 256
    )
    assert np.all(np.isfinite(log_mass))
    np.testing.assert_allclose(np.asarray(log_mass)[[0, 2]], np.log(0.5), rtol=FLOAT32_EPS)


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


def test_split_of_three_channels_is_the_releases_reshape():
    raw_params = np.random.default_rng(0).normal(size=(2, 4, 6, 50)).astype("float32") * 4
    params = LogisticMixture(3, 256).split(raw_params)
    np.testing.assert_array_equal(params.mixture_logits, raw_params[..., :5])
    rest = raw_params[..., 5:].reshape(2, 4, 6, 3, 15)
    np.testing.assert_array_equal(params.loc, rest[..., :5])
    np.testing.assert_array_equal(params.log_scale, np.maximum(rest[..., 5:10], -7.0))
    assert np.min(params.log_scale) == -7.0
    np.testing.assert_allclose(params.coeffs, np.tanh(rest[..., 10:]), atol=2 * FLOAT32_EPS)


@pytest.mark.parametrize("num_levels", [2, 17, 256, 65536])
def test_the_unit_scale_goes_from_minus_1_to_1_and_back(num_levels):
    dtype = likelihoods.level_dtype(num_levels)
    assert dtype == ("int32" if num_levels == 65536 else "uint8")
    levels = np.arange(num_levels).astype(dtype)
    values = np.asarray(likelihoods.to_unit_scale(levels, num_levels))
    assert values.dtype == np.float32
    assert (values[0], values[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(values, -values[::-1])
    np.testing.assert_array_equal(likelihoods.from_unit_scale(values, num_levels), levels)
    # Up to almost half a level away is still the same level; outside are the ends.
    for shift in (-0.49, 0.49):
        shifted = (values + shift * 2 / (num_levels - 1)).astype("float32")
        np.testing.assert_array_equal(likelihoods.from_unit_scale(shifted, num_levels), levels)
    outside = likelihoods.from_unit_scale(ops.convert_to_tensor([-7.0, 1.5]), num_levels)
    np.testing.assert_array_equal(outside, [0, num_levels - 1])


def test_the_unit_scale_is_the_recorded_one():
    np.testing.assert_array_equal(likelihoods.to_unit_scale(LOSSES["x_u8"], 256), LOSSES["x"])


def test_uniform_pixels_of_256_levels_cost_8_bits_per_dim():
    nats = 4 * 6 * 3 * np.log(256.0)
    assert likelihoods.bits_per_dim(nats, 4 * 6 * 3) == pytest.approx(8.0, rel=1e-15)


def test_rounded_channels_condition_the_later_ones():
    mixture = LogisticMixture(2, 3)  # levels 0, 1, 2 are -1, 0, 1
    params = as_tensors(
        MixtureParams([0.0], [[0.4], [0.3]], [[-7.0], [-7.0]], coeffs=[[1.0]]), "float32"
    )
    uniforms = np.array([0.5], "float32"), np.array([0.5, 0.5], "float32")
    # 0.4 is rounded to 0, and 0.3 + 0 to 0; unrounded, 0.3 + 0.4 would round to 1.
    np.testing.assert_array_equal(mixture.sample(params, *uniforms), [1, 1])
    unrounded = mixture.sample(params, *uniforms, quantize=False)
    np.testing.assert_allclose(unrounded, [0.4, 0.7], rtol=2 * FLOAT32_EPS)


def uniforms(*shape, seed):
    """Float32 numbers in (0, 1)."""
    return np.random.default_rng(seed).uniform(1e-7, 1 - 1e-7, shape).astype("float32")


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


def assert_frequencies(draws, log_prob, num_levels):
    """Pearson's test of drawn pixels [N, C] against the log-probabilities of all of them."""
    num_draws, num_channels = draws.shape
    index = np.ravel_multi_index(np.asarray(draws).T, (num_levels,) * num_channels)
    counts = np.bincount(index, minlength=num_levels**num_channels)
    expected = num_draws * np.exp(np.asarray(log_prob, np.float64))
    # It wants 5 expected in every cell: the rare ones are pooled.
    is_rare = expected < 5
    counts = np.append(counts[~is_rare], np.sum(counts[is_rare]))
    expected = np.append(expected[~is_rare], np.sum(expected[is_rare]))
    counts, expected = counts[expected > 1], expected[expected > 1]
    assert len(counts) > 5
    statistic = np.sum((counts - expected) ** 2 / expected)
    # One false alarm in 10000 for another seed; with this one, never.
    assert statistic < scipy.stats.chi2.isf(1e-4, len(counts) - 1)


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


@pytest.mark.parametrize(("num_channels", "num_levels"), SMALL_PIXELS)
def test_mean_and_mode_equal_brute_force(num_channels, num_levels):
    mixture = LogisticMixture(num_channels, num_levels)
    batch = 20
    params = random_params(num_channels, 3, seed=1, batch_shape=(batch,))
    pixels = all_pixels(num_channels, num_levels)
    candidates = MixtureParams(*[None if values is None else values[:, None] for values in params])
    log_prob = np.asarray(mixture.log_prob(candidates, pixels), np.float64)  # [batch, n]
    expected = np.einsum("bn,nc->bc", np.exp(log_prob), pixels)
    mean = np.asarray(mixture.mean(params))
    if num_channels == 1 or num_levels <= 16:
        # A sum of up to L probabilities, each good to a few eps.
        tolerance = 8 * FLOAT32_EPS * num_levels
    else:
        # 16 quantiles stand for an earlier channel: under a quarter of a level per level skipped.
        tolerance = 0.25 * num_levels / 16
    np.testing.assert_allclose(mean, expected, atol=tolerance)

    mode = np.asarray(mixture.mode(params))
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
    mean = np.asarray(mixture.mean(params))
    # Channel 0 is exact; its 16 quantiles make the other one "well under one level".
    np.testing.assert_allclose(mean[0], expected[0], atol=8 * FLOAT32_EPS * 256)
    np.testing.assert_allclose(mean[1], expected[1], atol=0.25)
    mode = np.asarray(mixture.mode(params))
    found = log_prob[256 * int(mode[0]) + int(mode[1])]
    np.testing.assert_allclose(found, np.max(log_prob), rtol=4 * FLOAT32_EPS)


def test_no_change_of_one_channel_improves_the_mode():
    mixture = LogisticMixture(3, 256)
    params = random_params(3, 5, seed=11, batch_shape=(20,))
    mode = np.asarray(mixture.mode(params)).astype("int32")
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
    np.testing.assert_array_equal(mixture.mode(params), [0, 255])


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
    error = np.abs(np.mean(draws, axis=0) - np.asarray(mixture.mean(params)))
    # The first channel is exact, the later ones "well under one level".
    assert np.all(error < 4 * standard_error + [0.0, 0.25, 0.25])


def test_mean_and_mode_of_one_channel_of_65536_levels():
    mixture = LogisticMixture(1, 65536)
    params = random_params(1, 3, seed=2)
    log_prob = mixture.log_prob(with_candidates(params), np.arange(65536)[:, None])
    log_prob = np.asarray(log_prob, np.float64)
    expected = np.exp(log_prob) @ np.arange(65536)
    np.testing.assert_allclose(mixture.mean(params), [expected], atol=8 * FLOAT32_EPS * 65536)
    mode = mixture.mode(params)
    assert mode.dtype == "int32"
    found = log_prob[int(mode[0])]
    np.testing.assert_allclose(found, np.max(log_prob), rtol=4 * FLOAT32_EPS)


# Softmax


def random_softmax(num_channels, num_levels, seed, batch_shape=()):
    """A softmax, and random raw outputs for it."""
    softmax = Softmax(num_channels, num_levels)
    rng = np.random.default_rng(seed)
    return softmax, rng.normal(size=(*batch_shape, softmax.num_outputs())).astype("float32")


def test_a_softmax_of_the_papers_images_has_1536_outputs_a_pixel():
    assert Softmax(3, 256).num_outputs() == 1536


@pytest.mark.parametrize(("num_channels", "num_levels"), SMALL_PIXELS)
def test_softmax_probabilities_of_all_pixels_sum_to_1(num_channels, num_levels):
    softmax, raw_params = random_softmax(num_channels, num_levels, seed=3)
    params = softmax.split(tf.constant(raw_params)[None])
    pixels = all_pixels(num_channels, num_levels)
    log_prob = np.asarray(softmax.log_prob(params, pixels), np.float64)
    assert log_prob.shape == (num_levels**num_channels,)
    # A sum of L float32 numbers for every channel, a few roundings each.
    assert abs(np.sum(np.exp(log_prob)) - 1.0) < 16 * num_channels * FLOAT32_EPS


def test_softmax_log_prob_is_that_of_its_definition():
    num_channels, num_levels = 3, 5
    softmax, raw_params = random_softmax(num_channels, num_levels, seed=1, batch_shape=(2, 4))
    levels = np.random.default_rng(0).integers(0, num_levels, (2, 4, num_channels))
    groups = raw_params.astype("float64").reshape(2, 4, 6, num_levels)
    y = (levels - 2) / 2
    expected = np.zeros((2, 4))
    for index in np.ndindex(2, 4):
        logits = groups[index]
        for channel, earlier in enumerate([[], [(3, 0)], [(4, 0), (5, 1)]]):
            of_channel = logits[channel] + sum(logits[i] * y[index][j] for i, j in earlier)
            log_probs = of_channel - np.logaddexp.reduce(of_channel)
            expected[index] += log_probs[levels[index][channel]]
    log_prob = softmax.log_prob(softmax.split(tf.constant(raw_params)), levels.astype("uint8"))
    np.testing.assert_allclose(log_prob, expected, rtol=16 * FLOAT32_EPS)


@pytest.mark.parametrize(("num_channels", "num_levels"), [(1, 17), (2, 4), (3, 3)])
def test_frequencies_of_draws_agree_with_the_softmax(num_channels, num_levels):
    softmax, raw_params = random_softmax(num_channels, num_levels, seed=2)
    num_draws = 20000
    repeated = np.repeat(raw_params[None], num_draws, axis=0)
    draws = softmax.draw(repeated, uniforms(num_draws, num_channels, seed=3), [1.0, 0.0, 0.0])
    assert draws.dtype == "uint8"
    pixels = all_pixels(num_channels, num_levels)
    log_prob = softmax.log_prob(softmax.split(tf.constant(raw_params)[None]), pixels)
    assert_frequencies(draws, log_prob, num_levels)


def test_the_temperature_and_the_mode_of_a_softmax():
    softmax, raw_params = random_softmax(1, 6, seed=5)
    probs = np.exp(raw_params / 0.5)
    edges = np.cumsum(probs) / probs.sum()
    quantiles = uniforms(500, 1, seed=0)
    repeated = np.repeat(raw_params[None], 500, axis=0)
    draws = np.asarray(softmax.draw(repeated, quantiles, [0.5, 0.0, 0.0]))
    np.testing.assert_array_equal(draws[:, 0], np.searchsorted(edges, quantiles[:, 0]))
    modes = np.asarray(softmax.draw(repeated, quantiles, [0.5, 0.0, 1.0]))
    assert (modes == np.argmax(raw_params)).all()
    # The lowest temperature that there is draws the mode as well.
    coldest = softmax.draw(repeated, quantiles, [float(np.finfo("float32").tiny), 0.0, 0.0])
    np.testing.assert_array_equal(coldest, modes)


def test_a_softmax_refuses_another_number_of_outputs():
    with pytest.raises(ValueError, match="must be 10 for 1 channels of 10 levels") as caught:
        Softmax(1, 10).split(np.zeros((3, 12)))
    assert "\n" not in str(caught.value)


# Dequantized data


def as_float64(params):
    return MixtureParams(*(None if x is None else np.asarray(x, np.float64) for x in params))


def mass_of_the_bins(params, levels, num_levels):
    """What the continuous mixture puts into the bins of pixels [N, C], all of them closed."""
    params, values = as_float64(params), (levels * 2 - (num_levels - 1)) / (num_levels - 1)
    weights = np.exp(params.mixture_logits) / np.exp(params.mixture_logits).sum()
    mass = np.ones((len(levels), len(weights)))
    for channel in range(levels.shape[-1]):
        loc = np.repeat(params.loc[channel][None], len(levels), axis=0)
        for j in range(channel):
            coeffs = params.coeffs[channel * (channel - 1) // 2 + j]
            loc = loc + coeffs * values[:, j : j + 1]
        edges = [values[:, channel, None] + side / (num_levels - 1) for side in (-1, 1)]
        scale = np.exp(params.log_scale[channel])
        below, above = (scipy.stats.logistic.cdf(edge, loc, scale) for edge in edges)
        mass *= above - below
    return mass @ weights


@pytest.mark.parametrize(("num_channels", "num_levels"), [(1, 8), (2, 5), (3, 3)])
def test_the_bound_of_dequantized_data_is_never_better_than_the_integral_over_the_bin(
    num_channels, num_levels
):
    mixture = DequantizedLogisticMixture(num_channels, num_levels)
    # Wide enough that the nodes below resolve every density.
    params = random_params(num_channels, 2, seed=6, narrowest=-2.5)
    params = as_tensors(params, "float64")
    pixels = all_pixels(num_channels, num_levels)
    # Gauss-Legendre over the bin, the product of a channel's nodes.
    nodes, weights = np.polynomial.legendre.leggauss(24)
    noise = np.stack(np.meshgrid(*[(nodes + 1) / 2] * num_channels, indexing="ij"), -1)
    noise = noise.reshape(-1, num_channels)
    weights = functools.reduce(np.multiply.outer, [weights / 2] * num_channels).ravel()
    log_density = np.stack(
        [
            np.asarray(
                mixture.log_prob(with_candidates(params), np.repeat([x], len(noise), 0), noise)
            )
            for x in pixels
        ]
    )  # [pixels, nodes]
    bound, integral = log_density @ weights, np.exp(log_density) @ weights
    np.testing.assert_allclose(integral, mass_of_the_bins(params, pixels, num_levels), rtol=1e-9)
    assert (bound < np.log(integral)).all()
    # The sampler clips to the outermost levels, whose bins it so opens: that only adds mass.
    discretized = LogisticMixture(num_channels, num_levels)
    discretized = np.asarray(discretized.log_prob(with_candidates(params), pixels))
    assert (np.log(integral) <= discretized + 1e-12).all()
    assert discretized.sum() > np.log(integral).sum() + 0.1, "at the ends there is such mass"


def test_the_mode_of_dequantized_pixels_is_that_of_the_mass_of_their_bins():
    params = random_params(2, 3, seed=1, batch_shape=(4,))
    expected = LogisticMixture(2, 9).mode(params)
    np.testing.assert_array_equal(DequantizedLogisticMixture(2, 9).mode(params), expected)


def test_a_density_far_out_in_the_tails_is_finite():
    mixture = DequantizedLogisticMixture(1, 256)
    params = as_tensors(MixtureParams([[0.0]], [[[-50.0]]], [[[-7.0]]], None))
    log_prob = mixture.log_prob(params, np.array([[255]]), np.array([[0.5]]))
    # -distance / s - log(s) - log(127.5); exp(7) times 51 in float32.
    expected = -51 * np.exp(7.0) + 7 - np.log(127.5)
    np.testing.assert_allclose(log_prob, [expected], rtol=4 * FLOAT32_EPS)


# Energy distance


def test_the_energy_distance_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    images, samples = rng.uniform(-1, 1, (2, 3, 5, 2)), rng.uniform(-1, 1, (4, 2, 3, 5, 2))

    def distance(a, b):
        return np.sum((1e-10 + np.sum((a - b) ** 2, -1) * 8**2) ** 0.75, axis=(1, 2))

    to_images = np.mean([distance(images, sample) for sample in samples], axis=0)
    pairs = itertools.combinations(samples, 2)
    between = np.mean([distance(a, b) for a, b in pairs], axis=0)
    found = likelihoods.energy_distance(tf.constant(images), tf.constant(samples), num_levels=17)
    np.testing.assert_allclose(found, 2 * to_images - between, rtol=1e-12)


def backend_numbers(path):
    """Writes numbers of every function and of two layers; stands alone, for any Keras backend."""
    import keras
    import numpy as np
    from keras import ops

    from pixel_cnn_pp import layers, likelihoods

    def fast(function):
        if keras.backend.backend() != "jax":
            return function
        import jax  # compiles each operation on its own when it is not told to compile the whole

        return jax.jit(function)

    rng = np.random.default_rng(0)
    mixture = likelihoods.LogisticMixture(2, 17)
    params = mixture.split(ops.convert_to_tensor(rng.normal(size=(2, 3, 4, 30)), "float32"))
    levels = rng.integers(0, 17, (2, 3, 4, 2))
    uniforms = [rng.uniform(0.01, 0.99, (2, 3, 4, n)).astype("float32") for n in (5, 2)]
    numbers = {
        "log_prob": fast(mixture.log_prob)(params, levels),
        "sample": fast(mixture.sample)(params, *uniforms),
        "mean": fast(mixture.mean)(params),
        "mode": fast(mixture.mode)(params),
    }
    inputs = [rng.normal(size=(2, 4, 6, n)).astype("float32") for n in (5, 3)]
    block = layers.GatedResidualBlock(layers.DownRightShiftedConv2D)
    block.build(inputs[0].shape, inputs[1].shape)
    for weight in block.weights:
        weight.assign(rng.normal(size=weight.shape))
    numbers["initialized_block"] = block.initialize(*inputs)
    numbers["block"] = block(*inputs)
    transpose = layers.DownShiftedConv2DTranspose(4)
    transpose.build(inputs[0].shape)
    transpose.v.assign(rng.normal(size=transpose.v.shape))
    numbers["transpose"] = transpose(inputs[0])
    # Which units are dropped is the backend's own.
    seed = keras.ops.convert_to_tensor([1, 2], dtype="uint32")
    dropped = layers.Dropout(0.5, seed, 10, 100)(np.ones((10, 100), "float32"))
    numbers["dropout_values"] = np.unique(dropped)
    np.savez(path, **{name: np.asarray(value) for name, value in numbers.items()})


def test_the_jax_backend_gives_the_same_numbers(tmp_path, run_python):
    code = f"""
import sys, keras
{inspect.getsource(backend_numbers)}
assert keras.backend.backend() == "jax"
backend_numbers(sys.argv[1])
assert "tensorflow" not in sys.modules  # the mathematics must not import it
"""
    run_python(code, tmp_path / "jax.npz", KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    backend_numbers(tmp_path / "tensorflow.npz")
    theirs, ours = np.load(tmp_path / "jax.npz"), np.load(tmp_path / "tensorflow.npz")
    assert len(ours.files) == 8
    for name in ours.files:
        assert theirs[name].dtype == ours[name].dtype, name
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("num_channels", "num_levels"), [(1, 2), (2, 17), (3, 256), (4, 1000)])
def test_the_page_on_the_likelihood_computes_what_is_implemented(num_channels, num_levels):
    page = pathlib.Path(likelihoods.__file__).parents[1] / "docs" / "likelihood.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names = {}
    exec(compile("".join(blocks), page.name, "exec"), names)
    mixture = LogisticMixture(num_channels, num_levels)
    rng = np.random.default_rng(num_channels)
    # Wide, so that log-scales are floored and both tails are reached.
    raw_params = 5 * rng.standard_normal((4, 8, 3 * mixture.params_per_component()))
    image = rng.integers(0, num_levels, (4, 8, num_channels))
    image[0, :2] = [[0], [num_levels - 1]]
    log_prob = mixture.log_prob(mixture.split(tf.constant(raw_params)), image)
    expected = likelihoods.bits_per_dim(-np.sum(log_prob), image.size)
    # float64; exp(7) magnifies the rounding of a mean, some 1e-16, by a thousand.
    found = names["bits_per_dim"](raw_params, image, num_levels)
    assert found == pytest.approx(expected, rel=1e-12)
