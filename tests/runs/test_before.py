"""Runs and SavedModels of the version before are read; tests/before/README.md has what they are."""

import json
import pathlib
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from short_run import scalars

from pixel_cnn_pp import config, data, sampling
from pixel_cnn_pp.runs import checkpoints, devices, loop

BEFORE = pathlib.Path(__file__).parents[1] / "before"
LABELS, SEED = [3, 1, 4, 1], 7


def unpacked(name, folder):
    with zipfile.ZipFile(BEFORE / f"{name}.zip") as file:
        file.extractall(folder)
    return folder / name


@pytest.fixture(scope="module")
def run_before(tmp_path_factory):
    """The directory of the run; a test that changes it comes last."""
    return unpacked("run", tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def model_before(run_before):
    return checkpoints.load(run_before)


@pytest.fixture(scope="module")
def drawn_before():
    with np.load(BEFORE / "drawn.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("method", ["cached", "naive"])
def test_a_run_of_before_draws_the_same_images(method, model_before, drawn_before):
    images = sampling.sample(model_before, len(LABELS), LABELS, SEED, method=method)
    np.testing.assert_array_equal(images, drawn_before["averages"], strict=True)


def test_a_run_of_before_has_its_weights_and_its_averages(run_before, model_before):
    folder = checkpoints.latest(run_before)
    raw = checkpoints.load(run_before, "raw")
    for model, name in ((model_before, "averages"), (raw, "weights")):
        with np.load(folder / f"{name}.npz") as arrays:
            found = {weight.path.partition("/")[2]: np.asarray(weight) for weight in model.weights}
            assert found.keys() == set(arrays.files)
            for key, value in found.items():
                np.testing.assert_array_equal(value, arrays[key])


def test_a_saved_model_of_before_is_read_and_draws_the_same_images(tmp_path, drawn_before):
    signatures = tf.saved_model.load(unpacked("saved_model", tmp_path)).signatures
    labels = tf.constant(LABELS)
    drawn = signatures["sample"](labels=labels, num_samples=tf.constant(4), seed=tf.constant(SEED))
    np.testing.assert_array_equal(drawn["images"], drawn_before["saved_model"], strict=True)
    scores = signatures["log_prob"](images=drawn["images"], labels=labels)["bits_per_dim"]
    # float32: sums of 64 terms.
    np.testing.assert_allclose(scores, drawn_before["saved_model_bits_per_dim"], rtol=6e-6)


def test_a_run_of_before_goes_on_with_the_same_losses(run_before, monkeypatch):
    expected = json.loads((BEFORE / "losses.json").read_text())
    changes = {"load_params": True, "save_dir": str(run_before)}
    run = config.resume(checkpoints.load_config(run_before), changes)
    train_data, test_data = (
        data.load_split(run.data, split, log=str) for split in ("train", "test")
    )
    results, lines = [], []

    def kept(*arguments, train_step=loop.Trainer.train_step, **options):
        results.append(train_step(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(loop.Trainer, "train_step", kept)
    loop.train(run, train_data, test_data, devices.make_strategy(0), lines.append)
    assert lines[1] == "Resumed from epoch 1 and 80 images, step 17."
    # Of the same machine to the last bit; of others to the rounding of float32, which Adamax
    # makes larger from step to step.
    losses = [result.bits_per_dim for result in results]
    np.testing.assert_allclose(losses, expected["steps"], rtol=1e-5)
    norms = [result.gradient_norm for result in results]
    np.testing.assert_allclose(norms, expected["gradient_norms"], rtol=1e-3)
    found = scalars(run_before)
    for name in ("train", "test"):
        assert found[f"{name}/bits_per_dim"][24] == pytest.approx(expected[name], rel=1e-5)
    assert lines[2].startswith(expected["line"].partition("  608 images/s")[0])
