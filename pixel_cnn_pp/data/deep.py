"""Reads pictures of more than 8 bits of which Pillow keeps only 8, or which it scales.

imagecodecs decodes PNG, JPEG 2000 and AVIF. PGM and PPM are plain enough to be read here.
"""

import re
import struct

import numpy as np

_NETPBM = re.compile(rb"P([2356])(?:\s+|#[^\n]*\n)+")
_NUMBER = re.compile(rb"(\d+)(?:\s|#[^\n]*\n)(?:\s+|#[^\n]*\n)*")


def jpeg2000_bits(file):
    """The number of bits of a JPEG 2000 file.

    Args:
      file: An open binary file. Its place in the file is kept.
    Returns:
      Whole number.
    Raises:
      ValueError: If the channels have different numbers of bits, or sizes, or a sign.
    """
    start = file.read(2**16)
    file.seek(0)
    place = start.find(b"\xff\x4f\xff\x51")  # Start of the codestream, and its size segment.
    if place < 0:
        raise ValueError("broken JPEG 2000 file")
    (num_channels,) = struct.unpack_from(">H", start, place + 40)
    channels = start[place + 42 : place + 42 + 3 * num_channels]
    kinds = {channels[3 * i : 3 * i + 3] for i in range(num_channels)}
    if len(kinds) != 1 or (kind := kinds.pop())[0] & 128 or kind[1:] != b"\x01\x01":
        raise ValueError("the channels of a JPEG 2000 must be of one kind, and not negative")
    return kind[0] + 1


def avif_bits(file):
    """The number of bits of an AVIF file: 8, 10 or 12. The file is as in `jpeg2000_bits`."""
    start = file.read(2**16)
    file.seek(0)
    place = start.find(b"av1C")
    if place < 0:
        return 8
    flags = start[place + 6]
    return 8 if not flags & 64 else 12 if flags & 32 else 10


def decode(encoded, format_):
    """The pixels [H, W, C] of a PNG, JPEG2000 or AVIF, as they are stored.

    Args:
      encoded: The bytes of a file.
      format_: Pillow's name of its format.
    Returns:
      Integer array.
    Raises:
      ValueError: If it cannot be decoded.
    """
    import imagecodecs

    codecs = {
        "PNG": imagecodecs.png_decode,
        "JPEG2000": imagecodecs.jpeg2k_decode,
        "AVIF": imagecodecs.avif_decode,
    }
    return codecs[format_](encoded)


def netpbm_start(file):
    """What the start of a PGM or PPM says, or None for another file.

    Args:
      file: As in `jpeg2000_bits`.
    Returns:
      Width, height, C, the highest level, whether the pixels are text, and where they start.
    """
    start = file.read(2**12)
    file.seek(0)
    kind = _NETPBM.match(start)
    if kind is None:
        return None
    numbers, place = [], kind.end()
    for is_last in (False, False, True):
        # One space ends the last number: what follows may look like a space too.
        number = re.compile(rb"(\d+)\s").match(start, place) if is_last else None
        number = number or _NUMBER.match(start, place)
        if number is None:
            raise ValueError("broken PGM or PPM file")
        numbers.append(int(number[1]))
        place = number.end()
    width, height, highest = numbers
    if not (0 < highest < 65536 and width and height):
        raise ValueError("broken PGM or PPM file")
    return width, height, 3 if kind[1] in b"36" else 1, highest, kind[1] in b"23", place


def netpbm_pixels(encoded, start):
    """The pixels [H, W, C] of a PGM or PPM, as they are stored.

    Args:
      encoded: The bytes of a file.
      start: The result of `netpbm_start`.
    Returns:
      Integer array.
    Raises:
      ValueError: If pixels are missing, or above the highest level.
    """
    width, height, num_channels, highest, is_text, place = start
    size = width * height * num_channels
    if is_text:
        text = re.sub(rb"#[^\n]*", b"", encoded[place:]).split()
        values = np.array([int(number) for number in text[:size]], np.int64)
    else:
        dtype = np.dtype(">u2" if highest > 255 else np.uint8)
        values = np.frombuffer(encoded[place : place + size * dtype.itemsize], dtype)
    if values.size < size:
        raise ValueError("image file is truncated")
    if values.max() > highest or values.min() < 0:
        raise ValueError(f"the pixels of a PGM or PPM must be at most {highest}")
    return values.reshape(height, width, num_channels)
