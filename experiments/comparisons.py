"""Which runs the papers' comparisons need, and the flags that start them.

A row of a comparison is a preset of `pixel_cnn_pp.config`. A preset that is in two comparisons is
one run. A scale and the user may change what all rows share, but not the fields in which they
differ. Rows of several models differ in the model, and in the options that only some of them have.
"""

import dataclasses
from typing import NamedTuple

from pixel_cnn_pp import config


class Comparison(NamedTuple):
    """Rows to compare: names of presets. The others are compared with the first.

    title: What is compared, and where in the paper. rows: Names of presets.
    """

    title: str
    rows: tuple


COMPARISONS = {
    "likelihoods": Comparison(
        "Likelihood (sections 3.4.1 and 3.4.2, figure 6)", ("cifar10", "softmax", "dequantized")
    ),
    "shortcuts": Comparison(
        "Short-cut connections (section 3.4.3, figure 7)", ("cifar10", "no_shortcuts")
    ),
    "dropout": Comparison("Dropout (section 3.4.4)", ("cifar10", "no_dropout")),
    "fields": Comparison(
        "Small receptive fields (section 3.3, table 2)",
        tuple(
            f"small_{field}_{variant}"
            for field in config.SMALL_FIELDS
            for variant in ("plain", "nin", "autoregressive_channel")
        ),
    ),
    "classes": Comparison(
        "Class-conditional (section 3.2)", ("cifar10", "cifar10_class_conditional")
    ),
    "family": Comparison(
        "PixelCNN++ and its ancestors (table 1)",
        ("cifar10", "pixel_cnn", "gated_pixel_cnn", "row_lstm", "diagonal_bilstm"),
    ),
}

# The comparison that needs labels.
LABELLED = "classes"

# The settings of every row of a scale, which replace those of its preset where its model has them.
# The small scale takes minutes on a core: it has few filters, and the faster learning and averaging
# that few steps need.
SCALES = {
    "small": {
        "data_set": "photos",
        "nr_resnet": 1,
        "nr_filters": 16,
        "nr_logistic_mix": 5,
        "batch_size": 16,
        "init_batch_size": 64,
        "optimizer": "adam",
        "learning_rate": 0.003,
        "polyak_decay": 0.99,
        "max_epochs": 24,
        "save_interval": 4,  # what a power cut costs: a minute
        "num_samples": 0,
        "nr_gpu": 1,
    },
    "full": {},
}
# {kind: settings} of the networks at the small scale that are no PixelCNN++. Each has some 20 to
# 100 thousand parameters, most of them in the softmax over 256 levels.
_SMALL_NETWORKS = {
    "pixel_cnn": {"nr_resnet": 4, "nr_filters": 24, "nr_output_filters": 48},
    "gated_pixel_cnn": {"nr_resnet": 4, "nr_filters": 24, "nr_output_filters": 48},
    "row_lstm": {"nr_resnet": 2, "nr_filters": 24, "nr_output_filters": 48},
    "diagonal_bilstm": {"nr_resnet": 1, "nr_filters": 24, "nr_output_filters": 48},
}

# Fields that do not change the numbers, or of which a later start may have more.
_FREE = ("data_dir", "save_dir", "load_params", "max_minutes")


class Run(NamedTuple):
    """A training of one row with one seed.

    row: Name of the row. seed: Its seed. values: {field: value}, all that is not the default, the
    preset's own included. has_preset: Whether the name is that of a preset.
    """

    row: str
    seed: int
    values: dict
    has_preset: bool = True

    @property
    def name(self):
        """The name of its directory."""
        return f"{self.row}_{self.seed}"

    @property
    def settings(self):
        """The values that the numbers depend on. A later start must have the same."""
        return {name: value for name, value in self.values.items() if name not in _FREE}

    def flags(self):
        """The flags of train.py, a list of strings: the preset, and what differs from it."""
        preset = config.PRESETS[self.row].values if self.has_preset else {}
        changed = [
            _flag(name, value)
            for name, value in self.values.items()
            if name not in preset or preset[name] != value
        ]
        first = [f"--preset={self.row}"] if self.has_preset else []
        return [*first, *changed, f"--seed={self.seed}"]

    def more_flags(self):
        """The flags of train.py with which it goes on: what a later start may change."""
        minutes = self.values.get("max_minutes")
        return [] if minutes is None else [f"--max_minutes={minutes:g}"]


def plan(names, scale, num_seeds, given):
    """The runs of some comparisons: a shared row once, and all rows with one seed before the next.

    Args:
      names: Names of `COMPARISONS`.
      scale: Name of `SCALES`.
      num_seeds: Runs of each row; their seeds are 1 .. num_seeds.
      given: {field: value} for all rows, from the user.

    Returns:
      A list of `Run`.

    Raises:
      ValueError: If the user gives a field in which the rows of a comparison differ, or a field
        that is chosen here, or a likelihood for all rows; or if a row breaks a rule of its
        configuration.
    """
    for field in ("seed", "save_dir", "load_params"):
        if field in given:
            instead = "`seeds` and `out` say" if field != "load_params" else "the runs show"
            raise ValueError(
                f"`{field}` must be left out: {instead} it for every run. "
                f"Received: {field}={given[field]}"
            )
    for field, reason in (
        ("likelihood", "the comparison `likelihoods` is of them"),
        ("energy_distance", "the tables are of bits/dim"),
    ):
        if field in given:
            raise ValueError(
                f"`{field}` must be left out: {reason}. Received: {field}={given[field]}"
            )
    if "kind" in given:
        raise ValueError(
            f"`model` must be left out: the rows say it. Received: model={given['kind']}"
        )
    values_by_row = {}
    for name in names:
        differing = fields_that_differ(name)
        for field in sorted(differing & set(given)):
            raise ValueError(
                f"`{field}` must be left out: the rows of `{name}` differ in it. "
                f"Received: {field}={given[field]}"
            )
        for row in COMPARISONS[name].rows:
            values = _values(row, differing, scale, given)
            for part in parts(values):
                part_of(part, values)
            assert values_by_row.setdefault(row, values) == values, row
    known = set().union(*map(defaults, values_by_row.values()))
    for field in given:
        if field not in known:
            raise ValueError(
                f"`{field}` must be left out: no row's model has it. "
                f"Received: {field}={given[field]}"
            )
    return [
        Run(row, seed, values)
        for seed in range(1, num_seeds + 1)
        for row, values in values_by_row.items()
    ]


def _values(row, differing, scale, given):
    """The values of a row: of its preset, of a scale, and of the user."""
    preset = _with_blocks(config.PRESETS[row].values)
    shared = dict(SCALES[scale])
    if scale == "small":
        shared |= _SMALL_NETWORKS.get(config.PRESETS[row].kind, {})
    known = defaults(preset)
    changes = {**{k: v for k, v in shared.items() if k not in differing}, **given}
    return {**preset, **{field: value for field, value in changes.items() if field in known}}


def parts(values):
    """The classes of the parts of a run that has these values: {field: value}."""
    model_class = config.MODELS[values.get("kind", config.ModelConfig.kind)]
    return model_class, config.DataConfig, config.TrainingConfig


def defaults(values):
    """{field: its default}, of all parts of a run that has these values."""
    return {
        field.name: field.default for part in parts(values) for field in dataclasses.fields(part)
    }


def part_of(config_class, values):
    """The part of a configuration that values give; other fields have their defaults.

    Args:
      config_class: A class of `parts`.
      values: {field: value}, of all parts.

    Returns:
      A `config_class`.

    Raises:
      ValueError: If a value breaks its rule.
    """
    names = {field.name for field in dataclasses.fields(config_class) if field.metadata["is_flag"]}
    return config_class(**{name: value for name, value in values.items() if name in names})


def fields_that_differ(name):
    """The fields in which the rows of a comparison differ on purpose, a set of names.

    Presets of several models differ in much else, such as the optimizer. There it is the model
    alone, and a scale gives all of them the same training.
    """
    rows = [_with_blocks(config.PRESETS[row].values) for row in COMPARISONS[name].rows]
    if len({parts(row)[0] for row in rows}) > 1:
        return {"kind"}
    fields = {field for row in rows for field in row}
    default = defaults(rows[0])
    return {field for field in fields if len({row.get(field, default[field]) for row in rows}) > 1}


def _with_blocks(values):
    """A preset's values {field: value}, with the residual blocks that a small field has.

    The preset leaves them to the field; the directories of earlier versions name them.
    """
    num_blocks = config.SMALL_FIELDS.get(values.get("receptive_field"))
    return values if num_blocks is None else {**values, "nr_resnet": num_blocks}


def is_bound(row):
    """Whether the bits/dim of a row are an upper bound."""
    return config.PRESETS[row].values.get("likelihood") == "dequantized"


def _flag(name, value):
    name = "model" if name == "kind" else name
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={value}"
