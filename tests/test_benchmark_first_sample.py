import json
import time

from benchmark_runs import number, tables
from processes import functions_of, run_script

from benchmarks import measure
from pixel_cnn_pp import sampling

SCRIPT = "benchmarks/first_sample.py"
BENCHMARK = functions_of(SCRIPT)


def test_versions_take_turns_and_medians_are_printed(monkeypatch, tmp_path):
    calls = []

    def in_new_process(script, case, **environment):
        calls.append((case, environment))
        if "make" in case:
            return None
        k = len(calls)
        return {**dict.fromkeys(BENCHMARK.PARTS, k), "cpu": 10 * k}

    monkeypatch.setattr(measure, "in_new_process", in_new_process)
    versions = [tmp_path / "before", tmp_path / "after"]
    checkouts = ",".join(map(str, versions))
    done = run_script(SCRIPT, "--checkouts", checkouts, "--repeats", 3, "--filters", 6)
    assert (done.returncode, done.stderr) == (0, "")
    (made, _), *timed = calls
    assert made["nr_filters"] == 6
    assert all(case["run_dir"] == made["make"] for case, _ in timed)
    assert [own["PYTHONPATH"] for _, own in timed] == [str(v) for v in versions for _ in "12"] * 3
    # Each version and turn begins with no kept files, and its second process finds those of the
    # first.
    folders = [own["PIXEL_CNN_PP_CACHE"] for _, own in timed]
    assert folders[::2] == folders[1::2] and len(set(folders)) == 6
    (rows,) = tables(done.stdout)
    assert list(rows[0]) == list(BENCHMARK.COLUMNS)
    assert [(row["version"], row["compiled before"]) for row in rows] == [
        ("before", "no"), ("before", "yes"), ("after", "no"), ("after", "yes")
    ]  # fmt: skip
    # The first row has the processes 2, 6 and 10, of which 6 is the median.
    assert [number(row["draw s"]) for row in rows] == [6, 7, 8, 9]
    assert [number(row["in all s"]) for row in rows] == [30, 35, 40, 45]
    assert [number(row["CPU s"]) for row in rows] == [60, 70, 80, 90]


def test_a_run_is_made_and_the_parts_of_its_first_images_are_timed(monkeypatch, tmp_path):
    compile_function = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))
    network = {"image_shape": [4, 4, 3], "nr_filters": 4, "nr_resnet": 1, "nr_logistic_mix": 2}
    run_dir = str(tmp_path / "run")
    assert BENCHMARK.measure_case({"make": run_dir, **network}) is None
    started = time.time() - 100
    case = {"run_dir": run_dir, "num_samples": 2, "started": started}
    measured = json.loads(json.dumps(BENCHMARK.measure_case(case)))
    assert set(measured) == {*BENCHMARK.PARTS, "cpu"}
    assert measured["imports"] >= 100
    assert min(measured.values()) > 0
