"""Weight-normalised layers and their data-dependent initialisation."""

import keras
from keras import ops

from pixel_cnn_pp.layers.convolution import convolve, plus, prepared
from pixel_cnn_pp.layers.fresh import fresh

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")

# Standard deviation of fresh kernels v (Salimans & Kingma 2016, section 3).
KERNEL_STDDEV = 0.05
# Added to the variance in the data-dependent initialisation, as in the last release.
_VARIANCE_EPSILON = 1e-10
# Lower limit of the squared norm of v, as in the original release's convolutions.
_MIN_SQUARED_NORM = 1e-12


def project(x, kernel, bias=None):
    """Matrix product over the last axis: [..., F_in] times [F_in, F], plus [F], is [..., F]."""
    # The product has only two axes. For [B, 1, W, F] times a matrix on a CPU, TensorFlow 2.20 and
    # 2.21 write beyond their buffers (tensorflow issue 117700).
    positions = ops.reshape(x, (-1, x.shape[-1]))
    outputs = plus(ops.matmul(positions, kernel), bias)
    return ops.reshape(outputs, (*ops.shape(x)[:-1], kernel.shape[-1]))


class WeightNorm(keras.layers.Layer):
    """Base class of the layers with a weight-normalised kernel.

    out = linear(x, W) + b,  W = g v / ||v|| (Salimans & Kingma 2016, equation 2). The norm is over
    all axes of v except that of the output channels. Fresh weights: v ~ N(0, 0.05^2), g = 1, b = 0.

    Subclasses create their weights with `_add_weights` and define `linear`. A subclass that returns
    only a part of the result of `linear` overrides `crop`.
    """

    def __init__(self, filters, init_scale=1.0, **kwargs):
        """Makes the layer.

        Args:
          filters: Number of output channels.
          init_scale: Standard deviation of the outputs after `initialize`.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.filters = filters
        self.init_scale = init_scale

    def _add_weights(self, kernel_shape, output_axis):
        self._norm_axes = [axis for axis in range(len(kernel_shape)) if axis != output_axis]
        self._gain_shape = [1] * len(kernel_shape)
        self._gain_shape[output_axis] = self.filters
        # There is no automatic cast, because the kernel is normalised in the variables' precision.
        self.v = self.add_weight(
            shape=kernel_shape,
            initializer=fresh(keras.initializers.RandomNormal(stddev=KERNEL_STDDEV)),
            autocast=False,
            name="v",
        )
        self.g = self.add_weight(
            shape=(self.filters,), initializer="ones", autocast=False, name="g"
        )
        self.b = self.add_weight(
            shape=(self.filters,), initializer="zeros", autocast=False, name="b"
        )

    def kernel(self):
        """The effective kernel W = g v / ||v||, in the layer's compute dtype."""
        v = ops.convert_to_tensor(self.v)
        squared_norm = ops.sum(ops.square(v), axis=self._norm_axes, keepdims=True)
        gain = ops.reshape(self.g, self._gain_shape)
        kernel = v * (gain * ops.rsqrt(ops.maximum(squared_norm, _MIN_SQUARED_NORM)))
        return ops.cast(kernel, self.compute_dtype)

    def linear(self, inputs, kernel, before=None, bias=None):
        """The linear map of the layer, applied to before(inputs), and the bias if it is given."""
        raise NotImplementedError

    def crop(self, outputs):
        """The part of the outputs that the layer returns."""
        return outputs

    def call(self, inputs, before=None):
        """Applies the layer.

        Args:
          inputs: Float tensor [..., F_in].
          before: What is applied to the inputs first, as in `layers.convolution.convolve`.

        Returns:
          Float tensor [..., filters].
        """
        bias = ops.cast(self.b, self.compute_dtype)
        return self.crop(self.linear(inputs, self.kernel(), before, bias))

    def initialize(self, inputs, before=None):
        """Sets g and b so that the outputs have mean 0 and deviation `init_scale` per channel.

        With t the outputs for the current g and b, before any crop, and moments over batch and
        space: s = init_scale / sqrt(var[t] + 1e-10); g <- g s; b <- (b - mean[t]) s.

        Args:
          inputs: Float tensor, one whole batch.
          before: As in `call`.

        Returns:
          The outputs of the initialised layer.
        """
        inputs = ops.cast(inputs, self.compute_dtype)
        outputs = self.linear(inputs, self.kernel(), before)
        outputs = ops.cast(outputs, self.b.dtype) + self.b
        mean, variance = ops.moments(outputs, axes=list(range(len(outputs.shape) - 1)))
        scale = self.init_scale / ops.sqrt(variance + _VARIANCE_EPSILON)
        self.g.assign(self.g * scale)
        self.b.assign((self.b - mean) * scale)
        return self(inputs, before=before)

    def step_weights(self):
        """The weights for the cached step, {name: tensor}. They are made once for all pixels."""
        return {"kernel": self.kernel(), "bias": ops.cast(self.b, self.compute_dtype)}

    def get_config(self):
        """The arguments that the layer was made with."""
        return {**super().get_config(), "filters": self.filters, "init_scale": self.init_scale}


@_SERIALIZE
class WeightNormDense(WeightNorm):
    """Weight-normalised dense layer on the last axis; on images, a 1x1 convolution ("nin")."""

    def build(self, input_shape):
        """Creates v [F_in, filters], g and b [filters]."""
        self._add_weights((input_shape[-1], self.filters), output_axis=1)

    def linear(self, inputs, kernel, before=None, bias=None):
        """Matrix product over the last axis."""
        return project(prepared(inputs, before), kernel, bias)

    def step(self, weights, x):
        """Applies the layer to a row [W, B, F_in] or a pixel [B, F_in], with `step_weights`."""
        return self.linear(x, weights["kernel"]) + weights["bias"]

    def compute_output_shape(self, input_shape):
        """[..., F_in] -> [..., filters]."""
        return (*input_shape[:-1], self.filters)


class _WeightNormConv(WeightNorm):
    """Base class of convolutions and transposed convolutions: filter size, strides, padding."""

    def __init__(self, filters, kernel_size=(3, 3), strides=1, padding="same", **kwargs):
        """Makes the layer.

        Args:
          filters: Number of output channels.
          kernel_size: (height, width) of the filter.
          strides: 1, or 2 to halve (transposed: to double) height and width.
          padding: "same" or "valid".
          **kwargs: `init_scale`, and arguments of `keras.layers.Layer`.
        """
        super().__init__(filters, **kwargs)
        self.kernel_size = tuple(kernel_size)
        self.strides = strides
        self.padding = padding

    def get_config(self):
        """The arguments that the layer was made with."""
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }


@_SERIALIZE
class WeightNormConv2D(_WeightNormConv):
    """Weight-normalised convolution."""

    def build(self, input_shape):
        """Creates v [kh, kw, F_in, filters], g and b [filters]."""
        self._add_weights((*self.kernel_size, input_shape[-1], self.filters), output_axis=3)

    def linear(self, inputs, kernel, before=None, bias=None):
        """The convolution."""
        if self.padding == "same" and self.strides == 1:
            pads = [((size - 1) // 2, size // 2) for size in self.kernel_size]
            return convolve(inputs, kernel, pads, before=before, bias=bias)
        outputs = ops.conv(
            prepared(inputs, before),
            kernel,
            self.strides,
            padding=self.padding,
            data_format="channels_last",
        )
        return plus(outputs, bias)


@_SERIALIZE
class WeightNormConv2DTranspose(_WeightNormConv):
    """Weight-normalised transposed convolution.

    The outputs have strides * size rows and columns with "same", and strides * size + filter - 1
    with "valid". With "valid", the last strides - 1 rows and columns are only the bias. This is as
    in the original release.
    """

    def build(self, input_shape):
        """Creates v [kh, kw, filters, F_in], g and b [filters]."""
        self._add_weights((*self.kernel_size, self.filters, input_shape[-1]), output_axis=2)

    def linear(self, inputs, kernel, before=None, bias=None):
        """The transposed convolution."""
        outputs = ops.conv_transpose(
            prepared(inputs, before),
            kernel,
            self.strides,
            padding=self.padding,
            output_padding=self.strides - 1 if self.padding == "valid" else None,
            data_format="channels_last",
        )
        return plus(outputs, bias)


def apply(layer, *args, **kwargs):
    """Applies a layer. A network takes this function or `initialize` as its argument `run`."""
    return layer(*args, **kwargs)


def initialize(layer, *args, **kwargs):
    """Initialises a layer from its inputs, and applies it."""
    return layer.initialize(*args, **kwargs)
