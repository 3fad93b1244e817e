"""One logistic and the scale: exact in every tail, and as narrow as a level at every L."""

import decimal
import itertools
from decimal import Decimal

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from mixture_cases import FLOAT32_EPS, LOCS, LOG_SCALES

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.likelihoods import logistic


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
        log_mass = logistic.logistic_bin_log_mass(level, *sources, num_levels)
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


def test_log_mass_of_a_huge_scale_is_finite():
    # exp(-100) is 0 in float32; the mass inside is then far under the smallest float32.
    log_mass = logistic.logistic_bin_log_mass(
        np.array([0, 7, 255]), ops.zeros(3), ops.full((3,), 100.0), 256
    )
    assert np.all(np.isfinite(log_mass))
    np.testing.assert_allclose(np.asarray(log_mass)[[0, 2]], np.log(0.5), rtol=FLOAT32_EPS)


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


def test_uniform_pixels_of_256_levels_cost_8_bits_per_dim():
    nats = 4 * 6 * 3 * np.log(256.0)
    assert likelihoods.bits_per_dim(nats, 4 * 6 * 3) == pytest.approx(8.0, rel=1e-15)
