"""The file of compressed images. docs/compression.md describes it byte by byte.

    magic, version, header, digest of all of this; then chunk after chunk

The digest of a file of one chunk, which is often one small picture, covers the chunk too.

Whole numbers are varints: 7 bits a byte, the lowest first, with the highest bit of a byte set if
another byte follows. Reading checks every number before it is used. So a forged file can
neither ask for much memory nor for much time: what it promises is limited by its own length.
"""

import dataclasses
import hashlib
import struct
import zlib

from pixel_cnn_pp.codec import identity, plan

MAGIC = b"\x89PCN"  # as in PNG: the first byte is no text
VERSION = 4
# A chunk of n bytes has at most this number times (n + 8) sub-pixels. An encoder adds zeros to a
# chunk that is shorter.
MAX_RATE = 4096
# Sizes of digests: of bytes, before they are decoded; and of pixels, after it.
_BYTES_DIGEST, _PIXELS_DIGEST = 4, 6
_MAX_SIDE = 2**31 - 1
# What most files say of their origin. Texts are compressed with it by zlib, to a few bytes. Those
# of a machine like one of the last two are one piece of it.
_USUAL_TEXTS = (
    b"jax 0.6.2, keras 3.12.4\nXLA\ncpu arm64 aarch64 asimd sve\nTensorFlow\nfloat64\n"
    b"mixed_bfloat16\nGated PixelCNN\nRow LSTM\nDiagonal BiLSTM\nPixelCNN\n"
    b"cpu x86_64 fma avx2 1 threads\ncpu x86_64 fma avx2 avx512f 2 threads\n"
    + b"".join(
        b"float32\ntensorflow 2.21.0, keras 3.12.4\nXLA\n"
        b"constriction 0.5.0 range coder of 24 bits, perfect=False\n"
        b"cpu x86_64 fma avx2 avx512f avx512_bf16 " + own + b"2 threads\nPixelCNN++\n"
        for own in (b"amx_tile ", b"")
    )
)
_MAX_TEXT = 4096
_TEXTS = ("dtype", "backend", "executor", "coder", "device", "model")
# The bits of the first byte, and by how many places the code of the labels is shifted in it.
_IS_ARRAY, _ONE_SIZE, _HAS_TILES, _HAS_CONDITION, _LABELS_PLACE = 1, 2, 4, 8, 4
_LABEL_SIZES = (0, 1, 2, 4)  # bytes, by their code
# So many levels are written as 0, which is a byte less.
_USUAL_LEVELS = 256
_WORD = 4  # bytes; a chunk has whole words


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

    identity: identity.Identity
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
    return data + bytes(max(0, -(-(least - len(data)) // _WORD) * _WORD))


def pack(header, chunks):
    """The bytes of a file.

    Args:
      header: Header.
      chunks: List of bytes.

    Returns:
      Bytes.
    """
    own, labels = header.identity, header.labels
    texts = "\n".join(getattr(own, name) for name in _TEXTS).encode()
    compressor = zlib.compressobj(9, wbits=-15, zdict=_USUAL_TEXTS)
    texts = compressor.compress(texts) + compressor.flush()
    label_size = 0 if labels is None else next(n for n in (1, 2, 4) if max(labels) < 256**n)
    flags = _IS_ARRAY * header.is_array | _LABEL_SIZES.index(label_size) << _LABELS_PLACE
    flags |= _ONE_SIZE * (len(header.shapes) == 1)
    flags |= _HAS_TILES * (header.tile_shape is not None)
    flags |= _HAS_CONDITION * bool(header.condition)
    numbers = [
        header.num_channels,
        0 if header.num_levels == _USUAL_LEVELS else header.num_levels,
        header.batch_size,
        *(header.tile_shape or ()),
        *([] if len(header.shapes) == 1 else [len(header.shapes)]),
        *(number for shape in header.shapes for number in shape),
    ]
    parts = [MAGIC, bytes([VERSION, flags]), _varint(len(texts)), texts]
    parts += [bytes.fromhex(own.configuration), bytes.fromhex(own.weights), *map(_varint, numbers)]
    parts += [label.to_bytes(label_size, "little") for label in labels or ()]
    parts += [header.condition]
    is_one = len(header.chunks) == 1
    for size, own_bytes, own_pixels in header.chunks:
        parts += [_varint(size // _WORD), b"" if is_one else own_bytes, own_pixels]
    digest = _digest(0, _BYTES_DIGEST, parts + (chunks if is_one else []))
    return b"".join([*parts, digest, *chunks])


def unpack(data, allow_damage=False):
    """Reads a file.

    Args:
      data: Bytes.
      allow_damage: Whether chunks may be damaged or missing, if there are several. The header must
        be complete.

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
    header = _read_header(reader)
    end, digest = len(data) - reader.left, reader.bytes(_BYTES_DIGEST)
    rest = data[end + _BYTES_DIGEST :]
    is_one = len(header.chunks) == 1
    expected = sum(chunk[0] for chunk in header.chunks)
    if len(rest) > expected or (len(rest) < expected and not (allow_damage and not is_one)):
        kind = "longer" if len(rest) > expected else "truncated"
        raise ValueError(
            f"The file must have {expected} bytes after its header. "
            f"Received: a {kind} or altered file with {len(rest)}"
        )
    if digest != _digest(0, _BYTES_DIGEST, [data[:end], *([rest] if is_one else [])]):
        part = "file" if is_one else "header"
        raise ValueError(f"The {part} must be as it was written. Received: an altered file")
    if is_one:
        return header, [bytes(rest)]
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
    """Reads a header. Nothing in it is known to be as it was written."""
    (flags,) = reader.bytes(1)
    if flags >> _LABELS_PLACE >= len(_LABEL_SIZES):
        raise _invalid("the first byte has other bits")
    own = _read_identity(reader)
    channels, levels, batch_size = reader.numbers(3)
    levels = levels or _USUAL_LEVELS
    is_valid = 1 <= channels < 2**16 and 2 <= levels <= 65536
    if not is_valid or not 1 <= batch_size <= plan.MAX_BATCH:
        raise _invalid("channels, levels or the batch are out of range")
    tile = tuple(reader.numbers(2)) if flags & _HAS_TILES else None
    if tile is not None and not 1 <= min(tile) <= max(tile) <= _MAX_SIDE:
        raise _invalid("a tile has no size")
    num_shapes = 1 if flags & _ONE_SIZE else reader.number()
    if not 1 <= num_shapes <= reader.left:
        raise _invalid("the sizes of the pictures are missing")
    shapes = [tuple(reader.numbers(3)) for _ in range(num_shapes)]
    if any(min(shape) < 1 or max(shape) > _MAX_SIDE for shape in shapes):
        raise _invalid("a picture has no size")
    is_array = bool(flags & _IS_ARRAY)
    if is_array and num_shapes > 1:
        raise _invalid("pictures of an array have one size")
    num_pictures = sum(number for _, _, number in shapes)
    labels, label_size = None, _LABEL_SIZES[flags >> _LABELS_PLACE]
    if label_size:
        if num_pictures * label_size > reader.left:
            raise _invalid("labels are missing")
        packed = reader.bytes(num_pictures * label_size)
        starts = range(0, len(packed), label_size)
        labels = tuple(int.from_bytes(packed[i : i + label_size], "little") for i in starts)
    condition = reader.bytes(_PIXELS_DIGEST) if flags & _HAS_CONDITION else b""
    num_chunks = plan.num_chunks(shapes, tile, batch_size)
    if num_chunks > reader.left:
        raise _invalid("the table of the chunks is too short")
    chunks, bytes_digest = [], 0 if num_chunks == 1 else _BYTES_DIGEST
    for _ in range(num_chunks):
        size = _WORD * reader.number()
        chunks.append((size, reader.bytes(bytes_digest), reader.bytes(_PIXELS_DIGEST)))
    header = Header(
        own, channels, levels, is_array, batch_size, tile, shapes, labels, condition, chunks
    )
    for (size, _, _), chunk in zip(chunks, header.plan(), strict=True):
        check_chunk(chunk, batch_size, channels)
        num_sub_pixels = channels * sum(tile.height * tile.width for tile in chunk.tiles)
        if num_sub_pixels > MAX_RATE * (size + 8):
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
    sizes = (identity.CONFIGURATION_DIGEST, identity.WEIGHTS_DIGEST)
    configuration, weights = (reader.bytes(size).hex() for size in sizes)
    return identity.Identity(
        **dict(zip(_TEXTS, texts, strict=True)), configuration=configuration, weights=weights
    )


def _varint(number):
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _invalid(reason):
    return ValueError(f"The header must describe a file of images. Received: one where {reason}")
