import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from processes import assert_one_line, run_in_new_process, run_script
from saved_run import files_of

from pixel_cnn_pp import data, plots, sampling
from pixel_cnn_pp.runs import checkpoints

# The first test, in a process of its own, has XLA.
WITHOUT_XLA = pytest.mark.usefixtures("without_xla")


def test_sample_draws_the_labels_asked_for_from_the_averaged_weights(trained_run, copied_run):
    done = run_in_new_process("sample.py", copied_run, "--labels", "3,0,9", "-s", "5")
    assert (done.returncode, done.stderr) == (0, "")
    stem = copied_run / "samples" / "drawn"
    assert re.fullmatch(
        rf"Wrote 3 images to {stem}\.png and {stem}\.npz: \d+\.\d\d images/s, \d+\.\d\d\d s/image; "
        r"\d+\.\d s in all with the compilation\n",
        done.stdout,
    )
    with np.load(f"{stem}.npz") as file:
        images, labels = file["images"], file["labels"]
    np.testing.assert_array_equal(labels, [3, 0, 9])
    expected = sampling.sample(checkpoints.load(trained_run), 3, labels, seed=5)
    np.testing.assert_array_equal(images, expected)
    picture = np.asarray(Image.open(f"{stem}.png"))
    np.testing.assert_array_equal(picture, plots.image_grid(images, 2, 17, scale=4))


@WITHOUT_XLA
def test_sample_draws_all_classes_in_turn_into_the_files_asked_for(copied_run, tmp_path):
    stem = tmp_path / "new" / "drawn"
    arguments = ["--num_samples", 12, "--weights", "raw", "--out", stem]
    done = run_script("sample.py", *arguments, copied_run)
    assert done.returncode == 0
    with np.load(f"{stem}.npz") as file:
        np.testing.assert_array_equal(file["labels"], [*range(10), 0, 1])
        picture = plots.image_grid(file["images"], 10, 17, scale=4)
    np.testing.assert_array_equal(np.asarray(Image.open(f"{stem}.png")), picture)


@WITHOUT_XLA
def test_sample_draws_without_classes_too(unconditional_run, tmp_path):
    done = run_script("sample.py", unconditional_run, "--num_samples=3", "--out", tmp_path / "a")
    assert done.returncode == 0
    with np.load(tmp_path / "a.npz") as file:
        assert file.files == ["images"] and file["images"].shape == (3, 8, 8, 1)


@WITHOUT_XLA
def test_sample_hands_on_what_controls_it(unconditional_run, tmp_path):
    arguments = "--num_samples 2 --image_size 4x12 --temperature 0.7 --log_scale_offset 0.5 -s 4"
    draws = []
    for mode in ("sample", "map"):
        more = ["--mode", mode, "--method", "naive", "--out", tmp_path / mode]
        done = run_script("sample.py", unconditional_run, *arguments.split(), *more)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / f"{mode}.npz") as file:
            draws.append(file["images"])
    assert (draws[0] != draws[1]).any()
    model = checkpoints.load(unconditional_run)
    expected = sampling.sample(
        model,
        2,
        seed=4,
        image_shape=(4, 12, 1),
        temperature=0.7,
        log_scale_offset=0.5,
        mode="map",
    )
    np.testing.assert_array_equal(draws[1], expected)


@WITHOUT_XLA
def test_sample_completes_images_of_the_test_split(copied_run, tmp_path):
    arguments = [
        "--complete",
        "test",
        "--num_originals",
        "2",
        "--num_samples",
        "3",
        "--keep_rows",
        "3",
    ]
    done = run_script("sample.py", copied_run, *arguments)
    assert done.returncode == 0, done.stderr
    test_data = data.load("digits", "test")
    with np.load(copied_run / "samples" / "drawn.npz") as file:
        arrays = dict(file)
    np.testing.assert_array_equal(arrays["originals"], test_data.images[:2])
    np.testing.assert_array_equal(arrays["known_mask"], np.arange(8)[:, None] < np.full(8, 3))
    np.testing.assert_array_equal(arrays["labels"], test_data.labels[[0, 0, 0, 1, 1, 1]])
    completed = arrays["images"].reshape(2, 3, 8, 8, 1)
    for i in range(2):
        assert (completed[i, :, :3] == test_data.images[i, :3]).all()
        assert len(np.unique(completed[i], axis=0)) == 3
    # Original, what is known of it on grey, and its completions beside each other.
    masked = test_data.images[:2].copy()
    masked[:, 3:] = 8
    shown = np.concatenate([test_data.images[:2, None], masked[:, None], completed], axis=1)
    picture = np.asarray(Image.open(copied_run / "samples" / "drawn.png"))
    expected = plots.image_grid(shown.reshape(10, 8, 8, 1), 5, 17, scale=4)
    np.testing.assert_array_equal(picture, expected)


@WITHOUT_XLA
def test_sample_completes_a_picture_and_what_it_has_drawn_itself(copied_run, tmp_path):
    levels = data.load("digits", "test").images[5]
    Image.fromarray(levels[..., 0]).save(tmp_path / "5.png")
    out = tmp_path / "first"
    arguments = ["--complete", tmp_path / "5.png", "--labels", "5,3", "--out", out]
    done = run_script("sample.py", copied_run, *arguments)
    assert done.returncode == 0, done.stderr
    with np.load(f"{out}.npz") as file:
        first = file["images"]
        np.testing.assert_array_equal(file["originals"], levels[None])
        np.testing.assert_array_equal(file["labels"], [5, 3])
    assert (first[:, :4] == levels[:4]).all() and (first[0] != first[1]).any()

    arguments = ["--complete", f"{out}.npz", "--labels", "5", "--out", tmp_path / "second"]
    done = run_script("sample.py", copied_run, *arguments, "--num_originals", "9")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "second.npz") as file:
        np.testing.assert_array_equal(file["originals"], first)
        np.testing.assert_array_equal(file["labels"], [5, 5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--labels 3,10",
            r"labels must be whole numbers in \[0, 9\]. Received: values in \[3, 10\]",
        ),
        (
            "--labels=-1",
            r"labels must be whole numbers in \[0, 9\]. Received: values in \[-1, -1\]",
        ),
        ("--labels 3,three", "`labels` must be whole numbers. Received: labels=3,three"),
        ("--labels 3 --num_samples 2", "`num_samples` must be left out: `labels` draws one"),
    ],
)
def test_labels_that_cannot_be_drawn_are_one_line(arguments, message, trained_run, tmp_path):
    out = tmp_path / "drawn"
    done = run_script("sample.py", trained_run, "--out", out, *arguments.split())
    assert_one_line(done, message)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--keep_rows 3", "`keep_rows` must be left out: `complete` says what to complete. Rec"),
        ("--num_originals 3", "`num_originals` must be left out: `complete` or `given` says what"),
        ("--complete test --keep_rows 8", "`keep_rows` must be less than the 8 rows .*=8"),
        ("--complete nothing.png", "No such file or directory: .*nothing.png"),
        ("--complete README.md", "The file must be a picture. Received: README.md"),
        ("--complete docs/digits.png", r"Images must have C = 1. Received: C = 3 in docs/digits"),
        ("--complete test --image_size 16", "must be 16 x 16, .* Received: 8 x 8 in test"),
        ("--image_size 8x", "`image_size` must be a number or two, such as 64 or 48x64. Rec"),
        ("--image_size 0", r"`image_s\w+` must be .* Received: image_s"),
        ("--temperature 0", "`temperature` must be a number above 0. Received: temperature=0.0"),
        ("--out README.md/drawn", "(File exists|Not a directory): 'README.md'"),
    ],
)
def test_what_cannot_be_drawn_or_completed_is_one_line(arguments, message, trained_run, tmp_path):
    before = files_of(trained_run)
    done = run_script("sample.py", trained_run, *arguments.split())
    assert_one_line(done, message)
    assert files_of(trained_run) == before


def test_labels_for_a_run_without_classes_are_one_line(unconditional_run, tmp_path):
    done = run_script("sample.py", unconditional_run, "--labels", "1,2")
    assert_one_line(done, "`labels` must be left out: the model is not class-conditional. Rec")


def named_run(copied_run, names):
    """Gives the classes of a run names, as training on a user's own data does."""
    path = copied_run / "config.json"
    values = json.loads(path.read_text())
    values["data"]["class_names"] = names
    path.write_text(json.dumps(values))
    return copied_run


@WITHOUT_XLA
def test_labels_of_a_file_are_those_that_its_images_are_completed_with(copied_run, tmp_path):
    names = [str(number) for number in range(11, 21)]  # A user's labels of 11 to 20.
    run_dir = named_run(copied_run, names)
    test_data = data.load("digits", "test")
    images, labels = test_data.images[:3], test_data.labels[:3]
    np.savez(tmp_path / "own.npz", images=images, labels=labels + 11)
    out = tmp_path / "out"
    arguments = ["--complete", tmp_path / "own.npz", "--num_samples", 2, "--out", out]
    done = run_script("sample.py", run_dir, *arguments)
    assert done.returncode == 0, done.stderr
    with np.load(f"{out}.npz") as file:
        np.testing.assert_array_equal(file["labels"], np.repeat(labels, 2) + 11)
        known = np.arange(8)[:, None] < np.full(8, 4)
        expected = sampling.sample(
            checkpoints.load(run_dir),
            6,
            np.repeat(labels, 2),
            init_images=np.repeat(images, 2, axis=0),
            known_mask=known,
        )
        np.testing.assert_array_equal(file["images"], expected)
    # What was drawn has its labels too.
    again = data.load_file(f"{out}.npz", 1, 17, 10, tuple(names))
    np.testing.assert_array_equal(again.labels, np.repeat(labels, 2))


@WITHOUT_XLA
def test_labels_are_the_names_of_classes_where_they_have_some(copied_run, tmp_path):
    animals = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "jay", "koi"]
    run_dir = named_run(copied_run, animals)
    out = tmp_path / "out"
    done = run_script("sample.py", run_dir, "--labels", "cat,koi,1", "--out", out)
    assert done.returncode == 0, done.stderr
    with np.load(f"{out}.npz") as file:
        np.testing.assert_array_equal(file["labels"], [2, 9, 1])
    done = run_script("sample.py", run_dir, "--labels", "cow", "--out", out)
    assert_one_line(done, "must be classes of the run: ant, .* Received: cow in `labels`")
