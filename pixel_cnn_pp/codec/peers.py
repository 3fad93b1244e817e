"""Other lossless codecs, to compare a file with: PNG, WebP and JPEG XL, of well-kept libraries."""

import struct
from typing import NamedTuple

import imagecodecs
import numpy as np

from pixel_cnn_pp import picture_codecs

# JPEG XL's strongest compression takes minutes for a large picture, and a weaker one seconds.
_STRONGEST, _FASTER, _MOST_FOR_STRONGEST = 10, 7, 2**20


class Sizes(NamedTuple):
    """What a codec needs for pictures, in bytes.

    Attributes:
      together: With all pictures of a size side by side in one file.
      alone: Integers [N], each picture in a file of its own.
      headers: Integers [N], the parts of these files that are not compressed pixels.
    """

    together: int
    alone: np.ndarray
    headers: np.ndarray


def sizes(pictures, progress=None):
    """What each codec needs for pictures.

    Args:
      pictures: List of N integer arrays [H, W, C] in [0, 65535], all uint8 or none.
      progress: Function (done, total), called after each file.

    Returns:
      {name of a codec: Sizes}. WebP is there for 8-bit grey and RGB only.
    """
    groups = {}
    for picture in pictures:
        groups.setdefault(picture.shape, []).append(picture)
    groups = [np.stack(group) for group in groups.values()]
    names = [*picture_codecs.codecs(groups[0]), "JPEG XL"]
    total, done, found = len(names) * (len(groups) + len(pictures)), 0, {}
    for name in names:
        files = []
        for images in (*groups, *(picture[np.newaxis] for picture in pictures)):
            files.append(encoded(images, name))
            done += 1
            if progress is not None:
                progress(done, total)
        alone = files[len(groups) :]
        headers = [len(file) - _payload(file, name) for file in alone]
        together = sum(map(len, files[: len(groups)]))
        found[name] = Sizes(together, np.array(list(map(len, alone))), np.array(headers))
    return found


def encoded(images, name):
    """The file of a codec with all images side by side.

    Args:
      images: Integers [N, H, W, C], as in `picture_codecs.codec_file`.
      name: "PNG", "WebP" or "JPEG XL".

    Returns:
      Bytes.
    """
    if name != "JPEG XL":
        return picture_codecs.codec_file(images, name)
    mosaic = picture_codecs.mosaic(images)
    effort = _STRONGEST if mosaic.size <= _MOST_FOR_STRONGEST else _FASTER
    return imagecodecs.jpegxl_encode(mosaic, lossless=True, effort=effort, usecontainer=False)


def _payload(file, name):
    """Number of bytes of compressed pixels in a file.

    PNG and WebP keep them in parts of their own. The codestream of JPEG XL has no such parts: its
    header is counted as that of a picture of one black pixel, which has nearly nothing else.
    """
    if name == "PNG":
        size, position = 0, 8
        while position < len(file):
            length, kind = struct.unpack_from(">I4s", file, position)
            size += length if kind == b"IDAT" else 0
            position += 12 + length
        return size
    if name == "WebP":
        return struct.unpack_from("<I", file, 16)[0]
    # Of more than 8 bits it is in a container, which is a header too.
    dtype = np.uint8 if file.startswith(b"\xff\x0a") else np.uint16
    one_pixel = np.zeros((1, 1), dtype)
    return len(file) - len(imagecodecs.jpegxl_encode(one_pixel, lossless=True, usecontainer=False))
