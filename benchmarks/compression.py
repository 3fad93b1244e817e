"""Times the coder beside the cached sampler, as a Markdown table: python benchmarks/compression.py.

Every case is measured in a process of its own, as in benchmarks/sampling.py. Images are drawn from
a model with fresh weights, so that they are as long as its likelihood says.
"""

import json
import pathlib
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks import measure
from pixel_cnn_pp import scripts
from pixel_cnn_pp.config import ModelConfig

# The networks of the demos, one with the filters of the release, and one for a try.
MODELS = {
    "digits": {"image_shape": (8, 8, 1), "num_levels": 17, "nr_resnet": 1, "nr_filters": 32},
    "photos": {
        "image_shape": (32, 32, 3),
        "receptive_field": "15x8",
        "small_variant": "nin",
        "nr_filters": 24,
    },
    "160 filters": {"image_shape": (32, 32, 3), "nr_resnet": 5, "nr_filters": 160},
    "tiny": {"image_shape": (4, 4, 1), "nr_filters": 4, "receptive_field": "11x5"},
}

FLAGS = flags.FLAGS
flags.DEFINE_list("models", "digits,photos", f"Of {', '.join(MODELS)}")
flags.DEFINE_integer("batch_size", 64, "How many images to code side by side", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "How many calls to time; the best counts", lower_bound=1)

COLUMNS = (
    "model",
    "batch",
    "sampling s/image",
    "encoding s/image",
    "decoding s/image",
    "encoding / sampling",
    "decoding / sampling",
    "share of the range coder",
    "first call s",
)

NOTES = """\
- One batch, which is not divided among cores. Times are the best of {repeats} calls.
- share of the range coder: of the time of encoding, with what it does in Python.
- first call: of encoding, with tracing and compilation. All other columns are for later calls."""


def main():
    """Prints a row per case, what its columns mean, and the machine."""
    if FLAGS.case is not None:
        print(json.dumps(measure_case(json.loads(FLAGS.case))))
        return
    unknown = [name for name in FLAGS.models if name not in MODELS]
    if unknown:
        raise ValueError(f"`models` must be of {', '.join(MODELS)}. Received: {unknown[0]}")
    print(measure.table_row(COLUMNS))
    print(measure.table_row(["---:"] * len(COLUMNS)))
    for name in FLAGS.models:
        case = {"model": name, "batch_size": FLAGS.batch_size, "repeats": FLAGS.repeats}
        print(measure.table_row(_cells(case, measure.in_new_process(__file__, case))))
    print()
    print(NOTES.format(repeats=FLAGS.repeats))
    print()
    print(measure.machine())


def measure_case(case):
    """Measures one case, in this process: {name: number}."""
    from pixel_cnn_pp import models, sampling

    options = {"nr_logistic_mix": 5, **MODELS[case["model"]]}
    options["image_shape"] = tuple(options["image_shape"])
    model, batch_size = models.make(ModelConfig(**options)), case["batch_size"]
    num_workers = sampling.draw.num_workers
    sampling.draw.num_workers = lambda: 1
    try:
        return _measure(model, batch_size, case["repeats"])
    finally:
        sampling.draw.num_workers = num_workers


def _measure(model, batch_size, repeats):
    from pixel_cnn_pp import codec, sampling

    images = sampling.sample(model, batch_size)
    reports, files = [], []

    def encode():
        data, report = codec.compress_and_report(model, images, batch_size=batch_size)
        files.append(data)
        reports.append(report)

    first_call_s = measure.best_seconds(encode, 1)
    return {
        "sample_s": measure.best_seconds(lambda: sampling.sample(model, batch_size), repeats),
        "encode_s": measure.best_seconds(encode, repeats),
        "decode_s": measure.best_seconds(lambda: codec.decompress(model, files[0]), repeats),
        "coder_share": min(report.coder_share for report in reports[1:]),
        "first_call_s": first_call_s,
    }


def _cells(case, found):
    """The cells of a row."""
    times = [found[name] for name in ("sample_s", "encode_s", "decode_s")]
    return [
        case["model"],
        str(case["batch_size"]),
        *(f"{seconds / case['batch_size']:.4f}" for seconds in times),
        *(f"{seconds / times[0]:.2f}" for seconds in times[1:]),
        f"{found['coder_share']:.1%}",
        f"{found['first_call_s']:.1f}",
    ]


if __name__ == "__main__":
    scripts.run(main)
