"""Code that the loaders of public data sets share: TensorFlow Datasets, the cache and colours."""

import contextlib
import pathlib

import numpy as np

from pixel_cnn_pp.data import decoding, pictures, store, writing


def check_fixed_size(name, image_size, fixed_size):
    """Checks that the user asks for the only image size that a data set has.

    Args:
      name: Name of the data set.
      image_size: The size that the user asks for, or None.
      fixed_size: H = W of the images.
    Raises:
      ValueError: If `image_size` is another number.
    """
    if image_size not in (None, fixed_size):
        raise ValueError(
            f"`image_size` must be {fixed_size} for {name!r}, or None. "
            f"Received: image_size={image_size!r}"
        )


def tfds_entry(
    name,
    tfds_split,
    data_dir,
    shape,
    convert,
    title,
    num_classes=None,
    is_offered=True,
    split=None,
):
    """Makes the cache entry of one split of a data set of TensorFlow Datasets, or finds it.

    Args:
      name: Name of the data set in TensorFlow Datasets.
      tfds_split: "train", "test", "validation" or parts of them. The cache calls all but "train"
        "test", unless `split` names it.
      data_dir: Folder of the data sets.
      shape: (H, W, C).
      convert: As in `pictures.decoder`.
      title: Usual name of the data set, for messages.
      num_classes: Number of classes, or None to store no labels.
      is_offered: Whether the data set can be downloaded. If not, it must already be prepared in
        `data_dir`.
      split: "train" or "test", or None.
    Returns:
      Path of the folder of the entry.
    Raises:
      OSError: If the data set is not there and cannot be downloaded.
    """
    with tfds_errors(title, data_dir):
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()  # It draws itself again and again, which fills a log file.
        builder = tfds.builder(name, data_dir=data_dir)
        if not is_offered and not builder.is_prepared():
            raise FileNotFoundError("its download has been withdrawn")
        builder.download_and_prepare()

    def items():
        # Read the encoded bytes, because TensorFlow decodes JPEG with other rounding than Pillow.
        decoders = {"image": tfds.decode.SkipDecoding()}
        with tfds_errors(title, data_dir):
            stream = builder.as_dataset(split=tfds_split, decoders=decoders)
            for number, example in enumerate(tfds.as_numpy(stream)):
                label = None if num_classes is None else int(example["label"])
                yield f"number {number}", example["image"], label

    prepared = sorted(pathlib.Path(builder.data_path).glob("*"))
    states = [[path.name, *store.file_state(path)] for path in prepared]
    return entry(
        name.replace("/", "-"),
        [builder.info.full_name, states] + ([] if split is None else [tfds_split]),
        split or ("train" if tfds_split == "train" else "test"),
        data_dir,
        shape,
        lambda writer: decoding.append_decoded(
            writer, items(), pictures.decoder(convert), total=None
        ),
        num_classes,
    )


@contextlib.contextmanager
def tfds_errors(title, data_dir):
    """Turns errors of TensorFlow Datasets into an OSError with a message of one line."""
    try:
        yield
    except Exception as error:  # Network, disk, server and package raise errors of any class.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(
            f"{title} could be neither read from data_dir={str(data_dir)!r} nor downloaded into "
            f"it (which needs a network and disk space). Reason: {reason[:200]}"
        ) from None


def entry(name, key, split, data_dir, shape, append, num_classes=None):
    """Makes the cache entry of one split of images with 256 levels, or finds it.

    Args:
      name: Start of the name of the entry.
      key: As in `store.entry`. The shape is added to it.
      split: "train" or "test".
      data_dir: Folder of the data sets.
      shape: (H, W, C).
      append: Function of a `writing.SplitWriter` that appends the images. It returns {name: reason}
        of the images that cannot be read.
      num_classes: Number of classes, or None.
    Returns:
      Path of the folder of the entry.
    """

    def write(folder):
        with writing.split_writer(folder, split, shape, np.uint8) as writer:
            unreadable = append(writer)
            num_files = len(writer) + len(unreadable)
            decoding.check_readable(unreadable, num_files, f"the {split} split of {name}")
            writer.left_out = decoding.describe_left_out(unreadable)
        writing.write_about(folder, 256, num_classes)

    return store.entry(data_dir, name, [key, split, list(shape)], write, store.damage)


def rgb(name, pixels, header):
    """Converts a picture to 8-bit RGB, [H, W, 3]. Raises a ValueError if that loses information."""
    pixels = pictures.without_opaque_alpha(pixels, header)
    if header.num_bits > 8 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            f"Pictures must be grey or RGB of at most 8 bits. Received: {name} ({header})"
        )
    pixels = pixels * np.uint8(255 // (2**header.num_bits - 1))
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def rgb_of_size(shape, name, pixels, header):
    """As `rgb`, and checks that the result has this shape."""
    if pixels.shape[:2] != shape[:2]:
        raise ValueError(
            f"Pictures must be {shape[0]} x {shape[1]}. Received: {name} of {pixels.shape[0]} x "
            f"{pixels.shape[1]}"
        )
    return rgb(name, pixels, header)
