"""Probabilities as integer frequencies with a fixed sum.

With at most 64 levels, a sub-pixel is coded in one step from a table of all levels. With more, it
is coded in several steps: first the part of [0, L - 1] that the level is in, then the part of that
part, and so on. All parts of a step have the same size. A mixture computes the probability of a
part from its two edges. So 65536 levels need three tables of 41 parts, and no table of all levels.
"""

import math

import numpy as np
from keras import ops

# log2 of the sum of the frequencies. The coder of constriction.stream fixes it.
PRECISION = 24
# The most parts of a step. More parts mean fewer steps, but larger tables.
MAX_PARTS = 64


def part_sizes(num_levels):
    """Numbers of levels in a part, for each step; the last is 1.

    Args:
      num_levels: L, at least 2.

    Returns:
      List of integers, from the first step to the last.

    >>> part_sizes(64), part_sizes(256), part_sizes(65536)
    ([1], [16, 1], [1681, 41, 1])
    """
    num_steps, base = 1, num_levels
    while base > MAX_PARTS:
        num_steps += 1
        base = math.ceil(num_levels ** (1 / num_steps))
        base += base**num_steps < num_levels  # the root may be rounded down
    return [base**step for step in reversed(range(num_steps))]


def num_parts(num_levels, step):
    """Number of parts of a step.

    >>> num_parts(256, 0), num_parts(1000, 0), num_parts(1000, 1)
    (16, 32, 32)
    """
    sizes = part_sizes(num_levels)
    if step > 0:
        return sizes[step - 1] // sizes[step]
    return math.ceil(num_levels / sizes[0])


def table(likelihood, given, step, first):
    """Frequencies of the parts of one step of a sub-pixel, given the steps before it.

    Parts behind the last level have the smallest frequency. An encoder does not use them.

    Args:
      likelihood: `likelihoods.Likelihood`.
      given: The result of the likelihood's `given` for the sub-pixels of B images.
      step: Number of the step.
      first: int32 tensor [B], the first level of the part that the steps before have found, so 0
        for step 0.

    Returns:
      float32 tensor [B, num_parts] of whole numbers: frequencies minus 1, see `frequencies`.
    """
    num_levels = likelihood.num_levels
    size, parts = part_sizes(num_levels)[step], num_parts(num_levels, step)
    return frequencies(likelihood.part_probs(given, first, size, parts))


def frequencies(probs):
    """Integer frequencies of M parts from their probabilities.

    With p the probabilities, rescaled to a sum of 1, a part gets 1 + floor(p (2^24 - M)), and the
    most frequent part also gets what is missing to the sum 2^24. So every part has at least 1,
    whatever the model says. If the sum is 0, NaN or inf, all parts are equal.

    Args:
      probs: Float tensor [B, M], with any sum. M is at most 64.

    Returns:
      float32 tensor [B, M], the frequencies minus 1. Their sum is 2^24 - M, so that all partial
      sums are exact in float32.
    """
    num_parts = probs.shape[-1]
    total = 2**PRECISION - num_parts
    whole = ops.sum(probs, axis=-1, keepdims=True)
    # Comparisons with NaN are false. Below the smallest normal number, a quotient may be anything.
    is_usable = (whole >= float(np.finfo("float32").tiny)) & (whole < math.inf)
    probs = ops.where(is_usable, probs / whole, 1 / num_parts)
    counts = ops.cast(ops.floor(probs * total), "int32")
    rest = total - ops.sum(counts, axis=-1, keepdims=True)
    most_frequent = ops.one_hot(ops.argmax(counts, axis=-1), num_parts, dtype="int32")
    return ops.cast(counts + most_frequent * rest, "float32")
