"""The pictures that a run draws at its checkpoints: samples, and completions of test images."""

import math
import pathlib

import numpy as np

from pixel_cnn_pp import models, plots, sampling

# Number of images that are completed at every checkpoint, and number of completions of each.
_NUM_COMPLETED = 4


class Pictures:
    """Draws samples and completions with the averaged weights of a run.

    A second model holds these weights. It is kept for the whole run, because compiling its sampler
    takes longer than drawing.
    """

    def __init__(self, run, test_data, batch_size):
        """Keeps the arguments. The second model is made when the first pictures are drawn.

        Args:
          run: RunConfig.
          test_data: ImageData. Its first images are completed.
          batch_size: Size of the global batch. A batch of samples has as many images.
        """
        self._run = run
        self._num_samples = run.training.num_samples * batch_size
        self._originals = np.asarray(test_data.images[:_NUM_COMPLETED])
        self._labels = self._drawn_labels = None
        num_classes = run.model.num_classes
        if num_classes is not None:
            self._labels = test_data.labels[:_NUM_COMPLETED]
            self._drawn_labels = np.arange(self._num_samples) % num_classes
        elif test_data.condition_levels is not None:  # pictures, of a stage of a chain
            self._labels = test_data.labels[:_NUM_COMPLETED]
            own = test_data.labels[: self._num_samples]
            self._drawn_labels = own[np.arange(self._num_samples) % max(1, len(own))]
        self._model = None

    def write(self, trainer, epoch, monitor):
        """Draws samples and completions, and writes them to the run's directory and TensorBoard.

        Args:
          trainer: Trainer of the run.
          epoch: Number of the epoch. Another epoch draws with another seed.
          monitor: `monitoring.Monitor`.

        Raises:
          OSError: If the files cannot be written.
        """
        if self._model is None:
            self._model = models.make(self._run.model, fresh=False)
        trainer.copy_averages(self._model)
        height, width, _ = self._run.model.image_shape
        num_classes, num_levels = self._run.model.num_classes, self._run.model.num_levels
        scale = max(1, 32 // height)
        folder = pathlib.Path(self._run.training.save_dir) / "samples"
        seed = self._run.training.seed + epoch

        labels = self._drawn_labels
        images = sampling.sample(self._model, self._num_samples, labels, seed)
        num_columns = math.isqrt(self._num_samples) if num_classes is None else num_classes
        picture = plots.image_grid(images, num_columns, num_levels, scale=scale)
        arrays = {"images": images}
        if labels is not None:
            arrays["labels" if num_classes is not None else "condition"] = labels
        plots.save_drawn(folder / f"epoch_{epoch:04d}", picture, arrays)
        monitor.write_picture("samples", picture, trainer.step)

        known_mask = np.repeat(np.arange(height)[:, None] < height // 2, width, axis=1)
        completed = sampling.sample(
            self._model,
            len(self._originals) * _NUM_COMPLETED,
            None if self._labels is None else np.repeat(self._labels, _NUM_COMPLETED, axis=0),
            seed,
            init_images=np.repeat(self._originals, _NUM_COMPLETED, axis=0),
            known_mask=known_mask,
        )
        picture = plots.completion_grid(self._originals, known_mask, completed, num_levels, scale)
        plots.save_png(folder / f"epoch_{epoch:04d}_completed.png", picture)
        monitor.write_picture("completions", picture, trainer.step)
