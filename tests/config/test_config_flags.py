"""config/flags.py: the options of a run on the command line."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from absl import flags
from config_cases import CLASSES, ROOT, error_of, field_names, parsed, specimen, values_of

from pixel_cnn_pp import config
from pixel_cnn_pp.config import DataConfig, ModelConfig, PixelCNNConfig, RunConfig, TrainingConfig

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
    (ModelConfig, "num_resolutions", None, 3, "int"),
    (ModelConfig, "embedding_resnet", None, 0, "int"),
    (ModelConfig, "embedding_filters", None, None, "int"),
    (ModelConfig, "embedding_resolutions", None, 2, "int"),
    (DataConfig, "data_set", "d", "cifar", "string"),
    (DataConfig, "data_dir", "i", "data", "string"),
    (DataConfig, "image_size", None, None, "int"),
    (DataConfig, "crop", None, "center", "string enum"),
    (DataConfig, "test_fraction", None, None, "float"),
    (DataConfig, "num_levels", None, None, "int"),
    (DataConfig, "num_train_images", None, None, "int"),
    (DataConfig, "channels_first", None, None, "bool"),
    (DataConfig, "convert", None, None, "string enum"),
    (DataConfig, "skip_odd", None, False, "bool"),
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
    (TrainingConfig, "max_epochs", "x", 5000, "int"),
    (TrainingConfig, "max_minutes", None, None, "float"),
    (TrainingConfig, "nr_gpu", "g", None, "int"),
    (TrainingConfig, "peer_timeout", None, 600.0, "float"),
    (TrainingConfig, "polyak_decay", None, 0.9995, "float"),
    (TrainingConfig, "num_samples", "ns", 1, "int"),
    (TrainingConfig, "profile", None, None, "string"),
    (TrainingConfig, "seed", "s", 1, "int"),
]
# Options of the network for a picture, which all models have.
EMBEDDING = ["embedding_resnet", "embedding_filters", "embedding_resolutions"]
# {kind: its options, as flags}, in the order of declaration.
OPTIONS = {
    "pixel_cnn_pp": [name for part, name, *_ in ORIGINAL_FLAGS if part is ModelConfig],
    "pixel_cnn": ["nr_resnet", "nr_filters", "nr_output_filters", *EMBEDDING],
    "row_lstm": ["nr_resnet", "nr_filters", "nr_output_filters", *EMBEDDING],
    "diagonal_bilstm": ["nr_resnet", "nr_filters", "nr_output_filters", *EMBEDDING],
    "gated_pixel_cnn": ["nr_resnet", "nr_filters", "filter_size", "nr_output_filters", *EMBEDDING],
}
FOLLOW_FROM_THE_DATA = ("class_names", "view", "condition_view")  # or from the stage of a chain
# They follow from the data, from --model, or from the file that a model is read from.
NO_FLAGS = {
    "kind",
    "image_shape",
    "num_levels",
    "num_classes",
    "condition_shape",
    "condition_levels",
    "min_log_scale",
    *FOLLOW_FROM_THE_DATA,
}


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
    with pytest.raises(flags.IllegalFlagValueError, match=r"`image_size` must be .*>= 1"):
        flag_values(["evaluate.py", "--image_size=0"])


def test_every_field_is_a_flag_but_those_that_follow_from_something_else():
    others = [name for part, name, *_ in ORIGINAL_FLAGS if part is not ModelConfig]
    names = field_names(DataConfig, TrainingConfig)
    assert others == [name for name in names if name not in FOLLOW_FROM_THE_DATA]
    for kind, options in OPTIONS.items():
        names = field_names(config.MODELS[kind])
        assert options == [name for name in names if name not in NO_FLAGS]
        values = config.values_from_flags(RunConfig, parsed(f"--model={kind}"))
        assert list(values) == ["kind", *options, *others]
    assert OPTIONS.keys() == config.MODELS.keys()


def test_no_two_fields_share_a_name_but_the_levels_that_the_model_takes_from_the_data():
    for model_class in config.MODELS.values():
        names = field_names(model_class, DataConfig, TrainingConfig)
        assert [name for name in names if names.count(name) > 1] == ["num_levels"] * 2
    assert parsed("--num_levels=9").num_levels == 9
    values = config.values_from_flags(ModelConfig, parsed("--num_levels=9"))
    assert "num_levels" not in values


def test_unparsed_defaults_make_the_default_configurations():
    flag_values = parsed()
    for part in CLASSES:
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
    other = values_of(specimen())
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


@pytest.mark.parametrize(
    "argument",
    ["-q=0", "-q=2.5", "-p=1", "-p=nan", "-l=0", "-l=inf", "-z=gelu", "-c=maybe", "-d=", "-s=-1"],
)
def test_a_bad_flag_ends_the_parse_in_one_line(argument):
    with pytest.raises(flags.IllegalFlagValueError) as caught:
        parsed(argument)
    assert "\n" not in str(caught.value)


# --model


@pytest.mark.parametrize("kind", config.MODELS)
def test_flags_that_are_not_given_are_the_defaults_of_the_chosen_model(kind):
    flag_values = parsed(f"--model={kind}")
    model_class = config.model_class_from_flags(flag_values)
    assert model_class is config.MODELS[kind]
    assert model_class(**config.values_from_flags(model_class, flag_values)) == model_class()
    assert config.explicit_values_from_flags(RunConfig, flag_values) == {"kind": kind}
    assert flag_values.nr_filters == 160 and flag_values.nr_resnet == 5


def test_without_a_flag_the_model_is_pixel_cnn_pp():
    assert config.model_class_from_flags(parsed()) is ModelConfig
    assert "kind" not in config.explicit_values_from_flags(RunConfig, parsed())


def test_a_flag_that_models_share_is_given_to_the_chosen_one_also_where_it_is_a_default():
    flag_values = parsed("--model=pixel_cnn", "-q", "2", "--nr_filters=160")
    values = config.values_from_flags(PixelCNNConfig, flag_values)
    own = {name: value for name, value in values.items() if name not in EMBEDDING}
    assert own == {"nr_resnet": 2, "nr_filters": 160, "nr_output_filters": 1024}
    flag_values = parsed("--model=pixel_cnn")
    flag_values.nr_filters = 160
    assert config.values_from_flags(PixelCNNConfig, flag_values)["nr_filters"] == 160


def test_the_flags_of_one_model_alone_have_its_defaults():
    flag_values = flags.FlagValues()
    config.define_flags(PixelCNNConfig, flag_values)
    flag_values(["train.py", "-q", "3"])
    assert flag_values.nr_filters == 128 and "model" not in flag_values
    values = config.values_from_flags(PixelCNNConfig, flag_values)
    assert PixelCNNConfig(**values) == PixelCNNConfig(nr_resnet=3)


def test_flags_without_defaults_leave_the_model_open():
    flag_values = flags.FlagValues()
    config.define_flags(RunConfig, flag_values, with_defaults=False)
    flag_values(["run.py", "--nr_output_filters=8"])
    assert flag_values.model is None and flag_values.nr_filters is None
    explicit = config.explicit_values_from_flags(RunConfig, flag_values)
    assert explicit == {"nr_output_filters": 8}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--model=pixel_cnn -m 10 --noshortcuts -q 3",
            "`nr_logistic_mix`, `shortcuts` must be left out: the model pixel_cnn has no such "
            "option. Received: nr_logistic_mix=10, shortcuts=False",
        ),
        (
            "--model=pixel_cnn --filter_size=3",
            "`filter_size` must be left out: the model pixel_cnn has no such option. "
            "Received: filter_size=3",
        ),
        (
            "--model=row_lstm --filter_size=3",
            "`filter_size` must be left out: the model row_lstm has no such option. "
            "Received: filter_size=3",
        ),
        (
            "--model=diagonal_bilstm --dropout_p=0.5",
            "`dropout_p` must be left out: the model diagonal_bilstm has no such option. "
            "Received: dropout_p=0.5",
        ),
        (
            "--model=gated_pixel_cnn --dropout_p=0.5 -m 10",
            "`nr_logistic_mix`, `dropout_p` must be left out: the model gated_pixel_cnn has no "
            "such option. Received: nr_logistic_mix=10, dropout_p=0.5",
        ),
        (
            "--nr_output_filters=1024",
            "`nr_output_filters` must be left out: the model pixel_cnn_pp has no such option. "
            "Received: nr_output_filters=1024",
        ),
    ],
)
def test_a_flag_that_the_chosen_model_lacks_is_one_line(arguments, message):
    flag_values = parsed(*arguments.split())
    assert error_of(config.model_class_from_flags, flag_values) == message
    assert error_of(config.values_from_flags, RunConfig, flag_values) == message


def test_an_unknown_model_ends_the_parse():
    expected = "one of <" + r"\|".join(config.MODELS) + ">"
    with pytest.raises(flags.IllegalFlagValueError, match=expected):
        parsed("--model=pixel_rnn")


def test_the_help_says_whose_a_flag_is_and_the_default_of_each_model():
    flag_values = parsed()
    of_two, of_one, of_all = (
        flag_values[name].help for name in ("nr_filters", "shortcuts", "batch_size")
    )
    for kind, default in (("pixel_cnn_pp", 160), ("pixel_cnn", 128), ("gated_pixel_cnn", 128)):
        (described,) = (
            item for item in dataclasses.fields(config.MODELS[kind]) if item.name == "nr_filters"
        )
        assert f"{kind}: {described.metadata['help']}; default: {default}" in of_two
    assert of_one.startswith("pixel_cnn_pp: Short-cut connections")
    assert of_all == "Images per step on each GPU"
    assert "van den Oord et al. 2016" in flag_values["model"].help


def test_the_flags_belong_to_who_defines_them_so_that_its_help_lists_them():
    names = {flag.name for flag in parsed().get_key_flags_for_module(parsed.__module__)}
    assert names == {"model", "preset"} | {name for own in OPTIONS.values() for name in own} | {
        name for _, name, *_ in ORIGINAL_FLAGS
    }


# A real script


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
    assert len(values) == 1 + len(ORIGINAL_FLAGS)  # the kind too
    assert explicit == {
        "nr_resnet": 3,
        "save_interval": 5,
        "load_params": True,
        "class_conditional": True,
        "max_epochs": 4,
        "num_samples": 2,
    }


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "-l=-1",
            "flag --learning_rate=-1.0: `learning_rate` must be a finite number > 0. "
            "Received: learning_rate=-1.0",
        ),
        ("--optimizer=sgd", "flag --optimizer=sgd: value should be one of <adamax|adam|rmsprop>"),
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
