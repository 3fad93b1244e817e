import types

import pytest
import specimens
import tensorflow as tf

from pixel_cnn_pp import devices

ROOT = specimens.GOLDEN.parent.parent


def test_without_a_gpu_training_is_on_the_cpu_and_says_so_in_one_line(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    lines = []
    strategy = devices.make_strategy(8, log=lines.append)
    assert lines == ["No GPU found (nr_gpu=8): training on the CPU."]
    assert strategy.extended.worker_devices == ("/job:localhost/replica:0/task:0/device:CPU:0",)


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretends that there are two GPUs; strategies are lists of their devices."""
    devices = [types.SimpleNamespace(name=f"/device:GPU:{number}") for number in range(2)]
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: devices if kind == "GPU" else []
    )
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: devices)


@pytest.mark.parametrize(
    ("nr_gpu", "devices"),
    [(0, ["CPU:0"]), (1, ["/device:GPU:0"]), (2, ["/device:GPU:0", "/device:GPU:1"])],
)
def test_training_is_on_as_many_gpus_as_asked_for(nr_gpu, devices, two_gpus):
    lines = []
    assert devices.make_strategy(nr_gpu, log=lines.append) == devices
    assert lines == []


def test_more_gpus_than_there_are_is_one_line(two_gpus):
    message = r"`nr_gpu` must be at most 2, the GPUs of this machine\. Received: nr_gpu=3"
    with pytest.raises(ValueError, match=message) as caught:
        devices.make_strategy(3)
    assert "\n" not in str(caught.value)
