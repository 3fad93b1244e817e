import concurrent.futures
import csv
import re
import types

import numpy as np
import pytest
from processes import run_script

from experiments import runs

TINY = (
    "--data_set digits --num_train_images 32 --nr_filters 4 --nr_logistic_mix 1 --batch_size 16 "
    "--init_batch_size 16 --max_epochs 2 --seeds 1 --jobs 2 "
    "--receptive_field 11x5 --nr_resnet 2"
)


class Here:
    """An executor that calls in this thread, at once."""

    def __init__(self, num_jobs):
        assert num_jobs == 2

    def submit(self, function, *arguments):
        future = concurrent.futures.Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, cancel_futures):
        pass


def call_here(children, command, log_path):
    """`Children.call` without a process."""
    done = run_script(*command)
    with open(log_path, "a") as log:
        log.write(done.stdout + done.stderr)
    return done.returncode


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Two runs, and the same command when one of them has lost its scores and its checkpoint.

    The runs are made in this process, the one that fails in a process of its own.
    """
    out = tmp_path_factory.mktemp("experiments") / "out"
    arguments = ["--comparisons", "dropout", "--out", out, *TINY.split()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(concurrent.futures, "ThreadPoolExecutor", Here)
        patch.setattr(runs.Children, "call", call_here)
        first = run_script("experiments/run.py", *arguments)
    tables = {path.suffix: path.read_text() for path in out.glob("table.*")}
    logs = {path.parent.name: path.read_text() for path in out.glob("runs/*/train.log")}
    scores = {}
    for path in out.glob("runs/*/scores.npz"):
        with np.load(path) as arrays:
            scores[path.parent.name] = dict(arrays)
    (out / "runs" / "no_dropout_1" / "scores.npz").unlink()
    (state,) = out.glob("runs/no_dropout_1/checkpoints/*_000000000004/state.json")
    state.write_text('{"step": 4, "epoch": 1}')
    kept = out / "runs" / "cifar10_1" / "scores.npz"
    written = kept.stat().st_mtime_ns
    second = run_script("experiments/run.py", *arguments)
    assert kept.stat().st_mtime_ns == written
    return types.SimpleNamespace(
        out=out,
        arguments=arguments,
        first=first,
        tables=tables,
        logs=logs,
        scores=scores,
        second=second,
    )


def test_every_run_is_told_of_and_the_tables_are_printed(started):
    assert (started.first.returncode, started.first.stderr) == (0, "")
    for name in ("cifar10", "no_dropout"):
        line = rf"^[12]/2 {name}, seed 1: \d+\.\d{{4}} bits/dim, \d\.\d min$"
        assert re.search(line, started.first.stdout, re.M)
    assert started.tables[".md"] in started.first.stdout
    names = {"runs", "table.md", "table.csv", "dropout.png"}
    assert {path.name for path in started.out.iterdir()} == names


def test_the_table_holds_what_the_runs_came_to(started):
    rows = {row["row"]: row for row in csv.DictReader(started.tables[".csv"].splitlines())}
    assert list(rows) == ["cifar10", "no_dropout"]
    tests = {}
    for name, row in rows.items():
        scores = started.scores[f"{name}_1"]
        train, test = (
            scores["bits_per_dim"][scores["split"] == split] for split in ("train", "test")
        )
        assert (len(train), len(test)) == (32, 256)
        tests[name] = np.mean(test)
        assert float(row["test"]) == pytest.approx(tests[name], rel=1e-12)
        assert float(row["gap"]) == pytest.approx(tests[name] - np.mean(train), rel=1e-9)
        log = started.logs[f"{name}_1"]
        assert f"; {int(row['parameters']):,} parameters, 1 replica" in log
        # The test bits/dim behind the last epoch, with the averaged weights.
        printed = re.search(r"^epoch 2/2  step 4  .*test (\S+) bits/dim", log, re.M).group(1)
        assert float(printed) == pytest.approx(tests[name], abs=1e-4)
        assert (row["steps"], row["num_seeds"], row["test_standard_error"]) == ("4", "1", "")
        assert float(row["seconds_per_step"]) > 0
    difference = tests["no_dropout"] - tests["cifar10"]
    assert float(rows["no_dropout"]["difference"]) == pytest.approx(difference)


def test_a_run_that_is_done_is_skipped_and_one_that_fails_is_named_with_its_log(started):
    assert started.second.returncode == 1
    assert (
        started.second.stderr == "run.py: 1 of 2 runs failed; the same command tries them again\n"
    )
    assert re.search(r"^[12]/2 cifar10, seed 1: done before$", started.second.stdout, re.M)
    log = started.out / "runs" / "no_dropout_1" / "train.log"
    (line,) = [line for line in started.second.stdout.splitlines() if "FAILED" in line]
    assert f"no_dropout, seed 1: FAILED, train.py ended with status 1, log in {log}: " in line
    assert line.endswith(log.read_text().splitlines()[-1])
    assert "train.py: A checkpoint must be whole." in line
    # Appended to what it had said before.
    assert log.read_text().startswith(started.logs["no_dropout_1"])
    table = (started.out / "table.md").read_text()
    assert re.search(r"^\| cifar10 \| 2.92 \| \d", table, re.M)
    assert re.search(r"^\| no_dropout \|[ |]* \| 0 \|$", table, re.M)


def test_other_flags_are_refused_before_anything_runs(started, tmp_path):
    done = run_script("experiments/run.py", *started.arguments, "--max_epochs", "3")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "cifar10_1 was started with" in done.stderr and "max_epochs: 2 != 3" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--comparisons dropout,colours", "`comparisons` must be some of .*=dropout,colours"),
        ("--comparisons dropout --dropout_p 0.2", "`dropout_p` must be left out: the rows of `dr"),
    ],
)
def test_a_wrong_flag_is_one_line(arguments, message, tmp_path):
    done = run_script("experiments/run.py", *arguments.split(), "--out", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(f"run.py: {message}", done.stderr), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_commands_and_runs_none(tmp_path):
    out = tmp_path / "out"
    arguments = "--scale full --comparisons classes --seeds 1 --dry_run"
    done = run_script("experiments/run.py", *arguments.split(), "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    train, evaluate, *others = done.stdout.splitlines()
    run_dir = out / "runs" / "cifar10_1"
    assert train == f"python train.py --preset=cifar10 --seed=1 --save_dir={run_dir}"
    assert evaluate.startswith(f"python evaluate.py {run_dir} --split=all --weights=ema")
    assert [line.split()[1:3] for line in others] == [
        ["train.py", "--preset=cifar10_class_conditional"],
        ["evaluate.py", str(out / "runs" / "cifar10_class_conditional_1")],
    ]
    assert not out.exists()


def test_data_without_labels_leave_the_comparison_of_classes_out(tmp_path):
    images = np.random.default_rng(0).integers(0, 4, (8, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "set.npz", images=images)
    done = run_script(
        "experiments/run.py",
        *f"--comparisons classes --data_set npz:{tmp_path / 'set.npz'}".split(),
        *f"--data_dir {tmp_path / 'data'} --out {tmp_path / 'out'}".split(),
    )
    assert "Left out `classes`: the data set has no labels.\n" in done.stdout
    assert not list(tmp_path.glob("out/runs/*"))
