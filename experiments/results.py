"""The results of finished runs: their numbers, the tables, the curves."""

import csv
import io
import json
import math
import statistics
from typing import NamedTuple

import numpy as np

from experiments import comparisons
from pixel_cnn_pp import config, files, plots
from pixel_cnn_pp.runs import checkpoints, monitoring

# Files in the directory of a run that train.py does not write, and its curves.
SCORES = "scores.npz"
_TEST_CURVE = "test/bits_per_dim"
CURVE_TAGS = ("train/bits_per_dim", _TEST_CURVE)

COLUMNS = (
    "comparison",
    "row",
    "paper",
    "is_bound",
    "test",
    "test_standard_error",
    "difference",
    "difference_standard_error",
    "train",
    "train_standard_error",
    "gap",
    "gap_standard_error",
    "lowest",
    "lowest_standard_error",
    "parameters",
    "steps",
    "seconds_per_step",
    "num_seeds",
)


class Result(NamedTuple):
    """The result of one run.

    test, train: Exact mean bits/dim of a split, with the averaged weights. seconds_per_step: The
    median. curves: {tag of `CURVE_TAGS`: {step: bits/dim}}.
    """

    test: float
    train: float
    num_parameters: int
    num_steps: int
    seconds_per_step: float
    curves: dict


def is_trained(run_dir, max_minutes=None):
    """Whether the newest checkpoint of a run is that of its last epoch, or of its last minute."""
    if checkpoints.latest(run_dir) is None:
        return False
    state = state_of(run_dir)
    if max_minutes is not None and state.get("seconds", 0) >= 60 * max_minutes:
        return True
    return state["epoch"] >= checkpoints.load_config(run_dir).training.max_epochs


def state_of(run_dir):
    """The state of the training at the newest checkpoint, a dict."""
    return json.loads((checkpoints.latest(run_dir) / "state.json").read_text())


def read(run_dir):
    """The numbers of a finished run.

    Args:
      run_dir: Path of the run.

    Returns:
      Result.

    Raises:
      ValueError, OSError: If they are not in the directory.
    """
    with np.load(run_dir / SCORES) as scores:
        test, train = (
            float(np.mean(scores["bits_per_dim"][scores["split"] == split]))
            for split in ("test", "train")
        )
    scalars = monitoring.read_scalars(run_dir)
    missing = {"seconds_per_step", *CURVE_TAGS} - scalars.keys()
    if missing:
        raise ValueError(
            f"{run_dir} must hold TensorBoard's numbers of its epochs. "
            f"Received: none of {', '.join(sorted(missing))}"
        )
    return Result(
        test,
        train,
        num_parameters(run_dir),
        state_of(run_dir)["step"],
        statistics.median(scalars["seconds_per_step"].values()),
        {tag: scalars[tag] for tag in CURVE_TAGS},
    )


def num_parameters(run_dir):
    """The number of parameters of a run's model."""
    with np.load(checkpoints.latest(run_dir) / "averages.npz") as averages:
        return sum(averages[key].size for key in averages.files)


def mean_and_error(values):
    """Mean over seeds and its standard error, sqrt(sum((x - mean)^2) / (n - 1) / n).

    Args:
      values: Numbers [N], N >= 1.

    Returns:
      Two floats; for a single number the error is None, because it cannot be known.
    """
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, None
    return mean, statistics.stdev(values) / math.sqrt(len(values))


def table(names, results):
    """The rows of the tables.

    Args:
      names: Names of comparisons.
      results: {(row, seed): Result} of the runs that have finished.

    Returns:
      A list of dicts with the keys of `COLUMNS`; a number that is not known is None. `difference`
      is the test bits/dim minus those of the first row of the comparison, seed by seed. `lowest` is
      the lowest test bits/dim of a run after any epoch.
    """
    rows = []
    for name in names:
        first_row = comparisons.COMPARISONS[name].rows[0]
        first = of_row(results, first_row)
        for row in comparisons.COMPARISONS[name].rows:
            rows.append(dict.fromkeys(COLUMNS))
            rows[-1].update(comparison=name, row=row, paper=config.PRESETS[row].bits_per_dim)
            rows[-1]["is_bound"] = comparisons.is_bound(row)
            found = of_row(results, row)
            rows[-1]["num_seeds"] = len(found)
            if not found:
                continue
            numbers = {
                "test": [result.test for result in found.values()],
                "train": [result.train for result in found.values()],
                "gap": [result.test - result.train for result in found.values()],
                "lowest": [min(result.curves[_TEST_CURVE].values()) for result in found.values()],
            }
            if row != first_row:
                numbers["difference"] = [
                    found[seed].test - first[seed].test for seed in found if seed in first
                ]
            for column, values in numbers.items():
                if values:
                    mean, error = mean_and_error(values)
                    rows[-1].update({column: mean, f"{column}_standard_error": error})
            one = next(iter(found.values()))
            rows[-1].update(
                parameters=one.num_parameters,
                steps=one.num_steps,
                seconds_per_step=statistics.median(
                    result.seconds_per_step for result in found.values()
                ),
            )
    return rows


def of_row(results, row):
    """{seed: Result} of a row, out of {(row, seed): Result}."""
    return {seed: result for (name, seed), result in results.items() if name == row}


def markdown(rows):
    """The rows of the tables as Markdown, one table for each comparison.

    Args:
      rows: As `table` returns them.

    Returns:
      A string.
    """
    lines = []
    for name in dict.fromkeys(row["comparison"] for row in rows):
        header = "| row | paper | ours, test | to the first row | ours, train | test - train | "
        header += "lowest test | parameters | steps | s/step | seeds |"
        lines += [
            f"## {comparisons.COMPARISONS[name].title}",
            "",
            header,
            "|---|" + 10 * "---:|",
            *(_markdown_row(row) for row in rows if row["comparison"] == name),
            "",
            *(_source(row["row"]) for row in rows if row["comparison"] == name),
            "",
        ]
    return "\n".join([*lines, NOTES, ""])


NOTES = """\
ours: bits/dim with the averaged weights over every image of a split, mean +- standard error over
the seeds. to the first row: the difference, seed by seed. lowest test: the lowest point of the test
curve, chosen by the test images themselves. paper: on the test set of CIFAR-10. s/step: the median.
<=: an upper bound."""


def _markdown_row(row):
    bound = "<= " if row["is_bound"] else ""
    cells = [
        row["row"],
        "" if row["paper"] is None else f"{'<= ' if row['is_bound'] else ''}{row['paper']:.2f}",
        bound + _with_error(row, "test") if row["num_seeds"] else "",
        _with_error(row, "difference", "+.4f"),
        bound + _with_error(row, "train") if row["num_seeds"] else "",
        _with_error(row, "gap", "+.4f"),
        bound + _with_error(row, "lowest") if row["num_seeds"] else "",
        "" if row["parameters"] is None else f"{row['parameters']:,}",
        "" if row["steps"] is None else f"{row['steps']}",
        "" if row["seconds_per_step"] is None else f"{row['seconds_per_step']:.3g}",
        str(row["num_seeds"]),
    ]
    return f"| {' | '.join(cells)} |"


def _with_error(row, column, number_format=".4f"):
    """A mean and its standard error as text; empty if there is no mean."""
    mean, error = row[column], row[f"{column}_standard_error"]
    if mean is None:
        return ""
    return format(mean, number_format) + ("" if error is None else f" +- {error:.4f}")


def _source(name):
    return f"- `{name}`: {config.PRESETS[name].source}."


def write(folder, names, results):
    """Writes the tables and the curves of comparisons, each file completely or not at all.

    Args:
      folder: Path; table.md, table.csv and a PNG for each comparison go there.
      names: Names of comparisons.
      results: {(row, seed): Result} of the runs that have finished.

    Returns:
      The table as Markdown, a string.

    Raises:
      OSError: If a file cannot be written.
    """
    rows = table(names, results)
    text = markdown(rows)
    files.replace(folder / "table.md", lambda file: file.write(text.encode()))
    files.replace(folder / "table.csv", lambda file: file.write(_csv(rows).encode()))
    for name in names:
        panels = curves(name, results)
        if panels:
            plots.save_png(folder / f"{name}.png", plots.curves(panels))
    return text


def _csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def curves(name, results):
    """The training curves of a comparison, for `plots.curves`.

    Args:
      name: Name of a comparison.
      results: {(row, seed): Result} of the runs that have finished.

    Returns:
      Two panels, of the training and of the test bits/dim; no panel if no run has finished.
    """
    panels = []
    for tag in CURVE_TAGS:
        lines = {}
        for row in comparisons.COMPARISONS[name].rows:
            found = [result.curves[tag] for result in of_row(results, row).values()]
            if found:
                steps = sorted(set.intersection(*map(set, found)))
                lines[row] = steps, [[curve[step] for step in steps] for curve in found]
        if lines:
            title = {
                "train": "training batches, an epoch's mean",
                "test": "test images, averaged weights",
            }
            panels.append((title[tag.partition("/")[0]], "step", "bits/dim", lines))
    return panels
