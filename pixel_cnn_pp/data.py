"""Data set names -> arrays of integer images -> `tf.data` streams of whole batches.

To add a data set, write a loader `(split, data_dir, image_size) -> ImageData` and name it in
`_LOADERS`, at the end of this file.
"""

import dataclasses
import zipfile

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

_SPLITS = ("train", "test")
_MAX_SEED = 2**32 - 1  # The Mersenne twister of `np.random.RandomState` is seeded by 32-bit words.


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """One split of a data set: integer images, and their classes where it has any.

    Args:
      images: integer array [N, H, W, C] in [0, L - 1]; the loaders give uint8 for L <= 256.
      labels: integer array [N] in [0, num_classes - 1], or None; the loaders give int32.
      num_levels: L, whole number of at least 2.
      num_classes: whole number of at least 1, or None where `labels` is None.
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

    def __post_init__(self):
        """Checks every field against the others."""
        _check_whole_number("num_levels", self.num_levels, 2)
        _check_integer_array("images", self.images, "[N, H, W, C]", 4, self.num_levels - 1)
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


def names():
    """Returns the known data set names, a tuple of strings."""
    return tuple(_LOADERS)


def load(name, split, data_dir="data", image_size=None):
    """Loads one split of a data set into memory.

    Args:
      name: One of `names()`.
      split: "train" or "test".
      data_dir: Folder that holds downloaded data, or will. Not used by `digits` and `photos`,
        which come with scikit-learn.
      image_size: H = W of the images, or None for the data set's own.
    Returns:
      `ImageData`, always the same images in the same order.
    Raises:
      ValueError: If the name or the split is unknown, or the data set has no images of that size.
      OSError: If the data are neither in `data_dir` nor can be downloaded.

    >>> load("digits", "test").images.shape
    (256, 8, 8, 1)
    """
    if name not in _LOADERS:
        raise ValueError(f"`name` must be one of {', '.join(names())}. Received: name={name!r}")
    if split not in _SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(_SPLITS)}. Received: split={split!r}")
    return _LOADERS[name](split, data_dir, image_size)


def load_split(settings, split, **changes):
    """Loads one split of the data set that a run names.

    Args:
      settings: DataConfig.
      split: "train" or "test".
      **changes: Fields of `settings` to replace, such as `data_dir`.
    Returns:
      `ImageData`, as `load` returns it.
    Raises:
      ValueError, OSError: As `load` does.
    """
    options = {**dataclasses.asdict(settings), **changes}
    return load(options.pop("data_set"), split, **options)


def read_images(path, num_channels, num_levels):
    """Reads images from a picture (PNG, JPEG, WebP, TIFF), or from an npz that sample.py wrote.

    The brightness of a picture is brought from its own range, 0 .. 255 or 0 .. 65535, to
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
        images = _read_picture(path, num_levels)[np.newaxis]
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


def _read_picture(path, num_levels):
    try:
        with Image.open(path) as picture:
            if picture.mode in ("P", "1"):  # colours by number, black and white
                picture = picture.convert("RGB" if picture.mode == "P" else "L")
            values = np.asarray(picture)
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"The file must be a picture. Received: {path} ({error})") from None
    if values.dtype.kind not in "ui":
        raise ValueError(
            f"Pixels must be whole numbers. Received: {values.dtype} in {path} (mode "
            f"{picture.mode})"
        )
    # Pillow reads 16-bit grey into more than 16 bits.
    brightest = 255 if values.dtype == np.uint8 else 65535
    steps = num_levels - 1
    levels = (values.astype(np.int64) * steps + brightest // 2) // brightest
    if levels.ndim == 2:
        levels = levels[..., np.newaxis]
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


def train_batches(data, batch_size, seed, epoch, start_batch=0):
    """Streams the whole batches of one epoch in the order of `epoch_order`.

    The images that do not fill a batch, less than `batch_size` of them, are left out; every epoch
    leaves out others. An epoch has N // batch_size batches.

    Args:
      data: `ImageData` of at least `batch_size` images.
      batch_size: B of the global batch, over all replicas.
      seed: whole number in [0, 2**32 - 1].
      epoch: whole number in [0, 2**32 - 1].
      start_batch: How many batches to skip, in [0, N // batch_size]. They are never assembled, and
        the rest is what the uninterrupted epoch would have given.
    Returns:
      `tf.data.Dataset` of `(images, labels)`, or of `images` where the data have no labels:
      images [B, H, W, C] with the dtype of the data, labels int32 [B].
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
    order = epoch_order(num_images, seed, epoch)[: num_batches * batch_size]
    order = order.reshape(num_batches, batch_size)[start_batch:]
    images, labels = _host_tensors(data)

    def gather(index):
        if data.labels is None:
            return tf.gather(images, index)
        return tf.gather(images, index), tf.gather(labels, index)

    return _stream(order, gather)


def eval_batches(data, batch_size):
    """Streams every image exactly once, in order, in batches of one size.

    Args:
      data: `ImageData`.
      batch_size: B of the global batch, over all replicas.
    Returns:
      `tf.data.Dataset` of `(images, labels, mask)`: images [B, H, W, C] with the dtype of the data;
      labels int32 [B], zeros where the data have none; mask bool [B], False on the padding that
      fills the last batch, which repeats the last image.
    Raises:
      ValueError: If `batch_size` is not a whole number of at least 1.

    >>> digits = load("digits", "test")
    >>> sum(int(mask.numpy().sum()) for _, _, mask in eval_batches(digits, batch_size=100))
    256
    """
    _check_whole_number("batch_size", batch_size, 1)
    num_images = len(data.images)
    num_batches = -(-num_images // batch_size)  # Rounded up.
    order = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)
    images, labels = _host_tensors(data)

    def gather(index):
        image_index = tf.minimum(index, num_images - 1)
        return tf.gather(images, image_index), tf.gather(labels, image_index), index < num_images

    return _stream(order, gather)


def _stream(order, gather):
    """`gather` of every row of `order`, made a little ahead of its use."""
    options = tf.data.Options()
    # With TensorFlow's autotuning, an iterator is destroyed only when the tuner's thread wakes,
    # which it does at intervals that double: each new epoch would wait for seconds.
    options.autotune.enabled = False
    stream = tf.data.Dataset.from_tensor_slices(order).map(gather).prefetch(2)
    return stream.with_options(options)


def _host_tensors(data):
    """Images, and int32 labels (zeros where there are none), as tensors that a stream captures."""
    labels = np.zeros(len(data.images)) if data.labels is None else data.labels
    # tf.data runs on the host. Left to itself, eager TensorFlow would put both on the first GPU.
    with tf.device("CPU:0"):
        return tf.constant(data.images), tf.constant(labels.astype(np.int32))


def _check_whole_number(name, value, low, high=None):
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):
        rule = f"of at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"`{name}` must be a whole number {rule}. Received: {name}={value!r}")


def _check_integer_array(name, array, shape, rank, high):
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.integer):
        received = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"`{name}` must be a NumPy array of integers. Received: {received}")
    if array.ndim != rank or array.size == 0:
        raise ValueError(
            f"`{name}` must have the shape {shape} and not be empty. Received: shape {array.shape}"
        )
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest > high:
        raise ValueError(
            f"`{name}` must lie in [0, {high}]. Received: values in [{lowest}, {highest}]"
        )


def _check_fixed_size(name, image_size, fixed_size):
    if image_size not in (None, fixed_size):
        raise ValueError(
            f"`image_size` must be {fixed_size} for {name!r}, or None. "
            f"Received: image_size={image_size!r}"
        )


def _load_digits(split, data_dir, image_size):
    """Handwritten digits of the UCI repository, as they come with scikit-learn.

    1797 grey images of 8 x 8 pixels, L = 17, 10 classes. Test is every image whose index is 6
    modulo 7, 256 of them; train is the rest, 1541. (For long stretches of the file the classes
    repeat with period 10, which has no factor in common with 7: neither split misses a class.)
    """
    del data_dir  # Part of the installed package.
    _check_fixed_size("digits", image_size, 8)
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


def _load_photos(split, data_dir, image_size):
    """Square crops of scikit-learn's two photographs, a pagoda (class 0) and a dahlia (class 1).

    Each is 427 x 640 pixels, RGB, L = 256. Test is columns 80 to 239 of both, cut into tiles that
    do not overlap. Train is all crops at a stride of 8 pixels that lie wholly in columns 0 to 79
    or wholly in columns 240 to 639. So no pixel is in both splits, but the two splits adjoin, and
    training crops overlap each other: a small set to try things on, not a benchmark.

    `image_size` is 32 unless given (5400 training and 130 test images), at most 160.
    """
    del data_dir  # Part of the installed package.
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


def _load_cifar(split, data_dir, image_size):
    """CIFAR-10 through TensorFlow Datasets: 50000 and 10000 images of 32 x 32 pixels, 10 classes.

    The first call downloads 162 MiB into `data_dir`.
    """
    _check_fixed_size("cifar", image_size, 32)
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()  # It redraws itself, which is noise in a log file.
    try:
        stream = tfds.load("cifar10", split=split, data_dir=data_dir, batch_size=1000)
        batches = list(tfds.as_numpy(stream))
    except Exception as error:  # No network, disk, server or package: anything can come.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(
            f"CIFAR-10 could be neither read from data_dir={str(data_dir)!r} nor downloaded into "
            f"it (which needs a network and half a GB of disk). Reason: {reason[:200]}"
        ) from None
    return ImageData(
        images=np.concatenate([batch["image"] for batch in batches]),
        labels=np.concatenate([batch["label"] for batch in batches]).astype(np.int32),
        num_levels=256,
        num_classes=10,
    )


_LOADERS = {"digits": _load_digits, "photos": _load_photos, "cifar": _load_cifar}
