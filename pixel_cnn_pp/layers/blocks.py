"""The gated residual block. Most layers of PixelCNN++ are in such blocks."""

import keras
from keras import ops

from pixel_cnn_pp.layers import one_pass
from pixel_cnn_pp.layers.fresh import fresh
from pixel_cnn_pp.layers.gradients import custom_gradient
from pixel_cnn_pp.layers.weight_norm import (
    KERNEL_STDDEV,
    WeightNormDense,
    apply,
    initialize,
    project,
)
from pixel_cnn_pp.layers.xla import is_for_xla

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")


def concat_elu(x):
    """elu of [x, -x], on the channel axis: [..., F] -> [..., 2 F] (Salimans et al. 2017)."""
    if keras.backend.backend() == "jax":
        return _concat_elu_on_jax(x)
    if is_for_xla():
        # One exponential in place of two. Outside XLA, so many operations would take longer.
        negative = ops.expm1(-ops.abs(x))
        both = ops.where(x > 0, x, negative), ops.where(x < 0, -x, negative)
        return ops.concatenate(both, axis=-1)
    if one_pass.pays(x):
        return one_pass.concat_elu(x)
    return ops.elu(ops.concatenate([x, -x], axis=-1))


def _concat_elu_on_jax(x):
    """Does the same as `concat_elu`, in a form from which XLA makes fast code for a GPU.

    A product with 1 and -1 instead of a concatenation lets XLA read several numbers at a time. The
    gradient has one exponential instead of two.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)

    @custom_gradient
    def compute(x):
        signed = x[..., None, :] * ops.convert_to_tensor([[1], [-1]], dtype)
        signed = ops.reshape(signed, (*ops.shape(x)[:-1], 2 * x.shape[-1]))
        if dtype == "bfloat16":
            # expm1 takes four times as many instructions, and bfloat16 would not show its digits.
            wide = ops.cast(signed, "float32")
            outputs = ops.cast(ops.where(wide > 0, wide, ops.exp(wide) - 1), dtype)
        else:
            outputs = ops.elu(signed)

        def gradient(upstream):
            slope = ops.exp(-ops.abs(x))
            of_x, of_minus_x = ops.split(upstream, 2, axis=-1)
            return ops.where(x > 0, of_x - of_minus_x * slope, of_x * slope - of_minus_x)

        return outputs, gradient

    return compute(x)


NONLINEARITIES = {"concat_elu": concat_elu, "elu": ops.elu, "relu": ops.relu}


@_SERIALIZE
class GatedResidualBlock(keras.layers.Layer):
    """The gated residual block (Salimans et al. 2017, section 2.4; the release's `gated_resnet`).

    With f the nonlinearity:

        c = drop(f(conv_in(f(x)) + skip(f(a))))
        value, gate = split(conv_out(c) + h @ hw)
        out = x + value * sigmoid(gate)

    The term with the short-cut input `a` exists only if the block was built with `a`. The same
    holds for the term with the conditioning `h`.
    """

    def __init__(
        self, convolution, nonlinearity="concat_elu", kernel_size=None, row_channels=None, **kwargs
    ):
        """Makes the block.

        Args:
          convolution: Class of the convolutions, such as `DownShiftedConv2D`.
          nonlinearity: "concat_elu", "elu" or "relu".
          kernel_size: (height, width) of the filters. None for the default of the class.
          row_channels: Number of channels of the short-cut input that the cached step knows for a
            whole row at once. These are its first channels. None for as many as x has.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.convolution = convolution
        self.nonlinearity = nonlinearity
        self.kernel_size = kernel_size
        self.row_channels = row_channels

    def build(self, x_shape, a_shape=None, h_shape=None):
        """Creates the weights for x [B, H, W, F], a [B, H, W, F_a] and h [..., F_h]."""
        filters = x_shape[-1]
        widening = 2 if self.nonlinearity == "concat_elu" else 1
        inner_shape = (*x_shape[:-1], widening * filters)
        arguments = {"dtype": self.dtype_policy}
        if self.kernel_size is not None:
            arguments["kernel_size"] = self.kernel_size
        self.conv_in = self.convolution(filters, name="conv_in", **arguments)
        self.conv_in.build(inner_shape)
        self.skip = None
        if a_shape is not None:
            self.skip = WeightNormDense(filters, dtype=self.dtype_policy, name="skip")
            self.skip.build((*a_shape[:-1], widening * a_shape[-1]))
        self.conv_out = self.convolution(2 * filters, init_scale=0.1, name="conv_out", **arguments)
        self.conv_out.build(inner_shape)
        self.hw = None
        if h_shape is not None:
            self.hw = self.add_weight(
                shape=(h_shape[-1], 2 * filters),
                initializer=fresh(keras.initializers.RandomNormal(stddev=KERNEL_STDDEV)),
                name="hw",
            )

    def call(self, x, a=None, h=None, dropout=None):
        """Applies the block.

        Args:
          x: Float tensor [B, H, W, F].
          a: Float tensor [B, H, W, F_a], the short-cut input, or None.
          h: Float tensor, the conditioning: [B, F_h], or [B, H, W, F_h] for a picture. Or None.
          dropout: Function that makes the `layers.Drop` of the inputs of the second convolution, or
            None. Its arguments are a tensor from which they are computed, and their shape.

        Returns:
          Float tensor [B, H, W, F].
        """
        return self._forward(apply, x, a, self._condition(h), dropout)

    def initialize(self, x, a=None, h=None, dropout=None):
        """Initialises the inner layers in the order of the forward pass. Otherwise as `call`."""
        return self._forward(initialize, x, a, self._condition(h), dropout)

    def num_dropped(self):
        """Number of features per position to which dropout is applied."""
        return self.conv_out.v.shape[2]

    def state_sizes(self):
        """{name: features per position} of the inputs that the cached step keeps for later."""
        if self.conv_in.kernel_size == (1, 1):
            return {}
        return {layer.name: layer.v.shape[2] for layer in (self.conv_in, self.conv_out)}

    def above_sizes(self):
        """{name: features per position} of the result of `row_above`."""
        filters = self.conv_in.filters
        return {"conv_in": filters, "conv_out": (filters, filters)}

    def step_weights(self):
        """{name of an inner layer: its weights}, see `WeightNorm.step_weights`.

        A short-cut input has two parts, [d, r]. The part d is known for a whole row at once, and
        the part r only pixel by pixel. Therefore the kernel of `skip` is also divided into two.
        """
        weights = {layer.name: layer.step_weights() for layer in (self.conv_in, self.conv_out)}
        if self.skip is not None:
            skip = self.skip.step_weights()
            filters = self.skip.filters
            row_channels = filters if self.row_channels is None else self.row_channels
            widening = self.conv_in.v.shape[2] // filters
            parts = ops.reshape(skip["kernel"], (widening, -1, filters))
            skip["kernel"] = ops.reshape(parts[:, :row_channels], (-1, filters))
            weights["skip"] = skip
            if parts.shape[1] > row_channels:
                weights["skip_pixel"] = ops.reshape(parts[:, row_channels:], (-1, filters))
        if self.hw is not None:
            weights["hw"] = ops.cast(self.hw, self.compute_dtype)
        return weights

    def row(self, weights, x, above, a=None, h=None):
        """One row of `call` in the downward stream.

        Args:
          weights: The result of `step_weights`.
          x: [W, B, F].
          above: {name: [W, B, F']}, returned by this method for the row above. Zeros for row 0.
          a: [W, B, F_a], the short-cut input, or None.
          h: [B, F_h], the conditioning, or [W, B, F_h] for the row of a picture. Or None.

        Returns:
          Outputs [W, B, F], and the argument `above` for the next row.
        """
        inputs = {}

        def run(layer, x):
            if layer is self.skip:
                return layer.step(weights["skip"], x)
            if layer.name not in above:
                return layer.row(weights[layer.name], x)
            inputs[layer.name] = x
            return layer.row(weights[layer.name], x, above[layer.name])

        h = None if h is None else project(h, weights["hw"])
        return self._forward(run, x, a, h, None), inputs

    def row_above(self, weights, above, a, h=None):
        """Contribution of the row above, the downward stream and the conditioning to a row.

        Args:
          weights: The result of `step_weights`.
          above: {name: [W, B, F']}, returned by `pixel` for the row above. Zeros for row 0.
          a: [W, B, F], the short-cut from the downward stream.
          h: As in `row`.

        Returns:
          {"conv_in": [W, B, F], "conv_out": (value [W, B, F], gate [W, B, F])}. One pixel of it is
          the argument `above` of `pixel`.
        """
        terms = {}
        for layer in (self.conv_in, self.conv_out):
            if layer.kernel_size[0] > 1:
                term = layer.row_above(weights[layer.name], above[layer.name])
            else:
                shape = (*ops.shape(a)[:-1], layer.filters)
                term = ops.broadcast_to(weights[layer.name]["bias"], shape)
            terms[layer.name] = term
        terms["conv_in"] += self.skip.step(weights["skip"], NONLINEARITIES[self.nonlinearity](a))
        if h is not None:
            terms["conv_out"] += project(h, weights["hw"])
        terms["conv_out"] = tuple(ops.split(terms["conv_out"], 2, axis=-1))
        return terms

    def pixel(self, weights, x, left, above, a=None):
        """One pixel of `call` in the rightward stream.

        Args:
          weights: The result of `step_weights`.
          x: [B, F].
          left: {name: [B, F']}, returned by this method for the pixel on the left. Zeros at the
            left edge.
          above: This pixel of the result of `row_above`, each [B, F].
          a: [B, F], the short-cut from the rightward stream, or None.

        Returns:
          Outputs [B, F], and the argument `left` for the next pixel.
        """
        inputs = {}

        def run(layer, x):
            if layer is self.skip:
                return ops.matmul(x, weights["skip_pixel"])
            term = above["conv_in"] if layer is self.conv_in else None
            if layer.name not in left:
                return layer.pixel(weights[layer.name], term, x)
            inputs[layer.name] = x
            return layer.pixel(weights[layer.name], term, left[layer.name], x)

        return self._forward(run, x, a, above["conv_out"], None), inputs

    def _condition(self, h):
        """The term that the conditioning adds, [B, 1, 1, 2 F], or [B, H, W, 2 F] for a picture."""
        if h is None:
            return None
        term = project(ops.cast(h, self.compute_dtype), ops.cast(self.hw, self.compute_dtype))
        return term if len(term.shape) == 4 else term[:, None, None, :]

    def _forward(self, run, x, a, h, dropout):
        """The equations of the class. `run` applies an inner layer.

        `h` is already h @ hw. It may be divided into the terms of value and gate.
        """
        c = self._run_on_nonlinear(run, self.conv_in, x)
        if a is not None:
            c = c + self._run_on_nonlinear(run, self.skip, a)
        c = self._run_on_nonlinear(run, self.conv_out, c, dropout)
        is_divided = isinstance(h, tuple)
        if h is not None and not is_divided:
            c = c + h
        if one_pass.pays(x):
            return one_pass.add_gated(x, c)
        value, gate = ops.split(c, 2, axis=-1)
        if is_divided:
            value, gate = value + h[0], gate + h[1]
        return x + value * ops.sigmoid(gate)

    def _run_on_nonlinear(self, run, layer, x, dropout=None):
        """run(layer, drop(f(x))), with f the nonlinearity."""
        drop = None
        if dropout is not None:
            drop = dropout(x, (*ops.shape(x)[:-1], self.num_dropped()))
        if self.nonlinearity == "concat_elu" and one_pass.pays(x):
            return run(layer, x, before=one_pass.ConcatElu(drop))
        x = NONLINEARITIES[self.nonlinearity](x)
        return run(layer, x) if drop is None else run(layer, x, before=drop)

    def compute_output_shape(self, x_shape, a_shape=None, h_shape=None):
        """The shape of x."""
        return x_shape

    def get_config(self):
        """The arguments that the block was made with."""
        return {
            **super().get_config(),
            "convolution": keras.saving.get_registered_name(self.convolution),
            "nonlinearity": self.nonlinearity,
            "kernel_size": self.kernel_size,
            "row_channels": self.row_channels,
        }

    @classmethod
    def from_config(cls, config):
        """The block with these arguments."""
        convolution = keras.saving.get_registered_object(config["convolution"])
        return cls(**{**config, "convolution": convolution})
