"""Log-likelihoods of images, of their pixels and of their sub-pixels, from raw parameters."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp import likelihoods

REDUCTIONS = ("image", "pixel", "channel")


def check(likelihood, reduce, batch_size):
    """Checks the arguments of `AutoregressiveModel.log_prob`.

    Raises:
      ValueError: If the likelihood cannot give what is asked for, or an argument breaks its rule.
    """
    likelihood.require_log_prob()
    if reduce not in REDUCTIONS:
        raise ValueError(
            f"`reduce` must be one of {', '.join(REDUCTIONS)}. Received: reduce={reduce!r}"
        )
    if reduce == "channel" and likelihood.noise_shape(1, 1) is not None:
        raise ValueError(
            "`reduce` must be image or pixel for a likelihood that is a bound of whole pixels. "
            f"Received: reduce='channel' for {likelihood.name}"
        )
    is_number = isinstance(batch_size, numbers.Integral) and not isinstance(batch_size, bool)
    if batch_size is not None and not (is_number and batch_size >= 1):
        raise ValueError(
            "`batch_size` must be None or a whole number of at least 1. "
            f"Received: batch_size={batch_size!r}"
        )


def log_prob_parts(model, raw_params, images, reduce):
    """Log-likelihood of the pixels of images, or of their sub-pixels, given their raw parameters.

    Args:
      model: `AutoregressiveModel` with a likelihood.
      raw_params: Float tensor [B, H, W, P].
      images: Tensor [B, H, W, C] of whole numbers.
      reduce: "pixel" or "channel".

    Returns:
      Tensor [B, H, W] or [B, H, W, C], nats.
    """
    images = ops.convert_to_tensor(images)
    if reduce == "pixel":
        return model.likelihood.log_prob(raw_params, images, model.noise(images))
    channels = ops.unstack(ops.cast(images, "int32"), images.shape[-1], axis=-1)
    return ops.stack(
        [
            model.likelihood.log_prob_of_channel(raw_params, c, channels[:c], channels[c])
            for c in range(len(channels))
        ],
        axis=-1,
    )


def log_prob_in_batches(model, images, condition, reduce, batch_size):
    """As `AutoregressiveModel.log_prob`, a batch at a time, by a compiled network."""
    num_images, found = len(images), []
    for start in range(0, num_images, batch_size):
        # The last batch repeats its last image, because another size would be compiled again.
        rows = np.minimum(np.arange(start, start + batch_size), num_images - 1)
        own = ops.take(images, rows, axis=0)
        inputs = own if condition is None else (own, ops.take(condition, rows, axis=0))
        raw_params = keras.tree.map_structure(ops.convert_to_tensor, model.predict_on_batch(inputs))
        log_prob = model.log_prob_parts(raw_params, own, reduce)
        found.append(log_prob[: num_images - start])
    return ops.concatenate(found)


def checked_place(shape, **place):
    """Checks the place of a sub-pixel.

    Args:
      shape: (H, W, C) of the images.
      **place: `row`, `column` and `channel`, in this order.

    Returns:
      The three numbers, none of them negative.

    Raises:
      ValueError: If a number is no whole number, or outside of the image.
    """
    found = []
    for (name, value), size in zip(place.items(), shape, strict=True):
        is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not is_number or not -size <= value < size:
            raise ValueError(
                f"`{name}` must be a whole number in [{-size}, {size - 1}]. "
                f"Received: {name}={value!r}"
            )
        found.append(int(value) % size)
    return found


def level_probabilities(model, images, place, condition):
    """The probabilities [B, L] of the levels at a place (row, column, channel)."""
    row, column, channel = place
    raw_params = model(images, condition)[:, row, column]
    pixel = ops.convert_to_tensor(images)[:, row, column]
    earlier = [pixel[:, c] for c in range(channel)]
    return ops.exp(model.likelihood.log_pmf(raw_params, channel, earlier))


def bits_per_dim(nats, images):
    """Bits/dim [B] of images [B, H, W, C]. H and W may be unknown when the graph is traced."""
    num_dims = ops.cast(math.prod(ops.shape(images)[1:]), nats.dtype)
    return likelihoods.bits_per_dim(nats, num_dims)
