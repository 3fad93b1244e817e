import json
import os
import shutil
import signal
import types

import pytest
from processes import assert_one_line, run, run_script

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


def test_a_script_starts_without_matplotlib_and_scikit_learn_and_can_import_them(run_python):
    code = "import sys\nfrom pixel_cnn_pp import scripts\nscripts._import_tensorflow()\n"
    code += "print(*({'keras', 'matplotlib', 'sklearn'} & set(sys.modules)))\n"
    code += "import matplotlib.pyplot, sklearn.datasets\n"
    assert run_python(code) == "keras\n"


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


def close_pipe():
    """Makes stdout a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def test_a_reader_that_is_gone_is_one_line(trained_run, tmp_path):
    done = run(tmp_path, "evaluate.py", trained_run, prepare=close_pipe)
    assert_one_line(done, "^evaluate.py: stopped, because the pipe that reads its lines is closed$")
