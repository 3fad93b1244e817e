"""Trains the models of the family on binarized MNIST: python experiments/mnist.py --minutes 20.

It writes a table beside the published numbers, curves, and samples. Every model is a `train.py`, an
`evaluate.py` and a `sample.py`, each in a process of its own and with its own log. The same command
can be given again until all is done: what is finished is not run again, and what was started goes
on. With more --minutes, all models go on.
"""

import pathlib
import shlex
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from experiments import family
from pixel_cnn_pp import scripts

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "models", list(family.MEMBERS), f"Which models, of {', '.join(family.MEMBERS)}; default: all"
)
flags.DEFINE_float("minutes", 20.0, "Minutes to train each model, without its scores")
flags.DEFINE_integer(
    "jobs", 1, "How many models go at the same time; they share the CPU cores evenly", lower_bound=1
)
flags.DEFINE_string("data_dir", "data", "Directory of the data sets", short_name="i")
flags.DEFINE_string("out", "save/mnist", "Directory of the runs, the table and the pictures")
flags.DEFINE_bool("dry_run", False, "Print the commands of all runs, and run none")


def main():
    """Runs what is not finished, then writes the table and the pictures."""
    from experiments import family_results, runs
    from pixel_cnn_pp import data

    unknown = set(FLAGS.models) - set(family.MEMBERS)
    if unknown or not FLAGS.models:
        raise ValueError(
            f"`models` must be some of {', '.join(family.MEMBERS)}. "
            f"Received: models={','.join(FLAGS.models)}"
        )
    if not FLAGS.minutes > 0:
        raise ValueError(f"`minutes` must be above 0. Received: minutes={FLAGS.minutes}")
    names = [name for name in family.MEMBERS if name in FLAGS.models]
    planned = family.plan(names, FLAGS.minutes, FLAGS.data_dir)
    ending = family_results.ENDING
    if FLAGS.dry_run:
        for run in planned:
            for command in runs.commands(run, FLAGS.out, ending):
                print(shlex.join(["python", *command]))
        return
    for run in planned:
        runs.check_settings(run, FLAGS.out)
    # Before several runs start, because it may have to be downloaded.
    train = data.load(family.DATA_SET, "train", FLAGS.data_dir)
    test = data.load(family.DATA_SET, "test", FLAGS.data_dir)
    for run in planned:
        runs.note_settings(run, FLAGS.out)
    num_failed = runs.run_all(planned, FLAGS.out, FLAGS.jobs, ending)
    # Models of earlier commands are in the table too.
    every = family.plan(list(family.MEMBERS), FLAGS.minutes, FLAGS.data_dir)
    finished = {
        run.row: family_results.read(runs.directory(run, FLAGS.out), len(train.images))
        for run in every
        if all(path.exists() for _, path in ending.commands(runs.directory(run, FLAGS.out)))
    }
    if finished:
        print()
        print(family_results.write(pathlib.Path(FLAGS.out), finished, test.images))
        print(f"Wrote table.md, curves.png and samples.png to {FLAGS.out}.")
    if num_failed:
        raise ChildProcessError(
            f"{num_failed} of {len(planned)} models failed; the same command tries them again"
        )


if __name__ == "__main__":
    scripts.run(main)
