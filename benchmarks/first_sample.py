"""Times a fresh process from its start to its first images: python benchmarks/first_sample.py.

This is what a user of `sample.py` waits for: Python and TensorFlow start, a run is loaded, the
function that draws a row is traced and compiled, and images are drawn. Every row is a process of
its own. Several versions of the package can be compared, each in its checkout. Then their processes
take turns, and the medians are printed.
"""

import inspect
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from unittest import mock

from absl import flags

# Another checkout may come first, by PYTHONPATH.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measure
from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig

FLAGS = flags.FLAGS
flags.DEFINE_integer("filters", 160, "Number of filters", lower_bound=1)
flags.DEFINE_integer("nr_resnet", 5, "Residual blocks per stage", lower_bound=1)
flags.DEFINE_integer("nr_logistic_mix", 10, "Components of the mixture", lower_bound=1)
flags.DEFINE_integer("size", 32, "Height of the images, which are square", lower_bound=4)
flags.DEFINE_integer("num_samples", 16, "How many images to draw", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "Processes of each kind; the median counts", lower_bound=1)
flags.DEFINE_list("checkouts", None, "Folders of versions of the package; default: this one")

# The parts of a start, in their order.
PARTS = ("imports", "load", "trace", "compile", "draw")
COLUMNS = ("version", "compiled before", *(f"{part} s" for part in PARTS), "in all s", "CPU s")

NOTES = """\
- compiled before: whether an earlier process on this machine has drawn as many images of such a
  network. Then TensorFlow has kept what XLA compiled (docs/speed.md).
- imports: from the start of the process until TensorFlow has found its devices. load: `pcnn.load`.
- trace: of the function that draws a row, without that of the loop around it. compile: the rest of
  the first call. draw: a third call with the same arguments.
- in all: from the start of the process to the images of the first call. CPU: of all cores.
- Medians of {repeats} processes. The processes of the rows take turns."""


def main():
    """Prints a row for each version, without and with kept files, and what the columns mean."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    rows = [
        (pathlib.Path(checkout).resolve(), is_again)
        for checkout in FLAGS.checkouts or [pathlib.Path(__file__).parents[1]]
        for is_again in (False, True)
    ]
    measured = {row: [] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        run_dir = os.path.join(folder, "run")
        measure.in_new_process(__file__, {"make": run_dir, **_network()})
        case = {"run_dir": run_dir, "num_samples": FLAGS.num_samples}
        for repeat in range(FLAGS.repeats):
            for checkout, is_again in rows:
                kept = os.path.join(folder, f"{rows.index((checkout, False))}-{repeat}")
                measured[checkout, is_again].append(_in_fresh_process(checkout, case, kept))
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---:"] * len(COLUMNS)))
    for (checkout, is_again), found in measured.items():
        print(measure.table_row(cells(checkout.name, is_again, found)))
    print()
    print(
        f"{FLAGS.filters} filters, {FLAGS.nr_resnet} blocks, {FLAGS.num_samples} images of "
        f"{FLAGS.size}x{FLAGS.size} in colour."
    )
    print()
    print(NOTES.format(repeats=FLAGS.repeats))
    print()
    print(measure.machine())


def measure_case(case):
    """Makes a run, or measures the first images from it, in this process.

    Args:
      case: {"make": path, with the fields of the network}, or {"run_dir": path, "num_samples": N,
        "started": time of the start of this process}.

    Returns:
      {part: seconds}, with "cpu". None after making a run.
    """
    if "make" in case:
        return _make_run(case)
    measured = {"imports": time.time() - case["started"]}
    start = time.perf_counter()
    import pixel_cnn_pp as pcnn
    from pixel_cnn_pp.sampling import driver

    model = pcnn.load(case["run_dir"])
    measured["load"] = time.perf_counter() - start
    walk_row, traced = driver.walk_row, []

    def timed_walk_row(*arguments):
        start = time.perf_counter()
        result = walk_row(*arguments)
        traced.append(time.perf_counter() - start)
        return result

    calls = []
    with mock.patch.object(driver, "walk_row", timed_walk_row):
        for _ in range(3):  # the second one compiles the effective weights
            start = time.perf_counter()
            pcnn.sample(model, case["num_samples"])
            calls.append(time.perf_counter() - start)
            measured.setdefault("cpu", time.process_time())
    measured["trace"] = sum(traced)
    measured["compile"] = calls[0] - calls[2] - measured["trace"]
    measured["draw"] = calls[2]
    return measured


def _in_fresh_process(checkout, case, kept):
    """{part: seconds} of a process that imports the package from a checkout."""
    environment = {"PYTHONPATH": str(checkout), "PIXEL_CNN_PP_CACHE": kept}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as `sample.py` sets it
    return measure.in_new_process(__file__, {**case, "started": time.time()}, **environment)


def _network():
    """The fields of the network's configuration, from the flags."""
    return {
        "image_shape": (FLAGS.size, FLAGS.size, 3),
        "nr_filters": FLAGS.filters,
        "nr_resnet": FLAGS.nr_resnet,
        "nr_logistic_mix": FLAGS.nr_logistic_mix,
    }


def _make_run(case):
    """Writes a run with fresh weights."""
    import keras

    from pixel_cnn_pp import models
    from pixel_cnn_pp.runs import checkpoints

    run_dir = case.pop("make")
    network = ModelConfig(**{**case, "image_shape": tuple(case["image_shape"])})
    run = RunConfig(network, DataConfig(), TrainingConfig())
    model = models.make(run.model)
    optimizer = keras.optimizers.Adamax(use_ema=True)
    optimizer.build(model.trainable_variables)
    checkpoints.save_config(run_dir, run)
    checkpoints.save(run_dir, model, optimizer, checkpoints.TrainingState(step=1, epoch=1))


def cells(name, is_again, found):
    """The cells of a row of the table.

    Args:
      name: Of the version.
      is_again: Whether files of an earlier process were there.
      found: List of what `measure_case` returned.
    """
    parts = {part: statistics.median(each[part] for each in found) for part in (*PARTS, "cpu")}
    in_all = statistics.median(sum(each[part] for part in PARTS) for each in found)
    numbers = (*(parts[part] for part in PARTS), in_all, parts["cpu"])
    return [name, "yes" if is_again else "no", *(measure.digits(number) for number in numbers)]


if __name__ == "__main__":
    # Earlier versions of the package, which may be measured too, keep nothing. And the environment
    # of this process is that of those which it starts.
    keeps = "--case" in sys.argv and "keeps_compiled" in inspect.signature(scripts.run).parameters
    scripts.run(main, **({"keeps_compiled": True} if keeps else {}))
