"""Times the naive and the cached sampler, as a Markdown table: python benchmarks/sampling.py.

Every case is measured in a process of its own, because the peak memory of a process never falls
again. The same process also measures what the machine can do: the rate of a big matrix product, for
the arithmetic, and that of matrix-vector products, for the reading of weights.
"""

import itertools
import json
import math
import pathlib
import sys

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measure
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
flags.DEFINE_integer("repeats", 3, "How many calls to time; the best counts", lower_bound=1)

# Matrix-vector products read at least this much in one call, so that the call itself costs little.
_BYTES_AT_LEAST = 2**28

COLUMNS = (
    "filters",
    "size",
    "batch",
    "dtype",
    "naive s/image",
    "cached s/image",
    "other executor",
    "naive / cached",
    "cached ms/pixel",
    "first call s",
    "GFLOP/s (share of)",
    "weights GB/s (share of)",
    "cache bytes",
    "peak MiB",
)

NOTES = """\
- batch: images drawn by one call. On a CPU the cached sampler divides them among the cores.
- naive: extrapolated from the time of {naive_pixels} pixels to all pixels of the image.
- Times are the best of {repeats}. s/image: time of the batch divided by its images. ms/pixel: time
  of the batch divided by the pixels of one image.
- other executor: s/image of the cached sampler with XLA where it goes without, and the reverse. It
  goes without XLA on a CPU in bfloat16.
- first call: includes tracing and compilation. All other columns are for later calls.
- GFLOP/s: of the cached sampler, which multiplies as often as one pass over whole images does. The
  share is relative to a matrix product of {side}^3 in the same dtype on the whole machine.
- weights GB/s: rate at which the loop over pixels reads its kernels, batch 1 only. The share is
  relative to float32 matrix-vector products in a loop over as many bytes of matrices.
- cache bytes: what is kept of the rows above. peak: resident memory of the process, including
  compilation, after the cached sampler and before the naive one."""


def main():
    """Prints a row per case, what its columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    cases = _cases()
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---:"] * len(COLUMNS)))
    for case in cases:
        print(measure.table_row(_cells(case, measure.in_new_process(__file__, case))))
    print()
    common = {
        "naive_pixels": FLAGS.naive_pixels,
        "repeats": FLAGS.repeats,
        "side": measure.MATRIX_SIDE,
    }
    print(NOTES.format(**common))
    print()
    print(measure.machine())


def measure_case(case):
    """Measures one case, in this process.

    Args:
      case: One of the dicts of `_cases`.

    Returns:
      {name: number}; the rates of reading memory are there for batch 1 only.
    """
    import keras

    from pixel_cnn_pp import models, sampling

    model = models.make(_model_config(case), dtype=case["dtype"])
    batch_size, size, repeats = case["batch_size"], case["size"], case["repeats"]

    def draw():
        sampling.sample(model, batch_size)

    first_call_s = measure.best_seconds(draw, 1)
    draw()  # compiles the effective weights
    cached_s = measure.best_seconds(draw, repeats)
    peak_bytes = measure.peak_memory()
    other_s = measure.best_seconds(_other_cached_sampler(model, batch_size), repeats)
    draw_pixels = _naive_sampler(model, case)
    measure.best_seconds(draw_pixels, 1)
    naive_s = measure.best_seconds(draw_pixels, repeats) / case["naive_pixels"] * size**2

    caches = keras.tree.flatten(model.cached_step.initial_state(batch_size, size))
    measured = {
        "naive_s_per_image": naive_s / batch_size,
        "cached_s_per_image": cached_s / batch_size,
        "other_s_per_image": other_s / batch_size,
        "ratio": naive_s / cached_s,
        "ms_per_pixel": 1000 * cached_s / size**2,
        "first_call_s": first_call_s,
        "flops_per_s": measure.flops_per_image(model, size, size) * batch_size / cached_s,
        "machine_flops_per_s": measure.matrix_product_rate(model.compute_dtype),
        "cache_bytes": _item(model) * sum(math.prod(cache.shape) for cache in caches),
        "peak_bytes": peak_bytes,
    }
    if batch_size == 1:
        bytes_per_pixel = weight_bytes_per_pixel(model)
        measured["weight_bytes_per_s"] = bytes_per_pixel * size**2 / cached_s
        measured["machine_bytes_per_s"] = memory_rate(weight_bytes(model))
    return measured


def pixel_weights(model):
    """The kernels that the cached sampler's loop over pixels reads, with their levels.

    Of the rightward stream the rows of the filters that lie in the pixel's own row, and of the
    short-cuts the part that is not known for a whole row at once.

    Args:
      model: PixelCNNPP.

    Returns:
      List of pairs (matrix [F', F], level); a level is run for one pixel in 4^level.
    """
    weights = model.cached_step.weights()
    found = []
    for stream in (
        [(model.input_left, 0)],
        measure.with_levels(model.encoder_right, 0),
        measure.with_levels(model.decoder_right, measure.coarsest(model)),
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
        measure.best_compiled(
            lambda vector, matrices, products=products: ops.fori_loop(
                0, num_rounds, lambda i, vector: products(vector, matrices), vector
            ),
            [ops.ones(shape, "float32"), matrices],
        )
        for products, shape in ((from_left, (1, side)), (from_right, (side, 1)))
    )
    return num_rounds * num_bytes / seconds


def _other_cached_sampler(model, batch_size):
    """Function that draws a batch by the cached sampler, compiled by the other way; called once.

    On JAX, where all is compiled by XLA, it is the same sampler again.
    """
    from pixel_cnn_pp.sampling import draw

    def draw_images():
        images, known_mask = _canvas(model, batch_size)
        controls = np.array([1, 0, 0], model.variable_dtype)
        with_xla = not draw.prefers_xla(model)
        draw.draw_cached(model, images, known_mask, None, 0, controls, with_xla=with_xla)

    draw_images()
    return draw_images


def _naive_sampler(model, case):
    """Function that draws the first pixels of a batch by the naive sampler; the rest is known."""
    from pixel_cnn_pp import sampling

    batch_size, size = case["batch_size"], case["size"]
    images, known_mask = _canvas(model, batch_size)
    known_mask |= np.arange(size**2).reshape(size, size) >= case["naive_pixels"]
    arguments = {"init_images": images, "known_mask": known_mask}
    return lambda: sampling.sample(model, batch_size, method="naive", **arguments)


def _canvas(model, batch_size):
    """Images of nothing [B, H, W, C], and [B, H, W], that none of their pixels are known."""
    shape = (batch_size, *model.config.image_shape)
    return np.zeros(shape, "uint8"), np.zeros(shape[:-1], bool)


def _item(model):
    """Bytes of a number that the model computes with."""
    return DTYPES[model.dtype_policy.name]


def _cases():
    """One dict for each case, from the flags; checks them before anything is measured."""
    numbers = {
        name: measure.whole_numbers(name, FLAGS[name].value)
        for name in ("filters", "sizes", "batch_sizes")
    }
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


def _model_config(case):
    """The paper's network for CIFAR-10, with the changes of the flags."""
    return ModelConfig(
        image_shape=(case["size"], case["size"], 3),
        nr_filters=case["filters"],
        nr_resnet=case["nr_resnet"],
        nr_logistic_mix=case["nr_logistic_mix"],
    )


def _cells(case, measured):
    """The cells of a row of the table."""
    weights = "-"
    if "weight_bytes_per_s" in measured:
        weights = _share(measured["weight_bytes_per_s"], measured["machine_bytes_per_s"])
    return [
        *(case[name] for name in ("filters", "size", "batch_size", "dtype")),
        *(
            measure.digits(measured[name])
            for name in (
                "naive_s_per_image",
                "cached_s_per_image",
                "other_s_per_image",
                "ratio",
                "ms_per_pixel",
                "first_call_s",
            )
        ),
        _share(measured["flops_per_s"], measured["machine_flops_per_s"]),
        weights,
        measured["cache_bytes"],
        measure.mebibytes(measured["peak_bytes"]),
    ]


def _share(rate, machine_rate):
    """A rate in billions a second, and in brackets its share of the machine's rate."""
    return f"{measure.digits(rate / 1e9)} ({measure.percentage(rate, machine_rate, 1e9)})"


if __name__ == "__main__":
    scripts.run(main)
