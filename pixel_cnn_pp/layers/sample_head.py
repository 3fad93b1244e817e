"""The layers after the network that make a sample of a pixel, for the energy distance."""

import keras
from keras import ops

from pixel_cnn_pp.layers.blocks import concat_elu
from pixel_cnn_pp.layers.weight_norm import WeightNormDense, apply, initialize

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")


@_SERIALIZE
class SampleHead(keras.layers.Layer):
    """Makes a sample of a pixel from its features and noise (the release's `energy_distance`).

        f = features + dense(noise)
        sample = tanh(dense(concat_elu(dense(concat_elu(f)))))

    The last layer has init_scale 0.1, as in the release.
    """

    # Numbers of features and of noise values for a pixel, as in the release.
    NUM_FEATURES = 64
    NUM_NOISE = 4

    def __init__(self, num_channels, **kwargs):
        """Makes the head.

        Args:
          num_channels: C.
          **kwargs: Passed to `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.num_channels = num_channels

    def build(self, features_shape, noise_shape=None):
        """Creates the weights for features [..., NUM_FEATURES] and noise [..., NUM_NOISE]."""
        policy, size = {"dtype": self.dtype_policy}, self.NUM_FEATURES
        self.noise_in = WeightNormDense(size, name="noise_in", **policy)
        self.hidden = WeightNormDense(size, name="hidden", **policy)
        self.output_layer = WeightNormDense(
            self.num_channels, init_scale=0.1, name="output", **policy
        )
        self.noise_in.build((*features_shape[:-1], self.NUM_NOISE))
        for layer in (self.hidden, self.output_layer):
            layer.build((*features_shape[:-1], 2 * size))

    def call(self, features, noise):
        """Makes samples of pixels.

        Args:
          features: Float tensor [..., NUM_FEATURES].
          noise: Float tensor [..., NUM_NOISE] in (-1, 1). `features` is broadcast to its leading
            axes.

        Returns:
          Tensor [..., C] in [-1, 1], in the dtype of the variables.
        """
        return self._forward(apply, features, noise)

    def initialize(self, features, noise):
        """Initialises the inner layers in the order of the forward pass. Otherwise as `call`."""
        return self._forward(initialize, features, noise)

    def step_weights(self):
        """{name of an inner layer: its weights}, see `WeightNorm.step_weights`."""
        layers = (self.noise_in, self.hidden, self.output_layer)
        return {layer.name: layer.step_weights() for layer in layers}

    def step(self, weights, features, noise):
        """As `call`, with the weights of `step_weights`, on pixels [B, F]."""
        return self._forward(lambda layer, x: layer.step(weights[layer.name], x), features, noise)

    def _forward(self, run, features, noise):
        features, noise = (ops.cast(x, self.compute_dtype) for x in (features, noise))
        f = run(self.hidden, concat_elu(features + run(self.noise_in, noise)))
        return ops.tanh(ops.cast(run(self.output_layer, concat_elu(f)), self.variable_dtype))

    def compute_output_shape(self, features_shape, noise_shape):
        """[..., NUM_NOISE] -> [..., C]."""
        return (*noise_shape[:-1], self.num_channels)

    def get_config(self):
        """The arguments that the head was made with."""
        return {**super().get_config(), "num_channels": self.num_channels}
