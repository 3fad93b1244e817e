import dataclasses
import errno
import io
import os
import pathlib
import re
import tempfile

import numpy as np
import pytest
from PIL import Image
from short_run import RUN, changed, scalars, value_of

from pixel_cnn_pp import data, evaluation, likelihoods, plots
from pixel_cnn_pp.runs import checkpoints, loop


def test_a_run_says_what_it_trains_and_how_it_goes(finished):
    first, *rest = finished.lines
    assert re.fullmatch(
        r"digits: 1541 training and 256 test images, 8x8x1, 17 levels; [\d,]+ parameters, "
        r"1 replica",
        first,
    )
    saved = [line for line in rest if line.startswith("Saved")]
    assert saved == [f"Saved epoch {epoch} to {finished.run_dir}." for epoch in (2, 4)]
    # Within an epoch there is a line a minute, which a slow machine may come to.
    epochs = [line for line in rest if line not in saved and " of " not in line]
    for number, line in enumerate(epochs, start=1):
        assert re.fullmatch(
            rf"epoch {number}/4  step {24 * number}  train \d\.\d{{4}}  test \d\.\d{{4}} bits/dim  "
            r"\d+ images/s  \d+ % waiting for data  \d+ (s|min) left",
            line,
        )
    assert len(epochs) == 4
    assert epochs[-1].endswith("  0 s left")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (29.4, "29 s"), (90, "2 min"), (3540, "59 min"), (3900, "1 h 05 min")],
)
def test_time_is_told_as_a_person_does(seconds, words):
    assert loop._describe_time(seconds) == words


def test_a_run_of_the_energy_distance_trains_tells_and_draws(digits, tmp_path):
    model = dataclasses.replace(RUN.model, energy_distance=True)
    run = changed(RUN, save_dir=str(tmp_path), max_epochs=1, num_samples=1, batch_size=256)
    lines = []
    loop.train(dataclasses.replace(run, model=model), *digits, log=lines.append)
    assert re.search(r"train \d+\.\d{4}  test \d+\.\d{4} energy distance  ", "\n".join(lines))
    tags = scalars(tmp_path)
    assert {"train/energy_distance", "test/energy_distance"} < set(tags)
    assert not any("bits_per_dim" in tag for tag in tags)
    assert (tmp_path / "samples/epoch_0001.png").exists()
    # What is told of the test images is of the averaged weights, those of the head included.
    model = checkpoints.load(str(tmp_path), "ema")
    images, labels = digits[1].images, digits[1].labels
    losses = model.loss_of(model(images, labels), images)
    expected = likelihoods.bits_per_dim(np.mean(losses, dtype=np.float64), 64)
    (found,) = scalars(tmp_path)["test/energy_distance"].values()
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_tensorboard_has_the_numbers_of_every_epoch(finished):
    found = scalars(finished.run_dir)
    names = {
        "train/bits_per_dim",
        "train/gradient_norm",
        "test/bits_per_dim",
        "learning_rate",
        "images_per_second",
        "seconds_per_step",
        "data_wait_share",
        "training_minutes",
    }
    of_steps = {"step/bits_per_dim", "step/gradient_norm"}
    others = {"samples", "completions", "_hparams_/session_start_info"}
    assert found.keys() == names | of_steps | others
    for name in names:
        assert list(found[name]) == [24, 48, 72, 96]
    for name in of_steps:  # every tenth step of an epoch
        assert list(found[name]) == [10, 20, 34, 44, 58, 68, 82, 92]
    for name in ("step/gradient_norm", "train/gradient_norm"):
        assert all(0 < norm < np.inf for norm in found[name].values())
    assert all(0 < share < 1 for share in found["data_wait_share"].values())
    assert np.all(np.diff([0, *found["training_minutes"].values()]) > 0)  # of all epochs together
    for step, seconds in found["seconds_per_step"].items():
        assert seconds * found["images_per_second"][step] == pytest.approx(64, rel=1e-5)  # float32
    for step, rate in found["learning_rate"].items():
        assert rate == pytest.approx(0.01 * 0.999 ** (step + 1), rel=1e-6)  # float32
    epochs = [line for line in finished.lines if line.startswith("epoch")]
    for line, step in zip(epochs, (24, 48, 72, 96), strict=True):
        printed = re.search(
            r"train (\S+)  test (\S+) bits/dim  (\S+) images/s  (\S+) % waiting", line
        ).groups()
        assert printed == (
            f"{found['train/bits_per_dim'][step]:.4f}",
            f"{found['test/bits_per_dim'][step]:.4f}",
            f"{found['images_per_second'][step]:.0f}",
            f"{100 * found['data_wait_share'][step]:.0f}",
        )


def test_a_run_learns(finished):
    found = scalars(finished.run_dir)
    for name in ("train/bits_per_dim", "test/bits_per_dim"):
        assert found[name][96] < found[name][24]


def test_samples_are_written_at_every_checkpoint(finished):
    found = scalars(finished.run_dir)["samples"]
    assert list(found) == [48, 96]
    for epoch, step in ((2, 48), (4, 96)):
        stem = f"{finished.run_dir}/samples/epoch_{epoch:04d}"
        with np.load(f"{stem}.npz") as file:
            images, labels = file["images"], file["labels"]
        assert images.shape == (64, 8, 8, 1) and images.dtype == np.uint8
        assert images.max() <= 16
        np.testing.assert_array_equal(labels, np.arange(64) % 10)
        picture = np.asarray(Image.open(f"{stem}.png"))
        # A column a class; 8 pixels are shown as 32.
        np.testing.assert_array_equal(picture, plots.image_grid(images, 10, 17, scale=4))
        width, height, encoded = found[step]
        assert (int(height), int(width)) == picture.shape[:2]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture)


def test_completions_of_test_images_are_written_at_every_checkpoint(finished):
    found = scalars(finished.run_dir)["completions"]
    assert list(found) == [48, 96]
    for epoch, step in ((2, 48), (4, 96)):
        picture = np.asarray(
            Image.open(f"{finished.run_dir}/samples/epoch_{epoch:04d}_completed.png")
        )
        width, height, encoded = found[step]
        assert (int(height), int(width)) == picture.shape[:2]
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), picture)


def test_the_steps_asked_for_are_profiled(finished):
    assert list(pathlib.Path(finished.run_dir).rglob("*.xplane.pb"))


def test_a_finished_run_holds_its_configuration_and_its_state(finished):
    assert checkpoints.load_config(finished.run_dir) == finished.run
    names = sorted(os.listdir(f"{finished.run_dir}/checkpoints"))
    assert names == ["step_000000000048", "step_000000000096"]


def test_the_test_score_is_that_of_the_averaged_weights(finished, digits):
    _, test_data = digits
    averaged, raw = (
        evaluation.score(
            checkpoints.load(finished.run_dir, weights).log_prob,
            data.eval_batches(test_data, 100),
            is_conditional=True,
        ).mean
        for weights in ("ema", "raw")
    )
    logged = scalars(finished.run_dir)["test/bits_per_dim"][96]
    # float32, as in test_evaluation.py.
    assert logged == pytest.approx(averaged, rel=6e-6)
    assert abs(raw - averaged) > 100 * 6e-6 * averaged


def test_evaluation_counts_every_image_once(finished, digits):
    _, test_data = digits
    trainer = finished.trainer
    state = trainer.restore(finished.run_dir, 1541, 64)
    assert (state.step, state.epoch, trainer.step) == (96, 4, 96)
    weights = [value_of(weight) for weight in trainer.model.weights]
    model = checkpoints.load(finished.run_dir)
    for num_images in (5, 70):
        part = data.ImageData(test_data.images[:num_images], test_data.labels[:num_images], 17, 10)
        found = trainer.evaluate(part)
        np.testing.assert_allclose(
            found.bits_per_dim, value_of(model.bits_per_dim(part.images, part.labels)), rtol=6e-6
        )
    # The averages stood in for them only within the call.
    for weight, before in zip(trainer.model.weights, weights, strict=True):
        np.testing.assert_array_equal(value_of(weight), before)


def test_a_directory_that_cannot_be_written_is_told_of_before_the_model_is_built(
    digits, tmp_path, monkeypatch
):
    def build(*_):
        raise AssertionError("the model is built")

    def refuse(dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), dir)

    monkeypatch.setattr(loop, "Trainer", build)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        loop.train(changed(RUN, save_dir=str(tmp_path / "file/run")), *digits)
    # Who runs the tests may have every right.
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        loop.train(changed(RUN, save_dir=str(tmp_path / "run")), *digits)


def test_a_directory_with_a_run_is_not_trained_over(finished, digits):
    message = f"{finished.run_dir} holds a run already: add --load_params to go on with it"
    with pytest.raises(ValueError, match=message) as caught:
        loop.train(finished.run, *digits)
    assert "\n" not in str(caught.value)


def test_data_of_another_kind_than_the_model_are_one_line(digits, tmp_path):
    train_data, test_data = digits
    run = changed(RUN, save_dir=str(tmp_path / "run"))
    unfit = {
        "8x4": dataclasses.replace(test_data, images=test_data.images[:, :, :4]),
        "levels": dataclasses.replace(test_data, num_levels=18),
        "classes": dataclasses.replace(test_data, num_classes=11),
        "unlabelled": dataclasses.replace(test_data, labels=None, num_classes=None),
    }
    for other in unfit.values():
        with pytest.raises(ValueError, match=r"The test images must fit the model\. Rec") as caught:
            loop.train(run, train_data, other)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=r"The train images must fit the model\. Received"):
            loop.train(run, other, test_data)
    assert os.listdir(tmp_path) == []
