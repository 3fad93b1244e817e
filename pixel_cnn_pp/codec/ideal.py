"""The length that the likelihood promises, to compare a file with: -log2 p of each picture."""

import math

import numpy as np

from pixel_cnn_pp import evaluation, likelihoods
from pixel_cnn_pp.codec import plan


def bits(model, pictures, condition=None, tile_shape=None, batch_size=64, progress=None):
    """-log2 p(picture) of pictures, as the sum over their tiles. The whole network computes it.

    Args:
      model: `models.AutoregressiveModel` with a likelihood.
      pictures: List of N integer arrays [H, W, C].
      condition: Array of what they are conditioned on, or None.
      tile_shape: As in `compress`.
      batch_size: Number of tiles at a time.
      progress: Function (done, total), called with the number of scored tiles. None for no calls.

    Returns:
      Floats [N], bits. They are an upper bound, if the likelihood is a bound.

    Raises:
      ValueError: If the model has no likelihood.
    """
    model.likelihood.require_log_prob()
    raw_params_of = evaluation.compiled_raw_params(model)
    shapes = plan.grouped([picture.shape[:2] for picture in pictures])
    total = plan.num_tiles(shapes, tile_shape)
    batch_size = min(batch_size, total)
    dtype = likelihoods.level_dtype(model.config.num_levels)
    found, done = np.zeros(len(pictures)), 0
    for chunk in plan.make(shapes, tile_shape, batch_size):
        levels, _ = plan.canvas(chunk, batch_size, model.config.image_shape[-1])
        for index, tile in enumerate(chunk.tiles):
            levels[: tile.height, : tile.width, index] = tile.of(pictures[tile.picture])
            # The coder's model sees the last column repeated too. What is below has no influence.
            levels[:, tile.width :, index] = levels[:, tile.width - 1 : tile.width, index]
        levels = np.moveaxis(levels, 2, 0).astype(dtype)  # [B, H, W, C]
        raw_params = raw_params_of(levels, plan.condition_of(chunk, batch_size, condition))
        log_prob = model.likelihood.log_prob(raw_params, levels, model.noise(levels))
        log_prob = np.asarray(log_prob, np.float64)  # [B, H, W]
        for index, tile in enumerate(chunk.tiles):
            nats = -log_prob[index, : tile.height, : tile.width].sum()
            found[tile.picture] += nats / math.log(2)
        done += len(chunk.tiles)
        if progress is not None:
            progress(done, total)
    return found
