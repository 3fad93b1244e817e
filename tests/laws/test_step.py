"""The law that makes it one house: the whole pass is the steps, teacher-forced."""

import functools
import math

import keras
import numpy as np
import pytest
import specimens
import tensorflow as tf
import walks
from comparisons import EPS, largest_error
from specimens import ONE_OF_EACH_MODEL, SPECIMENS, WHOLE_OF_EACH_MODEL

from pixel_cnn_pp import models, sampling

ALL = pytest.mark.parametrize("name", SPECIMENS)
EACH_MODEL = pytest.mark.parametrize("name", WHOLE_OF_EACH_MODEL)


@functools.cache
def row_of(name):
    """The compiled walk through a row of a float64 specimen."""
    return walks.teacher_forced_row(specimens.opinionated(name))


@ALL
def test_the_steps_give_the_raw_parameters_of_whole_images(name):
    model = specimens.opinionated(name)
    images, labels = specimens.images(model.config, 3, 1), specimens.labels(model.config, 3, 1)
    stepped = walks.walk_through(model, images, labels, walk=row_of(name))
    # The same sums in another order: some rounding for each of about 40 layers.
    assert largest_error(stepped, model(images, labels)) < 40 * np.finfo("float64").eps


@pytest.mark.parametrize("name", ONE_OF_EACH_MODEL)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_in_a_lower_precision_the_steps_are_as_near_to_float64_as_whole_images(name, dtype):
    exact, model = specimens.opinionated(name), specimens.opinionated(name, dtype)
    images, labels = specimens.images(model.config, 3, 1), specimens.labels(model.config, 3, 1)
    expected = np.asarray(exact(images, labels)).astype("float32")
    # Roundings of about 40 layers add up like a random walk; bfloat16 keeps 8 bits.
    tolerance = 40 * EPS if dtype == "float32" else math.sqrt(40) * 2**-8
    for actual in (walks.walk_through(model, images, labels), model(images, labels)):
        assert np.asarray(actual).dtype == np.float32
        error = np.sqrt(np.mean(np.square(actual - expected)) / np.mean(np.square(expected)))
        assert 0 < error < tolerance


@EACH_MODEL
def test_the_steps_take_images_of_other_sides(name):
    model = specimens.opinionated(name)
    for sides in ((16, 4), (4, 16)):
        config = specimens.with_sides(model.config, *sides)
        images, labels = specimens.images(config, 3), specimens.labels(config, 3)
        stepped = walks.walk_through(model, images, labels, walk=row_of(name))
        assert largest_error(stepped, model(images, labels)) < 40 * np.finfo("float64").eps


@EACH_MODEL
def test_the_steps_compute_with_the_weights_that_they_are_given(name):
    model, other = specimens.opinionated(name), specimens.fresh(SPECIMENS[name], dtype="float64")
    rng = np.random.default_rng(2)
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        theirs.assign(ours + 0.1 * rng.normal(size=ours.shape))
    images, labels = specimens.images(model.config, 3, 1), specimens.labels(model.config, 3, 1)
    walk, weights = row_of(name), other.cached_step.weights()
    stepped = walks.walk_through(model, images, labels, weights=weights, walk=walk)
    assert largest_error(stepped, other(images, labels)) < 40 * np.finfo("float64").eps
    assert largest_error(other(images, labels), model(images, labels)) > 0.01


def num_numbers(model, batch_size, width):
    state = model.cached_step.initial_state(batch_size, width)
    return sum(math.prod(x.shape) for x in keras.tree.flatten(state))


@ALL
def test_the_state_grows_with_the_width_and_the_batch_and_not_with_the_height(name):
    model = specimens.build(name)
    height, width, _ = model.config.image_shape
    size = num_numbers(model, 1, 4)
    for batch_size, columns in ((1, 8), (1, 20), (3, 4), (5, 12)):
        assert num_numbers(model, batch_size, columns) == size * batch_size * (columns // 4)
    if name in WHOLE_OF_EACH_MODEL:
        taller = models.make(specimens.with_sides(model.config, 2 * height, width))
        assert num_numbers(taller, 1, 4) == size


@EACH_MODEL
@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_a_row_returns_a_state_like_the_one_that_it_was_given_and_leaves_that_alone(name, dtype):
    model = specimens.opinionated(name, dtype)
    images, labels = specimens.images(model.config, 3), specimens.labels(model.config, 3)
    embedded = None if labels is None else model.embed(labels)
    step, width = model.cached_step, images.shape[2]
    weights, state = step.weights(), step.initial_state(3, width, embedded)
    # A row of every kind for a network that halves its rows twice.
    for row, pixels in enumerate(images.transpose(1, 2, 0, 3)[:4]):
        given = keras.tree.map_structure(lambda x: np.array(x), state)
        choose = sampling.teacher_forces(pixels)
        returned, *_ = sampling.walk_row(model, weights, state, row, choose, (width, 3), embedded)
        keras.tree.assert_same_structure(returned, state)
        for new, old in zip(*map(keras.tree.flatten, (returned, state)), strict=True):
            assert (new.shape, new.dtype) == (old.shape, old.dtype)
            assert new.dtype == model.compute_dtype
        keras.tree.map_structure(np.testing.assert_array_equal, state, given)
        state = returned


@ALL
def test_no_product_is_taken_of_more_than_two_axes(name):
    # TensorFlow 2.20 and 2.21 corrupt their heap in some of them; see `WeightNormDense.linear`.
    model = specimens.opinionated(name)
    images, labels = specimens.images(model.config, 3, 1), specimens.labels(model.config, 3, 1)
    embedded = None if labels is None else model.embed(labels)
    step = model.cached_step
    stepped = row_of(name).get_concrete_function(
        step.weights(),
        step.initial_state(3, images.shape[2], embedded),
        tf.constant(0),
        tf.constant(images.transpose(1, 2, 0, 3)[0]),
        embedded,
    )
    definition = stepped.graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    kinds = {node.op for node in nodes}
    assert "MatMul" in kinds and not any("BatchMatMul" in kind for kind in kinds)
