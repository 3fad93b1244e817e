"""Draws or completes images from a trained run: python sample.py save/digits --num_samples 100."""

import math
import pathlib
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
flags.DEFINE_list(
    "temperature",
    ["1"],
    "Divides the mixture logits and multiplies the scales; below 1: cleaner. Of a chain, this and "
    "the next two may be lists, such as 1,0.8,0.8, of one value for each stage",
)
flags.DEFINE_list("log_scale_offset", ["0"], "Subtracted from the log-scales; above 0: cleaner")
flags.DEFINE_list(
    "mode",
    ["sample"],
    "sample, or map: the most likely value of the mixture component that was drawn",
)
flags.DEFINE_list(
    "offsets",
    None,
    "A column for each log_scale_offset, such as 0,0.1,...,1.0; a row for each image, drawn from "
    "the same noise",
)
flags.DEFINE_bool("steps", False, "Of a chain, show the pictures of all stages side by side")
flags.DEFINE_string(
    "given",
    None,
    "Of a chain, start from a picture of a stage: a gray one gets colours, a small one becomes "
    "larger. A picture, an array file, or 'test' for images of the test split; each gets "
    "num_samples drawings",
)
flags.DEFINE_string(
    "given_stage", None, "The stage of `given`, such as gray or 16; default: found by its shape"
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
    _check_flags(model)
    labels, num_samples, num_columns = _labels(model.config.num_classes, class_names)
    image_shape = _image_shape(model.config)
    arrays, known = {}, {}
    if FLAGS.complete is None:
        _refuse("keep_rows", reason="`complete` says what to complete")
    if FLAGS.given is not None:
        pictures, stage, image_shape = _given(run_dir, model, image_shape)
        known = {"given": np.repeat(pictures, num_samples, axis=0), "given_stage": stage.name}
        arrays = {"given": pictures}
        labels, num_columns = None, num_samples
        num_samples *= len(pictures)
    elif FLAGS.complete is None:
        _refuse("num_originals", reason="`complete` or `given` says what to start from")
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
    offsets = _per_stage("log_scale_offset", float)
    columns = _offsets() if FLAGS.offsets is not None else [offsets]
    progress = _Progress(model, image_shape, num_samples)
    drawn = []
    for offset in columns:
        progress.begin()
        drawn.append(
            sampling.sample_stages(
                model,
                num_samples,
                labels,
                FLAGS.seed,
                method=FLAGS.method,
                image_shape=image_shape,
                temperature=_per_stage("temperature", float),
                log_scale_offset=offset,
                mode=_per_stage("mode", str),
                progress=progress,
                **known,
            )
        )
    progress.close()

    *_, images = drawn[0].values()
    scale = max(1, 32 // image_shape[0])
    if FLAGS.offsets is not None:
        images = np.stack([list(each.values())[-1] for each in drawn], axis=1)
        images = images.reshape(-1, *images.shape[2:])
        picture = plots.image_grid(images, len(columns), num_levels, scale=scale)
        arrays["log_scale_offsets"] = np.array(columns)
    elif FLAGS.steps:
        picture = plots.stage_grid(
            [
                (drawn[0][name], levels)
                for name, levels in _levels(model).items()
                if name in drawn[0]
            ],
            scale,
        )
        arrays |= {f"stage_{name}": pictures for name, pictures in drawn[0].items()}
    elif FLAGS.given is not None:
        rows = images.reshape(-1, num_columns, *images.shape[1:]).swapaxes(0, 1)
        of_rows = [(pictures, _levels(model)[stage.name]), *((row, num_levels) for row in rows)]
        picture = plots.stage_grid(of_rows, scale)
    elif FLAGS.complete is None:
        picture = plots.image_grid(images, num_columns, num_levels, scale=scale)
    else:
        picture = plots.completion_grid(originals, known_mask, images, num_levels, scale)
    arrays["images"] = images
    if labels is not None:
        arrays["labels"] = data.given_labels(labels, class_names)
    plots.save_drawn(stem, picture, arrays)
    num_drawn = num_samples * len(columns)
    print(f"Wrote {num_drawn} images to {stem}.png and {stem}.npz: {progress.rate()}")


class _Progress:
    """A progress bar over the rows that are drawn, and the speed of drawing."""

    def __init__(self, model, image_shape, num_images):
        self._start = time.perf_counter()
        heights = [stage.view.shape_of(image_shape)[0] for stage in model.stages]
        self._rows = num_images * np.array(heights)  # of each stage
        self._num_images = num_images
        self._drawings = []  # the reports of each call of `sampling.sample_stages`
        self._bar = None

    def begin(self):
        """Begins the reports of another drawing."""
        self._drawings.append([])
        self.close()
        self._bar = None

    def __call__(self, done, total):
        """Takes a report of `sampling.sample_stages`."""
        if self._bar is None:
            self._bar = tqdm(total=total, unit="row", leave=False, disable=None, file=sys.stderr)
        self._bar.update(done - self._bar.n)
        self._drawings[-1].append((time.perf_counter(), done, total))

    def close(self):
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def rate(self):
        """Images a second and seconds an image, without what was compiled before first rows.

        Each stage is compiled for itself. So the first report of each stage is left out.
        """
        total = f"{time.perf_counter() - self._start:.1f} s in all with the compilation"
        of_stages = list(self._seconds_of_stages(self._drawings[-1]))
        if None in of_stages:  # of so few rows that they were drawn in one go
            return total
        per_image = sum(of_stages) / self._num_images
        return f"{1 / per_image:.2f} images/s, {per_image:.3f} s/image; {total}"

    def _seconds_of_stages(self, reports):
        """Seconds that each drawn stage takes, from the reports within it. None for one report."""
        *_, total = reports[0]
        num_stages = next(n for n in range(1, 99) if sum(self._rows[-n:]) >= total)
        before = 0
        for number in self._rows[len(self._rows) - num_stages :]:
            own = [each for each in reports if before < each[1] <= before + number]
            (first_time, first, _), (last_time, last, _) = own[0], own[-1]
            share = (last - first) / number
            yield (last_time - first_time) / share if share > 0 else None
            before += number


def _check_flags(model):
    """Refuses flags that contradict each other, or that only a chain has."""
    if len(model.stages) == 1:
        _refuse("steps", "given", "given_stage", reason="the model has one stage")
    if FLAGS.given is None:
        _refuse("given_stage", reason="`given` says what to start from")
    else:
        _refuse("complete", "labels", reason="`given` says what to start from")
    if FLAGS.offsets is not None:
        names = ("log_scale_offset", "steps", "complete", "given")
        _refuse(*names, reason="`offsets` makes the columns")
    if FLAGS.complete is not None:
        _refuse("steps", reason="`complete` shows completions")


def _per_stage(name, convert):
    """The value of a flag for all stages, or the list of one for each of them."""
    try:
        values = [convert(value) for value in FLAGS[name].value]
    except ValueError:
        values = []
    if not values:
        raise ValueError(
            f"`{name}` must be a number, or one for each stage. "
            f"Received: {name}={','.join(FLAGS[name].value)}"
        )
    return values[0] if len(values) == 1 else values


def _offsets():
    """The numbers of --offsets. Dots stand for the numbers between, at the distance before them."""
    texts, found = FLAGS.offsets, []
    try:
        for number, text in enumerate(texts):
            if text != "...":
                found.append(float(text))
                continue
            step, last = found[-1] - found[-2], float(texts[number + 1])
            count = round((last - found[-1]) / step) - 1
            found += [round(found[-1] + (i + 1) * step, 9) for i in range(count)]
    except (ValueError, IndexError, ZeroDivisionError):
        found = []
    if not found:
        raise ValueError(
            "`offsets` must be numbers, such as 0,0.5,1 or 0,0.1,...,1.0. "
            f"Received: offsets={','.join(texts)}"
        )
    return found


def _levels(model):
    """{name of a stage: the number of levels of its pictures}."""
    return {stage.name: stage.model.config.num_levels for stage in model.stages}


def _given(run_dir, model, image_shape):
    """The pictures [N, h, w, c] to start from, their stage, and the shape of the images."""
    from pixel_cnn_pp import data
    from pixel_cnn_pp.runs import checkpoints

    stages = {stage.name: stage for stage in model.stages[:-1]}
    if FLAGS.given_stage is not None and FLAGS.given_stage not in stages:
        raise ValueError(
            f"`given_stage` must be one of {', '.join(stages)}. "
            f"Received: given_stage={FLAGS.given_stage}"
        )
    if FLAGS.given == "test":
        settings = checkpoints.load_config(run_dir).data
        found = data.load_split(settings, "test", data_dir=FLAGS.data_dir or settings.data_dir)
        images = np.asarray(found.images[: FLAGS.num_originals])
        stage = stages[FLAGS.given_stage or next(iter(stages))]
        return stage.view.of(images, found.num_levels), stage, images.shape[1:]
    wanted = [FLAGS.given_stage] if FLAGS.given_stage is not None else list(stages)
    reasons = []
    for name in wanted:
        stage = stages[name]
        try:
            pictures = _read_given(stage, model.config)[: FLAGS.num_originals]
        except ValueError as error:
            reasons.append(error)
            continue
        height, width = (stage.view.factor * side for side in pictures.shape[1:3])
        if FLAGS.given_stage is not None and FLAGS.image_size is None:
            image_shape = (height, width, image_shape[-1])
        if (height, width) == tuple(image_shape[:2]):
            return pictures, stage, image_shape
        reasons.append(
            f"`given` must have the size of a stage, or `given_stage` name one. "
            f"Received: {pictures.shape[1]} x {pictures.shape[2]} in {FLAGS.given}"
        )
    raise ValueError(str(reasons[-1]))


def _read_given(stage, config):
    """The pictures of a stage in a file. Arrays have its levels; a picture has those of images."""
    from pixel_cnn_pp import data

    own = stage.model.config
    channels = own.image_shape[-1]
    if pathlib.Path(FLAGS.given).suffix.lower() in (".npz", ".npy", ".h5", ".mat"):
        return data.load_file(FLAGS.given, channels, own.num_levels).images
    pictures = data.load_file(FLAGS.given, channels, config.num_levels).images
    return (pictures.astype(np.int64) * own.num_levels // config.num_levels).astype(np.int32)


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
    scripts.run(main, ["RUN_DIR"])
