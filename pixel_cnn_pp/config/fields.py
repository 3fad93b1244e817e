"""How an option is described and checked, whatever it is an option of.

Every option is a field of a frozen dataclass, described once, where it is declared: type, default,
help, short name, rule. The check of its value, its flag and its place in the JSON file all follow
from that description.
"""

import dataclasses
import math
import numbers
import operator


def about(help, *, short_name=None, choices=(), bounds=(), is_flag=True, may_change=False):
    """The description of a field, kept in its `metadata`.

    Args:
      help: What the field means, a string; also the help of its flag.
      short_name: The flag's other name, a string, or None.
      choices: The values allowed, strings; empty if any.
      bounds: Pairs (comparison, limit) that hold for the value, each comparison one of
        `_COMPARISONS`.
      is_flag: Whether the user gives it as a flag of its own name; otherwise it follows from the
        data, from another flag or from the file that it is read from.
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
    # Of an image's shape (H, W, C).
    "with H and W multiples of": lambda shape, limit: not (shape[0] % limit or shape[1] % limit),
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
    if min(height, width, channels) < 1:
        raise ValueError
    return height, width, channels


# Type of a field -> its rule in words, its conversion (any error: not of this type).
_TYPES = {
    int: ("an integer", _to_int),
    int | None: ("None or an integer", _to_optional(_to_int)),
    float: ("a finite number", _to_float),
    float | None: ("None or a finite number", _to_optional(_to_float)),
    bool: ("True or False", _to_bool),
    str: ("a non-empty string", _to_str),
    str | None: ("None or a non-empty string", _to_optional(_to_str)),
    tuple[int, int, int]: ("three positive integers (H, W, C)", _to_image_shape),
}


def checked(config_field, value):
    """The value in its field's own type.

    Args:
      config_field: A `dataclasses.Field` whose metadata is from `about`.
      value: Anything.

    Returns:
      The value, converted: NumPy's numbers to Python's, a list of sizes to a tuple.

    Raises:
      ValueError: If it breaks the field's rule.
    """
    words, convert = _TYPES[config_field.type]
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
    raise ValueError(message(f"`{config_field.name}` must be {rule}", config_field.name, value))


def message(rule, name, value):
    """The one line of an error: what must hold, and what was received instead."""
    received = " ".join(repr(value).split())  # one line, also for a NumPy array
    return f"{rule}. Received: {name}={received}"


def check_fields(config):
    """Checks each field of a configuration and converts it to its type; a `__post_init__`.

    Args:
      config: An instance of a frozen dataclass.

    Raises:
      ValueError: If a field breaks its rule.
    """
    for config_field in dataclasses.fields(config):
        set_field(
            config, config_field.name, checked(config_field, getattr(config, config_field.name))
        )


def set_field(config, name, value):
    """Sets a field of a frozen dataclass, for its `__post_init__` alone."""
    object.__setattr__(config, name, value)


def require_default(config, name, where):
    """Refuses another value than the default of a field that only has a meaning elsewhere.

    Args:
      config: A configuration.
      name: The field.
      where: Where it has a meaning, words for the message.

    Raises:
      ValueError: If it is not at its default.
    """
    default, value = type(config).__dataclass_fields__[name].default, getattr(config, name)
    if value != default:
        rule = f"`{name}` must be {default} but for {where}"
        raise ValueError(message(rule, name, value))


def check_names(config_class, values, prefix=""):
    """Refuses what is no JSON object of a class's fields.

    Args:
      config_class: A dataclass.
      values: A dict, field name -> value, as it was read from a file.
      prefix: Where in the file it stands, such as "data.".

    Raises:
      ValueError: If it is no dict, or has a field that is unknown, or lacks one without a default.
    """
    if not isinstance(values, dict):
        where = f"`{prefix.rstrip('.')}`" if prefix else "A configuration"
        raise ValueError(message(f"{where} must be a JSON object", "object", values))
    by_name = {item.name: item for item in dataclasses.fields(config_class)}
    unknown = [prefix + name for name in values if name not in by_name]
    if unknown:
        rule = "A configuration must hold known fields only; a newer version may have written it"
        raise ValueError(message(rule, "unknown", unknown))
    missing = [
        prefix + name
        for name, item in by_name.items()
        if name not in values and item.default is dataclasses.MISSING
    ]
    if missing:
        rule = "A configuration must hold every field that has no default"
        raise ValueError(message(rule, "missing", missing))


def from_dict(config_class, values, prefix=""):
    """An instance of a class from what a file says; arguments and errors as in `check_names`."""
    check_names(config_class, values, prefix)
    return config_class(**values)
