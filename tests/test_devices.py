import contextlib
import json
import os
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import specimens
import tensorflow as tf

from pixel_cnn_pp.runs import checkpoints, devices

ROOT = specimens.GOLDEN.parent.parent


@pytest.mark.parametrize(
    ("nr_gpu", "told"), [(8, "No GPU found (nr_gpu=8)"), (None, "No GPU found")]
)
def test_without_a_gpu_training_is_on_the_cpu_and_says_so_in_one_line(nr_gpu, told, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    lines = []
    strategy = devices.make_strategy(nr_gpu, log=lines.append)
    assert lines == [f"{told}: training on the CPU."]
    assert strategy.extended.worker_devices == ("/job:localhost/replica:0/task:0/device:CPU:0",)


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretends that there are two GPUs; strategies are lists of their devices."""

    def list_devices(kind):
        number = {"GPU": 2, "CPU": 1}[kind]
        return [types.SimpleNamespace(name=f"/device:{kind}:{index}") for index in range(number)]

    monkeypatch.setattr(tf.config, "list_physical_devices", list_devices)
    monkeypatch.setattr(tf.config, "list_logical_devices", list_devices)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: devices)


@pytest.mark.parametrize(
    ("nr_gpu", "expected"),
    [
        (0, ["/device:CPU:0"]),
        (1, ["/device:GPU:0"]),
        (2, ["/device:GPU:0", "/device:GPU:1"]),
        (None, ["/device:GPU:0", "/device:GPU:1"]),
    ],
)
def test_training_is_on_as_many_gpus_as_asked_for(nr_gpu, expected, two_gpus):
    lines = []
    assert devices.make_strategy(nr_gpu, log=lines.append) == expected
    assert lines == []


def test_more_gpus_than_there_are_is_one_line(two_gpus):
    message = r"`nr_gpu` must be at most 2, the GPUs of this machine\. Received: nr_gpu=3"
    with pytest.raises(ValueError, match=message) as caught:
        devices.make_strategy(3)
    assert "\n" not in str(caught.value)


def test_of_several_cpu_devices_training_is_on_one_where_no_number_is_given(monkeypatch):
    found = [types.SimpleNamespace(name=f"/device:CPU:{index}") for index in range(4)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: found)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: devices)
    assert devices.make_strategy(log=lambda line: None) == ["/device:CPU:0"]


# Several workers


@pytest.mark.parametrize(("nr_gpu", "number"), [(0, 0), (1, 1), (2, 2), (None, 2)])
def test_a_worker_takes_as_many_gpus_of_its_machine(nr_gpu, number, two_gpus, monkeypatch):
    task = {"type": "worker", "index": 0}
    tf_config = json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": task})
    monkeypatch.setenv("TF_CONFIG", tf_config)
    visible = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda found, kind: visible.extend(found))
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: "several")
    assert devices.make_strategy(nr_gpu, log=lambda line: None) == "several"
    assert [gpu.name for gpu in visible] == [f"/device:GPU:{index}" for index in range(number)]


@pytest.mark.parametrize("tf_config", ["", " \n"])
def test_an_empty_cluster_is_none(tf_config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config)
    assert devices.num_workers(devices.make_strategy(0)) == 1
    assert "TF_CONFIG" not in os.environ, "TensorFlow would read it as JSON"


@pytest.mark.parametrize(
    ("jobs", "task", "expected"),
    [
        ({"worker": ["a:1", "b:1", "c:1"]}, ("worker", 2), (3, 2)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("worker", 0), (3, 1)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("chief", 0), (3, 0)),
    ],
)
def test_a_chief_is_the_first_of_the_workers(jobs, task, expected):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(jobs), task_type=task[0], task_id=task[1]
    )
    strategy = types.SimpleNamespace(cluster_resolver=resolver)
    assert (devices.num_workers(strategy), devices.worker_index(strategy)) == expected


def test_a_strategy_of_one_process_has_one_worker():
    for strategy in (tf.distribute.MirroredStrategy(["/cpu:0"]), tf.distribute.get_strategy()):
        assert (devices.num_workers(strategy), devices.worker_index(strategy)) == (1, 0)


@pytest.mark.parametrize(
    "address",
    ["host0", "10.0.0.1", "host0:", ":2222", "host0:http", "::1", "host0:0", "host0:65536"],
)
def test_an_address_without_a_port_is_one_line(address):
    task = {"type": "worker", "index": 0}
    with pytest.raises(
        ValueError, match=r"^Each address of TF_CONFIG must be a host and"
    ) as caught:
        devices._cluster(json.dumps({"cluster": {"worker": ["a:1", address]}, "task": task}))
    assert str(caught.value).endswith(f"such as 10.0.0.1:2222. Received: {address!r}")


def test_two_workers_at_one_address_are_one_line():
    cluster = {"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}
    message = r"^Each worker of TF_CONFIG must have an address .* Received: 'a:1' more than once$"
    with pytest.raises(ValueError, match=message):
        devices._cluster(json.dumps(cluster))


def test_an_address_of_ipv6_stands_in_brackets():
    worker = ["[::1]:2222", "[fe80::1]:2222"]
    cluster = {"cluster": {"worker": worker}, "task": {"type": "worker", "index": 0}}
    assert devices._cluster(json.dumps(cluster)) == worker


@pytest.mark.parametrize(
    "tf_config",
    [
        "{",
        "[]",
        "7",
        "{}",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker"}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "0"}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": [1, 2]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_a_tf_config_of_another_form_is_one_line(tf_config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config.replace(" ", "\n"))
    with pytest.raises(ValueError, match=r"^TF_CONFIG must be JSON with a `cluster` of") as caught:
        devices.make_strategy(0)
    assert str(caught.value).endswith(f"Received: TF_CONFIG={tf_config}")


@pytest.mark.parametrize(
    ("tf_config", "addresses"),
    [
        (None, None),
        ("", None),
        # One alone needs no other.
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', None),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}',
            ["a:1", "b:1"],
        ),
        (
            '{"cluster": {"worker": ["b:1"], "chief": ["a:1"]}, '
            '"task": {"type": "chief", "index": 0}}',
            ["a:1", "b:1"],
        ),
    ],
)
def test_a_cluster_is_what_tf_config_says(tf_config, addresses):
    assert devices._cluster(tf_config) == addresses


# train.py on the smallest network there is, smaller than a user may ask for: what is tested here
# does not depend on it, and to compile it takes its time.
TRAIN = """
import runpy, sys
from pixel_cnn_pp import config

def check(model, checked=config.ModelConfig.__post_init__):
    object.__setattr__(model, "nr_resnet", 1)
    checked(model)
    object.__setattr__(model, "nr_resnet", 0)

config.ModelConfig.__post_init__ = check
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""
FLAGS = "-d digits -n 1 -m 1 -b 32 -u 32 -t 1 -g 0 -ns 0 --peer_timeout 120"


@pytest.fixture(scope="module")
def start():
    """Function (TF_CONFIGs, flags of each worker) -> processes, killed when the block ends."""

    @contextlib.contextmanager
    def started(tf_configs, *flags):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        del environment["TF_CPP_MIN_LOG_LEVEL"]  # a user sees what there is
        workers = []
        try:
            for tf_config, own in zip(tf_configs, flags, strict=True):
                workers.append(
                    subprocess.Popen(
                        [sys.executable, "-c", TRAIN, *FLAGS.split(), *map(str, own)],
                        cwd=ROOT,
                        env={**environment, "TF_CONFIG": tf_config},
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                )
            yield workers
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()

    return started


def next_line(worker, opening):
    """The next line of a worker with this opening; those before it are passed over."""
    for line in worker.stdout:
        if line.startswith(opening):
            return line.strip()
    raise AssertionError(f"{opening!r} never came: {worker.stderr.read()}")


def test_a_worker_that_never_sees_its_peers_gives_up(start, tf_configs, tmp_path):
    first, _ = tf_configs(2)
    flags = ("-x", 1, "-o", tmp_path / "run", "--peer_timeout", 1)
    with start([first], flags) as (worker,):
        out, err = worker.communicate(timeout=300)
    assert worker.returncode == -signal.SIGKILL
    assert out == "Waiting for all 2 workers of TF_CONFIG.\n"
    addresses = ", ".join(json.loads(first)["cluster"]["worker"])
    assert err == (
        f"Gave up: not all workers of TF_CONFIG were there within 1.0 s ({addresses}). "
        "Start all of them, or allow more by --peer_timeout.\n"
    )
    assert not (tmp_path / "run").exists()


def test_ctrl_c_ends_a_worker_that_waits_for_its_peers(start, tf_configs, tmp_path):
    first, _ = tf_configs(2)
    with start([first], ("-x", 1, "-o", tmp_path / "run")) as (worker,):
        next_line(worker, "Waiting for all 2 workers")
        worker.send_signal(signal.SIGINT)
        assert worker.wait(timeout=10) == -signal.SIGINT
        assert worker.stderr.read() == ""


def test_workers_with_different_flags_are_one_line(start, tf_configs, tmp_path):
    same = ("-x", 1, "-o", tmp_path / "run")
    with start(tf_configs(2), same, (*same, "-l", 0.5)) as workers:
        ends = [worker.communicate(timeout=300) for worker in workers]
        assert [worker.returncode for worker in workers] == [1, 1]
    for _, err in ends:
        assert err == (
            "train.py: All workers must have the same flags, data and checkpoint. "
            "Received: others in another worker\n"
        )
    assert os.listdir(tmp_path / "run") == [".lock"]


@pytest.fixture(scope="module")
def lost(start, tf_configs, tmp_path_factory):
    """Two workers, of which one was killed, and both started again: what they left and said."""
    run_dir = tmp_path_factory.mktemp("lost") / "run"
    flags = ("-x", 5000, "-o", run_dir)
    with start(tf_configs(2), flags, flags) as (chief, other):
        next_line(chief, "Saved epoch 1")
        other.kill()
        told, reason = chief.communicate(timeout=60)
        assert other.wait() == -signal.SIGKILL
    checkpoint = checkpoints.latest(run_dir)
    stood = json.loads((checkpoint / "state.json").read_text())
    arrays = {path.name: dict(np.load(path)) for path in checkpoint.glob("*.npz")}
    flags = ("-x", stood["epoch"] + 2, "-o", run_dir, "-r")
    with start(tf_configs(2), flags, flags) as workers:
        ends = [worker.communicate(timeout=300) for worker in workers]
        statuses = [worker.returncode for worker in workers]
    return types.SimpleNamespace(
        run_dir=run_dir,
        status=chief.returncode,
        told=told,
        reason=reason,
        stood=stood,
        arrays=arrays,
        statuses=statuses,
        ends=ends,
    )


def test_a_worker_whose_peer_is_killed_ends_with_one_line(lost):
    assert lost.status == 1
    assert lost.reason.count("\n") == 1
    assert lost.reason.startswith(
        "train.py: Another worker was lost, and training stopped. Start all workers again with "
        "--load_params: they go on from the last checkpoint. Reason: "
    )
    assert "Graph execution error" not in lost.reason


def test_workers_that_are_started_again_go_on_from_the_last_checkpoint(lost):
    assert lost.statuses == [0, 0]
    (told, err), (_, other_err) = lost.ends
    assert err == other_err == ""
    epoch, step = lost.stood["epoch"], lost.stood["step"]
    assert step == 24 * epoch  # 1541 images in batches of 64
    _, what, where, first, _, second, saved_last = told.splitlines()
    assert what.endswith(" 2 replicas") and "1541 training and 256 test images" in what
    assert where == f"Resumed from epoch {epoch}, step {step}."
    assert first.startswith(f"epoch {epoch + 1}/{epoch + 2}  step {step + 24} ")
    assert second.startswith(f"epoch {epoch + 2}/{epoch + 2}  step {step + 48} ")
    assert saved_last == f"Saved epoch {epoch + 2} to {lost.run_dir}."
    # What was on the disk is whole.
    assert all(np.isfinite(array).all() for file in lost.arrays.values() for array in file.values())
    assert lost.arrays.keys() == {"weights.npz", "averages.npz", "optimizer.npz"}
    assert sorted(os.listdir(lost.run_dir / "checkpoints")) == [
        f"step_{number:012d}" for number in (step + 24, step + 48)
    ]


def test_only_the_chief_writes_and_tells(lost):
    _, (other_told, _) = lost.ends
    assert other_told.splitlines() == [
        "Waiting for all 2 workers of TF_CONFIG.",
        "Worker 1 of 2: worker 0 reports and writes.",
    ]
    assert sorted(path.name for path in lost.run_dir.glob("[!.]*")) == [
        "checkpoints",
        "config.json",
        "tensorboard",
    ]
    # One event file of the chief for each of the two starts.
    assert len(os.listdir(lost.run_dir / "tensorboard")) == 2
