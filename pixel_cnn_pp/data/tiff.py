"""Reads TIFF files with tifffile: any number of bands and pages, every bit kept.

Each page of a file is one image, in the order of the file. Pages that are marked as thumbnails or
as masks are none. In a stack of ImageJ that has a single page for many images, each of them counts.
"""

import dataclasses
import logging
import math

import numpy as np

from pixel_cnn_pp.data.headers import Header, not_levels

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # The last two of BigTIFF.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG = (6, 7)
_UNSIGNED, _SIGNED = 1, 2
_MULTIPLIED_ALPHA, _ALPHA = 1, 2
_REDUCED, _MASK = 1, 4  # Bits of the type of a page.

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # Its warnings are of tags, not pixels.


def read_header(file):
    """The Header of a TIFF.

    Args:
      file: An open binary file.
    Returns:
      Header.
    Raises:
      ValueError: If its pixels are no levels, or its pages are of several kinds.
    """
    with _opened(file) as tiff:
        return _read(tiff, None)


def read(file):
    """The images [P, H, W, C] of a TIFF, an open binary file, and its Header."""
    pixels = []
    with _opened(file) as tiff:
        header = _read(tiff, pixels)
    return np.concatenate(pixels), header


def _opened(file):
    import tifffile

    # Other files that an OME-TIFF names are images of their own.
    return tifffile.TiffFile(file, is_ome=False)


def _pages(tiff):
    return [page for page in tiff.pages if not page.subfiletype & (_REDUCED | _MASK)]


def _header(page):
    bits, format_, samples = page.bitspersample, page.sampleformat, page.samplesperpixel
    photometric = page.photometric
    if page.imagedepth != 1 or isinstance(bits, tuple) or page.dtype is None:
        raise not_levels(f"{page.dtype} of {bits} bits")
    if format_ not in (_UNSIGNED, _SIGNED) or bits > 16:
        raise not_levels(page.dtype.name)
    is_jpeg = page.compression in _JPEG
    if photometric == _YCBCR and is_jpeg and samples == 3:
        photometric = _RGB  # The decoder makes it so.
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE):
        raise not_levels(getattr(photometric, "name", photometric))
    if photometric == _PALETTE:
        if page.colormap is None or samples != 1:
            raise not_levels("a palette without colours")
        return Header(page.imagelength, page.imagewidth, 3, _bits_of_colours(page.colormap))
    # A signed number that is not negative has a bit less.
    num_bits = bits - (format_ == _SIGNED)
    extra = page.extrasamples[-1] if page.extrasamples else None
    if extra == _MULTIPLIED_ALPHA:
        # Colours that were multiplied by alpha cannot be recovered exactly.
        raise not_levels("multiplied by alpha")
    return Header(page.imagelength, page.imagewidth, samples, num_bits, extra == _ALPHA)


def _bits_of_colours(colours):
    """8 if the colours of a palette, stored with 16 bits, have only 8."""
    high, low = colours >> 8, colours & 255
    return 8 if (low == 0).all() or (low == high).all() else 16


def _read(tiff, pixels):
    """The Header of a file; its images are appended to `pixels` unless that is None."""
    pages = _pages(tiff)
    if not pages:
        raise ValueError("a TIFF must have a page that is no thumbnail")
    headers = {_header(page) for page in pages}
    if len(headers) > 1:
        kinds = ", ".join(sorted(f"{each.height} x {each.width} {each}" for each in headers))
        raise ValueError(f"the pages of a TIFF must be of one size and kind, not {kinds}")
    (header,) = headers
    num_pages = _num_images(tiff, pages)
    if pixels is not None:
        for page in pages:
            _check_whole(page, tiff.filehandle.size)
        found = [pages[0].asarray(maxworkers=1)]
        if num_pages > len(pages):
            found = [tiff.series[0].asarray(maxworkers=1).reshape(num_pages, *found[0].shape)]
        else:
            found = [found[0][np.newaxis]]
            found += [page.asarray(maxworkers=1)[np.newaxis] for page in pages[1:]]
        pixels += [_levels(part, pages[0], header) for part in found]
    return dataclasses.replace(header, num_pages=num_pages)


def _num_images(tiff, pages):
    """The number of images: of pages, or of those that follow a single page without one."""
    if len(pages) > 1 or not (tiff.is_imagej or tiff.is_shaped) or len(tiff.series) != 1:
        return len(pages)
    return max(1, tiff.series[0].size // max(1, math.prod(pages[0].shape)))


def _check_whole(page, size):
    """Refuses a page of which a part is missing: tifffile would fill it up."""
    offsets, counts = np.array(page.dataoffsets), np.array(page.databytecounts)
    num_parts = math.prod(page.chunked)
    if min(len(offsets), len(counts)) < num_parts or len(offsets) != len(counts):
        raise ValueError("image file is truncated")
    if (counts <= 0).any() or (offsets + counts > size).any():
        raise ValueError("image file is truncated")


def _levels(values, page, header):
    """Levels [n, H, W, C] from the values [n, ...] of pages."""
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        values = np.moveaxis(values, 1, -1)
    if page.photometric == _PALETTE:
        colours = page.colormap >> 8 if header.num_bits == 8 else page.colormap
        values = np.moveaxis(colours[:, values], 0, -1)
    if values.dtype.kind == "i" and values.min() < 0:
        raise not_levels(f"negative as {values.min()}")
    shape = (len(values), header.height, header.width, header.num_channels)
    values = values.reshape(shape).astype(np.uint8 if header.num_bits <= 8 else np.uint16)
    if page.photometric == _WHITE_IS_ZERO:
        values = values.dtype.type(2**header.num_bits - 1) - values
    return values
