"""config/fields.py: how the value of an option is checked, converted and complained about."""

import dataclasses
import pathlib

import numpy as np
import pytest
from config_cases import CLASSES, error_of, specimen

from pixel_cnn_pp import config
from pixel_cnn_pp.config import (
    DataConfig,
    DiagonalBiLSTMConfig,
    GatedPixelCNNConfig,
    ModelConfig,
    PixelCNNConfig,
    RowLSTMConfig,
    TrainingConfig,
)

BAD_VALUES = [
    (ModelConfig, "image_shape", [(0, 32, 3), (32, -4, 3), (8, 12, 0)]),
    (ModelConfig, "image_shape", [(8, 12), (8, 12, 3, 1), 8, None, "abc", (8.0, 12, 3), [[8], 12]]),
    (ModelConfig, "image_shape", [(True, 12, 3), np.ones((3, 3), int), np.zeros((40, 40))]),
    (ModelConfig, "num_levels", [1, 0, -256, 65537, 256.0, "256", None, True]),
    (ModelConfig, "nr_resnet", [0, -1, 2.5, "5", True, None, [5]]),
    (ModelConfig, "nr_filters", [0, -160, 160.0, None]),
    (ModelConfig, "nr_logistic_mix", [0, -1, False]),
    (ModelConfig, "resnet_nonlinearity", ["gelu", "", "Elu", None, 1, ["elu"]]),
    (ModelConfig, "dropout_p", [1, 1.0, -0.1, float("nan"), "0.5", True, None, np.ones(2)]),
    (ModelConfig, "num_classes", [0, -1, 10.0, "10", True]),
    (ModelConfig, "condition_shape", [3, "3", (), (0,), (4, 4), (4, 4, 0), (2.0,)]),
    (ModelConfig, "condition_levels", [1, 65537, 16.0, None, 16]),
    (ModelConfig, "likelihood", ["mixture", "", None, 1]),
    (ModelConfig, "receptive_field", ["5x11", "11", None, 11]),
    (ModelConfig, "small_variant", ["none", "", None]),
    (ModelConfig, "shortcuts", [1, "yes", None]),
    (ModelConfig, "energy_distance", [1, "no", None]),
    (ModelConfig, "num_resolutions", [0, 4, 2.0, None, True]),
    (ModelConfig, "kind", ["pixel_cnn", "", None, 1, ["pixel_cnn_pp"]]),
    (ModelConfig, "min_log_scale", ["-7", float("nan"), float("-inf"), True]),
    (PixelCNNConfig, "kind", ["pixel_cnn_pp", "", None]),
    (PixelCNNConfig, "image_shape", [(0, 7, 1), (5, -1, 1), (5, 7, 0), (5, 7), None, (5.0, 7, 1)]),
    (PixelCNNConfig, "num_levels", [1, 4097, 256.0, None, True]),
    (PixelCNNConfig, "nr_resnet", [0, -1, 2.5, None]),
    (PixelCNNConfig, "nr_filters", [0, 128.0, "128"]),
    (PixelCNNConfig, "nr_output_filters", [0, -1, 1e3, None]),
    (PixelCNNConfig, "num_classes", [0, 10.0, False]),
    (PixelCNNConfig, "condition_shape", [3, (4, 4)]),
    (PixelCNNConfig, "condition_levels", [1, 16]),
    (GatedPixelCNNConfig, "kind", ["pixel_cnn", "", None]),
    (GatedPixelCNNConfig, "image_shape", [(0, 7, 1), (5, 7), None]),
    (GatedPixelCNNConfig, "num_levels", [1, 4097, None]),
    (GatedPixelCNNConfig, "nr_resnet", [0, 2.5, None]),
    (GatedPixelCNNConfig, "nr_filters", [0, "128"]),
    (GatedPixelCNNConfig, "filter_size", [1, -3, 5.0, None, (3, 3)]),
    (GatedPixelCNNConfig, "nr_output_filters", [0, None]),
    (GatedPixelCNNConfig, "num_classes", [0, 10.0, False]),
    (GatedPixelCNNConfig, "condition_shape", [(), (0,), (4, 4), "44", 3]),
    (GatedPixelCNNConfig, "condition_levels", [1, 65537, 9.0, None]),
    *(
        (each, name, values)
        for each in config.MODELS.values()
        for name, values in {
            "embedding_resnet": [-1, 1.0, None, True, 1],  # 1 without a picture
            "embedding_filters": [0, 1.0, True, 100],
            "embedding_resolutions": [0, 7, 2.0, None, 3],
        }.items()
    ),
    *(
        (each, name, values)
        for each in (RowLSTMConfig, DiagonalBiLSTMConfig)
        for name, values in {
            "kind": ["pixel_cnn", "pixel_rnn", "", None],
            "image_shape": [(0, 7, 1), (5, 7), None],
            "num_levels": [1, 4097, None],
            "nr_resnet": [0, 2.5, None],
            "nr_filters": [0, "128"],
            "nr_output_filters": [0, None],
            "num_classes": [0, 10.0, False],
            "condition_shape": [(), (0,), (4, 4), "44", 3],
            "condition_levels": [1, 65537, 9.0, None],
        }.items()
    ),
    (DataConfig, "data_set", ["", None, 3]),
    (DataConfig, "data_dir", ["", None, pathlib.Path("data"), b"data"]),
    (DataConfig, "image_size", [0, -8, 32.0, "32", True]),
    (DataConfig, "crop", ["centre", "", None, 1]),
    (DataConfig, "test_fraction", [0, 1, 1.0, -0.5, "0.1", True, float("nan")]),
    (DataConfig, "num_levels", [1, 0, 65537, 256.0, "256", True]),
    (DataConfig, "num_train_images", [0, -1, 64.0, "64", True]),
    (DataConfig, "channels_first", [1, "yes"]),
    (DataConfig, "convert", ["RGB", "", 1]),
    (DataConfig, "skip_odd", [1, "yes", None]),
    (DataConfig, "class_names", ["cat", 3, ["cat", ""], [1, 2]]),
    (DataConfig, "view", ["", 2, "half", "mean:1"]),
    (DataConfig, "condition_view", ["", 2, "half", ["mean:2"]]),
    (TrainingConfig, "save_dir", ["", None]),
    (TrainingConfig, "save_interval", [0, -1, 1.5]),
    (TrainingConfig, "save_minutes", [-1, float("nan"), float("inf"), "1", None]),
    (TrainingConfig, "keep", [0, -1, 2.0, None]),
    (TrainingConfig, "load_params", [1, 0, "true", None]),
    (TrainingConfig, "class_conditional", [1, "no"]),
    (TrainingConfig, "augment", ["flips", True, None]),
    (TrainingConfig, "optimizer", ["sgd", "Adam", None]),
    (TrainingConfig, "learning_rate", [0, 0.0, -1e-3, float("nan"), float("inf"), 10**400, "1"]),
    (TrainingConfig, "lr_decay", [0, -0.5, 1.000001, float("nan")]),
    (TrainingConfig, "batch_size", [0, -16, 16.0]),
    (TrainingConfig, "init_batch_size", [0, -16, None]),
    (TrainingConfig, "accumulate_steps", [0, -1, 2.0]),
    (TrainingConfig, "recompute", [1, None]),
    (TrainingConfig, "dtype", ["bfloat16", "float64", "", None]),
    (TrainingConfig, "max_epochs", [0, -1, 1e3]),
    (TrainingConfig, "max_minutes", [0, -1.0, float("nan"), float("inf"), "1"]),
    (TrainingConfig, "nr_gpu", [-1, 0.5, "8", True]),
    (TrainingConfig, "peer_timeout", [0, -1, float("nan"), None]),
    (TrainingConfig, "polyak_decay", [1, 1.0, -0.1, float("nan")]),
    (TrainingConfig, "num_samples", [-1, 1.0]),
    (TrainingConfig, "profile", ["", "10", "-", "3-", "3-2", "0-1", "-1-2", "a-b", "1-2-3", 10]),
    (TrainingConfig, "seed", [-1, 2**31, 1.0, None]),
]


def test_the_bad_values_cover_every_field():
    every_field = {(part, item.name) for part in CLASSES for item in dataclasses.fields(part)}
    assert {(part, name) for part, name, _ in BAD_VALUES} == every_field


@pytest.mark.parametrize(
    ("config_class", "name", "value"),
    [(part, name, value) for part, name, values in BAD_VALUES for value in values],
)
def test_a_bad_value_is_one_line_with_the_field_the_rule_and_what_was_received(
    config_class, name, value
):
    message = error_of(config_class, **{name: value})
    assert message.startswith(f"`{name}` must be ")
    assert f"Received: {name}=" in message


def test_the_message_says_the_rule_in_words():
    assert error_of(ModelConfig, nr_resnet=0) == (
        "`nr_resnet` must be an integer >= 1. Received: nr_resnet=0"
    )
    assert error_of(ModelConfig, dropout_p=1) == (
        "`dropout_p` must be a finite number >= 0 and < 1. Received: dropout_p=1"
    )
    assert error_of(ModelConfig, num_classes=0) == (
        "`num_classes` must be None or an integer >= 1. Received: num_classes=0"
    )
    assert error_of(DataConfig, image_size=0) == (
        "`image_size` must be None or an integer >= 1. Received: image_size=0"
    )
    assert error_of(ModelConfig, resnet_nonlinearity="gelu") == (
        "`resnet_nonlinearity` must be one of concat_elu, elu, relu. "
        "Received: resnet_nonlinearity='gelu'"
    )
    assert error_of(PixelCNNConfig, image_shape=(30, 0, 3)) == (
        "`image_shape` must be three positive integers (H, W, C). Received: image_shape=(30, 0, 3)"
    )
    assert error_of(PixelCNNConfig, kind="pixel_cnn_pp") == (
        "`kind` must be one of pixel_cnn. Received: kind='pixel_cnn_pp'"
    )


@pytest.mark.parametrize(
    ("config_class", "name", "value"),
    [
        (ModelConfig, "image_shape", (4, 8, 1)),
        (ModelConfig, "num_levels", 2),
        (ModelConfig, "num_levels", 65536),
        (ModelConfig, "nr_resnet", 1),
        (ModelConfig, "dropout_p", 0.0),
        (ModelConfig, "num_classes", 1),
        (ModelConfig, "min_log_scale", None),
        (PixelCNNConfig, "image_shape", (1, 1, 1)),
        (PixelCNNConfig, "num_levels", 2),
        (PixelCNNConfig, "num_levels", 4096),
        (PixelCNNConfig, "nr_resnet", 1),
        (PixelCNNConfig, "nr_filters", 1),
        (PixelCNNConfig, "nr_output_filters", 1),
        (PixelCNNConfig, "num_classes", 1),
        (GatedPixelCNNConfig, "nr_resnet", 1),
        (GatedPixelCNNConfig, "filter_size", 3),
        (DataConfig, "image_size", 4),
        (TrainingConfig, "lr_decay", 1.0),
        (TrainingConfig, "nr_gpu", 0),
        (TrainingConfig, "nr_gpu", None),
        (TrainingConfig, "polyak_decay", 0.0),
        (TrainingConfig, "num_samples", 0),
        (TrainingConfig, "seed", 0),
        (TrainingConfig, "seed", 2**31 - 1),
    ],
)
def test_the_last_good_value_at_each_bound_is_taken(config_class, name, value):
    assert getattr(config_class(**{name: value}), name) == value


def test_numpy_numbers_and_lists_become_plain_python():
    model = ModelConfig(
        image_shape=[np.int64(8), 12, np.uint8(1)],
        num_levels=np.uint16(17),
        dropout_p=0,
        num_classes=np.int32(10),
    )
    assert model == ModelConfig((8, 12, 1), num_levels=17, dropout_p=0.0, num_classes=10)
    assert type(model.image_shape) is tuple
    assert {type(size) for size in model.image_shape} == {int}
    assert type(model.num_levels) is int
    assert type(model.dropout_p) is float
    assert type(model.num_classes) is int
    assert type(TrainingConfig(learning_rate=np.float32(0.5)).learning_rate) is float
    assert ModelConfig(image_shape=np.array([8, 12, 1])).image_shape == (8, 12, 1)


def test_configurations_are_frozen_and_hashable():
    for instance in (*(each() for each in CLASSES), *map(specimen, config.MODELS)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(instance, dataclasses.fields(instance)[0].name, 1)
        assert hash(instance) == hash(dataclasses.replace(instance))
    assert len({ModelConfig(), ModelConfig(nr_resnet=5), ModelConfig(nr_resnet=3)}) == 2


def test_a_batch_that_is_not_divided_evenly_is_one_line():
    assert TrainingConfig(batch_size=12, accumulate_steps=4).accumulate_steps == 4
    assert error_of(TrainingConfig, batch_size=12, accumulate_steps=5) == (
        "`batch_size` must be a multiple of `accumulate_steps`. "
        "Received: batch_size=12, accumulate_steps=5"
    )


def test_the_steps_of_a_profile_include_both_ends():
    assert list(TrainingConfig(profile="2-4").profiled_steps()) == [2, 3, 4]
