"""config.py: what a run is, how it is checked, written, read, given as flags, and resumed."""

import dataclasses
import doctest
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from pixel_cnn_pp import config
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig

ROOT = pathlib.Path(config.__file__).parents[1]
PARTS = (ModelConfig, DataConfig, TrainingConfig)

# (class, field, short name, default, kind of flag), from train.py of the original's last release.
# Two defaults are ours (there, paths of the author's machine): data_dir and save_dir. More flags
# are ours: those of images that the original does not read, augment, optimizer (there, Adam alone),
# those of speed, of checkpoints within an epoch, of several machines and of the profile, and those
# of the paper's variants, of which the release has the energy distance alone.
ORIGINAL_FLAGS = [
    (ModelConfig, "nr_resnet", "q", 5, "int"),
    (ModelConfig, "nr_filters", "n", 160, "int"),
    (ModelConfig, "nr_logistic_mix", "m", 10, "int"),
    (ModelConfig, "resnet_nonlinearity", "z", "concat_elu", "string enum"),
    (ModelConfig, "dropout_p", "p", 0.5, "float"),
    (ModelConfig, "likelihood", None, "logistic_mixture", "string enum"),
    (ModelConfig, "receptive_field", None, "full", "string enum"),
    (ModelConfig, "small_variant", None, "plain", "string enum"),
    (ModelConfig, "shortcuts", None, True, "bool"),
    (ModelConfig, "energy_distance", "ed", False, "bool"),
    (DataConfig, "data_set", "d", "cifar", "string"),
    (DataConfig, "data_dir", "i", "data", "string"),
    (DataConfig, "image_size", None, None, "int"),
    (DataConfig, "crop", None, "center", "string enum"),
    (DataConfig, "test_fraction", None, None, "float"),
    (DataConfig, "num_levels", None, None, "int"),
    (DataConfig, "num_train_images", None, None, "int"),
    (TrainingConfig, "save_dir", "o", "save", "string"),
    (TrainingConfig, "save_interval", "t", 20, "int"),
    (TrainingConfig, "save_minutes", None, 30.0, "float"),
    (TrainingConfig, "keep", None, 2, "int"),
    (TrainingConfig, "load_params", "r", False, "bool"),
    (TrainingConfig, "class_conditional", "c", False, "bool"),
    (TrainingConfig, "augment", None, "none", "string enum"),
    (TrainingConfig, "optimizer", None, "adamax", "string enum"),
    (TrainingConfig, "learning_rate", "l", 0.001, "float"),
    (TrainingConfig, "lr_decay", "e", 0.999995, "float"),
    (TrainingConfig, "batch_size", "b", 16, "int"),
    (TrainingConfig, "init_batch_size", "u", 16, "int"),
    (TrainingConfig, "accumulate_steps", None, 1, "int"),
    (TrainingConfig, "recompute", None, False, "bool"),
    (TrainingConfig, "dtype", None, "float32", "string enum"),
    (TrainingConfig, "jit_compile", None, False, "bool"),
    (TrainingConfig, "max_epochs", "x", 5000, "int"),
    (TrainingConfig, "nr_gpu", "g", 8, "int"),
    (TrainingConfig, "peer_timeout", None, 600.0, "float"),
    (TrainingConfig, "polyak_decay", None, 0.9995, "float"),
    (TrainingConfig, "num_samples", "ns", 1, "int"),
    (TrainingConfig, "profile", None, None, "string"),
    (TrainingConfig, "seed", "s", 1, "int"),
]

BAD_VALUES = [
    (ModelConfig, "image_shape", [(30, 32, 3), (32, 30, 3), (0, 32, 3), (32, -4, 3), (8, 12, 0)]),
    (ModelConfig, "image_shape", [(8, 12), (8, 12, 3, 1), 8, None, "abc", (8.0, 12, 3), [[8], 12]]),
    (ModelConfig, "image_shape", [(True, 12, 3), np.ones((3, 3), int), np.zeros((40, 40))]),
    (ModelConfig, "num_levels", [1, 0, -256, 65537, 256.0, "256", None, True]),
    (ModelConfig, "nr_resnet", [0, -1, 2.5, "5", True, None, [5]]),
    (ModelConfig, "nr_filters", [0, -160, 160.0, None]),
    (ModelConfig, "nr_logistic_mix", [0, -1, False]),
    (ModelConfig, "resnet_nonlinearity", ["gelu", "", "Elu", None, 1, ["elu"]]),
    (ModelConfig, "dropout_p", [1, 1.0, -0.1, float("nan"), "0.5", True, None, np.ones(2)]),
    (ModelConfig, "num_classes", [0, -1, 10.0, "10", True]),
    (ModelConfig, "likelihood", ["mixture", "", None, 1]),
    (ModelConfig, "receptive_field", ["5x11", "11", None, 11]),
    (ModelConfig, "small_variant", ["none", "", None]),
    (ModelConfig, "shortcuts", [1, "yes", None]),
    (ModelConfig, "energy_distance", [1, "no", None]),
    (DataConfig, "data_set", ["", None, 3]),
    (DataConfig, "data_dir", ["", None, pathlib.Path("data"), b"data"]),
    (DataConfig, "image_size", [0, 2, -8, 30, 32.0, "32", True]),
    (DataConfig, "crop", ["centre", "", None, 1]),
    (DataConfig, "test_fraction", [0, 1, 1.0, -0.5, "0.1", True, float("nan")]),
    (DataConfig, "num_levels", [1, 0, 65537, 256.0, "256", True]),
    (DataConfig, "num_train_images", [0, -1, 64.0, "64", True]),
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
    (TrainingConfig, "jit_compile", [1, "yes"]),
    (TrainingConfig, "max_epochs", [0, -1, 1e3]),
    (TrainingConfig, "nr_gpu", [-1, 0.5, None]),
    (TrainingConfig, "peer_timeout", [0, -1, float("nan"), None]),
    (TrainingConfig, "polyak_decay", [1, 1.0, -0.1, float("nan")]),
    (TrainingConfig, "num_samples", [-1, 1.0]),
    (TrainingConfig, "profile", ["", "10", "-", "3-", "3-2", "0-1", "-1-2", "a-b", "1-2-3", 10]),
    (TrainingConfig, "seed", [-1, 2**31, 1.0, None]),
]


# They are there for the full receptive field, and for the default likelihood, only.
DEFAULTS_OF_SPECIMEN = ("shortcuts", "energy_distance")


def specimen():
    """A run in which no field has its default, but for those that contradict others."""
    return RunConfig(
        ModelConfig((8, 12, 1), 17, 2, 24, 3, "elu", 0.1, 10, "softmax", "11x5", "nin"),
        DataConfig("folder:é", "/data/é", 8, "random", 0.25, 17, 300),
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
            jit_compile=True,
            max_epochs=7,
            nr_gpu=0,
            peer_timeout=60.0,
            polyak_decay=0.99,
            num_samples=2,
            profile="2-3",
            seed=2**31 - 1,
        ),
    )


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


# Fields


def test_specimen_has_no_default_and_the_bad_values_cover_every_field():
    for part in PARTS:
        (mine,) = (value for value in vars(specimen()).values() if isinstance(value, part))
        for item in dataclasses.fields(part):
            is_default = getattr(mine, item.name) == item.default
            assert is_default == (item.name in DEFAULTS_OF_SPECIMEN), item.name
    every_field = {(part, item.name) for part in PARTS for item in dataclasses.fields(part)}
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


def test_a_batch_that_is_not_divided_evenly_is_one_line():
    assert TrainingConfig(batch_size=12, accumulate_steps=4).accumulate_steps == 4
    assert error_of(TrainingConfig, batch_size=12, accumulate_steps=5) == (
        "`batch_size` must be a multiple of `accumulate_steps`. "
        "Received: batch_size=12, accumulate_steps=5"
    )
    assert "`accumulate_steps`" in error_of(config.resume, specimen(), {"batch_size": 9})


SMALL = {"receptive_field": "11x5", "nr_resnet": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"receptive_field": "15x8"},
            "`nr_resnet` must be 3 for a receptive_field of 15x8: the number of blocks makes the "
            "field. Received: nr_resnet=5",
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


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ({}, "bits/dim"),
        ({"likelihood": "softmax"}, "bits/dim"),
        ({"likelihood": "dequantized"}, "bits/dim (bound)"),
        ({"energy_distance": True}, "energy distance"),
    ],
)
def test_a_bound_and_a_distance_are_called_so(values, unit):
    assert ModelConfig(**values).loss_unit == unit


def test_the_steps_of_a_profile_include_both_ends():
    assert list(TrainingConfig(profile="2-4").profiled_steps()) == [2, 3, 4]


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
    assert error_of(DataConfig, image_size=30) == (
        "`image_size` must be None or an integer >= 4 and a multiple of 4. Received: image_size=30"
    )
    assert error_of(ModelConfig, resnet_nonlinearity="gelu") == (
        "`resnet_nonlinearity` must be one of concat_elu, elu, relu. "
        "Received: resnet_nonlinearity='gelu'"
    )
    assert error_of(ModelConfig, image_shape=(30, 32, 3)) == (
        "`image_shape` must be three integers (H, W, C), H and W positive multiples of 4, C >= 1. "
        "Received: image_shape=(30, 32, 3)"
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
        (DataConfig, "image_size", 4),
        (TrainingConfig, "lr_decay", 1.0),
        (TrainingConfig, "nr_gpu", 0),
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
    for instance in (ModelConfig(), DataConfig(), TrainingConfig(), specimen()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(instance, dataclasses.fields(instance)[0].name, 1)
        assert hash(instance) == hash(dataclasses.replace(instance))
    assert len({ModelConfig(), ModelConfig(nr_resnet=5), ModelConfig(nr_resnet=3)}) == 2


def test_a_run_takes_parts_of_their_classes_only():
    message = error_of(RunConfig, ModelConfig(), TrainingConfig(), TrainingConfig())
    assert message.startswith("`data` must be a DataConfig. Received: data=TrainingConfig(")


def test_examples_in_the_docstrings_run():
    failed, attempted = doctest.testmod(config)
    assert failed == 0
    assert attempted >= 6


def test_config_imports_neither_tensorflow_nor_keras_nor_another_module_of_the_package():
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'pixel_cnn_pp')!r})\n"
        "import config\n"  # the file by itself, without the package's __init__
        "tops = {name.split('.')[0] for name in sys.modules}\n"
        "found = tops & {'tensorflow', 'keras', 'tf_keras', 'jax', 'pixel_cnn_pp'}\n"
        "assert not found, found\n"
    )
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr


# JSON


def test_json_gives_back_the_same_run():
    for run in (specimen(), RunConfig(ModelConfig(), DataConfig(), TrainingConfig())):
        assert config.from_json(config.to_json(run)) == run


def test_json_is_readable_and_in_the_order_of_declaration():
    text = config.to_json(specimen())
    assert text.endswith("}\n")
    assert '\n    "nr_filters": 24,\n' in text
    values = json.loads(text)
    assert list(values) == ["model", "data", "training"]
    for part in dataclasses.fields(RunConfig):
        assert list(values[part.name]) == [item.name for item in dataclasses.fields(part.type)]


def test_a_field_missing_from_an_older_file_takes_its_default():
    values = json.loads(config.to_json(specimen()))
    del values["model"]["nr_filters"], values["training"]["optimizer"]
    run = config.from_json(json.dumps(values))
    assert config.differences(specimen(), run) == [
        "nr_filters: 24 != 160",
        "optimizer: 'adam' != 'adamax'",
    ]


def test_a_missing_part_is_an_error_that_names_it():
    values = json.loads(config.to_json(specimen()))
    del values["data"], values["training"]
    message = error_of(config.from_json, json.dumps(values))
    assert message.endswith("Received: missing=['data', 'training']")


def test_every_unknown_field_is_named_with_its_place():
    values = json.loads(config.to_json(specimen()))
    values["model"] |= {"nr_filter": 24, "de\npth": 1}
    message = error_of(config.from_json, json.dumps(values))
    assert message.endswith(r"Received: unknown=['model.nr_filter', 'model.de\npth']")


@pytest.mark.parametrize("text", ["", "{", '{"model": 1,}', "nonsense", '{"model": {}\n\n"data"}'])
def test_broken_json_is_one_line(text):
    assert error_of(config.from_json, text).startswith("A configuration must be JSON. ")


def test_json_that_is_no_object_is_one_line():
    assert error_of(config.from_json, "[1]").startswith("A configuration must be a JSON object. ")
    values = json.loads(config.to_json(specimen())) | {"data": None}
    message = error_of(config.from_json, json.dumps(values))
    assert message.startswith("`data` must be a JSON object. ")


def test_a_bad_value_in_json_names_its_field():
    values = json.loads(config.to_json(specimen()))
    values["training"]["learning_rate"] = float("nan")
    assert "`learning_rate`" in error_of(config.from_json, json.dumps(values))


# Flags


@pytest.mark.parametrize(("config_class", "name", "short", "default", "kind"), ORIGINAL_FLAGS)
def test_flags_have_the_original_names_short_names_and_defaults(
    config_class, name, short, default, kind
):
    flag_values = flags.FlagValues()
    config.define_flags(config_class, flag_values)
    flag = flag_values[name]
    assert flag.short_name == short
    assert flag.default == default
    assert flag.flag_type() == kind
    assert short is None or flag_values[short] is flag
    (described,) = (item for item in dataclasses.fields(config_class) if item.name == name)
    assert flag.help.endswith(described.metadata["help"])


def test_flags_without_defaults_tell_what_is_given_from_what_is_not():
    flag_values = flags.FlagValues()
    config.define_flags(DataConfig, flag_values, with_defaults=False)
    flag_values(["evaluate.py", "-d", "photos", "--image_size=32"])
    assert set(config.values_from_flags(DataConfig, flag_values).values()) == {"photos", 32, None}
    given = {"data_set": "photos", "image_size": 32}
    assert config.explicit_values_from_flags(DataConfig, flag_values) == given
    with pytest.raises(flags.IllegalFlagValueError, match=r"`image_size` must be .* of 4"):
        flag_values(["evaluate.py", "--image_size=30"])


def test_every_field_is_a_flag_but_those_that_follow_from_the_data():
    assert [name for _, name, *_ in ORIGINAL_FLAGS] == [
        item.name
        for part in PARTS
        for item in dataclasses.fields(part)
        if part is not ModelConfig or item.name not in {"image_shape", "num_levels", "num_classes"}
    ]
    assert list(config.values_from_flags(RunConfig, parsed())) == [
        name for _, name, *_ in ORIGINAL_FLAGS
    ]


def test_no_two_fields_share_a_name_but_the_levels_that_the_model_takes_from_the_data():
    names = [item.name for part in PARTS for item in dataclasses.fields(part)]
    assert [name for name in names if names.count(name) > 1] == ["num_levels"] * 2
    assert parsed("--num_levels=9").num_levels == 9
    values = config.values_from_flags(ModelConfig, parsed("--num_levels=9"))
    assert "num_levels" not in values


def test_levels_on_resume_are_those_of_the_data():
    stored = RunConfig(ModelConfig(num_levels=9), DataConfig(num_levels=9), TrainingConfig())
    assert config.resume(stored, {"num_levels": 9}) == stored
    message = error_of(config.resume, stored, {"num_levels": 10})
    assert message.endswith("Received: num_levels: 9 != 10 (checkpoint != given)")


def test_unparsed_defaults_make_the_default_configurations():
    flag_values = parsed()
    for part in PARTS:
        assert part(**config.values_from_flags(part, flag_values)) == part()


@pytest.mark.parametrize(
    "command_line",
    [
        "-ns 2 -c -q 3 -l 1e-2 -z relu -r -x 4 -t 1",
        "-ns=2 -c -q=3 -l=1e-2 -z=relu -r -x=4 -t=1",
        "--num_samples 2 --class_conditional --nr_resnet 3 --learning_rate 1e-2"
        " --resnet_nonlinearity relu --load_params --max_epochs 4 --save_interval 1",
        "--num_samples=2 --class_conditional=true --nr_resnet=3 --learning_rate=1e-2"
        " --resnet_nonlinearity=relu --load_params=1 --max_epochs=4 --save_interval=1",
    ],
)
def test_flags_can_be_given_short_or_long_with_or_without_the_equals_sign(command_line):
    flag_values = parsed(*command_line.split())
    assert config.explicit_values_from_flags(RunConfig, flag_values) == {
        "nr_resnet": 3,
        "resnet_nonlinearity": "relu",
        "save_interval": 1,
        "load_params": True,
        "class_conditional": True,
        "learning_rate": 0.01,
        "max_epochs": 4,
        "num_samples": 2,
    }
    values = config.values_from_flags(RunConfig, flag_values)
    assert values["nr_resnet"] == 3
    assert values["nr_filters"] == 160


def test_every_short_name_sets_its_field_and_no_other():
    other = {**vars(specimen().model), **vars(specimen().data), **vars(specimen().training)}
    for _, name, short, _, kind in ORIGINAL_FLAGS:
        if short is not None:
            arguments = [f"-{short}"] if kind == "bool" else [f"-{short}", str(other[name])]
            explicit = config.explicit_values_from_flags(RunConfig, parsed(*arguments))
            assert explicit == {name: True if kind == "bool" else other[name]}


def test_a_flag_given_with_its_default_is_explicit_too():
    flag_values = parsed("--nr_filters=160", "--noload_params")
    explicit = config.explicit_values_from_flags(RunConfig, flag_values)
    assert explicit == {"nr_filters": 160, "load_params": False}
    assert config.explicit_values_from_flags(DataConfig, flag_values) == {}


def test_a_flag_set_by_code_is_not_explicit():
    flag_values = parsed()
    flag_values.seed = 5
    assert config.values_from_flags(RunConfig, flag_values)["seed"] == 5
    assert config.explicit_values_from_flags(RunConfig, flag_values) == {}


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
}
OF_THE_PAPER = {"nr_filters": 192, "dropout_p": 0.5, "data_set": "cifar"}
WITHOUT_A_NUMBER = {
    "release": {"nr_filters": 160, "dropout_p": 0.5},
    "softmax": {"likelihood": "softmax", **OF_THE_PAPER},
    "no_shortcuts": {"shortcuts": False, **OF_THE_PAPER},
    "no_dropout": {**OF_THE_PAPER, "dropout_p": 0.0},
    "energy_distance": {"energy_distance": True, "nr_filters": 160},
}


def test_there_is_a_preset_for_every_model_of_the_paper_with_its_number():
    numbers = {name: preset.bits_per_dim for name, preset in config.PRESETS.items()}
    assert numbers == PAPER | dict.fromkeys(WITHOUT_A_NUMBER)
    assert all(preset.source for preset in config.PRESETS.values())


@pytest.mark.parametrize("name", config.PRESETS)
def test_a_preset_is_a_run_that_flags_beside_it_change(name):
    flag_values = parsed(f"--preset={name}", "--learning_rate=0.5")
    values = config.values_from_flags(RunConfig, flag_values)
    for field, value in WITHOUT_A_NUMBER.get(name, OF_THE_PAPER).items():
        assert values[field] == value
    assert values["learning_rate"] == 0.5 and values["batch_size"] == 16
    model = ModelConfig(**config.values_from_flags(ModelConfig, flag_values))
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


@pytest.mark.parametrize(
    "argument",
    ["-q=0", "-q=2.5", "-p=1", "-p=nan", "-l=0", "-l=inf", "-z=gelu", "-c=maybe", "-d=", "-s=-1"],
)
def test_a_bad_flag_ends_the_parse_in_one_line(argument):
    with pytest.raises(flags.IllegalFlagValueError) as caught:
        parsed(argument)
    assert "\n" not in str(caught.value)


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(
        "import json\n"
        "from absl import app, logging\n"
        "from pixel_cnn_pp import config\n"
        "config.define_flags(config.RunConfig)\n"
        "def main(argv):\n"
        "    values = config.values_from_flags(config.RunConfig)\n"
        "    explicit = config.explicit_values_from_flags(config.RunConfig)\n"
        "    print(json.dumps([argv[1:], values, explicit]))\n"
        "if __name__ == '__main__':\n"
        "    app.run(main)\n"
    )
    return str(path)


def test_a_real_script_takes_our_short_flags_beside_those_of_absl(script):
    result = run_python(script, "-ns", "2", "-c", "-q", "3", "-x=4", "-r", "-t", "5", "-v", "1")
    assert result.returncode == 0, result.stderr
    rest, values, explicit = json.loads(result.stdout)
    assert rest == []
    assert len(values) == len(ORIGINAL_FLAGS)
    assert explicit == {
        "nr_resnet": 3,
        "save_interval": 5,
        "load_params": True,
        "class_conditional": True,
        "max_epochs": 4,
        "num_samples": 2,
    }


def test_the_help_of_a_real_script_lists_our_flags(script):
    result = run_python(script, "--help")
    for _, name, short, *_ in ORIGINAL_FLAGS:
        assert f"{name}:" in result.stdout
        assert short is None or f"-{short},--" in result.stdout


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "-l=-1",
            "flag --learning_rate=-1.0: `learning_rate` must be a finite number > 0. "
            "Received: learning_rate=-1.0",
        ),
        ("--optimizer=sgd", "flag --optimizer=sgd: value should be one of <adamax|adam>"),
    ],
)
def test_a_bad_flag_of_a_real_script_is_one_line_and_no_traceback(script, argument, line):
    result = run_python(script, argument)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"FATAL Flags parsing error: {line}",
        "Pass --helpshort or --helpfull to see help on flags.",
    ]


# Resume

MAY_CHANGE = {
    "save_dir": "elsewhere",
    "data_dir": "elsewhere",
    "augment": "none",
    "save_interval": 9,
    "save_minutes": 9.0,
    "keep": 9,
    "load_params": False,
    "learning_rate": 0.5,
    "lr_decay": 0.5,
    "polyak_decay": 0.5,
    "batch_size": 10,
    "init_batch_size": 9,
    "accumulate_steps": 1,
    "recompute": False,
    "dtype": "float32",
    "jit_compile": False,
    "max_epochs": 9,
    "nr_gpu": 9,
    "peer_timeout": 9.0,
    "num_samples": 9,
    "profile": None,
    "seed": 9,
}
MAY_NOT_CHANGE = {
    "image_shape": (4, 4, 4),
    "num_levels": 9,
    "nr_resnet": 9,
    "nr_filters": 9,
    "nr_logistic_mix": 9,
    "resnet_nonlinearity": "relu",
    "dropout_p": 0.25,
    "num_classes": None,
    "likelihood": "dequantized",
    "receptive_field": "full",
    "small_variant": "plain",
    "shortcuts": False,
    "energy_distance": True,
    "data_set": "cifar",
    "image_size": None,
    "crop": "center",
    "test_fraction": None,
    "num_train_images": None,
    "class_conditional": False,
    "optimizer": "adamax",
}


def test_each_field_either_may_change_on_resume_or_may_not():
    every_field = {item.name for part in PARTS for item in dataclasses.fields(part)}
    assert MAY_CHANGE.keys() | MAY_NOT_CHANGE.keys() == every_field
    assert not MAY_CHANGE.keys() & MAY_NOT_CHANGE.keys()


def test_a_resumed_run_is_the_stored_one_where_nothing_is_given():
    assert config.resume(specimen(), {}) == specimen()


@pytest.mark.parametrize("name", MAY_CHANGE)
def test_a_field_that_may_change_takes_the_given_value_on_resume(name):
    resumed = config.resume(specimen(), {name: MAY_CHANGE[name]})
    changes = config.differences(specimen(), resumed)
    assert len(changes) == 1
    assert changes[0].startswith(f"{name}: ")
    assert changes[0].endswith(f" != {MAY_CHANGE[name]!r}")


@pytest.mark.parametrize("name", MAY_NOT_CHANGE)
def test_a_field_that_may_not_change_is_an_error_on_resume(name):
    message = error_of(config.resume, specimen(), {name: MAY_NOT_CHANGE[name]})
    assert f"Received: {name}: " in message


def test_a_field_that_may_not_change_can_be_given_again_as_it_was():
    stored = specimen()
    same = {**vars(stored.model), **vars(stored.data), **vars(stored.training)}
    same["image_shape"] = list(same["image_shape"])
    assert config.resume(stored, same) == stored


def test_one_error_names_every_field_that_cannot_change_with_both_values():
    explicit = {"seed": 9, "optimizer": "adamax", "nr_filters": 160, "nr_resnet": 2}
    message = error_of(config.resume, specimen(), explicit)
    assert message.endswith(
        "Received: nr_filters: 24 != 160, optimizer: 'adam' != 'adamax' (checkpoint != given)"
    )


def test_resume_checks_the_given_values_and_names():
    assert "`batch_size`" in error_of(config.resume, specimen(), {"batch_size": 0})
    message = error_of(config.resume, specimen(), {"batchsize": 4})
    assert message.endswith("Received: unknown=['batchsize']")


def test_differences_lists_every_field_that_differs_and_equal_runs_have_none():
    run = RunConfig(ModelConfig(), DataConfig(), TrainingConfig())
    assert config.differences(run, run) == []
    every_field = [item.name for part in PARTS for item in dataclasses.fields(part)]
    every_field = [name for name in every_field if name not in DEFAULTS_OF_SPECIMEN]
    found = config.differences(run, specimen())
    assert [line.split(":")[0] for line in found] == every_field
    assert config.differences(ModelConfig(), ModelConfig(dropout_p=0)) == ["dropout_p: 0.5 != 0.0"]
