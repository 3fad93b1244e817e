"""config/models.py: the options of each model, and which model a file names."""

import dataclasses
import json

import pytest
from config_cases import DEFAULTS_OF_SPECIMEN, error_of, specimen

from pixel_cnn_pp import config
from pixel_cnn_pp.config import (
    DiagonalBiLSTMConfig,
    GatedPixelCNNConfig,
    ModelConfig,
    PixelCNNConfig,
    RowLSTMConfig,
)

EACH_KIND = pytest.mark.parametrize("kind", config.MODELS)


@EACH_KIND
def test_every_model_has_a_specimen_without_defaults_and_a_kind_that_names_it(kind):
    model_class, model = config.MODELS[kind], specimen(kind).model
    assert type(model) is model_class and model.kind == model_class.kind == kind
    for item in dataclasses.fields(model):
        is_default = getattr(model, item.name) == item.default
        assert is_default == (item.name in DEFAULTS_OF_SPECIMEN), item.name


@EACH_KIND
def test_what_follows_from_the_data_is_a_field_of_every_model_and_the_shape_comes_first(kind):
    names = [item.name for item in dataclasses.fields(config.MODELS[kind])]
    assert {"image_shape", "num_levels", "num_classes"} <= set(names)
    assert config.MODELS[kind]((8, 12, 1)).image_shape == (8, 12, 1)


# PixelCNN++

SMALL = {"receptive_field": "11x5"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"receptive_field": "15x8", "nr_resnet": 2},
            "`nr_resnet` must be left out for a receptive_field of 15x8, which has 3 residual "
            "blocks. Received: nr_resnet=2",
        ),
        (
            {"small_variant": "nin"},
            "`small_variant` must be plain but for a small `receptive_field`. "
            "Received: small_variant='nin'",
        ),
        (
            {**SMALL, "shortcuts": False},
            "`shortcuts` must be True but for the full `receptive_field`. "
            "Received: shortcuts=False",
        ),
        (
            {**SMALL, "num_resolutions": 2},
            "`num_resolutions` must be 3 but for the full `receptive_field`. "
            "Received: num_resolutions=2",
        ),
        (
            {"num_resolutions": 1, "shortcuts": False},
            "`shortcuts` must be True but for 2 or 3 `num_resolutions`. Received: shortcuts=False",
        ),
        (
            {"num_resolutions": 4},
            "`num_resolutions` must be an integer >= 1 and <= 3. Received: num_resolutions=4",
        ),
        (
            {**SMALL, "small_variant": "autoregressive_channel", "nr_filters": 6},
            "`nr_filters` must be a multiple of 4 for small_variant=autoregressive_channel, which "
            "has as many groups of channels. Received: nr_filters=6",
        ),
        (
            {"energy_distance": True, "likelihood": "softmax"},
            "`likelihood` must be logistic_mixture but for a model without `energy_distance`. "
            "Received: likelihood='softmax'",
        ),
        (
            {"likelihood": "softmax", "num_levels": 4097},
            "`num_levels` must be at most 4096 for likelihood=softmax. Received: num_levels=4097",
        ),
    ],
)
def test_variants_that_contradict_each_other_are_one_line(values, message):
    assert error_of(ModelConfig, **values) == message


@pytest.mark.parametrize(("receptive_field", "num_blocks"), config.SMALL_FIELDS.items())
def test_a_small_field_has_its_number_of_blocks(receptive_field, num_blocks):
    model = ModelConfig(receptive_field=receptive_field)
    assert model.num_blocks == num_blocks
    # It does not stick to the configuration.
    assert dataclasses.replace(model, receptive_field="full").num_blocks == 5
    other = next(field for field in config.SMALL_FIELDS if field != receptive_field)
    assert dataclasses.replace(model, receptive_field=other).num_blocks != num_blocks
    # As an earlier version stored it, and as `replace` hands it on.
    stored = ModelConfig(receptive_field=receptive_field, nr_resnet=num_blocks)
    for same in (stored, dataclasses.replace(stored, nr_filters=8)):
        assert same.num_blocks == num_blocks


# PixelCNN


def test_the_defaults_of_pixel_cnn_are_the_papers_network_for_cifar10():
    # Van den Oord et al. 2016, section 4: 15 layers, h = 128, 1024 features before the softmax.
    assert dataclasses.astuple(PixelCNNConfig()) == (
        "pixel_cnn",
        (32, 32, 3),
        256,
        15,
        128,
        1024,
        None,
        None,
        256,
        0,
        None,
        2,
    )


def test_pixel_cnn_takes_images_of_any_size():
    assert PixelCNNConfig((5, 7, 4)).image_shape == (5, 7, 4)


# PixelRNN


@pytest.mark.parametrize("config_class", [RowLSTMConfig, DiagonalBiLSTMConfig])
def test_the_defaults_of_pixel_rnn_are_the_papers_network_for_cifar10(config_class):
    # Van den Oord et al. 2016, section 4: 12 layers, h = 128, 1024 features before the softmax.
    own = config_class()
    assert (own.image_shape, own.num_levels, own.nr_resnet) == ((32, 32, 3), 256, 12)
    assert (own.nr_filters, own.nr_output_filters, own.num_classes) == (128, 1024, None)
    assert config_class((5, 7, 4)).image_shape == (5, 7, 4)
    assert config_class() != ({RowLSTMConfig, DiagonalBiLSTMConfig} - {config_class}).pop()()


# Gated PixelCNN


def test_the_filters_of_gated_pixel_cnn_are_those_of_the_paper_and_odd():
    # Van den Oord et al. 2016b, section 3.1, for ImageNet. A filter has a centre.
    assert GatedPixelCNNConfig().filter_size == 5
    assert error_of(GatedPixelCNNConfig, filter_size=4) == (
        "`filter_size` must be an odd integer >= 3. Received: filter_size=4"
    )
    assert error_of(GatedPixelCNNConfig, filter_size=1) == (
        "`filter_size` must be an integer >= 3. Received: filter_size=1"
    )


# Which model


@EACH_KIND
def test_a_model_is_made_again_from_its_values_also_through_json(kind):
    model = specimen(kind).model
    values = json.loads(json.dumps(dataclasses.asdict(model)))
    assert values["kind"] == kind
    assert config.model_config(values) == model


def test_values_that_are_missing_take_the_defaults_of_the_kind():
    assert config.model_config({"kind": "pixel_cnn"}) == PixelCNNConfig()
    assert config.model_config({"kind": "pixel_cnn_pp", "num_levels": 4096}) == ModelConfig(
        num_levels=4096
    )


@pytest.mark.parametrize(("num_levels", "floor"), [(2, None), (256, None), (257, -7.0)])
def test_a_file_without_a_kind_is_pixel_cnn_pp_with_the_floor_it_had(num_levels, floor):
    model = config.model_config({"num_levels": num_levels, "nr_filters": 8})
    assert model == ModelConfig(num_levels=num_levels, nr_filters=8, min_log_scale=floor)
    assert config.model_config({}) == ModelConfig()


@pytest.mark.parametrize("kind", ["pixel_rnn", "", None, 3, ["pixel_cnn"], {}])
def test_an_unknown_kind_is_one_line(kind):
    assert error_of(config.model_config, {"kind": kind}) == (
        f"`kind` must be one of {', '.join(config.MODELS)}; a newer version may have written it. "
        f"Received: kind={kind!r}"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "pixel_cnn", "dropout_p": 0.5}, "Received: unknown=['dropout_p']"),
        ({"nr_output_filters": 8}, "Received: unknown=['nr_output_filters']"),
        ([], "must be a JSON object. Received: object=[]"),
        ({"kind": "pixel_cnn", "num_levels": 65536}, "<= 4096. Received: num_levels=65536"),
    ],
)
def test_values_that_are_not_of_the_kind_are_one_line(values, message):
    assert error_of(config.model_config, values).endswith(message)
