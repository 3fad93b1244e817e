"""The contract of the cached step."""

import abc


class Step(abc.ABC):
    """The cached step of a model: its raw parameters, one sub-pixel after the other.

    It computes what `AutoregressiveModel.conditionals` does, each term once and as early as it can
    be. `sampling.walk_row` calls it: `begin_row`, then for each pixel `step` for channel 0, 1, ...
    and `end_pixel`, and `end_row`. What is handed from one call to the next is a nest of tensors
    that only the step itself looks into. Nothing here reads a variable but `weights`: all other
    methods compute with what that method returned.

    In these tensors a row is [W, B, F], columns first, and a pixel is [B, F].
    """

    @abc.abstractmethod
    def weights(self):
        """The effective weights, {name of a layer: its weights}, made once for many rows."""

    @abc.abstractmethod
    def initial_state(self, batch_size, width, condition=None):
        """What is known above the first row.

        Args:
          batch_size: B.
          width: W.
          condition: What the images are conditioned on, for each of them; None for nothing.

        Returns:
          A nest of tensors. `end_row` returns one of the same structure, shapes and dtypes. It
          grows with the width of the image, not with its height.
        """

    @abc.abstractmethod
    def begin_row(self, weights, state, row, condition=None):
        """Computes what the rows above contribute to a row.

        Args:
          weights: What `weights` returned.
          state: What `initial_state`, or `end_row` of the row above, returned.
          row: Integer tensor [], the number of the row.
          condition: As in `initial_state`. The other methods get it by way of the context.

        Returns:
          (context, left): a nest of tensors for the other methods; and what the first pixel of the
          row gets from its left, a nest like the one that `end_pixel` returns.
        """

    @abc.abstractmethod
    def step(self, weights, context, pixel, row, column, channel, earlier):
        """The raw parameters of a sub-pixel.

        Args:
          weights: What `weights` returned.
          context: What `begin_row` returned.
          pixel: For channel 0 what `begin_row` or `end_pixel` returned for the pixel on the left;
            for later channels what this method returned for the channel before.
          row, column: Integer tensors [], the place of the pixel.
          channel: c, a Python integer in [0, C - 1].
          earlier: List of the c earlier channels of this pixel, integer tensors [B].

        Returns:
          (raw_params [B, P], pixel). The raw parameters are complete for the channels up to c.
        """

    @abc.abstractmethod
    def end_pixel(self, pixel, levels):
        """What is kept of a pixel, all of whose channels are known.

        Args:
          pixel: What `step` returned for the last channel.
          levels: Integer tensor [B, C].

        Returns:
          A nest of tensors [B, F].
        """

    @abc.abstractmethod
    def end_row(self, context, pixels, row):
        """What is kept of a row.

        Args:
          context: What `begin_row` returned.
          pixels: What `end_pixel` returned for all pixels of the row, stacked to [W, B, F].
          row: Integer tensor [], the number of the row.

        Returns:
          The state for the next row.
        """
