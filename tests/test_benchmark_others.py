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


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(sys, "path", [*sys.path])
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jax" else find_spec(name)
    )
    with pytest.raises(SystemExit, match=r"accelerator.py: absl-py, jax, .* Missing: jax$"):
        runpy.run_path(str(ACCELERATOR))
