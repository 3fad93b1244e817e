"""The family on binarized MNIST: the whole way with tiny models, a few images and a step or two."""

import concurrent.futures
import re
import struct
import types

import numpy as np
import pytest
from PIL import Image
from processes import run_script
from test_run_experiments import Here, call_here

from experiments import family, runs

RANDOM = np.random.default_rng(0)
TINY = {"nr_resnet": 1, "nr_filters": 2, "nr_output_filters": 2}
MEMBERS = {
    "pixel_cnn": family.Member("PixelCNN", TINY, "tiny", "81.30", "table 4"),
    "row_lstm": family.Member("Row LSTM", TINY, "tiny too"),
}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Both models, the second of which only the second command names; then both get more time."""
    folder = tmp_path_factory.mktemp("mnist")
    for prefix, number in (("train", 40), ("t10k", 9)):
        for kind, array in (
            ("images-idx3", RANDOM.integers(0, 256, (number, 28, 28))),
            ("labels-idx1", RANDOM.integers(0, 10, number)),
        ):
            start = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            content = start + array.astype(np.uint8).tobytes()
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(content)
    out, told = folder / "out", []

    def run(*arguments):
        told.append(
            run_script(
                *("experiments/mnist.py", "--data_dir", folder, "--out", out, "--jobs", "2"),
                *arguments,
            )
        )

    with pytest.MonkeyPatch.context() as patch:
        # Of `runs` alone: sample.py has threads of its own.
        futures = types.SimpleNamespace(
            ThreadPoolExecutor=Here, as_completed=concurrent.futures.as_completed
        )
        patch.setattr(runs, "concurrent", types.SimpleNamespace(futures=futures))
        patch.setattr(runs.Children, "call", call_here)
        patch.setattr(family, "MEMBERS", MEMBERS)
        patch.setattr(family, "SHARED", {**family.SHARED, "batch_size": 8, "init_batch_size": 8})
        run("--models", "pixel_cnn", "--minutes", "1e-9")
        assert told[0].returncode == 0, told[0]
        scores = out / "runs" / "pixel_cnn_1" / "scores.npz"
        written = [scores.stat().st_mtime_ns]
        run("--models", "row_lstm", "--minutes", "1e-9")
        run("--minutes", "1e-9")
        written.append(scores.stat().st_mtime_ns)
        # In an epoch of 5 steps; the first one, which is compiled, takes longer than this.
        state = (out / "runs/pixel_cnn_1/checkpoints/step_000000000001/state.json").read_text()
        seconds = float(re.search(r'"seconds": ([0-9.e-]+)', state).group(1))
        run("--models", "pixel_cnn", "--minutes", str((seconds + 0.01) / 60))
        written.append(scores.stat().st_mtime_ns)
        table = (out / "table.md").read_text()
    return types.SimpleNamespace(out=out, told=told, written=written, table=table)


def test_every_command_ends_well_and_what_is_done_is_not_run_again(started):
    for done in started.told:
        assert (done.returncode, done.stderr) == (0, ""), done
    first, second, third, more = (done.stdout for done in started.told)
    result = r"\d+\.\d\d \+- \d+\.\d\d nats, \d+\.\d min"
    assert re.search(rf"^1/1 pixel_cnn, seed 1: {result}$", first, re.M)
    assert re.search(rf"^1/1 row_lstm, seed 1: {result}$", second, re.M)
    assert "pixel_cnn, seed 1: done before" in third and "row_lstm, seed 1: done before" in third
    assert started.written[0] == started.written[1]
    # A training that goes on is scored again.
    assert re.search(rf"^1/1 pixel_cnn, seed 1: {result}$", more, re.M)
    assert started.written[1] != started.written[2]
    log = (started.out / "runs" / "pixel_cnn_1" / "train.log").read_text()
    assert "Resumed from epoch 0 and 8 images, step 1." in log


def test_the_table_has_the_scores_of_all_test_images_beside_the_published_ones(started):
    rows = [line for line in started.table.splitlines() if re.match(r"\| (PixelCNN|Row)", line)]
    assert len(rows) == 2
    for row, (name, published) in zip(
        rows, {"pixel_cnn": "81.30", "row_lstm": ""}.items(), strict=True
    ):
        with np.load(started.out / "runs" / f"{name}_1" / "scores.npz") as scores:
            nats = scores["nats"]
        assert len(nats) == 9 and set(nats.shape) == {9}
        error = np.std(nats, ddof=1) / 3
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1] == f"{np.mean(nats):.2f} +- {error:.2f}" and cells[2] == published
        log = (started.out / "runs" / f"{name}_1" / "evaluate.log").read_text()
        assert f"averaged weights: {cells[1]} nats an image over 9 images" in log
        log = (started.out / "runs" / f"{name}_1" / "train.log").read_text()
        assert f"; {cells[3]} parameters, 1 replica" in log
    # Two steps of 8 images, of an epoch of 5 steps; and one.
    assert [row.split("|")[6].strip() for row in rows] == ["0.4", "0.2"]
    assert "Published: table 4." in started.table and "over 9 test images" in started.table


def test_curves_and_samples_are_pictures(started):
    with Image.open(started.out / "curves.png") as curves:
        assert curves.format == "PNG"
    # Test images and the samples of two models, 9 each, with lines between them.
    with Image.open(started.out / "samples.png") as samples:
        assert samples.size == (9 * 29 - 1, 3 * 29 - 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--models pixel_cnn,vae", "`models` must be some of pixel_cnn_pp, .*=pixel_cnn,vae"),
        ("--minutes 0", r"`minutes` must be above 0. Received: minutes=0.0"),
    ],
)
def test_a_wrong_flag_is_one_line(arguments, message, tmp_path):
    done = run_script("experiments/mnist.py", *arguments.split(), "--out", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(f"mnist.py: {message}", done.stderr), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_commands_of_every_model_and_runs_none(tmp_path):
    done = run_script("experiments/mnist.py", "--dry_run", "--minutes", "2.5", "--out", tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * len(family.MEMBERS)
    for name, line in zip(family.MEMBERS, lines[::3], strict=True):
        assert line.startswith(f"python train.py --model={name} --data_set=binarized_mnist ")
        assert " --max_minutes=2.5 " in line
    assert not list(tmp_path.iterdir())
