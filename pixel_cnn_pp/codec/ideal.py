"""The length that the likelihood promises, to compare a file with: -log2 p of each picture."""

import math

import numpy as np

from pixel_cnn_pp import evaluation, likelihoods
from pixel_cnn_pp.codec import plan, stages
from pixel_cnn_pp.models.stages import multiple


def bits(model, pictures, condition=None, tile_shape=None, batch_size=64, progress=None):
    """-log2 p(picture) of pictures, as the sum over their tiles. The whole networks compute it.

    For a chain it is the sum over its stages.

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
    raw_params_of = [evaluation.compiled_raw_params(stage.model) for stage in model.stages]
    shapes = plan.grouped([picture.shape[:2] for picture in pictures])
    total = plan.num_tiles(shapes, tile_shape)
    batch_size = min(batch_size, total)
    found, done = np.zeros(len(pictures)), 0
    for chunk in plan.make(shapes, tile_shape, batch_size):
        chunk = plan.rounded_up(chunk, multiple(model))
        levels, sides = plan.canvas(chunk, batch_size, model.config.image_shape[-1])
        for index, tile in enumerate(chunk.tiles):
            levels[: tile.height, : tile.width, index] = tile.of(pictures[tile.picture])
        own = plan.condition_of(chunk, batch_size, condition)
        # The coder's model sees the last columns repeated too. What is below has no influence.
        of_stages = stages.pictures(model, levels, sides)
        for stage, raw_params, each in zip(model.stages, raw_params_of, of_stages, strict=True):
            dtype = likelihoods.level_dtype(stage.model.config.num_levels)
            images = each.as_images().astype(dtype)  # [B, h, w, c]
            log_prob = stage.model.likelihood.log_prob(
                raw_params(images, own), images, stage.model.noise(images)
            )
            log_prob = np.asarray(log_prob, np.float64)  # [B, h, w]
            for index, tile in enumerate(chunk.tiles):
                nats = -log_prob[index, : each.heights[index], : each.widths[index]].sum()
                found[tile.picture] += nats / math.log(2)
            own = images
        done += len(chunk.tiles)
        if progress is not None:
            progress(done, total)
    return found
