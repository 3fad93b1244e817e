"""The continuous mixture of logistics on dequantized data. Its likelihood is a lower bound."""

import math

from keras import ops

from pixel_cnn_pp.likelihoods import base
from pixel_cnn_pp.likelihoods.mixture import DiscretizedMixture
from pixel_cnn_pp.likelihoods.scale import to_unit_scale


class DequantizedMixture(DiscretizedMixture):
    """The continuous mixture of logistics on dequantized data (Salimans et al. 2017, 3.4.2).

    Let p be the density of the mixture of logistics, in units of a level, and u uniform in (0, 1).
    Let P(x) be the integral of p over the bins of the channels. By Jensen's inequality

        E[log p(x + u - 1/2)] <= log P(x).

    So the expected value of `log_prob` is a lower bound of a log-likelihood. `log_prob` estimates
    it with one draw of u for every sub-pixel. Earlier channels shift a mean by their levels in the
    data, and not by their dequantized values.

    Drawn values are rounded to levels and clipped. So the probability of a drawn level is the mass
    of its bin, where the outermost bins are open-ended. `log_pmf` is the log of this mass.
    """

    name = "likelihood dequantized"
    unit = "bits/dim (bound)"
    distribution = base.Likelihood.distribution  # none, because draws do not follow `log_prob`

    def noise_shape(self, height, width):
        """[H, W, C]: one uniform for each sub-pixel."""
        return (height, width, self.num_channels)

    def log_prob(self, raw_params, levels, noise=None):
        """Log-density of dequantized pixels, channels summed. It estimates the bound from one draw.

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
