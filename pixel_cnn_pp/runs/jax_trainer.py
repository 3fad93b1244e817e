"""A model with its optimizer, and the steps that train and score it, on Keras's JAX backend.

This file needs neither TensorFlow nor what reads data sets, except in `evaluate`.
"""

import math

import jax
import keras
import numpy as np

from pixel_cnn_pp import likelihoods, models
from pixel_cnn_pp.runs import checkpoints, jax_devices, optimizers, vectors
from pixel_cnn_pp.runs.epoch import StepResult


class Trainer:
    """A model, its optimizer and its compiled steps, with the methods of `trainer.Trainer`.

    Every device has the same weights and computes its part of a batch. Between the steps, all
    weights are one vector, and so are the slots of each kind, see `vectors`. The variables of
    `model` and `optimizer` get their values when these attributes are read.

    Attributes:
      strategy: `keras.distribution.DataParallel`.
      num_replicas: Number of devices.
      num_workers: Number of processes that train together: 1.
      worker_index: Index of this process: 0.
      graph: None, because JAX has no graph for TensorBoard.
    """

    def __init__(self, run, strategy):
        """Makes the model with fresh weights. The same seed gives the same weights.

        They are not those of the same seed on TensorFlow, whose initialisers draw other numbers.

        Args:
          run: RunConfig.
          strategy: `keras.distribution.DataParallel`.
        """
        training = run.training
        self.strategy = strategy
        self.num_replicas = jax_devices.num_replicas(strategy)
        self.num_workers, self.worker_index = 1, 0
        self.graph = None
        self._seed = training.seed
        self._accumulate_steps = training.accumulate_steps
        with strategy.scope():
            keras.utils.set_random_seed(training.seed)
            self._model = models.make(run.model, recompute=training.recompute, dtype=training.dtype)
            self._optimizer = optimizers.make_optimizer(training)
            self._optimizer.build(self._model.trainable_variables)
        self._vectors = vectors.Vectors(
            self._model,
            self._optimizer,
            optimizers.make_optimizer(training),
            outputs_first=jax_devices.is_on_gpu(),
        )
        # The newest state, as vectors. None if the variables have it.
        self._state = None

        mesh = strategy.device_mesh.backend_mesh
        (self._axis,) = mesh.axis_names
        whole, divided = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(self._axis)
        self._whole_sharding = jax.sharding.NamedSharding(mesh, whole)
        self._batch_sharding = jax.sharding.NamedSharding(mesh, divided)
        step, loss = (
            jax.shard_map(
                function,
                mesh=mesh,
                in_specs=(whole, divided, divided),
                out_specs=out_spec,
                check_vma=False,  # it does not know the gradients that layers define
            )
            for function, out_spec in ((self._replica_step, whole), (self._replica_loss, divided))
        )
        options = jax_devices.compiler_options()
        # The new state takes the memory of the old one.
        self._train_step = jax.jit(step, donate_argnums=0, compiler_options=options)
        self._loss = jax.jit(loss, compiler_options=options)

    @property
    def model(self):
        """The model of the run's configuration, see `models.make`."""
        self._write_back()
        return self._model

    @property
    def optimizer(self):
        """Keras optimizer with Polyak averages."""
        self._write_back()
        return self._optimizer

    @property
    def step(self):
        """Number of updates that are done."""
        return int(self._vectors.iterations(self._packed()))

    @property
    def learning_rate(self):
        """Learning rate of the next step."""
        return float(self._vectors.learning_rate(self._packed()))

    @property
    def worker(self):
        """Pair (index of this process, number of processes), as in `data.train_batches`."""
        return self.worker_index, self.num_workers

    def initialize(self, images, labels):
        """Initialises the model from one whole batch.

        Args:
          images: Integers [B, H, W, C].
          labels: Integers [B], or None.
        """
        model = self.model
        model.initialize(images, self._condition(labels), seed=self._seed)
        averages = checkpoints.averages(model, self._optimizer)
        for average, weight in zip(averages, model.trainable_variables, strict=True):
            average.assign(np.array(weight))  # a copy, because both are deleted on their own

    def restore(self, run_dir, num_images, batch_size):
        """Loads the newest checkpoint of a run, as `trainer.Trainer.restore`."""
        return checkpoints.restore(run_dir, self.model, self.optimizer, num_images, batch_size)

    def save(self, run_dir, state, keep):
        """Writes a checkpoint with the TrainingState `state`. The newest `keep` ones remain."""
        checkpoints.save(run_dir, self.model, self.optimizer, state, keep)

    def copy_averages(self, model):
        """Copies the Polyak averages to the weights of another model of the same configuration."""
        averages = self._vectors.split(np.array(self._vectors.averages(self._packed())))
        for weight, average in zip(model.trainable_variables, averages, strict=True):
            weight.assign(average)

    def train_step(self, images, labels=None, is_last=False):
        """Makes one update on a batch, which is divided equally among the devices.

        The loss is the negative log-likelihood in nats, summed over all images.

        Args:
          images: Integers [B, H, W, C]. B is a multiple of the number of devices times
            `accumulate_steps`.
          labels: Integers [B], or None.
          is_last: Whether this process asks to stop after this step.

        Returns:
          StepResult.
        """
        batch = self._place(images), self._place(self._condition(labels))
        self._state, nats, gradient_norm = self._train_step(self._packed(), *batch)
        bits_per_dim = likelihoods.bits_per_dim(float(nats), math.prod(images.shape))
        return StepResult(bits_per_dim, float(gradient_norm), bool(is_last))

    def evaluate(self, images):
        """Scores every image of a set exactly once, with the averaged weights.

        Args:
          images: ImageData.

        Returns:
          `evaluation.Score`.
        """
        from pixel_cnn_pp import data, evaluation  # which need more packages than a step

        num_replicas = self.num_replicas
        batch_size = num_replicas * math.ceil(min(64, len(images.images)) / num_replicas)
        averages = self._vectors.averages(self._packed())

        def log_prob(batch, labels):
            return -np.asarray(self._loss(averages, self._place(batch), self._place(labels)))

        return evaluation.score(
            log_prob,
            data.eval_batches(images, batch_size),
            self._model.is_conditional,
            self._model.likelihood.unit,
        )

    def agree(self, digest):
        """Whether a string is the same in all workers. There is only one."""
        return True

    def _condition(self, labels):
        return labels if self._model.is_conditional else None

    def _place(self, batch):
        """Divides a batch among the devices. None stays None."""
        if batch is None:
            return None
        return jax.device_put(np.asarray(batch), self._batch_sharding)

    def _packed(self):
        """The newest state."""
        if self._state is None:
            self._state = jax.device_put(self._vectors.join(), self._whole_sharding)
            # This frees the memory. And nothing can read a value that is not the newest one.
            for variable in self._vectors.variables:
                variable.value.delete()
        return self._state

    def _write_back(self):
        """Sets the variables to the newest state."""
        if self._state is not None:
            self._vectors.assign(self._state)
            self._state = None

    # What follows is traced by JAX. It runs on every device, with a part of the batch.

    def _replica_step(self, state, images, labels):
        step = self._vectors.iterations(state)
        found = self._accumulated_gradient(state.weights, images, labels, step)
        nats, gradient = jax.lax.psum(found, self._axis)
        gradient_norm = jax.numpy.sqrt(jax.numpy.vdot(gradient, gradient))
        return self._vectors.update(state, gradient), nats, gradient_norm

    def _accumulated_gradient(self, weights, images, labels, step):
        """Nats of a device's images and their gradient, computed one part after the other."""
        # Number 0 belongs to the dropout of the data-dependent initialisation.
        seed = jax.numpy.stack([self._seed, 1 + step]).astype("uint32")
        num_parts = self._accumulate_steps
        size = images.shape[0] // num_parts
        first_image = jax.lax.axis_index(self._axis) * images.shape[0]
        gradient_of = jax.value_and_grad(self._nats)
        if num_parts == 1:
            return gradient_of(weights, images, labels, seed, first_image)

        def add_part(number, sums):
            start = number * size
            part = [
                None if x is None else jax.lax.dynamic_slice_in_dim(x, start, size)
                for x in (images, labels)
            ]
            found = gradient_of(weights, *part, seed, first_image + start)
            return jax.tree.map(jax.numpy.add, sums, found)

        nothing = jax.numpy.zeros([], weights.dtype), jax.numpy.zeros_like(weights)
        return jax.lax.fori_loop(0, num_parts, add_part, nothing)

    def _nats(self, weights, images, labels, seed, first_image):
        with self._with_weights(weights):
            raw_params = self._model(
                images, labels, training=True, seed=seed, first_image=first_image
            )
            noise = self._model.noise(images, seed, first_image)
            return self._model.loss_of(raw_params, images, noise).sum()

    def _replica_loss(self, averages, images, labels):
        with self._with_weights(averages):
            return self._model.loss_of(self._model(images, labels), images)

    def _with_weights(self, vector):
        """A context in which the model has the values of a vector instead of its weights."""
        values = self._vectors.split(vector)
        weights = self._model.trainable_variables
        return keras.StatelessScope(state_mapping=zip(weights, values, strict=True))
