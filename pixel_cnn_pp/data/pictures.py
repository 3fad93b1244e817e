"""Reads picture files as integer arrays without loss, and refuses damaged files.

Pillow reads all kinds of pictures but these: tiff.py reads TIFF, and deep.py reads pictures of more
than 8 bits.
"""

import io
import re

import numpy as np
from PIL import Image

from pixel_cnn_pp.data import deep, tiff
from pixel_cnn_pp.data.headers import Header, not_levels

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")
_CHANNELS = {"1": 1, "L": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def read_header(file):
    """Reads the properties of a picture file, without its pixels.

    Args:
      file: Path, or the bytes of a file.
    Returns:
      Header.
    Raises:
      ValueError: If it is not a picture, or its pixels are no levels.
      OSError: If the file does not exist or may not be read.
    """
    return _with_errors(_read_header, file)


def _read_header(stream):
    start = _start(stream)
    if start in tiff.STARTS:
        return tiff.read_header(stream)
    if start.startswith(b"P") and (netpbm := deep.netpbm_start(stream)):
        return _netpbm_header(netpbm)
    with Image.open(stream, formats=_FORMATS) as picture:
        return _header(picture, stream)


def read(file):
    """Reads the images of a picture file: the pages of a TIFF, or the only or first frame.

    Palette indices are replaced by their colours. Otherwise pixels are returned as they are stored:
    colour profiles, gamma and the orientation of the camera are not applied. White is the highest
    level, also in a TIFF where white is zero.

    Args:
      file: Path, or the bytes of a file.
    Returns:
      Pair of an integer array [P, H, W, C], uint8 for at most 8 bits and otherwise uint16, and the
      Header.
    Raises:
      ValueError: If it is not a complete picture, or its pixels are no levels.
      OSError: If the file does not exist or may not be read.
    """
    return _with_errors(_read, file)


def _read(stream):
    start = _start(stream)
    if start in tiff.STARTS:
        return tiff.read(stream)
    if start.startswith(b"P") and (netpbm := deep.netpbm_start(stream)):
        header, pixels = _netpbm_header(netpbm), deep.netpbm_pixels(stream.read(), netpbm)
    else:
        with Image.open(stream, formats=_FORMATS) as picture:
            # First, because Pillow drops the number of bits when it loads.
            header = _header(picture, stream)
            pixels = _pixels(picture, header, stream)
    pixels = pixels.reshape(1, header.height, header.width, header.num_channels)
    return pixels.astype(np.uint8 if header.num_bits <= 8 else np.uint16, copy=False), header


def decoder(convert):
    """Makes a function that reads a file and converts it, for files of which some are damaged.

    Args:
      convert: Function (name, pixels [H, W, C], Header), called with each image of `read`.
    Returns:
      Function (name, file) -> the results of `convert`, a list. If the file cannot be read, it
      returns the reason, a string.
    """

    def decode(name, file):
        try:
            pages, header = read(file)
        except (ValueError, OSError) as error:
            return _reason(error)
        return [convert(name, pixels, header) for pixels in pages]

    return decode


def try_header(file):
    """As `read_header`, but if the file cannot be read, it returns the reason, a string."""
    try:
        return read_header(file)
    except (ValueError, OSError) as error:
        return _reason(error)


def _reason(error):
    """The text of an error without the name of the file, which the caller prints before it."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def without_opaque_alpha(pixels, header):
    """Removes the alpha channel of pixels [..., C] if all of them are opaque."""
    if header.has_alpha and pixels[..., -1].min() == 2**header.num_bits - 1:
        return pixels[..., :-1]
    return pixels


def _with_errors(function, file):
    """Calls a function with a file, opened. What a codec raises, maybe anything, gets one line."""
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as stream:
            return function(stream)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except MemoryError:
        raise ValueError("too large for the memory") from None
    except Exception as error:
        # Pillow's message names the file or its memory address. The caller adds the file name.
        reason = re.sub(r"image file ('.*'|<.*>)", "image file", " ".join(str(error).split()))
        raise ValueError(reason[:200] or type(error).__name__) from None


def _start(stream):
    start = stream.read(4)
    stream.seek(0)
    return start


def _netpbm_header(start):
    width, height, num_channels, highest, _, _ = start
    return Header(height, width, num_channels, highest.bit_length())


def _header(picture, stream):
    mode, raw_mode, num_bits = picture.mode, picture.mode, 8
    if picture.format == "PNG" and picture.tile:
        raw_mode = picture.tile[0].args
    if mode in ("P", "PA"):
        mode = "RGB"
    elif mode == "1":
        num_bits = 1
    elif picture.format == "JPEG2000":
        num_bits = _without_moving(stream, deep.jpeg2000_bits)
    elif picture.format == "AVIF":
        num_bits = _without_moving(stream, deep.avif_bits)
    elif bits := re.search(r";(\d+)", raw_mode):  # such as L;4 and RGB;16B
        num_bits = int(bits[1])
    if num_bits == 16 and raw_mode.startswith("LA"):
        mode = "LA"  # Pillow reads 16-bit grey with alpha as RGBA.
    if mode not in _CHANNELS or num_bits > 16:
        raise not_levels(raw_mode)
    num_channels = _CHANNELS[mode]
    has_alpha = num_channels in (2, 4)
    # A colour that stands for what is clear, or colours of a palette with alpha.
    if not has_alpha and picture.has_transparency_data:
        num_channels, has_alpha = num_channels + 1, True
    is_animated = picture.format != "MPO" and getattr(picture, "is_animated", False)
    return Header(
        picture.height, picture.width, num_channels, num_bits, has_alpha, is_animated=is_animated
    )


def _without_moving(stream, function):
    """Calls a function with a stream from its start, and brings it back to where it was."""
    place = stream.tell()
    stream.seek(0)
    found = function(stream)
    stream.seek(place)
    return found


def _pixels(picture, header, stream):
    is_deep = header.num_bits > 8 and (header.num_channels > 1 or picture.format != "PNG")
    if is_deep or (picture.format == "JPEG2000" and header.num_bits < 8):
        stream.seek(0)
        pixels = deep.decode(stream.read(), picture.format)
        expected = (header.height, header.width, header.num_channels)
        found = (*pixels.shape, 1)[:3]
        if found != expected:
            raise ValueError(f"pixels of shape {found}, where the header says {expected}")
        return pixels
    picture.load()
    if picture.mode in ("P", "PA"):
        return np.asarray(picture.convert("RGBA" if header.has_alpha else "RGB"))
    pixels = np.asarray(picture)
    if picture.mode == "L":  # Pillow scales images of fewer bits to 0 .. 255.
        pixels = pixels // (255 // (2 ** min(header.num_bits, 8) - 1))
    key = picture.info.get("transparency") if picture.mode in ("1", "L", "RGB", "I;16") else None
    if not header.has_alpha or key is None:
        return pixels
    pixels = pixels.reshape(header.height, header.width, -1)
    if picture.mode == "1":
        key = key > 0  # Pillow says 255 for 1.
    clear = (pixels == np.array(key, np.int64)).all(axis=-1, keepdims=True)
    alpha = np.where(clear, 0, 2**header.num_bits - 1)
    return np.concatenate([pixels, alpha], axis=-1)
