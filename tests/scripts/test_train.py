import dataclasses
import os
import pathlib
import re

import numpy as np
import pytest
from processes import assert_one_line, run_in_new_process, run_script
from saved_run import files_of

from pixel_cnn_pp import data
from pixel_cnn_pp.runs import checkpoints


@pytest.mark.parametrize(
    "arguments",
    [
        "-i data -o save -d cifar -t 20 -r -q 5 -n 160 -m 10 -z concat_elu -c -l 0.001 -e 0.999995 "
        "-b 16 -u 16 -p 0.5 -x 5000 -g 8 --polyak_decay 0.9995 -ns 1 -s 1",
        "--data_dir data --save_dir save --data_set cifar --save_interval 20 --load_params "
        "--nr_resnet 5 --nr_filters 160 --nr_logistic_mix 10 --resnet_nonlinearity concat_elu "
        "--class_conditional --learning_rate 0.001 --lr_decay 0.999995 --batch_size 16 "
        "--init_batch_size 16 --dropout_p 0.5 --max_epochs 5000 --nr_gpu 8 --polyak_decay 0.9995 "
        "--num_samples 1 --seed 1 --optimizer adam",
    ],
)
def test_train_takes_the_flags_of_the_original_release(arguments, tmp_path):
    # absl's --only_check_args ends behind the checks.
    done = run_script("train.py", *arguments.split(), "--only_check_args")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--image_size 0 -d photos", "`image_size` must be .* integer >= 1. Received: .*=0"),
        ("-z tanh", r"--resnet_nonlinearity=tanh: value should be one of <concat_elu\|elu\|relu>"),
        ("--optimizer sgd", r"--optimizer=sgd: value should be one of <adamax\|adam\|rmsprop>"),
        ("-l -1", "`learning_rate` must be a finite number > 0. Received: learning_rate=-1.0"),
        ("-p 1", "`dropout_p` must be .* < 1. Received: dropout_p=1.0"),
        ("-q many", "--nr_resnet=many: invalid literal"),
        ("--nr_gpus 8", "Unknown command line flag 'nr_gpus'"),
    ],
)
def test_a_flag_that_breaks_its_rule_is_named(arguments, message, tmp_path):
    done = run_script("train.py", "-o", tmp_path / "run", *arguments.split())
    assert done.returncode == 1
    # absl adds a line on its --help.
    assert re.search(message, done.stderr.splitlines()[0])
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


TINY = "-d digits -q 1 -n 4 -m 2 -g 0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "-d minst",
            "`name` must be one of digits, photos, .*cifar, .* Received: name='minst'",
        ),
        (f"{TINY} --image_size 16", "`image_size` must be 8 for 'digits', or None. Received: "),
        (f"{TINY} extra", r"^usage: python train.py \[flags\] .* Received: \['extra'\]"),
        (f"{TINY} -b 2000", "`batch_size` times the replicas must be at most 1541, the "),
        ("-r", "must hold a config.json. Received: .*new"),
        (
            "-d mnist --likelihood softmax --energy_distance",
            "`likelihood` must be logistic_mixture but for a model without `energy_distance`. R",
        ),
        (
            "-d mnist --receptive_field 11x5 -q 4",
            "`nr_resnet` must be left out for a receptive_field of 11x5, which has 2 residual bloc",
        ),
        (
            "-d mnist --model pixel_cnn -m 5",
            "`nr_logistic_mix` must be left out: the model pixel_cnn has no such option. Received:",
        ),
    ],
)
def test_train_refuses_what_cannot_be_trained(arguments, message, tmp_path):
    done = run_script("train.py", "-o", tmp_path / "new", *arguments.split())
    assert_one_line(done, message)


def test_in_a_process_of_its_own_a_mistake_is_one_line_too(tmp_path):
    done = run_in_new_process("train.py", "-d", "minst", "-o", tmp_path / "new")
    assert_one_line(done, "^train.py: `name` must be one of digits, .*Received: name='minst'")


def test_labels_that_are_missing_are_one_line(tmp_path, monkeypatch):
    embedded = data.load.__globals__["_EMBEDDED"]
    load = embedded["digits"]

    def load_without_labels(*arguments):
        return dataclasses.replace(load(*arguments), labels=None, num_classes=None)

    monkeypatch.setitem(embedded, "digits", load_without_labels)
    arguments = [*TINY.split(), "-c", "-o", tmp_path / "run"]
    done = run_script("train.py", *arguments)
    assert_one_line(done, "`class_conditional` needs labels, and digits has none. Received: ")
    assert os.listdir(tmp_path) == []


def test_a_save_directory_that_cannot_be_written_is_one_line(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    done = run_script("train.py", *TINY.split(), "-o", file / "run")
    assert_one_line(done, f"train.py: .*Not a directory: '{file}/run'")
    assert files_of(tmp_path) == {pathlib.Path("file"): b"kept"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{TINY} -c", "holds a run already: add --load_params to go on with it, or choose anot"),
        ("-r -n 6", r"Received: nr_filters: 4 != 6 \(checkpoint != given\)"),
        (
            "-r -d photos -m 3 --optimizer adam",
            r"Received: nr_logistic_mix: 2 != 3, data_set: 'digits' != 'photos', "
            r"optimizer: 'adamax' != 'adam' \(",
        ),
    ],
)
def test_a_run_is_not_continued_as_another_one(arguments, message, copied_run, tmp_path):
    before = files_of(copied_run)
    done = run_script("train.py", "-o", copied_run, *arguments.split())
    assert_one_line(done, message)
    assert files_of(copied_run) == before


def test_a_loss_that_explodes_names_its_step_and_keeps_the_checkpoint(copied_run, eagerly):
    before = files_of(copied_run / "checkpoints")
    arguments = ["-r", "-o", copied_run, "-l", "3e38", "-x", "3"]
    done = run_script("train.py", *arguments)
    # The rate of the eighth update, 3e38 / (1 - 0.9^8), overflows, and all weights do with it.
    *_, line = done.stderr.splitlines()  # TensorFlow warns of the eager functions before
    assert line.startswith("train.py: The loss is nan at step 9: training stopped")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert files_of(copied_run / "checkpoints") == before
    model = checkpoints.load(copied_run, "raw")
    assert all(np.isfinite(np.asarray(weight)).all() for weight in model.weights)
