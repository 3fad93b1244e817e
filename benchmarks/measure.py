"""What the benchmarks share: work, times, the machine's rates and memory, tables, processes.

A benchmark is a script that prints a Markdown table. It measures every case in a process of its
own, because the peak memory of a process never falls again. Nothing here needs TensorFlow, so a
machine that has only Keras and JAX can be measured too.
"""

import concurrent.futures
import contextlib
import importlib
import importlib.util
import json
import math
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

# A benchmark calls itself with this flag. Only --helpfull lists it.
flags.DEFINE(
    flags.ArgumentParser(), "case", None, "Measure this one, print JSON", module_name="internal"
)

# How PyTorch is installed for CPUs. Its own pages tell which build fits a GPU.
_TORCH = "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
# Side of the square matrices whose product is timed.
MATRIX_SIDE = 2048
# How many products are timed for a rate of the machine, which is the best of them.
_RATE_REPEATS = 5


# Work


def flops_per_image(model, height, width):
    """Additions and multiplications of one pass of the network over one image.

    The cached sampler does the same ones, and so one image costs it as many. Counted are the
    products with kernels, 2 F_in F_out a position and a tap of the filter, zeros of the padding
    included; not counted is what a pass does by the element, such as nonlinearities.

    Args:
      model: PixelCNNPP.
      height: H of the image.
      width: W of the image.

    Returns:
      Whole number.
    """
    flops = 0
    for layers, level in _all_layers(model):
        for layer in layers:
            flops += 2 * math.prod(layer.v.shape) * (height * width // 4**level)
    if model.config.num_classes is not None:
        blocks = [x for x in model.layers if getattr(x, "hw", None) is not None]
        flops += sum(2 * math.prod(block.hw.shape) for block in blocks)  # once an image
    return flops


def training_flops_per_image(model, height, width):
    """Additions and multiplications of one training step, for each image of its batch.

    A product with a kernel is followed by two of the same size on the way back: for the gradient of
    its inputs, and for that of the kernel.

    Args:
      model: PixelCNNPP.
      height: H of the image.
      width: W of the image.

    Returns:
      Whole number.
    """
    return 3 * flops_per_image(model, height, width)


def with_levels(stream, level):
    """Pairs (layer, level) of a stream that starts at a level.

    A filter is applied at H W / 4^level positions: at those of the outputs, or, where resolution
    doubles, at those of the inputs, each of which it spreads over 2 x 2 outputs.
    """
    from pixel_cnn_pp.layers import WeightNormConv2D, WeightNormConv2DTranspose

    for layer in stream:
        if isinstance(layer, WeightNormConv2D):
            level += 1
        yield layer, level
        if isinstance(layer, WeightNormConv2DTranspose):
            level -= 1


def coarsest(model):
    """The level that the encoder ends at."""
    *_, (_, level) = with_levels(model.encoder_down, 0)
    return level


def _all_layers(model):
    """Pairs (weight-normalised layers, level) of the whole network."""
    yield (model.input_above, model.input_row_above, model.input_left, model.output_layer), 0
    for part, first_level in (("encoder", 0), ("decoder", coarsest(model))):
        for stream in ("down", "right"):
            for layer, level in with_levels(getattr(model, f"{part}_{stream}"), first_level):
                if hasattr(layer, "v"):
                    yield (layer,), level
                else:
                    inner = (layer.conv_in, layer.skip, layer.conv_out)
                    yield tuple(x for x in inner if x is not None), level


# Times


def seconds_of_calls(function, repeats):
    """The times of so many calls, one by one."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def best_seconds(function, repeats):
    """Shortest time of a call, of so many."""
    return min(seconds_of_calls(function, repeats))


def best_compiled(function, arguments):
    """Shortest time of a function from tensors to a tensor, compiled with and without XLA."""
    from keras import ops

    from pixel_cnn_pp.sampling import draw

    def run(compiled):
        # Waits for devices that work on their own; one number in bfloat16 is more than NumPy takes.
        ops.convert_to_numpy(compiled(*arguments)[:1])

    times = []
    for with_xla in (False, True):
        compiled = draw.compile_function(function, with_xla)
        run(compiled)
        times.append(best_seconds(lambda compiled=compiled: run(compiled), _RATE_REPEATS))
    return min(times)


# What the machine is capable of


def matrix_product_rate(dtype, side=MATRIX_SIDE, num_products=1):
    """FLOP/s of products of big square matrices, as the backend does them best.

    Args:
      dtype: That of the matrices.
      side: Number of their rows and columns.
      num_products: How many of them, one after the other, are timed together: more where one takes
        no longer than its call.

    Returns:
      A float.
    """
    from keras import ops

    def multiply(x, matrix):
        for _ in range(num_products):
            x = ops.matmul(x, matrix)
        return x

    # The second one keeps the size of the entries.
    arguments = [_normal((side, side), dtype), _normal((side, side), dtype, 1 / math.sqrt(side))]
    return num_products * 2 * side**3 / best_compiled(multiply, arguments)


def convolution_rate(batch_size, size, channels, dtype):
    """FLOP/s of the network's own kind of convolution, as the backend does it best.

    That is a filter of 2 x 3 on images that have their zeros above and on both sides already.

    Args:
      batch_size: B.
      size: Height and width of the outputs.
      channels: Number of input channels, and of output channels.
      dtype: That of images and filter.

    Returns:
      A float.
    """
    from keras import ops

    def convolve(x, kernel):
        return ops.conv(x, kernel, padding="valid", data_format="channels_last")

    kernel_shape = (2, 3, channels, channels)
    arguments = [
        _normal((batch_size, size + 1, size + 2, channels), dtype),
        _normal(kernel_shape, dtype),
    ]
    flops = 2 * math.prod(kernel_shape) * batch_size * size**2
    return flops / best_compiled(convolve, arguments)


def _normal(shape, dtype, stddev=1):
    """A tensor of normal numbers."""
    from keras import ops

    drawn = np.random.default_rng(0).standard_normal(shape, "float32") * np.float32(stddev)
    return ops.cast(drawn, dtype)


# Memory


def peak_memory():
    """Largest number of bytes of memory that this process has had at a time; None if unknown."""
    # Not getrusage where it can be helped: its number starts from that of the parent process.
    in_status = _memory_of_status("VmHWM")
    if in_status is not None:
        return in_status
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def present_memory():
    """Number of bytes of memory that this process has now; None if unknown."""
    return _memory_of_status("VmRSS")


def _memory_of_status(name):
    """Bytes of a line of Linux's account of this process; None where there is none."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None


# Processes and tables


def in_new_process(script, case, **environment):
    """What a benchmark measures for a case, in a process of its own.

    Args:
      script: Path of the benchmark. Called with `--case`, it prints what it measured as JSON, in
        its last line.
      case: What can be written as JSON.
      **environment: Variables to set in the environment of the process.

    Returns:
      What can be written as JSON.

    Raises:
      OSError: If the process fails.
    """
    done = subprocess.run(
        [sys.executable, os.path.abspath(script), "--case", json.dumps(case)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise OSError(f"A case ended with exit status {done.returncode}: {json.dumps(case)}")
    return json.loads(done.stdout.splitlines()[-1])


def in_new_processes(script, cases, jobs, environment_of=lambda case: {}):
    """What a benchmark measures for several cases, some of which may be compiled at the same time.

    Args:
      script: As in `in_new_process`.
      cases: List of dicts. If `jobs` is above 1, each gets a lock for `turn` as "lock".
      jobs: How many processes run at the same time.
      environment_of: Function from a case to the variables of its process.

    Yields:
      What `in_new_process` returns for each case, in order.
    """
    if jobs == 1:
        for case in cases:
            yield in_new_process(script, {**case, "lock": None}, **environment_of(case))
        return
    with tempfile.NamedTemporaryFile() as lock:

        def run(case):
            # JAX would take most of the memory of a GPU for the first process.
            environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **environment_of(case)}
            return in_new_process(script, {**case, "lock": lock.name}, **environment)

        with concurrent.futures.ThreadPoolExecutor(jobs) as executor:
            yield from executor.map(run, cases)


@contextlib.contextmanager
def turn(case, is_alone):
    """A context for a part of what a process of `in_new_processes` does.

    Args:
      case: The case of the process.
      is_alone: Whether all other processes wait meanwhile, because it is timed.
    """
    if case["lock"] is None:
        yield
        return
    import fcntl  # which Windows does not have

    with open(case["lock"]) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        yield


def require_torch():
    """Raises a ValueError that says how PyTorch is installed, where it is missing."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError(f"`torch` needs PyTorch ({_TORCH}). Received: a Python without it")


def whole_numbers(name, texts):
    """The values of a list flag, as numbers."""
    try:
        values = [int(text) for text in texts]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise ValueError(
            f"`{name}` must be whole numbers of at least 1, separated by commas. "
            f"Received: {name}={','.join(texts)}"
        )
    return values


def network_cases(texts, size):
    """The cases of a list flag `cases`, "filters/blocks/batch size" each, and their size of images.

    Args:
      texts: Values of the flag.
      size: Height and width of the images.

    Returns:
      List of dicts with "filters", "nr_resnet", "batch_size" and "size".

    Raises:
      ValueError: If they are not of this form.
    """
    cases = []
    for text in texts:
        if not re.fullmatch(r"[1-9]\d*(/[1-9]\d*){2}", text):
            raise ValueError(
                "`cases` must be filters/blocks/batch size, three whole numbers of at least 1. "
                f"Received: cases={text}"
            )
        filters, nr_resnet, batch_size = map(int, text.split("/"))
        cases.append(
            {"filters": filters, "nr_resnet": nr_resnet, "batch_size": batch_size, "size": size}
        )
    if not cases:
        raise ValueError("`cases` must name at least one case. Received: cases=")
    return cases


def case_title(case):
    """A case of `network_cases` as it stands in a table."""
    return f"{case['filters']}/{case['nr_resnet']}/{case['batch_size']}"


def table_row(cells):
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def digits(number):
    """A number to three significant digits, without an exponent; "-" for None."""
    if number is None:
        return "-"
    return np.format_float_positional(number, 3, unique=False, fractional=False, trim="-")


def percentage(rate, machine_rate, unit):
    """The share that a rate has of what the machine is capable of, which follows in a unit."""
    return f"{digits(100 * rate / machine_rate)}% of {digits(machine_rate / unit)}"


def mebibytes(num_bytes):
    """Bytes in MiB, to the nearest; "-" for None."""
    return "-" if num_bytes is None else f"{num_bytes / 2**20:.0f}"


def machine():
    """One line: cores, processor, versions, and what was computed on."""
    import keras

    has_affinity = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    backend = keras.backend.backend()
    return (
        f"Machine: {num_cores} cores, {names[0] if names else platform.processor() or 'unknown'}; "
        f"Keras {keras.version()} on {backend} {importlib.import_module(backend).__version__}, "
        f"device {keras.distribution.list_devices()[0]}"
    )
