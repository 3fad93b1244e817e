"""The noise of an image. It depends only on the seed and on the number of the image."""

import math

import numpy as np
from keras import ops

from pixel_cnn_pp import layers

# Noise is drawn for blocks of this many images. So the noise of an image does not depend on how
# many images are drawn, or on how they are divided into batches.
_NOISE_BLOCK = 64
# A seed combines the number of a block with the number of a row, which must be below this number.
_MAX_ROWS = 2**16


def row_uniforms(seed, row, first_image, num_images, width, size, most_images):
    """Draws the noise of a row of images.

    Args:
      seed: Integer tensor [], signed 32 bits.
      row: Integer tensor [], number of the row.
      first_image: Integer tensor [], number of the first image, counted over all batches.
      num_images: B, an integer or a tensor.
      width: W.
      size: Number of uniforms for each pixel.
      most_images: The greatest possible B, a Python integer.

    Returns:
      float32 tensor [W, B, size] in (0, 1).
    """
    first_block, start = first_image // _NOISE_BLOCK, first_image % _NOISE_BLOCK
    end = ops.convert_to_tensor(start + num_images)
    blocks = []
    for i in range(math.ceil(most_images / _NOISE_BLOCK) + 1):  # images may start within a block
        number = row + _MAX_ROWS * (first_block + i)
        # The smallest value is not 0, because its logarithm is -inf.
        smallest = float(np.finfo("float32").tiny)
        num_needed = ops.clip(end - i * _NOISE_BLOCK, 0, _NOISE_BLOCK)
        shape = (_NOISE_BLOCK, width, size)
        blocks.append(layers.first_uniforms(ops.stack([seed, number]), shape, smallest, num_needed))
    uniforms = ops.slice(ops.concatenate(blocks), (start, 0, 0), (num_images, width, size))
    return ops.transpose(uniforms, (1, 0, 2))
