"""The weight-normalised layers are equal to the original release, number for number."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_cases import FLOAT32_EPS, relative_error

from pixel_cnn_pp import layers
from pixel_cnn_pp.layers import (
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    GatedResidualBlock,
    WeightNorm,
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


RECORDED = {**np.load(GOLDEN / "layers.npz"), **np.load(GOLDEN / "layers_gated.npz")}


# How far the recorded float32 values are from a float64 run of the same layers, at most, relative
# to the largest entry of the array. Ours may be as far on the other side, and another order of
# summation (another CPU) as far again: three times these.
INITIALISED_NOISE = 1.4e-6


OUTPUT_NOISE = 2.5e-7


GRADIENT_NOISE = 9.1e-7


# Recorded cases -> our layers. The one with elu applies it behind the layer.
CASES = {
    "conv2d_3x3_same": lambda: WeightNormConv2D(7),
    "conv2d_3x3_same_stride2": lambda: WeightNormConv2D(7, strides=2),
    "conv2d_2x3_valid_scale": lambda: WeightNormConv2D(7, (2, 3), padding="valid", init_scale=0.1),
    "conv2d_3x3_same_elu": lambda: WeightNormConv2D(7),
    "deconv2d_3x3_same_stride2": lambda: WeightNormConv2DTranspose(7, strides=2),
    "deconv2d_3x3_valid_stride2": lambda: WeightNormConv2DTranspose(7, (3, 3), 2, "valid"),
    "deconv2d_2x3_valid_stride2": lambda: WeightNormConv2DTranspose(7, (2, 3), 2, "valid"),
    "deconv2d_2x2_valid_stride2": lambda: WeightNormConv2DTranspose(7, (2, 2), 2, "valid"),
    "deconv2d_3x3_same_stride1": lambda: WeightNormConv2DTranspose(7),
    "dense": lambda: WeightNormDense(7),
    "nin": lambda: WeightNormDense(7),
    "nin_scale": lambda: WeightNormDense(3, init_scale=0.1),
    "down_shifted_conv2d_2x3": lambda: DownShiftedConv2D(7),
    "down_shifted_conv2d_2x3_stride2": lambda: DownShiftedConv2D(7, strides=2),
    "down_shifted_conv2d_1x3": lambda: DownShiftedConv2D(7, (1, 3)),
    "down_right_shifted_conv2d_2x2": lambda: DownRightShiftedConv2D(7),
    "down_right_shifted_conv2d_2x2_stride2": lambda: DownRightShiftedConv2D(7, strides=2),
    "down_right_shifted_conv2d_2x1": lambda: DownRightShiftedConv2D(7, (2, 1)),
    "down_shifted_deconv2d_stride2": lambda: DownShiftedConv2DTranspose(7),
    "down_right_shifted_deconv2d_stride2": lambda: DownRightShiftedConv2DTranspose(7),
    "gated_resnet_down": lambda: GatedResidualBlock(DownShiftedConv2D),
    "gated_resnet_down_h": lambda: GatedResidualBlock(DownShiftedConv2D),
    "gated_resnet_down_a5": lambda: GatedResidualBlock(DownShiftedConv2D),
    "gated_resnet_down_a5_h": lambda: GatedResidualBlock(DownShiftedConv2D),
    "gated_resnet_down_a10": lambda: GatedResidualBlock(DownShiftedConv2D),
    "gated_resnet_down_a10_h": lambda: GatedResidualBlock(DownShiftedConv2D),
    "gated_resnet_down_a5_hreal_elu": lambda: GatedResidualBlock(DownShiftedConv2D, "elu"),
    "gated_resnet_down_right": lambda: GatedResidualBlock(DownRightShiftedConv2D),
    "gated_resnet_down_right_h": lambda: GatedResidualBlock(DownRightShiftedConv2D),
    "gated_resnet_down_right_a5": lambda: GatedResidualBlock(DownRightShiftedConv2D),
    "gated_resnet_down_right_a5_h": lambda: GatedResidualBlock(DownRightShiftedConv2D),
    "gated_resnet_down_right_a10": lambda: GatedResidualBlock(DownRightShiftedConv2D),
    "gated_resnet_down_right_a10_h": lambda: GatedResidualBlock(DownRightShiftedConv2D),
    "gated_resnet_down_right_a10_relu": lambda: GatedResidualBlock(DownRightShiftedConv2D, "relu"),
    "gated_resnet_conv2d": lambda: GatedResidualBlock(WeightNormConv2D),
    "gated_resnet_conv2d_h": lambda: GatedResidualBlock(WeightNormConv2D),
    "gated_resnet_conv2d_a5": lambda: GatedResidualBlock(WeightNormConv2D),
    "gated_resnet_conv2d_a5_h": lambda: GatedResidualBlock(WeightNormConv2D),
}


def recorded_inputs(case):
    """The inputs x, a, h of a recorded case, those that it has."""
    return {name: RECORDED[f"{case}/{name}"] for name in "xah" if f"{case}/{name}" in RECORDED}


def make(case):
    """The layer of a recorded case, built for its inputs."""
    shapes = {f"{name}_shape": x.shape for name, x in recorded_inputs(case).items()}
    layer = CASES[case]()
    if isinstance(layer, WeightNorm):
        layer.build(shapes["x_shape"])
    else:
        layer.build(**shapes)
    return layer


def run(layer, inputs):
    """Calls a layer, or its `initialize`, with the inputs of a recorded case."""
    return layer(inputs["x"]) if len(inputs) == 1 else layer(**inputs)


def release_variables(layer):
    """The layer's variables under the names that they have in the release."""
    if isinstance(layer, GatedResidualBlock):
        parts = {"conv2d_0": layer.conv_in, "dense_0": layer.skip, "conv2d_1": layer.conv_out}
        named = {"conditional_weights_0/hw": layer.hw}
    else:
        kinds = {WeightNormDense: "dense_0", WeightNormConv2DTranspose: "deconv2d_0"}
        kind = next((kinds[base] for base in type(layer).__mro__ if base in kinds), "conv2d_0")
        parts, named = {kind: layer}, {}
    for name, part in parts.items():
        if part is not None:
            named |= {f"{name}/V": part.v, f"{name}/g": part.g, f"{name}/b": part.b}
    return {name: variable for name, variable in named.items() if variable is not None}


def set_variables(layer, case, moment):
    """Gives the layer the variables "before" or "after" the initialisation of a recorded case."""
    for name, variable in release_variables(layer).items():
        # Fresh g = 1 and b = 0 are not in the files, and V and hw not twice.
        for key in (f"{case}/before/{name}", f"{case}/{moment}/{name}"):
            if key in RECORDED:
                variable.assign(RECORDED[key])


def behind(case, outputs):
    """What the release's layer does behind its normalised output."""
    return ops.elu(outputs) if case == "conv2d_3x3_same_elu" else outputs


def test_every_recorded_case_is_compared():
    recorded = {key.split("/")[0] for key in RECORDED}
    assert len(recorded) == 40
    assert recorded == set(CASES) | {"gated_resnet_dropout", "helpers"}


@pytest.mark.parametrize("case", CASES)
def test_initialisation_gives_the_recorded_gains_biases_and_outputs(case):
    layer = make(case)
    set_variables(layer, case, "before")
    outputs = run(layer.initialize, recorded_inputs(case))
    tolerance = 3 * INITIALISED_NOISE
    assert relative_error(behind(case, outputs), RECORDED[f"{case}/out"]) < tolerance
    for name, variable in release_variables(layer).items():
        if name.endswith(("/g", "/b")):
            assert relative_error(variable, RECORDED[f"{case}/after/{name}"]) < tolerance, name
        else:
            np.testing.assert_array_equal(variable, RECORDED[f"{case}/before/{name}"])


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_the_recorded_ones(case):
    layer = make(case)
    set_variables(layer, case, "after")
    inputs = {name: ops.convert_to_tensor(x) for name, x in recorded_inputs(case).items()}
    sources = {name: x for name, x in inputs.items() if name != "h"}
    sources |= {name: v.value for name, v in release_variables(layer).items()}
    with tf.GradientTape() as tape:
        tape.watch(sources)
        outputs = behind(case, run(layer, inputs))
        scalar = ops.sum(outputs * RECORDED[f"{case}/cotangent"])
    gradients = tape.gradient(scalar, sources)

    assert relative_error(outputs, RECORDED[f"{case}/out"]) < 3 * OUTPUT_NOISE
    recorded = {key for key in RECORDED if key.startswith(f"{case}/grad/")}
    assert recorded == {f"{case}/grad/{name}" for name in gradients}
    for name, gradient in gradients.items():
        error = relative_error(gradient, RECORDED[f"{case}/grad/{name}"])
        assert error < 3 * GRADIENT_NOISE, name


def test_dropout_acts_behind_the_first_convolution_as_recorded():
    case = "gated_resnet_dropout"
    inputs = recorded_inputs(case)
    block = GatedResidualBlock(DownShiftedConv2D)
    block.build(inputs["x"].shape, inputs["a"].shape)
    set_variables(block, case, "after")
    mask = RECORDED[f"{case}/mask"].astype("float32")
    outputs = block(**inputs, dropout=lambda c, shape: layers.Drop(mask > 0, 1 / 0.5))
    assert relative_error(outputs, RECORDED[f"{case}/out"]) < 3 * OUTPUT_NOISE


@pytest.mark.parametrize("name", ["concat_elu", "down_shift", "right_shift"])
def test_helpers_are_the_recorded_ones(name):
    outputs = getattr(layers, name)(ops.convert_to_tensor(RECORDED["helpers/x"]))
    # The shifts move numbers; elu is one rounded function, good to an ulp or two.
    tolerance = 2 * FLOAT32_EPS if name == "concat_elu" else 0.0
    np.testing.assert_allclose(outputs, RECORDED[f"helpers/{name}"], rtol=tolerance, atol=tolerance)
