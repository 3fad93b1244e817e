"""Times the start of a training, stage by stage: python benchmarks/start.py, a Markdown table.

What a user waits for before the first step is mostly TensorFlow's tracing and optimising of the
step's graph, which depends on the depth of the network and on the number of replicas, but hardly on
filters and sizes of images. So a small network of full depth tells the wait of a big one. Every row
is measured in a process of its own, because a second start in a process is faster than the first.
"""

import json
import os
import pathlib
import sys
import threading
import time

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measure
from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig

FLAGS = flags.FLAGS
flags.DEFINE_list("nr_resnet", "1,5", "Residual blocks per stage")
flags.DEFINE_list("replicas", "1,2,4,8", "Numbers of logical CPU devices to train on together")
flags.DEFINE_integer("filters", 8, "Number of filters", lower_bound=1)
flags.DEFINE_integer("size", 8, "Height of the images, which are square", lower_bound=4)
flags.DEFINE_integer("batch_size", 2, "Images of a step on each replica", lower_bound=1)
flags.DEFINE_float("limit", 440, "Seconds after which a row is given up", lower_bound=0)

# The stages of a row, in their order.
STAGES = (
    "build",
    "initialise",
    "first step",
    "second step",
    "first evaluation",
    "first sample",
)

COLUMNS = ("blocks", "replicas", *(f"{stage} s" for stage in STAGES), "operations")

NOTES = """\
- replicas: logical CPU devices, which share the processor's cores.
- build: the model with fresh weights, and its optimizer. initialise: from the images of a step.
- first step: from the start of tracing to the numbers of the step. Tracing is also part of the
  first evaluation, and of the first sample: one image from a second model with the averages.
- operations: the nodes of the step's graph and of all functions that it calls, each function
  once, before TensorFlow optimises them.
- The import of TensorFlow is not included. After {limit:g} s a row is given up: "> N" is the time
  of the stage until then."""


def main():
    """Prints a row per depth and number of replicas, what the columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    cases = _cases()
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---:"] * len(COLUMNS)))
    for case in cases:
        measured = measure.in_new_process(__file__, case)
        print(measure.table_row(cells(case, measured)), flush=True)
    print()
    print(
        f"{FLAGS.filters} filters, {FLAGS.size}x{FLAGS.size} images in colour, "
        f"{FLAGS.batch_size} a replica."
    )
    print()
    print(NOTES.format(limit=FLAGS.limit))
    print()
    print(measure.machine())


def measure_case(case):
    """Measures one row, in this process. At its limit, prints what it has and ends the process.

    Args:
      case: One of the dicts of `_cases`.

    Returns:
      {stage: seconds}, with the number of "operations".
    """
    measured = {"in progress": (STAGES[0], time.perf_counter())}
    watch = threading.Timer(case["limit"], _give_up, [measured])
    watch.daemon = True
    watch.start()
    start = _Start(case)
    for stage, run in zip(STAGES, start.stages(), strict=True):
        measured["in progress"] = stage, time.perf_counter()
        run()
        measured[stage] = time.perf_counter() - measured["in progress"][1]
    del measured["in progress"]
    watch.cancel()
    return {**measured, "operations": count_operations(start.graph())}


def _give_up(measured):
    """Prints what is measured, with the stage in progress and its seconds, and ends the process."""
    stage, since = measured["in progress"]
    print(json.dumps({**measured, "in progress": [stage, time.perf_counter() - since]}), flush=True)
    os._exit(0)  # the main thread is in C++, or will be for long


class _Start:
    """What a training does at its start, on logical CPU devices."""

    def __init__(self, case):
        """Makes the devices. TensorFlow must not have computed anything before, if several."""
        import tensorflow as tf

        num_replicas = case["replicas"]
        if num_replicas > 1:
            (cpu,) = tf.config.list_physical_devices("CPU")
            devices = [tf.config.LogicalDeviceConfiguration()] * num_replicas
            tf.config.set_logical_device_configuration(cpu, devices)
        names = [device.name for device in tf.config.list_logical_devices("CPU")]
        self._strategy = tf.distribute.MirroredStrategy(names[:num_replicas])
        shape = (case["batch_size"] * num_replicas, case["size"], case["size"], 3)
        self._images = np.random.default_rng(0).integers(0, 256, shape, "uint8")
        model = ModelConfig(
            image_shape=shape[1:], nr_filters=case["filters"], nr_resnet=case["nr_resnet"]
        )
        training = TrainingConfig(batch_size=case["batch_size"])
        self._run = RunConfig(model, DataConfig(), training)
        self._trainer = None

    def stages(self):
        """A function for each of `STAGES`."""
        return self._build, self._initialise, self._step, self._step, self._evaluate, self._sample

    def graph(self):
        """The graph of a step, with its functions, as a protocol buffer."""
        import tensorflow as tf

        arguments = self._trainer._split(self._images), None, tf.constant(0.0)
        return self._trainer._train_step.get_concrete_function(*arguments).graph.as_graph_def()

    def _build(self):
        from pixel_cnn_pp.runs.trainer import Trainer

        self._trainer = Trainer(self._run, self._strategy)

    def _initialise(self):
        self._trainer.initialize(self._images, None)

    def _step(self):
        self._trainer.train_step(self._images)

    def _evaluate(self):
        from pixel_cnn_pp import data

        self._trainer.evaluate(data.ImageData(self._images, None, 256, None))

    def _sample(self):
        from pixel_cnn_pp import models, sampling

        # As at a checkpoint of a run.
        model = models.make(self._run.model)
        self._trainer.copy_averages(model)
        sampling.sample(model, 1)


def count_operations(graph):
    """Number of nodes of a graph and of all functions that it calls, each function once.

    Args:
      graph: `GraphDef`.

    Returns:
      Whole number.
    """
    bodies = {function.signature.name: function.node_def for function in graph.library.function}
    waiting, called, count = [graph.node], set(), 0
    while waiting:
        for node in waiting.pop():
            count += 1
            for value in node.attr.values():
                functions = [value.func, *value.list.func]
                names = {function.name for function in functions} & bodies.keys() - called
                called |= names
                waiting += [bodies[name] for name in names]
    return count


def _cases():
    """One dict for each row, from the flags; checks them before anything is measured."""
    depths, replicas = (
        measure.whole_numbers(name, FLAGS[name].value) for name in ("nr_resnet", "replicas")
    )
    common = {name: FLAGS[name].value for name in ("filters", "size", "batch_size", "limit")}
    return [
        {"nr_resnet": depth, "replicas": number, **common}
        for depth in depths
        for number in replicas
    ]


def cells(case, measured):
    """The cells of a row of the table."""
    cells = {stage: measure.digits(measured.get(stage)) for stage in STAGES}
    if "in progress" in measured:
        stage, seconds = measured["in progress"]
        cells[stage] = f"> {seconds:.0f}"
    return [
        case["nr_resnet"],
        case["replicas"],
        *cells.values(),
        measured.get("operations", "-"),
    ]


if __name__ == "__main__":
    scripts.run(main)
