import numpy as np
import pytest

from pixel_cnn_pp import sampling
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.model import PixelCNNPP

TINY = {"nr_resnet": 1, "nr_filters": 4, "nr_logistic_mix": 2, "dropout_p": 0.0}


def random_model(config, seed):
    """A model whose pixels depend on each other, and on the label: all its weights are at random.

    (Fresh weights make a nearly uniform model. And the data-dependent initialisation is of no use
    for images of 4 x 4 pixels, whose coarsest layers see nothing of them and never vary.)
    """
    rng = np.random.default_rng(seed)
    model = PixelCNNPP(config)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def conditional_model():
    config = ModelConfig(image_shape=(4, 8, 2), num_levels=300, num_classes=3, **TINY)
    return random_model(config, seed=5)


@pytest.fixture(scope="module")
def binary_model():
    return random_model(ModelConfig(image_shape=(4, 4, 1), num_levels=2, **TINY), seed=6)


@pytest.fixture(scope="module")
def all_images():
    """The 65,536 images of 4 x 4 binary pixels."""
    numbers = np.arange(2**16)[:, None]
    return (numbers >> np.arange(16) & 1).astype(np.uint8).reshape(-1, 4, 4, 1)


@pytest.fixture(scope="module")
def probs(binary_model, all_images):
    """Probability of each of them, float64."""
    parts = [binary_model.log_prob(part) for part in np.split(all_images, 8)]
    return np.exp(np.concatenate(parts).astype(np.float64))


@pytest.fixture(scope="module")
def draws(binary_model):
    return sampling.sample(binary_model, 8000, seed=11)


def test_the_probabilities_of_all_images_sum_to_1(probs):
    # A log_prob sums 16 float32 terms of size 1 with relative errors of about 1e-7.
    assert probs.sum() == pytest.approx(1.0, abs=1e-5)


def features(images):
    """All single pixels and all products of two of them, float64 [N, 16 + 120]."""
    pixels = images.reshape(len(images), 16).astype(np.float64)
    first, second = np.triu_indices(16, k=1)
    return np.concatenate([pixels, pixels[:, first] * pixels[:, second]], axis=1)


def standardised(images, all_images, probs):
    """Frequencies minus probabilities of all features, in standard errors."""
    expected = probs @ features(all_images)
    error = np.sqrt(expected * (1 - expected) / len(images))
    return (features(images).mean(axis=0) - expected) / error


def test_draws_agree_with_the_probabilities_of_pixels_and_of_pairs(draws, all_images, probs):
    # 136 of them: one of 4.5 standard errors comes up once in a thousand seeds.
    assert np.abs(standardised(draws, all_images, probs)).max() < 4.5


def test_the_comparison_would_notice_pixels_in_other_places(draws, all_images, probs):
    for other in (draws[:, :, ::-1], draws[:, ::-1], draws.swapaxes(1, 2), 1 - draws):
        assert np.abs(standardised(other, all_images, probs)).max() > 10
    # Nor would independent pixels with the right frequencies pass.
    rng = np.random.default_rng(6)
    shuffled = rng.permuted(draws.reshape(-1, 16), axis=0)
    assert np.abs(standardised(shuffled, all_images, probs)).max() > 10


def test_the_mean_log_prob_of_draws_is_minus_the_entropy(draws, binary_model, probs):
    entropy = -probs @ np.log(probs)
    deviation = np.sqrt(probs @ (np.log(probs) + entropy) ** 2)
    found = np.asarray(binary_model.log_prob(draws), np.float64).mean()
    assert abs(found + entropy) < 4 * deviation / np.sqrt(len(draws))
    assert entropy < 0.9 * 16 * np.log(2)  # far from uniform noise


def test_draws_are_levels_of_the_image_type(draws, conditional_model):
    assert draws.shape == (8000, 4, 4, 1) and draws.dtype == np.uint8
    assert set(np.unique(draws)) == {0, 1}
    many_levels = sampling.sample(conditional_model, 5, labels=[0, 1, 2, 1, 0])
    assert many_levels.shape == (5, 4, 8, 2) and many_levels.dtype == np.int32
    assert many_levels.min() >= 0 and 255 < many_levels.max() <= 299


def test_the_same_seed_gives_the_same_images_and_another_seed_others(conditional_model):
    labels = np.array([0, 1, 2, 1, 0])
    first, again, other = (
        sampling.sample(conditional_model, 5, labels, seed) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).all()
    assert len(np.unique(first, axis=0)) == 5


def test_the_label_of_an_image_changes_that_image_only(conditional_model):
    one = sampling.sample(conditional_model, 5, labels=[0, 1, 2, 1, 0], seed=7)
    other = sampling.sample(conditional_model, 5, labels=[0, 1, 2, 2, 0], seed=7)
    np.testing.assert_array_equal(
        (one != other).any(axis=(1, 2, 3)), [False, False, False, True, False]
    )


@pytest.mark.parametrize("num_samples", [0, -1, 2.5, "3", None])
def test_num_samples_that_is_no_number_of_images_is_one_line(conditional_model, num_samples):
    message = f"`num_samples` must be .*at least 1. Received: num_samples={num_samples!r}"
    with pytest.raises(ValueError, match=message):
        sampling.sample(conditional_model, num_samples, labels=[0])


def test_an_unknown_method_lists_the_known_ones(conditional_model):
    message = "`method` must be one of naive.*. Received: method='gibbs'"
    with pytest.raises(ValueError, match=message):
        sampling.sample(conditional_model, 1, labels=[0], method="gibbs")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "labels must be given.*3 classes. Received: labels=None"),
        ([0, 1], r"labels must have the shape \[B\].* Received: labels of shape \(2,\)"),
        ([[0], [1], [2]], r"labels must have the shape \[B\].* Received: labels of shape \(3, 1\)"),
        (1, r"labels must have the shape \[B\].* Received: labels of shape \(\)"),
        ([0, 1, 3], r"labels must be whole numbers in \[0, 2\]. Received: values in \[0, 3\]"),
        ([0, -1, 2], r"labels must be whole numbers in \[0, 2\]. Received: values in \[-1, 2\]"),
        ([0, 0.5, 1], r"labels must be whole numbers in \[0, 2\]. Received: fractions"),
        (["0", "1", "2"], "labels must be whole numbers. Received: dtype <U1"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(conditional_model, labels, message):
    with pytest.raises(ValueError, match=message) as caught:
        sampling.sample(conditional_model, 3, labels)
    assert "\n" not in str(caught.value)


def test_labels_for_an_unconditional_model_are_refused(binary_model):
    with pytest.raises(ValueError, match="labels must be None: this model is not class-cond"):
        sampling.sample(binary_model, 2, labels=[0, 1])
