"""Masked convolutions of features in groups, one group for each channel of the image.

With C channels, feature i belongs to group i mod C. At the current position, a mask allows a group
to read only some of the groups. So channel c of a pixel depends only on the earlier channels of the
pixel and on earlier pixels (van den Oord et al. 2016, section 3.4).

In the cached step, features are sorted by group: first those of group 0, then those of group 1, and
so on.
"""

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp.layers.convolution import convolve
from pixel_cnn_pp.layers.fresh import fresh


def of_group(features, channel, num_channels):
    """Takes the features of one group from features [..., F] that are sorted by group."""
    groups = np.sort(np.arange(features.shape[-1]) % num_channels)
    first, last = np.searchsorted(groups, [channel, channel + 1])
    return features[..., int(first) : int(last)]


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class MaskedConv2D(keras.layers.Layer):
    """A convolution with mask A or B (van den Oord et al. 2016, section 3.4).

    out = x * (W mask) + b, where * is the convolution. The mask is 1 above the centre and on its
    left, and 0 below it and on its right. At the centre tap, mask A is 1 if the group of the input
    is less than the group of the output. Mask B is 1 if it is less or equal.

    W is stored without the rows below: [kh // 2 + 1, kw, F_in, filters], for a filter of kh x kw. A
    filter of one row is also stored without the columns on the right: [1, kw // 2 + 1, ...].
    """

    def __init__(self, filters, size, mask, num_channels, is_output=False, num_parts=1, **kwargs):
        """Makes the layer.

        Args:
          filters: Number of output features.
          size: Height and width of the filter, odd numbers; one number if they are equal.
          mask: "A" or "B".
          num_channels: C, the number of groups.
          is_output: Whether the outputs are C equal blocks of features, one block for each group.
            Otherwise output i belongs to group i mod C.
          num_parts: Number of equal parts into which the outputs are split, such as 2 for a gate.
            Output i of every part belongs to group i mod C. It divides `filters`.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        height, width = (size, size) if isinstance(size, int) else size
        assert height % 2 == width % 2 == 1, "the filter has a centre"
        assert filters % num_parts == 0 and not (is_output and num_parts > 1), "parts are equal"
        self.filters = filters
        self.size = size
        self.mask = mask
        self.num_channels = num_channels
        self.is_output = is_output
        self.num_parts = num_parts
        self._up, self._reach = height // 2, width // 2
        self._out_groups = (
            np.arange(filters) * num_channels // filters
            if is_output
            else np.tile(self._groups(filters // num_parts), num_parts)
        )

    def build(self, input_shape):
        """Creates w [kh // 2 + 1, kw, F_in, filters] and b [filters]."""
        in_features, reach = input_shape[-1], self._reach
        self._in_groups = self._groups(in_features)
        width = reach + 1 + self._right
        self.w = self.add_weight(
            shape=(self._up + 1, width, in_features, self.filters),
            initializer=fresh("glorot_uniform"),
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
        pads = (self._up, 0), (self._reach, self._right)
        return convolve(x, self._kernel(), pads) + ops.cast(self.b, self.compute_dtype)

    def step_weights(self):
        """The weights for the methods below, with features sorted by group.

        Returns:
          {"above": kernel of the rows above, "left": kernel of the pixels on the left,
          "centre": [for each channel, kernel of the current position], "bias": b}.
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
        if self._up:
            rows = ops.concatenate(ops.unstack(kernel[:-1], self._up, axis=0), axis=1)
            weights["above"] = ops.expand_dims(rows, axis=1)
        if self._reach:
            weights["left"] = ops.reshape(kernel[-1, : self._reach], (-1, self.filters))
        return weights

    def row_above(self, weights, rows):
        """Contribution of the rows above to a row of the outputs, including the bias.

        Args:
          weights: The result of `step_weights`.
          rows: The kh // 2 rows of the inputs above, from top to bottom, each [W, B, F_in]. They
            are zeros above the image.

        Returns:
          [W, B, filters].
        """
        x = ops.concatenate(rows, axis=-1) if len(rows) > 1 else rows[0]
        x = ops.pad(x, ((self._reach, self._reach), (0, 0), (0, 0)))
        x = ops.conv(x[None], weights["above"], padding="valid", data_format="channels_last")[0]
        return x + weights["bias"]

    def left(self, weights, pixels):
        """Contribution of the pixels on the left to a pixel of the outputs.

        Args:
          weights: The result of `step_weights`.
          pixels: The kw // 2 pixels of the inputs on the left, from left to right, in one tensor
            [B, kw // 2 * F_in]. They are zeros outside the image.

        Returns:
          [B, filters].
        """
        return ops.matmul(pixels, weights["left"])

    def centre(self, weights, channel, x):
        """Contribution of the current position to the outputs of one group.

        Args:
          weights: The result of `step_weights`.
          channel: The group, a Python integer.
          x: [B, F], the inputs. It must have at least all groups that this group reads.

        Returns:
          [B, number of features of the group].
        """
        kernel = weights["centre"][channel]
        return ops.matmul(x[:, : kernel.shape[0]], kernel)

    def in_group_order(self, outputs):
        """Sorts the outputs [..., filters] of the whole layer by group."""
        return ops.take(outputs, np.argsort(self._out_groups, kind="stable"), axis=-1)

    def of_group(self, channel, outputs):
        """Takes the outputs of one group from outputs [B, filters] that are sorted by group."""
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
            "num_parts": self.num_parts,
        }

    @property
    def _right(self):
        """Number of columns on the right that the filter reads, in the rows above."""
        return self._reach if self._up else 0

    def _groups(self, num_features):
        return np.arange(num_features) % self.num_channels

    def _reads(self, in_groups, out_groups):
        """Whether an output of a group reads an input of a group at the centre tap."""
        return in_groups < out_groups if self.mask == "A" else in_groups <= out_groups

    def _kernel(self):
        kernel = ops.convert_to_tensor(self.w)
        return ops.cast(kernel * ops.cast(self._mask, kernel.dtype), self.compute_dtype)
