"""What is served of a chain; tests/export/test_serving.py asks one in another process."""

import json
import re

import numpy as np
import pytest
import specimens
import tensorflow as tf
from served import call

from pixel_cnn_pp import config, sampling, signatures


@pytest.fixture(scope="module")
def served(three_sizes):
    return tf.saved_model.load(str(three_sizes[1]))


def test_three_sizes_are_scored_drawn_and_continued_from_each_stage(three_sizes, served):
    model, path = three_sizes
    images = specimens.images(model.config, 2)
    found = call(served, "log_prob", images=images)
    # Sums of 126 float64 terms.
    np.testing.assert_allclose(found["nats"], model.log_prob(images), rtol=1e-12)
    np.testing.assert_allclose(found["bits_per_dim"], model.bits_per_dim(images), rtol=1e-12)
    larger = np.pad(images, [(0, 0), (0, 4), (0, 0), (0, 0)])
    found = call(served, "log_prob", images=larger)["nats"]
    np.testing.assert_allclose(found, model.log_prob(larger), rtol=1e-12)

    expected = sampling.sample_stages(model, 2, seed=7, method="naive")
    drawn = call(served, "sample", num_samples=2, seed=7)["images"]
    np.testing.assert_array_equal(drawn, expected["8x12"], strict=True)
    for name in ("2x3", "4x6"):  # the noise of a stage is the same, wherever one starts
        found = call(served, f"sample_from_{name}", pictures=expected[name], seed=7)["images"]
        np.testing.assert_array_equal(found, drawn)
    text = call(served, "config")["json"].decode()
    assert config.model_config(json.loads(text)) == model.config
    assert (path / "assets.extra" / "config.json").read_text() == text


def test_a_class_is_asked_for_where_the_first_stage_is_drawn_and_nowhere_else():
    model = specimens.opinionated("every_second_pixel")
    endpoints = signatures._Endpoints(model, False)
    takes = {name: set(arguments) for name, (_, arguments) in endpoints.signatures().items()}
    controls = {"temperature", "mode"}  # a softmax has no offset
    drawn, completed = {"num_samples", "seed", "labels"}, {"images", "mask", "seed", "labels"}
    assert takes == {
        "log_prob": {"images", "labels"},
        "sample": drawn,
        "sample_with_controls": drawn | controls,
        "complete": completed,
        "complete_with_controls": completed | controls,
        "sample_from_3x2": {"pictures", "seed"},
        "sample_from_3x2_with_controls": {"pictures", "seed"} | controls,
        "config": set(),
    }
    labels = specimens.labels(model.config, 3)
    drawn = endpoints.sample(tf.constant(3), tf.constant(7), tf.constant(labels))["images"]
    expected = sampling.sample(model, 3, labels, seed=7, method="naive")
    np.testing.assert_array_equal(drawn, expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"labels must .* \[0, 2\]"):
        endpoints.sample(tf.constant(1), tf.constant(7), tf.constant([3]))


@pytest.mark.parametrize(
    ("signature", "arguments", "message"),
    [
        (
            "log_prob",
            {"images": np.zeros((1, 10, 12, 1))},
            "must be multiples of 4, by which .* smaller. Received: images of shape .1 10 12 1",
        ),
        (
            "sample_from_2x3",
            {"pictures": np.zeros((0, 2, 3, 1)), "seed": 1},
            "pictures must be at least 1. Received: pictures of shape .0 2 3 1",
        ),
        (
            "sample_from_2x3",
            {"pictures": np.zeros((1, 2, 3, 1)), "seed": -1},
            "`seed` must be a whole number in .* Received: seed=-1",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_is_one_line(served, signature, arguments, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        call(served, signature, **arguments)
    lines = [line for line in str(caught.value).splitlines() if re.search(message, line)]
    assert lines, str(caught.value)


def test_levels_that_a_stage_does_not_have_are_one_line():
    model = specimens.build("gray_and_colour")
    endpoints = signatures._Endpoints(model, False)
    pictures = tf.constant(np.full((1, 4, 6, 1), 4, np.uint8))
    message = r"pictures must be whole numbers in \[0, 3\]. Received: values in \[4, 4\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        endpoints.sample_from(0, pictures, tf.constant(1))
