"""Completes runs: notes their settings, and starts processes for what is not done yet.

The directory of a run holds what train.py writes, and

    RUN_DIR/experiment.json   {field: value}, the settings of its first start
            train.log         what train.py printed, at all starts
            evaluate.log      and so on: what the scripts printed that ran behind it
            scores.npz        the scores of every image; a run that has them is finished
"""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from experiments import comparisons, results
from pixel_cnn_pp import files
from pixel_cnn_pp.runs import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
_SETTINGS = "experiment.json"
# The exit status that a shell gives to a process that Ctrl-C ended.
_INTERRUPTED = 130


def directory(run, out):
    """The directory of a `comparisons.Run` below that of all runs."""
    return pathlib.Path(out) / "runs" / run.name


class Ending(NamedTuple):
    """What is done with every run of an experiment when it is trained.

    commands: Function of the directory of a run: [(script and arguments, file that it leaves)]. A
    run that has all files is finished. describe: Function of the directory of a finished run: its
    result in words.
    """

    commands: Callable
    describe: Callable


def _score_all(run_dir):
    path = run_dir / results.SCORES
    return [
        (["evaluate.py", str(run_dir), "--split=all", "--weights=ema", f"--out={path}"], path),
    ]


# The comparisons score the images of both splits.
SCORED = Ending(_score_all, lambda run_dir: f"{results.read(run_dir).test:.4f} bits/dim")


def commands(run, out, ending=SCORED):
    """The commands of a whole run: lists, first of train.py and then of an `Ending`."""
    run_dir = directory(run, out)
    train = ["train.py", *run.flags(), f"--save_dir={run_dir}"]
    return [train, *(command for command, _ in ending.commands(run_dir))]


def is_finished(run, out, ending=SCORED):
    """Whether a run is trained, and has all that comes behind that."""
    run_dir = directory(run, out)
    return _is_trained(run, run_dir) and all(path.exists() for _, path in ending.commands(run_dir))


def _is_trained(run, run_dir):
    return results.is_trained(run_dir, run.values.get("max_minutes"))


# What a run was started with


def check_settings(run, out):
    """Refuses a directory in which the run of this name has other settings.

    Args:
      run: `comparisons.Run`.
      out: Directory of all.

    Raises:
      ValueError: If the run there was started with other values.
    """
    path = directory(run, out) / _SETTINGS
    if not path.exists():
        return
    try:
        stored = json.loads(path.read_text())
        names = sorted(stored.keys() | run.settings.keys())
        before, now = (
            {name: values.get(name, comparisons.defaults(values).get(name)) for name in names}
            for values in (stored, run.settings)
        )
    except (ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} must be as run.py wrote it. Received: {error}") from None
    changed = [
        f"{name}: {before[name]} != {now[name]}" for name in before if before[name] != now[name]
    ]
    if changed:
        raise ValueError(
            f"The flags must be those that {path.parent} was started with, or --out another one. "
            f"Received: {', '.join(changed)} (started with != given)"
        )


def note_settings(run, out):
    """Writes the settings of a run, with which later starts are compared."""
    path = directory(run, out) / _SETTINGS
    text = json.dumps(run.settings, indent=2) + "\n"
    files.replace(path, lambda file: file.write(text.encode()))


# Processes


class Children:
    """Processes that several threads start and wait for, and that end together."""

    def __init__(self, environment):
        """Each process gets these environment variables, a dict."""
        self._environment = environment
        self._running = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def call(self, command, log_path):
        """Runs a script of the root to its end.

        Args:
          command: The name of the script and its arguments, a list.
          log_path: File to which its output is appended.

        Returns:
          Its exit status; None if it was not started because all are being stopped.
        """
        script, *arguments = command
        with open(log_path, "ab") as log:
            with self._lock:
                if self._is_stopped:
                    return None
                # Ctrl-C does not reach a session of its own; `stop` signals to it once.
                process = subprocess.Popen(
                    [sys.executable, str(ROOT / script), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)

    def stop(self, number=signal.SIGTERM):
        """Starts no more, and signals to all that run; on SIGTERM train.py saves its step."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                process.send_signal(number)


def run_all(planned, out, num_jobs, ending=SCORED, log=print):
    """Runs what is not finished, and reports every run when it ends.

    On Ctrl-C or SIGTERM, every run finishes its current step and saves it, and then this exits. A
    second signal does not wait.

    Args:
      planned: A list of `comparisons.Run`.
      out: Directory of all.
      num_jobs: How many runs go at the same time.
      ending: Ending.
      log: Function of a line.

    Returns:
      The number of runs that failed.
    """
    children = Children({**_thread_limits(num_jobs), **os.environ})
    executor = concurrent.futures.ThreadPoolExecutor(num_jobs)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    num_failed = 0
    try:
        tasks = [executor.submit(finish, run, out, children, ending) for run in planned]
        for number, task in enumerate(concurrent.futures.as_completed(tasks), start=1):
            line, is_right = task.result()
            num_failed += not is_right
            log(f"{number}/{len(planned)} {line}")
        return num_failed
    except KeyboardInterrupt:
        log("Stopping: what trains saves its step, and the same command goes on from there.")
        children.stop()
        try:
            executor.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            children.stop(signal.SIGKILL)
        sys.exit(_INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, previous)
        executor.shutdown(cancel_futures=True)


def _thread_limits(num_jobs):
    """Variables that limit a process to its share of the cores; none for a single job."""
    if num_jobs == 1:
        return {}
    num_threads = str(max(1, (os.cpu_count() or 1) // num_jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return dict.fromkeys(names, num_threads)


def finish(run, out, children, ending=SCORED):
    """Completes a run, from where it stands.

    Args:
      run: `comparisons.Run`.
      out: Directory of all.
      children: Children.
      ending: Ending.

    Returns:
      A line about its result, and whether all went well.
    """
    title, run_dir = f"{run.row}, seed {run.seed}", directory(run, out)
    start = time.monotonic()
    try:
        if is_finished(run, out, ending):
            return f"{title}: done before", True
        endings = ending.commands(run_dir)
        if not _is_trained(run, run_dir):
            for _, path in endings:  # of a shorter training
                path.unlink(missing_ok=True)
            train, *_ = commands(run, out, ending)
            if checkpoints.latest(run_dir) is not None:
                save_dir = f"--save_dir={run_dir}"
                train = ["train.py", "--load_params", *run.more_flags(), save_dir]
            status = children.call(train, run_dir / "train.log")
            if status == 0 and not _is_trained(run, run_dir):
                status = "0 before the last epoch"  # a signal ended it, saved
            if status != 0:
                return _failure(title, "train.py", status, run_dir / "train.log"), False
        for command, path in endings:
            if not path.exists():
                log = run_dir / f"{pathlib.Path(command[0]).stem}.log"
                status = children.call(command, log)
                if status != 0:
                    return _failure(title, command[0], status, log), False
        minutes = (time.monotonic() - start) / 60
        return f"{title}: {ending.describe(run_dir)}, {minutes:.1f} min", True
    except (OSError, ValueError) as error:
        return f"{title}: FAILED, {' '.join(str(error).split())}", False


def _failure(title, script, status, log_path):
    """One line about a script that failed: its last line, and where its log is."""
    lines = [line.strip() for line in log_path.read_text(errors="replace").split("\n")]
    last_line = next((line for line in reversed(lines) if line), "it said nothing")
    return f"{title}: FAILED, {script} ended with status {status}, log in {log_path}: {last_line}"
