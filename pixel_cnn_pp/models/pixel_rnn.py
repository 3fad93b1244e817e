"""The models of PixelRNN (van den Oord et al. 2016a): the Row LSTM and the Diagonal BiLSTM."""

from typing import Any, NamedTuple

import keras
from keras import ops

from pixel_cnn_pp.layers import DiagonalBiLSTMLayer, MaskedConv2D, RowLSTMLayer
from pixel_cnn_pp.layers.masked import of_group
from pixel_cnn_pp.models.masked_network import Block, MaskedNetwork, dense, joined

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")


class _RecurrentBlock(Block):
    """x + up(lstm(x)), of 2h, h and 2h features (van den Oord et al. 2016a, figure 5, right)."""

    lstm_class = None

    def __init__(self, filters, num_channels, **kwargs):
        """Makes the block; arguments as in `Block`."""
        super().__init__(filters, num_channels, **kwargs)
        arguments = {"num_channels": num_channels, "dtype": self.dtype_policy}
        self.lstm = self.lstm_class(filters, name="lstm", **arguments)
        self.up = MaskedConv2D(2 * filters, 1, "B", name="up", **arguments)

    def build(self, x_shape, h_shape=None):
        """Creates the weights for x [B, H, W, 2h] and h [..., F_h]."""
        self.lstm.build(x_shape, h_shape)
        self.up.build((*x_shape[:-1], self.filters))

    def call(self, x, h=None):
        """As in `Block`."""
        return x + self.up(self.lstm(x, h))

    def step_weights(self):
        """As in `Block`: {name: weights} of the layers within."""
        return {layer.name: layer.step_weights() for layer in (self.lstm, self.up)}

    def _at_the_top(self, row, first, above):
        """`first` in the first row, and `above` in every other one: [W, B, F]."""
        return ops.where(ops.equal(row, 0), first, above)


class _State(NamedTuple):
    """The state of a Row LSTM after a row, [W, B, h] each."""

    hidden: Any
    cell: Any


class _Done(NamedTuple):
    """What later pixels and the next row need of a pixel.

    x: [B, 2h], the inputs of the LSTM.
    hidden, cell: [B, h], its state.
    """

    x: Any
    hidden: Any
    cell: Any


class _RowContext(NamedTuple):
    """What a row of a Row LSTM takes from the row above.

    gates: What the gates take, including the bias, [W, B, 4h].
    cell: The cell state, [W, B, h].
    """

    gates: Any
    cell: Any


class _RowPixel(NamedTuple):
    """A pixel of a Row LSTM. Features are sorted by group.

    gates: What the gates take from the row above and the pixel on the left, [B, 4h].
    cell: The cell state above, [B, h].
    x: The known inputs [B, F], or None.
    state: The known parts of the new state, `_State`.
    """

    gates: Any
    cell: Any
    x: Any
    state: Any


@_SERIALIZE
class RowLSTMBlock(_RecurrentBlock):
    """A Row LSTM with its residual connection."""

    lstm_class = RowLSTMLayer

    def initial_state(self, width, batch_size):
        """As in `Block`. The first row takes the learned state in place of these zeros."""
        return _State(*[self.zeros(width, batch_size, self.filters)] * 2)

    def begin_row(self, weights, state, row, h):
        """As in `Block`: the state-to-state part of the whole row."""
        own = weights["lstm"]
        hidden = self._at_the_top(row, own["hidden"], state.hidden)
        cell = self._at_the_top(row, own["cell"], state.cell)
        batch_size = ops.shape(cell)[1]
        left = [self.zeros(batch_size, n * self.filters) for n in (2, 1, 1)]
        return _RowContext(self.lstm.row_above(own, hidden, h), cell), _Done(*left)

    def begin_pixel(self, weights, context, left, column):
        """As in `Block`."""
        gates = context.gates[column] + self.lstm.left(weights["lstm"], left.x)
        return _RowPixel(gates, context.cell[column], None, _State(None, None))

    def step(self, weights, pixel, channel, x):
        """As in `Block`."""
        read = joined(pixel.x, x)
        new = self.lstm.step(weights["lstm"], channel, pixel.gates, read, pixel.cell)
        state = _State(*map(joined, pixel.state, new))
        x = x + dense(self.up, weights["up"], channel, state.hidden)
        return x, pixel._replace(x=read, state=state)

    def end_pixel(self, pixel):
        """As in `Block`."""
        return _Done(pixel.x, *pixel.state)

    def end_row(self, context, pixels):
        """As in `Block`."""
        return _State(pixels.hidden, pixels.cell)


class _Hidden(NamedTuple):
    """The hidden states of both directions of a Diagonal BiLSTM in a row, [W, B, h] each."""

    from_left: Any
    from_right: Any


class _DiagonalContext(NamedTuple):
    """What a row of a Diagonal BiLSTM takes from the row above.

    gates: For each direction, what the gates take, including the bias, [W, B, 4h].
    from_right: What the direction from right to left adds to the row, [W, B, h].
    weights: The weights of this direction. Its own walk through the row is done in `end_row`.
    """

    gates: Any
    from_right: Any
    weights: Any


class _DiagonalPixel(NamedTuple):
    """A pixel of a Diagonal BiLSTM. Features are sorted by group.

    gates: What the gates take from the pixel above and the pixel on the left, [B, 4h].
    cell: The cell state of the pixel on the left, [B, h].
    from_right: What the direction from right to left adds, [B, h].
    x: The known inputs [B, F], or None.
    state: The known parts of the new state, `_State`.
    up: The known inputs of the last layer [B, F], or None.
    """

    gates: Any
    cell: Any
    from_right: Any
    x: Any
    state: Any
    up: Any


@_SERIALIZE
class DiagonalBiLSTMBlock(_RecurrentBlock):
    """A Diagonal BiLSTM with its residual connection.

    In the cached step, the direction from left to right goes on with every pixel. The other one is
    moved down by one row. So it walks through a row when all pixels of the row are known, and the
    next row adds the result.
    """

    lstm_class = DiagonalBiLSTMLayer

    def initial_state(self, width, batch_size):
        """As in `Block`. The first row takes the learned state in place of these zeros."""
        return _Hidden(*[self.zeros(width, batch_size, self.filters)] * 2)

    def begin_row(self, weights, state, row, h):
        """As in `Block`."""
        own = weights["lstm"]
        gates = [
            layer.row_above(
                own[layer.name], self._at_the_top(row, own[layer.name]["hidden"], hidden), h
            )
            for layer, hidden in zip(self._directions(), state, strict=True)
        ]
        # Nothing is added to the first row. The state is zeros there.
        context = _DiagonalContext(gates, state.from_right, own["from_right"])
        batch_size = ops.shape(state.from_left)[1]
        first = (
            ops.broadcast_to(own["from_left"][name], (batch_size, self.filters))
            for name in ("hidden", "cell")
        )
        return context, _Done(self.zeros(batch_size, 2 * self.filters), *first)

    def begin_pixel(self, weights, context, left, column):
        """As in `Block`."""
        own = weights["lstm"]["from_left"]
        gates = context.gates[0][column] + self.lstm.from_left.left(own, left.hidden)
        added = context.from_right[column]
        return _DiagonalPixel(gates, left.cell, added, None, _State(None, None), None)

    def step(self, weights, pixel, channel, x):
        """As in `Block`."""
        read = joined(pixel.x, x)
        own = weights["lstm"]["from_left"]
        new = self.lstm.from_left.step(own, channel, pixel.gates, read, pixel.cell)
        state = _State(*map(joined, pixel.state, new))
        up = joined(pixel.up, new[0] + of_group(pixel.from_right, channel, self.num_channels))
        x = x + dense(self.up, weights["up"], channel, up)
        return x, pixel._replace(x=read, state=state, up=up)

    def end_pixel(self, pixel):
        """As in `Block`."""
        return _Done(pixel.x, *pixel.state)

    def end_row(self, context, pixels):
        """As in `Block`: the walk from right to left."""
        from_right = self.lstm.from_right.row(context.weights, pixels.x, context.gates[1])
        return _Hidden(pixels.hidden, from_right)

    def _directions(self):
        return self.lstm.from_left, self.lstm.from_right


@_SERIALIZE
class RowLSTM(MaskedNetwork):
    """The Row LSTM of "Pixel Recurrent Neural Networks" (van den Oord et al. 2016a, section 3.1).

    The network of `MaskedNetwork` with the layers of `layers.RowLSTMLayer`, each with a residual
    connection. A pixel depends on a triangle above it, and on the pixels on its left up to a reach.

    The paper conditions on nothing. Here a condition adds a bias to the gates of each layer: a
    linear map of the class, of a real vector, or of the same pixel of a picture.

    Example:

    >>> import numpy as np
    >>> from pixel_cnn_pp import RowLSTMConfig
    >>> model = RowLSTM(RowLSTMConfig((5, 6, 3), num_levels=4, nr_resnet=2, nr_filters=6))
    >>> model.bits_per_dim(np.zeros([2, 5, 6, 3], np.uint8)).shape
    TensorShape([2])
    """

    title = "Row LSTM"
    block_class = RowLSTMBlock


@_SERIALIZE
class DiagonalBiLSTM(MaskedNetwork):
    """The Diagonal BiLSTM of "Pixel Recurrent Neural Networks" (section 3.2).

    The network of `MaskedNetwork` with the layers of `layers.DiagonalBiLSTMLayer`, each with a
    residual connection. A pixel depends on all earlier pixels but one: the last pixel of the row
    above, if it lies more than 3 columns to the right. That is so because the first layer has mask
    A. So the features of a pixel do not have the pixel itself, and only those further on have it.

    A condition is taken as in `RowLSTM`.

    Example:

    >>> import numpy as np
    >>> from pixel_cnn_pp import DiagonalBiLSTMConfig
    >>> config = DiagonalBiLSTMConfig((5, 6, 3), num_levels=4, nr_resnet=2, nr_filters=6)
    >>> DiagonalBiLSTM(config).bits_per_dim(np.zeros([2, 5, 6, 3], np.uint8)).shape
    TensorShape([2])
    """

    title = "Diagonal BiLSTM"
    block_class = DiagonalBiLSTMBlock
