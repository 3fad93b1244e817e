import os
import pathlib

import keras
import pytest
import specimens
import tensorflow as tf
from processes import assert_one_line, run_script
from saved_run import files_of

from pixel_cnn_pp import export


def test_a_model_of_another_kind_or_backend_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"`model` must be an autoregressive model of .* Received: Sequential"
    ):
        export.export_saved_model(keras.Sequential(), tmp_path / "1")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"TensorFlow backend. Received: KERAS_BACKEND=jax"):
        export.export_saved_model(specimens.build("relu"), tmp_path / "1")
    assert os.listdir(tmp_path) == []


def test_a_path_that_is_taken_is_one_line(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "file").write_text("kept")
    before = files_of(tmp_path)
    for path, overwrite, message in (
        ("notes", False, "must be new or empty, or be overwritten. Received: .*notes$"),
        ("notes", True, "Only a SavedModel is overwritten. Received: .*notes, which holds so"),
        ("notes/file", False, "The SavedModel is a directory. Received: .*file, which is a file"),
        ("notes/file/1", True, "Not a directory: .*notes/file$"),
    ):
        with pytest.raises(OSError, match=message):
            export.export_saved_model(specimens.build("relu"), tmp_path / path, overwrite=overwrite)
    assert files_of(tmp_path) == before


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=f"Not a directory to write to: {tmp_path}$"):
        export.check_path(tmp_path / "new" / "1")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def instead(monkeypatch):
    """Function (write) that makes `write` what saves, with a model of nothing."""
    monkeypatch.setattr(export, "_served", lambda model, jit_compile: (tf.Module(), {}))
    return lambda write: monkeypatch.setattr(tf.saved_model, "save", write)


def test_an_export_that_fails_leaves_what_was_there(tmp_path, instead):
    def save(served, path, signatures, options):
        (pathlib.Path(path) / "saved_model.pb").write_text("half")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("kept")
    before = files_of(tmp_path)
    instead(save)
    for name in ("1", "2"):
        path = tmp_path / name
        with pytest.raises(OSError, match=f"{path} could not be written: No space left on devi"):
            export.export_saved_model(specimens.build("relu"), path, overwrite=True)
    assert files_of(tmp_path) == before and os.listdir(tmp_path) == ["1"]


def test_an_empty_directory_is_filled_and_a_saved_model_overwritten(tmp_path, instead):
    def save(served, path, signatures, options):
        (pathlib.Path(path) / "saved_model.pb").write_text("new")

    instead(save)
    for name, content in (("empty", None), ("full", "old")):
        path = tmp_path / name
        path.mkdir()
        if content is not None:
            (path / "saved_model.pb").write_text(content)
            (path / "more").write_text(content)
        # What an export that was killed has left behind is no hindrance.
        (tmp_path / f".incomplete_{name}").mkdir()
        export.export_saved_model(specimens.build("relu"), path, overwrite=content is not None)
        names = {str(file) for file in files_of(path)}
        assert names == {"saved_model.pb", "assets.extra/config.json"}
        assert (path / "saved_model.pb").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["empty", "full"]


def test_the_script_says_in_one_line_what_it_cannot_do(tmp_path):
    done = run_script("export.py", tmp_path / "no_run", tmp_path / "1")
    assert_one_line(done, "^export.py: .* must hold a config.json. Received: .*no_run ")
    assert os.listdir(tmp_path) == []
