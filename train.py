"""Trains a model on a data set: python train.py --data_set digits --nr_gpu 0."""

import os
import signal

# Ctrl-C while the rest is imported. Later, `scripts.run` takes care of it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    LINE = b"train.py: stopped by Ctrl-C\n"
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, LINE), os._exit(130)))

import dataclasses

from absl import flags

from pixel_cnn_pp import config, scripts

FLAGS = flags.FLAGS
config.define_flags(config.RunConfig)
config.define_preset()


def main():
    """Starts a new run, or resumes a run from its directory."""
    from pixel_cnn_pp import data
    from pixel_cnn_pp.runs import checkpoints, loop
    from pixel_cnn_pp.runs.backend import devices

    if FLAGS.load_params:
        stored = checkpoints.load_config(FLAGS.save_dir)
        given = config.explicit_values_from_flags(config.RunConfig)
        run = config.resume(stored, {**given, "save_dir": FLAGS.save_dir})
        data_config, training_config = run.data, run.training
    else:
        model_class = config.model_class_from_flags()
        model_values = config.values_from_flags(model_class)
        model_class(**model_values)  # checks the values before the data are loaded
        data_config = config.DataConfig(**config.values_from_flags(config.DataConfig))
        training_config = config.TrainingConfig(**config.values_from_flags(config.TrainingConfig))
    # The strategy comes first. Workers cannot connect after TensorFlow has computed anything.
    strategy = devices.make_strategy(training_config.nr_gpu, training_config.peer_timeout)
    num_classes = run.model.num_classes if FLAGS.load_params else None
    train_data, test_data = (
        data.load_split(data_config, split, num_classes) for split in ("train", "test")
    )
    if not FLAGS.load_params:
        if training_config.class_conditional and train_data.num_classes is None:
            raise ValueError(
                f"`class_conditional` needs labels, and {data_config.data_set} has none. "
                "Received: class_conditional=True"
            )
        model_config = model_class(
            image_shape=train_data.images.shape[1:],
            num_levels=train_data.num_levels,
            num_classes=train_data.num_classes if training_config.class_conditional else None,
            **model_values,
        )
        data_config = dataclasses.replace(data_config, class_names=train_data.class_names)
        run = config.RunConfig(model_config, data_config, training_config)
    loop.train(run, train_data, test_data, strategy)


if __name__ == "__main__":
    scripts.run(main)
