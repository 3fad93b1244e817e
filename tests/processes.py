"""Scripts and programs in processes of their own."""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import types

ROOT = pathlib.Path(__file__).parents[1]


def run_in_new_process(*arguments):
    """A script with its arguments, as a user runs it."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def run(tmp_path, *arguments, prepare=None):
    """A script with its arguments, as a user runs it but for the imports, which are there already.

    Every process forks from one that has imported TensorFlow and has done nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "pixel_cnn_pp.runs.loop", "sklearn.datasets"])
    paths = [tmp_path / name for name in ("stdout", "stderr")]
    process = context.Process(
        target=_run_script, args=([str(argument) for argument in arguments], paths, prepare)
    )
    process.start()
    process.join()
    stdout, stderr = (path.read_text() for path in paths)
    for path in paths:
        path.unlink()
    return types.SimpleNamespace(returncode=process.exitcode, stdout=stdout, stderr=stderr)


def _run_script(arguments, paths, prepare):
    for descriptor, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.argv = arguments
    if prepare is not None:
        prepare()
    runpy.run_path(arguments[0], run_name="__main__")
