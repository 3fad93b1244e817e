"""The progress, losses and speed of one pass over the training images."""

import time
from typing import NamedTuple

import numpy as np

from pixel_cnn_pp.runs import checkpoints


class StepResult(NamedTuple):
    """The result of a training step, over the global batch.

    Attributes:
      bits_per_dim: Mean loss before the update. The energy distance is divided by the same number
        as nats, as in the original release.
      gradient_norm: Euclidean norm of the gradient of the summed nats.
      is_last: Whether a worker asks to stop after this step.
    """

    bits_per_dim: float
    gradient_norm: float
    is_last: bool


class Epoch:
    """The progress, losses and speed of one pass over the training images.

    A run may be resumed in the middle of an epoch, and with another batch size. Therefore an epoch
    counts images. It also counts steps, to show the progress to the user. That count treats the
    images from before the resume as if they had come in batches of the current size.

    Attributes:
      number: Number of the epoch. The first epoch of a run has number 1.
      num_images: Number of images that are done.
      num_steps: Number of steps in the whole epoch.
      is_stopped: Whether a worker asked to stop after the last step.
      seconds: Time of all steps of the run that are done.
    """

    def __init__(self, state, num_images, batch_size, loss_unit):
        """Begins an epoch, or continues it from a stored state.

        Args:
          state: TrainingState.
          num_images: Number of training images, N.
          batch_size: Size of the global batch. The last images, which do not fill a batch, are left
            out.
          loss_unit: Unit of the losses, such as "bits/dim".
        """
        self.number = state.epoch + 1
        self.num_images = state.num_images
        self.is_stopped = False
        self.seconds = state.seconds
        num_left = (num_images - state.num_images) // batch_size
        self.num_steps = state.num_images // batch_size + num_left
        self._num_left = num_left
        self._batch_size = batch_size
        self._loss_unit = loss_unit
        self._image_loss_sum = state.image_loss_sum
        self._gradient_norms = []
        self._seconds = []  # time of each step
        self._step_start = None
        self._seconds_waited = 0.0
        self._last = None

    def timed(self, batches):
        """Yields the batches, and measures the time that was spent waiting for them."""
        iterator = iter(batches)
        while not self.is_done:
            self._step_start = time.perf_counter()
            batch = next(iterator)
            self._seconds_waited += time.perf_counter() - self._step_start
            yield batch

    def add(self, result):
        """Adds a step, given its StepResult, with the time since its batch was asked for."""
        self._seconds.append(time.perf_counter() - self._step_start)
        self.seconds += self._seconds[-1]
        self._last = result
        self._num_left -= 1
        self.num_images += self._batch_size
        self._image_loss_sum += self._batch_size * result.bits_per_dim
        self._gradient_norms.append(result.gradient_norm)
        self.is_stopped = result.is_last

    def state(self, step):
        """The TrainingState after the last step. `step` is the number of updates of the run."""
        return checkpoints.TrainingState(
            step, self.number - 1, self.num_images, self._image_loss_sum, self.seconds
        )

    def describe_last(self):
        """The loss of the last step, as text."""
        return f"{self._last.bits_per_dim:.4f} {self._loss_unit}"

    @property
    def num_done(self):
        """Number of steps that are done."""
        return self.num_steps - self._num_left

    @property
    def is_done(self):
        """Whether the epoch is done: the remaining images do not fill a batch."""
        return self._num_left == 0

    @property
    def mean_bits_per_dim(self):
        """Mean loss, over all images of the epoch, including those before the run was resumed."""
        return self._image_loss_sum / self.num_images

    @property
    def has_speed(self):
        """Whether a step was done since the run was started or resumed.

        The properties below are about these steps only, and need at least one.
        """
        return bool(self._seconds)

    @property
    def mean_gradient_norm(self):
        """Mean of the gradient norms of the steps."""
        return float(np.mean(self._gradient_norms))

    @property
    def seconds_per_step(self):
        """Median time of a step. The mean would include compiling, which the first step does."""
        return float(np.median(self._seconds))

    @property
    def images_per_second(self):
        """Images per second, of all replicas together."""
        return self._batch_size / self.seconds_per_step

    @property
    def data_wait_share(self):
        """Fraction of the time that was spent waiting for batches, in [0, 1]."""
        return self._seconds_waited / sum(self._seconds)
