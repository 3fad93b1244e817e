"""The contract: what every model answers, and what follows from its answers."""

import abc
import dataclasses
import math

import keras
from keras import ops

from pixel_cnn_pp import config, layers, likelihoods
from pixel_cnn_pp.models import inputs


class AutoregressiveModel(keras.Model):
    """A distribution of integer images, sub-pixel after sub-pixel in raster order.

    log p(x) = sum{ log p(x[i] | x[0], ..., x[i - 1]) : i }, over rows, columns, channels.

    A model defines `conditionals` and `cached_step`, and sets `likelihood` in its constructor.
    Everything else follows: likelihoods, training, checkpoints, sampling, export.

    It is an ordinary `keras.Model`: after `compile(optimizer)`, `fit` on images, or on pairs
    (images, labels), minimises the mean loss of `likelihood` in bits/dim, and `evaluate` returns
    it.

    Attributes:
      title: What the model is called in what is printed.
      config: The configuration, one of the dataclasses of `config`.
      likelihood: `likelihoods.Likelihood`.
      recompute: Whether gradients compute again what they can, instead of keeping it in memory.
      side_multiple: What height and width of an image must be multiples of.
      reads_channels: Whether raw parameters depend on the earlier channels of their own pixel.
    """

    title = ""
    side_multiple = 1
    reads_channels = False

    def __init__(self, config, recompute=False, **kwargs):
        """Keeps the arguments; a subclass makes its layers after it.

        Args:
          config: The configuration.
          recompute: Less memory for more time, with the same numbers.
          **kwargs: `dtype` ("float32", "mixed_bfloat16", "float64") and `name`, as for any
            `keras.Model`. The likelihood is always computed in the dtype of the variables.
        """
        super().__init__(autocast=False, **kwargs)
        self.config = config
        self.recompute = recompute
        self._seed_generator = keras.random.SeedGenerator()

    # What a model defines

    @abc.abstractmethod
    def conditionals(self, images, condition=None, training=False, seed=None, first_image=0):
        """Raw parameters of every pixel's distribution; each depends on the pixels before it only.

        Args:
          images: Integer, or float, tensor [B, H, W, C] of whole numbers in [0, L - 1].
          condition: Integer tensor [B], labels in [0, num_classes - 1]; None for none.
          training: Whether dropout is active.
          seed: Integer tensor [2] that determines the dropout; not None where that is active.
          first_image: Number of the first image within the whole batch, also as a tensor: the
            dropout of an image depends on its number, not on how a batch is divided.

        Returns:
          Float tensor [B, H, W, P] in the dtype of the variables, see `likelihood`.
        """

    @property
    @abc.abstractmethod
    def cached_step(self):
        """A `step.Step` that computes the same numbers."""

    def initialize(self, images, labels=None, seed=0):
        """Data-dependent initialisation, on one whole batch; of most models nothing but the checks.

        Under a distribution strategy, call it in its scope and not inside `run`: in there, every
        replica would get weights of its own.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          labels: Tensor [B] as in `call`.
          seed: Integer that determines the dropout.

        Raises:
          ValueError: If images or labels are not of the form that `call` asks for.
        """
        self.check_inputs(images, labels)

    # What follows

    def __call__(self, images, labels=None, **kwargs):
        """Checks the inputs, then runs `call`, in which Keras would wrap an error in more lines."""
        images, labels = inputs.unpack(images, labels)
        self.check_inputs(images, labels)
        return super().__call__(images, labels, **kwargs)

    def call(self, images, labels=None, training=False, seed=None, first_image=0):
        """The raw parameters of images, see `conditionals`.

        Args:
          images: Tensor [B, H, W, C] as in `conditionals`, or a pair (images, labels), the form in
            which `fit` hands them on.
          labels: Integer tensor [B] in [0, num_classes - 1]; None for an unconditional model.
          training: Whether dropout is active.
          seed: Integer tensor [2] that determines the dropout, or None to let the model draw on a
            generator of its own.
          first_image: As in `conditionals`.

        Returns:
          Float tensor [B, H, W, P].

        Raises:
          ValueError: If images or labels are not of this form.
        """
        images, labels = inputs.unpack(images, labels)
        if training and seed is None:
            seed = self._seed_generator.next()
        return self.conditionals(images, labels, training, seed, first_image)

    def log_prob(self, images, labels=None):
        """Exact log-likelihood of integer images; of dequantized data a lower bound of it.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          labels: Tensor [B] as in `call`.

        Returns:
          Tensor [B], nats.

        Raises:
          ValueError: As `call` does, or if the model has no likelihood.
        """
        self.likelihood.require_log_prob()
        return self.log_prob_of(self(images, labels), images)

    def log_prob_of(self, raw_params, images, noise=None):
        """Log-likelihood of images under the raw parameters that the network gave for them.

        Args:
          raw_params: Float tensor [B, H, W, P], what `call` returned.
          images: Tensor [B, H, W, C] as in `call`.
          noise: What `noise` returned; None for that of the images.

        Returns:
          Tensor [B], nats.

        Raises:
          ValueError: If the model has no likelihood.
        """
        self.likelihood.require_log_prob()
        return -self.loss_of(raw_params, images, noise)

    def loss_of(self, raw_params, images, noise=None):
        """What training minimises: minus the log-likelihood, or what the likelihood has for it.

        Args:
          raw_params: Float tensor [B, H, W, P], what `call` returned.
          images: Tensor [B, H, W, C] as in `call`.
          noise: What `noise` returned; None for that of the images.

        Returns:
          Tensor [B], nats, or of the energy distance a number without a unit.
        """
        images = ops.convert_to_tensor(images)
        noise = self.noise(images) if noise is None else noise

        def loss(raw_params):
            return self.likelihood.loss(raw_params, images, noise)

        return keras.remat(loss)(raw_params) if self.recompute else loss(raw_params)

    def noise(self, images, seed=None, first_image=0):
        """The noise that the loss of images takes, where the likelihood takes any.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          seed: Integer tensor [2], such as (seed of the run, number of the step), as in `call`.
            None makes the noise of an image a function of its levels, so that its bound does not
            depend on the other images, nor on how often it is computed.
          first_image: Number of the first image within the whole batch, as in `call`.

        Returns:
          Tensor of uniforms in (0, 1), [B, *likelihood.noise_shape(H, W)], or None.
        """
        num_images, height, width, _ = ops.shape(images)
        shape = self.likelihood.noise_shape(height, width)
        if shape is None:
            return None
        if seed is None:
            seeds = layers.image_digests(images)
        else:
            seeds = layers.image_seeds(ops.convert_to_tensor(seed), num_images, first_image)
        return ops.cast(layers.image_uniforms(seeds, shape), self.variable_dtype)

    def bits_per_dim(self, images, labels=None):
        """Negative log-likelihood in bits per sub-pixel: nats / (H W C log 2).

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          labels: Tensor [B] as in `call`.

        Returns:
          Tensor [B], bits/dim.

        Raises:
          ValueError: As `log_prob` does.
        """
        return _bits_per_dim(-self.log_prob(images, labels), images)

    def distribution(self, raw_params):
        """The distribution of every pixel given those before it, as TensorFlow Probability has it.

        Its `log_prob` of the images that `raw_params` came from is the model's. (A sample of it is
        not a sample of the model: that takes pixel after pixel, see `sampling.sample`.)

        Args:
          raw_params: Float tensor [B, H, W, P], what `call` returned.

        Returns:
          `tfp.distributions.Distribution`, batch shape [B], event shape [H, W, C].

        Raises:
          ValueError: If the model has another likelihood than the discretized mixture.
        """
        return self.likelihood.distribution(raw_params)

    def scale(self, levels):
        """Levels as inputs of the first layers, on the scale [-1, 1].

        Args:
          levels: Tensor [..., C] of whole numbers in [0, L - 1].

        Returns:
          Float tensor [..., C] in the compute dtype.
        """
        x = likelihoods.to_unit_scale(levels, self.config.num_levels, self.variable_dtype)
        return ops.cast(x, self.compute_dtype)

    def one_hot(self, labels):
        """Labels [B] as [B, num_classes] in the compute dtype; None for a model without classes."""
        if self.config.num_classes is None:
            return None
        return ops.one_hot(labels, self.config.num_classes, dtype=self.compute_dtype)

    def check_inputs(self, images, labels=None):
        """Refuses what is not an image or a label, in one line; values where they are known.

        Args:
          images: What stands for images [B, H, W, C].
          labels: What stands for labels [B], or None.

        Raises:
          ValueError: If they are not of the form that `call` asks for.
        """
        channels, num_levels = self.config.image_shape[-1], self.config.num_levels
        inputs.check_images(images, channels, num_levels, self.side_multiple)
        inputs.check_labels(labels, tuple(images.shape), self.config.num_classes)

    # Keras

    def compile(self, *args, jit_compile="auto", **kwargs):
        """As `keras.Model.compile`; on TensorFlow, "auto" stands for no XLA.

        XLA takes minutes to compile so many layers, and is not faster on a CPU.
        """
        if jit_compile == "auto" and keras.backend.backend() == "tensorflow":
            jit_compile = False
        super().compile(*args, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config):
        """Compiles a loaded model as it was; Keras leaves that to those who override `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """Trains as `keras.Model.fit` does; `x` images, `y` labels, or `x` a stream of both."""
        self._check_arrays(x, y)
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Mean bits/dim as `keras.Model.evaluate` gives a loss; arguments as in `fit`."""
        self._check_arrays(x, y)
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Raw parameters; `x` images, a pair (images, labels), or a stream of either."""
        self._check_arrays(x, None)
        return super().predict(x, *args, **kwargs)

    def predict_on_batch(self, x):
        """Raw parameters of one batch; `x` images, or a pair (images, labels)."""
        self._check_arrays(x, None)
        return super().predict_on_batch(x)

    def train_step(self, *args):
        """One step of `fit`: the labels are an input of the network, not its target."""
        *state, data = args
        return super().train_step(*state, self._as_inputs(data))

    def test_step(self, *args):
        """One step of `evaluate`."""
        *state, data = args
        return super().test_step(*state, self._as_inputs(data))

    def predict_step(self, *args):
        """One step of `predict`, which gives raw parameters."""
        *state, data = args
        return super().predict_step(*state, self._as_inputs(data))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean bits/dim of a batch, or the mean of the weighted ones."""
        images = x[0] if isinstance(x, list | tuple) else x
        noise = self.noise(images, self._seed_generator.next()) if training else None
        bits_per_dim = _bits_per_dim(self.loss_of(y_pred, images, noise), images)
        if sample_weight is not None:
            bits_per_dim = bits_per_dim * ops.cast(sample_weight, bits_per_dim.dtype)
        # Keras sums over replicas: this divides by their number. It has no public name.
        return self._aggregate_additional_loss(ops.mean(bits_per_dim))

    def get_config(self):
        """The arguments that the model was made with."""
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "config": dataclasses.asdict(self.config),
            "recompute": self.recompute,
        }

    @classmethod
    def from_config(cls, values):
        """The model with these arguments, with fresh weights."""
        return cls(**{**values, "config": config.model_config(values["config"])})

    def _as_inputs(self, data):
        """What `fit` was given, (images, labels, weights) or less, as ((images, labels), ...)."""
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if self.config.num_classes is None or labels is None:
            return images, None, weights
        return (images, labels), None, weights

    def _check_arrays(self, x, y):
        """Checks what `fit` and its like got as arrays: in a compiled step there are no values."""
        x, y = inputs.unpack(x, y)
        if hasattr(x, "shape"):
            self.check_inputs(x, y if self.config.num_classes is not None else None)


def _bits_per_dim(nats, images):
    """Bits/dim [B] of images [B, H, W, C], of which H and W may be unknown as yet."""
    num_dims = ops.cast(math.prod(ops.shape(images)[1:]), nats.dtype)
    return likelihoods.bits_per_dim(nats, num_dims)
