"""The devices that a run trains on if Keras computes with JAX: those of one machine."""

import os
import sys

import jax
import keras

# What XLA puts into CUDA graphs. By default, it leaves out the convolutions. Then the processor
# takes four times as long to launch the two thousand operations of a step.
_GRAPH_OPERATIONS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,CONVOLUTION"
# The first release of JAX that knows the option that is named below.
_FIRST_WITH_SCHEDULING = 0, 7, 2


def make_strategy(nr_gpu=None, peer_timeout=600, log=print):
    """Chooses the devices that a run trains on.

    TensorFlow still reads the data on such a run. It gets no GPU, because it would take the memory.

    Args:
      nr_gpu: Number of GPUs to train on, at least 0. None for all GPUs. A machine without a GPU
        trains on its CPU. There, it is the number of logical CPU devices to use, if JAX was
        configured to make several, and None means one.
      peer_timeout: Not used, because there are no other workers.
      log: Function of a string. It gets a line if the run trains on the CPU instead of a GPU.

    Returns:
      `keras.distribution.DataParallel`.

    Raises:
      ValueError: If the machine has GPUs, but fewer than `nr_gpu`, if `nr_gpu` is 0 but JAX has
        computed on a GPU already, or if TF_CONFIG is set.
    """
    tf_config = os.environ.get("TF_CONFIG", "").strip()
    if tf_config:
        raise ValueError(
            "TF_CONFIG must not be set: with KERAS_BACKEND=jax, a run trains on one machine. "
            f"Received: TF_CONFIG={' '.join(tf_config.split())}"
        )
    # TensorFlow need not be installed.
    if (tensorflow := sys.modules.get("tensorflow")) is not None:
        tensorflow.config.set_visible_devices([], "GPU")
    if nr_gpu == 0:
        jax.config.update("jax_platforms", "cpu")  # without an effect after JAX has computed
    found = keras.distribution.list_devices()
    if found[0].startswith("cpu"):
        if nr_gpu != 0:
            asked = "" if nr_gpu is None else f" (nr_gpu={nr_gpu})"
            log(f"No GPU found{asked}: training on the CPU.")
        nr_gpu = max(nr_gpu or 1, 1)
    elif nr_gpu == 0:
        raise ValueError(
            "`nr_gpu` must be at least 1 after JAX has computed on a GPU; JAX_PLATFORMS=cpu keeps "
            "it on the CPU. Received: nr_gpu=0"
        )
    elif nr_gpu is not None and nr_gpu > len(found):
        raise ValueError(
            f"`nr_gpu` must be at most {len(found)}, the GPUs of this machine. "
            f"Received: nr_gpu={nr_gpu}"
        )
    return keras.distribution.DataParallel(devices=found[:nr_gpu], auto_shard_dataset=False)


def is_on_gpu():
    """Whether JAX computes on GPUs."""
    return keras.distribution.list_devices()[0].startswith("gpu")


def compiler_options():
    """Options of `jax.jit` for a whole network; None where XLA's own are the best ones."""
    if not is_on_gpu():
        return None
    options = {"xla_gpu_enable_command_buffer": _GRAPH_OPERATIONS}
    if jax.__version_info__ >= _FIRST_WITH_SCHEDULING:
        # Operations that do not wait for each other run at the same time, such as those of the two
        # streams of PixelCNN++. Most of them are too small to fill a GPU.
        options["xla_gpu_command_buffer_scheduling_mode"] = "CONCURRENT"
    return options


def num_replicas(strategy):
    """Number of devices that train together under a strategy."""
    return strategy.device_mesh.devices.size


def num_workers(strategy):
    """Number of processes that train together: always 1."""
    return 1


def worker_index(strategy):
    """Index of this process: always 0."""
    return 0
