"""One process at a time writes to a run, and what it finds when the directory has gone."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import short_run
from saved_run import RUN, STATE, files_of
from short_run import changed

from pixel_cnn_pp.runs import checkpoints, locks, loop

HOLD = """
import sys, time
from pixel_cnn_pp.runs import locks
with locks.locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the lock of `tmp_path`."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_in_one_line_and_a_killed_one_leaves_no_lock(
    pair, tmp_path, other_process
):
    message = rf"^Another process writes to {tmp_path} \(process {other_process.pid} on .*\): wait"
    for write in (
        lambda: checkpoints.save_config(tmp_path, RUN),
        lambda: checkpoints.save(tmp_path, *pair, STATE),
    ):
        with pytest.raises(BlockingIOError, match=message) as caught:
            write()
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == [".lock"]
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    checkpoints.save(tmp_path, *pair, STATE)
    assert checkpoints.latest(tmp_path) is not None


def test_a_second_training_in_a_directory_is_refused_before_the_model_is_built(
    tmp_path, other_process, digits, monkeypatch
):
    def build(*_):
        raise AssertionError("the model is built")

    monkeypatch.setattr(loop, "Trainer", build)
    for goes_on in (False, True):
        run = changed(short_run.RUN, save_dir=str(tmp_path), load_params=goes_on)
        with pytest.raises(BlockingIOError, match=r"^Another process writes to .*: wait until"):
            loop.train(run, *digits)
    assert os.listdir(tmp_path) == [".lock"]


def test_the_thread_that_holds_the_lock_may_write_and_another_may_not(tmp_path):
    refused = []

    def write():
        try:
            checkpoints.save_config(tmp_path, RUN)
        except BlockingIOError as error:
            refused.append(error)

    with locks.locked(tmp_path):
        write()
        assert not refused
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert len(refused) == 1
    write()
    assert len(refused) == 1


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_nothing_is_written_to_a_directory_that_has_gone(how, pair, tmp_path):
    run_dir = tmp_path / "run"
    with locks.locked(run_dir):
        if how == "removed":
            shutil.rmtree(run_dir)
        else:
            run_dir.rename(tmp_path / "moved")
        if how == "replaced":
            checkpoints.save_config(tmp_path / "new", RUN)
            (tmp_path / "new").rename(run_dir)
        before = files_of(tmp_path)
        for write in (
            lambda: checkpoints.save_config(run_dir, RUN),
            lambda: checkpoints.save(run_dir, *pair, STATE),
        ):
            with pytest.raises(FileNotFoundError, match=f"^{run_dir} was removed, moved or replac"):
                write()
        assert files_of(tmp_path) == before
    # Whoever comes later finds it free.
    checkpoints.save(run_dir, *pair, STATE)


def test_a_disk_without_locks_leaves_what_others_write(pair, run_dir, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (run_dir / "checkpoints" / ".incomplete_step_000000000031_by_another").mkdir()
    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with locks.locked(run_dir) as lock:
        assert not lock.is_real
    checkpoints.save(run_dir, *pair, checkpoints.TrainingState(step=31, epoch=6))
    assert sorted(os.listdir(run_dir / "checkpoints")) == [
        ".incomplete_step_000000000031_by_another",
        "step_000000000030",
        "step_000000000031",
    ]
