"""Draws images from a trained run: python sample.py save/digits --num_samples 100."""

import math
import pathlib
import time

import numpy as np
from absl import flags

from pixel_cnn_pp import scripts

FLAGS = flags.FLAGS
flags.DEFINE_integer("num_samples", 16, "How many images to draw", lower_bound=1)
flags.DEFINE_list("labels", None, "Classes to draw, such as 0,3,3; default: all in turn")
flags.DEFINE_integer("seed", 0, "Random seed", short_name="s", lower_bound=0)
flags.DEFINE_enum("weights", "ema", ["ema", "raw"], "Averaged weights, or those of the last step")
flags.DEFINE_string("out", None, "Files to write, without ending; default: RUN_DIR/samples/drawn")


def main(run_dir):
    """Draws from a run's newest checkpoint into a PNG and an npz."""
    from pixel_cnn_pp import checkpoints, plots, sampling

    model = checkpoints.load(run_dir, FLAGS.weights)
    labels, num_samples, num_columns = _labels(model.config.num_classes)
    start = time.perf_counter()
    images = sampling.sample(model, num_samples, labels, FLAGS.seed)
    seconds = time.perf_counter() - start

    stem = FLAGS.out or str(pathlib.Path(run_dir) / "samples" / "drawn")
    picture = plots.image_grid(
        images, num_columns, model.config.num_levels, scale=max(1, 32 // images.shape[1])
    )
    plots.save_png(f"{stem}.png", picture)
    np.savez(f"{stem}.npz", images=images, **({} if labels is None else {"labels": labels}))
    print(
        f"Wrote {num_samples} images to {stem}.png and {stem}.npz: "
        f"{num_samples / seconds:.2f} images/s, {seconds / num_samples:.2f} s/image"
    )


def _labels(num_classes):
    """The labels to draw, how many, and in how many columns to show them."""
    if FLAGS.labels is None:
        num_samples = FLAGS.num_samples
        if num_classes is None:
            return None, num_samples, math.ceil(math.sqrt(num_samples))
        return np.arange(num_samples) % num_classes, num_samples, num_classes
    if num_classes is None:
        raise ValueError(
            f"`labels` must be left out: the model is not class-conditional. "
            f"Received: labels={','.join(FLAGS.labels)}"
        )
    if FLAGS["num_samples"].present:
        raise ValueError(
            "`num_samples` and `labels` exclude each other: labels draws one image a label. "
            f"Received: num_samples={FLAGS.num_samples}"
        )
    try:
        labels = np.array([int(label) for label in FLAGS.labels])
    except ValueError:
        raise ValueError(
            f"`labels` must be whole numbers. Received: labels={','.join(FLAGS.labels)}"
        ) from None
    return labels, len(labels), math.ceil(math.sqrt(len(labels)))


if __name__ == "__main__":
    scripts.run(main, ["RUN_DIR"])
