"""The file of compressed images. docs/compression.md describes it byte by byte.

    magic, version, length of the header, header, digest of all of this; then chunk after chunk

All numbers are little-endian. Reading checks every number before it is used. So a forged file can
neither ask for much memory nor for much time: what it promises is limited by its own length.
"""

import dataclasses
import hashlib
import struct

from pixel_cnn_pp.codec import plan
from pixel_cnn_pp.codec.identity import Identity

MAGIC = b"\x89PCN\r\n\x1a\n"  # as in PNG: a transfer as text would change it
VERSION = 1
# A chunk of n bytes has at most this number times (n + 8) sub-pixels. An encoder adds zeros to a
# chunk that is shorter.
MAX_RATE = 4096
_DIGEST_SIZE = 8
_CHUNK = struct.Struct(f"<I{_DIGEST_SIZE}s{_DIGEST_SIZE}s")
_START = struct.Struct(f"<{len(MAGIC)}sHI")
_MAX_SIDE = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes:
      identity: `identity.Identity`.
      num_channels, num_levels: C and L.
      is_array: Whether the images were given as one array.
      side_multiple: The model's `side_multiple`.
      batch_size: Number of images in a batch.
      tile_shape: (height, width) of a tile, or None for whole pictures.
      shapes: List of (height, width, number of pictures of this size).
      labels: Tuple of integers, one for each picture, or None.
      condition: Digest of another condition than labels, which the file does not have; b"" if
        there is none.
      chunks: List of (number of bytes, digest of the bytes, digest of the pixels).
    """

    identity: Identity
    num_channels: int
    num_levels: int
    is_array: bool
    side_multiple: int
    batch_size: int
    tile_shape: tuple
    shapes: list
    labels: tuple
    condition: bytes
    chunks: list

    @property
    def num_pictures(self):
        """Number of pictures."""
        return sum(number for _, _, number in self.shapes)

    def plan(self):
        """The `plan.Chunk`s that the file has, one after the other."""
        return plan.make(self.shapes, self.tile_shape, self.batch_size, self.side_multiple)


def digest(number, *parts):
    """Digest of the bytes of a chunk, or of its pixels, 8 bytes. `number` is that of the chunk."""
    result = hashlib.blake2b(struct.pack("<I", number), digest_size=_DIGEST_SIZE)
    for part in parts:
        result.update(part)
    return result.digest()


def padded(data, num_sub_pixels):
    """The bytes of a chunk, with zeros up to the least length, see `MAX_RATE`."""
    least = -(-num_sub_pixels // MAX_RATE) - 8
    return data + bytes(max(0, -(-(least - len(data)) // 4) * 4))


def pack(header, chunks):
    """The bytes of a file.

    Args:
      header: Header.
      chunks: List of bytes.

    Returns:
      Bytes.
    """
    own = header.identity
    body = [_text(getattr(own, field.name)) for field in dataclasses.fields(own)]
    body.append(
        struct.pack(
            "<HIBBHII",
            header.num_channels,
            header.num_levels,
            header.is_array,
            header.side_multiple,
            header.batch_size,
            *(header.tile_shape or (0, 0)),
        )
    )
    body.append(struct.pack("<I", len(header.shapes)))
    body += [struct.pack("<III", *shape) for shape in header.shapes]
    label_size = 0
    if header.labels is not None:
        label_size = next(n for n in (1, 2, 4) if max(header.labels) < 256**n)
    body.append(struct.pack("<BB", label_size, len(header.condition)))
    body += [label.to_bytes(label_size, "little") for label in header.labels or ()]
    body.append(header.condition)
    body.append(struct.pack("<I", len(header.chunks)))
    body += [_CHUNK.pack(*chunk) for chunk in header.chunks]
    body = b"".join(body)
    start = _START.pack(MAGIC, VERSION, len(body)) + body
    return b"".join([start, digest(0, start), *chunks])


def unpack(data, allow_damage=False):
    """Reads a file.

    Args:
      data: Bytes.
      allow_damage: Whether chunks may be damaged or missing. The header must be complete.

    Returns:
      (header, chunks), where `chunks` lists the bytes of each chunk. With `allow_damage`, a chunk
      that is damaged is a text that says why.

    Raises:
      ValueError: If the file is damaged, truncated, or not such a file.
    """
    data = memoryview(data).cast("B")
    if len(data) < _START.size or bytes(data[: len(MAGIC)]) != MAGIC:
        raise ValueError(
            "The file must be one that `compress` made. "
            f"Received: {len(data)} bytes that start with {bytes(data[:8])!r}"
        )
    _, version, length = _START.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"The version of the file must be {VERSION}. Received: {version}")
    end = _START.size + length
    if len(data) < end + _DIGEST_SIZE:
        raise ValueError(
            f"The file must have all of its header. Received: a truncated or altered file of "
            f"{len(data)} bytes"
        )
    if digest(0, data[:end]) != data[end : end + _DIGEST_SIZE]:
        raise ValueError("The header must be as it was written. Received: an altered file")
    header = _read_header(_Reader(data[_START.size : end]))
    rest = data[end + _DIGEST_SIZE :]
    expected = sum(chunk[0] for chunk in header.chunks)
    if len(rest) > expected or (len(rest) < expected and not allow_damage):
        kind = "longer" if len(rest) > expected else "truncated"
        raise ValueError(
            f"The file must have {expected} bytes after its header. "
            f"Received: a {kind} or altered file with {len(rest)}"
        )
    chunks, start = [], 0
    for number, (size, expected, _) in enumerate(header.chunks):
        chunk = bytes(rest[start : start + size])
        start += size
        if digest(number, chunk) != expected:
            chunk = f"chunk {number} is truncated or altered"
            if not allow_damage:
                raise ValueError(f"The file must be as it was written. Received: {chunk}")
        chunks.append(chunk)
    return header, chunks


class _Reader:
    """Reads numbers and texts of a header, one after the other."""

    def __init__(self, data):
        self._data, self._position = data, 0

    def bytes(self, size):
        taken = bytes(self._data[self._position : self._position + size])
        if len(taken) < size:
            raise _invalid("it ends too early")
        self._position += size
        return taken

    def numbers(self, layout):
        layout = struct.Struct("<" + layout)
        return layout.unpack(self.bytes(layout.size))

    def text(self):
        (size,) = self.numbers("H")
        try:
            return self.bytes(size).decode()
        except UnicodeDecodeError:
            raise _invalid("a text is not UTF-8") from None

    @property
    def left(self):
        return len(self._data) - self._position


def _read_header(reader):
    own = Identity(*(reader.text() for _ in dataclasses.fields(Identity)))
    channels, levels, is_array, multiple, batch_size, *tile = reader.numbers("HIBBHII")
    is_valid = channels >= 1 and 2 <= levels <= 65536 and is_array <= 1 and multiple >= 1
    if not is_valid or not 1 <= batch_size <= plan.MAX_BATCH:
        raise _invalid("channels, levels or the batch are out of range")
    if min(tile) == 0 < max(tile) or max(tile) > _MAX_SIDE:
        raise _invalid("a tile has no size")
    tile = tuple(tile) if min(tile) > 0 else None
    (num_shapes,) = reader.numbers("I")
    if not 1 <= num_shapes <= reader.left // 12:
        raise _invalid("the sizes of the pictures are missing")
    shapes = [reader.numbers("III") for _ in range(num_shapes)]
    if any(min(shape) < 1 or max(shape) > _MAX_SIDE for shape in shapes):
        raise _invalid("a picture has no size")
    if is_array and num_shapes > 1:
        raise _invalid("pictures of an array have one size")
    num_pictures = sum(number for _, _, number in shapes)
    label_size, condition_size = reader.numbers("BB")
    labels = None
    if label_size:
        if label_size not in (1, 2, 4) or num_pictures * label_size > reader.left:
            raise _invalid("labels are missing")
        packed = reader.bytes(num_pictures * label_size)
        starts = range(0, len(packed), label_size)
        labels = tuple(int.from_bytes(packed[i : i + label_size], "little") for i in starts)
    condition = reader.bytes(condition_size)
    (num_chunks,) = reader.numbers("I")
    if num_chunks * _CHUNK.size != reader.left:
        raise _invalid("the table of the chunks has another length")
    if num_chunks != plan.num_chunks(shapes, tile, batch_size, multiple):
        raise _invalid("there are more or fewer chunks than the pictures need")
    chunks = [_CHUNK.unpack(reader.bytes(_CHUNK.size)) for _ in range(num_chunks)]
    header = Header(
        own, channels, levels, bool(is_array), multiple, batch_size, tile, shapes, labels,
        condition, chunks,
    )  # fmt: skip
    for (size, _, _), chunk in zip(chunks, header.plan(), strict=True):
        check_chunk(chunk, batch_size, channels)
        num_sub_pixels = channels * sum(tile.height * tile.width for tile in chunk.tiles)
        if size % 4 or num_sub_pixels > MAX_RATE * (size + 8):
            raise _invalid("a chunk is too short for its pictures")
    return header


def check_chunk(chunk, batch_size, num_channels):
    """Checks that a chunk is not too large for the memory.

    Raises:
      ValueError: If it is.
    """
    num_sub_pixels = batch_size * chunk.height * chunk.width * num_channels
    if num_sub_pixels > plan.MAX_CHUNK:
        raise ValueError(
            f"Images that are coded side by side must have at most {plan.MAX_CHUNK} sub-pixels; "
            f"smaller tiles or batches have fewer. Received: {batch_size} of {chunk.height} x "
            f"{chunk.width} x {num_channels}"
        )


def _text(value):
    encoded = value.encode()
    return struct.pack("<H", len(encoded)) + encoded


def _invalid(reason):
    return ValueError(f"The header must describe a file of images. Received: one where {reason}")
