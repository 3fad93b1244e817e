"""The network around the blocks of van den Oord et al. 2016a, and its cached step.

PixelCNN, the Row LSTM and the Diagonal BiLSTM differ in their blocks alone.
"""

import abc
from typing import Any, NamedTuple

import keras
from keras import ops

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.layers import MaskedConv2D
from pixel_cnn_pp.models import conditions
from pixel_cnn_pp.models.base import AutoregressiveModel
from pixel_cnn_pp.models.blocks import BlockFunction
from pixel_cnn_pp.models.step import Step


class MaskedNetwork(AutoregressiveModel):
    """Base class of the models of van den Oord et al. 2016a (table 1).

    A 7x7 convolution with mask A; blocks of 2h features; two layers of ReLU and a 1x1 convolution;
    ReLU and a 1x1 convolution to the logits of every sub-pixel. All masks but the first are B. With
    two levels the output is a Bernoulli, otherwise a softmax over the levels.

    Attributes:
      block_class: The class of the blocks, a subclass of `Block`. A subclass sets it.
    """

    reads_channels = True
    block_class = None

    def __init__(self, config, recompute=False, **kwargs):
        """Makes the network with fresh weights.

        Args:
          config: The configuration.
          recompute: Whether gradients compute the blocks and the likelihood again, instead of
            keeping their intermediate results in memory.
          **kwargs: As in `AutoregressiveModel`.
        """
        super().__init__(config, recompute, **kwargs)
        num_channels = config.image_shape[-1]
        if config.num_levels == 2:
            self.likelihood = likelihoods.Bernoulli(num_channels)
        else:
            self.likelihood = likelihoods.Softmax(num_channels, config.num_levels)

        arguments = {"num_channels": num_channels, "dtype": self.dtype_policy}
        width = 2 * config.nr_filters
        self.input_layer = MaskedConv2D(width, 7, "A", name="input", **arguments)
        self.blocks = [
            self.block_class(config.nr_filters, name=f"block_{i}", **arguments)
            for i in range(config.nr_resnet)
        ]
        self._apply_block = BlockFunction(lambda block, x, h: block(x, h), recompute)
        self.hidden = [
            MaskedConv2D(config.nr_output_filters, 1, "B", name=f"hidden_{i}", **arguments)
            for i in range(2)
        ]
        # The inputs of the likelihood must not be rounded to bfloat16.
        arguments["dtype"] = self.variable_dtype
        self.output_layer = MaskedConv2D(
            self.likelihood.num_params, 1, "B", is_output=True, name="output", **arguments
        )
        self.build((None, *config.image_shape))

    def build(self, input_shape):
        """Creates the weights. The constructor calls it, because it knows all shapes."""
        if self.built:
            return
        config = self.config
        shape = (None, None, None, config.image_shape[-1])
        self.input_layer.build(shape)
        shape = (*shape[:-1], 2 * config.nr_filters)
        num_features = conditions.num_features(config)
        h_shape = None if num_features is None else (None, num_features)
        for block in self.blocks:
            block.build(shape, h_shape)
        for layer in (*self.hidden, self.output_layer):
            layer.build(shape)
            shape = (*shape[:-1], layer.filters)
        self.built = True

    def conditionals(self, images, condition=None, training=False, seed=None, first_image=0):
        """As in `AutoregressiveModel`. The network has no dropout."""
        x = self.input_layer(self.scale(images))
        vector, picture = self.embed(condition)
        h = vector if picture is None else picture
        for block in self.blocks:
            x = self._apply_block(block, x, h)
        for layer in self.hidden:
            x = layer(ops.relu(x))
        return self.output_layer(ops.cast(ops.relu(x), self.variable_dtype))

    @property
    def cached_step(self):
        """As in `AutoregressiveModel`."""
        return _MaskedNetworkStep(self)


class Block(keras.layers.Layer):
    """Base class of the blocks: x [B, H, W, 2h] -> [B, H, W, 2h].

    `call` computes it for whole images. The other methods compute the same numbers pixel after
    pixel, in the order of `step.Step`. There, features are sorted by group, see `layers.masked`. A
    row is [W, B, F], and a pixel is [B, F].
    """

    def __init__(self, filters, num_channels, **kwargs):
        """Makes the block. A subclass makes its layers.

        Args:
          filters: h.
          num_channels: C, the number of groups.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.filters = filters
        self.num_channels = num_channels

    @abc.abstractmethod
    def call(self, x, h=None):
        """Applies the block.

        Args:
          x: Float tensor [B, H, W, 2h].
          h: Float tensor, the condition: [B, F_h], or [B, H, W, F_h] for a picture. Or None.

        Returns:
          Float tensor [B, H, W, 2h].
        """

    @abc.abstractmethod
    def step_weights(self):
        """The weights for the methods below, a nest of tensors."""

    @abc.abstractmethod
    def initial_state(self, width, batch_size):
        """The state for the first row, a nest of tensors [W, B, F] in the compute dtype."""

    @abc.abstractmethod
    def begin_row(self, weights, state, row, h):
        """Computes the contributions of the rows above.

        Args:
          weights: The result of `step_weights`.
          state: The result of `initial_state`, or of `end_row` for the row above.
          row: Integer tensor [], the number of the row.
          h: The condition, [B, F_h], or the row of a picture [W, B, F_h]. Or None.

        Returns:
          (context, left). `context` is a nest of tensors for the other methods. `left` is what the
          first pixel takes from its left, a nest like the result of `end_pixel`.
        """

    @abc.abstractmethod
    def begin_pixel(self, weights, context, left, column):
        """Adds the contributions of the pixels on the left.

        Args:
          weights, context: As above.
          left: The result of `end_pixel` for the pixel on the left, or `left` of `begin_row`.
          column: Integer tensor [].

        Returns:
          The pixel, none of whose channels is known: a nest of tensors, and of None.
        """

    @abc.abstractmethod
    def step(self, weights, pixel, channel, x):
        """Computes the outputs of one group.

        Args:
          weights: As above.
          pixel: The result of `begin_pixel`, or the pixel of this method for the group before.
          channel: The group, a Python integer.
          x: [B, F], the inputs of this group.

        Returns:
          (outputs of the group [B, F], pixel).
        """

    @abc.abstractmethod
    def end_pixel(self, pixel):
        """What later pixels need of a pixel, a nest of tensors [B, F]. All groups are known."""

    @abc.abstractmethod
    def end_row(self, context, pixels):
        """The state for the next row, from the results of `end_pixel` stacked to [W, B, F]."""

    def compute_output_shape(self, x_shape, h_shape=None):
        """The shape of x."""
        return x_shape

    def get_config(self):
        """The arguments that the block was made with."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_channels": self.num_channels,
        }

    def zeros(self, *shape):
        """Zeros in the compute dtype."""
        return ops.zeros(shape, self.compute_dtype)


def joined(known, new):
    """The known groups of some features, or None, and a new one: [B, F]."""
    return new if known is None else ops.concatenate([known, new], axis=-1)


def dense(layer, weights, channel, x):
    """The outputs of one group of a masked 1x1 convolution; `x` has all groups up to this one."""
    return layer.centre(weights, channel, x) + layer.of_group(channel, weights["bias"])


class _Rows(NamedTuple):
    """What the current row needs of the rows above.

    image: The three rows above of the scaled image, from top to bottom, each [W, B, C].
    blocks: The states of the blocks.
    """

    image: Any
    blocks: Any


class _Context(NamedTuple):
    """`_Rows.image`; what the first layer takes from it, [W, B, 2h]; the contexts of the blocks."""

    image: Any
    above: Any
    blocks: Any


class _Left(NamedTuple):
    """What the current pixel needs of the pixels on the left.

    image: The three pixels of the scaled image on the left, [B, 3 C].
    blocks: What the blocks need.
    """

    image: Any
    blocks: Any


class _Pixel(NamedTuple):
    """A pixel. Some of its channels are known.

    left: `_Left.image`.
    first: What the first layer takes from the rows above and the pixels on the left, [B, 2h].
    blocks: The pixels of the blocks.
    hidden: For each layer behind the blocks its known inputs [B, F], sorted by group, or None.
    logits: The known raw parameters [B, P], or None.
    """

    left: Any
    first: Any
    blocks: Any
    hidden: Any
    logits: Any


class _MaskedNetworkStep(Step):
    """The cached step: channel c computes the features of group c of every layer."""

    def __init__(self, model):
        self._model = model
        self._output_layers = [*model.hidden, model.output_layer]

    def weights(self):
        """As in `Step`."""
        model = self._model
        layers = [model.input_layer, *model.blocks, *self._output_layers]
        return {layer.name: layer.step_weights() for layer in layers}

    def initial_state(self, batch_size, width, condition=None):
        """As in `Step`."""
        model = self._model
        row = ops.zeros((width, batch_size, model.config.image_shape[-1]), model.compute_dtype)
        return _Rows([row] * 3, [block.initial_state(width, batch_size) for block in model.blocks])

    def begin_row(self, weights, state, row, condition=None):
        """As in `Step`."""
        model = self._model
        above = model.input_layer.row_above(weights[model.input_layer.name], state.image)
        h = None
        if condition is not None:
            vector, picture = condition
            h = vector if picture is None else conditions.row_of(picture, row)
        begun = [
            block.begin_row(weights[block.name], own, row, h)
            for block, own in zip(model.blocks, state.blocks, strict=True)
        ]
        batch_size, num_channels = ops.shape(above)[1], model.config.image_shape[-1]
        left = ops.zeros((batch_size, 3 * num_channels), model.compute_dtype)
        return (
            _Context(state.image, above, [context for context, _ in begun]),
            _Left(left, [left for _, left in begun]),
        )

    def step(self, weights, context, pixel, row, column, channel, earlier):
        """As in `Step`."""
        model = self._model
        own = weights[model.input_layer.name]
        if channel == 0:
            pixel = self._begin_pixel(weights, context, pixel, column)
        x = model.input_layer.of_group(channel, pixel.first)
        if channel > 0:
            image = model.scale(ops.stack(earlier, axis=-1))
            x = x + model.input_layer.centre(own, channel, image)
        blocks, hidden = [], []
        for block, known in zip(model.blocks, pixel.blocks, strict=True):
            x, known = block.step(weights[block.name], known, channel, x)
            blocks.append(known)
        for layer, known in zip(self._output_layers, pixel.hidden, strict=True):
            x = ops.relu(x)
            if layer is model.output_layer:
                x = ops.cast(x, model.variable_dtype)
            hidden.append(joined(known, x))
            x = dense(layer, weights[layer.name], channel, hidden[-1])
        logits = joined(pixel.logits, x)
        raw_params = ops.pad(logits, ((0, 0), (0, model.likelihood.num_params - logits.shape[-1])))
        return raw_params, pixel._replace(blocks=blocks, hidden=hidden, logits=logits)

    def end_pixel(self, pixel, levels):
        """As in `Step`."""
        num_channels = self._model.config.image_shape[-1]
        image = [pixel.left[:, num_channels:], self._model.scale(levels)]
        blocks = [
            block.end_pixel(own)
            for block, own in zip(self._model.blocks, pixel.blocks, strict=True)
        ]
        return _Left(ops.concatenate(image, axis=-1), blocks)

    def end_row(self, context, pixels, row):
        """As in `Step`."""
        num_channels = self._model.config.image_shape[-1]
        image = pixels.image[..., -num_channels:]
        blocks = [
            block.end_row(own, own_pixels)
            for block, own, own_pixels in zip(
                self._model.blocks, context.blocks, pixels.blocks, strict=True
            )
        ]
        return _Rows([*context.image[1:], image], blocks)

    def _begin_pixel(self, weights, context, left, column):
        layer = self._model.input_layer
        first = context.above[column] + layer.left(weights[layer.name], left.image)
        blocks = [
            block.begin_pixel(weights[block.name], own, own_left, column)
            for block, own, own_left in zip(
                self._model.blocks, context.blocks, left.blocks, strict=True
            )
        ]
        return _Pixel(left.image, first, blocks, [None] * len(self._output_layers), None)
