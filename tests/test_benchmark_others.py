import concurrent.futures
import importlib.util
import math
import re
import runpy
import sys

import pytest
from benchmark_runs import ROUNDING, number, shares, start_here, tables
from processes import ROOT, assert_one_line, run_in_new_process, run_script

from benchmarks import measure
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP

ACCELERATOR = ROOT / "benchmarks" / "accelerator.py"


def test_a_preset_is_timed_and_its_training_projected(monkeypatch):
    start_here(monkeypatch)
    arguments = "--presets cifar10_class_conditional --nr_filters 4 --size 8 "
    arguments += "--receptive_field 11x5 --nr_resnet 2 "
    arguments += "--batch_size 2 --steps 1 --max_epochs 300 --num_images 90000"
    done = run_script("benchmarks/presets.py", *arguments.split())
    assert (done.returncode, done.stderr) == (0, "")
    ((row,),) = tables(done.stdout)
    assert (row["preset"], row["batch"]) == ("cifar10_class_conditional", "2")
    config = ModelConfig(
        image_shape=(8, 8, 3), nr_resnet=2, nr_filters=4, num_classes=10, receptive_field="11x5"
    )
    num_params = sum(math.prod(w.shape) for w in PixelCNNPP(config).trainable_weights)
    assert row["parameters"] == f"{num_params:,}"
    step_s, images_per_s = number(row["s/step"]), number(row["images/s"])
    assert images_per_s == pytest.approx(2 / step_s, rel=ROUNDING)
    assert number(row["first step s"]) > step_s and number(row["peak MiB"]) > 100
    # Rounded to the next whole hour, from a rate that is rounded too.
    hours = number(row["projected hours"].replace(",", ""))
    expected = 300 * 90000 / 3600 / images_per_s
    assert abs(hours - expected) <= 0.5 + ROUNDING * expected
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
def test_what_is_no_preset_is_one_line(arguments, message):
    done = run_script("benchmarks/presets.py", *arguments.split())
    assert_one_line(done, f"^presets.py: {message}")
    assert done.stdout == ""


def test_the_model_is_timed_on_jax_where_there_is_no_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('No TensorFlow here.')")
    done = run_in_new_process(
        ACCELERATOR,
        *("--cases", "4/1/2", "--size", "8", "--steps", "1", "--dtypes", "mixed_bfloat16"),
        *("--matrix_side", "64", "--nosampling"),
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


def test_rows_of_pytorch_are_compared_with_ours_in_the_same_place(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(measure, "require_torch", lambda: None)
    calls = []

    def in_new_process(script, case, **environment):
        calls.append((case["dtype"], case["peer"], case["checks_peer"], environment))
        made_up = {"device": "a card", "first_step_s": 9, "peak_bytes": 2**30, "log_prob_s": 1.0}
        if case["peer"] is None:
            made_up |= {"training_flops": 3e12, "flops": 1e12, "machine_flops_per_s": 4e12}
            made_up |= {"first_sampling_s": 8.0, "sampling_s": 2.0}
        return {**made_up, "step_s": {None: 0.5, "eager": 2.0, "compiled": 0.75}[case["peer"]]}

    monkeypatch.setattr(measure, "in_new_process", in_new_process)
    arguments = ["--cases", "4/1/8", "--torch", "eager,compiled"]
    done = run_script("benchmarks/accelerator.py", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    on_cpu = {"JAX_PLATFORMS": "cpu"}
    assert calls == [
        (dtype, *row)
        for dtype, is_first in (("float32", True), ("mixed_bfloat16", False))
        for row in ((None, False, {}), ("eager", is_first, on_cpu), ("compiled", False, on_cpu))
    ]
    ((ours, eager, compiled, *_),) = tables(done.stdout)
    assert [row["network"] for row in (ours, eager)] == ["ours", "PyTorch, eager"]
    assert [row["ours is faster by"] for row in (ours, eager, compiled)] == ["1", "4", "1.5"]
    assert ours["TFLOP/s (share of)"] == "6 (150% of 4)"
    assert compiled["TFLOP/s (share of)"] == "4 (100% of 4)"
    assert [ours["sampling images/s"], eager["sampling images/s"]] == ["4", "-"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--torch", "fast"], "`torch` must be of eager, compiled. Received: torch=fast"),
        (["--torch", "eager"], r"`torch` needs PyTorch \(pip install torch==\S+ --index-url .*\)"),
    ],
)
def test_what_is_wrong_with_pytorch_is_one_line(arguments, message, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(sys, "path", [*sys.path])
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )
    done = run_script("benchmarks/accelerator.py", *arguments)
    assert_one_line(done, f"^accelerator.py: {message}")


def test_cases_that_are_compiled_together_are_timed_alone(tmp_path):
    case = {"lock": str(tmp_path / "lock")}
    (tmp_path / "lock").touch()

    def time_alone():
        with measure.turn(case, is_alone=True):
            return True

    with concurrent.futures.ThreadPoolExecutor() as executor:
        with measure.turn(case, is_alone=False), measure.turn(case, is_alone=False):
            timed = executor.submit(time_alone)
            with pytest.raises(concurrent.futures.TimeoutError):
                timed.result(0.2)
        assert timed.result(10)


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(sys, "path", [*sys.path])
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jax" else find_spec(name)
    )
    with pytest.raises(SystemExit, match=r"accelerator.py: absl-py, jax, .* Missing: jax$"):
        runpy.run_path(str(ACCELERATOR))
