"""Images taken through a model's cached step, teacher-forced."""

import functools

import numpy as np
import tensorflow as tf

from pixel_cnn_pp import sampling


def teacher_forced_row(model):
    """Compiled function (weights, state, row, pixels, condition) -> what `walk_row` returns."""

    @functools.partial(tf.function, autograph=False)
    def walk(weights, state, row, pixels, condition=None):
        choose = sampling.teacher_forces(pixels)
        return sampling.walk_row(model, weights, state, row, choose, pixels.shape[:2], condition)

    return walk


def walk_through(model, images, condition=None, weights=None, walk=None):
    """The raw parameters [B, H, W, P] that the cached step computes on its way through images."""
    step, walk = model.cached_step, walk or teacher_forced_row(model)
    weights = step.weights() if weights is None else weights
    embedded = None if condition is None else model.embed(condition)
    state = step.initial_state(len(images), images.shape[2], embedded)
    rows = []
    for row, pixels in enumerate(images.transpose(1, 2, 0, 3)):
        state, levels, raw_params = walk(
            weights, state, tf.constant(row), tf.constant(pixels), embedded
        )
        np.testing.assert_array_equal(levels, pixels, strict=True)
        rows.append(raw_params.numpy())
    return np.stack(rows).transpose(2, 0, 1, 3)
