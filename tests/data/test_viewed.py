"""A stage of a chain sees views of the very images that whole models see."""

import dataclasses

import numpy as np
import pytest
from comparisons import one_line

from pixel_cnn_pp import config, data, views
from pixel_cnn_pp.data import store


def some_images(num_images=11, shape=(4, 8, 3), num_levels=256, dtype=np.uint8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, num_levels, (num_images, *shape)).astype(dtype)
    labels = (np.arange(num_images) * 7 % 5).astype(np.int64)
    return data.ImageData(images, labels, num_levels, 5, class_names=tuple("abcde"))


def uncropped_images(num_images=30):
    """Images of several sizes, of which training cuts out 4 x 8 pixels."""
    rng = np.random.default_rng(1)
    sizes = np.stack([4 + np.arange(num_images) % 3, 8 + np.arange(num_images) % 4], axis=-1)
    whole = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    values = np.concatenate([image.ravel() for image in whole])
    uncropped = store.UncroppedImages(values, sizes, num_channels=3, num_kept=3)
    centres = np.stack([image[:4, :8] for image in whole])
    return data.ImageData(centres, None, 256, None, uncropped)


def drain(stream):
    return [[part.numpy() for part in (x if isinstance(x, tuple) else (x,))] for x in stream]


def streams(kind, images, **changes):
    """The batches of whole images and those of a stage, whatever the order and the flips are."""
    if kind == "eval":
        return data.eval_batches(images, 4)
    augment = "none" if kind == "order" else "flip"
    return data.train_batches(images, 4, seed=3, epoch=2, augment=augment, **changes)


@pytest.mark.parametrize("kind", ["order", "flip", "eval"])
@pytest.mark.parametrize("make", [some_images, uncropped_images])
def test_batches_are_views_of_the_batches_of_whole_images(make, kind):
    source = make()
    for view, condition_view in (("mean:2", "mean:4"), ("image", "gray:16"), (None, "every:2")):
        own, condition = views.parse(view or "image"), views.parse(condition_view)
        viewed = data.ViewedData(source, view, condition_view)
        whole, found = drain(streams(kind, source)), drain(streams(kind, viewed))
        assert len(whole) == len(found) > 0
        for (images, *rest), (pictures, conditions, *mask) in zip(whole, found, strict=True):
            np.testing.assert_array_equal(pictures, own.of(images, 256), strict=True)
            np.testing.assert_array_equal(conditions, condition.of(images, 256))
            assert conditions.dtype == np.int32
            if kind == "eval":
                np.testing.assert_array_equal(mask[0], rest[-1])


def test_flips_and_crops_come_before_the_views():
    # Means of mirrored images are mirrored means; every second pixel of them is another one.
    source = some_images(40)
    viewed = data.ViewedData(source, "every:2")
    ((images, _),) = drain(data.train_batches(viewed, 40, 0, 0, augment="flip"))
    order = data.epoch_order(40, 0, 0)
    is_plain = (images == source.images[order][:, ::2, ::2]).all(axis=(1, 2, 3))
    mirrored = source.images[order][:, :, ::-1][:, ::2, ::2]
    is_mirrored = (images == mirrored).all(axis=(1, 2, 3))
    assert (is_plain ^ is_mirrored).all() and 8 <= is_mirrored.sum() <= 32
    crops = uncropped_images()
    first, other = (
        drain(data.train_batches(data.ViewedData(crops, "mean:2"), 30, 0, epoch))[0][0]
        for epoch in (0, 1)
    )
    back = [np.argsort(data.epoch_order(30, 0, epoch)) for epoch in (0, 1)]
    assert (first[back[0]] != other[back[1]]).any(), "another crop in every epoch"


def test_a_first_stage_keeps_the_labels_and_has_none_where_there_are_none():
    source = some_images()
    viewed = data.ViewedData(source, "gray:16")
    assert (viewed.num_levels, viewed.num_classes, viewed.condition_levels) == (16, 5, None)
    assert viewed.class_names == tuple("abcde")
    (images, labels, mask), *_ = drain(data.eval_batches(viewed, 11))
    np.testing.assert_array_equal(labels, source.labels)
    np.testing.assert_array_equal(images, views.parse("gray:16").of(source.images, 256))
    assert mask.all()
    ((_, labels),) = drain(data.train_batches(viewed, 11, 1, 0))
    np.testing.assert_array_equal(labels, source.labels[data.epoch_order(11, 1, 0)])
    unlabelled = dataclasses.replace(source, labels=None, num_classes=None)
    viewed = data.ViewedData(unlabelled, "mean:2")
    assert data.train_batches(viewed, 4, 0, 0).element_spec.shape == (4, 2, 4, 3)
    ((_, zeros, _),) = drain(data.eval_batches(viewed, 11))
    np.testing.assert_array_equal(zeros, np.zeros(11, np.int32), strict=True)


def test_a_stage_with_a_picture_has_no_classes():
    viewed = data.ViewedData(some_images(num_levels=20), "image", "gray:4")
    assert (viewed.num_levels, viewed.num_classes, viewed.condition_levels) == (20, None, 4)
    assert viewed.labels.shape == (11, 4, 8, 1)


def test_views_are_read_as_an_array_is():
    source = some_images(num_levels=1000, dtype=np.uint16)
    viewed = data.ViewedData(source, "mean:2", "gray:16")
    for found, name in ((viewed.images, "mean:2"), (viewed.labels, "gray:16")):
        expected = views.parse(name).of(source.images, 1000)
        assert (found.shape, found.dtype, len(found)) == (expected.shape, expected.dtype, 11)
        for rows in (slice(2, 5), slice(None), np.array([4, 0, 4]), 3):
            np.testing.assert_array_equal(found[rows], expected[rows], strict=True)
        np.testing.assert_array_equal(np.asarray(found), expected, strict=True)
        assert np.asarray(found, np.float32).dtype == np.float32
    assert (viewed.images.dtype, viewed.labels.dtype) == (np.uint16, np.uint8)


def test_workers_share_a_batch_and_a_resumed_epoch_goes_on():
    viewed = data.ViewedData(uncropped_images(), "image", "mean:2")
    whole = drain(streams("flip", viewed))
    parts = [drain(streams("flip", viewed, worker=(index, 2))) for index in (0, 1)]
    for expected, *found in zip(whole, *parts, strict=True):
        for part, *halves in zip(expected, *found, strict=True):
            np.testing.assert_array_equal(np.concatenate(halves), part)
    for expected, found in zip(
        whole[2:], drain(streams("flip", viewed, start_image=8)), strict=True
    ):
        for part, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(part, other)


def test_a_run_names_its_views():
    whole = data.load_split(config.DataConfig("photos", image_size=8), "test")
    assert isinstance(whole, data.ImageData)
    for view, condition_view in (("mean:2", None), ("image", "gray:16"), (None, "mean:4")):
        settings = config.DataConfig(
            "photos", image_size=8, view=view, condition_view=condition_view
        )
        found = data.load_split(settings, "test")
        expected = views.parse(view or "image").of(whole.images, 256)
        np.testing.assert_array_equal(found.images[:], expected)
        if condition_view is None:
            np.testing.assert_array_equal(found.labels, whole.labels)
        else:
            expected = views.parse(condition_view).of(whole.images, 256)
            np.testing.assert_array_equal(found.labels[:], expected)


def test_what_has_no_such_view_is_refused_in_one_line():
    for source, view, condition_view, part in (
        (some_images(), "gray:2000", None, "A view must be image, gray:G"),
        (some_images(), "image", "mean", "A view must be image, gray:G"),
        (some_images(shape=(4, 6, 3)), "mean:4", None, "multiples of 4 for the view mean:4"),
        (some_images(shape=(4, 6, 1)), "image", "gray:16", "3 channels for the view gray:16"),
        (some_images(num_levels=8), "gray:16", None, "must have 16 to 134217 levels"),
    ):
        with one_line(part):
            data.ViewedData(source, view, condition_view)
    with one_line("A view must be image, gray:G"):
        config.DataConfig("digits", view="half")
    with one_line("A view must be image, gray:G"):
        config.DataConfig("digits", condition_view="mean:1")
    with one_line("multiples of 3 for the view mean:3. Received: 8 x 8"):
        data.load_split(config.DataConfig("digits", view="mean:3"), "test")


def test_whole_images_go_through_as_they_are():
    source = some_images()
    assert source.source is source
    images, labels = source.of_batch(source.images[2:4], np.array([2, 3]))
    np.testing.assert_array_equal(images, source.images[2:4])
    np.testing.assert_array_equal(labels, source.labels[2:4])
    unlabelled = dataclasses.replace(source, labels=None, num_classes=None)
    assert unlabelled.of_batch(source.images[:1], np.array([0]))[1] is None
