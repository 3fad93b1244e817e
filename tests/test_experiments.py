import csv
import json
import os
import signal
import threading
import time

import pytest
from PIL import Image

from experiments import comparisons, results, runs
from pixel_cnn_pp import config

# The runs of a comparison


def test_every_row_is_a_preset_and_the_first_of_the_paper_s_figures_is_its_best_model():
    for comparison in comparisons.COMPARISONS.values():
        assert set(comparison.rows) <= set(config.PRESETS)
    assert comparisons.COMPARISONS["likelihoods"].rows[0] == "cifar10"
    assert comparisons.COMPARISONS["shortcuts"].rows[0] == "cifar10"


def test_the_rows_differ_in_what_is_compared_and_in_nothing_else():
    assert {name: comparisons.fields_that_differ(name) for name in comparisons.COMPARISONS} == {
        "likelihoods": {"likelihood"},
        "shortcuts": {"shortcuts"},
        "dropout": {"dropout_p"},
        "fields": {"receptive_field", "nr_resnet", "small_variant"},
        "classes": {"class_conditional"},
        "family": {"kind"},
    }
    rows = comparisons.COMPARISONS["family"].rows
    assert [config.PRESETS[row].kind for row in rows] == list(config.MODELS)[:5]


def test_rows_of_several_models_have_one_training_and_what_their_model_has():
    planned = comparisons.plan(["family"], "small", 1, {"nr_logistic_mix": 3, "batch_size": 8})
    alike = ("data_set", "batch_size", "optimizer", "learning_rate", "polyak_decay", "max_epochs")
    assert len({tuple(run.values[name] for name in alike) for run in planned}) == 1
    first, *others = planned
    assert first.values["nr_logistic_mix"] == 3 and first.values["batch_size"] == 8
    for run in others:
        assert "nr_logistic_mix" not in run.values and run.values["nr_filters"] == 24
        kind = config.PRESETS[run.row].kind
        assert f"--preset={kind}" in run.flags() and "--optimizer=adam" in run.flags()
    with pytest.raises(ValueError, match="`nr_output_filters` must be left out: no row's model"):
        comparisons.plan(["dropout"], "small", 1, {"nr_output_filters": 8})
    with pytest.raises(ValueError, match=r"`model` must be left out: the rows say it. .*=row_lstm"):
        comparisons.plan(["family"], "small", 1, {"kind": "row_lstm"})


def test_the_time_limit_may_grow_when_a_run_goes_on():
    (run, _) = comparisons.plan(["dropout"], "small", 1, {"max_minutes": 2.5})
    assert "max_minutes" not in run.settings and run.more_flags() == ["--max_minutes=2.5"]
    assert "--max_minutes=2.5" in run.flags()
    assert comparisons.plan(["dropout"], "small", 1, {})[0].more_flags() == []


def test_a_row_that_comparisons_share_is_run_once_for_each_seed():
    planned = comparisons.plan(list(comparisons.COMPARISONS), "small", 3, {})
    assert len({run.name for run in planned}) == len(planned) == 3 * 16
    assert sorted(run.seed for run in planned if run.row == "cifar10") == [1, 2, 3]
    # All rows with one seed before the next, so that what is there early can be compared.
    assert [run.seed for run in planned] == sorted(run.seed for run in planned)


def test_the_scale_and_the_user_change_what_rows_share_and_not_what_they_differ_in():
    (base, bare) = comparisons.plan(["dropout"], "small", 1, {"nr_filters": 8, "nr_resnet": 2})
    for run in (base, bare):
        assert (run.values["nr_filters"], run.values["nr_resnet"]) == (8, 2)
        assert (run.values["data_set"], run.values["max_epochs"]) == ("photos", 24)
    assert (base.values["dropout_p"], bare.values["dropout_p"]) == (0.5, 0)
    rows = comparisons.plan(["fields"], "small", 1, {})
    assert [run.values["nr_resnet"] for run in rows] == [2, 2, 2, 3, 3, 3]
    for given, message in (
        ({"nr_resnet": 2}, "`nr_resnet` must be left out: the rows of `fields` differ in it"),
        ({"nr_filters": 6}, "`nr_filters` must be a multiple of 4"),
        ({"seed": 3}, "`seed` must be left out: `seeds` and `out` say it .* Received: seed=3"),
        ({"load_params": True}, "`load_params` must be left out: the runs show it"),
        ({"likelihood": "softmax"}, "`likelihood` must be left out: the comparison `likelihoods`"),
        ({"energy_distance": True}, "`energy_distance` must be left out: the tables are of bits"),
    ):
        with pytest.raises(ValueError, match=message):
            comparisons.plan(["fields"], "small", 1, given)


def test_flags_are_the_preset_and_what_differs_from_it():
    (full, _) = comparisons.plan(["shortcuts"], "full", 1, {})
    assert full.flags() == ["--preset=cifar10", "--seed=1"]
    given = {"nr_filters": 192, "nr_gpu": 4, "recompute": True, "class_conditional": False}
    (_, second, *_) = comparisons.plan(["shortcuts"], "full", 2, given)
    assert second.flags() == [
        "--preset=no_shortcuts",
        "--nr_gpu=4",
        "--recompute",
        "--noclass_conditional",
        "--seed=1",
    ]


# Numbers, tables, curves


def result(test, train, seconds=0.5, curve=(5.0, 4.0)):
    curves = {tag: dict(zip((10, 20), curve, strict=True)) for tag in results.CURVE_TAGS}
    return results.Result(test, train, 1234, 20, seconds, curves)


@pytest.fixture
def of_two_rows():
    """Three seeds of a row; two of the other, of which one has no partner."""
    return {
        ("cifar10", 1): result(3.0, 2.75, 0.5),
        ("cifar10", 2): result(3.5, 2.75, 0.25),
        ("cifar10", 3): result(4.0, 3.5, 1.0),
        ("dequantized", 2): result(4.0, 3.75, 0.5, curve=(7.0, 6.0)),
        ("dequantized", 3): result(5.5, 4.75, 0.75, curve=(8.0, 6.5)),
        ("dequantized", 4): result(5.5, 5.0, 0.25, curve=(9.0, 7.0)),
    }


def test_the_table_has_means_and_standard_errors_over_seeds(of_two_rows):
    base, softmax, bound = results.table(["likelihoods"], of_two_rows)
    # Of 3, 3.5, 4: deviation 0.5; of 2.75, 2.75, 3.5: sqrt((0.25^2 + 0.25^2 + 0.5^2) / 2).
    assert base == {
        "comparison": "likelihoods",
        "row": "cifar10",
        "paper": 2.92,
        "is_bound": False,
        "test": 3.5,
        "test_standard_error": pytest.approx(0.5 / 3**0.5),
        "difference": None,
        "difference_standard_error": None,
        "train": 3.0,
        "train_standard_error": pytest.approx(0.1875**0.5 / 3**0.5),
        "gap": 0.5,  # of 0.25, 0.75, 0.5
        "gap_standard_error": pytest.approx(0.25 / 3**0.5),
        "lowest": 4.0,
        "lowest_standard_error": 0.0,
        "parameters": 1234,
        "steps": 20,
        "seconds_per_step": 0.5,
        "num_seeds": 3,
    }
    assert bound["is_bound"] and bound["paper"] == 3.11 and bound["test"] == 5.0
    assert bound["lowest"] == 6.5  # of the last of each curve, 6, 6.5 and 7
    # Seed by seed, 4 - 3.5 and 5.5 - 4: deviation sqrt(2 * 0.5^2), over sqrt(2).
    assert (bound["difference"], bound["difference_standard_error"]) == (1.0, pytest.approx(0.5))
    assert softmax == {
        **dict.fromkeys(results.COLUMNS),
        "comparison": "likelihoods",
        "row": "softmax",
        "is_bound": False,
        "num_seeds": 0,
    }


def test_of_a_single_seed_there_is_no_standard_error(of_two_rows):
    one = {("cifar10", 1): of_two_rows["cifar10", 1]}
    row = results.table(["dropout"], one)[0]
    assert (row["test"], row["test_standard_error"], row["num_seeds"]) == (3.0, None, 1)
    assert "| cifar10 | 2.92 | 3.0000 |  | 2.7500 | +0.2500 | 4.0000 | 1,234 | 20 | 0.5 | 1 |" in (
        results.markdown(results.table(["dropout"], one))
    )


def test_a_table_and_curves_are_written_for_each_comparison(of_two_rows, tmp_path):
    text = results.write(tmp_path, ["likelihoods", "fields"], of_two_rows)
    assert (tmp_path / "table.md").read_text() == text
    lines = text.splitlines()
    assert lines[0] == "## Likelihood (sections 3.4.1 and 3.4.2, figure 6)"
    assert (
        "| dequantized | <= 3.11 | <= 5.0000 +- 0.5000 | +1.0000 +- 0.5000 | <= 4.5000 +- 0.3819 "
        "| +0.5000 +- 0.1443 | <= 6.5000 +- 0.2887 | 1,234 | 20 | 0.5 | 3 |"
    ) in lines
    assert "| softmax |  |  |  |  |  |  |  |  |  | 0 |" in lines
    assert "- `dequantized`: section 3.4.2, a bound." in lines
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows][:4] == [
        "cifar10", "softmax", "dequantized", "small_11x5_plain",
    ]  # fmt: skip
    assert float(rows[2]["test"]) == 5.0 and rows[1]["test"] == ""
    assert {path.name for path in tmp_path.iterdir()} == {
        "table.md", "table.csv", "likelihoods.png",
    }  # fmt: skip
    with Image.open(tmp_path / "likelihoods.png") as picture:
        assert picture.format == "PNG"


def test_curves_hold_every_seed_at_the_steps_that_all_have(of_two_rows):
    of_two_rows["cifar10", 1].curves["test/bits_per_dim"][30] = 3.0
    train, test = results.curves("likelihoods", of_two_rows)
    for title, x_label, y_label, lines in (train, test):
        assert (x_label, y_label) == ("step", "bits/dim")
        assert title.startswith(("training batches", "test images"))
        assert lines == {
            "cifar10": ([10, 20], [[5.0, 4.0]] * 3),
            "dequantized": ([10, 20], [[7.0, 6.0], [8.0, 6.5], [9.0, 7.0]]),
        }
    assert results.curves("shortcuts", {}) == []


# Where a run goes on


class Recorded:
    """Children that end with a status and do nothing else."""

    def __init__(self, status=0):
        self.commands, self._status = [], status

    def call(self, command, log_path):
        self.commands.append(command)
        with open(log_path, "a") as log:
            log.write("first\nthe reason\n\n")
        return self._status


@pytest.fixture
def planned(tmp_path):
    """A run that is planned and noted, in tmp_path."""
    (run, _) = comparisons.plan(["dropout"], "small", 1, {"max_epochs": 3})
    runs.note_settings(run, tmp_path)
    return run


def write_checkpoint(run_dir, epoch):
    folder = run_dir / "checkpoints" / f"step_{epoch:012}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": epoch, "epoch": epoch}))
    run = config.RunConfig(
        config.ModelConfig(image_shape=(8, 8, 1), num_levels=17, nr_resnet=1, nr_filters=4),
        config.DataConfig("digits"),
        config.TrainingConfig(max_epochs=3, nr_gpu=0),
    )
    (run_dir / "config.json").write_text(config.to_json(run))


@pytest.mark.parametrize(
    ("epoch", "first"),
    [
        (None, ["train.py", "--preset=cifar10"]),
        (1, ["train.py", "--load_params"]),
        (3, ["evaluate.py", "RUN_DIR"]),
    ],
)
def test_a_run_begins_where_it_stands(epoch, first, planned, tmp_path):
    run_dir = runs.directory(planned, tmp_path)
    if epoch is not None:
        write_checkpoint(run_dir, epoch)
    children = Recorded(status=1)
    line, is_right = runs.finish(planned, tmp_path, children)
    (command,) = children.commands
    assert command[:2] == [str(run_dir) if word == "RUN_DIR" else word for word in first]
    assert not is_right and line.startswith(
        f"cifar10, seed 1: FAILED, {first[0]} ended with status 1, log in {run_dir}/"
    )
    assert line.endswith(": the reason") and "\n" not in line


def test_a_run_that_a_signal_ended_is_not_scored(planned, tmp_path):
    write_checkpoint(runs.directory(planned, tmp_path), 2)
    children = Recorded(status=0)
    line, is_right = runs.finish(planned, tmp_path, children)
    assert len(children.commands) == 1 and not is_right
    assert "train.py ended with status 0 before the last epoch" in line


def test_another_configuration_is_refused_where_a_run_lies(planned, tmp_path):
    runs.check_settings(planned, tmp_path)
    moved = planned._replace(values={**planned.values, "data_dir": "elsewhere"})
    runs.check_settings(moved, tmp_path)
    at_default = planned._replace(values={**planned.values, "dtype": "float32"})
    runs.check_settings(at_default, tmp_path)
    (other, _) = comparisons.plan(["dropout"], "small", 1, {"nr_filters": 8, "max_epochs": 3})
    with pytest.raises(ValueError, match=r"cifar10_1 was .*: nr_filters: 16 != 8 \(started"):
        runs.check_settings(other, tmp_path)
    (runs.directory(planned, tmp_path) / "experiment.json").write_text("{")
    with pytest.raises(ValueError, match=r"experiment.json must be as run.py wrote it"):
        runs.check_settings(planned, tmp_path)


def test_stopping_ends_what_runs_and_starts_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    (tmp_path / "wait.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    children = runs.Children(dict(os.environ))
    statuses = []
    log = tmp_path / "log"
    log.touch()
    waiting = threading.Thread(target=lambda: statuses.append(children.call(["wait.py"], log)))
    waiting.start()
    while "up" not in log.read_text():
        assert waiting.is_alive()
        time.sleep(0.01)
    children.stop()
    waiting.join()
    assert statuses == [-signal.SIGTERM]
    assert children.call(["wait.py"], log) is None


def test_jobs_share_the_cores_and_a_single_one_has_all(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert runs._thread_limits(1) == {}
    assert set(runs._thread_limits(2).values()) == {"3"}
    assert set(runs._thread_limits(9).values()) == {"1"}
