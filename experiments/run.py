"""Runs the papers' comparisons again, and writes a table and curves: python experiments/run.py.

Every run is a `train.py` and an `evaluate.py`, each in a process of its own and with its own log.
The same command can be given again until all is done: finished runs are not run again, and started
runs go on.
"""

import pathlib
import shlex
import sys

from absl import flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from experiments import comparisons
from pixel_cnn_pp import config, scripts

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "comparisons",
    list(comparisons.COMPARISONS),
    f"What to compare, separated by commas: {', '.join(comparisons.COMPARISONS)}",
)
flags.DEFINE_enum(
    "scale",
    "small",
    list(comparisons.SCALES),
    "full: the papers' settings; small: a network on photos that takes minutes on a core",
)
flags.DEFINE_integer("seeds", 2, "Runs of each row, with the seeds 1, 2, ...", lower_bound=1)
flags.DEFINE_integer(
    "jobs", 1, "How many runs go at the same time; they share the CPU cores evenly", lower_bound=1
)
flags.DEFINE_string("out", "save/experiments", "Directory of the runs, the table and the curves")
flags.DEFINE_bool("dry_run", False, "Print the commands of all runs, and run none")
# These hold for all rows; a flag that is not given has the value of the scale or of the preset.
config.define_flags(config.RunConfig, with_defaults=False)


def main():
    """Runs what is not finished, then writes the tables and the curves."""
    from experiments import runs

    names = _checked_names()
    given = config.explicit_values_from_flags(config.RunConfig)
    planned = comparisons.plan(names, FLAGS.scale, FLAGS.seeds, given)
    if FLAGS.dry_run:
        _print_commands(planned)
        return
    for run in planned:
        runs.check_settings(run, FLAGS.out)
    if not _has_labels(planned[0]) and comparisons.LABELLED in names:
        names.remove(comparisons.LABELLED)
        print(f"Left out `{comparisons.LABELLED}`: the data set has no labels.")
        if not names:
            return
        planned = comparisons.plan(names, FLAGS.scale, FLAGS.seeds, given)
    for run in planned:
        runs.note_settings(run, FLAGS.out)
    num_failed = runs.run_all(planned, FLAGS.out, FLAGS.jobs)
    _write_results(names, planned)
    if num_failed:
        raise ChildProcessError(
            f"{num_failed} of {len(planned)} runs failed; the same command tries them again"
        )


def _checked_names():
    """The comparisons that are asked for, in the order of their list."""
    known = comparisons.COMPARISONS
    unknown = [name for name in FLAGS.comparisons if name not in known]
    if unknown or not FLAGS.comparisons:
        raise ValueError(
            f"`comparisons` must be some of {', '.join(known)}. "
            f"Received: comparisons={','.join(FLAGS.comparisons)}"
        )
    return [name for name in known if name in FLAGS.comparisons]


def _has_labels(run):
    """Whether the data set has labels; prepares it once, before several runs start."""
    from pixel_cnn_pp import data

    settings = comparisons.part_of(config.DataConfig, run.values)
    return data.load_split(settings, "train").labels is not None


def _print_commands(planned):
    """Prints the commands that would be run."""
    from experiments import runs

    for run in planned:
        for command in runs.commands(run, FLAGS.out):
            print(shlex.join(["python", *command]))


def _write_results(names, planned):
    """Writes the tables and curves of the finished runs, and prints the tables."""
    from experiments import results, runs

    finished = {}
    for run in planned:
        if runs.is_finished(run, FLAGS.out):
            try:
                finished[run.row, run.seed] = results.read(runs.directory(run, FLAGS.out))
            except (ValueError, OSError) as error:
                print(f"Left out of the table: {' '.join(str(error).split())}")
    print()
    print(results.write(pathlib.Path(FLAGS.out), names, finished))
    print(f"Wrote table.md, table.csv and the curves to {FLAGS.out}.")


if __name__ == "__main__":
    scripts.run(main)
