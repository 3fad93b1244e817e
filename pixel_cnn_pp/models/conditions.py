"""What an image is conditioned on: a class, a real vector, or a picture of whole numbers."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.likelihoods import whole_numbers


class Condition(NamedTuple):
    """A condition as a network takes it. At most one of the fields is there; the other is None.

    vector: Float tensor [B, D], a one-hot class or a real vector.
    picture: Float tensor [B, H, W, E], features at the resolution of the image. For a network with
      several resolutions, it is a list of such tensors, the finest first.
    """

    vector: Any = None
    picture: Any = None


def num_features(config):
    """The number of features of the embedded condition of a model: D or E, or None without one.

    Args:
      config: Configuration of a model.

    Returns:
      Integer, or None.
    """
    if config.num_classes is not None:
        return config.num_classes
    shape = shape_of(config)
    if shape is None:
        return None
    if has_embedding(config):
        return config.embedding_filters or config.nr_filters
    return shape[-1]


def has_embedding(config):
    """Whether a model has an embedding network for the picture that it is conditioned on."""
    return getattr(config, "embedding_resnet", 0) > 0


def shape_of(config):
    """The shape of a condition that is not a class, or None. Some models take only classes."""
    return getattr(config, "condition_shape", None)


def times_larger(config):
    """How many times the height and the width of an image are those of its picture, a pair."""
    (height, width, _), (own_height, own_width, _) = config.image_shape, config.condition_shape
    return height // own_height, width // own_width


def num_doublings(config):
    """How many times an embedding network doubles both sides of its picture."""
    times, found = times_larger(config), 0
    while all(each % 2 ** (found + 1) == 0 for each in times):
        found += 1
    return found


def is_there(config):
    """Whether the images of a model are conditioned on something."""
    return num_features(config) is not None


def labels_of(labels, num_classes):
    """Brings labels to the form [B].

    Args:
      labels: Whole numbers or booleans [B] or [B, 1], or one-hot rows [B, num_classes], as a list,
        an array or a tensor.
      num_classes: The number of classes.

    Returns:
      Array or tensor [B]. A row that is not one-hot becomes -1. Other forms are returned as arrays.
    """
    if isinstance(labels, list | tuple):
        labels = np.asarray(labels)
    if not hasattr(labels, "shape"):
        return labels
    if whole_numbers.kind_of(whole_numbers.numpy_dtype(labels)) == "b":
        labels = ops.cast(labels, "int32")
    if len(labels.shape) != 2 or labels.shape[1] not in (1, num_classes):
        return labels
    if labels.shape[1] == 1:
        return labels[:, 0]
    labels = ops.convert_to_tensor(labels)
    zero, one = labels == 0, labels == 1
    is_one_hot = ops.all(zero | one, axis=1) & (ops.sum(ops.cast(one, "int32"), axis=1) == 1)
    return ops.where(is_one_hot, ops.cast(ops.argmax(labels, axis=1), "int32"), -1)


def embed(condition, config, compute_dtype, variable_dtype, network=None):
    """Computes what a network takes of a condition.

    Args:
      condition: Labels as in `labels_of`, real vectors [B, D], pictures [B, h, w, c], or None.
      config: Configuration of the model.
      compute_dtype: The dtype of the result.
      variable_dtype: The dtype in which levels become floats.
      network: Function that computes features of a picture [B, h, w, c], which is scaled to
        [-1, 1]. It doubles the sides `num_doublings` times. None takes the picture itself.

    Returns:
      `Condition`. The features of a picture are repeated to the sides of the images.
    """
    if config.num_classes is not None:
        labels = labels_of(condition, config.num_classes)
        return Condition(ops.one_hot(labels, config.num_classes, dtype=compute_dtype))
    shape = shape_of(config)
    if shape is None:
        return Condition()
    condition = ops.convert_to_tensor(condition)
    if len(shape) == 1:
        return Condition(ops.cast(condition, compute_dtype))
    x = likelihoods.to_unit_scale(condition, config.condition_levels, variable_dtype)
    x = ops.cast(x, compute_dtype)
    doubled = 1
    if network is not None:
        x, doubled = network(x), 2 ** num_doublings(config)
    for axis, times in enumerate(times_larger(config), start=1):
        times //= doubled
        if times > 1:
            x = ops.repeat(x, times, axis=axis)
    return Condition(picture=x)


def at_resolutions(picture, num_resolutions):
    """Brings the picture of a condition to each resolution of a network.

    Args:
      picture: Float tensor [B, H, W, E].
      num_resolutions: The number of resolutions. Each halves the sides of the one before.

    Returns:
      List of tensors [B, H, W, E], [B, H / 2, W / 2, E], ... . A coarser pixel is the mean of 2x2
      finer ones.
    """
    found = [picture]
    while len(found) < num_resolutions:
        batch_size, height, width, features = ops.shape(found[-1])
        blocks = (batch_size, height // 2, 2, width // 2, 2, features)
        found.append(ops.mean(ops.reshape(found[-1], blocks), axis=(2, 4)))
    return found


def row_of(picture, row):
    """A row of features [B, H, W, E] as cached steps take it, [W, B, E].

    Args:
      picture: Float tensor [B, H, W, E].
      row: Integer tensor [].
    """
    return ops.transpose(ops.take(picture, row, axis=1), (1, 0, 2))
