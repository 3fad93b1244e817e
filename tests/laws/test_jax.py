"""Keras's JAX backend gives what TensorFlow gives, where TensorFlow is not installed."""

import json

import keras
import numpy as np
import pytest
import specimens
from comparisons import EPS, assert_close, largest_error
from specimens import SPECIMENS

# One process for all: it takes seconds to start, and its compiler more.
WITH_JAX = """
import json, pathlib, sys
sys.modules["tensorflow"] = None  # as on a machine where it is not installed
import keras
import numpy as np
import specimens
from pixel_cnn_pp import models, sampling
assert keras.backend.backend() == "jax"
import jax

def walk_through(model, images, labels):
    @jax.jit
    def walk(weights, state, row, pixels):
        choose = sampling.teacher_forces(pixels)
        return sampling.walk_row(model, weights, state, row, choose, pixels.shape[:2], embedded)

    embedded = None if labels is None else model.embed(labels)
    step = model.cached_step
    weights, state = step.weights(), step.initial_state(len(images), images.shape[2], embedded)
    rows = []
    for row, pixels in enumerate(images.transpose(1, 2, 0, 3)):
        state, _, raw_params = walk(weights, state, row, pixels)
        rows.append(raw_params)
    return np.stack(rows).transpose(2, 0, 1, 3)

folder = pathlib.Path(sys.argv[1])
compared, stepped, fitted, initialised = map(json.loads, sys.argv[2:6])
for name in compared:
    config = specimens.SPECIMENS[name]
    model = models.make(config, fresh=False)
    model.load_weights(folder / f"{name}.weights.h5")
    images, labels = specimens.images(config, 4), specimens.labels(config, 4)
    # Operation by operation where they are compiled for what is fitted below. As one it is sooner.
    call, loss_of = model, model.loss_of
    if name not in fitted:
        call, loss_of = jax.jit(lambda *inputs: model(*inputs)), jax.jit(model.loss_of)
    results = {"outputs": call(images, labels)}
    # The same noise for both, whatever they draw.
    shape = model.likelihood.noise_shape(*images.shape[1:3])
    noise = None if shape is None else np.load(folder / f"{name}_noise.npy")
    results["loss"] = loss_of(results["outputs"], images, noise)
    if name in stepped:
        results["stepped"] = walk_through(model, images, labels)
        for method in sampling.METHODS:
            results[method] = sampling.sample(model, 4, labels, method=method)
    if name in initialised:
        model.initialize(images, labels)
        results |= {f"initialised_{i}": v for i, v in enumerate(model.weights)}
    np.savez(folder / f"{name}_jax.npz", **{k: np.asarray(v) for k, v in results.items()})

told = {}
for name in fitted:
    config = specimens.SPECIMENS[name]
    model = specimens.fresh(config)
    images, labels = specimens.images(config, 4), specimens.labels(config, 4)
    before = model.loss_of(model(images, labels), images)
    model.compile(keras.optimizers.SGD(0.01))
    loss = model.fit(images, labels, batch_size=2, verbose=0).history["loss"]
    model.save(folder / f"{name}.keras")
    loaded = keras.models.load_model(folder / f"{name}.keras")
    after = model.loss_of(model(images, labels), images)
    told[name] = {
        "loss": loss,
        "same": bool(np.array_equal(loaded.loss_of(loaded(images, labels), images), after)),
        "moved": not np.array_equal(before, after),
    }
chain = specimens.build(sys.argv[6])
chain.load_weights(folder / "chain.weights.h5")
images, labels = specimens.images(chain.config, 3), specimens.labels(chain.config, 3)
for reduce in ("image", "pixel"):
    np.save(folder / f"chain_{reduce}.npy", chain.log_prob(images, labels, reduce))
np.save(folder / "chain_batched.npy", chain.log_prob(images, labels, batch_size=2))
print("RESULTS", json.dumps(told))
"""
# Compiled by XLA for seconds each: a model on a small receptive field, and the other one.
STEPPED = ["small_nin", "pixel_cnn", "pixel_cnn_binary", "gated_two"]
STEPPED += ["row_lstm_picture", "diagonal_bilstm_picture"]
FITTED = ["two_channels", "small_channels", "pixel_cnn", "gated_two", "diagonal_bilstm_picture"]
# All likelihoods, and one network of three resolutions.
COMPARED = list(dict.fromkeys([*STEPPED, *FITTED, "energy", "relu"]))

CHAIN = "gray_and_colour"  # with an embedding network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jax")


def noise_of(name):
    """Noise for 4 images, or None, the same on both backends."""
    height, width, _ = SPECIMENS[name].image_shape
    shape = specimens.build(name).likelihood.noise_shape(height, width)
    if shape is None:
        return None
    return np.random.default_rng(0).random((4, *shape), "float32")


@pytest.fixture(scope="module")
def told(run_python, folder):
    for name in COMPARED:
        specimens.build(name).save_weights(folder / f"{name}.weights.h5")
        if noise_of(name) is not None:
            np.save(folder / f"{name}_noise.npy", noise_of(name))
    specimens.build(CHAIN).save_weights(folder / "chain.weights.h5")
    initialised = [
        name
        for name in COMPARED
        if specimens.has_initialisation(name) and not specimens.has_dropout(name)
    ]
    assert initialised
    printed = run_python(
        WITH_JAX,
        folder,
        *map(json.dumps, (COMPARED, STEPPED, FITTED, initialised)),
        CHAIN,
        KERAS_BACKEND="jax",
        JAX_PLATFORMS="cpu",
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # the compiler takes the time here, not what it makes
    )
    (line,) = (line for line in printed.splitlines() if line.startswith("RESULTS"))
    return json.loads(line.removeprefix("RESULTS"))


@pytest.mark.parametrize("name", COMPARED)
def test_jax_gives_what_tensorflow_gives(name, told, folder):
    config, model = SPECIMENS[name], specimens.build(name)
    images, labels = specimens.images(config, 4), specimens.labels(config, 4)
    with np.load(folder / f"{name}_jax.npz") as file:
        arrays = dict(file)
    expected = model(images, labels).numpy()
    # Some EPS for each of about 40 layers.
    assert_close(arrays["outputs"], expected, 40 * EPS * np.abs(expected).max())
    loss = model.loss_of(expected, images, noise_of(name))
    np.testing.assert_allclose(arrays["loss"], loss, rtol=40 * EPS)
    if "stepped" in arrays:
        assert largest_error(arrays["stepped"], expected) < 40 * EPS
        # That rounding tips one of a few hundred draws happens once in a thousand seeds.
        np.testing.assert_array_equal(arrays["cached"], arrays["naive"])
        assert len(np.unique(arrays["cached"])) > 1
    if not any(key.startswith("initialised") for key in arrays):
        return
    model = specimens.fresh(config)
    model.initialize(images, labels)
    for index, variable in enumerate(model.weights):
        actual, expected = arrays[f"initialised_{index}"], variable.numpy()
        # Biases are small against the outputs, whose deviation is 0.1 or 1.
        scale = max(np.abs(expected).max(), 0.1 if variable.name == "b" else 0)
        # Every layer divides by a deviation, in which rounding errors may grow.
        assert_close(actual, expected, 1e-4 * scale)


@pytest.mark.parametrize("name", FITTED)
def test_jax_fits_and_tensorflow_loads_what_it_has_saved(name, told, folder):
    assert np.isfinite(told[name]["loss"]).all()
    assert told[name]["same"] and told[name]["moved"]
    assert keras.models.load_model(folder / f"{name}.keras").config == SPECIMENS[name]


def test_a_chain_on_jax_scores_as_on_tensorflow(told, folder):
    model = specimens.build(CHAIN)
    images, labels = specimens.images(model.config, 3), specimens.labels(model.config, 3)
    for reduce in ("image", "pixel"):
        expected = model.log_prob(images, labels, reduce)
        found = np.load(folder / f"chain_{reduce}.npy")
        # Some EPS for each of about 40 layers, of the largest pixel or of the sum.
        assert_close(found, expected, 40 * EPS * np.abs(expected).max())
    batched = np.load(folder / "chain_batched.npy")
    np.testing.assert_allclose(batched, np.load(folder / "chain_image.npy"), rtol=40 * EPS)
