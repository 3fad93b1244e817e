"""Laws of a model's numbers: scores, calls of every form, what a call may change."""

import itertools
import math

import numpy as np
import pytest
import specimens
import tensorflow as tf
from comparisons import EPS, assert_all_equal, one_line, to_numpy, weights_of
from specimens import SPECIMENS

from pixel_cnn_pp import models

ALL = pytest.mark.parametrize("name", SPECIMENS)
WITH_LIKELIHOOD = pytest.mark.parametrize("name", specimens.WITH_LIKELIHOOD)


@WITH_LIKELIHOOD
def test_bits_per_dim_is_nats_over_dimensions_and_log_2(name):
    model = specimens.build(name)
    images, labels = specimens.images(model.config, 3), specimens.labels(model.config, 3)
    height, width, channels = model.config.image_shape
    log_prob = model.log_prob(images, labels).numpy()
    assert log_prob.shape == (3,) and (log_prob < 0).all()
    expected = -log_prob / (height * width * channels * math.log(2))
    np.testing.assert_allclose(model.bits_per_dim(images, labels), expected, rtol=4 * EPS)


@WITH_LIKELIHOOD
def test_an_untrained_models_bits_per_dim_is_near_that_of_uniform_noise(name):
    # Fresh weights know nothing: log2(L), and what their arbitrary opinion costs on top. Where they
    # have next to none, the mean over some thousand sub-pixels may by chance be a little less.
    config = SPECIMENS[name]
    images, labels = specimens.images(config, 8), specimens.labels(config, 8)
    mean = specimens.build(name).bits_per_dim(images, labels).numpy().mean()
    assert -0.01 < mean - math.log2(config.num_levels) < 3


@ALL
def test_a_likelihood_scores_or_says_in_one_line_why_not(name):
    model = specimens.build(name)
    images, labels = specimens.images(model.config, 1), specimens.labels(model.config, 1)
    raw_params = model(images, labels)
    for score in (
        lambda: model.log_prob(images, labels),
        lambda: model.bits_per_dim(images, labels),
        lambda: model.log_prob_of(raw_params, images),
    ):
        if name in specimens.WITH_LIKELIHOOD:
            assert np.isfinite(score()).all()
            continue
        with pytest.raises(ValueError, match=r"has no likelihood\. Received") as caught:
            score()
        assert "\n" not in str(caught.value)


@ALL
def test_a_model_has_a_likelihood_where_the_list_of_specimens_says_so(name):
    likelihood = specimens.build(name).likelihood
    assert (likelihood.why_no_log_prob is None) == (name in specimens.WITH_LIKELIHOOD)
    assert likelihood.unit.startswith("bits/dim") == (name in specimens.WITH_LIKELIHOOD)


@ALL
def test_a_distribution_scores_as_the_model_does_or_is_refused_in_one_line(name):
    model = specimens.build(name)
    images, labels = specimens.images(model.config, 3), specimens.labels(model.config, 3)
    raw_params = model(images, labels)
    try:
        distribution = model.distribution(raw_params)
    except ValueError as error:
        assert "logistic_mixture only. Received: a model of" in str(error)
        assert "\n" not in str(error)
        return
    assert tuple(distribution.batch_shape) == (3,)
    assert tuple(distribution.event_shape) == model.config.image_shape
    log_prob = model.log_prob(images, labels).numpy()
    # The same terms, summed in another order.
    np.testing.assert_allclose(distribution.log_prob(images), log_prob, rtol=10 * EPS)


@ALL
def test_whole_numbers_of_any_dtype_are_the_same_image(name):
    model = specimens.build(name)
    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    expected = model(images, labels).numpy()
    loss = model.loss_of(expected, images).numpy()
    is_whole = labels is not None and labels.dtype.kind == "i"
    for dtype in ("int32", "float32", "float64"):
        cast = images.astype(dtype)
        y = labels.astype(dtype) if is_whole else labels
        assert_all_equal([model(cast, y).numpy()], [expected])
        assert_all_equal([model.loss_of(expected, cast).numpy()], [loss])
    y = tf.constant(labels, tf.int64) if is_whole else labels
    assert_all_equal([model((tf.constant(images), y)).numpy()], [expected])


@ALL
def test_a_compiled_function_gives_what_the_eager_call_gives_also_with_unknown_sides(name):
    model = specimens.build(name)
    images, labels = specimens.images(model.config, 3), specimens.labels(model.config, 3)
    image_spec = tf.TensorSpec([None, None, None, images.shape[-1]], images.dtype)
    label_specs = ()
    if labels is not None:
        sides = [None] * (labels.ndim - 2)
        label_specs = (tf.TensorSpec([None, *sides, *labels.shape[1:][-1:]], labels.dtype),)

    @tf.function(input_signature=(image_spec, *label_specs), autograph=False)
    def compiled(images, *labels):
        raw_params = model(images, *labels)
        return raw_params, model.loss_of(raw_params, images)

    raw_params, loss = compiled(images, *(() if labels is None else (labels,)))
    expected = model(images, labels).numpy()
    # The compiler may fuse and reorder what is summed: some EPS for each of about 40 layers.
    np.testing.assert_allclose(raw_params, expected, rtol=0, atol=40 * EPS * np.abs(expected).max())
    np.testing.assert_allclose(loss, model.loss_of(expected, images), rtol=40 * EPS)
    # TensorFlow 2.20 and 2.21 corrupt their heap in products of more axes than two.
    operations = compiled.get_concrete_function().graph.get_operations()
    assert not any("BatchMatMul" in operation.type for operation in operations)


@ALL
def test_images_of_other_sides_go_through_the_same_weights(name):
    model = specimens.build(name)
    config = specimens.with_sides(model.config, 16, 4)
    other = models.make(config)
    other.set_weights(model.get_weights())
    images, labels = specimens.images(config, 2), specimens.labels(config, 2)
    raw_params = model(images, labels)
    assert raw_params.shape[1:3] == (16, 4)
    results = to_numpy([raw_params, model.loss_of(raw_params, images)])
    raw_params = other(images, labels)
    assert_all_equal(results, to_numpy([raw_params, other.loss_of(raw_params, images)]))


@ALL
def test_dropout_is_a_function_of_its_seed_and_off_in_inference(name):
    model = specimens.build(name)
    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)

    def outputs(**kwargs):
        return model(images, labels, **kwargs).numpy()

    inference = outputs()
    assert_all_equal([outputs(seed=[1, 2])], [inference])
    first = outputs(training=True, seed=[1, 2])
    assert_all_equal([outputs(training=True, seed=[1, 2])], [first])
    has_dropout = not np.array_equal(first, inference)
    assert has_dropout == specimens.has_dropout(name)
    others = [
        outputs(training=True, seed=[1, 3]),
        outputs(training=True, seed=[2, 2]),
        # Without a seed the model draws one, another at every call.
        *(outputs(training=True) for _ in range(2)),
    ]
    for one, other in itertools.combinations([first, *others], 2):
        assert np.isfinite(other).all()
        assert np.array_equal(one, other) != has_dropout


@ALL
def test_no_call_changes_a_weight(name):
    model = specimens.build(name)
    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    everything = [variable.numpy().copy() for variable in model.variables]
    raw_params = model(images, labels, training=True, seed=[0, 0])
    model.loss_of(raw_params, images)
    model.loss_of(raw_params, images, model.noise(images, [0, 0]))
    assert_all_equal(to_numpy(model.variables), everything)
    weights = weights_of(model)
    model(images, labels, training=True)  # draws on the model's own generator, and on that only
    assert_all_equal(weights_of(model), weights)


@ALL
def test_initialisation_is_a_function_of_batch_and_seed_and_leaves_kernels_alone(name):
    model = specimens.fresh(SPECIMENS[name])
    images, labels = specimens.images(model.config, 8), specimens.labels(model.config, 8)
    start = weights_of(model)
    results = []
    for seed in (0, 0, 1):
        model.set_weights(start)
        model.initialize(images, labels, seed=seed)
        results.append(weights_of(model))
    first, again, other_seed = results
    assert_all_equal(first, again)
    # Where there is such an initialisation at all, it sets all gains and biases.
    is_set = specimens.initialised(model, name)
    for changes, initialised, before in zip(is_set, first, start, strict=True):
        assert np.isfinite(initialised).all()
        assert np.array_equal(initialised, before) != changes
    same = all(np.array_equal(*pair) for pair in zip(first, other_seed, strict=True))
    assert same == (not (specimens.has_initialisation(name) and specimens.has_dropout(name)))


@WITH_LIKELIHOOD
def test_pixels_and_channels_add_up_to_the_image_in_batches_of_any_size(name):
    model = specimens.opinionated(name)
    images, condition = specimens.images(model.config, 3), specimens.labels(model.config, 3)
    expected = model.log_prob(images, condition)
    of_pixels = model.log_prob(images, condition, reduce="pixel")
    assert of_pixels.shape == images.shape[:3]
    np.testing.assert_allclose(np.sum(of_pixels, axis=(1, 2)), expected, rtol=1e-12)
    batched = model.log_prob(images, condition, reduce="pixel", batch_size=2)
    np.testing.assert_allclose(batched, of_pixels, rtol=1e-10)
    if model.likelihood.noise_shape(1, 1) is not None:
        with one_line("`reduce` must be image or pixel for a likelihood that is a bound"):
            model.log_prob(images, condition, reduce="channel")
        return
    of_channels = model.log_prob(images, condition, reduce="channel")
    assert of_channels.shape == images.shape
    np.testing.assert_allclose(np.sum(of_channels, axis=-1), of_pixels, rtol=1e-10)
    # The last channel of a pixel in the middle, among all levels.
    row, column = images.shape[1] // 2, images.shape[2] // 2
    probs = model.level_probabilities(images, row, column, -1, condition)
    np.testing.assert_allclose(np.sum(probs, axis=-1), 1, rtol=1e-12)
    own = np.take_along_axis(np.asarray(probs), images[:, row, column, -1:].astype(int), axis=1)
    np.testing.assert_allclose(np.log(own[:, 0]), of_channels[:, row, column, -1], rtol=1e-9)


def test_what_log_prob_cannot_give_is_one_line():
    model = specimens.build("relu")
    images = specimens.images(model.config, 2)
    for arguments, part in (
        ({"reduce": "row"}, "`reduce` must be one of image, pixel, channel. Received: reduce='row"),
        ({"batch_size": 0}, "`batch_size` must be None or a whole number of at least 1. Received:"),
        ({"images": images + 0.5, "batch_size": 1}, "images must be whole numbers"),
    ):
        with one_line(part):
            model.log_prob(**{"images": images, **arguments})
    with one_line("`row` must be a whole number in [-5, 4]. Received: row=5"):
        model.level_probabilities(images, 5, 0, 0)
