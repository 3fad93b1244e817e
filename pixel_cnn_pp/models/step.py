"""The base class of the cached steps."""

import abc


class Step(abc.ABC):
    """The cached step of a model, which computes raw parameters one sub-pixel after the other.

    It computes the same numbers as `AutoregressiveModel.conditionals`. Each term is computed only
    once, as soon as the pixels that it depends on are known.

    `sampling.walk_row` calls the methods in this order: `begin_row` for the row, then for each
    pixel `step` for channel 0, 1, ... and `end_pixel`, and at the end `end_row`. Nests of tensors
    are passed from one call to the next. Only the step itself knows their contents. Only `weights`
    reads the variables of the model. All other methods take its result as an argument.

    In these tensors a row is [W, B, F], with the columns first, and a pixel is [B, F].
    """

    @abc.abstractmethod
    def weights(self):
        """Computes the effective weights, {name of a layer: its weights}, once for many rows."""

    @abc.abstractmethod
    def initial_state(self, batch_size, width, condition=None):
        """The state for the first row.

        Args:
          batch_size: B.
          width: W.
          condition: `conditions.Condition` of the images, the result of the model's `embed`. None
            for an unconditional model.

        Returns:
          A nest of tensors. `end_row` returns one of the same structure, shapes and dtypes. Its
          size depends on the width of the image, but not on its height.
        """

    @abc.abstractmethod
    def begin_row(self, weights, state, row, condition=None):
        """Computes the contributions of the rows above to a row.

        Args:
          weights: The result of `weights`.
          state: The result of `initial_state`, or of `end_row` for the row above.
          row: Integer tensor [], the number of the row.
          condition: As in `initial_state`. The other methods get it by way of the context.

        Returns:
          (context, left). `context` is a nest of tensors for the other methods. `left` is what the
          first pixel takes from its left, a nest like the result of `end_pixel`.
        """

    @abc.abstractmethod
    def step(self, weights, context, pixel, row, column, channel, earlier):
        """Computes the raw parameters of a sub-pixel.

        Args:
          weights: The result of `weights`.
          context: The context that `begin_row` returned.
          pixel: For channel 0, the result of `end_pixel` for the pixel on the left, or `left` of
            `begin_row` for the first pixel. For later channels, the pixel that this method returned
            for the channel before.
          row, column: Integer tensors [], the position of the pixel.
          channel: c, a Python integer in [0, C - 1].
          earlier: List of the c earlier channels of this pixel, integer tensors [B].

        Returns:
          (raw_params [B, P], pixel). The raw parameters are complete for the channels up to c.
        """

    @abc.abstractmethod
    def end_pixel(self, pixel, levels):
        """Returns what later pixels need of a pixel. All channels of the pixel are known.

        Args:
          pixel: The pixel that `step` returned for the last channel.
          levels: Integer tensor [B, C], the channels of the pixel.

        Returns:
          A nest of tensors [B, F].
        """

    @abc.abstractmethod
    def end_row(self, context, pixels, row):
        """Returns what later rows need of a row.

        Args:
          context: The context that `begin_row` returned.
          pixels: The results of `end_pixel` for all pixels of the row, stacked to [W, B, F].
          row: Integer tensor [], the number of the row.

        Returns:
          The state for the next row.
        """
