import importlib.util
import math
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from keras import ops

from benchmarks import measure
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.model import PixelCNNPP

SCRIPT = pathlib.Path(__file__).parents[1] / "benchmarks" / "sampling.py"
TINY = "--filters 4 --nr_resnet 1 --sizes 8 --dtypes float32 --naive_pixels 2 --repeats 1"
# Two numbers of three significant digits each, one divided by the other.
ROUNDING = 0.011


def run_script(tmp_path, *arguments):
    """The script with its arguments, as a user runs it who is somewhere else."""
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What it prints for two batch sizes."""
    arguments = [*TINY.split(), "--batch_sizes", "1,2"]
    done = run_script(tmp_path_factory.mktemp("elsewhere"), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def rows(printed):
    """The rows of its table, {column: text} each."""
    header, rule, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in printed.splitlines()
        if line.startswith("|")
    )
    assert len(rule) == len(header) and all(set(cell) <= set("-:") for cell in rule)
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module, its flags at their defaults."""
    spec = importlib.util.spec_from_file_location("sampling_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flags.FLAGS.mark_as_parsed()
    return module


# The table


def number(text):
    assert re.fullmatch(r"\d+(\.\d+)?", text), text
    return float(text)


def shares(text):
    """Rate, percentage, rate of the machine."""
    found = re.fullmatch(r"(\S+) \((\S+)% of (\S+)\)", text)
    return [number(part) for part in found.groups()]


def test_there_is_a_row_for_each_case(rows, benchmark):
    assert [list(row) for row in rows] == [list(benchmark.COLUMNS)] * 2
    cases = [[row[name] for name in ("filters", "size", "batch", "dtype")] for row in rows]
    assert cases == [["4", "8", "1", "float32"], ["4", "8", "2", "float32"]]


def test_the_numbers_of_a_row_agree_with_each_other(rows, benchmark):
    config = ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4)
    model = PixelCNNPP(config)
    for row in rows:
        batch_size = int(row["batch"])
        naive, cached = number(row["naive s/image"]), number(row["cached s/image"])
        assert number(row["naive / cached"]) == pytest.approx(naive / cached, rel=ROUNDING)
        ms_per_pixel = 1000 * cached * batch_size / 64
        assert number(row["cached ms/pixel"]) == pytest.approx(ms_per_pixel, rel=ROUNDING)
        assert number(row["first call s"]) > cached * batch_size

        rate, percentage, machine_rate = shares(row["GFLOP/s (share of)"])
        assert 0 < percentage == pytest.approx(100 * rate / machine_rate, rel=ROUNDING)
        flops = measure.flops_per_image(model, 8, 8)
        assert 1e9 * rate * cached == pytest.approx(flops, rel=ROUNDING)

        caches = [array for level in model.empty_cache(batch_size, 8) for array in arrays(level)]
        assert int(row["cache bytes"]) == sum(array.nbytes for array in caches)
        # TensorFlow alone takes more than 100 MiB.
        assert number(row["peak MiB"]) > 100


def arrays(nest):
    """The arrays of nested dicts."""
    if isinstance(nest, dict):
        return [array for value in nest.values() for array in arrays(value)]
    return [ops.convert_to_numpy(nest)]


def test_weights_are_counted_for_batches_of_one(rows, benchmark):
    model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4))
    rate, percentage, machine_rate = shares(rows[0]["weights GB/s (share of)"])
    assert 0 < percentage == pytest.approx(100 * rate / machine_rate, rel=ROUNDING)
    read = 1e6 * rate * number(rows[0]["cached ms/pixel"])
    assert read == pytest.approx(benchmark.weight_bytes_per_pixel(model), rel=ROUNDING)
    assert rows[1]["weights GB/s (share of)"] == "-"


def test_what_was_extrapolated_and_the_machine_stand_below(printed):
    assert "- naive: extrapolated from the time of 2 pixels to all pixels" in printed
    assert "- Times are the best of 1;" in printed
    assert re.fullmatch(
        r"Machine: \d+ cores, .+; Keras \d+\.\S+ on \w+ \d+\.\S+, device \S+",
        printed.splitlines()[-1],
    )


# The counts


@pytest.fixture
def products(monkeypatch):
    """List of (additions and multiplications, length of the left side, shape of the right one)."""
    found = []

    def count(name, flops):
        function = getattr(ops, name)

        def counted(x, kernel, *args, **kwargs):
            result = function(x, kernel, *args, **kwargs)
            found.append((flops(x.shape, kernel.shape, result.shape), x.shape[0], kernel.shape))
            return result

        monkeypatch.setattr(ops, name, counted)

    count("matmul", lambda x, kernel, result: 2 * math.prod(x) * kernel[-1])
    # A convolution multiplies the whole filter at each position of its outputs, a transposed one at
    # each of its inputs.
    count("conv", lambda x, kernel, result: 2 * math.prod(result[:-1]) * math.prod(kernel))
    count("conv_transpose", lambda x, kernel, result: 2 * math.prod(x[:-1]) * math.prod(kernel))
    return found


CONFIGS = pytest.mark.parametrize(
    "fields",
    [
        {"nr_filters": 6, "nr_resnet": 2, "nr_logistic_mix": 3},
        {"nr_filters": 3, "nr_resnet": 1, "resnet_nonlinearity": "elu", "num_classes": 5},
    ],
)


def model_and_labels(fields):
    """A model for images of 8 x 12 pixels; a label if it takes one."""
    model = PixelCNNPP(ModelConfig(image_shape=(8, 12, 3), **fields))
    return model, np.zeros(1, "int32") if "num_classes" in fields else None


@CONFIGS
def test_flops_are_those_of_the_products_of_one_pass(fields, benchmark, products):
    model, labels = model_and_labels(fields)
    model(np.zeros((1, 8, 12, 3), "uint8"), labels)
    assert measure.flops_per_image(model, 8, 12) == sum(flops for flops, *_ in products)


def cached_sampling(model):
    """All rows of an image by the cached step, eagerly."""
    weights, caches = model.step_weights(), model.empty_cache(1, 12)
    for row in range(8):
        caches, _, _ = model.next_row(
            weights,
            caches,
            ops.convert_to_tensor(row),
            lambda raw_params, column: ops.zeros((1, 3), "uint8"),
        )


def test_the_cached_sampler_makes_as_many(benchmark, products):
    model, _ = model_and_labels({"nr_filters": 4, "nr_resnet": 1})
    cached_sampling(model)
    assert measure.flops_per_image(model, 8, 12) == sum(flops for flops, *_ in products)


def test_weights_of_a_pixel_are_those_of_its_products(benchmark, products):
    model, _ = model_and_labels({"nr_filters": 4, "nr_resnet": 1})
    cached_sampling(model)
    # Products with matrices for a whole row have at least 12 / 4 rows on their left side.
    sizes = [
        math.prod(kernel) for _, num_rows, kernel in products if num_rows == 1 and len(kernel) == 2
    ]
    expected = 4 * sum(sizes) / (8 * 12)  # float32
    assert benchmark.weight_bytes_per_pixel(model) == pytest.approx(expected, rel=1e-12)


def test_half_as_many_bytes_are_read_in_half_the_precision(benchmark):
    config = ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4)
    single, half = (
        benchmark.weight_bytes_per_pixel(PixelCNNPP(config, dtype=dtype))
        for dtype in ("float32", "mixed_bfloat16")
    )
    assert half == single / 2


# What does not work


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("filters", "4,many", "`filters` must be whole numbers of at least 1, .* filters=4,many"),
        ("batch_sizes", "0", "`batch_sizes` must be whole numbers of at least 1, .* Received: .*0"),
        ("sizes", "", "`sizes` must be whole numbers of at least 1, .* Received: sizes="),
        ("sizes", "32,6", "`sizes` must be multiples of 4. Received: sizes=6"),
        ("dtypes", "float16", "`dtypes` must be of float32, .* Received: dtypes=float16"),
        ("naive_pixels", "1025", "`naive_pixels` must be at most 1024, .* Received: .*=1025"),
    ],
)
def test_a_flag_that_breaks_its_rule_is_named(name, value, message, benchmark, capsys):
    with flagsaver.as_parsed(**{name: value}), pytest.raises(ValueError, match=message):
        benchmark.main()
    assert capsys.readouterr().out == ""


def test_the_user_sees_one_line(tmp_path):
    done = run_script(tmp_path, "--sizes", "30")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sampling.py: `sizes` must be multiples of 4. Received: sizes=30\n"
