"""The energy distance, a loss without a likelihood. It is an option of the original release."""

from keras import ops

from pixel_cnn_pp.likelihoods import base
from pixel_cnn_pp.likelihoods.scale import from_unit_scale, level_dtype, to_unit_scale

# Number of samples for the energy distance, as in the release.
_NUM_SAMPLES = 10


def energy_distance(images, samples, num_levels):
    """The energy distance between images and the samples drawn for them (the release's objective).

        d(a, b) = sum{ (1e-10 + sum{ ((a - b) (L - 1) / 2)^2 : channels })^0.75 : positions }
        2 mean{ d(x, s[i]) : i } - mean{ d(s[i], s[j]) : i < j }

    Up to a constant, this is an unbiased estimate of a distance between two distributions, which is
    0 if they are equal. The constant is the mean distance between images, which has no gradient.

    Args:
      images: Float tensor [B, H, W, C] in [-1, 1].
      samples: Float tensor [S, B, H, W, C] in [-1, 1], S at least 2.
      num_levels: L.

    Returns:
      Tensor [B], one number without a unit for each image.
    """
    num_samples = samples.shape[0]

    def distance(difference):
        squared = ops.sum(ops.square(difference * ((num_levels - 1) / 2)), axis=-1)
        return ops.sum(ops.power(1e-10 + squared, 0.75), axis=(-2, -1))  # [..., B]

    to_images = ops.mean(distance(images[None] - samples), axis=0)
    between = 0.0
    # Each step pairs sample i with sample i + shift. So no tensor is larger than `samples`.
    for shift in range(1, num_samples):
        between = between + ops.sum(distance(samples[shift:] - samples[:-shift]), axis=0)
    num_pairs = num_samples * (num_samples - 1) / 2
    return 2 * to_images - between / num_pairs


class EnergyDistance(base.Likelihood):
    """A model of samples instead of probabilities. A head makes samples from the raw parameters.

    It has no `log_prob`. Its loss is `energy_distance` between an image and 10 samples for it.
    """

    name = "energy_distance"
    unit = "energy distance"
    loss_name = "energy_distance"
    controls = ()
    why_no_log_prob = (
        "A model that is trained by the energy distance has no likelihood. "
        "Received: energy_distance=True"
    )

    def __init__(self, num_levels, head):
        """Makes it.

        Args:
          num_levels: L.
          head: `layers.SampleHead`.
        """
        super().__init__(head.num_channels, num_levels)
        self._head = head
        self._sample = head

    @property
    def num_params(self):
        """P, the number of features that the head takes for a pixel."""
        return self._head.NUM_FEATURES

    @property
    def num_uniforms(self):
        """The number of noise values that the head takes for a pixel."""
        return self._head.NUM_NOISE

    def noise_shape(self, height, width):
        """(S, H, W, 4), where S is the number of samples."""
        return (_NUM_SAMPLES, height, width, self._head.NUM_NOISE)

    def log_prob(self, raw_params, levels, noise=None):
        """Raises a ValueError, because there is no likelihood."""
        self.require_log_prob()

    def log_pmf(self, raw_params, channel, earlier):
        """Raises a ValueError, because there is no likelihood."""
        self.require_log_prob()

    def loss(self, raw_params, images, noise=None):
        """The energy distance [B] between images and samples; arguments as in `base.Likelihood`."""
        self.check_params(raw_params)
        samples = ops.moveaxis(self._sample(raw_params[:, None], 2 * noise - 1), 1, 0)
        values = to_unit_scale(images, self.num_levels, samples.dtype)
        return energy_distance(values, samples, self.num_levels)

    def using(self, weights):
        """As in `base.Likelihood`."""
        likelihood = EnergyDistance(self.num_levels, self._head)
        likelihood._sample = lambda features, noise: self._head.step(
            weights[self._head.name], features, noise
        )
        return likelihood

    def draw(self, raw_params, channel, earlier, uniforms, controls):
        """Returns a channel of the sample that the uniforms determine. The controls do nothing."""
        self.check_params(raw_params)
        values = self._sample(raw_params, 2 * uniforms - 1)[..., channel]
        levels = from_unit_scale(values, self.num_levels)
        return ops.cast(levels, level_dtype(self.num_levels))
