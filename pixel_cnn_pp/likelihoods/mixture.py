"""The mixture of logistics over the channels of a pixel, and the likelihood that uses it."""

import dataclasses
from typing import Any, NamedTuple

from keras import ops

from pixel_cnn_pp.likelihoods import base, logistic
from pixel_cnn_pp.likelihoods.logistic import logistic_bin_log_mass
from pixel_cnn_pp.likelihoods.scale import from_unit_scale, level_dtype, to_unit_scale

# With such a log-scale, all draws except the median are clipped to -1 or 1.
_MAX_DRAWN_LOG_SCALE = 80.0


class MixtureParams(NamedTuple):
    """Parameters of a mixture of K logistics over the C channels of a pixel.

    mixture_logits: [..., K], unnormalised log-weights, shared by the channels.
    loc: [..., C, K], means in the scale [-1, 1], before the shift by earlier channels.
    log_scale: [..., C, K].
    coeffs: [..., C (C - 1) / 2, K], how much channel j < c shifts the mean of channel c, in the
      order (1, 0), (2, 0), (2, 1), (3, 0), ...; None for C = 1.
    """

    mixture_logits: Any
    loc: Any
    log_scale: Any
    coeffs: Any


@dataclasses.dataclass(frozen=True)
class LogisticMixture:
    """The discretized mixture of logistics (Salimans et al. 2017, sections 2.1 and 2.2).

    log P(x) = log sum{ pi[k] * prod{ P[c, k](x[c]) : c } : k }, with P[c, k] the mass of the bin of
    x[c] under a logistic whose mean is shifted linearly by the earlier channels of the same pixel:

        mean[c, k] = loc[c, k] + sum{ coeffs[(c, j), k] * x[j] : j < c },   x in [-1, 1].

    Attributes:
      num_channels: C, at least 1.
      num_levels: L, at least 2.
      min_log_scale: Lower limit of the log-scales that `split` returns. None for
        `logistic.min_log_scale(L)`.
    """

    num_channels: int
    num_levels: int
    min_log_scale: float | None = None

    def params_per_component(self):
        """Number of network outputs per mixture component: 1 + 2 C + C (C - 1) / 2."""
        return 1 + 2 * self.num_channels + _num_coeffs(self.num_channels)

    def split(self, raw_params):
        """Converts the raw outputs of the network to the parameters of a mixture.

        The last axis consists of groups of K numbers. First come the mixture logits, and then for
        every channel its means, its log-scales and its part of the coefficients. For C = 3 this is
        the layout of the original release. As in the release, log-scales have a lower limit, and
        coefficients are the tanh of the raw outputs.

        Args:
          raw_params: Float tensor [..., (1 + 2 C + C (C - 1) / 2) K].

        Returns:
          MixtureParams.

        Raises:
          ValueError: If the last axis of `raw_params` is not a multiple of their number.
        """
        num_groups = self.params_per_component()
        if (raw_params.shape[-1] or 0) % num_groups:
            raise ValueError(
                f"The last axis of raw_params must be a multiple of {num_groups} for "
                f"{self.num_channels} channels. Received: raw_params of shape {raw_params.shape}"
            )
        floor = self.min_log_scale
        if floor is None:
            floor = logistic.min_log_scale(self.num_levels)
        groups = ops.split(raw_params, num_groups, axis=-1)  # each [..., K]
        loc, log_scale, coeffs = [], [], []
        next_group = 1
        for channel in range(self.num_channels):
            loc.append(groups[next_group])
            log_scale.append(groups[next_group + 1])
            share = _num_coeffs(self.num_channels) * (channel + 1) // self.num_channels
            share -= len(coeffs)
            coeffs.extend(groups[next_group + 2 : next_group + 2 + share])
            next_group += 2 + share
        return MixtureParams(
            mixture_logits=groups[0],
            loc=ops.stack(loc, axis=-2),
            log_scale=ops.maximum(ops.stack(log_scale, axis=-2), floor),
            coeffs=ops.tanh(ops.stack(coeffs, axis=-2)) if coeffs else None,
        )

    def log_prob(self, params, levels):
        """Log-probability of integer pixels, channels summed.

        Args:
          params: MixtureParams whose leading axes broadcast against those of `levels`.
          levels: Tensor [..., C], whole numbers in [0, L - 1].

        Returns:
          Tensor [...], nats.
        """
        values = to_unit_scale(levels, self.num_levels, params.loc.dtype)
        values = ops.split(values, self.num_channels, axis=-1)  # each [..., 1]
        # Each channel by itself: TensorFlow's gradient of slices takes many times as long.
        own_loc = ops.unstack(params.loc, self.num_channels, axis=-2)
        num_coeffs = _num_coeffs(self.num_channels)
        coeffs = ops.unstack(params.coeffs, num_coeffs, axis=-2) if num_coeffs else []
        loc = ops.stack(
            [
                # Adding zeros gives every channel the leading axes of the levels.
                self._shifted(own_loc[channel], coeffs, channel, values) + ops.zeros_like(values[0])
                for channel in range(self.num_channels)
            ],
            axis=-2,
        )  # [..., C, K]
        log_mass = logistic_bin_log_mass(
            levels[..., None], loc, params.log_scale, self.num_levels
        )  # [..., C, K]
        log_weights = ops.log_softmax(params.mixture_logits, axis=-1)
        return ops.logsumexp(log_weights + ops.sum(log_mass, axis=-2), axis=-1)

    def log_pmf(self, params, channel, earlier):
        """Log-probabilities of all levels of one channel, given the earlier channels of its pixel.

        log P(x[c] = v | x[0], ..., x[c - 1]) = log sum{ w[k] * P[c, k](v) : k }, where the weights
        w are those of the components given the earlier channels: w[k] is proportional to
        pi[k] * prod{ P[j, k](x[j]) : j < c }.

        Args:
          params: MixtureParams.
          channel: c, an integer in [0, C - 1].
          earlier: List of the c earlier channels, tensors [...] of whole numbers in [0, L - 1].

        Returns:
          Tensor [..., L], nats.
        """
        return self.log_prob_of_levels(params, channel, earlier, ops.arange(self.num_levels))

    def log_prob_of_levels(self, params, channel, earlier, levels):
        """As `log_pmf`, for some levels, an integer tensor [..., M] or [M]: [..., M]."""
        log_weights, loc, log_scale = self.given(params, channel, earlier)
        log_mass = logistic_bin_log_mass(
            levels[..., None],
            loc[..., None, :],
            log_scale[..., None, :],
            self.num_levels,
        )  # [..., M, K]
        return ops.logsumexp(log_weights[..., None, :] + log_mass, axis=-1)

    def given(self, params, channel, earlier):
        """The mixture of one channel, given the earlier channels.

        Args:
          params: MixtureParams.
          channel: c, an integer in [0, C - 1].
          earlier: List of the c earlier channels, as in `log_pmf`.

        Returns:
          (log-weights, means, log-scales) of the components, each [..., K].
        """
        values = [to_unit_scale(x, self.num_levels, params.loc.dtype)[..., None] for x in earlier]
        log_weights = params.mixture_logits
        for j, levels in enumerate(earlier):
            loc, log_scale = self.conditional_loc(params, j, values), params.log_scale[..., j, :]
            log_weights = log_weights + logistic_bin_log_mass(
                levels[..., None], loc, log_scale, self.num_levels
            )
        log_weights = ops.log_softmax(log_weights, axis=-1)
        loc = self.conditional_loc(params, channel, values)
        return log_weights, loc, params.log_scale[..., channel, :]

    def sample(self, params, mixture_uniforms, logistic_uniforms):
        """Draws pixels as a function of uniforms: first the component, then channel after channel.

        The component is the argmax of logits - log(-log(u)). A channel is rounded to the nearest
        level before it shifts the means of the later channels, so that the draws follow `log_prob`.

        Args:
          params: MixtureParams.
          mixture_uniforms: Float tensor [..., K] in (0, 1).
          logistic_uniforms: Float tensor [..., C] in (0, 1).

        Returns:
          Tensor [..., C], whole numbers of `level_dtype`.
        """
        params = self.select(params, mixture_uniforms)
        drawn, values = [], []  # levels [...]; in [-1, 1], [..., 1]
        for channel in range(self.num_channels):
            uniforms = logistic_uniforms[..., channel : channel + 1]
            value = self.draw_value(params, channel, values, uniforms)
            levels = from_unit_scale(value, self.num_levels)
            values.append(to_unit_scale(levels, self.num_levels, value.dtype))
            drawn.append(levels)
        return ops.cast(ops.concatenate(drawn, axis=-1), level_dtype(self.num_levels))

    def draw_value(self, params, channel, earlier, uniforms):
        """Draws a channel from a component, before rounding: mean + scale (log(u) - log(1 - u)).

        Args:
          params: MixtureParams with K = 1, as `select` returns them.
          channel: c, an integer in [0, C - 1].
          earlier: List of the earlier channels, float tensors [..., 1] in [-1, 1].
          uniforms: Float tensor [..., 1] in (0, 1).

        Returns:
          Float tensor [..., 1], clipped to [-1, 1].
        """
        noise = ops.log(uniforms) - ops.log1p(-uniforms)
        # exp overflows above 88, and infinity times 0, the noise of the median, is NaN.
        scale = ops.exp(ops.minimum(params.log_scale[..., channel, :], _MAX_DRAWN_LOG_SCALE))
        return ops.clip(self.conditional_loc(params, channel, earlier) + scale * noise, -1.0, 1.0)

    def select(self, params, mixture_uniforms):
        """Draws one component per pixel: MixtureParams with K = 1.

        Args:
          params: MixtureParams.
          mixture_uniforms: Float tensor [..., K] in (0, 1).

        Returns:
          MixtureParams of the drawn component, K = 1.
        """
        gumbel_noise = -ops.log(-ops.log(mixture_uniforms))
        component = ops.argmax(params.mixture_logits + gumbel_noise, axis=-1)
        chosen = ops.one_hot(
            component, params.mixture_logits.shape[-1], dtype=params.loc.dtype
        )  # [..., K]

        def pick(values):
            return ops.sum(values * chosen[..., None, :], axis=-1, keepdims=True)

        return MixtureParams(
            mixture_logits=ops.sum(params.mixture_logits * chosen, axis=-1, keepdims=True),
            loc=pick(params.loc),
            log_scale=pick(params.log_scale),
            coeffs=None if params.coeffs is None else pick(params.coeffs),
        )

    def conditional_loc(self, params, channel, earlier):
        """The means of a channel, given the earlier ones.

        Args:
          params: MixtureParams.
          channel: c, an integer in [0, C - 1].
          earlier: List of at least c earlier channels, float tensors [..., 1] in [-1, 1].

        Returns:
          Tensor [..., K], in the scale [-1, 1].
        """
        num_coeffs = _num_coeffs(channel + 1)
        coeffs = [params.coeffs[..., index, :] for index in range(num_coeffs)]
        return self._shifted(params.loc[..., channel, :], coeffs, channel, earlier)

    def _shifted(self, loc, coeffs, channel, earlier):
        """The means [..., K] of a channel, shifted by the earlier ones; `coeffs` is a list."""
        for earlier_channel, x in enumerate(earlier[:channel]):
            loc = loc + coeffs[channel * (channel - 1) // 2 + earlier_channel] * x
        return loc


class DiscretizedMixture(base.Likelihood):
    """The likelihood of `LogisticMixture`, with K components for each pixel.

    The controls change the mixture logits m and the log-scales s from which pixels are drawn to

        m / temperature,  s + log(temperature) - log_scale_offset.

    With the mode "map", a component is drawn, and the result is the mode of this component
    (Kolesnikov & Lampert 2017, section 4.2).
    """

    name = "likelihood logistic_mixture"
    controls = ("temperature", "log_scale_offset", "mode")

    def __init__(self, num_channels, num_levels, num_components, min_log_scale=None):
        """Makes the likelihood.

        Args:
          num_channels: C.
          num_levels: L.
          num_components: K.
          min_log_scale: As in `LogisticMixture`.
        """
        super().__init__(num_channels, num_levels)
        self.num_components = num_components
        self.mixture = LogisticMixture(num_channels, num_levels, min_log_scale)

    @property
    def num_params(self):
        """(1 + 2 C + C (C - 1) / 2) K."""
        return self.mixture.params_per_component() * self.num_components

    @property
    def num_uniforms(self):
        """K + C: the first K draw a component."""
        return self.num_components + self.num_channels

    def log_prob(self, raw_params, levels, noise=None):
        """Exact log-probability; arguments as in `base.Likelihood`."""
        return self.mixture.log_prob(self._split(raw_params), levels)

    def log_pmf(self, raw_params, channel, earlier):
        """As in `base.Likelihood`."""
        return self.mixture.log_pmf(self._split(raw_params), channel, earlier)

    def log_prob_of_channel(self, raw_params, channel, earlier, levels):
        """As in `base.Likelihood`, without a table of all levels."""
        params = self._split(raw_params)
        return self.mixture.log_prob_of_levels(params, channel, earlier, levels[..., None])[..., 0]

    def given(self, raw_params, channel, earlier):
        """As in `base.Likelihood`: the weights, means and log-scales of the components."""
        log_weights, loc, log_scale = self.mixture.given(self._split(raw_params), channel, earlier)
        return ops.exp(log_weights), loc, log_scale

    def part_probs(self, given, first, size, num_parts):
        """As in `base.Likelihood`, without a table of all levels."""
        weights, loc, log_scale = (each[..., None, :] for each in given)
        firsts = first[..., None] + size * ops.arange(num_parts, dtype="int32")
        # A part that does not exist gets some other level, which keeps the numbers finite.
        inside = ops.minimum(firsts, self.num_levels - 1)[..., None]
        mass = logistic.logistic_bin_mass(inside, loc, log_scale, self.num_levels, size)
        return ops.where(firsts < self.num_levels, ops.sum(weights * mass, axis=-1), 0)

    def draw(self, raw_params, channel, earlier, uniforms, controls):
        """As in `base.Likelihood`. All channels of a pixel have the same component."""
        params = self._split(raw_params)
        temperature, log_scale_offset, is_map = (controls[i] for i in range(3))
        params = params._replace(
            mixture_logits=params.mixture_logits / temperature,
            log_scale=params.log_scale + (ops.log(temperature) - log_scale_offset),
        )
        params = self.mixture.select(params, uniforms[..., : self.num_components])
        own = self.num_components + channel
        # The median of a logistic is its mode.
        own_uniforms = ops.where(is_map > 0, 0.5, uniforms[..., own : own + 1])
        values = [
            to_unit_scale(levels, self.num_levels, params.loc.dtype)[..., None]
            for levels in earlier
        ]
        value = self.mixture.draw_value(params, channel, values, own_uniforms)
        levels = from_unit_scale(value[..., 0], self.num_levels)
        return ops.cast(levels, level_dtype(self.num_levels))

    def distribution(self, raw_params):
        """As in `base.Likelihood`."""
        # This import is here, because the likelihoods also run on JAX, without TensorFlow.
        from pixel_cnn_pp.likelihoods import distributions

        self.check_params(raw_params)
        return distributions.image_distribution(raw_params, self.mixture)

    def _split(self, raw_params):
        self.check_params(raw_params)
        return self.mixture.split(raw_params)


def _num_coeffs(num_channels):
    """Number of pairs (channel, earlier channel) of a pixel."""
    return num_channels * (num_channels - 1) // 2
