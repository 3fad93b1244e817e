"""The base class of all models: what a model defines, and what follows from it."""

import math
from functools import partial, reduce

import keras
from keras import ops

from pixel_cnn_pp import layers, likelihoods, views
from pixel_cnn_pp.models import conditions, embedding, inputs, scoring
from pixel_cnn_pp.models.blocks import BlockFunction
from pixel_cnn_pp.models.gated_blocks import GatedBlocks, run_block
from pixel_cnn_pp.models.keras_model import KerasModel
from pixel_cnn_pp.models.stages import Stage


class AutoregressiveModel(KerasModel):
    """A distribution of integer images, as a product over sub-pixels in raster order.

    log p(x) = sum{ log p(x[i] | x[0], ..., x[i - 1]) : i }, over rows, columns, channels.

    A subclass defines `conditionals` and `cached_step`, and sets `likelihood` in its constructor.
    Scoring, training, checkpoints, sampling and export need nothing else.

    The model is an ordinary `keras.Model`. After `compile(optimizer)`, `fit` minimises the mean
    loss of `likelihood` in bits/dim, and `evaluate` returns it. Both take images, or pairs (images,
    condition).

    Attributes:
      title: Name of the model in printed text.
      config: The configuration, one of the dataclasses of `config`.
      likelihood: `likelihoods.Likelihood`.
      recompute: Whether gradients compute parts of the network again to save memory.
      embedding: `embedding.EmbeddingNetwork` of the picture that images are conditioned on, or
        None.
      has_dropout: Whether training drops units, for which `conditionals` then needs a seed.
      reads_channels: Whether raw parameters depend on the earlier channels of their own pixel.
    """

    title = ""
    has_dropout = False
    reads_channels = False

    def __init__(self, config, recompute=False, **kwargs):
        """Keeps the arguments. A subclass calls this first, and then makes its layers.

        Args:
          config: The configuration.
          recompute: Whether gradients compute parts of the network again. This takes less memory
            and more time, and gives the same numbers.
          **kwargs: `dtype` ("float32", "mixed_bfloat16", "float64") and `name`, as for any
            `keras.Model`. The likelihood is always computed in the dtype of the variables.
        """
        if not hasattr(config, "image_shape"):
            raise ValueError(
                "`config` must be the configuration of the model, such as ModelConfig(). "
                f"Received: {type(config).__name__}"
            )
        super().__init__(autocast=False, **kwargs)
        # Keras models have no abstract methods.
        for name in ("conditionals", "cached_step"):
            if getattr(type(self), name) is getattr(AutoregressiveModel, name):
                raise TypeError(f"A model must define `{name}`. Received: {type(self).__name__}")
        if self.variable_dtype not in ("float32", "float64"):
            # These have too few digits for probabilities of levels and for small steps of weights.
            raise ValueError(
                "`dtype` must keep weights and likelihood in float32 or float64, such as "
                f"mixed_bfloat16. Received: dtype={self.dtype_policy.name!r}"
            )
        self.config = config
        self.recompute = recompute
        self._seed_generator = keras.random.SeedGenerator()
        self.embedding = embedding.make(config, self.dtype_policy)
        self._apply_embedding_block = BlockFunction(
            partial(run_block, layers.apply, None), recompute
        )

    # The methods that a model defines

    def conditionals(self, images, condition=None, training=False, seed=None, first_image=0):
        """Computes the raw parameters of every sub-pixel's distribution.

        The distribution of a sub-pixel depends only on the sub-pixels before it.

        Args:
          images: Integer or float tensor [B, H, W, C] of whole numbers in [0, L - 1].
          condition: What the images are conditioned on, as in `call`. Or None.
          training: Whether dropout is active.
          seed: Integer tensor [2] that determines the dropout. It may be None if there is none.
          first_image: Number of the first image within the whole batch, an integer or a tensor. The
            dropout of an image depends on its number, and not on how a batch is divided.

        Returns:
          Float tensor [B, H, W, P] in the dtype of the variables, see `likelihood`.
        """

    @property
    def cached_step(self):
        """Makes a `step.Step`, which computes the same raw parameters pixel after pixel."""

    @inputs.takes_labels
    def initialize(self, images, condition=None, seed=0):
        """Data-dependent initialisation from one whole batch.

        By default this checks its arguments and initialises the embedding network, if there is one.
        A model with such an initialisation of its own layers overrides it.

        Under a distribution strategy, call this in the strategy's scope and not inside `run`.
        Inside `run`, every replica would get different weights.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          condition: As in `call`.
          seed: Integer that determines the dropout.

        Raises:
          ValueError: If images or condition are not of the form that `call` asks for.
        """
        self.check_inputs(images, condition)
        if self.embedding is not None:
            run_on_block = partial(run_block, layers.initialize, None)
            self.embed(condition, GatedBlocks(layers.initialize, run_on_block))

    # The methods that follow from them

    @property
    def stages(self):
        """The stages of the model, a tuple of `stages.Stage`. Only a chain has more than one."""
        return (Stage("image", self, views.IMAGE),)

    @inputs.takes_labels
    def __call__(self, images, condition=None, **kwargs):
        """Checks the inputs, then runs `call`. Keras would add lines to an error inside `call`.

        Raises:
          ValueError: If images or condition are not of the form that `call` asks for.
        """
        images, condition = inputs.unpack(images, condition)
        is_right = self.check_inputs(images, condition)
        if self.config.num_classes is not None:
            condition = conditions.labels_of(condition, self.config.num_classes)
        raw_params = super().__call__(images, condition, **kwargs)
        # In a compiled function, this waits for the check. JAX cannot raise an error there: NaN is
        # seen, and wrong numbers are not.
        if is_right is None:
            return raw_params
        return keras.tree.map_structure(lambda x: ops.where(is_right, x, math.nan), raw_params)

    def call(self, images, condition=None, training=False, seed=None, first_image=0):
        """Computes the raw parameters of images, see `conditionals`.

        Args:
          images: Tensor [B, H, W, C] as in `conditionals`, or a pair (images, condition), which is
            what `fit` passes.
          condition: What the images are conditioned on. Labels, whole numbers [B] or [B, 1] in
            [0, num_classes - 1] or one-hot rows [B, num_classes]; or real vectors [B, D] or
            pictures [B, h, w, c] of whole numbers in [0, condition_levels - 1], as
            `condition_shape` of the configuration says. Gradients flow back into vectors. None for
            an unconditional model. All methods that take a condition also take labels as `labels=`.
          training: Whether dropout is active.
          seed: Integer tensor [2] that determines the dropout. With None, the model takes a seed
            from its own generator.
          first_image: As in `conditionals`.

        Returns:
          Float tensor [B, H, W, P].
        """
        images, condition = inputs.unpack(images, condition)
        if training and self.has_dropout and seed is None:
            seed = self._seed_generator.next()
        return self.conditionals(images, condition, training, seed, first_image)

    @inputs.takes_labels
    def log_prob(self, images, condition=None, reduce="image", batch_size=None):
        """Log-likelihood of integer images. It is exact, or a lower bound for dequantized data.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          condition: As in `call`.
          reduce: "image" for a number for each image, "pixel" for one for each pixel, given the
            pixels before it, "channel" for one for each sub-pixel, given all sub-pixels before it.
          batch_size: Number of images to compute at a time, by a compiled network. None computes
            all at once.

        Returns:
          Tensor [B], [B, H, W] or [B, H, W, C], nats.

        Raises:
          ValueError: As `call` does, or if the model has no likelihood, or only a bound where
            `reduce` is "channel".
        """
        scoring.check(self.likelihood, reduce, batch_size)
        if batch_size is None:
            return self.log_prob_parts(self(images, condition), images, reduce)
        self.check_inputs(images, condition)
        return scoring.log_prob_in_batches(self, images, condition, reduce, batch_size)

    @inputs.takes_labels
    def level_probabilities(self, images, row, column, channel, condition=None):
        """The probabilities of all levels of a sub-pixel, given the sub-pixels before it.

        Args:
          images: Tensor [B, H, W, C] as in `call`. Only the sub-pixels before this one count.
          row, column, channel: The place of the sub-pixel, integers. Negative ones count from the
            end.
          condition: As in `call`.

        Returns:
          Tensor [B, L].

        Raises:
          ValueError: As `call` does, or if there is no such place, or no likelihood.
        """
        self.likelihood.require_log_prob()
        self.check_inputs(images, condition)
        place = scoring.checked_place(images.shape[1:], row=row, column=column, channel=channel)
        return scoring.level_probabilities(self, images, place, condition)

    def log_prob_parts(self, raw_params, images, reduce):
        """Log-likelihood of images or of their parts, given their raw parameters.

        Args:
          raw_params: Float tensor [B, H, W, P], the result of `call`.
          images: Tensor [B, H, W, C] as in `call`.
          reduce: As in `log_prob`.

        Returns:
          As `log_prob`.
        """
        if reduce == "image":
            return self.log_prob_of(raw_params, images)
        return scoring.log_prob_parts(self, raw_params, images, reduce)

    def log_prob_of(self, raw_params, images, noise=None):
        """Log-likelihood of images, given their raw parameters.

        Args:
          raw_params: Float tensor [B, H, W, P], the result of `call`.
          images: Tensor [B, H, W, C] as in `call`.
          noise: The result of `noise`. None means `noise(images)`.

        Returns:
          Tensor [B], nats.

        Raises:
          ValueError: If the model has no likelihood.
        """
        self.likelihood.require_log_prob()
        return -self.loss_of(raw_params, images, noise)

    def loss_of(self, raw_params, images, noise=None):
        """The loss that training minimises: minus the log-likelihood, or the energy distance.

        Args:
          raw_params: Float tensor [B, H, W, P], the result of `call`.
          images: Tensor [B, H, W, C] as in `call`.
          noise: The result of `noise`. None means `noise(images)`.

        Returns:
          Tensor [B], nats. The energy distance has no unit.
        """
        images = ops.convert_to_tensor(images)
        noise = self.noise(images) if noise is None else noise

        def loss(raw_params):
            return self.likelihood.loss(raw_params, images, noise)

        if self.recompute and layers.gradients_are_taken():
            return keras.remat(loss)(raw_params)
        return loss(raw_params)

    def noise(self, images, seed=None, first_image=0):
        """Draws the noise that the loss of images needs.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          seed: Integer tensor [2], such as (seed of the run, number of the step), as in `call`.
            With None, the noise of an image depends only on its levels. Then its score is the same
            every time, whatever the other images are.
          first_image: Number of the first image within the whole batch, as in `call`.

        Returns:
          Tensor of uniforms in (0, 1), [B, *likelihood.noise_shape(H, W)]. None if the likelihood
          needs no noise.
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

    @inputs.takes_labels
    def bits_per_dim(self, images, condition=None):
        """Negative log-likelihood in bits per sub-pixel: nats / (H W C log 2).

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          condition: As in `call`.

        Returns:
          Tensor [B], bits/dim.

        Raises:
          ValueError: As `log_prob` does.
        """
        return scoring.bits_per_dim(-self.log_prob(images, condition), images)

    def distribution(self, raw_params):
        """The distribution of every pixel given the earlier pixels, for TensorFlow Probability.

        For the images from which `raw_params` was computed, its `log_prob` is that of the model.
        A sample of this distribution is not a sample of the model, because each pixel must be drawn
        given the drawn ones. Use `sampling.sample` for that.

        Args:
          raw_params: Float tensor [B, H, W, P], the result of `call`.

        Returns:
          `tfp.distributions.Distribution`, batch shape [B], event shape [H, W, C].

        Raises:
          ValueError: If the model has another likelihood than the discretized mixture.
        """
        shape = tuple(getattr(raw_params, "shape", ()))
        if shape[-1:] != (self.likelihood.num_params,):
            raise ValueError(
                f"`raw_params` must have the shape [B, H, W, {self.likelihood.num_params}], as the "
                f"model returns them. Received: {type(raw_params).__name__} of shape {shape}"
            )
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

    @property
    def is_conditional(self):
        """Whether the images are conditioned on something."""
        return conditions.is_there(self.config)

    def embed(self, condition, blocks=None):
        """Computes what the network takes of a condition. It is done once for a batch.

        Args:
          condition: As in `call`, or None.
          blocks: `gated_blocks.GatedBlocks` for the embedding network. None applies it without
            dropout.

        Returns:
          `conditions.Condition`. A picture, or its features, has the sides of the images.
        """
        network = None
        if self.embedding is not None:
            blocks = blocks or GatedBlocks(layers.apply, self._apply_embedding_block)
            network = partial(self.embedding, blocks=blocks)
        dtypes = self.compute_dtype, self.variable_dtype
        return conditions.embed(condition, self.config, *dtypes, network)

    @inputs.takes_labels
    def check_inputs(self, images, condition=None):
        """Checks images and condition.

        In a compiled function of TensorFlow, values are checked when it runs. Then the error is an
        `InvalidArgumentError`.

        Args:
          images: The value to check, which should be images [B, H, W, C].
          condition: The value to check, which should be a condition as in `call`, or None.

        Returns:
          None, or in a compiled function a Boolean tensor [], false if values are wrong.

        Raises:
          ValueError: If they are not of the form that `call` asks for. The message has one line.
        """
        channels, num_levels = self.config.image_shape[-1], self.config.num_levels
        checks = [
            inputs.check_images(images, channels, num_levels),
            inputs.check_condition(condition, tuple(images.shape), self.config),
        ]
        checks = [is_right for is_right in checks if is_right is not None]
        return reduce(ops.logical_and, checks) if checks else None
