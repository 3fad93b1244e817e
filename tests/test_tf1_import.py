import dataclasses
import functools
import math
import os
import re
import shutil
import types

import numpy as np
import pytest
import release
import specimens
import tensorflow as tf
from specimens import GOLDEN, OF_THE_RELEASE, RECORDED, SPECIMENS

import pixel_cnn_pp as pcnn
from pixel_cnn_pp import tf1_import
from pixel_cnn_pp.config import DataConfig, ModelConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints, optimizers
from pixel_cnn_pp.tf1_import import ReleaseCheckpoint

TINY = ModelConfig(
    image_shape=(8, 12, 3), nr_resnet=1, nr_filters=4, nr_logistic_mix=2, num_classes=3
)
# The recorded checkpoint of a network with classes, in the newer format and in the older.
RECORDED_FILES = {"V2": GOLDEN / "init_train_cond.ckpt", "V1": GOLDEN / "init_train_cond_v1.ckpt"}
V2_FILES = ("init_train_cond.ckpt.index", "init_train_cond.ckpt.data-00000-of-00001")
WEIGHTS = pytest.mark.parametrize("weights", ["ema", "raw"])
# By name in the recorded arrays.
MOMENT = {"ema": "ema", "raw": "after"}


@functools.cache
def recorded(case):
    parts = [specimens.golden(f"{case}_{part}.npz") for part in ("start", "after", "ema")]
    return functools.reduce(dict.__or__, parts)


def named_weights(model):
    return {name: np.asarray(v) for name, v in tf1_import.release_variables(model).items()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


def averages_of(variables):
    return {
        name.removesuffix(release.AVERAGE): value
        for name, value in variables.items()
        if name.endswith(release.AVERAGE)
    }


@pytest.fixture(scope="module")
def tiny():
    """A network with classes; never changed."""
    return specimens.fresh(TINY)


@pytest.fixture(scope="module")
def tiny_variables(tiny):
    """What the release would save of it, trained on two GPUs; never changed."""
    return release.network_variables(tiny) | release.unnamed_variables(tiny, num_labels=2)


@pytest.fixture(scope="module")
def tiny_checkpoint(tiny_variables, tmp_path_factory):
    """Prefix of that checkpoint; never changed."""
    path = tmp_path_factory.mktemp("tiny") / "params.ckpt"
    release.save(tiny_variables, V2=path)
    return path


class FakeReader:
    """What TensorFlow's reader says of a checkpoint, of variables that were never written."""

    def __init__(self, variables):
        self._variables = variables

    def get_variable_to_shape_map(self):
        return {name: list(np.shape(value)) for name, value in self._variables.items()}

    def get_variable_to_dtype_map(self):
        return {name: tf.as_dtype(value.dtype) for name, value in self._variables.items()}

    def get_tensor(self, name):
        return self._variables[name]


@pytest.fixture
def pretend(monkeypatch):
    """Function of variables {name: array}: the path of a checkpoint that seems to hold them."""

    def pretend_to_hold(variables):
        monkeypatch.setattr(tf.train, "load_checkpoint", lambda path: FakeReader(variables))
        return RECORDED_FILES["V1"]

    return pretend_to_hold


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message


# The recorded checkpoints


def assert_recorded_outputs(model, case, weights):
    arrays = recorded(case)
    images, labels = arrays["x_test_u8"], arrays.get("y_test")
    expected = arrays[f"test_l_{weights}"]
    outputs = model(images, labels).numpy()[: len(expected)]
    # As close as our issue asks for; test_model.py holds the network to the recorded noise.
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    nats = -model.log_prob(images, labels).numpy()
    np.testing.assert_allclose(nats, arrays[f"test_nll_{weights}"], rtol=1e-5)
    expected = nats.mean() / (math.log(2) * images[0].size)
    if weights == "ema":
        np.testing.assert_allclose(expected, arrays["test_bpd_ema"], rtol=1e-5)
    bits_per_dim = model.bits_per_dim(images, labels).numpy().mean()
    np.testing.assert_allclose(bits_per_dim, expected, rtol=1e-5)


@WEIGHTS
@pytest.mark.parametrize("file_format", release.FORMATS)
def test_a_recorded_checkpoint_gives_the_recorded_weights_outputs_and_scores(file_format, weights):
    model = pcnn.load_release(RECORDED_FILES[file_format], weights)
    found = dataclasses.replace(RECORDED["init_train_cond"], image_shape=(32, 32, 3), dropout_p=0.5)
    assert model.config == found
    arrays = recorded("init_train_cond")
    for name, weight in named_weights(model).items():
        np.testing.assert_array_equal(weight, arrays[f"{MOMENT[weights]}/{name}"])
    assert_recorded_outputs(model, "init_train_cond", weights)


@pytest.fixture(scope="module")
def recorded_unconditional(tmp_path_factory):
    """The recorded weights and averages of the network without classes, saved once more."""
    arrays = recorded("init_train_uncond")
    names = [name.removeprefix("after/") for name in arrays if name.startswith("after/")]
    variables = {name: arrays[f"after/{name}"] for name in names}
    variables |= {name + release.AVERAGE: arrays[f"ema/{name}"] for name in names}
    path = tmp_path_factory.mktemp("recorded") / "params.ckpt"
    release.save(variables, V2=path)
    return path


@WEIGHTS
def test_the_recorded_weights_without_classes_give_the_recorded_outputs_and_scores(
    recorded_unconditional, weights
):
    config = RECORDED["init_train_uncond"]
    model = pcnn.load_release(recorded_unconditional, weights, config)
    assert model.config == config
    assert_recorded_outputs(model, "init_train_uncond", weights)


# Every kind of network


@pytest.mark.parametrize("name", OF_THE_RELEASE)
def test_every_network_comes_back_from_a_checkpoint_of_either_format(name, tmp_path):
    model = specimens.build(name)
    variables = release.network_variables(model)
    paths = {version: tmp_path / f"{version}.ckpt" for version in release.FORMATS}
    release.save(variables, **paths)
    loaded = pcnn.load_release(paths["V1"], "raw", model.config)
    assert loaded.config == model.config
    assert_same(named_weights(loaded), named_weights(model))
    # Into the same model, which takes longer to make than to load.
    checkpoint = ReleaseCheckpoint(paths["V2"])
    assert checkpoint.config(**dataclasses.asdict(model.config)) == model.config
    checkpoint.load_weights(loaded, "ema")
    assert_same(named_weights(loaded), averages_of(variables))


def test_the_shapes_tell_the_networks_of_the_release_at_full_size(pretend):
    for name, record in specimens.golden("variables_full.json.gz").items():
        # An array without memory: one number, seen in every place.
        variables = {k: np.broadcast_to(np.float32(0), shape) for k, shape in record["variables"]}
        expected = {
            "head_160": ModelConfig(),
            "head_160_cond": ModelConfig(num_classes=10),
            "head_192": ModelConfig(nr_filters=192),
        }[name]
        assert ReleaseCheckpoint(pretend(variables)).config() == expected


def test_the_table_is_in_the_order_of_the_release():
    for name, record in specimens.golden("variables_full.json.gz").items():
        names = tf1_import.release_names(5, is_conditional=name.endswith("cond"))
        assert [f"model/{name}" for name in names] == [name for name, _ in record["variables"]]


def test_what_the_shapes_do_not_tell_is_taken_from_what_is_given():
    checkpoint = ReleaseCheckpoint(RECORDED_FILES["V1"])
    assert checkpoint.num_channels == 3
    found = checkpoint.config(image_shape=(12, 8, 3), num_levels=32, dropout_p=0.1)
    changed = {"num_levels": 32, "dropout_p": 0.1}
    assert found == dataclasses.replace(RECORDED["init_train_cond"], **changed)


def test_elu_and_relu_look_alike_and_are_asked_for(pretend):
    path = pretend(release.network_variables(specimens.build("relu")))
    with pytest.raises(
        ValueError, match="`resnet_nonlinearity` must be given, elu or relu"
    ) as caught:
        pcnn.load_release(path)
    one_line(caught)
    for nonlinearity in ("elu", "relu"):
        config = dataclasses.replace(SPECIMENS["relu"], resnet_nonlinearity=nonlinearity)
        assert ReleaseCheckpoint(path).config(**dataclasses.asdict(config)) == config


def test_the_size_of_other_than_colour_images_is_asked_for(pretend):
    path = pretend(release.network_variables(specimens.build("two_channels")))
    message = "size of the images must be given .* Received: None, for .* with 2$"
    with pytest.raises(ValueError, match=message) as caught:
        pcnn.load_release(path)
    one_line(caught)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nr_filters": 160}, "nr_filters: 6 != 160"),
        ({"nr_resnet": 5}, "nr_resnet: 1 != 5"),
        ({"nr_logistic_mix": 10}, "nr_logistic_mix: 3 != 10"),
        ({"num_classes": None}, "num_classes: 10 != None"),
        ({"num_classes": 11}, "num_classes: 10 != 11"),
        ({"resnet_nonlinearity": "elu"}, "resnet_nonlinearity: 'concat_elu' != 'elu'"),
        ({"image_shape": (12, 8, 1)}, r"image_shape: \(H, W, 3\) != \(12, 8, 1\)"),
        ({"nr_filters": 8, "num_classes": 2}, "nr_filters: 6 != 8, num_classes: 10 != 2"),
    ],
)
def test_a_configuration_that_contradicts_the_checkpoint_is_named(changes, message):
    config = dataclasses.replace(RECORDED["init_train_cond"], **changes)
    with pytest.raises(ValueError, match=rf"ckpt with {message} \(checkpoint != given\)") as caught:
        pcnn.load_release(RECORDED_FILES["V2"], config=config)
    one_line(caught)


@pytest.mark.parametrize(
    "changes",
    [
        {"likelihood": "dequantized"},
        {"likelihood": "softmax"},
        {"shortcuts": False},
        {"energy_distance": True},
        {"receptive_field": "11x5", "nr_resnet": 2},
    ],
)
def test_a_variant_of_the_network_is_not_read_from_a_checkpoint(changes):
    config = dataclasses.replace(RECORDED["init_train_cond"], **changes)
    name, value = next(iter(changes.items()))
    with pytest.raises(ValueError, match=rf"^`{name}` must be left out: .* {name}={value!r}$") as e:
        pcnn.load_release(RECORDED_FILES["V2"], config=config)
    one_line(e)


def test_the_default_nonlinearity_contradicts_a_network_of_elu(pretend):
    path = pretend(release.network_variables(specimens.build("relu")))
    config = dataclasses.replace(SPECIMENS["relu"], resnet_nonlinearity="concat_elu")
    message = "resnet_nonlinearity: 'elu' or 'relu' != 'concat_elu'"
    with pytest.raises(ValueError, match=message):
        pcnn.load_release(path, config=config)


# Which file is meant


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_a_checkpoint_is_found_by_its_prefix_and_by_each_of_its_files(ending):
    path = f"{RECORDED_FILES['V2']}{ending}"
    assert ReleaseCheckpoint(path).path == RECORDED_FILES["V2"]


def copy_v2(folder, prefix="params.ckpt"):
    """A copy of the recorded checkpoint; its prefix."""
    for name in V2_FILES:
        shutil.copy(GOLDEN / name, folder / name.replace("init_train_cond.ckpt", prefix))
    return folder / prefix


def copy_v1(folder):
    return shutil.copy(RECORDED_FILES["V1"], folder / "older.ckpt")


@pytest.mark.parametrize("copy", [copy_v1, copy_v2])
def test_the_one_checkpoint_of_a_directory_is_found(copy, tmp_path):
    path = copy(tmp_path)
    (tmp_path / "test_bpd_cifar.npz").write_bytes(b"")
    assert ReleaseCheckpoint(tmp_path).path == path


def test_of_several_checkpoints_the_one_that_tensorflow_notes_is_found(tmp_path):
    copy_v1(tmp_path)
    copy_v2(tmp_path, "first.ckpt")
    path = copy_v2(tmp_path, "second.ckpt")
    message = "one checkpoint, .* with first.ckpt, older.ckpt, second.ckpt$"
    with pytest.raises(ValueError, match=message) as caught:
        ReleaseCheckpoint(tmp_path)
    one_line(caught)
    # An absolute path, as the release writes it, of before the directory was moved.
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/old/save/second.ckpt"')
    assert ReleaseCheckpoint(tmp_path).path == path


def test_a_directory_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"one checkpoint, .* Received: {tmp_path} with none"):
        pcnn.load_release(tmp_path)


def test_a_path_to_nothing_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"must be a file, .* Received: {tmp_path}/no.ckpt "):
        pcnn.load_release(tmp_path / "no.ckpt")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (".index", r"Received: .*/params.ckpt.data-\* without params.ckpt.index"),
        (".data-00000-of-00001", "params.ckpt.index without params.ckpt.data-00000-of-00001"),
    ],
)
def test_a_file_that_is_missing_is_named(lost, message, tmp_path):
    path = copy_v2(tmp_path)
    os.remove(f"{path}{lost}")
    for given in (path, f"{path}.index", f"{path}.data-00000-of-00001"):
        with pytest.raises(ValueError, match=message) as caught:
            pcnn.load_release(given)
        one_line(caught)


# What cannot be read


@pytest.mark.parametrize("num_bytes", [0, 1, 10_000, -1])
@pytest.mark.parametrize("ending", V2_FILES)
def test_a_checkpoint_of_two_files_that_was_cut_short_is_one_line(ending, num_bytes, tmp_path):
    path = copy_v2(tmp_path)
    file = tmp_path / ending.replace("init_train_cond.ckpt", "params.ckpt")
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match=f"must be whole, .* Received: {path}, ") as caught:
        # The file ends with one of the variables, and either half holds some.
        for weights in ("raw", "ema"):
            pcnn.load_release(path, weights)
        checkpoint = ReleaseCheckpoint(path)
        checkpoint.load_optimizer(*fresh_pair(checkpoint.config()))
    one_line(caught)


@pytest.mark.parametrize("num_bytes", [0, 1, 10_000, 300_000, -1])
def test_a_checkpoint_of_one_file_that_was_cut_short_is_one_line(num_bytes, tmp_path):
    path = tmp_path / "params.ckpt"
    path.write_bytes(RECORDED_FILES["V1"].read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match=f"must be whole, .* Received: {path}, it ") as caught:
        pcnn.load_release(path)
    one_line(caught)


def test_a_bit_that_fell_over_is_one_line(tmp_path):
    for path, file in (
        (copy_v2(tmp_path), tmp_path / "params.ckpt.data-00000-of-00001"),
        (copy_v1(tmp_path), tmp_path / "older.ckpt"),
    ):
        data = bytearray(file.read_bytes())
        data[200_000] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match=f"must be whole, .* Received: {path}, ") as caught:
            for weights in ("raw", "ema"):
                pcnn.load_release(path, weights)
            checkpoint = ReleaseCheckpoint(path)
            checkpoint.load_optimizer(*fresh_pair(checkpoint.config()))
        one_line(caught)


def test_a_file_of_another_kind_is_one_line(tmp_path):
    path = tmp_path / "params.ckpt"
    path.write_text("a text\n" * 100)
    with pytest.raises(ValueError, match=f"one of TensorFlow. Received: {path}, it ") as caught:
        pcnn.load_release(path)
    one_line(caught)


def test_a_checkpoint_in_a_zip_file_is_to_be_unpacked(tmp_path):
    archive = shutil.make_archive(tmp_path / "params", "zip", tmp_path)
    with pytest.raises(ValueError, match=f"unpacked first. Received: {archive}"):
        pcnn.load_release(archive)


# What does not fit


def refusal(path, weights="ema", **arguments):
    """The line in which `load_release` refuses a checkpoint."""
    with pytest.raises(ValueError) as caught:
        pcnn.load_release(path, weights, **arguments)
    return one_line(caught)


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


def test_a_checkpoint_of_another_network_says_what_it_holds(pretend):
    variables = {f"generator/w_{i}": np.float32([i]) for i in range(5)}
    message = refusal(pretend(variables))
    assert "such as model/conv2d_0/V. Received: " in message
    assert message.endswith("with generator/w_0, generator/w_1, generator/w_2 and 2 more")
    assert refusal(pretend({})).endswith("with nothing")


def test_variables_that_are_missing_are_named(pretend, tiny_variables):
    lost = ("model/conv2d_0/V", "model/dense_3/g", "model/deconv2d_1/b", "model/conv2d_4/b")
    message = refusal(pretend(without(tiny_variables, *lost)))
    assert "nothing else. Received: " in message
    names = "model/conv2d_0/V, model/conv2d_4/b, model/dense_3/g"
    assert message.endswith(f"nr_resnet=1, without {names} and 1 more")


def test_averages_that_are_missing_are_named(pretend, tiny_variables):
    lost = f"model/conditional_weights_3/hw{release.AVERAGE}"
    assert refusal(pretend(without(tiny_variables, lost))).endswith(f", without {lost}")


def test_variables_that_are_left_over_are_named_and_can_be_left_out(pretend, tiny_variables):
    strangers = {"model/conv2d_99/V": np.zeros(3, "float32"), "global_step": np.int64(3)}
    path = pretend(tiny_variables | strangers)
    end = "beside it global_step, model/conv2d_99/V (`ignore` leaves variables out)"
    assert refusal(path).endswith(end)
    model = pcnn.load_release(path, "raw", ignore=["global_*", "model/conv2d_99/V"])
    assert_same(named_weights(model), {k: tiny_variables[k] for k in named_weights(model)})


def test_another_scope_is_taken_if_it_is_the_only_one(pretend, tiny_variables):
    def moved(scope):
        return {k.replace("model/", scope): v for k, v in tiny_variables.items()}

    for scope in ("tower/net/", ""):
        model = pcnn.load_release(pretend(moved(scope)))
        assert_same(named_weights(model), averages_of(tiny_variables))
    message = refusal(pretend(tiny_variables | moved("other/")))
    assert message.endswith("with several, in model/, other/")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model/conv2d_5/V", np.zeros((2, 2, 8, 5), "float32"), r"float32 (2, 2, 8, 5) in the"),
        (f"model/conv2d_7/g{release.AVERAGE}", np.zeros(5, "float32"), r"float32 (5,) in the"),
        (
            "model/conv2d_7/b",
            np.zeros(4, "int32"),
            r"int32 (4,) in the checkpoint, (4,) in the net",
        ),
        ("model/conv2d_0/V", np.zeros((2, 3, 4), "float32"), "with model/conv2d_0/V (2, 3, 4), "),
        ("model/conv2d_3/V", np.zeros((2, 3, 7, 4), "float32"), "model/conv2d_3/V (2, 3, 7, 4), "),
        ("model/dense_13/V", np.zeros((4, 21), "float32"), "model/dense_13/V (4, 21)"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(pretend, tiny_variables, name, value, message):
    weights = "ema" if name.endswith(release.AVERAGE) else "raw"
    line = refusal(pretend(tiny_variables | {name: value}), weights)
    assert line.startswith("The shapes in a checkpoint must be those of ")
    assert name in line and message in line


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted_and_named(pretend, tiny_variables, value):
    broken = tiny_variables["model/conv2d_5/g"].copy()
    broken[1] = value
    path = pretend(tiny_variables | {"model/conv2d_5/g": broken})
    assert refusal(path, "raw").endswith("with 1 of 4 not finite in model/conv2d_5/g")
    pcnn.load_release(path, "ema")


def test_averages_that_are_not_there_are_refused_and_the_raw_weights_offered(pretend, tiny):
    path = pretend(named_weights(tiny))
    assert refusal(path).startswith('`weights` must be "raw" for a checkpoint without averages. ')
    assert_same(named_weights(pcnn.load_release(path, "raw")), named_weights(tiny))


def test_other_words_for_the_weights_are_refused():
    with pytest.raises(ValueError, match="`weights` must be one of ema, raw"):
        pcnn.load_release(RECORDED_FILES["V1"], "best")


# A run


def fresh_pair(config):
    """A model, and the optimizer of the release, built on its weights."""
    model = specimens.fresh(config)
    optimizer = optimizers.make_optimizer(TrainingConfig(optimizer="adam"))
    optimizer.build(model.trainable_variables)
    return model, optimizer


def imported(path, run_dir, **given):
    """What an import leaves behind, and what it says."""
    checkpoint = ReleaseCheckpoint(path)
    lines = []
    config = checkpoint.config(image_shape=TINY.image_shape, **given)
    data_config = DataConfig(data_set="photos", image_size=8)
    tf1_import.import_run(checkpoint, run_dir, config, data_config, lines.append)
    model, optimizer = fresh_pair(config)
    state = checkpoints.restore(run_dir, model, optimizer)
    slots = {variable.name: np.asarray(variable) for variable in optimizer.variables}
    return types.SimpleNamespace(
        state=state,
        lines=lines,
        weights=named_weights(model),
        averages={
            name: slots[f"{variable.path.replace('/', '_')}_average"]
            for name, variable in tf1_import.release_variables(model).items()
        },
        moments=[
            slots[f"{variable.path.replace('/', '_')}_{kind}"]
            for variable in tf1_import.release_variables(model).values()
            for kind in ("velocity", "momentum")
        ],
        iterations=int(optimizer.iterations),
    )


def test_a_run_has_the_weights_the_averages_and_the_moments_of_the_checkpoint(
    tiny_checkpoint, tiny_variables, tmp_path
):
    run_dir = tmp_path / "new" / "run"
    run = imported(tiny_checkpoint, run_dir, dropout_p=0.25)
    assert_same(run.weights, {name: tiny_variables[name] for name in run.weights})
    assert_same(run.averages, averages_of(tiny_variables))
    # Two vectors of labels and the step stand before the moments.
    assert len(run.moments) == 2 * len(run.weights)
    for number, moment in enumerate(run.moments, start=3):
        np.testing.assert_array_equal(moment, tiny_variables[f"Variable_{number}"])
    assert run.iterations == release.STEP
    assert run.state == checkpoints.TrainingState(step=release.STEP, epoch=0)

    stored = checkpoints.load_config(run_dir)
    assert stored.model == dataclasses.replace(TINY, dropout_p=0.25)
    assert stored.data == DataConfig(data_set="photos", image_size=8)
    assert stored.training == TrainingConfig(
        save_dir=str(run_dir), optimizer="adam", class_conditional=True
    )
    for weights, expected in (("ema", run.averages), ("raw", run.weights)):
        assert_same(named_weights(pcnn.load(run_dir, weights)), expected)
    network, adam, written = run.lines
    assert network.endswith(
        "1 blocks a stage, 4 filters, 2 components, concat_elu, 3 classes; taken to be for 8x12x3 "
        "images of 256 levels, trained with dropout 0.25"
    )
    # 0.001 * 0.999995^8
    assert adam == "Optimizer: Adam with its moments, 7 steps done, next learning rate 0.001."
    assert written == f"Wrote {run_dir}, a run on photos at epoch 0."


def test_without_classes_the_first_variable_without_a_name_is_the_step(pretend, tmp_path):
    model = specimens.build("rgb")
    unnamed = release.unnamed_variables(model)
    run = imported(pretend(release.network_variables(model) | unnamed), tmp_path)
    assert run.iterations == release.STEP
    for number, moment in enumerate(run.moments, start=1):
        np.testing.assert_array_equal(moment, unnamed[f"Variable_{number}"])


def test_without_moments_the_averages_last_beyond_the_first_step(pretend, tiny, tmp_path):
    variables = release.network_variables(tiny)
    run = imported(pretend(variables), tmp_path)
    assert_same(run.averages, averages_of(variables))
    assert all((moment == 0).all() for moment in run.moments)
    # At step 0, Keras replaces the averages by the weights.
    assert run.iterations == run.state.step == 1
    assert run.lines[1] == "Optimizer: Adam starts anew, the checkpoint holds no moments."


def test_without_averages_the_raw_weights_stand_in_for_them(pretend, tiny, tmp_path):
    weights = named_weights(tiny)
    run = imported(pretend(weights), tmp_path)
    assert_same(run.averages, weights)
    assert run.iterations == run.state.step == 0
    assert run.lines[1].startswith("Averages: none in the checkpoint, the raw weights stand in ")


@pytest.mark.parametrize("change", ["one is missing", "one more", "another shape", "no step"])
def test_variables_without_a_name_that_are_not_adams_let_it_start_anew(
    change, pretend, tiny_variables
):
    variables = {
        "one is missing": without(tiny_variables, "Variable_9"),
        "one more": tiny_variables | {"Variable_9999": np.float32(1)},
        "another shape": tiny_variables | {"Variable_9": np.zeros(77, "float32")},
        "no step": without(tiny_variables, "Variable_2"),
    }[change]
    checkpoint = ReleaseCheckpoint(pretend(variables))
    assert re.fullmatch(
        r"the \d+ variables without a name in the checkpoint are not those of the release's Adam",
        checkpoint.why_no_moments,
    )
    assert checkpoint.num_steps == 1


def test_moments_that_are_not_finite_are_refused_and_can_be_left_out(
    pretend, tiny_variables, tmp_path
):
    path = pretend(tiny_variables | {"Variable_2": np.float32(np.nan)})
    with pytest.raises(ValueError, match="with 1 of 1 not finite in Variable_2"):
        imported(path, tmp_path / "new" / "run")
    assert os.listdir(tmp_path) == []
    assert ReleaseCheckpoint(path, ignore=["Variable*"]).num_steps == 1


def test_a_directory_that_holds_a_run_is_left_alone(tmp_path):
    checkpoint = ReleaseCheckpoint(RECORDED_FILES["V2"])
    (tmp_path / "config.json").write_text("kept")
    with pytest.raises(
        ValueError, match=f"{tmp_path} holds a run already: choose another"
    ) as caught:
        tf1_import.import_run(checkpoint, tmp_path, checkpoint.config(), DataConfig())
    one_line(caught)
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_directory_that_cannot_be_written_is_reported_before_the_work(tmp_path, monkeypatch):
    checkpoint = ReleaseCheckpoint(RECORDED_FILES["V2"])
    monkeypatch.setattr(tf1_import, "PixelCNNPP", None)
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x"
    with pytest.raises(NotADirectoryError, match=rf"Received: {path}, {tmp_path}/file is a file$"):
        tf1_import.import_run(checkpoint, path, checkpoint.config(), DataConfig())
