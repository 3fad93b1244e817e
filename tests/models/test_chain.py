"""A chain adds up what its stages say, and is an ordinary model in all else."""

import functools
import math

import keras
import numpy as np
import pytest
import specimens
import tensorflow as tf
from comparisons import EPS, assert_all_equal, one_line, weights_of
from specimens import CHAINS

from pixel_cnn_pp import data, evaluation, models
from pixel_cnn_pp.config import ChainConfig, ModelConfig, PixelCNNConfig

EACH = pytest.mark.parametrize("name", CHAINS)
SMALL = {"nr_filters": 4, "nr_logistic_mix": 2, "receptive_field": "11x5", "dropout_p": 0.0}


def small(shape, **values):
    return ModelConfig(shape, **{**SMALL, **values})


@functools.cache
def with_embedding():
    """A chain whose second stage sees all of a gray picture, and whose first one takes vectors.

    The images have 65536 levels.
    """
    gray = small((4, 4, 1), num_levels=32, likelihood="softmax", condition_shape=(3,))
    embedded = {"embedding_resnet": 1, "embedding_filters": 3, "embedding_resolutions": 1}
    colour = small(
        (4, 4, 3), num_levels=65536, condition_shape=(4, 4, 1), condition_levels=32, **embedded
    )
    return specimens.fresh(ChainConfig((gray, colour), ("gray:32", "image")), dtype="float64")


def inputs_of(model, n=3):
    return specimens.images(model.config, n), specimens.labels(model.config, n)


def parts_of(model, images, condition):
    """The stages of a chain with what each models, by hand."""
    found = []
    for stage in model.stages:
        pictures = stage.view.of(images, model.config.num_levels)
        found.append((stage, pictures, condition))
        condition = pictures
    return found


@EACH
def test_its_log_prob_is_the_sum_over_its_stages(name):
    model = specimens.opinionated(name)
    images, condition = inputs_of(model)
    parts = parts_of(model, images, condition)
    of_stages = [stage.model.log_prob(*part) for stage, *part in parts]
    log_prob = model.log_prob(images, condition)
    np.testing.assert_allclose(log_prob, np.sum(of_stages, axis=0), rtol=1e-14)
    raw_params = model(images, condition)
    for raw, (stage, *part) in zip(raw_params, parts, strict=True):
        np.testing.assert_allclose(raw, stage.model(*part), rtol=1e-12)
    np.testing.assert_allclose(model.loss_of(raw_params, images), -log_prob, rtol=1e-14)
    bits = -log_prob / (math.prod(images.shape[1:]) * math.log(2))
    np.testing.assert_allclose(model.bits_per_dim(images, condition), bits, rtol=1e-14)
    assert model.likelihood.unit == "bits/dim (bound)"
    for found, expected in zip(
        models.stages.pictures(model, images, condition), parts, strict=True
    ):
        assert found[1] is condition if expected[0] is model.stages[0] else True
        np.testing.assert_array_equal(found[0], expected[1])


@EACH
def test_its_pixels_add_up_and_a_smaller_pixel_is_shared_by_those_that_it_stands_for(name):
    model = specimens.opinionated(name)
    images, condition = inputs_of(model)
    of_pixels = model.log_prob(images, condition, reduce="pixel")
    assert of_pixels.shape == images.shape[:3]
    expected = np.zeros(images.shape[:3])
    for stage, *part in parts_of(model, images, condition):
        nats = np.asarray(stage.model.log_prob(*part, reduce="pixel"))
        n = images.shape[1] // nats.shape[1]
        for row, column in np.ndindex(images.shape[1:3]):
            expected[:, row, column] += nats[:, row // n, column // n] / n**2
    np.testing.assert_allclose(of_pixels, expected, rtol=1e-12)
    total = model.log_prob(images, condition)
    np.testing.assert_allclose(np.sum(of_pixels, axis=(1, 2)), total, rtol=1e-12)
    with one_line("`reduce` must be image or pixel for a chain"):
        model.log_prob(images, condition, reduce="channel")


@EACH
def test_scores_do_not_depend_on_the_batch(name):
    model = specimens.opinionated(name)
    images, condition = inputs_of(model, 5)
    expected = model.log_prob(images, condition)
    np.testing.assert_allclose(
        model.log_prob(images, condition, batch_size=2), expected, rtol=1e-12
    )
    own = None if condition is None else condition[3:4]
    np.testing.assert_allclose(model.log_prob(images[3:4], own), expected[3:4], rtol=1e-12)
    # Of the whole set and of each stage, as evaluate.py prints them.
    has_labels = condition is not None
    images_of = data.ImageData(
        images.astype(np.uint8), condition, model.config.num_levels, 3 if has_labels else None
    )
    log_probs = evaluation.compiled_log_probs(model)
    for batch_size in (2, 5):
        batches = data.eval_batches(images_of, batch_size)
        scores = evaluation.score_parts(log_probs, batches, has_labels)
        assert len(scores) == len(model.stages)
        for score, (stage, *part) in zip(scores, parts_of(model, images, condition), strict=True):
            np.testing.assert_allclose(-score.nats, stage.model.log_prob(*part), rtol=1e-12)
            assert score.num_dims == math.prod(images.shape[1:])
        total = sum(score.nats for score in scores)
        np.testing.assert_allclose(-total, expected, rtol=1e-12)


@EACH
def test_a_compiled_function_gives_what_the_eager_call_gives_also_with_unknown_sides(name):
    model = specimens.build(name)
    images, condition = inputs_of(model)
    conditions = () if condition is None else (condition,)
    specs = [tf.TensorSpec([None, None, None, images.shape[-1]], images.dtype)]
    specs += [tf.TensorSpec([None], x.dtype) for x in conditions]

    @tf.function(input_signature=specs, autograph=False)
    def compiled(images, *conditions):
        raw_params = model(images, *conditions)
        return [model.log_prob_parts(raw_params, images, x) for x in ("image", "pixel")]

    log_prob, of_pixels = compiled(images, *conditions)
    expected = model.log_prob(images, *conditions).numpy()
    # Some EPS for each of about 40 layers.
    np.testing.assert_allclose(log_prob, expected, rtol=40 * EPS)
    np.testing.assert_allclose(np.sum(of_pixels, axis=(1, 2)), log_prob, rtol=40 * EPS)
    for dtype in ("int32", "float64"):
        cast = model.log_prob(images.astype(dtype), *conditions)
        assert_all_equal([cast.numpy()], [expected])


@EACH
def test_fit_trains_all_stages_and_reports_the_bound(name):
    model = specimens.fresh(CHAINS[name])
    images, condition = inputs_of(model, 4)
    model.initialize(images, condition)
    before, expected = weights_of(model), model.bits_per_dim(images, condition).numpy().mean()
    model.compile(keras.optimizers.Adamax(0.002), run_eagerly=True)
    # A mean of float32 numbers, see test_keras_model.py.
    found = model.evaluate(images, condition, batch_size=3, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=40 * EPS)
    model.fit(images, condition, epochs=2, verbose=0)
    assert model.bits_per_dim(images, condition).numpy().mean() < expected
    for stage in model.stages:
        names = {weight.path for weight in stage.model.trainable_weights}
        moved = {
            weight.path
            for weight, old in zip(model.weights, before, strict=True)
            if weight.path in names and not np.array_equal(weight, old)
        }
        assert len(moved) > 0.8 * len(names), stage.name


@EACH
def test_its_initialisation_is_that_of_its_stages(name):
    model, alone = specimens.fresh(CHAINS[name]), specimens.fresh(CHAINS[name])
    images, condition = inputs_of(model, 8)
    model.initialize(images, condition, seed=3)
    first, *others = parts_of(alone, images, condition)
    first[0].model.initialize(*first[1:], seed=3)
    assert_all_equal(weights_of(model.stage_models[0]), weights_of(first[0].model))
    for number, (stage, *part) in enumerate(others, start=1):
        stage.model.initialize(*part, seed=0)
        ours = model.stage_models[number]
        if not ours.has_dropout:
            assert_all_equal(weights_of(ours), weights_of(stage.model))


IN_A_FRESH_PROCESS = """
import pathlib, sys
import keras
import numpy as np
import pixel_cnn_pp

for folder in map(pathlib.Path, sys.argv[1:]):
    with np.load(folder / "inputs.npz") as inputs:
        loaded = keras.models.load_model(folder / "model.keras")
        np.save(folder / "log_prob.npy", loaded.log_prob(*inputs.values()))
    print(*(stage.name for stage in loaded.stages))
"""


def test_a_fresh_process_loads_chains_from_their_files(run_python, tmp_path):
    folders, expected = [], []
    for name in CHAINS:
        model = specimens.build(name)
        inputs = [x for x in inputs_of(model) if x is not None]
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        np.savez(folders[-1] / "inputs.npz", *inputs)
        model.save(folders[-1] / "model.keras")
        expected.append(model.log_prob(*inputs).numpy())
    printed = run_python(IN_A_FRESH_PROCESS, *folders)
    assert_all_equal([np.load(folder / "log_prob.npy") for folder in folders], expected)
    names = [" ".join(chain.stage_names) for chain in CHAINS.values()]
    assert printed.splitlines()[-len(names) :] == names


def test_a_compiled_chain_is_made_again_from_its_file_with_its_optimiser(tmp_path):
    name = "every_second_pixel"
    model = specimens.fresh(CHAINS[name], name="a_name", recompute=True)
    images, labels = inputs_of(model)
    model.compile(keras.optimizers.Adamax(0.001), run_eagerly=True)
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.config, loaded.name, loaded.recompute) == (model.config, "a_name", True)
    assert all(stage.recompute for stage in loaded.stage_models)
    assert loaded.optimizer.iterations.numpy() == 1
    twin = specimens.fresh(CHAINS[name])
    model.save_weights(tmp_path / "model.weights.h5")
    twin.load_weights(tmp_path / "model.weights.h5")
    for each in (loaded, twin):
        assert_all_equal([each.log_prob(images, labels).numpy()], [model.log_prob(images, labels)])


@EACH
def test_a_checkpoint_of_tensorflow_keeps_the_weights_of_all_stages(name, tmp_path):
    model, other = specimens.opinionated(name), specimens.fresh(CHAINS[name], dtype="float64")
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_all_equal(weights_of(other), weights_of(model))
    paths = [path for path, _ in tf.train.list_variables(path) if path.startswith("model/")]
    of_stages = {path.split("/")[1].partition(".S")[0] for path in paths}
    assert of_stages >= set(model.config.stage_names)


def test_summary_counts_the_parameters_of_all_stages():
    model = specimens.build("gray_and_colour")
    lines = []
    model.summary(print_fn=lines.append)
    assert f"{sum(stage.model.count_params() for stage in model.stages):,}" in "\n".join(lines)


# Chains of models that a user has


def test_models_of_ones_own_become_a_chain_and_stay_what_they_are():
    first = specimens.fresh(small((4, 4, 3)), recompute=True)
    second = specimens.fresh(small((4, 4, 1), num_levels=8, condition_shape=(4, 4, 3)))
    last = specimens.fresh(small((8, 8, 3), condition_shape=(4, 4, 3)))
    chain = models.Chain([first, last])
    assert chain.config.views == ("mean:2", "image") and chain.recompute
    assert chain.stage_models[0] is first and chain.stages[1].model is last
    images = specimens.images(last.config, 2)
    chain.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    before = weights_of(first)
    chain.fit(images, verbose=0)
    assert not np.array_equal(weights_of(first)[1], before[1])
    colour = specimens.fresh(small((4, 4, 3), condition_shape=(4, 4, 1), condition_levels=8))
    gray = specimens.fresh(small((4, 4, 1), num_levels=8))
    assert models.Chain((gray, colour)).config.views == ("gray:8", "image")
    of_pixels = models.Chain([first, last], views=["every:2", "image"])
    assert of_pixels.config.views == ("every:2", "image")
    for arguments, part in (
        (([first, second, last],), "`views` must be given where they do not follow"),
        (([first],), "`stages` must be a list of at least 2 models, or a ChainConfig. Received: l"),
        ((first,), "`stages` must be a list of at least 2 models, or a ChainConfig. Received: Pix"),
        (([first, last.config],), "no chains. Received: ModelConfig"),
        (([chain, last],), "models of this package that are no chains. Received: Chain"),
        (([last, first],), "`views` must be given where they do not follow from the shapes"),
        (([first, gray],), "`views` must be given where they do not follow from the shapes"),
        (([gray, last],), "`views` must be given where they do not follow from the shapes"),
        (([first, first],), "Received: a stage of (4, 4, 3) before (4, 4, 3)"),
        (([first, last], "mean:2"), "`views` must be a list. Received: views='mean:2'"),
        (([first, last], ["mean:4", "image"]), "A stage must model its view mean:4, of shape (2, "),
        ((chain.config, ["mean:2", "image"]), "`views` must be left out for a ChainConfig"),
    ):
        with one_line(part):
            models.Chain(*arguments)
    with one_line("`dtype` must be left out for models, which have their own. Received: dtype='f"):
        models.Chain([first, last], dtype="float64")
    with one_line("`stages` must have one dtype. Received: float32, float64"):
        models.Chain([first, specimens.fresh(last.config, dtype="float64")])


# What it refuses


def test_wrong_images_and_conditions_are_one_line():
    model = specimens.build("every_second_pixel")
    images, labels = inputs_of(model)
    bad = [
        ((images[:, :5], labels), "multiples of 2 for the view every:2. Received: 5 x 4"),
        ((images[..., :1], labels), "images must have the shape [B, H, W, 2]"),
        ((images + 5, labels), "images must be whole numbers in [0, 4]"),
        ((images / 4, labels), "images must be whole numbers in [0, 4]"),
        ((images, None), "labels must be given: this model is conditioned on 3 classes"),
        ((images, labels + 3), "labels must be whole numbers in [0, 2]"),
        ((images, labels[:2]), "labels must have the shape [B], one for each of the images"),
    ]
    for arguments, part in bad:
        for verb in (model, model.log_prob, model.bits_per_dim, model.initialize):
            with one_line(part):
                verb(*arguments)
    model.compile("sgd")
    for arguments, part in bad:
        with one_line(part):
            model.fit(*arguments, verbose=0)
    one_hot = np.eye(3)[labels]
    assert_all_equal(
        [model.log_prob(images, labels=one_hot).numpy()], [model.log_prob(images, labels).numpy()]
    )
    model = specimens.build("three_sizes")
    with one_line("labels must be None: this model is not class-conditional"):
        model.log_prob(specimens.images(model.config, 3), labels)
    with one_line("Height and width of images must be multiples of 4 for the view mean:4"):
        model.log_prob(np.zeros((1, 8, 6, 1), np.uint8))
    with one_line("multiples of 4 for the view mean:4. Received: None x 6"):
        tf.function(
            model.log_prob,
            autograph=False,
            input_signature=[tf.TensorSpec([None, None, 6, 1], tf.uint8)],
        ).get_concrete_function()


def test_what_only_a_stage_can_answer_is_one_line():
    model = specimens.build("gray_and_colour")
    images, _ = inputs_of(model)
    for call, part in (
        (lambda: model.cached_step, "must be asked of a stage: chain.stages[0].model. Received"),
        (lambda: model.distribution(model(images)), "must be asked of a stage"),
        (lambda: model.level_probabilities(images, 0, 0, 0), "must be asked of a stage"),
    ):
        with one_line(part):
            call()


# Precision, gradients, noise


@EACH
def test_it_computes_in_the_precision_that_it_is_asked_for(name):
    images, condition = inputs_of(specimens.build(name))
    exact = specimens.opinionated(name)
    assert exact.log_prob(images, condition).dtype == tf.float64
    half = specimens.opinionated(name, "mixed_bfloat16")
    assert {stage.compute_dtype for stage in half.stage_models} == {"bfloat16"}
    found = half.log_prob(images, condition)
    assert found.dtype == tf.float32
    # bfloat16 keeps 8 bits, and roundings of about 40 layers add up like a random walk.
    error = found / tf.cast(exact.log_prob(images, condition), tf.float32) - 1
    assert 0 < np.abs(error).max() < math.sqrt(40) * 2**-8


def test_gradients_reach_a_vector_and_the_embedding_network():
    model = with_embedding()
    images, vectors = inputs_of(model)
    model.initialize(images, vectors)
    vectors = tf.constant(vectors, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        loss = tf.reduce_mean(model.bits_per_dim(images, vectors))
    embedded = model.stage_models[1].embedding.trainable_weights
    found = tape.gradient(loss, [vectors, *[weight.value for weight in embedded]])
    assert np.isfinite(loss) and len(embedded) > 10
    assert (np.abs(found[0]) > 0).all()
    for gradient in found[1:]:
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_stages_have_noise_and_dropout_of_their_own():
    first = small((4, 4, 1), num_levels=4, likelihood="dequantized", dropout_p=0.5)
    second = small(
        (4, 4, 1), num_levels=8, likelihood="dequantized", condition_shape=(4, 4, 1),
        condition_levels=4,
    )  # fmt: skip
    last = small((4, 4, 3), condition_shape=(4, 4, 1), condition_levels=8, dropout_p=0.5)
    model = specimens.fresh(ChainConfig((first, second, last), ("gray:4", "gray:8", "image")))
    images, _ = inputs_of(model)
    for seed in ([0, 1], np.array([2**31 - 1, 7]), tf.constant([5, 1], tf.uint32)):
        own, others, none = model.noise(images, seed)
        assert none is None
        own, others = np.asarray(own), np.asarray(others)
        assert own.shape == others.shape and not (own == others).any()
        gray = model.stages[0].view.of(images, 256)
        assert_all_equal([own], [first_noise(model, gray, seed)])
    scored = model.noise(images)
    assert_all_equal([model.noise(images[1:])[1].numpy()], [scored[1][1:].numpy()])
    # Neither do seeds of runs that lie side by side meet.
    drawn = [np.asarray(model.noise(images, [seed, 0])[k]) for seed in range(20) for k in (0, 1)]
    assert len({each.tobytes() for each in drawn}) == 40
    once, again = (model(images, training=True, seed=[3, 4]) for _ in range(2))
    assert_all_equal(once, again)
    other = model(images, training=True, seed=[3, 5])
    changed = [not np.array_equal(*pair) for pair in zip(once, other, strict=True)]
    assert changed == [True, False, True] == [each.has_dropout for each in model.stage_models]
    with one_line("`reduce` must be image or pixel"):
        model.log_prob(images, reduce="channel")
    total = model.log_prob(images)
    of_pixels = model.log_prob(images, reduce="pixel")
    np.testing.assert_allclose(np.sum(of_pixels, axis=(1, 2)), total, rtol=40 * EPS)


def first_noise(model, gray, seed):
    """The noise of the first stage is what it has on its own."""
    return np.asarray(model.stage_models[0].noise(gray, seed))


def test_a_chain_of_a_model_with_classes_alone_takes_them():
    # PixelCNN has other options than PixelCNN++; a chain takes what its first stage takes.
    first = PixelCNNConfig((2, 2, 1), 4, 1, 4, 6, num_classes=2)
    chain = ChainConfig((first, small((4, 4, 1), num_levels=4, condition_shape=(2, 2, 1),
                                      condition_levels=4)), ("mean:2", "image"))  # fmt: skip
    model = specimens.fresh(chain)
    images = specimens.images(chain, 2)
    assert model.is_conditional and chain.num_classes == 2
    assert not np.array_equal(
        model.log_prob(images, np.array([0, 0])), model.log_prob(images, np.array([1, 1]))
    )
