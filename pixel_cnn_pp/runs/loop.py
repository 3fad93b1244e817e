"""The training loop of a run, from its start or its newest checkpoint to its last epoch."""

import contextlib
import dataclasses
import hashlib
import math
import pathlib
import sys
import tempfile
import time

import numpy as np
from tqdm import tqdm

from pixel_cnn_pp import config, data
from pixel_cnn_pp.runs import checkpoints, locks, monitoring, refusals, samples, stopping, stored
from pixel_cnn_pp.runs.backend import Trainer, devices
from pixel_cnn_pp.runs.epoch import Epoch

# Seconds between two lines of the log within an epoch, if no progress bar is shown.
_SECONDS_BETWEEN_LINES = 60
# Number of steps between two points of TensorBoard's curves within an epoch.
_STEPS_BETWEEN_POINTS = 50


def train(run, train_data, test_data, strategy=None, log=print):
    """Trains a run to its last epoch, from the start or from its newest checkpoint.

    The directory of the run gets its configuration, checkpoints, samples and completions (PNG and
    npz), and TensorBoard's event files. If there are several workers, only the first one writes
    these files. When a run is resumed, all workers read the checkpoint from this directory.
    Therefore it must be on a disk that all of them share.

    After SIGTERM, SIGHUP or Ctrl-C, or when a pipe that reads the lines is closed, the current step
    is finished, a checkpoint is written, and the function returns. After
    `run.training.max_minutes` too, and then the test images are scored first.

    Only one process trains in a directory at a time. If the directory is removed or moved, training
    stops.

    Args:
      run: RunConfig.
      train_data: ImageData to train on.
      test_data: ImageData that is scored after every epoch, with the averaged weights.
      strategy: The result of `backend.devices.make_strategy`. None to make it from
        `run.training.nr_gpu`.
      log: Function of a string, called with one line at a time.

    Raises:
      ValueError: If the data do not fit the model, if the directory holds a run but `load_params`
        is False, if it holds no run but `load_params` is True, or if a batch does not fit into the
        memory.
      FloatingPointError: If the loss is not finite. The earlier checkpoints remain.
      OSError: If another process trains in the directory, if it cannot be written, or is removed or
        moved, if the disk is too small, or if another worker is lost.
    """
    training = run.training
    run_dir = pathlib.Path(training.save_dir)
    refusals.check_data(run, train_data, test_data)
    if strategy is None:
        strategy = devices.make_strategy(training.nr_gpu, training.peer_timeout, log)
    num_replicas = devices.num_replicas(strategy)
    batch_size = training.batch_size * num_replicas
    if batch_size > len(train_data.images):
        raise ValueError(
            f"`batch_size` times the replicas must be at most {len(train_data.images)}, the number "
            f"of training images. Received: batch_size={training.batch_size} on "
            f"{num_replicas} replicas"
        )
    worker_index, num_workers = devices.worker_index(strategy), devices.num_workers(strategy)
    with contextlib.ExitStack() as stack:
        lock = None
        if worker_index == 0:
            # Only the first worker writes.
            lock = stack.enter_context(locks.locked(run_dir))
            # Check that it can before time is spent on building the model.
            with tempfile.TemporaryFile(dir=run_dir):
                pass
            if not lock.is_real:
                log(
                    f"{run_dir} cannot be locked: nothing keeps another process from writing there."
                )
        else:
            log(f"Worker {worker_index} of {num_workers}: worker 0 reports and writes.")
            log = _say_nothing
        if checkpoints.latest(run_dir) is not None and not training.load_params:
            raise ValueError(
                f"{run_dir} holds a run already: add --load_params to go on with it, or choose "
                "another --save_dir."
            )
        if training.load_params:
            # The sizes in a damaged configuration may be of no model that fits into the memory.
            stored.read_latest(run_dir, lambda path: stored.load_state(path, run.model))
        stack.enter_context(refusals.one_line_errors(num_workers, training))
        trainer = Trainer(run, strategy)
        log(_describe(run, train_data, test_data, trainer))
        loop = _Loop(trainer, run, train_data, test_data, log, lock)
        loop.start()
        loop.run()


class _Loop:
    """The loop around a Trainer. It runs the epochs, writes checkpoints and reports progress."""

    def __init__(self, trainer, run, train_data, test_data, log, lock=None):
        self._trainer = trainer
        self._run = run
        self._train_data, self._test_data = train_data, test_data
        self._log = log
        self._run_dir = pathlib.Path(run.training.save_dir)
        self._lock = lock
        self._is_chief = trainer.worker_index == 0
        # The configuration of a resumed run is stored with the first checkpoint that it produced.
        self._has_stored_config = False
        self._batch_size = run.training.batch_size * trainer.num_replicas
        self._state = None
        self._saved_at = time.monotonic()
        self._pictures = samples.Pictures(run, test_data, self._batch_size)
        self._likelihood = trainer.model.likelihood

    def start(self):
        """Prepares the model: loads its checkpoint, or initialises it for a new run."""
        trainer, training, train_data = self._trainer, self._run.training, self._train_data
        if training.load_params:
            num_images = len(train_data.images)
            self._state = trainer.restore(self._run_dir, num_images, self._batch_size)
            refusals.check_progress(self._run, self._state, num_images)
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
            refusals.check_disk(self._run_dir, trainer.model, training.keep)
            if not training.load_params:
                # Write a first checkpoint now, so that an error shows before time is spent.
                self._store_config()
                trainer.save(self._run_dir, self._state, training.keep)

    def run(self):
        """Trains to the last epoch or minute, or until a signal asks to stop."""
        max_epochs = self._run.training.max_epochs
        if self._state.epoch >= max_epochs:
            self._log(f"All {max_epochs} epochs are done; --max_epochs says how many to train.")
        elif self._is_over():
            minutes = self._run.training.max_minutes
            self._log(f"All {minutes:g} minutes are done; --max_minutes says how many to train.")
            return
        stop = stopping.StopRequest()
        self._log = stop.telling(self._log)
        with stop, monitoring.Monitor(self._run, self._is_chief, self._log) as monitor:
            monitor.write_hyper_parameters(self._run)
            while self._state.epoch < max_epochs:
                epoch = Epoch(
                    self._state,
                    len(self._train_data.images),
                    self._batch_size,
                    self._likelihood.unit,
                )
                self._train_epoch(epoch, stop, monitor)
                if epoch.is_done:
                    self._finish_epoch(epoch, monitor)
                if self._ends_by_time(epoch):
                    self._finish_time(epoch, monitor)
                    return
                if epoch.is_stopped:
                    self._save(must=True)
                    self._log(
                        f"Stopped by {stop.name} at step {self._state.step} and saved: "
                        f"python train.py --save_dir {self._run_dir} --load_params goes on."
                    )
                    return

    def _is_over(self):
        """Whether the time of the run is over, by the clock of this worker."""
        minutes = self._run.training.max_minutes
        return minutes is not None and self._state.seconds >= 60 * minutes

    def _ends_by_time(self, epoch):
        """Whether the run ends because its time is over. All workers get the same answer."""
        if self._run.training.max_minutes is None:
            return False
        if self._trainer.num_workers == 1:
            return self._is_over()
        # The clock of the first worker decides. The others agree with either answer.
        is_over = not self._is_chief or self._is_over()
        return epoch.is_stopped and self._trainer.agree(f"the time is over: {is_over}")

    def _digest(self):
        """A string of everything that must be the same in all workers."""
        training = dataclasses.replace(self._run.training, save_dir="-", peer_timeout=1.0)
        settings = dataclasses.replace(self._run.data, data_dir="-")
        run = config.RunConfig(self._run.model, settings, training)
        order = data.epoch_order(len(self._train_data.images), training.seed, 0)
        images = np.ascontiguousarray(self._train_data.images[order[:16]])
        digest = hashlib.sha256(images).hexdigest()
        return f"{config.to_json(run)} {self._state} {len(order)} {digest}"

    def _train_epoch(self, epoch, stop, monitor):
        """Trains on the remaining images of an epoch."""
        training, trainer = self._run.training, self._trainer
        batches = data.train_batches(
            self._train_data,
            self._batch_size,
            training.seed,
            self._state.epoch,
            start_image=epoch.num_images,
            augment=training.augment,
            worker=trainer.worker,
        )
        # A terminal shows a progress bar. A log file, and every worker but the first, gets a line
        # from time to time.
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
                is_last = stop.is_requested or (self._is_chief and self._is_over())
                result = trainer.train_step(*batch, is_last=is_last)
                if not math.isfinite(result.bits_per_dim):
                    raise FloatingPointError(
                        f"The loss is {result.bits_per_dim} at step {trainer.step}: training "
                        "stopped. The last checkpoint is as it was; a lower --learning_rate may "
                        "help."
                    )
                epoch.add(result)
                self._state = epoch.state(trainer.step)
                if epoch.num_done % _STEPS_BETWEEN_POINTS == 0:
                    self._check_directory()
                    monitor.write_scalars(
                        {
                            f"step/{self._likelihood.loss_name}": result.bits_per_dim,
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
                if epoch.is_stopped or self._ends_by_time(epoch):
                    return
                minutes = (time.monotonic() - self._saved_at) / 60
                if 0 < training.save_minutes < minutes and not epoch.is_done:
                    self._save()

    def _finish_epoch(self, epoch, monitor):
        """Ends an epoch: scores the test images, reports, and writes checkpoint and samples."""
        training, trainer = self._run.training, self._trainer
        test = trainer.evaluate(self._test_data)
        step = trainer.step
        self._state = checkpoints.TrainingState(step, epoch.number, seconds=epoch.seconds)
        loss_name = self._likelihood.loss_name
        scalars = {
            f"train/{loss_name}": epoch.mean_bits_per_dim,
            f"test/{loss_name}": test.mean,
            "learning_rate": trainer.learning_rate,
            "training_minutes": epoch.seconds / 60,
        }
        line = (
            f"epoch {epoch.number}/{training.max_epochs}  step {step}  "
            f"train {epoch.mean_bits_per_dim:.4f}  test {test.mean:.4f} {test.unit}"
        )
        # If a run is resumed when the remaining images do not fill a batch, no step was timed.
        if epoch.has_speed:
            scalars |= {
                "train/gradient_norm": epoch.mean_gradient_norm,
                "images_per_second": epoch.images_per_second,
                "seconds_per_step": epoch.seconds_per_step,
                "data_wait_share": epoch.data_wait_share,
            }
            num_steps = len(self._train_data.images) // self._batch_size
            left = (training.max_epochs - epoch.number) * num_steps * epoch.seconds_per_step
            line += (
                f"  {epoch.images_per_second:.0f} images/s  "
                f"{100 * epoch.data_wait_share:.0f} % waiting for data  {_describe_time(left)} left"
            )
        monitor.write_graph(trainer.graph)
        monitor.write_scalars(scalars, step)
        self._log(line)
        is_last = epoch.number == training.max_epochs
        if epoch.number % training.save_interval == 0 or is_last:
            if self._save(must=is_last):
                self._log(f"Saved epoch {epoch.number} to {self._run_dir}.")
            self._write_pictures(epoch.number, monitor)

    def _finish_time(self, epoch, monitor):
        """Ends a run whose time is over, in the middle of an epoch or at its end."""
        minutes = f"{epoch.seconds / 60:.1f} minutes of training"
        line = f"The time is over, after {minutes} at step {self._state.step}"
        if not epoch.is_done:
            test = self._trainer.evaluate(self._test_data)
            scalars = {
                f"test/{self._likelihood.loss_name}": test.mean,
                "training_minutes": epoch.seconds / 60,
            }
            monitor.write_scalars(scalars, self._state.step)
            line += f": test {test.mean:.4f} {test.unit}"
        self._save(must=True)
        self._log(f"{line}. Saved to {self._run_dir}; with more --max_minutes it goes on.")
        if not epoch.is_done or epoch.number % self._run.training.save_interval:
            self._write_pictures(epoch.number, monitor)

    def _write_pictures(self, number, monitor):
        """Writes samples and completions after an epoch or within it, if there are to be any."""
        if self._is_chief and self._run.training.num_samples > 0:
            try:
                self._pictures.write(self._trainer, number, monitor)
            except OSError as error:
                self._log(f"No samples could be written ({error}). Training goes on.")

    def _save(self, must=False):
        """Writes a checkpoint, and returns whether this worker wrote one.

        If the checkpoint cannot be written, this raises an OSError if `must` is True. Otherwise it
        logs a line and training continues.
        """
        self._saved_at = time.monotonic()
        if not self._is_chief:
            return False
        self._check_directory()
        try:
            self._trainer.save(self._run_dir, self._state, self._run.training.keep)
            self._store_config()
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

    def _check_directory(self):
        """Checks that the directory of the run was not removed or moved."""
        if self._lock is not None:
            self._lock.check()

    def _store_config(self):
        """Stores the configuration, once."""
        if not self._has_stored_config:
            checkpoints.save_config(self._run_dir, self._run)
            self._has_stored_config = True


def _describe(run, train_data, test_data, trainer):
    """One line that describes the data and the model."""
    height, width, channels = run.model.image_shape
    num_replicas = trainer.num_replicas
    return (
        f"{run.data.data_set}: {len(train_data.images)} training and {len(test_data.images)} test "
        f"images, {height}x{width}x{channels}, {run.model.num_levels} levels; "
        f"{trainer.model.count_params():,} parameters, "
        f"{num_replicas} replica{'s' if num_replicas > 1 else ''}"
    )


def _describe_time(seconds):
    """A time in words, such as 1 h 05 min."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _say_nothing(line):
    """The log function of all workers but the first."""
