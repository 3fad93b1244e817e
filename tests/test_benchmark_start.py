import functools
import json

import pytest
from benchmark_runs import number, start_here, tables
from processes import assert_one_line, functions_of, run_in_new_process, run_script

from pixel_cnn_pp import config
from pixel_cnn_pp.config import ModelConfig

SCRIPT = "benchmarks/start.py"
BENCHMARK = functions_of(SCRIPT)


def test_the_stages_of_a_start_are_timed_and_operations_counted(monkeypatch):
    start_here(monkeypatch)
    # Fewer layers are traced and compiled sooner.
    monkeypatch.setattr(
        config, "ModelConfig", functools.partial(ModelConfig, receptive_field="11x5")
    )
    arguments = "--nr_resnet 2 --replicas 1 --filters 4 --batch_size 3"
    done = run_script(SCRIPT, *arguments.split())
    assert (done.returncode, done.stderr) == (0, "")
    ((row,),) = tables(done.stdout)
    assert list(row) == list(BENCHMARK.COLUMNS)
    assert (row["blocks"], row["replicas"]) == ("2", "1")
    seconds = {name: number(row[f"{name} s"]) for name in BENCHMARK.STAGES}
    assert min(seconds.values()) > 0
    assert seconds["first step"] > seconds["second step"]
    assert int(row["operations"]) > 100
    assert "4 filters, 8x8 images in colour, 3 a replica." in done.stdout


def test_operations_are_counted_in_the_functions_that_a_step_calls_each_once():
    import tensorflow as tf

    @tf.function(autograph=False)
    def twice(x):
        return 2 * x  # argument, constant, product, identity, result

    @tf.function(autograph=False)
    def unused(x):
        return x - 1

    @tf.function(autograph=False)
    def step(x):
        unused.get_concrete_function(x)
        return twice(twice(x))  # argument, two calls, identity

    graph = step.get_concrete_function(tf.constant(1.0)).graph.as_graph_def()
    bodies = {function.signature.name: function.node_def for function in graph.library.function}
    (body,) = (nodes for name, nodes in bodies.items() if "twice" in name)
    assert BENCHMARK.count_operations(graph) == len(graph.node) + len(body)


def test_a_row_is_given_up_at_its_limit():
    case = {"nr_resnet": 1, "replicas": 2, "filters": 4, "size": 8, "batch_size": 1, "limit": 0.1}
    done = run_in_new_process(SCRIPT, "--case", json.dumps(case), TF_CPP_MIN_LOG_LEVEL="3")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert list(measured) == ["in progress"]
    assert measured["in progress"][0] == "build" and measured["in progress"][1] >= 0
    assert BENCHMARK.cells(case, measured) == [1, 2, "> 0", *["-"] * 6]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--replicas=1,0", "`replicas` must be whole numbers of at least 1, .* replicas=1,0"),
        ("--nr_resnet=", "`nr_resnet` must be whole numbers of at least 1, .* nr_resnet="),
    ],
)
def test_a_flag_that_breaks_its_rule_is_named(flag, message):
    done = run_script(SCRIPT, flag)
    assert_one_line(done, f"^start.py: {message}")
    assert done.stdout == ""
