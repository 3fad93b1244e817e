import csv
import dataclasses
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import release
import tensorflow as tf
from PIL import Image
from processes import ROOT, run, run_in_new_process

from pixel_cnn_pp import data, evaluation, plots, sampling, tf1_import
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP
from pixel_cnn_pp.runs import checkpoints, devices
from pixel_cnn_pp.runs.trainer import Trainer

RUN = RunConfig(
    ModelConfig(
        image_shape=(8, 8, 1),
        num_levels=17,
        nr_resnet=1,
        nr_filters=4,
        nr_logistic_mix=2,
        num_classes=10,
    ),
    DataConfig(data_set="digits"),
    TrainingConfig(class_conditional=True, nr_gpu=0, num_samples=0),
)


def assert_one_line(done, message):
    """The process ended as for a user's mistake, and said so in one line."""
    assert done.returncode == 1, done
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def files_of(directory):
    """Path -> bytes of every file below a directory."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory): path.read_bytes() for path in paths}


def save_run(run_dir, config):
    """A directory as a run leaves it behind 7 steps, its averages at values of their own."""
    trainer = Trainer(config, devices.make_strategy(0))
    train_data = data.load("digits", "train")
    trainer.initialize(train_data.images[:20], train_data.labels[:20])
    for average, weight in zip(
        checkpoints.averages(trainer.model, trainer.optimizer),
        trainer.model.trainable_variables,
        strict=True,
    ):
        average.assign(0.9 * weight)
    trainer.optimizer.iterations.assign(7)
    checkpoints.save_config(run_dir, config)
    trainer.save(run_dir, checkpoints.TrainingState(step=7, epoch=1), keep=2)


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    """A class-conditional run; never changed."""
    path = tmp_path_factory.mktemp("saved") / "run"
    save_run(path, RUN)
    return path


@pytest.fixture(scope="module")
def unconditional_run(tmp_path_factory):
    """A run without classes; never changed."""
    path = tmp_path_factory.mktemp("unconditional") / "run"
    model = dataclasses.replace(RUN.model, num_classes=None)
    settings = dataclasses.replace(RUN.training, class_conditional=False)
    save_run(path, RunConfig(model, RUN.data, settings))
    return path


@pytest.fixture(scope="module")
def energy_run(tmp_path_factory):
    """A run that was trained by the energy distance; never changed."""
    path = tmp_path_factory.mktemp("energy") / "run"
    save_run(
        path, dataclasses.replace(RUN, model=dataclasses.replace(RUN.model, energy_distance=True))
    )
    return path


@pytest.fixture
def run_dir(saved_run, tmp_path):
    """A copy of the class-conditional run that a test may change."""
    return shutil.copytree(saved_run, tmp_path / "run")


# What works


def mean_alone(images, codec):
    """Mean bits/dim of the images, each in a file of its own."""
    return np.mean([evaluation.codec_bits_per_dim(image[np.newaxis], codec) for image in images])


def test_evaluate_prints_the_scores_of_both_weights_and_of_the_baselines(saved_run):
    done = run_in_new_process("evaluate.py", "-b", "100", saved_run, "--baselines")
    assert (done.returncode, done.stderr) == (0, "")
    title, averaged, raw, *baselines = done.stdout.splitlines()
    assert title == "digits, test split"
    test_data = data.load("digits", "test")
    for line, words, weights in (
        (averaged, "averaged weights", "ema"),
        (raw, "raw weights", "raw"),
    ):
        model = checkpoints.load(saved_run, weights)
        score = evaluation.score(
            model.log_prob, data.eval_batches(test_data, 64), is_conditional=True
        )
        found = re.fullmatch(
            rf"PixelCNN\+\+, {words}: (\d+\.\d{{4}}) \+- (\d+\.\d{{4}}) bits/dim over 256 images",
            line,
        )
        # Half of the last digit printed, and float32 as in test_evaluation.py.
        assert float(found[1]) == pytest.approx(score.mean, rel=6e-6, abs=6e-5)
        assert float(found[2]) == pytest.approx(score.standard_error, rel=6e-6, abs=6e-5)
    images = data.load("digits", "train").images, test_data.images
    assert baselines == [
        f"Independent pixels, one histogram: "
        f"{evaluation.histogram_bits_per_dim(*images, 17, per_position=False)}",
        f"Independent pixels, a histogram a position: "
        f"{evaluation.histogram_bits_per_dim(*images, 17, per_position=True)}",
        *(
            f"{codec}: {evaluation.codec_bits_per_dim(test_data.images, codec):.4f} bits/dim with "
            f"all images in one file, {mean_alone(test_data.images, codec):.4f} image by image"
            for codec in ("PNG", "WebP")
        ),
    ]


def add_data_sets():
    """Adds sets of noise: one of any size and without labels, others that do not fit a model."""
    options = {
        "noise": {},
        "npz:noise": {},
        "colours": {"channels": 3},
        "levels": {"num_levels": 16},
        "classes": {"num_classes": 12},
        "odd": {"image_size": 6},
    }
    load = data.load

    def load_noise(split, image_size=None, channels=1, num_levels=17, num_classes=None):
        num_images, seed = (5, 0) if split == "test" else (3, 1)
        shape = (num_images, image_size or 8, 8, channels)
        images = np.random.default_rng(seed).integers(0, num_levels, shape).astype(np.uint8)
        labels = None
        if num_classes is not None:
            labels = np.arange(num_images) * (num_classes - 1) // (num_images - 1)
        return data.ImageData(images, labels, num_levels, num_classes)

    def load_or_make(name, split, **settings):
        if name not in options:
            return load(name, split, **settings)
        # Bytes have 256 levels, unless the caller knows better.
        num_levels = settings.get("num_levels") or (256 if ":" in name else 17)
        asked = {"image_size": settings.get("image_size"), "num_levels": num_levels}
        return load_noise(split, **{**asked, **options[name]})

    data.load = load_or_make


@pytest.fixture
def noise(monkeypatch):
    """The sets that `add_data_sets` adds: a function as `data.load`."""
    monkeypatch.setattr(data, "load", data.load)
    add_data_sets()
    return data.load


def test_evaluate_scores_another_set_over_all_classes_into_a_table(saved_run, noise, tmp_path):
    out = tmp_path / "new" / "scores.csv"
    arguments = "-d noise --image_size 12 -b 2 --weights raw --marginal"
    arguments = [*arguments.split(), "--out", out]
    done = run(tmp_path, "evaluate.py", saved_run, *arguments, prepare=add_data_sets)
    assert (done.returncode, done.stderr) == (0, "")
    title, line, written = done.stdout.splitlines()
    assert title == "noise, test split" and written == f"Wrote the scores of 5 images to {out}"
    assert re.fullmatch(
        r"PixelCNN\+\+, raw weights, over all classes: .* bits/dim over 5 images", line
    )
    model = checkpoints.load(saved_run, "raw")
    noise = noise("noise", "test", image_size=12).images
    of_class = model.log_prob(np.tile(noise, (10, 1, 1, 1)), np.repeat(np.arange(10), 5))
    nats = np.log(10) - np.logaddexp.reduce(np.reshape(of_class, (10, 5)).astype(np.float64))
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["data_set", "split", "index", "label", "nats", "bits_per_dim"]
    assert [list(row.values())[:4] for row in rows] == [
        ["noise", "test", str(i), "-1"] for i in range(5)
    ]
    # float32, as in test_evaluation.py.
    np.testing.assert_allclose([float(row["nats"]) for row in rows], nats, rtol=6e-6)
    bits_per_dim = nats / (12 * 8 * np.log(2))
    found = [float(row["bits_per_dim"]) for row in rows]
    np.testing.assert_allclose(found, bits_per_dim, rtol=6e-6)
    assert f": {np.mean(found):.4f} +- " in line


def test_evaluate_tells_two_sets_apart(run_dir, unconditional_run, noise, tmp_path):
    out = tmp_path / "scores.npz"
    arguments = ["-d", "classes", "--compare", "npz:noise", "--split", "all", "--marginal"]
    arguments += ["--background", unconditional_run, "--out", out]
    done = run(tmp_path, "evaluate.py", run_dir, *arguments, prepare=add_data_sets)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for first, name in ((0, "classes"), (3, "npz:noise")):
        assert lines[first] == f"{name}, both splits"
        score = r"\d+\.\d{4} \+- \d+\.\d{4} bits/dim over 8 images"
        title = r"PixelCNN\+\+, averaged weights, over all classes"
        assert re.fullmatch(f"{title}: {score}", lines[first + 1])
        assert re.fullmatch(f"Background, averaged weights: {score}", lines[first + 2])
    plot = run_dir / "scores" / "compared.png"
    assert lines[6] == "AUROC, 1 where every image of npz:noise scores above those of classes:"
    assert lines[11:] == [
        f"Wrote the histograms to {plot}",
        f"Wrote the scores of 16 images to {out}",
    ]

    with np.load(out) as file:
        table = dict(file)
    parts = [noise(name, split) for name in ("classes", "noise") for split in ("train", "test")]
    sizes = [len(part.images) for part in parts]
    assert sizes == [3, 5, 3, 5]
    for column, values in (
        ("data_set", ("classes", "classes", "npz:noise", "npz:noise")),
        ("split", ("train", "test", "train", "test")),
    ):
        np.testing.assert_array_equal(table[column], np.repeat(values, sizes))
    np.testing.assert_array_equal(table["index"], np.concatenate([np.arange(n) for n in sizes]))
    labels = [*parts[0].labels, *parts[1].labels, *[-1] * 8]
    np.testing.assert_array_equal(table["label"], labels)
    images = np.concatenate([part.images for part in parts])
    for codec in ("PNG", "WebP"):
        alone = [evaluation.codec_bits_per_dim(image[np.newaxis], codec) for image in images]
        np.testing.assert_array_equal(table[f"{codec.lower()}_bits_per_dim"], alone)
    background = checkpoints.load(unconditional_run)
    for column, expected in (
        ("background_nats", -background.log_prob(images)),
        ("background_bits_per_dim", background.bits_per_dim(images)),
    ):
        # float32, as in test_evaluation.py.
        np.testing.assert_allclose(table[column], expected, rtol=6e-6)
    for line, title, reference in (
        (lines[7], "likelihood", 0),
        (lines[8], "likelihood ratio to the background", table["background_bits_per_dim"]),
        (lines[9], "likelihood against PNG", table["png_bits_per_dim"]),
        (lines[10], "likelihood against WebP", table["webp_bits_per_dim"]),
    ):
        score = table["bits_per_dim"] - reference
        assert line == f"{evaluation.auroc(score[:8], score[8:]):.4f} by the {title}"
    # A panel for each of the four scores.
    assert np.asarray(Image.open(plot)).shape == (400, 1800, 3)


def test_evaluate_scores_all_images_of_a_file_in_order(saved_run, tmp_path):
    test_data = data.load("digits", "test")
    images, labels = test_data.images[:9].astype(np.int64), test_data.labels[:9]
    own, out = tmp_path / "own.npz", tmp_path / "own.csv"
    np.savez(own, images=images, labels=labels)
    arguments = ["--data_set", own, "--out", out]
    done = run(tmp_path, "evaluate.py", saved_run, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{own}, all images\n")
    expected = checkpoints.load(saved_run).bits_per_dim(images, labels)
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row.values())[:4] for row in rows] == [
        [str(own), "", str(i), str(label)] for i, label in enumerate(labels)
    ]
    # float32, as in test_evaluation.py.
    found = [float(row["bits_per_dim"]) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=6e-6)


SCORING_PAGE = (ROOT / "docs" / "scoring.md").read_text()


def test_the_snippet_of_the_page_on_scoring_makes_sets_to_compare_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", SCORING_PAGE, re.S)
    exec(compile("".join(snippets), "scoring.md", "exec"), {})
    images = data.load("digits", "test").images
    for name, expected in (("mirrored", images[:, :, ::-1]), ("blank", 0 * images)):
        found = data.read_images(f"{name}.npz", num_channels=1, num_levels=17)
        np.testing.assert_array_equal(found, expected)
    # For a background model one value in ten is drawn anew, and one in 17 of these is the same.
    settings = {"data_dir": tmp_path, "num_levels": 17, "log": print}
    found, digits = (
        [data.load(name, split, **more) for split in ("train", "test")]
        for name, more in (("npz:noisy.npz", settings), ("digits", {}))
    )
    for noisy, clean in zip(found, digits, strict=True):
        changed = np.mean(noisy.images != clean.images)
        # Six standard errors of a share of 16,384 values or more.
        assert abs(changed - 0.1 * 16 / 17) < 6 * np.sqrt(0.1 * 0.9 / 16384)


def test_sample_draws_the_labels_asked_for_from_the_averaged_weights(saved_run, run_dir):
    done = run_in_new_process("sample.py", run_dir, "--labels", "3,0,9", "-s", "5")
    assert (done.returncode, done.stderr) == (0, "")
    stem = run_dir / "samples" / "drawn"
    assert re.fullmatch(
        rf"Wrote 3 images to {stem}\.png and {stem}\.npz: \d+\.\d\d images/s, \d+\.\d\d\d s/image; "
        r"\d+\.\d s in all with the compilation\n",
        done.stdout,
    )
    with np.load(f"{stem}.npz") as file:
        images, labels = file["images"], file["labels"]
    np.testing.assert_array_equal(labels, [3, 0, 9])
    expected = sampling.sample(checkpoints.load(saved_run), 3, labels, seed=5)
    np.testing.assert_array_equal(images, expected)
    picture = np.asarray(Image.open(f"{stem}.png"))
    np.testing.assert_array_equal(picture, plots.image_grid(images, 2, 17, scale=4))


def test_sample_draws_all_classes_in_turn_into_the_files_asked_for(run_dir, tmp_path):
    stem = tmp_path / "new" / "drawn"
    arguments = ["--num_samples", 12, "--weights", "raw", "--out", stem]
    done = run(tmp_path, "sample.py", *arguments, run_dir)
    assert done.returncode == 0
    with np.load(f"{stem}.npz") as file:
        np.testing.assert_array_equal(file["labels"], [*range(10), 0, 1])
        picture = plots.image_grid(file["images"], 10, 17, scale=4)
    np.testing.assert_array_equal(np.asarray(Image.open(f"{stem}.png")), picture)


def test_sample_draws_without_classes_too(unconditional_run, tmp_path):
    done = run(tmp_path, "sample.py", unconditional_run, "--num_samples=3", "--out", tmp_path / "a")
    assert done.returncode == 0
    with np.load(tmp_path / "a.npz") as file:
        assert file.files == ["images"] and file["images"].shape == (3, 8, 8, 1)


def test_sample_hands_on_what_controls_it(unconditional_run, tmp_path):
    arguments = "--num_samples 2 --image_size 4x12 --temperature 0.7 --log_scale_offset 0.5 -s 4"
    draws = []
    for mode in ("sample", "map"):
        more = ["--mode", mode, "--method", "naive", "--out", tmp_path / mode]
        done = run(tmp_path, "sample.py", unconditional_run, *arguments.split(), *more)
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


def test_sample_completes_images_of_the_test_split(run_dir, tmp_path):
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
    done = run(tmp_path, "sample.py", run_dir, *arguments)
    assert done.returncode == 0, done.stderr
    test_data = data.load("digits", "test")
    with np.load(run_dir / "samples" / "drawn.npz") as file:
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
    picture = np.asarray(Image.open(run_dir / "samples" / "drawn.png"))
    expected = plots.image_grid(shown.reshape(10, 8, 8, 1), 5, 17, scale=4)
    np.testing.assert_array_equal(picture, expected)


def test_sample_completes_a_picture_and_what_it_has_drawn_itself(run_dir, tmp_path):
    levels = data.load("digits", "test").images[5]
    Image.fromarray((levels[..., 0] * 255.0 / 16).round().astype(np.uint8)).save(tmp_path / "5.png")
    out = tmp_path / "first"
    arguments = ["--complete", tmp_path / "5.png", "--labels", "5,3", "--out", out]
    done = run(tmp_path, "sample.py", run_dir, *arguments)
    assert done.returncode == 0, done.stderr
    with np.load(f"{out}.npz") as file:
        first = file["images"]
        np.testing.assert_array_equal(file["originals"], levels[None])
        np.testing.assert_array_equal(file["labels"], [5, 3])
    assert (first[:, :4] == levels[:4]).all() and (first[0] != first[1]).any()

    arguments = ["--complete", f"{out}.npz", "--labels", "5", "--out", tmp_path / "second"]
    done = run(tmp_path, "sample.py", run_dir, *arguments, "--num_originals", "9")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "second.npz") as file:
        np.testing.assert_array_equal(file["originals"], first)
        np.testing.assert_array_equal(file["labels"], [5, 5])


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
    done = run(tmp_path, "train.py", *arguments.split(), "--only_check_args")
    assert done.returncode == 0, done.stderr


def run_eagerly():
    """Saves the time to compile what runs but twice."""
    tf.config.run_functions_eagerly(True)


DIGITS = ("-d", "digits", "--image_size", "8", "--num_levels", "17", "-z", "elu")


@pytest.fixture(scope="module")
def release_checkpoint(tmp_path_factory):
    """A checkpoint of the release, of a network for digits; the prefix of its files."""
    config = dataclasses.replace(RUN.model, resnet_nonlinearity="elu")
    model = PixelCNNPP(config)
    variables = release.network_variables(model) | release.unnamed_variables(model, num_labels=1)
    path = tmp_path_factory.mktemp("release") / "params_digits.ckpt"
    release.save(variables, V2=path)
    return path


def test_an_imported_checkpoint_of_the_release_is_scored_drawn_from_and_trained_on(
    release_checkpoint, tmp_path
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
    done = run(tmp_path, "import_release.py", release_checkpoint, run_dir, *arguments)
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

    done = run(tmp_path, "evaluate.py", run_dir, prepare=run_eagerly)
    assert done.returncode == 0 and done.stdout.count("bits/dim over 6 images") == 2, done
    # Sixteen passes take less time than a compilation.
    arguments = ["--num_samples", "2", "--image_size", "4", "--method", "naive"]
    done = run(tmp_path, "sample.py", run_dir, *arguments, prepare=run_eagerly)
    assert done.returncode == 0 and done.stdout.startswith("Wrote 2 images to "), done
    arguments = ["-r", "-o", run_dir, "-b", "18", "-x", "1", "-g", "0", "-ns", "0"]
    done = run(tmp_path, "train.py", *arguments, prepare=run_eagerly)
    assert done.returncode == 0, done
    assert "Resumed from epoch 0, step 7." in done.stdout
    assert checkpoints.latest(run_dir).name == "step_000000000009"


# What does not


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--image_size 30 -d photos", "`image_size` must be .* a multiple of 4. Received: .*=30"),
        ("-z tanh", r"--resnet_nonlinearity=tanh: value should be one of <concat_elu\|elu\|relu>"),
        ("--optimizer sgd", r"--optimizer=sgd: value should be one of <adamax\|adam>"),
        ("-l -1", "`learning_rate` must be a finite number > 0. Received: learning_rate=-1.0"),
        ("-p 1", "`dropout_p` must be .* < 1. Received: dropout_p=1.0"),
        ("-q many", "--nr_resnet=many: invalid literal"),
        ("--nr_gpus 8", "Unknown command line flag 'nr_gpus'"),
    ],
)
def test_a_flag_that_breaks_its_rule_is_named(arguments, message, tmp_path):
    done = run(tmp_path, "train.py", "-o", tmp_path / "run", *arguments.split())
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
            "-d mnist",
            "`name` must be one of digits, photos, cifar, .*npz:PATH. Received: name='mnist'",
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
    done = run(tmp_path, "train.py", "-o", tmp_path / "new", *arguments.split())
    assert_one_line(done, message)


def drop_labels():
    """Makes the digits a data set without labels."""
    load = data._EMBEDDED["digits"]

    def load_without_labels(*arguments):
        return dataclasses.replace(load(*arguments), labels=None, num_classes=None)

    data._EMBEDDED["digits"] = load_without_labels


def test_labels_that_are_missing_are_one_line(tmp_path):
    arguments = [*TINY.split(), "-c", "-o", tmp_path / "run"]
    done = run(tmp_path, "train.py", *arguments, prepare=drop_labels)
    assert_one_line(done, "`class_conditional` needs labels, and digits has none. Received: ")
    assert os.listdir(tmp_path) == []


def test_a_save_directory_that_cannot_be_written_is_one_line(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    done = run(tmp_path, "train.py", *TINY.split(), "-o", file / "run")
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
def test_a_run_is_not_continued_as_another_one(arguments, message, run_dir, tmp_path):
    before = files_of(run_dir)
    done = run(tmp_path, "train.py", "-o", run_dir, *arguments.split())
    assert_one_line(done, message)
    assert files_of(run_dir) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-d mnist", "must be one of digits, .* Received: .*mnist"),
        ("--compare mnist", "must be one of digits, .* Received: .*mnist"),
        ("--image_size 12", "`image_size` must be 8 for 'digits', or None. Received: .*=12"),
        ("-d colours", "channels of the model, 1. Received: 3 channels in colours"),
        ("--compare levels", "levels of the model, 17. Received: 16 levels in levels"),
        ("--compare odd --marginal", "multiples of 4. Received: 6 x 8 in odd"),
        ("-d noise", "must have labels .* with --marginal. Received: no labels in noise"),
        (
            "--compare classes",
            r"in \[0, 9\] .* by --marginal. Received: labels up to 11 in classes",
        ),
        ("-d nothing.npz", "No such file or directory: '?nothing.npz"),
        ("-d a.npz --baselines", "`baselines` must be left out: a file has no training images. R"),
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
        ("--weights both --compare digits", "`weights` must be ema or raw beside `compare`. Rec"),
    ],
)
def test_what_cannot_be_scored_is_one_line(arguments, message, saved_run, tmp_path):
    before = files_of(saved_run)
    arguments = [*arguments.split(), "--split", "test"]
    done = run(tmp_path, "evaluate.py", saved_run, *arguments, prepare=add_data_sets)
    assert_one_line(done, message)
    assert done.stdout == ""
    assert files_of(saved_run) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-b 0", "--batch_size=0"),
        ("--image_size 6", "`image_size` must be .* a multiple of 4. Received: image_size=6"),
        ("--weights averaged", r"--weights=averaged: value should be one of <both\|ema\|raw>"),
    ],
)
def test_a_flag_of_the_scoring_that_breaks_its_rule_is_named(
    arguments, message, saved_run, tmp_path
):
    done = run(tmp_path, "evaluate.py", saved_run, *arguments.split())
    assert done.returncode == 1
    # absl adds a line on its --help.
    assert re.search(message, done.stderr.splitlines()[0])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 8, 8, 1), int)}, "An npz must hold `images`. Received: .*a.npz"),
        ({"images": np.full((2, 8, 8, 1), 17)}, r"in \[0, 16\]. Received: values in \[17, 17\]"),
        (
            {"labels": np.array([1, 10])},
            "Labels must lie in .* Received: labels up to 10 in .*a.npz",
        ),
        ({"labels": np.array([-1, -2])}, r"`labels` must lie in .* Received: values in \[-2, -1\]"),
        ({"labels": np.array([0.0, 1.0])}, "`labels` must be .* integers. Received: float64"),
    ],
)
def test_a_file_that_cannot_be_scored_is_one_line(arrays, message, saved_run, tmp_path):
    if "labels" in arrays:
        arrays = {"images": np.zeros((2, 8, 8, 1), int), **arrays}
    np.savez(tmp_path / "a.npz", **arrays)
    done = run(tmp_path, "evaluate.py", saved_run, "-d", tmp_path / "a.npz")
    assert_one_line(done, message)


def test_a_directory_in_place_of_a_file_to_write_is_one_line(saved_run, tmp_path):
    (tmp_path / "a.npz").mkdir()
    done = run(tmp_path, "evaluate.py", saved_run, "--out", tmp_path / "a.npz")
    assert_one_line(done, "`out` must be a file. Received: .*a.npz, a directory")


def test_classes_that_a_run_does_not_have_are_not_summed_over(unconditional_run, tmp_path):
    done = run(tmp_path, "evaluate.py", unconditional_run, "--marginal")
    assert_one_line(done, "`marginal` must be left out: the model is not class-conditional. Rec")


@pytest.mark.parametrize("as_background", [False, True])
def test_a_run_of_the_energy_distance_cannot_score(as_background, energy_run, saved_run, tmp_path):
    arguments = [energy_run]
    if as_background:
        arguments = [saved_run, "--compare", "digits", "--background", energy_run]
    done = run(tmp_path, "evaluate.py", *arguments)
    assert_one_line(
        done,
        "A run must have a likelihood to score images by. "
        "Received: one that was trained by the energy distance",
    )


def test_a_background_of_other_images_is_one_line(saved_run, tmp_path):
    other = RunConfig(
        ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=2),
        DataConfig(data_set="photos"),
        TrainingConfig(nr_gpu=0),
    )
    checkpoints.save_config(tmp_path / "other", other)
    arguments = ["--compare", "digits", "--background", tmp_path / "other"]
    done = run(tmp_path, "evaluate.py", saved_run, *arguments)
    assert_one_line(
        done,
        "`background` must be a run on images of 1 channels and 17 levels, as RUN_DIR is. "
        f"Received: 3 channels and 256 levels in {tmp_path}/other",
    )


@pytest.mark.parametrize("script", ["train.py -r -o", "sample.py", "evaluate.py"])
def test_a_directory_without_a_checkpoint_is_one_line(script, run_dir, tmp_path):
    shutil.rmtree(run_dir / "checkpoints")
    done = run(tmp_path, *script.split(), run_dir)
    assert_one_line(done, f"must hold a checkpoint. Received: {run_dir} ")


@pytest.mark.parametrize("script", ["sample.py", "evaluate.py"])
def test_a_directory_without_a_run_is_one_line(script, tmp_path):
    done = run(tmp_path, script, tmp_path / "new")
    assert_one_line(done, f"must hold a config.json. Received: {tmp_path}/new ")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("script", ["sample.py", "evaluate.py"])
def test_a_missing_directory_is_one_line(script, tmp_path):
    done = run(tmp_path, script)
    assert_one_line(done, rf"^usage: python {script} RUN_DIR \[flags\] .* Received: \[\]")


@pytest.mark.parametrize("script", ["train.py -r -o", "sample.py", "evaluate.py"])
def test_a_checkpoint_of_another_configuration_names_what_differs(script, run_dir, tmp_path):
    path = run_dir / "config.json"
    values = json.loads(path.read_text())
    values["model"] |= {"nr_filters": 6, "dropout_p": 0.1}
    path.write_text(json.dumps(values))
    done = run(tmp_path, *script.split(), run_dir)
    assert_one_line(done, r"with nr_filters: 4 != 6, dropout_p: 0\.5 != 0\.1 \(checkpoint != model")


@pytest.mark.parametrize("script", ["train.py -r -o", "sample.py", "evaluate.py"])
def test_a_checkpoint_that_was_cut_short_is_one_line(script, run_dir, tmp_path):
    path = checkpoints.latest(run_dir) / "averages.npz"
    path.write_bytes(path.read_bytes()[:1000])
    done = run(tmp_path, *script.split(), run_dir)
    assert_one_line(done, f"A checkpoint must be whole. Received: {path} ")


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
def test_labels_that_cannot_be_drawn_are_one_line(arguments, message, saved_run, tmp_path):
    out = tmp_path / "drawn"
    done = run(tmp_path, "sample.py", saved_run, "--out", out, *arguments.split())
    assert_one_line(done, message)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--keep_rows 3", "`keep_rows` must be left out: `complete` says what to complete. Rec"),
        ("--num_originals 3", "`num_originals` must be left out: `complete` says what"),
        ("--complete test --keep_rows 8", "`keep_rows` must be less than the 8 rows .*=8"),
        ("--complete nothing.png", "No such file or directory: .*nothing.png"),
        ("--complete README.md", "The file must be a picture. Received: README.md"),
        ("--complete docs/digits.png", r"Images must have C = 1. Received: C = 3 in docs/digits"),
        ("--complete test --image_size 16", "must be 16 x 16, .* Received: 8 x 8 in test"),
        ("--image_size 8x", "`image_size` must be a number or two, such as 64 or 48x64. Rec"),
        ("--image_size 10", r"`image_shape` must be .* Received: image_shape=\(10, 10, 1\)"),
        ("--temperature 0", "`temperature` must be a number above 0. Received: temperature=0.0"),
        ("--out README.md/drawn", "(File exists|Not a directory): 'README.md'"),
    ],
)
def test_what_cannot_be_drawn_or_completed_is_one_line(arguments, message, saved_run, tmp_path):
    before = files_of(saved_run)
    done = run(tmp_path, "sample.py", saved_run, *arguments.split())
    assert_one_line(done, message)
    assert files_of(saved_run) == before


def test_labels_for_a_run_without_classes_are_one_line(unconditional_run, tmp_path):
    done = run(tmp_path, "sample.py", unconditional_run, "--labels", "1,2")
    assert_one_line(done, "`labels` must be left out: the model is not class-conditional. Rec")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "`resnet_nonlinearity` must be given, elu or relu: the shapes in the checkpoint "),
        ("-z elu", "The size of the images must be given where they do not have 3 channels"),
        ("-z elu --image_size 8x", "`image_size` must be a number or two, such as 64 or 48x64"),
        ("-z elu --image_size 6", r"`image_shape` must be .* Received: image_shape=\(6, 6, 1\)"),
        ("-z concat_elu --image_size 8", "resnet_nonlinearity: 'elu' or 'relu' != 'concat_elu' "),
        ("-z elu --image_size 8 -n 160 -q 5", "nr_resnet: 1 != 5, nr_filters: 4 != 160 "),
        ("-z elu --image_size 8 --num_levels 1", "`num_levels` must be an integer >= 2 and "),
        ("-z elu --image_size 8 --ignore *conv2d_7/*", "nr_resnet=1, without model/conv2d_7/V, "),
        ("-z elu --image_size 8 -d mnist", "must be one of digits, .* Received: name='mnist'"),
    ],
)
def test_what_cannot_be_imported_is_one_line(arguments, message, release_checkpoint, tmp_path):
    run_dir = tmp_path / "run"
    done = run(tmp_path, "import_release.py", release_checkpoint, run_dir, *arguments.split())
    assert_one_line(done, message)
    assert os.listdir(tmp_path) == []


def test_what_is_no_checkpoint_is_one_line(release_checkpoint, tmp_path):
    done = run(tmp_path, "import_release.py", tmp_path / "no.ckpt", tmp_path / "run")
    assert_one_line(done, f"Received: {tmp_path}/no.ckpt ")
    path = tmp_path / "cut.ckpt"
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(f"{release_checkpoint}{ending}", f"{path}{ending}")
    os.truncate(f"{path}.data-00000-of-00001", 1000)
    done = run(tmp_path, "import_release.py", path, tmp_path / "run", *DIGITS)
    assert_one_line(done, f"A checkpoint must be whole, .* Received: {path}, model/")
    assert not (tmp_path / "run").exists()


def test_an_import_does_not_write_over_a_run_or_where_it_cannot(
    release_checkpoint, run_dir, tmp_path
):
    before = files_of(run_dir)
    done = run(tmp_path, "import_release.py", release_checkpoint, run_dir, *DIGITS)
    assert_one_line(done, f"{run_dir} holds a run already: choose another directory.")
    assert files_of(run_dir) == before
    done = run(tmp_path, "import_release.py", release_checkpoint, run_dir / "config.json", *DIGITS)
    assert_one_line(
        done, f"`run_dir` must be a directory. Received: {run_dir}/config.json, .* is a file"
    )


def test_a_loss_that_explodes_names_its_step_and_keeps_the_checkpoint(run_dir, tmp_path):
    before = files_of(run_dir / "checkpoints")
    arguments = ["-r", "-o", run_dir, "-l", "3e38", "-x", "3"]
    done = run(tmp_path, "train.py", *arguments, prepare=run_eagerly)
    # The rate of the eighth update, 3e38 / (1 - 0.9^8), overflows, and all weights do with it.
    *_, line = done.stderr.splitlines()  # TensorFlow warns of the eager functions before
    assert line.startswith("train.py: The loss is nan at step 9: training stopped")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert files_of(run_dir / "checkpoints") == before
    model = checkpoints.load(run_dir, "raw")
    assert all(np.isfinite(np.asarray(weight)).all() for weight in model.weights)
