"""What a run is: its model, its data, its training, as frozen dataclasses.

Every field is described once, where it is declared: type, default, help, short name, rule. The
check of its value, its absl flag and its place in the JSON file all follow from that description.
The defaults are those of the original release's train.py. No TensorFlow here.
"""

import dataclasses
import json
import math
import numbers
import operator
from dataclasses import field
from typing import NamedTuple

from absl import flags

# The flags belong to the script that calls `define_flags`, so that its --help lists them.
flags.disclaim_key_flags()


def _about(help, *, short_name=None, choices=(), bounds=(), is_flag=True, may_change=False):
    """The description of a field, kept in its `metadata`.

    Args:
      help: What the field means, a string; also the help of its flag.
      short_name: The flag's other name, a string, or None.
      choices: The values allowed, strings; empty if any.
      bounds: Pairs (comparison, limit) that hold for the value, each comparison one of
        `_COMPARISONS`.
      is_flag: Whether the user gives it as a flag; otherwise it follows from the data.
      may_change: Whether it may be another on resume.

    Returns:
      A dict with these names.
    """
    return {
        "help": help,
        "short_name": short_name,
        "choices": choices,
        "bounds": bounds,
        "is_flag": is_flag,
        "may_change": may_change,
    }


_COMPARISONS = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "a multiple of": lambda value, limit: value % limit == 0,
}


def _to_int(value):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError
    return int(value)  # NumPy's integers too


def _to_float(value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _to_optional(convert):
    return lambda value: None if value is None else convert(value)


def _to_bool(value):
    if not isinstance(value, bool):
        raise TypeError
    return value


def _to_str(value):
    if not isinstance(value, str) or not value:
        raise TypeError
    return str(value)


def _to_image_shape(value):
    height, width, channels = (_to_int(size) for size in value)
    if height < 4 or width < 4 or height % 4 or width % 4 or channels < 1:
        raise ValueError
    return height, width, channels


# Type of a field -> its rule in words, its conversion (any error: not of this type), its flag.
_TYPES = {
    int: ("an integer", _to_int, flags.DEFINE_integer),
    int | None: ("None or an integer", _to_optional(_to_int), flags.DEFINE_integer),
    float: ("a finite number", _to_float, flags.DEFINE_float),
    float | None: ("None or a finite number", _to_optional(_to_float), flags.DEFINE_float),
    bool: ("True or False", _to_bool, flags.DEFINE_boolean),
    str: ("a non-empty string", _to_str, flags.DEFINE_string),
    str | None: ("None or a non-empty string", _to_optional(_to_str), flags.DEFINE_string),
    tuple[int, int, int]: (
        # The network halves height and width twice.
        "three integers (H, W, C), H and W positive multiples of 4, C >= 1",
        _to_image_shape,
        None,
    ),
}


def _checked(config_field, value):
    """The value in its field's own type, or ValueError if it breaks the field's rule."""
    words, convert, _ = _TYPES[config_field.type]
    choices, bounds = config_field.metadata["choices"], config_field.metadata["bounds"]
    try:
        converted = convert(value)
        is_right = converted is None or (
            all(_COMPARISONS[comparison](converted, limit) for comparison, limit in bounds)
            and (not choices or converted in choices)
        )
    except (TypeError, ValueError, OverflowError):
        is_right = False
    if is_right:
        return converted
    if choices:
        rule = "one of " + ", ".join(choices)
    else:
        limits = " and ".join(f"{comparison} {limit}" for comparison, limit in bounds)
        rule = f"{words} {limits}".rstrip()
    raise ValueError(_message(f"`{config_field.name}` must be {rule}", config_field.name, value))


def _message(rule, name, value):
    received = " ".join(repr(value).split())  # one line, also for a NumPy array
    return f"{rule}. Received: {name}={received}"


def _check_fields(config):
    """The `__post_init__` of every class: each field checked, and converted to its type."""
    for config_field in dataclasses.fields(config):
        value = _checked(config_field, getattr(config, config_field.name))
        object.__setattr__(config, config_field.name, value)  # the way in for a frozen dataclass


def _require_default(config, name, where):
    """Refuses another value than the default of a field that only has a meaning elsewhere."""
    default, value = type(config).__dataclass_fields__[name].default, getattr(config, name)
    if value != default:
        rule = f"`{name}` must be {default} but for {where}"
        raise ValueError(_message(rule, name, value))


# Small receptive fields, width x height -> residual blocks. The field grows by two rows, and by two
# columns to either side, with each.
SMALL_FIELDS = {"11x5": 2, "15x8": 3}
# Groups of channels of the variant that connects them; the paper does not say how many.
CHANNEL_GROUPS = 4
# A softmax has an output and some sums for every level; above, draws lose their digits in float32.
MAX_SOFTMAX_LEVELS = 4096


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What the network is: enough to build it, nothing about its training.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> ModelConfig(image_shape=(8, 8, 1), num_levels=17, nr_filters=32).dropout_p
      0.5
    """

    image_shape: tuple[int, int, int] = field(
        default=(32, 32, 3),
        metadata=_about("Height, width and channels of an image", is_flag=False),
    )
    num_levels: int = field(
        default=256,
        metadata=_about(
            "Levels of a sub-pixel: images are whole numbers in [0, num_levels - 1]",
            bounds=[(">=", 2), ("<=", 65536)],
            is_flag=False,
        ),
    )
    nr_resnet: int = field(
        default=5,
        metadata=_about(
            "Number of residual blocks per stage of the model",
            short_name="q",
            bounds=[(">=", 1)],
        ),
    )
    nr_filters: int = field(
        default=160,
        metadata=_about(
            "Number of filters across the model; higher is a larger model",
            short_name="n",
            bounds=[(">=", 1)],
        ),
    )
    nr_logistic_mix: int = field(
        default=10,
        metadata=_about(
            "Number of logistic components in the mixture; higher is a more flexible model; it has "
            "no meaning for a softmax or the energy distance",
            short_name="m",
            bounds=[(">=", 1)],
        ),
    )
    resnet_nonlinearity: str = field(
        default="concat_elu",
        metadata=_about(
            "The non-linearity in the residual blocks",
            short_name="z",
            choices=("concat_elu", "elu", "relu"),
        ),
    )
    dropout_p: float = field(
        default=0.5,
        metadata=_about(
            "Probability that dropout zeroes a value; 0 is no dropout",
            short_name="p",
            bounds=[(">=", 0), ("<", 1)],
        ),
    )
    num_classes: int | None = field(
        default=None,
        metadata=_about(
            "Number of classes that the model is conditioned on; None if it is not",
            bounds=[(">=", 1)],
            is_flag=False,
        ),
    )
    likelihood: str = field(
        default="logistic_mixture",
        metadata=_about(
            "What the network's outputs mean: the discretized mixture of logistics, a softmax over "
            "all levels, or a continuous mixture of logistics on dequantized data, whose bits/dim "
            "are a bound",
            choices=("logistic_mixture", "softmax", "dequantized"),
        ),
    )
    receptive_field: str = field(
        default="full",
        metadata=_about(
            "What a pixel's distribution sees: all that three resolutions reach, or a rectangle "
            "above it of this width and height, and half the width to its left",
            choices=("full", *SMALL_FIELDS),
        ),
    )
    small_variant: str = field(
        default="plain",
        metadata=_about(
            "What stands between the residual blocks of a small receptive_field: nothing, three "
            "residual blocks of 1x1 convolutions, or one from channels to later channels",
            choices=("plain", "nin", "autoregressive_channel"),
        ),
    )
    shortcuts: bool = field(
        default=True,
        metadata=_about("Short-cut connections from the first half of the network to the second"),
    )
    energy_distance: bool = field(
        default=False,
        metadata=_about(
            "Train by the energy distance between samples and data, which leaves no likelihood",
            short_name="ed",
        ),
    )

    def __post_init__(self):
        """Checks the fields, and those against each other that belong together."""
        _check_fields(self)
        num_blocks = SMALL_FIELDS.get(self.receptive_field)
        if num_blocks is None:
            _require_default(self, "small_variant", "a small `receptive_field`")
        else:
            if self.nr_resnet != num_blocks:
                rule = (
                    f"`nr_resnet` must be {num_blocks} for a receptive_field of "
                    f"{self.receptive_field}: the number of blocks makes the field"
                )
                raise ValueError(_message(rule, "nr_resnet", self.nr_resnet))
            _require_default(self, "shortcuts", "the full `receptive_field`")
        if self.small_variant == "autoregressive_channel" and self.nr_filters % CHANNEL_GROUPS:
            rule = (
                f"`nr_filters` must be a multiple of {CHANNEL_GROUPS} for "
                "small_variant=autoregressive_channel, which has as many groups of channels"
            )
            raise ValueError(_message(rule, "nr_filters", self.nr_filters))
        if self.energy_distance:
            _require_default(self, "likelihood", "a model without `energy_distance`")
        if self.likelihood == "softmax" and self.num_levels > MAX_SOFTMAX_LEVELS:
            rule = f"`num_levels` must be at most {MAX_SOFTMAX_LEVELS} for likelihood=softmax"
            raise ValueError(_message(rule, "num_levels", self.num_levels))

    @property
    def loss_unit(self):
        """What the mean loss of this model is, as it is printed behind its number."""
        if self.energy_distance:
            return "energy distance"
        return "bits/dim (bound)" if self.likelihood == "dequantized" else "bits/dim"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and where they lie; data.py knows the names of the data sets.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> DataConfig(data_set="digits").data_dir
      'data'
    """

    data_set: str = field(
        default="cifar",
        metadata=_about(
            "Name of the data set: digits, photos, cifar, imagenet32, imagenet64, celeba, or "
            "folder:PATH of pictures, or npz:PATH of an array",
            short_name="d",
        ),
    )
    data_dir: str = field(
        default="data",
        metadata=_about(
            "Directory of the data sets, and of the cache of decoded images",
            short_name="i",
            may_change=True,
        ),
    )
    image_size: int | None = field(
        default=None,
        metadata=_about(
            "Height and width of the images, for a data set with no size of its own",
            bounds=[(">=", 4), ("a multiple of", 4)],
        ),
    )
    crop: str = field(
        default="center",
        metadata=_about(
            "Which image_size x image_size pixels of larger training images, for folder: and npz:; "
            "random takes others in every epoch",
            choices=("center", "random"),
        ),
    )
    test_fraction: float | None = field(
        default=None,
        metadata=_about(
            "Part of the images to test on, for a folder: or npz: without a test split of its own; "
            "default: 0.1",
            bounds=[(">", 0), ("<", 1)],
        ),
    )
    num_levels: int | None = field(
        default=None,
        metadata=_about(
            "Levels of a sub-pixel, for folder: and npz:; default: what follows from the files",
            bounds=[(">=", 2), ("<=", 65536)],
        ),
    )
    num_train_images: int | None = field(
        default=None,
        metadata=_about(
            "How many of the training images to train on, always the same ones; default: all",
            bounds=[(">=", 1)],
        ),
    )

    __post_init__ = _check_fields


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained, and what is written on the way.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> TrainingConfig(batch_size=32).learning_rate
      0.001
    """

    save_dir: str = field(
        default="save",
        metadata=_about(
            "Directory of the run: checkpoints, configuration, samples",
            short_name="o",
            may_change=True,
        ),
    )
    save_interval: int = field(
        default=20,
        metadata=_about(
            "Epochs between two checkpoints",
            short_name="t",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    save_minutes: float = field(
        default=30.0,
        metadata=_about(
            "Minutes after which a checkpoint is written within an epoch too; 0 writes none there",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    keep: int = field(
        default=2,
        metadata=_about(
            "Checkpoints to keep, the newest ones",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    load_params: bool = field(
        default=False,
        metadata=_about(
            "Resume from the checkpoint in save_dir",
            short_name="r",
            may_change=True,
        ),
    )
    class_conditional: bool = field(
        default=False,
        metadata=_about("Condition the model on the labels", short_name="c"),
    )
    augment: str = field(
        default="none",
        metadata=_about(
            "Whether to mirror half of the training images, others in every epoch",
            choices=("none", "flip"),
            may_change=True,
        ),
    )
    optimizer: str = field(
        default="adamax",
        metadata=_about("The optimizer", choices=("adamax", "adam")),
    )
    learning_rate: float = field(
        default=0.001,
        metadata=_about(
            "Learning rate at the first step",
            short_name="l",
            bounds=[(">", 0)],
            may_change=True,
        ),
    )
    lr_decay: float = field(
        default=0.999995,
        metadata=_about(
            "Factor on the learning rate, applied at every step",
            short_name="e",
            bounds=[(">", 0), ("<=", 1)],
            may_change=True,
        ),
    )
    batch_size: int = field(
        default=16,
        metadata=_about(
            "Images per step on each GPU",
            short_name="b",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    init_batch_size: int = field(
        default=16,
        metadata=_about(
            "Images for the data-dependent initialisation",
            short_name="u",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    accumulate_steps: int = field(
        default=1,
        metadata=_about(
            "Parts into which each GPU divides its batch, one after the other: less memory, the "
            "same gradient; batch_size must be a multiple of it",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    recompute: bool = field(
        default=False,
        metadata=_about(
            "Compute residual blocks again for their gradient: less memory, more time",
            may_change=True,
        ),
    )
    dtype: str = field(
        default="float32",
        metadata=_about(
            "What the network computes in; weights, likelihood and optimizer are float32",
            choices=("float32", "mixed_bfloat16"),
            may_change=True,
        ),
    )
    jit_compile: bool = field(
        default=False,
        metadata=_about(
            "Compile the gradient by XLA; it takes minutes, for a GPU it can be worth it",
            may_change=True,
        ),
    )
    max_epochs: int = field(
        default=5000,
        metadata=_about(
            "Epochs to train in total",
            short_name="x",
            bounds=[(">=", 1)],
            may_change=True,
        ),
    )
    nr_gpu: int = field(
        default=8,
        metadata=_about(
            "GPUs to train on; with 0, or on a machine without a GPU, training is on the CPU",
            short_name="g",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    peer_timeout: float = field(
        default=600.0,
        metadata=_about(
            "Seconds after which a worker that misses others of TF_CONFIG gives up",
            bounds=[(">", 0)],
            may_change=True,
        ),
    )
    polyak_decay: float = field(
        default=0.9995,
        metadata=_about(
            "Decay per step of the exponential average of the weights",
            bounds=[(">=", 0), ("<", 1)],
            may_change=True,
        ),
    )
    num_samples: int = field(
        default=1,
        metadata=_about(
            "Batches of samples to write at every checkpoint; 0 writes none",
            short_name="ns",
            bounds=[(">=", 0)],
            may_change=True,
        ),
    )
    profile: str | None = field(
        default=None,
        metadata=_about(
            "Steps of this process to profile for TensorBoard, such as 10-20",
            may_change=True,
        ),
    )
    seed: int = field(
        default=1,
        metadata=_about(
            "Random seed",
            short_name="s",
            bounds=[(">=", 0), ("<=", 2**31 - 1)],
            may_change=True,
        ),
    )

    def __post_init__(self):
        """Checks the fields, and those against each other that belong together."""
        _check_fields(self)
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"`batch_size` must be a multiple of `accumulate_steps`. Received: "
                f"batch_size={self.batch_size}, accumulate_steps={self.accumulate_steps}"
            )
        if self.profile is not None:
            self.profiled_steps()

    def profiled_steps(self):
        """The steps to profile, counted from 1 in the process that trains: a range."""
        first, _, last = self.profile.partition("-")
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
            raise ValueError(
                _message(
                    "`profile` must be a range of steps, such as 10-20", "profile", self.profile
                )
            )
        return range(int(first), int(last) + 1)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run, as it travels with its checkpoint.

    Raises:
      ValueError: If a part is not of its class.

    Example:
      >>> run = RunConfig(ModelConfig(), DataConfig(), TrainingConfig(seed=7))
      >>> from_json(to_json(run)) == run
      True
    """

    model: ModelConfig
    data: DataConfig
    training: TrainingConfig

    def __post_init__(self):
        """Checks that each part is of its class; the parts have checked their own fields."""
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            if not isinstance(value, part.type):
                rule = f"`{part.name}` must be a {part.type.__name__}"
                raise ValueError(_message(rule, part.name, value))


class Preset(NamedTuple):
    """One of the paper's models, as fields of a run that are not the defaults.

    values: {field: value}. bits_per_dim: What the paper reports on CIFAR-10's test set, or None.
    source: Where it does (Salimans et al. 2017), or what the model is.
    """

    values: dict
    bits_per_dim: float | None
    source: str


def _presets():
    # Section 3.1: three stages of 5 residual layers down and up, 192 feature maps, dropout 0.5.
    # Section 2.1 calls 5 components enough; the release's default of 10 is taken here.
    cifar10 = {"data_set": "cifar", "nr_resnet": 5, "nr_filters": 192, "dropout_p": 0.5}
    presets = {
        "release": Preset({}, None, "the defaults of the release's train.py: 160 filters"),
        "cifar10": Preset(cifar10, 2.92, "table 1, section 3.1"),
        "cifar10_class_conditional": Preset(
            {**cifar10, "class_conditional": True}, 2.94, "section 3.2"
        ),
    }
    # Section 3.3 gives neither feature maps nor dropout: those of section 3.1 are taken.
    small_bits_per_dim = {
        ("11x5", "plain"): 3.11,
        ("11x5", "nin"): 3.09,
        ("11x5", "autoregressive_channel"): 3.07,
        ("15x8", "plain"): 3.07,
        ("15x8", "nin"): 3.04,
        ("15x8", "autoregressive_channel"): 3.03,
    }
    for (receptive_field, variant), bits_per_dim in small_bits_per_dim.items():
        values = {
            **cifar10,
            "receptive_field": receptive_field,
            "nr_resnet": SMALL_FIELDS[receptive_field],
            "small_variant": variant,
        }
        presets[f"small_{receptive_field}_{variant}"] = Preset(values, bits_per_dim, "table 2")
    return {
        **presets,
        "softmax": Preset({**cifar10, "likelihood": "softmax"}, None, "section 3.4.1, figure 6"),
        "dequantized": Preset(
            {**cifar10, "likelihood": "dequantized"}, 3.11, "section 3.4.2, a bound"
        ),
        "no_shortcuts": Preset({**cifar10, "shortcuts": False}, None, "section 3.4.3, figure 7"),
        "no_dropout": Preset(
            {**cifar10, "dropout_p": 0.0},
            None,
            "section 3.4.4: above 6.0 at the end and never below 3.0; training set below 2.0",
        ),
        "energy_distance": Preset(
            {**cifar10, "nr_filters": 160, "energy_distance": True},
            None,
            "the release's --energy_distance; not in the paper",
        ),
    }


# {name: Preset}, every model of the paper's tables and of its sections 3.1 to 3.4.
PRESETS = _presets()


def _fields(config_class):
    """The fields of a class; of `RunConfig`, those of its parts.

    One name is there twice: `num_levels`, a flag of the data, and of the model that follows them.
    """
    found = []
    for config_field in dataclasses.fields(config_class):
        is_part = dataclasses.is_dataclass(config_field.type)
        found += _fields(config_field.type) if is_part else [config_field]
    return found


def _values(config):
    """Pairs (field name, value); of a `RunConfig`, over the fields of its parts."""
    found = []
    for config_field in dataclasses.fields(config):
        value = getattr(config, config_field.name)
        found += _values(value) if dataclasses.is_dataclass(value) else [(config_field.name, value)]
    return found


# JSON


def to_json(config):
    """The run as readable JSON, fields in the order of declaration.

    Args:
      config: A `RunConfig`.

    Returns:
      A string that ends with a newline.
    """
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text):
    """The run that `to_json` wrote.

    A field that is missing takes its default, so that files from before a field was added can
    still be read: the default of a new field must be what was done before it.

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
    return _from_dict(RunConfig, values, prefix="")


def _from_dict(config_class, values, prefix):
    """An instance of `config_class`; `prefix` is where in the file its fields stand."""
    if not isinstance(values, dict):
        where = f"`{prefix.rstrip('.')}`" if prefix else "A configuration"
        raise ValueError(_message(f"{where} must be a JSON object", "object", values))
    fields_by_name = {item.name: item for item in dataclasses.fields(config_class)}
    unknown = [prefix + name for name in values if name not in fields_by_name]
    if unknown:
        rule = "A configuration must hold known fields only; a newer version may have written it"
        raise ValueError(_message(rule, "unknown", unknown))
    missing = [
        prefix + name
        for name, item in fields_by_name.items()
        if name not in values and item.default is dataclasses.MISSING
    ]
    if missing:
        rule = "A configuration must hold every field that has no default"
        raise ValueError(_message(rule, "missing", missing))
    arguments = {
        name: _from_dict(fields_by_name[name].type, value, f"{prefix}{name}.")
        if dataclasses.is_dataclass(fields_by_name[name].type)
        else value
        for name, value in values.items()
    }
    return config_class(**arguments)


# Flags


def define_flags(config_class, flag_values=flags.FLAGS, with_defaults=True):
    """Defines one absl flag for every field that is a flag; a bad value ends the parse.

    Args:
      config_class: `ModelConfig`, `DataConfig`, `TrainingConfig`, or `RunConfig` for all three.
      flag_values: The absl `FlagValues` to define them in.
      with_defaults: False leaves the flags that are not given at None, for a script in which a
        run says what is not given; `explicit_values_from_flags` reads them.
    """
    for config_field in _fields(config_class):
        about = config_field.metadata
        if not about["is_flag"]:
            continue
        how = {"short_name": about["short_name"], "flag_values": flag_values}
        name, help_text = config_field.name, about["help"]
        default = config_field.default if with_defaults else None
        if about["choices"]:
            flags.DEFINE_enum(name, default, about["choices"], help_text, **how)
        else:
            _, _, define = _TYPES[config_field.type]
            define(name, default, help_text, **how)
        flags.register_validator(name, _flag_checker(config_field), flag_values=flag_values)


def define_preset(flag_values=flags.FLAGS):
    """Defines the flag --preset, whose values stand in for those of flags that are not given.

    Args:
      flag_values: The absl `FlagValues` to define it in.
    """
    described = "; ".join(
        f"{name} ({'' if preset.bits_per_dim is None else f'{preset.bits_per_dim} bits/dim, '}"
        f"{preset.source})"
        for name, preset in PRESETS.items()
    )
    flags.DEFINE_enum(
        "preset",
        None,
        list(PRESETS),
        f"A model of the paper, with its settings; flags beside it come first. {described}",
        flag_values=flag_values,
    )


def _preset_values(flag_values):
    """What the preset on the command line says, but for the flags that are there too."""
    if "preset" not in flag_values or flag_values["preset"].value is None:
        return {}
    values = PRESETS[flag_values["preset"].value].values
    return {name: value for name, value in values.items() if not flag_values[name].present}


def _flag_checker(config_field):
    """The field's check as absl wants it."""

    def check(value):
        if value is None:  # A flag that was not given.
            return True
        try:
            _checked(config_field, value)
        except ValueError as error:
            raise flags.ValidationError(str(error)) from None
        return True

    return check


def values_from_flags(config_class, flag_values=flags.FLAGS):
    """The values of the flags of a class: given, or else the preset's, or else the default.

    Args:
      config_class: The class that `define_flags` was called with, or a part of it.
      flag_values: The absl `FlagValues`, parsed.

    Returns:
      A dict, field name -> value, without the fields that follow from the data.

    Example:
      DataConfig(**values_from_flags(DataConfig))
    """
    preset = _preset_values(flag_values)
    names = [item.name for item in _fields(config_class) if item.metadata["is_flag"]]
    return {name: preset.get(name, flag_values[name].value) for name in names}


def explicit_values_from_flags(config_class, flag_values=flags.FLAGS):
    """The values that stand on the command line, also in its preset or equal to the default.

    Args:
      config_class: The class that `define_flags` was called with, or a part of it.
      flag_values: The absl `FlagValues`, parsed.

    Returns:
      A dict, field name -> value.
    """
    values = values_from_flags(config_class, flag_values)
    preset = _preset_values(flag_values)
    return {
        name: value for name, value in values.items() if flag_values[name].present or name in preset
    }


# Resume


def differences(a, b):
    """What differs between two configurations of one class.

    Args:
      a: A configuration.
      b: Another of the same class.

    Returns:
      A list of strings "field: value in a != value in b", in the order of declaration.

    Example:
      >>> differences(ModelConfig(), ModelConfig(nr_filters=192))
      ['nr_filters: 160 != 192']
    """
    assert type(a) is type(b), (a, b)
    return [
        f"{name}: {value!r} != {b_value!r}"
        for (name, value), (_, b_value) in zip(_values(a), _values(b), strict=True)
        if value != b_value
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
        if a name is not a field's; if a value breaks its rule.
    """
    fields_by_name = {item.name: item for item in _fields(RunConfig)}
    unknown = [name for name in explicit if name not in fields_by_name]
    if unknown:
        raise ValueError(_message("`explicit` must hold names of fields", "unknown", unknown))
    fixed = {
        name: value
        for name, value in explicit.items()
        if not fields_by_name[name].metadata["may_change"]
    }
    # Field by field: a whole configuration may contradict itself with only one of them replaced.
    given = {name: _checked(fields_by_name[name], value) for name, value in fixed.items()}
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
    for part in dataclasses.fields(run):
        names = {item.name for item in dataclasses.fields(part.type)}
        mine = {name: value for name, value in values.items() if name in names}
        parts[part.name] = dataclasses.replace(getattr(run, part.name), **mine)
    return RunConfig(**parts)
