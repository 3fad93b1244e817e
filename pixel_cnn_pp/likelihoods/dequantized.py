"""The continuous mixture of logistics on dequantized data, whose likelihood is a bound."""

import math

from keras import ops

from pixel_cnn_pp.likelihoods import base
from pixel_cnn_pp.likelihoods.mixture import DiscretizedMixture
from pixel_cnn_pp.likelihoods.scale import to_unit_scale


class DequantizedMixture(DiscretizedMixture):
    """The continuous mixture of logistics on dequantized data (Salimans et al. 2017, 3.4.2).

    The density p of the mixture's logistics, without bins, at x + u - 1/2 with u uniform in (0, 1),
    in units of a level. By Jensen's inequality

        E[log p(x + u - 1/2)] <= log P(x),  P(x) the integral of p over the bins of the channels,

    so `log_prob` bounds a likelihood from below. One draw of u for every sub-pixel estimates it. A
    mean is shifted by earlier channels as they are in the data, not by their dequantized values.

    Drawn values are rounded to levels and clipped. So pixels are drawn with the mass of the bins,
    the outermost bins being open-ended, and `log_pmf` is that mass.
    """

    name = "likelihood dequantized"
    unit = "bits/dim (bound)"
    distribution = base.Likelihood.distribution  # its draws have other probabilities than log_prob

    def noise_shape(self, height, width):
        """[H, W, C]: one uniform for each sub-pixel."""
        return (height, width, self.num_channels)

    def log_prob(self, raw_params, levels, noise=None):
        """Log-density of dequantized pixels, channels summed: the bound from one draw of noise.

        log p = -(x - mean) / s - 2 softplus(-(x - mean) / s) - log(s) - log((L - 1) / 2)

        Args:
          raw_params: Float tensor [..., P].
          levels: Tensor [..., C], whole numbers in [0, L - 1].
          noise: Float tensor [..., C], u in (0, 1).

        Returns:
          Tensor [...], nats.
        """
        params = self._split(raw_params)
        values = to_unit_scale(levels, self.num_levels, params.loc.dtype)
        values = ops.split(values, self.num_channels, axis=-1)  # each [..., 1]
        half_range = (self.num_levels - 1) / 2
        offsets = (ops.cast(noise, params.loc.dtype) - 0.5) / half_range
        log_density = 0.0
        for channel in range(self.num_channels):
            loc = self.mixture.conditional_loc(params, channel, values)
            log_scale = params.log_scale[..., channel, :]
            value = values[channel] + offsets[..., channel : channel + 1]
            distance = (value - loc) * ops.exp(-log_scale)
            log_density = log_density - distance - 2 * ops.softplus(-distance) - log_scale
        log_weights = ops.log_softmax(params.mixture_logits, axis=-1)
        log_prob = ops.logsumexp(log_weights + log_density, axis=-1)
        return log_prob - self.num_channels * math.log(half_range)
