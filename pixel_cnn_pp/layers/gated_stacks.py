"""The layer of Gated PixelCNN: a vertical and a horizontal stack of features.

At a pixel, the vertical stack knows the rows above and nothing else. So its features have no
groups, and its convolutions no masks. The horizontal stack also knows the pixels on the left and
the earlier channels of the pixel. Its features are in groups, see `masked`.
"""

import keras
from keras import ops

from pixel_cnn_pp.layers.convolution import convolve
from pixel_cnn_pp.layers.fresh import fresh
from pixel_cnn_pp.layers.masked import MaskedConv2D
from pixel_cnn_pp.layers.weight_norm import project


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class RowsConv2D(keras.layers.Layer):
    """A convolution of the current row and of the rows above, to the left and to the right.

    It is an n x n filter without its rows below (van den Oord et al. 2016b, section 2.3):
    w [n // 2 + 1, n, F_in, filters].
    """

    def __init__(self, filters, size, **kwargs):
        """Makes the layer.

        Args:
          filters: Number of output features.
          size: n, an odd number.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        assert size % 2 == 1, "the filter has a centre"
        self.filters = filters
        self.size = size
        self._reach = size // 2

    def build(self, input_shape):
        """Creates w [n // 2 + 1, n, F_in, filters] and b [filters]."""
        # A gate halves what it is given: tanh(f) sigmoid(g) is f / 2 for small f and g. Kernels of
        # twice the size make up for it, because the vertical stack has no residual connection.
        doubled = keras.initializers.VarianceScaling(4.0, "fan_in", "uniform")
        self.w = self.add_weight(
            shape=(self._reach + 1, self.size, input_shape[-1], self.filters),
            initializer=fresh(doubled),
            autocast=False,
            name="w",
        )
        self.b = self.add_weight(
            shape=(self.filters,), initializer="zeros", autocast=False, name="b"
        )

    def call(self, x):
        """Applies the layer: [B, H, W, F_in] -> [B, H, W, filters]."""
        x = ops.cast(x, self.compute_dtype)
        pads = (self._reach, 0), (self._reach, self._reach)
        kernel = ops.cast(self.w, self.compute_dtype)
        return convolve(x, kernel, pads) + ops.cast(self.b, self.compute_dtype)

    def step_weights(self):
        """The weights for `row`, {"kernel": [n, 1, (n // 2 + 1) F_in, filters], "bias": b}."""
        rows = ops.unstack(ops.cast(self.w, self.compute_dtype), self._reach + 1, axis=0)
        kernel = ops.expand_dims(ops.concatenate(rows, axis=1), axis=1)
        return {"kernel": kernel, "bias": ops.cast(self.b, self.compute_dtype)}

    def row(self, weights, rows):
        """Computes a row of the outputs.

        Args:
          weights: The result of `step_weights`.
          rows: The n // 2 rows of the inputs above and the current one, from top to bottom, each
            [W, B, F_in]. They are zeros above the image.

        Returns:
          [W, B, filters].
        """
        x = ops.concatenate(rows, axis=-1)
        x = ops.pad(x, ((self._reach, self._reach), (0, 0), (0, 0)))
        x = ops.conv(x[None], weights["kernel"], padding="valid", data_format="channels_last")[0]
        return x + weights["bias"]

    def compute_output_shape(self, input_shape):
        """[B, H, W, F_in] -> [B, H, W, filters]."""
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        """The arguments that the layer was made with."""
        return {**super().get_config(), "filters": self.filters, "size": self.size}


def gate(x):
    """tanh(f) * sigmoid(g) of x = [f, g]: [..., 2 p] -> [..., p] (equation 2)."""
    f, g = ops.split(x, 2, axis=-1)
    return ops.tanh(f) * ops.sigmoid(g)


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class GatedStacks(keras.layers.Layer):
    """A layer of Gated PixelCNN (van den Oord et al. 2016b, figure 2 and equations 2 to 5).

    a  = vertical(v) + V_v c                      [B, H, W, 2 p]
    v' = gate(a)                                  [B, H, W, p]
    y  = gate(horizontal(h) + link a + V_h c)     [B, H, W, p]
    h' = h + out(y), or out(y) in the first layer
    gate([f, g]) = tanh(f) * sigmoid(g)

    `vertical` is n x n without the rows below. `horizontal` is 1 x n with mask A in the first layer
    and B in the others. `link` and `out` are 1 x 1, `out` with mask B. The inputs v must be moved
    down by one row before the first layer. Then all v and a hold the rows above only.
    """

    def __init__(self, filters, size, num_channels, is_first=False, **kwargs):
        """Makes the layer.

        Args:
          filters: p.
          size: n, an odd number.
          num_channels: C, the number of groups.
          is_first: Whether this is the first layer, whose inputs are the image. It has mask A and
            no residual connection.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.filters = filters
        self.size = size
        self.num_channels = num_channels
        self.is_first = is_first
        arguments = {"num_channels": num_channels, "dtype": self.dtype_policy}
        self.vertical = RowsConv2D(2 * filters, size, name="vertical", dtype=self.dtype_policy)
        mask = "A" if is_first else "B"
        self.horizontal = MaskedConv2D(
            2 * filters, (1, size), mask, num_parts=2, name="horizontal", **arguments
        )
        self.out = MaskedConv2D(filters, 1, "B", name="out", **arguments)

    def build(self, v_shape, h_shape, c_shape=None):
        """Creates the weights for v and h [B, H, W, F], and c [..., D] or None."""
        self.vertical.build(v_shape)
        self.horizontal.build(h_shape)
        self.out.build((*h_shape[:-1], self.filters))
        width = 2 * self.filters

        def add_matrix(num_inputs, name):
            return self.add_weight(
                shape=(num_inputs, width),
                initializer=fresh("glorot_uniform"),
                autocast=False,
                name=name,
            )

        self.link = add_matrix(width, "link")
        self.vertical_condition = self.horizontal_condition = None
        if c_shape is not None:
            self.vertical_condition = add_matrix(c_shape[-1], "vertical_condition")
            self.horizontal_condition = add_matrix(c_shape[-1], "horizontal_condition")

    def call(self, v, h, c=None):
        """Applies the layer.

        Args:
          v: Float tensor [B, H, W, F], the vertical stack.
          h: Float tensor [B, H, W, F], the horizontal stack.
          c: The condition: a float tensor [B, D], or [B, H, W, D] for a picture. Or None.

        Returns:
          (v', h'), float tensors [B, H, W, p].
        """
        a = self.vertical(v)
        if c is not None:
            a = a + self._condition_term(c, self.vertical_condition)
        terms = self.horizontal(h) + self._project(a, self.link)
        if c is not None:
            terms = terms + self._condition_term(c, self.horizontal_condition)
        y = self.out(gate(terms))
        return gate(a), y if self.is_first else h + y

    def step_weights(self):
        """The weights for `row` and `pixel`. The horizontal stack is sorted by group."""

        def cast(weight):
            return ops.cast(weight, self.compute_dtype)

        weights = {
            layer.name: layer.step_weights() for layer in (self.vertical, self.horizontal, self.out)
        }
        weights["link"] = self.horizontal.in_group_order(cast(self.link))
        if self.vertical_condition is not None:
            in_order = self.horizontal.in_group_order(cast(self.horizontal_condition))
            weights["vertical_condition"] = cast(self.vertical_condition)
            weights["horizontal_condition"] = in_order
        return weights

    def row(self, weights, rows, c=None):
        """Computes what depends on the rows above alone.

        Args:
          weights: The result of `step_weights`.
          rows: v in the n // 2 rows above and in the current row, from top to bottom, each
            [W, B, F]. They are zeros above the image.
          c: The condition, [B, D], or [W, B, D] for the row of a picture. Or None.

        Returns:
          v' [W, B, p], and link a + V_h c with the bias of `horizontal`, [W, B, 2 p], by groups.
        """
        a = self.vertical.row(weights["vertical"], rows)
        if c is not None:
            a = a + project(c, weights["vertical_condition"])
        terms = project(a, weights["link"]) + weights["horizontal"]["bias"]
        if c is not None:
            terms = terms + project(c, weights["horizontal_condition"])
        return gate(a), terms

    def pixel(self, weights, channel, terms, h, y):
        """Computes the outputs of one group at a pixel.

        Args:
          weights: The result of `step_weights`.
          channel: The group, a Python integer.
          terms: [B, 2 p], what `row` returned for this pixel, and the pixels on the left.
          h: [B, F], the known inputs of the horizontal stack at this pixel, by groups: the groups
            up to this one, or before it in the first layer. None if there are none.
          y: [B, F], the features y of the earlier groups. None for group 0.

        Returns:
          h' of the group, and y with the group.
        """
        own = self.horizontal.of_group(channel, terms)
        if h is not None:
            own = own + self.horizontal.centre(weights["horizontal"], channel, h)
        own = gate(own)
        y = own if y is None else ops.concatenate([y, own], axis=-1)
        out = self.out.centre(weights["out"], channel, y)
        out = out + self.out.of_group(channel, weights["out"]["bias"])
        if self.is_first:
            return out, y
        return h[:, h.shape[-1] - out.shape[-1] :] + out, y

    def compute_output_shape(self, v_shape, h_shape, c_shape=None):
        """The shapes of v' and h'."""
        return (*v_shape[:-1], self.filters), (*h_shape[:-1], self.filters)

    def get_config(self):
        """The arguments that the layer was made with."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "size": self.size,
            "num_channels": self.num_channels,
            "is_first": self.is_first,
        }

    def _project(self, x, matrix):
        """Images [B, H, W, F] times a matrix [F, F']."""
        kernel = ops.cast(matrix, self.compute_dtype)[None, None]
        return convolve(ops.cast(x, self.compute_dtype), kernel, ((0, 0), (0, 0)))

    def _condition_term(self, c, matrix):
        """The term of a condition, [B, 1, 1, 2 p], or [B, H, W, 2 p] for a picture."""
        if len(c.shape) == 4:
            return self._project(c, matrix)
        c, matrix = (ops.cast(x, self.compute_dtype) for x in (c, matrix))
        return ops.matmul(c, matrix)[:, None, None]
