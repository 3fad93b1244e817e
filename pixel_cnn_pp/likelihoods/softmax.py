"""Likelihoods with a free probability for every level: softmax, and Bernoulli for two levels."""

import abc

from keras import ops

from pixel_cnn_pp.likelihoods import base
from pixel_cnn_pp.likelihoods.scale import level_dtype, to_unit_scale


class _Categorical(base.Likelihood):
    """P(x) = prod{ softmax(logits of channel c, given the earlier ones)[x[c]] : c }."""

    @property
    def num_uniforms(self):
        """C."""
        return self.num_channels

    @abc.abstractmethod
    def _parts(self, raw_params):
        """Divides the raw parameters into a list of tensors [..., L], once for all channels."""

    @abc.abstractmethod
    def _logits(self, parts, channel, earlier):
        """Logits [..., L] of a channel. `earlier` lists the earlier channels, [...] in [-1, 1]."""

    def log_prob(self, raw_params, levels, noise=None):
        """Exact log-probability; arguments as in `base.Likelihood`."""
        self.check_params(raw_params)
        parts = self._parts(raw_params)
        values = to_unit_scale(levels, self.num_levels, raw_params.dtype)
        values = ops.unstack(values, self.num_channels, axis=-1)
        log_prob = 0.0
        for channel in range(self.num_channels):
            logits = self._logits(parts, channel, values)
            # This is one operation of the backend, which saves time, because there are many logits.
            log_prob = log_prob - ops.sparse_categorical_crossentropy(
                ops.cast(levels[..., channel], "int32"), logits, from_logits=True
            )
        return log_prob

    def log_pmf(self, raw_params, channel, earlier):
        """As in `base.Likelihood`."""
        return ops.log_softmax(self._logits_given(raw_params, channel, earlier), axis=-1)

    def draw(self, raw_params, channel, earlier, uniforms, controls):
        """Draws a level by inverting the cumulative distribution, as in `base.Likelihood`.

        The level is the number of levels v for which P(x <= v) is at most the channel's uniform.
        The logits are divided by the temperature. The mode "map" takes the most probable level.
        """
        temperature, _, is_map = (controls[i] for i in range(3))
        logits = self._logits_given(raw_params, channel, earlier)
        # The greatest logit becomes 0, so that no logit overflows to inf at a low temperature.
        logits = (logits - ops.max(logits, axis=-1, keepdims=True)) / temperature
        cumulated = ops.cumsum(ops.softmax(logits, axis=-1), axis=-1)
        is_below = ops.cast(cumulated <= uniforms[..., channel : channel + 1], "int32")
        # The sum of all probabilities may be rounded to less than the uniform.
        level = ops.minimum(ops.sum(is_below, axis=-1), self.num_levels - 1)
        best = ops.cast(ops.argmax(logits, axis=-1), "int32")
        return ops.cast(ops.where(is_map > 0, best, level), level_dtype(self.num_levels))

    def _logits_given(self, raw_params, channel, earlier):
        self.check_params(raw_params)
        values = [to_unit_scale(x, self.num_levels, raw_params.dtype) for x in earlier]
        return self._logits(self._parts(raw_params), channel, values)


class LinearSoftmax(_Categorical):
    """A softmax whose logits depend linearly on earlier channels (Salimans et al. 2017, 3.4.1).

    logits of channel c = raw[c] + sum{ coeffs[c, j] * y[j] : j < c },

    with y[j] in [-1, 1] the earlier channels of the same pixel. The raw parameters are the logits
    of all channels, then the coefficients in the order (1, 0), (2, 0), (2, 1), (3, 0), ...: 1536
    numbers for a pixel of 3 channels and 256 levels.
    """

    name = "likelihood softmax"

    @property
    def num_params(self):
        """(C + C (C - 1) / 2) L."""
        return self.num_channels * (self.num_channels + 1) // 2 * self.num_levels

    def _parts(self, raw_params):
        return ops.split(raw_params, self.num_params // self.num_levels, axis=-1)

    def _logits(self, parts, channel, earlier):
        logits = parts[channel]
        for earlier_channel, x in enumerate(earlier[:channel]):
            index = channel * (channel - 1) // 2 + earlier_channel
            logits = logits + parts[self.num_channels + index] * x[..., None]
        return logits


class Softmax(_Categorical):
    """A softmax for each channel, for a network that reads the earlier channels itself.

    P(x) = prod{ softmax(raw[c])[x[c]] : c } (van den Oord et al. 2016, section 2.3). The raw
    parameters are the logits of channel 0, then those of channel 1, and so on.
    """

    name = "likelihood softmax"

    @property
    def num_params(self):
        """C L."""
        return self.num_channels * self.num_levels

    def _parts(self, raw_params):
        return ops.split(raw_params, self.num_channels, axis=-1)

    def _logits(self, parts, channel, earlier):
        return parts[channel]


class Bernoulli(base.Likelihood):
    """P(x[c] = 1) = sigmoid(raw[c]), for two levels and a network that reads earlier channels."""

    name = "likelihood bernoulli"

    def __init__(self, num_channels):
        """Makes the likelihood of C channels of 2 levels."""
        super().__init__(num_channels, 2)

    @property
    def num_params(self):
        """C."""
        return self.num_channels

    @property
    def num_uniforms(self):
        """C."""
        return self.num_channels

    def log_prob(self, raw_params, levels, noise=None):
        """Exact log-probability; arguments as in `base.Likelihood`.

        log P(1) = -softplus(-raw), log P(0) = -softplus(raw)
        """
        self.check_params(raw_params)
        signs = to_unit_scale(levels, 2, raw_params.dtype)
        return -ops.sum(ops.softplus(-signs * raw_params), axis=-1)

    def log_pmf(self, raw_params, channel, earlier):
        """As in `base.Likelihood`."""
        self.check_params(raw_params)
        logit = raw_params[..., channel]
        return -ops.softplus(ops.stack([logit, -logit], axis=-1))

    def draw(self, raw_params, channel, earlier, uniforms, controls):
        """Draws level 1 if P(0) is at most the channel's uniform, as in `base.Likelihood`.

        The logit is divided by the temperature. The mode "map" takes the more probable level.
        """
        temperature, _, is_map = (controls[i] for i in range(3))
        self.check_params(raw_params)
        logit = raw_params[..., channel]
        drawn = ops.sigmoid(-logit / temperature) <= uniforms[..., channel]
        return ops.cast(ops.where(is_map > 0, logit > 0, drawn), level_dtype(2))
