"""Randomness as an argument: dropout, and the noise of an image."""

import math

import keras
from keras import ops

# The least of the uniforms that are drawn as noise, the least normal number of float32.
_SMALLEST_UNIFORM = 2.0**-126
# More images than any batch has, and how many seeds then have numbers of their own in 31 bits.
_MAX_IMAGES = 2**16
_NUM_LOW_SEEDS = 2**15
# An odd number, by which the rest of a seed is spread over the 31 bits of a step's number.
_SPREAD = 506952113


class Dropout:
    """Dropout whose randomness is an argument: the units of an image depend on its number alone.

    An image drops the same units in every process, on every device and in every batch, because its
    random bits are a function of (seed, number of the image, call). All bits are drawn at once: 1,
    2, 4 or 8 for a unit, where the rate is a multiple of 2^-1, 2^-2, 2^-4 or 2^-8. Any other rate
    takes 16 bits and is rounded to a multiple of 2^-16 in (0, 1). The units that stay are divided
    by the probability with which they do stay, so that the mean does not change.
    """

    def __init__(self, rate, seed, num_images, num_units, first_image=0):
        """Draws the bits.

        Args:
          rate: Probability of a unit to be dropped, in (0, 1).
          seed: Integer tensor [2], such as (seed of the run, number of the step).
          num_images: B, how many images, also as a tensor.
          num_units: Units of an image that will be asked for, those of every call rounded up to a
            multiple of 8, also as a tensor.
          first_image: Number of the first image, also as a tensor.
        """
        self._num_bits = next(n for n in (1, 2, 4, 8, 16) if n == 16 or (rate * 2**n).is_integer())
        # A number of so many bits is kept where it is less.
        num_numbers = 2**self._num_bits
        self._threshold = min(max(1, round((1 - rate) * num_numbers)), num_numbers - 1)
        self._keep = self._threshold / num_numbers
        num_words = (num_units * self._num_bits + 31) // 32

        def draw(image_seed):
            words = keras.random.randint(
                (num_words, 1), -(2**31), 2**31 - 1, "int32", seed=FixedSeed(image_seed)
            )
            return ops.reshape(ops.view(words, "uint8"), (-1,))

        seeds = image_seeds(ops.convert_to_tensor(seed), num_images, first_image)
        self._bytes = ops.map(draw, seeds)  # [B, at least num_units * num_bits / 8]
        self._num_used = 0

    def __call__(self, x):
        """Drops units of a float tensor [B, ...]; returns the same shape and dtype."""
        return self.reserve(math.prod(ops.shape(x)[1:]))(x)

    def reserve(self, num_units):
        """Takes the next bits, for so many units of an image.

        Args:
          num_units: Their number, also as a tensor.

        Returns:
          Function that drops units of a float tensor [B, ...], the same ones at every call.
        """
        num_bytes = round_up_to_8(num_units) * self._num_bits // 8
        first, self._num_used = self._num_used, self._num_used + num_bytes
        own_bytes = self._bytes[:, first : self._num_used]

        def drop(x):
            # Adds 0, but makes the numbers depend on x. TensorFlow would otherwise unpack those of
            # all calls at the start, and they would take more memory than recomputation saves.
            is_nan = ops.isnan(ops.reshape(x, (-1,))[0])
            numbers = self._unpack(own_bytes + ops.cast(is_nan, "uint8"))[:, :num_units]
            is_kept = ops.reshape(numbers, ops.shape(x)) < self._threshold
            return x * (ops.cast(is_kept, x.dtype) * (1 / self._keep))

        return drop

    def _unpack(self, packed):
        """Bytes [B, n] as numbers of `num_bits` bits each, [B, 8 n / num_bits]."""
        num_images, num_bytes = ops.shape(packed)
        if self._num_bits == 16:
            pairs = ops.reshape(packed, (num_images, num_bytes // 2, 2))
            return ops.reshape(ops.view(pairs, "uint16"), (num_images, -1))
        if self._num_bits == 8:
            return packed
        shifts = ops.cast(ops.arange(0, 8, self._num_bits), "uint8")
        mask = ops.cast(2**self._num_bits - 1, "uint8")
        numbers = ops.bitwise_and(ops.right_shift(packed[..., None], shifts), mask)
        return ops.reshape(numbers, (num_images, -1))


def image_seeds(seed, num_images, first_image=0):
    """A seed for every image of a batch: another one for another seed, step or image.

    Args:
      seed: Integer tensor [2]: a seed in [0, 2^31 - 1] and the number of a step.
      num_images: B, how many images, also as a tensor.
      first_image: Number of the first image within the whole batch, also as a tensor.

    Returns:
      Integer tensor [B, 2] in the dtype of the seed, each number below 2^31.
    """
    images = ops.cast(first_image, seed.dtype) + ops.arange(num_images, dtype=seed.dtype)
    numbers = seed[0] % _NUM_LOW_SEEDS * _MAX_IMAGES + images
    # TensorFlow's random numbers take 31 bits of each number. The bits of the seed that have no
    # room beside the number of the image go to the number of the step.
    step = ops.bitwise_and(seed[1] + seed[0] // _NUM_LOW_SEEDS * _SPREAD, 2**31 - 1)
    return ops.stack([numbers, ops.broadcast_to(step, ops.shape(images))], axis=-1)


def image_uniforms(seeds, shape):
    """Uniforms of every image, a function of a seed of its own; not those of any `Dropout`.

    Args:
      seeds: Integer tensor [B, 2], as `image_seeds` or `image_digests` returns it.
      shape: Sizes of the noise of an image, also as tensors.

    Returns:
      float32 tensor [B, *shape] in (0, 1).
    """

    def draw(seed):
        # Those of dropout are not negative.
        seed = FixedSeed(ops.stack([seed[0], -1 - seed[1]]))
        # 0 itself would send a logarithm to -inf.
        return keras.random.uniform(shape, _SMALLEST_UNIFORM, dtype="float32", seed=seed)

    return ops.map(draw, ops.convert_to_tensor(seeds))


def image_digests(images):
    """A seed for every image that is a function of its levels.

    Two images that differ hardly ever have the same one.

    Args:
      images: Tensor [B, H, W, C] of whole numbers.

    Returns:
      int32 tensor [B, 2].
    """
    levels = ops.cast(ops.reshape(images, (ops.shape(images)[0], -1)), "int32")
    # Odd multiples of the golden ratio's 32 bits, mixed so that weights are no multiples of each
    # other; products and sums wrap around.
    weights = (2 * ops.arange(ops.shape(levels)[1], dtype="int32") + 1) * -1640531535
    weights = ops.bitwise_xor(weights, ops.right_shift(weights, 15)) * 739982445
    digests = ops.sum(levels * weights, axis=-1)
    return ops.stack([digests, ops.zeros_like(digests)], axis=-1)


def round_up_to_8(number):
    """The multiple of 8 that is not less, also of a tensor."""
    return (number + 7) // 8 * 8


class FixedSeed(keras.random.SeedGenerator):
    """Hands one given seed, an integer tensor [2], to a function of `keras.random`."""

    def __init__(self, seed):
        """Keeps the seed; there is no variable, as other generators have."""
        self._seed = seed

    def next(self, ordered=True):
        """The seed, the same at every call."""
        # JAX insists on the dtype of its keys; TensorFlow takes any integers.
        is_jax = keras.backend.backend() == "jax"
        return ops.cast(self._seed, "uint32") if is_jax else self._seed
