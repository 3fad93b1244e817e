import gc

import numpy as np
import pytest
import scipy.stats
import specimens
from keras import ops

from pixel_cnn_pp import likelihoods, sampling
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP

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


# Whole images: 3 levels, a distribution so sharp that some images come up again and again


@pytest.fixture(scope="module")
def sharp_model():
    """61 of the 43 million images have nine tenths of its probability."""
    model = random_model(ModelConfig(image_shape=(4, 4, 1), num_levels=3, **TINY), seed=1)
    bias = np.array(model.output_layer.b)
    bias[4:6] -= 2.5  # the log-scales, behind the weights and the means of the two components
    model.output_layer.b.assign(bias)
    return model


@pytest.fixture(scope="module")
def last_pixels():
    """The 81 values of the last four pixels in raster order, as images [81, 4, 4, 1]."""
    images = np.zeros((81, 16), np.uint8)
    images[:, 12:] = np.arange(81)[:, None] // 3 ** np.arange(4) % 3
    return images.reshape(81, 4, 4, 1)


def assert_follows(counts, probs):
    """Pearson's test of counts under probabilities, which may sum to less than 1: the rest."""
    num_draws = counts.sum()
    expected = probs * num_draws
    common = expected >= 5  # the usual rule
    counts, expected = counts[common], expected[common]
    counts = np.append(counts, num_draws - counts.sum())
    expected = np.append(expected, num_draws - expected.sum())
    statistic = np.sum((counts - expected) ** 2 / expected)
    # One seed in a thousand would fail.
    assert statistic < scipy.stats.chi2.ppf(0.999, df=len(counts) - 1)


def test_whole_images_come_up_as_often_as_their_log_prob_says(sharp_model):
    drawn = sampling.sample(sharp_model, 8000, seed=1)
    images, counts = np.unique(drawn, axis=0, return_counts=True)
    probs = np.exp(np.asarray(sharp_model.log_prob(images), np.float64))
    assert (probs * 8000 >= 5).sum() > 50 and probs.sum() > 0.9
    assert_follows(counts, probs)
    with pytest.raises(AssertionError):
        assert_follows(counts[::-1], probs)


def complete_last_pixels(model, images, num_draws, **controls):
    """How often each of the 81 comes up where the other twelve pixels are known."""
    known_mask = np.arange(16).reshape(4, 4) < 12
    drawn = sampling.sample(
        model, num_draws, seed=2, init_images=images[0], known_mask=known_mask, **controls
    )
    found = (drawn[:, None] == images[None]).all(axis=(2, 3, 4)).argmax(axis=1)
    return np.bincount(found, minlength=81)


def test_completions_follow_the_conditional_distribution(sharp_model, last_pixels):
    log_prob = np.asarray(sharp_model.log_prob(last_pixels), np.float64)
    probs = np.exp(log_prob - scipy.special.logsumexp(log_prob))
    assert_follows(complete_last_pixels(sharp_model, last_pixels, 4000), probs)


@pytest.mark.parametrize(("temperature", "log_scale_offset"), [(0.5, 0.0), (2.0, 0.7), (1, -1)])
def test_temperature_and_offset_do_to_the_mixture_what_they_say(
    sharp_model, last_pixels, temperature, log_scale_offset
):
    params = sharp_model.likelihood.split(sharp_model(last_pixels))
    params = params._replace(
        mixture_logits=params.mixture_logits / temperature,
        log_scale=params.log_scale + np.log(temperature) - log_scale_offset,
    )
    log_prob = sharp_model.likelihood.log_prob(params, last_pixels)  # [81, H, W]
    log_prob = np.asarray(log_prob, np.float64).reshape(81, 16)[:, 12:].sum(axis=1)
    controls = {"temperature": temperature, "log_scale_offset": log_scale_offset}
    counts = complete_last_pixels(sharp_model, last_pixels, 4000, **controls)
    assert_follows(counts, np.exp(log_prob))
    with pytest.raises(AssertionError):
        assert_follows(complete_last_pixels(sharp_model, last_pixels, 4000), np.exp(log_prob))


# Cached and naive


# XLA compiles for seconds; that it draws the same does not depend on the specimen.
COMPILED_BY_XLA = ("rgb", "digits")


@pytest.mark.parametrize("name", specimens.SPECIMENS)
def test_cached_and_naive_draw_identical_images(name, monkeypatch):
    config = specimens.SPECIMENS[name]
    if name not in COMPILED_BY_XLA:
        compile_function = sampling._compile
        monkeypatch.setattr(sampling, "_compile", lambda f, with_xla: compile_function(f, False))
    model = specimens.fresh(config, dtype="float64")
    images, labels = specimens.images(config, 16), specimens.labels(config, 16)
    model.initialize(images, labels)
    labels = None if labels is None else labels[:5]
    known_mask = np.random.default_rng(3).random((5, *config.image_shape[:2])) < 0.3
    controls = {"temperature": 0.8, "mode": "map", "log_scale_offset": 0.4}
    if config.likelihood == "softmax":
        del controls["log_scale_offset"]
    for arguments in (
        {"seed": 11},
        {
            "seed": 2**32 - 1,
            **({} if config.energy_distance else controls),
            "init_images": images[:5],
            "known_mask": known_mask,
        },
    ):
        cached, naive = (
            sampling.sample(model, 5, labels, method=method, **arguments)
            for method in ("cached", "naive")
        )
        np.testing.assert_array_equal(cached, naive)
        assert len(np.unique(cached, axis=0)) == 5


def test_cached_and_naive_agree_on_images_of_another_size():
    config = specimens.SPECIMENS["rgb"]
    model = specimens.fresh(config, dtype="float64")
    model.initialize(specimens.images(config, 16))
    cached, naive = (
        sampling.sample(model, 2, seed=1, method=method, image_shape=(20, 16, 3))
        for method in ("cached", "naive")
    )
    assert cached.shape == (2, 20, 16, 3)
    np.testing.assert_array_equal(cached, naive)


def test_in_float32_rounding_changes_less_than_one_draw_in_a_thousand():
    config = specimens.SPECIMENS["rgb"]
    model = specimens.fresh(config)
    model.initialize(specimens.images(config, 16))
    cached, naive = (
        sampling.sample(model, 16, seed=4, method=method).reshape(16, -1)
        for method in ("cached", "naive")
    )
    # Behind its first difference an image is another one: count the draws up to there.
    differs = cached != naive
    first = np.where(differs.any(axis=1), differs.argmax(axis=1) + 1, cached.shape[1])
    assert differs.any(axis=1).sum() < 1e-3 * first.sum()


def test_on_jax_cached_and_naive_draw_the_same_too_and_need_no_tensorflow(run_python):
    code = """if True:
        import sys; sys.modules["tensorflow"] = None
        import numpy as np, specimens
        from pixel_cnn_pp import sampling
        config = specimens.SPECIMENS["digits"]
        model = specimens.fresh(config)
        model.initialize(specimens.images(config, 16), specimens.labels(config, 16))
        labels = np.array([3, 9, 4])
        cached, naive = (
            sampling.sample(model, 3, labels, method=method) for method in ("cached", "naive")
        )
        print((cached == naive).mean(), len(np.unique(cached)))
    """
    same, num_values = run_python(code, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu").split()
    # 17 levels: that rounding tips one of 288 draws happens once in a thousand seeds.
    assert float(same) == 1 and int(num_values) > 5


# What a call costs


@pytest.fixture
def traces(monkeypatch):
    """The names of the functions that were traced, in order."""
    names = []
    compile_function = sampling._compile

    def compile_and_note(function, with_xla):
        def traced(*arguments):
            names.append(function.__name__)
            return function(*arguments)

        return compile_function(traced, with_xla)

    monkeypatch.setattr(sampling, "_compile", compile_and_note)
    return names


def test_it_compiles_once_for_a_shape_whatever_the_values(traces):
    config = specimens.SPECIMENS["one_component"]
    model = specimens.fresh(config)
    images = specimens.images(config, 4)
    known_mask = np.zeros((4, 8, 12), bool)
    sampling.sample(model, 4, [0, 1, 2, 0])
    assert sorted(traces) == ["draw_row", "draw_rows", "step_weights"]
    for arguments in (
        {"seed": 5},
        {"temperature": 0.5, "log_scale_offset": 1},
        {"mode": "map"},
        {"init_images": images, "known_mask": known_mask},
        {"init_images": images[0], "known_mask": ~known_mask[0]},
        {"progress": lambda done, total: None},
    ):
        sampling.sample(model, 4, [2, 1, 1, 0], **arguments)
    for weight in model.trainable_variables:
        weight.assign(weight * 0.9)
    before = sampling.sample(model, 4, [2, 1, 1, 0])
    assert len(traces) == 3
    # More rows are more rounds of a loop, around the same step.
    sampling.sample(model, 4, [2, 1, 1, 0], image_shape=(16, 12, 1))
    assert traces[3:] == ["draw_rows"]
    # And the changed weights were those that it drew with.
    naive = sampling.sample(model, 4, [2, 1, 1, 0], method="naive")
    assert (before == naive).mean() > 0.9


def test_a_model_that_is_gone_takes_its_compiled_functions_along():
    config = specimens.SPECIMENS["relu"]
    sampling.sample(specimens.fresh(config), 1)
    gc.collect()
    known = [model for model in sampling._COMPILED if model.config == config]
    assert known == []


def test_an_image_does_not_depend_on_how_many_are_drawn_nor_on_the_batches(monkeypatch):
    config = specimens.SPECIMENS["relu"]
    model = specimens.fresh(config, dtype="float64")
    model.initialize(specimens.images(config, 16))
    seven = sampling.sample(model, 7, seed=9)
    np.testing.assert_array_equal(sampling.sample(model, 3, seed=9), seven[:3])
    monkeypatch.setattr(sampling, "_MAX_BATCH_SIZE", 2)
    for num_workers in (1, 3):
        monkeypatch.setattr(sampling, "_num_workers", lambda n=num_workers: n)
        np.testing.assert_array_equal(sampling.sample(model, 7, seed=9), seven)


def test_the_noise_of_an_image_is_the_same_in_every_batch():
    def noise(first_image, num_images, row=3, seed=5):
        return np.asarray(sampling._uniforms(seed, row, first_image, num_images, 4, 2))

    whole = noise(0, 200)
    assert whole.shape == (4, 200, 2) and whole.min() > 0 and whole.max() < 1
    assert len(np.unique(whole)) > 0.999 * whole.size
    for first_image, num_images in ((0, 1), (63, 2), (64, 64), (100, 64), (199, 1)):
        part = noise(first_image, num_images)
        np.testing.assert_array_equal(part, whole[:, first_image : first_image + num_images])
    for other in (noise(0, 200, row=4), noise(0, 200, seed=6), noise(0, 200, seed=5 - 2**31)):
        assert (other == whole).mean() < 0.01


@pytest.mark.parametrize("num_workers", [1, 3])
def test_an_export_draws_the_batches_that_a_call_draws(monkeypatch, num_workers):
    monkeypatch.setattr(sampling, "_num_workers", lambda: num_workers)
    monkeypatch.setattr(sampling, "_MAX_BATCH_SIZE", 4)
    batches = []

    def make_draw_rows(model, compile_step):
        def draw_rows(weights, caches, images, known_mask, labels, controls, seed, first, *rows):
            batches.append((int(first), images.shape[2]))
            return caches, images + 1

        return draw_rows

    monkeypatch.setattr(sampling, "make_draw_rows", make_draw_rows)
    model = specimens.build("relu")
    draw_images = sampling.make_draw_images(model, None)
    for num_images in (1, 2, 6, 9):
        images = ops.zeros((num_images, *model.config.image_shape), "uint8")
        batches.clear()
        drawn = draw_images(images, ops.zeros(images.shape[:3], "bool"), None, 0, None)
        batch_size = min(4, -(-num_images // num_workers))
        starts = [min(i, num_images - batch_size) for i in range(0, num_images, batch_size)]
        assert batches == [(start, batch_size) for start in starts]
        assert (np.asarray(drawn) == 1).all()


@pytest.mark.parametrize("method", sampling.METHODS)
def test_progress_goes_up_to_all_rows_of_all_images(binary_model, method):
    reports = []
    sampling.sample(
        binary_model,
        5,
        method=method,
        image_shape=(12, 4, 1),
        progress=lambda *report: reports.append(report),
    )
    done, totals = zip(*reports, strict=True)
    assert set(totals) == {60} and done[-1] == 60
    assert list(done) == sorted(done) and len(set(done)) >= 3


# Control and completion


def test_the_mode_of_a_single_component_is_the_level_nearest_to_its_mean():
    config = specimens.SPECIMENS["one_component"]
    model = specimens.fresh(config)
    images, labels = specimens.images(config, 16), specimens.labels(config, 16)
    model.initialize(images, labels)
    drawn = sampling.sample(model, 3, labels[:3], seed=1, mode="map")
    # Nothing is left to chance, nor to the scale.
    again = sampling.sample(model, 3, labels[:3], seed=2, mode="map", temperature=3)
    assert (drawn == again).mean() > 0.99
    loc = model.likelihood.split(model(drawn, labels[:3])).loc[..., 0]
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


def test_one_image_and_one_mask_serve_all_samples(binary_model):
    init_image = np.random.default_rng(1).integers(0, 2, (8, 12, 1))
    known_mask = np.arange(12) < np.arange(8)[:, None]
    completed = sampling.sample(
        binary_model, 4, seed=3, init_images=init_image, known_mask=known_mask
    )
    assert completed.shape == (4, 8, 12, 1)  # that of the image, not of the model
    assert (completed[:, known_mask] == init_image[known_mask]).all()
    assert len(np.unique(completed, axis=0)) == 4


# What goes wrong


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


@pytest.mark.parametrize(
    ("name", "controls"),
    [
        ("energy", {"temperature": 0.9}),
        ("energy", {"mode": "map"}),
        ("energy", {"log_scale_offset": 0.1}),
        ("softmax", {"log_scale_offset": -0.1}),
    ],
)
def test_a_control_without_a_meaning_is_one_line(name, controls):
    model = specimens.build(name)
    ((control, value),) = controls.items()
    labels = specimens.labels(model.config, 1)
    with pytest.raises(ValueError) as caught:
        sampling.sample(model, 1, labels, **controls)
    kind = {"energy": "energy_distance", "softmax": "likelihood softmax"}[name]
    assert str(caught.value) == (
        f"`{control}` must be left out: it has no meaning for a model of {kind}. "
        f"Received: {control}={value!r}"
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
        ({"seed": -1}, r"`seed` must be a whole number in \[0, 4294967295\]. Received: seed=-1"),
        ({"seed": 2**32}, "`seed` must be a whole number .* Received: seed=4294967296"),
        ({"seed": 0.5}, "`seed` must be a whole number .* Received: seed=0.5"),
        ({"temperature": 0}, "`temperature` must be a number above 0. Received: temperature=0"),
        ({"temperature": -1.0}, "`temperature` must be a number above 0. Received: "),
        ({"temperature": np.nan}, "`temperature` must be a number above 0. Received: .*nan"),
        ({"temperature": "hot"}, "`temperature` must be a number above 0. Received: .*'hot'"),
        ({"log_scale_offset": np.inf}, "`log_scale_offset` must be a number. Received: .*inf"),
        ({"image_shape": (6, 4, 1)}, r"`image_shape` must be \(height, width, 1\), .*of 4. Rec"),
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
            {"init_images": IMAGE + 2, "known_mask": MASK},
            r"images must be whole numbers in \[0, 1\]. Received: values in \[2, 2\]",
        ),
        (
            {"init_images": IMAGE + 0.5, "known_mask": MASK},
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
