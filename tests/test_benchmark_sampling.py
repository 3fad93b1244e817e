import functools
import re

import keras
import pytest
from benchmark_runs import ROUNDING, number, shares, start_here, tables
from keras import ops
from processes import ROOT, assert_one_line, functions_of, run_in_new_process, run_script

from benchmarks import measure
from pixel_cnn_pp import config
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP

SCRIPT = "benchmarks/sampling.py"
BENCHMARK = functions_of(SCRIPT)


TINY = "--filters 4 --nr_resnet 2 --sizes 8 --dtypes float32 --naive_pixels 2 --repeats 1"


MODEL = ModelConfig(image_shape=(8, 8, 3), nr_resnet=2, nr_filters=4, receptive_field="11x5")


@pytest.fixture(scope="module")
def printed():
    """What it prints for two batch sizes."""
    with pytest.MonkeyPatch.context() as patch:
        start_here(patch)
        # Compiles in a third of the time; test_benchmark_work.py counts on the full network.
        small = functools.partial(ModelConfig, receptive_field="11x5")
        patch.setattr(config, "ModelConfig", small)
        done = run_script(SCRIPT, *TINY.split(), "--batch_sizes", "1,2")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def rows(printed):
    """The rows of its table."""
    (found,) = tables(printed)
    return found


def test_there_is_a_row_for_each_case(rows):
    assert [list(row) for row in rows] == [list(BENCHMARK.COLUMNS)] * 2
    cases = [[row[name] for name in ("filters", "size", "batch", "dtype")] for row in rows]
    assert cases == [["4", "8", "1", "float32"], ["4", "8", "2", "float32"]]


def test_the_numbers_of_a_row_agree_with_each_other(rows):
    model = PixelCNNPP(MODEL)
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

        caches = keras.tree.flatten(model.cached_step.initial_state(batch_size, 8))
        assert int(row["cache bytes"]) == sum(ops.convert_to_numpy(x).nbytes for x in caches)
        # TensorFlow alone takes more than 100 MiB.
        assert number(row["peak MiB"]) > 100


def test_weights_are_counted_for_batches_of_one(rows):
    model = PixelCNNPP(MODEL)
    rate, percentage, machine_rate = shares(rows[0]["weights GB/s (share of)"])
    assert 0 < percentage == pytest.approx(100 * rate / machine_rate, rel=ROUNDING)
    read = 1e6 * rate * number(rows[0]["cached ms/pixel"])
    assert read == pytest.approx(BENCHMARK.weight_bytes_per_pixel(model), rel=ROUNDING)
    assert rows[1]["weights GB/s (share of)"] == "-"


def test_what_was_extrapolated_and_the_machine_stand_below(printed):
    assert "- naive: extrapolated from the time of 2 pixels to all pixels" in printed
    assert "- Times are the best of 1." in printed
    assert re.fullmatch(
        r"Machine: \d+ cores, .+; Keras \d+\.\S+ on \w+ \d+\.\S+, device \S+",
        printed.splitlines()[-1],
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("filters", "4,many", "`filters` must be whole numbers of at least 1, .* filters=4,many"),
        ("batch_sizes", "0", "`batch_sizes` must be whole numbers of at least 1, .* Received: .*0"),
        ("sizes", "", "`sizes` must be whole numbers of at least 1, .* Received: sizes="),
        ("dtypes", "float16", "`dtypes` must be of float32, .* Received: dtypes=float16"),
        ("naive_pixels", "1025", "`naive_pixels` must be at most 1024, .* Received: .*=1025"),
    ],
)
def test_a_flag_that_breaks_its_rule_is_named(name, value, message):
    done = run_script(SCRIPT, f"--{name}={value}")
    assert_one_line(done, f"^sampling.py: {message}")
    assert done.stdout == ""


def test_a_user_who_is_somewhere_else_sees_one_line(tmp_path):
    done = run_in_new_process(ROOT / SCRIPT, "--sizes", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("sampling.py: `sizes` must be whole numbers of at least 1")
    assert done.stderr.count("\n") == 1
