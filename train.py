"""Trains a model on a data set: python train.py --data_set digits --nr_gpu 0."""

import os
import signal

# Ctrl-C while the rest is imported. Later, `scripts.run` takes care of it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    LINE = b"train.py: stopped by Ctrl-C\n"
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, LINE), os._exit(130)))

import dataclasses
import pathlib

from absl import flags

from pixel_cnn_pp import config, scripts

FLAGS = flags.FLAGS
config.define_flags(config.RunConfig)
config.define_preset()
flags.DEFINE_string(
    "stage",
    None,
    "Of a chain, the stage to train, such as gray or 16; default: all that are not trained yet",
)


def main():
    """Starts a new run, or resumes a run from its directory."""
    from pixel_cnn_pp import data
    from pixel_cnn_pp.runs import checkpoints, loop
    from pixel_cnn_pp.runs.backend import devices

    stored = checkpoints.load_config(FLAGS.save_dir) if FLAGS.load_params else None
    preset = config.chain_preset_from_flags()
    if preset is not None or (stored is not None and isinstance(stored.model, config.ChainConfig)):
        _train_chain(preset, stored)
        return
    if FLAGS.stage is not None:
        raise ValueError(
            f"`stage` must be left out: the model is no chain. Received: stage={FLAGS.stage}"
        )
    if FLAGS.load_params:
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


def _train_chain(preset, stored):
    """Trains the stages of a chain that are not trained yet, or the one that --stage names.

    Args:
      preset: `config.ChainPreset`, or None to go on with the chain in --save_dir.
      stored: RunConfig of the chain in --save_dir, or None.
    """
    from pixel_cnn_pp import data
    from pixel_cnn_pp.runs import chains, checkpoints
    from pixel_cnn_pp.runs.backend import devices

    of_stages = None
    if preset is None:
        run, of_stages = stored, checkpoints.load_stages(FLAGS.save_dir, stored)
        data_config = run.data
    else:
        model_class = config.model_class_from_flags()
        options = []
        for number in range(len(preset.stages)):
            of_stage = preset.of_stage(number)
            values, training = (
                config.values_from_flags(each, preset=of_stage)
                for each in (model_class, config.TrainingConfig)
            )
            options.append((model_class, values, config.TrainingConfig(**training)))
        data_config = config.DataConfig(**config.values_from_flags(config.DataConfig))
    strategy = devices.make_strategy(FLAGS.nr_gpu, FLAGS.peer_timeout)
    if devices.num_workers(strategy) > 1 and FLAGS.stage is None:
        raise ValueError("`stage` must be given where several workers train. Received: stage=None")
    train_data, test_data = (data.load_split(data_config, split) for split in ("train", "test"))
    if preset is not None:
        if FLAGS.class_conditional and train_data.num_classes is None:
            raise ValueError(
                f"`class_conditional` needs labels, and {data_config.data_set} has none. "
                "Received: class_conditional=True"
            )
        data_config = dataclasses.replace(data_config, class_names=train_data.class_names)
        run, new = chains.runs_of(preset, options, data_config, train_data, FLAGS.class_conditional)
        if (pathlib.Path(FLAGS.save_dir) / "config.json").exists():
            of_stages = checkpoints.load_stages(FLAGS.save_dir, run)
        else:
            if devices.worker_index(strategy) == 0:
                chains.create(FLAGS.save_dir, run, new)
            of_stages = new
    names = list(of_stages)
    if FLAGS.stage is not None and FLAGS.stage not in names:
        raise ValueError(
            f"`stage` must be one of {', '.join(names)}. Received: stage={FLAGS.stage}"
        )
    given = config.explicit_values_from_flags(config.RunConfig, with_preset=False)
    wanted = names if FLAGS.stage is None else [FLAGS.stage]
    chains.train(
        {name: chains.resumed(FLAGS.save_dir, name, of_stages[name], given) for name in wanted},
        train_data,
        test_data,
        strategy,
    )


if __name__ == "__main__":
    scripts.run(main)
