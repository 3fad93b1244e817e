"""What holds of PixelCNN++ alone: its receptive fields, and what its initialisation comes to."""

import dataclasses

import numpy as np
import pytest
import specimens
from comparisons import EPS, assert_close
from fields import field_of_view
from specimens import SPECIMENS

from pixel_cnn_pp import data, layers
from pixel_cnn_pp.config import ModelConfig

SEEN = ModelConfig(
    image_shape=(12, 20, 1),
    nr_resnet=1,
    nr_filters=8,
    nr_logistic_mix=1,
    resnet_nonlinearity="elu",  # unlike relu, it lets every change through
    dropout_p=0.0,
)


@pytest.mark.parametrize("small_variant", ["plain", "nin", "autoregressive_channel"])
@pytest.mark.parametrize(("receptive_field", "width", "height"), [("11x5", 11, 5), ("15x8", 15, 8)])
def test_a_small_field_is_exactly_the_rectangle_above_and_half_of_it_to_the_left(
    receptive_field, width, height, small_variant
):
    config = dataclasses.replace(
        SEEN, nr_resnet=5, receptive_field=receptive_field, small_variant=small_variant
    )
    row, column, half = 10, 9, width // 2
    expected = np.zeros((12, 20), bool)
    expected[row - height : row, column - half : column + half + 1] = True
    expected[row, column - half : column] = True
    np.testing.assert_array_equal(field_of_view(config, row, column), expected)


def test_the_full_field_is_everything_above_and_to_the_left():
    row, column = 10, 9
    expected = np.arange(12 * 20).reshape(12, 20) < 20 * row + column
    np.testing.assert_array_equal(field_of_view(SEEN, row, column), expected)


def test_blocks_at_one_resolution_see_the_rectangle_of_their_filters():
    config = dataclasses.replace(SEEN, nr_resnet=2, num_resolutions=1)
    row, column = 10, 9
    # The first layer of the downward stream sees 2 rows above, and 1 column on each side. Each
    # block adds 2 rows and 2 columns. The rightward stream ends with one filter that sees one row
    # above and one column on the left more. In the own row it sees 1 pixel, and 2 with each block.
    expected = np.zeros((12, 20), bool)
    expected[row - 7 : row, column - 6 : column + 6] = True
    expected[row, column - 5 : column] = True
    np.testing.assert_array_equal(field_of_view(config, row, column), expected)


@pytest.mark.parametrize(
    ("num_resolutions", "encoder", "decoder"),
    [(1, "bb", ""), (2, "bb/bb", "bb/bbb"), (3, "bb/bb/bb", "bb/bbb/bbb")],
)
def test_both_halves_have_blocks_at_each_resolution_and_one_resolution_has_one_half(
    num_resolutions, encoder, decoder
):
    model = specimens.fresh(dataclasses.replace(SEEN, nr_resnet=2, num_resolutions=num_resolutions))

    def layout(pairs):
        return "".join("b" if isinstance(x, layers.GatedResidualBlock) else "/" for x in pairs)

    assert layout(model.encoder_down) == layout(model.encoder_right) == encoder
    assert layout(model.decoder_down) == layout(model.decoder_right) == decoder
    assert len(model.resolutions()) == num_resolutions
    own = [each for each in model.resolutions() if each.halve is not None]
    found = [pair for each in own for pair in (*each.encoder, each.halve)]
    assert found + model.resolutions()[-1].encoder == list(
        zip(model.encoder_down, model.encoder_right, strict=True)
    )
    found = [pair for each in own[::-1] for pair in (each.double, *each.decoder)]
    assert model.resolutions()[-1].decoder + found == list(
        zip(model.decoder_down, model.decoder_right, strict=True)
    )


@pytest.mark.parametrize("name", ["relu", "deep"])
def test_initialised_outputs_have_mean_0_and_deviation_1(name):
    model = specimens.fresh(SPECIMENS[name])
    assert model.config.dropout_p == 0, "so that a call sees what the initialisation saw"
    images, labels = specimens.images(model.config, 8), specimens.labels(model.config, 8)
    model.initialize(images, labels)
    outputs = model(images, labels).numpy().astype("float64")
    # Rounding of float32 over about 40 layers.
    assert_close(outputs.mean(axis=(0, 1, 2)), 0, 40 * EPS)
    assert_close(outputs.std(axis=(0, 1, 2)), 1, 40 * EPS)


def test_images_that_differ_have_noise_of_their_own():
    images = data.load("digits", "train").images
    assert len(np.unique(images, axis=0)) == len(images)
    digests = layers.image_digests(images).numpy()
    assert digests.dtype == np.int32 and len(np.unique(digests, axis=0)) == len(images)
