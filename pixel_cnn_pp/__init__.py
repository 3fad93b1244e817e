"""Exact autoregressive image models for TensorFlow 2 and Keras 3: PixelCNN++ and PixelCNN.

Public names are imported when they are first used. Importing the package imports neither TensorFlow
nor Keras. Names that do not need TensorFlow work without it.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "DataConfig": "config",
    "ModelConfig": "config",
    "PixelCNNConfig": "config",
    "RunConfig": "config",
    "TrainingConfig": "config",
    "DiscretizedLogisticMixture": "likelihoods.distributions",
    "PixelCNN": "models.pixel_cnn",
    "PixelCNNPP": "models.pixel_cnn_pp",
    "export_saved_model": "export",
    "load": "runs.checkpoints",
    "load_release": "tf1_import",
    "sample": "sampling",
    "to_levels": "data",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return __all__
