"""Ancestral sampling: pixel after pixel in raster order, each from its exact distribution."""

import numbers

import numpy as np
from keras import ops

from pixel_cnn_pp import likelihoods, models
from pixel_cnn_pp.models.inputs import takes_labels
from pixel_cnn_pp.sampling import arguments, draw, noise, start

METHODS = ("cached", "naive")

_MAX_SEED = 2**32 - 1


@takes_labels
def sample(
    model,
    num_samples,
    condition=None,
    seed=0,
    method="cached",
    image_shape=None,
    temperature=1.0,
    log_scale_offset=0.0,
    mode="sample",
    init_images=None,
    known_mask=None,
    progress=None,
    given=None,
    given_stage=None,
):
    """Draws images from a model, or completes images of which some pixels are known.

    The images are a function of noise that is drawn from the seed. Every drawn sub-pixel is rounded
    to a level before the next one is drawn. So the images follow the model's `log_prob`, if
    temperature, offset and mode have their defaults.

    Image i depends on the seed and on i. Images are drawn in batches of few sizes. The size depends
    on `num_samples` and on the number of cores. Images that fill a batch up are thrown away.
    Batches of another size are rounded differently. In float32, this changes about one draw in ten
    thousand, and then the pixels after it differ too.

    With mixture logits m and log-scales s of a pixel, draws are made from

        m / temperature,  s + log(temperature) - log_scale_offset.

    Less variance gives cleaner, less varied pictures (Kolesnikov & Lampert 2017, section 4.2). For
    a softmax or Bernoulli likelihood, the logits are divided by the temperature, and there is no
    offset. A model that is trained with the energy distance has no temperature, offset or mode.

    A chain draws its stages one after the other, each from noise of its own. Of known pixels, a
    stage knows those that lie in them completely. It does not look at the others.

    Args:
      model: `models.AutoregressiveModel`.
      num_samples: N, the number of images.
      condition: What the images are conditioned on, one for each of the N images: labels [N] of
        the classes to draw, real vectors [N, D], or pictures [N, h, w, c]. None for an
        unconditional model. `labels=` is another name for it.
      seed: Whole number in [0, 2^32 - 1]. The same seed gives the same images.
      method: "cached" computes each part of the network once for every pixel. "naive" computes the
        whole network on the whole image for every pixel. Both draw the same images, except for
        differences from the rounding of floats. "cached" compiles at the first call for a batch
        size and a width, which takes seconds. Models of the same configuration share what is
        compiled.
      image_shape: (H, W, C), where H and W may be any numbers. None for the
        shape of `init_images`, or for that of the model's configuration if there are none.
      temperature: Number above 0; or a list of one for each stage of a chain. So may be the next
        two. One number holds for all stages whose likelihood knows the control.
      log_scale_offset: Any number.
      mode: "sample" or "map". With "map", a mixture component is drawn as usual, but then the mode
        of the component is taken instead of a draw from it. A softmax or Bernoulli likelihood takes
        the most probable level.
      init_images: Integers [N, H, W, C], or [H, W, C] for all images, with the known pixels. The
        other pixels may have any values and have no influence.
      known_mask: Booleans [N, H, W], or [H, W] for all images. They are true for the pixels to take
        from `init_images`. All pixels after a known pixel depend on it.
      progress: Function (done, total), called from time to time with the number of drawn rows and
        the number of all rows, counted over all images. None for no calls.
      given: For a chain, pictures of a stage, which is not drawn, nor are those before it: integers
        [N, h, w, c], or [h, w, c] for all images. So a gray picture gets colours, and a small one
        becomes larger.
      given_stage: Name of the stage of `given`. None for the one whose pictures have this shape.

    Returns:
      NumPy array [N, H, W, C] of integers in [0, L - 1], uint8 for L <= 256.

    Raises:
      ValueError: If an argument is out of its range, or does not fit the model or another argument.

    Example:

    >>> from pixel_cnn_pp import ModelConfig, PixelCNNPP
    >>> model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 1), nr_resnet=1, nr_filters=4))
    >>> images = sample(model, num_samples=2)
    >>> upper_half = np.arange(8)[:, None] * np.ones(8) < 4
    >>> completed = sample(model, 2, seed=1, init_images=images, known_mask=upper_half)
    >>> bool((completed[:, :4] == images[:, :4]).all())
    True
    """
    *_, images = sample_stages(
        model,
        num_samples,
        condition,
        seed,
        method,
        image_shape,
        temperature,
        log_scale_offset,
        mode,
        init_images,
        known_mask,
        progress,
        given,
        given_stage,
    ).values()
    return images


@takes_labels
def sample_stages(
    model,
    num_samples,
    condition=None,
    seed=0,
    method="cached",
    image_shape=None,
    temperature=1.0,
    log_scale_offset=0.0,
    mode="sample",
    init_images=None,
    known_mask=None,
    progress=None,
    given=None,
    given_stage=None,
):
    """Draws images as `sample` does, and returns the pictures of all stages.

    Args:
      model, num_samples, ...: As in `sample`.

    Returns:
      Dict, name of a stage -> integer array [N, h, w, c], in the order of the stages, from the one
      that is given. The last one is what `sample` returns.

    Raises:
      ValueError: As `sample` does.
    """
    models.checked(model)
    arguments.check_choice("method", method, METHODS)
    arguments.check_number(
        "num_samples", num_samples, numbers.Integral, "a whole number of at least 1", 1
    )
    arguments.check_number("seed", seed, numbers.Integral, f"a whole number in [0, {_MAX_SEED}]", 0)
    if seed > _MAX_SEED:
        raise ValueError(
            f"`seed` must be a whole number in [0, {_MAX_SEED}]. Received: seed={seed!r}"
        )
    if progress is not None and not callable(progress):
        raise ValueError(f"`progress` must be a function or None. Received: progress={progress!r}")
    of_stages = arguments.controls(
        model, temperature=temperature, log_scale_offset=log_scale_offset, mode=mode
    )
    first, pictures, image_shape = start.given_pictures(
        model, num_samples, given, given_stage, image_shape
    )
    images, known_mask = arguments.canvas(model, num_samples, image_shape, init_images, known_mask)
    if pictures is None:
        condition = None if condition is None else np.asarray(condition)
        model.check_inputs(images, condition)
    else:
        if condition is not None or init_images is not None:
            raise ValueError(
                "`condition` and `init_images` must be left out where a stage is given. "
                "Received: both"
            )
    stages = model.stages[first + 1 :]
    canvases = start.canvases(model, stages, images, known_mask)
    found = {}
    if pictures is not None:
        stages[0].model.check_inputs(canvases[0][0], pictures)
        given_to = model.stages[first]
        condition = pictures.astype(likelihoods.level_dtype(given_to.model.config.num_levels))
        found[given_to.name] = condition
    draw_images = _draw_naive if method == "naive" else draw.draw_cached
    report = _Report(progress, [mask for _, mask in canvases])
    signed = int(np.uint32(seed).astype(np.int32))  # TensorFlow's seeds are signed
    for number, (stage, canvas) in enumerate(zip(stages, canvases, strict=True), start=first + 1):
        condition = draw_images(
            stage.model,
            *canvas,
            condition,
            int(start.seed_of(signed, number)),
            of_stages[number],
            report.of_next_stage(),
        )
        found[stage.name] = condition
    return found


class _Report:
    """Reports the progress of several stages as that of one drawing."""

    def __init__(self, progress, masks):
        """Keeps the function of `sample`, or None, and counts the rows of masks [N, h, w]."""
        self._progress = progress
        self._totals = [mask.shape[0] * mask.shape[1] for mask in masks]
        self._number = -1

    def of_next_stage(self):
        """The function (done, total) of the next stage, or None."""
        self._number += 1
        if self._progress is None:
            return None
        before, total = sum(self._totals[: self._number]), sum(self._totals)
        return lambda done, _: self._progress(before + done, total)


def _draw_naive(model, images, known_mask, condition, seed, controls, progress):
    num_images, height, width, num_channels = images.shape
    likelihood = model.likelihood
    inputs = images if condition is None else (images, condition)
    for row in range(height):
        # A pixel that is known in all images needs no pass of the network.
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
