import dataclasses

import numpy as np
import pytest

from pixel_cnn_pp import data
from pixel_cnn_pp.data import store


def numbered_images(num_images, with_labels=True):
    """Images [N, 3, 2, 1] whose every pixel is the image's number, and labels that follow it."""
    numbers = np.arange(num_images)
    images = np.broadcast_to(numbers[:, None, None, None], (num_images, 3, 2, 1)).astype(np.uint8)
    labels = (numbers * 7 % 5).astype(np.int64) if with_labels else None
    return data.ImageData(images, labels, num_levels=256, num_classes=5 if with_labels else None)


def drain(stream):
    """The batches of a stream as a list of tuples of NumPy arrays."""
    return [
        tuple(part.numpy() for part in (batch if isinstance(batch, tuple) else (batch,)))
        for batch in stream
    ]


def visited(batches):
    """The numbers of the images in the order in which they came."""
    return np.concatenate([batch[0][:, 0, 0, 0] for batch in batches])


def test_an_epoch_order_is_a_permutation():
    order = data.epoch_order(1000, seed=3, epoch=5)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))


def test_the_epoch_order_never_changes():
    # Recorded with NumPy 2.2.6. Another order would break the resuming of a run in mid-epoch.
    assert data.epoch_order(10, seed=0, epoch=0).tolist() == [3, 7, 6, 4, 1, 0, 2, 8, 5, 9]
    assert data.epoch_order(10, seed=0, epoch=1).tolist() == [9, 4, 0, 8, 1, 5, 3, 2, 6, 7]
    assert data.epoch_order(10, seed=1, epoch=0).tolist() == [2, 9, 8, 3, 6, 7, 1, 4, 0, 5]
    assert data.epoch_order(1000, seed=3, epoch=5)[:5].tolist() == [566, 626, 643, 282, 283]


def test_neighbouring_seeds_and_epochs_have_other_orders():
    pairs = [(seed, epoch) for seed in range(12) for epoch in range(12)]
    assert len({data.epoch_order(50, *pair).tobytes() for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_images": 0}, r"`num_images` .*at least 1. Received: num_images=0"),
        ({"seed": -1}, r"`seed` .*\[0, 4294967295\]. Received: seed=-1"),
        ({"seed": 2**32}, r"`seed` .*Received: seed=4294967296"),
        ({"epoch": 1.0}, r"`epoch` must be a whole number .*Received: epoch=1.0"),
        ({"epoch": True}, r"`epoch` must be a whole number .*Received: epoch=True"),
    ],
)
def test_the_epoch_order_refuses_what_is_no_seed(change, message):
    with pytest.raises(ValueError, match=message):
        data.epoch_order(**({"num_images": 4, "seed": 0, "epoch": 0} | change))


def test_training_follows_the_epoch_order_in_whole_batches():
    stream = data.train_batches(numbered_images(11), batch_size=4, seed=3, epoch=2)
    assert int(stream.cardinality()) == 2
    np.testing.assert_array_equal(visited(drain(stream)), data.epoch_order(11, 3, 2)[:8])


def test_training_batches_have_static_shapes_and_the_dtypes_of_images_and_labels():
    images, labels = data.train_batches(numbered_images(11), 4, seed=0, epoch=0).element_spec
    assert (images.shape, images.dtype) == ((4, 3, 2, 1), "uint8")
    assert (labels.shape, labels.dtype) == ((4,), "int32")


def test_labels_travel_with_their_images():
    numbered = numbered_images(11)
    streams = (data.train_batches(numbered, 4, seed=1, epoch=0), data.eval_batches(numbered, 4))
    for stream in streams:
        for images, labels, *_ in drain(stream):
            np.testing.assert_array_equal(labels, numbered.labels[images[:, 0, 0, 0]])


def test_training_without_labels_gives_images_alone():
    stream = data.train_batches(numbered_images(6, with_labels=False), 4, seed=0, epoch=0)
    assert stream.element_spec.shape == (4, 3, 2, 1)
    np.testing.assert_array_equal(visited(drain(stream)), data.epoch_order(6, 0, 0)[:4])


@pytest.mark.parametrize("start_image", [0, 4, 8, 12, 14])
def test_a_resumed_epoch_is_the_tail_of_the_uninterrupted_one(start_image):
    numbered = numbered_images(14)
    whole = drain(data.train_batches(numbered, 4, seed=5, epoch=1))
    rest = drain(data.train_batches(numbered, 4, seed=5, epoch=1, start_image=start_image))
    for expected, found in zip(whole[start_image // 4 :], rest, strict=True):
        for expected_part, found_part in zip(expected, found, strict=True):
            np.testing.assert_array_equal(found_part, expected_part)


@pytest.mark.parametrize(("batch_size", "num_batches"), [(2, 4), (3, 3), (8, 1), (9, 1), (10, 0)])
def test_an_epoch_goes_on_in_batches_of_another_size_where_it_stood(batch_size, num_batches):
    batches = drain(data.train_batches(numbered_images(14), batch_size, 5, 1, start_image=5))
    assert [len(images) for images, _ in batches] == [batch_size] * num_batches
    if batches:
        expected = data.epoch_order(14, 5, 1)[5:][: batch_size * num_batches]
        np.testing.assert_array_equal(visited(batches), expected)


def test_no_image_is_left_out_of_every_epoch():
    epochs = [data.train_batches(numbered_images(7), 4, seed=0, epoch=epoch) for epoch in range(12)]
    assert set(np.concatenate([visited(drain(stream)) for stream in epochs])) == set(range(7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 12}, r"`batch_size` must not exceed .* 11. Received: batch_size=12"),
        ({"batch_size": 0}, r"`batch_size` .*at least 1. Received: batch_size=0"),
        ({"start_image": 12}, r"`start_image` .*\[0, 11\]. Received: start_image=12"),
        ({"start_image": -1}, r"`start_image` .*\[0, 11\]. Received: start_image=-1"),
        ({"seed": None}, r"`seed` .*whole number.*Received: seed=None"),
        ({"augment": "turn"}, r"`augment` must be one of none, flip. Received: augment='turn'"),
    ],
)
def test_training_refuses_batches_that_do_not_exist(change, message):
    arguments = {"batch_size": 4, "seed": 0, "epoch": 0} | change
    with pytest.raises(ValueError, match=message):
        data.train_batches(numbered_images(11), **arguments)


def noise(num_images, height=5, width=4, num_levels=256):
    """Images [N, H, W, 1] of which none is like another, nor like its mirror image."""
    shape = (num_images, height, width, 1)
    images = np.random.default_rng(0).integers(0, num_levels, shape, np.uint8)
    return data.ImageData(images, None, num_levels, None)


def flips(stream, images, order):
    """Which images come mirrored, by the numbers of the images; fails where one is otherwise."""
    found = {}
    arrived = np.concatenate([batch for (batch,) in drain(stream)])
    for row, image in zip(order, arrived, strict=False):
        is_flipped = np.array_equal(image, images[row, :, ::-1])
        assert is_flipped or np.array_equal(image, images[row])
        found[row] = is_flipped
    return found


def test_half_of_the_images_are_mirrored_whatever_the_batches_are():
    some = noise(600)
    order = data.epoch_order(600, 3, 1)
    found = flips(data.train_batches(some, 100, 3, 1, augment="flip"), some.images, order)
    # Five standard deviations of 600 fair coins are 61.
    assert 239 <= sum(found.values()) <= 361
    again = flips(data.train_batches(some, 7, 3, 1, augment="flip"), some.images, order)
    assert again.items() <= found.items()
    resumed = data.train_batches(some, 100, 3, 1, start_image=400, augment="flip")
    assert flips(resumed, some.images, order[400:]).items() <= found.items()
    order = data.epoch_order(600, 3, 2)
    other = flips(data.train_batches(some, 100, 3, 2, augment="flip"), some.images, order)
    assert 239 <= sum(found[row] == other[row] for row in range(600)) <= 361


def test_images_are_not_changed_where_they_lie():
    some = noise(40)
    before = some.images.copy()
    drain(data.train_batches(some, 40, 0, 0, augment="flip"))
    np.testing.assert_array_equal(some.images, before)
    assert flips(data.train_batches(some, 40, 0, 0), before, data.epoch_order(40, 0, 0)) == (
        dict.fromkeys(range(40), False)
    )


def many_sizes(num_images):
    """Images whose pixels are their own rows and columns, 16 * row + column, of many sizes."""
    sizes = np.stack([4 + np.arange(num_images) % 7, 8 + np.arange(num_images) % 3], axis=-1)
    places = [16 * np.arange(height)[:, None] + np.arange(width) for height, width in sizes]
    values = np.concatenate([place.ravel() for place in places]).astype(np.uint8)
    uncropped = store.UncroppedImages(values, sizes, num_channels=1, num_kept=1)
    centres = [place[(len(place) - 4) // 2 :][:4, :8, None] for place in places]
    return data.ImageData(np.array(centres, np.uint8), None, 256, None, uncropped), sizes


def crop_corners(stream, order):
    """{number of the image: first row and column of its crop}; fails where it is no crop."""
    arrived = np.concatenate([batch for (batch,) in drain(stream)])
    place = 16 * np.arange(4)[:, None] + np.arange(8)
    np.testing.assert_array_equal(arrived[..., 0] - arrived[:, :1, :1, 0], [place] * len(arrived))
    corners = arrived[:, 0, 0, 0]
    return {
        row: (corner // 16, corner % 16)
        for row, corner in zip(order.tolist(), corners.tolist(), strict=False)
    }


def test_every_epoch_crops_anew_whatever_the_batches_are():
    some, sizes = many_sizes(700)
    found = crop_corners(data.train_batches(some, 100, 5, 0), data.epoch_order(700, 5, 0))
    again = crop_corners(data.train_batches(some, 9, 5, 0), data.epoch_order(700, 5, 0))
    assert again.items() <= found.items()
    other = crop_corners(data.train_batches(some, 100, 5, 1), data.epoch_order(700, 5, 1))
    assert other != found
    # Every corner that fits is taken, and no other: 100 images of 10 rows have 7, of 4 rows one.
    for height in range(4, 11):
        tops = {top for row, (top, _) in found.items() if sizes[row, 0] == height}
        assert tops == set(range(height - 4 + 1))
    for width in range(8, 11):
        lefts = {left for row, (_, left) in found.items() if sizes[row, 1] == width}
        assert lefts == set(range(width - 8 + 1))
    # A test image is its centre, always.
    (centres, _, _), *_ = drain(data.eval_batches(some, 700))
    np.testing.assert_array_equal(centres, some.images)


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_parts_of_all_workers_are_the_global_batches(num_workers):
    some, _ = many_sizes(50)
    some = dataclasses.replace(some, labels=np.arange(50) % 5, num_classes=5)
    whole = {
        "train": data.train_batches(some, 12, 3, 1, start_image=12, augment="flip"),
        "eval": data.eval_batches(some, 12),
    }
    parts = {
        "train": lambda worker: data.train_batches(
            some, 12, 3, 1, start_image=12, augment="flip", worker=worker
        ),
        "eval": lambda worker: data.eval_batches(some, 12, worker=worker),
    }
    for kind, stream in whole.items():
        by_worker = [drain(parts[kind]((index, num_workers))) for index in range(num_workers)]
        for expected, found in zip(drain(stream), zip(*by_worker, strict=True), strict=True):
            assert {len(part[0]) for part in found} == {12 // num_workers}
            for field, expected_field in enumerate(expected):
                joined = np.concatenate([part[field] for part in found])
                np.testing.assert_array_equal(joined, expected_field, strict=True)


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        ((0, 3), "`batch_size` must be a multiple of the number of workers, 3. .*batch_size=4"),
        ((2, 2), r"`index of the worker` must be a whole number in \[0, 1\]. Received: .*=2"),
        ((0, 0), "`number of workers` must be a whole number of at least 1. Received: .*=0"),
    ],
)
def test_workers_that_do_not_exist_are_refused(worker, message):
    with pytest.raises(ValueError, match=message):
        data.train_batches(numbered_images(11), 4, seed=0, epoch=0, worker=worker)
    with pytest.raises(ValueError, match=message):
        data.eval_batches(numbered_images(11), 4, worker=worker)


def test_batches_come_from_disk_as_from_memory(tmp_path):
    some = noise(30)
    np.save(tmp_path / "images.npy", np.repeat(some.images, 4, axis=-1))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")[..., :1]  # as without its alpha
    on_disk = dataclasses.replace(some, images=mapped)
    for stream, expected in (
        (data.train_batches(on_disk, 7, 0, 0), data.train_batches(some, 7, 0, 0)),
        (data.eval_batches(on_disk, 7), data.eval_batches(some, 7)),
    ):
        for found_batch, expected_batch in zip(drain(stream), drain(expected), strict=True):
            for found, wanted in zip(found_batch, expected_batch, strict=True):
                np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize(("batch_size", "num_batches"), [(1, 11), (4, 3), (11, 1), (16, 1)])
def test_evaluation_sees_every_image_once_in_order(batch_size, num_batches):
    numbered = numbered_images(11)
    stream = data.eval_batches(numbered, batch_size)
    assert stream.element_spec[0].shape == (batch_size, 3, 2, 1)
    images, labels, mask = (np.concatenate(parts) for parts in zip(*drain(stream), strict=True))
    assert len(images) == num_batches * batch_size
    assert mask.dtype == bool
    np.testing.assert_array_equal(images[mask], numbered.images)
    np.testing.assert_array_equal(labels[mask], numbered.labels)


def test_padding_comes_last_and_is_masked():
    *_, (images, _, mask) = drain(data.eval_batches(numbered_images(10), 4))
    np.testing.assert_array_equal(mask, [True, True, False, False])
    np.testing.assert_array_equal(images[:, 0, 0, 0], [8, 9, 9, 9])


def test_evaluation_without_labels_gives_zeros():
    for _, labels, _ in drain(data.eval_batches(numbered_images(5, with_labels=False), 4)):
        np.testing.assert_array_equal(labels, np.zeros(4, np.int32), strict=True)


def test_evaluation_refuses_an_empty_batch():
    with pytest.raises(ValueError, match=r"`batch_size` .*at least 1. Received: batch_size=0"):
        data.eval_batches(numbered_images(5), 0)


def test_more_than_256_levels_travel_unharmed():
    images = np.arange(300 * 2, dtype=np.uint16).reshape(300, 1, 2, 1)
    many_levels = data.ImageData(images, labels=None, num_levels=600, num_classes=None)
    ((found, _, _),) = drain(data.eval_batches(many_levels, 300))
    np.testing.assert_array_equal(found, images, strict=True)
