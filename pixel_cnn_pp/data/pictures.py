"""Reads picture files as integer arrays without loss, and refuses damaged files.

Pillow reads all kinds of pictures except colour pictures of 16 bits, of which it would keep only
the upper 8 bits. For these, Pillow checks the file and OpenCV reads the values.
"""

import dataclasses
import io
import os
import pathlib
import re

import numpy as np
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_CHANNELS = {"1": 1, "L": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_BITS_PER_SAMPLE = 258  # The number of the TIFF tag.


@dataclasses.dataclass(frozen=True)
class Header:
    """The properties of a picture file that are known before its pixels are read.

    Attributes:
      height: H.
      width: W.
      num_channels: C: 1 for grey, 3 for colour, and one more with alpha.
      num_bits: In [1, 16]. Levels are whole numbers in [0, 2**num_bits - 1].
    """

    height: int
    width: int
    num_channels: int
    num_bits: int

    @property
    def has_alpha(self):
        """Whether the last channel is alpha."""
        return self.num_channels in (2, 4)

    def __str__(self):
        """Channels and bits in words, for messages."""
        kind = "grey" if self.num_channels <= 2 else "RGB"
        return f"{kind}{' with alpha' if self.has_alpha else ''} of {self.num_bits} bits"


def read_header(file):
    """Reads the properties of a picture file, without its pixels.

    Args:
      file: Path, or the bytes of a file.
    Returns:
      Header.
    Raises:
      ValueError: If it is not a picture, or its pixels are not whole numbers in grey or RGB.
      OSError: If the file does not exist or may not be read.
    """
    return _opened(file, _header)


def read(file):
    """Reads a picture file. If the file has several frames, only the first one is read.

    Palette indices are replaced by their colours. Otherwise pixels are returned as they are stored:
    colour profiles, gamma and the orientation of the camera are not applied.

    Args:
      file: Path, or the bytes of a file.
    Returns:
      Pair of an integer array [H, W, C], uint8 for at most 8 bits and otherwise uint16, and the
      Header.
    Raises:
      ValueError: If it is not a complete picture, or its pixels are not whole numbers in grey or
        RGB.
      OSError: If the file does not exist or may not be read.
    """

    def use(picture):
        header = _header(picture)  # First, because Pillow drops the number of bits when it loads.
        return _pixels(picture, header, file), header

    return _opened(file, use)


def decoder(convert):
    """Makes a function that reads a file and converts it, for files of which some are damaged.

    Args:
      convert: Function (name, pixels [H, W, C], Header), called with the results of `read`.
    Returns:
      Function (name, file) -> the result of `convert`. If the file cannot be read, it returns the
      reason, a string.
    """

    def decode(name, file):
        try:
            pixels, header = read(file)
        except (ValueError, OSError) as error:
            return _reason(error)
        return convert(name, pixels, header)

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


@dataclasses.dataclass(frozen=True)
class ListedFile:
    """A picture file of a folder.

    Attributes:
      name: Path relative to the folder, with slashes.
      path: Path of the file.
      label: Name of the top sub-folder that holds the file. None if it is in no sub-folder.
    """

    name: str
    path: str
    label: str | None


def list_folder(folder, prefix=""):
    """Lists the picture files in a folder and its sub-folders, except hidden files.

    Args:
      folder: Folder.
      prefix: String to put before the names.
    Returns:
      List of ListedFile, sorted by name.
    Raises:
      ValueError: If there are no picture files.
    """
    files = []
    for directory, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        sub_folders = pathlib.Path(directory).relative_to(folder).parts
        start = prefix + "".join(f"{part}/" for part in sub_folders)
        label = sub_folders[0] if sub_folders else None
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                files.append(ListedFile(start + name, os.path.join(directory, name), label))
    if not files:
        endings = ", ".join(SUFFIXES)
        raise ValueError(f"A folder must hold pictures ({endings}). Received: {folder} with none")
    return sorted(files, key=lambda file: file.name)


def without_opaque_alpha(pixels, header):
    """Removes the alpha channel of pixels [H, W, C] if all of them are opaque."""
    if header.has_alpha and pixels[..., -1].min() == 2**header.num_bits - 1:
        return pixels[..., :-1]
    return pixels


def _opened(file, use):
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        with Image.open(source, formats=_FORMATS) as picture:
            return use(picture)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # A broken file can raise anything from inside a codec.
        # Pillow's message names the file or its memory address. The caller adds the file name.
        reason = re.sub(r"image file ('.*'|<.*>)", "image file", " ".join(str(error).split()))
        raise ValueError(reason or type(error).__name__) from None


def _header(picture):
    mode, raw_mode, num_bits = picture.mode, picture.mode, 8
    if picture.tile:
        arguments = picture.tile[0].args
        raw_mode = arguments if isinstance(arguments, str) else arguments[0]
    if mode in ("P", "PA"):
        mode = "RGBA" if picture.has_transparency_data else "RGB"
    elif picture.format == "TIFF":
        num_bits = max(picture.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    elif mode == "1":
        num_bits = 1
    elif bits := re.search(r";(\d+)", raw_mode):  # such as L;4 and RGB;16B
        num_bits = int(bits[1])
    if num_bits == 16 and raw_mode.startswith("LA"):
        mode = "LA"  # Pillow reads 16-bit grey with alpha as RGBA.
    # Colours that were multiplied by alpha cannot be recovered exactly.
    if mode not in _CHANNELS or num_bits > 16 or raw_mode.startswith("RGBa"):
        raise ValueError(
            f"pixels must be whole numbers of at most 16 bits, grey or RGB, not {raw_mode}"
        )
    return Header(picture.height, picture.width, _CHANNELS[mode], num_bits)


def _pixels(picture, header, file):
    picture.load()  # Fails for an incomplete file. OpenCV would fill the missing part of a TIFF.
    if header.num_bits > 8 and header.num_channels > 1:
        pixels = _colours_of_16_bits(file, header)
    elif picture.mode in ("P", "PA"):
        pixels = np.asarray(picture.convert("RGBA" if header.has_alpha else "RGB"))
    else:
        pixels = np.asarray(picture)
        if picture.mode == "L":  # Pillow scales images of fewer bits to 0 .. 255.
            pixels = pixels // (255 // (2 ** min(header.num_bits, 8) - 1))
    pixels = pixels.reshape(header.height, header.width, header.num_channels)
    return pixels.astype(np.uint8 if header.num_bits <= 8 else np.uint16)


def _colours_of_16_bits(file, header):
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # no warnings of TIFF tags
    encoded = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    channels = {2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[header.num_channels]  # from B, G, R, A
    expected = (header.height, header.width, max(channels) + 1)
    if pixels is None or pixels.shape != expected or pixels.dtype != np.uint16:
        raise ValueError("colour of 16 bits cannot be decoded")
    return pixels[..., channels]
