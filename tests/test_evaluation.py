import io
import math
import types

import numpy as np
import pytest
from PIL import Image

from pixel_cnn_pp import data, evaluation
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.model import PixelCNNPP

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 17, (7, 8, 4, 1)).astype(np.uint8)
LABELS = np.array([2, 0, 1, 1, 0, 2, 0], np.int32)
DATA = data.ImageData(IMAGES, LABELS, num_levels=17, num_classes=3)


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        image_shape=(8, 4, 1),
        num_levels=17,
        nr_resnet=1,
        nr_filters=4,
        nr_logistic_mix=2,
        num_classes=3,
    )
    model = PixelCNNPP(config)
    model.initialize(IMAGES, LABELS)
    return model


def score_of_sums(batch_size):
    """Scores DATA by a likelihood that tells every image and label from the others."""

    def log_prob(images, labels):
        return -images.numpy().astype(np.float64).sum(axis=(1, 2, 3)) - 1000 * labels.numpy()

    batches = data.eval_batches(DATA, batch_size)
    return evaluation.score(log_prob, batches, is_conditional=True)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_every_image_counts_once_whatever_the_batch_size(batch_size):
    nats = IMAGES.astype(np.float64).sum(axis=(1, 2, 3)) + 1000 * LABELS
    expected = nats / (8 * 4 * math.log(2))
    # The same float64 operations on the same numbers: no rounding of its own.
    np.testing.assert_array_equal(score_of_sums(batch_size).bits_per_dim, expected)


def test_images_under_the_mask_do_not_count():
    def log_prob(images, labels):
        return np.where(images[:, 0, 0, 0] == 5, np.nan, -math.log(2.0) * 32)

    images = np.full((4, 8, 4, 1), [[[[5]]], [[[6]]], [[[5]]], [[[7]]]], np.uint8)
    batches = [
        (images, None, np.array([False, True, False, True])),
        (images[:2], None, np.array([False, False])),
    ]
    found = evaluation.score(log_prob, batches, is_conditional=False)
    np.testing.assert_array_equal(found.bits_per_dim, [1.0, 1.0])


@pytest.mark.parametrize("is_conditional", [True, False])
def test_labels_are_passed_on_to_a_conditional_likelihood_only(is_conditional):
    seen = []

    def log_prob(images, labels):
        seen.append(labels)
        return np.zeros(len(images))

    evaluation.score(log_prob, data.eval_batches(DATA, 4), is_conditional)
    if is_conditional:
        # The padding repeats the last image.
        np.testing.assert_array_equal(np.concatenate(seen), [*LABELS, LABELS[-1]])
    else:
        assert seen == [None, None]


def test_no_images_at_all_is_one_line():
    with pytest.raises(ValueError, match=r"must be images to score\. Received: none"):
        evaluation.score(None, [], is_conditional=False)


def test_the_score_of_a_model_does_not_depend_on_the_batch_size(model):
    exact = np.asarray(model.bits_per_dim(IMAGES, LABELS))
    log_prob = evaluation.compiled_log_prob(model)
    for batch_size in (3, 7):
        found = evaluation.score(log_prob, data.eval_batches(DATA, batch_size), is_conditional=True)
        # float32: about 100 operations follow each other from a pixel to the likelihood, each with
        # a relative error of at most 6e-8.
        np.testing.assert_allclose(found.bits_per_dim, exact, rtol=6e-6)
        assert found.bits_per_dim.dtype == np.float64


def test_a_compiled_likelihood_refuses_labels_that_are_out_of_range(model):
    log_prob = evaluation.compiled_log_prob(model)
    with pytest.raises(ValueError, match=r"labels must be .* in \[0, 2\]. Received: .* \[0, 3\]"):
        log_prob(IMAGES, LABELS + (LABELS == 2))


def test_mean_and_standard_error_are_those_of_the_images():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = evaluation.Score(values)
    # Mean 4; squared deviations 9 + 4 + 0 + 25 = 38; sqrt(38 / 3 / 4) by hand.
    assert found.mean == 4.0
    assert found.standard_error == pytest.approx(math.sqrt(38 / 12), rel=1e-15)
    assert found.standard_error == pytest.approx(values.std(ddof=1) / 2, rel=1e-15)


def test_a_single_image_has_no_standard_error():
    assert evaluation.Score(np.array([2.5])).standard_error == 0.0


def test_a_score_prints_mean_error_and_number_of_images():
    found = str(evaluation.Score(np.array([1.0, 2.0, 4.0, 9.0])))
    assert found == "4.0000 +- 1.7795 bits/dim over 4 images"


@pytest.mark.parametrize("per_position", [False, True])
def test_histograms_equal_slow_obvious_loops(per_position):
    num_levels = 5
    # Few images, so that most counts are 0 and the added one matters; channels unlike each other.
    train = RNG.integers(0, [5, 2], (6, 3, 2, 2)).astype(np.uint8)
    test = RNG.integers(0, 5, (4, 3, 2, 2)).astype(np.uint8)
    expected = np.zeros(4)
    for i, y, x, c in np.ndindex(test.shape):
        seen = train[:, y, x, c] if per_position else train[..., c].ravel()
        probability = (np.sum(seen == test[i, y, x, c]) + 1) / (len(seen) + num_levels)
        expected[i] -= math.log2(probability) / (3 * 2 * 2)
    found = evaluation.histogram_bits_per_dim(train, test, num_levels, per_position)
    # float64; some 12 additions.
    np.testing.assert_allclose(found.bits_per_dim, expected, rtol=1e-14)


def noise(num_images, channels=1):
    return RNG.integers(0, 256, (num_images, 6, 8, channels)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_images", [1, 5, 64, 130])
@pytest.mark.parametrize("codec", ["PNG", "WebP"])
def test_the_file_of_a_codec_holds_every_image(codec, num_images, channels, monkeypatch):
    files = []

    class KeptBytesIO(io.BytesIO):
        def __init__(self):
            super().__init__()
            files.append(self)

    monkeypatch.setattr(evaluation, "io", types.SimpleNamespace(BytesIO=KeptBytesIO))
    images = noise(num_images, channels)
    found = evaluation.codec_bits_per_dim(images, codec)
    (file,) = files
    assert found == 8 * len(file.getvalue()) / images.size
    mosaic = np.asarray(Image.open(file).convert("L" if channels == 1 else "RGB"))
    rows, columns = mosaic.shape[0] // 6, mosaic.shape[1] // 8
    mosaic = mosaic.reshape(rows, 6, columns, 8, channels).swapaxes(1, 2)
    tiles = mosaic.reshape(rows * columns, 6, 8, channels)
    np.testing.assert_array_equal(tiles[:num_images], images)


@pytest.mark.parametrize("num_images", [64, 65, 130])
@pytest.mark.parametrize("codec", ["PNG", "WebP"])
def test_a_codec_cannot_press_noise_under_8_bits(codec, num_images):
    assert evaluation.codec_bits_per_dim(noise(num_images), codec) > 8


@pytest.mark.parametrize("codec", ["PNG", "WebP"])
def test_a_codec_needs_8_bits_for_noise_and_next_to_none_for_nothing(codec):
    # 128 images of 48 pixels: noise, and a file's header, leave less than a tenth of 8 bits over.
    assert evaluation.codec_bits_per_dim(noise(128), codec) < 8.8
    constant = np.full((128, 6, 8, 1), 200, np.uint8)
    assert evaluation.codec_bits_per_dim(constant, codec) < 0.2


def test_an_unknown_codec_lists_the_known_ones():
    with pytest.raises(ValueError, match="`codec` must be one of PNG, WebP"):
        evaluation.codec_bits_per_dim(noise(1), "JPG")


@pytest.mark.parametrize("images", [noise(2, channels=2), noise(2).astype(np.int32)])
def test_a_codec_takes_bytes_with_1_or_3_channels_only(images):
    message = r"must be uint8 with 1 or 3 channels. Received: .* \(2, 6, 8, [12]\)"
    with pytest.raises(ValueError, match=message):
        evaluation.codec_bits_per_dim(images, "PNG")
