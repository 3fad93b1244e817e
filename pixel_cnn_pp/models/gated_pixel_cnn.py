"""Gated PixelCNN (van den Oord et al. 2016b): two stacks of features, and no blind spot."""

from typing import Any, NamedTuple

import keras
from keras import ops

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.layers import GatedStacks, MaskedConv2D, down_shift
from pixel_cnn_pp.models import conditions
from pixel_cnn_pp.models.base import AutoregressiveModel
from pixel_cnn_pp.models.blocks import BlockFunction
from pixel_cnn_pp.models.step import Step


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class GatedPixelCNN(AutoregressiveModel):
    """Gated PixelCNN of "Conditional Image Generation with PixelCNN Decoders".

    The paper is van den Oord et al. 2016b. Layers of its figure 2, see `layers.GatedStacks`; two
    layers of ReLU and a 1x1 convolution; ReLU and a 1x1 convolution to the logits of every
    sub-pixel. With two levels the output is a Bernoulli, otherwise a softmax over the levels. The
    paper does not say what comes after the last gated layer. The layers here are those of PixelCNN
    (van den Oord et al. 2016a, table 1).

    A condition adds a bias to both gates of each layer: a linear map of the class or of a real
    vector (equation 4), or of the same pixel of a picture (equation 5).

    Example:

    >>> import numpy as np
    >>> from pixel_cnn_pp import GatedPixelCNNConfig
    >>> model = GatedPixelCNN(GatedPixelCNNConfig((5, 6, 3), nr_resnet=2, nr_filters=6))
    >>> model.bits_per_dim(np.zeros([2, 5, 6, 3], np.uint8)).shape
    TensorShape([2])
    """

    title = "Gated PixelCNN"
    reads_channels = True

    def __init__(self, config, recompute=False, **kwargs):
        """Makes the network with fresh weights.

        Args:
          config: `config.GatedPixelCNNConfig`.
          recompute: Whether gradients compute the gated layers and the likelihood again, instead of
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
        self.stacks = [
            GatedStacks(
                config.nr_filters,
                config.filter_size,
                is_first=i == 0,
                name=f"stacks_{i}",
                **arguments,
            )
            for i in range(config.nr_resnet)
        ]
        self._apply_stacks = BlockFunction(lambda layer, v, h, c: layer(v, h, c), recompute)
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
        shape = (None, None, None, self.config.image_shape[-1])
        num_features = conditions.num_features(self.config)
        c_shape = None if num_features is None else (None, num_features)
        for layer in self.stacks:
            layer.build(shape, shape, c_shape)
            shape = (*shape[:-1], layer.filters)
        for layer in (*self.hidden, self.output_layer):
            layer.build(shape)
            shape = (*shape[:-1], layer.filters)
        self.built = True

    def conditionals(self, images, condition=None, training=False, seed=None, first_image=0):
        """As in `AutoregressiveModel`. The network has no dropout."""
        h = self.scale(images)
        v = down_shift(h)
        vector, picture = self.embed(condition)
        c = vector if picture is None else picture
        for layer in self.stacks:
            v, h = self._apply_stacks(layer, v, h, c)
        for layer in self.hidden:
            h = layer(ops.relu(h))
        return self.output_layer(ops.cast(ops.relu(h), self.variable_dtype))

    @property
    def cached_step(self):
        """As in `AutoregressiveModel`."""
        return _GatedPixelCNNStep(self)


class _Rows(NamedTuple):
    """The tensors of the rows above that the current row needs, with a filter of n x n.

    image: The n // 2 + 1 rows above of the scaled image, from top to bottom, each [W, B, C].
    vertical: For each layer but the last, the n // 2 rows above of its vertical stack, [W, B, p].
    """

    image: Any
    vertical: Any


class _Left(NamedTuple):
    """The tensors of the pixels on the left that the current pixel needs.

    inputs: For each layer the n // 2 pixels of its horizontal inputs on the left, from left to
      right, in one tensor [B, n // 2 F]. Those of the first layer are the image.
    """

    inputs: Any


class _Context(NamedTuple):
    """The image's rows above; the vertical stack of `_Rows` for the next row; what layers add.

    terms: For each layer what its horizontal gate takes from the rows above, [W, B, 2 p].
    """

    image: Any
    vertical: Any
    terms: Any


class _Pixel(NamedTuple):
    """A pixel. Some of its channels are known. All features are in the order of the groups.

    left: `_Left` of the pixels on its left.
    terms: What each horizontal gate takes from the rows above and the pixels on the left, [B, 2 p].
    inputs: For each layer but the first the known inputs of the horizontal stack, [B, F].
    gated: For each layer the known features behind its horizontal gate, [B, F].
    hidden: For each layer behind them its known inputs, [B, F].
    logits: The known raw parameters, [B, P].
    """

    left: Any
    terms: Any
    inputs: Any
    gated: Any
    hidden: Any
    logits: Any


class _GatedPixelCNNStep(Step):
    """The cached step of `GatedPixelCNN`.

    The vertical stack of a row needs the rows above only, so `begin_row` computes it for the whole
    row. Channel c then computes the features of group c of the horizontal stack.
    """

    def __init__(self, model):
        self._model = model
        self._reach = model.config.filter_size // 2
        self._output_layers = [*model.hidden, model.output_layer]

    def weights(self):
        """As in `Step`."""
        layers = [*self._model.stacks, *self._output_layers]
        return {layer.name: layer.step_weights() for layer in layers}

    def initial_state(self, batch_size, width, condition=None):
        """As in `Step`. Above the image are zeros."""
        config = self._model.config
        image = [self._zeros(width, batch_size, config.image_shape[-1])] * (self._reach + 1)
        vertical = [self._zeros(width, batch_size, config.nr_filters)] * self._reach
        return _Rows(image, [vertical for _ in self._model.stacks[1:]])

    def begin_row(self, weights, state, row, condition=None):
        """As in `Step`. The context is the vertical stack of the row, and what comes of it."""
        model = self._model
        c = None
        if condition is not None:
            vector, picture = condition
            c = vector if picture is None else conditions.row_of(picture, row)
        # The rows that a layer reads: the image is moved down, so the rows above are its own.
        rows, next_vertical, terms = state.image, [], []
        for layer, above in zip(model.stacks, [*state.vertical, None], strict=True):
            v, term = layer.row(weights[layer.name], rows, c)
            terms.append(term)
            if above is not None:
                rows = [*above, v]
                next_vertical.append(rows[1:])
        batch_size = ops.shape(state.image[0])[1]
        left = [
            self._zeros(batch_size, self._reach * num_features)
            for num_features in self._num_inputs()
        ]
        return _Context(state.image, next_vertical, terms), _Left(left)

    def step(self, weights, context, pixel, row, column, channel, earlier):
        """As in `Step`."""
        model = self._model
        if channel == 0:
            pixel = self._begin_pixel(weights, context, pixel, column)
        inputs, gated, hidden = [], [], []
        h = model.scale(ops.stack(earlier, axis=-1)) if channel > 0 else None
        for i, layer in enumerate(model.stacks):
            if i > 0:
                h = _joined(pixel.inputs, i - 1, h)
                inputs.append(h)
            known = pixel.gated[i] if channel > 0 else None
            h, y = layer.pixel(weights[layer.name], channel, pixel.terms[i], h, known)
            gated.append(y)
        for i, layer in enumerate(self._output_layers):
            h = ops.relu(h)
            if layer is model.output_layer:
                h = ops.cast(h, model.variable_dtype)
            hidden.append(_joined(pixel.hidden, i, h))
            own = weights[layer.name]
            h = layer.centre(own, channel, hidden[-1]) + layer.of_group(channel, own["bias"])
        logits = h if channel == 0 else ops.concatenate([pixel.logits, h], axis=-1)
        raw_params = ops.pad(logits, ((0, 0), (0, model.likelihood.num_params - logits.shape[-1])))
        return raw_params, _Pixel(pixel.left, pixel.terms, inputs, gated, hidden, logits)

    def end_pixel(self, pixel, levels):
        """As in `Step`."""
        left = [
            ops.concatenate([before[:, num_features:], own], axis=-1)
            for before, own, num_features in zip(
                pixel.left.inputs,
                [self._model.scale(levels), *pixel.inputs],
                self._num_inputs(),
                strict=True,
            )
        ]
        return _Left(left)

    def end_row(self, context, pixels, row):
        """As in `Step`."""
        num_channels = self._model.config.image_shape[-1]
        image = pixels.inputs[0][..., -num_channels:]
        return _Rows([*context.image[1:], image], context.vertical)

    def _begin_pixel(self, weights, context, left, column):
        terms = [
            term[column] + layer.horizontal.left(weights[layer.name]["horizontal"], x)
            for layer, term, x in zip(self._model.stacks, context.terms, left.inputs, strict=True)
        ]
        return _Pixel(left, terms, [], [], [], None)

    def _num_inputs(self):
        """The number of horizontal inputs of each layer."""
        config = self._model.config
        return [config.image_shape[-1], *[config.nr_filters] * (config.nr_resnet - 1)]

    def _zeros(self, *shape):
        return ops.zeros(shape, self._model.compute_dtype)


def _joined(known, i, new):
    """The known features of layer i, if there are any, and the new ones."""
    return ops.concatenate([known[i], new], axis=-1) if known else new
