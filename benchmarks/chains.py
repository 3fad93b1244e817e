"""Times the cached sampler of a Pyramid PixelCNN beside PixelCNN++: python benchmarks/chains.py.

Prints a Markdown table with a row for each stage. Rows of a picture take the same time, so a few
rows of the full width are timed, and the rest is extrapolated.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np
from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measure
from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import CHAIN_PRESETS, ModelConfig

FLAGS = flags.FLAGS
flags.DEFINE_integer("size", 128, "Height and width of the images", lower_bound=16)
flags.DEFINE_list("batch_sizes", "1,16", "How many images to draw together")
flags.DEFINE_integer("nr_resnet", 5, "Residual blocks per stage of PixelCNN++", lower_bound=1)
# Salimans et al. 2017, section 3.1. Their release has 160 by default.
flags.DEFINE_integer("nr_filters", 192, "Filters of PixelCNN++", lower_bound=1)
flags.DEFINE_integer("pyramid_filters", 100, "Filters of the stages of the pyramid", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "How many calls to time; the best counts", lower_bound=1)

# Rows that are timed. A call has a constant cost, which their difference is without.
_FEW, _MORE = 4, 12

COLUMNS = ("model", "batch", "stage", "s/image", "share", "ms/pixel of the stage", "first call s")

NOTES = """\
- s/image: time of a batch divided by its images. Weights, embedding and all rows count.
- share: of the whole image.
- ms/pixel of the stage: time of the batch divided by the pixels of one picture of the stage.
- first call: includes tracing and compilation."""


def main():
    """Prints the table, and how many times faster the pyramid is."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    sizes = {
        "nr_resnet": FLAGS.nr_resnet,
        "nr_filters": FLAGS.nr_filters,
        "pyramid_filters": FLAGS.pyramid_filters,
    }
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---:"] * len(COLUMNS)))
    ratios = []
    for batch_size in measure.whole_numbers("batch_sizes", FLAGS.batch_sizes):
        totals = {}
        for name in ("PixelCNN++", "pyramid"):
            case = {"model": name, "batch_size": batch_size, "size": FLAGS.size}
            case |= {"repeats": FLAGS.repeats, **sizes}
            stages = measure.in_new_process(__file__, case)
            totals[name] = sum(stage["seconds"] for stage in stages)
            for stage in stages:
                print(measure.table_row(_cells(case, stage, totals[name])))
        ratios.append(
            f"- batch {batch_size}: {_ms(totals['PixelCNN++'])} ms a pixel of the image for "
            f"PixelCNN++, {_ms(totals['pyramid'])} ms for the pyramid, "
            f"{measure.digits(totals['PixelCNN++'] / totals['pyramid'])} times as fast"
        )
    print()
    print("\n".join(ratios))
    print(NOTES)
    print()
    print(measure.machine())


def _ms(seconds):
    return measure.digits(1000 * seconds / FLAGS.size**2)


def _cells(case, stage, total):
    batch_size = case["batch_size"]
    return (
        case["model"],
        batch_size,
        stage["name"],
        measure.digits(stage["seconds"] / batch_size),
        f"{100 * stage['seconds'] / total:.0f} %",
        measure.digits(1000 * stage["seconds"] / stage["pixels"]),
        measure.digits(stage["first_call_s"]),
    )


def measure_case(case):
    """Measures one model at one batch size, in this process.

    Args:
      case: One of the dicts of `main`.

    Returns:
      List of {"name", "pixels", "seconds" of a batch, "first_call_s"}, one for each stage.
    """
    from pixel_cnn_pp import models

    model = models.make(_config(case))
    found, factor = [], None
    for stage in model.stages:
        height, width, _ = stage.view.shape_of((case["size"], case["size"], 3))
        seconds, first_call_s = _seconds(stage.model, case, height, width, factor)
        found.append(
            {
                "name": stage.name,
                "pixels": height * width,
                "seconds": seconds,
                "first_call_s": first_call_s,
            }
        )
        factor = 2
    return found


def _config(case):
    shape = (case["size"], case["size"], 3)
    if case["model"] == "PixelCNN++":
        return ModelConfig(shape, nr_resnet=case["nr_resnet"], nr_filters=case["nr_filters"])
    preset = CHAIN_PRESETS["pyramid_celeba"]
    names = {item.name for item in dataclasses.fields(ModelConfig)}
    options = []
    for number in range(len(preset.stages)):
        values = {**preset.of_stage(number).values, "nr_filters": case["pyramid_filters"]}
        values = {name: value for name, value in values.items() if name in names}
        options.append((ModelConfig, values))
    return preset.model_config(options, shape, 256)


def _seconds(model, case, height, width, factor):
    """Seconds to draw a batch of one stage, and those of the first call."""
    from pixel_cnn_pp import sampling

    batch_size = case["batch_size"]

    def draw(rows):
        condition = None
        if factor is not None:
            shape = (batch_size, rows // factor, width // factor, 3)
            condition = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        sampling.sample(model, batch_size, condition, image_shape=(rows, width, 3))

    if height <= _MORE:
        first_call_s = measure.best_seconds(lambda: draw(height), 1)
        return measure.best_seconds(lambda: draw(height), case["repeats"]), first_call_s
    first_call_s = measure.best_seconds(lambda: draw(_FEW), 1)
    draw(_MORE)
    few, more = (
        measure.best_seconds(lambda rows=rows: draw(rows), case["repeats"])
        for rows in (_FEW, _MORE)
    )
    return few + (more - few) / (_MORE - _FEW) * (height - _FEW), first_call_s


if __name__ == "__main__":
    scripts.run(main)
