"""PixelCNNPP: from a configuration to the network."""

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp import layers, likelihoods
from pixel_cnn_pp.config import CHANNEL_GROUPS, ModelConfig
from pixel_cnn_pp.layers import (
    AutoregressiveChannelBlock,
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    GatedResidualBlock,
    SampleHead,
    WeightNormDense,
)

# Samples for which the energy distance is computed, as in the release.
_NUM_ENERGY_SAMPLES = 10


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class PixelCNNPP(keras.Model):
    """PixelCNN++ (Salimans et al. 2017): an autoregressive model of integer images.

    Two streams pass through the network: the downward one sees all rows above a pixel, the
    rightward one also what is left of it in its row. Three stages of gated residual blocks go down
    in resolution and three go up again, and a short-cut leads from each layer of the first half to
    its mirror image in the second (section 2.4, figure 2). The variants of sections 3.3 and 3.4
    and the release's energy distance are fields of the configuration: those of the layers stand in
    the constructor, those of the output in `_output_layers`.

    It is an ordinary `keras.Model`: after `compile(optimizer)`, `fit` on images, or on pairs
    (images, labels), minimises the mean bits/dim, a bound of it or the energy distance, as the
    configuration says, and `evaluate` returns it.

    Example:

    >>> model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 1), nr_resnet=1, nr_filters=8))
    >>> images = np.random.default_rng(0).integers(0, 256, [16, 8, 8, 1], dtype=np.uint8)
    >>> model.initialize(images)
    >>> model.bits_per_dim(images).shape
    TensorShape([16])
    """

    def __init__(self, config, recompute=False, **kwargs):
        """Makes the network with fresh weights.

        Args:
          config: ModelConfig.
          recompute: Whether gradients compute residual blocks and likelihood again instead of
            keeping what is within them: less memory, more time, the same numbers.
          **kwargs: `dtype` ("float32", "mixed_bfloat16", "float64") and `name`, as for any
            `keras.Model`. The likelihood is always computed in the dtype of the variables.
        """
        super().__init__(autocast=False, **kwargs)
        self.config = config
        self.recompute = recompute
        self._seed_generator = keras.random.SeedGenerator()

        filters, nr_resnet = config.nr_filters, config.nr_resnet
        policy = {"dtype": self.dtype_policy}
        above_size = {"full": (2, 3), "11x5": (1, 2), "15x8": (2, 2)}[config.receptive_field]
        self.input_above = DownShiftedConv2D(filters, above_size, name="input_above", **policy)
        self.input_row_above = DownShiftedConv2D(filters, (1, 3), name="input_row_above", **policy)
        self.input_left = DownRightShiftedConv2D(filters, (2, 1), name="input_left", **policy)

        def pair(down, right, **arguments):
            return [(partial(down, **arguments), partial(right, **arguments))]

        def block_pair(block, right_arguments=None, **arguments):
            return pair(
                partial(block, DownShiftedConv2D),
                partial(block, DownRightShiftedConv2D, **(right_arguments or {})),
                nonlinearity=config.resnet_nonlinearity,
                **arguments,
            )

        blocks = block_pair(GatedResidualBlock)
        halve = pair(DownShiftedConv2D, DownRightShiftedConv2D, filters=filters, strides=2)
        double = pair(
            DownShiftedConv2DTranspose,
            DownRightShiftedConv2DTranspose,
            filters=filters,
            strides=2,
        )
        if config.receptive_field == "full":
            # Every resolution has one more layer on the way up than on the way down, because the
            # short-cut of the strided layer ends there too.
            encoder = (blocks * nr_resnet + halve) * 2 + blocks * nr_resnet
            decoder = blocks * nr_resnet + (double + blocks * (nr_resnet + 1)) * 2
        else:
            # With the release's filters the fields would be 12x7 and 16x9: on their way through the
            # last block of the rightward stream, both the row above and the column on the left come
            # on top of what the downward stream sees. So the rightward filters have one row, and
            # the downward stream starts from a column less on the left.
            small_blocks = block_pair(GatedResidualBlock, {"kernel_size": (1, 2)})
            # What stands between two blocks sees no position but its own (section 3.3).
            between = {
                "plain": [],
                "nin": block_pair(GatedResidualBlock, kernel_size=(1, 1)) * 3,
                "autoregressive_channel": block_pair(
                    AutoregressiveChannelBlock, num_groups=CHANNEL_GROUPS
                ),
            }[config.small_variant]
            encoder = small_blocks + (between + small_blocks) * (nr_resnet - 1)
            decoder = []
        self.encoder_down, self.encoder_right = _streams("encoder", encoder, policy)
        self.decoder_down, self.decoder_right = _streams("decoder", decoder, policy)
        self.likelihood, num_outputs, self.head = self._output_layers(policy)
        self.output_layer = WeightNormDense(num_outputs, name="output", **policy)
        self.build((None, *config.image_shape))

    def _output_layers(self, policy):
        """The likelihood, or None; the number of raw parameters; the head behind them, or None."""
        config = self.config
        size = config.image_shape[-1], config.num_levels
        if config.energy_distance:
            head = SampleHead(config.image_shape[-1], name="head", **policy)
            return None, head.NUM_FEATURES, head
        if config.likelihood == "softmax":
            likelihood = likelihoods.Softmax(*size)
            return likelihood, likelihood.num_outputs(), None
        likelihood = likelihoods.LogisticMixture(*size)
        if config.likelihood == "dequantized":
            likelihood = likelihoods.DequantizedLogisticMixture(*size)
        return likelihood, likelihood.params_per_component() * config.nr_logistic_mix, None

    def build(self, input_shape):
        """Creates the weights. The constructor has called it: the configuration says all shapes."""
        if self.built:
            return
        config = self.config
        image_shape = (None, None, None, config.image_shape[-1] + 1)  # the channel of ones
        hidden_shape = (None, None, None, config.nr_filters)
        h_shape = None if config.num_classes is None else (None, config.num_classes)
        for layer in (self.input_above, self.input_row_above, self.input_left):
            layer.build(image_shape)
        short_cut = config.nr_filters if config.shortcuts else 0
        a_channels = {
            "encoder_down": 0,
            "encoder_right": config.nr_filters,
            "decoder_down": short_cut,
            "decoder_right": config.nr_filters + short_cut,
        }
        for stream, channels in a_channels.items():
            a_shape = (*hidden_shape[:-1], channels) if channels else None
            for layer in getattr(self, stream):
                if isinstance(layer, GatedResidualBlock | AutoregressiveChannelBlock):
                    layer.build(hidden_shape, a_shape, h_shape)
                else:
                    layer.build(hidden_shape)
        self.output_layer.build(hidden_shape)
        if self.head is not None:
            self.head.build((*hidden_shape[:-1], self.output_layer.filters))
        self.built = True

    def __call__(self, images, labels=None, **kwargs):
        """Checks the inputs, then runs `call`, in which Keras would wrap an error in more lines."""
        images, labels = _unpack(images, labels)
        self.check_inputs(images, labels)
        return super().__call__(images, labels, **kwargs)

    def call(self, images, labels=None, training=False, seed=None, first_image=0):
        """Raw parameters of every pixel's distribution; each depends on the pixels before it only.

        Args:
          images: Integer, or float, tensor [B, H, W, C] of whole numbers in [0, L - 1]; H and W
            any multiples of 4. Or a pair (images, labels), the form in which `fit` hands them on.
          labels: Integer tensor [B] in [0, num_classes - 1]; None for an unconditional model.
          training: Whether dropout is active.
          seed: Integer tensor [2] that determines the dropout, or None to let the model draw on a
            generator of its own.
          first_image: Number of the first image within the whole batch, also as a tensor: the
            dropout of an image depends on its number, not on how a batch is divided.

        Returns:
          Float tensor [B, H, W, (1 + 2 C + C (C - 1) / 2) K], the layout of
          `likelihoods.LogisticMixture.split`; of a softmax [B, H, W, (C + C (C - 1) / 2) L], that
          of `likelihoods.Softmax.split`; with the energy distance the features of `SampleHead`.

        Raises:
          ValueError: If images or labels are not of this form.
        """
        images, labels = _unpack(images, labels)
        self.check_inputs(images, labels)
        dropout = None
        if training and self.config.dropout_p > 0:
            seed = self._seed_generator.next() if seed is None else seed
            dropout = self._dropout(images, seed, first_image)
        return self._forward(layers.apply, images, labels, dropout)

    def initialize(self, images, labels=None, seed=0):
        """Data-dependent initialisation of all gains and biases, once, on one whole batch.

        Layer after layer in the order of the forward pass, each on the outputs of its initialised
        predecessors, dropout as in training (Salimans & Kingma 2016, section 3). Under a
        distribution strategy, call it in its scope and not inside `run`: in there, every replica
        would get weights of its own.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          labels: Tensor [B] as in `call`.
          seed: Integer that determines the dropout.

        Raises:
          ValueError: If images or labels are not of the form that `call` asks for.
        """
        self.check_inputs(images, labels)
        seed = ops.convert_to_tensor([seed, 0], dtype=self._seed_generator.state.dtype)
        dropout = None
        if self.config.dropout_p > 0:
            dropout = self._dropout(images, seed)
        images = ops.convert_to_tensor(images)
        raw_params = self._forward(layers.initialize, images, labels, dropout)
        if self.head is not None:
            noise = self.noise(images, seed)
            self.head.initialize(raw_params[:, None], 2 * noise - 1)

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
        self._check_likelihood()
        return self.log_prob_of(self(images, labels), images)

    def log_prob_of(self, raw_params, images, noise=None):
        """Log-likelihood of images under the raw parameters that the network gave for them.

        Args:
          raw_params: Float tensor [B, H, W, ...], what `call` returned.
          images: Tensor [B, H, W, C] as in `call`.
          noise: What `noise` returned, for dequantized data; None for that of the images.

        Returns:
          Tensor [B], nats.

        Raises:
          ValueError: If the model has no likelihood.
        """
        self._check_likelihood()
        return -self.loss_of(raw_params, images, noise)

    def loss_of(self, raw_params, images, noise=None):
        """What training minimises: minus the log-likelihood, or the energy distance.

        Args:
          raw_params: Float tensor [B, H, W, ...], what `call` returned.
          images: Tensor [B, H, W, C] as in `call`.
          noise: What `noise` returned; None for that of the images.

        Returns:
          Tensor [B], nats, or of the energy distance a number without a unit.
        """
        images = ops.convert_to_tensor(images)
        noise = self.noise(images) if noise is None else noise

        def nats(raw_params):
            arguments = () if noise is None else (noise,)
            params = self.likelihood.split(raw_params)
            return -ops.sum(self.likelihood.log_prob(params, images, *arguments), axis=(1, 2))

        def distance(raw_params):
            samples = ops.moveaxis(self.head(raw_params[:, None], 2 * noise - 1), 1, 0)
            num_levels = self.config.num_levels
            values = likelihoods.to_unit_scale(images, num_levels, samples.dtype)
            return likelihoods.energy_distance(values, samples, num_levels)

        loss = nats if self.head is None else distance
        return keras.remat(loss)(raw_params) if self.recompute else loss(raw_params)

    def noise(self, images, seed=None, first_image=0):
        """The noise that the loss of images takes, for dequantized data and the energy distance.

        Args:
          images: Tensor [B, H, W, C] as in `call`.
          seed: Integer tensor [2], such as (seed of the run, number of the step), as in `call`.
            None makes the noise of an image a function of its levels, so that its bound does not
            depend on the other images, nor on how often it is computed.
          first_image: Number of the first image within the whole batch, as in `call`.

        Returns:
          Tensor of uniforms in (0, 1): [B, H, W, C], or [B, S, H, W, 4] for S samples of the energy
          distance. None for a model that takes no noise.
        """
        num_images, height, width, channels = ops.shape(images)
        if self.head is not None:
            shape = (_NUM_ENERGY_SAMPLES, height, width, self.head.NUM_NOISE)
        elif self.config.likelihood == "dequantized":
            shape = (height, width, channels)
        else:
            return None
        if seed is None:
            numbers, step = _digests(images), ops.zeros((num_images,), "int32")
        else:
            seed = ops.convert_to_tensor(seed)
            numbers = layers.image_numbers(seed, num_images, first_image)
            step = ops.broadcast_to(seed[1], (num_images,))
        numbers = ops.stack([numbers, ops.cast(step, numbers.dtype)], axis=-1)
        return ops.cast(layers.image_uniforms(numbers, shape), self.variable_dtype)

    def _check_likelihood(self):
        if self.likelihood is None:
            raise ValueError(
                "A model that is trained by the energy distance has no likelihood. "
                "Received: energy_distance=True"
            )

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
        return _bits_per_dim(self.log_prob(images, labels), images)

    def distribution(self, raw_params):
        """The distribution of every pixel given those before it, as TensorFlow Probability has it.

        Its `log_prob` of the images that `raw_params` came from is the model's. (A sample of it is
        not a sample of the model: that takes pixel after pixel, see `sampling.sample`.)

        Args:
          raw_params: Float tensor [B, H, W, ...], what `call` returned.

        Returns:
          `tfp.distributions.Distribution`, batch shape [B], event shape [H, W, C].

        Raises:
          ValueError: If the model has another likelihood than the discretized mixture.
        """
        if type(self.likelihood) is not likelihoods.LogisticMixture:
            kind = "energy_distance" if self.likelihood is None else self.config.likelihood
            raise ValueError(
                "A distribution is there for the likelihood logistic_mixture only. "
                f"Received: a model of {kind}"
            )
        # TensorFlow is imported only here: the network itself also runs on Keras's JAX backend.
        from pixel_cnn_pp.likelihoods import distributions

        return distributions.image_distribution(
            raw_params, self.config.image_shape[-1], self.config.num_levels
        )

    def step_weights(self):
        """{name of a layer: its weights}, the effective kernels that `next_row` computes with.

        They are an argument there, so that kernels are normalised once for many rows.
        """
        return {layer.name: layer.step_weights() for layer in self.layers}

    def num_uniforms(self):
        """How many uniforms `draw` takes for a pixel."""
        if self.head is not None:
            return self.head.NUM_NOISE
        return self.likelihood.num_uniforms(self.output_layer.filters)

    def draw(self, weights, raw_params, uniforms, controls):
        """Levels of pixels, drawn from the raw parameters that the network gave for them.

        Args:
          weights: What `step_weights` returned.
          raw_params: Float tensor [B, P], of one pixel of every image.
          uniforms: Float tensor [B, `num_uniforms()`] in (0, 1).
          controls: Float tensor [3]: temperature, log_scale_offset, 1 for the mode "map" or else 0,
            see `sampling.sample`; without a meaning for the energy distance.

        Returns:
          Tensor [B, C], whole numbers of `likelihoods.level_dtype`.
        """
        uniforms = ops.cast(uniforms, raw_params.dtype)
        if self.head is None:
            return self.likelihood.draw(raw_params, uniforms, controls)
        values = self.head.step(weights[self.head.name], raw_params, 2 * uniforms - 1)
        num_levels = self.config.num_levels
        levels = likelihoods.from_unit_scale(values, num_levels)
        return ops.cast(levels, likelihoods.level_dtype(num_levels))

    def empty_cache(self, batch_size, width):
        """What `next_row` knows of the rows above the first one, and room for more: zeros.

        Args:
          batch_size: B.
          width: W, a multiple of 4.

        Returns:
          A list with a dict of rows [W', B, F'] for each resolution, the finest first. It grows
          with the width of the image, not with its height.
        """
        assert width % 4 == 0, "the coarsest layers see every fourth column"
        caches = []
        for level, sizes in enumerate(self._cache_sizes()):
            zeros = partial(self._zeros, (width >> level, batch_size))
            caches.append(
                {
                    "down": keras.tree.map_structure(zeros, sizes.down),
                    "right": keras.tree.map_structure(zeros, sizes.right),
                    "above": zeros(sum(keras.tree.flatten(sizes.above))),
                }
            )
        return caches

    def next_row(self, weights, caches, row, draw, labels=None):
        """The cached step: one row of images, from what has been kept of the rows above.

        Computes what `call` does, each term once and as early as it can be: the downward stream
        for the whole row, then what the row above contributes to the rightward stream, and pixel
        by pixel only the rest of that. A layer behind a stride runs on every second row and
        column, or on every fourth.

        Args:
          weights: What `step_weights` returned.
          caches: What `empty_cache`, or this method for the row above, returned.
          row: Integer tensor [], the number of the row.
          draw: Function (raw parameters [B, P], column) -> levels [B, C] of that pixel, their dtype
            `likelihoods.level_dtype`.
          labels: Tensor [B] as in `call`.

        Returns:
          The caches for the next row; levels [W, B, C]; raw parameters [W, B, P].
        """
        sizes = self._cache_sizes()
        row_step = _RowStep(weights, self._one_hot(labels), caches, row)
        self._walk(row_step, self._enter_row(row_step))
        caches = row_step.caches()
        above = [cache["above"] for cache in caches]

        def next_pixel(carry, column):
            pixel_step = _PixelStep(weights, sizes, above, carry[0], row, column)
            right = self.input_left.pixel(
                weights[self.input_left.name],
                pixel_step.above["input"],
                pixel_step.left["image"],
            )
            right = self._walk(pixel_step, right)
            output_layer = partial(self.output_layer.step, weights[self.output_layer.name])
            raw_params = self._output(output_layer, right)
            levels = draw(raw_params, column)
            pixel_step.now["image"] = self._scale(levels)
            carry = (pixel_step.states(), levels, raw_params)
            return carry, carry

        width, batch_size = above[0].shape[0], ops.shape(above[0])[1]
        first = (
            [self._zeros((batch_size,), sum(keras.tree.flatten(level.right))) for level in sizes],
            ops.zeros(
                (batch_size, self.config.image_shape[-1]),
                likelihoods.level_dtype(self.config.num_levels),
            ),
            ops.zeros((batch_size, self.output_layer.filters), self.variable_dtype),
        )
        _, (states, levels, raw_params) = ops.scan(next_pixel, first, ops.arange(width))
        for level, cache in enumerate(caches):
            stride = 2**level  # a coarser resolution has its pixels in every second row and column

            def kept(cache=cache):
                return cache["right"]

            def computed(level=level, stride=stride):
                return _unpack_features(states[level][::stride], sizes[level].right)

            caches[level] = {**cache, "right": ops.cond(row % stride == 0, computed, kept)}
        return caches, levels, raw_params

    def compile(self, *args, jit_compile="auto", **kwargs):
        """As `keras.Model.compile`; on TensorFlow, "auto" stands for no XLA.

        XLA takes minutes to compile this many layers, and is not faster on a CPU.
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
        bits_per_dim = _bits_per_dim(-self.loss_of(y_pred, images, noise), images)
        if sample_weight is not None:
            bits_per_dim = bits_per_dim * ops.cast(sample_weight, bits_per_dim.dtype)
        # Keras sums over replicas: this divides by their number.
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
    def from_config(cls, config):
        """The model with these arguments, with fresh weights."""
        return cls(**{**config, "config": ModelConfig(**config["config"])})

    def _forward(self, run, images, labels, dropout):
        """One pass through the network; `run` applies its layers, or initialises them."""
        x = self._scale(images)
        h = self._one_hot(labels)
        down = layers.down_shift(run(self.input_above, x))
        right = layers.down_shift(run(self.input_row_above, x)) + layers.right_shift(
            run(self.input_left, x)
        )
        whole_images = _WholeImages(run, h, dropout, self.recompute)
        _, right = self._walk(whole_images, (down, right))
        return self._output(partial(run, self.output_layer), right)

    def _scale(self, levels):
        """Levels [..., C] as inputs of the first layers, [..., C + 1]."""
        x = likelihoods.to_unit_scale(levels, self.config.num_levels, self.variable_dtype)
        x = ops.cast(x, self.compute_dtype)
        # A channel of ones tells the picture from the zeros around it.
        return ops.pad(x, [*[(0, 0)] * (len(x.shape) - 1), (0, 1)], constant_values=1)

    def _one_hot(self, labels):
        """Labels [B] as the conditioning of the blocks, [B, num_classes]; None without classes."""
        if self.config.num_classes is None:
            return None
        return ops.one_hot(labels, self.config.num_classes, dtype=self.compute_dtype)

    def _output(self, output_layer, right):
        """The raw parameters from the last of the rightward stream."""
        # elu whatever the nonlinearity of the blocks, as in the original release.
        return ops.cast(output_layer(ops.elu(right)), self.variable_dtype)

    def _stages(self):
        """The layers by resolution, the finest first."""
        encoder = list(zip(self.encoder_down, self.encoder_right, strict=True))
        decoder = list(zip(self.decoder_down, self.decoder_right, strict=True))
        if self.config.receptive_field != "full":
            return [_Stage(encoder, None, None, decoder)]
        n = self.config.nr_resnet
        stages = []
        for halve, double in ((n, 2 * n + 2), (2 * n + 1, n)):
            stages.append(
                _Stage(
                    encoder=encoder[halve - n : halve],
                    halve=encoder[halve],
                    double=decoder[double],
                    decoder=decoder[double + 1 : double + n + 2],
                )
            )
        return [*stages, _Stage(encoder[2 * n + 2 :], None, None, decoder[:n])]

    def _dropout(self, images, seed, first_image=0):
        """The dropout of a pass of images [B, H, W, C]."""
        num_images, height, width, _ = ops.shape(images)
        num_units = sum(
            layers.round_up_to_8(_num_dropped(block, height // 2**level, width // 2**level))
            for level, stage in enumerate(self._stages())
            for pair in (*stage.encoder, *stage.decoder)
            for block in pair
        )
        return layers.Dropout(self.config.dropout_p, seed, num_images, num_units, first_image)

    def _cache_sizes(self):
        """For each resolution, the finest first: how many features are kept under which name."""
        filters, channels = self.config.nr_filters, self.config.image_shape[-1]
        all_sizes = []
        for level, stage in enumerate(self._stages()):
            pairs = [*stage.encoder, *stage.decoder]
            down = {block.name: block.state_sizes() for block, _ in pairs}
            right = {block.name: block.state_sizes() for _, block in pairs}
            above = {block.name: block.above_sizes() for _, block in pairs}
            above["input"] = filters
            if level == 0:
                down["image"] = right["image"] = channels + 1
            else:
                down["output"] = right["output"] = filters
            if stage.halve is not None:
                for sizes, layer in zip((down, right), stage.halve, strict=True):
                    sizes[layer.name] = filters
                right["pending"] = above["double"] = filters
            all_sizes.append(_CacheSizes(down, right, above))
        return all_sizes

    def _zeros(self, shape, num_features):
        return ops.zeros((*shape, num_features), self.compute_dtype)

    def _enter_row(self, step):
        """The downward stream's input for a row; keeps what the rightward one takes from above."""
        cache, weights = step.cache, step.weights
        image_above = cache["right"]["image"]
        num_rows = self.input_above.kernel_size[0]
        down, row_above = (
            # Shifting down fills with zeros, where a layer would give its bias.
            ops.where(step.row > 0, layer.row(weights[layer.name], *rows), 0)
            for layer, rows in (
                (self.input_above, (image_above, cache["down"]["image"])[:num_rows]),
                (self.input_row_above, (image_above,)),
            )
        )
        left = self.input_left.row_above(weights[self.input_left.name], image_above)
        step.above["input"] = row_above + ops.pad(left[:-1], ((1, 0), (0, 0), (0, 0)))
        step.down["image"] = image_above
        return down

    def _walk(self, step, x, level=0):
        """Takes `x` through the stages from one resolution on, and back to it.

        This is the plan of the network, whatever is taken through it: `step` makes of it a pass of
        whole images, of a row of the downward stream, or of a pixel of the rightward stream.
        """
        stage = self._stages()[level]
        skips = [x]
        for pair in stage.encoder:
            x = step.encode(pair, x)
            skips.append(x)
        if stage.halve is None:
            x = skips.pop()
        else:
            x = step.coarser(stage, x, partial(self._walk, level=level + 1))
        for pair in stage.decoder:
            skip = skips.pop()
            x = step.decode(pair, x, skip) if self.config.shortcuts else step.encode(pair, x)
        assert not (skips and stage.decoder), "a short-cut leads nowhere"
        return x

    def _as_inputs(self, data):
        """What `fit` was given, (images, labels, weights) or less, as ((images, labels), ...)."""
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if self.config.num_classes is None or labels is None:
            return images, None, weights
        return (images, labels), None, weights

    def _check_arrays(self, x, y):
        """Checks what `fit` and its like got as arrays: in a compiled step there are no values."""
        x, y = _unpack(x, y)
        if hasattr(x, "shape"):
            self.check_inputs(x, y if self.config.num_classes is not None else None)

    def check_inputs(self, images, labels=None):
        """Refuses what is not an image or a label, in one line; values where they are known.

        Args:
          images: What stands for images [B, H, W, C].
          labels: What stands for labels [B], or None.

        Raises:
          ValueError: If they are not of the form that `call` asks for.
        """
        channels, num_levels = self.config.image_shape[-1], self.config.num_levels
        for name, value in (("images", images), ("labels", labels)):
            if not hasattr(value, "shape") and (name == "images" or value is not None):
                raise ValueError(
                    f"{name} must be an array or a tensor. Received: {type(value).__name__}"
                )
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[0] == 0 or shape[-1] != channels:
            raise ValueError(
                f"images must have the shape [B, H, W, {channels}], B at least 1. Received: images "
                f"of shape {shape}"
            )
        if any(side is not None and (side % 4 or side == 0) for side in shape[1:3]):
            raise ValueError(
                f"Height and width of images must be multiples of 4. Received: images of shape "
                f"{shape}"
            )
        _check_whole_numbers("images", images, num_levels - 1)

        num_classes = self.config.num_classes
        if num_classes is None:
            if labels is not None:
                raise ValueError(
                    "labels must be None: this model is not class-conditional. "
                    f"Received: labels of shape {tuple(labels.shape)}"
                )
            return
        if labels is None:
            raise ValueError(
                f"labels must be given: this model is conditioned on {num_classes} classes. "
                "Received: labels=None"
            )
        label_shape = tuple(labels.shape)
        is_one_each = None in (*label_shape, shape[0]) or label_shape == shape[:1]
        if len(label_shape) != 1 or not is_one_each:
            raise ValueError(
                f"labels must have the shape [B], one for each of the images of shape {shape}. "
                f"Received: labels of shape {label_shape}"
            )
        _check_whole_numbers("labels", labels, num_classes - 1)


class _Stage(NamedTuple):
    """The layers at one resolution, in pairs: of the downward and of the rightward stream.

    encoder: Blocks before a coarser resolution, decoder: behind it. halve, double: The way to that
    resolution and back; None at the coarsest.
    """

    encoder: list
    halve: tuple | None
    double: tuple | None
    decoder: list


class _CacheSizes(NamedTuple):
    """{name of a layer: features per position} of what the cached step keeps at one resolution.

    down: Inputs of the downward stream's layers, for the next row.
    right: Inputs of the rightward stream's layers, for the next pixel and the next row.
    above: What the rightward stream gets from above, from the row to its pixels.
    """

    down: dict
    right: dict
    above: dict


class _WholeImages:
    """A pass of whole images; what goes through the stages is (downward, rightward) [B, H, W, F].

    `run` applies the layers, or initialises them; `recompute` as in `PixelCNNPP`.
    """

    def __init__(self, run, h, dropout, recompute):
        self._run = run
        self._h = h
        self._dropout = dropout
        self._recompute = recompute

    def _run_block(self, block, x, *a):
        """A block on x and the parts of its short-cut input, all [B, H, W, F]."""
        dropout = None
        if self._dropout is not None:
            height, width = ops.shape(x)[1:3]
            dropout = self._dropout.reserve(_num_dropped(block, height, width))

        def run(x, *a):
            a = ops.concatenate(a, axis=-1) if len(a) > 1 else a[0] if a else None
            return self._run(block, x, a=a, h=self._h, dropout=dropout)

        if self._recompute and self._run is layers.apply:
            return _recomputed(block.weights, run, x, *a)
        return run(x, *a)

    def encode(self, blocks, x):
        down = self._run_block(blocks[0], x[0])
        return down, self._run_block(blocks[1], x[1], down)

    def decode(self, blocks, x, skip):
        down = self._run_block(blocks[0], x[0], skip[0])
        return down, self._run_block(blocks[1], x[1], down, skip[1])

    def coarser(self, stage, x, walk):
        x = walk(self, self._run_both(stage.halve, x))
        return self._run_both(stage.double, x)

    def _run_both(self, layers, x):
        return tuple(self._run(layer, stream) for layer, stream in zip(layers, x, strict=True))


class _RowStep:
    """The downward stream of one row, [W, B, F], at one resolution and all coarser ones.

    On its way it prepares what the rightward stream of the row gets from above. `down` and `above`
    collect what `_CacheSizes` names.
    """

    def __init__(self, weights, h, caches, row):
        self.weights, self.row = weights, row
        self.cache, *self._coarser_caches = caches
        self.down, self.above = {}, {}
        self._h = h

    def encode(self, blocks, x, a=None):
        down, right = blocks
        x, self.down[down.name] = down.row(
            self.weights[down.name], x, self.cache["down"][down.name], a, self._h
        )
        self.above[right.name] = right.row_above(
            self.weights[right.name], self.cache["right"][right.name], x, self._h
        )
        return x

    def decode(self, blocks, x, skip):
        return self.encode(blocks, x, skip)

    def coarser(self, stage, x, walk):
        (halve, halve_right), (double, double_right) = stage.halve, stage.double
        is_even = self.row % 2 == 0

        def compute():
            step = _RowStep(self.weights, self._h, self._coarser_caches, self.row // 2)
            step.above["input"] = halve_right.row_above(
                self.weights[halve_right.name], self.cache["right"][halve_right.name]
            )
            halved = halve.row(self.weights[halve.name], x, self.cache["down"][halve.name])
            step.down["output"] = walk(step, halved)
            return step.caches()

        self._coarser_caches = ops.cond(is_even, compute, lambda: self._coarser_caches)
        output, output_right = (
            self._coarser_caches[0][stream]["output"] for stream in ("down", "right")
        )
        self.down[halve.name] = x
        # On odd rows the coarser row is complete; on even ones it comes pixel by pixel.
        self.above["double"] = ops.cond(
            is_even,
            lambda: ops.zeros_like(x),
            lambda: double_right.row(self.weights[double_right.name], output_right),
        )
        return double.row(self.weights[double.name], output, self.row % 2)

    def caches(self):
        """The caches of this resolution and of the coarser ones, but for `right`."""
        above = _pack_features(self.above)
        cache = {"down": self.down, "right": self.cache["right"], "above": above}
        return [cache, *self._coarser_caches]


class _PixelStep:
    """The rightward stream of one pixel, [B, F], at one resolution and all coarser ones.

    `left` is what was kept of the pixel on the left, `now` collects the same for the next one.
    """

    def __init__(self, weights, sizes, above, left, row, column):
        self._weights, self._sizes, self._above = weights, sizes, above
        self._row, self._column = row, column
        self.above = _unpack_features(above[0][column], sizes[0].above)
        self.left = _unpack_features(left[0], sizes[0].right)
        self.now = {}
        self._coarser_states = left[1:]

    def encode(self, blocks, x, a=None):
        _, right = blocks
        name = right.name
        x, self.now[name] = right.pixel(
            self._weights[name], x, self.left[name], self.above[name], a
        )
        return x

    def decode(self, blocks, x, skip):
        return self.encode(blocks, x, skip)

    def coarser(self, stage, x, walk):
        (_, halve), (_, double) = stage.halve, stage.double
        is_even_row = self._row % 2 == 0

        def compute():
            step = _PixelStep(
                self._weights,
                self._sizes[1:],
                self._above[1:],
                self._coarser_states,
                self._row // 2,
                self._column // 2,
            )
            halved = halve.pixel(
                self._weights[halve.name], step.above["input"], self.left[halve.name], x
            )
            step.now["output"] = walk(step, halved)
            present, pending = double.pixel(self._weights[double.name], step.now["output"])
            return present, pending, step.states()

        def hold():
            pending = self.left["pending"]
            present = ops.where(is_even_row, pending, self.above["double"])
            return present, pending, self._coarser_states

        present, self.now["pending"], self._coarser_states = ops.cond(
            is_even_row & (self._column % 2 == 0), compute, hold
        )
        self.now[halve.name] = x
        return present

    def states(self):
        """What is kept of this pixel, packed, for this resolution and the coarser ones."""
        return [_pack_features(self.now), *self._coarser_states]


def _recomputed(weights, function, *inputs):
    """A function of inputs and layers' weights, computed again for its gradient.

    TensorFlow lets nothing that depends on the inputs begin before that gradient is asked for, but
    all else at once; so the weights, from which kernels are normalised, are inputs here too.
    """

    def with_weights(values, *inputs):
        with keras.StatelessScope(state_mapping=zip(weights, values, strict=True)):
            return function(*inputs)

    # Copies: TensorFlow's eager mode would count the gradient of a variable itself twice.
    return keras.remat(with_weights)([ops.copy(weight) for weight in weights], *inputs)


def _num_dropped(block, height, width):
    """Units of an image among which a block drops some: the inputs of its second convolution."""
    return block.num_dropped() * height * width


def _digests(images):
    """A number [B], int32, of every image [B, H, W, C], which another image hardly has too."""
    levels = ops.cast(ops.reshape(images, (ops.shape(images)[0], -1)), "int32")
    # Odd multiples of the golden ratio's 32 bits, mixed so that weights are no multiples of each
    # other; products and sums wrap around.
    weights = (2 * ops.arange(ops.shape(levels)[1], dtype="int32") + 1) * -1640531535
    weights = ops.bitwise_xor(weights, ops.right_shift(weights, 15)) * 739982445
    return ops.sum(levels * weights, axis=-1)


def _pack_features(tensors):
    """Joins a nest of tensors on their last axis: a loop carries one tensor at less cost."""
    return ops.concatenate(keras.tree.flatten(tensors), axis=-1)


def _unpack_features(packed, sizes):
    """Undoes `_pack_features`; `sizes` is the nest of their numbers of features."""
    ends = np.cumsum(keras.tree.flatten(sizes))[:-1]
    return keras.tree.pack_sequence_as(sizes, ops.split(packed, ends.tolist(), axis=-1))


def _streams(part, pairs, policy):
    """The layers of the downward and of the rightward stream of one half of the network."""
    down = [make(name=f"{part}_down_{i}", **policy) for i, (make, _) in enumerate(pairs)]
    right = [make(name=f"{part}_right_{i}", **policy) for i, (_, make) in enumerate(pairs)]
    return down, right


def _bits_per_dim(log_prob, images):
    """Bits/dim [B] of images [B, H, W, C], of which H and W may be unknown as yet."""
    num_dims = ops.cast(math.prod(ops.shape(images)[1:]), log_prob.dtype)
    return likelihoods.bits_per_dim(-log_prob, num_dims)


def _unpack(images, labels):
    """The two, also where they come as a pair, the form in which `fit` hands them on."""
    if isinstance(images, list | tuple) and len(images) == 2:
        return images
    return images, labels


def _check_whole_numbers(name, values, largest):
    try:
        values = ops.convert_to_numpy(values)
    except (NotImplementedError, TypeError, ValueError):
        return  # inside a compiled function: there are no values yet
    if values.size == 0:
        return
    if values.dtype.kind == "f":
        if not np.array_equal(values, np.round(values)):
            raise ValueError(
                f"{name} must be whole numbers in [0, {largest}]. Received: fractions or NaN"
            )
    elif values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers. Received: dtype {values.dtype}")
    if values.min() < 0 or values.max() > largest:
        raise ValueError(
            f"{name} must be whole numbers in [0, {largest}]. "
            f"Received: values in [{values.min()}, {values.max()}]"
        )
