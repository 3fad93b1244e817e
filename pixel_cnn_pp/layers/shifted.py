"""Convolutions that see no later pixels. Their filters end at, or above, the current position."""

import keras
from keras import ops

from pixel_cnn_pp.layers.convolution import convolve, prepared, window
from pixel_cnn_pp.layers.weight_norm import WeightNormConv2D, WeightNormConv2DTranspose

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")


def down_shift(x):
    """Moves every row down by one. Row 0 becomes zeros: [B, H, W, F] -> [B, H, W, F]."""
    height, width = ops.shape(x)[1:3]
    x = window(x, (0, 0), (height - 1, width))
    return ops.pad(x, [[0, 0], [1, 0], [0, 0], [0, 0]])


def right_shift(x):
    """Moves every column right by one. Column 0 becomes zeros: [B, H, W, F] -> [B, H, W, F]."""
    height, width = ops.shape(x)[1:3]
    x = window(x, (0, 0), (height, width - 1))
    return ops.pad(x, [[0, 0], [0, 0], [1, 0], [0, 0]])


def pad_sides(x, multiple):
    """Zeros on the right and below, up to multiples of a number: [B, H, W, F] -> [B, H', W', F]."""
    for axis in (1, 2):
        shape = list(ops.shape(x))
        shape[axis] = -shape[axis] % multiple
        # The size may be unknown when a graph is made. Otherwise there may be nothing to add.
        if not isinstance(shape[axis], int) or shape[axis] > 0:
            x = ops.concatenate([x, ops.zeros(shape, x.dtype)], axis=axis)
    return x


def crop_sides(x, height, width):
    """The inverse of `pad_sides`: [B, H', W', F] -> [B, height, width, F]."""
    return x if tuple(x.shape[1:3]) == (height, width) else window(x, (0, 0), (height, width))


def _convolve_row(x, kernel, pads, strides):
    """Convolves a row [W, B, F_in] with a kernel [kw, 1, F_in, F], with zeros around the row."""
    # In this order XLA makes the zeros a part of the convolution, and does not copy the row.
    x = ops.pad(ops.expand_dims(x, axis=0), ((0, 0), pads, (0, 0), (0, 0)))
    x = ops.conv(x, kernel, (strides, 1), padding="valid", data_format="channels_last")
    # Not x[0], which has four operations in the graph, as x[None] above would have.
    return ops.squeeze(x, axis=0)


class _ShiftedConv2D(WeightNormConv2D):
    """A convolution that pads its inputs so that its filter ends at the current position."""

    def __init__(self, filters, kernel_size, strides=1, **kwargs):
        kwargs.pop("padding", None)  # `get_config` of the base class has it
        super().__init__(filters, kernel_size, strides, padding="valid", **kwargs)

    def _pads(self):
        """Numbers of zeros (top, bottom), (left, right)."""
        raise NotImplementedError

    def linear(self, inputs, kernel, before=None, bias=None):
        """Convolves the padded inputs."""
        return convolve(inputs, kernel, self._pads(), self.strides, before, bias)

    def compute_output_shape(self, input_shape):
        """[B, H, W, F_in] -> [B, H / strides, W / strides, filters], rounded up."""
        height, width = (size and -(-size // self.strides) for size in input_shape[1:3])
        return (input_shape[0], height, width, self.filters)


@_SERIALIZE
class DownShiftedConv2D(_ShiftedConv2D):
    """A convolution that sees its own row and the rows above, on the left and on the right.

    A filter of even width sees one column more to the right than to the left.
    """

    def __init__(self, filters, kernel_size=(2, 3), strides=1, **kwargs):
        """Makes the layer, with the arguments of `WeightNormConv2D` except padding."""
        super().__init__(filters, kernel_size, strides, **kwargs)

    def _pads(self):
        height, width = self.kernel_size
        return (height - 1, 0), ((width - 1) // 2, width // 2)

    def step_weights(self):
        """The weights for `row`. The rows of the filter are joined, the current row first."""
        weights = super().step_weights()
        rows = ops.unstack(weights["kernel"], axis=0)[::-1]  # [kw, F_in, filters] each
        kernel = ops.concatenate(rows, axis=1)
        kernel = ops.reshape(kernel, (self.kernel_size[1], 1, -1, self.filters))
        return {**weights, "kernel": kernel}

    def row(self, weights, *rows):
        """One row of the outputs.

        Args:
          weights: The result of `step_weights`.
          *rows: The rows of the inputs under the filter, each [W, B, F_in]. The current row comes
            first, then the rows above it from bottom to top. They are zeros above the image.

        Returns:
          [W / strides, B, filters].
        """
        x = ops.concatenate(rows, axis=-1) if len(rows) > 1 else rows[0]
        x = _convolve_row(x, weights["kernel"], self._pads()[1], self.strides)
        return x + weights["bias"]


@_SERIALIZE
class DownRightShiftedConv2D(_ShiftedConv2D):
    """A convolution that sees nothing below and nothing to the right of its position."""

    def __init__(self, filters, kernel_size=(2, 2), strides=1, **kwargs):
        """Makes the layer, with the arguments of `WeightNormConv2D` except padding."""
        super().__init__(filters, kernel_size, strides, **kwargs)

    def _pads(self):
        height, width = self.kernel_size
        return (height - 1, 0), (width - 1, 0)

    def step_weights(self):
        """The weights for `row_above` and `pixel`: the two rows of the filter, separately."""
        assert self.kernel_size[0] <= 2, "the cached step knows of one row above"
        weights = super().step_weights()
        *above, kernel = ops.unstack(weights["kernel"], axis=0)  # [kw, F_in, filters] each
        # On a CPU, XLA multiplies with columns beyond a multiple of 8 one by one. Zeros are faster.
        kernel = ops.pad(kernel, ((0, 0), (0, 0), (0, -self.filters % 8)))
        weights["kernel"] = ops.reshape(kernel, (-1, kernel.shape[-1]))  # [kw F_in, >= filters]
        if above:
            weights["kernel_above"] = ops.expand_dims(above[0], axis=1)
        return weights

    def row_above(self, weights, x_above):
        """Contribution of the row above to a row of the outputs, including the bias.

        Args:
          weights: The result of `step_weights`.
          x_above: The row of the inputs above, [W, B, F_in]. It is zeros above the image.

        Returns:
          [W / strides, B, filters].
        """
        x = _convolve_row(x_above, weights["kernel_above"], self._pads()[1], self.strides)
        return x + weights["bias"]

    def pixel(self, weights, above, *pixels):
        """One pixel of the outputs.

        Args:
          weights: The result of `step_weights`.
          above: This pixel of the result of `row_above`, [B, filters]. None if it is added later.
          *pixels: The pixels of the inputs under the filter in the current row, from left to
            right, each [B, F_in]. They are zeros outside the image.

        Returns:
          [B, filters].
        """
        x = ops.concatenate(pixels, axis=-1) if len(pixels) > 1 else pixels[0]
        x = ops.matmul(x, weights["kernel"])
        # A slice of everything would still be four operations in the graph.
        x = x if x.shape[-1] == self.filters else x[..., : self.filters]
        return x if above is None else above + x


class _ShiftedConv2DTranspose(WeightNormConv2DTranspose):
    """A transposed convolution. Its outputs are cropped to the part that sees no later pixels."""

    def __init__(self, filters, kernel_size, strides=2, **kwargs):
        kwargs.pop("padding", None)  # `get_config` of the base class has it
        super().__init__(filters, kernel_size, strides, padding="valid", **kwargs)

    def _first_column(self):
        raise NotImplementedError

    def call(self, inputs, before=None):
        """Applies the layer: [B, H, W, F_in] -> [B, sH, sW, filters].

        This makes only the rows and columns of `linear` that are kept, and therefore XLA knows a
        fast gradient of the kernel. `linear` makes all, for the moments of `initialize`.
        """
        outputs = ops.conv_transpose(
            prepared(inputs, before),
            self.kernel(),
            self.strides,
            padding="valid",
            data_format="channels_last",
        )
        height, width = (self.strides * size for size in ops.shape(inputs)[1:3])
        first = self._first_column()
        outputs = window(outputs, (0, first), (height, width))
        return outputs + ops.cast(self.b, self.compute_dtype)

    def crop(self, outputs):
        """[B, sH + kh - 1, sW + kw - 1, F] -> [B, sH, sW, F]."""
        height, width = ops.shape(outputs)[1:3]
        size = height - self.kernel_size[0] + 1, width - self.kernel_size[1] + 1
        return window(outputs, (0, self._first_column()), size)

    def compute_output_shape(self, input_shape):
        """[B, H, W, F_in] -> [B, strides * H, strides * W, filters]."""
        height, width = (size and size * self.strides for size in input_shape[1:3])
        return (input_shape[0], height, width, self.filters)


@_SERIALIZE
class DownShiftedConv2DTranspose(_ShiftedConv2DTranspose):
    """The transposed convolution of the downward stream."""

    def __init__(self, filters, kernel_size=(2, 3), strides=2, **kwargs):
        """Makes the layer, with the arguments of `WeightNormConv2DTranspose` except padding."""
        super().__init__(filters, kernel_size, strides, **kwargs)

    def _first_column(self):
        return (self.kernel_size[1] - 1) // 2

    def row(self, weights, x, offset):
        """One row of the outputs.

        Args:
          weights: The result of `step_weights`.
          x: The row of the inputs that gives this row, [W, B, F_in].
          offset: A row of the inputs gives `strides` rows of the outputs. This is the number of the
            row among them, in [0, strides - 1], an integer or a tensor.

        Returns:
          [strides * W, B, filters].
        """
        assert self.kernel_size[0] == self.strides, "a row comes from one row of the inputs"
        kernel = ops.take(weights["kernel"], offset, axis=0)  # [kw, filters, F_in]
        outputs = ops.conv_transpose(
            x[None],
            ops.expand_dims(kernel, axis=1),
            (self.strides, 1),
            padding="valid",
            output_padding=(self.strides - 1, 0),
            data_format="channels_last",
        )[0]
        left = self._first_column()
        return outputs[left : left + self.strides * x.shape[0]] + weights["bias"]


@_SERIALIZE
class DownRightShiftedConv2DTranspose(_ShiftedConv2DTranspose):
    """The transposed convolution of the rightward stream."""

    def __init__(self, filters, kernel_size=(2, 2), strides=2, **kwargs):
        """Makes the layer, with the arguments of `WeightNormConv2DTranspose` except padding."""
        super().__init__(filters, kernel_size, strides, **kwargs)

    def _first_column(self):
        return 0

    def step_weights(self):
        """The weights for `row` and `pixel`: for each row of the filter, one matrix."""
        assert self.kernel_size == (self.strides, self.strides), "filters do not overlap"
        kernel = ops.transpose(self.kernel(), (0, 3, 1, 2))  # [kh, F_in, kw, filters]
        kernel = ops.reshape(kernel, (self.strides, -1, self.strides * self.filters))
        bias = ops.tile(ops.cast(self.b, self.compute_dtype), self.strides)
        return {"kernel": kernel, "bias": bias}

    def row(self, weights, x):
        """The last of the rows of the outputs that one row of the inputs gives.

        Args:
          weights: The result of `step_weights`.
          x: [W, B, F_in].

        Returns:
          [strides * W, B, filters].
        """
        width, batch_size, features = x.shape[0], ops.shape(x)[1], x.shape[2]
        outputs = ops.matmul(ops.reshape(x, (-1, features)), weights["kernel"][-1])
        outputs = ops.reshape(
            outputs + weights["bias"], (width, batch_size, self.strides, self.filters)
        )
        outputs = ops.transpose(outputs, (0, 2, 1, 3))
        return ops.reshape(outputs, (self.strides * width, batch_size, self.filters))

    def pixel(self, weights, x):
        """The pixels of the outputs that one pixel of the inputs gives in the first of its rows.

        Args:
          weights: The result of `step_weights`.
          x: [B, F_in].

        Returns:
          List of `strides` tensors [B, filters].
        """
        outputs = ops.matmul(x, weights["kernel"][0]) + weights["bias"]
        return ops.split(outputs, self.strides, axis=-1)
