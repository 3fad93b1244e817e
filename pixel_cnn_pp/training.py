"""Training: one step under a distribution strategy, and the loop around it."""

import contextlib
import dataclasses
import math
import pathlib
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pixel_cnn_pp import checkpoints, data, evaluation, likelihoods, optimizers, plots, sampling
from pixel_cnn_pp.model import PixelCNNPP

# Seconds between two lines within an epoch, where no progress bar is shown.
_SECONDS_BETWEEN_LINES = 60


def make_strategy(nr_gpu, log=print):
    """The strategy for a number of GPUs; on the CPU where there is none.

    Args:
      nr_gpu: How many GPUs to train on, at least 0.
      log: Function of a line, told where training falls back to the CPU.

    Returns:
      `tf.distribute.MirroredStrategy`.

    Raises:
      ValueError: If the machine has GPUs, but fewer.
    """
    found = tf.config.list_logical_devices("GPU")
    if nr_gpu > 0 and not found:
        log(f"No GPU found (nr_gpu={nr_gpu}): training on the CPU.")
    elif nr_gpu > len(found):
        raise ValueError(
            f"`nr_gpu` must be at most {len(found)}, the GPUs of this machine. "
            f"Received: nr_gpu={nr_gpu}"
        )
    if nr_gpu == 0 or not found:
        return tf.distribute.MirroredStrategy(["CPU:0"])
    return tf.distribute.MirroredStrategy([device.name for device in found[:nr_gpu]])


class Trainer:
    """A model, its optimizer and its compiled steps, under a distribution strategy.

    Attributes:
      model: PixelCNNPP.
      optimizer: Keras optimizer with Polyak averages.
      strategy: `tf.distribute.Strategy`.
    """

    def __init__(self, run, strategy):
        """Makes the model with fresh weights, the same for the same seed.

        Args:
          run: RunConfig.
          strategy: `tf.distribute.Strategy`.
        """
        self.strategy = strategy
        self._seed = run.training.seed
        self._is_conditional = run.model.num_classes is not None
        with strategy.scope():
            keras.utils.set_random_seed(run.training.seed)
            self.model = PixelCNNPP(run.model)
            self.optimizer = optimizers.make_optimizer(run.training)
            self.optimizer.build(self.model.trainable_variables)
        self._averages = checkpoints.averages(self.model, self.optimizer)
        self._train_step = tf.function(self._distributed_step, autograph=False)
        self._log_prob = tf.function(self._distributed_log_prob, autograph=False)

    @property
    def step(self):
        """Number of updates done."""
        return int(self.optimizer.iterations.numpy())

    @property
    def learning_rate(self):
        """Learning rate of the next step."""
        return float(self.optimizer.learning_rate)

    def initialize(self, images, labels):
        """Data-dependent initialisation of the model on one whole batch, every replica alike.

        Args:
          images: Integers [B, H, W, C].
          labels: Integers [B], or None.
        """
        with self.strategy.scope():
            self.model.initialize(images, self._condition(labels), seed=self._seed)

    def restore(self, run_dir):
        """Sets model and optimizer to the newest checkpoint of a run; returns its TrainingState."""
        with self.strategy.scope():
            return checkpoints.restore(run_dir, self.model, self.optimizer)

    def save(self, run_dir, epoch):
        """Writes a checkpoint behind `epoch` whole epochs."""
        state = checkpoints.TrainingState(step=self.step, epoch=epoch)
        checkpoints.save(run_dir, self.model, self.optimizer, state)

    def train_step(self, images, labels=None):
        """One update on a global batch, split evenly over the replicas.

        The gradient is that of the negative log-likelihood in nats, summed over images and
        replicas, as in the original release, so that the optimizer's epsilon means the same.

        Args:
          images: Integers [B, H, W, C], B a multiple of the number of replicas.
          labels: Integers [B], or None.

        Returns:
          Mean bits/dim of the batch before the update, a float.
        """
        nats = self._train_step(self._split(images), self._split(self._condition(labels)))
        return likelihoods.bits_per_dim(float(nats), math.prod(images.shape))

    def evaluate(self, images):
        """Exact bits/dim of a set, with the averaged weights.

        Args:
          images: ImageData.

        Returns:
          `evaluation.Score`.
        """
        num_replicas = self.strategy.num_replicas_in_sync
        batch_size = num_replicas * math.ceil(min(64, len(images.images)) / num_replicas)

        def log_prob(batch, labels):
            per_replica = self._log_prob(self._split(batch), self._split(labels))
            parts = self.strategy.experimental_local_results(per_replica)
            return np.concatenate([part.numpy() for part in parts])

        batches = data.eval_batches(images, batch_size)
        return evaluation.score(log_prob, batches, self._is_conditional)

    def _condition(self, labels):
        return labels if self._is_conditional else None

    def _split(self, batch):
        """A global batch as its parts, one a replica; None stays None."""
        if batch is None:
            return None
        parts = tf.split(batch, self.strategy.num_replicas_in_sync)
        return self.strategy.experimental_distribute_values_from_function(
            lambda replica: parts[replica.replica_id_in_sync_group]
        )

    def _distributed_step(self, images, labels):
        nats = self.strategy.run(self._replica_step, args=(images, labels))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, nats, axis=None)

    def _replica_step(self, images, labels):
        replica = tf.distribute.get_replica_context()
        step = tf.cast(self.optimizer.iterations, tf.int64)
        # Number 0 is the dropout of the data-dependent initialisation.
        number = 1 + step * replica.num_replicas_in_sync
        number += tf.cast(replica.replica_id_in_sync_group, tf.int64)
        with tf.GradientTape() as tape:
            raw_params = self.model(
                images,
                labels,
                training=True,
                seed=tf.stack([tf.constant(self._seed, tf.int64), number]),
            )
            nats = -tf.reduce_sum(self.model.log_prob_of(raw_params, images))
        gradients = tape.gradient(nats, [w.value for w in self.model.trainable_variables])
        # Sums the gradients over the replicas.
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return nats

    def _distributed_log_prob(self, images, labels):
        return self.strategy.run(self._replica_log_prob, args=(images, labels))

    def _replica_log_prob(self, images, labels):
        # The averages stand in for the weights within this call only.
        raw_params, _ = self.model.stateless_call(
            self._averages, self.model.non_trainable_variables, images, labels
        )
        return self.model.log_prob_of(raw_params, images)


def train(run, train_data, test_data, strategy=None, log=print):
    """Trains a run to its last epoch, from the start or from its newest checkpoint.

    Writes into the directory of the run: its configuration, checkpoints, samples (PNG and npz) and
    TensorBoard's event files.

    Args:
      run: RunConfig.
      train_data: ImageData to train on.
      test_data: ImageData that is scored after every epoch, with the averaged weights.
      strategy: `tf.distribute.Strategy`; None for that of `run.training.nr_gpu`.
      log: Function of a line.

    Raises:
      ValueError: If the data do not fit the model, the directory holds a run already and
        `load_params` is off, or it holds none and `load_params` is on.
      FloatingPointError: If the loss is not finite; the checkpoints stay as they are.
      OSError: If the directory cannot be written.
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
        strategy = make_strategy(training.nr_gpu, log)
    batch_size = training.batch_size * strategy.num_replicas_in_sync
    if batch_size > len(train_data.images):
        raise ValueError(
            f"`batch_size` times the replicas must be at most {len(train_data.images)}, the number "
            f"of training images. Received: batch_size={training.batch_size} on "
            f"{strategy.num_replicas_in_sync} replicas"
        )
    # What cannot be written is reported before the model is built.
    run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=run_dir):
        pass
    trainer = Trainer(run, strategy)
    log(_describe(run, train_data, test_data, trainer))
    if training.load_params:
        state = trainer.restore(run_dir)
        log(f"Resumed from epoch {state.epoch}, step {state.step}.")
    else:
        state = checkpoints.TrainingState(step=0, epoch=0)
        first = data.epoch_order(len(train_data.images), training.seed, 0)
        first = first[: training.init_batch_size]
        trainer.initialize(
            train_data.images[first],
            None if train_data.labels is None else train_data.labels[first],
        )
    checkpoints.save_config(run_dir, run)

    writer = tf.summary.create_file_writer(str(run_dir / "tensorboard"))
    with contextlib.closing(writer), writer.as_default():
        for epoch in range(state.epoch, training.max_epochs):
            batches = data.train_batches(
                train_data, batch_size, training.seed, epoch, augment=training.augment
            )
            start = time.perf_counter()
            losses = _train_epoch(trainer, batches, epoch + 1, log)
            images_per_second = len(losses) * batch_size / (time.perf_counter() - start)
            scalars = {
                "train/bits_per_dim": float(np.mean(losses)),
                "test/bits_per_dim": trainer.evaluate(test_data).mean,
                "learning_rate": trainer.learning_rate,
                "images_per_second": images_per_second,
            }
            log(
                f"epoch {epoch + 1}/{training.max_epochs}  step {trainer.step}  "
                f"train {scalars['train/bits_per_dim']:.4f}  "
                f"test {scalars['test/bits_per_dim']:.4f} bits/dim  "
                f"{images_per_second:.0f} images/s"
            )
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step=trainer.step)
            writer.flush()  # a run that is killed later keeps its curves
            if (epoch + 1) % training.save_interval == 0 or epoch + 1 == training.max_epochs:
                trainer.save(run_dir, epoch + 1)
                if training.num_samples > 0:
                    _write_samples(run, batch_size, epoch + 1, trainer.step)
                log(f"Saved epoch {epoch + 1} to {run_dir}.")


def _train_epoch(trainer, batches, epoch, log):
    """Trains on the batches of one epoch; returns their losses, bits/dim."""
    losses = []
    # A bar on a terminal; elsewhere a line now and then.
    bar = tqdm(
        batches,
        desc=f"epoch {epoch}",
        total=len(batches),
        unit="step",
        leave=False,
        disable=None,
        file=sys.stderr,
    )
    last_line = time.monotonic()
    for batch in bar:
        loss = trainer.train_step(*(batch if isinstance(batch, tuple) else (batch,)))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss} at step {trainer.step}: training stopped. The last checkpoint "
                "is as it was; a lower --learning_rate may help."
            )
        losses.append(loss)
        bar.set_postfix_str(f"{loss:.3f} bits/dim", refresh=False)
        if bar.disable and time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
            log(f"epoch {epoch}  step {len(losses)} of {len(batches)}  {loss:.4f} bits/dim")
            last_line = time.monotonic()
    return losses


def _write_samples(run, batch_size, epoch, step):
    """Draws samples from the checkpoint just written, with its averaged weights."""
    run_dir = pathlib.Path(run.training.save_dir)
    num_samples = run.training.num_samples * batch_size
    num_classes = run.model.num_classes
    labels = None if num_classes is None else np.arange(num_samples) % num_classes
    images = sampling.sample(
        checkpoints.load(run_dir), num_samples, labels, seed=run.training.seed + epoch
    )
    picture = plots.image_grid(
        images,
        num_columns=math.isqrt(num_samples) if num_classes is None else num_classes,
        num_levels=run.model.num_levels,
        scale=max(1, 32 // run.model.image_shape[0]),
    )
    stem = run_dir / "samples" / f"epoch_{epoch:04d}"
    plots.save_png(stem.with_suffix(".png"), picture)
    arrays = {"images": images} if labels is None else {"images": images, "labels": labels}
    np.savez(stem.with_suffix(".npz"), **arrays)
    tf.summary.image("samples", picture[None], step=step)


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
