"""Exact autoregressive image models for TensorFlow 2 and Keras 3: PixelCNN++ and others.

Public names are imported when they are first used. Importing the package imports neither TensorFlow
nor Keras. Names that do not need TensorFlow work without it.
"""

import importlib

from pixel_cnn_pp import registration

__version__ = "0.1.0"

_HOME = {
    "ChainConfig": "config",
    "DataConfig": "config",
    "DiagonalBiLSTMConfig": "config",
    "GatedPixelCNNConfig": "config",
    "ModelConfig": "config",
    "PixelCNNConfig": "config",
    "RowLSTMConfig": "config",
    "RunConfig": "config",
    "TrainingConfig": "config",
    "DiscretizedLogisticMixture": "likelihoods.distributions",
    "Chain": "models.chain",
    "DiagonalBiLSTM": "models.pixel_rnn",
    "GatedPixelCNN": "models.gated_pixel_cnn",
    "PixelCNN": "models.pixel_cnn",
    "PixelCNNPP": "models.pixel_cnn_pp",
    "RowLSTM": "models.pixel_rnn",
    "compress": "codec",
    "decompress": "codec",
    "export_saved_model": "export",
    "load": "runs.checkpoints",
    "load_release": "tf1_import",
    "sample": "sampling",
    "to_levels": "data",
}

__all__ = sorted(_HOME)

registration.register_with_keras(
    {name: f"{__name__}.{home}" for name, home in _HOME.items() if home.startswith("models.")}
)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return __all__
