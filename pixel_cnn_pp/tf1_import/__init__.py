"""Imports checkpoints of the original release (TensorFlow 1) as a model or as a run.

names.py        the table from the release's names to the names of this package
files.py        finds the files of a checkpoint
checkpoint.py   reads a checkpoint of the release
run.py          makes a model or a run from a checkpoint
"""

from pixel_cnn_pp.tf1_import.checkpoint import ReleaseCheckpoint
from pixel_cnn_pp.tf1_import.names import release_names, release_variables
from pixel_cnn_pp.tf1_import.run import import_run, load_release

__all__ = [
    "ReleaseCheckpoint",
    "import_run",
    "load_release",
    "release_names",
    "release_variables",
]
