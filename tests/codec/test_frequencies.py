"""Probabilities as integers, and what the range coder makes of them."""

import math

import constriction
import numpy as np
import pytest
from keras import ops

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.codec import coder, frequencies

TOTAL = 2**24


def counts_of(probs):
    """The frequencies, and not those minus 1."""
    table = np.asarray(frequencies.frequencies(ops.convert_to_tensor(probs)))
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, np.round(table))
    return table.astype(np.int64) + 1


def random_probs(num_parts, spread, seed=0):
    """Their sums are from 0 on, if the spread is large, but none is inf."""
    log_probs = spread * np.random.default_rng(seed).normal(size=(50, num_parts))
    return np.exp(np.minimum(log_probs, 80)).astype(np.float32)


@pytest.mark.parametrize("num_parts", [2, 17, 41, 64])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
def test_every_frequency_is_at_least_1_and_their_sum_is_fixed(num_parts, spread):
    counts = counts_of(random_probs(num_parts, spread))
    assert counts.min() >= 1
    np.testing.assert_array_equal(counts.sum(axis=-1), TOTAL)


@pytest.mark.parametrize("num_parts", [2, 64])
def test_frequencies_are_the_probabilities(num_parts):
    probs = random_probs(num_parts, 2.0).astype(np.float64)
    counts = counts_of(probs.astype(np.float32))
    probs /= probs.sum(axis=-1, keepdims=True)
    # One is added to all others and one is cut off; the most frequent one pays for all of them.
    error = np.abs(counts / TOTAL - probs)
    assert error.max() < (num_parts + 1) / TOTAL + 4 * num_parts * np.finfo(np.float32).eps
    # The mean length grows by nearly nothing: at most log2(1 / (1 - M / 2^24)), and roundings.
    excess = np.sum(probs * np.log2(probs * TOTAL / counts), axis=-1)
    assert excess.max() < 2 * num_parts / TOTAL


@pytest.mark.parametrize(
    "row",
    [
        [np.nan, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, np.nan],
        [np.inf, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [1e-40, 0.0, 0.0, 0.0],
        [np.nan] * 4,
    ],
)
def test_what_is_no_distribution_becomes_equal_frequencies(row):
    counts = counts_of(np.array([row, [3.0, 1.0, 0.0, 1e-30]], np.float32))
    np.testing.assert_array_equal(counts[0], TOTAL // 4)
    # The other row is as without it.
    np.testing.assert_allclose(counts[1, 0] / TOTAL, 0.75, atol=1e-6)
    np.testing.assert_array_equal(counts[1, 2:], 1)


@pytest.mark.parametrize("num_levels", [2, 3, 17, 64, 65, 256, 1000, 4096, 65535, 65536])
def test_steps_find_every_level_with_tables_of_at_most_64_parts(num_levels):
    sizes = frequencies.part_sizes(num_levels)
    parts = [frequencies.num_parts(num_levels, step) for step in range(len(sizes))]
    assert max(parts) <= 64 and sizes[-1] == 1
    assert parts[0] * sizes[0] >= num_levels > (parts[0] - 1) * sizes[0]
    for step in range(1, len(sizes)):
        assert parts[step] * sizes[step] == sizes[step - 1]


@pytest.mark.parametrize("num_levels", [2, 17, 256, 1000, 65536])
def test_the_steps_together_have_the_length_of_the_likelihood(num_levels):
    likelihood = likelihoods.DiscretizedMixture(2, num_levels, 3)
    rng = np.random.default_rng(1)
    raw_params = (2 * rng.normal(size=(40, likelihood.num_params))).astype(np.float32)
    levels = rng.integers(0, num_levels, (40, 2)).astype(np.int32)
    levels[:4] = [[0, 0], [num_levels - 1, 0], [0, num_levels - 1], [num_levels - 1] * 2]
    found, rarest = np.zeros(40), np.full(40, TOTAL)
    for channel in range(2):
        first = np.zeros(40, np.int32)
        given = likelihood.given(raw_params, channel, [levels[:, i] for i in range(channel)])
        for step, size in enumerate(frequencies.part_sizes(num_levels)):
            table = frequencies.table(likelihood, given, step, first)
            part = (levels[:, channel] - first) // size
            counts = np.asarray(table)[np.arange(40), part] + 1
            found -= np.log2(counts / TOTAL)
            rarest = np.minimum(rarest, counts)
            first = first + part * size
        np.testing.assert_array_equal(first, levels[:, channel])
    expected = -np.asarray(likelihood.log_prob(raw_params, levels)) / math.log(2)
    # A step costs at most 24 bits. Where no step does, a level is as long as the likelihood says.
    usual = rarest > 2**8
    assert usual.sum() >= 4
    np.testing.assert_allclose(found[usual], expected[usual], rtol=2**-8, atol=1e-4)
    assert found.max() <= 24 * 2 * len(frequencies.part_sizes(num_levels))
    assert (found <= expected * (1 + 2**-8) + 0.1).all()


def test_the_coder_takes_the_frequencies_exactly_as_they_are():
    # A part of the smallest frequency costs 24 bits, and its neighbours nearly nothing and 1 bit.
    counts = np.array([[1, TOTAL - 2, 1], [TOTAL // 4, TOTAL // 4, TOTAL // 2]] * 100)
    table = (counts - 1).astype(np.float32)
    symbols = np.array([0, 2, 2, 2, 1, 2, 2, 2] * 25, np.int32)
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(symbols, coder._FAMILY, table)
    bits = 25 * (24 + 1 + 24 + 1 + 1 + 24 + 1)
    assert bits <= encoder.num_bits() <= bits + 32
    decoder = constriction.stream.queue.RangeDecoder(encoder.get_compressed())
    np.testing.assert_array_equal(decoder.decode(coder._FAMILY, table), symbols)


@pytest.mark.parametrize("num_parts", [2, 64])
def test_a_long_message_is_as_long_as_its_frequencies_say(num_parts):
    rng = np.random.default_rng(2)
    table = np.asarray(frequencies.frequencies(random_probs(num_parts, 3.0)))
    table = np.tile(table, (40, 1))
    probs = (table + 1.0) / TOTAL
    symbols = (np.cumsum(probs, -1) < rng.random((len(table), 1))).sum(-1).astype(np.int32)
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(symbols, coder._FAMILY, table)
    bits = -np.log2(probs[np.arange(len(table)), symbols]).sum()
    assert bits <= encoder.num_bits() <= bits + 64
    decoder = constriction.stream.queue.RangeDecoder(encoder.get_compressed())
    np.testing.assert_array_equal(decoder.decode(coder._FAMILY, table), symbols)
