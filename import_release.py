"""Turns a checkpoint of the release into a run: python import_release.py CKPT RUN_DIR."""

import os
import signal

# Ctrl-C while the rest is imported. Later, `scripts.run` takes care of it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    LINE = b"import_release.py: stopped by Ctrl-C\n"
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, LINE), os._exit(130)))

from absl import flags

from pixel_cnn_pp import config, scripts

FLAGS = flags.FLAGS
# Without defaults: a field that is not given follows from the checkpoint, or is ModelConfig's.
config.define_flags(config.ModelConfig, with_defaults=False)
flags.DEFINE_string(
    "data_set", "cifar", "Name of the data set of the run, as train.py takes it", short_name="d"
)
flags.DEFINE_string("data_dir", "data", "Directory of the data sets", short_name="i")
flags.DEFINE_string(
    "image_size", None, "Size of the images, 32 or 48x64 (height x width); default: 32 in colour"
)
flags.DEFINE_integer("num_levels", 256, "Levels of a sub-pixel")
flags.DEFINE_list("ignore", [], "Variables of CKPT to leave out, such as global_step,other/*")


def main(ckpt, run_dir):
    """Writes the weights, the averages and the optimizer of a checkpoint into a new run."""
    from pixel_cnn_pp import data, tf1_import

    data.check_name(FLAGS.data_set)
    checkpoint = tf1_import.ReleaseCheckpoint(ckpt, FLAGS.ignore)
    # No flag is needed for what the checkpoint tells; one that is given must agree with it.
    given = config.explicit_values_from_flags(config.ModelConfig)
    image_size = None
    if FLAGS.image_size is not None:
        height, width = scripts.parse_image_size(FLAGS.image_size)
        given["image_shape"] = (height, width, checkpoint.num_channels)
        image_size = height if height == width else None
    model_config = checkpoint.config(num_levels=FLAGS.num_levels, **given)
    # A user's own folder or file has these levels; every other data set knows its own.
    num_levels = FLAGS.num_levels if ":" in FLAGS.data_set else None
    data_config = config.DataConfig(
        FLAGS.data_set, FLAGS.data_dir, image_size, num_levels=num_levels
    )
    tf1_import.import_run(checkpoint, run_dir, model_config, data_config)


if __name__ == "__main__":
    scripts.run(main, ["CKPT", "RUN_DIR"])
