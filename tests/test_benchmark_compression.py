import pytest
from benchmark_runs import number, start_here, tables
from processes import assert_one_line, functions_of, run_script

from pixel_cnn_pp import sampling

SCRIPT = "benchmarks/compression.py"


def test_times_of_the_coder_stand_beside_those_of_the_sampler(monkeypatch):
    start_here(monkeypatch)
    # XLA compiles for seconds.
    compile_function, num_workers = sampling.draw.compile_function, sampling.draw.num_workers
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))
    done = run_script(SCRIPT, "--models", "tiny", "--batch_size", "2", "--repeats", "1")
    assert (done.returncode, done.stderr) == (0, "")
    ((row,),) = tables(done.stdout)
    assert list(row) == list(functions_of(SCRIPT).COLUMNS)
    assert (row["model"], row["batch"]) == ("tiny", "2")
    # What is printed of such short times has few digits.
    for name in ("encoding", "decoding"):
        ratio = number(row[f"{name} s/image"]) / number(row["sampling s/image"])
        assert number(row[f"{name} / sampling"]) == pytest.approx(ratio, rel=0.2)
    assert 0 < float(row["share of the range coder"].rstrip("%")) < 100
    assert number(row["first call s"]) > 2 * number(row["encoding s/image"])
    assert sampling.draw.num_workers is num_workers


def test_a_model_that_is_not_there_is_one_line():
    assert_one_line(run_script(SCRIPT, "--models", "digits,none"), "`models` must be of digits, ")
