"""Prints the exact bits/dim of images under a trained run: python evaluate.py save/digits."""

import pathlib

import numpy as np
from absl import flags
from tqdm import tqdm

from pixel_cnn_pp import config, scripts

FLAGS = flags.FLAGS
# What is not given is as the run has it.
config.define_flags(config.DataConfig, with_defaults=False)
flags.DEFINE_enum("split", "test", ["test", "train"], "Which images to score")
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
flags.DEFINE_bool("baselines", False, "Also score independent pixels, PNG and WebP")
flags.DEFINE_string(
    "compare", None, "A second data set: print how well scores tell it from the first (AUROC)"
)
flags.DEFINE_string(
    "background", None, "Compare the ratio to the likelihood of this run too: its directory"
)
flags.DEFINE_string(
    "plot", None, "PNG of the compared scores' histograms; default: RUN_DIR/scores/compared.png"
)

_WEIGHTS = {"ema": "averaged weights", "raw": "raw weights"}


def main(run_dir):
    """Scores every image of a split once, and of a second set where there is one to compare."""
    from pixel_cnn_pp import checkpoints, evaluation

    run = checkpoints.load_config(run_dir)
    all_weights, plot_path = _checked_flags(run_dir)
    models = {weights: checkpoints.load(run_dir, weights) for weights in all_weights}
    background = None
    if FLAGS.background is not None:
        background = _load_background(run.model, all_weights[0])
    if FLAGS.marginal and not any(map(_is_conditional, [*models.values(), background])):
        raise ValueError(
            "`marginal` must be left out: the model is not class-conditional. "
            "Received: marginal=True"
        )
    names = [FLAGS.data_set or run.data.data_set]
    if FLAGS.compare is not None:
        names.append(FLAGS.compare)
    sets = [_load_data(run.data, name, FLAGS.split) for name in names]
    for name, images in zip(names, sets, strict=True):
        for model in (*models.values(), background):
            if model is not None:
                uses_labels = _is_conditional(model) and not FLAGS.marginal
                evaluation.check_fits(name, images, model.config, uses_labels)

    tables = []
    for name, images in zip(names, sets, strict=True):
        print(f"{name}, {FLAGS.split} split")
        for weights, model in models.items():
            score = _score(model, images, name)
            print(f"PixelCNN++, {_WEIGHTS[weights]}{_over_classes(model)}: {score}")
        tables.append(_columns(name, images, score))
        if background is not None:
            score = _score(background, images, f"{name}, background")
            print(f"Background, {_WEIGHTS[all_weights[0]]}{_over_classes(background)}: {score}")
            tables[-1]["background_bits_per_dim"] = score.bits_per_dim
    if FLAGS.baselines:
        _print_baselines(_load_data(run.data, names[0], "train").images, sets[0])
    if FLAGS.compare is not None:
        _compare(names, sets, tables, plot_path)
    if FLAGS.out is not None:
        table = {key: np.concatenate([each[key] for each in tables]) for key in tables[0]}
        evaluation.save_scores(FLAGS.out, table)
        print(f"Wrote the scores of {len(table['index'])} images to {FLAGS.out}")


def _checked_flags(run_dir):
    """The weights to score with, and the picture to write or None; refuses what contradicts."""
    from pixel_cnn_pp import evaluation

    needs_one = [name for name in ("out", "compare") if FLAGS[name].value is not None]
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
    if FLAGS.out is not None:
        evaluation.check_scores_path(FLAGS.out)
        scripts.check_writable("out", FLAGS.out)
    plot_path = None
    if FLAGS.compare is not None:
        plot_path = pathlib.Path(FLAGS.plot or pathlib.Path(run_dir) / "scores" / "compared.png")
        if plot_path.suffix != ".png":
            raise ValueError(f"`plot` must end in .png. Received: plot={plot_path}")
        scripts.check_writable("plot", plot_path)
    if FLAGS.weights in _WEIGHTS:
        return [FLAGS.weights], plot_path
    return ["ema"] if needs_one else list(_WEIGHTS), plot_path


def _load_background(model_config, weights):
    """The model to divide by, of the same kind of images."""
    from pixel_cnn_pp import checkpoints

    found = checkpoints.load_config(FLAGS.background).model
    kind, expected = ((of.image_shape[-1], of.num_levels) for of in (found, model_config))
    if kind != expected:
        raise ValueError(
            "`background` must be a run on images of {} channels and {} levels, as RUN_DIR is. "
            "Received: {} channels and {} levels in {}".format(*expected, *kind, FLAGS.background)
        )
    return checkpoints.load(FLAGS.background, weights)


def _load_data(settings, name, split):
    """A split of a data set: the run's own as it was trained on, any other as it is by default.

    Flags that are given hold for both.
    """
    from pixel_cnn_pp import data

    if name != settings.data_set:
        settings = config.DataConfig(name, settings.data_dir)
    given = config.explicit_values_from_flags(config.DataConfig)
    return data.load_split(settings, split, **{**given, "data_set": name})


def _is_conditional(model):
    return model is not None and model.config.num_classes is not None


def _over_classes(model):
    return ", over all classes" if FLAGS.marginal and _is_conditional(model) else ""


def _score(model, images, name):
    """Score of every image by its own class, or over all of them; shows how far it has come."""
    from pixel_cnn_pp import data, evaluation

    log_prob = evaluation.compiled_log_prob(model)
    if _is_conditional(model) and FLAGS.marginal:
        log_prob = evaluation.marginal_log_prob(log_prob, model.config.num_classes)
    uses_labels = _is_conditional(model) and not FLAGS.marginal

    def batches():
        for batch in data.eval_batches(images, FLAGS.batch_size):
            yield batch
            bar.update(int(np.sum(batch[2])))

    with _bar(len(images.images), name) as bar:
        return evaluation.score(log_prob, batches(), is_conditional=uses_labels)


def _bar(num_images, name):
    """A progress bar, where there is a terminal to show it on."""
    return tqdm(total=num_images, desc=name, unit="image", leave=False, disable=None)


def _columns(name, images, score):
    """The table of a set's scores: {name of a column: array [N]}."""
    num_images = len(images.images)
    return {
        "data_set": np.full(num_images, name),
        "index": np.arange(num_images),
        "label": np.full(num_images, -1) if images.labels is None else images.labels,
        "nats": score.nats,
        "bits_per_dim": score.bits_per_dim,
    }


def _alone(images, codec, name):
    """Bits/dim [N] of a codec that sees one image at a time."""
    from pixel_cnn_pp import evaluation

    with _bar(len(images), name) as bar:
        found = np.zeros(len(images))
        for i, image in enumerate(images):
            found[i] = evaluation.codec_bits_per_dim(image[np.newaxis], codec)
            bar.update()
        return found


def _print_baselines(train_images, scored):
    """Prints the scores of independent pixels and of codecs."""
    from pixel_cnn_pp import evaluation

    for name, per_position in (("one histogram", False), ("a histogram a position", True)):
        score = evaluation.histogram_bits_per_dim(
            train_images, scored.images, scored.num_levels, per_position
        )
        print(f"Independent pixels, {name}: {score}")
    for codec in evaluation.codecs(scored.images):
        in_one_file = evaluation.codec_bits_per_dim(scored.images, codec)
        print(
            f"{codec}: {in_one_file:.4f} bits/dim with all images in one file, "
            f"{np.mean(_alone(scored.images, codec, codec)):.4f} image by image"
        )


def _compare(names, sets, tables, plot_path):
    """Prints how well scores tell the second set from the first, and draws their histograms.

    A score is the bits/dim of the model above those of a reference: of nothing, of the background
    model (Ren et al. 2019, arXiv:1906.02845), of a codec (Serra et al. 2020, arXiv:1909.11480),
    whose bits/dim this adds to the tables.
    """
    from pixel_cnn_pp import evaluation, plots

    references = [("likelihood", "bits/dim", None)]
    if FLAGS.background is not None:
        references.append(
            (
                "likelihood ratio to the background",
                "bits/dim above the background",
                "background_bits_per_dim",
            )
        )
    for codec in evaluation.codecs(sets[0].images):
        column = f"{codec.lower()}_bits_per_dim"
        references.append((f"likelihood against {codec}", f"bits/dim above {codec}", column))
        for name, images, table in zip(names, sets, tables, strict=True):
            table[column] = _alone(images.images, codec, f"{name}, {codec}")

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
