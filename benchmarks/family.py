"""Times training and sampling of each model: python benchmarks/family.py, a Markdown table.

All models have the same layers, features, images and batch. With --public, a public implementation
of Gated PixelCNN is trained beside them. With --public_rnn it is one of the Row LSTM and of the
Diagonal BiLSTM, on JAX. Their code is not a part of this project: the flags say where the files
lie. Every row is measured in a process of its own.
"""

import dataclasses
import importlib.util
import json
import math
import pathlib
import statistics
import sys
import time

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measure
from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import MODELS, DataConfig, RunConfig, TrainingConfig

FLAGS = flags.FLAGS
flags.DEFINE_list("models", list(MODELS), "Models to measure, as --model of train.py knows them")
flags.DEFINE_string(
    "public",
    None,
    "Folder gated_pixelcnn of https://github.com/sarus-tech/tf2-published-models, to be measured "
    "too, with filters of 5 x 5",
)
flags.DEFINE_string(
    "public_rnn",
    None,
    "Folder with row_lstm.py and diagonal_bilstm.py of https://github.com/rmsnorm/pixel-rnn-jax, "
    "to be measured too, on grey images. They need JAX and the package flax",
)
flags.DEFINE_integer("nr_resnet", 6, "Layers or residual blocks", lower_bound=2)
flags.DEFINE_integer("nr_filters", 48, "Features of a layer", lower_bound=1)
flags.DEFINE_integer("nr_output_filters", 256, "Features of the 1x1 layers", lower_bound=1)
flags.DEFINE_integer("size", 28, "Height and width of the images", lower_bound=4)
flags.DEFINE_integer("channels", 1, "Channels of the images", lower_bound=1)
flags.DEFINE_integer("num_levels", 256, "Levels of the images", lower_bound=2)
flags.DEFINE_integer("batch_size", 16, "Images of a step, and of a draw", lower_bound=1)
flags.DEFINE_integer("steps", 5, "Steps to time", lower_bound=1)
flags.DEFINE_integer("rounds", 1, "How often all rows are measured", lower_bound=1)
flags.DEFINE_integer("repeats", 2, "Draws to time; 0 for no sampling", lower_bound=0)
flags.DEFINE_integer("naive_pixels", 4, "Pixels to time the naive sampler on", lower_bound=1)

PUBLIC = "public Gated PixelCNN"
# {row: (file, class, its argument for the number of features)}
PUBLIC_RNN = {
    "public Row LSTM": ("row_lstm", "RowLSTM", "hidden_dim"),
    "public Diagonal BiLSTM": ("diagonal_bilstm", "DiagonalBiLSTM", "features"),
}
# Steps before those that are timed. The first one traces.
_WARM_UP_STEPS = 2
_FIELDS = ("nr_resnet", "nr_filters", "nr_output_filters")

COLUMNS = (
    "model",
    "parameters",
    "s/step",
    "median",
    "processor s/step",
    "images/s",
    "first step s",
    "naive s/image",
    "cached s/image",
    "naive / cached",
    "peak MiB",
)

NOTES = """\
- {nr_resnet} layers, {nr_filters} features, {nr_output_filters} in the 1x1 layers; images of \
{size}x{size}x{channels} with {num_levels} levels; batches of {batch_size}.
- s/step: the shortest of {steps} whole steps{rounds}: forward, backward, {optimizer}, averages of
  the weights. median: of the same steps. images/s: computed from the shortest step.
- processor s/step: the least processor time of a step, all threads together. Unlike the others, it
  hardly depends on what else the machine does.
- naive: extrapolated from {naive_pixels} pixels. Samplers: the shortest of {repeats} calls.
- peak: resident memory of the process after the steps.
- A model has as many layers as its own options say: PixelCNN++ has so many blocks in each of its
  six stages. The public network has one layer without a gate, and {residual} with one."""


def main():
    """Prints a row per model, what the columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    cases = _cases()
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---", *["---:"] * (len(COLUMNS) - 1)]))
    measured = {}
    for _ in range(FLAGS.rounds):
        for case in cases:
            is_public = case["model"] == PUBLIC
            environment = {"TF_USE_LEGACY_KERAS": "1"} if is_public else {}
            own = measure.in_new_process(__file__, case, **environment)
            if case["model"] in measured:
                for times in ("step_s", "processor_s"):
                    own[times] += measured[case["model"]][times]
            measured[case["model"]] = own
    for name, own in measured.items():
        print(measure.table_row(_cells(name, own)))
    print()
    values = {name: FLAGS[name].value for name in (*_FIELDS, *_NUMBERS)}
    rounds = f" in each of {FLAGS.rounds} rounds" if FLAGS.rounds > 1 else ""
    values |= {"rounds": rounds, "residual": FLAGS.nr_resnet - 1}
    print(NOTES.format(**values, optimizer=TrainingConfig.optimizer))
    print()
    print(measure.machine())


_NUMBERS = ("size", "channels", "num_levels", "batch_size", "steps", "repeats", "naive_pixels")


def measure_case(case):
    """Measures one row, in this process.

    Args:
      case: One of the dicts of `_cases`.

    Returns:
      {name: number, or list of numbers}. Rows of the public network have no sampling.
    """
    shape = (case["batch_size"], case["size"], case["size"], case["channels"])
    images = np.random.default_rng(0).integers(0, case["num_levels"], shape)
    images = images.astype("uint8" if case["num_levels"] <= 256 else "uint16")
    if case["model"] in PUBLIC_RNN:
        make_step = _public_rnn_step
    else:
        make_step = _public_step if case["model"] == PUBLIC else _our_step
    step, model, num_params = make_step(case, images)
    first_step_s, *_ = measure.seconds_of_calls(step, _WARM_UP_STEPS)
    processor_s = []

    def timed_step():
        start = time.process_time()
        step()
        processor_s.append(time.process_time() - start)

    step_s = measure.seconds_of_calls(timed_step, case["steps"])
    measured = {
        "num_params": num_params,
        "first_step_s": first_step_s,
        "step_s": step_s,
        "processor_s": processor_s,
        "peak_bytes": measure.peak_memory(),
    }
    if not math.isfinite(step()):
        raise FloatingPointError("The loss of a step is not finite.")
    if model is not None and case["repeats"]:
        measured |= _sampling_s(case, model)
    return measured


def _our_step(case, images):
    """A function that trains on the images, the model, and its number of parameters."""
    from pixel_cnn_pp.runs import devices
    from pixel_cnn_pp.runs.trainer import Trainer

    model_class = MODELS[case["model"]]
    own = {item.name for item in dataclasses.fields(model_class)}
    config = model_class(
        image_shape=images.shape[1:],
        num_levels=case["num_levels"],
        **{name: case[name] for name in _FIELDS if name in own},
    )
    run = RunConfig(config, DataConfig(), TrainingConfig(batch_size=len(images)))
    trainer = Trainer(run, devices.make_strategy(0))
    num_params = sum(math.prod(x.shape) for x in trainer.model.trainable_weights)
    return lambda: trainer.train_step(images).bits_per_dim, trainer.model, num_params


def _public_step(case, images):
    """The same for the public network, without a model that this project could draw from."""
    import tensorflow as tf
    import tf_keras

    network = _module(pathlib.Path(case["public"]) / "model.py").GatedPixelCNN(
        hidden_dim=case["nr_filters"] // case["channels"],
        n_res=case["nr_resnet"] - 1,
        n_output=case["num_levels"],
    )
    levels = tf.constant(images, tf.int32)
    x = tf.cast(levels, tf.float32) / (case["num_levels"] - 1)
    network(x)
    optimizer = tf_keras.optimizers.Adamax(
        TrainingConfig.learning_rate, use_ema=True, ema_momentum=TrainingConfig.polyak_decay
    )
    variables = network.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(levels, network(x))
            loss = tf.reduce_mean(loss)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return lambda: float(step()), None, sum(math.prod(x.shape) for x in variables)


def _public_rnn_step(case, images):
    """The same for a public network on JAX."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    file, class_name, features = PUBLIC_RNN[case["model"]]
    network = getattr(_module(pathlib.Path(case["public_rnn"]) / f"{file}.py"), class_name)(
        nnx.Rngs(0),
        num_layers=case["nr_resnet"],
        output_conv_out_channels=[case["nr_output_filters"]] * 2,
        preds_dim=case["num_levels"],
        **{features: case["nr_filters"]},
    )
    graph, params, others = nnx.split(network, nnx.Param, ...)
    levels = jnp.asarray(images, "int32")
    x = levels.astype("float32") / (case["num_levels"] - 1)

    def loss_of(params):
        log_probs = jax.nn.log_softmax(nnx.merge(graph, params, others)(x))
        return -jnp.mean(jnp.take_along_axis(log_probs, levels, axis=-1))

    def update(weight, mean, norm, average, gradient):
        """Adamax, and the average of the weight."""
        mean = 0.9 * mean + 0.1 * gradient
        norm = jnp.maximum(0.999 * norm, jnp.abs(gradient))
        weight = weight - TrainingConfig.learning_rate * mean / (norm + 1e-7)
        average = average + (1 - TrainingConfig.polyak_decay) * (weight - average)
        return weight, mean, norm, average

    @jax.jit
    def step_of(state):
        weights, *slots = state
        loss, gradients = jax.value_and_grad(loss_of)(jax.tree.unflatten(tree, weights))
        updated = map(update, weights, *slots, jax.tree.leaves(gradients))
        return loss, [list(part) for part in zip(*updated, strict=True)]

    weights, tree = jax.tree.flatten(params)
    zeros = [jnp.zeros_like(weight) for weight in weights]
    state = [weights, zeros, zeros, weights]

    def step():
        nonlocal state
        loss, state = step_of(state)
        return float(loss)

    return step, None, sum(math.prod(weight.shape) for weight in weights)


def _module(path):
    """The module in a file."""
    spec = importlib.util.spec_from_file_location("public_" + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _sampling_s(case, model):
    """Seconds for an image by both samplers."""
    from pixel_cnn_pp import sampling

    batch_size, size = case["batch_size"], case["size"]

    def draw():
        sampling.sample(model, batch_size)

    known_mask = np.arange(size**2).reshape(size, size) >= case["naive_pixels"]
    canvas = np.zeros((batch_size, *model.config.image_shape), "uint8")

    def draw_pixels():
        known = {"init_images": canvas, "known_mask": known_mask}
        sampling.sample(model, batch_size, method="naive", **known)

    seconds = {}
    for name, function in (("cached_s", draw), ("naive_s", draw_pixels)):
        function()  # traces
        seconds[name] = measure.best_seconds(function, case["repeats"]) / batch_size
    seconds["naive_s"] *= size**2 / case["naive_pixels"]
    return seconds


def _cases():
    """One dict for each row, from the flags; checks them before anything is measured."""
    unknown = [name for name in FLAGS.models if name not in MODELS]
    if unknown or not (FLAGS.models or FLAGS.public or FLAGS.public_rnn):
        raise ValueError(
            f"`models` must be of {', '.join(MODELS)}. Received: models={','.join(FLAGS.models)}"
        )
    if FLAGS.naive_pixels > FLAGS.size**2:
        raise ValueError(
            f"`naive_pixels` must be at most {FLAGS.size**2}, the pixels of an image. "
            f"Received: naive_pixels={FLAGS.naive_pixels}"
        )
    names = list(FLAGS.models)
    if FLAGS.public is not None:
        if not (pathlib.Path(FLAGS.public) / "model.py").is_file():
            raise ValueError(
                f"`public` must be a folder with model.py. Received: public={FLAGS.public}"
            )
        if FLAGS.nr_filters % FLAGS.channels:
            raise ValueError(
                "`nr_filters` must be a multiple of `channels` for the public network. "
                f"Received: nr_filters={FLAGS.nr_filters}"
            )
        names.append(PUBLIC)
    if FLAGS.public_rnn is not None:
        for file, *_ in PUBLIC_RNN.values():
            if not (pathlib.Path(FLAGS.public_rnn) / f"{file}.py").is_file():
                raise ValueError(
                    f"`public_rnn` must be a folder with {file}.py. "
                    f"Received: public_rnn={FLAGS.public_rnn}"
                )
        if FLAGS.channels != 1:
            raise ValueError(
                "`channels` must be 1 for the public networks of `public_rnn`. "
                f"Received: channels={FLAGS.channels}"
            )
        names += PUBLIC_RNN
    flag_names = (*_FIELDS, *_NUMBERS, "public", "public_rnn")
    common = {name: FLAGS[name].value for name in flag_names}
    return [{"model": name, **common} for name in names]


def _cells(name, measured):
    """The cells of a row of the table."""
    step_s = min(measured["step_s"])
    naive_s, cached_s = measured.get("naive_s"), measured.get("cached_s")
    return [
        name,
        f"{measured['num_params']:,}",
        measure.digits(step_s),
        measure.digits(statistics.median(measured["step_s"])),
        measure.digits(min(measured["processor_s"])),
        measure.digits(FLAGS.batch_size / step_s),
        measure.digits(measured["first_step_s"]),
        measure.digits(naive_s),
        measure.digits(cached_s),
        measure.digits(None if cached_s is None else naive_s / cached_s),
        measure.mebibytes(measured["peak_bytes"]),
    ]


if __name__ == "__main__":
    scripts.run(main)
