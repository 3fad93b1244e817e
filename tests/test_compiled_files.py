"""What XLA has compiled for a script, and where TensorFlow keeps it for the next start."""

import json
import os
import sys
import time

import pytest

from pixel_cnn_pp import compiled_files

# Compiles a function as `sample.py` does, and prints its result and how often it was traced.
COMPILE = """
import json, os, sys
from pixel_cnn_pp import scripts
scripts._import_tensorflow(keeps_compiled=True)
import tensorflow as tf
from pixel_cnn_pp.sampling import draw
for _ in range(int(sys.argv[1])):
    tf.constant(1.0)  # TensorFlow's own names of functions have the number of tensors
def compute(x):
    traces.append(x)
    return tf.tanh(x @ x)
traces = []
function = draw.compile_function(compute, True, "key")
print(json.dumps([function(tf.eye(3)).numpy().tolist(), len(traces)]))
"""


@pytest.fixture
def keep(monkeypatch, tmp_path):
    """Function (**environment) -> the folder that TensorFlow is told to keep files in, or None."""
    registered = []
    tensorflow = tmp_path / "tensorflow.py"
    tensorflow.touch()
    monkeypatch.setattr(compiled_files, "_kept", None)
    monkeypatch.setattr(compiled_files.atexit, "register", lambda *call: registered.append(call))
    monkeypatch.setattr(compiled_files, "sys", type("sys", (), {"modules": {}}))

    def call(**environment):
        monkeypatch.setenv("TF_XLA_FLAGS", "")
        monkeypatch.setenv("PIXEL_CNN_PP_CACHE", str(tmp_path))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        registered.clear()
        compiled_files.keep(str(tensorflow))
        if not registered:
            assert os.environ["TF_XLA_FLAGS"] == environment.get("TF_XLA_FLAGS", "")
            return None
        ((_, folder, _),) = registered
        assert os.environ["TF_XLA_FLAGS"].endswith(f"--tf_xla_persistent_cache_directory={folder}")
        return folder

    return call


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_finds_what_the_first_has_traced_and_compiled(run_python, tmp_path):
    printed, written = [], []
    for count in (0, 5):
        process = run_python(COMPILE, count, PIXEL_CNN_PP_CACHE=str(tmp_path))
        printed.append(json.loads(process))
        (folder,) = (tmp_path / "compiled").iterdir()
        kept = sorted(folder.glob("*.pb"))
        assert [path.name.split("_")[0] for path in kept] == ["graph", "xla"]
        for path in kept:
            assert path.with_suffix(".size").read_text() == str(path.stat().st_size)
        written.append([path.stat().st_ino for path in kept])
    assert written[0] == written[1]  # they were not written again
    (first, traces), (second, traces_again) = printed
    assert first == second and len(first) == 3
    assert (traces, traces_again) == (1, 0)


def test_a_kept_file_is_for_one_key_and_one_version_of_the_code(keep, monkeypatch):
    assert compiled_files.path_of("key") is None
    folder = keep()
    paths = [compiled_files.path_of(key) for key in ("key", "another", "key")]
    monkeypatch.setattr(compiled_files, "__file__", __file__)  # as if the sources were others
    assert keep() == folder
    paths.append(compiled_files.path_of("key"))
    assert paths[0] == paths[2] and len(set(paths)) == 3
    assert {path.parent for path in paths} == {folder}


def test_incomplete_files_are_removed_and_the_oldest_of_too_many(keep, monkeypatch):
    folder = keep()
    for number, (size, noted) in enumerate([(5, "5"), (5, "7"), (5, None), (4, "4"), (3, "3")]):
        path = folder / f"{number}.pb"
        path.write_bytes(bytes(size))
        os.utime(path, (1000 + number, 1000 + number))
        if noted is not None:
            path.with_suffix(".size").write_text(noted)
    for name, seconds in (("new.tmp", time.time()), ("old.tmp", 0)):
        (folder / name).touch()
        os.utime(folder / name, (seconds, seconds))
    assert keep() == folder
    (folder / "new.tmp").unlink()
    assert files(folder) == [f"{n}.{end}" for n in (0, 3, 4) for end in ("pb", "size")]
    monkeypatch.setattr(compiled_files, "_MOST_BYTES", 8)
    keep()
    assert files(folder) == ["3.pb", "3.size", "4.pb", "4.size"]


def test_another_machine_or_tensorflow_or_setting_has_another_folder(keep, monkeypatch, tmp_path):
    folders = [keep(), keep(XLA_FLAGS="--xla_dump_to=x"), keep(TF_XLA_FLAGS="--tf_xla_y")]
    monkeypatch.setattr(compiled_files.platform, "machine", lambda: "another")
    folders.append(keep(XLA_FLAGS="", TF_XLA_FLAGS=""))
    os.utime(tmp_path / "tensorflow.py", (1, 1))
    folders.append(keep(XLA_FLAGS="", TF_XLA_FLAGS=""))
    assert len(set(folders)) == 5
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)


def test_nothing_is_kept_where_it_cannot_or_must_not_be(keep, monkeypatch, tmp_path):
    assert keep(PIXEL_CNN_PP_CACHE="") is None
    assert keep(TF_XLA_FLAGS="--tf_xla_persistent_cache_directory=/own") is None
    assert keep(PIXEL_CNN_PP_CACHE=str(tmp_path / "with space")) is None
    (tmp_path / "file").touch()
    assert keep(PIXEL_CNN_PP_CACHE=str(tmp_path / "file")) is None
    keep().chmod(0o770)  # others could write what this process would run
    assert keep() is None
    (tmp_path / "full").mkdir()
    monkeypatch.setattr(compiled_files, "_LEAST_FREE_BYTES", 2**80)
    assert keep(PIXEL_CNN_PP_CACHE=str(tmp_path / "full")) is None
    monkeypatch.setattr(compiled_files, "_LEAST_FREE_BYTES", 0)
    monkeypatch.setattr(compiled_files, "sys", sys)  # TensorFlow has read its flags
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    assert keep(PIXEL_CNN_PP_CACHE=str(tmp_path / "full")) is None
