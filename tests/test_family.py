"""The numbers, the table and the curves of the family on binarized MNIST."""

import json
import math

import numpy as np
import pytest

from experiments import family, family_results
from pixel_cnn_pp import config
from pixel_cnn_pp.runs import monitoring


def test_every_model_is_a_member_and_all_have_the_same_training():
    assert set(family.MEMBERS) <= set(config.MODELS)
    planned = family.plan(list(family.MEMBERS), 20, "data")
    for run in planned:
        model_class = config.MODELS[run.row]
        network = {name: run.values[name] for name in family.MEMBERS[run.row].values}
        model_class(image_shape=(28, 28, 1), num_levels=2, **network)
        others = {name: run.values[name] for name in family.SHARED}
        config.TrainingConfig(**others, max_minutes=run.values["max_minutes"])
        assert run.values.keys() == {
            *network,
            *others,
            *("kind", "data_set", "data_dir", "max_minutes"),
        }
        assert f"--model={run.row}" in run.flags() and run.more_flags() == ["--max_minutes=20"]


def result(nats, curve, **values):
    return family_results.Result(
        nats, 0.26, 10000, 12345, 20.04, 3.25, 370.2, 0.0217, curve, {}, np.zeros((2, 4, 4, 1), int)
    )._replace(**values)


def test_the_table_says_what_was_reached_and_whether_it_still_fell():
    text = family_results.markdown(
        {"pixel_cnn": result(82.126, {10.0: 84.5, 20.0: 82.126}), "row_lstm": result(90, {})}
    )
    assert (
        "| PixelCNN | 82.13 +- 0.26 | 81.30 | 12,345 | 20.0 | 3.2 | 370 | 2.17 "
        "| -2.37 in 10.0 min |"
    ) in text
    assert "| Row LSTM | 90.00 +- 0.26 |  | 12,345 | 20.0 | 3.2 | 370 | 2.17 |  |" in text
    assert "over 10,000 test images" in text
    assert "- **PixelCNN**: nr_resnet 7, nr_filters 32, nr_output_filters 32. " in text


def test_curves_are_of_nats_against_minutes():
    finished = {
        "pixel_cnn": result(82, {20.0: 82.0, 10.0: 84.0}),
        "row_lstm": result(90, {}, train_curve={1.0: 99.0}),
    }
    test, train = family_results.curves(finished)
    assert test[1:] == ("minutes of training", "nats", {"PixelCNN": ([10.0, 20.0], [[84.0, 82.0]])})
    assert train[3] == {"Row LSTM": ([1.0], [[99.0]])}


@pytest.fixture
def run_dir(tmp_path):
    """A run of 40 steps of 8 images: what its directory holds, without its weights."""
    run = config.RunConfig(
        config.PixelCNNConfig(image_shape=(4, 4, 1), num_levels=2),
        config.DataConfig("binarized_mnist"),
        config.TrainingConfig(str(tmp_path), batch_size=8, num_samples=0),
    )
    (tmp_path / "config.json").write_text(config.to_json(run))
    checkpoint = tmp_path / "checkpoints" / "step_000000000040"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text(json.dumps({"step": 40, "epoch": 1, "seconds": 240.0}))
    np.savez(checkpoint / "averages.npz", a=np.zeros((3, 4)), b=np.zeros(5))
    np.savez(tmp_path / "scores.npz", nats=np.array([3.0, 4.0, 5.0]))  # after the last step
    (tmp_path / "samples").mkdir()
    np.savez(tmp_path / "samples" / "drawn.npz", images=np.zeros((2, 4, 4, 1), np.uint8))
    (tmp_path / "sample.log").write_text("1.00 images/s, 1 s\nWrote: 50.00 images/s, 0.020 s/image")
    with monitoring.Monitor(run) as monitor:
        for step in range(5, 41, 5):
            monitor.write_scalars({"step/bits_per_dim": float(step)}, step)
        monitor.write_scalars(
            {"test/bits_per_dim": 2.0, "training_minutes": 3.0, "seconds_per_step": 5.0}, 30
        )
    return tmp_path


def test_a_run_is_read_in_nats_minutes_and_epochs(run_dir, monkeypatch):
    monkeypatch.setattr(family_results, "_NUM_AVERAGED", 4)
    found = family_results.read(run_dir, num_train_images=240)
    # Of 3, 4, 5: deviation 1.
    assert (found.nats, found.standard_error) == (4.0, pytest.approx(1 / math.sqrt(3)))
    assert (found.num_images, found.num_parameters) == (3, 17)
    # 40 steps in 240 s, of epochs of 30 steps.
    assert (found.minutes, found.epochs) == (4.0, pytest.approx(40 / 30))
    assert found.seconds_per_epoch == pytest.approx(180.0)
    assert found.seconds_per_sample == pytest.approx(0.02)
    bits = 16 * math.log(2)
    assert found.test_curve == pytest.approx({3.0: 2 * bits, 4.0: 4.0})
    # Means of the points at 5 to 20 and 25 to 40 steps; the first half of 30 steps is 2 minutes.
    assert found.train_curve == pytest.approx({2.0: 12.5 * bits, 4.0: 32.5 * bits})


def test_a_run_of_an_earlier_version_has_the_minutes_of_its_steps(run_dir):
    state = run_dir / "checkpoints" / "step_000000000040" / "state.json"
    state.write_text(json.dumps({"step": 40, "epoch": 1}))
    scalars = {"seconds_per_step": {30: 6.0, 60: 3.0}}
    assert family_results._minutes(scalars, {"step": 60}) == {0: 0.0, 30: 3.0, 60: 4.5}
