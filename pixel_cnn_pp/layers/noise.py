"""Dropout and the noise of an image, both as functions of a given seed."""

import math

from keras import ops

from pixel_cnn_pp.layers import one_pass, random_bits

# The smallest uniform that is drawn as noise. It is the smallest normal number of float32.
_SMALLEST_UNIFORM = 2.0**-126
# 31 bits hold the number of an image and the low bits of a seed. No batch has more images than
# _MAX_IMAGES. _NUM_LOW_SEEDS is the number of seeds that have different low bits.
_MAX_IMAGES = 2**16
_NUM_LOW_SEEDS = 2**15
# The high bits of a seed, times this odd number, are added to the 31 bits of a step's number.
_SPREAD = 506952113


class Drop:
    """Drops given units of a tensor, and multiplies the others by a factor.

    As a linear map, it is its own transpose. So it is applied to gradients too.

    Attributes:
      factor: What units that are kept are multiplied by, a Python number.
    """

    def __init__(self, is_kept, factor):
        """Keeps the arguments.

        Args:
          is_kept: Boolean tensor [B, ..., F].
          factor: See the class.
        """
        self._is_kept = is_kept
        self.factor = factor

    def __call__(self, x):
        """Drops units of x [B, ..., F]."""
        return ops.where(self._is_kept, x, 0) * self.factor

    def gradient(self, outputs, start, upstream):
        """The gradient of x, for a convolution that applies this first.

        Args:
          outputs: The result, with a border.
          start: Row and column of the outputs where the border ends.
          upstream: The gradient of the result.
        """
        return self(upstream)

    def split(self, num_parts):
        """List of the `Drop` of each of so many equal parts of the features."""
        parts = ops.split(self._is_kept, num_parts, axis=-1)
        return [Drop(part, self.factor) for part in parts]


class Dropout:
    """Dropout that depends only on a given seed and on the number of the image.

    The random bits of an image are a function of (seed, number of the image). So the same units are
    dropped in every process, on every device and in every batch. A unit takes 1, 2, 4 or 8 bits if
    the rate is a multiple of 2^-1, 2^-2, 2^-4 or 2^-8. For any other rate it takes 16 bits, and the
    rate is rounded to a multiple of 2^-16 in (0, 1). Units that are kept are divided by the true
    probability of keeping them, so that the mean does not change.

    The bits of all places that drop units are drawn at once. Each place has a part of them, see
    `num_bytes`.
    """

    def __init__(self, rate):
        """Makes the function.

        Args:
          rate: Probability that a unit is dropped, in (0, 1).
        """
        self._num_bits = next(n for n in (1, 2, 4, 8, 16) if n == 16 or (rate * 2**n).is_integer())
        # A unit is kept if its random number of `num_bits` bits is below this limit.
        num_numbers = 2**self._num_bits
        self._threshold = min(max(1, round((1 - rate) * num_numbers)), num_numbers - 1)
        self._keep = self._threshold / num_numbers

    def num_bytes(self, num_units):
        """Number of bytes that a place with so many units of an image takes."""
        return round_up_to_8(num_units) * self._num_bits // 8

    def draw(self, seed, num_images, num_bytes, first_image=0):
        """Draws the bits of every image.

        Args:
          seed: Integer tensor [2], such as (seed of the run, number of the step).
          num_images: B, the number of images, an integer or a tensor.
          num_bytes: Number of bytes of an image, an integer or a tensor.
          first_image: Number of the first image, an integer or a tensor.

        Returns:
          uint8 tensor [B, at least num_bytes].
        """
        seeds = image_seeds(ops.convert_to_tensor(seed), num_images, first_image)
        words = random_bits.words(seeds, (num_bytes + 3) // 4)
        return ops.reshape(ops.view(words[..., None], "uint8"), (num_images, -1))

    def drop(self, x, drawn, first_byte=0, shape=None):
        """Decides which units of a tensor are dropped.

        Args:
          x: Float tensor [B, ...], or a tensor from which that one is computed.
          drawn: The result of `draw`.
          first_byte: The number of bytes that the places before this one take, an integer or a
            tensor.
          shape: The shape of the tensor whose units are dropped. None for that of x.

        Returns:
          Drop, for tensors of this shape.
        """
        shape = ops.shape(x) if shape is None else shape
        num_units = math.prod(shape[1:])
        # This adds 0, but makes the numbers depend on x. Otherwise TensorFlow would unpack the
        # numbers of all places at the start of the step. They would take more memory than
        # recomputation saves.
        is_nan = ops.isnan(ops.reshape(x, (-1,))[0])
        # JAX asks for one dtype of both numbers.
        first_byte = ops.convert_to_tensor(first_byte, dtype="int32")
        start = ops.zeros_like(first_byte), first_byte
        own = ops.slice(drawn, start, (shape[0], self.num_bytes(num_units)))
        own = own + ops.cast(is_nan, "uint8")
        if one_pass.pays(x):
            return _PackedDrop(own, shape, self._num_bits, self._threshold)
        return Drop(_is_kept(own, shape, self._num_bits, self._threshold), 1 / self._keep)


class _PackedDrop(Drop):
    """The same in one pass over memory. Units are unpacked where they are dropped."""

    def __init__(self, packed, shape, num_bits, threshold):
        """Keeps the arguments, which are those of `_is_kept`."""
        self._packed = packed
        self._shape = shape
        self._settings = num_bits, threshold
        self.factor = 2**num_bits / threshold

    def __call__(self, x):
        """Drops units of x [B, ..., F]."""
        return one_pass.compiled(_drop_packed, *self._settings)(x, self._packed)

    def split(self, num_parts):
        """As in `Drop`."""
        is_kept = _is_kept(self._packed, self._shape, *self._settings)
        return Drop(is_kept, self.factor).split(num_parts)


def _drop_packed(num_bits, threshold, x, packed):
    is_kept = _is_kept(packed, x.shape, num_bits, threshold)
    return ops.where(is_kept, x * (2**num_bits / threshold), 0)


def _is_kept(packed, shape, num_bits, threshold):
    """Which units are kept, a boolean tensor of a shape [B, ...].

    Args:
      packed: Bytes [B, n] that hold a number of `num_bits` bits for each unit, and perhaps more.
      shape: The shape.
      num_bits: Number of bits, 1, 2, 4, 8 or 16.
      threshold: A unit is kept if its number is below this one.
    """
    numbers = _unpack(packed, num_bits)[:, : math.prod(shape[1:])]
    return ops.reshape(numbers, shape) < threshold


def _unpack(packed, num_bits):
    """Converts bytes [B, n] to numbers of `num_bits` bits each, [B, 8 n / num_bits]."""
    num_images, num_bytes = ops.shape(packed)
    if num_bits == 16:
        pairs = ops.reshape(packed, (num_images, num_bytes // 2, 2))
        return ops.reshape(ops.view(pairs, "uint16"), (num_images, -1))
    if num_bits == 8:
        return packed
    shifts = ops.cast(ops.arange(0, 8, num_bits), "uint8")
    mask = ops.cast(2**num_bits - 1, "uint8")
    numbers = ops.bitwise_and(ops.right_shift(packed[..., None], shifts), mask)
    return ops.reshape(numbers, (num_images, -1))


def image_seeds(seed, num_images, first_image=0):
    """Makes a seed for every image of a batch. It differs for every seed, step and image.

    Args:
      seed: Integer tensor [2]: a seed in [0, 2^31 - 1] and the number of a step.
      num_images: B, the number of images, an integer or a tensor.
      first_image: Number of the first image within the whole batch, an integer or a tensor.

    Returns:
      Integer tensor [B, 2] in the dtype of the seed, each number below 2^31.
    """
    images = ops.cast(first_image, seed.dtype) + ops.arange(num_images, dtype=seed.dtype)
    numbers = seed[0] % _NUM_LOW_SEEDS * _MAX_IMAGES + images
    # TensorFlow's generator uses 31 bits of each number. The number of the image leaves room for
    # only some bits of the seed. The other bits are added to the number of the step.
    step = ops.bitwise_and(seed[1] + seed[0] // _NUM_LOW_SEEDS * _SPREAD, 2**31 - 1)
    return ops.stack([numbers, ops.broadcast_to(step, ops.shape(images))], axis=-1)


def image_uniforms(seeds, shape):
    """Draws uniforms for every image from the seed of the image.

    They are independent of the random bits of `Dropout` with the same seeds.

    Args:
      seeds: Integer tensor [B, 2], the result of `image_seeds` or `image_digests`.
      shape: Shape of the noise of an image, integers or tensors.

    Returns:
      float32 tensor [B, *shape] in (0, 1).
    """

    seeds = ops.convert_to_tensor(seeds)
    # The second number is negative. In the seeds of dropout it is not.
    seeds = ops.stack([seeds[:, 0], -1 - seeds[:, 1]], axis=-1)
    # The smallest value is not 0, because its logarithm is -inf.
    return random_bits.uniforms_of_each(seeds, shape, _SMALLEST_UNIFORM)


def image_digests(images):
    """Makes a seed for every image from its levels. Different images almost never share a seed.

    Args:
      images: Tensor [B, H, W, C] of whole numbers.

    Returns:
      int32 tensor [B, 2].
    """
    levels = ops.cast(ops.reshape(images, (ops.shape(images)[0], -1)), "int32")
    # The weights start as odd multiples of the first 32 bits of the golden ratio. They are mixed,
    # so that no weight is a multiple of another. Products and sums wrap around.
    weights = (2 * ops.arange(ops.shape(levels)[1], dtype="int32") + 1) * -1640531535
    weights = ops.bitwise_xor(weights, ops.right_shift(weights, 15)) * 739982445
    digests = ops.sum(levels * weights, axis=-1)
    return ops.stack([digests, ops.zeros_like(digests)], axis=-1)


def round_up_to_8(number):
    """Rounds an integer or an integer tensor up to a multiple of 8."""
    return (number + 7) // 8 * 8
