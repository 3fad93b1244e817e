"""The law of the order: a sub-pixel depends on those before it, and on nothing that comes after."""

import functools

import numpy as np
import pytest
import specimens
import tensorflow as tf
from comparisons import EPS
from specimens import SPECIMENS

from pixel_cnn_pp.models import conditions

ALL = pytest.mark.parametrize("name", SPECIMENS)
WITH_LIKELIHOOD = pytest.mark.parametrize("name", specimens.WITH_LIKELIHOOD)


@functools.cache
def every_change(name):
    """The same image n = H W C times, and with another of its n sub-pixels changed in each.

    Returns:
      Images before and after, [n, H, W, C], and their raw parameters. Both stand at the same place
      of equal batches, so that they are rounded alike.
    """
    model = specimens.opinionated(name)
    config = model.config
    (image,) = specimens.images(config, 1)
    before = np.repeat(image[None], image.size, axis=0)
    after = before.copy()
    one_each = (np.arange(image.size), np.arange(image.size))
    changed = (image.ravel().astype(int) + max(1, config.num_levels // 2)) % config.num_levels
    after.reshape(image.size, image.size)[one_each] = changed
    labels = specimens.labels(config, 1)
    labels = None if labels is None else np.repeat(labels, len(before), axis=0)
    return before, after, *(np.asarray(model(images, labels)) for images in (before, after))


def log_pmf_of_levels(model, raw_params, images):
    """Log-probabilities of all levels, and of the image's own, given what comes before.

    Returns:
      Arrays [B, H, W, C, L] and [B, H, W, C].
    """
    images = tf.constant(images)
    earlier, all_levels = [], []
    for channel in range(images.shape[-1]):
        log_pmf = model.likelihood.log_pmf(tf.constant(raw_params), channel, earlier)
        all_levels.append(np.asarray(log_pmf))
        earlier.append(images[..., channel])
    all_levels = np.stack(all_levels, axis=-2)
    own = np.take_along_axis(all_levels, images.numpy()[..., None].astype(int), axis=-1)
    return all_levels, own[..., 0]


@ALL
def test_a_changed_sub_pixel_changes_no_parameter_before_it_but_some_after_it(name):
    model = specimens.opinionated(name)
    height, width, channels = model.config.image_shape
    *_, before, after = every_change(name)
    assert np.isfinite(before).all() and np.isfinite(after).all()
    differs = (before != after).any(axis=-1).reshape(-1, height * width)  # [n, pixels]
    place = np.arange(len(before)) // channels
    # A model that reads the channels of a pixel in turn may change the rest of its parameters.
    is_after = np.arange(height * width) >= place[:, None] + (0 if model.reads_channels else 1)
    assert not differs[~is_after].any()
    # A network in which everything passes a coarse resolution sees the last rows only there.
    is_early = place < height * width // 2
    assert differs[is_early].any(axis=1).all()


@WITH_LIKELIHOOD
def test_a_changed_sub_pixel_changes_its_own_and_later_probabilities_alone(name):
    model = specimens.opinionated(name)
    images_before, images_after, raw_before, raw_after = every_change(name)
    all_before, own_before = log_pmf_of_levels(model, raw_before, images_before)
    all_after, own_after = log_pmf_of_levels(model, raw_after, images_after)
    n, channels = len(images_before), images_before.shape[-1]
    pmf_differs = (all_before != all_after).any(axis=-1).reshape(n, n)
    assert not np.tril(pmf_differs).any(), "no distribution at the changed sub-pixel or before it"
    own_differs = (own_before != own_after).reshape(n, n)
    # Of the first pixels a network may know nothing, so that two levels are equally likely there.
    assert own_differs.diagonal()[n // 2 :].mean() > 0.9, "its own probability"
    # Later channels of the same pixel.
    place = np.arange(n)
    for channel in range(channels - 1):
        changed = place[(place % channels == channel) & (place >= n // 2)]
        later = np.arange(1, channels - channel)
        reached = pmf_differs[changed[:, None], changed[:, None] + later]
        # A relu may stop some of the changes on their way, not all, and not to all channels.
        assert reached.any(axis=0).all() and reached.any(axis=1).mean() > 0.9


@WITH_LIKELIHOOD
def test_the_probabilities_of_all_levels_sum_to_1_and_give_the_likelihood_of_the_image(name):
    model = specimens.opinionated(name)
    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    raw_params = np.asarray(model(images, labels))
    all_levels, own = log_pmf_of_levels(model, raw_params, images)
    np.testing.assert_allclose(np.exp(all_levels).sum(axis=-1), 1, rtol=1e-12)
    log_prob = np.asarray(model.log_prob(images, labels))
    if model.likelihood.noise_shape(*images.shape[1:3]) is None:
        np.testing.assert_allclose(own.sum(axis=(1, 2, 3)), log_prob, rtol=1e-12)
        return
    # A bound, of which one draw of noise is an estimate.
    draws = [
        np.asarray(model.log_prob_of(raw_params, images, model.noise(images, [0, step])))
        for step in range(100)
    ]
    standard_errors = np.std(draws, axis=0, ddof=1) / 10
    assert (np.mean(draws, axis=0) < own.sum(axis=(1, 2, 3)) + 3 * standard_errors).all()
    assert (np.abs(log_prob - np.mean(draws, axis=0)) < 4 * np.std(draws, axis=0)).all()
    alone = np.asarray(model.log_prob_of(raw_params[1:], images[1:]))
    np.testing.assert_array_equal(alone, log_prob[1:])


@ALL
def test_rows_below_are_nothing_to_the_rows_above(name):
    model = specimens.opinionated(name)
    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    expected = np.asarray(model(images, labels))
    height = images.shape[1]
    taller = specimens.with_sides(model.config, height + 4, images.shape[2])
    below, labels_below = specimens.images(taller, 2, 1), specimens.labels(taller, 2, 1)
    below[:, :height] = images
    if labels is not None and labels.ndim == 4:  # a picture becomes taller too
        labels_below[:, : labels.shape[1]] = labels
        labels = labels_below
    if conditions.has_embedding(model.config):  # all of a picture may count everywhere
        others = specimens.images(taller, 2, 2)
        others[:, :height] = images
        expected = np.asarray(model(others, labels))[:, :height]
    outputs = np.asarray(model(below, labels))[:, :height]
    # A convolution of another size may add up in another order: some EPS for about 40 layers.
    tolerance = 40 * np.finfo("float64").eps * np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=tolerance)
    assert tolerance < EPS
