import dataclasses
import os
import re
import types

import numpy as np
import pytest
import release
import specimens
from release import (
    RECORDED_FILES,
    TINY,
    assert_same,
    averages_of,
    fresh_pair,
    named_weights,
    one_line,
    without,
)

import pixel_cnn_pp as pcnn
from pixel_cnn_pp import models, tf1_import
from pixel_cnn_pp.config import DataConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints
from pixel_cnn_pp.tf1_import import ReleaseCheckpoint


def imported(path, run_dir, **given):
    """What an import leaves behind, and what it says."""
    checkpoint = ReleaseCheckpoint(path)
    lines = []
    config = checkpoint.config(image_shape=TINY.image_shape, **given)
    data_config = DataConfig(data_set="photos", image_size=8)
    tf1_import.import_run(checkpoint, run_dir, config, data_config, lines.append)
    model, optimizer = fresh_pair(config)
    state = checkpoints.restore(run_dir, model, optimizer)
    slots = {variable.name: np.asarray(variable) for variable in optimizer.variables}
    return types.SimpleNamespace(
        state=state,
        lines=lines,
        weights=named_weights(model),
        averages={
            name: slots[f"{variable.path.replace('/', '_')}_average"]
            for name, variable in tf1_import.release_variables(model).items()
        },
        moments=[
            slots[f"{variable.path.replace('/', '_')}_{kind}"]
            for variable in tf1_import.release_variables(model).values()
            for kind in ("velocity", "momentum")
        ],
        iterations=int(optimizer.iterations),
    )


def test_a_run_has_the_weights_the_averages_and_the_moments_of_the_checkpoint(
    tiny_checkpoint, tiny_variables, tmp_path
):
    run_dir = tmp_path / "new" / "run"
    run = imported(tiny_checkpoint, run_dir, dropout_p=0.25)
    assert_same(run.weights, {name: tiny_variables[name] for name in run.weights})
    assert_same(run.averages, averages_of(tiny_variables))
    # Two vectors of labels and the step stand before the moments.
    assert len(run.moments) == 2 * len(run.weights)
    for number, moment in enumerate(run.moments, start=3):
        np.testing.assert_array_equal(moment, tiny_variables[f"Variable_{number}"])
    assert run.iterations == release.STEP
    assert run.state == checkpoints.TrainingState(step=release.STEP, epoch=0)

    stored = checkpoints.load_config(run_dir)
    assert stored.model == dataclasses.replace(TINY, dropout_p=0.25)
    assert stored.data == DataConfig(data_set="photos", image_size=8)
    assert stored.training == TrainingConfig(
        save_dir=str(run_dir), optimizer="adam", class_conditional=True
    )
    for weights, expected in (("ema", run.averages), ("raw", run.weights)):
        assert_same(named_weights(pcnn.load(run_dir, weights)), expected)
    network, adam, written = run.lines
    assert network.endswith(
        "1 blocks a stage, 4 filters, 2 components, concat_elu, 3 classes; taken to be for 8x12x3 "
        "images of 256 levels, trained with dropout 0.25"
    )
    # 0.001 * 0.999995^8
    assert adam == "Optimizer: Adam with its moments, 7 steps done, next learning rate 0.001."
    assert written == f"Wrote {run_dir}, a run on photos at epoch 0."


def test_without_classes_the_first_variable_without_a_name_is_the_step(pretend, tmp_path):
    model = specimens.build("relu")
    unnamed = release.unnamed_variables(model)
    path = pretend(release.network_variables(model) | unnamed)
    run = imported(path, tmp_path, resnet_nonlinearity="relu")
    assert run.iterations == release.STEP
    for number, moment in enumerate(run.moments, start=1):
        np.testing.assert_array_equal(moment, unnamed[f"Variable_{number}"])


def test_without_moments_the_averages_last_beyond_the_first_step(pretend, tiny, tmp_path):
    variables = release.network_variables(tiny)
    run = imported(pretend(variables), tmp_path)
    assert_same(run.averages, averages_of(variables))
    assert all((moment == 0).all() for moment in run.moments)
    # At step 0, Keras replaces the averages by the weights.
    assert run.iterations == run.state.step == 1
    assert run.lines[1] == "Optimizer: Adam starts anew, the checkpoint holds no moments."


def test_without_averages_the_raw_weights_stand_in_for_them(pretend, tiny, tmp_path):
    weights = named_weights(tiny)
    run = imported(pretend(weights), tmp_path)
    assert_same(run.averages, weights)
    assert run.iterations == run.state.step == 0
    assert run.lines[1].startswith("Averages: none in the checkpoint, the raw weights stand in ")


@pytest.mark.parametrize("change", ["one is missing", "one more", "another shape", "no step"])
def test_variables_without_a_name_that_are_not_adams_let_it_start_anew(
    change, pretend, tiny_variables
):
    variables = {
        "one is missing": without(tiny_variables, "Variable_9"),
        "one more": tiny_variables | {"Variable_9999": np.float32(1)},
        "another shape": tiny_variables | {"Variable_9": np.zeros(77, "float32")},
        "no step": without(tiny_variables, "Variable_2"),
    }[change]
    checkpoint = ReleaseCheckpoint(pretend(variables))
    assert re.fullmatch(
        r"the \d+ variables without a name in the checkpoint are not those of the release's Adam",
        checkpoint.why_no_moments,
    )
    assert checkpoint.num_steps == 1


def test_moments_that_are_not_finite_are_refused_and_can_be_left_out(
    pretend, tiny_variables, tmp_path
):
    path = pretend(tiny_variables | {"Variable_2": np.float32(np.nan)})
    with pytest.raises(ValueError, match="with 1 of 1 not finite in Variable_2"):
        imported(path, tmp_path / "new" / "run")
    assert os.listdir(tmp_path) == []
    assert ReleaseCheckpoint(path, ignore=["Variable*"]).num_steps == 1


def test_a_directory_that_holds_a_run_is_left_alone(tmp_path):
    checkpoint = ReleaseCheckpoint(RECORDED_FILES["V2"])
    (tmp_path / "config.json").write_text("kept")
    with pytest.raises(
        ValueError, match=f"{tmp_path} holds a run already: choose another"
    ) as caught:
        tf1_import.import_run(checkpoint, tmp_path, checkpoint.config(), DataConfig())
    one_line(caught)
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_directory_that_cannot_be_written_is_reported_before_the_work(tmp_path, monkeypatch):
    checkpoint = ReleaseCheckpoint(RECORDED_FILES["V2"])
    monkeypatch.setattr(models, "make", None)
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x"
    with pytest.raises(NotADirectoryError, match=rf"Received: {path}, {tmp_path}/file is a file$"):
        tf1_import.import_run(checkpoint, path, checkpoint.config(), DataConfig())
