"""Writes what TensorBoard shows: numbers, pictures, hyper-parameters, the graph and a profile.

`read_scalars` reads the numbers back, for tables and curves of several runs.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import sys

import keras
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.plugins.hparams import api as hparams

# Bytes that a disk which was full must have free before a new event file is opened.
_FREE_TO_GO_ON = 2**24


class Monitor:
    """A context that writes the event files of a run, in RUN_DIR/tensorboard.

    If they cannot be written, for example because the disk is full, this is told once and nothing
    is raised: a training is worth more than its curves.
    """

    def __init__(self, run, is_chief=True, log=print):
        """Opens a new event file.

        Args:
          run: RunConfig.
          is_chief: Whether this process writes. Only one of several workers does.
          log: Function of a string.
        """
        self._directory = str(_folder(run.training.save_dir))
        self._log = log
        self._is_chief = is_chief
        self._has_told = False
        self._writer = None
        self._open()
        self._profiled = range(0)
        if is_chief and run.training.profile is not None:
            self._profiled = run.training.profiled_steps()
        self._is_profiling = False
        self._num_steps = 0
        self._has_graph = False

    def __enter__(self):
        """Returns the monitor."""
        return self

    def __exit__(self, *exception):
        """Ends a profile and closes the event file."""
        self._stop_profile()
        if self._writer is not None:
            with self._may_fail():
                self._writer.close()

    def _open(self):
        """Opens a new event file. After a write that failed, nothing more is read from the old."""
        if not self._is_chief:
            self._writer = tf.summary.create_noop_writer()
        else:
            with self._may_fail():
                # As bytes, which need not be text.
                self._writer = tf.summary.create_file_writer(os.fsencode(self._directory))

    @contextlib.contextmanager
    def _may_fail(self):
        """A context in which an error of the disk is told, at its first time, and not raised."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            self._writer = None
            if not self._has_told:
                # The message may begin with the place in the graph.
                reason = re.sub(r"\{\{.*?\}\}", "", str(getattr(error, "message", error)))
                self._log(
                    f"TensorBoard's files in {self._directory} could not be written "
                    f"({' '.join(reason.split())[:100]}). Training goes on."
                )
            self._has_told = True

    @contextlib.contextmanager
    def _writing(self):
        """A context in which summaries go to the event file, if there is one."""
        with self._may_fail():
            if self._writer is None and shutil.disk_usage(self._directory).free > _FREE_TO_GO_ON:
                self._open()
        writer = self._writer or tf.summary.create_noop_writer()
        with self._may_fail(), writer.as_default():
            yield writer

    def write_scalars(self, values, step):
        """Writes numbers. They are on the disk when the method returns.

        Args:
          values: {tag: number}.
          step: The number of updates at which the numbers were measured.
        """
        with self._writing() as writer:
            for tag, value in values.items():
                tf.summary.scalar(tag, value, step=step)
            writer.flush()  # so that a run that is killed later keeps its curves

    def write_picture(self, tag, picture, step):
        """Writes a picture, uint8 [H, W, 3], for a number of updates."""
        with self._writing():
            tf.summary.image(tag, picture[None], step=step)

    def write_hyper_parameters(self, run):
        """Writes the model, the data and the training of a run for the HParams page."""
        values = {
            name: value if isinstance(value, bool | int | float) else _text(value)
            for part in dataclasses.asdict(run).values()
            for name, value in part.items()
        }
        with self._writing():
            hparams.hparams(values, trial_id=_text(run.training.save_dir))

    def write_graph(self, graph):
        """Writes a `tf.Graph`. None has no effect, and neither has a second call."""
        if graph is not None and not self._has_graph:
            with self._writing():
                tf.summary.graph(graph)
            self._has_graph = True

    def count_step(self):
        """Counts a step, and starts or ends the profile. It must be called before every step."""
        self._num_steps += 1
        if self._num_steps == self._profiled.start and self._profiled:
            with self._may_fail():
                _start_profile(self._directory)
                self._is_profiling = True
        elif self._num_steps == self._profiled.stop:
            self._stop_profile()

    def _stop_profile(self):
        if self._is_profiling:
            with self._may_fail():
                _stop_profile()
        self._is_profiling = False


@contextlib.contextmanager
def _tensorflow_kept():
    """A context after which TensorFlow, which reads the data, still works beside JAX's profiler.

    That profiler writes a Boolean into a module of TensorFlow 2.21, where a function must be.
    """
    module = sys.modules["tensorflow.python.profiler.trace"]
    enabled = module.enabled
    try:
        yield
    finally:
        module.enabled = enabled


def _start_profile(directory):
    if keras.backend.backend() == "jax":
        import jax

        with _tensorflow_kept():
            jax.profiler.start_trace(directory)
    else:
        tf.profiler.experimental.start(directory)


def _stop_profile():
    if keras.backend.backend() == "jax":
        import jax

        with _tensorflow_kept():
            jax.profiler.stop_trace()
    else:
        tf.profiler.experimental.stop()


def _text(value):
    """A value as text. The name of a file may have bytes that are none."""
    return str(value).encode(errors="backslashreplace").decode()


def read_scalars(run_dir):
    """Reads the numbers that a run has written, including those from before it was resumed.

    Args:
      run_dir: Path of the run.

    Returns:
      {tag: {step: number}}, steps in ascending order. A step can be done twice, if a run was killed
      and resumed. Then the result has the later number.
    """
    found = {}
    # The name of a file contains the time at which it was opened, so sorting puts later files last.
    for path in sorted(_folder(run_dir).glob("events.out.tfevents.*")):
        for event in event_file_loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(tf.make_ndarray(value.tensor))
                    found.setdefault(value.tag, {})[event.step] = number
    return {tag: dict(sorted(numbers.items())) for tag, numbers in found.items()}


def _folder(run_dir):
    """The folder of the event files of a run."""
    return pathlib.Path(run_dir) / "tensorboard"
