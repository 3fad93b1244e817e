"""The mixture of logistics as a TensorFlow Probability distribution."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from pixel_cnn_pp.likelihoods import mixture_statistics, whole_numbers
from pixel_cnn_pp.likelihoods.mixture import LogisticMixture, MixtureParams
from pixel_cnn_pp.likelihoods.scale import level_dtype

tfd = tfp.distributions


class DiscretizedLogisticMixture(tfd.Distribution):
    """Distribution over the C integer channels of one pixel.

    P(x) = sum{ pi[k] * prod{ P[c, k](x[c]) : c } : k }, with P[c, k] the mass that a logistic with
    mean loc[c, k] + sum{ coeffs[(c, j), k] * x[j] : j < c } puts into the bin [x - 1/2, x + 1/2],
    open-ended at 0 and L - 1 (Salimans et al. 2017, sections 2.1 and 2.2). Means and scales are in
    the scale in which level 0 is -1 and level L - 1 is 1.

    Batch shape: the broadcast shape of the leading axes of the parameters. Event shape: [C].

    Example:

    >>> pixel = DiscretizedLogisticMixture(
    ...     mixture_logits=[0.0, 1.0], loc=[[-0.5, 0.5]], log_scale=[[-2.0, -2.0]])
    >>> pixel.log_prob(pixel.sample(4, seed=1)).shape
    TensorShape([4])
    """

    def __init__(
        self,
        mixture_logits,
        loc,
        log_scale,
        coeffs=None,
        num_levels=256,
        validate_args=False,
        allow_nan_stats=True,
        name="DiscretizedLogisticMixture",
    ):
        """Makes the distribution.

        Args:
          mixture_logits: Float tensor [..., K], unnormalised log-weights of the components.
          loc: Float tensor [..., C, K], means.
          log_scale: Float tensor [..., C, K], logs of the logistics' scales.
          coeffs: Float tensor [..., C (C - 1) / 2, K], how channel j < c shifts the mean of
            channel c, in the order (1, 0), (2, 0), (2, 1), ...; None for no shift.
          num_levels: L, at least 2; a pixel's channels are whole numbers in [0, L - 1].
          validate_args: As in `tfp.distributions.Distribution`. The values of `log_prob` are
            always checked.
          allow_nan_stats: As in `tfp.distributions.Distribution`.
          name: Name of the distribution.

        Raises:
          ValueError: If the shapes of the parameters do not fit each other, if they are in less
            than float32, or if L is not a whole number of at least 2.
        """
        arguments = dict(locals())
        with tf.name_scope(name) as name:
            self._loc = _to_tensor(loc, tf.float32)
            dtype = self._loc.dtype
            self._mixture_logits = _to_tensor(mixture_logits, dtype)
            self._log_scale = _to_tensor(log_scale, dtype)
            self._coeffs = None if coeffs is None else _to_tensor(coeffs, dtype)
            self._num_levels = num_levels
            num_channels = _check_arguments(
                self._mixture_logits, self._loc, self._log_scale, self._coeffs, num_levels
            )
            self._mixture = LogisticMixture(num_channels, num_levels)
            super().__init__(
                dtype=tf.as_dtype(level_dtype(num_levels)),
                reparameterization_type=tfd.NOT_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters={k: v for k, v in arguments.items() if k not in ("self", "__class__")},
                name=name,
            )

    @classmethod
    def from_raw_params(
        cls, raw_params, num_channels=3, num_levels=256, min_log_scale=None, **kwargs
    ):
        """The distribution of every pixel from the raw outputs of the network.

        Args:
          raw_params: Float tensor [..., (1 + 2 C + C (C - 1) / 2) K].
          num_channels: C.
          num_levels: L.
          min_log_scale: Floor of the log-scales, as in `mixture.LogisticMixture`. A run of more
            than 256 levels that an earlier version made has -7, see its configuration.
          **kwargs: Passed to the constructor.

        Returns:
          DiscretizedLogisticMixture of batch shape [...] and event shape [C].
        """
        mixture = LogisticMixture(num_channels, num_levels, min_log_scale)
        return cls(*mixture.split(raw_params), num_levels=num_levels, **kwargs)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        properties = tfp.util.ParameterProperties
        return {
            "mixture_logits": properties(event_ndims=1),
            "loc": properties(event_ndims=2),
            "log_scale": properties(event_ndims=2),
            "coeffs": properties(event_ndims=2),
        }

    @property
    def mixture_logits(self):
        """Unnormalised log-weights of the components, [..., K]."""
        return self._mixture_logits

    @property
    def loc(self):
        """Means before the shift by earlier channels, [..., C, K]."""
        return self._loc

    @property
    def log_scale(self):
        """Logs of the scales, [..., C, K]."""
        return self._log_scale

    @property
    def coeffs(self):
        """Shifts of later channels by earlier ones, [..., C (C - 1) / 2, K], or None."""
        return self._coeffs

    @property
    def num_levels(self):
        """L: the channels are whole numbers in [0, L - 1]."""
        return self._num_levels

    def _params(self):
        """The parameters as tensors, each with the whole batch shape."""
        num_channels = self._mixture.num_channels
        coeffs = self._coeffs
        if coeffs is None:
            num_coeffs = num_channels * (num_channels - 1) // 2
            coeffs = tf.zeros([num_coeffs, tf.shape(self._loc)[-1]], self._loc.dtype)
        return MixtureParams(
            self._broadcast(self._mixture_logits, event_ndims=1),
            self._broadcast(self._loc, event_ndims=2),
            self._broadcast(self._log_scale, event_ndims=2),
            None if num_channels == 1 else self._broadcast(coeffs, event_ndims=2),
        )

    def _broadcast(self, values, event_ndims):
        values = tf.convert_to_tensor(values)
        static_shape = self.batch_shape.concatenate(values.shape[-event_ndims:])
        if static_shape.is_fully_defined() and values.shape == static_shape:
            return values
        shape = tf.concat([self.batch_shape_tensor(), tf.shape(values)[-event_ndims:]], axis=0)
        return tf.ensure_shape(tf.broadcast_to(values, shape), static_shape)

    def _event_shape(self):
        return tf.TensorShape([self._mixture.num_channels])

    def _event_shape_tensor(self):
        return tf.constant([self._mixture.num_channels], tf.int32)

    def log_prob(self, value, name="log_prob", **kwargs):
        """As in `tfp.distributions.Distribution`. `value` must be whole numbers in [0, L - 1]."""
        return super().log_prob(self._checked(value), name, **kwargs)

    def prob(self, value, name="prob", **kwargs):
        """As in `tfp.distributions.Distribution`. `value` must be whole numbers in [0, L - 1]."""
        return super().prob(self._checked(value), name, **kwargs)

    def _checked(self, value):
        """The value as a tensor of its own dtype: TensorFlow Probability would cast it to uint8."""
        if not tf.is_tensor(value) and not isinstance(value, tf.Variable):
            value = np.asarray(value)
        whole_numbers.check("value", value, self._num_levels - 1)
        return tf.convert_to_tensor(value)

    def _log_prob(self, value):
        num_channels = self._mixture.num_channels
        if value.shape.rank is not None and not value.shape[-1:].is_compatible_with([num_channels]):
            raise ValueError(
                f"The last axis of value must be the {num_channels} channels. "
                f"Received: value of shape {value.shape}"
            )
        return self._mixture.log_prob(self._params(), value)

    def _sample_n(self, n, seed=None):
        mixture_seed, logistic_seed = tfp.random.split_seed(seed, n=2, salt=self.name)
        params = self._params()
        batch_shape = self.batch_shape_tensor()

        def uniforms(last_axis, seed):
            return tf.random.stateless_uniform(
                tf.concat([[n], batch_shape, [last_axis]], axis=0),
                seed=seed,
                # The smallest value is not 0, because its logarithm is -inf.
                minval=np.finfo(params.loc.dtype.as_numpy_dtype).tiny,
                dtype=params.loc.dtype,
            )

        return self._mixture.sample(
            params,
            uniforms(params.loc.shape[-1], mixture_seed),
            uniforms(self._mixture.num_channels, logistic_seed),
        )

    def _mean(self):
        return mixture_statistics.mean(self._mixture, self._params())

    def _mode(self):
        return mixture_statistics.mode(self._mixture, self._params())


def _to_tensor(value, dtype_hint):
    """Converts a value to a tensor. Variables stay variables, so that gradient tapes see them."""
    if isinstance(value, tf.Variable):
        return value
    return tf.convert_to_tensor(value, dtype_hint=dtype_hint)


def _check_arguments(mixture_logits, loc, log_scale, coeffs, num_levels):
    """Checks the arguments of the constructor, and returns the number of channels."""
    if not isinstance(num_levels, (int, np.integer)) or num_levels < 2:
        raise ValueError(
            f"num_levels must be a whole number, at least 2. Received: num_levels={num_levels!r}"
        )
    if loc.dtype not in (tf.float32, tf.float64):
        # bfloat16 cannot represent the width of the bins of 256 levels.
        raise ValueError(
            f"Parameters must be float32 or float64. Received: loc of dtype {loc.dtype.name}"
        )
    if loc.shape.rank is None or loc.shape.rank < 2 or not loc.shape[-2]:
        raise ValueError(
            f"loc must have a static shape [..., C, K]. Received: loc of shape {loc.shape}"
        )
    num_channels, num_components = loc.shape[-2:]
    num_coeffs = num_channels * (num_channels - 1) // 2
    expected_ends = [
        ("mixture_logits", mixture_logits, [num_components]),
        ("log_scale", log_scale, [num_channels, num_components]),
    ]
    if coeffs is not None and num_coeffs > 0:
        expected_ends.append(("coeffs", coeffs, [num_coeffs, num_components]))
    for name, value, end in expected_ends:
        if not value.shape[-len(end) :].is_compatible_with(end):
            raise ValueError(
                f"{name} must have the shape [..., {', '.join(map(str, end))}] to fit loc of shape "
                f"{loc.shape}. Received: {name} of shape {value.shape}"
            )
    return num_channels


def image_distribution(raw_params, mixture):
    """The distributions of all pixels of images, each given the pixels before it.

    Args:
      raw_params: Float tensor [B, H, W, (1 + 2 C + C (C - 1) / 2) K], the network's outputs.
      mixture: `mixture.LogisticMixture`.

    Returns:
      `tfd.Independent`, batch shape [B], event shape [H, W, C].
    """
    params = mixture.split(raw_params)
    pixels = DiscretizedLogisticMixture(*params, num_levels=mixture.num_levels)
    return tfd.Independent(pixels, reinterpreted_batch_ndims=2)
