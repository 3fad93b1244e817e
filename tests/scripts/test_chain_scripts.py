"""A chain of photographs by the scripts: trained stage by stage, scored, drawn, and refused."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from processes import assert_one_line, run_script

import pixel_cnn_pp as pcnn
from pixel_cnn_pp import config, data, sampling
from pixel_cnn_pp.runs import checkpoints, loop

pytestmark = pytest.mark.usefixtures("without_xla")

# Two stages, as small as they can be.
TRAIN = [
    *("train.py", "--preset=grayscale_photos", "--image_size=8", "--num_train_images=24"),
    *("--nr_gpu=0", "--nr_filters=4", "--nr_resnet=1", "--num_resolutions=1"),
    *("--embedding_resolutions=1", "--max_epochs=1", "--init_batch_size=8", "--num_samples=1"),
    "--save_dir",
]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """(directory of a chain, what was printed when each stage was trained)."""
    run_dir = tmp_path_factory.mktemp("chain") / "run"
    first = run_script(*TRAIN, run_dir, "--stage", "gray")
    # All that is missing: the other stage.
    second = run_script(*TRAIN, run_dir)
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    return run_dir, first.stdout, second.stdout


def copied(chain, tmp_path):
    return shutil.copytree(chain[0], tmp_path / "run")


def test_a_stage_trains_alone_and_then_what_is_missing(chain):
    run_dir, first, second = chain
    assert "Stage gray:\n" in first and "colour" not in first
    assert f"Stage gray is trained, in {run_dir}/stages/gray.\nStage colour:\n" in second
    assert "8x8x1, 16 levels" in first and "8x8x3, 256 levels" in second
    for name in ("gray", "colour"):
        folder = run_dir / "stages" / name
        assert checkpoints.latest(folder).name == "step_000000000003"
        picture = Image.open(folder / "samples" / "epoch_0001.png")  # drawn given test pictures
        assert picture.size[0] > 8
    own = checkpoints.load_config(run_dir / "stages" / "colour")
    assert (own.data.view, own.data.condition_view) == ("image", "gray:16")
    assert own.model.embedding_resnet == 1 and own.training.augment == "none"


def test_a_chain_that_is_done_is_not_trained_again_and_goes_on_with_more_epochs(chain, tmp_path):
    run_dir = copied(chain, tmp_path)
    done = run_script(*TRAIN, run_dir)
    assert done.returncode == 0 and "epoch" not in done.stdout
    more = ["--load_params", "--stage", "gray", "--max_epochs", "2", "--num_samples", "0"]
    done = run_script("train.py", "--save_dir", run_dir, *more)
    assert done.returncode == 0, done.stderr
    assert "Resumed from epoch 1, step 3.\nepoch 2/2" in done.stdout
    assert checkpoints.load_config(run_dir / "stages" / "gray").training.max_epochs == 2


def test_a_chain_is_scored_stage_by_stage_and_the_stages_add_up(chain, tmp_path):
    run_dir, out = chain[0], tmp_path / "scores.npz"
    done = run_script("evaluate.py", run_dir, "--out", out, "--maps", "--num_maps", "2")
    assert done.returncode == 0, done.stderr
    total = re.search(r"Chain, averaged weights: (\S+) .* bits/dim \(bound\) over", done.stdout)
    stages = re.findall(
        r"  stage (\w+): (\S+) bits/dim of the image, (\S+) bits/dim of its own (\d+) sub-pixels",
        done.stdout,
    )
    assert [(name, int(dims)) for name, _, _, dims in stages] == [("gray", 64), ("colour", 192)]
    # Both numbers are rounded to four digits.
    assert sum(float(of_image) for _, of_image, _, _ in stages) == pytest.approx(
        float(total[1]), abs=1.5e-4
    )
    assert float(stages[0][2]) == pytest.approx(3 * float(stages[0][1]), abs=2e-4)
    test = data.load_split(checkpoints.load_config(run_dir).data, "test").images
    with np.load(out) as table:
        np.testing.assert_array_equal(table["nats"], table["nats_gray"] + table["nats_colour"])
        expected = -np.asarray(pcnn.load(run_dir).log_prob(test[:3]))
        np.testing.assert_allclose(table["nats"][:3], expected, rtol=1e-5)


def test_the_run_of_a_stage_is_a_run_like_any_other(chain):
    stage = chain[0] / "stages" / "colour"
    done = run_script("evaluate.py", stage, "--weights", "ema")
    assert done.returncode == 0 and "PixelCNN++, averaged weights" in done.stdout
    assert_one_line(run_script("sample.py", stage), "conditioned on pictures .* condition=None")
    picture = chain[0] / "stages" / "gray" / "samples" / "epoch_0001.png"
    assert_one_line(
        run_script("evaluate.py", stage, "--data_set", picture), "by the run of the whole chain"
    )


def test_steps_and_offsets_are_drawn_side_by_side(chain, tmp_path):
    done = run_script("sample.py", chain[0], "--num_samples=2", "--steps", "--out", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    expected = sampling.sample_stages(pcnn.load(chain[0]), 2)
    with np.load(tmp_path / "s.npz") as file:
        for name in ("gray", "colour"):
            np.testing.assert_array_equal(file[f"stage_{name}"], expected[name])
        np.testing.assert_array_equal(file["images"], expected["colour"])
    assert Image.open(tmp_path / "s.png").size == (4 * 17, 4 * 17)  # 2 x 2 pictures of 8 x 8
    offsets = ["--num_samples=2", "--offsets", "0,0.5,...,1.5", "--out", tmp_path / "o"]
    done = run_script("sample.py", chain[0], *offsets)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "o.npz") as file:
        np.testing.assert_array_equal(file["log_scale_offsets"], [0, 0.5, 1, 1.5])
        assert file["images"].shape == (8, 8, 8, 3)
        np.testing.assert_array_equal(file["images"][0], expected["colour"][0])


def test_a_given_picture_gets_colours(chain, tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    arguments = ["--given", tmp_path / "gray.png", "--num_samples=2", "--out", tmp_path / "c"]
    done = run_script("sample.py", chain[0], *arguments)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "c.npz") as file:
        given, images = file["given"], file["images"]
    np.testing.assert_array_equal(given[0, ..., 0], gray // 16)  # 256 levels to 16
    expected = pcnn.sample(pcnn.load(chain[0]), 2, given=given[0])
    np.testing.assert_array_equal(images, expected)
    test = ["--given", "test", "--num_originals=2", "--num_samples=1", "--out", tmp_path / "t"]
    assert run_script("sample.py", chain[0], *test).returncode == 0
    originals = data.load_split(checkpoints.load_config(chain[0]).data, "test").images[:2]
    with np.load(tmp_path / "t.npz") as file:
        weights = np.array([299, 587, 114])
        np.testing.assert_array_equal(
            file["given"][..., 0], (originals.astype(int) @ weights) // 16000
        )


def test_pictures_are_compressed_at_the_length_of_the_bound_and_come_back(chain, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (5, 13, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    path = tmp_path / "a.pcn"
    done = run_script("compress.py", chain[0], tmp_path / "a.png", "--out", path, "--batch_size=2")
    assert done.returncode == 0, done.stderr
    assert "Wrote 1 pictures" in done.stdout and "decompressed them to the same" in done.stdout
    rows = {line[:16].strip(): line[16:].split() for line in done.stdout.splitlines()}
    promised, own = (float(rows[name][4]) for name in ("-log2 p (bound)", "this file"))
    assert promised * 0.995 < own < 1.005 * promised + 8  # bytes
    arguments = ("compress.py", chain[0], "--decompress", path, "--out", tmp_path / "back")
    assert run_script(*arguments).returncode == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "back" / "0.png")), pixels)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--given", "test", "--complete", "test"], "`complete` must be left out: `given` says"),
        (["--given_stage", "gray"], "`given_stage` must be left out: `given` says"),
        (["--given", "test", "--given_stage", "blue"], "`given_stage` must be one of gray"),
        (["--temperature", "1,1,1"], "`temperature` must be one value, or one for each of the 2"),
        (["--temperature", "warm"], "`temperature` must be a number.* temperature=warm"),
        (["--offsets", "0,...,1"], "`offsets` must be numbers, such as"),
        (["--offsets", "0,1", "--steps"], "`steps` must be left out: `offsets` makes the columns"),
        (["--num_originals", "2"], "`num_originals` must be left out"),
    ],
)
def test_drawing_refuses_what_contradicts_itself(chain, flags, message):
    assert_one_line(run_script("sample.py", chain[0], *flags), message)


def test_an_ordinary_run_has_no_stages(unconditional_run):
    done = run_script("sample.py", unconditional_run, "--given", "test")
    assert_one_line(done, "`given` must be left out: the model has one stage")
    done = run_script("train.py", "--data_set", "digits", "--stage", "gray")
    assert_one_line(done, "`stage` must be left out: the model is no chain. Received: stage=gray")


def test_a_missing_stage_is_named(chain, tmp_path):
    run_dir = copied(chain, tmp_path)
    shutil.rmtree(run_dir / "stages" / "colour" / "checkpoints")
    for script in ("evaluate.py", "sample.py", "export.py"):
        more = [tmp_path / "served"] if script == "export.py" else []
        done = run_script(script, run_dir, *more)
        assert_one_line(done, "no checkpoint of stage colour; python train.py --save_dir .* trains")
    shutil.rmtree(run_dir / "stages" / "colour")
    assert_one_line(run_script("evaluate.py", run_dir), "config.json. Received: .*stages/colour")


def test_a_foreign_stage_is_refused(chain, tmp_path):
    run_dir = copied(chain, tmp_path)
    path = run_dir / "stages" / "colour" / "config.json"
    values = json.loads(path.read_text())
    values["model"]["nr_logistic_mix"] = 7
    path.write_text(json.dumps(values))
    message = "Stage colour must be that of the chain .* nr_logistic_mix: 7 != 5"
    assert_one_line(run_script("evaluate.py", run_dir), message)
    assert_one_line(run_script("train.py", "--save_dir", run_dir, "--load_params"), message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--nr_filters", "5"], "Stage gray must be that of the chain .* nr_filters: 4 != 5"),
        (["--stage", "16"], "`stage` must be one of gray, colour. Received: stage=16"),
        (["--model", "pixel_cnn"], "`model` must be left out, or be pixel_cnn_pp"),
        (["--data_set", "digits", "--image_size", "8"], "3 channels for the view gray:16"),
    ],
)
def test_training_refuses_what_does_not_fit_the_chain(chain, flags, message):
    assert_one_line(run_script(*TRAIN, chain[0], *flags), message)


def test_a_stage_that_another_process_trains_is_left_out(chain, tmp_path, monkeypatch):
    run_dir = copied(chain, tmp_path)
    for name in ("gray", "colour"):
        shutil.rmtree(run_dir / "stages" / name / "checkpoints")
    trained = []

    def train(run, train_data, test_data, strategy, log):
        if run.training.save_dir.endswith("gray"):
            raise BlockingIOError("Another process writes to gray")
        trained.append((run.data.view, train_data.images.shape, test_data.labels.shape[1:]))
        folder = run_dir / "stages" / "colour" / "checkpoints"
        shutil.copytree(chain[0] / "stages" / "colour" / "checkpoints", folder)

    monkeypatch.setattr(loop, "train", train)
    done = run_script("train.py", "--save_dir", run_dir, "--load_params")
    assert_one_line(done, "train.py: Another process writes to gray")
    assert trained == [("image", (24, 8, 8, 3), (8, 8, 1))]
    assert "Stage gray is left out" in done.stdout


def test_every_chain_preset_makes_its_chain():
    for name, preset in config.CHAIN_PRESETS.items():
        model_class = config.MODELS[preset.kind]
        fields = model_class.__dataclass_fields__
        options = []
        for number in range(len(preset.stages)):
            values = preset.of_stage(number).values
            config.TrainingConfig(
                **{
                    k: v
                    for k, v in values.items()
                    if k in config.TrainingConfig.__dataclass_fields__
                }
            )
            options.append((model_class, {k: v for k, v in values.items() if k in fields}))
        size = {"pyramid_celeba": 128, "multi_scale_row_lstm": 64}.get(name, 32)
        made = preset.model_config(options, (size, size, 3), 256)
        expected = {
            "grayscale_cifar10": ("gray", "colour"),
            "grayscale_photos": ("gray", "colour"),
            "pyramid_celeba": ("8", "16", "32", "64", "128"),
            "pyramid_cifar10": ("8", "16", "32"),
            "pyramid_photos": ("8", "16", "32"),
            "multi_scale_row_lstm": ("32", "64"),
        }
        assert made.stage_names == expected[name] and preset.source
