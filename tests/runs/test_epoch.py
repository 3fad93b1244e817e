import io
import math
import sys
import types

import numpy as np
import pytest
from short_run import RUN, changed

from pixel_cnn_pp import data
from pixel_cnn_pp.runs import checkpoints, loop, monitoring, stopping
from pixel_cnn_pp.runs.epoch import Epoch, StepResult


class FakeTrainer:
    """Its losses are 1/2, 1/4, 1/8, ..., and then, if asked for, something else."""

    num_replicas = 1
    worker_index, num_workers, worker = 0, 1, (0, 1)
    model = types.SimpleNamespace(
        likelihood=types.SimpleNamespace(unit="bits/dim", loss_name="bits_per_dim")
    )

    def __init__(self, last=None):
        self.step = 0
        self.last = last

    def train_step(self, images, labels, is_last):
        self.step += 1
        is_changed = self.step == 4 and self.last is not None
        loss = self.last if is_changed else 0.5**self.step
        return StepResult(loss, gradient_norm=float(self.step), is_last=is_last)


class Terminal(io.StringIO):
    def isatty(self):
        return True


ZEROS = np.zeros(4, np.uint8)


def train_epoch(trainer, log, images=ZEROS, batch_size=1, **done):
    """What is left of the seventh epoch, done by a trainer; `images` have one value each."""
    run = changed(RUN, batch_size=batch_size)
    images = np.broadcast_to(images[:, None, None, None], (len(images), 8, 8, 1))
    images = data.ImageData(images, np.zeros(len(images), np.int32), 17, 10)
    made = loop._Loop(trainer, run, images, images, log)
    made._state = checkpoints.TrainingState(step=0, epoch=6, **done)
    epoch = Epoch(made._state, len(images.images), batch_size, "bits/dim")
    made._train_epoch(epoch, stopping.StopRequest(), monitoring.Monitor(run, is_chief=False))
    return epoch


def test_a_terminal_sees_a_bar_and_no_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_LINES", -1)
    lines = []
    epoch = train_epoch(FakeTrainer(), lines.append)
    assert epoch.mean_bits_per_dim == (0.5 + 0.25 + 0.125 + 0.0625) / 4
    assert epoch.mean_gradient_norm == 2.5
    assert lines == []
    assert "\repoch 7:" in sys.stderr.getvalue() and "| 0/4 [" in sys.stderr.getvalue()


def test_a_pipe_gets_plain_lines_and_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_LINES", -1)
    lines = []
    train_epoch(FakeTrainer(), lines.append)
    assert lines == [
        f"epoch 7  step {number} of 4  {0.5**number:.4f} bits/dim" for number in range(1, 5)
    ]
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_training_with_the_step_named(loss):
    message = f"The loss is {loss} at step 4: training stopped"
    with pytest.raises(FloatingPointError, match=message) as caught:
        train_epoch(FakeTrainer(last=loss), print)
    assert "\n" not in str(caught.value)


class MeanTrainer(FakeTrainer):
    """The loss of an image is the value of its pixels."""

    def train_step(self, images, labels, is_last):
        self.step += 1
        loss = float(np.mean(images.numpy()[:, 0, 0, 0]))
        return StepResult(loss, gradient_norm=1.0, is_last=is_last)


@pytest.mark.parametrize(
    ("batch_size", "num_images", "steps"),
    [(6, 18, (2, 3)), (2, 20, (7, 10)), (3, 18, (4, 6)), (14, 20, (1, 1)), (15, 6, (0, 0))],
)
def test_an_epoch_counts_images_whatever_the_batches_before_it_was_stopped(
    batch_size, num_images, steps
):
    # Of 20 images, 6 were done.
    images = np.random.default_rng(0).integers(0, 17, 20).astype(np.uint8)
    in_order = images[data.epoch_order(20, RUN.training.seed, 6)].astype(float)
    trainer = MeanTrainer()
    epoch = train_epoch(
        trainer, print, images, batch_size, num_images=6, image_loss_sum=in_order[:6].sum()
    )
    assert epoch.is_done and epoch.num_images == num_images
    assert (trainer.step, epoch.num_done, epoch.num_steps) == (steps[0], steps[1], steps[1])
    assert epoch.mean_bits_per_dim == pytest.approx(in_order[:num_images].mean(), rel=1e-12)
    assert epoch.has_speed == (trainer.step > 0)
