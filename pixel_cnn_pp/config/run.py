"""The configuration of a whole run: its JSON file, a comparison of two runs, and resuming."""

import dataclasses
import json
import typing

from pixel_cnn_pp.config.chain import ChainConfig
from pixel_cnn_pp.config.data import DataConfig
from pixel_cnn_pp.config.fields import check_names, checked, from_dict, message
from pixel_cnn_pp.config.models import MODELS, AnyModelConfig, model_config, require_options_of
from pixel_cnn_pp.config.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The configuration of a whole run. It is stored beside the checkpoints of the run.

    Raises:
      ValueError: If the model, the data or the training is not of the right class.

    Example:
      >>> from pixel_cnn_pp.config import ModelConfig
      >>> run = RunConfig(ModelConfig(), DataConfig(), TrainingConfig(seed=7))
      >>> from_json(to_json(run)) == run
      True
    """

    model: AnyModelConfig | ChainConfig
    data: DataConfig
    training: TrainingConfig

    def __post_init__(self):
        """Checks the class of each part. The parts have already checked their own fields."""
        for name, classes in PARTS.items():
            value = getattr(self, name)
            if not isinstance(value, classes):
                words = " or ".join(config_class.__name__ for config_class in classes)
                raise ValueError(message(f"`{name}` must be a {words}", name, value))


# {name of a part of a run: the allowed classes}.
PARTS = {
    part.name: typing.get_args(part.type) or (part.type,) for part in dataclasses.fields(RunConfig)
}


def _values(run):
    """Pairs (field name, value) of the fields of all parts of a run.

    The name `num_levels` occurs twice, because both the model and the data have such a field.
    """
    return [
        (item.name, getattr(part, item.name))
        for part in (getattr(run, name) for name in PARTS)
        for item in dataclasses.fields(part)
    ]


# JSON


def to_json(config):
    """Writes a configuration as readable JSON, with the fields in the order of declaration.

    Args:
      config: A `RunConfig`, or a part of one.

    Returns:
      A string that ends with a newline.
    """
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


# Fields of the training in files of older versions. They changed how fast a step was, nothing else.
_FORMER_FIELDS = ("jit_compile",)


def from_json(text):
    """Reads the configuration of a run that `to_json` wrote.

    A missing field takes its default. In this way, files of older versions can still be read.
    Therefore the default of a new field must give the behaviour of the older versions. Otherwise
    `model_config` must recognise the old files.

    Args:
      text: A string, JSON.

    Returns:
      A `RunConfig`.

    Raises:
      ValueError: If `text` is not JSON, if a field is unknown, if a field without a default is
        missing, or if a value breaks its rule.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"A configuration must be JSON. Received: {error}") from None
    check_names(RunConfig, values)
    training = values["training"]
    if isinstance(training, dict):
        training = {name: x for name, x in training.items() if name not in _FORMER_FIELDS}
    return RunConfig(
        model_config(values["model"], "model."),
        from_dict(DataConfig, values["data"], "data."),
        from_dict(TrainingConfig, training, "training."),
    )


# Two runs


def differences(a, b):
    """Lists the fields in which two configurations differ.

    Args:
      a: A `RunConfig`, or a part of one.
      b: A configuration of the same class. Two models may also be of different kinds.

    Returns:
      A list of strings "field: value in a != value in b", in the order of declaration. For models
      of different kinds, the list names only the kind.

    Example:
      >>> from pixel_cnn_pp.config import ModelConfig
      >>> differences(ModelConfig(), ModelConfig(nr_filters=192))
      ['nr_filters: 160 != 192']
    """
    if isinstance(a, RunConfig):
        return [line for name in PARTS for line in differences(getattr(a, name), getattr(b, name))]
    if type(a) is not type(b):
        assert {type(a), type(b)} <= {*MODELS.values(), ChainConfig}, (a, b)
        return [f"kind: {a.kind!r} != {b.kind!r}"]
    pairs = [(item.name, getattr(a, item.name)) for item in dataclasses.fields(a)]
    return [
        f"{name}: {value!r} != {getattr(b, name)!r}"
        for name, value in pairs
        if value != getattr(b, name)
    ]


def resume(stored, explicit):
    """The configuration of a run that is resumed from its checkpoint.

    Values that the user gives replace the stored values. All other values are those of the
    checkpoint. The model, its data set and its optimizer cannot change, because the stored weights
    depend on them.

    Args:
      stored: The `RunConfig` of the checkpoint.
      explicit: A dict, field name -> value, of the values that the user gave, such as the result
        of `explicit_values_from_flags`. It must also hold the `save_dir` that the checkpoint was
        read from, because the stored path is wrong after the directory was moved.

    Returns:
      A `RunConfig`.

    Raises:
      ValueError: If a field that cannot change has another value (the message names every such
        field), if a name is not a field or is a field of another model only, or if a value breaks
        its rule.
    """
    all_classes = [config_class for classes in PARTS.values() for config_class in classes]
    own_classes = [type(getattr(stored, name)) for name in PARTS]
    # The classes of this run come last, because a later class replaces a field of the same name.
    by_name = {
        item.name: item
        for config_class in all_classes + own_classes
        for item in dataclasses.fields(config_class)
    }
    unknown = [name for name in explicit if name not in by_name]
    if unknown:
        raise ValueError(message("`explicit` must hold names of fields", "unknown", unknown))
    if explicit.get("kind", stored.model.kind) == stored.model.kind:
        require_options_of(type(stored.model), explicit)
    # Each value is checked alone. A configuration with only one field replaced may contradict
    # itself.
    given = {
        name: value if name == "kind" else checked(by_name[name], value)
        for name, value in explicit.items()
        if not by_name[name].metadata["may_change"]
    }
    clashes = [
        f"{name}: {value!r} != {given[name]!r}"
        for name, value in _values(stored)
        if name in given and value != given[name]
    ]
    if clashes:
        raise ValueError(
            "A resumed run must keep the model, data set and optimizer of its checkpoint: leave "
            "these flags, or their preset, out, or train anew in another save_dir. "
            f"Received: {', '.join(dict.fromkeys(clashes))} (checkpoint != given)"
        )
    return _replace(stored, explicit)


def _replace(run, values):
    """Returns the `RunConfig` with the given fields of its parts replaced."""
    parts = {}
    for name in PARTS:
        part = getattr(run, name)
        names = {item.name for item in dataclasses.fields(part)}
        mine = {key: value for key, value in values.items() if key in names}
        parts[name] = dataclasses.replace(part, **mine)
    return RunConfig(**parts)
