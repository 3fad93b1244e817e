"""What is no image or no label is refused in one line, before anything is computed."""

import re

import keras
import numpy as np
import pytest
import specimens
import tensorflow as tf
from comparisons import EPS, one_line
from specimens import SPECIMENS

from pixel_cnn_pp import sampling

VERBS = pytest.mark.parametrize("verb", ["__call__", "log_prob", "bits_per_dim", "initialize"])
# Images, and images with labels; of PixelCNN++ and of PixelCNN.
IMAGES_ALONE = ["relu", "pixel_cnn_four"]
WITH_LABELS = ["digits", "pixel_cnn"]


def cut(config, **sides):
    """Images of this configuration, but for other sides or channels."""
    shape = dict(zip(("height", "width", "channels"), config.image_shape, strict=True)) | sides
    return np.zeros((2, *shape.values()), "uint8")


def bad_images(name):
    """{what is wrong: (images, part of the message)}."""
    config = SPECIMENS[name]
    good, c = specimens.images(config, 2), config.image_shape[-1]
    num_levels = config.num_levels
    shape = f"must have the shape [B, H, W, {c}]"
    values = f"whole numbers in [0, {num_levels - 1}]"
    return {
        "one image without its batch": (good[0], shape),
        "no image at all": (good[:0], "B at least 1"),
        "one axis more": (good[None], shape),
        "too few channels": (cut(config, channels=1), shape),
        "channels first": (good.transpose(0, 3, 1, 2), shape),
        "no height": (cut(config, height=0), "at least 1"),
        "a level too high": (good.astype("int32") + num_levels, values),
        "a level below 0": (good.astype("int32") - num_levels, values),
        "one fraction": (good + np.float32(0.5), values),
        "the scale [-1, 1]": (good / 127.5 - 1, values),
        "NaN": (np.full(good.shape, np.nan, "float32"), "fractions or NaN"),
        "infinity": (np.full(good.shape, np.inf, "float32"), values),
        "truth values": (good > 9, "Received: dtype bool"),
        "complex numbers": (good.astype("complex64"), "Received: dtype complex64"),
        "strings": (good.astype(str), "must be whole numbers. Received: dtype"),
        "a tensor of fractions": (tf.constant(good / 255), values),
        "a tensor of levels too high": (tf.constant(good.astype("int32") + num_levels), values),
        "a tensor of truth values": (tf.constant(good > 9), "Received: dtype bool"),
        "a tensor of strings": (tf.constant(good.astype(str)), "whole numbers. Received: dtype"),
        "a list": (good.tolist() * 2, "must be an array or a tensor. Received: list"),
        "nothing": (None, "must be an array or a tensor. Received: NoneType"),
    }


def bad_labels(name):
    """{what is wrong: (labels, part of the message)}."""
    n = SPECIMENS[name].num_classes
    labels = np.array([0, n - 1])
    values = f"labels must be whole numbers in [0, {n - 1}]"
    return {
        "missing": (None, f"labels must be given: this model is conditioned on {n} classes"),
        "one too few": (labels[:1], "one for each of the images"),
        "one too few in a list": ([0], "one for each of the images"),
        "two columns": (np.repeat(labels[:, None], 2, axis=1), "or be one-hot rows [B, "),
        "an axis too many": (labels[:, None, None], "labels must have the shape [B]"),
        "a row of two classes": (np.ones((2, n), int), f"{values}. Received: values in [-1, -1]"),
        "a row of no class": (np.zeros((2, n)), f"{values}. Received: values in [-1, -1]"),
        "a class too many": (labels + 1, f"{values}. Received: values in"),
        "class -1": (labels - 1, values),
        "a tensor of class -1": (tf.constant(labels - 1), values),
        "fractions": (labels + 0.5, values),
        "strings": (labels.astype(str), "labels must be whole numbers. Received: dtype"),
        "a word": ("cat", "labels must be an array or a tensor. Received: str"),
    }


@VERBS
@pytest.mark.parametrize("name", IMAGES_ALONE)
def test_what_is_no_image_is_refused_in_one_line(name, verb):
    for images, part in bad_images(name).values():
        with one_line(part):
            getattr(specimens.build(name), verb)(images)


@VERBS
@pytest.mark.parametrize("name", WITH_LABELS)
def test_what_is_no_label_is_refused_in_one_line(name, verb):
    images = specimens.images(SPECIMENS[name], 2)
    for labels, part in bad_labels(name).values():
        with one_line(part):
            getattr(specimens.build(name), verb)(images, labels)


@pytest.mark.parametrize("name", WITH_LABELS)
def test_labels_are_taken_in_every_usual_form(name):
    model = specimens.build(name)
    images, n = specimens.images(model.config, 2), model.config.num_classes
    labels = np.array([1, 0])
    expected = model(images, labels)
    one_hot = np.eye(n)[labels]
    compiled = tf.function(model, autograph=False)
    for form in ([1, 0], labels[:, None], labels > 0, one_hot, one_hot > 0, one_hot.tolist()):
        np.testing.assert_array_equal(model(images, form), expected)
        found = compiled(images, tf.constant(form))
        np.testing.assert_allclose(found, expected, rtol=0, atol=40 * EPS * np.abs(expected).max())
    drawn = sampling.sample(model, 2, labels, seed=1)
    np.testing.assert_array_equal(sampling.sample(model, 2, one_hot, seed=1), drawn)


@VERBS
@pytest.mark.parametrize("name", IMAGES_ALONE)
def test_labels_for_an_unconditional_model_are_refused_in_one_line(name, verb):
    with one_line("labels must be None: this model is not class-conditional"):
        model = specimens.build(name)
        getattr(model, verb)(specimens.images(model.config, 2), np.array([0, 1]))


def test_a_level_of_another_number_of_levels_is_refused():
    images = np.full_like(specimens.images(SPECIMENS["digits"], 2), 17)
    with one_line("whole numbers in [0, 16]. Received: values in [17, 17]"):
        specimens.build("digits")(images, np.array([0, 9]))


@pytest.mark.parametrize("name", WITH_LABELS)
def test_in_a_compiled_function_shapes_are_checked(name):
    model = specimens.build(name)
    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    compiled = tf.function(model, autograph=False)
    for bad_arguments, part in (
        ((images[0], labels), "must have the shape"),
        ((images, labels[:1]), "one for each of the images"),
        ((images, None), "labels must be given"),
    ):
        with one_line(part):
            compiled(*bad_arguments)


@pytest.mark.parametrize("name", WITH_LABELS)
def test_keras_verbs_refuse_arrays_and_streams_before_the_first_step(name):
    model = specimens.fresh(SPECIMENS[name])
    model.compile(keras.optimizers.SGD(0.01))
    n, top = model.config.num_classes, model.config.num_levels - 1
    images, labels = specimens.images(model.config, 2), np.array([0, n - 1])
    before = model.get_weights()
    for arrays, part in (
        ((images / 255, labels), f"whole numbers in [0, {top}]"),
        ((images[0], labels), "must have the shape"),
        ((tf.constant(images / 255), labels), f"whole numbers in [0, {top}]"),
        ((images, labels + 1), f"labels must be whole numbers in [0, {n - 1}]"),
        (((images, labels + 1),), f"labels must be whole numbers in [0, {n - 1}]"),
        ((images,), "labels must be given"),
        ((tf.data.Dataset.from_tensors(images),), "labels must be given"),
    ):
        for verb in (model.fit, model.evaluate):
            with one_line(part):
                verb(*arrays, verbose=0)
    with one_line(f"whole numbers in [0, {top}]"):
        model.predict((images / 255, labels), verbose=0)
    with one_line("labels must be given"):
        model.predict(images, verbose=0)
    for array, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, other)


def test_an_unconditional_model_ignores_the_labels_of_a_stream():
    model = specimens.fresh(SPECIMENS["relu"])
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    images = specimens.images(model.config, 2)
    expected = model.evaluate(images, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((images, [0, 1])).batch(2)
    assert model.evaluate(data, verbose=0) == pytest.approx(expected, rel=float(EPS))


@pytest.mark.parametrize("name", WITH_LABELS)
def test_in_a_compiled_function_and_in_a_stream_values_are_checked(name):
    model = specimens.fresh(SPECIMENS[name])
    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    top, n = model.config.num_levels - 1, model.config.num_classes
    bad = [
        (images / (2 * top), labels, f"images must be whole numbers in [0, {top}]. Received: fra"),
        (images + 3.0 * top, labels, f"images must be whole numbers in [0, {top}]. Received: val"),
        (images + 0.0, labels + n, f"labels must be whole numbers in [0, {n - 1}]. Received: val"),
    ]
    log_prob = tf.function(model.log_prob, autograph=False)
    model.compile(keras.optimizers.SGD(0.01))
    before = model.get_weights()
    for bad_images, bad_labels, part in bad:
        arguments = tf.constant(bad_images, tf.float32), tf.constant(bad_labels)
        rule = re.escape(part.partition(". Received")[0])
        with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
            log_prob(*arguments)
        with one_line(part):
            model.fit(tf.data.Dataset.from_tensors(arguments), verbose=0)
    for array, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, other)


def test_checks_do_not_copy_a_tensor_to_the_host(monkeypatch):
    model = specimens.build("relu")
    images = tf.constant(specimens.images(model.config, 4).astype("int32"))
    sizes = []
    convert = keras.ops.convert_to_numpy

    def convert_and_note(x):
        sizes.append(np.size(x))
        return convert(x)

    monkeypatch.setattr(keras.ops, "convert_to_numpy", convert_and_note)
    model(images)
    assert sizes and max(sizes) == 1, "two numbers, once"
    assert len(sizes) == 2
