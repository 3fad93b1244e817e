import types

import numpy as np
import pytest
import specimens
from short_run import RUN, value_of

from pixel_cnn_pp import tf1_import
from pixel_cnn_pp.config import ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints, devices, optimizers
from pixel_cnn_pp.runs.trainer import Trainer


def cpu_strategy():
    return devices.make_strategy(0)


@pytest.fixture(scope="module", params=sorted(specimens.RECORDED))
def five_steps(request):
    """The five recorded steps of a case, done by a Trainer from the recorded start."""
    case = request.param
    start = specimens.golden(f"{case}_start.npz")
    settings = TrainingConfig(optimizer="adam", batch_size=8)
    run = RunConfig(specimens.RECORDED[case], RUN.data, settings)
    trainer = Trainer(run, cpu_strategy())
    variables = tf1_import.release_variables(trainer.model)
    for name, variable in variables.items():
        variable.assign(start.get(f"init1/{name}", start[f"init0/{name}"]))
    averages_by_path = {
        weight.path: average
        for weight, average in zip(
            trainer.model.trainable_variables,
            checkpoints.averages(trainer.model, trainer.optimizer),
            strict=True,
        )
    }
    losses, weights, averages = [], [], []
    for number in range(5):
        labels = start["y_train"][number] if "y_train" in start else None
        losses.append(trainer.train_step(start["x_train_u8"][number], labels).bits_per_dim)
        weights.append({name: value_of(weight) for name, weight in variables.items()})
        averages.append(
            {name: value_of(averages_by_path[weight.path]) for name, weight in variables.items()}
        )
    return types.SimpleNamespace(
        recorded={**start, **specimens.golden(f"{case}_after.npz")},
        noise=specimens.golden(f"{case}.json")["max_abs_vs_float64"],
        trainer=trainer,
        losses=losses,
        weights=weights,
        averages=averages,
    )


def test_five_adam_steps_reproduce_the_recorded_losses(five_steps):
    np.testing.assert_allclose(five_steps.losses, five_steps.recorded["train_bpd"], rtol=1e-4)


def test_five_adam_steps_reproduce_the_recorded_parameters(five_steps):
    error = np.concatenate(
        [
            np.abs(weight - five_steps.recorded[f"after/{name}"]).ravel()
            for name, weight in five_steps.weights[-1].items()
        ]
    )
    # Adam makes a whole step of a gradient near zero, so single parameters differ between equally
    # right runs: we compare quantiles, with three times the recorded noise of float32.
    for quantile, noise in five_steps.noise["after_quantiles"].items():
        assert np.quantile(error, float(quantile)) < 3 * noise, quantile


def test_the_averages_follow_the_recurrence_of_keras_exactly(five_steps):
    momentum = np.float32(0.9995)
    expected = five_steps.weights[0]  # the first step sets them
    for weights, averages in zip(five_steps.weights, five_steps.averages, strict=True):
        if averages is not five_steps.averages[0]:
            expected = {
                name: momentum * expected[name] + (np.float32(1) - momentum) * weight
                for name, weight in weights.items()
            }
        for name, average in averages.items():
            np.testing.assert_array_equal(average, expected[name])


@pytest.mark.parametrize("five_steps", ["init_train_cond"], indirect=True)
def test_five_adam_steps_end_in_the_moments_of_the_recorded_checkpoint(five_steps):
    checkpoint = tf1_import.ReleaseCheckpoint(specimens.GOLDEN / "init_train_cond.ckpt")
    model = specimens.fresh(specimens.RECORDED["init_train_cond"])
    optimizer = optimizers.make_optimizer(TrainingConfig(optimizer="adam"))
    optimizer.build(model.trainable_variables)
    checkpoint.load_optimizer(model, optimizer)
    assert int(optimizer.iterations) == five_steps.trainer.step == 5
    errors = []
    for slot, ours in zip(optimizer.variables, five_steps.trainer.optimizer.variables, strict=True):
        if slot.name.endswith(("_momentum", "_velocity")):
            recorded = value_of(slot)
            errors.append(np.abs(value_of(ours) - recorded).max() / np.abs(recorded).max())
    assert len(errors) == 2 * len(model.trainable_variables)
    # The release approximates the likelihood of 3 % of the bins, so that its gradients, and with
    # them the moments, are up to 1.4 % of the largest away from ours. Those of another variable, or
    # the other moment of the same one, are off by all of it.
    assert max(errors) < 0.05


def test_the_trainer_knows_its_step_and_its_next_learning_rate(five_steps):
    assert five_steps.trainer.step == 5
    expected = 0.001 * 0.999995**6
    assert five_steps.trainer.learning_rate == pytest.approx(expected, rel=2e-7)  # float32


@pytest.fixture(scope="module")
def eight_steps():
    """Function (options of the training) -> the trainer, and its results on one batch."""
    images = np.random.default_rng(0).integers(0, 4, (8, 8, 4, 1)).astype(np.uint8)
    model = ModelConfig(
        image_shape=(8, 4, 1),
        num_levels=4,
        nr_resnet=2,
        receptive_field="11x5",
        nr_filters=1,
        nr_logistic_mix=1,
    )
    strategy = cpu_strategy()

    def train(**options):
        settings = TrainingConfig(batch_size=8, learning_rate=0.01, **options)
        trainer = Trainer(RunConfig(model, RUN.data, settings), strategy)
        trainer.initialize(images, None)
        return trainer, [trainer.train_step(images) for _ in range(8)]

    return train


@pytest.fixture(scope="module")
def in_float32(eight_steps):
    return eight_steps()


def test_bfloat16_trains_weights_that_stay_in_float32(eight_steps, in_float32):
    trainer, results = eight_steps(dtype="mixed_bfloat16")
    assert trainer.model.compute_dtype == "bfloat16"
    for variable in [*trainer.model.weights, *trainer.optimizer.variables]:
        assert variable.dtype in ("float32", "int64", "int32")
    losses = [result.bits_per_dim for result in results]
    assert losses[-1] < losses[0]
    # bfloat16 has 8 bits, 4e-3: it is another computation, of the same loss.
    expected = [result.bits_per_dim for result in in_float32[1]]
    assert losses != expected
    np.testing.assert_allclose(losses, expected, rtol=0.05)
