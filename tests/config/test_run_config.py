"""config/run.py: a run written, read, compared and resumed; what the room imports."""

import dataclasses
import json

import pytest
from config_cases import (
    CLASSES,
    DEFAULTS_OF_SPECIMEN,
    error_of,
    field_names,
    specimen,
    values_of,
)

from pixel_cnn_pp import config
from pixel_cnn_pp.config import DataConfig, ModelConfig, PixelCNNConfig, RunConfig, TrainingConfig

EACH_KIND = pytest.mark.parametrize("kind", config.MODELS)


def test_no_default_is_in_the_specimen():
    for part in (specimen().data, specimen().training):
        for item in dataclasses.fields(part):
            assert getattr(part, item.name) != item.default, item.name


def test_a_run_takes_parts_of_their_classes_only():
    message = error_of(RunConfig, ModelConfig(), TrainingConfig(), TrainingConfig())
    assert message.startswith("`data` must be a DataConfig. Received: data=TrainingConfig(")
    message = error_of(RunConfig, DataConfig(), DataConfig(), TrainingConfig())
    names = " or ".join(each.__name__ for each in (*config.MODELS.values(), config.ChainConfig))
    assert message.startswith(f"`model` must be a {names}. Received: model=")


def test_the_room_imports_neither_tensorflow_nor_keras_nor_another_room(run_python):
    code = "import sys, pixel_cnn_pp.config; print(*sys.modules)"
    modules = run_python(code).split()
    assert not {name.split(".")[0] for name in modules} & {"tensorflow", "keras", "tf_keras", "jax"}
    rooms = {name.split(".")[1] for name in modules if name.startswith("pixel_cnn_pp.")}
    assert rooms == {"config", "registration", "views"}


# JSON


def default_run(kind):
    return RunConfig(config.MODELS[kind](), DataConfig(), TrainingConfig())


def test_json_gives_back_the_same_run():
    for run in (*map(specimen, config.MODELS), *(default_run(each) for each in config.MODELS)):
        assert config.from_json(config.to_json(run)) == run


@EACH_KIND
def test_json_is_readable_and_in_the_order_of_declaration(kind):
    text = config.to_json(specimen(kind))
    assert text.endswith("}\n")
    assert '\n    "nr_filters": 24,\n' in text
    values = json.loads(text)
    assert list(values) == ["model", "data", "training"]
    for name, part in vars(specimen(kind)).items():
        assert list(values[name]) == field_names(part)
    assert next(iter(values["model"])) == "kind"
    assert json.loads(config.to_json(specimen(kind).model)) == values["model"]


# As the version before `kind` wrote it, in part.
OLD = """{
  "model": {"image_shape": [8, 12, 1], "num_levels": 4096, "nr_resnet": 2, "likelihood": "softmax",
            "receptive_field": "11x5", "small_variant": "plain"},
  "data": {"data_set": "folder:photos", "num_levels": 4096},
  "training": {"nr_gpu": 8, "jit_compile": true}
}"""


def test_a_file_of_a_version_with_one_model_is_read():
    run = config.from_json(OLD)
    assert run.model == ModelConfig(
        (8, 12, 1),
        4096,
        nr_resnet=2,
        likelihood="softmax",
        receptive_field="11x5",
        min_log_scale=-7.0,
    )
    assert run.data == DataConfig("folder:photos", num_levels=4096)
    assert run.training == TrainingConfig(nr_gpu=8)
    assert config.from_json(config.to_json(run)) == run
    assert config.resume(run, {"nr_resnet": 2, "nr_gpu": 4}).training.nr_gpu == 4


def test_an_unknown_kind_in_a_file_is_named_with_its_place():
    values = json.loads(config.to_json(specimen()))
    values["model"]["kind"] = "pixel_rnn"
    message = error_of(config.from_json, json.dumps(values))
    assert message.startswith(f"`model.kind` must be one of {', '.join(config.MODELS)}; a newer")
    assert message.endswith("Received: model.kind='pixel_rnn'")


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
    "max_epochs": 9,
    "max_minutes": 9.0,
    "nr_gpu": 9,
    "peer_timeout": 9.0,
    "num_samples": 9,
    "profile": None,
    "seed": 9,
}
MAY_NOT_CHANGE = {
    "kind": "another",
    "image_shape": (4, 4, 4),
    "num_levels": 9,
    "nr_resnet": 9,
    "nr_filters": 9,
    "nr_logistic_mix": 9,
    "resnet_nonlinearity": "relu",
    "dropout_p": 0.25,
    "num_classes": None,
    "condition_shape": (3,),
    "condition_levels": 16,
    "embedding_resnet": 3,
    "embedding_filters": 100,
    "embedding_resolutions": 3,
    "likelihood": "dequantized",
    "receptive_field": "full",
    "small_variant": "plain",
    "shortcuts": False,
    "energy_distance": True,
    "num_resolutions": 2,
    "min_log_scale": -7.0,
    "nr_output_filters": 9,
    "filter_size": 7,
    "data_set": "cifar",
    "image_size": None,
    "crop": "center",
    "test_fraction": None,
    "num_train_images": None,
    "channels_first": None,
    "convert": None,
    "skip_odd": False,
    "class_names": None,
    "view": None,
    "condition_view": "mean:2",
    "class_conditional": False,
    "optimizer": "adamax",
}


def test_each_field_either_may_change_on_resume_or_may_not():
    assert MAY_CHANGE.keys() | MAY_NOT_CHANGE.keys() == set(field_names(*CLASSES))
    assert not MAY_CHANGE.keys() & MAY_NOT_CHANGE.keys()


@EACH_KIND
def test_a_resumed_run_is_the_stored_one_where_nothing_is_given(kind):
    assert config.resume(specimen(kind), {}) == specimen(kind)


@pytest.mark.parametrize("name", MAY_CHANGE)
def test_a_field_that_may_change_takes_the_given_value_on_resume(name):
    resumed = config.resume(specimen(), {name: MAY_CHANGE[name]})
    changes = config.differences(specimen(), resumed)
    assert len(changes) == 1
    assert changes[0].startswith(f"{name}: ")
    assert changes[0].endswith(f" != {MAY_CHANGE[name]!r}")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in config.MODELS
        for name in MAY_NOT_CHANGE
        if name in values_of(specimen(kind))
    ],
)
def test_a_field_that_may_not_change_is_an_error_on_resume(kind, name):
    message = error_of(config.resume, specimen(kind), {name: MAY_NOT_CHANGE[name]})
    assert f"Received: {name}: " in message


@EACH_KIND
def test_a_field_that_may_not_change_can_be_given_again_as_it_was(kind):
    stored = specimen(kind)
    same = values_of(stored)
    same["image_shape"] = list(same["image_shape"])
    assert config.resume(stored, same) == stored


def test_another_model_on_resume_is_named_before_all_that_comes_with_it():
    explicit = {"nr_output_filters": 48, "nr_filters": 128, "kind": "pixel_cnn"}
    assert error_of(config.resume, specimen(), explicit).endswith(
        "Received: kind: 'pixel_cnn_pp' != 'pixel_cnn', nr_filters: 24 != 128 (checkpoint != given)"
    )


def test_an_option_that_only_another_model_has_is_refused_on_resume():
    explicit = {"dropout_p": 0.5, "seed": 3, "shortcuts": False}
    assert error_of(config.resume, specimen("pixel_cnn"), explicit) == (
        "`dropout_p`, `shortcuts` must be left out: the model pixel_cnn has no such option. "
        "Received: dropout_p=0.5, shortcuts=False"
    )
    message = error_of(config.resume, specimen(), {"nr_output_filters": 1024})
    assert message.startswith("`nr_output_filters` must be left out: the model pixel_cnn_pp ")


# The class of the run says what a name means.
def test_a_value_is_checked_by_the_rule_of_the_stored_model_on_resume():
    stored = RunConfig(PixelCNNConfig((5, 7, 1)), DataConfig(), TrainingConfig())
    assert config.resume(stored, {"image_shape": (5, 7, 1)}) == stored
    message = error_of(config.resume, stored, {"image_shape": (0, 7, 1)})
    assert message.startswith("`image_shape` must be three positive integers (H, W, C)")


def test_one_error_names_every_field_that_cannot_change_with_both_values():
    explicit = {"seed": 9, "optimizer": "adamax", "nr_filters": 160, "nr_resnet": 2}
    message = error_of(config.resume, specimen(), explicit)
    assert message.endswith(
        "Received: nr_filters: 24 != 160, optimizer: 'adam' != 'adamax' (checkpoint != given)"
    )


def test_levels_on_resume_are_those_of_the_data():
    stored = RunConfig(ModelConfig(num_levels=9), DataConfig(num_levels=9), TrainingConfig())
    assert config.resume(stored, {"num_levels": 9}) == stored
    message = error_of(config.resume, stored, {"num_levels": 10})
    assert message.endswith("Received: num_levels: 9 != 10 (checkpoint != given)")


def test_resume_checks_the_given_values_and_names():
    assert "`accumulate_steps`" in error_of(config.resume, specimen(), {"batch_size": 9})
    assert "`batch_size`" in error_of(config.resume, specimen(), {"batch_size": 0})
    message = error_of(config.resume, specimen(), {"batchsize": 4})
    assert message.endswith("Received: unknown=['batchsize']")


@EACH_KIND
def test_differences_lists_every_field_that_differs_and_equal_runs_have_none(kind):
    run = default_run(kind)
    assert config.differences(run, run) == []
    every_field = field_names(config.MODELS[kind], DataConfig, TrainingConfig)
    found = config.differences(run, specimen(kind))
    assert [line.split(":")[0] for line in found] == [
        name for name in every_field if name not in DEFAULTS_OF_SPECIMEN
    ]
    assert config.differences(ModelConfig(), ModelConfig(dropout_p=0)) == ["dropout_p: 0.5 != 0.0"]


def test_of_models_of_two_kinds_the_kind_alone_differs():
    line = "kind: 'pixel_cnn_pp' != 'pixel_cnn'"
    assert config.differences(ModelConfig(), PixelCNNConfig()) == [line]
    assert config.differences(specimen(), specimen("pixel_cnn")) == [line]
