"""Scripts and programs: in this process where they can be, otherwise in one of their own."""

import contextlib
import copy
import io
import multiprocessing
import os
import pathlib
import re
import runpy
import subprocess
import sys
import types

import pytest
from absl import app, flags, logging

from benchmarks import measure  # noqa: F401 - its flag belongs to a module, not to a script

ROOT = pathlib.Path(__file__).parents[1]

# The flags that are there before any script defines its own: absl's, and that of `measure`.
app.define_help_flags()
_FLAGS_OF_MODULES = copy.deepcopy(flags.FLAGS)


def assert_one_line(done, message):
    """A script ended as for a user's mistake, and said so in one line."""
    assert done.returncode == 1, done
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def run_in_new_process(*arguments, cwd=ROOT, **environment):
    """A script with its arguments, as a user runs it who stands in a directory."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def run_script(*arguments):
    """A script with its arguments in this process, where TensorFlow is and patches hold.

    All is as when a user runs it, but that absl does not take over the process's name and its
    logging, and that what C++ writes to stderr is not seen. Its flags are gone when it ends.

    Returns:
      Exit status, stdout and stderr, named as `subprocess.run` names them.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    script, *others = map(str, arguments)
    status = 0
    with (
        own_flags(),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(ROOT)
        patch.setattr(sys, "path", [str((ROOT / script).parent), *sys.path])
        patch.setattr(sys, "argv", [script, *others])
        patch.setattr(app, "run", _run_main)
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
    texts = [stream.seek(0) or stream.read() for stream in (out, err)]
    return types.SimpleNamespace(returncode=status, stdout=texts[0], stderr=texts[1])


def functions_of(script):
    """What a script defines, with its names; for what reads no flags."""
    with own_flags():
        return types.SimpleNamespace(**runpy.run_path(str(ROOT / script)))


@contextlib.contextmanager
def own_flags():
    """Within it no script has defined flags yet; what is defined or parsed there ends with it."""
    state, verbosity = dict(vars(flags.FLAGS)), logging.get_verbosity()
    vars(flags.FLAGS).update(vars(copy.deepcopy(_FLAGS_OF_MODULES)))
    try:
        yield
    finally:
        vars(flags.FLAGS).update(state)
        logging.set_verbosity(verbosity)


def _run_main(main):
    """What `absl.app.run` does with flags."""
    arguments = app.parse_flags_with_usage(sys.argv)
    if flags.FLAGS.only_check_args:
        sys.exit()
    sys.exit(main(arguments))


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
