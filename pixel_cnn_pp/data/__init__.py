"""Data set names -> arrays of integer images -> `tf.data` streams of whole batches.

To add a data set, write a loader `(split, data_dir, image_size) -> image_store.StoredImages` in
image_sets.py, and name it in `_SETS`, at the end of this file.
"""

import dataclasses
import functools
import zipfile

import numpy as np
import tensorflow as tf

from pixel_cnn_pp.data import image_files, image_sets, image_store, pictures

_MAX_SEED = 2**32 - 1  # The Mersenne twister of `np.random.RandomState` is seeded by 32-bit words.


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """One split of a data set: integer images, and their classes where it has any.

    Args:
      images: integer array [N, H, W, C] in [0, L - 1], possibly memory-mapped; the loaders give
        uint8 or uint16.
      labels: integer array [N] in [0, num_classes - 1], or None; the loaders give int32.
      num_levels: L, whole number of at least 2.
      num_classes: whole number of at least 1, or None where `labels` is None.
      uncropped: `image_store.UncroppedImages` that training crops anew in every epoch, `images`
        being their centres; or None.
      value_range: lowest and highest value, where they are known, so that the images need not be
        read to check them.
    Raises:
      ValueError: If a rank, a dtype, a length or a range is another one.

    >>> images = np.array([[[[0], [3]]], [[[2], [1]]]], np.uint8)  # [2, 1, 2, 1]
    >>> ImageData(images, labels=None, num_levels=4, num_classes=None).images.shape
    (2, 1, 2, 1)
    """

    images: np.ndarray
    labels: np.ndarray | None
    num_levels: int
    num_classes: int | None
    uncropped: image_store.UncroppedImages | None = None
    value_range: dataclasses.InitVar[tuple[int, int] | None] = None

    def __post_init__(self, value_range):
        """Checks every field against the others."""
        _check_whole_number("num_levels", self.num_levels, 2)
        highest = self.num_levels - 1
        _check_integer_array("images", self.images, "[N, H, W, C]", 4, highest, value_range)
        if (self.labels is None) != (self.num_classes is None):
            raise ValueError(
                "`labels` and `num_classes` must be given together, or both be None. Received: "
                f"labels={'None' if self.labels is None else 'an array'}, "
                f"num_classes={self.num_classes!r}"
            )
        if self.labels is not None:
            _check_whole_number("num_classes", self.num_classes, 1)
            _check_integer_array("labels", self.labels, "[N]", 1, self.num_classes - 1)
            if len(self.labels) != len(self.images):
                raise ValueError(
                    "`labels` must hold one class for every image. Received: "
                    f"{len(self.labels)} labels for {len(self.images)} images"
                )
        if self.uncropped is not None and len(self.uncropped.sizes) != len(self.images):
            raise ValueError(
                "`uncropped` must hold one image for every image. Received: "
                f"{len(self.uncropped.sizes)} for {len(self.images)}"
            )


def names():
    """Returns the known data set names, a tuple of strings; PATH stands for a path."""
    return (*_EMBEDDED, *_SETS, *(f"{kind}:PATH" for kind in _PATHS))


def check_name(name):
    """Refuses the name of a data set that `load` would not know; reads nothing.

    Args:
      name: As of `load`.

    Raises:
      ValueError: If the name is unknown.
    """
    kind, _, path = name.partition(":")
    is_path = kind in _PATHS and path != ""
    if name not in _EMBEDDED and name not in _SETS and not is_path:
        raise ValueError(f"`name` must be one of {', '.join(names())}. Received: name={name!r}")


def load(
    name,
    split,
    data_dir="data",
    image_size=None,
    crop="center",
    test_fraction=None,
    num_levels=None,
    num_train_images=None,
    log=print,
):
    """Loads one split of a data set; what is large stays on disk, memory-mapped.

    Args:
      name: One of `names()`, such as "cifar", "folder:pictures" or "npz:images.npz".
      split: "train" or "test".
      data_dir: Folder that holds data sets, or will, and the cache of decoded images. Not used by
        `digits` and `photos`, which come with scikit-learn.
      image_size: H = W of the images, or None for the data set's own.
      crop: "center", or "random" for other crops of the training images in every epoch; of
        `folder:` and `npz:`, with an `image_size`.
      test_fraction: Part of the images of a `folder:` or `npz:` without a test split that is made
        one, chosen by their names alone; None for a tenth.
      num_levels: L of a `folder:` or `npz:`; None for what follows from the files.
      num_train_images: How many images the training split is cut down to, drawn once and for all;
        None for all of them.
      log: Function of a line, told what was found and left out.
    Returns:
      `ImageData`, always the same images in the same order.
    Raises:
      ValueError: If the name or the split is unknown, the data set has no images of that size or
        not as many, or its files hold no such images.
      OSError: If the data are neither in `data_dir` nor can be downloaded.

    >>> load("digits", "test").images.shape
    (256, 8, 8, 1)
    """
    check_name(name)
    if split not in image_store.SPLITS:
        raise ValueError(
            f"`split` must be one of {', '.join(image_store.SPLITS)}. Received: split={split!r}"
        )
    found = _load_whole(name, split, data_dir, image_size, crop, test_fraction, num_levels, log)
    if split == "test" or num_train_images is None:
        return found
    return _some(found, name, num_train_images)


def _load_whole(name, split, data_dir, image_size, crop, test_fraction, num_levels, log):
    """The whole of a split, as `load` describes it."""
    kind, separator, path = name.partition(":")
    if separator:
        _check_options(image_size, crop, test_fraction, num_levels)
        stored = _PATHS[kind](path, split, data_dir, image_size, crop, test_fraction, num_levels)
    else:
        _refuse_options(name, crop=crop, test_fraction=test_fraction, num_levels=num_levels)
        if name in _EMBEDDED:
            return _EMBEDDED[name](split, image_size)
        stored = _SETS[name](split, data_dir, image_size)
    log(f"{name}, {split}: {stored.description}")
    return ImageData(
        stored.images,
        stored.labels,
        stored.num_levels,
        stored.num_classes,
        stored.uncropped,
        value_range=(0, stored.highest),
    )


def _some(images, name, number):
    """So many images of an `ImageData`, in their order."""
    _check_whole_number("num_train_images", number, 1, len(images.images))
    if images.uncropped is not None:
        raise ValueError(
            "`num_train_images` must be left out where crops are random. "
            f"Received: num_train_images={number} of {name}"
        )
    rows = np.sort(np.random.RandomState(0).permutation(len(images.images))[:number])
    labels = None if images.labels is None else images.labels[rows]
    return ImageData(np.asarray(images.images[rows]), labels, images.num_levels, images.num_classes)


def _refuse_options(name, **options):
    """Refuses options of `folder:` and `npz:` for a data set that is always the same."""
    for option, value in options.items():
        if value not in (None, "center"):
            raise ValueError(
                f"`{option}` must be left out for {name!r}, which is always the same. "
                f"Received: {option}={value!r}"
            )


def _check_options(image_size, crop, test_fraction, num_levels):
    """Checks what a configuration has checked already, for those who call `load` themselves."""
    if image_size is not None:
        _check_whole_number("image_size", image_size, 4)
        if image_size % 4:
            raise ValueError(
                f"`image_size` must be a multiple of 4. Received: image_size={image_size}"
            )
    if crop not in ("center", "random"):
        raise ValueError(f"`crop` must be one of center, random. Received: crop={crop!r}")
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise ValueError(
            f"`test_fraction` must lie between 0 and 1. Received: test_fraction={test_fraction!r}"
        )
    if num_levels is not None:
        _check_whole_number("num_levels", num_levels, 2, 65536)


def load_split(settings, split, **changes):
    """Loads one split of the data set that a run names.

    Args:
      settings: DataConfig.
      split: "train" or "test".
      **changes: Arguments of `load` in place of those of `settings`, such as `data_dir`.
    Returns:
      `ImageData`, as `load` returns it.
    Raises:
      ValueError, OSError: As `load` does.
    """
    options = {**dataclasses.asdict(settings), **changes}
    return load(options.pop("data_set"), split, **options)


def read_images(path, num_channels, num_levels):
    """Reads images from a picture (PNG, JPEG, WebP, TIFF), or from an npz that sample.py wrote.

    The brightness of a picture is brought from its own range, such as 0 .. 255 or 0 .. 65535, to
    0 .. L - 1, the inverse of what `plots.image_grid` shows; an npz holds levels.

    Args:
      path: File; the array of an npz is called `images` and has the shape [N, H, W, C].
      num_channels: C.
      num_levels: L, at least 2.
    Returns:
      Integer array [N, H, W, C] in [0, L - 1], N = 1 for a picture.
    Raises:
      ValueError: If the file holds no images, or other channels or levels.
      OSError: If the file cannot be read.
    """
    if str(path).endswith(".npz"):
        images = _read_npz(path)
    else:
        images = _read_picture(path, num_channels, num_levels)[np.newaxis]
    _check_integer_array(f"images of {path}", images, "[N, H, W, C]", 4, num_levels - 1)
    if images.shape[-1] != num_channels:
        raise ValueError(
            f"Images must have C = {num_channels}. Received: C = {images.shape[-1]} in {path}"
        )
    return images


def _read_npz(path):
    try:
        with np.load(path) as arrays:
            return arrays["images"]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"An npz must hold `images`. Received: {path} ({error})") from None


def _read_picture(path, num_channels, num_levels):
    try:
        pixels, header = pictures.read(path)
    except ValueError as error:
        raise ValueError(f"The file must be a picture. Received: {path} ({error})") from None
    if header.num_channels > num_channels:
        pixels = pictures.without_opaque_alpha(pixels, header)
    brightest, steps = 2**header.num_bits - 1, num_levels - 1
    levels = (pixels.astype(np.int64) * steps + brightest // 2) // brightest
    return levels.astype(np.uint8 if num_levels <= 256 else np.int32)


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
    _check_whole_number("num_images", num_images, 1)
    _check_whole_number("seed", seed, 0, _MAX_SEED)
    _check_whole_number("epoch", epoch, 0, _MAX_SEED)
    # RandomState, because its stream is frozen (NEP 19) where default_rng's may change with NumPy.
    # Both words enter the state whole: neighbouring (seed, epoch) share nothing, unlike their sum.
    return np.random.RandomState([seed, epoch]).permutation(num_images).astype(np.int64)


def train_batches(data, batch_size, seed, epoch, start_batch=0, augment="none", worker=(0, 1)):
    """Streams the whole batches of one epoch in the order of `epoch_order`.

    The images that do not fill a batch, less than `batch_size` of them, are left out; every epoch
    leaves out others. An epoch has N // batch_size batches. Images are gathered a batch at a time,
    so that the data may be larger than the memory.

    Crops of `data.uncropped` and flips are functions of seed, epoch and image: they are the same
    for every batch size and number of workers.

    Args:
      data: `ImageData` of at least `batch_size` images.
      batch_size: B of the global batch, over all replicas of all workers.
      seed: whole number in [0, 2**32 - 1].
      epoch: whole number in [0, 2**32 - 1].
      start_batch: How many batches to skip, in [0, N // batch_size]. They are never assembled, and
        the rest is what the uninterrupted epoch would have given.
      augment: "none", or "flip" to mirror left and right half of the images.
      worker: Pair of the index of a worker and the number of workers, W: the stream has the part
        of every global batch that is this worker's, B / W neighbouring images of it.
    Returns:
      `tf.data.Dataset` of `(images, labels)`, or of `images` where the data have no labels:
      images [B / W, H, W, C] with the dtype of the data, labels int32 [B / W].
    Raises:
      ValueError: If the images do not fill one batch, or a number is out of its range.

    >>> digits = load("digits", "train")
    >>> images, labels = next(iter(train_batches(digits, batch_size=16, seed=0, epoch=0)))
    >>> images.shape.as_list(), labels.shape.as_list()
    ([16, 8, 8, 1], [16])
    """
    _check_whole_number("batch_size", batch_size, 1)
    num_images = len(data.images)
    num_batches = num_images // batch_size
    if num_batches == 0:
        raise ValueError(
            f"`batch_size` must not exceed the number of images, {num_images}. "
            f"Received: batch_size={batch_size}"
        )
    _check_whole_number("start_batch", start_batch, 0, num_batches)
    if augment not in ("none", "flip"):
        raise ValueError(f"`augment` must be one of none, flip. Received: augment={augment!r}")
    part = _part_of_batch(batch_size, worker)
    order = epoch_order(num_images, seed, epoch)
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
    stream = _stream(range(start_batch, num_batches), assemble, specs)
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

    >>> digits = load("digits", "test")
    >>> sum(int(mask.numpy().sum()) for _, _, mask in eval_batches(digits, batch_size=100))
    256
    """
    _check_whole_number("batch_size", batch_size, 1)
    part = _part_of_batch(batch_size, worker)
    num_images = len(data.images)
    num_batches = -(-num_images // batch_size)  # Rounded up.

    def assemble(number):
        wanted = np.arange(number * batch_size, (number + 1) * batch_size)[part]
        rows = np.minimum(wanted, num_images - 1)
        return np.asarray(data.images[rows]), _labels(data, rows), wanted < num_images

    return _stream(range(num_batches), assemble, _specs(data, part))


def _part_of_batch(batch_size, worker):
    """The slice of a global batch that a worker assembles."""
    index, num_workers = worker
    _check_whole_number("number of workers", num_workers, 1)
    _check_whole_number("index of the worker", index, 0, num_workers - 1)
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


def _stream(numbers, assemble, specs):
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
    stream = tf.data.Dataset.range(numbers.start, numbers.stop).map(call).prefetch(2)
    return stream.with_options(options)


def _check_whole_number(name, value, low, high=None):
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):
        rule = f"of at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"`{name}` must be a whole number {rule}. Received: {name}={value!r}")


def _check_integer_array(name, array, shape, rank, high, value_range=None):
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.integer):
        received = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"`{name}` must be a NumPy array of integers. Received: {received}")
    if array.ndim != rank or array.size == 0:
        raise ValueError(
            f"`{name}` must have the shape {shape} and not be empty. Received: shape {array.shape}"
        )
    limits = np.iinfo(array.dtype)
    if limits.min == 0 and limits.max <= high:
        return  # No value of this type is outside: gigabytes need not be read.
    lowest, highest = value_range or (int(array.min()), int(array.max()))
    if lowest < 0 or highest > high:
        raise ValueError(
            f"`{name}` must lie in [0, {high}]. Received: values in [{lowest}, {highest}]"
        )


def _load_digits(split, image_size):
    """Handwritten digits of the UCI repository, as they come with scikit-learn.

    1797 grey images of 8 x 8 pixels, L = 17, 10 classes. Test is every image whose index is 6
    modulo 7, 256 of them; train is the rest, 1541. (For long stretches of the file the classes
    repeat with period 10, which has no factor in common with 7: neither split misses a class.)
    """
    image_sets.check_fixed_size("digits", image_size, 8)
    from sklearn import datasets

    digits = datasets.load_digits()
    is_test = np.arange(len(digits.images)) % 7 == 6
    chosen = is_test if split == "test" else ~is_test
    return ImageData(
        images=digits.images[chosen, :, :, np.newaxis].astype(np.uint8),
        labels=digits.target[chosen].astype(np.int32),
        num_levels=17,
        num_classes=10,
    )


# Test columns of either photograph, chosen by eye: the strip cuts through the pagoda, the sky and
# the trees of one, the leaves and the petals of the other, and leaves some of each on its outside.
_TEST_COLUMNS = slice(80, 240)
_TRAIN_STRIDE = 8  # Pixels from one training crop to the next, down and across.


def _load_photos(split, image_size):
    """Square crops of scikit-learn's two photographs, a pagoda (class 0) and a dahlia (class 1).

    Each is 427 x 640 pixels, RGB, L = 256. Test is columns 80 to 239 of both, cut into tiles that
    do not overlap. Train is all crops at a stride of 8 pixels that lie wholly in columns 0 to 79
    or wholly in columns 240 to 639. So no pixel is in both splits, but the two splits adjoin, and
    training crops overlap each other: a small set to try things on, not a benchmark.

    `image_size` is 32 unless given (5400 training and 130 test images), at most 160.
    """
    from sklearn import datasets

    image_size = 32 if image_size is None else image_size
    max_size = _TEST_COLUMNS.stop - _TEST_COLUMNS.start
    _check_whole_number("image_size", image_size, 1, max_size)
    images, labels = [], []
    for label, file_name in enumerate(("china.jpg", "flower.jpg")):
        photo = datasets.load_sample_image(file_name)  # [427, 640, 3]
        if split == "test":
            crops = _crops(photo[:, _TEST_COLUMNS], image_size, stride=image_size)
        else:
            left, right = photo[:, : _TEST_COLUMNS.start], photo[:, _TEST_COLUMNS.stop :]
            crops = np.concatenate(
                [_crops(part, image_size, _TRAIN_STRIDE) for part in (left, right)]
            )
        images.append(crops)
        labels.append(np.full(len(crops), label, np.int32))
    return ImageData(np.concatenate(images), np.concatenate(labels), num_levels=256, num_classes=2)


def _crops(picture, size, stride):
    """All crops [N, size, size, C] of a picture [H, W, C] on a regular grid, row by row."""
    if min(picture.shape[:2]) < size:
        return np.zeros((0, size, size, picture.shape[-1]), picture.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (size, size), axis=(0, 1))
    windows = windows[::stride, ::stride].transpose(0, 1, 3, 4, 2)  # [rows, columns, H, W, C]
    return windows.reshape(-1, size, size, picture.shape[-1])


_EMBEDDED = {"digits": _load_digits, "photos": _load_photos}
_SETS = {
    "cifar": image_sets.load_cifar,
    "imagenet32": functools.partial(image_sets.load_imagenet, size=32),
    "imagenet64": functools.partial(image_sets.load_imagenet, size=64),
    "celeba": image_sets.load_celeba,
}
_PATHS = {"folder": image_files.load_folder, "npz": image_files.load_arrays}
