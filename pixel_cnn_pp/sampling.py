"""Ancestral sampling: pixel after pixel in raster order, each from its exact distribution."""

import numbers

import keras
import numpy as np

from pixel_cnn_pp import likelihoods

_METHODS = ("naive",)


def sample(model, num_samples, labels=None, seed=0, method="naive"):
    """Draws images from a model.

    The uniforms of all pixels are drawn from the seed first; the images are then a deterministic
    function of them, and every draw is rounded to a level before it conditions the next, so the
    images follow the model's `log_prob`.

    Args:
      model: PixelCNNPP.
      num_samples: N, how many images.
      labels: Integers [N], the classes to draw, for a class-conditional model; None otherwise.
      seed: Integer; the same seed gives the same images.
      method: "naive", one pass of the whole network for every pixel.

    Returns:
      NumPy array [N, H, W, C] of integers in [0, L - 1], uint8 for L <= 256.

    Raises:
      ValueError: If `method` or `num_samples` is out of range, or the labels do not fit the model.
    """
    if method not in _METHODS:
        raise ValueError(
            f"`method` must be one of {', '.join(_METHODS)}. Received: method={method!r}"
        )
    if not isinstance(num_samples, numbers.Integral) or num_samples < 1:
        raise ValueError(
            "`num_samples` must be a whole number of at least 1. "
            f"Received: num_samples={num_samples!r}"
        )
    config = model.config
    shape = (num_samples, *config.image_shape)
    mixture_uniforms, logistic_uniforms = _draw_uniforms(shape, config.nr_logistic_mix, seed)
    images = np.zeros(shape, likelihoods.level_dtype(config.num_levels))
    inputs = images if labels is None else (images, np.asarray(labels))
    for row in range(shape[1]):
        for column in range(shape[2]):
            raw_params = model.predict_on_batch(inputs)[:, row, column]
            images[:, row, column] = model.likelihood.sample(
                model.likelihood.split(keras.ops.convert_to_tensor(raw_params)),
                mixture_uniforms[:, row, column],
                logistic_uniforms[:, row, column],
            )
    return images


def _draw_uniforms(image_shape, nr_logistic_mix, seed):
    """The randomness of images [N, H, W, C]: uniforms [N, H, W, K] and [N, H, W, C] in (0, 1)."""
    seeds = keras.random.SeedGenerator(seed)
    # 0 itself would send a logarithm to -inf.
    smallest = float(np.finfo("float32").tiny)
    return tuple(
        keras.ops.convert_to_numpy(
            keras.random.uniform((*image_shape[:3], size), minval=smallest, seed=seeds)
        )
        for size in (nr_logistic_mix, image_shape[3])
    )
