"""Arrays of images -> `tf.data` streams of whole batches, to train on and to score.

An epoch is a walk over the images in an order of its own. What it draws, the order, the crops, the
flips, is a function of the seed, the epoch and the image: never of the batches.
"""

import numpy as np
import tensorflow as tf

from pixel_cnn_pp.data.images import check_whole_number

_MAX_SEED = 2**32 - 1  # The Mersenne twister of `np.random.RandomState` is seeded by 32-bit words.


def epoch_order(num_images, seed, epoch):
    """The order in which an epoch visits the images, a pure function of its arguments.

    Args:
      num_images: N, whole number of at least 1.
      seed: whole number in [0, 2**32 - 1].
      epoch: whole number in [0, 2**32 - 1].
    Returns:
      int64 array [N], a permutation of 0 .. N - 1.
    Raises:
      ValueError: If an argument is not such a number.

    >>> sorted(epoch_order(4, seed=0, epoch=7).tolist())
    [0, 1, 2, 3]
    """
    check_whole_number("num_images", num_images, 1)
    check_whole_number("seed", seed, 0, _MAX_SEED)
    check_whole_number("epoch", epoch, 0, _MAX_SEED)
    # RandomState, because its stream is frozen (NEP 19) where default_rng's may change with NumPy.
    # Both words enter the state whole: neighbouring (seed, epoch) share nothing, unlike their sum.
    return np.random.RandomState([seed, epoch]).permutation(num_images).astype(np.int64)


def train_batches(data, batch_size, seed, epoch, start_image=0, augment="none", worker=(0, 1)):
    """Streams the whole batches of one epoch in the order of `epoch_order`.

    The images that do not fill a batch, less than `batch_size` of them, are left out; every epoch
    leaves out others. There are (N - start_image) // batch_size batches. Images are gathered a
    batch at a time, so that the data may be larger than the memory.

    Crops of `data.uncropped` and flips are functions of seed, epoch and image: they are the same
    for every batch size and number of workers.

    Args:
      data: `ImageData` of at least `batch_size` images.
      batch_size: B of the global batch, over all replicas of all workers.
      seed: whole number in [0, 2**32 - 1].
      epoch: whole number in [0, 2**32 - 1].
      start_image: How many images of the epoch to skip, in [0, N]; batches of whatever size may
        have had them. They are never read, and the rest comes in the order of the whole epoch.
      augment: "none", or "flip" to mirror left and right half of the images.
      worker: Pair of the index of a worker and the number of workers, W: the stream has the part
        of every global batch that is this worker's, B / W neighbouring images of it.
    Returns:
      `tf.data.Dataset` of `(images, labels)`, or of `images` where the data have no labels:
      images [B / W, H, W, C] with the dtype of the data, labels int32 [B / W].
    Raises:
      ValueError: If the images do not fill one batch, or a number is out of its range.

    >>> from pixel_cnn_pp.data import ImageData
    >>> images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    >>> some = ImageData(images, np.zeros(100, np.int32), num_levels=256, num_classes=1)
    >>> images, labels = next(iter(train_batches(some, batch_size=16, seed=0, epoch=0)))
    >>> images.shape.as_list(), labels.shape.as_list()
    ([16, 1, 1, 1], [16])
    """
    check_whole_number("batch_size", batch_size, 1)
    num_images = len(data.images)
    if batch_size > num_images:
        raise ValueError(
            f"`batch_size` must not exceed the number of images, {num_images}. "
            f"Received: batch_size={batch_size}"
        )
    check_whole_number("start_image", start_image, 0, num_images)
    if augment not in ("none", "flip"):
        raise ValueError(f"`augment` must be one of none, flip. Received: augment={augment!r}")
    part = _part_of_batch(batch_size, worker)
    order = epoch_order(num_images, seed, epoch)[start_image:]
    corners = None if data.uncropped is None else _crop_corners(data, seed, epoch)
    is_flipped = _is_flipped(num_images, seed, epoch) if augment == "flip" else None

    def assemble(number):
        rows = order[number * batch_size : (number + 1) * batch_size][part]
        if corners is None:
            images = np.asarray(data.images[rows])
        else:
            height, width = data.images.shape[1:3]
            images = np.stack(
                [data.uncropped.crop(row, *corners[row], height, width) for row in rows]
            )
        if is_flipped is not None:
            flipped = is_flipped[rows]
            images[flipped] = images[flipped, :, ::-1]
        return images, _labels(data, rows)

    specs = _specs(data, part)[:2]
    stream = _stream(len(order) // batch_size, assemble, specs)
    return stream.map(lambda images, labels: images) if data.labels is None else stream


def eval_batches(data, batch_size, worker=(0, 1)):
    """Streams every image exactly once, in order, in batches of one size.

    Args:
      data: `ImageData`.
      batch_size: B of the global batch, over all replicas of all workers.
      worker: Pair of the index of a worker and the number of workers, W: the stream has the part
        of every global batch that is this worker's, B / W neighbouring images of it.
    Returns:
      `tf.data.Dataset` of `(images, labels, mask)`: images [B / W, H, W, C] with the dtype of the
      data; labels int32 [B / W], zeros where the data have none; mask bool [B / W], False on the
      padding that fills the last batch, which repeats the last image.
    Raises:
      ValueError: If `batch_size` is not a whole number of at least 1 that W divides.

    >>> from pixel_cnn_pp.data import ImageData
    >>> images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    >>> some = ImageData(images, labels=None, num_levels=256, num_classes=None)
    >>> sum(int(mask.numpy().sum()) for _, _, mask in eval_batches(some, batch_size=64))
    100
    """
    check_whole_number("batch_size", batch_size, 1)
    part = _part_of_batch(batch_size, worker)
    num_images = len(data.images)
    num_batches = -(-num_images // batch_size)  # Rounded up.

    def assemble(number):
        wanted = np.arange(number * batch_size, (number + 1) * batch_size)[part]
        rows = np.minimum(wanted, num_images - 1)
        return np.asarray(data.images[rows]), _labels(data, rows), wanted < num_images

    return _stream(num_batches, assemble, _specs(data, part))


def _part_of_batch(batch_size, worker):
    """The slice of a global batch that a worker assembles."""
    index, num_workers = worker
    check_whole_number("number of workers", num_workers, 1)
    check_whole_number("index of the worker", index, 0, num_workers - 1)
    if batch_size % num_workers:
        raise ValueError(
            f"`batch_size` must be a multiple of the number of workers, {num_workers}. "
            f"Received: batch_size={batch_size}"
        )
    size = batch_size // num_workers
    return slice(index * size, (index + 1) * size)


# The third word that seeds what an epoch draws beside its order.
_FLIPS, _CROPS = 1, 2


def _is_flipped(num_images, seed, epoch):
    """Which images an epoch mirrors, boolean [N]."""
    return np.random.RandomState([seed, epoch, _FLIPS]).random_sample(num_images) < 0.5


def _crop_corners(data, seed, epoch):
    """The first row and column of the crop of each image in an epoch, int64 [N, 2]."""
    sizes = data.uncropped.sizes
    places = np.random.RandomState([seed, epoch, _CROPS]).random_sample(sizes.shape)
    return (places * (sizes - np.array(data.images.shape[1:3]) + 1)).astype(np.int64)


def _labels(data, rows):
    if data.labels is None:
        return np.zeros(len(rows), np.int32)
    return data.labels[rows].astype(np.int32)


def _specs(data, part):
    """What images, labels and mask of a batch look like."""
    size = part.stop - part.start
    return [
        tf.TensorSpec((size, *data.images.shape[1:]), data.images.dtype),
        tf.TensorSpec((size,), tf.int32),
        tf.TensorSpec((size,), tf.bool),
    ]


def _stream(num_batches, assemble, specs):
    """The batches that `assemble` makes of their numbers, made a little ahead of their use."""

    def call(number):
        found = tf.numpy_function(assemble, [number], [spec.dtype for spec in specs])
        for tensor, spec in zip(found, specs, strict=True):
            tensor.set_shape(spec.shape)
        return tuple(found)

    options = tf.data.Options()
    # With TensorFlow's autotuning, an iterator is destroyed only when the tuner's thread wakes,
    # which it does at intervals that double: each new epoch would wait for seconds.
    options.autotune.enabled = False
    stream = tf.data.Dataset.range(num_batches).map(call).prefetch(2)
    return stream.with_options(options)
