"""The driver: one loop over the sub-pixels of a row. A given function chooses each level."""

from keras import ops

from pixel_cnn_pp import likelihoods


def walk_row(model, weights, state, row, choose, shape, condition=None):
    """Walks through a row of images, sub-pixel after sub-pixel.

    Args:
      model: `models.AutoregressiveModel`.
      weights: The result of `model.cached_step.weights()`.
      state: The result of the step's `initial_state`, or the state that this function returned for
        the row above.
      row: Integer tensor [], the number of the row.
      choose: Function (raw_params [B, P], row, column, channel, earlier) -> levels [B] of that
        sub-pixel, in the dtype of `likelihoods.level_dtype`. `row` and `column` are integer
        tensors, `channel` is a Python integer, `earlier` lists the levels of the earlier channels
        of the pixel. `draws`, `completes` and `teacher_forces` make such functions.
      shape: (W, B), width of the row and number of images.
      condition: The result of the model's `embed`, or None for an unconditional model.

    Returns:
      The state for the next row; levels [W, B, C]; raw parameters [W, B, P], complete for all
      channels.
    """
    step = model.cached_step
    width, batch_size = shape
    num_channels = model.config.image_shape[-1]
    context, left = step.begin_row(weights, state, row, condition)

    def next_pixel(carry, column):
        pixel, levels = carry[0], []
        for channel in range(num_channels):
            raw_params, pixel = step.step(weights, context, pixel, row, column, channel, levels)
            levels = [*levels, choose(raw_params, row, column, channel, levels)]
        levels = ops.stack(levels, axis=-1)
        carry = (step.end_pixel(pixel, levels), levels, raw_params)
        return carry, carry

    dtype = likelihoods.level_dtype(model.config.num_levels)
    first = (
        left,
        ops.zeros((batch_size, num_channels), dtype),
        ops.zeros((batch_size, model.likelihood.num_params), model.variable_dtype),
    )
    _, (pixels, levels, raw_params) = ops.scan(next_pixel, first, ops.arange(width))
    return step.end_row(context, pixels, row), levels, raw_params


def draws(likelihood, uniforms, controls):
    """Makes the function that draws each level from its distribution.

    Args:
      likelihood: The model's likelihood, after `using` the weights of the step.
      uniforms: Float tensor [W, B, num_uniforms] in (0, 1), the noise of the row.
      controls: Float tensor [3], as `likelihoods.Likelihood.draw` takes it.

    Returns:
      Function as `walk_row` takes it.
    """

    def choose(raw_params, row, column, channel, earlier):
        own = ops.cast(uniforms[column], raw_params.dtype)
        return likelihood.draw(raw_params, channel, earlier, own, controls)

    return choose


def completes(choose, pixels, known_mask):
    """Makes the function that copies the known pixels of a row, and chooses only the others.

    Args:
      choose: Function that chooses the levels of unknown pixels, as in `walk_row`.
      pixels: Integer tensor [W, B, C] with the known pixels.
      known_mask: Boolean tensor [W, B].

    Returns:
      Function as `walk_row` takes it.
    """

    def choose_unknown(raw_params, row, column, channel, earlier):
        levels = choose(raw_params, row, column, channel, earlier)
        return ops.where(known_mask[column], pixels[column][:, channel], levels)

    return choose_unknown


def teacher_forces(pixels):
    """Makes the function that copies all pixels of a row.

    With it, `walk_row` computes the raw parameters of given images.

    Args:
      pixels: Integer tensor [W, B, C].

    Returns:
      Function as `walk_row` takes it.
    """

    def choose(raw_params, row, column, channel, earlier):
        return pixels[column][:, channel]

    return choose
