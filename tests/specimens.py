"""The models that all laws run over, and the models of the recorded cases (tests/golden)."""

import dataclasses
import functools
import gzip
import json
import pathlib

import keras
import numpy as np

from pixel_cnn_pp import likelihoods, models
from pixel_cnn_pp.config import (
    ChainConfig,
    DiagonalBiLSTMConfig,
    GatedPixelCNNConfig,
    ModelConfig,
    PixelCNNConfig,
    RowLSTMConfig,
)
from pixel_cnn_pp.models import conditions

GOLDEN = pathlib.Path(__file__).parent / "golden"

# Every model of the package, small enough to be cheap, different enough that every branch of every
# network is in one of them; tests/models/test_specimens.py checks the list for gaps.
SPECIMENS = {
    "two_channels": ModelConfig(
        image_shape=(12, 4, 2),
        num_levels=1000,
        nr_filters=5,
        nr_logistic_mix=2,
        num_classes=2,
        receptive_field="15x8",
    ),
    # PixelCNN++, the full network.
    "digits": ModelConfig(
        image_shape=(12, 8, 1),
        num_levels=17,
        nr_resnet=1,
        nr_filters=8,
        nr_logistic_mix=3,
        resnet_nonlinearity="elu",
        dropout_p=0.25,
        num_classes=10,
    ),
    "relu": ModelConfig(
        image_shape=(5, 7, 3),  # no multiples of 4
        num_levels=32,
        nr_resnet=1,
        nr_filters=8,
        nr_logistic_mix=2,
        resnet_nonlinearity="relu",
        dropout_p=0.0,
    ),
    "deep": ModelConfig(
        image_shape=(8, 12, 3),
        nr_resnet=2,
        nr_filters=4,
        nr_logistic_mix=2,
        dropout_p=0.0,
        num_classes=4,
    ),
    "softmax": ModelConfig(
        image_shape=(8, 4, 3),
        num_levels=4,
        nr_resnet=1,
        nr_filters=4,
        dropout_p=0.0,
        likelihood="softmax",
        shortcuts=False,
        condition_shape=(8, 4, 2),
        condition_levels=16,
        embedding_resnet=1,
        embedding_resolutions=1,
    ),
    "two_resolutions": ModelConfig(
        image_shape=(6, 10, 3),
        num_levels=32,
        nr_resnet=1,
        nr_filters=4,
        nr_logistic_mix=2,
        resnet_nonlinearity="elu",
        dropout_p=0.25,
        num_resolutions=2,
        condition_shape=(3, 5, 1),  # no multiples of 2
        condition_levels=32,
        embedding_resnet=1,
        embedding_filters=3,
    ),
    "one_resolution": ModelConfig(
        image_shape=(12, 4, 1),
        num_levels=9,
        nr_resnet=2,
        nr_filters=4,
        nr_logistic_mix=2,
        dropout_p=0.25,
        num_resolutions=1,
        condition_shape=(3, 1, 2),  # a quarter of the sides
        embedding_resnet=1,
        embedding_resolutions=1,
    ),
    # PixelCNN++, the small receptive fields; the first of the list is one too.
    "four_channels": ModelConfig(
        image_shape=(8, 8, 4),
        num_levels=2,
        nr_filters=4,
        nr_logistic_mix=2,
        resnet_nonlinearity="elu",
        dropout_p=0.1,
        receptive_field="11x5",
        condition_shape=(4, 4, 1),
    ),
    "one_component": ModelConfig(
        image_shape=(8, 12, 1),
        nr_filters=8,
        nr_logistic_mix=1,
        resnet_nonlinearity="relu",
        num_classes=3,
        receptive_field="11x5",
    ),
    "small_nin": ModelConfig(
        image_shape=(8, 4, 1),
        num_levels=5,
        nr_filters=4,
        resnet_nonlinearity="elu",
        likelihood="softmax",
        receptive_field="11x5",
        small_variant="nin",
        condition_shape=(3,),
    ),
    "small_channels": ModelConfig(
        image_shape=(4, 8, 2),
        num_levels=16,
        nr_filters=8,
        nr_logistic_mix=2,
        num_classes=2,
        likelihood="dequantized",
        receptive_field="15x8",
        small_variant="autoregressive_channel",
    ),
    "energy": ModelConfig(
        image_shape=(8, 4, 3),
        nr_filters=4,
        num_classes=2,
        energy_distance=True,
        receptive_field="11x5",
    ),
    # PixelCNN.
    "pixel_cnn": PixelCNNConfig(
        image_shape=(5, 6, 3),
        num_levels=7,
        nr_resnet=2,
        nr_filters=11,  # no multiple of the channels: groups differ in size
        nr_output_filters=19,
        num_classes=3,
    ),
    "pixel_cnn_binary": PixelCNNConfig(
        image_shape=(6, 5, 1), num_levels=2, nr_resnet=1, nr_filters=4, nr_output_filters=6
    ),
    "pixel_cnn_four": PixelCNNConfig(
        image_shape=(3, 5, 4), num_levels=256, nr_resnet=1, nr_filters=14, nr_output_filters=42
    ),
    "pixel_cnn_picture": PixelCNNConfig(
        image_shape=(4, 6, 2), num_levels=5, nr_resnet=1, nr_filters=6, nr_output_filters=8,
        condition_shape=(2, 6, 3), condition_levels=9, embedding_resnet=1, embedding_filters=5,
    ),
    # Gated PixelCNN.
    "gated": GatedPixelCNNConfig(
        image_shape=(5, 6, 3), num_levels=7, nr_resnet=3, nr_filters=20, filter_size=3,
        nr_output_filters=31, num_classes=3,
    ),
    "gated_binary": GatedPixelCNNConfig(
        image_shape=(6, 5, 1), num_levels=2, nr_resnet=2, nr_filters=4, filter_size=5,
        nr_output_filters=6, condition_shape=(6, 5, 2), condition_levels=3,
    ),
    "gated_two": GatedPixelCNNConfig(
        image_shape=(4, 6, 2), num_levels=5, nr_resnet=2, nr_filters=13, filter_size=3,
        nr_output_filters=14, condition_shape=(2, 3, 1), embedding_resnet=1, embedding_filters=3,
    ),
    "gated_vector": GatedPixelCNNConfig(
        image_shape=(6, 4, 1), num_levels=6, nr_resnet=2, nr_filters=6, filter_size=3,
        nr_output_filters=8, condition_shape=(3,),
    ),
    "gated_four": GatedPixelCNNConfig(
        image_shape=(3, 5, 4), num_levels=256, nr_resnet=1, nr_filters=30, filter_size=3,
        nr_output_filters=42,
    ),
    # The Row LSTM.
    "row_lstm": RowLSTMConfig(
        image_shape=(5, 6, 3), num_levels=7, nr_resnet=2, nr_filters=8, nr_output_filters=24,
        num_classes=3,
    ),
    "row_lstm_binary": RowLSTMConfig(
        image_shape=(6, 5, 1), num_levels=2, nr_resnet=1, nr_filters=4, nr_output_filters=6
    ),
    "row_lstm_picture": RowLSTMConfig(
        image_shape=(6, 4, 2), num_levels=5, nr_resnet=1, nr_filters=7, nr_output_filters=16,
        condition_shape=(3, 2, 1), condition_levels=9,
    ),
    "row_lstm_four": RowLSTMConfig(
        image_shape=(3, 5, 4), num_levels=256, nr_resnet=1, nr_filters=6, nr_output_filters=42
    ),
    # The Diagonal BiLSTM.
    "diagonal_bilstm": DiagonalBiLSTMConfig(
        image_shape=(5, 6, 3), num_levels=7, nr_resnet=2, nr_filters=8, nr_output_filters=24,
        num_classes=3,
    ),
    "diagonal_bilstm_binary": DiagonalBiLSTMConfig(
        image_shape=(6, 5, 1), num_levels=2, nr_resnet=1, nr_filters=4, nr_output_filters=6
    ),
    "diagonal_bilstm_picture": DiagonalBiLSTMConfig(
        image_shape=(6, 4, 2), num_levels=5, nr_resnet=1, nr_filters=7, nr_output_filters=16,
        condition_shape=(3, 2, 1), condition_levels=9,
    ),
    "diagonal_bilstm_four": DiagonalBiLSTMConfig(
        image_shape=(3, 5, 4), num_levels=256, nr_resnet=1, nr_filters=6, nr_output_filters=42
    ),
}  # fmt: skip

# Chains: a gray picture and then colours; pictures of three sizes; and every second pixel, with
# classes. Their stages are of several models, with dropout and without.
CHAINS = {
    "gray_and_colour": ChainConfig(
        (
            PixelCNNConfig(
                (4, 6, 1), num_levels=4, nr_resnet=1, nr_filters=4, nr_output_filters=6
            ),
            ModelConfig(
                (4, 6, 3), num_levels=16, nr_resnet=1, nr_filters=4, nr_logistic_mix=2,
                dropout_p=0.25, num_resolutions=1, condition_shape=(4, 6, 1), condition_levels=4,
                embedding_resnet=1, embedding_filters=3,
            ),
        ),
        ("gray:4", "image"),
    ),
    "three_sizes": ChainConfig(
        (
            ModelConfig(
                (2, 3, 1), nr_resnet=1, nr_filters=4, nr_logistic_mix=2, dropout_p=0.25,
                num_resolutions=1,
            ),
            ModelConfig(
                (4, 6, 1), nr_resnet=1, nr_filters=4, nr_logistic_mix=2, dropout_p=0.0,
                num_resolutions=1, condition_shape=(2, 3, 1),
            ),
            ModelConfig(
                (8, 12, 1), nr_filters=4, nr_logistic_mix=2, dropout_p=0.0,
                receptive_field="11x5", condition_shape=(4, 6, 1),
            ),
        ),
        ("mean:4", "mean:2", "image"),
    ),
    "every_second_pixel": ChainConfig(
        (
            PixelCNNConfig(
                (3, 2, 2), num_levels=5, nr_resnet=1, nr_filters=6, nr_output_filters=8,
                num_classes=3,
            ),
            GatedPixelCNNConfig(
                (6, 4, 2), num_levels=5, nr_resnet=2, nr_filters=8, filter_size=3,
                nr_output_filters=10, condition_shape=(3, 2, 2), condition_levels=5,
            ),
        ),
        ("every:2", "image"),
    ),
}  # fmt: skip


def _first_of_each(kind):
    found = {}
    for name, config in SPECIMENS.items():
        found.setdefault(kind(config), name)
    return list(found.values())


def _likelihood_of(config):
    """What tells the likelihoods of a model from each other."""
    options = ("likelihood", "energy_distance")
    return (config.kind, config.num_levels == 2, *(getattr(config, x, None) for x in options))


# One of each model, for laws that do not depend on its options, and one of each of its likelihoods.
ONE_OF_EACH_MODEL = _first_of_each(lambda config: config.kind)
ONE_OF_EACH_LIKELIHOOD = _first_of_each(_likelihood_of)
# One of each model with all kinds of layers that it has, and without dropout.
WHOLE_OF_EACH_MODEL = ["relu", "pixel_cnn", "gated", "row_lstm", "diagonal_bilstm"]
WITH_LIKELIHOOD = [
    name for name, config in SPECIMENS.items() if not getattr(config, "energy_distance", False)
]

# Those that the release has a checkpoint of: its full network with its likelihood.
OF_THE_RELEASE = [
    name
    for name, config in SPECIMENS.items()
    if isinstance(config, ModelConfig)
    and config.receptive_field == "full"
    and config.shortcuts
    and config.num_resolutions == 3
    and config.likelihood == "logistic_mixture"
    and not config.energy_distance
]

# Of so few levels and pixels that every image can be scored.
TINY = {
    "pixel_cnn_pp": ModelConfig(
        image_shape=(4, 4, 1), num_levels=2, nr_filters=4, nr_logistic_mix=2, dropout_p=0.0,
        receptive_field="11x5",
    ),
    "pixel_cnn_pp_full": ModelConfig(
        image_shape=(3, 5, 1), num_levels=2, nr_resnet=1, nr_filters=4, nr_logistic_mix=2,
        dropout_p=0.0,
    ),
    "pixel_cnn": PixelCNNConfig(
        image_shape=(2, 3, 2), num_levels=2, nr_resnet=1, nr_filters=4, nr_output_filters=8
    ),
    "pixel_cnn_softmax": PixelCNNConfig(
        image_shape=(3, 3, 1), num_levels=3, nr_resnet=1, nr_filters=4, nr_output_filters=8
    ),
    "gated_pixel_cnn": GatedPixelCNNConfig(
        image_shape=(2, 3, 2), num_levels=2, nr_resnet=2, nr_filters=5, filter_size=3,
        nr_output_filters=8,
    ),
    "row_lstm": RowLSTMConfig(
        image_shape=(2, 3, 2), num_levels=2, nr_resnet=1, nr_filters=4, nr_output_filters=8
    ),
    "diagonal_bilstm": DiagonalBiLSTMConfig(
        image_shape=(3, 3, 1), num_levels=3, nr_resnet=1, nr_filters=4, nr_output_filters=8
    ),
}  # fmt: skip

# The whole networks that were recorded; the README of tests/golden says how.
RECORDED = {
    "init_train_uncond": ModelConfig(
        image_shape=(16, 16, 3), nr_resnet=2, nr_filters=8, nr_logistic_mix=5, dropout_p=0.0
    ),
    "init_train_cond": ModelConfig(
        image_shape=(12, 8, 3),
        nr_resnet=1,
        nr_filters=6,
        nr_logistic_mix=3,
        dropout_p=0.0,
        num_classes=10,
    ),
}


def fresh(config, **kwargs):
    """A new model with the fresh weights that belong to seed 1; its caller may change it."""
    keras.utils.set_random_seed(1)
    return models.make(config, **kwargs)


@functools.cache
def build(name):
    """The specimen or chain of this name; shared by all tests, so that none may change it."""
    return fresh((SPECIMENS | CHAINS)[name])


@functools.cache
def opinionated(name, dtype="float64"):
    """As `build`, a specimen or chain whose outputs depend on all that they may; shared too.

    A fresh network is nearly the same for every image. The data-dependent initialisation mends
    that where there is one; where there is none, larger weights do.
    """
    model = fresh((SPECIMENS | CHAINS)[name], dtype=dtype)
    if dtype != "float64":
        model.set_weights(opinionated(name).get_weights())
        return model
    model.initialize(images(model.config, 8), labels(model.config, 8))
    for stage in model.stages:
        if not _initialises(stage.model):
            rng = np.random.default_rng(1)
            weights = [0.5 * rng.normal(size=weight.shape) for weight in stage.model.weights]
            stage.model.set_weights(weights)
    return model


def has_dropout(name):
    """Whether the specimen of this name is trained with dropout."""
    return build(name).has_dropout


def has_initialisation(name):
    """Whether the specimen of this name is initialised from data, beside an embedding network."""
    return _initialises(build(name))


def _initialises(model):
    return type(model).initialize is not models.AutoregressiveModel.initialize


def initialised(model, name):
    """Whether each weight of a model, made as the specimen of this name, is set from data."""
    own = model.weights if has_initialisation(name) else getattr(model.embedding, "weights", [])
    return [
        weight.name in ("g", "b") and any(weight is each for each in own)
        for weight in model.weights
    ]


def with_sides(config, height, width):
    """The configuration for images of another height and width, and with them of a picture."""
    changes = {"image_shape": (height, width, config.image_shape[-1])}
    own = conditions.shape_of(config)
    if own is not None and len(own) == 3:
        times = conditions.times_larger(config)
        changes["condition_shape"] = (height // times[0], width // times[1], own[-1])
    return dataclasses.replace(config, **changes)


def images(config, n, seed=0):
    """n images [n, H, W, C] of independent, uniform levels, in the dtype of such images."""
    levels = np.random.default_rng(seed).integers(0, config.num_levels, (n, *config.image_shape))
    return levels.astype(likelihoods.level_dtype(config.num_levels))


def labels(config, n, seed=0):
    """What n images are conditioned on: labels, vectors or pictures; None for nothing."""
    rng = np.random.default_rng((seed, 1))
    if config.num_classes is not None:
        return rng.integers(0, config.num_classes, n).astype(np.int32)
    own = conditions.shape_of(config)
    if own is None:
        return None
    if len(own) == 1:
        return rng.normal(size=(n, *own)).astype(np.float32)
    return rng.integers(0, config.condition_levels, (n, *own)).astype(np.int32)


def golden(name):
    """A recorded file of tests/golden: {name: array} of an .npz, what stands in a .json(.gz)."""
    path = GOLDEN / name
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return dict(arrays)
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return json.loads(text)
