"""How images are drawn: compiled functions, batches, noise, and what a call costs."""

import gc
import weakref

import numpy as np
import pytest
import specimens
from keras import ops

from pixel_cnn_pp import sampling
from pixel_cnn_pp.sampling import draw, noise


def test_cached_and_naive_agree_on_images_of_another_size():
    for name, shape in (("small_nin", (12, 8, 1)), ("pixel_cnn", (7, 3, 3))):
        model = specimens.opinionated(name)
        labels = specimens.labels(specimens.with_sides(model.config, *shape[:2]), 2)
        cached, naive = (
            sampling.sample(model, 2, labels, seed=1, method=method, image_shape=shape)
            for method in ("cached", "naive")
        )
        assert cached.shape == (2, *shape)
        np.testing.assert_array_equal(cached, naive)


def test_in_float32_rounding_changes_less_than_one_draw_in_a_thousand():
    model = specimens.opinionated("one_component", "float32")
    labels = specimens.labels(model.config, 16)
    cached, naive = (
        sampling.sample(model, 16, labels, seed=4, method=method).reshape(16, -1)
        for method in ("cached", "naive")
    )
    # After its first difference an image is another one: count the draws up to there.
    differs = cached != naive
    first = np.where(differs.any(axis=1), differs.argmax(axis=1) + 1, cached.shape[1])
    assert differs.any(axis=1).sum() < 1e-3 * first.sum()


@pytest.fixture
def traces(monkeypatch):
    """The names of the functions that were traced, in order."""
    names = []
    compile_function = draw.compile_function

    def compile_and_note(function, *arguments):
        def traced(*arguments):
            names.append(function.__name__)
            return function(*arguments)

        return compile_function(traced, *arguments)

    monkeypatch.setattr(draw, "compile_function", compile_and_note)
    as_in_a_new_process(monkeypatch)
    return names


def as_in_a_new_process(monkeypatch):
    for name in ("_SHARED", "_USED", "_LAST_USED"):
        monkeypatch.setattr(draw, name, type(getattr(draw, name))())


def test_it_compiles_once_for_a_shape_whatever_the_values(traces):
    config = specimens.SPECIMENS["one_component"]
    model = specimens.fresh(config)
    images = specimens.images(config, 4)
    known_mask = np.zeros((4, 8, 12), bool)
    sampling.sample(model, 4, [0, 1, 2, 0])
    assert sorted(traces) == ["draw_row", "draw_rows", "embed"]
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
    # One call computes the weights in less time than it takes to compile that.
    assert traces[3:] == ["prepare"]
    # More rows are more rounds of a loop, around the same step.
    sampling.sample(model, 4, [2, 1, 1, 0], image_shape=(16, 12, 1))
    assert traces[4:] == ["draw_rows"]
    # And the changed weights were those that it drew with.
    naive = sampling.sample(model, 4, [2, 1, 1, 0], method="naive")
    assert (before == naive).mean() > 0.9


def test_models_of_one_configuration_share_what_is_compiled_and_it_is_freed_with_the_last(traces):
    config = specimens.SPECIMENS["pixel_cnn_binary"]
    models, drawn = [], []
    for seed in (1, 2):
        model = specimens.fresh(config)
        rng = np.random.default_rng(seed)
        for weight in model.trainable_variables:
            weight.assign(rng.normal(size=weight.shape))
        drawn.append(sampling.sample(model, 2))
        np.testing.assert_array_equal(drawn[-1], sampling.sample(model, 2, method="naive"))
        models.append(model)
    assert sorted(traces) == ["draw_row", "draw_rows"]
    assert not np.array_equal(drawn[0], drawn[1])
    # Of another dtype it is another function.
    models.append(specimens.fresh(config, dtype="float64"))
    sampling.sample(models[-1], 2)
    assert traces[2:] == ["draw_rows", "draw_row"]
    of_float32 = next(iter(draw._SHARED.values()))
    kept = [weakref.ref(x) for model in models for x in (model, *model.trainable_variables)]
    kept += [weakref.ref(functions) for functions in draw._SHARED.values()]
    kept.append(weakref.ref(of_float32._draw_rows))
    # A model that is left keeps the functions, and draws with them.
    del models[0], models[1], model, weight
    gc.collect()
    assert list(draw._SHARED.values()) == [of_float32]
    np.testing.assert_array_equal(sampling.sample(models[0], 2), drawn[1])
    assert traces[4:] == ["prepare"]
    del models[0], of_float32
    gc.collect()
    assert [found for found in kept if found() is not None] == []
    assert len(draw._SHARED) == 0


def test_few_sizes_of_batches_are_compiled_and_a_bounded_number_of_functions_is_kept(
    monkeypatch,
):
    as_in_a_new_process(monkeypatch)
    model = specimens.fresh(specimens.SPECIMENS["relu"])
    for num_workers in (1, 2, 16):
        sizes = [draw.batch_size_of(number, num_workers) for number in range(1, 2000)]
        assert len(set(sizes)) <= 11
        for number, size in enumerate(sizes, start=1):
            # At most twice as many as there are for a worker, and 64 from there on.
            share = -(-number // num_workers)
            assert size == 64 or share <= size < max(2 * share, 2)
    for width in range(4, 4 * 50, 4):
        for _ in range(2):
            draw._shared_functions(model, True, 1, width)
    gc.collect()
    assert len(draw._SHARED) == draw._MOST_COMPILED
    widths = {key[-1][-1] for key in draw._SHARED}
    assert widths == set(range(200 - 4 * draw._MOST_COMPILED, 200, 4))


def test_an_image_does_not_depend_on_how_many_are_drawn_nor_on_the_batches(monkeypatch):
    model = specimens.opinionated("four_channels")
    pictures = specimens.labels(model.config, 7)
    seven = sampling.sample(model, 7, pictures, seed=9)
    np.testing.assert_array_equal(sampling.sample(model, 3, pictures[:3], seed=9), seven[:3])
    monkeypatch.setattr(draw, "_MAX_BATCH_SIZE", 2)
    for num_workers in (1, 3):
        monkeypatch.setattr(draw, "num_workers", lambda n=num_workers: n)
        np.testing.assert_array_equal(sampling.sample(model, 7, pictures, seed=9), seven)


def test_the_noise_of_an_image_is_the_same_in_every_batch():
    def uniforms(first_image, num_images, row=3, seed=5):
        return np.asarray(
            noise.row_uniforms(seed, row, first_image, num_images, 4, 2, most_images=num_images)
        )

    whole = uniforms(0, 200)
    assert whole.shape == (4, 200, 2) and whole.min() > 0 and whole.max() < 1
    assert len(np.unique(whole)) > 0.999 * whole.size
    for first_image, num_images in ((0, 1), (63, 2), (64, 64), (100, 64), (199, 1)):
        part = uniforms(first_image, num_images)
        np.testing.assert_array_equal(part, whole[:, first_image : first_image + num_images])
    for other in (
        uniforms(0, 200, row=4),
        uniforms(0, 200, seed=6),
        uniforms(0, 200, seed=5 - 2**31),
    ):
        assert (other == whole).mean() < 0.01


@pytest.mark.parametrize("num_workers", [1, 3])
def test_an_export_draws_the_batches_that_a_call_draws(monkeypatch, num_workers):
    monkeypatch.setattr(draw, "num_workers", lambda: num_workers)
    monkeypatch.setattr(draw, "_MAX_BATCH_SIZE", 4)
    batches = []

    def make_draw_rows(model, compile_step):
        def draw_rows(weights, state, images, known_mask, labels, controls, seed, first, *rows):
            batches.append((int(first), images.shape[2]))
            return state, images + 1

        return draw_rows

    monkeypatch.setattr(draw, "make_draw_rows", make_draw_rows)
    model = specimens.build("relu")
    draw_images = sampling.make_draw_images(model, None)
    for num_images in (1, 2, 3, 6, 9):
        images = ops.zeros((num_images, *model.config.image_shape), "uint8")
        batches.clear()
        drawn = draw_images(images, ops.zeros(images.shape[:3], "bool"), None, 0, None)
        share = -(-num_images // num_workers)
        batch_size = 1 if share == 1 else 2 if share == 2 else 4
        num_drawn = max(num_images, batch_size)
        starts = [min(i, num_drawn - batch_size) for i in range(0, num_drawn, batch_size)]
        assert batches == [(start, batch_size) for start in starts]
        assert drawn.shape == images.shape and (np.asarray(drawn) == 1).all()


@pytest.mark.parametrize("method", sampling.METHODS)
def test_progress_goes_up_to_all_rows_of_all_images(method):
    model = specimens.opinionated("pixel_cnn_binary")
    for height in (12, 5):  # a multiple of the rows between two reports, and none
        reports = []
        sampling.sample(
            model,
            5,
            method=method,
            image_shape=(height, 4, 1),
            progress=lambda *report, reports=reports: reports.append(report),
        )
        done, totals = zip(*reports, strict=True)
        assert set(totals) == {5 * height} and done[-1] == 5 * height
        assert list(done) == sorted(done) and len(set(done)) >= 2


@pytest.mark.parametrize(("dtype", "expected"), [("float32", True), ("mixed_bfloat16", False)])
def test_xla_draws_where_it_is_faster(dtype, expected):
    assert (
        draw.prefers_xla(specimens.fresh(specimens.TINY["pixel_cnn_pp"], dtype=dtype)) == expected
    )
