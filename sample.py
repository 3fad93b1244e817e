"""Draws or completes images from a trained run: python sample.py save/digits --num_samples 100."""

import os
import signal

# Ctrl-C while the rest is imported. Later, `scripts.run` takes care of it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    LINE = b"sample.py: stopped by Ctrl-C\n"
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, LINE), os._exit(130)))

import math
import sys
import time

import numpy as np
from absl import flags
from tqdm import tqdm

from pixel_cnn_pp import scripts

FLAGS = flags.FLAGS
flags.DEFINE_integer("num_samples", 16, "How many images to draw", lower_bound=1)
flags.DEFINE_list("labels", None, "Classes to draw, such as 0,3,3 or cat,dog; default: all in turn")
flags.DEFINE_integer("seed", 0, "Random seed", short_name="s", lower_bound=0)
flags.DEFINE_enum("weights", "ema", ["ema", "raw"], "Averaged weights, or those of the last step")
flags.DEFINE_string("out", None, "Files to write, without ending; default: RUN_DIR/samples/drawn")
flags.DEFINE_string(
    "image_size", None, "Size to draw, 64 or 48x64 (height x width); default: that of the training"
)
flags.DEFINE_float(
    "temperature", 1.0, "Divides the mixture logits and multiplies the scales; below 1: cleaner"
)
flags.DEFINE_float("log_scale_offset", 0.0, "Subtracted from the log-scales; above 0: cleaner")
flags.DEFINE_enum(
    "mode",
    "sample",
    ["sample", "map"],
    "map: the most likely value of the mixture component that was drawn",
)
flags.DEFINE_enum(
    "method", "cached", ["cached", "naive"], "naive: the whole network for every pixel, slow"
)
flags.DEFINE_string(
    "complete",
    None,
    "Complete images instead: a picture, an npz that this script wrote, or 'test' for images of "
    "the test split; each gets num_samples completions, or one for each of the labels",
)
flags.DEFINE_integer(
    "keep_rows", None, "Rows from the top that are known; default: half of them", lower_bound=1
)
flags.DEFINE_integer("num_originals", 4, "How many images of a set to complete", lower_bound=1)
flags.DEFINE_string("data_dir", None, "Directory of the data sets; default: that of the training")


def main(run_dir):
    """Draws from a run's newest checkpoint into a PNG and an npz."""
    from pixel_cnn_pp import data, plots, sampling
    from pixel_cnn_pp.runs import checkpoints, model_files

    model = checkpoints.load(run_dir, FLAGS.weights)
    num_levels = model.config.num_levels
    class_names = checkpoints.load_config(run_dir).data.class_names
    labels, num_samples, num_columns = _labels(model.config.num_classes, class_names)
    image_shape = _image_shape(model.config)
    arrays, known = {}, {}
    if FLAGS.complete is None:
        _refuse("keep_rows", "num_originals", reason="`complete` says what to complete")
    else:
        originals, own_labels = _originals(run_dir, image_shape, model.config)
        if own_labels is not None and FLAGS.labels is None:
            labels = np.repeat(own_labels, num_samples)
        elif labels is not None:
            labels = np.tile(labels, len(originals))
        known_mask = _known_mask(image_shape)
        known = {
            "init_images": np.repeat(originals, num_samples, axis=0),
            "known_mask": known_mask,
        }
        num_samples *= len(originals)
        arrays = {"originals": originals, "known_mask": known_mask}

    stem = FLAGS.out or str(model_files.folder_of(run_dir) / "samples" / "drawn")
    for ending in ("png", "npz"):
        scripts.check_writable("out", f"{stem}.{ending}")
    progress = _Progress()
    images = sampling.sample(
        model,
        num_samples,
        labels,
        FLAGS.seed,
        method=FLAGS.method,
        image_shape=image_shape,
        temperature=FLAGS.temperature,
        log_scale_offset=FLAGS.log_scale_offset,
        mode=FLAGS.mode,
        progress=progress,
        **known,
    )
    progress.close()

    scale = max(1, 32 // image_shape[0])
    if FLAGS.complete is None:
        picture = plots.image_grid(images, num_columns, num_levels, scale=scale)
    else:
        picture = plots.completion_grid(originals, known_mask, images, num_levels, scale)
    arrays["images"] = images
    if labels is not None:
        arrays["labels"] = data.given_labels(labels, class_names)
    plots.save_drawn(stem, picture, arrays)
    print(f"Wrote {num_samples} images to {stem}.png and {stem}.npz: {progress.rate(num_samples)}")


class _Progress:
    """A progress bar over the rows that are drawn, and the speed of drawing."""

    def __init__(self):
        self._start = time.perf_counter()
        self._reports = []
        self._bar = None

    def __call__(self, done, total):
        """Takes a report of `sampling.sample`."""
        if self._bar is None:
            self._bar = tqdm(total=total, unit="row", leave=False, disable=None, file=sys.stderr)
        self._bar.update(done - self._bar.n)
        self._reports.append((time.perf_counter(), done / total))

    def close(self):
        """Removes the bar."""
        self._bar.close()

    def rate(self, num_images):
        """Images a second and seconds an image, without the compilation before the first rows."""
        (first_time, first_share), (last_time, last_share) = self._reports[0], self._reports[-1]
        seconds = last_time - self._start
        drawing, share = last_time - first_time, last_share - first_share
        if share <= 0:
            drawing, share = seconds, 1
        per_image = drawing / (share * num_images)
        return (
            f"{1 / per_image:.2f} images/s, {per_image:.3f} s/image; {seconds:.1f} s in all with "
            "the compilation"
        )


def _image_shape(config):
    """The shape to draw, (H, W, C)."""
    if FLAGS.image_size is None:
        return config.image_shape
    return (*scripts.parse_image_size(FLAGS.image_size), config.image_shape[-1])


def _originals(run_dir, image_shape, config):
    """The images [N, H, W, C] to complete, and their labels [N] or None."""
    from pixel_cnn_pp import data
    from pixel_cnn_pp.runs import checkpoints, model_files

    if FLAGS.complete == "test":
        model_files.check_data_set(run_dir, None)
    settings = checkpoints.load_config(run_dir).data
    if FLAGS.complete == "test":
        data_dir = FLAGS.data_dir or settings.data_dir
        found = data.load_split(settings, "test", config.num_classes, data_dir=data_dir)
    else:
        found = data.load_file(
            FLAGS.complete,
            image_shape[-1],
            config.num_levels,
            config.num_classes,
            settings.class_names,
        )
    images, labels = found.images[: FLAGS.num_originals], None
    if config.num_classes is not None and found.labels is not None:
        labels = found.labels[: FLAGS.num_originals]
    if images.shape[1:] != tuple(image_shape):
        (height, width), (found_height, found_width) = image_shape[:2], images.shape[1:3]
        raise ValueError(
            f"Images to complete must be {height} x {width}, or `image_size` say their size. "
            f"Received: {found_height} x {found_width} in {FLAGS.complete}"
        )
    return images, labels


def _known_mask(image_shape):
    """Booleans [H, W], true in the rows to keep."""
    height, width, _ = image_shape
    keep_rows = height // 2 if FLAGS.keep_rows is None else FLAGS.keep_rows
    if keep_rows >= height:
        raise ValueError(
            f"`keep_rows` must be less than the {height} rows of the images. "
            f"Received: keep_rows={keep_rows}"
        )
    return np.repeat(np.arange(height)[:, None] < keep_rows, width, axis=1)


def _labels(num_classes, class_names):
    """The labels to draw, their number, and the number of columns to show them in."""
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
    _refuse("num_samples", reason="`labels` draws one image a label")
    from pixel_cnn_pp import data

    labels = data.class_numbers(FLAGS.labels, class_names)
    return labels, len(labels), math.ceil(math.sqrt(len(labels)))


def _refuse(*names, reason):
    """Refuses flags that have no meaning together with the others, or without them."""
    for name in names:
        if FLAGS[name].present:
            raise ValueError(
                f"`{name}` must be left out: {reason}. Received: {name}={FLAGS[name].value}"
            )


if __name__ == "__main__":
    scripts.run(main, ["RUN_DIR"], keeps_compiled=True)
