"""The devices that a run trains on: GPUs of one or several machines, or the CPU."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading

import tensorflow as tf

# The allowed task types of a cluster. All replicas train synchronously, so there are no others.
_TASK_TYPES = ("chief", "worker")
# Name or IP address of a host, and a port. An IPv6 address is in brackets.
_ADDRESS = re.compile(r"([^\s:\[\]]+|\[[^\s\[\]]+\]):(?P<port>[0-9]{1,5})")
_MAX_PORT = 65535


def make_strategy(nr_gpu=None, peer_timeout=600, log=print):
    """Makes the distribution strategy for the devices that a run trains on.

    If the environment variable TF_CONFIG is set, the run trains on several machines. TF_CONFIG is
    TensorFlow's standard description of a cluster. It is the same on every machine except for the
    index: '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker",
    "index": 0}}'.

    This function must be called before TensorFlow computes anything.

    Args:
      nr_gpu: Number of GPUs of each machine to train on, at least 0. None for all GPUs. A machine
        without a GPU trains on its CPU. There, it is the number of logical CPU devices to use, if
        TensorFlow was configured to make several, and None means one.
      peer_timeout: Seconds that a worker waits for the other workers before it gives up.
      log: Function of a string. It gets a line if the run trains on the CPU instead of a GPU, and
        a line while this worker waits for the others.

    Returns:
      `tf.distribute.MirroredStrategy`, or `tf.distribute.MultiWorkerMirroredStrategy`.

    Raises:
      ValueError: If the machine has GPUs, but fewer than `nr_gpu`, or if TF_CONFIG has another
        form.
    """
    if not os.environ.get("TF_CONFIG", "-").strip():
        del os.environ["TF_CONFIG"]  # TensorFlow would read it as JSON
    cluster = _cluster(os.environ.get("TF_CONFIG"))
    physical_gpus = tf.config.list_physical_devices("GPU")
    if nr_gpu is None:
        nr_gpu = len(physical_gpus)
        if not physical_gpus:
            log("No GPU found: training on the CPU.")
    elif nr_gpu > 0 and not physical_gpus:
        log(f"No GPU found (nr_gpu={nr_gpu}): training on the CPU.")
    elif nr_gpu > len(physical_gpus):
        raise ValueError(
            f"`nr_gpu` must be at most {len(physical_gpus)}, the GPUs of this machine. "
            f"Received: nr_gpu={nr_gpu}"
        )
    if cluster is not None:
        # MultiWorkerMirroredStrategy uses all visible GPUs.
        tf.config.set_visible_devices(physical_gpus[:nr_gpu], "GPU")
        message = (
            f"Gave up: not all workers of TF_CONFIG were there within {peer_timeout} s "
            f"({', '.join(cluster)}). Start all of them, or allow more by --peer_timeout."
        )
        with _gives_up(peer_timeout, message):
            log(f"Waiting for all {len(cluster)} workers of TF_CONFIG.")
            return tf.distribute.MultiWorkerMirroredStrategy()
    kind = "GPU" if nr_gpu > 0 and physical_gpus else "CPU"
    found = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(found[: max(nr_gpu, 1)])


def num_replicas(strategy):
    """Number of devices that train together under a strategy, over all processes."""
    return strategy.num_replicas_in_sync


def num_workers(strategy):
    """Number of processes that train together under a strategy."""
    if strategy.cluster_resolver is None:
        return 1
    cluster = strategy.cluster_resolver.cluster_spec()
    return max(sum(cluster.num_tasks(job) for job in cluster.jobs), 1)


def worker_index(strategy):
    """Index of this process, in [0, num_workers - 1]. Process 0 is the chief."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return 0
    # The chief comes first. There is at most one.
    has_chief = resolver.task_type == "worker" and "chief" in resolver.cluster_spec().jobs
    return resolver.task_id + has_chief


def _cluster(tf_config):
    """The addresses of the workers in TF_CONFIG, or None if there are not several workers."""
    if not tf_config:
        return None
    try:
        values = json.loads(tf_config)
        jobs, task = values["cluster"], values["task"]
        addresses = [address for job in _TASK_TYPES for address in jobs.get(job, [])]
        is_right = (
            set(jobs) <= set(_TASK_TYPES)
            and len(jobs.get("chief", [])) <= 1
            and all(isinstance(job, list) for job in jobs.values())
            and all(isinstance(address, str) for address in addresses)
            and task["index"] in range(len(jobs[task["type"]]))
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        is_right = False
    if not is_right:
        raise ValueError(
            "TF_CONFIG must be JSON with a `cluster` of `worker` addresses, at most one `chief` "
            "among them, and this process's `task` with `type` and `index`. "
            f"Received: TF_CONFIG={' '.join(tf_config.split())}"
        )
    for address in addresses:
        parts = _ADDRESS.fullmatch(address)
        if parts is None or not 1 <= int(parts["port"]) <= _MAX_PORT:
            raise ValueError(
                f"Each address of TF_CONFIG must be a host and a port from 1 to {_MAX_PORT}, "
                f"such as 10.0.0.1:2222. Received: {address!r}"
            )
        if addresses.count(address) > 1:
            raise ValueError(
                f"Each worker of TF_CONFIG must have an address of its own. Received: {address!r} "
                "more than once"
            )
    return addresses if len(addresses) > 1 else None


# Code of a separate process, with the arguments (process to end, seconds, message). It waits until
# its standard input is closed, and ends the other process if this takes too long.
_WATCH = """
import os, select, signal, sys
pid, seconds, message = sys.argv[1:]
if not select.select([sys.stdin], [], [], float(seconds))[0]:
    print(message, file=sys.stderr, flush=True)
    os.kill(int(pid), signal.SIGKILL)  # TensorFlow takes SIGTERM for itself by now
"""


@contextlib.contextmanager
def _gives_up(seconds, message):
    """A context that ends this process with a message if it takes longer than `seconds`.

    TensorFlow waits for the other workers in C++, and no other Python thread can run meanwhile.
    Therefore a second process measures the time, and Ctrl-C ends this process at once.
    """
    watch = subprocess.Popen(
        [sys.executable, "-c", _WATCH, str(os.getpid()), str(seconds), message],
        stdin=subprocess.PIPE,
        start_new_session=True,  # so that Ctrl-C does not reach it
    )
    # In Python, only the main thread can set signal handlers.
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        watch.stdin.close()
        watch.wait()
        if is_main:
            signal.signal(signal.SIGINT, previous)
