import dataclasses
import json
import math

import keras
import numpy as np
import pytest
from saved_run import (
    RUN,
    TINY,
    assert_all_equal,
    assert_one_line,
    trained,
    values,
)

from pixel_cnn_pp.config import PixelCNNConfig
from pixel_cnn_pp.runs import checkpoints, stored


def damage(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif how == "other":
        path.write_bytes(b"something else")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "empty", "flipped bit", "other", "missing"])
@pytest.mark.parametrize("name", ["weights.npz", "averages.npz", "optimizer.npz"])
def test_a_damaged_file_is_named_in_one_line(name, how, run_dir, other_pair):
    path = checkpoints.latest(run_dir) / name
    damage(path, how)
    with pytest.raises(ValueError, match=f"A checkpoint must be whole. Received: {path}") as caught:
        checkpoints.restore(run_dir, *other_pair)
    assert_one_line(caught)


@pytest.mark.parametrize(("weights", "name"), [("ema", "averages.npz"), ("raw", "weights.npz")])
def test_a_model_is_not_loaded_from_a_damaged_file(weights, name, run_dir):
    path = checkpoints.latest(run_dir) / name
    damage(path, "cut")
    with pytest.raises(ValueError, match=f"A checkpoint must be whole. Received: {path}"):
        checkpoints.load(run_dir, weights)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"step": 1',
        "{}",
        "null",
        "7",
        '{"model": {}}',
        '{"step": 1, "epoch": 1, "model": {"a": 1}}',
        "[" * 100_000,
        *(
            json.dumps({"step": 1, "epoch": 1, **wrong, "model": dataclasses.asdict(TINY)})
            for wrong in (
                {"step": "many"},
                {"epoch": 1.5},
                {"num_images": -1},
                {"image_loss_sum": math.nan},
                {"image_loss_sum": None},
            )
        ),
    ],
)
def test_a_damaged_state_is_named_in_one_line(text, run_dir, other_pair):
    path = checkpoints.latest(run_dir) / "state.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"A checkpoint must be whole. Received: {path}") as caught:
        checkpoints.restore(run_dir, *other_pair)
    assert_one_line(caught)


def test_of_a_damaged_checkpoint_the_message_names_an_older_one_that_is_whole(
    pair, run_dir, other_pair
):
    folder = run_dir / "checkpoints"
    for step in (31, 32):
        checkpoints.save(run_dir, *pair, checkpoints.TrainingState(step, 5), keep=3)
        damage(folder / f"step_{step:012d}" / "weights.npz", "cut")
    (folder / "step_backup").mkdir()  # nor is this one a checkpoint
    message = f"; step_000000000030 is whole: remove {folder}/step_000000000032 to go back to it"
    for read in (
        lambda: checkpoints.restore(run_dir, *other_pair),
        lambda: checkpoints.load(run_dir, "raw"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            read()
        assert_one_line(caught)


def test_a_checkpoint_that_is_removed_while_it_is_read_gives_way_to_the_newer_one(
    pair, run_dir, monkeypatch
):
    read_state = stored.read_state

    def remove_first(path):
        monkeypatch.setattr(stored, "read_state", read_state)
        checkpoints.save(run_dir, *pair, checkpoints.TrainingState(31, 6), keep=1)
        return read_state(path)

    monkeypatch.setattr(stored, "read_state", remove_first)
    checkpoints.load(run_dir)
    assert checkpoints.latest(run_dir).name == "step_000000000031"


def test_weights_that_are_not_finite_are_not_loaded(run_dir):
    path = checkpoints.latest(run_dir) / "averages.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["output/b"][1] = np.nan
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"averages.npz \(output/b is not finite\)"):
        checkpoints.load(run_dir)
    checkpoints.load(run_dir, "raw")


def test_a_directory_without_a_run_is_named(tmp_path):
    message = f"must hold a config.json. Received: {tmp_path} "
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path)
    with pytest.raises(ValueError, match=message):
        checkpoints.load_config(tmp_path)


def test_a_directory_without_a_checkpoint_is_named(tmp_path, other_pair):
    checkpoints.save_config(tmp_path, RUN)
    assert checkpoints.latest(tmp_path) is None
    message = f"must hold a checkpoint. Received: {tmp_path} "
    with pytest.raises(ValueError, match=message):
        checkpoints.load(tmp_path)
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(tmp_path, *other_pair)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"model":\n', "A configuration must be JSON"),
        (b"\xff\xfe", "A configuration must be JSON"),
        (b'{"model":' * 100_000, "A configuration must be JSON"),
        (b'{"model": 0, "data": 0, "training": ' + b"9" * 5000 + b"}", "A configuration must be"),
        (b"[" * 900 + b"]" * 900, "A configuration must be a JSON object"),
        (b"null", "A configuration must be a JSON object"),
    ],
)
def test_a_damaged_configuration_is_one_short_line_that_names_its_file(content, message, run_dir):
    (run_dir / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.load(run_dir)
    assert_one_line(caught)
    assert str(run_dir / "config.json") in str(caught.value) and len(str(caught.value)) < 600


def test_sizes_that_no_memory_holds_are_refused_before_the_model_is_made(run_dir):
    path = run_dir / "config.json"
    path.write_text(path.read_text().replace('"nr_filters": 4', '"nr_filters": 4000000000'))
    with pytest.raises(ValueError, match="nr_filters: 4 != 4000000000"):
        checkpoints.load(run_dir)


def test_a_checkpoint_of_another_configuration_names_the_fields_that_differ(run_dir):
    other = dataclasses.replace(TINY, nr_filters=6, num_levels=7)
    message = (
        r"Received: .*step_000000000030 with num_levels: 5 != 7, nr_filters: 4 != 6 "
        r"\(checkpoint != model\)"
    )
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.restore(run_dir, *trained(seed=3, config=other))
    assert_one_line(caught)
    checkpoints.save_config(run_dir, dataclasses.replace(RUN, model=other))
    with pytest.raises(ValueError, match=message):
        checkpoints.load(run_dir)


def test_a_checkpoint_of_another_kind_of_model_is_named(run_dir):
    path = checkpoints.latest(run_dir) / "state.json"
    values = json.loads(path.read_text())
    other = PixelCNNConfig(TINY.image_shape, TINY.num_levels)
    path.write_text(json.dumps({**values, "model": dataclasses.asdict(other)}))
    message = r"with kind: 'pixel_cnn' != 'pixel_cnn_pp' \(checkpoint != model\)"
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.load(run_dir)
    assert_one_line(caught)


def test_slots_of_another_optimizer_are_refused(saved_run, other_pair):
    model, _ = other_pair
    other = keras.optimizers.Adam(use_ema=True)
    other.build(model.trainable_variables)
    message = r"must hold the model's variables. Received: .*optimizer.npz \(.*nothing in the .*\)"
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.restore(saved_run, model, other)
    assert_one_line(caught)


def test_arrays_of_another_shape_are_refused_and_nothing_is_set(run_dir, other_pair):
    path = checkpoints.latest(run_dir) / "weights.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["output/b"] = arrays["output/b"][:-1]
    np.savez(path, **arrays)
    model, optimizer = other_pair
    model.output_layer.b.assign(model.output_layer.b + 1)
    before = values(model.weights)
    message = r"Received: .*weights.npz \(output/b: \(5,\) in the file, \(6,\) in the model\)"
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(run_dir, model, optimizer)
    assert_all_equal(values(model.weights), before)
