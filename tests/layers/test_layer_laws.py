"""What holds for every layer: it changes nothing, comes back, knows its shapes and precisions."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops
from layer_cases import (
    BFLOAT16_EPS,
    SINGLE_LAYERS,
    SPECIMENS,
    built,
    outputs_of,
    random_images,
    relative_error,
    specimen_inputs,
)

from pixel_cnn_pp import layers
from pixel_cnn_pp.layers import WeightNorm


def test_every_layer_has_a_specimen():
    public = {
        value
        for name, value in vars(layers).items()
        if inspect.isclass(value)
        and issubclass(value, keras.layers.Layer)
        and not name.startswith("_")
        and value is not WeightNorm
    }
    assert public == {type(make_specimen()) for make_specimen in SPECIMENS.values()}


@pytest.mark.parametrize("name", SPECIMENS)
def test_calling_a_layer_changes_nothing(name):
    inputs = specimen_inputs(name)
    layer = built(name, inputs[0].shape)
    before = layer.get_weights()
    first = np.asarray(outputs_of(layer, inputs))
    outputs_of(layer, specimen_inputs(name, seed=7), training=True)
    np.testing.assert_array_equal(outputs_of(layer, inputs), first)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert not layer.non_trainable_weights


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_layer_comes_back_from_its_configuration(name):
    inputs = specimen_inputs(name)
    layer = built(name, inputs[0].shape, dtype="mixed_bfloat16")
    config = keras.saving.serialize_keras_object(layer)
    copies = [type(layer).from_config(layer.get_config())]
    copies[0].build(*(values.shape for values in inputs))
    copies += [keras.saving.deserialize_keras_object(config)]  # built as the layer was
    for copy in copies:
        assert copy.get_config() == layer.get_config()
        copy.set_weights(layer.get_weights())
        np.testing.assert_array_equal(
            ops.cast(outputs_of(copy, inputs), "float32"),
            ops.cast(outputs_of(layer, inputs), "float32"),
        )


@pytest.mark.parametrize("name", SPECIMENS)
def test_shapes_are_known_before_any_number_is(name):
    inputs = specimen_inputs(name)
    layer = built(name, inputs[0].shape)
    symbolic = outputs_of(layer, [keras.Input(values.shape[1:]) for values in inputs])
    assert symbolic.shape[1:] == outputs_of(layer, inputs).shape[1:]
    assert symbolic.shape[0] is None


@pytest.mark.parametrize("name", SPECIMENS)
def test_mixed_bfloat16_keeps_the_weights_and_their_norm_in_float32(name):
    inputs = specimen_inputs(name)
    mixed = built(name, inputs[0].shape, dtype="mixed_bfloat16")
    exact = built(name, inputs[0].shape)
    outputs = outputs_of(mixed, inputs)
    assert outputs.dtype == ("float32" if name == "head" else "bfloat16")
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    # In bfloat16 are: inputs, kernel, and every intermediate result of a block, about ten of them;
    # five blocks stand behind each other where there are groups of channels.
    error = relative_error(outputs, np.asarray(outputs_of(exact, inputs), np.float64))
    num_roundings = {"block": 10, "channels": 50, "head": 10, "stacks": 10, "lstm": 10}.get(
        name.split("_")[0], 2
    )
    assert error < num_roundings * BFLOAT16_EPS
    if isinstance(mixed, WeightNorm):
        kernel = mixed.kernel()
        assert kernel.dtype == "bfloat16"
        np.testing.assert_array_equal(
            ops.cast(kernel, "float32"),
            ops.cast(ops.cast(exact.kernel(), "bfloat16"), "float32"),
        )


@pytest.mark.parametrize("name", SINGLE_LAYERS)
def test_mixed_bfloat16_initialises_as_float32_does(name):
    x = random_images(6, 4, 6, 5)
    mixed, exact = (built(name, x.shape, dtype=dtype) for dtype in ("mixed_bfloat16", "float32"))
    assert mixed.initialize(x).dtype == "bfloat16"
    exact.initialize(x)
    # The inputs and the kernel are rounded to bfloat16, the moments are not.
    assert relative_error(mixed.g, np.asarray(exact.g)) < 2 * BFLOAT16_EPS
    assert relative_error(mixed.b, np.asarray(exact.b)) < 2 * BFLOAT16_EPS
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
