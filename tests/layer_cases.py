"""Layers of every class that the laws of tests/layers run over, and what they are compared with."""

import numpy as np
from keras import ops

from pixel_cnn_pp.layers import (
    AutoregressiveChannelBlock,
    DiagonalBiLSTMLayer,
    DiagonalLSTMLayer,
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    GatedResidualBlock,
    GatedStacks,
    MaskedConv2D,
    RowLSTMLayer,
    RowsConv2D,
    SampleHead,
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
)

FLOAT32_EPS = float(np.finfo("float32").eps)


FLOAT64_EPS = float(np.finfo("float64").eps)


BFLOAT16_EPS = 2.0**-7


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
    "masked_a": lambda **kw: MaskedConv2D(7, 3, "A", 2, **kw),
    "lstm_row": lambda **kw: RowLSTMLayer(5, 2, **kw),
    "lstm_diagonal": lambda **kw: DiagonalLSTMLayer(5, 2, is_mirrored=True, **kw),
    "lstm_both_diagonals": lambda **kw: DiagonalBiLSTMLayer(5, 3, **kw),
    "rows": lambda **kw: RowsConv2D(4, 3, **kw),
    "stacks_first": lambda **kw: GatedStacks(4, 3, 5, is_first=True, **kw),
    "stacks": lambda **kw: GatedStacks(5, 5, 2, **kw),
    "masked_output": lambda **kw: MaskedConv2D(6, 1, "B", 3, is_output=True, **kw),
}


# Those that take one input and are weight-normalised.
SINGLE_LAYERS = [
    name
    for name in SPECIMENS
    if name.split("_")[0] not in ("block", "channels", "head", "masked", "rows", "stacks", "lstm")
]


def random_images(*shape, seed=0):
    """Normal float32 numbers with a mean and a spread of their own in every channel."""
    rng = np.random.default_rng(seed)
    scales, means = rng.uniform(0.5, 2.0, shape[-1]), rng.normal(size=shape[-1])
    return (rng.normal(size=shape) * scales + means).astype("float32")


def built(name, x_shape, **kwargs):
    """A specimen with weights, g and b among them, that are not the fresh ones."""
    layer = SPECIMENS[name](**kwargs)
    block = isinstance(layer, GatedResidualBlock | AutoregressiveChannelBlock)
    stacks = isinstance(layer, GatedStacks)
    further = ((*x_shape[:3], 2), (x_shape[0], 6)) if block else (x_shape,) * stacks
    layer.build(x_shape, *further)
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
    if name in SINGLE_LAYERS or name.startswith(("masked", "rows", "lstm")):
        return [x]
    if name.startswith("stacks"):
        return [x, random_images(*x_shape, seed=seed + 1)]
    return [x, random_images(*x_shape[:3], 2, seed=seed + 1), random_images(x_shape[0], 6)]


def outputs_of(layer, inputs, **kwargs):
    """What a layer returns, as one tensor."""
    outputs = layer(*inputs, **kwargs)
    return ops.concatenate(outputs, axis=-1) if isinstance(outputs, tuple) else outputs


def relative_error(actual, expected):
    """Largest difference, relative to the largest expected entry."""
    actual = np.asarray(ops.cast(actual, "float32"), np.float64)
    assert actual.shape == expected.shape
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))
