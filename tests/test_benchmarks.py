import contextlib
import importlib.util
import io
import json
import math
import os
import pathlib
import re
import runpy
import subprocess
import sys

import numpy as np
import processes
import pytest
from absl import flags
from absl.testing import flagsaver
from keras import ops

from benchmarks import measure, training
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
SCRIPT = BENCHMARKS / "sampling.py"
TINY = "--filters 4 --nr_resnet 1 --sizes 8 --dtypes float32 --naive_pixels 2 --repeats 1"
# Two numbers of three significant digits each, one divided by the other.
ROUNDING = 0.011


def run_script(tmp_path, *arguments, script=SCRIPT, **environment):
    """The script with its arguments, as a user runs it who is somewhere else."""
    return subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def table(lines):
    """The rows of a Markdown table, {column: text} each."""
    header, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert len(rule) == len(header) and all(set(cell) <= set("-:") for cell in rule)
    return [dict(zip(header, row, strict=True)) for row in rows]


def tables(printed):
    """All tables of a text, in order."""
    return [table(block.splitlines()) for block in re.findall(r"(?:^\|.*\n)+", printed, re.M)]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What it prints for two batch sizes."""
    arguments = [*TINY.split(), "--batch_sizes", "1,2"]
    done = run_script(tmp_path_factory.mktemp("elsewhere"), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def rows(printed):
    """The rows of its table."""
    (found,) = tables(printed)
    return found


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


# Training


@pytest.fixture(scope="module")
def training_printed():
    """What the benchmark of training prints, of one tiny case."""
    in_new_process = measure.in_new_process

    def ours_in_this_process(script, case, **environment):
        # Starting TensorFlow is most of the time, and TFP's side shows how the script is started.
        if case["training"] is None:
            return in_new_process(script, case, **environment)
        return json.loads(json.dumps(training.measure_case(case)))

    flags.FLAGS.mark_as_parsed()
    out = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        flagsaver.as_parsed(cases="4/1/2", size="8", steps="2", profile="true"),
        contextlib.redirect_stdout(out),
    ):
        patch.setattr(measure, "in_new_process", ours_in_this_process)
        training.main()
    return out.getvalue()


def test_training_is_timed_beside_that_of_tensorflow_probability(training_printed):
    rows, *_ = tables(training_printed)
    assert [list(row) for row in rows] == [list(training.COLUMNS)] * 2
    assert [row["variant"] for row in rows] == ["tfp.distributions.PixelCNN", "defaults"]
    model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4))
    tfp, ours = ({name: row[name] for name in row} for row in rows)
    for row in rows:
        step_s = number(row["s/step"])
        assert number(row["median"]) >= step_s
        assert number(row["first step s"]) > step_s
        assert number(row["images/s"]) == pytest.approx(2 / step_s, rel=ROUNDING)
        flops = 2 * measure.training_flops_per_image(model, 8, 8)
        # A TFLOP/s of 0.000xyz keeps its three digits.
        assert 1e12 * number(row["TFLOP/s"]) * step_s == pytest.approx(flops, rel=ROUNDING)
        # TensorFlow alone takes more than 100 MiB.
        assert number(row["peak MiB"]) > 100 + number(row["of the step MiB"]) > 100
        ratio = number(tfp["s/step"]) / step_s
        assert number(row["speed / TFP"]) == pytest.approx(ratio, rel=ROUNDING)
        ratio = number(ours["s/step"]) / step_s
        assert number(row["speed / first"]) == pytest.approx(ratio, rel=ROUNDING)
        ratio = number(tfp["log_prob s"]) / number(row["log_prob s"])
        assert number(row["log_prob speed / TFP"]) == pytest.approx(ratio, rel=ROUNDING)
        for column in ("of matrix products", "of convolutions"):
            percentage, machine_rate = re.fullmatch(r"(\S+)% of (\S+)", row[column]).groups()
            share = 100 * number(row["TFLOP/s"]) / number(machine_rate)
            assert number(percentage) == pytest.approx(share, rel=ROUNDING)


def test_both_have_the_same_parameters_but_for_those_of_the_channel_of_ones(training_printed):
    found = re.search(
        r"^Parameters at 4 filters, 1 blocks: tfp.distributions.PixelCNN ([\d,]+) and ([\d,]+) "
        r"masked ones; defaults ([\d,]+).$",
        training_printed,
        re.MULTILINE,
    )
    tfp, masked, ours = (int(text.replace(",", "")) for text in found.groups())
    model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4))
    assert ours == sum(math.prod(weight.shape) for weight in model.trainable_weights)
    # Three input filters, 2x3, 1x3 and 2x1, see it.
    assert ours - tfp == (6 + 3 + 2) * 4
    assert masked > 0


def test_a_profile_lists_the_operations_of_each_step(training_printed):
    _, *profiles = tables(training_printed)
    assert len(profiles) == 2
    for rows in profiles:
        times = [number(row["s/step"]) for row in rows]
        assert times == sorted(times, reverse=True)
        # Of each percentage half a unit of its third digit may be rounding.
        assert sum(number(row["of all"].rstrip("%")) for row in rows) <= 100 * (1 + ROUNDING)
        # oneDNN's have a prefix.
        for operation in ("Conv2D", "Conv2DBackpropFilter", "MatMul"):
            assert any(row["operation"].endswith(operation) for row in rows)
        assert not {"Run", "Process"} & {row["operation"] for row in rows}


def test_time_in_what_an_operation_calls_is_not_its_own():
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    plane = xplane_pb2.XPlane()
    plane.stat_metadata[1].name = "hlo_op"
    names = ["f/call:PartitionedCall", "f/a:Mul", "ExecutorState::Process", "dot.12", "g:Sub"]
    for number_of_name, name in enumerate(names):
        plane.event_metadata[number_of_name].name = name
    line = plane.lines.add()
    for name, start, duration in ((1, 20, 30), (0, 10, 100), (2, 55, 20), (3, 60, 10), (4, 110, 5)):
        event = line.events.add(metadata_id=name, offset_ps=start, duration_ps=duration)
        if names[name] == "dot.12":
            event.stats.add(metadata_id=1)
    assert training._operations(plane, line) == [
        ["PartitionedCall", 100 - 30 - 10],
        ["Mul", 30],
        ["XLA dot", 10],
        ["Sub", 5],
    ]


def test_a_step_makes_three_times_the_flops_of_a_pass():
    model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4))
    flops = measure.flops_per_image(model, 8, 8)
    assert measure.training_flops_per_image(model, 8, 8) == 3 * flops


def made_up(step_s):
    """What a row could have measured."""
    return {
        "step_s": [step_s, 2 * step_s],
        "log_prob_s": [step_s / 4],
        "first_step_s": 9.0,
        "flops": 1e12,
        "matrix_flops_per_s": 4e12,
        "convolution_flops_per_s": 2e12,
        "peak_bytes": 2**30,
        "step_bytes": None,
        "tensor_bytes": 2**21,
        "num_params": 7,
    }


def test_variants_are_compared_with_the_first_and_rounds_put_together(monkeypatch, capsys):
    calls = []

    def in_new_process(script, case, **environment):
        calls.append((case["training"], environment))
        return made_up({1: 1.0, 2: 0.5, 3: 2.0, 4: 0.25}[len(calls)])

    monkeypatch.setattr(measure, "in_new_process", in_new_process)
    flags.FLAGS.mark_as_parsed()
    with flagsaver.as_parsed(
        cases="4/1/8", variants="seed=3;seed=4,optimizer=adam", rounds="2", tfp="false"
    ):
        training.main()
    assert calls == [({"seed": 3}, {}), ({"seed": 4, "optimizer": "adam"}, {})] * 2
    first, second = table([x for x in capsys.readouterr().out.splitlines() if x.startswith("|")])
    # Times of 1, 2, 2, 4 and of 0.5, 1, 0.25, 0.5.
    assert [first["s/step"], first["median"], first["speed / first"]] == ["1", "2", "1"]
    assert [second["s/step"], second["median"], second["speed / first"]] == ["0.25", "0.5", "4"]
    assert [second["images/s"], second["TFLOP/s"]] == ["32", "4"]
    assert [second["of matrix products"], second["of convolutions"]] == ["100% of 4", "200% of 2"]
    memory = [second[f"{name} MiB"] for name in ("peak", "of the step", "tensors")]
    assert memory == ["1024", "-", "2"]
    assert second["speed / TFP"] == second["log_prob speed / TFP"] == "-"


def test_a_variant_is_read_as_the_flags_of_training_are():
    assert training.parse_variants("") == {"defaults": {}}
    assert training.parse_variants("optimizer=adam, polyak_decay=0.5;;load_params=true") == {
        "optimizer=adam, polyak_decay=0.5": {"optimizer": "adam", "polyak_decay": 0.5},
        "defaults": {},
        "load_params=true": {"load_params": True},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed=1;speed=2", "be name=value, each name one of .* seed.* Received: variants=speed=2"),
        ("batch_size=2", "be name=value, each name one of .* Received: variants=batch_size=2"),
        ("--seed=2", "be name=value, each name one of .* Received: variants=--seed=2"),
        ("seed", "hold right values. Received: .*seed"),
        ("optimizer=sgd", "hold right values. Received: .*optimizer=sgd"),
        ("polyak_decay=2", "hold right values. Received: .*`polyak_decay` must be .* < 1"),
    ],
)
def test_a_variant_that_breaks_its_rule_is_named(text, message):
    with pytest.raises(ValueError, match=f"`variants` must {message}"):
        training.parse_variants(text)


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (["64/2"], 8, "`cases` must be filters/blocks/batch size, .* Received: cases=64/2"),
        (["64/2/0"], 8, "`cases` must be filters/blocks/batch size, .* Received: cases=64/2/0"),
        ([], 8, "`cases` must name at least one case. Received: cases="),
        (["64/2/1"], 10, "`size` must be a multiple of 4. Received: size=10"),
    ],
)
def test_a_case_that_breaks_its_rule_is_named(texts, size, message):
    with pytest.raises(ValueError, match=message):
        measure.network_cases(texts, size)


def test_a_process_that_fails_is_named_with_its_case(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("import sys; sys.exit(3)")
    with pytest.raises(OSError, match=r'A case ended with exit status 3: \{"filters": 4\}'):
        measure.in_new_process(script, {"filters": 4})


def test_a_process_gets_its_case_and_its_environment(tmp_path):
    script = tmp_path / "prints.py"
    script.write_text(
        "import json, os, sys\nprint('noise')\n"
        "print(json.dumps([os.environ['EXTRA'], json.loads(sys.argv[2])]))"
    )
    assert measure.in_new_process(script, {"filters": 4}, EXTRA="x") == ["x", {"filters": 4}]


# Presets


def test_a_preset_is_timed_and_its_training_projected(tmp_path):
    arguments = "--presets cifar10_class_conditional --nr_resnet 1 --nr_filters 4 --size 8 "
    arguments += "--batch_size 2 --steps 1 --max_epochs 300 --num_images 90000"
    done = processes.run(tmp_path, BENCHMARKS / "presets.py", *arguments.split())
    assert (done.returncode, done.stderr) == (0, "")
    ((row,),) = tables(done.stdout)
    assert (row["preset"], row["batch"]) == ("cifar10_class_conditional", "2")
    config = ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4, num_classes=10)
    num_params = sum(math.prod(w.shape) for w in PixelCNNPP(config).trainable_weights)
    assert row["parameters"] == f"{num_params:,}"
    step_s, images_per_s = number(row["s/step"]), number(row["images/s"])
    assert images_per_s == pytest.approx(2 / step_s, rel=ROUNDING)
    assert number(row["first step s"]) > step_s and number(row["peak MiB"]) > 100
    # To the next whole hour.
    hours = number(row["projected hours"].replace(",", ""))
    assert hours == pytest.approx(300 * 90000 / 3600 / images_per_s, rel=ROUNDING, abs=0.5)
    assert "- projected hours: NOT a measurement. 300 epochs of 90000 images" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--presets cifar10,cifar", "`presets` must be some of release, .*: presets=cifar10,cifar"),
        (
            "--presets small_15x8_nin --nr_resnet 1",
            "`nr_resnet` must be left out for a receptive_field",
        ),
    ],
)
def test_what_is_no_preset_is_one_line(arguments, message, tmp_path):
    done = processes.run(tmp_path, BENCHMARKS / "presets.py", *arguments.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.match(f"presets.py: {message}", done.stderr), done.stderr


# JAX


def test_the_model_is_timed_on_jax_where_there_is_no_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('No TensorFlow here.')")
    done = run_script(
        tmp_path,
        *("--cases", "4/1/2", "--size", "8", "--steps", "1", "--dtypes", "mixed_bfloat16"),
        *("--matrix_side", "64", "--nosampling"),
        script=BENCHMARKS / "accelerator.py",
        PYTHONPATH=str(tmp_path),
        JAX_PLATFORMS="cpu",
        # Compilation is most of the time; here the compiled code need not be fast.
        XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    )
    assert (done.returncode, done.stderr) == (0, "")
    ((row,),) = tables(done.stdout)
    assert (row["filters/blocks/batch"], row["dtype"]) == ("4/1/2", "mixed_bfloat16")
    model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4))
    step_s, flops = number(row["s/step"]), 2 * measure.training_flops_per_image(model, 8, 8)
    assert number(row["training images/s"]) == pytest.approx(2 / step_s, rel=ROUNDING)
    rate, percentage, machine_rate = shares(row["TFLOP/s (share of)"])
    assert 1e12 * rate * step_s == pytest.approx(flops, rel=ROUNDING)
    assert percentage == pytest.approx(100 * rate / machine_rate, rel=ROUNDING)
    rate, *_ = shares(row["log_prob TFLOP/s (share of)"])
    images_per_s = number(row["log_prob images/s"])
    assert 1e12 * rate / images_per_s == pytest.approx(flops / 3 / 2, rel=ROUNDING)
    assert number(row["first step s"]) > step_s and number(row["peak MiB"]) > 100
    assert row["sampling images/s"] == row["first sampling s"] == "-"
    assert re.fullmatch(
        r"Machine: \d+ cores, .+; Keras \S+ on jax \S+, device cpu:0: cpu",
        done.stdout.splitlines()[-1],
    )


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(sys, "path", [*sys.path])
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jax" else find_spec(name)
    )
    with pytest.raises(SystemExit, match=r"accelerator.py: absl-py, jax, .* Missing: jax$"):
        runpy.run_path(str(BENCHMARKS / "accelerator.py"))
