"""A whole run: its JSON file, how two of them differ, and what may change on resume."""

import dataclasses
import json
import typing

from pixel_cnn_pp.config.data import DataConfig
from pixel_cnn_pp.config.fields import check_names, checked, from_dict, message
from pixel_cnn_pp.config.models import MODELS, AnyModelConfig, model_config, require_options_of
from pixel_cnn_pp.config.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run, as it travels with its checkpoint.

    Raises:
      ValueError: If a part is not of its class.

    Example:
      >>> from pixel_cnn_pp.config import ModelConfig
      >>> run = RunConfig(ModelConfig(), DataConfig(), TrainingConfig(seed=7))
      >>> from_json(to_json(run)) == run
      True
    """

    model: AnyModelConfig
    data: DataConfig
    training: TrainingConfig

    def __post_init__(self):
        """Checks that each part is of its class; the parts have checked their own fields."""
        for name, classes in PARTS.items():
            value = getattr(self, name)
            if not isinstance(value, classes):
                words = " or ".join(config_class.__name__ for config_class in classes)
                raise ValueError(message(f"`{name}` must be a {words}", name, value))


# {part of a run: the classes that it may be of}.
PARTS = {
    part.name: typing.get_args(part.type) or (part.type,) for part in dataclasses.fields(RunConfig)
}


def _values(run):
    """Pairs (field name, value) over the fields of all parts of a run.

    One name is there twice: `num_levels` of the model, which follows from that of the data.
    """
    return [
        (item.name, getattr(part, item.name))
        for part in (getattr(run, name) for name in PARTS)
        for item in dataclasses.fields(part)
    ]


# JSON


def to_json(config):
    """A configuration as readable JSON, fields in the order of declaration.

    Args:
      config: A `RunConfig`, or a part of one.

    Returns:
      A string that ends with a newline.
    """
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text):
    """The run that `to_json` wrote.

    A field that is missing takes its default, so that files from before a field was added can
    still be read: the default of a new field must be what was done before it, or `model_config`
    must know the old files.

    Args:
      text: A string.

    Returns:
      A `RunConfig`.

    Raises:
      ValueError: If `text` is not JSON, if a field is unknown, if one without a default is
        missing, or if a value breaks its rule.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"A configuration must be JSON. Received: {error}") from None
    check_names(RunConfig, values)
    return RunConfig(
        model_config(values["model"], "model."),
        from_dict(DataConfig, values["data"], "data."),
        from_dict(TrainingConfig, values["training"], "training."),
    )


# Two runs


def differences(a, b):
    """What differs between two configurations.

    Args:
      a: A `RunConfig`, or a part of one.
      b: Another of the same class; two models may be of different kinds.

    Returns:
      A list of strings "field: value in a != value in b", in the order of declaration. Of models
      of different kinds, the kind alone.

    Example:
      >>> from pixel_cnn_pp.config import ModelConfig
      >>> differences(ModelConfig(), ModelConfig(nr_filters=192))
      ['nr_filters: 160 != 192']
    """
    if isinstance(a, RunConfig):
        return [line for name in PARTS for line in differences(getattr(a, name), getattr(b, name))]
    if type(a) is not type(b):
        assert {type(a), type(b)} <= set(MODELS.values()), (a, b)
        return [f"kind: {a.kind!r} != {b.kind!r}"]
    pairs = [(item.name, getattr(a, item.name)) for item in dataclasses.fields(a)]
    return [
        f"{name}: {value!r} != {getattr(b, name)!r}"
        for name, value in pairs
        if value != getattr(b, name)
    ]


def resume(stored, explicit):
    """The configuration of a run that goes on from its checkpoint.

    What stands in the checkpoint holds, but for what the user gives anew. The model, its data set
    and its optimizer are in the weights and cannot change.

    Args:
      stored: The `RunConfig` of the checkpoint.
      explicit: A dict, field name -> value, of what the user gave, as from
        `explicit_values_from_flags`. Add the `save_dir` that the checkpoint was read from: the
        stored one is out of date once the directory has moved.

    Returns:
      A `RunConfig`.

    Raises:
      ValueError: If a field that cannot change is given another value, naming every such field;
        if a name is not a field's, or only of another model; if a value breaks its rule.
    """
    all_classes = [config_class for classes in PARTS.values() for config_class in classes]
    own_classes = [type(getattr(stored, name)) for name in PARTS]
    # The classes of the run come last: what they say of a name holds.
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
    # Field by field: a whole configuration may contradict itself with only one of them replaced.
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
    """The `RunConfig` with these fields of its parts replaced."""
    parts = {}
    for name in PARTS:
        part = getattr(run, name)
        names = {item.name for item in dataclasses.fields(part)}
        mine = {key: value for key, value in values.items() if key in names}
        parts[name] = dataclasses.replace(part, **mine)
    return RunConfig(**parts)
