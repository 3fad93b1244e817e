"""What the data sets of the literature have in common: TensorFlow Datasets, the cache, colours."""

import contextlib
import pathlib

import numpy as np

from pixel_cnn_pp.data import decoding, pictures, store


def check_fixed_size(name, image_size, fixed_size):
    """Refuses another size than the one that a data set has.

    Args:
      name: Name of the set.
      image_size: What is asked for, or None.
      fixed_size: H = W of its images.
    Raises:
      ValueError: If it is another one.
    """
    if image_size not in (None, fixed_size):
        raise ValueError(
            f"`image_size` must be {fixed_size} for {name!r}, or None. "
            f"Received: image_size={image_size!r}"
        )


def tfds_entry(
    name, tfds_split, data_dir, shape, convert, title, num_classes=None, is_offered=True
):
    """The cache's entry of one split of a set of TensorFlow Datasets.

    Args:
      name: Name of the set.
      tfds_split: "train", "test" or "validation"; the last is called test here.
      data_dir: Folder of the sets.
      shape: (H, W, C).
      convert: As `pictures.decoder` takes it.
      title: What people call the set, for the error.
      num_classes: Number of classes, or None to leave labels out.
      is_offered: Whether the set can be downloaded, or only read where it was prepared before.
    Returns:
      Path of the folder.
    Raises:
      OSError: If the set is neither there nor can be downloaded.
    """
    with _tfds_errors(title, data_dir):
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()  # It redraws itself, which is noise in a log file.
        builder = tfds.builder(name, data_dir=data_dir)
        if not is_offered and not builder.is_prepared():
            raise FileNotFoundError("its download has been withdrawn")
        builder.download_and_prepare()

    def items():
        # The files' own bytes: TensorFlow's decoder of JPEG rounds otherwise than Pillow's.
        decoders = {"image": tfds.decode.SkipDecoding()}
        with _tfds_errors(title, data_dir):
            stream = builder.as_dataset(split=tfds_split, decoders=decoders)
            for number, example in enumerate(tfds.as_numpy(stream)):
                label = None if num_classes is None else int(example["label"])
                yield f"number {number}", example["image"], label

    prepared = sorted(pathlib.Path(builder.data_path).glob("*"))
    states = [[path.name, *store.file_state(path)] for path in prepared]
    return entry(
        name.replace("/", "-"),
        [builder.info.full_name, states],
        "train" if tfds_split == "train" else "test",
        data_dir,
        shape,
        lambda writer: decoding.append_decoded(
            writer, items(), pictures.decoder(convert), total=None
        ),
        num_classes,
    )


@contextlib.contextmanager
def _tfds_errors(title, data_dir):
    """Turns what TensorFlow Datasets raises into one line."""
    try:
        yield
    except Exception as error:  # No network, disk, server or package: anything can come.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(
            f"{title} could be neither read from data_dir={str(data_dir)!r} nor downloaded into "
            f"it (which needs a network and disk space). Reason: {reason[:200]}"
        ) from None


def entry(name, key, split, data_dir, shape, append, num_classes=None):
    """The cache's entry of one split of images with 256 levels.

    Args:
      name: Start of the entry's name.
      key: As `store.entry` takes it; the shape is added.
      split: "train" or "test".
      data_dir: Folder of the sets.
      shape: (H, W, C).
      append: Function of a `store.SplitWriter` that appends the images; it returns
        {name: reason} of those that cannot be read.
      num_classes: Number of classes, or None.
    Returns:
      Path of the folder.
    """

    def write(folder):
        with store.split_writer(folder, split, shape, np.uint8) as writer:
            unreadable = append(writer)
            num_files = len(writer) + len(unreadable)
            decoding.check_readable(unreadable, num_files, f"the {split} split of {name}")
            writer.left_out = decoding.describe_left_out(unreadable)
        store.write_about(folder, 256, num_classes)

    return store.entry(data_dir, name, [key, split, list(shape)], write)


def rgb(name, pixels, header):
    """A picture as colour of 8 bits, [H, W, 3]."""
    pixels = pictures.without_opaque_alpha(pixels, header)
    if header.num_bits > 8 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            f"Pictures must be grey or RGB of at most 8 bits. Received: {name} ({header})"
        )
    pixels = pixels * np.uint8(255 // (2**header.num_bits - 1))
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def rgb_of_size(shape, name, pixels, header):
    """The same, where the size must be this one."""
    if pixels.shape[:2] != shape[:2]:
        raise ValueError(
            f"Pictures must be {shape[0]} x {shape[1]}. Received: {name} of {pixels.shape[0]} x "
            f"{pixels.shape[1]}"
        )
    return rgb(name, pixels, header)
