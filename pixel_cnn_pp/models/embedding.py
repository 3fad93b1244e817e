"""The embedding network, which makes features of a picture that images are conditioned on."""

import keras
from keras import ops

from pixel_cnn_pp import layers
from pixel_cnn_pp.layers import GatedResidualBlock, WeightNormConv2D, WeightNormConv2DTranspose
from pixel_cnn_pp.models import conditions
from pixel_cnn_pp.models.gated_blocks import num_dropped


class EmbeddingNetwork(keras.layers.Layer):
    """The embedding network of Kolesnikov & Lampert 2017 (section 4): features of a picture.

    It is PixelCNN++ with one stream and without shifts, because every feature may depend on the
    whole picture. With n blocks of a group and R resolutions it consists of:

    - a 3x3 convolution of the picture and a channel of ones;
    - the first half: n blocks at the picture's own resolution, then R - 1 times a convolution that
      halves the sides, and n blocks;
    - the second half: n blocks, then a transposed convolution that doubles the sides, and n blocks,
      until the resolution of the target is reached;
    - a 3x3 convolution. The paper does not mention it, and the authors' sampling code has it.

    A short-cut leads from each block of the first half to the corresponding block of the second
    half. The blocks at higher resolutions than the picture's own have none.

    For n = 3, R = 2 and a target of twice the sides there are 15 blocks: down after block 3, up
    after blocks 9 and 12.

    Attributes:
      num_doublings: How many times the sides of the result are doubled.
    """

    def __init__(
        self,
        filters,
        num_blocks,
        num_resolutions,
        num_doublings,
        nonlinearity="concat_elu",
        **kwargs,
    ):
        """Makes the network.

        Args:
          filters: Number of features of all layers and of the result, E.
          num_blocks: n, the number of blocks of a group.
          num_resolutions: R, the number of resolutions of the first half.
          num_doublings: How many times the sides of the result are doubled.
          nonlinearity: That of the blocks, as for `layers.GatedResidualBlock`.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.filters = filters
        self.num_blocks = num_blocks
        self.num_resolutions = num_resolutions
        self.num_doublings = num_doublings
        arguments = {"dtype": self.dtype_policy}
        self.first = WeightNormConv2D(filters, name="first", **arguments)
        num_halvings, num_doubled = num_resolutions - 1, num_resolutions - 1 + num_doublings
        self.halve = [
            WeightNormConv2D(filters, strides=2, name=f"halve_{i}", **arguments)
            for i in range(num_halvings)
        ]
        self.double = [
            WeightNormConv2DTranspose(filters, strides=2, name=f"double_{i}", **arguments)
            for i in range(num_doubled)
        ]
        self.encoder, self.decoder = (
            [
                GatedResidualBlock(WeightNormConv2D, nonlinearity, name=f"{half}_{i}", **arguments)
                for i in range(num_blocks * num_groups)
            ]
            for half, num_groups in (("encoder", num_halvings + 1), ("decoder", num_doubled + 1))
        )
        self.last = WeightNormConv2D(filters, name="last", **arguments)

    def build(self, input_shape):
        """Creates the weights for a picture [B, h, w, c]."""
        if self.built:
            return
        self.first.build((*input_shape[:-1], input_shape[-1] + 1))  # one more channel, of ones
        shape = (*input_shape[:-1], self.filters)
        for layer in (*self.halve, *self.double, *self.encoder, self.last):
            layer.build(shape)
        for i, block in enumerate(self.decoder):
            block.build(shape, shape if i < len(self.encoder) else None)
        self.built = True

    def call(self, picture, blocks):
        """Computes the features.

        Args:
          picture: Float tensor [B, h, w, c], scaled to [-1, 1].
          blocks: `gated_blocks.GatedBlocks`, which applies or initialises the layers.

        Returns:
          Float tensor [B, h * 2^num_doublings, w * 2^num_doublings, E] in the compute dtype.
        """
        height, width = (side * 2**self.num_doublings for side in ops.shape(picture)[1:3])
        # A channel of ones tells the picture from the zeros around it.
        x = ops.pad(picture, [(0, 0), (0, 0), (0, 0), (0, 1)], constant_values=1)
        x = blocks.run(self.first, layers.pad_sides(x, self._side_multiple()))
        short_cuts = []
        for i, group in enumerate(self._groups(self.encoder)):
            if i > 0:
                x = blocks.run(self.halve[i - 1], x)
            for block in group:
                x = blocks(block, x)
                short_cuts.append(x)
        for i, group in enumerate(self._groups(self.decoder)):
            if i > 0:
                x = blocks.run(self.double[i - 1], x)
            for block in group:
                x = blocks(block, x, [short_cuts.pop()] if short_cuts else [])
        x = blocks.run(self.last, x)
        return layers.crop_sides(x, height, width)

    def num_dropped(self, height, width):
        """The numbers of units of each block to which dropout is applied, a list.

        Args:
          height, width: The sides of the picture, integers or tensors.
        """
        multiple = self._side_multiple()
        height, width = (side + -side % multiple for side in (height, width))
        found = []
        for i, group in enumerate(self._groups(self.encoder)):
            found += [num_dropped(block, height // 2**i, width // 2**i) for block in group]
        height, width = height // multiple, width // multiple
        for i, group in enumerate(self._groups(self.decoder)):
            found += [num_dropped(block, height * 2**i, width * 2**i) for block in group]
        return found

    def _side_multiple(self):
        return 2 ** (self.num_resolutions - 1)

    def _groups(self, half):
        """The blocks of a half, a list for each group."""
        n = self.num_blocks
        return [half[i : i + n] for i in range(0, len(half), n)]


def make(config, dtype):
    """Makes the embedding network that a configuration describes, with fresh weights.

    Args:
      config: Configuration of a model.
      dtype: The dtype policy of the model.

    Returns:
      EmbeddingNetwork, or None if the model has none.
    """
    if not conditions.has_embedding(config):
        return None
    network = EmbeddingNetwork(
        filters=conditions.num_features(config),
        num_blocks=config.embedding_resnet,
        num_resolutions=config.embedding_resolutions,
        num_doublings=conditions.num_doublings(config),
        nonlinearity=getattr(config, "resnet_nonlinearity", "concat_elu"),
        name="embedding",
        dtype=dtype,
    )
    network.build((None, *config.condition_shape))
    return network
