import re

import numpy as np
import pytest
from processes import assert_one_line, run_script
from saved_run import files_of

from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-d minst", "must be one of digits, .* Received: .*minst"),
        ("--compare minst", "must be one of digits, .* Received: .*minst"),
        ("--image_size 12", "`image_size` must be 8 for 'digits', or None. Received: .*=12"),
        ("-d colours", "channels of the model, 1. Received: 3 channels in colours"),
        ("--compare levels", "levels of the model, 17. Received: 16 levels in levels"),
        ("-d noise", "must have labels .* with --marginal. Received: no labels in noise"),
        (
            "--compare classes",
            r"in \[0, 9\] .* by --marginal. Received: labels up to 11 in classes",
        ),
        ("-d nothing.npz", "No such file or directory: '?nothing.npz"),
        ("-d a.npz --baselines", "`baselines` must be left out: a file has no training images. R"),
        (
            "-d docs/digits.png --crop random",
            "`crop` must be left out: all images of a file .*=ran",
        ),
        ("-d README.md", "The file must be a picture. Received: README.md"),
        ("-d docs/digits.png", r"Images must have C = 1. Received: C = 3 in docs/digits.png"),
        ("--out scores", r"must end in .npz or .csv. Received: scores$"),
        ("--out README.md/scores.npz", "(File exists|Not a directory): 'README.md'"),
        ("--compare digits --plot a.jpg", r"`plot` must end in .png. Received: plot=a.jpg"),
        ("--compare digits --plot README.md/a.png", "(File exists|Not a directory): 'README.md'"),
        ("--plot a.png", "`plot` must be left out: `compare` says what .* Received: plot=a.png"),
        ("--background tests", "`background` must be left out: `compare` says what to compare"),
        ("--compare digits --background tests", "must hold a config.json. Received: tests "),
        (
            "--weights both --out a.npz",
            "`weights` must be ema or raw beside `out`. Received: .*both",
        ),
        ("--maps --marginal", "`maps` must be left out beside `marginal`: .* Received: maps=True"),
        ("--num_maps 3", "`num_maps` must be left out: `maps` says .* Received: num_maps=3"),
        ("--weights both --compare digits", "`weights` must be ema or raw beside `compare`. Rec"),
    ],
)
def test_what_cannot_be_scored_is_one_line(arguments, message, trained_run, noise):
    before = files_of(trained_run)
    arguments = [*arguments.split(), "--split", "test"]
    done = run_script("evaluate.py", trained_run, *arguments)
    assert_one_line(done, message)
    assert done.stdout == ""
    assert files_of(trained_run) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-b 0", "--batch_size=0"),
        ("--image_size 0", "`image_size` must be .* integer >= 1. Received: image_size=0"),
        ("--weights averaged", r"--weights=averaged: value should be one of <both\|ema\|raw>"),
    ],
)
def test_a_flag_of_the_scoring_that_breaks_its_rule_is_named(
    arguments, message, trained_run, tmp_path
):
    done = run_script("evaluate.py", trained_run, *arguments.split())
    assert done.returncode == 1
    # absl adds a line on its --help.
    assert re.search(message, done.stderr.splitlines()[0])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.full((2, 8, 8, 1), 17)}, "above the highest value of the images, 17. Rec"),
        ({"labels": np.array([1, 10])}, "classes of the run: 0, .*, 9. Received: 10 in .*a.npz"),
        ({"labels": np.array([-1, -2])}, r"at least 0. Received: values in \[-2, -1\] for 'ima"),
    ],
)
def test_a_file_that_cannot_be_scored_is_one_line(arrays, message, trained_run, tmp_path):
    if "labels" in arrays:
        arrays = {"images": np.zeros((2, 8, 8, 1), int), **arrays}
    np.savez(tmp_path / "a.npz", **arrays)
    done = run_script("evaluate.py", trained_run, "-d", tmp_path / "a.npz")
    assert_one_line(done, message)


def test_a_directory_in_place_of_a_file_to_write_is_one_line(trained_run, tmp_path):
    (tmp_path / "a.npz").mkdir()
    done = run_script("evaluate.py", trained_run, "--out", tmp_path / "a.npz")
    assert_one_line(done, "`out` must be a file. Received: .*a.npz, a directory")


def test_classes_that_a_run_does_not_have_are_not_summed_over(unconditional_run, tmp_path):
    done = run_script("evaluate.py", unconditional_run, "--marginal")
    assert_one_line(done, "`marginal` must be left out: the model is not class-conditional. Rec")


@pytest.mark.parametrize("as_background", [False, True])
def test_a_run_of_the_energy_distance_cannot_score(
    as_background, energy_run, trained_run, tmp_path
):
    arguments = [energy_run]
    if as_background:
        arguments = [trained_run, "--compare", "digits", "--background", energy_run]
    done = run_script("evaluate.py", *arguments)
    assert_one_line(
        done,
        "A model that is trained by the energy distance has no likelihood. "
        "Received: energy_distance=True",
    )


def test_a_background_of_other_images_is_one_line(trained_run, tmp_path):
    other = RunConfig(
        ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=2),
        DataConfig(data_set="photos"),
        TrainingConfig(nr_gpu=0),
    )
    checkpoints.save_config(tmp_path / "other", other)
    arguments = ["--compare", "digits", "--background", tmp_path / "other"]
    done = run_script("evaluate.py", trained_run, *arguments)
    assert_one_line(
        done,
        "`background` must be a run on images of 1 channels and 17 levels, as RUN_DIR is. "
        f"Received: 3 channels and 256 levels in {tmp_path}/other",
    )
