import csv
import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from processes import ROOT, run_in_new_process, run_script

from pixel_cnn_pp import data, evaluation
from pixel_cnn_pp.picture_codecs import codec_bits_per_dim
from pixel_cnn_pp.runs import checkpoints


def mean_alone(images, codec):
    """Mean bits/dim of the images, each in a file of its own."""
    return np.mean([codec_bits_per_dim(image[np.newaxis], codec) for image in images])


def test_evaluate_prints_the_scores_of_both_weights_and_of_the_baselines(trained_run):
    done = run_in_new_process("evaluate.py", "-b", "100", trained_run, "--baselines")
    assert (done.returncode, done.stderr) == (0, "")
    title, averaged, raw, *baselines = done.stdout.splitlines()
    assert title == "digits, test split"
    test_data = data.load("digits", "test")
    for line, words, weights in (
        (averaged, "averaged weights", "ema"),
        (raw, "raw weights", "raw"),
    ):
        model = checkpoints.load(trained_run, weights)
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
            f"{codec}: {codec_bits_per_dim(test_data.images, codec):.4f} bits/dim with "
            f"all images in one file, {mean_alone(test_data.images, codec):.4f} image by image"
            for codec in ("PNG", "WebP")
        ),
    ]


def test_evaluate_scores_another_set_over_all_classes_into_a_table(trained_run, noise, tmp_path):
    out = tmp_path / "new" / "scores.csv"
    arguments = "-d noise --image_size 12 -b 2 --weights raw --marginal"
    arguments = [*arguments.split(), "--out", out]
    done = run_script("evaluate.py", trained_run, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    title, line, written = done.stdout.splitlines()
    assert title == "noise, test split" and written == f"Wrote the scores of 5 images to {out}"
    assert re.fullmatch(
        r"PixelCNN\+\+, raw weights, over all classes: .* bits/dim over 5 images", line
    )
    model = checkpoints.load(trained_run, "raw")
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


def test_evaluate_draws_maps_of_the_bits_of_pixels(copied_run):
    done = run_script("evaluate.py", copied_run, "--maps", "--num_maps", "3")
    assert (done.returncode, done.stderr) == (0, "")
    stem = copied_run / "scores" / "maps"
    told = f"Wrote the bits of each pixel of 3 images to {stem}.png and {stem}.npz"
    assert done.stdout.splitlines()[-1] == told
    model, found = checkpoints.load(copied_run), np.load(f"{stem}.npz")
    expected = data.load("digits", "test")
    np.testing.assert_array_equal(found["images"], expected.images[:3])
    nats = model.log_prob(expected.images[:3], expected.labels[:3], reduce="pixel")
    np.testing.assert_allclose(found["bits_per_pixel"], -nats / np.log(2), rtol=1e-4, atol=1e-5)
    assert Image.open(f"{stem}.png").size[0] > 400


def test_evaluate_tells_two_sets_apart(copied_run, unconditional_run, noise, tmp_path):
    out = tmp_path / "scores.npz"
    arguments = ["-d", "classes", "--compare", "npz:noise", "--split", "all", "--marginal"]
    arguments += ["--background", unconditional_run, "--out", out]
    done = run_script("evaluate.py", copied_run, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for first, name in ((0, "classes"), (3, "npz:noise")):
        assert lines[first] == f"{name}, both splits"
        score = r"\d+\.\d{4} \+- \d+\.\d{4} bits/dim over 8 images"
        title = r"PixelCNN\+\+, averaged weights, over all classes"
        assert re.fullmatch(f"{title}: {score}", lines[first + 1])
        assert re.fullmatch(f"Background, averaged weights: {score}", lines[first + 2])
    plot = copied_run / "scores" / "compared.png"
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
        alone = [codec_bits_per_dim(image[np.newaxis], codec) for image in images]
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


def test_evaluate_scores_all_images_of_a_file_in_order(trained_run, tmp_path):
    test_data = data.load("digits", "test")
    images, labels = test_data.images[:9].astype(np.int64), test_data.labels[:9]
    own, out = tmp_path / "own.npz", tmp_path / "own.csv"
    np.savez(own, images=images, labels=labels)
    arguments = ["--data_set", own, "--out", out]
    done = run_script("evaluate.py", trained_run, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{own}, all images\n")
    expected = checkpoints.load(trained_run).bits_per_dim(images, labels)
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
        found = data.load_file(f"{name}.npz", num_channels=1, num_levels=17).images
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


def test_evaluate_crops_a_picture_and_takes_its_levels_as_they_stand(trained_run, tmp_path):
    levels = np.random.default_rng(0).integers(0, 17, (13, 10), np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    out = tmp_path / "scores.npz"
    arguments = ["-d", tmp_path / "photo.png", "--image_size", 8, "--marginal", "--out", out]
    done = run_script("evaluate.py", trained_run, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    image = levels[None, 2:10, 1:9, None]
    model = checkpoints.load(trained_run)
    of_class = model.log_prob(np.tile(image, (10, 1, 1, 1)), np.arange(10))
    nats = np.log(10) - np.logaddexp.reduce(np.asarray(of_class, np.float64))
    with np.load(out) as file:
        # float32, as in test_evaluation.py.
        np.testing.assert_allclose(file["nats"], [nats], rtol=6e-6)


def test_labels_of_other_data_are_the_numbers_of_classes_without_names(trained_run, tmp_path):
    test_data = data.load("digits", "test")
    rows = np.flatnonzero(test_data.labels >= 5)[:6]
    images, labels = test_data.images[rows], test_data.labels[rows]
    np.savez(tmp_path / "own.npz", images=images, labels=labels)
    expected = np.mean(checkpoints.load(trained_run).bits_per_dim(images, labels))
    arguments = ["-d", f"file:{tmp_path}/own.npz", "-i", tmp_path / "data", "--split", "all"]
    done = run_script("evaluate.py", trained_run, *arguments, "--weights", "ema")
    assert done.returncode == 0, done.stderr
    assert abs(float(re.search(r"weights: (\d+\.\d+)", done.stdout)[1]) - expected) < 6e-5


def test_evaluate_knows_the_classes_of_a_file_by_their_names(trained_run, copied_run, tmp_path):
    path = copied_run / "config.json"
    names = [str(number) for number in range(11, 21)]
    values = json.loads(path.read_text())
    values["data"]["class_names"] = names
    path.write_text(json.dumps(values))
    test_data = data.load("digits", "test")
    images, labels = test_data.images[:8], test_data.labels[:8]
    np.savez(tmp_path / "own.npz", images=images, labels=labels + 11)
    expected = checkpoints.load(trained_run).bits_per_dim(images, labels)
    for name, data_set in (("own.npz", tmp_path / "own.npz"), ("npz", f"npz:{tmp_path}/own.npz")):
        out = tmp_path / f"{name}.out.npz"
        arguments = ["-d", data_set, "--out", out, "-i", tmp_path / "data", "--split", "all"]
        done = run_script("evaluate.py", copied_run, *arguments)
        assert done.returncode == 0, done.stderr
        with np.load(out) as file:
            found = dict(zip(file["label"], file["bits_per_dim"], strict=True))
            assert sorted(file["label"]) == sorted(labels + 11)
        for label, value in zip(labels, expected, strict=True):
            if list(labels).count(label) == 1:
                assert abs(found[label + 11] - value) < 1e-5


def test_a_file_whose_name_has_bytes_that_are_no_text_is_scored_and_named(trained_run, tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.npz"
    images = np.random.default_rng(0).integers(0, 17, (1, 8, 8, 1)).astype(np.uint8)
    with open(path, "wb") as file:
        np.savez(file, images=images, labels=np.array([3]))
    out = tmp_path / "scores.csv"
    done = run_script("evaluate.py", trained_run, "--data_set", os.fsdecode(path), "--out", out)
    title, score, _ = done.stdout.splitlines()
    assert title == f"{tmp_path}/caf\\udce9.npz, all images", done
    assert re.fullmatch(r"PixelCNN\+\+, averaged weights: \d\.\d{4} bits/dim of one image", score)
    assert out.read_text().splitlines()[1].startswith(f"{tmp_path}/caf\\udce9.npz,,0,3,")
