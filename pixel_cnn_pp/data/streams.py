"""Streams arrays of images as `tf.data` batches, for training and for evaluation.

Every epoch visits the images in another random order. The order, the crops and the flips depend
only on the seed, the epoch and the image. They do not depend on the batches.
"""

import numpy as np
import tensorflow as tf

from pixel_cnn_pp.data.images import check_whole_number

_MAX_SEED = 2**32 - 1  # The Mersenne twister of `np.random.RandomState` is seeded by 32-bit words.


def epoch_order(num_images, seed, epoch):
    """The order in which an epoch visits the images. The same arguments give the same order.

    Args:
      num_images: N, whole number of at least 1.
      seed: Whole number in [0, 2**32 - 1].
      epoch: Whole number in [0, 2**32 - 1].
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
    # The stream of RandomState never changes (NEP 19). That of default_rng may change with a new
    # version of NumPy. Seed and epoch are two words, because their sum would be equal for
    # neighbouring pairs.
    return np.random.RandomState([seed, epoch]).permutation(num_images).astype(np.int64)


def train_batches(data, batch_size, seed, epoch, start_image=0, augment="none", worker=(0, 1)):
    """Streams the batches of one epoch in the order of `epoch_order`. All batches are full.

    There are (N - start_image) // batch_size batches. The last images of the order, which do not
    fill a batch, are left out. Another epoch leaves out other images. Images are read one batch at
    a time, so that the data may be larger than the memory.

    The crops of `data.uncropped` and the flips depend only on the seed, the epoch and the image.
    They are the same for every batch size and every number of workers.

    Args:
      data: `ImageData` or `ViewedData` of at least `batch_size` images.
      batch_size: B of the global batch, over all replicas of all workers.
      seed: Whole number in [0, 2**32 - 1].
      epoch: Whole number in [0, 2**32 - 1].
      start_image: Number of images to skip at the start of the epoch, in [0, N]. A resumed run
        skips the images that are already done, whatever the size of their batches was. Skipped
        images are not read, and the order of the others does not change.
      augment: "none", or "flip" to mirror a random half of the images from left to right.
      worker: Pair (index of this worker, number of workers V). Of every global batch, the stream
        contains the B / V neighbouring images that belong to this worker.
    Returns:
      `tf.data.Dataset` of `(images, labels)`, or of `images` if the data have no labels: images
      [B / V, H, W, C] with the dtype of the data, labels int32 [B / V], or pictures int32
      [B / V, h, w, c] where the data have those.
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
    source = data.source
    corners = None if source.uncropped is None else _crop_corners(source, seed, epoch)
    is_flipped = _is_flipped(num_images, seed, epoch) if augment == "flip" else None

    def assemble(number):
        rows = order[number * batch_size : (number + 1) * batch_size][part]
        if corners is None:
            images = np.asarray(source.images[rows])
        else:
            height, width = source.images.shape[1:3]
            images = np.stack(
                [source.uncropped.crop(row, *corners[row], height, width) for row in rows]
            )
        if is_flipped is not None:
            flipped = is_flipped[rows]
            images[flipped] = images[flipped, :, ::-1]
        return _seen(data, images, rows)

    specs = _specs(data, part)[:2]
    stream = _stream(len(order) // batch_size, assemble, specs)
    return stream.map(lambda images, labels: images) if data.labels is None else stream


def eval_batches(data, batch_size, worker=(0, 1)):
    """Streams every image exactly once, in order. All batches have the same size.

    The last batch is padded with copies of the last image.

    Args:
      data: `ImageData` or `ViewedData`.
      batch_size: B of the global batch, over all replicas of all workers.
      worker: Pair (index of this worker, number of workers V). Of every global batch, the stream
        contains the B / V neighbouring images that belong to this worker.
    Returns:
      `tf.data.Dataset` of `(images, labels, mask)`: images [B / V, H, W, C] with the dtype of the
      data; labels int32 [B / V], zeros if the data have no labels; mask bool [B / V], False for
      padding.
    Raises:
      ValueError: If `batch_size` is not a whole number of at least 1, or not a multiple of V.

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
        images = np.asarray(data.source.images[rows])
        return *_seen(data, images, rows), wanted < num_images

    return _stream(num_batches, assemble, _specs(data, part))


def _part_of_batch(batch_size, worker):
    """The slice of a global batch that belongs to a worker."""
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


# The third word of the seeds of an epoch's flips and crops. Its order has no third word.
_FLIPS, _CROPS = 1, 2


def _is_flipped(num_images, seed, epoch):
    """Chooses the images that an epoch mirrors: boolean array [N]."""
    return np.random.RandomState([seed, epoch, _FLIPS]).random_sample(num_images) < 0.5


def _crop_corners(data, seed, epoch):
    """Chooses the crop of each image in an epoch: its first row and column, int64 [N, 2]."""
    sizes = data.uncropped.sizes
    places = np.random.RandomState([seed, epoch, _CROPS]).random_sample(sizes.shape)
    return (places * (sizes - np.array(data.images.shape[1:3]) + 1)).astype(np.int64)


def _seen(data, images, rows):
    """The images of a batch as the data give them, and their labels: zeros if there are none."""
    images, labels = data.of_batch(images, rows)
    if labels is None:
        labels = np.zeros(len(rows))
    return images, labels.astype(np.int32)


def _specs(data, part):
    """Shapes and dtypes of the images, labels and mask of a batch."""
    size = part.stop - part.start
    return [
        tf.TensorSpec((size, *data.images.shape[1:]), data.images.dtype),
        tf.TensorSpec((size, *(() if data.labels is None else data.labels.shape[1:])), tf.int32),
        tf.TensorSpec((size,), tf.bool),
    ]


def _stream(num_batches, assemble, specs):
    """Streams the results of `assemble` for batches 0, 1, ... A few batches are made in advance."""

    def call(number):
        found = tf.numpy_function(assemble, [number], [spec.dtype for spec in specs])
        for tensor, spec in zip(found, specs, strict=True):
            tensor.set_shape(spec.shape)
        return tuple(found)

    options = tf.data.Options()
    # With autotuning, TensorFlow destroys an iterator only when the tuner's thread wakes up. The
    # time between two wake-ups doubles again and again, so a new epoch would wait for seconds.
    options.autotune.enabled = False
    stream = tf.data.Dataset.range(num_batches).map(call).prefetch(2)
    return stream.with_options(options)
