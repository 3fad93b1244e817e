"""config/presets.py: the models of the papers by name, and flags beside their names."""

import pytest
from config_cases import error_of, parsed, specimen

from pixel_cnn_pp import config
from pixel_cnn_pp.config import ModelConfig, RunConfig

# Table 2 and sections 3.1, 3.2 and 3.4.2 of Salimans et al. 2017.
PAPER = {
    "cifar10": 2.92,
    "cifar10_class_conditional": 2.94,
    "small_11x5_plain": 3.11,
    "small_11x5_nin": 3.09,
    "small_11x5_autoregressive_channel": 3.07,
    "small_15x8_plain": 3.07,
    "small_15x8_nin": 3.04,
    "small_15x8_autoregressive_channel": 3.03,
    "dequantized": 3.11,
    # Table 5 of van den Oord et al. 2016.
    "pixel_cnn": 3.14,
    "row_lstm": 3.07,
    "diagonal_bilstm": 3.00,
    # Tables 1 and 2 of van den Oord et al. 2016b.
    "gated_pixel_cnn": 3.03,
    "gated_pixel_cnn_imagenet32": 3.83,
    "gated_pixel_cnn_imagenet64": 3.57,
}
OF_THE_PAPER = {"nr_filters": 192, "dropout_p": 0.5, "data_set": "cifar"}
# Van den Oord et al. 2016, sections 4 and 5.2.
PIXEL_RNN = {
    "nr_filters": 128,
    "nr_output_filters": 1024,
    "data_set": "cifar",
    "optimizer": "rmsprop",
}
OTHERS = {
    "pixel_cnn": {"kind": "pixel_cnn", "nr_resnet": 15, **PIXEL_RNN},
    "row_lstm": {"kind": "row_lstm", "nr_resnet": 12, **PIXEL_RNN},
    "diagonal_bilstm": {"kind": "diagonal_bilstm", "nr_resnet": 12, **PIXEL_RNN},
    "gated_pixel_cnn": {
        "kind": "gated_pixel_cnn",
        "nr_resnet": 15,
        "nr_filters": 128,
        "filter_size": 5,
        "data_set": "cifar",
    },
}
# Van den Oord et al. 2016b, section 3.1: 20 layers of 384 features, filters of 5 x 5.
for size in (32, 64):
    OTHERS[f"gated_pixel_cnn_imagenet{size}"] = {
        "kind": "gated_pixel_cnn",
        "nr_resnet": 20,
        "nr_filters": 384,
        "filter_size": 5,
        "data_set": f"imagenet{size}",
    }
WITHOUT_A_NUMBER = {
    "release": {"nr_filters": 160, "dropout_p": 0.5},
    "softmax": {"likelihood": "softmax", **OF_THE_PAPER},
    "no_shortcuts": {"shortcuts": False, **OF_THE_PAPER},
    "no_dropout": {**OF_THE_PAPER, "dropout_p": 0.0},
    "energy_distance": {"energy_distance": True, "nr_filters": 160},
    # The paper reports nats: the source has them.
    "diagonal_bilstm_mnist": {
        **PIXEL_RNN,
        "kind": "diagonal_bilstm",
        "nr_resnet": 7,
        "nr_filters": 16,
        "nr_output_filters": 32,
        "data_set": "binarized_mnist",
    },
}


def test_there_is_a_preset_for_every_model_of_the_paper_with_its_number():
    numbers = {name: preset.bits_per_dim for name, preset in config.PRESETS.items()}
    assert numbers == PAPER | dict.fromkeys(WITHOUT_A_NUMBER)
    assert all(preset.source for preset in config.PRESETS.values())


@pytest.mark.parametrize("name", config.PRESETS)
def test_a_preset_is_a_run_that_flags_beside_it_change(name):
    flag_values = parsed(f"--preset={name}", "--learning_rate=0.5")
    values = config.values_from_flags(RunConfig, flag_values)
    assert set(config.PRESETS[name].values) <= set(values)
    expected = {**WITHOUT_A_NUMBER, **OTHERS}.get(name, OF_THE_PAPER)
    for field, value in {"kind": "pixel_cnn_pp", **expected}.items():
        assert values[field] == value
    assert values["learning_rate"] == 0.5 and values["batch_size"] == 16
    model_class = config.model_class_from_flags(flag_values)
    assert model_class.kind == config.PRESETS[name].kind
    model = model_class(**config.values_from_flags(model_class, flag_values))
    if name.startswith("small"):
        _, receptive_field, variant = name.split("_", 2)
        assert (model.receptive_field, model.small_variant) == (receptive_field, variant)
    assert values["class_conditional"] == (name == "cifar10_class_conditional")


def test_a_flag_wins_over_the_preset_also_where_it_is_the_default():
    flag_values = parsed("--preset=no_dropout", "--dropout_p=0.5", "-n", "8", "-d=digits")
    values = config.values_from_flags(RunConfig, flag_values)
    assert (values["dropout_p"], values["nr_filters"], values["data_set"]) == (0.5, 8, "digits")
    explicit = config.explicit_values_from_flags(ModelConfig, flag_values)
    assert explicit == {"nr_filters": 8, "dropout_p": 0.5, "nr_resnet": 5}


def test_a_resumed_run_keeps_its_model_whatever_the_preset():
    flag_values = parsed("--preset=softmax", "--nr_filters=24", "--nr_resnet=2", "-d=folder:é")
    explicit = config.explicit_values_from_flags(RunConfig, flag_values)
    message = error_of(config.resume, specimen(), explicit)
    assert message.endswith("Received: dropout_p: 0.1 != 0.5 (checkpoint != given)")


@pytest.mark.parametrize("receptive_field", config.SMALL_FIELDS)
def test_a_preset_leaves_the_blocks_of_a_small_field_to_the_field(receptive_field):
    flag_values = parsed(f"--preset=small_{receptive_field}_plain")
    model = ModelConfig(**config.values_from_flags(ModelConfig, flag_values))
    assert model.num_blocks == config.SMALL_FIELDS[receptive_field]
    assert "nr_resnet" not in config.explicit_values_from_flags(RunConfig, flag_values)


def test_a_preset_says_which_model_it_is_of_also_on_resume():
    explicit = config.explicit_values_from_flags(RunConfig, parsed("--preset=pixel_cnn"))
    assert explicit == config.PRESETS["pixel_cnn"].values
    message = error_of(config.resume, specimen(), explicit)
    assert "Received: kind: 'pixel_cnn_pp' != 'pixel_cnn', nr_resnet: 2 != 15, " in message
    explicit = config.explicit_values_from_flags(RunConfig, parsed("--preset=release"))
    assert explicit == {"kind": "pixel_cnn_pp"}


def test_the_model_of_a_preset_can_be_given_beside_it():
    flag_values = parsed("--preset=pixel_cnn", "--model=pixel_cnn", "-n", "8")
    values = config.values_from_flags(RunConfig, flag_values)
    assert (values["kind"], values["nr_filters"], values["nr_resnet"]) == ("pixel_cnn", 8, 15)


@pytest.mark.parametrize(
    ("preset", "model", "right"),
    [("cifar10", "pixel_cnn", "pixel_cnn_pp"), ("pixel_cnn", "pixel_cnn_pp", "pixel_cnn")],
)
def test_a_preset_beside_another_model_is_one_line(preset, model, right):
    flag_values = parsed(f"--preset={preset}", f"--model={model}")
    expected = (
        f"`model` must be left out, or be {right} for the preset {preset}. Received: model={model}"
    )
    assert error_of(config.model_class_from_flags, flag_values) == expected
    assert error_of(config.explicit_values_from_flags, RunConfig, flag_values) == expected


def test_a_flag_that_the_model_of_the_preset_lacks_is_one_line():
    flag_values = parsed("--preset=pixel_cnn", "--dropout_p=0.1")
    message = error_of(config.values_from_flags, RunConfig, flag_values)
    assert message.startswith("`dropout_p` must be left out: the model pixel_cnn has no such opt")
