"""PixelCNN++ for whole images. The network is made from its configuration."""

from functools import partial
from typing import NamedTuple

import keras
from keras import ops

from pixel_cnn_pp import layers, likelihoods
from pixel_cnn_pp.config import CHANNEL_GROUPS
from pixel_cnn_pp.layers import (
    AutoregressiveChannelBlock,
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    GatedResidualBlock,
    SampleHead,
    WeightNormDense,
)
from pixel_cnn_pp.models import conditions, inputs
from pixel_cnn_pp.models.base import AutoregressiveModel
from pixel_cnn_pp.models.blocks import BlockFunction
from pixel_cnn_pp.models.gated_blocks import GatedBlocks, num_dropped, run_block
from pixel_cnn_pp.models.pixel_cnn_pp_images import WholeImages
from pixel_cnn_pp.models.pixel_cnn_pp_step import PixelCNNPPStep


class Resolution(NamedTuple):
    """The layers at one resolution, in pairs (downward stream, rightward stream).

    Attributes:
      encoder: Blocks before the coarser resolution.
      decoder: Blocks after the coarser resolution.
      halve: Layers that lead to the coarser resolution. None at the coarsest one.
      double: Layers that lead back from the coarser resolution. None at the coarsest one.
    """

    encoder: list
    halve: tuple | None
    double: tuple | None
    decoder: list


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class PixelCNNPP(AutoregressiveModel):
    """PixelCNN++ (Salimans et al. 2017): an autoregressive model of integer images.

    The network has two streams. The downward stream sees all rows above a pixel. The rightward
    stream also sees the pixels on the left in the same row. The first half of the network has gated
    residual blocks at three resolutions, lower and lower. The second half has blocks at higher and
    higher resolution. A short-cut leads from each layer of the first half to the corresponding
    layer of the second half (section 2.4, figure 2). The variants of sections 3.3 and 3.4, the
    number of resolutions and the release's energy distance are fields of the configuration.

    Example:

    >>> from pixel_cnn_pp import ModelConfig
    >>> import numpy as np
    >>> model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 1), nr_resnet=1, nr_filters=8))
    >>> images = np.random.default_rng(0).integers(0, 256, [16, 8, 8, 1], dtype=np.uint8)
    >>> model.initialize(images)
    >>> model.bits_per_dim(images).shape
    TensorShape([16])
    """

    title = "PixelCNN++"

    def __init__(self, config, recompute=False, **kwargs):
        """Makes the network with fresh weights.

        Args:
          config: `config.ModelConfig`.
          recompute: Whether gradients compute the residual blocks and the likelihood again, instead
            of keeping their intermediate results in memory.
          **kwargs: As in `AutoregressiveModel`.
        """
        super().__init__(config, recompute, **kwargs)
        filters, num_blocks = config.nr_filters, config.num_blocks
        policy = {"dtype": self.dtype_policy}
        above_size = {"full": (2, 3), "11x5": (1, 2), "15x8": (2, 2)}[config.receptive_field]
        self.input_above = DownShiftedConv2D(filters, above_size, name="input_above", **policy)
        self.input_row_above = DownShiftedConv2D(filters, (1, 3), name="input_row_above", **policy)
        self.input_left = DownRightShiftedConv2D(filters, (2, 1), name="input_left", **policy)

        def pair(down, right, **arguments):
            return [(partial(down, **arguments), partial(right, **arguments))]

        def block_pair(block, right_arguments=None, **arguments):
            return pair(
                partial(block, DownShiftedConv2D),
                partial(block, DownRightShiftedConv2D, **(right_arguments or {})),
                nonlinearity=config.resnet_nonlinearity,
                **arguments,
            )

        blocks = block_pair(GatedResidualBlock)
        halve = pair(DownShiftedConv2D, DownRightShiftedConv2D, filters=filters, strides=2)
        double = pair(
            DownShiftedConv2DTranspose,
            DownRightShiftedConv2DTranspose,
            filters=filters,
            strides=2,
        )
        if config.receptive_field == "full":
            # The decoder has one more block at each finer resolution than the encoder, because the
            # short-cut of the strided layer also needs a block.
            times = config.num_halvings
            encoder = (blocks * num_blocks + halve) * times + blocks * num_blocks
            decoder = blocks * num_blocks + (double + blocks * (num_blocks + 1)) * times
            if times == 0:
                decoder = []  # Kolesnikov & Lampert 2017, section 4: blocks at one resolution
        else:
            # With the release's filters, the receptive fields would be 12x7 and 16x9. The last
            # block of the rightward stream would see one more row above and one more column on the
            # left than the downward stream. So the rightward filters have only one row, and the
            # first filter of the downward stream has one column less on the left.
            small_blocks = block_pair(GatedResidualBlock, {"kernel_size": (1, 2)})
            # The layers between two blocks see only their own position (section 3.3).
            between = {
                "plain": [],
                "nin": block_pair(GatedResidualBlock, kernel_size=(1, 1)) * 3,
                "autoregressive_channel": block_pair(
                    AutoregressiveChannelBlock, num_groups=CHANNEL_GROUPS
                ),
            }[config.small_variant]
            encoder = small_blocks + (between + small_blocks) * (num_blocks - 1)
            decoder = []
        self.encoder_down, self.encoder_right = _streams("encoder", encoder, policy)
        self.decoder_down, self.decoder_right = _streams("decoder", decoder, policy)
        # The inputs of the likelihood must not be rounded to bfloat16.
        policy = {"dtype": self.variable_dtype}
        self.head = None
        if config.energy_distance:
            self.head = SampleHead(config.image_shape[-1], name="head", **policy)
        self.likelihood = self._make_likelihood()
        self.output_layer = WeightNormDense(self.likelihood.num_params, name="output", **policy)
        self._dropout = layers.Dropout(config.dropout_p) if self.has_dropout else None
        self._apply_block = BlockFunction(
            partial(run_block, layers.apply, self._dropout), recompute
        )
        self.build((None, *config.image_shape))

    def _make_likelihood(self):
        config = self.config
        size = config.image_shape[-1], config.num_levels
        if self.head is not None:
            return likelihoods.EnergyDistance(config.num_levels, self.head)
        if config.likelihood == "softmax":
            return likelihoods.LinearSoftmax(*size)
        mixture = {
            "logistic_mixture": likelihoods.DiscretizedMixture,
            "dequantized": likelihoods.DequantizedMixture,
        }[config.likelihood]
        return mixture(*size, config.nr_logistic_mix, config.min_log_scale)

    @property
    def has_dropout(self):
        """As in `AutoregressiveModel`."""
        return self.config.dropout_p > 0

    def build(self, input_shape):
        """Creates the weights. The constructor calls it, because it knows all shapes."""
        if self.built:
            return
        config = self.config
        image_shape = (None, None, None, config.image_shape[-1] + 1)  # one more channel, of ones
        hidden_shape = (None, None, None, config.nr_filters)
        num_features = conditions.num_features(config)
        h_shape = None if num_features is None else (None, num_features)
        for layer in (self.input_above, self.input_row_above, self.input_left):
            layer.build(image_shape)
        short_cut = config.nr_filters if config.shortcuts else 0
        a_channels = {
            "encoder_down": 0,
            "encoder_right": config.nr_filters,
            "decoder_down": short_cut,
            "decoder_right": config.nr_filters + short_cut,
        }
        for stream, channels in a_channels.items():
            a_shape = (*hidden_shape[:-1], channels) if channels else None
            for layer in getattr(self, stream):
                if isinstance(layer, GatedResidualBlock | AutoregressiveChannelBlock):
                    layer.build(hidden_shape, a_shape, h_shape)
                else:
                    layer.build(hidden_shape)
        self.output_layer.build(hidden_shape)
        if self.head is not None:
            self.head.build((*hidden_shape[:-1], self.output_layer.filters))
        self.built = True

    def conditionals(self, images, condition=None, training=False, seed=None, first_image=0):
        """As in `AutoregressiveModel`."""
        bits = None
        if training and self.has_dropout:
            bits = self._draw_dropout(images, condition, seed, first_image)
        blocks = GatedBlocks(layers.apply, self._apply_block, self._dropout, bits)
        return self._forward(blocks, images, condition)

    @inputs.takes_labels
    def initialize(self, images, condition=None, seed=0):
        """Data-dependent initialisation of all gains and biases, from one whole batch.

        The layers are initialised one after the other in the order of the forward pass. The inputs
        of a layer are the outputs of the initialised layers before it. Dropout is as in training
        (Salimans & Kingma 2016, section 3).

        Under a distribution strategy, call this in the strategy's scope and not inside `run`.
        Inside `run`, every replica would get different weights.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          condition: As in `call`.
          seed: Integer that determines the dropout.

        Raises:
          ValueError: If images or condition are not of the form that `call` asks for.
        """
        self.check_inputs(images, condition)
        seed = ops.convert_to_tensor([seed, 0], dtype=self._seed_generator.state.dtype)
        bits = self._draw_dropout(images, condition, seed) if self.has_dropout else None
        run_on_block = partial(run_block, layers.initialize, self._dropout)
        blocks = GatedBlocks(layers.initialize, run_on_block, self._dropout, bits)
        raw_params = self._forward(blocks, images, condition)
        if self.head is not None:
            noise = self.noise(ops.convert_to_tensor(images), seed)
            self.head.initialize(raw_params[:, None], 2 * noise - 1)

    @property
    def side_multiple(self):
        """The network works on sides that are multiples of this number: it halves some sides."""
        return 2**self.config.num_halvings

    @property
    def cached_step(self):
        """As in `AutoregressiveModel`."""
        return PixelCNNPPStep(self)

    def scale(self, levels):
        """Levels [..., C] as inputs of the first layers, [..., C + 1].

        A channel of ones tells the picture from the zeros around it.
        """
        x = super().scale(levels)
        return ops.pad(x, [*[(0, 0)] * (len(x.shape) - 1), (0, 1)], constant_values=1)

    def output(self, output_layer, right):
        """The raw parameters, from the output of the rightward stream."""
        # As in the original release, this is elu for any nonlinearity of the blocks.
        return output_layer(ops.cast(ops.elu(right), self.variable_dtype))

    def walk(self, step, x, level=0):
        """Passes `x` through the layers of one resolution and of all coarser ones.

        This method defines the order of the layers. `step` defines what passes through them: whole
        images, a row of the downward stream, or a pixel of the rightward stream.

        Args:
          step: Object with `encode(pair, x)`, `decode(pair, x, skip)` and
            `coarser(resolution, x, walk)`. Each returns the next x.
          x: Input of the first layer, in the form that `step` takes.
          level: Number of the resolution, 0 for the finest.

        Returns:
          The output of the last layer, in the same form.
        """
        resolution = self.resolutions()[level]
        skips = [x]
        for pair in resolution.encoder:
            x = step.encode(pair, x)
            skips.append(x)
        if resolution.halve is None:
            x = skips.pop()
        else:
            x = step.coarser(resolution, x, partial(self.walk, level=level + 1))
        for pair in resolution.decoder:
            skip = skips.pop()
            x = step.decode(pair, x, skip) if self.config.shortcuts else step.encode(pair, x)
        assert not (skips and resolution.decoder), "a short-cut leads nowhere"
        return x

    def embed(self, condition, blocks=None):
        """As in `AutoregressiveModel`. A picture is there at each resolution, the finest first."""
        vector, picture = super().embed(condition, blocks)
        if picture is None:
            return conditions.Condition(vector)
        picture = layers.pad_sides(picture, self.side_multiple)
        num_resolutions = self.config.num_halvings + 1
        return conditions.Condition(picture=conditions.at_resolutions(picture, num_resolutions))

    def _forward(self, blocks, images, condition):
        """One pass through the network. `blocks` is `gated_blocks.GatedBlocks`."""
        run = blocks.run
        height, width = ops.shape(images)[1:3]
        # Zeros, also in the channel of ones: what lies outside of the image looks like this.
        x = layers.pad_sides(self.scale(images), self.side_multiple)
        down = layers.down_shift(run(self.input_above, x))
        right = layers.down_shift(run(self.input_row_above, x)) + layers.right_shift(
            run(self.input_left, x)
        )
        vector, pictures = self.embed(condition, blocks)
        h = pictures or [vector] * (self.config.num_halvings + 1)
        _, right = self.walk(WholeImages(blocks, h), (down, right))
        right = layers.crop_sides(right, height, width)
        return self.output(partial(run, self.output_layer), right)

    def resolutions(self):
        """The layers of each resolution, a list of `Resolution` that begins with the finest."""
        encoder = list(zip(self.encoder_down, self.encoder_right, strict=True))
        decoder = list(zip(self.decoder_down, self.decoder_right, strict=True))
        n, finer = self.config.num_blocks, []
        for _ in range(self.config.num_halvings):
            # The finest resolution has the first layers of the first half and the last layers of
            # the second half.
            (*own, halve), encoder = encoder[: n + 1], encoder[n + 1 :]
            decoder, (double, *others) = decoder[: -n - 2], decoder[-n - 2 :]
            finer.append(Resolution(own, halve, double, others))
        return [*finer, Resolution(encoder, None, None, decoder)]

    def _draw_dropout(self, images, condition, seed, first_image=0):
        """The bits of the dropout for one pass of images [B, H, W, C], see `layers.Dropout`."""
        num_images, *sides, _ = ops.shape(images)
        height, width = (side + -side % self.side_multiple for side in sides)
        num_units = [
            num_dropped(block, height // 2**level, width // 2**level)
            for level, resolution in enumerate(self.resolutions())
            for pair in (*resolution.encoder, *resolution.decoder)
            for block in pair
        ]
        if self.embedding is not None:
            num_units += self.embedding.num_dropped(*ops.shape(condition)[1:3])
        num_bytes = sum(map(self._dropout.num_bytes, num_units))
        return self._dropout.draw(seed, num_images, num_bytes, first_image)


def _streams(part, pairs, policy):
    """Makes the layers of both streams, for one half of the network."""
    down = [make(name=f"{part}_down_{i}", **policy) for i, (make, _) in enumerate(pairs)]
    right = [make(name=f"{part}_right_{i}", **policy) for i, (_, make) in enumerate(pairs)]
    return down, right
