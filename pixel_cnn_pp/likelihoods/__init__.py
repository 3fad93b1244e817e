"""The mathematics of the likelihood, in keras.ops.

Integers in [0, L - 1] come in and go out; the scale [-1, 1], in which the network and its mixture
live, exists only between these doors.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

# Floor of the network's log-scales, and with it the narrowest logistic, as in the original release.
MIN_LOG_SCALE = -7.0

# How many values an expectation or a search looks at in one go; bounds the memory, not the result.
_CHUNK = 256
# Up to this many levels `mean` sums over earlier channels exactly; above, over as many quantiles.
_MAX_NODES = 16


def level_dtype(num_levels):
    """The integer dtype of images with `num_levels` levels: uint8 where it is wide enough."""
    return "uint8" if num_levels <= 256 else "int32"


def to_unit_scale(levels, num_levels, dtype="float32"):
    """Maps whole numbers in [0, L - 1] to [-1, 1]: x = (v - (L - 1)/2) / ((L - 1)/2).

    Args:
      levels: Integer or float tensor of any shape, whole numbers in [0, L - 1].
      num_levels: L, at least 2.
      dtype: Float dtype of the result.

    Returns:
      Tensor of the same shape, `dtype`, in [-1, 1].
    """
    half_range = (num_levels - 1) / 2
    return (ops.cast(levels, dtype) - half_range) / half_range


def from_unit_scale(values, num_levels):
    """Maps [-1, 1] to the nearest whole number in [0, L - 1]; values outside go to the ends.

    Args:
      values: Float tensor of any shape.
      num_levels: L, at least 2.

    Returns:
      Float tensor of the same shape and dtype, whole numbers in [0, L - 1].
    """
    half_range = (num_levels - 1) / 2
    return ops.clip(ops.round(values * half_range + half_range), 0, num_levels - 1)


def bits_per_dim(nats, num_dims):
    """Converts the negative log-likelihood of an image from nats to bits per dimension.

    bits_per_dim = nats / (num_dims * log(2)), with num_dims = H * W * C.
    """
    return nats / (num_dims * math.log(2.0))


def logistic_bin_log_mass(levels, loc, log_scale, num_levels):
    """Log of the mass that a logistic puts into the bin [x - 1/2, x + 1/2] around a level.

    With a and b the standardised upper and lower edge of the bin,

        sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(-(a - b))),

    so the logarithm is a sum of terms that lose no digits in either tail:

        log P = -softplus(-a) - softplus(b) + log(-expm1(-(a - b))).

    The outermost bins are open-ended (Salimans et al. 2017, equation 2): level 0 drops the terms of
    the lower edge, level L - 1 those of the upper one. The original release takes the density in
    the middle of the bin where the mass is under 1e-5; this is exact instead.

    Args:
      levels: Tensor that broadcasts against `loc`, whole numbers in [0, L - 1].
      loc: Float tensor, the logistic's mean in the scale [-1, 1].
      log_scale: Float tensor that broadcasts against `loc`, the log of its scale.
      num_levels: L, at least 2.

    Returns:
      Tensor of the broadcast shape, nats.
    """
    levels = ops.cast(levels, loc.dtype)
    half_bin = 1.0 / (num_levels - 1)
    inverse_scale = ops.exp(-log_scale)
    distance = to_unit_scale(levels, num_levels, loc.dtype) - loc
    upper = (distance + half_bin) * inverse_scale
    lower = (distance - half_bin) * inverse_scale
    # a - b by its closed form: the difference of the two edges would cancel.
    width = 2 * half_bin * inverse_scale
    # exp(-log_scale) underflows beyond log_scale = 80; the floor keeps the logarithm finite there.
    width = ops.maximum(width, float(np.finfo("float32").tiny))

    is_bottom = levels < 0.5
    is_top = levels > num_levels - 1.5
    log_below_upper = -ops.softplus(-upper)
    log_above_lower = -ops.softplus(lower)
    inside = log_below_upper + log_above_lower + ops.log(-ops.expm1(-width))
    return ops.where(is_bottom, log_below_upper, ops.where(is_top, log_above_lower, inside))


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
    """

    num_channels: int
    num_levels: int

    def params_per_component(self):
        """Number of network outputs per mixture component: 1 + 2 C + C (C - 1) / 2."""
        return 1 + 2 * self.num_channels + _num_coeffs(self.num_channels)

    def split(self, raw_params):
        """Reads the raw outputs of the network as the parameters of a mixture.

        The last axis is a row of groups of K numbers: the mixture logits, then for every channel
        its means, its log-scales and its share of the coefficients, dealt in order. For C = 3 this
        is the layout of the original release. Log-scales are floored at -7 and coefficients go
        through tanh, as there.

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
            log_scale=ops.maximum(ops.stack(log_scale, axis=-2), MIN_LOG_SCALE),
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
        loc = ops.stack(
            [
                # The zeros give every channel the leading axes of the levels.
                self._conditional_loc(params, channel, values) + ops.zeros_like(values[0])
                for channel in range(self.num_channels)
            ],
            axis=-2,
        )  # [..., C, K]
        log_mass = logistic_bin_log_mass(
            levels[..., None], loc, params.log_scale, self.num_levels
        )  # [..., C, K]
        log_weights = ops.log_softmax(params.mixture_logits, axis=-1)
        return ops.logsumexp(log_weights + ops.sum(log_mass, axis=-2), axis=-1)

    def sample(self, params, mixture_uniforms, logistic_uniforms, quantize=True):
        """Draws pixels: the component first, then channel by channel; a function of the uniforms.

        The component is the argmax of logits - log(-log(u)); a channel is
        mean + scale * (log(u) - log(1 - u)), rounded to the nearest level and clipped before it
        shifts the means of the later channels. So the draws follow `log_prob`.

        Args:
          params: MixtureParams.
          mixture_uniforms: Float tensor [..., K] in (0, 1).
          logistic_uniforms: Float tensor [..., C] in (0, 1).
          quantize: False leaves the channels clipped but unrounded, in [-1, 1], as the original
            release does; such draws do not follow `log_prob`.

        Returns:
          Tensor [..., C]: whole numbers of `level_dtype`, or floats in [-1, 1].
        """
        params = self.select(params, mixture_uniforms)
        logistic_noise = ops.log(logistic_uniforms) - ops.log1p(-logistic_uniforms)
        drawn = []  # each [..., 1]
        for channel in range(self.num_channels):
            loc = self._conditional_loc(params, channel, drawn)
            scale = ops.exp(params.log_scale[..., channel, :])
            noise = logistic_noise[..., channel : channel + 1]
            value = ops.clip(loc + scale * noise, -1.0, 1.0)
            if quantize:
                value = self._nearest_level(value)
            drawn.append(value)
        values = ops.concatenate(drawn, axis=-1)
        if not quantize:
            return values
        return ops.cast(from_unit_scale(values, self.num_levels), level_dtype(self.num_levels))

    def num_uniforms(self, num_outputs):
        """How many uniforms `draw` takes for a pixel of so many raw outputs: K + C."""
        return num_outputs // self.params_per_component() + self.num_channels

    def draw(self, raw_params, uniforms, controls):
        """Draws pixels from the raw outputs of the network, changed as the sampler is told.

        Args:
          raw_params: Float tensor [..., (1 + 2 C + C (C - 1) / 2) K].
          uniforms: Float tensor [..., K + C] in (0, 1).
          controls: Float tensor [3]: temperature, which divides the mixture logits and multiplies
            the scales; what is subtracted from the log-scales; 1 for the mode of the drawn
            component instead of a draw from it, or else 0.

        Returns:
          Tensor [..., C], whole numbers of `level_dtype`.
        """
        params = self.split(raw_params)
        temperature, log_scale_offset, is_map = (controls[i] for i in range(3))
        params = params._replace(
            mixture_logits=params.mixture_logits / temperature,
            log_scale=params.log_scale + (ops.log(temperature) - log_scale_offset),
        )
        num_components = params.mixture_logits.shape[-1]
        mixture_uniforms, logistic_uniforms = ops.split(uniforms, [num_components], axis=-1)
        # The median of a logistic is its mode.
        logistic_uniforms = ops.where(is_map > 0, 0.5, logistic_uniforms)
        return self.sample(params, mixture_uniforms, logistic_uniforms)

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

    def mode(self, params):
        """The most probable pixel.

        Starts from the best pixel of which every channel is a component's own centre, level 0 or
        level L - 1 (the open-ended bins, where much mass can lie), and then sets one channel after
        the other to its most probable level given the rest, by trying all L of them. Exact for
        C = 1; for more channels a pixel that no change of a single channel improves, which after
        the few sweeps made here is nearly always the global maximum.

        Args:
          params: MixtureParams.

        Returns:
          Tensor [..., C], whole numbers of `level_dtype`.
        """
        starts = []  # the values of every channel, x in [-1, 1]: each [..., N, K]
        for channel in range(self.num_channels):
            loc = self._conditional_loc(_insert_axis(params), channel, starts)
            centres = self._nearest_level(loc)  # [..., N, K]
            ends = ops.ones_like(centres)
            starts = _cross(starts, ops.stack([centres, -ends, ends], axis=-3))
        starts = from_unit_scale(ops.stack(starts, axis=-1), self.num_levels)  # [..., N, K, C]
        *batch_shape, num_nodes, num_components, num_channels = ops.shape(starts)
        starts = ops.reshape(starts, (*batch_shape, num_nodes * num_components, num_channels))
        best = self._best(params, starts)
        num_sweeps = 1 if self.num_channels == 1 else 3
        for _ in range(num_sweeps):
            for channel in range(self.num_channels):
                for first in range(0, self.num_levels, _CHUNK):
                    tried = ops.arange(first, min(first + _CHUNK, self.num_levels))
                    tried = ops.cast(tried, best.dtype)[:, None]  # [n, 1]
                    is_channel = ops.arange(self.num_channels) == channel  # [C]
                    candidates = ops.where(is_channel, tried, best[..., None, :])  # [..., n, C]
                    candidates = ops.concatenate([best[..., None, :], candidates], axis=-2)
                    best = self._best(params, candidates)
        return ops.cast(best, level_dtype(self.num_levels))

    def mean(self, params):
        """The expected level of every channel.

        Exact for C = 1 and for L <= 16. Otherwise the later channels average over 16 quantiles of
        each earlier one and leave the rounding of their own draws out, an error well under one
        level.

        Args:
          params: MixtureParams.

        Returns:
          Float tensor [..., C], in [0, L - 1].
        """
        weights = ops.softmax(params.mixture_logits, axis=-1)  # [..., K]
        is_exact = self.num_levels <= _MAX_NODES
        params = _insert_axis(params)
        nodes = []  # the values of every earlier channel, x in [-1, 1]: each [..., N, K]
        node_probs = ops.ones_like(params.mixture_logits)  # [..., N, K]
        means = []
        for channel in range(self.num_channels):
            loc = self._conditional_loc(params, channel, nodes)  # [..., N, K]
            log_scale = params.log_scale[..., channel, :]  # [..., 1, K]
            if channel == 0 or is_exact:
                mean_level = _discretized_logistic_mean(loc, log_scale, self.num_levels)
            else:
                mean_level = _clipped_logistic_mean(loc, log_scale, self.num_levels)
            mean_level = ops.sum(mean_level * node_probs, axis=-2)  # [..., K]
            means.append(ops.sum(mean_level * weights, axis=-1))
            if channel + 1 < self.num_channels:
                values, probs = self._nodes(loc, log_scale, is_exact)  # [..., n, N, K]
                nodes = _cross(nodes, values)
                node_probs = _merge_nodes(node_probs[..., None, :, :] * probs)
        return ops.stack(means, axis=-1)

    def _conditional_loc(self, params, channel, earlier):
        """Means [..., K] of a channel, given the list of its earlier ones."""
        loc = params.loc[..., channel, :]
        for earlier_channel, x in enumerate(earlier[:channel]):
            index = channel * (channel - 1) // 2 + earlier_channel
            loc = loc + params.coeffs[..., index, :] * x
        return loc

    def _nearest_level(self, values):
        """Rounds values of the scale [-1, 1] to the nearest level, in the same scale."""
        levels = from_unit_scale(values, self.num_levels)
        return to_unit_scale(levels, self.num_levels, values.dtype)

    def _best(self, params, candidates):
        """The most probable of n candidates [..., n, C], as [..., C]."""
        # By the mass of the bins, also where `log_prob` is a density.
        log_prob = LogisticMixture.log_prob(self, _insert_axis(params), candidates)  # [..., n]
        chosen = ops.one_hot(
            ops.argmax(log_prob, axis=-1), candidates.shape[-2], dtype=candidates.dtype
        )  # [..., n]
        return ops.sum(candidates * chosen[..., None], axis=-2)

    def _nodes(self, loc, log_scale, is_exact):
        """n values of a channel and their probabilities, to average over: [..., n, N, K] each."""
        loc, log_scale = loc[..., None, :, :], log_scale[..., None, :, :]
        if is_exact:
            levels = ops.arange(self.num_levels)[:, None, None]  # [n, 1, 1]
            probs = ops.exp(logistic_bin_log_mass(levels, loc, log_scale, self.num_levels))
            return to_unit_scale(levels, self.num_levels, loc.dtype) + 0 * probs, probs
        quantiles = (np.arange(_MAX_NODES) + 0.5) / _MAX_NODES
        noise = np.log(quantiles) - np.log1p(-quantiles)
        noise = ops.convert_to_tensor(noise[:, None, None], dtype=loc.dtype)
        values = self._nearest_level(loc + ops.exp(log_scale) * noise)
        return values, ops.ones_like(values) / _MAX_NODES


@dataclasses.dataclass(frozen=True)
class DequantizedLogisticMixture(LogisticMixture):
    """The continuous mixture of logistics on dequantized data (Salimans et al. 2017, 3.4.2).

    The density p of `LogisticMixture`'s logistics, without bins, at x + u - 1/2 with u uniform in
    (0, 1), in units of a level. By Jensen's inequality

        E[log p(x + u - 1/2)] <= log P(x),  P(x) the integral of p over the bins of the channels,

    so it bounds a likelihood from below; one draw of u for every sub-pixel estimates it. A mean is
    shifted by earlier channels as they are in the data, not by their dequantized values. Drawn
    values are rounded to levels and clipped, so that pixels come up with the bins' mass, the
    outermost bins being open-ended.
    """

    def log_prob(self, params, levels, noise):
        """Log-density of dequantized pixels, channels summed: the bound from one draw of noise.

        log p = -(x - mean) / s - 2 softplus(-(x - mean) / s) - log(s) - log((L - 1) / 2)

        Args:
          params: MixtureParams whose leading axes broadcast against those of `levels`.
          levels: Tensor [..., C], whole numbers in [0, L - 1].
          noise: Float tensor [..., C], u in (0, 1).

        Returns:
          Tensor [...], nats.
        """
        values = to_unit_scale(levels, self.num_levels, params.loc.dtype)
        values = ops.split(values, self.num_channels, axis=-1)  # each [..., 1]
        half_range = (self.num_levels - 1) / 2
        offsets = (ops.cast(noise, params.loc.dtype) - 0.5) / half_range
        log_density = 0.0
        for channel in range(self.num_channels):
            loc = self._conditional_loc(params, channel, values)
            log_scale = params.log_scale[..., channel, :]
            value = values[channel] + offsets[..., channel : channel + 1]
            distance = (value - loc) * ops.exp(-log_scale)
            log_density = log_density - distance - 2 * ops.softplus(-distance) - log_scale
        log_weights = ops.log_softmax(params.mixture_logits, axis=-1)
        log_prob = ops.logsumexp(log_weights + log_density, axis=-1)
        return log_prob - self.num_channels * math.log(half_range)


class SoftmaxParams(NamedTuple):
    """Parameters of a softmax over the L levels of each of the C channels of a pixel.

    logits: [..., C, L], before the shift by earlier channels.
    coeffs: [..., C (C - 1) / 2, L], how much channel j < c shifts the logits of channel c, in the
      order (1, 0), (2, 0), (2, 1), (3, 0), ...; None for C = 1.
    """

    logits: Any
    coeffs: Any


@dataclasses.dataclass(frozen=True)
class Softmax:
    """A softmax over all levels of every channel (Salimans et al. 2017, section 3.4.1).

    P(x) = prod{ softmax(logits[c] + sum{ coeffs[c, j] * y[j] : j < c })[x[c]] : c }

    with y[j] in [-1, 1] the earlier channels of the same pixel, on which logits depend linearly:
    1536 outputs of the network for a pixel of 3 channels and 256 levels.

    Attributes:
      num_channels: C, at least 1.
      num_levels: L, at least 2.
    """

    num_channels: int
    num_levels: int

    def num_outputs(self):
        """Number of network outputs of a pixel: (C + C (C - 1) / 2) L."""
        return (self.num_channels + _num_coeffs(self.num_channels)) * self.num_levels

    def split(self, raw_params):
        """Reads the raw outputs of the network: the logits of all channels, then the coefficients.

        Args:
          raw_params: Float tensor [..., (C + C (C - 1) / 2) L].

        Returns:
          SoftmaxParams.

        Raises:
          ValueError: If the last axis of `raw_params` has another size.
        """
        if raw_params.shape[-1] != self.num_outputs():
            raise ValueError(
                f"The last axis of raw_params must be {self.num_outputs()} for "
                f"{self.num_channels} channels of {self.num_levels} levels. "
                f"Received: raw_params of shape {raw_params.shape}"
            )
        num_groups = self.num_outputs() // self.num_levels
        groups = ops.split(raw_params, num_groups, axis=-1)  # each [..., L]
        logits, coeffs = groups[: self.num_channels], groups[self.num_channels :]
        return SoftmaxParams(
            ops.stack(logits, axis=-2), ops.stack(coeffs, axis=-2) if coeffs else None
        )

    def log_prob(self, params, levels):
        """Log-probability of integer pixels, channels summed.

        Args:
          params: SoftmaxParams whose leading axes broadcast to those of `levels`.
          levels: Tensor [..., C], whole numbers in [0, L - 1].

        Returns:
          Tensor [...], nats.
        """
        dtype = params.logits.dtype
        values = ops.split(
            to_unit_scale(levels, self.num_levels, dtype), self.num_channels, axis=-1
        )
        log_prob = 0.0
        parts = self._unstacked(params)
        for channel in range(self.num_channels):
            # The zeros give every channel the leading axes of the levels.
            logits = self._conditional_logits(parts, channel, values) + ops.zeros_like(values[0])
            # One operation of the backend, with its gradient: the outputs are many.
            log_prob = log_prob - ops.sparse_categorical_crossentropy(
                ops.cast(levels[..., channel], "int32"), logits, from_logits=True
            )
        return log_prob

    def num_uniforms(self, num_outputs):
        """How many uniforms `draw` takes for a pixel: C."""
        return self.num_channels

    def draw(self, raw_params, uniforms, controls):
        """Draws pixels from the raw outputs of the network, changed as the sampler is told.

        A channel is the number of levels v whose P(x <= v) is at most its uniform.

        Args:
          raw_params: Float tensor [..., (C + C (C - 1) / 2) L].
          uniforms: Float tensor [..., C] in (0, 1).
          controls: Float tensor [3]: temperature, which divides the logits; a number without a
            meaning here; 1 for the most probable level instead of a draw, or else 0.

        Returns:
          Tensor [..., C], whole numbers of `level_dtype`.
        """
        parts = self._unstacked(self.split(raw_params))
        temperature, _, is_map = (controls[i] for i in range(3))
        drawn, values = [], []  # each [..., 1]
        for channel in range(self.num_channels):
            logits = self._conditional_logits(parts, channel, values)
            # The greatest at 0: a low temperature sends the others to -inf, and none to inf.
            logits = (logits - ops.max(logits, axis=-1, keepdims=True)) / temperature
            cumulated = ops.cumsum(ops.softmax(logits, axis=-1), axis=-1)
            is_below = ops.cast(cumulated <= uniforms[..., channel : channel + 1], "int32")
            # The sum of all may be rounded to less than a uniform.
            level = ops.minimum(ops.sum(is_below, axis=-1), self.num_levels - 1)
            best = ops.cast(ops.argmax(logits, axis=-1), "int32")
            drawn.append(ops.where(is_map > 0, best, level)[..., None])
            values.append(to_unit_scale(drawn[-1], self.num_levels, logits.dtype))
        return ops.cast(ops.concatenate(drawn, axis=-1), level_dtype(self.num_levels))

    def _conditional_logits(self, parts, channel, earlier):
        """Logits [..., L] of a channel, given the list of its earlier ones in [-1, 1]."""
        logits = parts.logits[channel]
        for earlier_channel, x in enumerate(earlier[:channel]):
            index = channel * (channel - 1) // 2 + earlier_channel
            logits = logits + parts.coeffs[index] * x
        return logits

    def _unstacked(self, params):
        """SoftmaxParams as lists of tensors [..., L], at once: so their gradient is one stack."""
        num_coeffs = _num_coeffs(self.num_channels)
        return SoftmaxParams(
            ops.unstack(params.logits, self.num_channels, axis=-2),
            ops.unstack(params.coeffs, num_coeffs, axis=-2) if num_coeffs else [],
        )


def energy_distance(images, samples, num_levels):
    """The energy distance between images and the samples drawn for them (the release's objective).

        d(a, b) = sum{ (1e-10 + sum{ ((a - b) (L - 1) / 2)^2 : channels })^0.75 : positions }
        2 mean{ d(x, s[i]) : i } - mean{ d(s[i], s[j]) : i < j }

    An estimate without bias of a distance between distributions that is 0 where they are the same,
    up to a constant: the mean distance between images, which has no gradient.

    Args:
      images: Float tensor [B, H, W, C] in [-1, 1].
      samples: Float tensor [S, B, H, W, C] in [-1, 1], S at least 2.
      num_levels: L.

    Returns:
      Tensor [B], one number an image.
    """
    num_samples = samples.shape[0]

    def distance(difference):
        squared = ops.sum(ops.square(difference * ((num_levels - 1) / 2)), axis=-1)
        return ops.sum(ops.power(1e-10 + squared, 0.75), axis=(-2, -1))  # [..., B]

    to_images = ops.mean(distance(images[None] - samples), axis=0)
    between = 0.0
    # By the distance in their order, so that the largest tensor is that of the samples.
    for shift in range(1, num_samples):
        between = between + ops.sum(distance(samples[shift:] - samples[:-shift]), axis=0)
    num_pairs = num_samples * (num_samples - 1) / 2
    return 2 * to_images - between / num_pairs


def _num_coeffs(num_channels):
    """Pairs (channel, earlier channel) of a pixel."""
    return num_channels * (num_channels - 1) // 2


def _insert_axis(params):
    """Gives every parameter a leading axis of one behind the batch: one pixel, many candidates."""
    return MixtureParams(
        params.mixture_logits[..., None, :],
        params.loc[..., None, :, :],
        params.log_scale[..., None, :, :],
        None if params.coeffs is None else params.coeffs[..., None, :, :],
    )


def _discretized_logistic_mean(loc, log_scale, num_levels):
    """E[level] = sum{ P(level > v) : v = 0 .. L - 2 }, in levels; shapes as `loc`."""
    inverse_scale = ops.exp(-log_scale)
    total = ops.zeros_like(loc)
    for first in range(0, num_levels - 1, _CHUNK):
        edges = np.arange(first, min(first + _CHUNK, num_levels - 1)) + 0.5
        edges = to_unit_scale(ops.convert_to_tensor(edges, dtype=loc.dtype), num_levels, loc.dtype)
        above = ops.sigmoid((loc[..., None] - edges) * inverse_scale[..., None])
        total = total + ops.sum(above, axis=-1)
    return total


def _clipped_logistic_mean(loc, log_scale, num_levels):
    """E[clip(x, -1, 1)] = -1 + s (softplus((loc + 1) / s) - softplus((loc - 1) / s)), in levels."""
    scale = ops.exp(log_scale)
    expected = -1.0 + scale * (ops.softplus((loc + 1) / scale) - ops.softplus((loc - 1) / scale))
    return (expected + 1.0) * ((num_levels - 1) / 2)


def _cross(nodes, values):
    """Joins nodes, a list of [..., N, K] per channel, with a new channel's n values [..., n, N, K].

    Returns the longer list, the new channel's values last: each [..., n N, K].
    """
    nodes = [_merge_nodes(node[..., None, :, :] + 0 * values) for node in nodes]
    return [*nodes, _merge_nodes(values)]


def _merge_nodes(x):
    """[..., n, N, K] -> [..., n N, K]."""
    shape = ops.shape(x)
    return ops.reshape(x, (*shape[:-3], shape[-3] * shape[-2], shape[-1]))
