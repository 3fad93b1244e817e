"""PixelCNN (van den Oord et al. 2016a): masked convolutions, a softmax for each sub-pixel."""

from typing import Any, NamedTuple

import keras
from keras import ops

from pixel_cnn_pp.layers import MaskedConv2D, fresh, project
from pixel_cnn_pp.models.masked_network import Block, MaskedNetwork, dense, joined


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class ResidualBlock(Block):
    """x + up(relu(conv(relu(down(relu(x)))) + bias)), of 2h, h, h and 2h features.

    The bias is that of the condition, if there is one.
    """

    def __init__(self, filters, num_channels, **kwargs):
        """Makes the block; arguments as in `Block`."""
        super().__init__(filters, num_channels, **kwargs)
        arguments = {"mask": "B", "num_channels": num_channels, "dtype": self.dtype_policy}
        self.down = MaskedConv2D(filters, 1, name="down", **arguments)
        self.conv = MaskedConv2D(filters, 3, name="conv", **arguments)
        self.up = MaskedConv2D(2 * filters, 1, name="up", **arguments)

    def build(self, x_shape, h_shape=None):
        """Creates the weights for x [B, H, W, 2h] and h [..., F_h]."""
        self.down.build(x_shape)
        hidden_shape = (*x_shape[:-1], self.filters)
        self.conv.build(hidden_shape)
        self.up.build(hidden_shape)
        self.class_bias = None
        if h_shape is not None:
            self.class_bias = self.add_weight(
                shape=(h_shape[-1], self.filters),
                initializer=fresh("glorot_uniform"),
                name="class_bias",
            )

    def call(self, x, h=None):
        """As in `Block`."""
        c = self.conv(ops.relu(self.down(ops.relu(x))))
        if h is not None:
            bias = self.bias_of(h)
            c = c + (bias if len(bias.shape) == 4 else bias[:, None, None])
        return x + self.up(ops.relu(c))

    def bias_of(self, h):
        """The bias [..., h] of a condition [..., F_h]."""
        return project(h, ops.cast(self.class_bias, self.compute_dtype))

    def step_weights(self):
        """{name: weights} of the layers within, and of the condition, groups in their order."""
        weights = {layer.name: layer.step_weights() for layer in (self.down, self.conv, self.up)}
        if self.class_bias is not None:
            bias = ops.cast(self.class_bias, self.compute_dtype)
            weights["class_bias"] = self.conv.in_group_order(bias)
        return weights

    def initial_state(self, width, batch_size):
        """As in `Block`: the inputs of the 3x3 convolution in the row above."""
        return self.zeros(width, batch_size, self.filters)

    def begin_row(self, weights, state, row, h):
        """As in `Block`."""
        above = self.conv.row_above(weights["conv"], [state])
        if h is not None:
            above = above + project(h, weights["class_bias"])
        return above, self.zeros(ops.shape(state)[1], self.filters)

    def begin_pixel(self, weights, context, left, column):
        """As in `Block`."""
        terms = context[column] + self.conv.left(weights["conv"], left)
        return _ResidualPixel(terms, None, None, None)

    def step(self, weights, pixel, channel, x):
        """As in `Block`."""
        down = joined(pixel.down, ops.relu(x))
        c = ops.relu(dense(self.down, weights["down"], channel, down))
        conv = joined(pixel.conv, c)
        c = self.conv.of_group(channel, pixel.terms)
        c = c + self.conv.centre(weights["conv"], channel, conv)
        up = joined(pixel.up, ops.relu(c))
        x = x + dense(self.up, weights["up"], channel, up)
        return x, _ResidualPixel(pixel.terms, down, conv, up)

    def end_pixel(self, pixel):
        """As in `Block`."""
        return pixel.conv

    def end_row(self, context, pixels):
        """As in `Block`."""
        return pixels


class _ResidualPixel(NamedTuple):
    """A pixel of a `ResidualBlock`. Features are sorted by group.

    terms: What the 3x3 convolution takes from the row above and the pixel on the left, [B, h].
    down, conv, up: The known inputs of each layer [B, F], or None.
    """

    terms: Any
    down: Any
    conv: Any
    up: Any


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class PixelCNN(MaskedNetwork):
    """PixelCNN of "Pixel Recurrent Neural Networks" (van den Oord et al. 2016a, table 1).

    The network of `MaskedNetwork` with the residual blocks of figure 5.

    The paper conditions on nothing. Here a condition adds a bias to the 3x3 convolution of each
    block: a linear map of the class, of a real vector, or of the same pixel of a picture, as in van
    den Oord et al. 2016b, equations 4 and 5.

    Example:

    >>> import numpy as np
    >>> from pixel_cnn_pp import PixelCNNConfig
    >>> model = PixelCNN(PixelCNNConfig((5, 6, 3), num_levels=4, nr_resnet=2, nr_filters=6))
    >>> model.bits_per_dim(np.zeros([2, 5, 6, 3], np.uint8)).shape
    TensorShape([2])
    """

    title = "PixelCNN"
    block_class = ResidualBlock
