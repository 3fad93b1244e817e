"""The energy distance beside its recording.

Its noise was not recorded. In float64 ours is within 2e-6 of the largest gradient and 5e-7 of the
samples, so these are the roundings of the recording; in float32 ours has a few times more.
"""

import functools

import numpy as np
import pytest
import specimens
import tensorflow as tf
from comparisons import assert_close

from pixel_cnn_pp import likelihoods, tf1_import
from pixel_cnn_pp.config import ModelConfig

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@functools.cache
def recorded_energy():
    return specimens.golden("energy_distance.npz")


def energy_variables(model):
    """The variables under the names of the release, the head behind the network."""
    names = tf1_import.release_names(model.config.nr_resnet, is_conditional=False)
    for number, layer in enumerate(("noise_in", "hidden", "output"), start=14):
        for kind in "Vgb":
            names[f"dense_{number}/{kind}"] = f"head/{layer}/{kind.lower()}"
    weights = {weight.path.partition("/")[2]: weight for weight in model.weights}
    assert sorted(names.values()) == sorted(weights)
    return {f"model/{name}": weights[path] for name, path in names.items()}


@functools.cache
def energy_model(dtype):
    """The recorded model behind the recorded initialisation pass, and its sample of that pass."""
    arrays = recorded_energy()
    config = ModelConfig(
        image_shape=(8, 8, 3), nr_resnet=1, nr_filters=6, dropout_p=0.0, energy_distance=True
    )
    model = specimens.fresh(config, dtype=dtype)
    for name, variable in energy_variables(model).items():
        if name.endswith("/V"):
            variable.assign(arrays[f"init0/{name}"])
    noise = (energy_noise("u_init").astype("float64") + 1) / 2
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(model, "noise", lambda *arguments: tf.constant(noise, dtype))
        model.initialize(arrays["x_init_u8"])
    return model


def energy_noise(name):
    """Noise as ours, [B, 10, H, W, 4] in (-1, 1)."""
    noise = recorded_energy()[name]
    return np.moveaxis(noise.reshape(10, -1, 8, 8, 4), 0, 1)


@DTYPES
def test_the_initialisation_for_the_energy_distance_gives_the_recorded_gains_and_biases(dtype):
    for name, variable in energy_variables(energy_model(dtype)).items():
        if not name.endswith("/V"):
            expected = recorded_energy()[f"params/{name}"]
            # Some biases are small sums of large terms.
            atol = 1e-5 * max(np.abs(expected).max(), 0.1)
            assert_close(variable.numpy(), expected, atol)


@DTYPES
def test_samples_energy_distance_and_its_gradients_are_the_recorded_ones(dtype):
    arrays, model = recorded_energy(), specimens.fresh(energy_model(dtype).config, dtype=dtype)
    variables = energy_variables(model)
    for name, variable in variables.items():
        variable.assign(arrays[f"init0/{name}" if name.endswith("/V") else f"params/{name}"])
    noise = energy_noise("u")
    with tf.GradientTape() as tape:
        raw_params = model(arrays["x_u8"])
        uniforms = (noise.astype("float64") + 1) / 2
        distances = model.loss_of(raw_params, arrays["x_u8"], uniforms.astype(dtype))
        loss = tf.reduce_sum(distances)
    samples = np.moveaxis(model.head(raw_params[:, None], noise).numpy(), 1, 0)
    assert_close(samples, arrays["samples"], 1e-6)
    assert distances.shape == (4,)
    assert loss.numpy() == pytest.approx(arrays["loss"], rel=1e-6)
    scaled = likelihoods.bits_per_dim(loss.numpy(), arrays["x_u8"].size)
    assert scaled == pytest.approx(arrays["loss_scaled_like_bits_per_dim"], rel=1e-6)
    gradients = tape.gradient(loss, [variable.value for variable in variables.values()])
    for name, gradient in zip(variables, gradients, strict=True):
        expected = arrays[f"grad/{name}"]
        assert_close(gradient, expected, 1e-5 * np.abs(expected).max())
