"""The base class of the likelihoods."""

import abc

from keras import ops


class Likelihood(abc.ABC):
    """The meaning of a model's raw parameters: probabilities of integer sub-pixels.

    A subclass is one likelihood. Its raw parameters are a vector of P numbers for each pixel. The
    probability of channel c of a pixel is a function of this vector and of the earlier channels.

    Everything that depends on the kind of likelihood is defined in this class. So other code need
    not know which kind a model has.

    Attributes:
      name: Name of the likelihood in messages.
      unit: Unit of the mean loss, as it is printed after the number.
      loss_name: Name of the loss in TensorBoard's tags and in columns of tables.
      controls: The controls of `sampling.sample` that this likelihood has, a tuple of names among
        "temperature", "log_scale_offset" and "mode".
      why_no_log_prob: None, or the error message for a user who asks for `log_prob` if there is
        none.
    """

    name = ""
    unit = "bits/dim"
    loss_name = "bits_per_dim"
    controls = ("temperature", "mode")
    why_no_log_prob = None

    def __init__(self, num_channels, num_levels):
        """Makes the likelihood.

        Args:
          num_channels: C, at least 1.
          num_levels: L, at least 2.
        """
        self.num_channels = num_channels
        self.num_levels = num_levels

    @property
    @abc.abstractmethod
    def num_params(self):
        """P, the number of raw parameters of a pixel."""

    @property
    @abc.abstractmethod
    def num_uniforms(self):
        """The number of uniforms that `draw` takes for a pixel."""

    @abc.abstractmethod
    def log_prob(self, raw_params, levels, noise=None):
        """Log-probability of integer pixels, channels summed.

        Args:
          raw_params: Float tensor [..., P].
          levels: Tensor [..., C], whole numbers in [0, L - 1].
          noise: Float tensor of uniforms in (0, 1), [B, *noise_shape] for whole images. None if
            `noise_shape` is None.

        Returns:
          Tensor [...], nats.

        Raises:
          ValueError: If there is no likelihood, or if `raw_params` has another last axis than P.
        """

    @abc.abstractmethod
    def log_pmf(self, raw_params, channel, earlier):
        """Log-probabilities of all levels of one channel of pixels, given its earlier channels.

        Args:
          raw_params: Float tensor [..., P].
          channel: c, an integer in [0, C - 1].
          earlier: List of the c earlier channels, tensors [...] of whole numbers in [0, L - 1].

        Returns:
          Tensor [..., L], nats.

        Raises:
          ValueError: If there is no likelihood.
        """

    def log_prob_of_channel(self, raw_params, channel, earlier, levels):
        """Log-probability of one level of one channel of pixels, given its earlier channels.

        Args:
          raw_params: Float tensor [..., P].
          channel: c, an integer in [0, C - 1].
          earlier: List of the c earlier channels, as in `log_pmf`.
          levels: Integer tensor [...], the levels of channel c.

        Returns:
          Tensor [...], nats.

        Raises:
          ValueError: If there is no likelihood.
        """
        log_pmf = self.log_pmf(raw_params, channel, earlier)
        return ops.take_along_axis(log_pmf, levels[..., None], axis=-1)[..., 0]

    def given(self, raw_params, channel, earlier):
        """What `part_probs` needs of one channel of pixels, given its earlier channels.

        Args:
          raw_params: Float tensor [..., P].
          channel: c, an integer in [0, C - 1].
          earlier: List of the c earlier channels, as in `log_pmf`.

        Returns:
          A nest of tensors [..., N]. By default it is the table of the probabilities of all levels.

        Raises:
          ValueError: If there is no likelihood.
        """
        return ops.exp(self.log_pmf(raw_params, channel, earlier))

    def part_probs(self, given, first, size, num_parts):
        """Probabilities of parts of the levels, for a coder that need not see all levels.

        Part i has the levels from first + i size to first + (i + 1) size - 1, as far as they exist.

        Args:
          given: The result of `given` for the channel.
          first: int32 tensor [...], the first level of part 0.
          size: Number of levels in a part.
          num_parts: M, the number of parts.

        Returns:
          Tensor [..., M]. A part without levels has 0. So has one that is less probable than the
          smallest number of the dtype.
        """
        levels = first[..., None] + ops.arange(size * num_parts, dtype="int32")
        probs = ops.take_along_axis(given, ops.minimum(levels, self.num_levels - 1), axis=-1)
        probs = ops.where(levels < self.num_levels, probs, 0)
        probs = ops.reshape(probs, (*ops.shape(levels)[:-1], num_parts, size))
        return ops.sum(probs, axis=-1)

    @abc.abstractmethod
    def draw(self, raw_params, channel, earlier, uniforms, controls):
        """Draws one channel of pixels, given its earlier channels.

        With the controls (1, 0, 0), the draws follow `log_pmf`. All channels of a pixel get the
        same uniforms. Each channel uses its own part of them.

        Args:
          raw_params: Float tensor [..., P].
          channel: c, an integer in [0, C - 1].
          earlier: List of the c earlier channels, as in `log_pmf`.
          uniforms: Float tensor [..., `num_uniforms`] in (0, 1).
          controls: Float tensor [3]: temperature; log-scale offset; 1 for the mode "map" or else 0.

        Returns:
          Tensor [...], whole numbers of `scale.level_dtype`.
        """

    def loss(self, raw_params, images, noise=None):
        """The loss of whole images that training minimises: minus the log-likelihood.

        Args:
          raw_params: Float tensor [B, H, W, P].
          images: Tensor [B, H, W, C], whole numbers in [0, L - 1].
          noise: As in `log_prob`.

        Returns:
          Tensor [B], nats. A loss that is not a likelihood has no unit.
        """
        return -ops.sum(self.log_prob(raw_params, images, noise), axis=(1, 2))

    def noise_shape(self, height, width):
        """Shape of the noise for the loss of one image, a tuple. None if it needs no noise."""
        return None

    def require_log_prob(self):
        """Checks that there is a likelihood, before images are scored.

        Raises:
          ValueError: If there is none.
        """
        if self.why_no_log_prob is not None:
            raise ValueError(self.why_no_log_prob)

    def check_params(self, raw_params):
        """Checks that there are P raw parameters for each pixel.

        Args:
          raw_params: Float tensor [..., P].

        Raises:
          ValueError: If the last axis has another size.
        """
        if raw_params.shape[-1] != self.num_params:
            raise ValueError(
                f"The last axis of raw_params must be {self.num_params} for {self.name} of "
                f"{self.num_channels} channels and {self.num_levels} levels. "
                f"Received: raw_params of shape {tuple(raw_params.shape)}"
            )

    def using(self, weights):
        """The same likelihood for a cached step. If it has layers, they use the given weights.

        Args:
          weights: The weights of the step, {name of a layer: its weights}.

        Returns:
          Likelihood. It is this object, unless the likelihood has layers.
        """
        return self

    def distribution(self, raw_params):
        """The distribution of whole images, for TensorFlow Probability.

        Args:
          raw_params: Float tensor [B, H, W, P].

        Returns:
          `tfp.distributions.Distribution`, batch shape [B], event shape [H, W, C].

        Raises:
          ValueError: If there is none for this likelihood.
        """
        raise ValueError(
            "A distribution is there for the likelihood logistic_mixture only. "
            f"Received: a model of {self.name}"
        )
