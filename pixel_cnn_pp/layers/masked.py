"""Masked convolutions of features in groups, one group for each channel of the image.

Feature i of C channels belongs to group i mod C. At the present position a mask lets a group read
some groups only, so that channel c of a pixel depends on its earlier channels, and on nothing that
comes after (van den Oord et al. 2016, section 3.4).

In the cached step, features stand in the order of their groups: those of group 0, then those of
group 1, and so on.
"""

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp.layers.convolution import convolve


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class MaskedConv2D(keras.layers.Layer):
    """A convolution that sees the rows above, the left of its own row, and part of its position.

    out = x * (W mask) + b. The mask is 1 above and on the left, 0 below and on the right. At the
    centre tap it is 1 where the group of the input is less than that of the output (mask A), or is
    not greater (mask B).

    W is stored without the rows below: [kh / 2 + 1, kw, F_in, filters], for a filter of kh x kw.
    """

    def __init__(self, filters, size, mask, num_channels, is_output=False, **kwargs):
        """Makes the layer.

        Args:
          filters: Number of output features.
          size: Height and width of the filter, an odd number.
          mask: "A" or "B".
          num_channels: C, the number of groups.
          is_output: Whether the outputs are equal blocks of features, one for each channel, in
            place of features that take turns.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        assert size % 2 == 1, "the filter has a centre"
        self.filters = filters
        self.size = size
        self.mask = mask
        self.num_channels = num_channels
        self.is_output = is_output
        self._reach = size // 2
        self._out_groups = (
            np.arange(filters) * num_channels // filters if is_output else self._groups(filters)
        )

    def build(self, input_shape):
        """Creates w [kh / 2 + 1, kw, F_in, filters] and b [filters]."""
        in_features, reach = input_shape[-1], self._reach
        self._in_groups = self._groups(in_features)
        self.w = self.add_weight(
            shape=(reach + 1, self.size, in_features, self.filters),
            initializer="glorot_uniform",
            autocast=False,
            name="w",
        )
        self.b = self.add_weight(
            shape=(self.filters,), initializer="zeros", autocast=False, name="b"
        )
        mask = np.ones(self.w.shape, "float32")
        mask[-1, reach + 1 :] = 0
        mask[-1, reach] = self._reads(self._in_groups[:, None], self._out_groups)
        self._mask = mask

    def call(self, x):
        """Applies the layer: [B, H, W, F_in] -> [B, H, W, filters]."""
        x = ops.cast(x, self.compute_dtype)
        pads = (self._reach, 0), (self._reach, self._reach)
        return convolve(x, self._kernel(), pads) + ops.cast(self.b, self.compute_dtype)

    def step_weights(self):
        """As the methods below take them, features in the order of their groups.

        Returns:
          {"above": kernel of the rows above, "left": that of the pixels on the left,
          "centre": [for each channel that of the present position], "bias": b}.
        """
        in_order = np.argsort(self._in_groups, kind="stable")
        kernel = self.in_group_order(ops.take(self._kernel(), in_order, axis=2))
        in_groups, out_groups = np.sort(self._in_groups), np.sort(self._out_groups)
        bias = self.in_group_order(ops.cast(self.b, self.compute_dtype))
        centre = []
        for channel in range(self.num_channels):
            num_read = int(np.sum(self._reads(in_groups, channel)))
            first, last = np.searchsorted(out_groups, [channel, channel + 1])
            centre.append(kernel[-1, self._reach, :num_read, int(first) : int(last)])
        weights = {"centre": centre, "bias": bias}
        if self._reach:
            rows = ops.concatenate(ops.unstack(kernel[:-1], self._reach, axis=0), axis=1)
            weights["above"] = ops.expand_dims(rows, axis=1)
            weights["left"] = ops.reshape(kernel[-1, : self._reach], (-1, self.filters))
        return weights

    def row_above(self, weights, rows):
        """What the rows above contribute to a row of the outputs, the bias included.

        Args:
          weights: What `step_weights` returned.
          rows: The kh / 2 rows of the inputs above, from top to bottom, each [W, B, F_in]; zeros
            above the image.

        Returns:
          [W, B, filters].
        """
        x = ops.concatenate(rows, axis=-1) if len(rows) > 1 else rows[0]
        x = ops.pad(x, ((self._reach, self._reach), (0, 0), (0, 0)))
        x = ops.conv(x[None], weights["above"], padding="valid", data_format="channels_last")[0]
        return x + weights["bias"]

    def left(self, weights, pixels):
        """What the pixels on the left contribute to a pixel of the outputs.

        Args:
          weights: What `step_weights` returned.
          pixels: Those kw / 2 pixels of the inputs, from left to right, in one tensor
            [B, kw / 2 * F_in]; zeros outside the image.

        Returns:
          [B, filters].
        """
        return ops.matmul(pixels, weights["left"])

    def centre(self, weights, channel, x):
        """What the present position contributes to the outputs of one group.

        Args:
          weights: What `step_weights` returned.
          channel: The group, a Python integer.
          x: [B, F], the inputs of all groups that it reads, at least.

        Returns:
          [B, number of features of the group].
        """
        kernel = weights["centre"][channel]
        return ops.matmul(x[:, : kernel.shape[0]], kernel)

    def in_group_order(self, outputs):
        """Outputs [..., filters] of the whole layer in the order of their groups."""
        return ops.take(outputs, np.argsort(self._out_groups, kind="stable"), axis=-1)

    def of_group(self, channel, outputs):
        """The outputs of one group, of all of them in the order of their groups, [B, filters]."""
        first, last = np.searchsorted(np.sort(self._out_groups), [channel, channel + 1])
        return outputs[..., int(first) : int(last)]

    def compute_output_shape(self, input_shape):
        """[B, H, W, F_in] -> [B, H, W, filters]."""
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        """The arguments that the layer was made with."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "size": self.size,
            "mask": self.mask,
            "num_channels": self.num_channels,
            "is_output": self.is_output,
        }

    def _groups(self, num_features):
        return np.arange(num_features) % self.num_channels

    def _reads(self, in_groups, out_groups):
        """Whether groups of inputs are read by groups of outputs, at the centre tap."""
        return in_groups < out_groups if self.mask == "A" else in_groups <= out_groups

    def _kernel(self):
        kernel = ops.convert_to_tensor(self.w)
        return ops.cast(kernel * ops.cast(self._mask, kernel.dtype), self.compute_dtype)
