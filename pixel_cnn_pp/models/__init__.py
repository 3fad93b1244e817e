"""The models. Each is a subclass of `base.AutoregressiveModel` in a file of its own.

base               the methods that a model defines, and the methods that follow from them
keras_model        what a model is for Keras
scoring            log-likelihoods of images, pixels and sub-pixels
step               the methods of a cached step
conditions         what images are conditioned on, as a network takes it
embedding          makes features of a picture that images are conditioned on
inputs             checks of images and conditions
blocks             traces blocks of the same form once
gated_blocks       runs gated residual blocks on whole images, with their dropout
pixel_cnn_pp       PixelCNN++ for whole images
pixel_cnn_pp_images  what passes through PixelCNN++ for whole images
pixel_cnn_pp_step  the cached step of PixelCNN++
masked_network     the network around the blocks of van den Oord et al. 2016a, its cached step
pixel_cnn          PixelCNN of that paper
pixel_rnn          the Row LSTM and the Diagonal BiLSTM of that paper
gated_pixel_cnn    Gated PixelCNN of van den Oord et al. 2016b
stages             the stages of a model
chain              chains of models, of Kolesnikov & Lampert 2017
"""

import contextlib

from pixel_cnn_pp import layers
from pixel_cnn_pp.models import stages
from pixel_cnn_pp.models.base import AutoregressiveModel
from pixel_cnn_pp.models.chain import Chain
from pixel_cnn_pp.models.gated_pixel_cnn import GatedPixelCNN
from pixel_cnn_pp.models.pixel_cnn import PixelCNN
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP
from pixel_cnn_pp.models.pixel_rnn import DiagonalBiLSTM, RowLSTM
from pixel_cnn_pp.models.step import Step

__all__ = [
    "AutoregressiveModel",
    "Chain",
    "DiagonalBiLSTM",
    "GatedPixelCNN",
    "PixelCNN",
    "PixelCNNPP",
    "RowLSTM",
    "Step",
    "checked",
    "make",
    "stages",
]

_CLASSES = {
    "pixel_cnn_pp": PixelCNNPP,
    "pixel_cnn": PixelCNN,
    "gated_pixel_cnn": GatedPixelCNN,
    "row_lstm": RowLSTM,
    "diagonal_bilstm": DiagonalBiLSTM,
    "chain": Chain,
}


def checked(model):
    """Returns a model that a user gives. Raises a ValueError if it is not one of this package."""
    if not isinstance(model, AutoregressiveModel):
        raise ValueError(
            "`model` must be an autoregressive model of this package. "
            f"Received: {type(model).__name__}"
        )
    return model


def make(config, fresh=True, **kwargs):
    """Makes the model that a configuration describes.

    Args:
      config: A configuration of `config.MODELS`, or a `config.ChainConfig`.
      fresh: Whether to draw fresh weights. Without, all weights must be set before they are used.
      **kwargs: `dtype`, `recompute` and `name`, as for `AutoregressiveModel`.

    Returns:
      AutoregressiveModel.
    """
    with contextlib.nullcontext() if fresh else layers.without_fresh_weights():
        return _CLASSES[config.kind](config, **kwargs)
