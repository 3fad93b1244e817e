"""`sampling.sample`: seeds, labels, completion, and what is refused."""

import numpy as np
import pytest
import specimens
from keras import ops

from pixel_cnn_pp import likelihoods, models, sampling
from pixel_cnn_pp.config import ModelConfig

pytestmark = pytest.mark.usefixtures("without_xla")

TINY = {
    "receptive_field": "11x5",
    "nr_filters": 4,
    "nr_logistic_mix": 2,
    "dropout_p": 0.0,
}


def random_model(config, seed):
    """A model whose pixels depend on each other, and on the label: all its weights are at random.

    (Fresh weights make a nearly uniform model. And the data-dependent initialisation is of no use
    for images of 4 x 4 pixels, whose coarsest layers see nothing of them and never vary.)
    """
    rng = np.random.default_rng(seed)
    model = models.make(config)
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


def test_draws_are_levels_of_the_image_type(binary_model, conditional_model):
    draws = sampling.sample(binary_model, 20)
    assert draws.shape == (20, 4, 4, 1) and draws.dtype == np.uint8
    assert set(np.unique(draws)) == {0, 1}
    many_levels = sampling.sample(conditional_model, 5, labels=[0, 1, 2, 1, 0])
    assert many_levels.shape == (5, 4, 8, 2) and many_levels.dtype == np.int32
    assert many_levels.min() >= 0 and 255 < many_levels.max() <= 299


def test_the_mode_of_a_single_component_is_the_level_nearest_to_its_mean():
    config = specimens.SPECIMENS["one_component"]
    model = specimens.fresh(config)
    images, labels = specimens.images(config, 16), specimens.labels(config, 16)
    model.initialize(images, labels)
    drawn = sampling.sample(model, 3, labels[:3], seed=1, mode="map")
    # Nothing is left to chance, nor to the scale.
    again = sampling.sample(model, 3, labels[:3], seed=2, mode="map", temperature=3)
    assert (drawn == again).mean() > 0.99
    loc = model.likelihood.mixture.split(model(drawn, labels[:3])).loc[..., 0]
    expected = np.asarray(likelihoods.from_unit_scale(ops.clip(loc, -1, 1), 256))
    assert (drawn == expected).mean() > 0.99
    assert len(np.unique(drawn)) > 20


def test_known_pixels_are_kept_and_condition_what_comes_after_them(conditional_model):
    labels = [0, 1, 2]
    init_images = np.random.default_rng(1).integers(0, 300, (3, 4, 8, 2))
    known_mask = np.zeros((3, 4, 8), bool)
    known_mask[:, 1, 3:6] = known_mask[1, 2, 0] = True
    free = sampling.sample(conditional_model, 3, labels, seed=3)
    completed, others, longer = (
        sampling.sample(
            conditional_model, 3, labels, seed=3, init_images=images, known_mask=known_mask
        )
        for images in (
            init_images,
            np.where(known_mask[..., None], init_images, 7),
            np.where(known_mask[..., None], 299 - init_images, 7),
        )
    )
    np.testing.assert_array_equal(completed[known_mask], init_images[known_mask])
    np.testing.assert_array_equal(completed, others)
    assert completed.dtype == np.int32
    before = np.arange(32).reshape(4, 8) < 8 + 3
    np.testing.assert_array_equal(completed[:, before], free[:, before])
    after = np.arange(32).reshape(4, 8) > 8 + 5
    assert (completed[:, after] != free[:, after]).any(axis=(1, 2)).all()
    assert (completed[:, after] != longer[:, after]).any(axis=(1, 2)).all()


def test_unknown_pixels_may_hold_anything(conditional_model):
    labels = [0, 1, 2]
    init_images = np.random.default_rng(1).integers(0, 300, (3, 4, 8, 2))
    known_mask = np.random.default_rng(2).random((3, 4, 8)) < 0.5
    expected = sampling.sample(
        conditional_model, 3, labels, init_images=init_images, known_mask=known_mask
    )
    for anything in (-1, 10**6, np.nan, np.inf, 0.5):
        holed = np.where(known_mask[..., None], init_images, anything)
        for method in sampling.METHODS:
            completed = sampling.sample(
                conditional_model,
                3,
                labels,
                method=method,
                init_images=holed,
                known_mask=known_mask,
            )
            assert method == "naive" or np.array_equal(completed, expected)
            np.testing.assert_array_equal(completed[known_mask], init_images[known_mask])


def test_one_image_and_one_mask_serve_all_samples(binary_model):
    init_image = np.random.default_rng(1).integers(0, 2, (8, 12, 1))
    known_mask = np.arange(12) < np.arange(8)[:, None]
    completed = sampling.sample(
        binary_model, 4, seed=3, init_images=init_image, known_mask=known_mask
    )
    assert completed.shape == (4, 8, 12, 1)  # that of the image, not of the model
    assert (completed[:, known_mask] == init_image[known_mask]).all()
    assert len(np.unique(completed, axis=0)) == 4


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


IMAGE, MASK = np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4), bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gibbs"}, "`method` must be one of cached, naive. Received: method='gibbs'"),
        ({"mode": "mean"}, "`mode` must be one of sample, map. Received: mode='mean'"),
        ({"mode": np.array(["map"] * 3)}, "`mode` must be one of sample, map. Received: mode=arr"),
        ({"temperature": np.ones((3, 3))}, "`temperature` must be a number above 0. Received: te"),
        ({"seed": -1}, r"`seed` must be a whole number in \[0, 4294967295\]. Received: seed=-1"),
        ({"seed": 2**32}, "`seed` must be a whole number .* Received: seed=4294967296"),
        ({"seed": 0.5}, "`seed` must be a whole number .* Received: seed=0.5"),
        ({"temperature": 0}, "`temperature` must be a number above 0. Received: temperature=0"),
        ({"temperature": -1.0}, "`temperature` must be a number above 0. Received: "),
        ({"temperature": np.nan}, "`temperature` must be a number above 0. Received: .*nan"),
        ({"temperature": "hot"}, "`temperature` must be a number above 0. Received: .*'hot'"),
        ({"log_scale_offset": np.inf}, "`log_scale_offset` must be a number. Received: .*inf"),
        ({"image_shape": (4, 0, 1)}, r"`image_shape` must be .* Received: image_shape=\(4, 0, 1"),
        ({"image_shape": (4, 4, 3)}, r"`image_shape` must be .* Received: image_shape=\(4, 4, 3"),
        ({"image_shape": (4, 4)}, r"`image_shape` must be .* Received: image_shape=\(4, 4\)"),
        ({"init_images": IMAGE}, "belong together. Received: `init_images` without `known_mask`"),
        ({"known_mask": MASK}, "belong together. Received: `known_mask` without `init_images`"),
        (
            {"init_images": IMAGE, "known_mask": MASK[:3]},
            r"`known_mask` must have the shape \(4, 4\) or \(2, 4, 4\). Received: .*\(3, 4\)",
        ),
        (
            {"init_images": IMAGE, "known_mask": np.stack([MASK] * 3)},
            r"`known_mask` must have the shape .* Received: known_mask of shape \(3, 4, 4\)",
        ),
        (
            {"init_images": IMAGE, "known_mask": MASK.astype(int)},
            "`known_mask` must be booleans. Received: dtype int64",
        ),
        (
            {"init_images": np.stack([IMAGE] * 3), "known_mask": MASK},
            r"`init_images` must have the shape \(4, 4, 1\) or \(2, 4, 4, 1\). Received: .*\(3, 4",
        ),
        (
            {"init_images": IMAGE, "known_mask": MASK, "image_shape": (8, 4, 1)},
            r"`init_images` must have the shape \(8, 4, 1\) or .* Received: .* \(4, 4, 1\)",
        ),
        (
            {"init_images": IMAGE + 2, "known_mask": ~MASK},
            r"images must be whole numbers in \[0, 1\]. Received: values in \[2, 2\]",
        ),
        (
            {"init_images": IMAGE + 0.5, "known_mask": ~MASK},
            "images must be whole numbers in .* Received: fractions",
        ),
    ],
)
def test_arguments_that_are_out_of_range_or_do_not_fit_are_one_line(
    binary_model, arguments, message
):
    with pytest.raises(ValueError, match=message) as caught:
        sampling.sample(binary_model, 2, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "labels must be given.*3 classes. Received: labels=None"),
        ([0, 1], r"labels must have the shape \[B\].* Received: labels of shape \(2,\)"),
        ([[0, 1]] * 3, r"labels must have the shape \[B\].* Received: labels of shape \(3, 2\)"),
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
