"""Reads images from one file of the user: a picture, or an npz file that sample.py wrote."""

import zipfile

import numpy as np

from pixel_cnn_pp.data import pictures
from pixel_cnn_pp.data.images import check_integer_array


def read_images(path, num_channels, num_levels):
    """Reads images from a picture (PNG, JPEG, WebP, TIFF), or from an npz that sample.py wrote.

    The values of a picture are scaled from their own range, such as 0 .. 255 or 0 .. 65535, to
    0 .. L - 1. This is the inverse of `plots.image_grid`. The values of an npz are not scaled.

    Args:
      path: File. In an npz, the array has the name `images` and the shape [N, H, W, C].
      num_channels: C.
      num_levels: L, at least 2.
    Returns:
      Integer array [N, H, W, C] in [0, L - 1], with N = 1 for a picture.
    Raises:
      ValueError: If the file holds no images, or images with other channels or levels.
      OSError: If the file cannot be read.
    """
    if str(path).endswith(".npz"):
        images = _read_npz(path)
    else:
        images = _read_picture(path, num_channels, num_levels)[np.newaxis]
    check_integer_array(f"images of {path}", images, "[N, H, W, C]", 4, num_levels - 1)
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
