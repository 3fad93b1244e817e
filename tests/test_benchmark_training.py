import math
import re

import pytest
from benchmark_runs import ROUNDING, measure_here, number, start_here, table, tables
from processes import functions_of, run_script

from benchmarks import measure, operations
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP

SCRIPT = "benchmarks/training.py"
BENCHMARK = functions_of(SCRIPT)


@pytest.fixture(scope="module")
def training_printed():
    """What the benchmark of training prints, of one tiny case."""
    in_new_process = measure.in_new_process

    def ours_in_this_process(script, case, **environment):
        # TFP needs another Keras, and shows how the script is started.
        if case["training"] is None:
            return in_new_process(script, case, **environment)
        return measure_here(script, case)

    with pytest.MonkeyPatch.context() as patch:
        start_here(patch)
        patch.setattr(measure, "in_new_process", ours_in_this_process)
        done = run_script(SCRIPT, *["--cases", "4/1/2", "--size", "8", "--steps", "2", "--profile"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_is_timed_beside_that_of_tensorflow_probability(training_printed):
    rows, *_ = tables(training_printed)
    assert [list(row) for row in rows] == [list(BENCHMARK.COLUMNS)] * 2
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
    assert operations.of_thread(plane, line) == [
        ["PartitionedCall", 100 - 30 - 10],
        ["Mul", 30],
        ["XLA dot", 10],
        ["Sub", 5],
    ]


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


def test_variants_are_compared_with_the_first_and_rounds_put_together(monkeypatch):
    calls = []

    def in_new_process(script, case, **environment):
        calls.append((case["training"], environment))
        return made_up({1: 1.0, 2: 0.5, 3: 2.0, 4: 0.25}[len(calls)])

    monkeypatch.setattr(measure, "in_new_process", in_new_process)
    arguments = ["--variants", "seed=3;seed=4,optimizer=adam", "--rounds", "2", "--notfp"]
    done = run_script(SCRIPT, "--cases", "4/1/8", *arguments)
    assert calls == [({"seed": 3}, {}), ({"seed": 4, "optimizer": "adam"}, {})] * 2
    first, second = table([x for x in done.stdout.splitlines() if x.startswith("|")])
    # Times of 1, 2, 2, 4 and of 0.5, 1, 0.25, 0.5.
    assert [first["s/step"], first["median"], first["speed / first"]] == ["1", "2", "1"]
    assert [second["s/step"], second["median"], second["speed / first"]] == ["0.25", "0.5", "4"]
    assert [second["images/s"], second["TFLOP/s"]] == ["32", "4"]
    assert [second["of matrix products"], second["of convolutions"]] == ["100% of 4", "200% of 2"]
    memory = [second[f"{name} MiB"] for name in ("peak", "of the step", "tensors")]
    assert memory == ["1024", "-", "2"]
    assert second["speed / TFP"] == second["log_prob speed / TFP"] == "-"


def test_a_variant_is_read_as_the_flags_of_training_are():
    assert BENCHMARK.parse_variants("") == {"defaults": {}}
    assert BENCHMARK.parse_variants("optimizer=adam, polyak_decay=0.5;;load_params=true") == {
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
        BENCHMARK.parse_variants(text)
