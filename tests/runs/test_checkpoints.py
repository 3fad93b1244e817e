import dataclasses
import errno
import json
import os
import shutil

import numpy as np
import pytest
from saved_run import (
    RUN,
    STATE,
    assert_all_equal,
    files_of,
    trained,
    value_of,
    values,
)

from pixel_cnn_pp import layers
from pixel_cnn_pp.config import DataConfig
from pixel_cnn_pp.runs import checkpoints

IMAGES = np.random.default_rng(8).integers(0, 5, (6, 4, 8, 1)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 2, 0, 1], np.int32)


def test_a_configuration_comes_back_as_it_was_saved(tmp_path):
    changed = dataclasses.replace(RUN.training, seed=7, learning_rate=1e-5, load_params=True)
    run = dataclasses.replace(RUN, training=changed)
    checkpoints.save_config(tmp_path / "new" / "run", run)
    assert checkpoints.load_config(tmp_path / "new" / "run") == run


def test_a_configuration_that_cannot_be_written_leaves_the_old_one(run_dir, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    changed = dataclasses.replace(RUN, data=DataConfig(data_set="photos"))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        checkpoints.save_config(run_dir, changed)
    assert checkpoints.load_config(run_dir) == RUN


def test_the_raw_weights_come_back_bit_for_bit(pair, saved_run):
    model = checkpoints.load(saved_run, weights="raw")
    assert_all_equal(values(model.weights), values(pair[0].weights))


def test_the_averaged_weights_come_back_bit_for_bit_and_are_the_default(pair, saved_run):
    model, optimizer = pair
    averages = values(checkpoints.averages(model, optimizer))
    assert_all_equal(values(checkpoints.load(saved_run).weights), averages)
    for average, weight in zip(averages, values(model.weights), strict=True):
        assert (average != weight).all()


def test_averages_stand_in_the_order_of_the_weights(pair):
    model, optimizer = pair
    for weight, average in zip(
        model.trainable_variables, checkpoints.averages(model, optimizer), strict=True
    ):
        assert average.path.endswith(weight.path.replace("/", "_") + "_average")


@pytest.mark.parametrize("weights", ["EMA", "averaged", "", None])
def test_another_word_for_the_weights_is_refused(saved_run, weights):
    message = f"`weights` must be one of ema, raw. Received: weights={weights!r}"
    with pytest.raises(ValueError, match=message):
        checkpoints.load(saved_run, weights=weights)


def test_restoring_brings_back_weights_averages_slots_and_step(pair, other_pair, saved_run):
    model, optimizer = other_pair
    expected = values(pair[0].weights), values(pair[1].variables)
    for variable, value in zip(optimizer.variables, expected[1], strict=True):
        assert (value_of(variable) != value).all()
    assert checkpoints.restore(saved_run, model, optimizer) == STATE
    assert_all_equal(values(model.weights), expected[0])
    assert_all_equal(values(optimizer.variables), expected[1])


def test_names_in_a_checkpoint_do_not_depend_on_the_models_made_before(tmp_path):
    names = []
    for number in range(2):
        run_dir = tmp_path / str(number)
        checkpoint = checkpoints.save(run_dir, *trained(seed=number), STATE)
        names.append({path.name: np.load(path).files for path in checkpoint.glob("*.npz")})
    assert names[0] == names[1]
    assert names[0].keys() == {"weights.npz", "averages.npz", "optimizer.npz"}
    assert names[0]["weights.npz"][:3] == ["input_above/v", "input_above/g", "input_above/b"]
    assert names[0]["averages.npz"] == names[0]["weights.npz"]
    assert all("pixel_cnn" not in name for name in names[0]["optimizer.npz"])


def test_a_fresh_process_without_the_training_module_gives_the_same_outputs(
    saved_run, tmp_path, run_python
):
    model = checkpoints.load(saved_run)
    # There it is the first model of its process: the names in the files must not tell the two.
    assert model.name != "pixel_cnnpp"
    code = """
import sys
import numpy as np
import pixel_cnn_pp
run_dir, data, out = sys.argv[1:]
model, data = pixel_cnn_pp.load(run_dir), np.load(data)
inputs = data["images"], data["labels"]
np.savez(out, raw_params=model(*inputs), log_prob=model.log_prob(*inputs))
assert model.name == "pixel_cnnpp"
assert "pixel_cnn_pp.training" not in sys.modules
"""
    np.savez(tmp_path / "data.npz", images=IMAGES, labels=LABELS)
    run_python(code, saved_run, tmp_path / "data.npz", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["raw_params"], value_of(model(IMAGES, LABELS)))
        np.testing.assert_array_equal(found["log_prob"], value_of(model.log_prob(IMAGES, LABELS)))


def test_a_loaded_model_survives_other_data(pair, saved_run, monkeypatch):
    def initialize(*_):
        raise AssertionError("a loaded model is initialised")

    monkeypatch.setattr(layers, "initialize", initialize)
    model = checkpoints.load(saved_run, "raw")
    expected = value_of(pair[0](IMAGES, LABELS))
    model(np.full((3, 8, 4, 1), 4, np.uint8), np.array([2, 2, 2]), training=True)
    np.testing.assert_array_equal(model(IMAGES, LABELS), expected)
    assert_all_equal(values(model.weights), values(pair[0].weights))


class FullDisk:
    """Stands in for `np.savez`: writes half a file and fails, at its n-th call."""

    def __init__(self, number):
        self.calls_left = number
        self.savez = np.savez

    def __call__(self, file, **arrays):
        self.calls_left -= 1
        if self.calls_left:
            return self.savez(file, **arrays)
        self.savez(file, **arrays)
        file.truncate(file.tell() // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("number", [1, 2, 3], ids=["weights", "averages", "slots"])
def test_a_checkpoint_that_the_disk_cannot_hold_leaves_the_one_before_it(
    number, pair, other_pair, run_dir, monkeypatch
):
    before = files_of(run_dir)
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", FullDisk(number))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            checkpoints.save(run_dir, *pair, checkpoints.TrainingState(step=31, epoch=6))
    assert files_of(run_dir) == before
    assert len(os.listdir(run_dir / "checkpoints")) == 1
    assert checkpoints.latest(run_dir).name == "step_000000000030"
    assert checkpoints.restore(run_dir, *other_pair) == STATE

    later = checkpoints.TrainingState(step=32, epoch=6)
    checkpoint = checkpoints.save(run_dir, *pair, later)
    assert checkpoint == checkpoints.latest(run_dir)
    assert sorted(os.listdir(checkpoint.parent)) == ["step_000000000030", "step_000000000032"]
    assert checkpoints.restore(run_dir, *other_pair) == later


def test_a_checkpoint_that_never_got_its_name_is_not_loaded(run_dir, other_pair):
    folder = run_dir / "checkpoints"
    (complete,) = folder.iterdir()
    shutil.copytree(complete, folder / ".incomplete_step_000000000031")
    assert checkpoints.latest(run_dir) == complete
    assert checkpoints.restore(run_dir, *other_pair) == STATE
    complete.rename(folder / ".incomplete_step_000000000030")
    assert checkpoints.latest(run_dir) is None
    with pytest.raises(ValueError, match="must hold a checkpoint"):
        checkpoints.load(run_dir)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_refused_and_nothing_is_written(value, other_pair, run_dir):
    model, optimizer = other_pair
    bias = model.output_layer.b
    kept = value_of(bias)
    changed = kept.copy()
    changed[1] = value
    bias.assign(changed)
    before = files_of(run_dir)
    try:
        with pytest.raises(FloatingPointError, match="not finite at step 31: output/b"):
            checkpoints.save(run_dir, model, optimizer, checkpoints.TrainingState(31, 6))
    finally:
        bias.assign(kept)
    assert files_of(run_dir) == before


def test_averages_that_are_not_finite_are_refused_too(other_pair, run_dir):
    model, optimizer = other_pair
    average = checkpoints.averages(model, optimizer)[-1]
    kept = value_of(average)
    average.assign(np.full_like(kept, np.nan))
    with pytest.raises(FloatingPointError, match="The averages are not finite at step 31: output"):
        checkpoints.save(run_dir, model, optimizer, checkpoints.TrainingState(31, 6))
    average.assign(kept)


def test_what_only_looks_like_a_checkpoint_is_none(pair, run_dir):
    folder = run_dir / "checkpoints"
    shutil.copytree(folder / "step_000000000030", folder / "step_backup")
    (folder / "step_000000000099").write_text("a file")
    assert checkpoints.latest(run_dir).name == "step_000000000030"
    checkpoints.save(run_dir, *pair, checkpoints.TrainingState(31, 6), keep=1)
    assert {"step_backup", "step_000000000031"} < set(os.listdir(folder))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_of_the_newest_checkpoints_stay_as_are_asked_for(keep, pair, tmp_path):
    steps = (9, 10, 100, 101)
    for step in steps:
        state = checkpoints.TrainingState(step=step, epoch=1)
        checkpoints.save(tmp_path, *pair, state, keep=keep)
        assert checkpoints.latest(tmp_path).name == f"step_{step:012d}"
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [
        f"step_{step:012d}" for step in steps[-keep:]
    ]


def test_two_checkpoints_stay_where_no_number_is_asked_for(pair, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, *pair, checkpoints.TrainingState(step=step, epoch=1))
    assert len(os.listdir(tmp_path / "checkpoints")) == 2


def test_where_training_stood_within_an_epoch_comes_back_exactly(pair, other_pair, tmp_path):
    # A third has no end in binary: it must come back with all of its digits.
    state = checkpoints.TrainingState(step=31, epoch=5, num_images=640, image_loss_sum=1 / 3)
    checkpoints.save(tmp_path, *pair, state)
    assert checkpoints.restore(tmp_path, *other_pair) == state


def test_a_checkpoint_from_before_there_were_any_within_an_epoch_is_read(run_dir, other_pair):
    path = checkpoints.latest(run_dir) / "state.json"
    values = json.loads(path.read_text())
    del values["num_images"], values["image_loss_sum"]
    path.write_text(json.dumps(values))
    assert checkpoints.restore(run_dir, *other_pair) == STATE


@pytest.mark.parametrize(
    ("step", "epoch", "num_images", "batch_size", "expected"),
    [
        # Of epochs of 100 images; five epochs and four steps of 8 images each.
        (5 * 12 + 4, 5, 32, 16, 8),
        (4, 0, 32, 16, 8),
        (5 * 100 + 7, 5, 7, 16, 1),
        # No size of batches leads there: some were of another one.
        (63, 5, 32, 16, 16),
        (64, 5, 0, 16, 0),
    ],
)
def test_losses_that_an_earlier_version_summed_over_steps_become_those_of_images(
    step, epoch, num_images, batch_size, expected, run_dir, other_pair
):
    path = checkpoints.latest(run_dir) / "state.json"
    values = json.loads(path.read_text())
    del values["image_loss_sum"]
    values |= {"step": step, "epoch": epoch, "num_images": num_images}
    path.write_text(json.dumps({**values, "loss_sum": 1.5 if num_images else 0.0}))
    state = checkpoints.restore(run_dir, *other_pair, 100, batch_size)
    assert state == checkpoints.TrainingState(step, epoch, num_images, 1.5 * expected)


def test_where_no_step_was_done_but_an_epoch_ended_that_is_noted(pair, run_dir, other_pair):
    ended = dataclasses.replace(STATE, epoch=6)
    checkpoint = checkpoints.save(run_dir, *pair, ended)
    assert sorted(os.listdir(checkpoint.parent)) == ["step_000000000030"]
    assert checkpoints.restore(run_dir, *other_pair) == ended


def test_a_step_that_is_on_the_disk_already_is_not_written_again(pair, run_dir):
    before = files_of(run_dir)
    checkpoint = checkpoints.save(run_dir, *pair, STATE)
    assert checkpoint == checkpoints.latest(run_dir)
    assert files_of(run_dir) == before


def test_a_directory_that_cannot_be_made_is_an_os_error(pair, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        checkpoints.save_config(tmp_path / "file" / "run", RUN)
    with pytest.raises(NotADirectoryError):
        checkpoints.save(tmp_path / "file" / "run", *pair, STATE)
