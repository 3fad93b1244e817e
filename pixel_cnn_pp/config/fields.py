"""How an option is described and checked. This holds for options of models, data and training.

Every option is a field of a frozen dataclass. The field's declaration gives its type, default,
help, short name and rule. The check of its value, its flag and its entry in the JSON file are all
made from this one declaration.
"""

import dataclasses
import math
import numbers
import operator


def about(help, *, short_name=None, choices=(), bounds=(), is_flag=True, may_change=False):
    """Makes the description of a field, which the field keeps in its `metadata`.

    Args:
      help: What the field means, a string. It is also the help text of the flag.
      short_name: A second, short name of the flag, a string, or None.
      choices: The allowed values, strings. Empty if every value of the type is allowed.
      bounds: Pairs (comparison, limit) that the value must satisfy. Each comparison is a key of
        `_COMPARISONS`.
      is_flag: Whether the user sets the field with a flag of the same name. Otherwise its value
        comes from the data, from another flag or from the JSON file.
      may_change: Whether the value may change when a run is resumed.

    Returns:
      A dict with the arguments as its keys.
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
    # For an image's shape (H, W, C).
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


def _to_sizes(value):
    if isinstance(value, str):
        raise TypeError
    sizes = tuple(_to_int(size) for size in value)
    if len(sizes) not in (1, 3) or min(sizes) < 1:
        raise ValueError
    return sizes


def _to_strings(value):
    if isinstance(value, str):
        raise TypeError
    return tuple(_to_str(each) for each in value)


# Type of a field -> its rule in words, and its conversion. A conversion that raises an error
# means that the value is not of this type.
_TYPES = {
    int: ("an integer", _to_int),
    int | None: ("None or an integer", _to_optional(_to_int)),
    float: ("a finite number", _to_float),
    float | None: ("None or a finite number", _to_optional(_to_float)),
    bool: ("True or False", _to_bool),
    str: ("a non-empty string", _to_str),
    str | None: ("None or a non-empty string", _to_optional(_to_str)),
    bool | None: ("None, True or False", _to_optional(_to_bool)),
    tuple[str, ...] | None: ("None or names", _to_optional(_to_strings)),
    tuple[int, ...] | None: (
        "None, or one or three positive integers, (D,) or (h, w, c)",
        _to_optional(_to_sizes),
    ),
    tuple[int, int, int]: ("three positive integers (H, W, C)", _to_image_shape),
}


def checked(config_field, value):
    """Checks a value against the rule of its field, and converts it to the type of the field.

    Args:
      config_field: A `dataclasses.Field` whose metadata is from `about`.
      value: Anything.

    Returns:
      The converted value. NumPy numbers become Python numbers, and a list of sizes becomes a tuple.

    Raises:
      ValueError: If the value breaks the field's rule.
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


# Longest value that a message shows whole.
_MOST_RECEIVED = 300


def message(rule, name, value):
    """Returns an error message of one line: the rule, and the value that was received instead."""
    try:
        received = " ".join(repr(value).split())  # one line, also for a NumPy array
    except RecursionError:  # lists in lists in lists
        received = f"a {type(value).__name__}"
    if len(received) > _MOST_RECEIVED:
        received = f"{received[:_MOST_RECEIVED]}..."
    return f"{rule}. Received: {name}={received}"


def check_fields(config):
    """Checks each field of a configuration and converts it to its type.

    A dataclass can use this function as its `__post_init__`.

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
    """Sets a field of a frozen dataclass. Only its `__post_init__` may call this."""
    object.__setattr__(config, name, value)


def require_default(config, name, where):
    """Requires that a field has its default value, because it has no meaning in this configuration.

    Args:
      config: A configuration.
      name: Name of the field.
      where: In which configurations the field has a meaning, in words for the message.

    Raises:
      ValueError: If the field has another value than its default.
    """
    default, value = type(config).__dataclass_fields__[name].default, getattr(config, name)
    if value != default:
        rule = f"`{name}` must be {default} but for {where}"
        raise ValueError(message(rule, name, value))


def check_names(config_class, values, prefix=""):
    """Checks that values from a JSON file have the field names of a class.

    Args:
      config_class: A dataclass.
      values: A dict, field name -> value, as it was read from a file.
      prefix: The place of the values in the file, such as "data.".

    Raises:
      ValueError: If `values` is not a dict, if it has an unknown field, or if it lacks a field
        that has no default.
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
    """Makes an instance of a class from values of a file.

    The arguments are those of `check_names`.

    Returns:
      An instance of `config_class`.

    Raises:
      ValueError: As in `check_names`, or if a value breaks the rule of its field.
    """
    check_names(config_class, values, prefix)
    return config_class(**values)
