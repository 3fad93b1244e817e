"""Ancestral sampling: pixel after pixel in raster order, each from its exact distribution."""

import numbers

import numpy as np
from keras import ops

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.sampling import arguments, draw, noise

METHODS = ("cached", "naive")
MODES = ("sample", "map")

_MAX_SEED = 2**32 - 1


def sample(
    model,
    num_samples,
    labels=None,
    seed=0,
    method="cached",
    image_shape=None,
    temperature=1.0,
    log_scale_offset=0.0,
    mode="sample",
    init_images=None,
    known_mask=None,
    progress=None,
):
    """Draws images from a model, or completes images of which some pixels are known.

    Noise is drawn from the seed, and the images are a function of the noise. Every draw is rounded
    to a level before it conditions the next. So the images follow the model's `log_prob`, as long
    as temperature, offset and mode are left alone.

    Image i depends on the seed and on i. Images are drawn in batches, whose size follows from
    `num_samples` and from the number of cores. Batches of another size are rounded differently, so
    that in float32 about one draw in ten thousand is another level; the pixels after it then
    differ too.

    With mixture logits m and log-scales s of a pixel, draws are made from

        m / temperature,  s + log(temperature) - log_scale_offset.

    Less variance gives cleaner, less varied pictures (Kolesnikov & Lampert 2017, section 4.2). For
    a softmax or Bernoulli likelihood, the temperature divides the logits, and there is no offset. A
    model that is trained by the energy distance takes neither, and no mode.

    Args:
      model: `models.AutoregressiveModel`.
      num_samples: N, how many images.
      labels: Integers [N], the classes to draw, for a class-conditional model; None otherwise.
      seed: Whole number in [0, 2^31 - 1]; the same seed gives the same images.
      method: "cached" computes each part of the network once for every pixel, "naive" the whole
        network for the whole image for every pixel. Both draw the same images, but for the
        rounding of floats. The cached one compiles itself at the first call for a batch size and
        a width, which takes seconds.
      image_shape: (H, W, C), H and W multiples of `model.side_multiple`; default: that of
        `init_images`, or else that of the model's configuration.
      temperature: Above 0.
      log_scale_offset: Any number.
      mode: "sample", or "map": of the mixture component, which is drawn all the same, the mode is
        taken instead of a draw.
      init_images: Integers [N, H, W, C] or [H, W, C], with the known pixels of each image, or of
        all. What stands at the others has no influence, and may be anything.
      known_mask: Booleans [N, H, W] or [H, W], true for the pixels to take from `init_images`.
        They condition all pixels that come after them.
      progress: Function (done, total), called now and then with the numbers of rows that are
        drawn and to be drawn, of all images together; None for none.

    Returns:
      NumPy array [N, H, W, C] of integers in [0, L - 1], uint8 for L <= 256.

    Raises:
      ValueError: If an argument is out of its range, or does not fit the model or the others.

    Example:

    >>> from pixel_cnn_pp import ModelConfig, PixelCNNPP
    >>> model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 1), nr_resnet=1, nr_filters=4))
    >>> images = sample(model, num_samples=2)
    >>> upper_half = np.arange(8)[:, None] * np.ones(8) < 4
    >>> completed = sample(model, 2, seed=1, init_images=images, known_mask=upper_half)
    >>> bool((completed[:, :4] == images[:, :4]).all())
    True
    """
    arguments.check_choice("method", method, METHODS)
    arguments.check_choice("mode", mode, MODES)
    arguments.check_number(
        "num_samples", num_samples, numbers.Integral, "a whole number of at least 1", 1
    )
    arguments.check_number("seed", seed, numbers.Integral, f"a whole number in [0, {_MAX_SEED}]", 0)
    if seed > _MAX_SEED:
        raise ValueError(
            f"`seed` must be a whole number in [0, {_MAX_SEED}]. Received: seed={seed!r}"
        )
    smallest = np.finfo("float32").tiny
    arguments.check_number("temperature", temperature, numbers.Real, "a number above 0", smallest)
    arguments.check_number("log_scale_offset", log_scale_offset, numbers.Real, "a number")
    controls = {"temperature": temperature, "log_scale_offset": log_scale_offset, "mode": mode}
    arguments.check_controls(model.likelihood, **controls)
    images, known_mask = arguments.canvas(model, num_samples, image_shape, init_images, known_mask)
    labels = None if labels is None else np.asarray(labels)
    model.check_inputs(images, labels)
    images = images.astype(likelihoods.level_dtype(model.config.num_levels))

    controls = np.array([temperature, log_scale_offset, mode == "map"], model.variable_dtype)
    seed = int(np.uint32(seed).astype(np.int32))  # TensorFlow's seeds are signed
    draw_images = _draw_naive if method == "naive" else draw.draw_cached
    return draw_images(model, images, known_mask, labels, seed, controls, progress)


def _draw_naive(model, images, known_mask, labels, seed, controls, progress):
    num_images, height, width, num_channels = images.shape
    likelihood = model.likelihood
    inputs = images if labels is None else (images, labels)
    for row in range(height):
        # A pixel that is known of all images needs no pass of the network.
        columns = np.flatnonzero(~known_mask[:, row].all(axis=0))
        if len(columns) > 0:
            uniforms = noise.row_uniforms(
                seed, row, 0, num_images, width, likelihood.num_uniforms, num_images
            )
            uniforms = ops.cast(uniforms, model.variable_dtype)
        for column in columns:
            is_drawn = ~known_mask[:, row, column]
            for channel in range(num_channels):
                if channel == 0 or model.reads_channels:
                    raw_params = model.predict_on_batch(inputs)[:, row, column]
                    raw_params = ops.convert_to_tensor(raw_params)
                pixels = ops.convert_to_tensor(images[:, row, column])
                earlier = [pixels[:, i] for i in range(channel)]
                levels = likelihood.draw(raw_params, channel, earlier, uniforms[column], controls)
                images[is_drawn, row, column, channel] = ops.convert_to_numpy(levels)[is_drawn]
        if progress is not None:
            progress((row + 1) * num_images, height * num_images)
    return images
