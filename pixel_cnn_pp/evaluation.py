"""Exact bits/dim over a set of images, and what simpler models and codecs need for the same set."""

import dataclasses
import io
import math

import numpy as np
from PIL import Image

from pixel_cnn_pp import likelihoods


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """Bits/dim of every image of a set, each counted once.

    Attributes:
      bits_per_dim: float64 array [N].
    """

    bits_per_dim: np.ndarray

    @property
    def mean(self):
        """Mean over the images, bits/dim."""
        return float(np.mean(self.bits_per_dim))

    @property
    def standard_error(self):
        """Standard error of the mean over the images, bits/dim; 0 for a single image."""
        if len(self.bits_per_dim) == 1:
            return 0.0
        return float(np.std(self.bits_per_dim, ddof=1) / math.sqrt(len(self.bits_per_dim)))

    def __str__(self):
        """As it is printed: mean, standard error, number of images."""
        return (
            f"{self.mean:.4f} +- {self.standard_error:.4f} bits/dim over "
            f"{len(self.bits_per_dim)} images"
        )


def compiled_log_prob(model):
    """The model's `log_prob` with its network compiled.

    Args:
      model: PixelCNNPP.

    Returns:
      Function (images [B, H, W, C], labels [B] or None) -> nats [B].
    """

    def log_prob(images, labels):
        inputs = images if labels is None else (images, labels)
        return model.log_prob_of(model.predict_on_batch(inputs), images)

    return log_prob


def score(log_prob, batches, is_conditional):
    """Scores a set of images, each exactly once.

    Args:
      log_prob: Function (images [B, H, W, C], labels [B] or None) -> nats [B].
      batches: Iterable of (images, labels, mask), as of `data.eval_batches`; mask [B] is False on
        images that only fill up a batch.
      is_conditional: Whether the labels are passed on to `log_prob`.

    Returns:
      Score.

    Raises:
      ValueError: If there is no image.
    """
    found = []
    for images, labels, mask in batches:
        nats = np.asarray(log_prob(images, labels if is_conditional else None), np.float64)
        num_dims = math.prod(images.shape[1:])
        found.append(likelihoods.bits_per_dim(-nats, num_dims)[np.asarray(mask)])
    if not found:
        raise ValueError("There must be images to score. Received: none")
    return Score(np.concatenate(found))


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
    return Score(likelihoods.bits_per_dim(nats, math.prod(test_images.shape[1:])))


def codec_bits_per_dim(images, codec):
    """Bits/dim of a lossless codec, all images side by side in one file.

    One file for all is the kindest measure for the codec: it pays for its headers once.

    Args:
      images: uint8 [N, H, W, C], C = 1 or 3.
      codec: "PNG" or "WebP".

    Returns:
      Bits of the file per sub-pixel of the images, a float.

    Raises:
      ValueError: If the images are of another kind or the codec is unknown.
    """
    options = {"PNG": {"optimize": True}, "WebP": {"lossless": True, "quality": 100, "method": 6}}
    if codec not in options:
        raise ValueError(f"`codec` must be one of {', '.join(options)}. Received: codec={codec!r}")
    num_images, height, width, channels = images.shape
    if images.dtype != np.uint8 or channels not in (1, 3):
        raise ValueError(
            "Images for a codec must be uint8 with 1 or 3 channels. "
            f"Received: {images.dtype} {images.shape}"
        )
    # As square as they fit; what is left over is black and costs next to nothing.
    num_columns = math.isqrt(num_images - 1) + 1
    num_rows = -(-num_images // num_columns)
    filled = np.zeros((num_rows * num_columns, *images.shape[1:]), np.uint8)
    filled[:num_images] = images
    mosaic = filled.reshape(num_rows, num_columns, height, width, channels).swapaxes(1, 2)
    mosaic = mosaic.reshape(num_rows * height, num_columns * width, channels)
    file = io.BytesIO()
    Image.fromarray(mosaic[..., 0] if channels == 1 else mosaic).save(file, codec, **options[codec])
    return 8 * file.getbuffer().nbytes / images.size
