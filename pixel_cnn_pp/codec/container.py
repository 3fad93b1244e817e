"""The file of compressed images. docs/compression.md describes it byte by byte.

    magic, version, length of the header, header, digest of all of this; then chunk after chunk

Whole numbers are varints: 7 bits a byte, the lowest first, with the highest bit of a byte set if
another byte follows. Reading checks every number before it is used. So a forged file can
neither ask for much memory nor for much time: what it promises is limited by its own length.
"""

import dataclasses
import hashlib
import struct
import zlib

from pixel_cnn_pp.codec import plan
from pixel_cnn_pp.codec.identity import Identity

MAGIC = b"\x89PCN"  # as in PNG: the first byte is no text
VERSION = 1
# A chunk of n bytes has at most this number times (n + 8) sub-pixels. An encoder adds zeros to a
# chunk that is shorter.
MAX_RATE = 4096
# Sizes of digests: of the model's options and weights; of bytes, before they are decoded; and of
# pixels, after it.
_MODEL_DIGEST, _BYTES_DIGEST, _PIXELS_DIGEST = 8, 4, 8
_MAX_SIDE = 2**31 - 1
# What most files say of their origin. Texts are compressed with it by zlib, to a few bytes.
_USUAL_TEXTS = (
    b"jax 0.6.2, keras 3.12.4\nXLA\ncpu arm64 aarch64 asimd sve\nTensorFlow\nfloat64\n"
    b"mixed_bfloat16\nGated PixelCNN\nRow LSTM\nDiagonal BiLSTM\nPixelCNN\nPixelCNN++\nfloat32\n"
    b"tensorflow 2.21.0, keras 3.12.4\nXLA\n"
    b"cpu x86_64 fma avx2 avx512f avx512_bf16 amx_tile 2 threads\n"
    b"constriction 0.5.0 range coder of 24 bits, perfect=False"
)
_MAX_TEXT = 4096
_DIGESTS = ("configuration", "weights")
_TEXTS = tuple(x.name for x in dataclasses.fields(Identity) if x.name not in _DIGESTS)


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes:
      identity: `identity.Identity`.
      num_channels, num_levels: C and L.
      is_array: Whether the images were given as one array.
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
        return plan.make(self.shapes, self.tile_shape, self.batch_size)


def bytes_digest(number, data):
    """Digest of the bytes of a chunk, by which it is known before it is decoded."""
    return _digest(number, _BYTES_DIGEST, [data])


def pixels_digest(number, pixels):
    """Digest of the pixels of a chunk, a list of bytes, by which they are known afterwards."""
    return _digest(number, _PIXELS_DIGEST, pixels)


def _digest(number, size, parts):
    """BLAKE2b of the number of a chunk and of what is in it."""
    result = hashlib.blake2b(struct.pack("<I", number), digest_size=size)
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
    texts = [getattr(own, name) for name in _TEXTS]
    compressor = zlib.compressobj(9, wbits=-15, zdict=_USUAL_TEXTS)
    texts = compressor.compress("\n".join(texts).encode()) + compressor.flush()
    body = [_varint(len(texts)), texts]
    body += [bytes.fromhex(getattr(own, name)) for name in _DIGESTS]
    body += map(
        _varint,
        (
            header.num_channels,
            header.num_levels,
            header.is_array,
            header.batch_size,
            *(header.tile_shape or (0, 0)),
            len(header.shapes),
            *(number for shape in header.shapes for number in shape),
        ),
    )
    label_size = 0
    if header.labels is not None:
        label_size = next(n for n in (1, 2, 4) if max(header.labels) < 256**n)
    body += [_varint(label_size)]
    body += [label.to_bytes(label_size, "little") for label in header.labels or ()]
    body += [_varint(len(header.condition)), header.condition, _varint(len(header.chunks))]
    for size, *digests in header.chunks:
        body += [_varint(size), *digests]
    body = b"".join(body)
    start = MAGIC + bytes([VERSION]) + _varint(len(body)) + body
    return b"".join([start, _digest(0, _BYTES_DIGEST, [start]), *chunks])


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
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise ValueError(
            "The file must be one that `compress` made. "
            f"Received: {len(data)} bytes that start with {bytes(data[:8])!r}"
        )
    version = bytes(data[len(MAGIC) : len(MAGIC) + 1])
    if version not in (b"", bytes([VERSION])):
        raise ValueError(f"The version of the file must be {VERSION}. Received: {version[0]}")
    reader = _Reader(data[len(MAGIC) + 1 :])
    body = reader.bytes(reader.number())
    end = len(data) - reader.left
    if reader.bytes(_BYTES_DIGEST) != _digest(0, _BYTES_DIGEST, [data[:end]]):
        raise ValueError("The header must be as it was written. Received: an altered file")
    header = _read_header(_Reader(body))
    rest = data[end + _BYTES_DIGEST :]
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
        if bytes_digest(number, chunk) != expected:
            chunk = f"chunk {number} is truncated or altered"
            if not allow_damage:
                raise ValueError(f"The file must be as it was written. Received: {chunk}")
        chunks.append(chunk)
    return header, chunks


class _Reader:
    """Reads numbers and bytes, one after the other."""

    def __init__(self, data):
        self._data, self._position = data, 0

    @property
    def left(self):
        return len(self._data) - self._position

    def bytes(self, size):
        if size > self.left:
            raise ValueError(
                f"The file must have all of its header. Received: a truncated or altered file, "
                f"{size} bytes where {self.left} are left"
            )
        self._position += size
        return bytes(self._data[self._position - size : self._position])

    def number(self):
        """A varint of at most 32 bits."""
        value = 0
        for shift in range(0, 35, 7):
            (byte,) = self.bytes(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if byte >= 0x80 or value >= 2**32:
            raise _invalid("a number has more than 32 bits")
        return value

    def numbers(self, how_many):
        return [self.number() for _ in range(how_many)]


def _read_header(reader):
    own = _read_identity(reader)
    channels, levels, is_array, batch_size, *tile = reader.numbers(6)
    is_valid = 1 <= channels < 2**16 and 2 <= levels <= 65536 and is_array <= 1
    if not is_valid or not 1 <= batch_size <= plan.MAX_BATCH:
        raise _invalid("channels, levels or the batch are out of range")
    if min(tile) == 0 < max(tile) or max(tile) > _MAX_SIDE:
        raise _invalid("a tile has no size")
    tile = tuple(tile) if min(tile) > 0 else None
    num_shapes = reader.number()
    if not 1 <= num_shapes <= reader.left:
        raise _invalid("the sizes of the pictures are missing")
    shapes = [tuple(reader.numbers(3)) for _ in range(num_shapes)]
    if any(min(shape) < 1 or max(shape) > _MAX_SIDE for shape in shapes):
        raise _invalid("a picture has no size")
    if is_array and num_shapes > 1:
        raise _invalid("pictures of an array have one size")
    num_pictures = sum(number for _, _, number in shapes)
    labels, label_size = None, reader.number()
    if label_size:
        if label_size not in (1, 2, 4) or num_pictures * label_size > reader.left:
            raise _invalid("labels are missing")
        packed = reader.bytes(num_pictures * label_size)
        starts = range(0, len(packed), label_size)
        labels = tuple(int.from_bytes(packed[i : i + label_size], "little") for i in starts)
    condition = reader.bytes(reader.number())
    num_chunks = reader.number()
    if num_chunks > reader.left:
        raise _invalid("the table of the chunks is too short")
    if num_chunks != plan.num_chunks(shapes, tile, batch_size):
        raise _invalid("there are more or fewer chunks than the pictures need")
    sizes = (_BYTES_DIGEST, _PIXELS_DIGEST)
    chunks = [(reader.number(), *map(reader.bytes, sizes)) for _ in range(num_chunks)]
    if reader.left:
        raise _invalid("there is something behind the table of the chunks")
    header = Header(
        own, channels, levels, bool(is_array), batch_size, tile, shapes, labels, condition, chunks
    )
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


def _read_identity(reader):
    decompressor = zlib.decompressobj(wbits=-15, zdict=_USUAL_TEXTS)
    try:
        texts = decompressor.decompress(reader.bytes(reader.number()), _MAX_TEXT)
        texts = texts.decode().split("\n")
    except (zlib.error, UnicodeDecodeError):
        raise _invalid("the texts cannot be read") from None
    if len(texts) != len(_TEXTS):
        raise _invalid("a text is missing")
    digests = (reader.bytes(_MODEL_DIGEST).hex() for _ in _DIGESTS)
    return Identity(
        **dict(zip(_TEXTS, texts, strict=True)), **dict(zip(_DIGESTS, digests, strict=True))
    )


def _varint(number):
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _invalid(reason):
    return ValueError(f"The header must describe a file of images. Received: one where {reason}")
