"""Times training beside that of others: python benchmarks/training.py, a Markdown table.

The others are TensorFlow Probability's PixelCNN, and the same network in PyTorch if it is asked
for. Every row is measured in a process of its own. One reason is that the peak memory of a process
never falls again. The other is that TensorFlow Probability's PixelCNN needs tf_keras, which
replaces Keras 3 in its process. The same process also measures what the machine can do.
"""

import json
import math
import pathlib
import statistics
import sys

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measure, operations
from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import (
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    define_flags,
    explicit_values_from_flags,
)

FLAGS = flags.FLAGS
flags.DEFINE_list("cases", "64/2/16,160/5/8", "Filters/residual blocks per stage/batch size")
flags.DEFINE_string(
    "variants",
    "",
    "Variants of our training, separated by semicolons. Each gives fields of TrainingConfig and "
    "their values, as in 'optimizer=adamax;optimizer=adam,polyak_decay=0.99'. The others are "
    "compared with the first; an empty variant has all defaults",
)
flags.DEFINE_integer("size", 32, "Height of the images, which are square", lower_bound=4)
flags.DEFINE_integer("steps", 5, "Steps to time, and passes of log_prob", lower_bound=1)
flags.DEFINE_integer("rounds", 1, "How often all rows of a case are measured", lower_bound=1)
flags.DEFINE_boolean("tfp", True, "Whether to measure tfp.distributions.PixelCNN")
flags.DEFINE_boolean(
    "torch",
    False,
    "Whether to measure the same network in PyTorch, by torch.compile, in float32 and bfloat16",
)
flags.DEFINE_boolean("profile", False, "Also list the operations that a step consists of")

TFP = "tfp.distributions.PixelCNN"
# The rows of PyTorch: their dtypes.
TORCH = {"PyTorch, compiled": "float32", "PyTorch, compiled, bfloat16": "bfloat16"}
# Steps before those that are timed. The first one traces and initialises.
_WARM_UP_STEPS = 2
# A profile is the mean over so many steps, and lists so many kinds of operations.
_PROFILED_STEPS = 2
_LISTED_OPERATIONS = 25

COLUMNS = (
    "filters/blocks/batch",
    "variant",
    "images/s",
    "s/step",
    "median",
    "speed / TFP",
    "speed / first",
    "log_prob s",
    "log_prob speed / TFP",
    "TFLOP/s",
    "of matrix products",
    "of convolutions",
    "peak MiB",
    "of the step MiB",
    "tensors MiB",
    "first step s",
)

NOTES = """\
- s/step: the shortest of {steps} steps{rounds}. median: of the same steps. images/s, FLOP/s and
  speeds are computed from the shortest step. log_prob s: the shortest of as many passes of a batch.
- speed / TFP, / first: how many times as fast as TFP's PixelCNN, and as the first variant.
- A step is a whole step: forward, backward, {optimizer}, averages of the weights; dropout 0.5. So
  is TFP's, in one tf.function. Its data-dependent initialisation is in the first step, not timed.
- TFLOP/s: 3 x the products of one pass over whole images. For TFP, the products of our network are
  counted: its masked filters also multiply by zeros, which are not counted.
- PyTorch: benchmarks/torch_peer.py says how it is tuned. Its weights start without initialisation.
- of matrix products, of convolutions: share of the machine's rate for a product of {side}^3, and
  for a 2x3 filter from 2 F channels to 2 F on the whole batch, forward. Both are timed in the same
  process and dtype; for the others, in the process of our first variant.
- peak: resident memory of the process after its steps. of the step: peak minus the memory before
  the first step; it includes the graph and what the allocators hold unused. tensors: the most
  memory that a later step needs for tensors at one time, as TensorFlow counts it; it includes
  weights and the optimizer's numbers.
- first step: includes tracing and compilation."""


def main():
    """Prints a row per case and variant, what the columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    cases, variants = _cases(), parse_variants(FLAGS.variants)
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---:"] * len(COLUMNS)))
    results = [(case, _measure_rows(case, variants)) for case in cases]
    print()
    print(_notes())
    for case, rows in results:
        print()
        print(_parameters(case, rows))
        for name, measured in rows.items():
            if case["profile"] and "profile" in measured:
                print()
                print("\n".join(_profile_table(case, name, measured)))
    print()
    print(measure.machine())


def parse_variants(text):
    """The variants of a flag.

    Args:
      text: Variants with semicolons between them, each "field=value,...".

    Returns:
      A dict, what a variant is called -> {name of a field of TrainingConfig: value}.

    Raises:
      ValueError: If a name is not one of a field, or a value breaks its rule.
    """
    return {
        variant.strip() or "defaults": _variant_values(variant.strip())
        for variant in text.split(";")
    }


def _variant_values(text):
    """{name of a field: value} of one variant; the flags of the fields do the reading."""
    values = flags.FlagValues()
    define_flags(TrainingConfig, values)
    given = [part.strip() for part in text.split(",")] if text else []
    names = {values[name].name for name in values} - {"batch_size"}  # that is one of the case
    for assignment in given:
        if assignment.partition("=")[0] not in names:
            raise ValueError(
                f"`variants` must be name=value, each name one of {', '.join(sorted(names))}. "
                f"Received: variants={text}"
            )
    try:
        values(["", *(f"--{assignment}" for assignment in given)])
    except flags.Error as error:
        raise ValueError(f"`variants` must hold right values. Received: {error}") from None
    return explicit_values_from_flags(TrainingConfig, values)


def measure_case(case):
    """Measures one row, in this process.

    Args:
      case: One of the dicts of `_cases`, with "torch", the dtype of PyTorch's network, or None, and
        "training", the values of a TrainingConfig. If both are None, TFP's PixelCNN is measured.

    Returns:
      {name: number, or list of numbers}.
    """
    shape = (case["batch_size"], case["size"], case["size"], 3)
    images = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    if case["torch"] is not None:
        make_contestant = _torch_contestant
    else:
        make_contestant = _tfp_contestant if case["training"] is None else _our_contestant
    step, log_prob, counts = make_contestant(case, images)

    memory_before = measure.present_memory()
    first_step_s, *_ = measure.seconds_of_calls(step, _WARM_UP_STEPS)
    is_tensorflow = case["torch"] is None
    if is_tensorflow:
        _tensor_bytes(restart=True)
    step_s = measure.seconds_of_calls(step, case["steps"])
    tensor_bytes = _tensor_bytes() if is_tensorflow else None
    peak_bytes = measure.peak_memory()
    if not math.isfinite(step()):
        raise FloatingPointError("The loss of a step is not finite.")
    measure.best_seconds(log_prob, 1)
    measured = {
        **counts,
        "step_s": step_s,
        "log_prob_s": measure.seconds_of_calls(log_prob, case["steps"]),
        "first_step_s": first_step_s,
        "peak_bytes": peak_bytes,
        "step_bytes": None if memory_before is None else peak_bytes - memory_before,
        "tensor_bytes": tensor_bytes,
    }
    if case["training"] is not None:
        dtype = counts["compute_dtype"]
        measured["matrix_flops_per_s"] = measure.matrix_product_rate(dtype)
        measured["convolution_flops_per_s"] = measure.convolution_rate(
            case["batch_size"], case["size"], 2 * case["filters"], dtype
        )
    if case["profile"] and is_tensorflow:
        measured["profile"] = operations.profile(step, _PROFILED_STEPS)
    return measured


def _our_contestant(case, images):
    """Functions for a step and for the log-likelihood of a batch, and what is counted."""
    import tensorflow as tf

    from pixel_cnn_pp.runs import devices
    from pixel_cnn_pp.runs.trainer import Trainer

    config = ModelConfig(
        image_shape=images.shape[1:],
        nr_filters=case["filters"],
        nr_resnet=case["nr_resnet"],
    )
    run_training = TrainingConfig(batch_size=len(images), **case["training"])
    run = RunConfig(config, DataConfig(), run_training)
    trainer = Trainer(run, devices.make_strategy(0))
    model = trainer.model
    log_prob = tf.function(model.log_prob, autograph=False)
    flops = measure.training_flops_per_image(model, *images.shape[1:3]) * len(images)
    counts = {
        "num_params": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "flops": flops,
        "compute_dtype": model.compute_dtype,
    }
    return lambda: trainer.train_step(images).bits_per_dim, lambda: log_prob(images).numpy(), counts


def _tfp_contestant(case, images):
    """The same as `_our_contestant`, for TensorFlow Probability."""
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    images = tf.constant(images, tf.float32)
    distribution = tfp.distributions.PixelCNN(
        image_shape=images.shape[1:],
        num_resnet=case["nr_resnet"],
        num_hierarchies=3,
        num_filters=case["filters"],
        num_logistic_mix=ModelConfig.nr_logistic_mix,
        dropout_p=ModelConfig.dropout_p,
        resnet_activation=ModelConfig.resnet_nonlinearity,
        use_weight_norm=True,
        use_data_init=True,
        high=255,
        low=0,
    )
    optimizer = tf_keras.optimizers.Adamax(
        TrainingConfig.learning_rate, use_ema=True, ema_momentum=TrainingConfig.polyak_decay
    )
    variables = distribution.network.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            nats = -tf.reduce_sum(distribution.log_prob(images, training=True))
        optimizer.apply_gradients(zip(tape.gradient(nats, variables), variables, strict=True))
        return nats

    @tf.function
    def log_prob():
        return distribution.log_prob(images, training=False)

    # A filter's mask is its constraint: after every update the optimizer sets the rest to zero.
    masked = [
        tf.ones_like(variable) if variable.constraint is None else variable.constraint(variable)
        for variable in variables
    ]
    counts = {
        "num_params": sum(int(tf.math.count_nonzero(variable)) for variable in masked),
        "num_stored_params": sum(math.prod(variable.shape) for variable in variables),
    }
    return lambda: float(step()), lambda: log_prob().numpy(), counts


def _torch_contestant(case, images):
    """The same as `_our_contestant`, for PyTorch."""
    from benchmarks import torch_peer

    config = ModelConfig(
        image_shape=images.shape[1:],
        nr_filters=case["filters"],
        nr_resnet=case["nr_resnet"],
    )
    torch_peer.check(config)
    # A rate so low that weights without data-dependent initialisation stay finite.
    training = TrainingConfig(learning_rate=1e-5)
    peer = torch_peer.Contestant(config, images, case["torch"], True, training)
    return peer.make_step(), peer.make_log_prob(), {"num_params": peer.num_params()}


def _tensor_bytes(restart=False):
    """Most bytes of tensors at one time on the device that computes; None if unknown.

    With `restart`, the count starts anew.
    """
    import tensorflow as tf

    device = tf.config.list_logical_devices()[-1].name  # a GPU comes after the CPU
    try:
        peak_bytes = tf.config.experimental.get_memory_info(device)["peak"]
    except ValueError:  # on a CPU, TensorFlow counts only where it computes with oneDNN
        return None
    if restart:
        tf.config.experimental.reset_memory_stats(device)
    return peak_bytes


def _cases():
    """One dict for each case, from the flags; checks them before anything is measured."""
    if FLAGS.torch:
        measure.require_torch()
    common = {name: FLAGS[name].value for name in ("steps", "profile")}
    return [{**case, **common} for case in measure.network_cases(FLAGS.cases, FLAGS.size)]


def _measure_rows(case, variants):
    """Measures the rows of a case one after the other, round after round, and prints them.

    Returns:
      A dict, name of a row -> what `measure_case` measured, times of all rounds.
    """
    contestants = {TFP: (None, None)} if FLAGS.tfp else {}
    contestants |= {name: (values, None) for name, values in variants.items()}
    contestants |= {name: (None, dtype) for name, dtype in TORCH.items() if FLAGS.torch}
    rows = {}
    for _ in range(FLAGS.rounds):
        for name, (values, dtype) in contestants.items():
            environment = {"TF_USE_LEGACY_KERAS": "1"} if name == TFP else {}
            row = {**case, "training": values, "torch": dtype}
            measured = measure.in_new_process(__file__, row, **environment)
            if name in rows:
                for times in ("step_s", "log_prob_s"):
                    measured[times] += rows[name][times]
            rows[name] = measured
    first = rows[next(iter(variants))]
    for name in rows:
        print(measure.table_row(_cells(case, name, rows[name], first, rows.get(TFP))))
    return rows


def _cells(case, name, measured, first, tfp):
    """The cells of a row of the table."""
    step_s, log_prob_s = min(measured["step_s"]), min(measured["log_prob_s"])
    rates = first if name == TFP or name in TORCH else measured
    flops_per_s = rates["flops"] / step_s
    return [
        measure.case_title(case),
        name,
        measure.digits(case["batch_size"] / step_s),
        measure.digits(step_s),
        measure.digits(statistics.median(measured["step_s"])),
        measure.digits(None if tfp is None else min(tfp["step_s"]) / step_s),
        measure.digits(min(first["step_s"]) / step_s),
        measure.digits(log_prob_s),
        measure.digits(None if tfp is None else min(tfp["log_prob_s"]) / log_prob_s),
        measure.digits(flops_per_s / 1e12),
        *(
            measure.percentage(flops_per_s, rates[f"{what}_flops_per_s"], 1e12)
            for what in ("matrix", "convolution")
        ),
        measure.mebibytes(measured["peak_bytes"]),
        measure.mebibytes(measured["step_bytes"]),
        measure.mebibytes(measured["tensor_bytes"]),
        measure.digits(measured["first_step_s"]),
    ]


def _notes():
    rounds = f" in each of {FLAGS.rounds} rounds" if FLAGS.rounds > 1 else ""
    return NOTES.format(
        steps=FLAGS.steps,
        rounds=rounds,
        optimizer=TrainingConfig.optimizer,
        side=measure.MATRIX_SIDE,
    )


def _parameters(case, rows):
    """One line: the numbers of parameters of a case."""
    counts = []
    for name, measured in rows.items():
        stored = measured.get("num_stored_params")
        masked = "" if stored is None else f" and {stored - measured['num_params']:,} masked ones"
        counts.append(f"{name} {measured['num_params']:,}{masked}")
    return (
        f"Parameters at {case['filters']} filters, {case['nr_resnet']} blocks: {'; '.join(counts)}."
    )


def _profile_table(case, name, measured):
    """The lines of the table of operations of a row."""
    total_s = sum(seconds for _, seconds, _ in measured["profile"])
    yield (
        f"Operations of a step, {measure.case_title(case)}, {name}: "
        f"{measure.digits(total_s)} s on all threads together"
    )
    yield ""
    yield measure.table_row(["operation", "s/step", "of all", "calls"])
    yield measure.table_row(["---", "---:", "---:", "---:"])
    for kind, seconds, count in measured["profile"][:_LISTED_OPERATIONS]:
        share = f"{measure.digits(100 * seconds / total_s)}%"
        yield measure.table_row([kind, measure.digits(seconds), share, measure.digits(count)])


if __name__ == "__main__":
    scripts.run(main)
