"""Laws of sampling: cached draws are the naive ones, and draws follow `log_prob`."""

import enumeration
import numpy as np
import pytest
import specimens
from comparisons import one_line
from enumeration import assert_follows
from specimens import ONE_OF_EACH_LIKELIHOOD, SPECIMENS, TINY

from pixel_cnn_pp import sampling

# XLA compiles for seconds; that it draws the same does not depend on the specimen.
COMPILED_BY_XLA = ("pixel_cnn", "softmax")
CONTROLS = {"temperature": 0.8, "mode": "map", "log_scale_offset": 0.4}


# That the steps are the whole pass is a law over all specimens, in test_step.py. What is left is
# the order of noise and draws, which is that of a model and its likelihood.
@pytest.mark.parametrize("name", ONE_OF_EACH_LIKELIHOOD)
def test_cached_and_naive_draw_identical_images(name, monkeypatch):
    config, model = SPECIMENS[name], specimens.opinionated(name)
    if name not in COMPILED_BY_XLA:
        compile_function = sampling.draw.compile_function
        monkeypatch.setattr(
            sampling.draw, "compile_function", lambda f, *_: compile_function(f, False)
        )
    images, labels = specimens.images(config, 5), specimens.labels(config, 5)
    known_mask = np.random.default_rng(3).random((5, *config.image_shape[:2])) < 0.3
    for arguments in (
        {"seed": 11},
        {
            "seed": 2**32 - 1,
            **{name: CONTROLS[name] for name in model.likelihood.controls},
            "init_images": images,
            "known_mask": known_mask,
        },
    ):
        cached, naive = (
            sampling.sample(model, 5, labels, method=method, **arguments)
            for method in ("cached", "naive")
        )
        np.testing.assert_array_equal(cached, naive)
        assert len(np.unique(cached, axis=0)) == 5
    np.testing.assert_array_equal(cached[known_mask], images[known_mask])


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_control_without_a_meaning_is_one_line(name):
    model = specimens.build(name)
    for control in set(CONTROLS) - set(model.likelihood.controls):
        value = CONTROLS[control]
        with one_line(
            f"`{control}` must be left out: it has no meaning for a model of "
            f"{model.likelihood.name}. Received: {control}={value!r}"
        ):
            sampling.sample(model, 1, specimens.labels(model.config, 1), **{control: value})


# Whole distributions: so few levels and pixels that every image can be scored.


class Whole:
    """A tiny model, all its images, their probabilities in float64, and draws from it."""

    def __init__(self, config, num_draws=8000):
        self.model = enumeration.random_model(config, seed=6)
        self.images = enumeration.all_images(config)
        parts = np.array_split(self.images, -(-len(self.images) // 8192))
        log_probs = [np.asarray(self.model.log_prob(part), np.float64) for part in parts]
        self.probs = np.exp(np.concatenate(log_probs))
        self.draws = sampling.sample(self.model, num_draws, seed=11)


@pytest.fixture(scope="module", params=TINY)
def whole(request):
    return Whole(TINY[request.param])


def test_the_probabilities_of_all_images_sum_to_1(whole):
    # A log_prob sums up to 16 float32 terms of size 1 with relative errors of about 1e-7.
    assert whole.probs.sum() == pytest.approx(1.0, abs=1e-5)


def features(images):
    """All single sub-pixels and all products of two of them, scaled to [0, 1]."""
    values = images.reshape(len(images), -1).astype(np.float64)
    values /= values.max()
    first, second = np.triu_indices(values.shape[1], k=1)
    return np.concatenate([values, values[:, first] * values[:, second]], axis=1)


def standardised(images, whole):
    """Means of all features minus their expectations, in standard errors."""
    of_all = features(whole.images)
    expected = whole.probs @ of_all
    variance = whole.probs @ np.square(of_all) - np.square(expected)
    return (features(images).mean(axis=0) - expected) / np.sqrt(variance / len(images))


def test_draws_agree_with_the_probabilities_of_sub_pixels_and_of_pairs(whole):
    # At most 136 of them: one of 4.5 standard errors comes up once in a thousand seeds.
    assert np.abs(standardised(whole.draws, whole)).max() < 4.5
    # It would notice sub-pixels in other places, and independent ones with the right frequencies.
    draws = whole.draws
    top = whole.model.config.num_levels - 1
    for other in (draws[:, :, ::-1], draws[:, ::-1], top - draws):
        assert np.abs(standardised(other, whole)).max() > 10
    flat = draws.reshape(len(draws), -1)
    shuffled = np.random.default_rng(6).permuted(flat, axis=0).reshape(draws.shape)
    assert np.abs(standardised(shuffled, whole)).max() > 10


def test_the_mean_log_prob_of_draws_is_minus_the_entropy(whole):
    log_probs = np.log(whole.probs)
    entropy = -whole.probs @ log_probs
    deviation = np.sqrt(whole.probs @ (log_probs + entropy) ** 2)
    found = np.asarray(whole.model.log_prob(whole.draws), np.float64).mean()
    assert abs(found + entropy) < 4 * deviation / np.sqrt(len(whole.draws))
    config = whole.model.config
    uniform = np.prod(config.image_shape) * np.log(config.num_levels)
    assert entropy < 0.95 * uniform, "far from uniform noise"


def test_the_last_sub_pixels_come_up_together_as_often_as_their_probabilities_say(whole):
    num_levels = whole.model.config.num_levels

    def cells(images):
        last = images.reshape(len(images), -1)[:, -6:].astype(np.int64)
        return last @ num_levels ** np.arange(6)

    probs = np.bincount(cells(whole.images), weights=whole.probs)
    counts = np.bincount(cells(whole.draws), minlength=len(probs))
    assert (probs * len(whole.draws) >= 5).sum() >= 10
    assert_follows(counts, probs)
    with pytest.raises(AssertionError):
        assert_follows(counts[::-1], probs)


def test_completions_follow_the_conditional_distribution(whole):
    model = whole.model
    *_, width, channels = whole.images.shape
    num_pixels = whole.images[0].size // channels
    # All but the last three pixels are known.
    known_mask = (np.arange(num_pixels) < num_pixels - 3).reshape(-1, width)
    own = (whole.images[:, known_mask] == whole.images[0, known_mask]).all(axis=(1, 2))
    probs = whole.probs[own] / whole.probs[own].sum()
    draws = sampling.sample(model, 4000, seed=2, init_images=whole.images[0], known_mask=known_mask)
    found = (draws[:, None] == whole.images[own][None]).all(axis=(2, 3, 4))
    assert found.any(axis=1).all(), "what is known is kept"
    counts = np.bincount(found.argmax(axis=1), minlength=len(probs))
    assert_follows(counts, probs)
    with pytest.raises(AssertionError):
        assert_follows(counts[::-1], probs)
