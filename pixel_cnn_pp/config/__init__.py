"""What a run is: its model, its data, its training, as frozen dataclasses.

`fields` says how an option is described, `models`, `data` and `training` hold the options, `run`
puts them together, `presets` are the papers' models, `flags` is the command line. The defaults are
those of the original release's train.py. No TensorFlow and no Keras here.
"""

from pixel_cnn_pp.config.data import DataConfig
from pixel_cnn_pp.config.flags import (
    define_flags,
    define_preset,
    explicit_values_from_flags,
    model_class_from_flags,
    values_from_flags,
)
from pixel_cnn_pp.config.models import (
    CHANNEL_GROUPS,
    MODELS,
    SMALL_FIELDS,
    ModelConfig,
    PixelCNNConfig,
    model_config,
)
from pixel_cnn_pp.config.presets import PRESETS
from pixel_cnn_pp.config.run import RunConfig, differences, from_json, resume, to_json
from pixel_cnn_pp.config.training import TrainingConfig

__all__ = [
    "CHANNEL_GROUPS",
    "MODELS",
    "PRESETS",
    "SMALL_FIELDS",
    "DataConfig",
    "ModelConfig",
    "PixelCNNConfig",
    "RunConfig",
    "TrainingConfig",
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
