"""Reads all images of one file of the user: a picture, or an array such as sample.py writes."""

import pathlib

import numpy as np

from pixel_cnn_pp.data import array_files, arrays, pictures, store
from pixel_cnn_pp.data import labels as labels_of
from pixel_cnn_pp.data.images import ImageData


def load_file(
    path,
    num_channels,
    num_levels,
    num_classes=None,
    class_names=None,
    image_size=None,
    channels_first=None,
):
    """Reads all images of a picture, or of a file of arrays, for a model.

    Levels are taken as they stand in the file, as `load` takes them. They are never scaled.

    Args:
      path: A picture, or a file of arrays as `load` reads it.
      num_channels: C of the model.
      num_levels: L of the model.
      num_classes: Number of classes of the model, or None.
      class_names: Their names, or None if a label is the number of its class.
      image_size: H = W of the central squares to cut out, or None for whole images.
      channels_first: As in `load`.
    Returns:
      `ImageData` of all images in their order, with labels if the file has any. Without
      `num_classes`, the classes are those that occur.
    Raises:
      ValueError: If the file holds no images, or images with other channels, levels or classes.
      OSError: If the file cannot be read.
    """
    path, labels = pathlib.Path(path), None
    if path.exists() and not path.is_file():  # To open a named pipe would wait for ever.
        raise ValueError(f"Images must lie in a file. Received: {path}, which is none")
    if array_files.is_file(path) or path.suffix.lower() in (".npz", ".npy"):
        images, labels = arrays.read_arrays(path, channels_first)
        most_levels = arrays.most_levels({images.dtype})
    else:
        images, most_levels = _read_picture(path, num_channels)
    if images.shape[-1] != num_channels:
        raise ValueError(
            f"Images must have C = {num_channels}. Received: C = {images.shape[-1]} in {path}"
        )
    try:
        store.check_levels(num_levels, int(images.max()), most_levels)
    except ValueError as error:
        raise ValueError(f"{error} for {path}, whose values are taken as they stand") from None
    if image_size is not None:
        images = _centre(images, image_size, path)
    if labels is not None:
        if num_classes is not None:
            class_names = class_names or tuple(map(str, range(num_classes)))
        else:
            class_names = labels_of.names_of(labels)
        labels = labels_of.numbered(labels, class_names, f"in {path}")
    return ImageData(
        images.astype(np.uint8 if num_levels <= 256 else np.int32),
        labels,
        num_levels,
        None if labels is None else len(class_names),
        class_names=None if labels is None else tuple(class_names),
    )


def _read_picture(path, num_channels):
    """The images of a picture, [P, H, W, C], and the number of levels that it can hold."""
    try:
        pixels, header = pictures.read(path)
    except ValueError as error:
        raise ValueError(f"The file must be a picture. Received: {path} ({error})") from None
    if header.num_channels > num_channels:
        pixels = pictures.without_opaque_alpha(pixels, header)
    return pixels, 2**header.num_bits


def _centre(images, size, path):
    height, width = images.shape[1:3]
    if size > min(height, width):
        raise ValueError(
            f"`image_size` must be at most {min(height, width)}, the size of the images in {path}. "
            f"Received: image_size={size}"
        )
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]
