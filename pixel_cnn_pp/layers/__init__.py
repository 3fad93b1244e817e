"""Layers of PixelCNN++ in keras.ops: weight-normalised, shifted so that they cannot see ahead.

All tensors are channels-last, [B, H, W, C]. Every layer has two verbs: calling it maps inputs to
outputs and changes nothing; `initialize` sets its gains and biases from one whole batch, once, and
returns the outputs of the layer so initialised.

Beside the call on whole images stands the cached step, which computes the same outputs piece by
piece, as soon as the pixels before them are known: a layer of the downward stream has `row`, one of
the rightward stream `row_above` (what the row above contributes, for all columns at once) and
`pixel`. What has been computed before, and the effective weights of `step_weights`, are arguments.
There, a row is a tensor [W, B, F], columns first, because a loop over columns then takes contiguous
slices; a pixel is [B, F].
"""

import math

import keras
from keras import ops

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")

# Standard deviation of fresh kernels v (Salimans & Kingma 2016, section 3).
_KERNEL_STDDEV = 0.05
# Added to the variance in the data-dependent initialisation, as in the last release.
_VARIANCE_EPSILON = 1e-10
# The least of the uniforms that are drawn as noise, the least normal number of float32.
_SMALLEST_UNIFORM = 2.0**-126
# More images than any batch has; keeps the numbers of the images of two seeds apart.
_MAX_IMAGES = 2**16
# Floor of the squared norm of v, as in the original release's convolutions.
_MIN_SQUARED_NORM = 1e-12


def concat_elu(x):
    """elu of [x, -x], on the channel axis: [..., F] -> [..., 2 F] (Salimans et al. 2017)."""
    return ops.elu(ops.concatenate([x, -x], axis=-1))


NONLINEARITIES = {"concat_elu": concat_elu, "elu": ops.elu, "relu": ops.relu}


def down_shift(x):
    """Moves every row one down, zeros above: [B, H, W, F] -> [B, H, W, F]."""
    return ops.pad(x[:, :-1], [[0, 0], [1, 0], [0, 0], [0, 0]])


def right_shift(x):
    """Moves every column one to the right, zeros on the left: [B, H, W, F] -> [B, H, W, F]."""
    return ops.pad(x[:, :, :-1], [[0, 0], [0, 0], [1, 0], [0, 0]])


def _pad(x, pads):
    """Zeros (top, bottom), (left, right) around images [B, H, W, F]."""
    return ops.pad(x, [(0, 0), *pads, (0, 0)])


def _is_on_cpu():
    return keras.distribution.list_devices()[0].startswith("cpu")


def _convolve_on_cpu(x, kernel, pads):
    """Convolves padded images, with a gradient that is fast on CPUs; otherwise nothing new.

    The libraries take up to three times as long for a kernel's gradient as for the convolution. It
    is a matrix product for each tap of the filter, of the inputs and of the outputs' gradient. With
    both in the same padded layout, the tap (i, j) shifts all positions of all images by one number,
    so that rows [positions, F] are cut off at their ends and nothing is copied.

    Args:
      x: Float tensor [B, H, W, F_in].
      kernel: Float tensor [kh, kw, F_in, F].
      pads: Zeros (top, bottom), (left, right), kh - 1 and kw - 1 of them in all.

    Returns:
      Float tensor [B, H, W, F].
    """
    kernel_height, kernel_width, in_features, features = kernel.shape
    (top, bottom), (left, right) = pads

    @ops.custom_gradient
    def convolve(x, kernel):
        padded = _pad(x, pads)
        outputs = ops.conv(padded, kernel, padding="valid", data_format="channels_last")

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            # The inputs' gradient is a convolution again, its filter turned by half a turn.
            upstream = _pad(upstream, ((bottom, top), (right, left)))
            turned = ops.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
            x_gradient = ops.conv(upstream, turned, padding="valid", data_format="channels_last")
            inputs = ops.reshape(padded, (-1, in_features))
            outputs_gradient = ops.reshape(upstream, (-1, features))
            width = ops.shape(padded)[2]
            taps = []
            for i in range(kernel_height):
                for j in range(kernel_width):
                    shift = (i - bottom) * width + (j - right)
                    x_rows, y_rows = inputs, outputs_gradient
                    if (i, j) > (bottom, right):  # shift > 0; as a tensor it cannot be asked
                        x_rows, y_rows = x_rows[shift:], y_rows[:-shift]
                    elif (i, j) < (bottom, right):
                        x_rows, y_rows = x_rows[:shift], y_rows[-shift:]
                    taps.append(ops.matmul(ops.transpose(x_rows), y_rows))
            return x_gradient, ops.reshape(ops.stack(taps), kernel.shape)

        return outputs, gradient

    return convolve(x, kernel)


def _convolve_row(x, kernel, pads, strides):
    """Convolves a row [W, B, F_in] with a kernel [kw, 1, F_in, F], zeros beyond the row's ends."""
    x = ops.pad(x, (pads, (0, 0), (0, 0)))
    return ops.conv(x[None], kernel, (strides, 1), padding="valid", data_format="channels_last")[0]


class Dropout:
    """Dropout whose randomness is an argument: the units of an image depend on its number alone.

    An image drops the same units in every process, on every device and in whatever batch it
    stands, because its random bits are a function of (seed, number of the image, call). They are
    drawn for all calls at once, as few as the rate needs: 1, 2, 4 or 8 for a unit, where the rate
    is a multiple of 2^-1, 2^-2, 2^-4 or 2^-8, otherwise 16, and the nearest multiple of 2^-16.
    """

    def __init__(self, rate, seed, num_images, num_units, first_image=0):
        """Draws the bits.

        Args:
          rate: Probability of a unit to be dropped, in (0, 1); the others are divided by 1 - rate.
          seed: Integer tensor [2], such as (seed of the run, number of the step).
          num_images: B, how many images, also as a tensor.
          num_units: Units of an image that will be asked for, those of every call rounded up to a
            multiple of 8, also as a tensor.
          first_image: Number of the first image, also as a tensor.
        """
        seed = ops.convert_to_tensor(seed)
        self._keep = 1 - rate
        self._num_bits = next(n for n in (1, 2, 4, 8, 16) if n == 16 or (rate * 2**n).is_integer())
        # A number of so many bits is kept where it is less.
        self._threshold = min(round(self._keep * 2**self._num_bits), 2**self._num_bits - 1)
        num_words = (num_units * self._num_bits + 31) // 32

        def draw(image):
            number = ops.stack([image, seed[1]])
            words = keras.random.randint(
                (num_words, 1), -(2**31), 2**31 - 1, "int32", seed=FixedSeed(number)
            )
            return ops.reshape(ops.view(words, "uint8"), (-1,))

        numbers = image_numbers(seed, num_images, first_image)
        self._bytes = ops.map(draw, numbers)  # [B, at least num_units * num_bits / 8]
        self._num_used = 0

    def __call__(self, x):
        """Drops units of a float tensor [B, ...]; returns the same shape and dtype."""
        return self.reserve(math.prod(ops.shape(x)[1:]))(x)

    def reserve(self, num_units):
        """Takes the next bits, for so many units of an image.

        Args:
          num_units: Their number, also as a tensor.

        Returns:
          Function that drops units of a float tensor [B, ...], the same ones at every call.
        """
        num_bytes = round_up_to_8(num_units) * self._num_bits // 8
        first, self._num_used = self._num_used, self._num_used + num_bytes
        own_bytes = self._bytes[:, first : self._num_used]

        def drop(x):
            # So that numbers wait for x: of all calls at once, they take more memory than a network
            # that is computed again for its gradient.
            is_nan = ops.isnan(ops.reshape(x, (-1,))[0])
            numbers = self._unpack(own_bytes + ops.cast(is_nan, "uint8"))[:, :num_units]
            is_kept = ops.reshape(numbers, ops.shape(x)) < self._threshold
            return x * (ops.cast(is_kept, x.dtype) * (1 / self._keep))

        return drop

    def _unpack(self, packed):
        """Bytes [B, n] as numbers of `num_bits` bits each, [B, 8 n / num_bits]."""
        num_images, num_bytes = ops.shape(packed)
        if self._num_bits == 16:
            pairs = ops.reshape(packed, (num_images, num_bytes // 2, 2))
            return ops.reshape(ops.view(pairs, "uint16"), (num_images, -1))
        if self._num_bits == 8:
            return packed
        shifts = ops.cast(ops.arange(0, 8, self._num_bits), "uint8")
        mask = ops.cast(2**self._num_bits - 1, "uint8")
        numbers = ops.bitwise_and(ops.right_shift(packed[..., None], shifts), mask)
        return ops.reshape(numbers, (num_images, -1))


def image_numbers(seed, num_images, first_image=0):
    """A number for every image of a batch: another one for another seed, or another image.

    Args:
      seed: Integer tensor [2], of which the first one counts here.
      num_images: B, how many images, also as a tensor.
      first_image: Number of the first image within the whole batch, also as a tensor.

    Returns:
      Integer tensor [B], in the dtype of the seed.
    """
    images = ops.cast(first_image, seed.dtype) + ops.arange(num_images, dtype=seed.dtype)
    return seed[0] * _MAX_IMAGES + images


def image_uniforms(numbers, shape):
    """Uniforms of every image, a function of a number of its own; not those of any `Dropout`.

    Args:
      numbers: Integer tensor [B, 2], such as (number of the image, number of the step, at least 0).
      shape: Sizes of the noise of an image, also as tensors.

    Returns:
      float32 tensor [B, *shape] in (0, 1).
    """

    def draw(number):
        # Those of dropout are not negative.
        seed = FixedSeed(ops.stack([number[0], -1 - number[1]]))
        # 0 itself would send a logarithm to -inf.
        return keras.random.uniform(shape, _SMALLEST_UNIFORM, dtype="float32", seed=seed)

    return ops.map(draw, ops.convert_to_tensor(numbers))


def round_up_to_8(number):
    """The multiple of 8 that is not less, also of a tensor."""
    return (number + 7) // 8 * 8


class FixedSeed(keras.random.SeedGenerator):
    """Hands one given seed, an integer tensor [2], to a function of `keras.random`."""

    def __init__(self, seed):
        """Keeps the seed; there is no variable, as other generators have."""
        self._seed = seed

    def next(self, ordered=True):
        """The seed, the same at every call."""
        # JAX insists on the dtype of its keys; TensorFlow takes any integers.
        is_jax = keras.backend.backend() == "jax"
        return ops.cast(self._seed, "uint32") if is_jax else self._seed


class WeightNorm(keras.layers.Layer):
    """Base of the layers with a weight-normalised kernel.

    out = linear(x, W) + b,  W = g v / ||v||, the norm over all axes of v but that of the output
    channels (Salimans & Kingma 2016, equation 2). Fresh weights: v ~ N(0, 0.05^2), g = 1, b = 0.

    Subclasses create their weights by `_add_weights` and define `linear`; those that look at a
    part of its result only override `crop`.
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
        # The kernel is normalised in the variables' own precision: no automatic cast.
        self.v = self.add_weight(
            shape=kernel_shape,
            initializer=keras.initializers.RandomNormal(stddev=_KERNEL_STDDEV),
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

    def linear(self, inputs, kernel):
        """The linear map of the layer, before the bias."""
        raise NotImplementedError

    def crop(self, outputs):
        """The part of the outputs that the layer returns."""
        return outputs

    def call(self, inputs):
        """Applies the layer: [..., F_in] -> [..., filters]."""
        outputs = self.linear(inputs, self.kernel()) + ops.cast(self.b, self.compute_dtype)
        return self.crop(outputs)

    def initialize(self, inputs):
        """Sets g and b so that the outputs have mean 0 and deviation `init_scale` per channel.

        With t the outputs under the present g and b, before any crop, and moments over batch and
        space: s = init_scale / sqrt(var[t] + 1e-10); g <- g s; b <- (b - mean[t]) s.

        Args:
          inputs: Float tensor, one whole batch.

        Returns:
          The outputs of the initialised layer.
        """
        inputs = ops.cast(inputs, self.compute_dtype)
        outputs = ops.cast(self.linear(inputs, self.kernel()), self.b.dtype) + self.b
        mean, variance = ops.moments(outputs, axes=list(range(len(outputs.shape) - 1)))
        scale = self.init_scale / ops.sqrt(variance + _VARIANCE_EPSILON)
        self.g.assign(self.g * scale)
        self.b.assign((self.b - mean) * scale)
        return self(inputs)

    def step_weights(self):
        """{name: tensor}, what the cached step computes with; made once, not once per pixel."""
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

    def linear(self, inputs, kernel):
        """Matrix product over the last axis."""
        # With two axes only: TensorFlow 2.20 and 2.21 write past their buffers in the product of a
        # [B, 1, W, F] with a matrix on CPUs (tensorflow issue 117700).
        positions = ops.reshape(inputs, (-1, inputs.shape[-1]))
        outputs = ops.matmul(positions, kernel)
        return ops.reshape(outputs, (*ops.shape(inputs)[:-1], self.filters))

    def step(self, weights, x):
        """The layer on a row [W, B, F_in] or on a pixel [B, F_in], with weights computed before."""
        return self.linear(x, weights["kernel"]) + weights["bias"]

    def compute_output_shape(self, input_shape):
        """[..., F_in] -> [..., filters]."""
        return (*input_shape[:-1], self.filters)


class _WeightNormConv(WeightNorm):
    """What convolutions and transposed convolutions share: filter size, strides, padding."""

    def __init__(self, filters, kernel_size=(3, 3), strides=1, padding="same", **kwargs):
        """Makes the layer.

        Args:
          filters: Number of output channels.
          kernel_size: (height, width) of the filter.
          strides: 1, or 2 to halve (transposed: to double) height and width.
          padding: "same" or "valid".
          **kwargs: `init_scale`, and what `keras.layers.Layer` takes.
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

    def linear(self, inputs, kernel):
        """The convolution."""
        return ops.conv(
            inputs, kernel, self.strides, padding=self.padding, data_format="channels_last"
        )


class _ShiftedConv2D(WeightNormConv2D):
    """A convolution that pads by itself, so that its filter ends at the present position."""

    def __init__(self, filters, kernel_size, strides=1, **kwargs):
        kwargs.pop("padding", None)  # stands in the configuration of the base class
        super().__init__(filters, kernel_size, strides, padding="valid", **kwargs)

    def _pads(self):
        """Zeros (top, bottom), (left, right)."""
        raise NotImplementedError

    def linear(self, inputs, kernel):
        """The convolution of the padded inputs."""
        if self.strides == 1 and _is_on_cpu():
            return _convolve_on_cpu(inputs, kernel, self._pads())
        return super().linear(_pad(inputs, self._pads()), kernel)

    def compute_output_shape(self, input_shape):
        """[B, H, W, F_in] -> [B, H / strides, W / strides, filters], rounded up."""
        height, width = (size and -(-size // self.strides) for size in input_shape[1:3])
        return (input_shape[0], height, width, self.filters)


@_SERIALIZE
class DownShiftedConv2D(_ShiftedConv2D):
    """A convolution that sees its own row and those above, to the left and right alike.

    A filter of even width sees one column more to the right than to the left.
    """

    def __init__(self, filters, kernel_size=(2, 3), strides=1, **kwargs):
        """Makes the layer; arguments as in `WeightNormConv2D`, but for the padding."""
        super().__init__(filters, kernel_size, strides, **kwargs)

    def _pads(self):
        height, width = self.kernel_size
        return (height - 1, 0), ((width - 1) // 2, width // 2)

    def step_weights(self):
        """As `row` takes them: the rows of the filter beside each other, the present one first."""
        weights = super().step_weights()
        rows = ops.unstack(weights["kernel"], axis=0)[::-1]  # [kw, F_in, filters] each
        kernel = ops.concatenate(rows, axis=1)
        kernel = ops.reshape(kernel, (self.kernel_size[1], 1, -1, self.filters))
        return {**weights, "kernel": kernel}

    def row(self, weights, *rows):
        """One row of the outputs.

        Args:
          weights: What `step_weights` returned.
          *rows: The rows of the inputs under the filter, the present one first and then upwards,
            each [W, B, F_in]; zeros above the image.

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
        """Makes the layer; arguments as in `WeightNormConv2D`, but for the padding."""
        super().__init__(filters, kernel_size, strides, **kwargs)

    def _pads(self):
        height, width = self.kernel_size
        return (height - 1, 0), (width - 1, 0)

    def step_weights(self):
        """Apart, as `row_above` and `pixel` take them: the two rows of the filter."""
        assert self.kernel_size[0] <= 2, "the cached step knows of one row above"
        weights = super().step_weights()
        *above, kernel = ops.unstack(weights["kernel"], axis=0)  # [kw, F_in, filters] each
        weights["kernel"] = ops.reshape(kernel, (-1, self.filters))  # [kw F_in, filters]
        if above:
            weights["kernel_above"] = ops.expand_dims(above[0], axis=1)
        return weights

    def row_above(self, weights, x_above):
        """What the row above contributes to a row of the outputs, the bias included.

        Args:
          weights: What `step_weights` returned.
          x_above: The row above of the inputs, [W, B, F_in]; zeros above the image.

        Returns:
          [W / strides, B, filters].
        """
        x = _convolve_row(x_above, weights["kernel_above"], self._pads()[1], self.strides)
        return x + weights["bias"]

    def pixel(self, weights, above, *pixels):
        """One pixel of the outputs.

        Args:
          weights: What `step_weights` returned.
          above: Its pixel of `row_above`, [B, filters].
          *pixels: The pixels of the inputs under the filter in the present row, from left to
            right, each [B, F_in]; zeros outside the image.

        Returns:
          [B, filters].
        """
        x = ops.concatenate(pixels, axis=-1) if len(pixels) > 1 else pixels[0]
        return above + ops.matmul(x, weights["kernel"])


@_SERIALIZE
class WeightNormConv2DTranspose(_WeightNormConv):
    """Weight-normalised transposed convolution.

    Sizes grow to strides * size ("same") or strides * size + filter - 1 ("valid", in which the
    last strides - 1 rows and columns receive nothing but the bias), as in the original release.
    """

    def build(self, input_shape):
        """Creates v [kh, kw, filters, F_in], g and b [filters]."""
        self._add_weights((*self.kernel_size, self.filters, input_shape[-1]), output_axis=2)

    def linear(self, inputs, kernel):
        """The transposed convolution."""
        return ops.conv_transpose(
            inputs,
            kernel,
            self.strides,
            padding=self.padding,
            output_padding=self.strides - 1 if self.padding == "valid" else None,
            data_format="channels_last",
        )


class _ShiftedConv2DTranspose(WeightNormConv2DTranspose):
    """A transposed convolution of which the part is kept that does not look ahead."""

    def __init__(self, filters, kernel_size, strides=2, **kwargs):
        kwargs.pop("padding", None)  # stands in the configuration of the base class
        super().__init__(filters, kernel_size, strides, padding="valid", **kwargs)

    def _first_column(self):
        raise NotImplementedError

    def crop(self, outputs):
        """[B, sH + kh - 1, sW + kw - 1, F] -> [B, sH, sW, F]."""
        kernel_height, kernel_width = self.kernel_size
        left = self._first_column()
        right = kernel_width - 1 - left
        height, width = ops.shape(outputs)[1:3]
        return outputs[:, : height - (kernel_height - 1), left : width - right]

    def compute_output_shape(self, input_shape):
        """[B, H, W, F_in] -> [B, strides * H, strides * W, filters]."""
        height, width = (size and size * self.strides for size in input_shape[1:3])
        return (input_shape[0], height, width, self.filters)


@_SERIALIZE
class DownShiftedConv2DTranspose(_ShiftedConv2DTranspose):
    """The transposed convolution of the downward stream."""

    def __init__(self, filters, kernel_size=(2, 3), strides=2, **kwargs):
        """Makes the layer; arguments as in `WeightNormConv2DTranspose`, but for the padding."""
        super().__init__(filters, kernel_size, strides, **kwargs)

    def _first_column(self):
        return (self.kernel_size[1] - 1) // 2

    def row(self, weights, x, offset):
        """One row of the outputs.

        Args:
          weights: What `step_weights` returned.
          x: The row [W, B, F_in] of the inputs that it comes from.
          offset: Which of the rows that come from it, in [0, strides - 1], also as a tensor.

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
        """Makes the layer; arguments as in `WeightNormConv2DTranspose`, but for the padding."""
        super().__init__(filters, kernel_size, strides, **kwargs)

    def _first_column(self):
        return 0

    def step_weights(self):
        """As `row` and `pixel` take them: for each row of the filter a matrix for all columns."""
        assert self.kernel_size == (self.strides, self.strides), "filters do not overlap"
        kernel = ops.transpose(self.kernel(), (0, 3, 1, 2))  # [kh, F_in, kw, filters]
        kernel = ops.reshape(kernel, (self.strides, -1, self.strides * self.filters))
        bias = ops.tile(ops.cast(self.b, self.compute_dtype), self.strides)
        return {"kernel": kernel, "bias": bias}

    def row(self, weights, x):
        """The last of the rows of the outputs that come from a row.

        Args:
          weights: What `step_weights` returned.
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
        """The pixels that come from a pixel, in the first of their rows.

        Args:
          weights: What `step_weights` returned.
          x: [B, F_in].

        Returns:
          List of `strides` tensors [B, filters].
        """
        outputs = ops.matmul(x, weights["kernel"][0]) + weights["bias"]
        return ops.split(outputs, self.strides, axis=-1)


@_SERIALIZE
class GatedResidualBlock(keras.layers.Layer):
    """The gated residual block (Salimans et al. 2017, section 2.4; the release's `gated_resnet`).

    With f the nonlinearity:

        c = dropout(f(conv_in(f(x)) + skip(f(a))))
        value, gate = split(conv_out(c) + h @ hw)
        out = x + value * sigmoid(gate)

    The term of the short-cut input `a` and that of the conditioning `h` are there when the block
    was built with them.
    """

    def __init__(
        self, convolution, nonlinearity="concat_elu", kernel_size=None, row_channels=None, **kwargs
    ):
        """Makes the block.

        Args:
          convolution: Class of the convolutions, such as `DownShiftedConv2D`.
          nonlinearity: "concat_elu", "elu" or "relu".
          kernel_size: (height, width) of their filters; None for those of the class.
          row_channels: How many channels of the short-cut input, the first ones, the cached step
            knows for a whole row at once; None for as many as x has.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.convolution = convolution
        self.nonlinearity = nonlinearity
        self.kernel_size = kernel_size
        self.row_channels = row_channels

    def build(self, x_shape, a_shape=None, h_shape=None):
        """Creates the weights for x [B, H, W, F], a [B, H, W, F_a] and h [B, F_h]."""
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
                initializer=keras.initializers.RandomNormal(stddev=_KERNEL_STDDEV),
                name="hw",
            )

    def call(self, x, a=None, h=None, dropout=None):
        """Applies the block.

        Args:
          x: Float tensor [B, H, W, F].
          a: Float tensor [B, H, W, F_a], the short-cut input, or None.
          h: Float tensor [B, F_h], the conditioning, or None.
          dropout: Function from tensor to tensor, applied behind the first convolution, or None.

        Returns:
          Float tensor [B, H, W, F].
        """
        return self._forward(apply, x, a, self._condition(h), dropout)

    def initialize(self, x, a=None, h=None, dropout=None):
        """Initialises the layers within, in the order of the forward pass; as `call` otherwise."""
        return self._forward(initialize, x, a, self._condition(h), dropout)

    def num_dropped(self):
        """Features per position among which dropout drops some: those of the second convolution."""
        return self.conv_out.v.shape[2]

    def state_sizes(self):
        """{name: features per position}, the inputs that the cached step keeps for others."""
        if self.conv_in.kernel_size == (1, 1):
            return {}
        return {layer.name: layer.v.shape[2] for layer in (self.conv_in, self.conv_out)}

    def above_sizes(self):
        """{name: features per position}, what `row_above` returns."""
        return {layer.name: layer.filters for layer in (self.conv_in, self.conv_out)}

    def step_weights(self):
        """{name of a layer within: its weights}, see `WeightNorm.step_weights`.

        Of a short-cut input [d, r] the part d is known for a whole row at once, the part r only
        pixel by pixel; the kernel of `skip` comes apart accordingly.
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
          weights: What `step_weights` returned.
          x: [W, B, F].
          above: {name: [W, B, F']}, what this method returned for the row above; zeros at first.
          a: [W, B, F_a], the short-cut input, or None.
          h: [B, F_h], the conditioning, or None.

        Returns:
          Outputs [W, B, F], and what to hand to the next row as `above`.
        """
        inputs = {}

        def run(layer, x):
            if layer is self.skip:
                return layer.step(weights["skip"], x)
            if layer.name not in above:
                return layer.row(weights[layer.name], x)
            inputs[layer.name] = x
            return layer.row(weights[layer.name], x, above[layer.name])

        h = None if h is None else ops.matmul(h, weights["hw"])
        return self._forward(run, x, a, h, None), inputs

    def row_above(self, weights, above, a, h=None):
        """What the row above, the downward stream and the conditioning contribute to a row.

        Args:
          weights: What `step_weights` returned.
          above: {name: [W, B, F']}, what `pixel` returned for the row above; zeros at first.
          a: [W, B, F], the short-cut from the downward stream.
          h: [B, F_h], the conditioning, or None.

        Returns:
          {name: [W, B, F']}, of which `pixel` takes a pixel.
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
            terms["conv_out"] += ops.matmul(h, weights["hw"])
        return terms

    def pixel(self, weights, x, left, above, a=None):
        """One pixel of `call` in the rightward stream.

        Args:
          weights: What `step_weights` returned.
          x: [B, F].
          left: {name: [B, F']}, what this method returned for the pixel on the left; zeros at the
            left edge.
          above: {name: [B, F']}, the pixel of what `row_above` returned.
          a: [B, F], the short-cut from the rightward stream, or None.

        Returns:
          Outputs [B, F], and what to hand to the next pixel as `left`.
        """
        inputs = {}

        def run(layer, x):
            if layer is self.skip:
                return ops.matmul(x, weights["skip_pixel"])
            if layer.name not in left:
                return layer.pixel(weights[layer.name], above[layer.name], x)
            inputs[layer.name] = x
            return layer.pixel(weights[layer.name], above[layer.name], left[layer.name], x)

        return self._forward(run, x, a, None, None), inputs

    def _condition(self, h):
        """The conditioning as it is added to the second convolution: [B, F_h] -> [B, 1, 1, 2 F]."""
        if h is None:
            return None
        hw = ops.cast(self.hw, self.compute_dtype)
        return ops.matmul(ops.cast(h, self.compute_dtype), hw)[:, None, None, :]

    def _forward(self, run, x, a, h, dropout):
        """The equations above; `run` applies a layer within, `h` is projected already."""
        nonlinearity = NONLINEARITIES[self.nonlinearity]
        c = run(self.conv_in, nonlinearity(x))
        if a is not None:
            c = c + run(self.skip, nonlinearity(a))
        c = nonlinearity(c)
        if dropout is not None:
            c = dropout(c)
        c = run(self.conv_out, c)
        if h is not None:
            c = c + h
        value, gate = ops.split(c, 2, axis=-1)
        return x + value * ops.sigmoid(gate)

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


@_SERIALIZE
class AutoregressiveChannelBlock(keras.layers.Layer):
    """Residual blocks of 1x1 convolutions from groups of channels to later groups.

    The "autoregressive channel" of Salimans et al. 2017, section 3.3. With x[1], x[2], ... equal
    groups of the channels of x, `a` the short-cut input, and block[g] a `GatedResidualBlock` of 1x1
    convolutions:

        out[g] = block[g](x[g], a=[a, out[1], ..., out[g - 1]])

    So depth grows with the number of groups, and what a position sees does not.
    """

    def __init__(self, convolution, num_groups, nonlinearity="concat_elu", **kwargs):
        """Makes the block.

        Args:
          convolution: Class of the convolutions, as in `GatedResidualBlock`.
          num_groups: Into how many groups the channels are divided, at least 2.
          nonlinearity: "concat_elu", "elu" or "relu".
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.convolution = convolution
        self.num_groups = num_groups
        self.nonlinearity = nonlinearity

    def build(self, x_shape, a_shape=None, h_shape=None):
        """Creates the weights; shapes as in `GatedResidualBlock`, F a multiple of the groups.

        The cached step knows all of a short-cut input for a whole row.
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
                # Of the rightward stream, the groups are known pixel by pixel only.
                row_channels=a_channels or channels,
                dtype=self.dtype_policy,
                name=f"group_{group}",
            )
            block.build((*sides, group_filters), (*sides, channels) if channels else None, h_shape)
            self.blocks.append(block)

    def call(self, x, a=None, h=None, dropout=None):
        """Applies the block; arguments as in `GatedResidualBlock.call`."""
        return self._forward(apply, x, a, h, dropout)

    def initialize(self, x, a=None, h=None, dropout=None):
        """Initialises the blocks within, one after the other; as `call` otherwise."""
        return self._forward(initialize, x, a, h, dropout)

    def num_dropped(self):
        """Features per position among which dropout drops some, of all groups."""
        return sum(block.num_dropped() for block in self.blocks)

    def state_sizes(self):
        """As in `GatedResidualBlock`: nothing is kept for other positions."""
        return {}

    def above_sizes(self):
        """{name: {name: features per position}}, what `row_above` returns."""
        return {block.name: block.above_sizes() for block in self.blocks}

    def step_weights(self):
        """{name of a block: its weights}, see `GatedResidualBlock.step_weights`."""
        return {block.name: block.step_weights() for block in self.blocks}

    def row(self, weights, x, above, a=None, h=None):
        """One row of `call` in the downward stream; as in `GatedResidualBlock`."""

        def run(block, x, a):
            return block.row(weights[block.name], x, {}, a, h)[0]

        return self._walk(run, x, a), {}

    def row_above(self, weights, above, a, h=None):
        """What the downward stream and the conditioning contribute to a row."""
        return {block.name: block.row_above(weights[block.name], {}, a, h) for block in self.blocks}

    def pixel(self, weights, x, left, above, a=None):
        """One pixel of `call` in the rightward stream; as in `GatedResidualBlock`."""

        def run(block, x, a):
            return block.pixel(weights[block.name], x, {}, above[block.name], a)[0]

        return self._walk(run, x, a), {}

    def _forward(self, run, x, a, h, dropout):
        drops = [None] * self.num_groups
        if dropout is not None:
            # The factors of all groups at once: the later ones are not known yet. They wait for x,
            # as in `Dropout.reserve`.
            is_nan = ops.cast(ops.isnan(x[..., :1]), x.dtype)
            ones = ops.ones((*ops.shape(x)[:-1], self.num_dropped()), x.dtype) + is_nan
            factors = ops.split(dropout(ones), self.num_groups, axis=-1)
            drops = [lambda c, factor=factor: c * factor for factor in factors]
        drops = dict(zip((block.name for block in self.blocks), drops, strict=True))
        return self._walk(
            lambda block, x, a: run(block, x, a=a, h=h, dropout=drops[block.name]), x, a
        )

    def _walk(self, run, x, a):
        """The equation above; `run` applies a block to x and its short-cut input."""
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


@_SERIALIZE
class SampleHead(keras.layers.Layer):
    """From the features of a pixel and noise to a sample of it (the release's `energy_distance`).

        f = features + dense(noise)
        sample = tanh(dense(concat_elu(dense(concat_elu(f)))))

    with init_scale 0.1 in the last layer, as there.
    """

    # As many features, and as many numbers of noise, as in the release.
    NUM_FEATURES = 64
    NUM_NOISE = 4

    def __init__(self, num_channels, **kwargs):
        """Makes the head.

        Args:
          num_channels: C.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.num_channels = num_channels

    def build(self, features_shape, noise_shape=None):
        """Creates the weights for features [..., NUM_FEATURES] and noise [..., NUM_NOISE]."""
        policy, size = {"dtype": self.dtype_policy}, self.NUM_FEATURES
        self.noise_in = WeightNormDense(size, name="noise_in", **policy)
        self.hidden = WeightNormDense(size, name="hidden", **policy)
        self.output_layer = WeightNormDense(
            self.num_channels, init_scale=0.1, name="output", **policy
        )
        self.noise_in.build((*features_shape[:-1], self.NUM_NOISE))
        for layer in (self.hidden, self.output_layer):
            layer.build((*features_shape[:-1], 2 * size))

    def call(self, features, noise):
        """Samples of pixels.

        Args:
          features: Float tensor [..., NUM_FEATURES].
          noise: Float tensor [..., NUM_NOISE] in (-1, 1), its leading axes at least those of
            `features`, against which they broadcast.

        Returns:
          Tensor [..., C] in [-1, 1], in the dtype of the variables.
        """
        return self._forward(apply, features, noise)

    def initialize(self, features, noise):
        """Initialises the layers within, in the order of the forward pass; as `call` otherwise."""
        return self._forward(initialize, features, noise)

    def step_weights(self):
        """{name of a layer within: its weights}, see `WeightNorm.step_weights`."""
        layers = (self.noise_in, self.hidden, self.output_layer)
        return {layer.name: layer.step_weights() for layer in layers}

    def step(self, weights, features, noise):
        """`call` with weights computed before, on pixels [B, F]."""
        return self._forward(lambda layer, x: layer.step(weights[layer.name], x), features, noise)

    def _forward(self, run, features, noise):
        features, noise = (ops.cast(x, self.compute_dtype) for x in (features, noise))
        f = run(self.hidden, concat_elu(features + run(self.noise_in, noise)))
        return ops.tanh(ops.cast(run(self.output_layer, concat_elu(f)), self.variable_dtype))

    def compute_output_shape(self, features_shape, noise_shape):
        """[..., NUM_NOISE] -> [..., C]."""
        return (*noise_shape[:-1], self.num_channels)

    def get_config(self):
        """The arguments that the head was made with."""
        return {**super().get_config(), "num_channels": self.num_channels}


def apply(layer, *args, **kwargs):
    """Runs a layer, one of the two ways in which a network passes through its layers."""
    return layer(*args, **kwargs)


def initialize(layer, *args, **kwargs):
    """Initialises a layer from its inputs and runs it, the other way."""
    return layer.initialize(*args, **kwargs)
