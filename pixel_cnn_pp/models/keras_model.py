"""What a model is for Keras: `fit`, `evaluate`, `predict`, files and checkpoints."""

import dataclasses

import keras
from keras import ops

from pixel_cnn_pp import config
from pixel_cnn_pp.likelihoods import whole_numbers
from pixel_cnn_pp.models import inputs, scoring


class KerasModel(keras.Model):
    """The part of `base.AutoregressiveModel` that Keras calls.

    The data of `fit` are images, or pairs (images, condition). Its loss is the mean bits/dim.
    """

    def compile(self, optimizer="rmsprop", *args, jit_compile="auto", **kwargs):
        """As `keras.Model.compile`, except that on TensorFlow "auto" means no XLA.

        XLA takes minutes to compile so many layers, and is not faster on a CPU.

        Raises:
          ValueError: If there is a loss or a metric: the loss is always that of the likelihood.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.get(name):
                raise ValueError(
                    f"`{name}` must be left out: the loss is that of the model's likelihood. "
                    f"Received: {name}={' '.join(repr(kwargs[name]).split())}"
                )
        if args:
            raise ValueError(
                "The arguments after `optimizer` must be given by name. "
                f"Received: {' '.join(repr(args).split())}"
            )
        if jit_compile == "auto" and keras.backend.backend() == "tensorflow":
            jit_compile = False
        super().compile(optimizer, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config):
        """Compiles a loaded model as before. Keras needs this, because `compile` is overridden."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.fit`. `x` has images and `y` conditions, or `x` is a stream of both."""
        self._check_arrays(x, y)
        with whole_numbers.in_one_line():
            return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.evaluate`, with the arguments of `fit`. Returns the mean bits/dim."""
        self._check_arrays(x, y)
        with whole_numbers.in_one_line():
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Computes raw parameters. `x` has images or a pair (images, condition), or is a stream."""
        self._check_arrays(x, None)
        with whole_numbers.in_one_line():
            return super().predict(x, *args, **kwargs)

    def predict_on_batch(self, x):
        """Computes raw parameters of one batch. `x` has images or a pair (images, condition)."""
        self._check_arrays(x, None)
        if not self.compiled and keras.backend.backend() == "tensorflow":
            self.jit_compile = False  # as in `compile`; Keras would use XLA on a GPU
        return super().predict_on_batch(x)

    def train_step(self, *args):
        """One step of `fit`. A condition is an input of the network and not its target."""
        *state, data = args
        return super().train_step(*state, self._as_inputs(data))

    def test_step(self, *args):
        """One step of `evaluate`."""
        *state, data = args
        return super().test_step(*state, self._as_inputs(data))

    def predict_step(self, *args):
        """One step of `predict`. Returns raw parameters."""
        *state, data = args
        return super().predict_step(*state, self._as_inputs(data))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean bits/dim of a batch, weighted by `sample_weight` if it is given."""
        images = x[0] if isinstance(x, list | tuple) else x
        noise = self.noise(images, self._seed_generator.next()) if training else None
        bits_per_dim = scoring.bits_per_dim(self.loss_of(y_pred, images, noise), images)
        if sample_weight is not None:
            bits_per_dim = bits_per_dim * ops.cast(sample_weight, bits_per_dim.dtype)
        # Keras sums losses over replicas. This method divides by their number. It is private, and
        # Keras has no public one.
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

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        """What `tf.train.Checkpoint` keeps: all weights. It would not find layers in lists."""
        children = super()._trackable_children(save_type, **kwargs)
        return {**children, **{key: weight.value for key, weight in self.keyed_weights().items()}}

    def keyed_weights(self):
        """{key of a weight in checkpoints: the weight}, in the order of `weights`.

        The key is the path of the weight. The path of most weights begins with the name of the
        model, which another model of the same configuration may not have. It is left out.
        """
        return {weight.path.removeprefix(f"{self.name}/"): weight for weight in self.weights}

    def _as_inputs(self, data):
        """Converts (images, condition, weights) of `fit` to ((images, condition), None, ...)."""
        images, condition, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not self.is_conditional or condition is None:
            return images, None, weights
        return (images, condition), None, weights

    def _check_arrays(self, x, y):
        """Checks arrays that are given to `fit` before the first step."""
        x, y = inputs.unpack(x, y)
        if hasattr(x, "shape"):
            self.check_inputs(x, y if self.is_conditional else None)
