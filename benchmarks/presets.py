"""Times a training step of the paper's models at their full size: python benchmarks/presets.py.

From the images/s it projects the hours that a whole training would take on this machine. Every
preset is measured in a process of its own.
"""

import dataclasses
import json
import math
import pathlib
import statistics
import sys

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measure
from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import (
    MODELS,
    PRESETS,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    define_flags,
    explicit_values_from_flags,
)

FLAGS = flags.FLAGS
flags.DEFINE_list("presets", list(PRESETS), "Presets to measure, as train.py knows them")
flags.DEFINE_integer("size", 32, "Height and width of the images", lower_bound=4)
flags.DEFINE_integer("steps", 2, "Steps to time", lower_bound=1)
flags.DEFINE_integer("batch_size", 8, "Images of a step that is timed", lower_bound=1)
flags.DEFINE_integer("max_epochs", 5000, "Epochs of the projected run", lower_bound=1)
flags.DEFINE_integer("num_images", 50000, "Training images of the projected run", lower_bound=1)
# These hold for all presets; a flag that is not given has the preset's value.
define_flags(ModelConfig, with_defaults=False)

# Steps before those that are timed. The first one traces and initialises.
_WARM_UP_STEPS = 2
# CIFAR-10's.
_NUM_CLASSES = 10

COLUMNS = (
    "preset",
    "parameters",
    "batch",
    "s/step",
    "median",
    "images/s",
    "peak MiB",
    "first step s",
    "projected hours",
)

NOTES = """\
- s/step: the shortest of {steps} whole steps: forward, backward, {optimizer}, averages of the
  weights. median: of the same steps. images/s: computed from the shortest step.
- peak: resident memory of the process after its steps. first step: includes tracing.
- projected hours: NOT a measurement. {epochs} epochs of {num_images} images at these images/s,
  without evaluation, samples and checkpoints, on this machine alone."""


def main():
    """Prints a row per preset, what the columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    cases = _cases()
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---", *(["---:"] * (len(COLUMNS) - 1))]))
    for case in cases:
        measured = measure.in_new_process(__file__, case)
        print(measure.table_row(_cells(case, measured)), flush=True)
    print()
    projected = {"epochs": FLAGS.max_epochs, "num_images": FLAGS.num_images}
    print(NOTES.format(steps=FLAGS.steps, optimizer=TrainingConfig.optimizer, **projected))
    print()
    print(measure.machine())


def projected_hours(num_epochs, num_images, images_per_s):
    """Hours of training at a constant rate, counting the steps only.

    Args:
      num_epochs: Passes over the images.
      num_images: Images of an epoch.
      images_per_s: As measured.

    Returns:
      A float.
    """
    return num_epochs * num_images / images_per_s / 3600


def measure_case(case):
    """Measures one preset, in this process.

    Args:
      case: One of the dicts of `_cases`.

    Returns:
      {name: number, or list of numbers}.
    """
    from pixel_cnn_pp.runs import devices
    from pixel_cnn_pp.runs.trainer import Trainer

    config = _model_config(case)
    run = RunConfig(config, DataConfig(), TrainingConfig(batch_size=case["batch_size"]))
    trainer = Trainer(run, devices.make_strategy(0))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (case["batch_size"], *config.image_shape), "uint8")
    labels = None
    if config.num_classes is not None:
        labels = rng.integers(0, config.num_classes, case["batch_size"], "int32")

    losses = []

    def step():
        losses.append(trainer.train_step(images, labels).bits_per_dim)

    first_step_s, *_ = measure.seconds_of_calls(step, _WARM_UP_STEPS)
    step_s = measure.seconds_of_calls(step, case["steps"])
    if not all(map(math.isfinite, losses)):
        raise FloatingPointError("The loss of a step is not finite.")
    return {
        "num_params": sum(math.prod(weight.shape) for weight in trainer.model.trainable_weights),
        "first_step_s": first_step_s,
        "step_s": step_s,
        "peak_bytes": measure.peak_memory(),
    }


def _cases():
    """One dict for each preset, from the flags; checks them before anything is measured."""
    unknown = [name for name in FLAGS.presets if name not in PRESETS]
    if unknown or not FLAGS.presets:
        raise ValueError(
            f"`presets` must be some of {', '.join(PRESETS)}. "
            f"Received: presets={','.join(FLAGS.presets)}"
        )
    given = explicit_values_from_flags(ModelConfig)
    common = {name: FLAGS[name].value for name in ("size", "steps", "batch_size")}
    cases = [
        {"preset": name, "values": {**PRESETS[name].values, **given}, **common}
        for name in FLAGS.presets
    ]
    for case in cases:
        _model_config(case)
    return cases


def _model_config(case):
    """The configuration of a case's model."""
    model_class = MODELS[PRESETS[case["preset"]].kind]
    names = {field.name for field in dataclasses.fields(model_class)}
    return model_class(
        image_shape=(case["size"], case["size"], 3),
        num_classes=_NUM_CLASSES if case["values"].get("class_conditional") else None,
        **{name: value for name, value in case["values"].items() if name in names},
    )


def _cells(case, measured):
    """The cells of a row of the table."""
    step_s = min(measured["step_s"])
    images_per_s = case["batch_size"] / step_s
    return [
        case["preset"],
        f"{measured['num_params']:,}",
        case["batch_size"],
        measure.digits(step_s),
        measure.digits(statistics.median(measured["step_s"])),
        measure.digits(images_per_s),
        measure.mebibytes(measured["peak_bytes"]),
        measure.digits(measured["first_step_s"]),
        f"{projected_hours(FLAGS.max_epochs, FLAGS.num_images, images_per_s):,.0f}",
    ]


if __name__ == "__main__":
    scripts.run(main)
