"""Configurations and values that the tests of the configuration share."""

import dataclasses
import pathlib

import pytest
from absl import flags

from pixel_cnn_pp import config
from pixel_cnn_pp.config import (
    DataConfig,
    DiagonalBiLSTMConfig,
    GatedPixelCNNConfig,
    ModelConfig,
    PixelCNNConfig,
    RowLSTMConfig,
    RunConfig,
    TrainingConfig,
)

ROOT = pathlib.Path(__file__).parents[2]
# Every class of which a part of a run may be.
CLASSES = (*config.MODELS.values(), DataConfig, TrainingConfig)

# They have one value alone, or another than their default only for the full receptive field or
# likelihood, or for a model without classes.
DEFAULTS_OF_SPECIMEN = (
    "kind",
    "shortcuts",
    "energy_distance",
    "condition_shape",
    "condition_levels",
    "num_resolutions",
    "embedding_resnet",
    "embedding_filters",
    "embedding_resolutions",
)


def specimen(kind="pixel_cnn_pp"):
    """A run in which no field has its default, but for those that contradict others."""
    models = {
        "pixel_cnn_pp": ModelConfig(
            (8, 12, 1), 17, 2, 24, 3, "elu", 0.1, 10, "softmax", "11x5", "nin", min_log_scale=-9.0
        ),
        "pixel_cnn": PixelCNNConfig((7, 5, 1), 17, 2, 24, 48, 10),
        "row_lstm": RowLSTMConfig((7, 5, 1), 17, 2, 24, 48, 10),
        "diagonal_bilstm": DiagonalBiLSTMConfig((7, 5, 1), 17, 2, 24, 48, 10),
        "gated_pixel_cnn": GatedPixelCNNConfig((7, 5, 1), 17, 2, 24, 3, 48, 10),
    }
    return RunConfig(
        models[kind],
        DataConfig(
            "folder:é",
            "/data/é",
            8,
            "random",
            0.25,
            17,
            300,
            True,
            "grey",
            True,
            ("é", "2"),
            "mean:2",
            "gray:4",
        ),
        TrainingConfig(
            save_dir="runs/a",
            save_interval=3,
            save_minutes=2.5,
            keep=4,
            load_params=True,
            class_conditional=True,
            augment="flip",
            optimizer="adam",
            learning_rate=1 / 3,
            lr_decay=0.9,
            batch_size=5,
            init_batch_size=6,
            accumulate_steps=5,
            recompute=True,
            dtype="mixed_bfloat16",
            max_epochs=7,
            max_minutes=2.5,
            nr_gpu=0,
            peer_timeout=60.0,
            polyak_decay=0.99,
            num_samples=2,
            profile="2-3",
            seed=2**31 - 1,
        ),
    )


def values_of(run):
    """{field name: value} of all parts of a run."""
    return {**vars(run.model), **vars(run.data), **vars(run.training)}


def parsed(*arguments):
    """Flags of a whole run after the parse of a command line."""
    flag_values = flags.FlagValues()
    config.define_flags(RunConfig, flag_values)
    config.define_preset(flag_values)
    rest = flag_values(["train.py", *arguments])
    assert rest == ["train.py"]
    return flag_values


def error_of(call, *args, **kwargs):
    """The one line that the user sees."""
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert "Received: " in message
    return message


def field_names(*classes):
    """The names of the fields of classes, in order."""
    return [item.name for each in classes for item in dataclasses.fields(each)]
