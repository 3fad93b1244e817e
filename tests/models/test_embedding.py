"""The embedding network of a picture: its numbers, its layout, its initialisation."""

import dataclasses

import numpy as np
import pytest
import slow_embedding
import specimens
import tensorflow as tf
from comparisons import assert_close
from specimens import SPECIMENS

from pixel_cnn_pp import layers, models
from pixel_cnn_pp.config import PixelCNNConfig
from pixel_cnn_pp.models import base, conditions, gated_blocks
from pixel_cnn_pp.models.embedding import EmbeddingNetwork

# Pictures as large as the image, of half the sides, of a quarter, and of half the rows.
NAMES = ["softmax", "two_resolutions", "one_resolution", "pixel_cnn_picture"]


def features_of(model, condition):
    """What the layers of a model take of pictures, at the resolution of the images."""
    height, width, _ = model.config.image_shape
    picture = model.embed(condition).picture
    picture = picture[0] if isinstance(picture, list) else picture
    return np.asarray(picture)[:, :height, :width]


def with_two_blocks():
    """A network with more blocks than one in each group."""
    config = dataclasses.replace(SPECIMENS["gated_two"], embedding_resnet=2)
    model = specimens.fresh(config, dtype="float64")
    rng = np.random.default_rng(1)
    model.set_weights([0.5 * rng.normal(size=weight.shape) for weight in model.weights])
    return model


@pytest.mark.parametrize("name", [*NAMES, None])
def test_its_features_are_those_of_its_equations(name):
    model = specimens.opinionated(name) if name else with_two_blocks()
    condition = specimens.labels(model.config, 2)
    found = features_of(model, condition)
    assert found.shape[-1] == conditions.num_features(model.config)
    for i, picture in enumerate(condition):
        expected = slow_embedding.of_condition(model, picture)
        # float64: a sum of some hundred products in each of at most 26 layers.
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-11 * np.abs(expected).max())


class Recorder:
    """Stands in the place of `GatedBlocks`, applies everything, and keeps what passed through."""

    def __init__(self):
        self.outputs, self.sides, self.short_cuts = [], [], []

    def run(self, layer, x):
        self.outputs.append((layer, np.asarray(layer(x))))
        return self.outputs[-1][1]

    def __call__(self, block, x, a=()):
        activate = layers.NONLINEARITIES[block.nonlinearity]
        c = self.run(block.conv_in, activate(x))
        for each in a:
            c = c + self.run(block.skip, activate(each))
        self.run(block.conv_out, activate(c))
        self.sides.append(tuple(x.shape[1:3]))
        self.short_cuts.append([tuple(each.shape[1:3]) for each in a])
        return block(x, a[0] if a else None)


def passed(num_doublings, num_resolutions, sides=(8, 12)):
    network = EmbeddingNetwork(2, 3, num_resolutions, num_doublings)
    network.build((None, None, None, 1))
    recorder = Recorder()
    outputs = network(np.ones((1, *sides, 1), "float32"), blocks=recorder)
    return network, recorder, tuple(outputs.shape[1:])


def test_a_target_of_twice_the_sides_has_15_blocks_down_after_3_and_up_after_9_and_12():
    # Kolesnikov & Lampert 2017, section 4.3, with 3 blocks of a group and 2 resolutions.
    _, recorder, shape = passed(num_doublings=1, num_resolutions=2)
    own, lower, target = (8, 12), (4, 6), (16, 24)
    assert recorder.sides == [own] * 3 + [lower] * 6 + [own] * 3 + [target] * 3
    assert recorder.short_cuts == [[]] * 6 + [[lower]] * 3 + [[own]] * 3 + [[]] * 3
    assert shape == (16, 24, 2)


def test_a_target_of_the_same_sides_has_as_many_blocks_down_as_up():
    _, recorder, shape = passed(num_doublings=0, num_resolutions=3)
    own, half, quarter = (8, 12), (4, 6), (2, 3)
    down = [own] * 3 + [half] * 3 + [quarter] * 3
    assert recorder.sides == down + down[::-1]
    assert recorder.short_cuts == [[]] * 9 + [[sides] for sides in down[::-1]]
    assert shape == (8, 12, 2)


def test_sides_that_cannot_be_halved_are_padded_and_cropped():
    network, recorder, shape = passed(num_doublings=1, num_resolutions=3, sides=(5, 9))
    assert set(recorder.sides) == {(8, 12), (4, 6), (2, 3), (16, 24)}
    assert shape == (10, 18, 2)
    # concat_elu doubles the features that dropout sees.
    assert network.num_dropped(5, 9) == [4 * height * width for height, width in recorder.sides]


@pytest.mark.parametrize(
    ("image_sides", "num_doublings"),
    [((12, 8), 2), ((24, 4), 1), ((9, 8), 0), ((3, 2), 0), ((12, 2), 0), ((12, 12), 1)],
)
def test_it_doubles_the_sides_while_both_ratios_are_even(image_sides, num_doublings):
    config = PixelCNNConfig(
        (*image_sides, 1), nr_resnet=1, nr_filters=1, nr_output_filters=1,
        condition_shape=(3, 2, 1), embedding_resnet=1,
    )  # fmt: skip
    assert conditions.num_doublings(config) == num_doublings
    model = models.make(config)
    assert model.embedding.num_doublings == num_doublings
    features = model.embed(np.zeros((1, 3, 2, 1), "uint8")).picture
    assert features.shape == (1, *image_sides, 1)


def test_its_filters_are_those_of_the_network_unless_they_are_given():
    config = SPECIMENS["gated_two"]
    assert conditions.num_features(config) == config.embedding_filters == 3
    config = dataclasses.replace(config, embedding_filters=None)
    assert conditions.num_features(config) == config.nr_filters == 13
    config = dataclasses.replace(config, embedding_resnet=0)
    assert conditions.num_features(config) == 1, "the picture itself"
    assert models.make(config).embedding is None


@pytest.mark.parametrize("name", ["softmax", "gated_two"])
def test_initialised_layers_have_mean_0_and_the_deviation_that_is_asked_of_them(name):
    model = specimens.fresh(SPECIMENS[name], dtype="float64")
    assert not model.has_dropout, "so that a call sees what the initialisation saw"
    condition = specimens.labels(model.config, 8)
    model.initialize(specimens.images(model.config, 8), condition)
    recorder = Recorder()
    model.embed(condition, recorder)
    sublayers = set(model.embedding._flatten_layers()) - {model.embedding}
    expected = {layer for layer in sublayers if isinstance(layer, layers.WeightNorm)}
    assert {layer for layer, _ in recorder.outputs} == expected
    assert {layer.init_scale for layer in expected} == {0.1, 1.0}
    for layer, outputs in recorder.outputs:
        # 1e-10 is added to a variance. That of kernels of norm 1 is not below 0.01.
        assert_close(outputs.mean(axis=(0, 1, 2)), 0, 1e-12)
        assert_close(outputs.std(axis=(0, 1, 2)), layer.init_scale, 1e-8)


def test_its_blocks_are_traced_once_for_each_resolution_and_half(monkeypatch):
    traced = []

    def counted(run, dropout, block, x, a, h, bits):
        traced.append((tuple(x.shape[1:3]), len(a)))
        return gated_blocks.run_block(run, dropout, block, x, a, h, bits)

    monkeypatch.setattr(base, "run_block", counted)
    config = PixelCNNConfig(
        (16, 8, 1), nr_resnet=1, nr_filters=2, nr_output_filters=1,
        condition_shape=(8, 4, 1), embedding_resnet=3,
    )  # fmt: skip
    model = models.make(config)
    embed = tf.function(lambda condition: model.embed(condition).picture, autograph=False)
    embed(specimens.labels(config, 2))
    own, lower, target = (8, 4), (4, 2), (16, 8)
    assert traced == [(own, 0), (lower, 0), (lower, 1), (own, 1), (target, 0)]


def test_its_features_have_the_compute_dtype():
    config = SPECIMENS["two_resolutions"]
    model = specimens.fresh(config, dtype="mixed_bfloat16")
    found = model.embed(specimens.labels(config, 2)).picture
    assert [each.dtype for each in found] == ["bfloat16", "bfloat16"]
    assert {weight.dtype for weight in model.embedding.weights} == {"float32"}


def test_dropout_reaches_its_blocks_and_each_has_bits_of_its_own():
    model = specimens.fresh(SPECIMENS["two_resolutions"])
    images, condition = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    model.initialize(images, condition)
    kept = []

    class Blocks(models.pixel_cnn_pp.GatedBlocks):
        def __call__(self, block, *args, **kwargs):
            kept.append((block, self._num_bytes))
            return super().__call__(block, *args, **kwargs)

    bits = model._draw_dropout(images, condition, [1, 2])
    blocks = Blocks(layers.apply, model._apply_block, model._dropout, bits)
    model._forward(blocks, images, condition)
    starts = [start for _, start in kept]
    assert starts == sorted(set(starts)) and starts[-1] < bits.shape[1]
    own = {id(block) for block in (*model.embedding.encoder, *model.embedding.decoder)}
    assert own <= {id(block) for block, _ in kept}
    without = model.embed(condition).picture[0]
    blocks = Blocks(layers.apply, model._apply_block, model._dropout, bits)
    assert np.any(np.asarray(model.embed(condition, blocks).picture[0]) != np.asarray(without))
