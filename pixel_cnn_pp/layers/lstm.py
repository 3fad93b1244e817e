"""The recurrent layers of PixelRNN: the Row LSTM and the Diagonal BiLSTM.

Both walk over an image and update many positions in every step (van den Oord et al. 2016a, sections
3.1 and 3.2). `recurrence` has the equation. Features are in groups, one group for each channel of
the image, as in `masked`. Each of the four gates has all groups. The input-to-state convolution
K_is has mask B. The state-to-state convolution K_ss reads other positions only, and has no mask.

The state before the first step is learned (section 5.2).

In the cached step, features are sorted by group, as in `masked`.
"""

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp.layers.fresh import fresh
from pixel_cnn_pp.layers.gradients import custom_gradient
from pixel_cnn_pp.layers.masked import MaskedConv2D, of_group
from pixel_cnn_pp.layers.recurrence import lstm, recurrence
from pixel_cnn_pp.layers.shifted import down_shift
from pixel_cnn_pp.layers.weight_norm import project

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")


class _MaskedLSTM(keras.layers.Layer):
    """Base class of the layers that walk over the image in one direction.

    A subclass says how large the filters are, and defines `call`.
    """

    input_size = 1  # height and width of K_is
    num_taps = 2  # positions that K_ss reads

    def __init__(self, filters, num_channels, **kwargs):
        """Makes the layer.

        Args:
          filters: h, the number of features of the state.
          num_channels: C, the number of groups.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.filters = filters
        self.num_channels = num_channels
        self.to_state = MaskedConv2D(
            4 * filters,
            self.input_size,
            "B",
            num_channels,
            num_parts=4,
            name="to_state",
            dtype=self.dtype_policy,
        )

    def build(self, x_shape, h_shape=None):
        """Creates the weights for x [B, H, W, F_in] and a condition h [..., F_h]."""
        self.to_state.build(x_shape)
        self.state_kernel = self._weight(
            "state_kernel", (self.num_taps, self.filters, 4 * self.filters), "glorot_uniform"
        )
        self.hidden = self._weight("hidden", (self.filters,), "zeros")
        self.cell = self._weight("cell", (self.filters,), "zeros")
        self.condition_kernel = None
        if h_shape is not None:
            shape = (h_shape[-1], 4 * self.filters)
            self.condition_kernel = self._weight("condition_kernel", shape, "glorot_uniform")

    def gates(self, x, h=None):
        """What the gates of all positions take from the inputs, and from the condition.

        Args:
          x: Float tensor [B, H, W, F_in].
          h: Float tensor, the condition: [B, F_h], or [B, H, W, F_h] for a picture. Or None.

        Returns:
          Float tensor [B, H, W, 4 h], the gates o, f, i, g before their nonlinearities.
        """
        gates = self.to_state(x)
        if h is not None:
            bias = project(h, self._cast(self.condition_kernel))
            gates = gates + (bias if len(bias.shape) == 4 else bias[:, None, None])
        return gates

    def initial_state(self):
        """(K_ss, hidden state, cell state) in the compute dtype, as `recurrence` takes them."""
        return [self._cast(x) for x in (self.state_kernel, self.hidden, self.cell)]

    def step_weights(self):
        """The weights for the cached step, with features sorted by group.

        Returns:
          {"to_state": of the input-to-state convolution, "state": K_ss [taps, h, 4 h], "hidden" and
          "cell": [h], "condition": [F_h, 4 h] if there is a condition}.
        """
        order = self._in_order
        kernel, hidden, cell = self.initial_state()
        weights = {
            "to_state": self.to_state.step_weights(),
            "state": self.to_state.in_group_order(ops.take(kernel, order, axis=1)),
            "hidden": ops.take(hidden, order),
            "cell": ops.take(cell, order),
        }
        if self.condition_kernel is not None:
            kernel = self._cast(self.condition_kernel)
            weights["condition"] = self.to_state.in_group_order(kernel)
        return weights

    def step(self, weights, channel, gates, x, cell):
        """Computes the state of one group of features at the current position.

        Args:
          weights: The result of `step_weights`.
          channel: The group, a Python integer.
          gates: [B, 4 h], what the gates take from other positions, including the bias.
          x: [B, F], the inputs at this position. It must have at least all groups up to this one.
          cell: [B, h], the cell state before the step.

        Returns:
          (hidden, cell), the features of the group, [B, F] each.
        """
        own = self.to_state.of_group(channel, gates)
        own = own + self.to_state.centre(weights["to_state"], channel, x)
        return lstm(own, of_group(cell, channel, self.num_channels))

    def compute_output_shape(self, x_shape, h_shape=None):
        """[B, H, W, F_in] -> [B, H, W, h]."""
        return (*x_shape[:-1], self.filters)

    def get_config(self):
        """The arguments that the layer was made with."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_channels": self.num_channels,
        }

    @property
    def _in_order(self):
        """Numbers of the features of the state, sorted by group."""
        return np.argsort(np.arange(self.filters) % self.num_channels, kind="stable")

    def _biases(self, weights, h):
        """The bias of the gates, and what they take from the condition if there is one."""
        bias = weights["to_state"]["bias"]
        return bias if h is None else bias + project(h, weights["condition"])

    def _weight(self, name, shape, initializer):
        initializer = initializer if initializer == "zeros" else fresh(initializer)
        return self.add_weight(shape=shape, initializer=initializer, autocast=False, name=name)

    def _cast(self, weight):
        return ops.cast(weight, self.compute_dtype)


@_SERIALIZE
class RowLSTMLayer(_MaskedLSTM):
    """The Row LSTM (van den Oord et al. 2016a, section 3.1): a step is a row of the image.

    K_is is a filter of 1 x 3 along the row, with mask B. K_ss is a filter of 1 x 3 on the row
    above, with zeros on both sides of the image.
    """

    input_size = (1, 3)
    num_taps = 3

    def call(self, x, h=None):
        """Applies the layer: [B, H, W, F_in], and h as in `gates`, -> [B, H, W, h]."""
        gates = ops.transpose(self.gates(x, h), (1, 2, 0, 3))  # [H, W, B, 4 h]
        kernel, hidden, cell = self.initial_state()
        edge = ops.zeros_like(hidden)
        hiddens = recurrence(gates, kernel, hidden, cell, edge, (-1, 0, 1), is_delayed=False)
        return ops.transpose(hiddens, (2, 0, 1, 3))

    def row_above(self, weights, hidden, h=None):
        """What the gates of a row take from the row above, including the bias.

        Args:
          weights: The result of `step_weights`.
          hidden: [W, B, h], the hidden states of the row above.
          h: The condition, [B, F_h], or the row of a picture [W, B, F_h]. Or None.

        Returns:
          [W, B, 4 h].
        """
        x = ops.pad(hidden, ((1, 1), (0, 0), (0, 0)))
        x = ops.conv(
            x[None], weights["state"][:, None], padding="valid", data_format="channels_last"
        )
        return x[0] + self._biases(weights, h)

    def left(self, weights, x):
        """What the gates take from the inputs [B, F_in] of the pixel on the left: [B, 4 h]."""
        return self.to_state.left(weights["to_state"], x)


@_SERIALIZE
class DiagonalLSTMLayer(_MaskedLSTM):
    """One direction of the Diagonal BiLSTM (section 3.2): a step is a diagonal of the image.

    K_is is a filter of 1 x 1 with mask B. K_ss is a filter of 2 x 1 on the column before, of the
    skewed map. So a pixel reads the hidden states of the pixel on its left and of the pixel above.
    Its cell state comes from the left. Outside of the image the state is the learned one.
    """

    def __init__(self, filters, num_channels, is_mirrored=False, **kwargs):
        """Makes the layer.

        Args:
          filters, num_channels, **kwargs: As in `RowLSTMLayer`.
          is_mirrored: Whether the layer walks from right to left. Then it reads the pixel on the
            right in place of the pixel on the left.
        """
        super().__init__(filters, num_channels, **kwargs)
        self.is_mirrored = is_mirrored

    def call(self, x, h=None):
        """Applies the layer: [B, H, W, F_in], and h as in `gates`, -> [B, H, W, h]."""
        gates = self.gates(x, h)
        if self.is_mirrored:
            gates = ops.flip(gates, axis=2)
        gates = ops.transpose(skew(gates), (2, 1, 0, 3))  # [W + H - 1, H, B, 4 h]
        kernel, hidden, cell = self.initial_state()
        hiddens = recurrence(gates, kernel, hidden, cell, hidden, (0, -1), is_delayed=True)
        hiddens = unskew(ops.transpose(hiddens, (2, 1, 0, 3)))
        return ops.flip(hiddens, axis=2) if self.is_mirrored else hiddens

    def row_above(self, weights, hidden, h=None):
        """What the gates of a row take from the row above, as in `RowLSTMLayer`."""
        width, batch_size, _ = ops.shape(hidden)
        x = ops.matmul(ops.reshape(hidden, (-1, self.filters)), weights["state"][1])
        return ops.reshape(x, (width, batch_size, 4 * self.filters)) + self._biases(weights, h)

    def left(self, weights, hidden):
        """What the gates take from the hidden state [B, h] of the pixel on the left: [B, 4 h]."""
        return ops.matmul(hidden, weights["state"][0])

    def row(self, weights, x, above):
        """The hidden states of a whole row, all of whose inputs are known.

        Args:
          weights: The result of `step_weights`.
          x: [W, B, F_in], the inputs.
          above: [W, B, 4 h], the result of `row_above`.

        Returns:
          [W, B, h].
        """
        width, batch_size, num_inputs = ops.shape(x)
        groups = range(self.num_channels)
        flat = ops.reshape(x, (-1, num_inputs))
        own = [self.to_state.centre(weights["to_state"], group, flat) for group in groups]
        own = ops.reshape(ops.concatenate(own, axis=-1), (width, batch_size, 4 * self.filters))
        gates = above + own

        def next_pixel(state, column):
            hidden, cell = state
            own = gates[column] + self.left(weights, hidden)
            parts = [
                lstm(self.to_state.of_group(group, own), of_group(cell, group, self.num_channels))
                for group in groups
            ]
            state = tuple(ops.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
            return state, state

        first = tuple(
            ops.broadcast_to(weights[name], (batch_size, self.filters))
            for name in ("hidden", "cell")
        )
        _, (hidden, _) = ops.scan(next_pixel, first, ops.arange(width), reverse=self.is_mirrored)
        return hidden

    def get_config(self):
        """The arguments that the layer was made with."""
        return {**super().get_config(), "is_mirrored": self.is_mirrored}


@_SERIALIZE
class DiagonalBiLSTMLayer(keras.layers.Layer):
    """The Diagonal BiLSTM (section 3.2): the sum of both directions.

    The map of the direction from right to left is moved down by one row. Without that, a pixel
    would see the pixels on its right.
    """

    def __init__(self, filters, num_channels, **kwargs):
        """Makes the layer; arguments as in `RowLSTMLayer`."""
        super().__init__(**kwargs)
        self.filters = filters
        self.num_channels = num_channels
        arguments = {"num_channels": num_channels, "dtype": self.dtype_policy}
        self.from_left = DiagonalLSTMLayer(filters, name="from_left", **arguments)
        self.from_right = DiagonalLSTMLayer(
            filters, is_mirrored=True, name="from_right", **arguments
        )

    def build(self, x_shape, h_shape=None):
        """Creates the weights for x [B, H, W, F_in] and a condition h [..., F_h]."""
        self.from_left.build(x_shape, h_shape)
        self.from_right.build(x_shape, h_shape)

    def call(self, x, h=None):
        """Applies the layer: [B, H, W, F_in], and h as in `gates`, -> [B, H, W, h]."""
        return self.from_left(x, h) + down_shift(self.from_right(x, h))

    def step_weights(self):
        """{"from_left", "from_right": the weights of a direction}."""
        return {layer.name: layer.step_weights() for layer in (self.from_left, self.from_right)}

    def compute_output_shape(self, x_shape, h_shape=None):
        """[B, H, W, F_in] -> [B, H, W, h]."""
        return (*x_shape[:-1], self.filters)

    def get_config(self):
        """The arguments that the layer was made with."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_channels": self.num_channels,
        }


def skew(x):
    """Moves row r right by r: [B, H, W, F] -> [B, H, W + H - 1, F], zeros where nothing stands.

    A column of the result has what was a diagonal of x (van den Oord et al. 2016a, figure 3).
    """

    @custom_gradient
    def run(x):
        return _skew(x), _unskew  # TensorFlow's gradient of a slice takes several times as long

    return run(x)


def unskew(x):
    """Undoes `skew`: [B, H, W + H - 1, F] -> [B, H, W, F]."""

    @custom_gradient
    def run(x):
        return _unskew(x), _skew

    return run(x)


def _skew(x):
    batch_size, height, width, num_features = ops.shape(x)
    x = ops.pad(x, ((0, 0), (0, 0), (0, height), (0, 0)))
    # Each row is written one place too short, so that every row begins one place later.
    x = ops.reshape(x, (batch_size, height * (width + height), num_features))
    x = x[:, : height * (width + height - 1)]
    return ops.reshape(x, (batch_size, height, width + height - 1, num_features))


def _unskew(x):
    batch_size, height, skewed_width, num_features = ops.shape(x)
    x = ops.reshape(x, (batch_size, height * skewed_width, num_features))
    x = ops.pad(x, ((0, 0), (0, height), (0, 0)))
    x = ops.reshape(x, (batch_size, height, skewed_width + 1, num_features))
    return x[:, :, : skewed_width + 1 - height]
