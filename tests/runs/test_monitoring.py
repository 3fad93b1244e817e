import dataclasses
import os
import resource
import shutil
import signal
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.plugins.hparams import plugin_data_pb2

from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import monitoring


@pytest.fixture
def run(tmp_path):
    """A run that writes into a folder of its own."""
    settings = TrainingConfig(save_dir=str(tmp_path / "run"), learning_rate=0.02, recompute=True)
    return RunConfig(ModelConfig(image_shape=(8, 4, 1)), DataConfig(data_set="digits"), settings)


def folder_of(run):
    return f"{run.training.save_dir}/tensorboard"


def profiled(run, profile):
    return dataclasses.replace(run, training=dataclasses.replace(run.training, profile=profile))


def events_of(run):
    """All events of a run, in the order in which they were written."""
    (name,) = [name for name in os.listdir(folder_of(run)) if "tfevents" in name]
    return list(event_file_loader.EventFileLoader(f"{folder_of(run)}/{name}").Load())


def values_of(run):
    """[(tag, step, array)] of what was written."""
    return [
        (value.tag, event.step, tf.make_ndarray(value.tensor))
        for event in events_of(run)
        for value in event.summary.value
        if value.HasField("tensor")
    ]


def test_numbers_are_on_the_disk_at_once(run):
    with monitoring.Monitor(run) as monitor:
        monitor.write_scalars({"train/bits_per_dim": 2.5, "learning_rate": 0.25}, step=7)
        assert values_of(run) == [("train/bits_per_dim", 7, 2.5), ("learning_rate", 7, 0.25)]


def test_a_full_disk_is_told_of_once_and_later_numbers_are_read_back(run, monkeypatch):
    lines, free = [], 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
    with monitoring.Monitor(run, log=lines.append) as monitor:
        monitor.write_scalars({"loss": 4.0}, step=1)
        # Of a file, no byte behind those that it has: of a record, the disk holds a part.
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = os.path.getsize(folder_of(run) + "/" + os.listdir(folder_of(run))[0])
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, limits[1]))
        try:
            for step in (2, 3, 4):
                monitor.write_scalars({"loss": 3.0}, step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        free = 2**30
        monitor.write_scalars({"loss": 2.0}, step=5)
    assert monitoring.read_scalars(run.training.save_dir) == {"loss": {1: 4.0, 5: 2.0}}
    (line,) = lines
    assert line.startswith(f"TensorBoard's files in {folder_of(run)} could not be written (")
    assert line.endswith(". Training goes on.") and "\n" not in line


def test_numbers_are_read_back_over_all_starts_of_a_run(run):
    for numbers in ({2: 5.0, 4: 4.5}, {4: 4.25, 6: 4.0}):  # killed, and begun again behind step 2
        with monitoring.Monitor(run) as monitor:
            for step, number in numbers.items():
                monitor.write_scalars({"test/bits_per_dim": number}, step)
            monitor.write_picture("samples", np.zeros((4, 4, 3), np.uint8), step=3)
    found = monitoring.read_scalars(run.training.save_dir)
    assert found == {"test/bits_per_dim": {2: 5.0, 4: 4.25, 6: 4.0}}
    assert list(found["test/bits_per_dim"]) == [2, 4, 6]


def test_of_a_run_that_has_written_nothing_nothing_is_read(tmp_path):
    assert monitoring.read_scalars(tmp_path) == {}


def test_a_picture_comes_back_as_it_was(run):
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    with monitoring.Monitor(run) as monitor:
        monitor.write_picture("samples", picture, step=3)
    ((tag, step, (width, height, encoded)),) = values_of(run)
    assert (tag, step, int(width), int(height)) == ("samples", 3, 6, 4)
    np.testing.assert_array_equal(tf.io.decode_png(encoded), picture)


def test_hyper_parameters_of_model_data_and_training_are_readable(run):
    with monitoring.Monitor(run) as monitor:
        monitor.write_hyper_parameters(run)
    (value,) = [
        value
        for event in events_of(run)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    ]
    content = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
    found = content.session_start_info.hparams
    names = {
        field.name
        for part in (ModelConfig, DataConfig, TrainingConfig)
        for field in dataclasses.fields(part)
    }
    assert set(found) == names
    assert found["learning_rate"].number_value == 0.02
    assert found["recompute"].bool_value is True
    assert found["optimizer"].string_value == "adamax"
    assert found["image_shape"].string_value == "(8, 4, 1)"
    assert found["num_classes"].string_value == "None"


def test_the_graph_is_written_once(run):
    graph = tf.function(lambda x: 2 * x).get_concrete_function(tf.zeros([3])).graph
    with monitoring.Monitor(run) as monitor:
        monitor.write_graph(graph)
        monitor.write_graph(graph)
    (written,) = [event.graph_def for event in events_of(run) if event.graph_def]
    names = {node.name for node in tf.compat.v1.GraphDef.FromString(written).node}
    assert {"mul", "x"} <= names


def test_a_worker_that_is_not_the_chief_writes_nothing(run):
    with monitoring.Monitor(profiled(run, "1-2"), is_chief=False) as monitor:
        monitor.write_scalars({"train/bits_per_dim": 2.5}, step=7)
        monitor.write_picture("samples", np.zeros((4, 4, 3), np.uint8), step=7)
        monitor.write_hyper_parameters(run)
        monitor.write_graph(tf.Graph())
        for _ in range(3):
            monitor.count_step()
    assert not os.path.exists(run.training.save_dir)


@pytest.fixture
def profiler(monkeypatch):
    """What the profiler was told, in order, with the steps between."""
    told = []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda folder: told.append("start"))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: told.append("stop"))
    return told


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ("2-3", [1, "start", 2, 3, "stop", 4, 5]),
        ("1-1", ["start", 1, "stop", 2, 3, 4, 5]),
        ("4-9", [1, 2, 3, "start", 4, 5, "stop"]),  # training ends within them
        ("6-9", [1, 2, 3, 4, 5]),
        (None, [1, 2, 3, 4, 5]),
    ],
)
def test_exactly_the_steps_asked_for_are_profiled(profile, told, run, profiler):
    with monitoring.Monitor(profiled(run, profile)) as monitor:
        for step in range(1, 6):
            monitor.count_step()
            profiler.append(step)
    assert profiler == told


def test_a_profile_lies_where_tensorboard_looks_for_it(run, tmp_path):
    with monitoring.Monitor(profiled(run, "1-1")) as monitor:
        monitor.count_step()
        tf.ones([3]) * 2
        monitor.count_step()
    (found,) = tmp_path.rglob("*.xplane.pb")
    assert found.match("run/tensorboard/plugins/profile/*/*.xplane.pb")
