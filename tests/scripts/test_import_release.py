import os
import shutil

import numpy as np
import pytest
from processes import assert_one_line, run_in_new_process, run_script
from saved_run import files_of

from pixel_cnn_pp import data, tf1_import
from pixel_cnn_pp.config import DataConfig
from pixel_cnn_pp.runs import checkpoints

DIGITS = ("-d", "digits", "--image_size", "8", "--num_levels", "17", "-z", "elu")


def test_an_imported_checkpoint_of_the_release_is_scored_drawn_from_and_trained_on(
    release_checkpoint, eagerly, tmp_path
):
    run_dir, own = tmp_path / "new" / "run", tmp_path / "own.npz"
    digits = data.load("digits", "test")
    arrays = {"images": digits.images, "labels": digits.labels}
    np.savez(
        own,
        **{f"train_{name}": values[:36] for name, values in arrays.items()},
        **{f"test_{name}": values[36:42] for name, values in arrays.items()},
    )
    arguments = [*DIGITS, "-d", f"npz:{own}", "-i", tmp_path / "cache"]
    done = run_in_new_process("import_release.py", release_checkpoint, run_dir, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    network, adam, written = done.stdout.splitlines()
    assert network.startswith(f"{release_checkpoint}: ") and ", elu, 10 classes; " in network
    assert "for 8x8x1 images of 17 levels, trained with dropout 0.5" in network
    assert adam == "Optimizer: Adam with its moments, 7 steps done, next learning rate 0.001."
    assert written == f"Wrote {run_dir}, a run on npz:{own} at epoch 0."
    # Bytes would have 256 levels if nothing said otherwise, and the training refuse them.
    assert checkpoints.load_config(run_dir).data == DataConfig(
        f"npz:{own}", str(tmp_path / "cache"), image_size=8, num_levels=17
    )
    for weights in ("ema", "raw"):
        model = checkpoints.load(run_dir, weights)
        expected = tf1_import.load_release(release_checkpoint, weights, model.config)
        for one, other in zip(model.weights, expected.weights, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))

    done = run_script("evaluate.py", run_dir)
    assert done.returncode == 0 and done.stdout.count("bits/dim over 6 images") == 2, done
    # Sixteen passes take less time than a compilation.
    arguments = ["--num_samples", "2", "--image_size", "4", "--method", "naive"]
    done = run_script("sample.py", run_dir, *arguments)
    assert done.returncode == 0 and done.stdout.startswith("Wrote 2 images to "), done
    arguments = ["-r", "-o", run_dir, "-b", "18", "-x", "1", "-g", "0", "-ns", "0"]
    done = run_script("train.py", *arguments)
    assert done.returncode == 0, done
    assert "Resumed from epoch 0, step 7." in done.stdout
    assert checkpoints.latest(run_dir).name == "step_000000000009"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "`resnet_nonlinearity` must be given, elu or relu: the shapes in the checkpoint "),
        ("-z elu", "The size of the images must be given where they do not have 3 channels"),
        ("-z elu --image_size 8x", "`image_size` must be a number or two, such as 64 or 48x64"),
        ("-z elu --image_size 0", r"`image_s\w+` must be .* Received: image_s"),
        ("-z concat_elu --image_size 8", "resnet_nonlinearity: 'elu' or 'relu' != 'concat_elu' "),
        ("-z elu --image_size 8 -n 160 -q 5", "nr_resnet: 1 != 5, nr_filters: 4 != 160 "),
        ("-z elu --image_size 8 --num_levels 1", "`num_levels` must be an integer >= 2 and "),
        ("-z elu --image_size 8 --ignore *conv2d_7/*", "nr_resnet=1, without model/conv2d_7/V, "),
        ("-z elu --image_size 8 -d minst", "must be one of digits, .* Received: name='minst'"),
    ],
)
def test_what_cannot_be_imported_is_one_line(arguments, message, release_checkpoint, tmp_path):
    run_dir = tmp_path / "run"
    done = run_script("import_release.py", release_checkpoint, run_dir, *arguments.split())
    assert_one_line(done, message)
    assert os.listdir(tmp_path) == []


def test_what_is_no_checkpoint_is_one_line(release_checkpoint, tmp_path):
    done = run_script("import_release.py", tmp_path / "no.ckpt", tmp_path / "run")
    assert_one_line(done, f"Received: {tmp_path}/no.ckpt ")
    path = tmp_path / "cut.ckpt"
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(f"{release_checkpoint}{ending}", f"{path}{ending}")
    os.truncate(f"{path}.data-00000-of-00001", 1000)
    done = run_script("import_release.py", path, tmp_path / "run", *DIGITS)
    assert_one_line(done, f"A checkpoint must be whole, .* Received: {path}, model/")
    assert not (tmp_path / "run").exists()


def test_an_import_does_not_write_over_a_run_or_where_it_cannot(
    release_checkpoint, copied_run, tmp_path
):
    before = files_of(copied_run)
    done = run_script("import_release.py", release_checkpoint, copied_run, *DIGITS)
    assert_one_line(done, f"{copied_run} holds a run already: choose another directory.")
    assert files_of(copied_run) == before
    done = run_script("import_release.py", release_checkpoint, copied_run / "config.json", *DIGITS)
    assert_one_line(
        done, f"`run_dir` must be a directory. Received: {copied_run}/config.json, .* is a file"
    )
