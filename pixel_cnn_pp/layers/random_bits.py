"""Random numbers that depend only on given seeds. Every backend draws those of TensorFlow.

TensorFlow computes them by Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3", section 3.3). JAX has another generator. Therefore Philox is computed here in keras.ops
for JAX, for all seeds at once.
"""

import math

import keras
import numpy as np
from keras import ops

# The multipliers of the two halves of a counter, and what is added to the two halves of the key
# after each round.
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_NUM_ROUNDS = 10
# The key with which TensorFlow makes the key and the counter of a seed.
_SEED_KEY = 0x3EC8F720, 0x02461E29
# Keras takes the remainder of a seed by this number, if its dtype is not int32.
_SEED_LIMIT = 2**31 - 2


def words(seeds, num_words):
    """Draws random bits for each of several seeds.

    Args:
      seeds: Integer tensor [N, 2].
      num_words: Number of words for each seed, an integer or a tensor.

    Returns:
      int32 tensor [N, num_words].
    """
    if keras.backend.backend() != "tensorflow":
        drawn = _philox_words(seeds, num_words)
        # Uniform integers in [-2^31, 2^31 - 2], as in the other case.
        largest = _constant(2**32 - 1)
        drawn = ops.where(drawn == largest, _constant(0), drawn)
        return ops.view(ops.bitwise_xor(drawn, _constant(2**31)), "int32")

    def draw(seed):
        return keras.random.randint(
            (num_words,), -(2**31), 2**31 - 1, "int32", seed=_FixedSeed(seed)
        )

    return ops.map(draw, seeds)


def uniforms(seed, shape, smallest):
    """Draws uniforms for a seed.

    Args:
      seed: Integer tensor [2].
      shape: Shape of the result, integers or tensors.
      smallest: The smallest result, which is below 2^-24.

    Returns:
      float32 tensor [*shape] in [smallest, 1).
    """
    if keras.backend.backend() != "tensorflow":
        return uniforms_of_each(seed[None], shape, smallest)[0]
    return keras.random.uniform(shape, smallest, dtype="float32", seed=_FixedSeed(seed))


def first_uniforms(seed, shape, smallest, num_needed):
    """Draws `uniforms` of which only the first ones are needed.

    Args:
      seed, shape, smallest: As in `uniforms`.
      num_needed: Integer tensor [], how many of the first axis are needed, at most shape[0].

    Returns:
      float32 tensor [M, ...], the first M of `uniforms(seed, shape, smallest)`, M >= num_needed.
    """
    if keras.backend.backend() == "tensorflow":  # elsewhere no shape depends on a tensor
        shape = (num_needed, *shape[1:])
    return uniforms(seed, shape, smallest)


def uniforms_of_each(seeds, shape, smallest):
    """Draws uniforms for each of several seeds.

    Args:
      seeds: Integer tensor [N, 2].
      shape: Shape of the result for each seed, integers or tensors.
      smallest: As in `uniforms`.

    Returns:
      float32 tensor [N, *shape], `uniforms` of each seed.
    """
    if keras.backend.backend() == "tensorflow":
        return ops.map(lambda seed: uniforms(seed, shape, smallest), seeds)
    drawn = _philox_words(seeds, math.prod(shape))
    # 23 bits become the mantissa of a number in [1, 2).
    mantissa = ops.bitwise_and(drawn, _constant(2**23 - 1))
    numbers = ops.view(ops.bitwise_or(mantissa, _constant(127 << 23)), "float32") - 1
    return ops.reshape(numbers + smallest, (-1, *shape))


def _philox_words(seeds, num_words):
    """The bits that TensorFlow draws for seeds [N, 2], uint32 [N, num_words]."""
    counter = [half[:, None] for number in (0, 1) for half in _halves(seeds[:, number])]
    mixed = _philox(counter, [_constant(number) for number in _SEED_KEY])
    # Each value of the counter gives four words.
    numbers = ops.cast(ops.arange((num_words + 3) // 4), "uint32")[None]
    found = _philox([numbers, _constant(0), mixed[2], mixed[3]], mixed[:2])
    return ops.reshape(ops.stack(found, axis=-1), (ops.shape(seeds)[0], -1))[:, :num_words]


def _halves(numbers):
    """The lower and the upper 32 bits of the 64-bit numbers that TensorFlow makes of seeds [N]."""
    dtype = keras.backend.standardize_dtype(numbers.dtype)
    if dtype == "int32":
        return ops.view(numbers, "uint32"), ops.view(ops.right_shift(numbers, 31), "uint32")
    if dtype == "uint32":  # stands for a signed number, as in the other dtypes
        numbers = ops.view(numbers, "int32")
    numbers = ops.mod(numbers, ops.cast(_SEED_LIMIT, numbers.dtype))
    return ops.cast(numbers, "uint32"), _constant(0)[None]


def _philox(counter, key):
    """Philox-4x32-10: four words of a counter and two of a key to four random words."""
    for number in range(_NUM_ROUNDS):
        (high_0, low_0), (high_1, low_1) = (
            _multiply(counter[i], multiplier)
            for i, multiplier in zip((0, 2), _MULTIPLIERS, strict=True)
        )
        round_key = [
            part + _constant(number * step % 2**32)
            for part, step in zip(key, _KEY_STEPS, strict=True)
        ]
        counter = [
            ops.bitwise_xor(ops.bitwise_xor(high_1, counter[1]), round_key[0]),
            low_1,
            ops.bitwise_xor(ops.bitwise_xor(high_0, counter[3]), round_key[1]),
            low_0,
        ]
    return counter


def _multiply(x, multiplier):
    """Upper and lower 32 bits of the products of uint32 x and a number below 2^32.

    JAX has no 64-bit integers by default. So the products of the halves are added.
    """
    high, low = ops.right_shift(x, 16), ops.bitwise_and(x, _constant(0xFFFF))
    high_factor, low_factor = (_constant(n) for n in divmod(multiplier, 2**16))
    crossed = low * high_factor, high * low_factor
    carry = ops.right_shift(low * low_factor, 16)
    carry = carry + sum(ops.bitwise_and(product, _constant(0xFFFF)) for product in crossed)
    upper = high * high_factor + ops.right_shift(carry, 16)
    for product in crossed:
        upper = upper + ops.right_shift(product, 16)
    return upper, x * _constant(multiplier)


def _constant(number):
    return ops.convert_to_tensor(np.uint32(number))


class _FixedSeed(keras.random.SeedGenerator):
    """A seed generator for `keras.random` that always returns one given integer tensor [2]."""

    def __init__(self, seed):
        """Keeps the seed. Unlike other generators, this one has no variable."""
        self._seed = seed

    def next(self, ordered=True):
        """Returns the seed, the same at every call."""
        return self._seed
