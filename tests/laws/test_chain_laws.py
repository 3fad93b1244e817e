"""Laws of chains: the joint distribution of their stages, the bound, the order, the draws.

The sums are over all images and all smaller pictures of them. 4 x 4 pixels of 3 levels have 3^16
images, so the chains here are smaller: they have all pairs or triples that 16 bits can number.
"""

import functools

import enumeration
import numpy as np
import pytest
import specimens
from comparisons import EPS, one_line
from enumeration import assert_follows
from specimens import CHAINS

from pixel_cnn_pp import models, sampling
from pixel_cnn_pp.config import ChainConfig, GatedPixelCNNConfig, ModelConfig, PixelCNNConfig
from pixel_cnn_pp.models import conditions
from pixel_cnn_pp.sampling import start

pytestmark = pytest.mark.usefixtures("without_xla")

EACH = pytest.mark.parametrize("name", CHAINS)

_SMALL = {"nr_filters": 4, "nr_logistic_mix": 2, "dropout_p": 0.0, "receptive_field": "11x5"}
_MEANS = PixelCNNConfig((1, 2, 1), num_levels=3, nr_resnet=1, nr_filters=4, nr_output_filters=8)
_FIRST = PixelCNNConfig((1, 1, 3), num_levels=2, nr_resnet=1, nr_filters=6, nr_output_filters=9)
TINY_CHAINS = {
    # 9 pictures of means, 6561 images.
    "two_sizes": ChainConfig(
        (
            _MEANS,
            ModelConfig(
                (2, 4, 1), num_levels=3, **_SMALL, condition_shape=(1, 2, 1), condition_levels=3,
                resnet_nonlinearity="elu", embedding_resnet=1, embedding_resolutions=1,
                embedding_filters=8,
            ),
        ),
        ("mean:2", "image"),
    ),
    # 8 small pictures, 16 gray ones, 4096 images.
    "a_colour_then_gray_then_all": ChainConfig(
        (
            _FIRST,
            ModelConfig(
                (2, 2, 1), num_levels=2, **_SMALL, condition_shape=(1, 1, 3), condition_levels=2
            ),
            GatedPixelCNNConfig(
                (2, 2, 3), num_levels=2, nr_resnet=2, nr_filters=6, filter_size=3,
                nr_output_filters=9, condition_shape=(2, 2, 1), condition_levels=2,
            ),
        ),
        ("every:2", "gray:2", "image"),
    ),
}  # fmt: skip


class WholeChain:
    """A tiny chain, all pictures of its stages, and their probabilities in float64.

    Attributes:
      pictures: All pictures of each stage.
      numbers: {number of the stage: the number among `pictures` of the view of each image}.
      factors: p(X^1) [n_1], then p(X^k | X^(k - 1)) [n_(k - 1), n_k].
      joint: p(X^1, ..., X) [n_1, ..., n].
    """

    def __init__(self, config):
        self.model = enumeration.random_model(config, seed=6)
        stages = self.model.stages
        self.pictures = [enumeration.all_images(stage.model.config) for stage in stages]
        self.images = self.pictures[-1]
        self.factors = [self.probs(stages[0].model, self.pictures[0], None)]
        for stage, given, own in zip(stages[1:], self.pictures, self.pictures[1:], strict=False):
            pairs = np.tile(own, (len(given), 1, 1, 1)), np.repeat(given, len(own), axis=0)
            self.factors.append(self.probs(stage.model, *pairs).reshape(len(given), len(own)))
        self.joint = self.factors[0]
        for factor in self.factors[1:]:
            self.joint = self.joint[..., None] * factor
        self.numbers = [
            self.number(k, stage.view.of(self.images, config.num_levels))
            for k, stage in enumerate(stages)
        ]

    @staticmethod
    def probs(model, images, condition):
        rows = np.array_split(np.arange(len(images)), -(-len(images) // 8192))
        log_probs = [
            model.log_prob(images[own], None if condition is None else condition[own])
            for own in rows
        ]
        return np.exp(np.concatenate([np.asarray(x, np.float64) for x in log_probs]))

    def number(self, k, pictures):
        """The numbers of pictures of stage k, in the order of `enumeration.all_images`."""
        flat = pictures.reshape(len(pictures), -1).astype(np.int64)
        return flat @ self.model.stages[k].model.config.num_levels ** np.arange(flat.shape[1])

    @functools.cached_property
    def draws(self):
        """The numbers of 8000 drawn pictures of each stage, a list of [8000]."""
        found = sampling.sample_stages(self.model, 8000, seed=11)
        return [self.number(k, pictures) for k, pictures in enumerate(found.values())]


@pytest.fixture(scope="module", params=TINY_CHAINS)
def whole(request):
    return WholeChain(TINY_CHAINS[request.param])


def test_the_joint_of_all_stages_sums_to_1(whole):
    # float32 terms of size 1, at most 12 an image, with relative errors of about 1e-7.
    assert whole.joint.sum() == pytest.approx(1, abs=1e-5)
    for factor in whole.factors[1:]:
        np.testing.assert_allclose(factor.sum(axis=-1), 1, rtol=0, atol=1e-5)
        # The condition matters.
        assert np.abs(np.diff(factor, axis=0)).sum() > 0.1


def test_log_prob_is_the_joint_of_an_image_and_its_views_and_at_most_the_marginal(whole):
    found = np.asarray(whole.model.log_prob(whole.images), np.float64)
    own = whole.joint[tuple(whole.numbers)]
    np.testing.assert_allclose(found, np.log(own), rtol=20 * EPS)
    marginal = whole.joint.sum(axis=tuple(range(len(whole.factors) - 1)))
    assert marginal.sum() == pytest.approx(1, abs=1e-5)
    gap = np.log(marginal) - found
    assert gap.min() > -20 * EPS * np.abs(found).max()
    # What is lost is -log p(X^ | X) under the chain, backwards from stage to stage.
    lost, before = 0, whole.factors[0]
    for k, factor in enumerate(whole.factors[1:]):
        pairs = before[:, None] * factor
        before = pairs.sum(axis=0)
        lost = lost - np.log((pairs / before)[whole.numbers[k], whole.numbers[k + 1]])
    np.testing.assert_allclose(gap, lost, rtol=0, atol=20 * EPS * np.abs(found).max())
    assert gap.mean() > 0.1, "random weights do not follow their condition"


def counts_of(cells, num_cells):
    return np.bincount(cells, minlength=num_cells)


def test_neighbouring_stages_are_drawn_together_as_often_as_their_joint_says(whole):
    num_stages = whole.joint.ndim
    for k in range(num_stages - 1):
        expected = whole.joint.sum(axis=tuple(j for j in range(num_stages) if j not in (k, k + 1)))
        first, second = whole.draws[k], whole.draws[k + 1]
        if k == num_stages - 2:  # the high digits of an image's number are its last sub-pixels
            size = expected.shape[1] // 64
            expected = np.stack([np.bincount(np.arange(len(p)) // size, p) for p in expected])
            second = second // size
        num_cells = expected.shape[1]
        expected = expected.ravel()
        assert (expected * 8000 >= 5).sum() >= 20
        assert_follows(counts_of(first * num_cells + second, len(expected)), expected)
        shuffled = np.random.default_rng(0).permutation(first)
        with pytest.raises(AssertionError):
            assert_follows(counts_of(shuffled * num_cells + second, len(expected)), expected)
    # The stages before the image, all of them together.
    expected = whole.joint.sum(axis=-1)
    cells = np.ravel_multi_index(whole.draws[:-1], expected.shape)
    assert_follows(counts_of(cells, expected.size), expected.ravel())


def test_what_is_drawn_from_a_given_picture_follows_the_rest_of_the_chain(whole):
    name, k = whole.model.stages[-2].name, len(whole.factors) - 2
    given = int(whole.factors[-1].max(axis=1).argmin())  # where no image stands out
    found = sampling.sample(
        whole.model, 4000, seed=3, given=whole.pictures[k][given], given_stage=name
    )
    size = len(whole.images) // 64
    last = -(-len(whole.images) // size)
    probs = np.bincount(np.arange(len(whole.images)) // size, whole.factors[-1][given], last)
    counts = counts_of(whole.number(k + 1, found) // size, last)
    assert_follows(counts, probs)
    with pytest.raises(AssertionError):
        assert_follows(counts[::-1], probs)


# The order


def parts_of(name, n):
    """(stage, pictures, condition) of each stage of a chain of the specimens, float64."""
    model = specimens.opinionated(name)
    images, condition = specimens.images(model.config, n), specimens.labels(model.config, n)
    parts = models.stages.pictures(model, images, condition)
    return [(stage, *part) for stage, part in zip(model.stages, parts, strict=True)]


def changed(pictures, num_levels):
    """Each of the n sub-pixels of the first picture changed in one of n copies, and the copies."""
    copies = np.repeat(pictures[:1], pictures[0].size, axis=0)
    others = copies.copy()
    places = np.arange(len(copies)), np.arange(len(copies))
    levels = (pictures[0].ravel().astype(int) + max(1, num_levels // 2)) % num_levels
    others.reshape(len(copies), -1)[places] = levels
    return copies, others


@EACH
def test_a_stage_sees_nothing_of_its_own_future(name):
    for stage, pictures, condition in parts_of(name, 1):
        before, after = changed(pictures, stage.model.config.num_levels)
        if condition is not None:
            condition = np.repeat(condition, len(before), axis=0)
        raw_params = (np.asarray(stage.model(x, condition)) for x in (before, after))
        differs = np.not_equal(*raw_params)
        channels = pictures.shape[-1]
        differs = differs.any(axis=-1).reshape(len(before), -1)  # [sub-pixels, pixels]
        place = np.arange(len(before)) // channels + (0 if stage.model.reads_channels else 1)
        assert not differs[np.arange(differs.shape[1]) < place[:, None]].any(), stage.name
        assert differs.any(), stage.name


@EACH
def test_a_stage_sees_its_condition_in_the_future_too(name):
    for stage, pictures, condition in parts_of(name, 1)[1:]:
        config = stage.model.config
        before, after = changed(condition, config.condition_levels)
        pictures = np.repeat(pictures, len(before), axis=0)
        raw_params = (np.asarray(stage.model(pictures, x)) for x in (before, after))
        differs = np.not_equal(*raw_params).any(axis=-1)  # [sub-pixels of the condition, H, W]
        height, width = conditions.times_larger(config)
        _, columns, channels = condition.shape[1:]
        for number, own in enumerate(differs):
            row, column = divmod(number // channels, columns)
            block = own[row * height : (row + 1) * height, column * width : (column + 1) * width]
            assert block.all(), "its own place, the later pixels of the block too"
        # With an embedding network, the first pixel depends on the last one of the condition.
        assert differs[-1, 0, 0] == conditions.has_embedding(config)


# Draws


@EACH
def test_cached_and_naive_draw_identical_stages(name):
    model = specimens.opinionated(name)
    images, labels = specimens.images(model.config, 3), specimens.labels(model.config, 3)
    known_mask = np.random.default_rng(3).random((3, *images.shape[1:3])) < 0.7
    known_mask[:, :4, :4] = True
    controls = {"temperature": [0.8] * len(model.stages), "mode": "map"}
    for arguments in (
        {"seed": 11},
        {"seed": 2**32 - 1, **controls, "init_images": images, "known_mask": known_mask},
    ):
        cached, naive = (
            sampling.sample_stages(model, 3, labels, method=method, **arguments)
            for method in sampling.METHODS
        )
        assert tuple(cached) == tuple(naive) == model.config.stage_names
        for stage in model.stages:
            found = cached[stage.name]
            np.testing.assert_array_equal(found, naive[stage.name])
            assert found.shape[1:] == stage.model.config.image_shape
            assert len(np.unique(found, axis=0)) == 3
    # Every stage keeps what is known of it.
    for stage in model.stages:
        known = stage.view.known(known_mask)
        assert 0 < known.mean() < 1
        expected = stage.view.of(images, model.config.num_levels)
        np.testing.assert_array_equal(cached[stage.name][known], expected[known])


def test_each_stage_is_drawn_with_a_seed_of_its_own():
    signed = (0, 1, 2, -1, 2**31 - 1, -(2**31))
    seeds = [int(start.seed_of(seed, number)) for seed in signed for number in range(4)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= -(2**31) and max(seeds) < 2**31
    assert tuple(seeds[::4]) == signed, "the first stage has the seed itself"


def test_a_drawing_goes_on_from_a_given_picture_as_if_the_stage_had_drawn_it():
    model = specimens.opinionated("three_sizes")
    found = sampling.sample_stages(model, 3, seed=5)
    assert list(found) == ["2x3", "4x6", "8x12"]
    alone = sampling.sample(model.stage_models[0], 3, seed=5)
    np.testing.assert_array_equal(found["2x3"], alone)
    np.testing.assert_array_equal(sampling.sample(model, 3, seed=5), found["8x12"])
    for name in ("2x3", "4x6"):
        for given in (found[name], found[name].astype("int64"), found[name].astype("float32")):
            again = sampling.sample_stages(model, 3, seed=5, given=given)
            assert list(again) == list(found)[list(found).index(name) :]
            for each, pictures in again.items():
                np.testing.assert_array_equal(pictures, found[each], strict=True)
        named = sampling.sample(model, 3, seed=5, given=given, given_stage=name)
        np.testing.assert_array_equal(named, found["8x12"])
    # One picture for all images, and pictures of other sizes than in training.
    one = sampling.sample_stages(model, 3, seed=5, given=found["4x6"][0])
    np.testing.assert_array_equal(one["4x6"], found["4x6"][[0, 0, 0]])
    assert len(np.unique(one["8x12"], axis=0)) == 3
    wide = np.zeros((3, 5, 1), np.uint8)
    for more in ({"given_stage": "4x6"}, {"image_shape": np.array([6, 10, 1])}):
        assert sampling.sample(model, 2, given=wide, method="naive", **more).shape == (2, 6, 10, 1)


def test_a_given_picture_that_fits_no_stage_is_one_line():
    model = specimens.build("three_sizes")
    picture = np.zeros((2, 4, 6, 1), np.uint8)
    for arguments, part in (
        ({"given": picture[:, :3]}, "`given` must have the shape (h, w, c) of the pictures of one"),
        ({"given": picture[..., 0]}, "Received: (2, 4, 6)"),
        ({"given": picture[0, 0]}, "`given` must have the shape [h, w, c] or [2, h, w, c]"),
        ({"given": picture[:1]}, "`given` must have the shape [h, w, c] or [2, h, w, c]"),
        ({"given": picture.repeat(3, axis=-1), "given_stage": "4x6"}, "`given` must have the"),
        ({"given": picture, "given_stage": "16"}, "`given_stage` must be one of 2x3, 4x6"),
        ({"given": picture, "given_stage": "8x12"}, "`given_stage` must be one of 2x3, 4x6. Recei"),
        ({"given_stage": "4x6"}, "`given_stage` must be left out without `given`"),
        ({"given": picture + 0.5}, "condition must be whole numbers in [0, 255]"),
        ({"given": picture - 300.0}, "condition must be whole numbers in [0, 255]"),
        ({"given": picture, "image_shape": (8, 8, 1)}, "`given` must have the shape (h, w, c)"),
        ({"given": picture, "image_shape": 8}, "`given` must have the shape (h, w, c)"),
        ({"given": picture[:, :1, :3], "given_stage": "2x3", "init_images": np.zeros((4, 12, 1)),
          "known_mask": np.ones((4, 12), bool)}, "must be left out where a stage is given"),
    ):  # fmt: skip
        with one_line(part):
            sampling.sample(model, 2, **arguments)
    with one_line("Height and width of images must be multiples of 4 for the view mean:4"):
        sampling.sample(model, 2, image_shape=(6, 8, 1))
    with one_line("`given` must be left out: the model has one stage"):
        sampling.sample(model.stage_models[0], 2, given=picture)
    with one_line("`condition` and `init_images` must be left out where a stage is given"):
        sampling.sample(
            specimens.build("every_second_pixel"), 2, np.array([0, 1]),
            given=np.zeros((3, 2, 2), np.uint8),
        )  # fmt: skip


def test_every_stage_has_its_own_controls():
    model = specimens.opinionated("gray_and_colour")
    plain = sampling.sample_stages(model, 3, seed=2)
    for controls, changes in (
        ({"temperature": [1.0, 0.2]}, (False, True)),
        ({"temperature": (0.2, 1.0)}, (True, True)),
        ({"mode": ["sample", "map"]}, (False, True)),
        ({"log_scale_offset": [0.0, 2.0]}, (False, True)),
        ({"log_scale_offset": 2.0}, (False, True)),  # the gray stage has no such control
        ({"temperature": 0.2}, (True, True)),
    ):
        found = sampling.sample_stages(model, 3, seed=2, **controls)
        for name, is_changed in zip(("gray", "colour"), changes, strict=True):
            assert np.array_equal(found[name], plain[name]) != is_changed, (controls, name)
    same = sampling.sample(model, 3, seed=2, temperature=[0.2, 0.2])
    np.testing.assert_array_equal(found["colour"], same)
    for controls, part in (
        (
            {"temperature": [1.0]},
            "`temperature` must be one value, or one for each of the 2 stages",
        ),
        ({"temperature": [1.0, 0.0]}, "`temperature` must be a number above 0. Received"),
        ({"temperature": np.ones(2)}, "`temperature` must be a number above 0. Received"),
        ({"mode": ["map", "best"]}, "`mode` must be one of sample, map. Received: mode='best'"),
        (
            {"log_scale_offset": [0.5, 0.0]},
            "`log_scale_offset` must be left out: it has no meaning",
        ),
    ):
        with one_line(part):
            sampling.sample(model, 1, **controls)
    with one_line("`temperature` must be one value, or one for each of the 1 stages"):
        sampling.sample(model.stage_models[0], 1, temperature=[1.0, 1.0])


def test_the_progress_is_that_of_all_stages():
    model = specimens.opinionated("three_sizes")
    for method, is_given, total in (("cached", 0, 42), ("cached", 1, 36), ("naive", 1, 36)):
        reports = []
        given = np.zeros((3, 2, 3, 1), np.uint8) if is_given else None
        sampling.sample(
            model, 3, method=method, given=given, progress=lambda *x, to=reports: to.append(x)
        )
        done, totals = zip(*reports, strict=True)
        assert set(totals) == {total} and done[-1] == total
        assert list(done) == sorted(done) and done[0] <= 12
