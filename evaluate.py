"""Prints the exact bits/dim of images under a trained run: python evaluate.py save/digits."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from pixel_cnn_pp import config, scripts

FLAGS = flags.FLAGS
# A flag that is not given has the value of the run. `data_set` and `compare` also take a file: a
# picture, or an .npz with images and perhaps labels, as sample.py writes it.
config.define_flags(config.DataConfig, with_defaults=False)
flags.DEFINE_enum(
    "split", "test", ["test", "train", "all"], "Which images of a data set to score; not of a file"
)
flags.DEFINE_integer("batch_size", 64, "Images at a time", short_name="b", lower_bound=1)
flags.DEFINE_enum(
    "weights",
    None,
    ["both", "ema", "raw"],
    "Averaged weights, or those of the last step; default: both, with --out or --compare: ema",
)
flags.DEFINE_bool(
    "marginal", False, "Sum a class-conditional likelihood over all classes; needs no labels"
)
flags.DEFINE_string("out", None, "File to write the scores of every image to, .npz or .csv")
flags.DEFINE_bool(
    "maps",
    False,
    "Draw the first images beside maps of the bits that each of their pixels costs, into "
    "RUN_DIR/scores/maps.png and maps.npz",
)
flags.DEFINE_integer("num_maps", 16, "How many images to draw with --maps", lower_bound=1)
flags.DEFINE_bool("baselines", False, "Also score independent pixels, PNG and WebP")
flags.DEFINE_string(
    "compare",
    None,
    "Second data set, or file: print how well scores tell it from the first (AUROC)",
)
flags.DEFINE_string(
    "background", None, "Directory of a run: compare by the ratio to its likelihood too"
)
flags.DEFINE_string(
    "plot", None, "PNG of the compared scores' histograms; default: RUN_DIR/scores/compared.png"
)

_WEIGHTS = {"ema": "averaged weights", "raw": "raw weights"}


class _Set(NamedTuple):
    """Images to score: their name, and with the split; an ImageData; the split [N] of each."""

    name: str
    title: str
    images: Any
    splits: np.ndarray


def main(run_dir):
    """Scores every image of a set once, and those of a second set if there is one to compare."""
    from pixel_cnn_pp import evaluation
    from pixel_cnn_pp.runs import checkpoints, model_files

    model_files.check_data_set(run_dir, FLAGS.data_set)
    run = checkpoints.load_config(run_dir)
    all_weights, plot_path = _checked_flags(run_dir)
    if FLAGS.background is not None:
        _check_background(run.model)
    models = _models(run_dir, all_weights)
    if FLAGS.marginal and not any(_has_classes(model) for _, model in models.values()):
        raise ValueError(
            "`marginal` must be left out: the model is not class-conditional. "
            "Received: marginal=True"
        )
    names = [FLAGS.data_set or run.data.data_set]
    if FLAGS.compare is not None:
        names.append(FLAGS.compare)
    sets = [_load_set(run, name, FLAGS.split) for name in names]
    for scored in sets:
        for _, model in models.values():
            evaluation.check_fits(scored.name, scored.images, model, _uses_labels(model))
    train_images = _load_set(run, names[0], "train").images.images if FLAGS.baselines else None
    for name, path in (("out", FLAGS.out), ("plot", plot_path)):
        if path is not None:
            scripts.check_writable(name, path)

    tables = []
    for scored in sets:
        print(scored.title)
        tables.append(_columns(scored))
        for title, (prefix, model) in models.items():
            score, of_stages = _score(model, scored.images, f"{scored.name}, {title}")
            over_classes = ", over all classes" if _is_marginal(model) else ""
            print(f"{title}{over_classes}: {score}")
            if scored.images.num_levels == 2:  # whose scores papers give in nats
                print(f"{title}{over_classes}: {score.in_nats}")
            tables[-1][f"{prefix}nats"] = score.nats
            tables[-1][f"{prefix}bits_per_dim"] = score.bits_per_dim
            for name, own in of_stages.items():
                tables[-1][f"{prefix}nats_{name}"] = own.nats
                print(_describe_stage(model, name, own, scored.images.images.shape[1:]))
    if train_images is not None:
        _print_baselines(train_images, sets[0].images)
    if FLAGS.compare is not None:
        _compare(sets, tables, plot_path)
    if FLAGS.maps:
        _draw_maps(run_dir, next(iter(models.values()))[1], sets[0])
    if FLAGS.out is not None:
        table = {key: np.concatenate([each[key] for each in tables]) for key in tables[0]}
        evaluation.save_scores(FLAGS.out, table)
        print(f"Wrote the scores of {len(table['index'])} images to {FLAGS.out}")


def _checked_flags(run_dir):
    """The weights to score with, and the picture to write or None; refuses contradicting flags."""
    from pixel_cnn_pp import evaluation
    from pixel_cnn_pp.runs import model_files

    needs_one = [name for name in ("out", "compare", "maps") if FLAGS[name].value]
    if FLAGS.maps and FLAGS.marginal:
        raise ValueError(
            "`maps` must be left out beside `marginal`: a map is that of a class. "
            "Received: maps=True"
        )
    if FLAGS["num_maps"].present and not FLAGS.maps:
        raise ValueError(
            "`num_maps` must be left out: `maps` says to draw maps. "
            f"Received: num_maps={FLAGS.num_maps}"
        )
    if FLAGS.weights == "both" and needs_one:
        raise ValueError(
            f"`weights` must be ema or raw beside `{needs_one[0]}`. Received: weights=both"
        )
    if FLAGS.compare is None:
        for name in ("background", "plot"):
            if FLAGS[name].value is not None:
                raise ValueError(
                    f"`{name}` must be left out: `compare` says what to compare with. "
                    f"Received: {name}={FLAGS[name].value}"
                )
    if FLAGS.baselines and _is_file(FLAGS.data_set or ""):
        raise ValueError(
            "`baselines` must be left out: a file has no training images. "
            f"Received: baselines=True for {FLAGS.data_set}"
        )
    if FLAGS.out is not None:
        evaluation.check_scores_path(FLAGS.out)
    plot_path = None
    if FLAGS.compare is not None:
        plot_path = pathlib.Path(
            FLAGS.plot or model_files.folder_of(run_dir) / "scores" / "compared.png"
        )
        if plot_path.suffix != ".png":
            raise ValueError(f"`plot` must end in .png. Received: plot={plot_path}")
    if FLAGS.weights in _WEIGHTS:
        return [FLAGS.weights], plot_path
    return ["ema"] if needs_one else list(_WEIGHTS), plot_path


def _models(run_dir, all_weights):
    """The models to score with: {title of the scores: (prefix of their columns, model)}."""
    from pixel_cnn_pp.runs import checkpoints

    models = {}
    for weights in all_weights:
        model = checkpoints.load(run_dir, weights)
        models[f"{model.title}, {_WEIGHTS[weights]}"] = ("", model)
    if FLAGS.background is not None:
        background = checkpoints.load(FLAGS.background, all_weights[0])
        models[f"Background, {_WEIGHTS[all_weights[0]]}"] = ("background_", background)
    return models


def _draw_maps(run_dir, model, scored):
    """Draws the first images of a set, each beside the bits of its pixels."""
    from pixel_cnn_pp import plots
    from pixel_cnn_pp.runs import model_files

    images = np.asarray(scored.images.images[: FLAGS.num_maps])
    labels = None
    if model.is_conditional:
        labels = np.asarray(scored.images.labels[: FLAGS.num_maps])
    log_prob = model.log_prob(images, labels, reduce="pixel", batch_size=FLAGS.batch_size)
    bits = -np.asarray(log_prob) / np.log(2)
    picture = plots.maps(images, bits, "bits per pixel", model.config.num_levels)
    stem = model_files.folder_of(run_dir) / "scores" / "maps"
    plots.save_drawn(stem, picture, {"images": images, "bits_per_pixel": bits})
    print(f"Wrote the bits of each pixel of {len(images)} images to {stem}.png and {stem}.npz")


def _check_background(model_config):
    """Refuses a background model that does not take images of the same kind."""
    from pixel_cnn_pp.runs import checkpoints

    found = checkpoints.load_config(FLAGS.background).model
    kind, expected = ((of.image_shape[-1], of.num_levels) for of in (found, model_config))
    if kind != expected:
        raise ValueError(
            "`background` must be a run on images of {} channels and {} levels, as RUN_DIR is. "
            "Received: {} channels and {} levels in {}".format(*expected, *kind, FLAGS.background)
        )


def _load_set(run, name, split):
    """The images of a file, or of a split of a data set.

    The run's own data set is read as it was for the training. Any other is read with the default
    options. Flags that are given hold for both.
    """
    from pixel_cnn_pp import data

    given = {**config.explicit_values_from_flags(config.DataConfig), "data_set": name}
    if _is_file(name):
        return _load_file(run, name, given)
    settings = run.data
    num_classes = None if FLAGS.marginal else run.model.num_classes
    if name != settings.data_set:
        class_names = None
        if num_classes is not None:  # Labels of other data name the classes of the run.
            class_names = settings.class_names or tuple(map(str, range(num_classes)))
        settings = config.DataConfig(
            name,
            settings.data_dir,
            class_names=class_names,
            view=settings.view,
            condition_view=settings.condition_view,
        )
    if ":" in name:  # The model says how many levels a user's own folder or file has.
        given.setdefault("num_levels", run.model.num_levels)
    splits = ["train", "test"] if split == "all" else [split]
    parts = [data.load_split(settings, part, num_classes, **given) for part in splits]
    images = parts[0]
    if len(parts) > 1 and settings.view is not None:
        raise ValueError(
            "`split` must be train or test for a stage of a chain. Received: split=all"
        )
    if len(parts) > 1:
        labels = None
        if images.labels is not None:
            labels = np.concatenate([part.labels for part in parts])
        images = data.ImageData(
            np.concatenate([part.images for part in parts]),
            labels,
            images.num_levels,
            images.num_classes,
            class_names=images.class_names,
        )
    title = f"{name}, {split} split" if len(parts) == 1 else f"{name}, both splits"
    return _Set(name, title, images, np.repeat(splits, [len(part.images) for part in parts]))


def _is_file(name):
    """Whether a name is that of a file: names of data sets have a suffix only after a colon."""
    return ":" not in name and pathlib.Path(name).suffix != ""


def _load_file(run, path, given):
    """All images of a file, in order."""
    from pixel_cnn_pp import data

    if run.data.view is not None:
        raise ValueError(
            "The images of a file must be scored by the run of the whole chain: this is one of "
            f"its stages. Received: {path}"
        )
    model, known = run.model, ("data_set", "data_dir", "image_size", "channels_first")
    for name, value in given.items():
        if name not in known and not (name == "num_levels" and value == model.num_levels):
            raise ValueError(
                f"`{name}` must be left out: all images of a file are scored as they stand. "
                f"Received: {name}={value} for {path}"
            )
    images = data.load_file(
        path,
        model.image_shape[-1],
        model.num_levels,
        None if FLAGS.marginal else model.num_classes,
        run.data.class_names,
        given.get("image_size"),
        given.get("channels_first"),
    )
    return _Set(path, f"{path}, all images", images, np.repeat("", len(images.images)))


def _has_classes(model):
    return model.config.num_classes is not None


def _is_marginal(model):
    """Whether images are scored over all classes."""
    return FLAGS.marginal and _has_classes(model)


def _uses_labels(model):
    """Whether images are scored by their own classes, or the pictures that they are given with."""
    return model.is_conditional and not _is_marginal(model)


def _score(model, images, name):
    """Scores every image with its own class, or over all classes; shows the progress.

    Returns the Score, and {name of a stage: its Score} if there are several and their own classes.
    """
    from pixel_cnn_pp import data, evaluation

    unit = model.likelihood.unit

    def batches():
        for batch in data.eval_batches(images, FLAGS.batch_size):
            yield batch
            bar.update(int(np.sum(batch[2])))

    with _bar(len(images.images), name) as bar:
        if _is_marginal(model):
            log_prob = evaluation.compiled_log_prob(model)
            log_prob = evaluation.marginal_log_prob(log_prob, model.config.num_classes)
            return evaluation.score(log_prob, batches(), False, unit), {}
        log_probs = evaluation.compiled_log_probs(model)
        parts = evaluation.score_parts(log_probs, batches(), _uses_labels(model), unit)
    if len(parts) == 1:
        return parts[0], {}
    total = dataclasses.replace(parts[0], nats=sum(part.nats for part in parts))
    return total, {stage.name: part for stage, part in zip(model.stages, parts, strict=True)}


def _describe_stage(model, name, score, image_shape):
    """A line with the score of a stage, for a sub-pixel of the image and for one of its own."""
    (stage,) = (stage for stage in model.stages if stage.name == name)
    own_dims = np.prod(stage.view.shape_of(image_shape))
    own = dataclasses.replace(score, num_dims=own_dims, unit=stage.model.likelihood.unit)
    return (
        f"  stage {name}: {score.mean:.4f} bits/dim of the image, {own.mean:.4f} "
        f"{own.unit} of its own {own_dims} sub-pixels"
    )


def _bar(num_images, name):
    """A progress bar, if there is a terminal to show it on."""
    return tqdm(total=num_images, desc=name, unit="image", leave=False, disable=None)


def _columns(scored):
    """The columns that say which images these are: {name: array [N]}. Scores are added later."""
    splits, labels = scored.splits, scored.images.labels
    parts = [np.arange(np.sum(splits == split)) for split in dict.fromkeys(splits)]
    return {
        "data_set": np.repeat(scored.name, len(splits)),
        "split": splits,
        "index": np.concatenate(parts),
        "label": np.repeat(-1, len(splits)) if labels is None else scored.images.given_labels,
    }


def _alone(images, codec, name):
    """Bits/dim [N] of a codec that sees one image at a time."""
    from pixel_cnn_pp import picture_codecs

    with _bar(len(images), name) as bar:
        found = np.zeros(len(images))
        for i, image in enumerate(images):
            found[i] = picture_codecs.codec_bits_per_dim(image[np.newaxis], codec)
            bar.update()
        return found


def _print_baselines(train_images, scored):
    """Prints the scores of independent pixels and of codecs."""
    from pixel_cnn_pp import evaluation, picture_codecs

    for name, per_position in (("one histogram", False), ("a histogram a position", True)):
        score = evaluation.histogram_bits_per_dim(
            train_images, scored.images, scored.num_levels, per_position
        )
        print(f"Independent pixels, {name}: {score}")
    for codec in picture_codecs.codecs(scored.images):
        in_one_file = picture_codecs.codec_bits_per_dim(scored.images, codec)
        print(
            f"{codec}: {in_one_file:.4f} bits/dim with all images in one file, "
            f"{np.mean(_alone(scored.images, codec, codec)):.4f} image by image"
        )


def _compare(sets, tables, plot_path):
    """Prints how well scores tell the second set from the first, and draws their histograms.

    A score is the bits/dim of the model minus those of a reference. The references are: nothing,
    the background model (Ren et al. 2019, arXiv:1906.02845), and each codec (Serra et al. 2020,
    arXiv:1909.11480). The bits/dim of the codecs are added to the tables.
    """
    from pixel_cnn_pp import evaluation, picture_codecs, plots

    references = [("likelihood", "bits/dim", None)]
    if FLAGS.background is not None:
        references.append(
            (
                "likelihood ratio to the background",
                "bits/dim above the background",
                "background_bits_per_dim",
            )
        )
    for codec in picture_codecs.codecs(sets[0].images.images):
        column = f"{codec.lower()}_bits_per_dim"
        references.append((f"likelihood against {codec}", f"bits/dim above {codec}", column))
        for scored, table in zip(sets, tables, strict=True):
            table[column] = _alone(scored.images.images, codec, f"{scored.name}, {codec}")

    names = [scored.name for scored in sets]
    print(f"AUROC, 1 where every image of {names[1]} scores above those of {names[0]}:")
    panels = []
    for title, x_label, column in references:
        scores = [
            table["bits_per_dim"] - (0 if column is None else table[column]) for table in tables
        ]
        auroc = evaluation.auroc(*scores)
        print(f"{auroc:.4f} by the {title}")
        sets_by_name = {
            f"{i}. {name}": values
            for i, (name, values) in enumerate(zip(names, scores, strict=True), start=1)
        }
        panels.append((f"{title}\nAUROC {auroc:.4f}", x_label, sets_by_name))
    plots.save_png(plot_path, plots.histograms(panels))
    print(f"Wrote the histograms to {plot_path}")


if __name__ == "__main__":
    scripts.run(main, ["RUN_DIR"])
