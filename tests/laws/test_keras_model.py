"""A model is an ordinary `keras.Model`: it fits, evaluates, predicts, and survives its file."""

import functools
import json
import math

import keras
import numpy as np
import pytest
import specimens
import tensorflow as tf
from comparisons import EPS, assert_all_equal, assert_close, one_line, to_numpy, weights_of
from specimens import ONE_OF_EACH_MODEL, SPECIMENS

from pixel_cnn_pp import likelihoods

ALL = pytest.mark.parametrize("name", SPECIMENS)
EACH_MODEL = pytest.mark.parametrize("name", ONE_OF_EACH_MODEL)
# Whether steps are compiled, which takes seconds, or run eagerly.
BOTH_WAYS = pytest.mark.parametrize("is_eager", [False, True], ids=["compiled", "eager"])


def picture_like(config, n):
    """Images that can be learned: one of two grey levels each, and a little noise."""
    rng = np.random.default_rng(0)
    top = config.num_levels - 1
    levels = rng.choice([top // 4, top - top // 4], (n, 1, 1, 1)) + rng.integers(
        0, max(1, top // 50) + 1, (n, *config.image_shape)
    )
    return np.clip(levels, 0, top).astype(likelihoods.level_dtype(config.num_levels))


@functools.cache
def compiled(name):
    """A model with compiled steps, and its initial weights; take it by `restart`."""
    model = specimens.fresh(SPECIMENS[name])
    # What is initialised from data has larger gradients.
    rate = 0.01 if specimens.has_initialisation(name) else 0.5
    model.compile(keras.optimizers.SGD(rate))
    return model, weights_of(model)


def restart(name, is_eager):
    """The compiled model with its initial weights; its optimiser has no state but the step."""
    model, weights = compiled(name)
    model.run_eagerly = is_eager
    model.set_weights(weights)
    return model


def stream(images, labels, batch_size):
    data = images if labels is None else (images, labels)
    return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)


@EACH_MODEL
@BOTH_WAYS
def test_fit_lowers_the_bits_per_dim_that_it_reports(name, is_eager):
    model = restart(name, is_eager)
    images, labels = picture_like(model.config, 8), specimens.labels(model.config, 8)
    before = model.bits_per_dim(images, labels).numpy().mean()
    # Arrays one way and a stream the other.
    if is_eager:
        history = model.fit(images, labels, batch_size=4, epochs=3, verbose=0)
    else:
        history = model.fit(stream(images, labels, 4), epochs=3, verbose=0)
    losses = history.history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.1
    assert model.bits_per_dim(images, labels).numpy().mean() < before - 0.1


@EACH_MODEL
@BOTH_WAYS
def test_evaluate_gives_the_mean_over_all_images_and_predict_their_raw_parameters(name, is_eager):
    model = restart(name, is_eager)
    images, labels = specimens.images(model.config, 10), specimens.labels(model.config, 10)
    expected = model.bits_per_dim(images, labels).numpy().astype("float64").mean()
    results = [
        model.evaluate(images, labels, batch_size=4, verbose=0),
        model.evaluate(stream(images, labels, 4), verbose=0),
    ]
    # A mean of ten float32 numbers, each of which may come out of a compiled function.
    np.testing.assert_allclose(results, expected, rtol=40 * EPS)
    expected = model(images, labels).numpy()
    inputs = images if labels is None else (images, labels)
    atol = 40 * EPS * np.abs(expected).max()
    assert_close(model.predict(inputs, batch_size=4, verbose=0), expected, atol)
    assert_close(model.predict(stream(images, labels, 4), verbose=0), expected, atol)
    assert_close(model.predict_on_batch(inputs), expected, atol)


@pytest.mark.parametrize("name", ["digits", "pixel_cnn"])  # Keras takes weights with labels only
def test_weights_of_images_weigh_their_bits_per_dim(name):
    model = restart(name, is_eager=True)
    images, labels = specimens.images(model.config, 4), specimens.labels(model.config, 4)
    weights = np.array([0.0, 1.0, 2.5, 0.1], "float32")
    expected = (model.bits_per_dim(images, labels).numpy() * weights).mean()
    result = model.evaluate(images, labels, sample_weight=weights, batch_size=4, verbose=0)
    np.testing.assert_allclose(result, expected, rtol=40 * EPS)


def test_bits_per_dim_needs_to_know_the_sides_of_images_only_when_it_is_computed():
    model = specimens.build("relu")
    images = specimens.images(model.config, 2)
    signature = [tf.TensorSpec([None, None, None, 3], images.dtype)]
    function = tf.function(model.bits_per_dim, input_signature=signature)
    np.testing.assert_allclose(function(images), model.bits_per_dim(images), rtol=40 * EPS)


@EACH_MODEL
def test_summary_prints_every_layer_and_the_number_of_parameters(name):
    model = specimens.build(name)
    lines = []
    model.summary(print_fn=lines.append, expand_nested=True)
    text = "\n".join(lines)
    assert f"{model.count_params():,}" in text
    assert all(layer.name in text for layer in model.layers)


@ALL
def test_a_model_is_made_again_from_its_configuration_and_from_its_file(name, tmp_path):
    model = specimens.fresh(SPECIMENS[name], name="a_name")
    text = json.dumps(model.get_config())
    twin = type(model).from_config(json.loads(text))
    assert (twin.config, twin.name) == (model.config, "a_name")
    assert [v.path for v in twin.weights] == [v.path for v in model.weights]
    assert keras.models.model_from_json(model.to_json()).config == model.config

    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    outputs = model(images, labels).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert (loaded.config, loaded.name) == (model.config, "a_name")
    assert_all_equal([loaded(images, labels).numpy()], [outputs])
    assert not np.array_equal(twin(images, labels), outputs)
    model.save_weights(tmp_path / "model.weights.h5")
    twin.load_weights(tmp_path / "model.weights.h5")
    assert_all_equal([twin(images, labels).numpy()], [outputs])


@pytest.fixture(scope="module", params=["relu", "pixel_cnn_binary"])
def saved(request, tmp_path_factory):
    """A trained model without dropout, its file, images, and its outputs for them."""
    folder = tmp_path_factory.mktemp("saved")
    model = specimens.fresh(SPECIMENS[request.param])
    images = specimens.images(model.config, 8)
    model.initialize(images)
    model.compile(keras.optimizers.Adamax(0.001), run_eagerly=True)
    for _ in range(2):
        expected = model.bits_per_dim(images).numpy().mean()
        (loss,) = model.fit(images, batch_size=8, verbose=0).history["loss"]
        # The loss of a step is that before it.
        np.testing.assert_allclose(loss, expected, rtol=4 * EPS)
    model.save(folder / "model.keras")
    np.save(folder / "images.npy", images)
    return model, folder, images, model(images).numpy()


def test_a_saved_model_loads_with_its_optimiser_and_trains_on_as_if_it_had_never_stopped(saved):
    model, folder, images, _ = saved
    loaded = keras.models.load_model(folder / "model.keras")
    assert_all_equal(weights_of(loaded), weights_of(model))
    assert isinstance(loaded.optimizer, keras.optimizers.Adamax)
    assert loaded.optimizer.iterations.numpy() == 2
    assert_all_equal(to_numpy(loaded.optimizer.variables), to_numpy(model.optimizer.variables))

    loaded.run_eagerly = True
    weights, optimizer = weights_of(model), to_numpy(model.optimizer.variables)
    one_step = {"batch_size": 4, "shuffle": False, "verbose": 0}
    losses = [each.fit(images, **one_step).history["loss"] for each in (loaded, model)]
    assert losses[0] == losses[1]
    assert_all_equal(weights_of(loaded), weights_of(model))
    assert not np.array_equal(weights_of(loaded)[0], weights[0])
    model.set_weights(weights)  # for the other tests
    for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
        variable.assign(value)


IN_A_FRESH_PROCESS = """
import pathlib, sys
import keras
import numpy as np
import pixel_cnn_pp

for folder in map(pathlib.Path, sys.argv[1:]):
    images = np.load(folder / "images.npy")
    np.save(folder / "outputs.npy", keras.models.load_model(folder / "model.keras")(images))
"""


def test_a_fresh_process_loads_a_model_and_gets_the_same_outputs(saved, run_python):
    _, folder, _, outputs = saved
    run_python(IN_A_FRESH_PROCESS, folder)
    assert_all_equal([np.load(folder / "outputs.npy")], [outputs])


@EACH_MODEL
def test_a_mixed_bfloat16_model_is_near_float32_trains_and_survives_its_file(name, tmp_path):
    config = SPECIMENS[name]
    model = specimens.fresh(config, dtype="mixed_bfloat16")
    full = specimens.fresh(config)
    assert_all_equal(weights_of(model), weights_of(full))
    images, labels = specimens.images(config, 8), specimens.labels(config, 8)
    assert {str(v.dtype) for v in model.weights} == {"float32"}
    outputs, expected = model(images, labels).numpy(), full(images, labels).numpy()
    assert outputs.dtype == np.float32 and np.isfinite(outputs).all()
    assert not np.array_equal(outputs, expected), "it computes in bfloat16"
    # The last layer does not: it hands out numbers of more bits than those.
    assert not np.array_equal(outputs, tf.cast(tf.cast(outputs, "bfloat16"), "float32"))
    # bfloat16 keeps 8 bits. Roundings of about 40 layers add up like a random walk.
    error = np.sqrt(np.mean(np.square(outputs - expected)) / np.mean(np.square(expected)))
    assert error < math.sqrt(40) * 2**-8
    bits_per_dim = model.bits_per_dim(images, labels).numpy()
    assert bits_per_dim.dtype == np.float32
    np.testing.assert_allclose(bits_per_dim, full.bits_per_dim(images, labels), rtol=2**-8)

    model.compile(keras.optimizers.SGD(0.001), run_eagerly=True)
    losses = model.fit(images, labels, batch_size=4, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert all(np.isfinite(array).all() for array in weights_of(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.dtype_policy.name == "mixed_bfloat16"
    assert_all_equal([loaded(images, labels).numpy()], [model(images, labels).numpy()])


@EACH_MODEL
def test_a_float64_model_is_float64_throughout(name):
    model = specimens.opinionated(name)
    images, labels = specimens.images(model.config, 4), specimens.labels(model.config, 4)
    assert {str(v.dtype) for v in model.weights} == {"float64"}
    for result in (
        model(images, labels),
        model(images, labels, training=True, seed=[0, 0]),
        model.log_prob(images, labels),
        model.bits_per_dim(images, labels),
    ):
        assert result.dtype == tf.float64


@EACH_MODEL
def test_a_checkpoint_of_tensorflow_keeps_all_weights(name, tmp_path):
    model, other = specimens.opinionated(name), specimens.fresh(SPECIMENS[name], dtype="float64")
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_all_equal(weights_of(other), weights_of(model))


def test_what_a_model_cannot_be_compiled_with_or_computed_in_is_one_line():
    model = specimens.build("pixel_cnn_binary")
    for arguments, part in (
        ({"loss": "mse"}, "`loss` must be left out: the loss is that of the model's likelihood"),
        ({"metrics": ["mae"]}, "`metrics` must be left out"),
        ({"weighted_metrics": ["mae"]}, "`weighted_metrics` must be left out"),
    ):
        with one_line(part):
            model.compile("sgd", **arguments)
    with one_line("The arguments after `optimizer` must be given by name"):
        model.compile("sgd", "mse")
    for dtype in ("float16", "bfloat16"):
        with one_line(f"Received: dtype='{dtype}'"):
            specimens.fresh(model.config, dtype=dtype)
