"""The configuration of a run: its model, its data and its training, as frozen dataclasses.

    fields.py     how one option is described and checked
    pixel_cnn_pp.py, pixel_cnn.py, gated_pixel_cnn.py, pixel_rnn.py   the options of each model
    model_fields.py   the options that all models have
    models.py     the table of all models
    chain.py      the stages of a chain
    data.py       the options of the data set
    training.py   the options of the training
    run.py        the whole run, and its JSON file
    presets.py    the models of the papers
    chain_presets.py  the chains of the papers
    flags.py      the options as flags of the command line

The defaults are those of train.py in the original release. This package imports neither TensorFlow
nor Keras.
"""

from pixel_cnn_pp.config.chain import ChainConfig
from pixel_cnn_pp.config.chain_presets import CHAIN_PRESETS
from pixel_cnn_pp.config.data import DataConfig
from pixel_cnn_pp.config.flags import (
    chain_preset_from_flags,
    define_flags,
    define_preset,
    explicit_values_from_flags,
    model_class_from_flags,
    values_from_flags,
)
from pixel_cnn_pp.config.gated_pixel_cnn import GatedPixelCNNConfig
from pixel_cnn_pp.config.models import MODELS, model_config
from pixel_cnn_pp.config.pixel_cnn import PixelCNNConfig
from pixel_cnn_pp.config.pixel_cnn_pp import CHANNEL_GROUPS, SMALL_FIELDS, ModelConfig
from pixel_cnn_pp.config.pixel_rnn import DiagonalBiLSTMConfig, RowLSTMConfig
from pixel_cnn_pp.config.presets import PRESETS
from pixel_cnn_pp.config.run import RunConfig, differences, from_json, resume, to_json
from pixel_cnn_pp.config.training import TrainingConfig

__all__ = [
    "CHAIN_PRESETS",
    "CHANNEL_GROUPS",
    "MODELS",
    "PRESETS",
    "SMALL_FIELDS",
    "ChainConfig",
    "DataConfig",
    "DiagonalBiLSTMConfig",
    "GatedPixelCNNConfig",
    "ModelConfig",
    "PixelCNNConfig",
    "RowLSTMConfig",
    "RunConfig",
    "TrainingConfig",
    "chain_preset_from_flags",
    "define_flags",
    "define_preset",
    "differences",
    "explicit_values_from_flags",
    "from_json",
    "model_class_from_flags",
    "model_config",
    "resume",
    "to_json",
    "values_from_flags",
]
