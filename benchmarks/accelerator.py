"""Times the model on JAX, where no TensorFlow is needed: python benchmarks/accelerator.py.

It prints a Markdown table of training, scoring and sampling, for a machine with a GPU that has only
Keras and JAX. Every row is measured in a process of its own, so that it has the device for itself.
"""

import functools
import importlib.util
import json
import os
import pathlib
import sys

os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

if missing := [x for x in ("absl", "jax", "keras", "numpy") if not importlib.util.find_spec(x)]:
    sys.exit(
        "accelerator.py: absl-py, jax, keras and numpy must be installed. "
        f"Missing: {', '.join(missing)}"
    )

import numpy as np
from absl import flags

from benchmarks import measure
from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import ModelConfig, TrainingConfig

DTYPES = ("float32", "mixed_bfloat16")

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "cases", "64/2/64,160/5/16,160/5/64", "Filters/residual blocks per stage/batch size"
)
flags.DEFINE_list("dtypes", ",".join(DTYPES), f"Of {', '.join(DTYPES)}")
flags.DEFINE_integer("size", 32, "Height of the images, which are square", lower_bound=4)
flags.DEFINE_integer("steps", 10, "Steps to time, and passes of log_prob", lower_bound=1)
flags.DEFINE_boolean(
    "sampling", True, "Whether to time the cached sampler, whose compilation takes long"
)
flags.DEFINE_integer("matrix_side", 8192, "Side of the matrices that are multiplied", lower_bound=1)

# How many matrix products are timed together, because one is too short on a GPU.
_NUM_PRODUCTS = 4

COLUMNS = (
    "filters/blocks/batch",
    "dtype",
    "training images/s",
    "s/step",
    "TFLOP/s (share of)",
    "peak MiB",
    "first step s",
    "log_prob images/s",
    "log_prob TFLOP/s (share of)",
    "sampling images/s",
    "sampling TFLOP/s (share of)",
    "first sampling s",
)

NOTES = """\
- Times are the shortest of {steps} calls; for sampling, that of the second call. A call computes
  one batch on one device, compiled. A first call includes its compilation.
- A step is a whole step: forward, backward, {optimizer}, averages of the weights; dropout 0.5. Its
  FLOP are 3 x the products of one pass over whole images. Sampling has the products of one pass.
- The share is relative to products of two {side}^2 matrices in the same dtype and process.
- peak: memory of the device up to the last step, or of the process if the device does not tell it.
- mixed_bfloat16 multiplies in bfloat16, and keeps the weights in float32."""


def main():
    """Prints a row per case and dtype, what the columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    cases = _cases()
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---:"] * len(COLUMNS)))
    devices = []
    for case in cases:
        measured = measure.in_new_process(__file__, case)
        devices.append(measured["device"])
        print(measure.table_row(_cells(case, measured)))
    print()
    common = {"steps": FLAGS.steps, "optimizer": TrainingConfig.optimizer}
    print(NOTES.format(side=FLAGS.matrix_side, **common))
    print()
    print(f"{measure.machine()}: {devices[-1]}")


def measure_case(case):
    """Measures one case, in this process.

    Args:
      case: One of the dicts of `_cases`.

    Returns:
      {name: number, or the device's name}; no numbers for sampling if it is not timed.
    """
    import jax

    from pixel_cnn_pp import models, sampling

    batch_size, size, steps = case["batch_size"], case["size"], case["steps"]
    config = ModelConfig(
        image_shape=(size, size, 3),
        nr_filters=case["filters"],
        nr_resnet=case["nr_resnet"],
    )
    model = models.make(config, dtype=case["dtype"])
    shape = (batch_size, *config.image_shape)
    images = jax.numpy.asarray(np.random.default_rng(0).integers(0, 256, shape, "uint8"))

    step = make_step(model, images)
    first_step_s = measure.best_seconds(step, 1)
    step_s = measure.best_seconds(step, steps)
    if not np.isfinite(step()):
        raise FloatingPointError("The loss of a step is not finite.")
    device = jax.devices()[0]
    peak_bytes = (device.memory_stats() or {}).get("peak_bytes_in_use", measure.peak_memory())
    log_prob = make_log_prob(model, images)
    measure.best_seconds(log_prob, 1)
    flops = batch_size * measure.flops_per_image(model, size, size)
    training_flops = batch_size * measure.training_flops_per_image(model, size, size)
    log_prob_s = measure.best_seconds(log_prob, steps)
    measured = {
        "device": device.device_kind,
        "first_step_s": first_step_s,
        "step_s": step_s,
        "step_flops_per_s": training_flops / step_s,
        "peak_bytes": peak_bytes,
        "log_prob_s": log_prob_s,
        "log_prob_flops_per_s": flops / log_prob_s,
    }
    if case["sampling"]:
        first_sampling_s, sampling_s = measure.seconds_of_calls(
            lambda: sampling.sample(model, batch_size), 2
        )
        measured["first_sampling_s"] = first_sampling_s
        measured["sampling_s"] = sampling_s
        measured["sampling_flops_per_s"] = flops / sampling_s
    measured["machine_flops_per_s"] = measure.matrix_product_rate(
        model.compute_dtype, case["matrix_side"], _NUM_PRODUCTS
    )
    return measured


def make_step(model, images):
    """A training step like that of `training.Trainer` on TensorFlow, as one function of JAX.

    Args:
      model: PixelCNNPP. Its weights are updated by every step.
      images: Integers [B, H, W, C], on the device.

    Returns:
      Function without arguments. It makes one update, and returns the negative log-likelihood
      before it, nats.
    """
    import jax

    from pixel_cnn_pp.runs import optimizers

    training = TrainingConfig()
    optimizer = optimizers.make_optimizer(training)
    optimizer.build(model.trainable_variables)

    def nats_of(weights, constants, images, seed):
        raw_params, _ = model.stateless_call(weights, constants, images, training=True, seed=seed)
        return -model.log_prob_of(raw_params, images).sum()

    # The old weights and averages make room for the new ones.
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(weights, slots, constants, images, seed):
        nats, gradients = jax.value_and_grad(nats_of)(weights, constants, images, seed)
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return weights, slots, nats

    variables = [*model.trainable_variables, *optimizer.variables]
    num_weights = len(model.trainable_variables)
    number = 0

    def step():
        nonlocal number
        number += 1
        values = [variable.value for variable in variables]
        constants = [variable.value for variable in model.non_trainable_variables]
        seed = jax.numpy.asarray([training.seed, number], "uint32")
        weights, slots, nats = jax.block_until_ready(
            update(values[:num_weights], values[num_weights:], constants, images, seed)
        )
        for variable, value in zip(variables, [*weights, *slots], strict=True):
            variable.assign(value)
        return float(nats)

    return step


def make_log_prob(model, images):
    """Function without arguments that returns the log-likelihoods [B] of images, nats, in NumPy."""
    import jax

    @jax.jit
    def log_prob(weights, constants, images):
        raw_params, _ = model.stateless_call(weights, constants, images)
        return model.log_prob_of(raw_params, images)

    weights = [variable.value for variable in model.trainable_variables]
    constants = [variable.value for variable in model.non_trainable_variables]
    return lambda: np.asarray(log_prob(weights, constants, images))


def _cases():
    """One dict for each case, from the flags; checks them before anything is measured."""
    if not FLAGS.dtypes or set(FLAGS.dtypes) - set(DTYPES):
        raise ValueError(
            f"`dtypes` must be of {', '.join(DTYPES)}. Received: dtypes={','.join(FLAGS.dtypes)}"
        )
    names = ("steps", "sampling", "matrix_side")
    common = {name: FLAGS[name].value for name in names}
    return [
        {**case, **common, "dtype": dtype}
        for case in measure.network_cases(FLAGS.cases, FLAGS.size)
        for dtype in FLAGS.dtypes
    ]


def _cells(case, measured):
    """The cells of a row of the table."""

    def images_per_s(name):
        return measure.digits(case["batch_size"] / measured[name])

    def share(name):
        rate, machine_rate = measured[name], measured["machine_flops_per_s"]
        return f"{measure.digits(rate / 1e12)} ({measure.percentage(rate, machine_rate, 1e12)})"

    sampled = ["-"] * 3
    if case["sampling"]:
        first_sampling_s = measure.digits(measured["first_sampling_s"])
        sampled = [images_per_s("sampling_s"), share("sampling_flops_per_s"), first_sampling_s]
    return [
        measure.case_title(case),
        case["dtype"],
        images_per_s("step_s"),
        measure.digits(measured["step_s"]),
        share("step_flops_per_s"),
        measure.mebibytes(measured["peak_bytes"]),
        measure.digits(measured["first_step_s"]),
        images_per_s("log_prob_s"),
        share("log_prob_flops_per_s"),
        *sampled,
    ]


if __name__ == "__main__":
    scripts.run(main, on_tensorflow=False)
