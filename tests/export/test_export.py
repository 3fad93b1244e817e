import dataclasses
import json

import numpy as np
import pytest
import specimens
import tensorflow as tf
from served import DEEP_COLOR, DIGITS, call, initialized
from tensorflow.core.protobuf import saved_model_pb2

from pixel_cnn_pp import export, sampling
from pixel_cnn_pp.config import ModelConfig


def test_signatures_take_and_give_integers_and_labels_where_there_are_classes(
    served_digits, served_deep_color
):
    drawn, completed = ["num_samples", "seed"], ["images", "mask", "seed"]
    controls = ["log_scale_offset", "mode", "temperature"]
    for served, labels, level_dtype in (
        (served_digits, ["labels"], tf.uint8),
        (served_deep_color, [], tf.int32),
    ):
        inputs = {
            name: sorted(function.structured_input_signature[1])
            for name, function in served.signatures.items()
        }
        assert inputs == {
            "log_prob": sorted(["images", *labels]),
            "serving_default": sorted(["images", *labels]),
            "sample": sorted([*drawn, *labels]),
            "sample_with_controls": sorted([*drawn, *labels, *controls]),
            "complete": sorted([*completed, *labels]),
            "complete_with_controls": sorted([*completed, *labels, *controls]),
            "config": [],
        }
        _, arguments = served.signatures["complete"].structured_input_signature
        assert arguments["images"].dtype == level_dtype and arguments["mask"].dtype == tf.bool
        assert served.signatures["sample"].structured_outputs["images"].dtype == level_dtype


def test_the_configuration_travels_as_a_signature_and_as_a_file(
    exported, served_digits, deep_color_path, served_deep_color
):
    for path, served, expected in (
        (exported[0], served_digits, DIGITS),
        (deep_color_path, served_deep_color, DEEP_COLOR),
    ):
        text = call(served, "config")["json"].decode()
        values = json.loads(text)
        assert ModelConfig(**values) == expected
        assert (path / "assets.extra" / "config.json").read_text() == text


def saved_model(path):
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    (meta_graph,) = proto.meta_graphs
    return meta_graph.graph_def


def test_the_weights_are_stored_once_and_as_variables(
    exported, digits_model, deep_color_path, deep_color
):
    for path, model in ((exported[0], digits_model), (deep_color_path, deep_color)):
        shapes = [
            shape
            for name, shape in tf.train.list_variables(str(path / "variables" / "variables"))
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
        ]
        assert sorted(shapes) == sorted(list(weight.shape) for weight in model.weights)
        graph = saved_model(path)
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        sizes = [
            np.prod([side.size for side in node.attr["value"].tensor.tensor_shape.dim])
            for node in nodes
            if node.op == "Const" and node.attr["dtype"].type != tf.string.as_datatype_enum
        ]
        assert max(sizes) < 100  # shapes and permutations; no kernel


def test_only_the_form_with_xla_needs_it(exported, deep_color_path):
    for path, is_compiled in ((exported[0], False), (deep_color_path, True)):
        functions = saved_model(path).library.function
        compiled = [f for f in functions if f.attr["_XlaMustCompile"].b]
        assert len(compiled) == is_compiled  # the step of a row, in one copy for all signatures
        # Operations of that name have a kernel of XLA's only.
        assert not any(node.op.startswith("Xla") for f in functions for node in f.node_def)


@pytest.mark.parametrize("batch_size", [1, 3, 70])
@pytest.mark.parametrize("size", [None, (12, 4)])
def test_log_prob_is_that_of_the_model_for_any_number_and_size(
    served_digits, digits_model, batch_size, size
):
    image_shape = DIGITS.image_shape if size is None else (*size, 1)
    shaped = dataclasses.replace(DIGITS, image_shape=image_shape)
    images, labels = specimens.images(shaped, batch_size), specimens.labels(shaped, batch_size)
    found = call(served_digits, "log_prob", images=images, labels=labels)
    # Sums of 64 float32 terms of size 1 to 10.
    nats = np.asarray(digits_model.log_prob(images, labels))
    np.testing.assert_allclose(found["nats"], nats, rtol=1e-5)
    bits_per_dim = -nats.astype(np.float64) / (np.prod(image_shape) * np.log(2))
    np.testing.assert_allclose(found["bits_per_dim"], bits_per_dim, rtol=1e-5)
    default = call(served_digits, "serving_default", images=images, labels=labels)
    np.testing.assert_array_equal(default["nats"], found["nats"])


def test_with_xla_the_same_seed_gives_the_same_images_and_completions(
    served_deep_color, deep_color
):
    found = call(served_deep_color, "sample", num_samples=3, seed=5)["images"]
    assert found.shape == (3, 4, 8, 2) and found.dtype == np.int32 and found.max() > 255
    np.testing.assert_array_equal(found, sampling.sample(deep_color, 3, seed=5))
    assert len(np.unique(found, axis=0)) == 3

    images = specimens.images(DEEP_COLOR, 3)
    mask = np.random.default_rng(1).random((3, 4, 8)) < 0.4
    controls = {"temperature": 0.8, "log_scale_offset": 0.4, "mode": "map"}
    arguments = {"images": images, "mask": mask, "seed": 6}
    found = call(served_deep_color, "complete_with_controls", **arguments, **controls)["images"]
    expected = sampling.sample(
        deep_color, 3, seed=6, init_images=images, known_mask=mask, **controls
    )
    np.testing.assert_array_equal(found, expected)
    assert (found[mask] == images[mask]).all() and (found[~mask] != images[~mask]).any()
    # What is unknown may be anything.
    arguments["images"] = np.where(mask[..., None], images, [-1, 10**6]).astype(np.int32)
    found = call(served_deep_color, "complete_with_controls", **arguments, **controls)["images"]
    np.testing.assert_array_equal(found, expected)


def assert_drawn_alike(found, expected):
    """Without XLA, products are rounded differently than in process.

    That tips one of ten thousand draws at 256 levels, and fewer at 17; these are 4480 at most.
    """
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found != expected).any(axis=(1, 2, 3)).sum() <= 1
    assert len(np.unique(found, axis=0)) == len(found)


@pytest.mark.parametrize("num_samples", [1, 3, 70])
def test_without_xla_any_number_of_images_is_drawn_as_in_process(
    served_digits, seventy, num_samples
):
    labels = specimens.labels(DIGITS, 70)[:num_samples]
    found = call(served_digits, "sample", num_samples=num_samples, seed=5, labels=labels)
    assert_drawn_alike(found["images"], seventy[:num_samples])


def test_without_xla_completions_are_those_in_process(served_digits, digits_model, seventy):
    images, labels = specimens.images(DIGITS, 70), specimens.labels(DIGITS, 70)
    mask = np.random.default_rng(1).random((70, 8, 8)) < 0.4
    arguments = {"images": images, "seed": 5, "labels": labels}
    found = call(served_digits, "complete", mask=mask, **arguments)["images"]
    expected = sampling.sample(
        digits_model, 70, labels, seed=5, init_images=images, known_mask=mask
    )
    assert_drawn_alike(found, expected)
    assert (found[mask] == images[mask]).all()
    nothing_known = call(served_digits, "complete", mask=mask & False, **arguments)["images"]
    assert_drawn_alike(nothing_known, seventy)


SMALL = {"nr_resnet": 2, "receptive_field": "11x5"}


@pytest.mark.parametrize(
    ("name", "fields", "missing"),
    [
        ("small_nin", SMALL, {"log_scale_offset"}),  # conditioned on a vector
        ("one_resolution", {}, set()),  # conditioned on a picture, through an embedding network
        ("energy", SMALL, {"log_prob", "sample_with_controls", "complete_with_controls"}),
        ("digits", {}, set()),
    ],
)
def test_a_variant_is_served_with_what_has_a_meaning_for_it(name, fields, missing, tmp_path):
    config = dataclasses.replace(specimens.SPECIMENS[name], **fields)
    model = initialized(config, dtype="float64")
    export.export_saved_model(model, tmp_path / "served", jit_compile=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    signatures = served.signatures
    condition = specimens.labels(model.config, 2)
    given = {"condition" if config.num_classes is None else "labels": condition}
    has_score = "log_prob" not in missing
    default = signatures["serving_default"].structured_outputs
    assert set(default) == ({"nats", "bits_per_dim"} if has_score else {"images"})
    assert {"log_prob", "sample_with_controls", "complete_with_controls"} - set(signatures) == (
        missing - {"log_scale_offset"}
    )
    if has_score:
        images = specimens.images(model.config, 2)
        nats = call(served, "log_prob", images=images, **given)["nats"]
        np.testing.assert_allclose(nats, model.log_prob(images, condition), rtol=1e-12)
        _, arguments = signatures["sample_with_controls"].structured_input_signature
        assert {"log_scale_offset"} - set(arguments) == missing
    drawn = call(served, "sample", num_samples=2, seed=7, **given)["images"]
    # In float64 both samplers draw the same; the naive one is compiled in less time.
    expected = sampling.sample(model, 2, condition, seed=7, method="naive")
    np.testing.assert_array_equal(drawn, expected)
