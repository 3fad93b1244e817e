"""Prints the exact bits/dim of a trained run: python evaluate.py save/digits."""

import numpy as np
from absl import flags

from pixel_cnn_pp import scripts

FLAGS = flags.FLAGS
flags.DEFINE_enum("split", "test", ["test", "train"], "Which images to score")
flags.DEFINE_string("data_dir", None, "Directory of the data sets; default: that of the training")
flags.DEFINE_integer("batch_size", 64, "Images at a time", short_name="b", lower_bound=1)
flags.DEFINE_bool("baselines", False, "Also score independent pixels, PNG and WebP")


def main(run_dir):
    """Scores every image of a split once, with the averaged and with the raw weights."""
    from pixel_cnn_pp import checkpoints, data, evaluation

    run = checkpoints.load_config(run_dir)
    models = {
        "averaged weights": checkpoints.load(run_dir, "ema"),
        "raw weights": checkpoints.load(run_dir, "raw"),
    }
    data_dir = FLAGS.data_dir or run.data.data_dir

    def load(split):
        return data.load_split(run.data, split, data_dir=data_dir)

    scored = load(FLAGS.split)
    print(f"{run.data.data_set}, {FLAGS.split} split")
    for name, model in models.items():
        score = evaluation.score(
            evaluation.compiled_log_prob(model),
            data.eval_batches(scored, FLAGS.batch_size),
            is_conditional=run.model.num_classes is not None,
        )
        print(f"PixelCNN++, {name}: {score}")
    if FLAGS.baselines:
        train_images = load("train").images
        for name, per_position in (("one histogram", False), ("a histogram a position", True)):
            score = evaluation.histogram_bits_per_dim(
                train_images, scored.images, scored.num_levels, per_position
            )
            print(f"Independent pixels, {name}: {score}")
        for codec in ("PNG", "WebP"):
            in_one_file = evaluation.codec_bits_per_dim(scored.images, codec)
            alone = [evaluation.codec_bits_per_dim(image[None], codec) for image in scored.images]
            print(
                f"{codec}: {in_one_file:.4f} bits/dim with all images in one file, "
                f"{np.mean(alone):.4f} image by image"
            )


if __name__ == "__main__":
    scripts.run(main, ["RUN_DIR"])
