"""The block in which groups of channels read earlier groups."""

import keras
from keras import ops

from pixel_cnn_pp.layers.blocks import GatedResidualBlock
from pixel_cnn_pp.layers.weight_norm import apply, initialize

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")


@_SERIALIZE
class AutoregressiveChannelBlock(keras.layers.Layer):
    """Residual blocks of 1x1 convolutions from groups of channels to later groups.

    The "autoregressive channel" of Salimans et al. 2017, section 3.3. With x[1], x[2], ... equal
    groups of the channels of x, `a` the short-cut input, and block[g] a `GatedResidualBlock` of 1x1
    convolutions:

        out[g] = block[g](x[g], a=[a, out[1], ..., out[g - 1]])

    A larger number of groups gives a deeper network, but the receptive field stays the same.
    """

    def __init__(self, convolution, num_groups, nonlinearity="concat_elu", **kwargs):
        """Makes the block.

        Args:
          convolution: Class of the convolutions, as in `GatedResidualBlock`.
          num_groups: Number of groups of channels, at least 2.
          nonlinearity: "concat_elu", "elu" or "relu".
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.convolution = convolution
        self.num_groups = num_groups
        self.nonlinearity = nonlinearity

    def build(self, x_shape, a_shape=None, h_shape=None):
        """Creates the weights. Shapes are as in `GatedResidualBlock`, with F a multiple of groups.

        The cached step knows all channels of a short-cut input for a whole row.
        """
        *sides, filters = x_shape
        assert filters % self.num_groups == 0, "the groups are equal"
        group_filters = filters // self.num_groups
        a_channels = 0 if a_shape is None else a_shape[-1]
        self.blocks = []
        for group in range(self.num_groups):
            channels = a_channels + group * group_filters
            block = GatedResidualBlock(
                self.convolution,
                self.nonlinearity,
                kernel_size=(1, 1),
                # The groups of the rightward stream are only known pixel by pixel.
                row_channels=a_channels or channels,
                dtype=self.dtype_policy,
                name=f"group_{group}",
            )
            block.build((*sides, group_filters), (*sides, channels) if channels else None, h_shape)
            self.blocks.append(block)

    def call(self, x, a=None, h=None, dropout=None):
        """Applies the block, with the arguments of `GatedResidualBlock.call`."""
        return self._forward(apply, x, a, h, dropout)

    def initialize(self, x, a=None, h=None, dropout=None):
        """Initialises the inner blocks, one after the other. Otherwise as `call`."""
        return self._forward(initialize, x, a, h, dropout)

    def num_dropped(self):
        """Number of features per position to which dropout is applied, over all groups."""
        return sum(block.num_dropped() for block in self.blocks)

    def state_sizes(self):
        """As in `GatedResidualBlock`. Nothing is kept for other positions."""
        return {}

    def above_sizes(self):
        """{name: {name: features per position}} of the result of `row_above`."""
        return {block.name: block.above_sizes() for block in self.blocks}

    def step_weights(self):
        """{name of a block: its weights}, see `GatedResidualBlock.step_weights`."""
        return {block.name: block.step_weights() for block in self.blocks}

    def row(self, weights, x, above, a=None, h=None):
        """One row of `call` in the downward stream, as in `GatedResidualBlock`."""

        def run(block, x, a):
            return block.row(weights[block.name], x, {}, a, h)[0]

        return self._walk(run, x, a), {}

    def row_above(self, weights, above, a, h=None):
        """Contribution of the downward stream and the conditioning to a row."""
        return {block.name: block.row_above(weights[block.name], {}, a, h) for block in self.blocks}

    def pixel(self, weights, x, left, above, a=None):
        """One pixel of `call` in the rightward stream, as in `GatedResidualBlock`."""

        def run(block, x, a):
            return block.pixel(weights[block.name], x, {}, above[block.name], a)[0]

        return self._walk(run, x, a), {}

    def _forward(self, run, x, a, h, dropout):
        drops = [None] * self.num_groups
        if dropout is not None:
            # Dropout is drawn for all groups at once.
            drop = dropout(x, (*ops.shape(x)[:-1], self.num_dropped()))
            drops = [lambda c, shape, own=own: own for own in drop.split(self.num_groups)]
        drops = dict(zip((block.name for block in self.blocks), drops, strict=True))
        return self._walk(
            lambda block, x, a: run(block, x, a=a, h=h, dropout=drops[block.name]), x, a
        )

    def _walk(self, run, x, a):
        """The equation of the class. `run` applies a block to x and its short-cut input."""
        outputs = []
        for block, group in zip(self.blocks, ops.split(x, self.num_groups, axis=-1), strict=True):
            inputs = outputs if a is None else [a, *outputs]
            outputs.append(run(block, group, ops.concatenate(inputs, axis=-1) if inputs else None))
        return ops.concatenate(outputs, axis=-1)

    def compute_output_shape(self, x_shape, a_shape=None, h_shape=None):
        """The shape of x."""
        return x_shape

    def get_config(self):
        """The arguments that the block was made with."""
        return {
            **super().get_config(),
            "convolution": keras.saving.get_registered_name(self.convolution),
            "num_groups": self.num_groups,
            "nonlinearity": self.nonlinearity,
        }

    @classmethod
    def from_config(cls, config):
        """The block with these arguments."""
        convolution = keras.saving.get_registered_object(config["convolution"])
        return cls(**{**config, "convolution": convolution})
