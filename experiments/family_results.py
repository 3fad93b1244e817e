"""The results of the models of the family: their numbers, the table, the curves, the samples."""

import bisect
import math
import re
import statistics
from typing import NamedTuple

import numpy as np

from experiments import family, results, runs
from pixel_cnn_pp import files, likelihoods, plots
from pixel_cnn_pp.runs import checkpoints, monitoring

NUM_SAMPLES = 100
_SAMPLES = "samples/drawn"
# Samples and digits that the picture shows of each model.
_NUM_SHOWN = 20
# Points of the curve of the training batches: each is the mean of so many of TensorBoard's points.
_NUM_AVERAGED = 10


class Result(NamedTuple):
    """The result of one model.

    nats, standard_error: Mean of -log p(x) over the test images with the averaged weights, and its
    standard error over the images. num_images: Number of test images. minutes: Time of all training
    steps. epochs: Number of passes over the training images. seconds_per_sample: Of 100 that are
    drawn together, without the compilation. test_curve, train_curve: {minutes: nats}. samples:
    Integers [N, H, W, C].
    """

    nats: float
    standard_error: float
    num_images: int
    num_parameters: int
    minutes: float
    epochs: float
    seconds_per_epoch: float
    seconds_per_sample: float
    test_curve: dict
    train_curve: dict
    samples: np.ndarray


def _commands(run_dir):
    scores, samples = run_dir / results.SCORES, run_dir / _SAMPLES
    return [
        (
            ["evaluate.py", str(run_dir), "--split=test", "--weights=ema", f"--out={scores}"],
            scores,
        ),
        (
            ["sample.py", str(run_dir), f"--num_samples={NUM_SAMPLES}", f"--out={samples}"],
            samples.with_suffix(".npz"),
        ),
    ]


def _describe(run_dir):
    nats, error, _ = _score(run_dir)
    return f"{nats:.2f} +- {error:.2f} nats"


ENDING = runs.Ending(_commands, _describe)


def _score(run_dir):
    """Mean nats of the test images, its standard error, and the number of images."""
    with np.load(run_dir / results.SCORES) as scores:
        nats = scores["nats"]
    error = float(np.std(nats, ddof=1)) / math.sqrt(len(nats)) if len(nats) > 1 else 0.0
    return float(np.mean(nats)), error, len(nats)


def read(run_dir, num_train_images):
    """The numbers of a finished run.

    Args:
      run_dir: Path of the run.
      num_train_images: Number of images of an epoch.

    Returns:
      Result.

    Raises:
      ValueError, OSError: If they are not in the directory.
    """
    run, state = checkpoints.load_config(run_dir), results.state_of(run_dir)
    num_dims = math.prod(run.model.image_shape)
    scalars = monitoring.read_scalars(run_dir)
    minutes = _minutes(scalars, state)
    test = scalars.get("test/bits_per_dim", {})
    train = list(scalars.get("step/bits_per_dim", {}).items())
    groups = [train[i : i + _NUM_AVERAGED] for i in range(0, len(train), _NUM_AVERAGED)]
    batch_size = run.training.batch_size
    num_steps = num_train_images // batch_size
    total = _at(minutes, state["step"])
    drawn = re.findall(r"([0-9.]+) images/s", (run_dir / "sample.log").read_text())
    with np.load(run_dir / f"{_SAMPLES}.npz") as arrays:
        samples = arrays["images"]

    def nats(bits_per_dim):
        return likelihoods.nats(bits_per_dim, num_dims)

    score = _score(run_dir)
    test_curve = {_at(minutes, step): nats(value) for step, value in test.items()}
    test_curve[total] = score[0]  # A run that a signal ended was not scored at its end.
    return Result(
        *score,
        results.num_parameters(run_dir),
        total,
        state["step"] / num_steps,
        60 * total / state["step"] * num_steps,
        1 / float(drawn[-1]),
        test_curve,
        {
            _at(minutes, group[-1][0]): nats(statistics.fmean(value for _, value in group))
            for group in groups
        },
        samples,
    )


def _minutes(scalars, state):
    """{step: minutes of training}, ascending, with the first and the last step."""
    found, before = {0: 0.0}, 0
    # Runs of earlier versions noted the time of a step alone.
    for step, seconds in scalars.get("seconds_per_step", {}).items():
        found[step] = found[before] + (step - before) * seconds / 60
        before = step
    found |= scalars.get("training_minutes", {})
    if state.get("seconds"):
        found[state["step"]] = state["seconds"] / 60
    return dict(sorted(found.items()))


def _at(minutes, step):
    """The minutes at a step, on the straight lines between the steps where they are known."""
    steps = list(minutes)
    place = min(max(1, bisect.bisect_left(steps, step)), len(steps) - 1)
    (left, right), (low, high) = (
        [steps[place - 1], steps[place]],
        [minutes[steps[place - 1]], minutes[steps[place]]],
    )
    return low + (high - low) * (step - left) / (right - left)


NOTES = """\
test: nats an image with the averaged weights over {num_images} test images, +- standard error over
the images; lower is better. published: on the fixed set of Larochelle, see below. minutes: the time
of all training steps. last change: what the last minutes of training changed in the test score.
s per 100 samples: drawn together, without the compilation."""


def markdown(finished):
    """The table as Markdown.

    Args:
      finished: {key of `family.MEMBERS`: Result}.

    Returns:
      A string.
    """
    lines = [
        "| model | test, nats | published | parameters | minutes | epochs | s/epoch "
        "| s per 100 samples | last change |",
        "|---|" + 8 * "---:|",
    ]
    for name, result in finished.items():
        member = family.MEMBERS[name]
        cells = [
            member.title,
            f"{result.nats:.2f} +- {result.standard_error:.2f}",
            member.published,
            f"{result.num_parameters:,}",
            f"{result.minutes:.1f}",
            f"{result.epochs:.1f}",
            f"{result.seconds_per_epoch:.0f}",
            f"{100 * result.seconds_per_sample:.3g}",
            _last_change(result.test_curve),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    (num_images,) = {result.num_images for result in finished.values()}
    lines += ["", NOTES.format(num_images=f"{num_images:,}"), ""]
    for name in finished:
        member = family.MEMBERS[name]
        network = ", ".join(f"{field} {value}" for field, value in member.values.items())
        source = f" Published: {member.source}." if member.source else ""
        reason = member.reason[0].upper() + member.reason[1:]
        lines.append(f"- **{member.title}**: {network}. {reason}.{source}")
    return "\n".join([*lines, ""])


def _last_change(curve):
    """How the test score changed between the last two points of its curve."""
    if len(curve) < 2:
        return ""
    (before, first), (after, last) = sorted(curve.items())[-2:]
    return f"{last - first:+.2f} in {after - before:.1f} min"


def curves(finished):
    """The training curves, for `plots.curves`: two panels, of the test images and of batches."""
    panels = []
    for title, name in (
        ("test images, averaged weights", "test_curve"),
        ("training batches", "train_curve"),
    ):
        lines = {}
        for model, result in finished.items():
            curve = sorted(getattr(result, name).items())
            if curve:
                xs, ys = zip(*curve, strict=True)
                lines[family.MEMBERS[model].title] = list(xs), [list(ys)]
        if lines:
            panels.append((title, "minutes of training", "nats", lines))
    return panels


def write(folder, finished, test_images):
    """Writes table.md, curves.png and samples.png.

    Args:
      folder: Path.
      finished: {key of `family.MEMBERS`: Result}, at least one.
      test_images: Integers [N, H, W, C], of which the picture of the samples shows some above them.

    Returns:
      The table as Markdown, a string.

    Raises:
      OSError: If a file cannot be written.
    """
    text = markdown(finished)
    files.replace(folder / "table.md", lambda file: file.write(text.encode()))
    panels = curves(finished)
    if panels:
        plots.save_png(folder / "curves.png", plots.curves(panels))
    rows = [test_images, *(result.samples for result in finished.values())]
    num_shown = min(_NUM_SHOWN, *(len(row) for row in rows))
    shown = np.concatenate([row[:num_shown] for row in rows])
    picture = plots.image_grid(shown, num_shown, num_levels=2)
    plots.save_png(folder / "samples.png", picture)
    return text
