import dataclasses
import json
import os
import shutil
import signal
import types

import keras
import pytest
import specimens
from processes import ROOT, assert_one_line, run, run_in_new_process, run_script

from pixel_cnn_pp import models, scripts
from pixel_cnn_pp.runs import checkpoints


@pytest.mark.parametrize("script", ["train.py -r -o", "sample.py", "evaluate.py"])
def test_a_directory_without_a_checkpoint_is_one_line(script, copied_run, tmp_path):
    shutil.rmtree(copied_run / "checkpoints")
    done = run_script(*script.split(), copied_run)
    assert_one_line(done, f"must hold a checkpoint. Received: {copied_run} ")


@pytest.mark.parametrize("script", ["sample.py", "evaluate.py"])
def test_a_directory_without_a_run_is_one_line(script, tmp_path):
    done = run_script(script, tmp_path / "new")
    assert_one_line(done, f"must hold a config.json. Received: {tmp_path}/new ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("script", ["sample.py", "evaluate.py"])
def test_a_missing_directory_is_one_line(script, tmp_path):
    done = run_script(script)
    assert_one_line(done, rf"^usage: python {script} RUN_DIR \[flags\] .* Received: \[\]")


@pytest.mark.parametrize("script", ["train.py -r -o", "sample.py", "evaluate.py"])
def test_a_checkpoint_of_another_configuration_names_what_differs(script, copied_run, tmp_path):
    path = copied_run / "config.json"
    values = json.loads(path.read_text())
    values["model"] |= {"nr_filters": 6, "dropout_p": 0.1}
    path.write_text(json.dumps(values))
    done = run_script(*script.split(), copied_run)
    assert_one_line(done, r"with nr_filters: 4 != 6, dropout_p: 0\.5 != 0\.1 \(checkpoint != model")


@pytest.mark.parametrize("script", ["train.py -r -o", "sample.py", "evaluate.py"])
def test_a_checkpoint_that_was_cut_short_is_one_line(script, copied_run, tmp_path):
    path = checkpoints.latest(copied_run) / "averages.npz"
    path.write_bytes(path.read_bytes()[:1000])
    done = run_script(*script.split(), copied_run)
    assert_one_line(done, f"A checkpoint must be whole. Received: {path} ")


def test_a_script_starts_without_big_packages_that_are_not_needed_and_can_import_them(run_python):
    code = "import sys\nfrom pixel_cnn_pp import scripts\nscripts._import_tensorflow()\n"
    code += "big = {'jax', 'keras', 'matplotlib', 'scipy', 'sklearn'}\n"
    code += "print(*(big & set(sys.modules)))\n"
    code += "import jax.numpy, matplotlib.pyplot, scipy.sparse, sklearn.datasets\n"
    assert run_python(code) == "keras\n"


def test_a_script_starts_with_the_backend_that_the_file_of_keras_names(run_python, tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    code = "from pixel_cnn_pp import scripts\nscripts._import_tensorflow()\n"
    code += "import keras\nkeras.random.SeedGenerator(1)\nprint(keras.backend.backend())\n"
    found = run_python(code, KERAS_BACKEND="", KERAS_HOME=str(tmp_path), JAX_PLATFORMS="cpu")
    assert found == "jax\n"


def test_after_its_start_a_script_collects_garbage_but_not_among_the_modules(run_python):
    code = "import gc\nfrom pixel_cnn_pp import scripts\nscripts._import_tensorflow()\n"
    code += "circle = []\ncircle.append(circle)\ndel circle\n"
    code += "print(gc.isenabled(), gc.get_freeze_count() > 10**5, gc.collect() > 0)\n"
    assert run_python(code) == "True True True\n"


def interrupt_import():
    """Makes Ctrl-C come within the import of TensorFlow, where nobody passes it on."""
    import_module = scripts.importlib.import_module

    def interrupted(name):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError(name) from None
        return import_module(name)

    scripts.importlib = types.SimpleNamespace(import_module=interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupt_making():
    """Makes Ctrl-C come where the model is made, within what turns it into another error."""

    def interrupted(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("in a layer") from error

    models.make = interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("prepare", [interrupt_import, interrupt_making])
@pytest.mark.parametrize(
    "script", ["train.py -d digits -g 0 -o", "sample.py", "evaluate.py", "export.py {} "]
)
def test_ctrl_c_is_one_line_and_status_130(script, prepare, copied_run, tmp_path):
    where = tmp_path / "new" if "{}" in script or script.startswith("train") else copied_run
    done = run(tmp_path, *script.format(copied_run).split(), where, prepare=prepare)
    assert done.returncode == 130
    assert done.stderr == f"{script.split()[0]}: stopped by Ctrl-C\n" and done.stdout == ""


# Ctrl-C at the first import that takes time.
AT_ONCE = """
import builtins, os, runpy, signal, sys
original = builtins.__import__

def interrupted(name, *others):
    if name.split(".")[0] in ("absl", "numpy", "pixel_cnn_pp"):
        os.kill(os.getpid(), signal.SIGINT)
    return original(name, *others)

builtins.__import__ = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py")))
def test_ctrl_c_before_anything_is_imported_is_one_line_too(script):
    done = run_in_new_process("-c", AT_ONCE, script)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == f"{script}: stopped by Ctrl-C\n"


def close_pipe():
    """Makes stdout a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def test_a_reader_that_is_gone_is_one_line(trained_run, tmp_path):
    done = run(tmp_path, "evaluate.py", trained_run, prepare=close_pipe)
    assert_one_line(done, "^evaluate.py: stopped, because the pipe that reads its lines is closed$")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A file of Keras of a small model on digits."""
    config = specimens.SPECIMENS["pixel_cnn_binary"]
    config = dataclasses.replace(config, image_shape=(8, 8, 1), num_levels=17)
    path = tmp_path_factory.mktemp("files") / "model.keras"
    specimens.fresh(config).save(path)
    return path


def test_scripts_take_a_file_of_keras_and_write_into_the_folder_of_its_name(model_file, tmp_path):
    folder = model_file.with_suffix("")
    done = run_script("sample.py", model_file, "--num_samples", "2")
    assert done.returncode == 0 and (folder / "samples" / "drawn.png").exists(), done.stderr
    done = run_script("evaluate.py", model_file, "-d", "digits", "--maps", "--weights", "ema")
    assert done.returncode == 0 and "bits/dim over 256 images" in done.stdout, done.stderr
    assert (folder / "scores" / "maps.png").exists()


def test_a_file_of_keras_that_cannot_be_used_is_one_line(model_file, tmp_path):
    broken = tmp_path / "broken.keras"
    broken.write_bytes(model_file.read_bytes()[:1000])
    foreign = tmp_path / "foreign.keras"
    keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]).save(foreign)
    for script, path, arguments, message in (
        ("evaluate.py", model_file, (), "`data_set` must be given: a .keras file does not say"),
        (
            "sample.py",
            model_file,
            ("--complete", "test"),
            "`data_set` must be given: a .keras file",
        ),
        ("sample.py", broken, (), "A .keras file must hold a model of this package. Received: "),
        ("sample.py", foreign, (), "must hold a model of this package. .*, a Sequential"),
        ("sample.py", tmp_path / "no.keras", (), "must hold a model of this package. Received: "),
    ):
        assert_one_line(run_script(script, path, *arguments), message)
