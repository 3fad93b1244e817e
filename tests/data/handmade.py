"""Writes picture files by the letter of their specifications, without any library."""

import struct
import zlib

import numpy as np


def png(pixels, num_bits, colour_type, key=None):
    """A PNG: rows with filter 0, big-endian; `key` is the colour that stands for what is clear."""
    height, width, _ = pixels.shape
    data = b"".join(b"\0" + packed(row, num_bits, ">") for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, num_bits, colour_type, 0, 0, 0))]
    if key is not None:
        chunks.append((b"tRNS", np.asarray(key, ">u2").tobytes()))
    chunks += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def packed(row, num_bits, order):
    """A row of samples, each of `num_bits` bits, the most significant first; ends with a byte."""
    if row.dtype.kind == "f" or num_bits in (8, 16, 32):
        return row.astype(row.dtype.newbyteorder(order)).tobytes()
    bits = (row.reshape(-1, 1).astype(np.int64) >> np.arange(num_bits)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()


def tiff(*pages, order="<"):
    """A TIFF of pages, each of them the arguments of `_page`."""
    out = bytearray({"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 0))
    link = 4  # Where the place of the next page belongs.
    for page in pages:
        strips, entries = _page(order=order, **page)
        places = []
        for strip in strips:
            places.append(len(out))
            out += strip + b"\0" * (len(strip) % 2)
        entries += [(273, 4, places), (279, 4, [len(strip) for strip in strips])]
        fields = []
        for tag, kind, values in sorted(entries):
            size = {2: 1, 3: 2, 4: 4}[kind]
            form = {2: "B", 3: "H", 4: "I"}[kind]
            body = struct.pack(f"{order}{len(values)}{form}", *values)
            if size * len(values) > 4:
                place = len(out)
                out += body + b"\0" * (len(body) % 2)
                body = struct.pack(f"{order}I", place)
            fields.append(struct.pack(f"{order}HHI", tag, kind, len(values)) + body.ljust(4, b"\0"))
        struct.pack_into(f"{order}I", out, link, len(out))
        out += struct.pack(f"{order}H", len(fields)) + b"".join(fields)
        link = len(out)
        out += b"\0" * 4
    return bytes(out)


def _page(
    pixels,
    num_bits=None,
    order="<",
    photometric=None,
    planar=1,
    extra=(),
    sample_format=1,
    deflated=False,
    rows_per_strip=3,
    orientation=None,
    colours=None,
    kind=None,
    text=None,
):
    """The strips of an image [H, W, S], and its tags [(number, type, values)]."""
    height, width, samples = pixels.shape
    num_bits = num_bits or 8 * pixels.itemsize
    if photometric is None:
        photometric = 2 if samples - len(extra) == 3 else 1
    planes = [pixels] if planar == 1 else [pixels[..., i : i + 1] for i in range(samples)]
    strips = [
        b"".join(packed(row, num_bits, order) for row in plane[start : start + rows_per_strip])
        for plane in planes
        for start in range(0, height, rows_per_strip)
    ]
    if deflated:
        strips = [zlib.compress(strip) for strip in strips]
    entries = [
        (256, 3, [width]),
        (257, 3, [height]),
        (258, 3, [num_bits] * samples),
        (259, 3, [8 if deflated else 1]),
        (262, 3, [photometric]),
        (277, 3, [samples]),
        (278, 3, [rows_per_strip]),
        (284, 3, [planar]),
        (339, 3, [sample_format] * samples),
    ]
    if extra:
        entries.append((338, 3, list(extra)))
    if orientation is not None:
        entries.append((274, 3, [orientation]))
    if colours is not None:
        entries.append((320, 3, list(np.asarray(colours).T.reshape(-1))))
    if kind is not None:
        entries.append((254, 4, [kind]))
    if text is not None:
        entries.append((270, 2, [*text.encode(), 0]))
    return strips, entries


def netpbm(pixels, highest, comment=b"# by hand\n"):
    """A PGM or PPM in bytes."""
    height, width, channels = pixels.shape
    start = b"P%d\n%s%d %d\n%d\n" % (5 if channels == 1 else 6, comment, width, height, highest)
    return start + pixels.astype(">u2" if highest > 255 else np.uint8).tobytes()


def netpbm_text(pixels, highest):
    """A PGM or PPM in text."""
    height, width, channels = pixels.shape
    values = " ".join(map(str, pixels.reshape(-1)))
    return f"P{2 if channels == 1 else 3} {width} {height} {highest}\n{values}\n".encode()


def pbm(pixels):
    """A PBM, in which 1 is black: of levels [H, W, 1] with 1 for white."""
    height, width, _ = pixels.shape
    return b"P4\n%d %d\n" % (width, height) + b"".join(packed(1 - row, 1, ">") for row in pixels)
