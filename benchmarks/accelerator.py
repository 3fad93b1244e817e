"""Times the model on JAX, where no TensorFlow is needed: python benchmarks/accelerator.py.

It prints a Markdown table of training, scoring and sampling, for a machine with a GPU that has only
Keras and JAX, and beside it PyTorch if it is to be compared. Every row is measured in a process of
its own, so that it has the device for itself.
"""

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
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig

DTYPES = ("float32", "mixed_bfloat16")
PEERS = ("eager", "compiled")

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "cases", "64/2/64,160/5/16,160/5/64", "Filters/residual blocks per stage/batch size"
)
flags.DEFINE_list("dtypes", ",".join(DTYPES), f"Of {', '.join(DTYPES)}")
flags.DEFINE_list(
    "torch", "", f"Also time the same network in PyTorch. Of {', '.join(PEERS)} (by torch.compile)"
)
flags.DEFINE_integer(
    "jobs", 1, "How many rows are compiled at the same time; each is timed alone", lower_bound=1
)
flags.DEFINE_integer("size", 32, "Height of the images, which are square", lower_bound=4)
flags.DEFINE_integer("steps", 10, "Steps to time, and passes of log_prob", lower_bound=1)
flags.DEFINE_boolean(
    "sampling", True, "Whether to time the cached sampler, whose compilation takes long"
)
flags.DEFINE_integer("matrix_side", 8192, "Side of the matrices that are multiplied", lower_bound=1)

# How many matrix products are timed together, because one is too short on a GPU.
_NUM_PRODUCTS = 4

# So low that weights without data-dependent initialisation stay finite.
_LEARNING_RATE = 1e-5

COLUMNS = (
    "filters/blocks/batch",
    "dtype",
    "network",
    "training images/s",
    "s/step",
    "ours is faster by",
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
  one batch on one device, compiled. A first call includes its compilation{beside}.
- A step is a whole step: batch to the device, forward, backward, adamax, averages of the weights,
  loss to the processor; dropout 0.5. Ours is the step of `train.py` on JAX. Its FLOP are 3 x the
  products of one pass over whole images. Sampling has the products of one pass.
- ours is faster by: how many times as many images our network trains on in the same time.
- The share is relative to products of two {side}^2 matrices in the same dtype on JAX.
- peak: memory of the device up to the last step, or of the process if the device does not tell it.
- mixed_bfloat16 multiplies in bfloat16, and keeps the weights in float32. float32 multiplies in
  TF32 where the GPU has it, in PyTorch too.
- PyTorch: benchmarks/torch_peer.py says how it is tuned."""


def main():
    """Prints a row per case and dtype, what the columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    cases = _cases()
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---:"] * len(COLUMNS)))
    devices = []
    rows = measure.in_new_processes(__file__, cases, FLAGS.jobs, _environment)
    for case, measured in zip(cases, rows, strict=True):
        if case["peer"] is None:
            ours = measured
        devices.append(measured["device"])
        print(measure.table_row(_cells(case, measured, ours)))
    print()
    beside = " beside those of other rows" if FLAGS.jobs > 1 else ""
    print(NOTES.format(steps=FLAGS.steps, beside=beside, side=FLAGS.matrix_side))
    print()
    print(f"{measure.machine()}: {devices[0]}")


def measure_case(case):
    """Measures one row, in this process.

    Args:
      case: One of the dicts of `_cases`.

    Returns:
      {name: number, or the device's name}; no numbers for sampling if it is not timed.
    """
    batch_size, size = case["batch_size"], case["size"]
    config = ModelConfig(
        image_shape=(size, size, 3),
        nr_filters=case["filters"],
        nr_resnet=case["nr_resnet"],
    )
    shape = (batch_size, *config.image_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    training = TrainingConfig(
        batch_size=batch_size, dtype=case["dtype"], learning_rate=_LEARNING_RATE
    )
    measure_row = _measure_ours if case["peer"] is None else _measure_peer
    return measure_row(case, config, images, training)


def _measure_ours(case, config, images, training):
    """What is measured of our network on JAX."""
    import jax

    from pixel_cnn_pp import sampling
    from pixel_cnn_pp.runs import jax_devices, jax_trainer

    batch_size, size, steps = case["batch_size"], case["size"], case["steps"]
    with measure.turn(case, is_alone=False):
        strategy = jax_devices.make_strategy(1, log=lambda line: None)
        run = RunConfig(config, DataConfig(data_set="cifar"), training)
        trainer = jax_trainer.Trainer(run, strategy)

        def step():
            return trainer.train_step(images).bits_per_dim

        first_step_s = measure.best_seconds(step, 1)
        measure.best_seconds(step, 1)
        device = jax.devices()[0]
        peak_bytes = (device.memory_stats() or {}).get("peak_bytes_in_use", measure.peak_memory())
        model = trainer.model
        log_prob = make_log_prob(model, jax.numpy.asarray(images))
        measure.best_seconds(log_prob, 1)
        first_sampling_s = None
        if case["sampling"]:
            first_sampling_s = measure.best_seconds(lambda: sampling.sample(model, batch_size), 1)
    with measure.turn(case, is_alone=True):
        log_prob_s = measure.best_seconds(log_prob, steps)
        sampling_s = None
        if case["sampling"]:
            sampling_s = measure.best_seconds(lambda: sampling.sample(model, batch_size), 1)
        machine_flops_per_s = measure.matrix_product_rate(
            model.compute_dtype, case["matrix_side"], _NUM_PRODUCTS
        )
        step()
        step_s = measure.best_seconds(step, steps)
        _require_finite(step())
    flops = batch_size * measure.flops_per_image(model, size, size)
    return {
        "device": device.device_kind,
        "first_step_s": first_step_s,
        "step_s": step_s,
        "training_flops": batch_size * measure.training_flops_per_image(model, size, size),
        "flops": flops,
        "peak_bytes": peak_bytes,
        "log_prob_s": log_prob_s,
        "first_sampling_s": first_sampling_s,
        "sampling_s": sampling_s,
        "machine_flops_per_s": machine_flops_per_s,
    }


def _measure_peer(case, config, images, training):
    """What is measured of the same network in PyTorch."""
    from benchmarks import torch_peer

    dtype = case["dtype"].removeprefix("mixed_")
    with measure.turn(case, is_alone=False):
        if case["checks_peer"]:
            torch_peer.check(config)
        is_compiled = case["peer"] == "compiled"
        peer = torch_peer.Contestant(config, images, dtype, is_compiled, training)
        step, log_prob = peer.make_step(), peer.make_log_prob()
        first_step_s = measure.best_seconds(step, 1)
        measure.best_seconds(step, 2)  # the second call records CUDA graphs
        peak_bytes = peer.peak_bytes() or measure.peak_memory()
        measure.best_seconds(log_prob, 3)
    with measure.turn(case, is_alone=True):
        step_s = measure.best_seconds(step, case["steps"])
        _require_finite(step())
        log_prob_s = measure.best_seconds(log_prob, case["steps"])
    return {
        "device": peer.device_name(),
        "first_step_s": first_step_s,
        "step_s": step_s,
        "peak_bytes": peak_bytes,
        "log_prob_s": log_prob_s,
    }


def _require_finite(loss):
    if not np.isfinite(loss):
        raise FloatingPointError("The loss of a step is not finite.")


def make_log_prob(model, images):
    """Function without arguments that returns the log-likelihoods [B] of images, nats, in NumPy."""
    import functools

    import jax

    from pixel_cnn_pp.runs import jax_devices

    @functools.partial(jax.jit, compiler_options=jax_devices.compiler_options())
    def log_prob(weights, constants, images):
        raw_params, _ = model.stateless_call(weights, constants, images)
        return model.log_prob_of(raw_params, images)

    weights = [variable.value for variable in model.trainable_variables]
    constants = [variable.value for variable in model.non_trainable_variables]
    return lambda: np.asarray(log_prob(weights, constants, images))


def _cases():
    """One dict for each row, from the flags; checks them before anything is measured."""
    for name, known in (("dtypes", DTYPES), ("torch", PEERS)):
        if set(FLAGS[name].value) - set(known) or (name == "dtypes" and not FLAGS.dtypes):
            raise ValueError(
                f"`{name}` must be of {', '.join(known)}. "
                f"Received: {name}={','.join(FLAGS[name].value)}"
            )
    if FLAGS.torch:
        measure.require_torch()
    names = ("steps", "sampling", "matrix_side")
    common = {name: FLAGS[name].value for name in names}
    cases, checked = [], set()
    for network in measure.network_cases(FLAGS.cases, FLAGS.size):
        for dtype in FLAGS.dtypes:
            for peer in (None, *FLAGS.torch):
                # Once for each number of blocks, on which the order of the layers depends.
                checks_peer = peer is not None and network["nr_resnet"] not in checked
                checked |= {network["nr_resnet"]} if checks_peer else set()
                row = {"dtype": dtype, "peer": peer, "checks_peer": checks_peer}
                cases.append({**network, **common, **row})
    return cases


def _environment(case):
    """The variables of the process of a row: the GPU is PyTorch's if PyTorch is timed."""
    return {} if case["peer"] is None else {"JAX_PLATFORMS": "cpu"}


def _cells(case, measured, ours):
    """The cells of a row of the table. `ours` is what was measured of our network in its place."""

    def images_per_s(name):
        return measure.digits(case["batch_size"] / measured[name])

    def share(flops, name):
        rate, machine_rate = ours[flops] / measured[name], ours["machine_flops_per_s"]
        return f"{measure.digits(rate / 1e12)} ({measure.percentage(rate, machine_rate, 1e12)})"

    sampled = ["-"] * 3
    if measured.get("sampling_s") is not None:
        first_sampling_s = measure.digits(measured["first_sampling_s"])
        sampled = [images_per_s("sampling_s"), share("flops", "sampling_s"), first_sampling_s]
    return [
        measure.case_title(case),
        case["dtype"],
        "ours" if case["peer"] is None else f"PyTorch, {case['peer']}",
        images_per_s("step_s"),
        measure.digits(measured["step_s"]),
        measure.digits(measured["step_s"] / ours["step_s"]),
        share("training_flops", "step_s"),
        measure.mebibytes(measured["peak_bytes"]),
        measure.digits(measured["first_step_s"]),
        images_per_s("log_prob_s"),
        share("flops", "log_prob_s"),
        *sampled,
    ]


if __name__ == "__main__":
    scripts.run(main, on_tensorflow=False)
