import dataclasses

import numpy as np
import pytest
import release
import specimens
from release import (
    RECORDED_FILES,
    TINY,
    assert_same,
    averages_of,
    named_weights,
    one_line,
    without,
)
from specimens import RECORDED, SPECIMENS

import pixel_cnn_pp as pcnn
from pixel_cnn_pp import tf1_import
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.tf1_import import ReleaseCheckpoint


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
    # The release has one floor of the log-scales, whatever the levels.
    assert checkpoint.config(num_levels=4096).min_log_scale == -7.0


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
    model = specimens.fresh(dataclasses.replace(TINY, image_shape=(8, 12, 2)))
    path = pretend(release.network_variables(model))
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
        {"num_resolutions": 2},
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


def refusal(path, weights="ema", **arguments):
    """The line in which `load_release` refuses a checkpoint."""
    with pytest.raises(ValueError) as caught:
        pcnn.load_release(path, weights, **arguments)
    return one_line(caught)


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
