"""The layers of the networks, in keras.ops.

All tensors are channels-last, [B, H, W, C]. Every layer of PixelCNN++ can be used in two ways.
Calling it maps inputs to outputs and changes nothing. `initialize` sets its gains and biases from
one whole batch, and returns the outputs of the initialised layer.

A layer also has methods for a cached step. They compute the same outputs piece by piece, as soon as
the pixels before them are known. A layer that sees only whole rows has `row`. A layer that also
sees the pixels on the left has `row_above` and `pixel`. `row_above` computes the contribution of
the rows above for all columns at once. Earlier results, and the effective weights that
`step_weights` returns, are arguments of these methods. In these methods, a row is a tensor
[W, B, F], with the columns first, because then a loop over columns takes contiguous slices. A pixel
is [B, F].

    random_bits  random numbers of a seed, the same on every backend
    fresh        fresh weights, and models without them
    gradients    functions with a gradient of their own, and networks that need none
    xla          whether XLA compiles what is traced
    noise        dropout and noise of an image, as functions of seeds
    convolution  convolutions with a gradient that is fast on TensorFlow's CPUs
    one_pass     what lies between products in one pass over memory, on TensorFlow's CPUs
    weight_norm  weight-normalised layers
    shifted      weight-normalised convolutions that see only earlier pixels
    blocks       the gated residual block of PixelCNN++
    channel_block  a block in which groups of channels read earlier groups
    sample_head  makes samples of pixels, for the energy distance
    masked       masked convolutions of PixelCNN
    gated_stacks  the layer of Gated PixelCNN
    recurrence   an LSTM that updates many positions in every step, with its gradient
    lstm         the layers of the Row LSTM and of the Diagonal BiLSTM
"""

from pixel_cnn_pp.layers.blocks import NONLINEARITIES, GatedResidualBlock, concat_elu
from pixel_cnn_pp.layers.channel_block import AutoregressiveChannelBlock
from pixel_cnn_pp.layers.fresh import fresh, without_fresh_weights
from pixel_cnn_pp.layers.gated_stacks import GatedStacks, RowsConv2D
from pixel_cnn_pp.layers.gradients import gradients_are_taken, without_gradients
from pixel_cnn_pp.layers.lstm import DiagonalBiLSTMLayer, DiagonalLSTMLayer, RowLSTMLayer
from pixel_cnn_pp.layers.masked import MaskedConv2D
from pixel_cnn_pp.layers.noise import (
    Drop,
    Dropout,
    image_digests,
    image_seeds,
    image_uniforms,
    round_up_to_8,
)
from pixel_cnn_pp.layers.random_bits import first_uniforms, words
from pixel_cnn_pp.layers.sample_head import SampleHead
from pixel_cnn_pp.layers.shifted import (
    DownRightShiftedConv2D,
    DownRightShiftedConv2DTranspose,
    DownShiftedConv2D,
    DownShiftedConv2DTranspose,
    crop_sides,
    down_shift,
    pad_sides,
    right_shift,
)
from pixel_cnn_pp.layers.weight_norm import (
    WeightNorm,
    WeightNormConv2D,
    WeightNormConv2DTranspose,
    WeightNormDense,
    apply,
    initialize,
    project,
)
from pixel_cnn_pp.layers.xla import for_xla

__all__ = [
    "NONLINEARITIES",
    "AutoregressiveChannelBlock",
    "DiagonalBiLSTMLayer",
    "DiagonalLSTMLayer",
    "DownRightShiftedConv2D",
    "DownRightShiftedConv2DTranspose",
    "DownShiftedConv2D",
    "DownShiftedConv2DTranspose",
    "Drop",
    "Dropout",
    "GatedResidualBlock",
    "GatedStacks",
    "MaskedConv2D",
    "RowLSTMLayer",
    "RowsConv2D",
    "SampleHead",
    "WeightNorm",
    "WeightNormConv2D",
    "WeightNormConv2DTranspose",
    "WeightNormDense",
    "apply",
    "concat_elu",
    "crop_sides",
    "down_shift",
    "first_uniforms",
    "for_xla",
    "fresh",
    "gradients_are_taken",
    "image_digests",
    "image_seeds",
    "image_uniforms",
    "initialize",
    "pad_sides",
    "project",
    "right_shift",
    "round_up_to_8",
    "without_fresh_weights",
    "without_gradients",
    "words",
]
