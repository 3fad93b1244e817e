"""A model with its optimizer, and the steps that train and score it on one or several devices."""

import contextlib
import hashlib
import math

import keras
import numpy as np
import tensorflow as tf

from pixel_cnn_pp import data, evaluation, likelihoods, models
from pixel_cnn_pp.runs import checkpoints, devices, optimizers, updates
from pixel_cnn_pp.runs.epoch import StepResult


class Trainer:
    """A model, its optimizer and its compiled steps, under a distribution strategy.

    Attributes:
      model: The model of the run's configuration, see `models.make`.
      optimizer: Keras optimizer with Polyak averages.
      strategy: `tf.distribute.Strategy`.
      num_replicas: Number of devices that train together, over all workers.
      num_workers: Number of processes that train together.
      worker_index: Index of this process among them.
      graph: `tf.Graph` of the network as `evaluate` runs it. None before the first `evaluate`.
    """

    def __init__(self, run, strategy):
        """Makes the model with fresh weights. The same seed gives the same weights.

        Args:
          run: RunConfig.
          strategy: `tf.distribute.Strategy`.
        """
        training = run.training
        self.strategy = strategy
        self.num_replicas = devices.num_replicas(strategy)
        self.num_workers = devices.num_workers(strategy)
        self.worker_index = devices.worker_index(strategy)
        self._num_local_replicas = self.num_replicas // self.num_workers
        self._seed = training.seed
        self._accumulate_steps = training.accumulate_steps
        with strategy.scope():
            keras.utils.set_random_seed(training.seed)
            self.model = models.make(run.model, recompute=training.recompute, dtype=training.dtype)
            self.optimizer = optimizers.make_optimizer(training)
            self.optimizer.build(self.model.trainable_variables)
        self._averages = checkpoints.averages(self.model, self.optimizer)
        self._replica_variables = updates.replica_variables(self.model, self.optimizer, strategy)
        self._gradients_of_replica = _called_not_copied(self._accumulated_gradients)
        self._update = _called_not_copied(self._update_replica)
        self._replica_loss = _called_not_copied(self._averaged_loss)
        self._train_step = tf.function(self._distributed_step, autograph=False)
        self._loss = tf.function(self._distributed_loss, autograph=False)
        self.graph = None

    @property
    def step(self):
        """Number of updates that are done."""
        return int(self.optimizer.iterations.numpy())

    @property
    def learning_rate(self):
        """Learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    @property
    def worker(self):
        """Pair (index of this process, number of processes), as in `data.train_batches`."""
        return self.worker_index, self.num_workers

    def initialize(self, images, labels):
        """Initialises the model from one whole batch. All replicas get the same weights.

        Args:
          images: Integers [B, H, W, C].
          labels: Integers [B], or None.
        """
        with self.strategy.scope():
            self.model.initialize(images, self._condition(labels), seed=self._seed)
            for average, weight in zip(self._averages, self.model.trainable_variables, strict=True):
                average.assign(weight)

    def restore(self, run_dir, num_images, batch_size):
        """Loads the newest checkpoint of a run into the model and the optimizer.

        Args:
          run_dir: Path of the run.
          num_images: Number of images in an epoch.
          batch_size: Size of the global batch.

        Returns:
          TrainingState.

        Raises:
          ValueError: As in `checkpoints.restore`.
        """
        with self.strategy.scope():
            return checkpoints.restore(run_dir, self.model, self.optimizer, num_images, batch_size)

    def save(self, run_dir, state, keep):
        """Writes a checkpoint with the TrainingState `state`. The newest `keep` ones remain."""
        checkpoints.save(run_dir, self.model, self.optimizer, state, keep)

    def copy_averages(self, model):
        """Copies the Polyak averages to the weights of another model of the same configuration."""
        for weight, average in zip(model.trainable_variables, self._averages, strict=True):
            weight.assign(np.asarray(average))

    def train_step(self, images, labels=None, is_last=False):
        """Makes one update on a global batch, which is divided equally among the replicas.

        The loss is the negative log-likelihood in nats, summed over images and replicas. The
        original release has the same sum. With a mean, the optimizer's epsilon would have another
        effect.

        Args:
          images: Integers [B, H, W, C], this worker's part of the global batch. B is a multiple of
            the number of its replicas times `accumulate_steps`.
          labels: Integers [B], or None.
          is_last: Whether this worker asks to stop after this step.

        Returns:
          StepResult.
        """
        arguments = self._split(images), self._split(self._condition(labels))
        with _graph_optimizer(False):
            results = self._train_step(*arguments, tf.constant(float(is_last)))
        nats, wishes, gradient_norm = (float(x) for x in results)
        num_dims = math.prod(images.shape) * self.num_workers
        return StepResult(likelihoods.bits_per_dim(nats, num_dims), gradient_norm, wishes > 0)

    def evaluate(self, images):
        """Scores every image of a set exactly once, with the averaged weights.

        Args:
          images: ImageData.

        Returns:
          `evaluation.Score`.
        """
        num_replicas = self.num_replicas
        batch_size = num_replicas * math.ceil(min(64, len(images.images)) / num_replicas)
        size = batch_size // self.num_workers
        own = slice(self.worker_index * size, (self.worker_index + 1) * size)

        def log_prob(batch, labels):
            labels = None if labels is None else self._split(labels[own])
            arguments = self._split(batch[own]), labels
            if self.graph is None:
                with _graph_optimizer(False):
                    self.graph = self._loss.get_concrete_function(*arguments).graph
            with _graph_optimizer(False):
                return -self._loss(*arguments).numpy()

        return evaluation.score(
            log_prob,
            data.eval_batches(images, batch_size),
            self.model.is_conditional,
            self.model.likelihood.unit,
        )

    def agree(self, digest):
        """Whether a string is the same in all workers."""
        number = int.from_bytes(hashlib.sha256(digest.encode()).digest()[:7], "big")

        @tf.function(autograph=False)  # without it, TensorFlow warns that the call is slow
        def numbers():
            own = self.strategy.run(lambda: tf.constant([number], tf.int64))
            return self.strategy.gather(own, axis=0)

        return bool(tf.reduce_all(numbers() == number))

    def _condition(self, labels):
        return labels if self.model.is_conditional else None

    def _split(self, batch):
        """Divides this worker's part of a batch among its replicas. None stays None."""
        if batch is None:
            return None
        parts = tf.split(batch, self._num_local_replicas)
        first = self.worker_index * self._num_local_replicas
        return self.strategy.experimental_distribute_values_from_function(
            lambda replica: parts[replica.replica_id_in_sync_group - first]
        )

    # Every replica calls the same functions with its own variables. They are traced here, outside
    # the replicas, because TensorFlow would trace them again within each replica.

    def _distributed_step(self, images, labels, is_last):
        variables = self._replica_variables[0]
        first = tf.nest.map_structure(self._first, (images, labels))
        number = tf.TensorSpec([], tf.int64)
        with _graph_optimizer(True):
            gradients_of_replica = self._gradients_of_replica.get_concrete_function(
                variables.weights, *first, number, number
            )
        nats, gradients = gradients_of_replica.structured_outputs
        update = self._update.get_concrete_function(variables, gradients)

        def replica_step(images, labels, is_last):
            replica = tf.distribute.get_replica_context()
            variables = self._own(replica, self._replica_variables)
            number = tf.cast(replica.replica_id_in_sync_group, tf.int64)
            step = tf.cast(variables.iterations, tf.int64)
            nats, gradients = gradients_of_replica(variables.weights, images, labels, step, number)
            if self.num_replicas > 1:
                gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            gradient_norm = update(variables, gradients)
            return tf.stack([nats, tf.cast(is_last, nats.dtype)]), gradient_norm

        sums, gradient_norm = self.strategy.run(replica_step, args=(images, labels, is_last))
        nats, wishes = tf.unstack(self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None))
        # The norm is the same in all replicas.
        gradient_norm = self.strategy.reduce(tf.distribute.ReduceOp.MEAN, gradient_norm, axis=None)
        return nats, wishes, gradient_norm

    def _first(self, values):
        """The value of this worker's first replica."""
        return self.strategy.experimental_local_results(values)[0]

    def _own(self, replica, values):
        """The one of a replica, from a list with a value for each replica of this worker."""
        number = int(tf.get_static_value(replica.replica_id_in_sync_group))
        return values[number - self.worker_index * self._num_local_replicas]

    def _accumulated_gradients(self, weights, images, labels, step, replica):
        """Nats of a replica's images and their gradients, computed one part after the other.

        With several replicas, the gradients are one vector, which is summed faster than many.
        """
        num_parts = self._accumulate_steps
        part_size = images.shape[0] // num_parts
        # Number 0 belongs to the dropout of the data-dependent initialisation.
        seed = tf.stack([tf.constant(self._seed, tf.int64), 1 + step])
        first_image = replica * images.shape[0]
        weights = [tf.convert_to_tensor(weight) for weight in weights]
        if num_parts == 1:
            nats, gradients = self._gradients(weights, images, labels, seed, first_image)
            return nats, self._packed(gradients)

        def add_part(number, nats, gradients):
            rows = number * part_size + tf.range(part_size)
            part_nats, part_gradients = self._gradients(
                weights,
                tf.gather(images, rows),
                None if labels is None else tf.gather(labels, rows),
                seed,
                first_image + tf.cast(number * part_size, tf.int64),
            )
            gradients = [a + b for a, b in zip(gradients, part_gradients, strict=True)]
            return number + 1, nats + part_nats, gradients

        nothing = tf.zeros([], weights[0].dtype), [tf.zeros(w.shape, w.dtype) for w in weights]
        _, nats, gradients = tf.while_loop(
            lambda number, *_: number < num_parts,
            add_part,
            (0, *nothing),
            parallel_iterations=1,  # parallel parts would not save memory
        )
        return nats, self._packed(gradients)

    def _packed(self, gradients):
        if self.num_replicas == 1:
            return gradients
        return tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)

    def _update_replica(self, variables, gradients):
        """Updates a replica by the summed gradients, and returns their norm."""
        if self.num_replicas == 1:
            gradient_norm = tf.linalg.global_norm(gradients)
        else:
            gradient_norm = tf.norm(gradients)
            shapes = [weight.shape for weight in variables.weights]
            parts = tf.split(gradients, [math.prod(shape) for shape in shapes])
            gradients = [tf.reshape(x, shape) for x, shape in zip(parts, shapes, strict=True)]
        updates.update(self.optimizer, variables, gradients)
        return gradient_norm

    def _gradients(self, weights, images, labels, seed, first_image):
        values = zip(self.model.trainable_variables, weights, strict=True)
        with tf.GradientTape() as tape, keras.StatelessScope(state_mapping=values):
            tape.watch(weights)
            raw_params = self.model(
                images, labels, training=True, seed=seed, first_image=first_image
            )
            noise = self.model.noise(images, seed, first_image)
            nats = tf.reduce_sum(self.model.loss_of(raw_params, images, noise))
        return nats, tape.gradient(nats, weights)

    def _distributed_loss(self, images, labels):
        averages = [variables.averages for variables in self._replica_variables]
        with _graph_optimizer(True):
            loss = self._replica_loss.get_concrete_function(
                averages[0], *tf.nest.map_structure(self._first, (images, labels))
            )

        def replica_loss(images, labels):
            replica = tf.distribute.get_replica_context()
            return loss(self._own(replica, averages), images, labels)

        return self.strategy.gather(self.strategy.run(replica_loss, args=(images, labels)), axis=0)

    def _averaged_loss(self, averages, images, labels):
        """The loss of the network with the averages in place of its weights, nats."""
        values = [tf.convert_to_tensor(average) for average in averages]
        mapping = zip(self.model.trainable_variables, values, strict=True)
        with keras.StatelessScope(state_mapping=mapping):
            return self.model.loss_of(self.model(images, labels), images)


@contextlib.contextmanager
def _graph_optimizer(is_on):
    """A context in which TensorFlow's graph optimizer is on or off for the calls of functions.

    The optimizer runs again for every function and every device. It makes the blocks of a network
    faster. In the functions around them it finds nothing, and takes longer than everything else.
    """
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not is_on})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options(
            {"disable_meta_optimizer": before.get("disable_meta_optimizer", False)}
        )


def _called_not_copied(function):
    """Compiles a function that TensorFlow must not copy into the function that calls it."""
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
