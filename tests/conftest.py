"""What every test needs: a quiet TensorFlow on the CPU, and Python in a process of its own."""

import gc
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

# Before any test imports TensorFlow. The tests compare float32 numbers of a CPU, which a GPU's
# convolutions do not reach; CUDA_VISIBLE_DEVICES=0 python -m pytest runs them on one all the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# As the scripts have it on every CPU: their runs are compared with those of this process, exactly.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Scripts in processes of their own leave nothing in the user's folders.
os.environ["PIXEL_CNN_PP_CACHE"] = ""
# A shell starts what runs in its background with this signal ignored, and some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Beside what they help with, these have fixtures that several files share.
pytest_plugins = ["release", "saved_run", "script_runs", "served", "short_run"]

TESTS = pathlib.Path(__file__).parent


# Garbage is collected so seldom that it takes little time: most of what is made here is kept.
GC_THRESHOLDS = (20_000, 20, 20)
gc.set_threshold(*GC_THRESHOLDS)


def pytest_collection_finish():
    """Lets the garbage collector pass over what has been imported, which is never freed."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def without_xla():
    """XLA compiles for seconds. That it draws the same is a law: laws/test_draws.py."""
    from pixel_cnn_pp.sampling import draw

    whole = draw.compile_function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "compile_function", lambda f, *_: whole(f, False))
        yield


@pytest.fixture(scope="session")
def run_python():
    """Function (code, *arguments, **environment) -> what the code printed in a new process."""

    collects_seldom = f"import gc; gc.set_threshold(*{GC_THRESHOLDS})\n"

    def run(code, *arguments, **environment):
        path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        done = subprocess.run(
            [sys.executable, "-c", collects_seldom + code, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path, **environment},
            cwd=TESTS.parent,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def tf_configs():
    """Function (number) -> TF_CONFIG of each of so many workers on this machine, at free ports."""

    def make(number):
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
        addresses = ["{}:{}".format(*each.getsockname()) for each in sockets]
        for each in sockets:
            each.close()
        return [
            json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            )
            for index in range(number)
        ]

    return make
