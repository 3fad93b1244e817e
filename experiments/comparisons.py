"""Which runs the paper's comparisons need, and the flags that start them.

A row of a comparison is a preset of `pixel_cnn_pp.config`. A preset that is in two comparisons is
one run. A scale and the user may change what all rows share, but not the fields in which they
differ.
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
}

# The comparison that needs labels.
LABELLED = "classes"

# The settings of every row of a scale, which replace those of its preset. The small scale takes
# minutes on a core: it has few filters, and the faster learning and averaging that few steps need.
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

# What the rows are made of: all of them are PixelCNN++.
PARTS = (config.ModelConfig, config.DataConfig, config.TrainingConfig)
# {field: its default}, of all parts of a run.
DEFAULTS = {field.name: field.default for part in PARTS for field in dataclasses.fields(part)}

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
    values_by_row = {}
    for name in names:
        differing = fields_that_differ(name)
        for field in sorted(differing & set(given)):
            raise ValueError(
                f"`{field}` must be left out: the rows of `{name}` differ in it. "
                f"Received: {field}={given[field]}"
            )
        shared = {field: value for field, value in SCALES[scale].items() if field not in differing}
        for row in COMPARISONS[name].rows:
            values = {**_with_blocks(config.PRESETS[row].values), **shared, **given}
            for part in PARTS:
                part_of(part, values)
            assert values_by_row.setdefault(row, values) == values, row
    return [
        Run(row, seed, values)
        for seed in range(1, num_seeds + 1)
        for row, values in values_by_row.items()
    ]


def part_of(config_class, values):
    """The part of a configuration that values give; other fields have their defaults.

    Args:
      config_class: `ModelConfig`, `DataConfig` or `TrainingConfig`.
      values: {field: value}, of all parts.

    Returns:
      A `config_class`.

    Raises:
      ValueError: If a value breaks its rule.
    """
    names = {field.name for field in dataclasses.fields(config_class) if field.metadata["is_flag"]}
    return config_class(**{name: value for name, value in values.items() if name in names})


def fields_that_differ(name):
    """The fields in which the presets of a comparison differ, a set of names."""
    rows = [_with_blocks(config.PRESETS[row].values) for row in COMPARISONS[name].rows]
    fields = {field for row in rows for field in row}
    return {field for field in fields if len({row.get(field, DEFAULTS[field]) for row in rows}) > 1}


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
