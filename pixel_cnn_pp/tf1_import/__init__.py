"""Checkpoints of the original release (TensorFlow 1): as a model, or as a run of ours.

names.py        the table from the release's names to ours
checkpoint.py   a checkpoint of the release, read
run.py          what is made of it: a model, a run
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
