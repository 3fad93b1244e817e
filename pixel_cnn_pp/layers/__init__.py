"""The layers of the networks, in keras.ops.

All tensors are channels-last, [B, H, W, C]. Every layer has two verbs. Calling it maps inputs to
outputs and changes nothing. `initialize` sets its gains and biases from one whole batch, once, and
returns the outputs of the layer so initialised.

A layer also has a cached step, which computes the same outputs piece by piece, as soon as the
pixels before them are known. A layer that sees whole rows has `row`. A layer that also sees what is
left of a pixel has `row_above` (what the rows above contribute, for all columns at once) and
`pixel`. What has been computed before, and the effective weights of `step_weights`, are arguments.
There, a row is a tensor [W, B, F], columns first, because a loop over columns then takes contiguous
slices; a pixel is [B, F].

    noise        dropout and noise of an image, as functions of seeds
    convolution  convolutions with a gradient that is fast on CPUs
    weight_norm  weight-normalised layers
    shifted      weight-normalised convolutions that see nothing below, or to the right
    blocks, channel_block   the gated residual block, and the block from channels to later channels
    sample_head  makes samples, for the energy distance
    masked       masked convolutions of groups of features
"""

from pixel_cnn_pp.layers.blocks import NONLINEARITIES, GatedResidualBlock, concat_elu
from pixel_cnn_pp.layers.channel_block import AutoregressiveChannelBlock
from pixel_cnn_pp.layers.masked import MaskedConv2D
from pixel_cnn_pp.layers.noise import (
    Dropout,
    FixedSeed,
    image_digests,
    image_seeds,
    image_uniforms,
    round_up_to_8,
)
from pixel_cnn_pp.layers.sample_head import SampleHead
from pixel_cnn_pp.layers.shifted import (
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    down_shift,
    right_shift,
)
from pixel_cnn_pp.layers.weight_norm import (
    WeightNorm,
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
    apply,
    initialize,
)

__all__ = [
    "NONLINEARITIES",
    "AutoregressiveChannelBlock",
    "DownRightShiftedConv2D",
    "DownRightShiftedConv2DTranspose",
    "DownShiftedConv2D",
    "DownShiftedConv2DTranspose",
    "Dropout",
    "FixedSeed",
    "GatedResidualBlock",
    "MaskedConv2D",
    "SampleHead",
    "WeightNorm",
    "WeightNormConv2D",
    "WeightNormConv2DTranspose",
    "WeightNormDense",
    "apply",
    "concat_elu",
    "down_shift",
    "image_digests",
    "image_seeds",
    "image_uniforms",
    "initialize",
    "right_shift",
    "round_up_to_8",
]
