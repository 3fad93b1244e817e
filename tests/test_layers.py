"""layers.py: equal to the original release number for number, causal, and initialised from data."""

import inspect
import math
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pixel_cnn_pp import layers
from pixel_cnn_pp.layers import (
    AutoregressiveChannelBlock,
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    GatedResidualBlock,
    SampleHead,
    WeightNorm,
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
RECORDED = {**np.load(GOLDEN / "layers.npz"), **np.load(GOLDEN / "layers_gated.npz")}

FLOAT32_EPS = float(np.finfo("float32").eps)
FLOAT64_EPS = float(np.finfo("float64").eps)
BFLOAT16_EPS = 2.0**-7

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

# Layers of every class, filter and stride that the network uses, and some that it does not, as
# functions of what they share: the dtype. The laws below run over them.
SPECIMENS = {
    "dense": lambda **kw: WeightNormDense(4, **kw),
    "conv_same": lambda **kw: WeightNormConv2D(4, (2, 3), **kw),
    "conv_stride2": lambda **kw: WeightNormConv2D(4, strides=2, init_scale=0.1, **kw),
    "conv_valid": lambda **kw: WeightNormConv2D(4, (2, 3), padding="valid", **kw),
    "down_2x3": lambda **kw: DownShiftedConv2D(4, **kw),
    "down_1x3": lambda **kw: DownShiftedConv2D(4, (1, 3), **kw),
    "down_2x2": lambda **kw: DownShiftedConv2D(4, (2, 2), **kw),
    "down_3x5": lambda **kw: DownShiftedConv2D(4, (3, 5), **kw),
    "down_stride2": lambda **kw: DownShiftedConv2D(4, strides=2, **kw),
    "down_right_2x2": lambda **kw: DownRightShiftedConv2D(4, **kw),
    "down_right_2x1": lambda **kw: DownRightShiftedConv2D(4, (2, 1), **kw),
    "down_right_1x2": lambda **kw: DownRightShiftedConv2D(4, (1, 2), **kw),
    "down_right_3x4": lambda **kw: DownRightShiftedConv2D(4, (3, 4), **kw),
    "down_right_stride2": lambda **kw: DownRightShiftedConv2D(4, strides=2, init_scale=0.1, **kw),
    "transpose_same": lambda **kw: WeightNormConv2DTranspose(4, strides=2, **kw),
    "transpose_valid": lambda **kw: WeightNormConv2DTranspose(4, (2, 3), 2, "valid", **kw),
    "down_transpose": lambda **kw: DownShiftedConv2DTranspose(4, **kw),
    "down_transpose_stride1": lambda **kw: DownShiftedConv2DTranspose(4, strides=1, **kw),
    "down_right_transpose": lambda **kw: DownRightShiftedConv2DTranspose(4, **kw),
    "block_down": lambda **kw: GatedResidualBlock(DownShiftedConv2D, **kw),
    "block_down_right": lambda **kw: GatedResidualBlock(DownRightShiftedConv2D, "elu", **kw),
    "block_down_right_1x1": lambda **kw: GatedResidualBlock(
        DownRightShiftedConv2D, kernel_size=(1, 1), **kw
    ),
    "channels_down": lambda **kw: AutoregressiveChannelBlock(DownShiftedConv2D, 5, **kw),
    "channels_down_right": lambda **kw: AutoregressiveChannelBlock(
        DownRightShiftedConv2D, 5, "elu", **kw
    ),
    "head": lambda **kw: SampleHead(3, **kw),
}
SINGLE_LAYERS = [
    name for name in SPECIMENS if name.split("_")[0] not in ("block", "channels", "head")
]


def random_images(*shape, seed=0):
    """Normal float32 numbers with a mean and a spread of their own in every channel."""
    rng = np.random.default_rng(seed)
    scales, means = rng.uniform(0.5, 2.0, shape[-1]), rng.normal(size=shape[-1])
    return (rng.normal(size=shape) * scales + means).astype("float32")


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


def relative_error(actual, expected):
    """Largest difference, relative to the largest expected entry."""
    actual = np.asarray(ops.cast(actual, "float32"), np.float64)
    assert actual.shape == expected.shape
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


def built(name, x_shape, **kwargs):
    """A specimen with weights, g and b among them, that are not the fresh ones."""
    layer = SPECIMENS[name](**kwargs)
    block = isinstance(layer, GatedResidualBlock | AutoregressiveChannelBlock)
    layer.build(x_shape, *(((*x_shape[:3], 2), (x_shape[0], 6)) if block else ()))
    return randomised(layer)


def randomised(layer):
    """A layer that is built, with all its weights drawn anew."""
    rng = np.random.default_rng(5)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape) + (2.0 if weight.name == "g" else 0.0))
    return layer


def specimen_inputs(name, x_shape=(3, 4, 6, 5), seed=0):
    """Inputs for `built`: x, and for a block a and h, for a head the noise."""
    if name == "head":
        return [random_images(*x_shape[:3], size, seed=seed) for size in (64, 4)]
    x = random_images(*x_shape, seed=seed)
    if name in SINGLE_LAYERS:
        return [x]
    return [x, random_images(*x_shape[:3], 2, seed=seed + 1), random_images(x_shape[0], 6)]


def numpy_kernel(layer):
    """g v / ||v|| in float64, one output channel after the other."""
    v, g = np.asarray(layer.v, np.float64), np.asarray(layer.g, np.float64)
    output_axis = v.ndim - 2 if isinstance(layer, WeightNormConv2DTranspose) else v.ndim - 1
    v = np.moveaxis(v, output_axis, 0)
    kernel = np.stack([g_k * v_k / np.sqrt(np.sum(v_k**2)) for g_k, v_k in zip(g, v, strict=True)])
    return np.moveaxis(kernel, 0, output_axis)


def numpy_conv(x, kernel, strides, pads):
    """Slow obvious convolution of float64 numbers, with zeros (top, bottom), (left, right)."""
    x = np.pad(np.asarray(x, np.float64), [(0, 0), *pads, (0, 0)])
    height, width = kernel.shape[:2]
    rows = (x.shape[1] - height) // strides + 1
    columns = (x.shape[2] - width) // strides + 1
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for row in range(rows):
        for column in range(columns):
            top, left = row * strides, column * strides
            patch = x[:, top : top + height, left : left + width]
            out[:, row, column] = np.einsum("bijc,ijcf->bf", patch, kernel)
    return out


def numpy_conv_transpose(x, kernel, strides):
    """Slow obvious transposed convolution: every pixel adds its filter, s H + kh - 1 rows."""
    x = np.asarray(x, np.float64)
    height, width = kernel.shape[:2]
    rows, columns = (size * strides for size in x.shape[1:3])
    out = np.zeros((len(x), rows + height - 1, columns + width - 1, kernel.shape[2]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            top, left = row * strides, column * strides
            out[:, top : top + height, left : left + width] += np.einsum(
                "bc,ijfc->bijf", x[:, row, column], kernel
            )
    return out


def same_pads(size, filter_size, strides):
    """TensorFlow's "same": as few zeros as give ceil(size / strides), the odd one behind."""
    total = max((-(-size // strides) - 1) * strides + filter_size - size, 0)
    return total // 2, total - total // 2


def numpy_layer(layer, x):
    """The layer in float64, and a bound of what float32 may make of it, as an array each."""

    def linear(x, kernel):
        if isinstance(layer, WeightNormDense):
            return np.einsum("bhwc,cf->bhwf", np.asarray(x, np.float64), kernel)
        height, width = layer.kernel_size
        if isinstance(layer, WeightNormConv2DTranspose):
            out = numpy_conv_transpose(x, kernel, layer.strides)
            if isinstance(layer, DownShiftedConv2DTranspose):
                side = (width - 1) // 2
                return out[:, : out.shape[1] - height + 1, side : out.shape[2] - side]
            if isinstance(layer, DownRightShiftedConv2DTranspose):
                return out[:, : out.shape[1] - height + 1, : out.shape[2] - width + 1]
            if layer.padding == "same":
                # The gradient of the "same" convolution: its zeros are cut away here.
                top, left = (
                    same_pads(size * layer.strides, filter_size, layer.strides)[0]
                    for size, filter_size in zip(x.shape[1:3], layer.kernel_size, strict=True)
                )
                rows, columns = (size * layer.strides for size in x.shape[1:3])
                return out[:, top : top + rows, left : left + columns]
            return out
        if isinstance(layer, DownShiftedConv2D):
            pads = [(height - 1, 0), ((width - 1) // 2, width // 2)]
        elif isinstance(layer, DownRightShiftedConv2D):
            pads = [(height - 1, 0), (width - 1, 0)]
        elif layer.padding == "same":
            pads = [
                same_pads(size, filter_size, layer.strides)
                for size, filter_size in zip(x.shape[1:3], layer.kernel_size, strict=True)
            ]
        else:
            pads = [(0, 0), (0, 0)]
        return numpy_conv(x, kernel, layer.strides, pads)

    kernel, bias = numpy_kernel(layer), np.asarray(layer.b, np.float64)
    magnitude = linear(np.abs(x), np.abs(kernel)) + np.abs(bias)
    # A sum of n products in float32, in any order: n + 1 rounding errors of eps / 2 (Higham 2002,
    # section 3.1); the kernel's norm is such a sum as well.
    num_roundings = 2 * (layer.v.shape.num_elements() // layer.filters + 2)
    return linear(x, kernel) + bias, num_roundings * FLOAT32_EPS / 2 * magnitude


def test_every_recorded_case_is_compared():
    recorded = {key.split("/")[0] for key in RECORDED}
    assert len(recorded) == 40
    assert recorded == set(CASES) | {"gated_resnet_dropout", "helpers"}


def test_every_layer_has_a_specimen():
    public = {
        value
        for name, value in vars(layers).items()
        if inspect.isclass(value)
        and issubclass(value, keras.layers.Layer)
        and not name.startswith("_")
        and value is not WeightNorm
    }
    assert public == {type(make_specimen()) for make_specimen in SPECIMENS.values()}


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
    outputs = block(**inputs, dropout=lambda c: c * mask / 0.5)
    assert relative_error(outputs, RECORDED[f"{case}/out"]) < 3 * OUTPUT_NOISE


@pytest.mark.parametrize("name", ["concat_elu", "down_shift", "right_shift"])
def test_helpers_are_the_recorded_ones(name):
    outputs = getattr(layers, name)(ops.convert_to_tensor(RECORDED["helpers/x"]))
    # The shifts move numbers; elu is one rounded function, good to an ulp or two.
    tolerance = 2 * FLOAT32_EPS if name == "concat_elu" else 0.0
    np.testing.assert_allclose(outputs, RECORDED[f"helpers/{name}"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", SINGLE_LAYERS)
@pytest.mark.parametrize("image_size", [(4, 6), (5, 7)])
def test_layers_equal_slow_numpy(name, image_size):
    x = random_images(2, *image_size, 5)
    layer = built(name, x.shape)
    expected, bound = numpy_layer(layer, x)
    outputs = np.asarray(layer(x), np.float64)
    assert outputs.shape == expected.shape
    assert np.all(np.abs(outputs - expected) <= bound)


def test_a_dense_layer_takes_vectors_and_images_of_one_row():
    # TensorFlow's own product of [B, 1, W, F] with a matrix is broken on some CPUs.
    x = random_images(3, 1, 7, 5)
    layer = built("dense", x.shape)
    expected, bound = numpy_layer(layer, x)
    assert np.all(np.abs(np.asarray(layer(x), np.float64) - expected) <= bound)
    vectors = x.reshape(21, 5)
    assert layer(vectors).shape == (21, 4)
    assert np.all(np.abs(layer(vectors) - expected.reshape(21, 4)) <= bound.reshape(21, 4))


def first_seen(layer, position):
    """Row and column of the first output that may see the input at `position`."""
    if isinstance(layer, WeightNormConv2DTranspose):
        return tuple(layer.strides * index for index in position)
    strides = getattr(layer, "strides", 1)
    return tuple(-(-index // strides) for index in position)


@pytest.mark.parametrize(
    ("name", "which"),
    [(name, "x") for name in SPECIMENS if "down" in name]
    + [(name, "a") for name in SPECIMENS if name.startswith(("block", "channels"))],
)
def test_shifted_layers_and_blocks_never_look_ahead(name, which):
    height, width = 4, 6
    positions = [(row, column) for row in range(height) for column in range(width)]
    inputs = specimen_inputs(name, (1, height, width, 5))
    inputs = [np.repeat(values, len(positions), axis=0) for values in inputs]
    changed = [values.copy() for values in inputs]
    for number, (row, column) in enumerate(positions):  # each position in an image of its own
        changed["xa".index(which)][number, row, column] += 1.0
    layer = built(name, inputs[0].shape)
    before, after = np.asarray(layer(*inputs)), np.asarray(layer(*changed))

    sees_to_the_right = "down_right" not in name
    for number, position in enumerate(positions):
        row, column = first_seen(layer, position)
        np.testing.assert_array_equal(after[number, :row], before[number, :row])
        visible = row < before.shape[1]
        if not sees_to_the_right:
            np.testing.assert_array_equal(after[number, :, :column], before[number, :, :column])
            visible = visible and column < before.shape[2]
        # With stride 2 the last row (and column) has no output behind it.
        assert np.any(after[number] != before[number]) == visible


# The cached step, in float64. No two of the sizes of its inputs are alike, strided ones included.
STEP_SHAPE = (2, 6, 10, 7)
STRIDES = pytest.mark.parametrize("strides", [1, 2])
NONLINEARITIES = pytest.mark.parametrize("nonlinearity", layers.NONLINEARITIES)
CONDITIONED = pytest.mark.parametrize("conditioned", [False, True], ids=["alone", "with_h"])


def step_layer(make_layer, *args, **kwargs):
    """A float64 layer with random weights for images of STEP_SHAPE, and what its step takes."""
    layer = make_layer(4, *args, dtype="float64", **kwargs)
    layer.build(STEP_SHAPE)
    return randomised(layer), layer.step_weights()


def step_images(*shape, seed=0):
    return random_images(*(shape or STEP_SHAPE), seed=seed).astype("float64")


def rows_of(images):
    """Images [B, H, W, F] as the cached step has them: rows [W, B, F], stacked [H, W, B, F]."""
    return np.transpose(images, (1, 2, 0, 3))


def at_or_zeros(positions, index):
    """positions[index], zeros before the first one."""
    return positions[index] if index >= 0 else np.zeros_like(positions[0])


def assert_stepped(rows, images):
    """The rows [W, B, F] of a cached step are those of images [B, H, W, F].

    The same products are summed up in another order: some roundings, of which the largest result
    gives the size.
    """
    images = np.asarray(images)
    rows = np.stack([np.stack([np.asarray(pixel) for pixel in row]) for row in rows])
    assert rows.dtype == images.dtype == np.float64
    assert rows.shape == rows_of(images).shape
    atol = 16 * FLOAT64_EPS * np.max(np.abs(images))
    np.testing.assert_allclose(rows, rows_of(images), rtol=0, atol=atol)


@pytest.mark.parametrize("kernel_size", [(2, 3), (1, 3), (3, 5)])
@STRIDES
def test_a_downward_convolution_gives_row_by_row_what_the_call_gives(kernel_size, strides):
    layer, weights = step_layer(DownShiftedConv2D, kernel_size, strides=strides)
    images = step_images()
    x = rows_of(images)
    rows = [
        layer.row(weights, *(at_or_zeros(x, row - i) for i in range(kernel_size[0])))
        for row in range(0, len(x), strides)
    ]
    assert_stepped(rows, layer(images))


@pytest.mark.parametrize("kernel_size", [(2, 2), (2, 1), (2, 3)])
@STRIDES
def test_a_rightward_convolution_gives_pixel_by_pixel_what_the_call_gives(kernel_size, strides):
    layer, weights = step_layer(DownRightShiftedConv2D, kernel_size, strides=strides)
    images = step_images()
    x = rows_of(images)

    def next_row(row):
        above = layer.row_above(weights, at_or_zeros(x, row - 1))
        columns = range(0, x.shape[1], strides)
        assert len(above) == len(columns)
        for column, above_pixel in zip(columns, above, strict=True):
            window = range(column - kernel_size[1] + 1, column + 1)
            pixels = [at_or_zeros(x[row], i) for i in window]
            yield layer.pixel(weights, above_pixel, *pixels)

    assert_stepped([list(next_row(row)) for row in range(0, len(x), strides)], layer(images))


@pytest.mark.parametrize("kernel_size", [(2, 3), (2, 5)])
@pytest.mark.parametrize("as_offset", [int, tf.constant])
def test_a_downward_transposed_convolution_gives_two_rows_for_each_row(kernel_size, as_offset):
    layer, weights = step_layer(DownShiftedConv2DTranspose, kernel_size)
    images = step_images()
    rows = [layer.row(weights, x, as_offset(i)) for x in rows_of(images) for i in (0, 1)]
    assert_stepped(rows, layer(images))


def test_a_rightward_transposed_convolution_gives_two_pixels_for_each_and_then_a_row_at_once():
    layer, weights = step_layer(DownRightShiftedConv2DTranspose)
    images, rows = step_images(), []
    for x in rows_of(images):
        rows.append([outputs for pixel in x for outputs in layer.pixel(weights, pixel)])
        rows.append(layer.row(weights, x))
    assert_stepped(rows, layer(images))


def test_a_dense_layer_gives_for_a_row_or_a_pixel_what_the_call_gives():
    layer, weights = step_layer(WeightNormDense)
    images = step_images()
    assert_stepped([layer.step(weights, x) for x in rows_of(images)], layer(images))
    assert_stepped([[layer.step(weights, p) for p in x] for x in rows_of(images)], layer(images))


def step_block(convolution, nonlinearity, a_channels, conditioned):
    """As `step_layer`, a block; and what the call takes: {name of an argument: images}."""
    batch_size, height, width, _ = STEP_SHAPE
    inputs = {"x": step_images(seed=1)}
    if a_channels:
        inputs["a"] = step_images(batch_size, height, width, a_channels, seed=2)
    if conditioned:
        inputs["h"] = step_images(batch_size, 3, seed=3)
    block = GatedResidualBlock(convolution, nonlinearity, dtype="float64")
    block.build(*(inputs[name].shape if name in inputs else None for name in "xah"))
    return randomised(block), block.step_weights(), inputs


def zeros_of(sizes, *shape):
    return {name: np.zeros((*shape, size)) for name, size in sizes.items()}


def assert_sizes(tensors, sizes, *shape):
    """Tensors are of the sizes that the block has announced."""
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        name: (*shape, size) for name, size in sizes.items()
    }


@NONLINEARITIES
@CONDITIONED
@pytest.mark.parametrize("a_channels", [0, 7], ids=["no_a", "a"])
def test_a_downward_block_gives_row_by_row_what_the_call_gives(
    nonlinearity, a_channels, conditioned
):
    block, weights, inputs = step_block(DownShiftedConv2D, nonlinearity, a_channels, conditioned)
    batch_size, height, width, _ = STEP_SHAPE
    sizes = block.state_sizes()
    above, rows = zeros_of(sizes, width, batch_size), []
    for row in range(height):
        x, a = (rows_of(inputs[name])[row] if name in inputs else None for name in "xa")
        outputs, above = block.row(weights, x, above, a, inputs.get("h"))
        assert_sizes(above, sizes, width, batch_size)
        rows.append(outputs)
    assert_stepped(rows, block(**inputs))


@NONLINEARITIES
@CONDITIONED
@pytest.mark.parametrize("a_channels", [7, 14], ids=["down", "down_and_right"])
def test_a_rightward_block_gives_pixel_by_pixel_what_the_call_gives(
    nonlinearity, a_channels, conditioned
):
    convolution = DownRightShiftedConv2D
    block, weights, inputs = step_block(convolution, nonlinearity, a_channels, conditioned)
    batch_size, height, width, filters = STEP_SHAPE
    x, a = rows_of(inputs["x"]), rows_of(inputs["a"])
    down, right = a[..., :filters], a[..., filters:] if a_channels > filters else None
    sizes = block.state_sizes()
    state_above, rows = zeros_of(sizes, width, batch_size), []
    for row in range(height):
        above = block.row_above(weights, state_above, down[row], inputs.get("h"))
        assert_sizes(above, block.above_sizes(), width, batch_size)
        state, states, outputs = zeros_of(sizes, batch_size), [], []
        for column in range(width):
            above_pixel = {name: tensor[column] for name, tensor in above.items()}
            a_pixel = None if right is None else right[row, column]
            pixel, state = block.pixel(weights, x[row, column], state, above_pixel, a_pixel)
            assert_sizes(state, sizes, batch_size)
            states.append(state)
            outputs.append(pixel)
        state_above = {name: np.stack([state[name] for state in states]) for name in sizes}
        rows.append(outputs)
    assert_stepped(rows, block(**inputs))


@pytest.mark.parametrize("name", SINGLE_LAYERS)
def test_after_initialisation_the_mean_is_0_and_the_deviation_init_scale(name):
    inputs = random_images(6, 4, 6, 5)
    layer = built(name, inputs.shape)  # g is not 1 and b is not 0

    def uncropped(x):
        return np.asarray(layer.linear(x, layer.kernel()) + layer.b, np.float64)

    for x in (inputs, inputs, random_images(6, 4, 6, 5, seed=3)):
        before = uncropped(x)
        returned = layer.initialize(x)
        np.testing.assert_array_equal(returned, layer(x))
        after = uncropped(x)
        # The mean of n float32 numbers is good to about sqrt(n) eps of the largest one; the scaling
        # to the new deviation takes the error along.
        num_values = np.prod(before.shape[:3])
        largest = np.max(np.abs(before) / np.std(before, (0, 1, 2)))
        tolerance = np.sqrt(num_values) * FLOAT32_EPS * largest * layer.init_scale
        np.testing.assert_allclose(np.mean(after, (0, 1, 2)), 0.0, atol=tolerance)
        np.testing.assert_allclose(np.std(after, (0, 1, 2)), layer.init_scale, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in SPECIMENS if name.startswith("block")])
def test_a_block_initialises_each_of_its_layers_on_the_initialised_ones_before(name):
    x, a, h = specimen_inputs(name, (6, 4, 6, 5))
    block = built(name, x.shape)  # g is not 1 and b is not 0
    kept = np.asarray(block.hw)
    rng = np.random.default_rng(2)
    mask = 2.0 * rng.integers(0, 2, (6, 4, 6, 10 if block.nonlinearity == "concat_elu" else 5))
    returned = block.initialize(x, a, h, dropout=lambda c: c * mask.astype("float32"))

    nonlinearity = layers.NONLINEARITIES[block.nonlinearity]
    c, skip = block.conv_in(nonlinearity(x)), block.skip(nonlinearity(a))
    t = block.conv_out(nonlinearity(c + skip) * mask.astype("float32"))
    for outputs, deviation in ((c, 1.0), (skip, 1.0), (t, 0.1)):
        outputs = np.asarray(outputs, np.float64)
        # As above; no pre-activation here was more than 10 deviations from 0.
        tolerance = np.sqrt(6 * 4 * 6) * FLOAT32_EPS * 10 * deviation
        np.testing.assert_allclose(np.mean(outputs, (0, 1, 2)), 0.0, atol=tolerance)
        np.testing.assert_allclose(np.std(outputs, (0, 1, 2)), deviation, atol=tolerance)
    np.testing.assert_array_equal(block.hw, kept)
    value, gate = np.split(np.asarray(t) + (h @ kept)[:, None, None], 2, axis=-1)
    # h @ hw has terms of a size of about 10: a few roundings of such numbers.
    np.testing.assert_allclose(returned, x + value / (1 + np.exp(-gate)), atol=64 * FLOAT32_EPS)


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("name", ["channels_down", "channels_down_right"])
def test_groups_of_channels_see_the_short_cut_and_the_groups_before_them(name, conditioned):
    x, a, h = specimen_inputs(name)
    block = built(name, x.shape)
    h = h if conditioned else None
    expected = []
    for group, inner in enumerate(block.blocks):
        inputs = np.concatenate([a, *expected], axis=-1)
        expected.append(np.asarray(inner(x[..., group : group + 1], inputs, h)))
    np.testing.assert_array_equal(block(x, a, h), np.concatenate(expected, axis=-1))
    assert {inner.conv_in.kernel_size for inner in block.blocks} == {(1, 1)}
    # Without a short-cut the first group has no other input.
    alone = SPECIMENS[name]()
    alone.build(x.shape)
    assert [inner.skip is None for inner in alone.blocks] == [True, False, False, False, False]


def test_dropout_drops_units_of_every_group_of_channels():
    x, a, h = specimen_inputs("channels_down")
    block = built("channels_down", x.shape)
    kept = np.ones((3, 4, 6, block.num_dropped()), "float32")
    assert kept.shape[-1] == 10
    whole = np.asarray(block(x, a, h, dropout=lambda c: c * kept))
    np.testing.assert_array_equal(whole, block(x, a, h))
    kept[..., 4:6] = 0  # the third of five groups, concat_elu makes two of one
    differs = (np.asarray(block(x, a, h, dropout=lambda c: c * kept)) != whole).any((0, 1, 2))
    np.testing.assert_array_equal(differs, [False, False, True, True, True])


def test_a_head_is_the_equation_of_the_release():
    features, noise = specimen_inputs("head")
    head = built("head", features.shape)
    f = layers.concat_elu(features + head.noise_in(noise))
    f = layers.concat_elu(head.hidden(f))
    expected = np.tanh(head.output_layer(f))
    np.testing.assert_allclose(head(features, noise), expected, atol=4 * FLOAT32_EPS)
    step = head.step(head.step_weights(), features[:, 0, 0], noise[:, 0, 0])
    np.testing.assert_allclose(step, expected[:, 0, 0], atol=16 * FLOAT32_EPS)


def test_a_head_initialises_its_layers_one_after_the_other():
    features, noise = specimen_inputs("head", (6, 4, 6, 5))
    head = built("head", features.shape)
    samples = head.initialize(features, noise)
    np.testing.assert_array_equal(samples, head(features, noise))
    outputs = np.arctanh(np.asarray(samples, np.float64))
    # arctanh magnifies the rounding of numbers near 1; most here are within a few tenths of 0.
    np.testing.assert_allclose(outputs.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(outputs.std((0, 1, 2)), 0.1, atol=1e-5)


def test_uniforms_of_an_image_are_a_function_of_its_numbers():
    numbers = np.array([[3, 1], [4, 1], [3, 2]])
    uniforms = np.asarray(layers.image_uniforms(numbers, (4, 6, 50)))
    assert uniforms.shape == (3, 4, 6, 50) and uniforms.dtype == np.float32
    assert uniforms.min() > 0 and uniforms.max() < 1
    np.testing.assert_array_equal(layers.image_uniforms(numbers[1:], (4, 6, 50)), uniforms[1:])
    # 1200 numbers: a correlation has the standard error 1 / sqrt(1200).
    correlations = np.corrcoef(uniforms.reshape(3, -1)) - np.eye(3)
    assert np.abs(correlations).max() < 4 / np.sqrt(1200)


def test_a_constant_channel_is_initialised_to_finite_numbers():
    layer = WeightNormDense(4)
    layer.build((2, 3, 5, 1))
    outputs = layer.initialize(np.ones((2, 3, 5, 1), "float32"))
    assert all(np.all(np.isfinite(weight)) for weight in layer.weights)
    # The variance is 0: a scale of 1 / sqrt(1e-10) blows the rounding of the mean up by 1e5.
    np.testing.assert_allclose(outputs, 0.0, atol=1e5 * 4 * FLOAT32_EPS)


@pytest.mark.parametrize("name", SPECIMENS)
def test_calling_a_layer_changes_nothing(name):
    inputs = specimen_inputs(name)
    layer = built(name, inputs[0].shape)
    before = layer.get_weights()
    first = np.asarray(layer(*inputs))
    layer(*specimen_inputs(name, seed=7), training=True)
    np.testing.assert_array_equal(layer(*inputs), first)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert not layer.non_trainable_weights


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_layer_comes_back_from_its_configuration(name):
    inputs = specimen_inputs(name)
    layer = built(name, inputs[0].shape, dtype="mixed_bfloat16")
    config = keras.saving.serialize_keras_object(layer)
    copies = [type(layer).from_config(layer.get_config())]
    copies[0].build(*(values.shape for values in inputs))
    copies += [keras.saving.deserialize_keras_object(config)]  # built as the layer was
    for copy in copies:
        assert copy.get_config() == layer.get_config()
        copy.set_weights(layer.get_weights())
        np.testing.assert_array_equal(
            ops.cast(copy(*inputs), "float32"), ops.cast(layer(*inputs), "float32")
        )


@pytest.mark.parametrize("name", SPECIMENS)
def test_shapes_are_known_before_any_number_is(name):
    inputs = specimen_inputs(name)
    layer = built(name, inputs[0].shape)
    symbolic = layer(*(keras.Input(values.shape[1:]) for values in inputs))
    assert symbolic.shape[1:] == layer(*inputs).shape[1:]
    assert symbolic.shape[0] is None


def test_fresh_weights_are_those_of_the_paper():
    layer = WeightNormConv2D(40, (3, 3))
    layer.build((None, 4, 6, 30))
    np.testing.assert_array_equal(layer.g, np.ones(40))
    np.testing.assert_array_equal(layer.b, np.zeros(40))
    v = np.asarray(layer.v)  # 10800 numbers: standard errors 0.05 / sqrt(n) and / sqrt(2 n)
    assert abs(np.mean(v)) < 4 * 0.05 / np.sqrt(v.size)
    assert abs(np.std(v) - 0.05) < 4 * 0.05 / np.sqrt(2 * v.size)


@pytest.mark.parametrize("name", SPECIMENS)
def test_mixed_bfloat16_keeps_the_weights_and_their_norm_in_float32(name):
    inputs = specimen_inputs(name)
    mixed = built(name, inputs[0].shape, dtype="mixed_bfloat16")
    exact = built(name, inputs[0].shape)
    outputs = mixed(*inputs)
    assert outputs.dtype == ("float32" if name == "head" else "bfloat16")
    assert {weight.dtype for weight in mixed.weights} == {"float32"}
    # In bfloat16 are: inputs, kernel, and every intermediate result of a block, about ten of them;
    # five blocks stand behind each other where there are groups of channels.
    error = relative_error(outputs, np.asarray(exact(*inputs), np.float64))
    num_roundings = {"block": 10, "channels": 50, "head": 10}.get(name.split("_")[0], 2)
    assert error < num_roundings * BFLOAT16_EPS
    if isinstance(mixed, WeightNorm):
        kernel = mixed.kernel()
        assert kernel.dtype == "bfloat16"
        np.testing.assert_array_equal(
            ops.cast(kernel, "float32"),
            ops.cast(ops.cast(exact.kernel(), "bfloat16"), "float32"),
        )


@pytest.mark.parametrize("name", SINGLE_LAYERS)
def test_mixed_bfloat16_initialises_as_float32_does(name):
    x = random_images(6, 4, 6, 5)
    mixed, exact = (built(name, x.shape, dtype=dtype) for dtype in ("mixed_bfloat16", "float32"))
    assert mixed.initialize(x).dtype == "bfloat16"
    exact.initialize(x)
    # The inputs and the kernel are rounded to bfloat16, the moments are not.
    assert relative_error(mixed.g, np.asarray(exact.g)) < 2 * BFLOAT16_EPS
    assert relative_error(mixed.b, np.asarray(exact.b)) < 2 * BFLOAT16_EPS
    assert {weight.dtype for weight in mixed.weights} == {"float32"}


@pytest.mark.parametrize("name", SINGLE_LAYERS)
def test_a_kernel_of_zeros_gives_no_nan(name):
    x = random_images(2, 4, 6, 5)
    layer = built(name, x.shape)
    layer.v.assign(ops.zeros_like(layer.v))
    with tf.GradientTape() as tape:
        outputs = layer(x)
        scalar = ops.sum(outputs)
    np.testing.assert_array_equal(outputs, np.broadcast_to(layer.b, outputs.shape))
    for gradient in tape.gradient(scalar, [weight.value for weight in layer.weights]):
        assert np.all(np.isfinite(gradient))
    layer.initialize(x)
    for weight in layer.weights:
        assert np.all(np.isfinite(weight))


def masks(rate, seed, num_calls=2, dtype="float32", shape=(40, 50, 51), first_image=0):
    """What consecutive calls of one Dropout make of ones: [num_calls, *shape]."""
    num_units = num_calls * layers.round_up_to_8(math.prod(shape[1:]))
    dropout = layers.Dropout(rate, seed, shape[0], num_units, first_image)
    outputs = [dropout(ops.ones(shape, dtype)) for _ in range(num_calls)]
    assert all(output.dtype == dtype for output in outputs)
    return ops.stack([ops.cast(output, "float32") for output in outputs])


def test_dropout_is_the_same_for_the_same_seed():
    expected = masks(0.5, [3, 8])
    np.testing.assert_array_equal(masks(0.5, [3, 8]), expected)
    traced = tf.function(lambda seed: masks(0.5, seed))
    np.testing.assert_array_equal(traced(tf.constant([3, 8])), expected)


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.3])
def test_dropout_of_an_image_depends_on_its_number_not_on_its_batch(rate):
    whole = masks(rate, [3, 8], shape=(6, 5, 7))
    parts = [masks(rate, [3, 8], shape=(2, 5, 7), first_image=first) for first in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_dropout_differs_between_seeds_steps_and_calls():
    kept = [masks(0.5, seed) > 0 for seed in ([3, 8], [3, 9], [4, 8], [8, 3])]
    kept.append(masks(0.5, [3, 8], first_image=40) > 0)
    kept = np.concatenate(kept)
    size = kept[0].size
    for first in range(len(kept)):
        for second in range(first):
            # Independent masks agree on half of the units; 5 standard errors, 45 pairs.
            agreement = np.mean(kept[first] == kept[second])
            assert abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(size)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.8125, 3 / 256])
def test_dropout_keeps_one_minus_rate_of_the_units_and_scales_them(dtype, rate):
    outputs = np.asarray(masks(rate, [1, 2], dtype=dtype))
    kept = np.mean(outputs > 0)
    standard_error = np.sqrt(rate * (1 - rate) / outputs.size)
    assert abs(kept - (1 - rate)) < 4 * standard_error
    eps = BFLOAT16_EPS if dtype == "bfloat16" else FLOAT32_EPS
    np.testing.assert_allclose(outputs[outputs > 0], 1 / (1 - rate), rtol=eps)


@pytest.mark.parametrize(
    ("layer", "kernel_size"),
    [
        (DownShiftedConv2D, (2, 3)),
        (DownShiftedConv2D, (1, 3)),
        (DownShiftedConv2D, (3, 5)),
        (DownRightShiftedConv2D, (2, 2)),
        (DownRightShiftedConv2D, (2, 1)),
        (DownRightShiftedConv2D, (3, 4)),
    ],
)
@pytest.mark.parametrize("is_static", [True, False])
def test_the_gradients_of_a_convolution_on_the_cpu_are_those_of_the_plain_one(
    layer, kernel_size, is_static
):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 7, 4)), rng.normal(size=(*kernel_size, 4, 3))
    pads = layer(3, kernel_size)._pads()
    weights = tf.constant(rng.normal(size=(2, 5, 7, 3)))

    def gradients(convolve):
        def run(x, kernel):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                outputs = convolve(x, kernel)
                total = tf.reduce_sum(weights * outputs)
            return [outputs, *tape.gradient(total, [x, kernel])]

        shape = x.shape if is_static else (None, None, None, 4)
        signature = [tf.TensorSpec(shape, tf.float64), tf.TensorSpec(kernel.shape, tf.float64)]
        return tf.function(run, input_signature=signature)(x, kernel)

    found = gradients(lambda x, kernel: layers._convolve_on_cpu(x, kernel, pads))
    expected = gradients(lambda x, kernel: ops.conv(layers._pad(x, pads), kernel, padding="valid"))
    for ours, plain in zip(found, expected, strict=True):
        # Sums of at most 2 * 5 * 7 float64 terms of size 1 or so.
        np.testing.assert_allclose(ours, plain, rtol=0, atol=100 * FLOAT64_EPS)
