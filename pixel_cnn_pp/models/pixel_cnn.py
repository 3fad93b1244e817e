"""PixelCNN (van den Oord et al. 2016a): masked convolutions, a softmax for each sub-pixel."""

from typing import Any, NamedTuple

import keras
from keras import ops

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.layers import MaskedConv2D, fresh, project
from pixel_cnn_pp.models import conditions
from pixel_cnn_pp.models.base import AutoregressiveModel
from pixel_cnn_pp.models.blocks import BlockFunction
from pixel_cnn_pp.models.step import Step


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class PixelCNN(AutoregressiveModel):
    """PixelCNN of "Pixel Recurrent Neural Networks" (van den Oord et al. 2016, table 1).

    A 7x7 convolution with mask A; residual blocks (figure 5); two layers of ReLU and a 1x1
    convolution; ReLU and a 1x1 convolution to the logits of every sub-pixel. All masks but the
    first are B. With two levels the output is a Bernoulli, otherwise a softmax over the levels.

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
    reads_channels = True

    def __init__(self, config, recompute=False, **kwargs):
        """Makes the network with fresh weights.

        Args:
          config: `config.PixelCNNConfig`.
          recompute: Whether gradients compute the residual blocks and the likelihood again, instead
            of keeping their intermediate results in memory.
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
            ResidualBlock(config.nr_filters, name=f"block_{i}", **arguments)
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
        return _PixelCNNStep(self)


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class ResidualBlock(keras.layers.Layer):
    """x + up(relu(conv(relu(down(relu(x)))) + bias)), of 2h, h, h and 2h features.

    The bias is that of the condition, if there is one.
    """

    def __init__(self, filters, num_channels, **kwargs):
        """Makes the block.

        Args:
          filters: h.
          num_channels: C, the number of groups.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.filters = filters
        self.num_channels = num_channels
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
        """Applies the block.

        Args:
          x: Float tensor [B, H, W, 2h].
          h: Float tensor, the condition: [B, F_h], or [B, H, W, F_h] for a picture. Or None.

        Returns:
          Float tensor [B, H, W, 2h].
        """
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


class _Rows(NamedTuple):
    """The tensors of the rows above that the current row needs.

    image: The three rows above of the scaled image, from top to bottom, each [W, B, C].
    blocks: For each block the inputs of its 3x3 convolution in the row above, [W, B, h].
    """

    image: Any
    blocks: Any


class _Left(NamedTuple):
    """The tensors of the pixels on the left that the current pixel needs.

    image: The three pixels of the scaled image on the left, [B, 3 C].
    blocks: For each block the inputs of its 3x3 convolution in the pixel on the left, [B, h].
    """

    image: Any
    blocks: Any


class _Context(NamedTuple):
    """`_Rows`, and their contributions to each convolution of the row, a list of [W, B, F]."""

    rows: Any
    above: Any


class _Pixel(NamedTuple):
    """A pixel. Some of its channels are known.

    left: `_Left` of the pixels on its left.
    convs: Contributions of the rows above and the pixels on the left to each convolution, [B, F].
    read: For each layer its known inputs, [B, F], in the order of the groups.
    logits: The known raw parameters, [B, P].
    """

    left: Any
    convs: Any
    read: Any
    logits: Any


class _PixelCNNStep(Step):
    """The cached step of `PixelCNN`: channel c computes the features of group c of every layer."""

    def __init__(self, model):
        self._model = model
        self._convs = [model.input_layer, *(block.conv for block in model.blocks)]

    def weights(self):
        """As in `Step`."""
        model = self._model
        layers = [model.input_layer, *model.hidden, model.output_layer]
        weights = {layer.name: layer.step_weights() for layer in layers}
        for block in model.blocks:
            weights[block.name] = block.step_weights()
        return weights

    def initial_state(self, batch_size, width, condition=None):
        """As in `Step`."""
        num_channels, filters = self._model.config.image_shape[-1], self._model.config.nr_filters
        return _Rows(
            [self._zeros(width, batch_size, num_channels)] * 3,
            [self._zeros(width, batch_size, filters) for _ in self._model.blocks],
        )

    def begin_row(self, weights, state, row, condition=None):
        """As in `Step`."""
        model = self._model
        above = [model.input_layer.row_above(weights[model.input_layer.name], state.image)]
        h = None
        if condition is not None:
            vector, picture = condition
            h = vector if picture is None else conditions.row_of(picture, row)
        for block, row_above in zip(model.blocks, state.blocks, strict=True):
            own = weights[block.name]
            x = block.conv.row_above(own["conv"], [row_above])
            if h is not None:
                x = x + project(h, own["class_bias"])
            above.append(x)
        batch_size, num_channels = ops.shape(above[0])[1], model.config.image_shape[-1]
        left = _Left(
            self._zeros(batch_size, 3 * num_channels),
            [self._zeros(batch_size, model.config.nr_filters) for _ in model.blocks],
        )
        return _Context(state, above), left

    def step(self, weights, context, pixel, row, column, channel, earlier):
        """As in `Step`."""
        model = self._model
        if channel == 0:
            pixel = self._begin_pixel(weights, context, pixel, column)
        known = iter(pixel.read)  # the known inputs of each layer, in order; empty for channel 0
        read = []

        def run(layer, weights, x):
            """Computes the layer's outputs of one group. `x` has the inputs that are new."""
            read.append(x if channel == 0 else ops.concatenate([next(known), x], axis=-1))
            return layer.centre(weights, channel, read[-1])

        def dense(layer, weights, x):
            return run(layer, weights, x) + layer.of_group(channel, weights["bias"])

        x = model.input_layer.of_group(channel, pixel.convs[0])
        if channel > 0:
            image = model.scale(ops.stack(earlier, axis=-1))
            own = weights[model.input_layer.name]
            x = x + model.input_layer.centre(own, channel, image)
        for block, conv in zip(model.blocks, pixel.convs[1:], strict=True):
            own = weights[block.name]
            c = ops.relu(dense(block.down, own["down"], ops.relu(x)))
            c = block.conv.of_group(channel, conv) + run(block.conv, own["conv"], c)
            x = x + dense(block.up, own["up"], ops.relu(c))
        for layer in model.hidden:
            x = dense(layer, weights[layer.name], ops.relu(x))
        x = ops.cast(ops.relu(x), model.variable_dtype)
        logits = dense(model.output_layer, weights[model.output_layer.name], x)
        if channel > 0:
            logits = ops.concatenate([pixel.logits, logits], axis=-1)
        raw_params = ops.pad(logits, ((0, 0), (0, model.likelihood.num_params - logits.shape[-1])))
        return raw_params, pixel._replace(read=read, logits=logits)

    def end_pixel(self, pixel, levels):
        """As in `Step`."""
        num_channels = self._model.config.image_shape[-1]
        image = [pixel.left.image[:, num_channels:], self._model.scale(levels)]
        # A block has three layers: `down`, `conv` and `up`.
        conv_inputs = pixel.read[1 : 3 * len(self._model.blocks) : 3]
        return _Left(ops.concatenate(image, axis=-1), list(conv_inputs))

    def end_row(self, context, pixels, row):
        """As in `Step`."""
        num_channels = self._model.config.image_shape[-1]
        image = pixels.image[..., -num_channels:]
        return _Rows([*context.rows.image[1:], image], pixels.blocks)

    def _begin_pixel(self, weights, context, left, column):
        convs = []
        own = [weights[self._model.input_layer.name]]
        own += [weights[block.name]["conv"] for block in self._model.blocks]
        inputs = [left.image, *left.blocks]
        for layer, layer_weights, above, x in zip(
            self._convs, own, context.above, inputs, strict=True
        ):
            convs.append(above[column] + layer.left(layer_weights, x))
        return _Pixel(left, convs, [], None)

    def _zeros(self, *shape):
        return ops.zeros(shape, self._model.compute_dtype)
