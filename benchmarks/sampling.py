"""Times the naive and the cached sampler, as a Markdown table: python benchmarks/sampling.py.

Every case is measured in a process of its own, because a process's peak memory never falls again.
Beside the times stands what the machine is capable of, measured in the same process: the rate of a
big matrix product for the arithmetic, that of matrix-vector products for the reading of weights.
"""

import itertools
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import time

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import ModelConfig

# {dtype of a model: bytes of a number that it computes with}
DTYPES = {"float32": 4, "mixed_bfloat16": 2, "float64": 8}

FLAGS = flags.FLAGS
flags.DEFINE_list("filters", "160", "Numbers of filters")
flags.DEFINE_list("sizes", "32", "Heights of the images, which are square")
flags.DEFINE_list("batch_sizes", "1,16", "How many images to draw together")
flags.DEFINE_list("dtypes", "float32,mixed_bfloat16", f"Of {', '.join(DTYPES)}")
flags.DEFINE_integer("nr_resnet", 5, "Residual blocks per stage", lower_bound=1)
flags.DEFINE_integer("nr_logistic_mix", 10, "Components of the mixture", lower_bound=1)
flags.DEFINE_integer("naive_pixels", 8, "Pixels to time the naive sampler on", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "Times are the best of so many", lower_bound=1)
# The script calls itself with it; listed by --helpfull only.
flags.DEFINE(
    flags.ArgumentParser(), "case", None, "Measure this one, print JSON", module_name="internal"
)

# Side of the square matrices whose product is timed.
_MATRIX_SIDE = 2048
# The machine's rates are the best of so many products.
_RATE_REPEATS = 5
# Matrix-vector products read at least so much in one call, the cost of which then does not count.
_BYTES_AT_LEAST = 2**28

COLUMNS = (
    "filters",
    "size",
    "batch",
    "dtype",
    "naive s/image",
    "cached s/image",
    "without XLA",
    "naive / cached",
    "cached ms/pixel",
    "first call s",
    "GFLOP/s (share of)",
    "weights GB/s (share of)",
    "cache bytes",
    "peak MiB",
)

NOTES = """\
- batch: images drawn by one call; on a CPU the cached sampler divides them among the cores.
- naive: extrapolated from the time of {naive_pixels} pixels to all pixels of the image.
- Times are the best of {repeats}; s/image is the time of the batch divided by its images, ms/pixel
  the time of the batch divided by the pixels of one image.
- without XLA: the cached sampler again, its rows by the graph's own executor; s/image.
- first call: tracing and compilation included. All other columns are of later calls.
- GFLOP/s: of the cached sampler, which multiplies as often as one pass over whole images does. The
  share is that of a matrix product, {side}^3 in the same dtype, on the whole machine.
- weights GB/s: of the kernels that the cached sampler's loop over pixels reads, batch 1 only. The
  share is that of float32 matrix-vector products, in a loop over as many bytes of matrices.
- cache bytes: what is kept of the rows above. peak: resident memory of the process, compilation
  included, after the cached sampler and before the naive one."""


def main():
    """Prints a row per case, what its columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure(json.loads(FLAGS.case))))
        return
    cases = _cases()
    print(_table_row(COLUMNS))
    print(_table_row(["---:"] * len(COLUMNS)))
    for case in cases:
        print(_table_row(_cells(case, _measure_in_new_process(case))))
    print()
    common = {"naive_pixels": FLAGS.naive_pixels, "repeats": FLAGS.repeats, "side": _MATRIX_SIDE}
    print(NOTES.format(**common))
    print()
    print(_machine())


def measure(case):
    """Measures one case, in this process.

    Args:
      case: One of the dicts of `_cases`.

    Returns:
      {name: number}; the machine's memory rate, and the rate reached, for batch 1 only.
    """
    import keras

    from pixel_cnn_pp import sampling
    from pixel_cnn_pp.model import PixelCNNPP

    model = PixelCNNPP(_model_config(case), dtype=case["dtype"])
    batch_size, size, repeats = case["batch_size"], case["size"], case["repeats"]

    def draw():
        sampling.sample(model, batch_size)

    first_call_s = best_seconds(draw, 1)
    cached_s = best_seconds(draw, repeats)
    peak_bytes = peak_memory()
    without_xla_s = best_seconds(_cached_sampler_without_xla(model, batch_size), repeats)
    draw_pixels = _naive_sampler(model, case)
    best_seconds(draw_pixels, 1)
    naive_s = best_seconds(draw_pixels, repeats) / case["naive_pixels"] * size**2

    caches = keras.tree.flatten(model.empty_cache(batch_size, size))
    measured = {
        "naive_s_per_image": naive_s / batch_size,
        "cached_s_per_image": cached_s / batch_size,
        "without_xla_s_per_image": without_xla_s / batch_size,
        "ratio": naive_s / cached_s,
        "ms_per_pixel": 1000 * cached_s / size**2,
        "first_call_s": first_call_s,
        "flops_per_s": flops_per_image(model, size, size) * batch_size / cached_s,
        "machine_flops_per_s": matrix_product_rate(model.compute_dtype),
        "cache_bytes": _item(model) * sum(math.prod(cache.shape) for cache in caches),
        "peak_bytes": peak_bytes,
    }
    if batch_size == 1:
        bytes_per_pixel = weight_bytes_per_pixel(model)
        measured["weight_bytes_per_s"] = bytes_per_pixel * size**2 / cached_s
        measured["machine_bytes_per_s"] = memory_rate(weight_bytes(model))
    return measured


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


def pixel_weights(model):
    """The kernels that the cached sampler's loop over pixels reads, with their levels.

    Of the rightward stream the rows of the filters that lie in the pixel's own row, and of the
    short-cuts the part that is not known for a whole row at once.

    Args:
      model: PixelCNNPP.

    Returns:
      List of pairs (matrix [F', F], level); a level is run for one pixel in 4^level.
    """
    weights = model.step_weights()
    found = []
    for stream in (
        [(model.input_left, 0)],
        _with_levels(model.encoder_right, 0),
        _with_levels(model.decoder_right, _coarsest(model)),
        [(model.output_layer, 0)],
    ):
        for layer, level in stream:
            own = weights[layer.name]
            if "conv_in" in own:
                kernels = [own["conv_in"]["kernel"], own["conv_out"]["kernel"]]
                kernels += [own["skip_pixel"]] if "skip_pixel" in own else []
            else:
                kernels = [own["kernel"]]
            # A doubling layer has a matrix for each of the two rows that come from one.
            kernels = [kernel[0] if len(kernel.shape) == 3 else kernel for kernel in kernels]
            found += [(kernel, level) for kernel in kernels]
    return found


def weight_bytes(model):
    """Bytes of `pixel_weights`."""
    return sum(math.prod(kernel.shape) * _item(model) for kernel, _ in pixel_weights(model))


def weight_bytes_per_pixel(model):
    """Bytes of `pixel_weights`, each counted as often as it is read for a pixel on average."""
    return sum(
        math.prod(kernel.shape) * _item(model) / 4**level for kernel, level in pixel_weights(model)
    )


def matrix_product_rate(dtype):
    """FLOP/s of a product of two big square matrices of a dtype, as the backend does it best."""
    from keras import ops

    rng = np.random.default_rng(0)
    arguments = [
        ops.cast(rng.normal(size=(_MATRIX_SIDE, _MATRIX_SIDE)).astype("float32"), dtype)
        for _ in range(2)
    ]
    return 2 * _MATRIX_SIDE**3 / _best_compiled(ops.matmul, arguments)


def memory_rate(num_bytes):
    """Bytes/s of matrix-vector products, over and over with matrices of so many bytes in all.

    In float32 whatever the model computes with, because this is to be the rate of reading, not that
    of conversions; from both sides of the matrices, of which one may be faster.
    """
    from keras import ops

    # A power of two, so that the entries keep a vector of ones as it is.
    side = 512
    num_matrices = math.ceil(num_bytes / (4 * side**2))
    num_bytes = 4 * side**2 * num_matrices
    num_rounds = math.ceil(_BYTES_AT_LEAST / num_bytes)
    matrices = [ops.full((side, side), 1 / side, "float32") for _ in range(num_matrices)]

    def from_left(vector, matrices):
        for matrix in matrices:
            vector = ops.matmul(vector, matrix)
        return vector

    def from_right(vector, matrices):
        for matrix in matrices:
            vector = ops.matmul(matrix, vector)
        return vector

    seconds = min(
        _best_compiled(
            lambda vector, matrices, products=products: ops.fori_loop(
                0, num_rounds, lambda i, vector: products(vector, matrices), vector
            ),
            [ops.ones(shape, "float32"), matrices],
        )
        for products, shape in ((from_left, (1, side)), (from_right, (side, 1)))
    )
    return num_rounds * num_bytes / seconds


def peak_memory():
    """Largest number of bytes of memory that this process has had at a time; None if unknown."""
    # Not getrusage where it can be helped: its number starts from that of the parent process.
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def best_seconds(function, repeats):
    """Shortest time of a call, of so many."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _cached_sampler_without_xla(model, batch_size):
    """Function that draws a batch by the cached sampler, compiled by the other way; called once.

    On JAX, where all is compiled by XLA, it is the same sampler again.
    """
    from pixel_cnn_pp import sampling

    draw_rows = sampling.make_draw_rows(model, compile_step=lambda step: step)
    step_weights, _ = sampling._compiled_functions(model)
    sampling._COMPILED[model] = step_weights, sampling._compile(draw_rows, False)

    def draw():
        sampling.sample(model, batch_size)

    draw()
    return draw


def _naive_sampler(model, case):
    """Function that draws the first pixels of a batch as `sampling.sample` does, method "naive"."""
    import keras
    from keras import ops

    from pixel_cnn_pp import likelihoods, sampling

    batch_size, size, channels = case["batch_size"], case["size"], model.config.image_shape[-1]
    num_uniforms = model.config.nr_logistic_mix + channels
    controls = np.array([1, 0, 0], keras.backend.standardize_dtype(model.variable_dtype))
    dtype = likelihoods.level_dtype(model.config.num_levels)
    images = np.zeros((batch_size, size, size, channels), dtype)
    known_mask = np.zeros((batch_size, size, size), bool)
    # Once a row there, so not worth a part of the time of the few pixels here.
    uniforms = sampling._uniforms(0, 0, 0, batch_size, size, num_uniforms)

    def draw_pixels():
        for pixel in range(case["naive_pixels"]):
            row, column = divmod(pixel, size)
            raw_params = ops.convert_to_tensor(model.predict_on_batch(images)[:, row, column])
            levels = sampling._draw_pixels(model.likelihood, raw_params, uniforms[column], controls)
            is_drawn = ~known_mask[:, row, column]
            images[is_drawn, row, column] = ops.convert_to_numpy(levels)[is_drawn]

    return draw_pixels


def _item(model):
    """Bytes of a number that the model computes with."""
    return DTYPES[model.dtype_policy.name]


def _all_layers(model):
    """Pairs (weight-normalised layers, level) of the whole network."""
    yield (model.input_above, model.input_row_above, model.input_left, model.output_layer), 0
    for part, first_level in (("encoder", 0), ("decoder", _coarsest(model))):
        for stream in ("down", "right"):
            for layer, level in _with_levels(getattr(model, f"{part}_{stream}"), first_level):
                if hasattr(layer, "v"):
                    yield (layer,), level
                else:
                    inner = (layer.conv_in, layer.skip, layer.conv_out)
                    yield tuple(x for x in inner if x is not None), level


def _with_levels(stream, level):
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


def _coarsest(model):
    """The level that the encoder ends at."""
    *_, (_, level) = _with_levels(model.encoder_down, 0)
    return level


def _best_compiled(function, arguments):
    """Shortest time of a function from tensors to a tensor, compiled with and without XLA."""
    from keras import ops

    from pixel_cnn_pp import sampling

    def run(compiled):
        # Waits for devices that work on their own; one number in bfloat16 is more than NumPy takes.
        ops.convert_to_numpy(compiled(*arguments)[:1])

    times = []
    for with_xla in (False, True):
        compiled = sampling._compile(function, with_xla)
        run(compiled)
        times.append(best_seconds(lambda compiled=compiled: run(compiled), _RATE_REPEATS))
    return min(times)


def _cases():
    """One dict a case, from the flags; complains before anything is measured."""
    numbers = {name: _whole_numbers(name) for name in ("filters", "sizes", "batch_sizes")}
    for size in numbers["sizes"]:
        if size % 4:
            raise ValueError(f"`sizes` must be multiples of 4. Received: sizes={size}")
    if not FLAGS.dtypes or set(FLAGS.dtypes) - set(DTYPES):
        raise ValueError(
            f"`dtypes` must be of {', '.join(DTYPES)}. Received: dtypes={','.join(FLAGS.dtypes)}"
        )
    if FLAGS.naive_pixels > min(numbers["sizes"]) ** 2:
        raise ValueError(
            f"`naive_pixels` must be at most {min(numbers['sizes']) ** 2}, the pixels of the "
            f"smallest image. Received: naive_pixels={FLAGS.naive_pixels}"
        )
    names = ("nr_resnet", "nr_logistic_mix", "naive_pixels", "repeats")
    common = {name: FLAGS[name].value for name in names}
    product = itertools.product(*numbers.values(), FLAGS.dtypes)
    return [
        dict(zip(("filters", "size", "batch_size", "dtype"), case, strict=True), **common)
        for case in product
    ]


def _whole_numbers(name):
    """The values of a list flag."""
    try:
        values = [int(text) for text in FLAGS[name].value]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise ValueError(
            f"`{name}` must be whole numbers of at least 1, separated by commas. "
            f"Received: {name}={','.join(FLAGS[name].value)}"
        )
    return values


def _model_config(case):
    """The paper's network for CIFAR-10, but for what the flags change."""
    return ModelConfig(
        image_shape=(case["size"], case["size"], 3),
        nr_filters=case["filters"],
        nr_resnet=case["nr_resnet"],
        nr_logistic_mix=case["nr_logistic_mix"],
    )


def _measure_in_new_process(case):
    """What `measure` returns, measured by this script in a process of its own."""
    done = subprocess.run(
        [sys.executable, os.path.abspath(__file__), "--case", json.dumps(case)],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        raise OSError(f"A case ended with exit status {done.returncode}: {json.dumps(case)}")
    return json.loads(done.stdout.splitlines()[-1])


def _cells(case, measured):
    """The cells of a row of the table."""
    weights, peak = "-", "-"
    if "weight_bytes_per_s" in measured:
        weights = _share(measured["weight_bytes_per_s"], measured["machine_bytes_per_s"])
    if measured["peak_bytes"] is not None:
        peak = f"{measured['peak_bytes'] / 2**20:.0f}"
    return [
        *(case[name] for name in ("filters", "size", "batch_size", "dtype")),
        *(
            _digits(measured[name])
            for name in (
                "naive_s_per_image",
                "cached_s_per_image",
                "without_xla_s_per_image",
                "ratio",
                "ms_per_pixel",
                "first_call_s",
            )
        ),
        _share(measured["flops_per_s"], measured["machine_flops_per_s"]),
        weights,
        measured["cache_bytes"],
        peak,
    ]


def _share(rate, machine_rate):
    """A rate in billions a second, and in brackets its share of what the machine is capable of."""
    return (
        f"{_digits(rate / 1e9)} ({_digits(100 * rate / machine_rate)}% of "
        f"{_digits(machine_rate / 1e9)})"
    )


def _digits(number):
    """A number to three significant digits, without an exponent."""
    return np.format_float_positional(number, 3, unique=False, fractional=False, trim="-")


def _table_row(cells):
    return f"| {' | '.join(map(str, cells))} |"


def _machine():
    """One line: cores, processor, versions, and what was computed on."""
    import keras
    import tensorflow as tf

    has_affinity = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (
        f"Machine: {num_cores} cores, {names[0] if names else platform.processor() or 'unknown'}; "
        f"TensorFlow {tf.__version__}, Keras {keras.version()} on {keras.backend.backend()}, "
        f"device {keras.distribution.list_devices()[0]}"
    )


if __name__ == "__main__":
    scripts.run(main)
