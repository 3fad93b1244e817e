"""Exact bits/dim over a set of images, what simpler models and codecs need, and sets told apart."""

import csv
import dataclasses
import io
import math
import os
import pathlib

import keras
import numpy as np
from PIL import Image

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.models import inputs

# Codecs and what they are saved with; the strongest compression that they have.
_CODECS = {
    "PNG": {"optimize": True},
    "WebP": {"lossless": True, "quality": 100, "method": 6},
}


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """How likely every image of a set is, each counted once.

    Attributes:
      nats: float64 array [N], -log p(x), or another loss that is summed over an image.
      num_dims: H W C, the sub-pixels of an image.
      unit: What the mean is, as it is printed behind its number.
    """

    nats: np.ndarray
    num_dims: int
    unit: str = "bits/dim"

    @property
    def bits_per_dim(self):
        """float64 array [N], nats / (H W C log 2)."""
        return likelihoods.bits_per_dim(self.nats, self.num_dims)

    @property
    def mean(self):
        """Mean over the images, bits/dim."""
        return float(np.mean(self.bits_per_dim))

    @property
    def standard_error(self):
        """Standard error of the mean over the images, bits/dim; 0 for a single image."""
        if len(self.nats) == 1:
            return 0.0
        return float(np.std(self.bits_per_dim, ddof=1) / math.sqrt(len(self.nats)))

    def __str__(self):
        """As it is printed: mean, standard error, number of images."""
        value = f"{self.mean:.4f} +- {self.standard_error:.4f} {self.unit}"
        return f"{value} over {len(self.nats)} images"


def check_fits(name, images, model, uses_labels):
    """Refuses a set of images that a model cannot score, before any of them is.

    Args:
      name: What the set is called in the message.
      images: ImageData.
      model: `models.AutoregressiveModel`.
      uses_labels: Whether each image is to be scored by its own class.

    Raises:
      ValueError: If channels, levels, size or labels are not those of the model, or if it has no
        likelihood.
    """
    model.likelihood.require_log_prob()
    config = model.config
    height, width, num_channels = images.images.shape[1:]
    for what, expected, received in (
        ("channels", config.image_shape[-1], num_channels),
        ("levels", config.num_levels, images.num_levels),
    ):
        if received != expected:
            raise ValueError(
                f"Images must have the number of {what} of the model, {expected}. "
                f"Received: {received} {what} in {name}"
            )
    if not all(inputs.is_side(side, model.side_multiple) for side in (height, width)):
        raise ValueError(
            f"Height and width of images must be {inputs.describe_sides(model.side_multiple)}. "
            f"Received: {height} x {width} in {name}"
        )
    if not uses_labels:
        return
    if images.labels is None:
        raise ValueError(
            "Images must have labels for a class-conditional model, or be scored over all classes "
            f"with --marginal. Received: no labels in {name}"
        )
    highest = int(images.labels.max())
    if highest >= config.num_classes:
        raise ValueError(
            f"Labels must lie in [0, {config.num_classes - 1}] for a model of {config.num_classes} "
            f"classes, or be left out by --marginal. Received: labels up to {highest} in {name}"
        )


def compiled_log_prob(model):
    """The model's `log_prob` with its network compiled.

    Args:
      model: `models.AutoregressiveModel`.

    Returns:
      Function (images [B, H, W, C], labels [B] or None) -> nats [B].
    """
    if not model.compiled and keras.backend.backend() == "tensorflow":
        # Keras would take XLA where there is a GPU; `AutoregressiveModel.compile` says why not.
        model.jit_compile = False

    def log_prob(images, labels):
        inputs = images if labels is None else (images, labels)
        return model.log_prob_of(model.predict_on_batch(inputs), images)

    return log_prob


def marginal_log_prob(log_prob, num_classes):
    """The likelihood of images whose class is not known, every class being as likely as another.

    log p(x) = log(sum{ p(x | y) : y }) - log(num_classes)

    Args:
      log_prob: Function (images [B, H, W, C], labels [B]) -> nats [B].
      num_classes: Number of classes.

    Returns:
      Function of the same kind, to which the labels do not matter; it takes num_classes times as
      long.
    """

    def log_prob_over_classes(images, labels):
        del labels  # Not known, or not to be used.
        of_classes = [
            np.asarray(log_prob(images, np.full(len(images), label, np.int32)), np.float64)
            for label in range(num_classes)
        ]  # each [B]
        return np.logaddexp.reduce(of_classes) - math.log(num_classes)

    return log_prob_over_classes


def score(log_prob, batches, is_conditional, unit="bits/dim"):
    """Scores a set of images, each exactly once.

    Args:
      log_prob: Function (images [B, H, W, C], labels [B] or None) -> nats [B].
      batches: Iterable of (images, labels, mask), as of `data.eval_batches`; mask [B] is False on
        images that only fill up a batch.
      is_conditional: Whether the labels are passed on to `log_prob`.
      unit: That of the Score.

    Returns:
      Score.

    Raises:
      ValueError: If there is no image.
    """
    found = []
    for images, labels, mask in batches:
        nats = -np.asarray(log_prob(images, labels if is_conditional else None), np.float64)
        num_dims = math.prod(images.shape[1:])
        found.append(nats[np.asarray(mask)])
    if not found:
        raise ValueError("There must be images to score. Received: none")
    return Score(np.concatenate(found), num_dims, unit)


def auroc(inside, outside):
    """How well a score tells two sets apart: the area under the curve of its hits and false alarms.

    The probability that an image of the second set scores higher than one of the first, a tie
    counting half: 1 if all of them do, 1/2 by chance, 0 if none does.

    Args:
      inside: Floats [N], scores of the first set, the one that the model is for.
      outside: Floats [M], scores of the second set.

    Returns:
      Float in [0, 1].

    >>> auroc([1.0, 2.0], [1.5, 3.0])
    0.75
    """
    from sklearn import metrics  # Takes a second to import, and few need it.

    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    return float(metrics.roc_auc_score(is_outside, np.concatenate([inside, outside])))


def check_scores_path(path):
    """Refuses a file name that `save_scores` would not know what to write into.

    Args:
      path: File name.

    Raises:
      ValueError: If it ends neither in .npz nor in .csv.
    """
    if pathlib.Path(path).suffix not in (".npz", ".csv"):
        raise ValueError(f"A file of scores must end in .npz or .csv. Received: {path}")


def save_scores(path, columns):
    """Writes a table of scores, a row for each image, whole or not at all.

    Args:
      path: File to write or replace. An .npz holds an array for every column; a .csv has their
        names in its first line, and numbers with all their digits.
      columns: {name: array [N]}.

    Raises:
      ValueError: If the file name ends in something else.
      OSError: If the file cannot be written; what stood there before still does.
    """
    check_scores_path(path)
    path = pathlib.Path(path)
    # Beside its destination, because only within one file system is a rename a single act.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.suffix == ".npz":
            with open(unfinished, "wb") as file:
                np.savez(file, **columns)
        else:
            with open(unfinished, "w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                # As Python's numbers, which are written with all their digits.
                writer.writerows(
                    zip(*(column.tolist() for column in columns.values()), strict=True)
                )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def histogram_bits_per_dim(train_images, test_images, num_levels, per_position):
    """Bits/dim of a model in which every sub-pixel is independent: a histogram, with add-one.

    Args:
      train_images: Integers [N, H, W, C], what the histogram is made of.
      test_images: Integers [M, H, W, C], what it is scored on.
      num_levels: L.
      per_position: Whether every row and column has a histogram of its own, or all share one;
        channels never do.

    Returns:
      Score over the M images.
    """
    size = (1, *train_images.shape[1:]) if per_position else (1, 1, 1, train_images.shape[-1])
    cells = np.broadcast_to(np.arange(math.prod(size)).reshape(size), train_images.shape)
    counts = np.bincount(
        (cells * num_levels + train_images).ravel(), minlength=math.prod(size) * num_levels
    ).reshape(-1, num_levels)
    log_probs = np.log((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))
    cells = np.broadcast_to(cells[:1], test_images.shape)
    nats = -log_probs[cells, test_images].sum(axis=(1, 2, 3))
    return Score(nats, math.prod(test_images.shape[1:]))


def codecs(images):
    """Names of the codecs that can hold images, a tuple: WebP takes 8 bits, in grey or RGB only."""
    return tuple(_CODECS) if _is_8_bit_picture(images) else ("PNG",)


def codec_bits_per_dim(images, codec):
    """Bits/dim of a lossless codec, all images side by side in one file.

    One file for all is the kindest measure for the codec: it pays for its headers once. PNG holds
    images of any kind: of what is not 8-bit grey or RGB, the channels stand side by side as grey
    pictures, of 16 bits unless they are uint8.

    Args:
      images: Integers [N, H, W, C] in [0, 65535]; for WebP uint8, C = 1 or 3.
      codec: "PNG" or "WebP".

    Returns:
      Bits of the file per sub-pixel of the images, a float.

    Raises:
      ValueError: If the images are of another kind or the codec is unknown.
    """
    if codec not in _CODECS:
        raise ValueError(f"`codec` must be one of {', '.join(_CODECS)}. Received: codec={codec!r}")
    if codec not in codecs(images):
        raise ValueError(
            f"Images for {codec} must be uint8 with 1 or 3 channels. "
            f"Received: {images.dtype} {images.shape}"
        )
    dtype = np.uint8 if images.dtype == np.uint8 else np.uint16
    if images.min() < 0 or images.max() > np.iinfo(dtype).max:
        raise ValueError(
            "Images for a codec must lie in [0, 65535]. "
            f"Received: values in [{images.min()}, {images.max()}]"
        )
    num_images, height, width, channels = images.shape
    # As square as they fit; what is left over is black and costs next to nothing.
    num_columns = math.isqrt(num_images - 1) + 1
    num_rows = -(-num_images // num_columns)
    filled = np.zeros((num_rows * num_columns, *images.shape[1:]), dtype)
    filled[:num_images] = images
    mosaic = filled.reshape(num_rows, num_columns, height, width, channels).swapaxes(1, 2)
    mosaic = mosaic.reshape(num_rows * height, num_columns * width, channels)
    if channels != 3 or dtype != np.uint8:
        mosaic = np.moveaxis(mosaic, -1, 1).reshape(num_rows * height, -1)
    file = io.BytesIO()
    Image.fromarray(mosaic).save(file, codec, **_CODECS[codec])
    return 8 * file.getbuffer().nbytes / images.size


def _is_8_bit_picture(images):
    return images.dtype == np.uint8 and images.shape[-1] in (1, 3)
