import contextlib
import errno
import functools
import json
import os
import re
import shutil
import signal
import types

import processes
import pytest
from short_run import FLAGS, assert_same_checkpoint, changed, scalars, steps_on_disk

from pixel_cnn_pp import data, files
from pixel_cnn_pp.runs import checkpoints, loop, samples, stopping


def send(number, step):
    """Makes a trainer send a signal to its own process before a step."""
    train_step = loop.Trainer.train_step

    def signalled(trainer, *batch, **options):
        if trainer.step == step:
            os.kill(os.getpid(), number)
        return train_step(trainer, *batch, **options)

    loop.Trainer.train_step = signalled


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of train.py that was killed in its third epoch, resumed, terminated there, resumed."""
    folder = tmp_path_factory.mktemp("resumed")
    run_dir = folder / "run"

    def run(*arguments, prepare=None):
        return processes.run(folder, "train.py", *arguments, "-o", run_dir, prepare=prepare)

    killed = run(*FLAGS.split(), prepare=functools.partial(send, signal.SIGKILL, 60))
    copy = shutil.copytree(run_dir, run_dir.with_name("killed"))
    stopped = run("-r", "-x", "4", prepare=functools.partial(send, signal.SIGTERM, 56))
    again = run("-r")
    return types.SimpleNamespace(
        run_dir=run_dir, killed_dir=copy, killed=killed, stopped=stopped, again=again
    )


def test_a_killed_run_leaves_its_checkpoint_and_what_it_has_told(resumed):
    assert resumed.killed.returncode == -signal.SIGKILL
    # The first one was written before the first step.
    assert sorted(os.listdir(resumed.killed_dir / "checkpoints")) == [
        "step_000000000000",
        "step_000000000048",
    ]
    _, first, second, saved = resumed.killed.stdout.splitlines()
    assert first.startswith("epoch 1/3  step 24 ") and second.startswith("epoch 2/3  step 48 ")
    assert saved == f"Saved epoch 2 to {resumed.run_dir}."
    assert list(scalars(resumed.killed_dir)["train/bits_per_dim"]) == [24, 48]


def test_sigterm_lets_a_step_end_saves_and_exits_cleanly(resumed):
    assert resumed.stopped.returncode == 0 and resumed.stopped.stderr == ""
    _, from_where, stopped = resumed.stopped.stdout.splitlines()
    assert from_where == "Resumed from epoch 2, step 48."
    # The signal came in step 57, and what all workers do next was settled when it began.
    assert stopped == (
        "Stopped by SIGTERM at step 58 and saved: "
        f"python train.py --save_dir {resumed.run_dir} --load_params goes on."
    )


def test_resuming_needs_no_more_flags_than_the_directory(resumed, finished):
    assert resumed.again.returncode == 0 and resumed.again.stderr == ""
    _, line, third, fourth, saved = resumed.again.stdout.splitlines()
    assert line == "Resumed from epoch 2 and 640 images, step 58."
    assert third.startswith("epoch 3/4  step 72 ") and fourth.startswith("epoch 4/4  step 96 ")
    assert saved == f"Saved epoch 4 to {resumed.run_dir}."
    others = {"save_dir": finished.run_dir, "load_params": False, "num_samples": 1}
    found = checkpoints.load_config(resumed.run_dir)
    assert found.training.load_params and found.training.num_samples == 0
    assert changed(found, **others, profile="2-3") == finished.run


def test_an_interrupted_run_equals_an_uninterrupted_one(resumed, finished):
    expected, found = scalars(finished.run_dir), scalars(resumed.run_dir)
    for name in ("train/bits_per_dim", "test/bits_per_dim", "learning_rate"):
        assert found[name] == expected[name]
    assert_same_checkpoint(resumed.run_dir, finished.run_dir)


@pytest.fixture
def go_on(finished, digits, tmp_path, monkeypatch):
    """Function (fields of the training) -> lines of a run that goes on in `go_on.run_dir`."""
    run_dir = shutil.copytree(finished.run_dir, tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints/step_000000000096")
    shutil.rmtree(run_dir / "tensorboard")
    # To compile its steps once is enough; it is set to the checkpoint.
    monkeypatch.setattr(loop, "Trainer", lambda run, strategy: finished.trainer)
    lines = []

    def train(log=lines.append, images=digits, **values):
        values = {"num_samples": 0, "profile": None, "load_params": True, **values}
        run = changed(finished.run, save_dir=str(run_dir), **values)
        lines.clear()
        loop.train(run, *images, strategy=finished.trainer.strategy, log=log)
        return list(lines)

    train.run_dir = run_dir
    return train


@pytest.mark.parametrize(
    ("number", "step", "last_step", "where"),
    [
        (signal.SIGINT, 55, 56, "epoch 2 and 512 images, step 56"),
        (signal.SIGTERM, 71, 72, "epoch 3, step 72"),  # the last step of its epoch
    ],
)
def test_whichever_step_a_signal_comes_before_no_step_is_lost(
    number, step, last_step, where, go_on, finished, monkeypatch
):
    class Stopping(stopping.StopRequest):
        """Gets the signal when the loop looks behind so many steps."""

        @property
        def is_requested(self):
            if finished.trainer.step == step and not self._is_requested:
                signal.raise_signal(number)
            return self._is_requested

        @is_requested.setter
        def is_requested(self, value):
            self._is_requested = value

    with monkeypatch.context() as patched:
        patched.setattr(stopping, "StopRequest", Stopping)
        lines = go_on()
    assert lines[-1] == (
        f"Stopped by {number.name} at step {last_step} and saved: "
        f"python train.py --save_dir {go_on.run_dir} --load_params goes on."
    )
    assert steps_on_disk(go_on.run_dir) == [48, last_step]
    again = go_on()
    assert again[1] == f"Resumed from {where}."
    assert_same_checkpoint(go_on.run_dir, finished.run_dir)


def test_a_second_ctrl_c_is_obeyed_at_once(request):
    # A shell lets what it runs in the background ignore Ctrl-C.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, previous))
    with stopping.StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_requested and stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_closed_terminal_stops_a_run_unless_it_was_told_to_ignore_it(request):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, previous))
    with stopping.StopRequest() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.is_requested
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with stopping.StopRequest() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.is_requested and stop.name == "SIGHUP"


def test_a_closed_pipe_stops_a_run_and_what_else_breaks_loses_lines(go_on, capsys):
    errors = {"epoch 3": BrokenPipeError(errno.EPIPE, "")}

    def log(line):
        for start, error in errors.items():
            if line.startswith(start):
                raise error

    go_on(log=log, save_interval=4)
    assert steps_on_disk(go_on.run_dir) == [48, 73]  # the step behind the line that was not read
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("epoch 3/4")
    errors = {"epoch": OSError(errno.EIO, ""), "Saved": OSError(errno.ENOSPC, "")}
    go_on(log=log)
    assert steps_on_disk(go_on.run_dir) == [73, 96]


def test_a_flag_is_stored_with_the_first_checkpoint_that_it_produced(go_on, monkeypatch):
    def stored():
        return checkpoints.load_config(go_on.run_dir).training.save_interval

    before = stored()

    def fail(*_, **__):
        raise FloatingPointError("The loss is nan")

    with monkeypatch.context() as patched:
        patched.setattr(loop._Loop, "_train_epoch", fail)
        with pytest.raises(FloatingPointError):
            go_on(save_interval=7)
    assert stored() == before
    go_on(save_interval=7)
    assert stored() == 7


def test_a_run_whose_directory_has_gone_stops_and_writes_nothing(go_on):
    def log(line):
        if line.startswith("epoch 3"):
            shutil.move(go_on.run_dir, f"{go_on.run_dir}_moved")

    message = f"^{go_on.run_dir} was removed, moved or replaced while this process wrote to it"
    with pytest.raises(FileNotFoundError, match=message):
        go_on(log=log, save_interval=1)
    assert not go_on.run_dir.exists()


def test_samples_that_cannot_be_written_are_told_of_and_training_goes_on(go_on, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "epoch_0004.png")

    monkeypatch.setattr(samples.Pictures, "write", write)
    lines = go_on(num_samples=1)
    assert lines[-1].startswith("No samples could be written (") and "goes on" in lines[-1]
    assert steps_on_disk(go_on.run_dir) == [48, 96]


def test_checkpoints_are_written_within_an_epoch_too(go_on):
    lines = go_on(save_minutes=1e-9, keep=3, max_epochs=3)
    assert steps_on_disk(go_on.run_dir) == [70, 71, 72]
    assert [line for line in lines if line.startswith("Saved")] == [
        f"Saved epoch 3 to {go_on.run_dir}."
    ]
    shutil.rmtree(go_on.run_dir / "checkpoints/step_000000000072")
    assert go_on(max_epochs=3)[1] == "Resumed from epoch 2 and 1472 images, step 71."


@pytest.fixture
def in_mid_epoch(go_on):
    """Lets `go_on` go on behind step 71, where 69 of the 1541 images of its epoch are left."""
    go_on(save_minutes=1e-9, keep=3, max_epochs=3)
    shutil.rmtree(go_on.run_dir / "checkpoints/step_000000000072")
    shutil.rmtree(go_on.run_dir / "tensorboard")
    return checkpoints.latest(go_on.run_dir) / "state.json"


def test_a_run_goes_on_within_an_epoch_with_smaller_batches(
    in_mid_epoch, go_on, finished, monkeypatch
):
    results = []

    def kept(*arguments, train_step=finished.trainer.train_step, **options):
        results.append(train_step(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(finished.trainer, "train_step", kept)
    before = json.loads(in_mid_epoch.read_text())
    assert (before["num_images"], before["step"]) == (1472, 71)
    lines = go_on(batch_size=32, max_epochs=3)
    assert lines[2].startswith("epoch 3/3  step 73  train ")  # 2 x 32 of 69 images
    losses = [result.bits_per_dim for result in results]
    expected = (before["image_loss_sum"] + 32 * sum(losses)) / (1472 + 64)
    assert scalars(go_on.run_dir)["train/bits_per_dim"][73] == pytest.approx(expected, rel=1e-6)


def test_an_epoch_ends_where_what_is_left_does_not_fill_a_larger_batch(in_mid_epoch, go_on):
    before = json.loads(in_mid_epoch.read_text())
    lines = go_on(batch_size=128, max_epochs=3)
    mean = before["image_loss_sum"] / 1472
    assert re.fullmatch(
        rf"epoch 3/3  step 71  train {mean:.4f}  test \d\.\d{{4}} bits/dim", lines[2]
    )
    assert scalars(go_on.run_dir).keys() == {
        "train/bits_per_dim",
        "test/bits_per_dim",
        "learning_rate",
        "training_minutes",
        "_hparams_/session_start_info",
    }
    assert lines[3] == f"Saved epoch 3 to {go_on.run_dir}."
    assert go_on(max_epochs=3)[1] == "Resumed from epoch 3, step 71."


def test_a_data_set_that_has_become_shorter_is_named_with_both_numbers(in_mid_epoch, go_on, digits):
    train, test = digits
    shorter = data.ImageData(train.images[:1000], train.labels[:1000], 17, 10)
    message = "Received: digits with 1000 training images, and 1472 of them are done"
    with pytest.raises(ValueError, match=message):
        go_on(images=(shorter, test))


def test_a_run_of_which_nothing_is_left_says_so(go_on):
    _, _, line = go_on(max_epochs=2)
    assert line == "All 2 epochs are done; --max_epochs says how many to train."


@pytest.fixture
def full_disk(monkeypatch):
    """Within it, no array of step 72 can be written whole."""

    @contextlib.contextmanager
    def full(write=files.write):
        def half(path, content):
            if "step_000000000072" in str(path) and path.name == "averages.npz":
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, content)

        with monkeypatch.context() as patched:
            patched.setattr(files, "write", half)
            yield

    return full


def test_a_checkpoint_that_fails_is_told_of_and_training_goes_on(go_on, full_disk, finished):
    steps_at_lines = {}

    def log(line):
        steps_at_lines[line] = steps_on_disk(go_on.run_dir)

    with full_disk():
        go_on(log=log, save_interval=1)
    last = f"{go_on.run_dir}/checkpoints/step_000000000048"
    line = (
        "No checkpoint could be written at step 72 (No space left on device); the last one is "
        f"{last}. Training goes on."
    )
    assert steps_at_lines[line] == [48]
    assert steps_on_disk(go_on.run_dir) == [48, 96]
    assert_same_checkpoint(go_on.run_dir, finished.run_dir)


def test_the_last_checkpoint_must_be_written(go_on, full_disk):
    message = (
        r"^No checkpoint could be written at step 72 \(No space left on device\); the last one"
    )
    with full_disk(), pytest.raises(OSError, match=message) as caught:
        go_on(max_epochs=3)
    assert "\n" not in str(caught.value)
    assert steps_on_disk(go_on.run_dir) == [48]


def test_a_disk_without_room_for_checkpoints_is_refused_before_training(go_on, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2**10))
    message = (
        rf"^The disk of {go_on.run_dir} must have \d+ MiB free for 5 checkpoints and one that is "
        r"being written\. Received: 0 MiB free$"
    )
    with pytest.raises(OSError, match=message):
        go_on(keep=5)
    assert steps_on_disk(go_on.run_dir) == [48]
