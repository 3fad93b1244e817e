import dataclasses
import json

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
from pixel_cnn_pp.runs import checkpoints


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
    "text", ["", '{"step": 1', "{}", '{"model": {}}', '{"step": 1, "epoch": 1, "model": {"a": 1}}']
)
def test_a_damaged_state_is_named_in_one_line(text, run_dir, other_pair):
    path = checkpoints.latest(run_dir) / "state.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"A checkpoint must be whole. Received: {path}") as caught:
        checkpoints.restore(run_dir, *other_pair)
    assert_one_line(caught)


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


def test_a_damaged_configuration_is_one_line(run_dir):
    (run_dir / "config.json").write_text('{"model":\n')
    with pytest.raises(ValueError, match="A configuration must be JSON") as caught:
        checkpoints.load(run_dir)
    assert_one_line(caught)


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
