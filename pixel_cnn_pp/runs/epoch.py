"""What a pass over the training images has come to: how far it is, its losses, its speed."""

import time

import numpy as np

from pixel_cnn_pp.runs import checkpoints


class Epoch:
    """What a pass over the training images has come to, in part before a run was resumed.

    It counts images, so that a run may be resumed with batches of another size. Steps are counted
    for what is shown: those before the resume as if they had been of the present size.

    Attributes:
      number: 1 for the first epoch of a run.
      num_images: Images done.
      num_steps: Steps of the whole epoch.
      is_stopped: Whether a worker wished to stop behind the last step.
    """

    def __init__(self, state, num_images, batch_size, loss_unit):
        """Begins where a TrainingState stands.

        Args:
          state: TrainingState.
          num_images: Images of the whole epoch, N.
          batch_size: That of the global batch; what is left of N in the end, less than a batch,
            is left out.
          loss_unit: What the losses are, such as "bits/dim".
        """
        self.number = state.epoch + 1
        self.num_images = state.num_images
        self.is_stopped = False
        num_left = (num_images - state.num_images) // batch_size
        self.num_steps = state.num_images // batch_size + num_left
        self._num_left = num_left
        self._batch_size = batch_size
        self._loss_unit = loss_unit
        self._image_loss_sum = state.image_loss_sum
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
        self._num_left -= 1
        self.num_images += self._batch_size
        self._image_loss_sum += self._batch_size * result.bits_per_dim
        self._gradient_norms.append(result.gradient_norm)
        self.is_stopped = result.is_last

    def state(self, step):
        """Where training stands behind the last step: its TrainingState."""
        return checkpoints.TrainingState(
            step, self.number - 1, self.num_images, self._image_loss_sum
        )

    def describe_last(self):
        """The last step in words."""
        return f"{self._last.bits_per_dim:.4f} {self._loss_unit}"

    @property
    def num_done(self):
        """Steps done."""
        return self.num_steps - self._num_left

    @property
    def is_done(self):
        """Whether the images that are left do not fill a batch."""
        return self._num_left == 0

    @property
    def mean_bits_per_dim(self):
        """Over all images of the epoch, also those before a run was resumed."""
        return self._image_loss_sum / self.num_images

    @property
    def has_speed(self):
        """Whether a step was timed since the start or the resume; what follows is of those."""
        return bool(self._seconds)

    @property
    def mean_gradient_norm(self):
        """Mean over the steps."""
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
