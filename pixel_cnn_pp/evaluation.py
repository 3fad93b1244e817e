"""Scores sets of images: exact bits/dim of a model and of histograms, and AUROC."""

import csv
import dataclasses
import io
import math
import pathlib

import numpy as np

from pixel_cnn_pp import files, likelihoods, models


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """The scores of a set of images. Each image is counted once.

    Attributes:
      nats: float64 array [N], -log p(x), or another loss that is summed over an image.
      num_dims: H W C, the number of sub-pixels of an image.
      unit: Unit of the mean, as it is printed after the number.
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

    @property
    def in_nats(self):
        """The text to print in nats an image. A bound stays a bound."""
        nats = dataclasses.replace(self, nats=self.nats * math.log(2), num_dims=1)
        unit = self.unit.replace("bits/dim", "nats an image")
        return f"{nats.mean:.2f} +- {nats.standard_error:.2f} {unit} over {len(self.nats)} images"

    def __str__(self):
        """The text to print: mean, standard error if there are several images, and their number."""
        if len(self.nats) == 1:
            return f"{self.mean:.4f} {self.unit} of one image"
        value = f"{self.mean:.4f} +- {self.standard_error:.4f} {self.unit}"
        return f"{value} over {len(self.nats)} images"


def check_fits(name, images, model, uses_labels):
    """Checks that a model can score a set of images, before any image is scored.

    Args:
      name: Name of the set, for the message.
      images: ImageData.
      model: `models.AutoregressiveModel`.
      uses_labels: Whether each image is scored given its own class, or its own picture.

    Raises:
      ValueError: If the channels, levels, size or labels do not fit the model, or if the model has
        no likelihood.
    """
    model.likelihood.require_log_prob()
    config = model.config
    num_channels = images.images.shape[-1]
    for what, expected, received in (
        ("channels", config.image_shape[-1], num_channels),
        ("levels", config.num_levels, images.num_levels),
    ):
        if received != expected:
            raise ValueError(
                f"Images must have the number of {what} of the model, {expected}. "
                f"Received: {received} {what} in {name}"
            )
    if not uses_labels:
        return
    if config.num_classes is None:
        if images.condition_levels is None:
            raise ValueError(
                "Images must have the pictures or vectors that the model is conditioned on. "
                f"Received: none in {name}"
            )
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


def compiled_raw_params(model):
    """Makes a function that computes the model's raw parameters with a compiled network.

    Args:
      model: `models.AutoregressiveModel`.

    Returns:
      Function (images [B, H, W, C], condition of the B images or None) -> raw parameters.
    """

    def raw_params(images, condition):
        return model.predict_on_batch(images if condition is None else (images, condition))

    return raw_params


def compiled_log_probs(model):
    """Makes a function that computes `log_prob` of each stage with a compiled network.

    Args:
      model: `models.AutoregressiveModel`.

    Returns:
      Function (images [B, H, W, C], condition of the B images or None) -> list of nats [B], one for
      each stage.
    """
    of_stages = [compiled_log_prob(stage.model) for stage in model.stages]

    def log_probs(images, condition):
        parts = models.stages.pictures(model, images, condition)
        return [log_prob(*part) for log_prob, part in zip(of_stages, parts, strict=True)]

    return log_probs


def compiled_log_prob(model):
    """Makes a function that computes the model's `log_prob` with a compiled network.

    Args:
      model: `models.AutoregressiveModel`.

    Returns:
      Function (images [B, H, W, C], labels [B] or None) -> nats [B].
    """
    raw_params = compiled_raw_params(model)

    def log_prob(images, labels):
        return model.log_prob_of(raw_params(images, labels), images)

    return log_prob


def marginal_log_prob(log_prob, num_classes):
    """Makes a function for the likelihood of images whose class is unknown. Classes are equal.

    log p(x) = log(sum{ p(x | y) : y }) - log(num_classes)

    Args:
      log_prob: Function (images [B, H, W, C], labels [B]) -> nats [B].
      num_classes: Number of classes.

    Returns:
      Function of the same kind. It ignores its labels, and takes num_classes times as long.
    """

    def log_prob_over_classes(images, labels):
        del labels  # They are unknown, or must not be used.
        of_classes = [
            np.asarray(log_prob(images, np.full(len(images), label, np.int32)), np.float64)
            for label in range(num_classes)
        ]  # each [B]
        return np.logaddexp.reduce(of_classes) - math.log(num_classes)

    return log_prob_over_classes


def score(log_prob, batches, is_conditional, unit="bits/dim"):
    """Scores every image of a set exactly once.

    Args:
      log_prob: Function (images [B, H, W, C], labels [B] or None) -> nats [B].
      batches: Iterable of (images, labels, mask), such as `data.eval_batches`. mask [B] is False
        for images that are only padding.
      is_conditional: Whether to pass the labels to `log_prob`.
      unit: Unit of the Score.

    Returns:
      Score.

    Raises:
      ValueError: If there is no image.
      FloatingPointError: If the loss of an image is not finite.
    """

    def log_probs(images, labels):
        return [log_prob(images, labels)]

    (found,) = score_parts(log_probs, batches, is_conditional, unit)
    return found


def score_parts(log_probs, batches, is_conditional, unit="bits/dim"):
    """Scores every image of a set exactly once, in parts whose sum is the score of the image.

    Args:
      log_probs: Function (images [B, H, W, C], labels [B] or None) -> list of nats [B].
      batches, is_conditional, unit: As in `score`.

    Returns:
      List of Score, all per sub-pixel of the whole images.

    Raises:
      ValueError, FloatingPointError: As in `score`.
    """
    found = []
    for images, labels, mask in batches:
        # As NumPy's arrays, because they may be tensors of TensorFlow on Keras's JAX backend.
        images, labels = np.asarray(images), np.asarray(labels)
        parts = log_probs(images, labels if is_conditional else None)
        num_dims = math.prod(images.shape[1:])
        found.append([-np.asarray(part, np.float64)[np.asarray(mask)] for part in parts])
    if not found:
        raise ValueError("There must be images to score. Received: none")
    all_nats = [np.concatenate(part) for part in zip(*found, strict=True)]
    for nats in all_nats:
        wrong = np.flatnonzero(~np.isfinite(nats))
        if len(wrong):
            raise FloatingPointError(
                f"The loss of every image must be finite. Received: {nats[wrong[0]]} nats for "
                f"image {wrong[0]}, and {len(wrong)} of {len(nats)} images in all that are not "
                "finite"
            )
    return [Score(nats, num_dims, unit) for nats in all_nats]


def auroc(inside, outside):
    """How well a score separates two sets: the area under the ROC curve.

    This is the probability that an image of the second set has a higher score than an image of the
    first set. A tie counts as 1/2. The result is 1 if all images of the second set have higher
    scores, 1/2 for random scores, and 0 if all have lower scores.

    Args:
      inside: Floats [N], scores of the first set, which the model was made for.
      outside: Floats [M], scores of the second set.

    Returns:
      Float in [0, 1].

    >>> auroc([1.0, 2.0], [1.5, 3.0])
    0.75
    """
    from sklearn import metrics  # Imported here, because it takes a second and few callers need it.

    is_outside = np.repeat([0, 1], [len(inside), len(outside)])
    return float(metrics.roc_auc_score(is_outside, np.concatenate([inside, outside])))


def check_scores_path(path):
    """Checks that `save_scores` can write a file of this name.

    Args:
      path: File name.

    Raises:
      ValueError: If the name ends neither in .npz nor in .csv.
    """
    if pathlib.Path(path).suffix not in (".npz", ".csv"):
        raise ValueError(f"A file of scores must end in .npz or .csv. Received: {path}")


def save_scores(path, columns):
    """Writes a table of scores, with one row for each image. The file is complete or not written.

    Args:
      path: File to write or replace. An .npz holds an array for every column. A .csv has the names
        of the columns in its first line, and numbers with all their digits.
      columns: {name of a column: array [N]}.

    Raises:
      ValueError: If the file name has another ending.
      OSError: If the file cannot be written. Then an older file is unchanged.
    """
    check_scores_path(path)

    def write(file):
        if pathlib.Path(path).suffix == ".npz":
            np.savez(file, **columns)
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        # Convert to Python's numbers, which are written with all their digits.
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
        file.write(text.getvalue().encode(errors="backslashreplace"))

    files.replace(path, write)


def histogram_bits_per_dim(train_images, test_images, num_levels, per_position):
    """Bits/dim of a model in which all sub-pixels are independent, each with a histogram.

    The probability of a level is (count + 1) / (total count + L), which is add-one smoothing.

    Args:
      train_images: Integers [N, H, W, C], the images that are counted.
      test_images: Integers [M, H, W, C], the images that are scored.
      num_levels: L.
      per_position: Whether every position (row, column) has its own histogram. Otherwise all
        positions share one. Every channel always has its own.

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
