"""Brings runs to their end: what they were started with, and processes for what is left to do.

Beside what train.py writes, the directory of a run holds

    RUN_DIR/experiment.json   {field: value}, what it was started with
            train.log         what train.py said, of all starts
            evaluate.log
            scores.npz        of every image; a run that has them is done
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

from experiments import comparisons, results
from pixel_cnn_pp.runs import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
_SETTINGS = "experiment.json"
# The exit status of a process that Ctrl-C ended, as a shell has it.
_INTERRUPTED = 130


def directory(run, out):
    """Where a `comparisons.Run` lies below the directory of all."""
    return pathlib.Path(out) / "runs" / run.name


def commands(run, out):
    """What a run consists of when nothing of it is done: two lists, of train.py and evaluate.py."""
    run_dir = directory(run, out)
    return (
        ["train.py", *run.flags(), f"--save_dir={run_dir}"],
        [
            "evaluate.py",
            str(run_dir),
            "--split=all",
            "--weights=ema",
            f"--out={run_dir / results.SCORES}",
        ],
    )


# What a run was started with


def check_settings(run, out):
    """Refuses a directory in which the run of this name is another one.

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
        names = stored.keys() | run.settings.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} must be as run.py wrote it. Received: {error}") from None
    before, now = (
        {name: values.get(name, comparisons.DEFAULTS.get(name)) for name in sorted(names)}
        for values in (stored, run.settings)
    )
    changed = [
        f"{name}: {before[name]} != {now[name]}" for name in before if before[name] != now[name]
    ]
    if changed:
        raise ValueError(
            f"The flags must be those that {path.parent} was started with, or --out another one. "
            f"Received: {', '.join(changed)} (started with != given)"
        )


def note_settings(run, out):
    """Writes what a run is started with, for later starts to be compared with."""
    path = directory(run, out) / _SETTINGS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run.settings, indent=2) + "\n")


# Processes


class Children:
    """Processes that are started and waited for by several threads, and ended together."""

    def __init__(self, environment):
        """Of these variables, a dict, each process gets its environment."""
        self._environment = environment
        self._running = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def call(self, command, log_path):
        """Runs a script of the root to its end.

        Args:
          command: The script's name and what it is given, a list.
          log_path: File to which all that it prints is appended.

        Returns:
          Its exit status; None if it was not started because all are being stopped.
        """
        script, *arguments = command
        with open(log_path, "ab") as log:
            with self._lock:
                if self._is_stopped:
                    return None
                # In a session of its own Ctrl-C does not reach it, but `stop` does, once.
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


def run_all(planned, out, num_jobs, log=print):
    """Runs what is not done, and tells of every run when it ends.

    Ctrl-C and SIGTERM let the steps of the moment end and be saved, and exit; a second one does not
    wait.

    Args:
      planned: A list of `comparisons.Run`.
      out: Directory of all.
      num_jobs: Runs at a time.
      log: Function of a line.

    Returns:
      How many runs failed.
    """
    children = Children({**_thread_limits(num_jobs), **os.environ})
    executor = concurrent.futures.ThreadPoolExecutor(num_jobs)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    num_failed = 0
    try:
        tasks = [executor.submit(finish, run, out, children) for run in planned]
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
    """Environment in which a process computes on its share of the cores; a single job has all."""
    if num_jobs == 1:
        return {}
    num_threads = str(max(1, (os.cpu_count() or 1) // num_jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return dict.fromkeys(names, num_threads)


def finish(run, out, children):
    """Brings a run to its end, from wherever it is.

    Args:
      run: `comparisons.Run`.
      out: Directory of all.
      children: Children.

    Returns:
      A line on what it came to, and whether all went well.
    """
    title, run_dir = f"{run.row}, seed {run.seed}", directory(run, out)
    start = time.monotonic()
    try:
        if results.is_finished(run_dir):
            return f"{title}: done before", True
        train, evaluate = commands(run, out)
        if checkpoints.latest(run_dir) is not None:
            train = ["train.py", "--load_params", f"--save_dir={run_dir}"]
        if not results.is_trained(run_dir):
            status = children.call(train, run_dir / "train.log")
            if status == 0 and not results.is_trained(run_dir):
                status = "0 before the last epoch"  # a signal ended it, saved
            if status != 0:
                return _failure(title, "train.py", status, run_dir / "train.log"), False
        status = children.call(evaluate, run_dir / "evaluate.log")
        if status != 0:
            return _failure(title, "evaluate.py", status, run_dir / "evaluate.log"), False
        minutes = (time.monotonic() - start) / 60
        return f"{title}: {results.read(run_dir).test:.4f} bits/dim, {minutes:.1f} min", True
    except (OSError, ValueError) as error:
        return f"{title}: FAILED, {' '.join(str(error).split())}", False


def _failure(title, script, status, log_path):
    """One line on a script that failed: its last one, and where the others are."""
    lines = [line.strip() for line in log_path.read_text(errors="replace").split("\n")]
    last_line = next((line for line in reversed(lines) if line), "it said nothing")
    return f"{title}: FAILED, {script} ended with status {status}, log in {log_path}: {last_line}"
