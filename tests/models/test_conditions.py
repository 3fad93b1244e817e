"""What images are conditioned on: how it is embedded, and what is refused in one line."""

import numpy as np
import pytest
import specimens
import tensorflow as tf
from comparisons import one_line
from specimens import SPECIMENS

from pixel_cnn_pp import sampling
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.models import conditions

# A vector, a picture of the size of the image, and one of half the size.
VECTOR, SAME, HALF = "small_nin", "softmax", "four_channels"


def inputs_of(name, n=2):
    config = SPECIMENS[name]
    return specimens.build(name), specimens.images(config, n), specimens.labels(config, n)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"condition_shape": (3,), "num_classes": 2},
            "`condition_shape` must be None for a model with classes. "
            "Received: condition_shape=(3,)",
        ),
        (
            {"condition_shape": (3, 8, 1)},
            "`condition_shape` must have sides that divide those of the 8 x 8 image. "
            "Received: condition_shape=(3, 8, 1)",
        ),
        (
            {"condition_shape": (4, 4)},
            "`condition_shape` must be None, or one or three positive integers, (D,) or (h, w, c). "
            "Received: condition_shape=(4, 4)",
        ),
        (
            {"condition_shape": (3,), "condition_levels": 16},
            "`condition_levels` must be 256 but for a `condition_shape` of a picture. "
            "Received: condition_levels=16",
        ),
        (
            {"condition_shape": (3,), "embedding_resnet": 1},
            "`embedding_resnet` must be 0 but for a `condition_shape` of a picture. "
            "Received: embedding_resnet=1",
        ),
        (
            {"condition_shape": (4, 4, 1), "embedding_filters": 8},
            "`embedding_filters` must be None but for an `embedding_resnet` of at least 1. "
            "Received: embedding_filters=8",
        ),
        (
            {"condition_shape": (4, 4, 1), "embedding_resolutions": 3},
            "`embedding_resolutions` must be 2 but for an `embedding_resnet` of at least 1. "
            "Received: embedding_resolutions=3",
        ),
    ],
)
def test_a_condition_that_cannot_be_is_one_line(values, message):
    with pytest.raises(ValueError) as caught:
        ModelConfig((8, 8, 1), **values)
    assert str(caught.value) == message


def test_a_picture_is_scaled_repeated_and_halved_for_each_resolution():
    config = ModelConfig(
        (8, 16, 3), nr_resnet=1, nr_filters=4, condition_shape=(4, 4, 2), condition_levels=11
    )
    picture = specimens.labels(config, 2)
    embedded = specimens.fresh(config, dtype="float64").embed(picture)
    assert embedded.vector is None
    expected = (picture / 5 - 1).repeat(2, axis=1).repeat(4, axis=2)
    for found in embedded.picture:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
        expected = sum(expected[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    assert [found.shape[1:3] for found in embedded.picture] == [(8, 16), (4, 8), (2, 4)]


def test_a_row_of_a_picture_has_its_columns_first():
    picture = np.arange(2 * 3 * 4 * 5, dtype="float32").reshape(2, 3, 4, 5)
    row = conditions.row_of(picture, tf.constant(1))
    np.testing.assert_array_equal(row, picture[:, 1].transpose(1, 0, 2), strict=True)


@pytest.mark.parametrize("name", [VECTOR, SAME, HALF, "pixel_cnn_picture"])
def test_every_pixel_may_depend_on_all_of_its_own_place_of_a_condition(name):
    model = specimens.opinionated(name)
    images, condition = specimens.images(model.config, 1), specimens.labels(model.config, 1)
    before = np.asarray(model(images, condition))
    sides = condition.shape[1:-1]
    changed = condition.copy()
    # The last place: a model must not be blind to what lies below and to the right of a pixel.
    levels = 1 if condition.ndim == 2 else model.config.condition_levels
    last = (0, *(side - 1 for side in sides))
    changed[last] = (condition[last] + 1) if levels == 1 else (condition[last] + 1) % levels
    differs = (np.asarray(model(images, changed)) != before).any(axis=(0, -1))
    assert differs.all() if not sides else differs[-1, -1]


def bad_conditions(name):
    """{what is wrong: (condition, part of the message)}."""
    model, _, condition = inputs_of(name)
    wrong_shape = "condition must have the shape [B, "
    found = {
        "missing": (None, "condition must be given: this model is conditioned on"),
        "a list": (condition.tolist(), "condition must be an array or a tensor. Received: list"),
        "one too few": (condition[:1], wrong_shape),
        "an axis too many": (condition[..., None], wrong_shape),
        "another last axis": (np.repeat(condition, 2, axis=-1), wrong_shape),
        "strings": (condition.astype(str), "Received: dtype"),
        "truth values": (condition > 0, "Received: dtype bool"),
    }
    if condition.ndim == 2:
        infinite = condition.copy()
        infinite[1, 0] = np.inf
        return found | {
            "labels": (np.array([0, 1]), wrong_shape),
            "infinity": (infinite, "condition must be finite"),
            "a tensor with NaN": (tf.constant(infinite * 0), "condition must be finite"),
        }
    values = f"condition must be whole numbers in [0, {model.config.condition_levels - 1}]"
    return found | {
        "another height": (condition[:, 1:], wrong_shape),
        "fractions": (condition + 0.5, values),
        "a level too high": (condition + model.config.condition_levels, values),
        "a tensor of a level below 0": (tf.constant(condition - 300), values),
    }


@pytest.mark.parametrize("name", [VECTOR, SAME, HALF])
def test_what_is_no_condition_is_refused_in_one_line_at_every_door(name):
    model, images, _ = inputs_of(name)
    for condition, part in bad_conditions(name).values():
        for verb in (model, model.log_prob, model.initialize):
            with one_line(part):
                verb(images, condition)
    sampled = np.asarray(specimens.labels(model.config, 3))
    with one_line("condition must have the shape"):
        sampling.sample(model, 2, sampled)
    with one_line("condition must be given"):
        sampling.sample(model, 2)


def test_in_a_compiled_function_the_shape_of_a_condition_is_checked():
    for name in (VECTOR, HALF):
        model, images, condition = inputs_of(name)
        with one_line("condition must have the shape"):
            tf.function(model, autograph=False)(images, condition[:1])


def test_images_whose_sides_no_picture_has_are_refused_in_one_line():
    config = SPECIMENS["pixel_cnn_picture"]  # its picture has half of the rows
    model = specimens.build("pixel_cnn_picture")
    images = np.zeros((2, 5, 6, 2), "uint8")
    with one_line("Height and width of images must be multiples of 2 and 1"):
        model(images, specimens.labels(config, 2))


def test_labels_is_another_name_for_the_condition_and_both_at_once_are_refused():
    model, images, labels = inputs_of("digits")
    expected = model.log_prob(images, labels)
    np.testing.assert_array_equal(model.log_prob(images, labels=labels), expected)
    np.testing.assert_array_equal(model.log_prob(images, condition=labels), expected)
    with one_line("`labels` must be left out where `condition` is given"):
        model.log_prob(images, condition=labels, labels=labels)
