"""The command of an installed package."""

import numpy as np
import pytest
from processes import run_in_new_process, run_script

import pixel_cnn_pp as pcnn


@pytest.fixture
def command(tmp_path):
    """The program as pip writes it."""
    path = tmp_path / "pixel-cnn-pp"
    path.write_text("from pixel_cnn_pp.command import main\n\nmain()\n")
    return path


def test_a_command_takes_the_flags_of_its_script_and_does_the_same(command, trained_run, tmp_path):
    flags = (trained_run, "--labels", "3,1", "--seed", "5", "--out")
    by_command = run_script(command, "sample", *flags, tmp_path / "one")
    by_script = run_script("sample.py", *flags, tmp_path / "two")
    assert (by_command.returncode, by_script.returncode) == (0, 0), by_command
    drawn = [np.load(tmp_path / f"{name}.npz")["images"] for name in ("one", "two")]
    np.testing.assert_array_equal(*drawn)


def test_a_mistake_is_told_by_the_command_in_one_line(command, tmp_path):
    done = run_script(command, "evaluate", tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("pixel-cnn-pp evaluate: A run directory must hold a config.json.")
    done = run_script(command, "sample")
    assert done.stderr.startswith("usage: pixel-cnn-pp sample RUN_DIR [flags]  (pixel-cnn-pp sam")


@pytest.mark.parametrize("arguments", [[], ["draw"]])
def test_an_unknown_command_is_one_line_with_those_that_there_are(arguments, command):
    done = run_script(command, *arguments)
    assert done.returncode == 1
    start = "usage: pixel-cnn-pp train|evaluate|sample|"
    assert done.stderr.startswith(start) and done.stderr.count("\n") == 1
    assert done.stderr.endswith(f". Received: {arguments[0] if arguments else 'nothing'}\n")


def test_the_command_says_its_version_and_what_it_takes(command):
    assert run_script(command, "--version").stdout == f"{pcnn.__version__}\n"
    assert run_script(command, "--help").stdout.startswith("usage: pixel-cnn-pp train|")


def test_the_help_of_a_command_lists_the_flags_of_its_script(command):
    done = run_in_new_process(command, "export", "--help", PYTHONPATH=".")
    assert "--[no]overwrite" in done.stdout and done.stdout.startswith("Writes a trained run as a")
