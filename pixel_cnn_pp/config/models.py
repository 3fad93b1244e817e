"""The table of all models, and the model that a file describes."""

import dataclasses
import typing

from pixel_cnn_pp.config.chain import ChainConfig
from pixel_cnn_pp.config.fields import check_names, from_dict, message
from pixel_cnn_pp.config.gated_pixel_cnn import GatedPixelCNNConfig
from pixel_cnn_pp.config.pixel_cnn import PixelCNNConfig
from pixel_cnn_pp.config.pixel_cnn_pp import ModelConfig
from pixel_cnn_pp.config.pixel_rnn import DiagonalBiLSTMConfig, RowLSTMConfig

# The configuration classes of all models. Flags, files and runs read this list, so add the class
# of a new model here.
AnyModelConfig = (
    ModelConfig | PixelCNNConfig | GatedPixelCNNConfig | RowLSTMConfig | DiagonalBiLSTMConfig
)
# {kind: class}. The first model is the default.
MODELS = {config_class.kind: config_class for config_class in typing.get_args(AnyModelConfig)}


def model_config(values, prefix=""):
    """Makes the configuration of a model from the values in a file.

    Args:
      values: A dict, field name -> value. If it has no `kind`, an earlier version wrote it. That
        version had only PixelCNN++, and its lower limit of the log-scales was always -7.
      prefix: The place of the fields in the file, such as "model.", for error messages.

    Returns:
      An instance of one of `MODELS`, or a `ChainConfig` of such instances.

    Raises:
      ValueError: If the kind or a field is unknown, or a value breaks its rule.

    Example:
      >>> model_config({"kind": "pixel_cnn", "nr_filters": 16}).nr_output_filters
      1024
    """
    if not isinstance(values, dict) or "kind" not in values:
        config = from_dict(ModelConfig, values, prefix)
        if config.num_levels > 256 and config.min_log_scale is None:
            config = dataclasses.replace(config, min_log_scale=-7.0)
        return config
    kind = values["kind"]
    if kind == ChainConfig.kind:
        check_names(ChainConfig, values, prefix)
        stages = values.get("stages")
        if isinstance(stages, list | tuple):
            stages = [
                model_config(stage, f"{prefix}stages.{number}.")
                for number, stage in enumerate(stages)
            ]
        return ChainConfig(stages, values.get("views"))
    if kind not in list(MODELS):
        rule = f"`{prefix}kind` must be one of {', '.join(MODELS)}; a newer version may have "
        raise ValueError(message(f"{rule}written it", f"{prefix}kind", kind))
    return from_dict(MODELS[kind], values, prefix)


def require_options_of(model_class, values):
    """Refuses options that other models have and this one does not.

    Args:
      model_class: A class of `MODELS`.
      values: A dict, field name -> value, of any options.

    Raises:
      ValueError: If one of them is another model's alone, naming all that are.
    """
    own = {item.name for item in dataclasses.fields(model_class)}
    known = {item.name for each in MODELS.values() for item in dataclasses.fields(each)}
    foreign = [name for name in values if name in known - own]
    if foreign:
        listed = ", ".join(f"`{name}`" for name in foreign)
        received = ", ".join(f"{name}={values[name]!r}" for name in foreign)
        raise ValueError(
            f"{listed} must be left out: the model {model_class.kind} has no such option. "
            f"Received: {received}"
        )
