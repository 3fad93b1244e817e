"""Training: one step under a distribution strategy, and the loop around it."""

import contextlib
import dataclasses
import hashlib
import math
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pixel_cnn_pp import config, data, evaluation, likelihoods, plots, sampling
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP
from pixel_cnn_pp.runs import checkpoints, devices, monitoring, optimizers

# Seconds between two lines within an epoch, where no progress bar is shown.
_SECONDS_BETWEEN_LINES = 60
# Steps between two points of TensorBoard's curves within an epoch.
_STEPS_BETWEEN_POINTS = 50
# Images that are completed at every checkpoint, and completions of each.
_NUM_COMPLETED = 4


class StepResult(NamedTuple):
    """What a step came to, over the global batch.

    bits_per_dim: Mean loss before the update; the energy distance is divided in the same way, as
    in the release. gradient_norm: Euclidean norm of the gradient of the summed nats. is_last:
    Whether a worker wishes to stop.
    """

    bits_per_dim: float
    gradient_norm: float
    is_last: bool


class Trainer:
    """A model, its optimizer and its compiled steps, under a distribution strategy.

    Attributes:
      model: PixelCNNPP.
      optimizer: Keras optimizer with Polyak averages.
      strategy: `tf.distribute.Strategy`.
      num_workers: Processes that train together; this one is number `worker_index`.
      graph: `tf.Graph` of the network as `evaluate` runs it; None before it has.
    """

    def __init__(self, run, strategy):
        """Makes the model with fresh weights, the same for the same seed.

        Args:
          run: RunConfig.
          strategy: `tf.distribute.Strategy`.
        """
        training = run.training
        self.strategy = strategy
        self.num_workers = devices.num_workers(strategy)
        self.worker_index = devices.worker_index(strategy)
        self._num_local_replicas = strategy.num_replicas_in_sync // self.num_workers
        self._seed = training.seed
        self._accumulate_steps = training.accumulate_steps
        self._is_conditional = run.model.num_classes is not None
        with strategy.scope():
            keras.utils.set_random_seed(training.seed)
            self.model = PixelCNNPP(run.model, recompute=training.recompute, dtype=training.dtype)
            self.optimizer = optimizers.make_optimizer(training)
            self.optimizer.build(self.model.trainable_variables)
        # The step hands over gradients that are summed over the replicas already.
        self.optimizer._all_reduce_sum_gradients = lambda pairs: pairs
        self._averages = checkpoints.averages(self.model, self.optimizer)
        self._part_gradients = self._gradients
        if training.jit_compile:
            self._part_gradients = tf.function(self._gradients, jit_compile=True, autograph=False)
        self._train_step = tf.function(self._distributed_step, autograph=False)
        self._loss = tf.function(self._distributed_loss, autograph=False)
        self.graph = None

    @property
    def step(self):
        """Number of updates done."""
        return int(self.optimizer.iterations.numpy())

    @property
    def learning_rate(self):
        """Learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    @property
    def worker(self):
        """Index of this process and number of processes, as `data.train_batches` takes them."""
        return self.worker_index, self.num_workers

    def initialize(self, images, labels):
        """Data-dependent initialisation of the model on one whole batch, every replica alike.

        Args:
          images: Integers [B, H, W, C].
          labels: Integers [B], or None.
        """
        with self.strategy.scope():
            self.model.initialize(images, self._condition(labels), seed=self._seed)
            for average, weight in zip(self._averages, self.model.trainable_variables, strict=True):
                average.assign(weight)

    def restore(self, run_dir):
        """Sets model and optimizer to the newest checkpoint of a run; returns its TrainingState."""
        with self.strategy.scope():
            return checkpoints.restore(run_dir, self.model, self.optimizer)

    def save(self, run_dir, state, keep):
        """Writes a checkpoint of TrainingState `state`; `keep` of them stay."""
        checkpoints.save(run_dir, self.model, self.optimizer, state, keep)

    def copy_averages(self, model):
        """Sets the weights of another model of the same configuration to the Polyak averages."""
        for weight, average in zip(model.trainable_variables, self._averages, strict=True):
            weight.assign(np.asarray(average))

    def train_step(self, images, labels=None, is_last=False):
        """One update on a global batch, split evenly over the replicas.

        The gradient is that of the negative log-likelihood in nats, summed over images and
        replicas, as in the original release, so that the optimizer's epsilon means the same.

        Args:
          images: Integers [B, H, W, C], this worker's part of the global batch, B a multiple of
            its replicas times the parts that gradients are accumulated over.
          labels: Integers [B], or None.
          is_last: Whether this worker wishes to stop behind this step.

        Returns:
          StepResult.
        """
        results = self._train_step(
            self._split(images), self._split(self._condition(labels)), tf.constant(float(is_last))
        )
        nats, wishes, gradient_norm = (float(x) for x in results)
        num_dims = math.prod(images.shape) * self.num_workers
        return StepResult(likelihoods.bits_per_dim(nats, num_dims), gradient_norm, wishes > 0)

    def evaluate(self, images):
        """Exact bits/dim of a set, or its other loss, with the averaged weights.

        Args:
          images: ImageData.

        Returns:
          `evaluation.Score`.
        """
        num_replicas = self.strategy.num_replicas_in_sync
        batch_size = num_replicas * math.ceil(min(64, len(images.images)) / num_replicas)
        size = batch_size // self.num_workers
        own = slice(self.worker_index * size, (self.worker_index + 1) * size)

        def log_prob(batch, labels):
            labels = None if labels is None else self._split(labels[own])
            arguments = self._split(batch[own]), labels
            if self.graph is None:
                self.graph = self._loss.get_concrete_function(*arguments).graph
            return -self._loss(*arguments).numpy()

        return evaluation.score(
            log_prob,
            data.eval_batches(images, batch_size),
            self._is_conditional,
            self.model.config.loss_unit,
        )

    def agree(self, digest):
        """Whether a string is the same in all workers."""
        number = int.from_bytes(hashlib.sha256(digest.encode()).digest()[:7], "big")

        @tf.function(autograph=False)  # outside of one, TensorFlow warns of its own slowness
        def numbers():
            own = self.strategy.run(lambda: tf.constant([number], tf.int64))
            return self.strategy.gather(own, axis=0)

        return bool(tf.reduce_all(numbers() == number))

    def _condition(self, labels):
        return labels if self._is_conditional else None

    def _split(self, batch):
        """This worker's part of a batch as its parts, one a replica; None stays None."""
        if batch is None:
            return None
        parts = tf.split(batch, self._num_local_replicas)
        first = self.worker_index * self._num_local_replicas
        return self.strategy.experimental_distribute_values_from_function(
            lambda replica: parts[replica.replica_id_in_sync_group - first]
        )

    def _distributed_step(self, images, labels, is_last):
        sums, gradient_norm = self.strategy.run(self._replica_step, args=(images, labels, is_last))
        nats, wishes = tf.unstack(self.strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None))
        # The same in all replicas.
        gradient_norm = self.strategy.reduce(tf.distribute.ReduceOp.MEAN, gradient_norm, axis=None)
        return nats, wishes, gradient_norm

    def _replica_step(self, images, labels, is_last):
        replica = tf.distribute.get_replica_context()
        nats, gradients = self._accumulated_gradients(images, labels)
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        gradient_norm = tf.linalg.global_norm(gradients)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return tf.stack([nats, tf.cast(is_last, nats.dtype)]), gradient_norm

    def _accumulated_gradients(self, images, labels):
        """Nats of a replica's images and their gradients, from one part of them after the other."""
        replica = tf.distribute.get_replica_context()
        num_parts = self._accumulate_steps
        part_size = images.shape[0] // num_parts
        step = tf.cast(self.optimizer.iterations, tf.int64)
        # Number 0 is the dropout of the data-dependent initialisation.
        seed = tf.stack([tf.constant(self._seed, tf.int64), 1 + step])
        first_image = tf.cast(replica.replica_id_in_sync_group, tf.int64) * images.shape[0]
        if num_parts == 1:
            return self._part_gradients(images, labels, seed, first_image)

        def add_part(number, nats, gradients):
            rows = number * part_size + tf.range(part_size)
            part_nats, part_gradients = self._part_gradients(
                tf.gather(images, rows),
                None if labels is None else tf.gather(labels, rows),
                seed,
                first_image + tf.cast(number * part_size, tf.int64),
            )
            gradients = [a + b for a, b in zip(gradients, part_gradients, strict=True)]
            return number + 1, nats + part_nats, gradients

        weights = self.model.trainable_variables
        nothing = tf.zeros([], weights[0].dtype), [tf.zeros(w.shape, w.dtype) for w in weights]
        _, nats, gradients = tf.while_loop(
            lambda number, *_: number < num_parts,
            add_part,
            (0, *nothing),
            parallel_iterations=1,  # the parts are there to save memory
        )
        return nats, gradients

    def _gradients(self, images, labels, seed, first_image):
        with tf.GradientTape() as tape:
            raw_params = self.model(
                images, labels, training=True, seed=seed, first_image=first_image
            )
            noise = self.model.noise(images, seed, first_image)
            nats = tf.reduce_sum(self.model.loss_of(raw_params, images, noise))
        return nats, tape.gradient(nats, [w.value for w in self.model.trainable_variables])

    def _distributed_loss(self, images, labels):
        return self.strategy.gather(
            self.strategy.run(self._replica_loss, args=(images, labels)), axis=0
        )

    def _replica_loss(self, images, labels):
        # The averages stand in for the weights within this scope only.
        averages = zip(self.model.trainable_variables, self._averages, strict=True)
        with keras.StatelessScope(state_mapping=averages):
            return self.model.loss_of(self.model(images, labels), images)


def train(run, train_data, test_data, strategy=None, log=print):
    """Trains a run to its last epoch, from the start or from its newest checkpoint.

    Writes into the directory of the run: its configuration, checkpoints, samples and completions
    (PNG and npz) and TensorBoard's event files. Of several workers only the first one writes; all
    read a resumed run from there, so that the directory must be on a disk that all of them see.

    SIGTERM and Ctrl-C let the present step end and save it before the function returns.

    Args:
      run: RunConfig.
      train_data: ImageData to train on.
      test_data: ImageData that is scored after every epoch, with the averaged weights.
      strategy: `tf.distribute.Strategy`; None for that of `run.training.nr_gpu`.
      log: Function of a line.

    Raises:
      ValueError: If the data do not fit the model, the directory holds a run already and
        `load_params` is off, or it holds none and `load_params` is on, or a batch does not fit
        into the memory.
      FloatingPointError: If the loss is not finite; the checkpoints stay as they are.
      OSError: If the directory cannot be written, the disk is too small, or another worker is
        lost.
    """
    training = run.training
    run_dir = pathlib.Path(training.save_dir)
    _check_data(run, train_data, test_data)
    if checkpoints.latest(run_dir) is not None and not training.load_params:
        raise ValueError(
            f"{run_dir} holds a run already: add --load_params to go on with it, or choose another "
            "--save_dir."
        )
    if strategy is None:
        strategy = devices.make_strategy(training.nr_gpu, training.peer_timeout, log)
    batch_size = training.batch_size * strategy.num_replicas_in_sync
    if batch_size > len(train_data.images):
        raise ValueError(
            f"`batch_size` times the replicas must be at most {len(train_data.images)}, the number "
            f"of training images. Received: batch_size={training.batch_size} on "
            f"{strategy.num_replicas_in_sync} replicas"
        )
    is_chief = devices.worker_index(strategy) == 0
    if is_chief:
        # What cannot be written is reported before the model is built.
        run_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_dir):
            pass
    else:
        log(
            f"Worker {devices.worker_index(strategy)} of {devices.num_workers(strategy)}: "
            "worker 0 reports and writes."
        )
        log = _say_nothing
    with _one_line_errors(devices.num_workers(strategy), training):
        trainer = Trainer(run, strategy)
        log(_describe(run, train_data, test_data, trainer))
        loop = _Loop(trainer, run, train_data, test_data, log)
        loop.start()
        loop.run()


class _Loop:
    """The loop around a Trainer: epochs, checkpoints, what is told of them."""

    def __init__(self, trainer, run, train_data, test_data, log):
        self._trainer = trainer
        self._run = run
        self._train_data, self._test_data = train_data, test_data
        self._log = log
        self._run_dir = pathlib.Path(run.training.save_dir)
        self._is_chief = trainer.worker_index == 0
        self._batch_size = run.training.batch_size * trainer.strategy.num_replicas_in_sync
        self._state = None
        self._saved_at = time.monotonic()
        self._pictures = _Pictures(run, test_data, self._batch_size)
        self._loss_name = "energy_distance" if run.model.energy_distance else "bits_per_dim"

    def start(self):
        """Brings the model where training is to start: initialised, or at its checkpoint."""
        trainer, training, train_data = self._trainer, self._run.training, self._train_data
        if training.load_params:
            self._state = trainer.restore(self._run_dir)
            within = f" and {self._state.num_images} images" if self._state.num_images else ""
            self._log(f"Resumed from epoch {self._state.epoch}{within}, step {self._state.step}.")
        else:
            first = data.epoch_order(len(train_data.images), training.seed, 0)
            first = first[: training.init_batch_size]
            trainer.initialize(
                train_data.images[first],
                None if train_data.labels is None else train_data.labels[first],
            )
            self._state = checkpoints.TrainingState(step=0, epoch=0)
        if trainer.num_workers > 1 and not trainer.agree(self._digest()):
            raise ValueError(
                "All workers must have the same flags, data and checkpoint. "
                "Received: others in another worker"
            )
        if self._is_chief:
            _check_disk(self._run_dir, trainer.model, training.keep)
            checkpoints.save_config(self._run_dir, self._run)
            if not training.load_params:
                # What a full disk would spoil is tried before time is spent.
                trainer.save(self._run_dir, self._state, training.keep)

    def run(self):
        """Trains to the last epoch, or to the step behind which a signal asks to stop."""
        max_epochs = self._run.training.max_epochs
        if self._state.epoch >= max_epochs:
            self._log(f"All {max_epochs} epochs are done; --max_epochs says how many to train.")
        with _StopRequest() as stop, monitoring.Monitor(self._run, self._is_chief) as monitor:
            monitor.write_hyper_parameters(self._run)
            while self._state.epoch < max_epochs:
                epoch = _Epoch(
                    self._state,
                    len(self._train_data.images),
                    self._batch_size,
                    self._run.model.loss_unit,
                )
                self._train_epoch(epoch, stop, monitor)
                if epoch.is_done:
                    self._finish_epoch(epoch, monitor)
                if epoch.is_stopped:
                    self._save(must=True)
                    self._log(
                        f"Stopped by {stop.name} at step {self._state.step} and saved: "
                        f"python train.py --save_dir {self._run_dir} --load_params goes on."
                    )
                    return

    def _digest(self):
        """What all workers must agree on, as a string."""
        training = dataclasses.replace(self._run.training, save_dir="-", peer_timeout=1.0)
        settings = dataclasses.replace(self._run.data, data_dir="-")
        run = config.RunConfig(self._run.model, settings, training)
        order = data.epoch_order(len(self._train_data.images), training.seed, 0)
        images = np.ascontiguousarray(self._train_data.images[order[:16]])
        digest = hashlib.sha256(images).hexdigest()
        return f"{config.to_json(run)} {self._state} {len(order)} {digest}"

    def _train_epoch(self, epoch, stop, monitor):
        """Trains on what is left of an epoch."""
        training, trainer = self._run.training, self._trainer
        batches = data.train_batches(
            self._train_data,
            self._batch_size,
            training.seed,
            self._state.epoch,
            start_batch=epoch.num_done,
            augment=training.augment,
            worker=trainer.worker,
        )
        # A bar on a terminal; elsewhere, and of other workers, a line now and then.
        bar = tqdm(
            desc=f"epoch {epoch.number}",
            initial=epoch.num_done,
            total=epoch.num_steps,
            unit="step",
            leave=False,
            disable=None if self._is_chief else True,
            file=sys.stderr,
        )
        last_line = time.monotonic()
        with bar:
            for batch in epoch.timed(batches):
                monitor.count_step()
                batch = batch if isinstance(batch, tuple) else (batch,)
                result = trainer.train_step(*batch, is_last=stop.is_requested)
                if not math.isfinite(result.bits_per_dim):
                    raise FloatingPointError(
                        f"The loss is {result.bits_per_dim} at step {trainer.step}: training "
                        "stopped. The last checkpoint is as it was; a lower --learning_rate may "
                        "help."
                    )
                epoch.add(result)
                self._state = epoch.state(trainer.step)
                if epoch.num_done % _STEPS_BETWEEN_POINTS == 0:
                    monitor.write_scalars(
                        {
                            f"step/{self._loss_name}": result.bits_per_dim,
                            "step/gradient_norm": result.gradient_norm,
                        },
                        trainer.step,
                    )
                bar.update()
                bar.set_postfix_str(epoch.describe_last(), refresh=False)
                if bar.disable and time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
                    self._log(
                        f"epoch {epoch.number}  step {epoch.num_done} of {epoch.num_steps}  "
                        f"{epoch.describe_last()}"
                    )
                    last_line = time.monotonic()
                if epoch.is_stopped:
                    return
                minutes = (time.monotonic() - self._saved_at) / 60
                if 0 < training.save_minutes < minutes and not epoch.is_done:
                    self._save()

    def _finish_epoch(self, epoch, monitor):
        """Scores the test images, writes what is due, and tells."""
        training, trainer = self._run.training, self._trainer
        test = trainer.evaluate(self._test_data)
        step = trainer.step
        self._state = checkpoints.TrainingState(step, epoch.number)
        loss_name = self._loss_name
        scalars = {
            f"train/{loss_name}": epoch.mean_bits_per_dim,
            "train/gradient_norm": epoch.mean_gradient_norm,
            f"test/{loss_name}": test.mean,
            "learning_rate": trainer.learning_rate,
            "images_per_second": epoch.images_per_second,
            "seconds_per_step": epoch.seconds_per_step,
            "data_wait_share": epoch.data_wait_share,
        }
        monitor.write_graph(trainer.graph)
        monitor.write_scalars(scalars, step)
        left = (training.max_epochs - epoch.number) * epoch.num_steps * epoch.seconds_per_step
        self._log(
            f"epoch {epoch.number}/{training.max_epochs}  step {step}  "
            f"train {epoch.mean_bits_per_dim:.4f}  test {test.mean:.4f} {test.unit}  "
            f"{epoch.images_per_second:.0f} images/s  "
            f"{100 * epoch.data_wait_share:.0f} % waiting for data  {_describe_time(left)} left"
        )
        is_last = epoch.number == training.max_epochs
        if epoch.number % training.save_interval == 0 or is_last:
            if self._save(must=is_last):
                self._log(f"Saved epoch {epoch.number} to {self._run_dir}.")
            if self._is_chief and training.num_samples > 0:
                self._pictures.write(trainer, epoch.number, monitor)

    def _save(self, must=False):
        """Writes a checkpoint; one that fails is told of, and fatal only where it must be there."""
        self._saved_at = time.monotonic()
        if not self._is_chief:
            return False
        try:
            self._trainer.save(self._run_dir, self._state, self._run.training.keep)
        except OSError as error:
            message = (
                f"No checkpoint could be written at step {self._state.step} "
                f"({error.strerror or error}); the last one is {checkpoints.latest(self._run_dir)}"
            )
            if must:
                raise OSError(message) from None
            self._log(f"{message}. Training goes on.")
            return False
        return True


class _Epoch:
    """What a pass over the training images has come to, in part before a run was resumed."""

    def __init__(self, state, num_images, batch_size, loss_unit):
        self._loss_unit = loss_unit
        self.number = state.epoch + 1
        self.num_steps = num_images // batch_size
        self.num_done = state.num_images // batch_size
        self.is_stopped = False
        self._batch_size = batch_size
        self._loss_sum = state.loss_sum
        self._gradient_norms = []
        self._seconds = []  # of each step
        self._seconds_waited = 0.0
        self._last = None

    def timed(self, batches):
        """The batches, the time that they take to come and to be used being kept."""
        iterator = iter(batches)
        while not self.is_done:
            start = time.perf_counter()
            batch = next(iterator)
            self._seconds_waited += time.perf_counter() - start
            yield batch
            self._seconds.append(time.perf_counter() - start)

    def add(self, result):
        """Counts a step."""
        self._last = result
        self.num_done += 1
        self._loss_sum += result.bits_per_dim
        self._gradient_norms.append(result.gradient_norm)
        self.is_stopped = result.is_last

    def state(self, step):
        """Where training stands behind the last step: its TrainingState."""
        num_images = self.num_done * self._batch_size
        return checkpoints.TrainingState(step, self.number - 1, num_images, self._loss_sum)

    def describe_last(self):
        """The last step in words."""
        return f"{self._last.bits_per_dim:.4f} {self._loss_unit}"

    @property
    def is_done(self):
        """Whether all steps of the epoch are done."""
        return self.num_done >= self.num_steps

    @property
    def mean_bits_per_dim(self):
        """Of all steps of the epoch, also of those before a run was resumed."""
        return self._loss_sum / self.num_done

    @property
    def mean_gradient_norm(self):
        """Of the steps since the run was started or resumed, as the rates that follow."""
        return float(np.mean(self._gradient_norms))

    @property
    def seconds_per_step(self):
        """From one batch to the next, the median: the first step compiles itself."""
        return float(np.median(self._seconds))

    @property
    def images_per_second(self):
        """Of all replicas together."""
        return self._batch_size / self.seconds_per_step

    @property
    def data_wait_share(self):
        """Part of the time that passed before a batch was there, in [0, 1]."""
        return self._seconds_waited / sum(self._seconds)


class _Pictures:
    """Samples and completions of a run, drawn by one model with the averages of the moment.

    The model stays, because to compile its sampler takes longer than to draw.
    """

    def __init__(self, run, test_data, batch_size):
        self._run = run
        self._num_samples = run.training.num_samples * batch_size
        self._originals = np.asarray(test_data.images[:_NUM_COMPLETED])
        self._labels = None
        if run.model.num_classes is not None:
            self._labels = test_data.labels[:_NUM_COMPLETED]
        self._model = None

    def write(self, trainer, epoch, monitor):
        """Writes both to the run's folder of samples, and to TensorBoard."""
        if self._model is None:
            self._model = PixelCNNPP(self._run.model)
        trainer.copy_averages(self._model)
        height, width, _ = self._run.model.image_shape
        num_classes, num_levels = self._run.model.num_classes, self._run.model.num_levels
        scale = max(1, 32 // height)
        folder = pathlib.Path(self._run.training.save_dir) / "samples"
        seed = self._run.training.seed + epoch

        labels = None if num_classes is None else np.arange(self._num_samples) % num_classes
        images = sampling.sample(self._model, self._num_samples, labels, seed)
        num_columns = math.isqrt(self._num_samples) if num_classes is None else num_classes
        picture = plots.image_grid(images, num_columns, num_levels, scale=scale)
        plots.save_png(folder / f"epoch_{epoch:04d}.png", picture)
        arrays = {"images": images} if labels is None else {"images": images, "labels": labels}
        np.savez(folder / f"epoch_{epoch:04d}.npz", **arrays)
        monitor.write_picture("samples", picture, trainer.step)

        known_mask = np.repeat(np.arange(height)[:, None] < height // 2, width, axis=1)
        completed = sampling.sample(
            self._model,
            len(self._originals) * _NUM_COMPLETED,
            None if self._labels is None else np.repeat(self._labels, _NUM_COMPLETED),
            seed,
            init_images=np.repeat(self._originals, _NUM_COMPLETED, axis=0),
            known_mask=known_mask,
        )
        picture = plots.completion_grid(self._originals, known_mask, completed, num_levels, scale)
        plots.save_png(folder / f"epoch_{epoch:04d}_completed.png", picture)
        monitor.write_picture("completions", picture, trainer.step)


class _StopRequest:
    """A context in which SIGTERM and Ctrl-C only leave a wish to stop; a second one is obeyed."""

    def __init__(self):
        self.is_requested = False
        self.name = "another worker"
        self._previous = {}

    def __enter__(self):
        # Python lets the main thread alone have a say in signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number, frame):
        self.is_requested = True
        self.name = signal.Signals(number).name
        signal.signal(number, self._previous[number])


@contextlib.contextmanager
def _one_line_errors(num_workers, training):
    """Says in one line what TensorFlow says in many where a user can do something about it."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise ValueError(
            "A batch must fit into the memory of its device: try --accumulate_steps, --recompute "
            f"or a smaller --batch_size. Received: batch_size={training.batch_size} "
            f"({_reason(error)})"
        ) from None
    except tf.errors.OpError as error:
        if num_workers == 1:
            raise
        raise ConnectionError(
            "Another worker was lost, and training stopped. Start all workers again with "
            f"--load_params: they go on from the last checkpoint. Reason: {_reason(error)}"
        ) from None


def _reason(error):
    """What went wrong, of a message that may open with paragraphs on where in the graph it did."""
    return error.message.strip().split("\n\n")[-1].partition("\n")[0][:200]


def _check_disk(run_dir, model, keep):
    """Refuses a disk without room for the checkpoints that are kept, and one that is written."""
    # Weights, averages and two slots of the optimizer, float32.
    checkpoint_bytes = 4 * 4 * model.count_params()
    stored = run_dir.glob("checkpoints/step_*/*.npz")
    needed = (keep + 1) * checkpoint_bytes - sum(path.stat().st_size for path in stored)
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise OSError(
            f"The disk of {run_dir} must have {needed / 2**20:.0f} MiB free for {keep} checkpoints "
            f"and one that is being written. Received: {free / 2**20:.0f} MiB free"
        )


def _check_data(run, train_data, test_data):
    """Refuses data of another kind than the model's."""
    model = run.model
    for name, images in (("train", train_data), ("test", test_data)):
        found = dataclasses.replace(
            model,
            image_shape=images.images.shape[1:],
            num_levels=images.num_levels,
            num_classes=None if model.num_classes is None else images.num_classes,
        )
        if found != model:
            raise ValueError(
                f"The {name} images must fit the model. Received: {found.image_shape}, "
                f"{found.num_levels} levels, {found.num_classes} classes; the model has "
                f"{model.image_shape}, {model.num_levels} levels, {model.num_classes} classes"
            )


def _describe(run, train_data, test_data, trainer):
    """One line on what is trained on what."""
    height, width, channels = run.model.image_shape
    num_replicas = trainer.strategy.num_replicas_in_sync
    return (
        f"{run.data.data_set}: {len(train_data.images)} training and {len(test_data.images)} test "
        f"images, {height}x{width}x{channels}, {run.model.num_levels} levels; "
        f"{trainer.model.count_params():,} parameters, "
        f"{num_replicas} replica{'s' if num_replicas > 1 else ''}"
    )


def _describe_time(seconds):
    """Seconds as a person says them, such as 1 h 05 min."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _say_nothing(line):
    """The log of a worker that leaves the reports to another."""
