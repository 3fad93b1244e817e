"""The flags of the command line. They are made from the fields of the configuration classes."""

import dataclasses

from absl import flags

from pixel_cnn_pp.config.chain_presets import CHAIN_PRESETS
from pixel_cnn_pp.config.data import DataConfig
from pixel_cnn_pp.config.fields import checked
from pixel_cnn_pp.config.models import MODELS, require_options_of
from pixel_cnn_pp.config.presets import PRESETS, Preset
from pixel_cnn_pp.config.run import PARTS, RunConfig
from pixel_cnn_pp.config.training import TrainingConfig

# With this, the flags belong to the script that calls `define_flags`, and its --help lists them.
flags.disclaim_key_flags()

# Name of the flag that sets the field `kind`. The user chooses the model with it.
_MODEL = "model"
_DEFAULT_KIND = next(iter(MODELS))

_DEFINE = {
    int: flags.DEFINE_integer,
    int | None: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    float | None: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
    bool | None: flags.DEFINE_boolean,
    str: flags.DEFINE_string,
    str | None: flags.DEFINE_string,
}


def define_flags(config_class, flag_values=flags.FLAGS, with_defaults=True):
    """Defines one absl flag for every field that is a flag.

    A flag with a bad value makes the parsing of the command line fail.

    Args:
      config_class: A class of `MODELS`, `DataConfig` or `TrainingConfig`. `RunConfig` defines the
        flags of all these classes, and --model to choose the model. Fields of the same name share
        one flag.
      flag_values: The absl `FlagValues` in which the flags are defined.
      with_defaults: Whether the flags have the defaults of their fields. If False, flags that the
        user does not give are None. A script that reads the missing values from an existing run
        uses this together with `explicit_values_from_flags`.
    """
    if config_class is RunConfig:
        flags.DEFINE_enum(
            _MODEL,
            _DEFAULT_KIND if with_defaults else None,
            list(MODELS),
            "The model to train. "
            + " ".join(f"{kind}: {each.__doc__.splitlines()[0]}" for kind, each in MODELS.items())
            + " A flag that only another model has is refused",
            flag_values=flag_values,
        )
    for name, by_class in _flag_fields(config_class).items():
        first, *others = by_class.values()
        assert all(_form(other) == _form(first) for other in others), (
            f"models that share the flag {name} must agree on its type, short name and choices"
        )
        default = first.default if with_defaults else None
        how = {"short_name": first.metadata["short_name"], "flag_values": flag_values}
        help_text = _help(by_class, config_class is RunConfig)
        if first.metadata["choices"]:
            flags.DEFINE_enum(name, default, first.metadata["choices"], help_text, **how)
        else:
            _DEFINE[first.type](name, default, help_text, **how)
        flags.register_validator(name, _flag_checker(by_class.values()), flag_values=flag_values)


def define_preset(flag_values=flags.FLAGS):
    """Defines the flag --preset, which gives values to flags that the user does not give.

    Args:
      flag_values: The absl `FlagValues` in which the flag is defined.
    """
    described = "; ".join(
        f"{name} ({'' if preset.bits_per_dim is None else f'{preset.bits_per_dim} bits/dim, '}"
        f"{preset.source})"
        for name, preset in {**PRESETS, **CHAIN_PRESETS}.items()
    )
    flags.DEFINE_enum(
        "preset",
        None,
        [*PRESETS, *CHAIN_PRESETS],
        "A model of the papers, with its settings. A flag that is given too overrides the preset. "
        f"{described}",
        flag_values=flag_values,
    )


def _flag_fields(config_class):
    """The fields that are flags: {name: {class: field}}.

    For `RunConfig` these are the fields of all its parts.
    """
    classes = [config_class]
    if config_class is RunConfig:
        classes = [each for part in PARTS.values() for each in part]
    found = {}
    for each in classes:
        for item in dataclasses.fields(each):
            if item.metadata["is_flag"]:
                found.setdefault(item.name, {})[each] = item
    return found


def _form(config_field):
    """The properties that must be equal for fields that share a flag."""
    return config_field.type, config_field.metadata["short_name"], config_field.metadata["choices"]


def _help(by_class, names_models):
    """The help text of a flag. If the models differ, the text says what it means for each model."""
    texts = {each: item.metadata["help"] for each, item in by_class.items()}
    if not names_models or not set(by_class) <= set(MODELS.values()):
        (text,) = texts.values()
        return text
    has_one_default = len({item.default for item in by_class.values()}) == 1
    if not has_one_default:
        texts = {each: f"{text}; default: {by_class[each].default}" for each, text in texts.items()}
    kinds = {}
    for each, text in texts.items():
        kinds.setdefault(text, []).append(each.kind)
    if list(kinds.values()) == [list(MODELS)]:
        return next(iter(kinds))
    return ". ".join(f"{', '.join(names)}: {text}" for text, names in kinds.items())


def _flag_checker(config_fields):
    """Makes the absl validator of a flag.

    Several fields can share the flag. A value is valid if it is valid for at least one of them.
    """

    def check(value):
        if value is None:  # A flag that was not given.
            return True
        errors = []
        for config_field in config_fields:
            try:
                checked(config_field, value)
            except ValueError as error:
                errors.append(str(error))
        if len(errors) == len(config_fields):
            raise flags.ValidationError(errors[0])
        return True

    return check


def model_class_from_flags(flag_values=flags.FLAGS):
    """The configuration class of the model that --model or --preset chooses.

    Args:
      flag_values: The parsed absl `FlagValues` in which `define_flags(RunConfig)` defined the
        flags.

    Returns:
      A class of `MODELS`.

    Raises:
      ValueError: If --preset belongs to another model than --model, or if a flag is given that
        the model does not have.

    Example:
      model_class = config.model_class_from_flags()
      model_config = model_class(**config.values_from_flags(model_class))
    """
    preset = _preset(flag_values)
    kind = flag_values[_MODEL].value or _DEFAULT_KIND
    model_class = MODELS[kind if preset is None else preset.kind]
    given = {
        name: flag_values[name].value
        for name in _flag_fields(RunConfig)
        if flag_values[name].present
    }
    require_options_of(model_class, given)
    return model_class


def chain_preset_from_flags(flag_values=flags.FLAGS):
    """The `ChainPreset` that --preset names, or None for another preset or none."""
    return CHAIN_PRESETS.get(flag_values["preset"].value)


def _preset(flag_values):
    """The preset on the command line, or None; of a chain, what all of its stages share.

    It must be of the same model as --model.
    """
    if "preset" not in flag_values or flag_values["preset"].value is None:
        return None
    name, model = flag_values["preset"].value, flag_values[_MODEL]
    preset = PRESETS.get(name)
    if preset is None:
        chain = CHAIN_PRESETS[name]
        preset = Preset(chain.values, chain.bits_per_dim, chain.source)
    if model.present and model.value != preset.kind:
        raise ValueError(
            f"`model` must be left out, or be {preset.kind} for the preset {name}. "
            f"Received: model={model.value}"
        )
    return preset


def values_from_flags(config_class, flag_values=flags.FLAGS, preset=None):
    """The values of all flags of a class.

    Each value is the one on the command line. If there is none, it is the value of the preset. If
    there is none either, it is the default of the field.

    Args:
      config_class: The class that `define_flags` was called with, or a part of it.
      flag_values: The parsed absl `FlagValues`.
      preset: The `Preset` of a stage of a chain. None for that of --preset.

    Returns:
      A dict, field name -> value, without the fields that come from the data. For `RunConfig` it
      holds `kind`, and the options of the chosen model, of the data and of the training.

    Raises:
      ValueError: As in `model_class_from_flags`, if a preset is given or for `RunConfig`.

    Example:
      DataConfig(**values_from_flags(DataConfig))
    """
    if config_class is RunConfig:
        model_class = model_class_from_flags(flag_values)
        values = {"kind": model_class.kind}
        for part in (model_class, DataConfig, TrainingConfig):
            values |= values_from_flags(part, flag_values)
        return values
    preset = _preset(flag_values) if preset is None else preset
    all_fields = _flag_fields(RunConfig)
    values = {}
    for name, by_class in _flag_fields(config_class).items():
        flag = flag_values[name]
        first, *_ = all_fields[name].values()
        if preset is not None and name in preset.values and not flag.present:
            values[name] = preset.values[name]
        elif flag.using_default_value and flag.default == first.default:
            # A flag that models share has the default of the first model. Take this model's own.
            values[name] = by_class[config_class].default
        else:
            values[name] = flag.value
    return values


def explicit_values_from_flags(config_class, flag_values=flags.FLAGS, with_preset=True):
    """The values that the user gave on the command line, as flags or by a preset.

    A value that the user gave is included even if it equals the default.

    Args:
      config_class: The class that `define_flags` was called with, or a part of it.
      flag_values: The parsed absl `FlagValues`.
      with_preset: Whether values of a preset count.

    Returns:
      A dict, field name -> value. For `RunConfig` it can hold options of all models, and it holds
      `kind` if --model or --preset is given.

    Raises:
      ValueError: If --preset belongs to another model than --model.
    """
    preset = _preset(flag_values) if with_preset else None
    preset_values = {} if preset is None else preset.values
    values = {}
    if config_class is RunConfig:
        if preset is not None:
            values["kind"] = preset.kind
        elif flag_values[_MODEL].present:
            values["kind"] = flag_values[_MODEL].value
    for name in _flag_fields(config_class):
        if flag_values[name].present:
            values[name] = flag_values[name].value
        elif name in preset_values:
            values[name] = preset_values[name]
    return values
