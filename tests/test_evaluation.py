import csv
import dataclasses
import io
import math
import types

import keras
import numpy as np
import pytest
from PIL import Image

from pixel_cnn_pp import data, evaluation, picture_codecs
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP

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
        return -np.asarray(images, np.float64).sum(axis=(1, 2, 3)) - 1000 * np.asarray(labels)

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


def test_a_score_in_nats_is_the_mean_of_an_image_and_its_standard_error():
    # Of 3, 4 and 5 nats: deviation 1, over the root of 3.
    score = evaluation.Score(np.array([3.0, 4.0, 5.0]), num_dims=784)
    assert score.in_nats == "4.00 +- 0.58 nats an image over 3 images"
    bound = evaluation.Score(np.array([3.0]), num_dims=4, unit="bits/dim (bound)")
    assert bound.in_nats == "3.00 +- 0.00 nats an image (bound) over 1 images"


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
    exact = np.asarray(model.bits_per_dim(IMAGES, LABELS))  # all seven at once
    log_prob = evaluation.compiled_log_prob(model)
    found = evaluation.score(log_prob, data.eval_batches(DATA, 3), is_conditional=True)
    # float32: about 100 operations follow each other from a pixel to the likelihood, each with a
    # relative error of at most 6e-8.
    np.testing.assert_allclose(found.bits_per_dim, exact, rtol=6e-6)
    assert found.bits_per_dim.dtype == np.float64


def test_a_compiled_likelihood_refuses_labels_that_are_out_of_range(model):
    log_prob = evaluation.compiled_log_prob(model)
    with pytest.raises(ValueError, match=r"labels must be .* in \[0, 2\]. Received: .* \[0, 3\]"):
        log_prob(IMAGES, LABELS + (LABELS == 2))


def score_of_bits(*bits_per_dim):
    """The score of images of 4 sub-pixels that take these bits/dim."""
    return evaluation.Score(np.array(bits_per_dim) * 4 * math.log(2), num_dims=4)


def test_mean_and_standard_error_are_those_of_the_images():
    found = score_of_bits(1.0, 2.0, 4.0, 9.0)
    # float64; nats and back are 2 roundings, each of at most 1.1e-16.
    np.testing.assert_allclose(found.bits_per_dim, [1, 2, 4, 9], rtol=4e-16)
    # Mean 4; squared deviations 9 + 4 + 0 + 25 = 38; sqrt(38 / 3 / 4) by hand.
    assert found.mean == pytest.approx(4.0, rel=1e-15)
    assert found.standard_error == pytest.approx(math.sqrt(38 / 12), rel=1e-15)
    assert found.standard_error == pytest.approx(found.bits_per_dim.std(ddof=1) / 2, rel=1e-15)


def test_a_single_image_has_no_standard_error():
    assert score_of_bits(2.5).standard_error == 0.0
    assert str(score_of_bits(2.5)) == "2.5000 bits/dim of one image"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_named_with_its_image(wrong):
    def log_prob(images, labels):
        return np.where(images[:, 0, 0, 0] == IMAGES[5, 0, 0, 0], -wrong, 0.0)

    number = np.flatnonzero(IMAGES[:, 0, 0, 0] == IMAGES[5, 0, 0, 0])[0]
    with pytest.raises(FloatingPointError, match=f"Received: {wrong} nats for image {number}, and"):
        evaluation.score(log_prob, data.eval_batches(DATA, 4), is_conditional=False)


def test_a_score_prints_mean_error_and_number_of_images():
    found = str(score_of_bits(1.0, 2.0, 4.0, 9.0))
    assert found == "4.0000 +- 1.7795 bits/dim over 4 images"


def test_the_class_of_an_image_is_summed_over(model):
    log_prob = evaluation.marginal_log_prob(model.log_prob, num_classes=3)
    of_class = [np.float64(model.log_prob(IMAGES, np.full(7, label))) for label in range(3)]
    highest = np.max(of_class, axis=0)
    expected = np.log(np.exp(of_class - highest).mean(axis=0)) + highest
    for labels in (None, LABELS):
        # The same float32 numbers; some 10 operations in float64.
        np.testing.assert_allclose(log_prob(IMAGES, labels), expected, rtol=1e-14)


def test_a_class_that_explains_an_image_alone_costs_its_own_probability():
    def log_prob(images, labels):
        return np.where(labels == 1, -3000.0, -9000.0)  # exp(-3000) is 0 in any float

    found = evaluation.marginal_log_prob(log_prob, num_classes=4)(IMAGES, None)
    np.testing.assert_array_equal(found, np.full(7, -3000.0 - math.log(4)))


def test_images_of_another_size_than_the_trained_ones_are_scored(model):
    images = RNG.integers(0, 17, (3, 4, 12, 1)).astype(np.uint8)
    found = evaluation.compiled_log_prob(model)(images, LABELS[:3])
    # As in test_the_score_of_a_model_does_not_depend_on_the_batch_size.
    np.testing.assert_allclose(found, model.log_prob(images, LABELS[:3]), rtol=6e-6)


@pytest.mark.parametrize("is_compiled", [True, False])
def test_scoring_takes_xla_only_where_the_user_has_chosen_it(is_compiled, monkeypatch):
    model = PixelCNNPP(ModelConfig(image_shape=(4, 4, 1), nr_resnet=1, nr_filters=2))
    # As Keras finds on a machine with a GPU.
    monkeypatch.setattr(PixelCNNPP, "_resolve_auto_jit_compile", lambda model: True)
    if is_compiled:
        model.compile(jit_compile=True)
    monkeypatch.setattr(keras.Model, "predict_on_batch", lambda model, x: None)
    model.predict_on_batch(np.zeros((1, 4, 4, 1), "uint8"))
    assert model.jit_compile == is_compiled


def test_a_set_fits_at_any_size_that_the_network_can_halve_twice(model):
    evaluation.check_fits("a set", DATA, model, uses_labels=True)
    images = np.zeros((2, 12, 64, 1), np.uint8)
    unlabelled = data.ImageData(images, None, num_levels=17, num_classes=None)
    evaluation.check_fits("a set", unlabelled, model, uses_labels=False)
    # A data set may know of more classes than the model, where no label says so, or none counts.
    many = dataclasses.replace(DATA, num_classes=5)
    evaluation.check_fits("a set", many, model, uses_labels=True)
    evaluation.check_fits("a set", relabelled(4), model, uses_labels=False)


def relabelled(label):
    """DATA, with this label for its first image."""
    return dataclasses.replace(DATA, labels=np.array([label, *LABELS[1:]]), num_classes=5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            data.ImageData(np.zeros((2, 8, 4, 3), np.uint8), None, 17, None),
            r"the number of channels of the model, 1\. Received: 3 channels in a set$",
        ),
        (
            data.ImageData(IMAGES, None, 256, None),
            r"the number of levels of the model, 17\. Received: 256 levels in a set$",
        ),
        (
            data.ImageData(IMAGES, None, 17, None),
            r"must have labels .* --marginal\. Received: no labels in a set$",
        ),
        (
            relabelled(3),
            r"in \[0, 2\] .* --marginal\. Received: labels up to 3 in a set$",
        ),
    ],
)
def test_a_set_that_does_not_fit_a_model_is_one_line(images, message, model):
    with pytest.raises(ValueError, match=message):
        evaluation.check_fits("a set", images, model, uses_labels=True)


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    inside = RNG.integers(0, 6, 9).astype(np.float64)
    outside = RNG.integers(2, 9, 14).astype(np.float64)
    pairs = [np.sign(b - a) / 2 + 1 / 2 for a in inside for b in outside]
    assert 0 < pairs.count(1 / 2) < len(pairs)
    # A sum of at most 126 terms in float64.
    assert evaluation.auroc(inside, outside) == pytest.approx(np.mean(pairs), rel=1e-14)


@pytest.mark.parametrize(("shift", "expected"), [(10, 1.0), (0, 0.5), (-10, 0.0)])
def test_auroc_is_1_where_the_second_set_scores_higher_throughout(shift, expected):
    scores = np.arange(5.0)
    assert evaluation.auroc(scores, scores + shift) == expected


COLUMNS = {
    "data_set": np.array(["digits", "my, own"]),
    "index": np.array([0, 1]),
    "nats": np.array([1 / 3, -2e30]),
}


def test_scores_are_read_back_from_an_npz_as_they_were(tmp_path):
    path = tmp_path / "scores.npz"
    evaluation.save_scores(path, COLUMNS)
    with np.load(path) as file:  # strings are no pickled objects
        assert file.files == list(COLUMNS)
        for name, column in COLUMNS.items():
            np.testing.assert_array_equal(file[name], column, strict=True)


def test_scores_are_read_back_from_a_csv_with_all_their_digits(tmp_path):
    path = tmp_path / "scores.csv"
    evaluation.save_scores(path, COLUMNS)
    with open(path, newline="") as file:
        names, *rows = csv.reader(file)
    assert names == list(COLUMNS)
    found = [(name, int(index), float(nats)) for name, index, nats in rows]
    assert found == list(zip(*COLUMNS.values(), strict=True))
    assert path.read_bytes().count(b"\n") == 3 and b"\r" not in path.read_bytes()


@pytest.mark.parametrize("ending", [".npz", ".csv"])
def test_scores_that_fail_half_way_leave_those_before(ending, tmp_path, monkeypatch):
    path = tmp_path / f"scores{ending}"
    evaluation.save_scores(path, COLUMNS)
    before = path.read_bytes()

    def write_half(file, *arguments, **options):
        file.write("half a" if ending == ".csv" else b"half a")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", write_half)
    monkeypatch.setattr(csv, "writer", write_half)
    with pytest.raises(OSError, match="No space left"):
        evaluation.save_scores(path, COLUMNS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["scores", "scores.txt", "scores.npz.gz"])
def test_scores_of_another_ending_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=rf"must end in \.npz or \.csv\. Received: .*{name}$"):
        evaluation.save_scores(tmp_path / name, COLUMNS)
    assert not list(tmp_path.iterdir())


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


@pytest.fixture
def files(monkeypatch):
    """The files that are written to memory."""
    files = []

    class KeptBytesIO(io.BytesIO):
        def __init__(self):
            super().__init__()
            files.append(self)

    monkeypatch.setattr(picture_codecs, "io", types.SimpleNamespace(BytesIO=KeptBytesIO))
    return files


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_images", [1, 5, 64, 130])
@pytest.mark.parametrize("codec", ["PNG", "WebP"])
def test_the_file_of_a_codec_holds_every_image(codec, num_images, channels, files):
    images = noise(num_images, channels)
    assert picture_codecs.codecs(images) == ("PNG", "WebP")
    found = picture_codecs.codec_bits_per_dim(images, codec)
    (file,) = files
    assert found == 8 * len(file.getvalue()) / images.size
    mosaic = np.asarray(Image.open(file).convert("L" if channels == 1 else "RGB"))
    rows, columns = mosaic.shape[0] // 6, mosaic.shape[1] // 8
    mosaic = mosaic.reshape(rows, 6, columns, 8, channels).swapaxes(1, 2)
    tiles = mosaic.reshape(rows * columns, 6, 8, channels)
    np.testing.assert_array_equal(tiles[:num_images], images)


@pytest.mark.parametrize(
    ("channels", "dtype", "mode"),
    [(2, np.uint8, "L"), (5, np.uint8, "L"), (1, np.int32, "I;16"), (3, np.int32, "I;16")],
)
def test_png_holds_other_images_channel_beside_channel(channels, dtype, mode, files):
    high = 255 if dtype == np.uint8 else 65535
    images = RNG.integers(0, high + 1, (5, 6, 8, channels)).astype(dtype)
    images[0, 0, 0, 0] = high
    assert picture_codecs.codecs(images) == ("PNG",)
    found = picture_codecs.codec_bits_per_dim(images, "PNG")
    (file,) = files
    assert found == 8 * len(file.getvalue()) / images.size
    picture = Image.open(file)
    assert picture.mode == mode
    # Two rows and three columns of images, in each of the channels.
    planes = np.asarray(picture).reshape(2, 6, channels, 3, 8)
    for i in range(5):
        found = planes[i // 3, :, :, i % 3].transpose(0, 2, 1)  # [H, W, C]
        np.testing.assert_array_equal(found, images[i])


@pytest.mark.parametrize("num_images", [64, 65, 130])
@pytest.mark.parametrize("codec", ["PNG", "WebP"])
def test_a_codec_cannot_press_noise_under_8_bits(codec, num_images):
    assert picture_codecs.codec_bits_per_dim(noise(num_images), codec) > 8


@pytest.mark.parametrize("codec", ["PNG", "WebP"])
def test_a_codec_needs_8_bits_for_noise_and_next_to_none_for_nothing(codec):
    # 128 images of 48 pixels: noise, and a file's header, leave less than a tenth of 8 bits over.
    assert picture_codecs.codec_bits_per_dim(noise(128), codec) < 8.8
    constant = np.full((128, 6, 8, 1), 200, np.uint8)
    assert picture_codecs.codec_bits_per_dim(constant, codec) < 0.2


def test_an_unknown_codec_lists_the_known_ones():
    with pytest.raises(ValueError, match="`codec` must be one of PNG, WebP"):
        picture_codecs.codec_bits_per_dim(noise(1), "JPG")


@pytest.mark.parametrize("images", [noise(2, channels=2), noise(2).astype(np.int32)])
def test_webp_takes_bytes_with_1_or_3_channels_only(images):
    message = r"for WebP must be uint8 with 1 or 3 channels. Received: .* \(2, 6, 8, [12]\)"
    with pytest.raises(ValueError, match=message):
        picture_codecs.codec_bits_per_dim(images, "WebP")


@pytest.mark.parametrize("level", [-1, 65536])
def test_what_does_not_fit_into_16_bits_is_refused(level):
    with pytest.raises(ValueError, match=r"in \[0, 65535\]. Received: values in "):
        picture_codecs.codec_bits_per_dim(np.array([[[[5], [level]]]]), "PNG")
