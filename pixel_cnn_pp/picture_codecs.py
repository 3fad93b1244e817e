"""Sizes of images in PNG and WebP, as other lossless codecs to compare with."""

import io
import math

import numpy as np
from PIL import Image

# Codecs and the options with which they save images. These give their strongest compression.
_CODECS = {
    "PNG": {"optimize": True},
    "WebP": {"lossless": True, "quality": 100, "method": 6},
}


def codecs(images):
    """Names of the codecs that can store images, a tuple. WebP stores only 8-bit grey and RGB."""
    return tuple(_CODECS) if _is_8_bit_picture(images) else ("PNG",)


def codec_bits_per_dim(images, codec):
    """Bits/dim of a lossless codec that stores all images side by side in one file.

    One file for all images favours the codec, because the file has its headers only once. PNG can
    store all images. If they are not 8-bit grey or RGB, their channels are stored side by side as
    grey pictures, with 8 bits for uint8 and otherwise with 16 bits.

    Args:
      images: Integers [N, H, W, C] in [0, 65535]. For WebP they must be uint8 with C = 1 or 3.
      codec: "PNG" or "WebP".

    Returns:
      Bits of the file for each sub-pixel of the images, a float.

    Raises:
      ValueError: If the images are of another kind or the codec is unknown.
    """
    return 8 * len(codec_file(images, codec)) / images.size


def codec_file(images, codec):
    """The file of a lossless codec that stores all images side by side, see `codec_bits_per_dim`.

    Args:
      images, codec: As in `codec_bits_per_dim`.

    Returns:
      Bytes.

    Raises:
      ValueError: As `codec_bits_per_dim` does.
    """
    if codec not in _CODECS:
        raise ValueError(f"`codec` must be one of {', '.join(_CODECS)}. Received: codec={codec!r}")
    if codec not in codecs(images):
        raise ValueError(
            f"Images for {codec} must be uint8 with 1 or 3 channels. "
            f"Received: {images.dtype} {images.shape}"
        )
    file = io.BytesIO()
    Image.fromarray(mosaic(images)).save(file, codec, **_CODECS[codec])
    return file.getvalue()


def mosaic(images):
    """All images side by side as one picture that a codec can store.

    Args:
      images: Integers [N, H, W, C] in [0, 65535].

    Returns:
      uint8 array [H', W', 3], or array [H', W'] of uint8 or uint16, see `codec_bits_per_dim`.

    Raises:
      ValueError: If a level is out of range.
    """
    dtype = np.uint8 if images.dtype == np.uint8 else np.uint16
    if images.min() < 0 or images.max() > np.iinfo(dtype).max:
        raise ValueError(
            "Images for a codec must lie in [0, 65535]. "
            f"Received: values in [{images.min()}, {images.max()}]"
        )
    num_images, height, width, channels = images.shape
    # The grid is nearly square. Its empty places are black, which takes almost no bits.
    num_columns = math.isqrt(num_images - 1) + 1
    num_rows = -(-num_images // num_columns)
    filled = np.zeros((num_rows * num_columns, *images.shape[1:]), dtype)
    filled[:num_images] = images
    picture = filled.reshape(num_rows, num_columns, height, width, channels).swapaxes(1, 2)
    picture = picture.reshape(num_rows * height, num_columns * width, channels)
    if channels != 3 or dtype != np.uint8:
        picture = np.moveaxis(picture, -1, 1).reshape(num_rows * height, -1)
    return picture


def _is_8_bit_picture(images):
    return images.dtype == np.uint8 and images.shape[-1] in (1, 3)
