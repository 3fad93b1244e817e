import pathlib
import types

import keras
import numpy as np
import pytest
import specimens

from pixel_cnn_pp.config import DataConfig, PixelCNNConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints, optimizers


@pytest.mark.parametrize(("step", "tolerance"), [(0, 1e-6), (24, 1e-6), (10**6, 1e-5)])
def test_the_learning_rate_decays_by_the_step_before_the_first_one_too(step, tolerance):
    schedule = optimizers.DecayPerStep(0.001, 0.999995)
    # float32 rounds the exponent, 5 at a million steps, to 2e-7: twice that, relative, in the rate.
    expected = 0.001 * 0.999995 ** (step + 1)
    assert float(schedule(keras.ops.convert_to_tensor(step, "int64"))) == pytest.approx(
        expected, rel=tolerance
    )


def test_the_learning_rates_are_the_recorded_ones():
    recorded = specimens.golden("init_train_uncond_start.npz")["lr"]
    schedule = optimizers.DecayPerStep(0.001, 0.999995)
    found = [float(schedule(step)) for step in range(len(recorded))]
    np.testing.assert_allclose(found, recorded, rtol=2e-7)  # float32


def test_the_schedule_and_the_optimizer_come_back_from_their_configuration():
    optimizer = optimizers.make_optimizer(TrainingConfig(optimizer="adam", learning_rate=0.5))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is optimizers.ReleaseAdam
    assert again.get_config() == optimizer.get_config()
    assert float(again.learning_rate) == float(optimizer.learning_rate)


def in_place(optimizer, variables):
    """The function that updates by gradients as a training does on TensorFlow."""
    import tensorflow as tf

    from pixel_cnn_pp.runs import updates

    model = types.SimpleNamespace(trainable_variables=variables)
    (own,) = updates.replica_variables(model, optimizer, tf.distribute.get_strategy())
    return lambda gradients: updates.update(optimizer, own, gradients)


def by_keras(optimizer, variables):
    """The function that updates by gradients as `fit` does, and as a training does on JAX."""
    return optimizer.apply


def twenty_steps(optimizer, make_update=by_keras):
    """Parameters [20, ...] by name, after each of the recorded gradients."""
    recorded = specimens.golden("adamax.npz")
    names = [key.removeprefix("p0/") for key in recorded if key.startswith("p0/")]
    variables = [keras.Variable(recorded[f"p0/{name}"], name=name) for name in names]
    optimizer.build(variables)
    update = make_update(optimizer, variables)
    found = {name: [] for name in names}
    for step in range(20):
        gradients = [recorded[f"grads/{name}"][step] for name in names]
        update([keras.ops.convert_to_tensor(gradient) for gradient in gradients])
        for name, variable in zip(names, variables, strict=True):
            found[name].append(np.asarray(variable).copy())
    return recorded, found


# Parameters lie in [-4, 4], where float32 rounds each of 20 differences by at most 1.2e-7.
TWENTY_ROUNDINGS = 20 * 1.2e-7


@pytest.mark.parametrize("make_update", [in_place, by_keras])
def test_release_adam_is_the_recorded_one(make_update):
    optimizer = optimizers.make_optimizer(TrainingConfig(optimizer="adam", lr_decay=1.0))
    recorded, found = twenty_steps(optimizer, make_update)
    for name, values in found.items():
        np.testing.assert_allclose(
            values, recorded[f"adam_095_09995/p/{name}"], rtol=0, atol=TWENTY_ROUNDINGS
        )


def test_the_adam_of_a_run_has_the_constants_of_the_release():
    optimizer = optimizers.make_optimizer(TrainingConfig(optimizer="adam", polyak_decay=0.99))
    assert type(optimizer) is optimizers.ReleaseAdam
    constants = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
    assert constants == (0.95, 0.9995, 1e-8)
    assert optimizer.use_ema and optimizer.ema_momentum == 0.99
    assert optimizer.ema_overwrite_frequency is None


def test_the_default_optimizer_is_adamax_with_averages():
    optimizer = optimizers.make_optimizer(TrainingConfig(lr_decay=1.0))
    assert type(optimizer) is keras.optimizers.Adamax
    assert optimizer.use_ema and optimizer.ema_momentum == 0.9995
    assert optimizer.ema_overwrite_frequency is None
    # Kingma & Ba 2015, algorithm 2, in float64; epsilon as Keras documents it.
    recorded, found = twenty_steps(optimizer, in_place)
    for name, values in found.items():
        p = recorded[f"p0/{name}"].astype(np.float64)
        m, u = np.zeros_like(p), np.zeros_like(p)
        for step, gradient in enumerate(recorded[f"grads/{name}"].astype(np.float64)):
            m = 0.9 * m + 0.1 * gradient
            u = np.maximum(0.999 * u, np.abs(gradient))
            p = p - 0.001 / (1 - 0.9 ** (step + 1)) * m / (u + 1e-7)
            np.testing.assert_allclose(values[step], p, rtol=0, atol=TWENTY_ROUNDINGS)


@pytest.mark.parametrize("make_update", [in_place, by_keras])
def test_rmsprop_takes_the_steps_of_its_equations(make_update):
    optimizer = optimizers.make_optimizer(TrainingConfig(optimizer="rmsprop", lr_decay=1.0))
    assert type(optimizer) is keras.optimizers.RMSprop
    assert optimizer.use_ema and optimizer.ema_momentum == 0.9995
    assert optimizer.ema_overwrite_frequency is None
    # Tieleman & Hinton 2012, lecture 6e, in float64, with epsilon inside the root.
    recorded, found = twenty_steps(optimizer, make_update)
    averages = optimizer._model_variables_moving_average
    for (name, values), average in zip(found.items(), averages, strict=True):
        p = recorded[f"p0/{name}"].astype(np.float64)
        v, expected = np.zeros_like(p), None
        for step, gradient in enumerate(recorded[f"grads/{name}"].astype(np.float64)):
            v = 0.9 * v + 0.1 * gradient**2
            p = p - 0.001 * gradient / np.sqrt(v + 1e-7)
            np.testing.assert_allclose(values[step], p, rtol=0, atol=TWENTY_ROUNDINGS)
            expected = p if step == 0 else 0.9995 * expected + 0.0005 * p
        np.testing.assert_allclose(np.asarray(average), expected, rtol=0, atol=TWENTY_ROUNDINGS)


def test_a_run_with_rmsprop_is_saved_and_restored_with_its_slots(tmp_path):
    from pixel_cnn_pp.runs import devices  # here, because they need TensorFlow
    from pixel_cnn_pp.runs.trainer import Trainer

    settings = TrainingConfig(optimizer="rmsprop", batch_size=4)
    sizes = {"nr_resnet": 1, "nr_filters": 2, "nr_output_filters": 2}  # little to trace
    config = PixelCNNConfig(image_shape=(4, 4, 1), num_levels=4, **sizes)
    run = RunConfig(config, DataConfig(data_set="digits"), settings)
    first, second = (Trainer(run, devices.make_strategy(0)) for _ in range(2))
    images = np.random.default_rng(0).integers(0, 4, (4, 4, 4, 1)).astype(np.uint8)
    first.train_step(images)
    first.save(tmp_path, checkpoints.TrainingState(1, 1), keep=1)
    with np.load(checkpoints.latest(tmp_path) / "optimizer.npz") as slots:
        assert sum(key.endswith("_velocity") for key in slots) == len(first.model.weights)
    second.restore(tmp_path, None, None)
    for trainer in (first, second):
        trainer.train_step(images)
    for ours, others in zip(first.optimizer.variables, second.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(others))


ON_JAX = """
import sys
sys.path.append(sys.argv[2])
sys.modules["tensorflow"] = None  # as on a machine where it is not installed
import numpy as np
import test_optimizers as tests
from pixel_cnn_pp.config import TrainingConfig

for name in ("adamax", "adam", "rmsprop"):
    optimizer = tests.optimizers.make_optimizer(TrainingConfig(optimizer=name))
    _, found = tests.twenty_steps(optimizer)
    averages = dict(zip(found, optimizer._model_variables_moving_average))
    np.savez(f"{sys.argv[1]}/{name}.npz", **{
        f"{kind}/{key}": np.asarray(value)
        for kind, values in (("p", found), ("average", averages)) for key, value in values.items()
    })
"""


def test_jax_takes_the_same_steps_without_tensorflow(run_python, tmp_path):
    folder = pathlib.Path(__file__).parent
    run_python(ON_JAX, tmp_path, folder, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    for name in ("adamax", "adam", "rmsprop"):
        optimizer = optimizers.make_optimizer(TrainingConfig(optimizer=name))
        _, expected = twenty_steps(optimizer, in_place)
        with np.load(tmp_path / f"{name}.npz") as found:
            for key, values in expected.items():
                np.testing.assert_allclose(found[f"p/{key}"], values, rtol=0, atol=TWENTY_ROUNDINGS)
            averages = optimizer._model_variables_moving_average
            for key, average in zip(expected, averages, strict=True):
                np.testing.assert_allclose(
                    found[f"average/{key}"], np.asarray(average), rtol=0, atol=TWENTY_ROUNDINGS
                )
