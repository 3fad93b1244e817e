"""Images to bytes and back."""

import concurrent.futures
import dataclasses
import time
from typing import NamedTuple

import numpy as np

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.codec import arguments, container, identity, plan, stages
from pixel_cnn_pp.models import inputs
from pixel_cnn_pp.models.stages import multiple
from pixel_cnn_pp.sampling import draw


class Report(NamedTuple):
    """What `compress_and_report` did.

    Attributes:
      header_bytes: Length of all of the file but the chunks.
      chunk_bytes: Length of each chunk.
      bits: Floats [N], the code length of each picture by its integer frequencies, in bits. The
        chunks together are this long, up to some bytes for each chunk.
      alone_bytes: Integers [N], computed length of a file with only this picture: its code length,
        in whole words of the coder, and a header.
      alone_header_bytes: Integers [N], the part of it that is the header.
      coder_share: Share of the time that the range coder took.
    """

    header_bytes: int
    chunk_bytes: list
    bits: np.ndarray
    alone_bytes: np.ndarray
    alone_header_bytes: np.ndarray
    coder_share: float


@inputs.takes_labels
def compress(
    model,
    images,
    condition=None,
    tile_shape=None,
    batch_size=None,
    verify=False,
    progress=None,
):
    """Compresses images without loss, to about -log2 p(image) bits each.

    Images are coded in batches. Each batch is a chunk of the file. If a chunk is damaged later, the
    other chunks can still be decoded, see `salvage`.

    The result can be decoded with the same model, by the same versions of the libraries, on the
    same kind of device. docs/compression.md says more.

    Args:
      model: `models.AutoregressiveModel` with a likelihood.
      images: Integers [N, H, W, C] in [0, L - 1], or a list of N arrays [H, W, C] of any sizes.
        Height and width may be any numbers.
      condition: What the images are conditioned on, one for each: labels [N], which the file keeps;
        or real vectors [N, D] or pictures [N, h, w, c], which `decompress` must be given again.
        Pictures need an array of images, and no tiles. None for an unconditional model. `labels=`
        is another name for it.
      tile_shape: (height, width). Larger images are divided into tiles of this size, which are
        coded independently. None codes whole images, at the length that `model.log_prob` says. For
        a chain, both must be multiples of the factor by which its first picture is smaller.
      batch_size: Number of images or tiles that are coded side by side. None for a number that
        suits the machine. A last batch that is not full takes as long as a full one.
      verify: Whether to decode everything, to make sure. It takes twice as long.
      progress: Function (done, total), called from time to time with the number of coded rows and
        of all rows. None for no calls.

    Returns:
      Bytes.

    Raises:
      ValueError: If the model has no likelihood, if an argument does not fit it, or if `verify`
        finds a difference.

    Example:

    >>> from pixel_cnn_pp import ModelConfig, PixelCNNPP
    >>> config = ModelConfig((4, 4, 1), nr_filters=4, receptive_field="11x5")
    >>> model = PixelCNNPP(config)
    >>> images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    >>> bool((decompress(model, compress(model, images)) == images).all())
    True
    """
    arguments = (model, images, condition, tile_shape, batch_size, verify, progress)
    return compress_and_report(*arguments)[0]


@inputs.takes_labels
def compress_and_report(
    model, images, condition=None, tile_shape=None, batch_size=None, verify=False, progress=None
):
    """As `compress`. Returns the bytes and a Report."""
    start = time.perf_counter()
    model.likelihood.require_log_prob()
    pictures, is_array = arguments.pictures_of(model, images)
    shapes = plan.grouped([picture.shape[:2] for picture in pictures])
    tile_shape = arguments.checked_tile_shape(model, tile_shape)
    condition = arguments.condition_of(model, condition, shapes, is_array, tile_shape)
    tile_shape = _needed(tile_shape, shapes)
    config = model.config
    if batch_size is None:
        batch_size = draw.batching(plan.num_tiles(shapes, tile_shape))
    elif not 1 <= batch_size <= plan.MAX_BATCH:
        raise ValueError(
            f"`batch_size` must be a whole number in [1, {plan.MAX_BATCH}]. "
            f"Received: batch_size={batch_size!r}"
        )
    header = container.Header(
        identity.of(model),
        config.image_shape[-1],
        config.num_levels,
        is_array,
        batch_size,
        tile_shape,
        shapes,
        arguments.labels_of(model, condition),
        arguments.condition_digest(model, condition),
        [],
    )
    _check_chunks(model, header)
    passes = 2 if verify else 1
    report = _reporter(model, header, progress, passes)

    def encode(numbered):
        number, chunk = numbered
        own = plan.condition_of(chunk, batch_size, condition)
        levels, sides = plan.canvas(chunk, batch_size, header.num_channels)
        for index, tile in enumerate(chunk.tiles):
            levels[: tile.height, : tile.width, index] = tile.of(pictures[tile.picture])
        data, chunk_bits, chunk_seconds = stages.encode(model, levels, sides, own, report)
        pixels = _pixels(header, chunk, levels)
        num_sub_pixels = sum(map(len, pixels)) // _bytes_per_level(header)
        data = container.padded(data, num_sub_pixels)
        digest = container.pixels_digest(number, pixels)
        if verify:
            _decode(model, header, number, chunk, own, data, digest, report)
        return data, (container.bytes_digest(number, data), digest), chunk_bits, chunk_seconds

    bits, chunks, seconds = np.zeros(len(pictures)), [], 0.0
    numbered = enumerate(_chunks(model, header))
    for chunk, coded in zip(header.plan(), _in_parallel(encode, numbered), strict=True):
        data, digests, chunk_bits, chunk_seconds = coded
        header.chunks.append((len(data), *digests))
        chunks.append(data)
        seconds += chunk_seconds
        for tile, tile_bits in zip(chunk.tiles, chunk_bits, strict=False):
            bits[tile.picture] += tile_bits
    data = container.pack(header, chunks)
    chunk_bytes = [len(chunk) for chunk in chunks]
    share = (
        passes * seconds / ((time.perf_counter() - start) * min(draw.num_workers(), len(chunks)))
    )
    words = np.ceil(bits / 32).astype(int)
    alone = _headers_alone(header, [picture.shape[:2] for picture in pictures], words)
    with_header = alone + 4 * words
    own_header = len(data) - sum(chunk_bytes)
    return data, Report(own_header, chunk_bytes, bits, with_header, alone, share)


def _headers_alone(header, shapes, words):
    """Lengths [N] of the headers of files that have one picture each, of so many words."""
    found = []
    for shape, size in zip(shapes, words, strict=True):
        own = [(*shape, 1)]
        tile_shape = _needed(header.tile_shape, own)
        number = plan.num_chunks(own, tile_shape, header.batch_size)
        labels = None if header.labels is None else header.labels[:1]
        chunks = [(4 * -(-size // number), *header.chunks[0][1:])] * number
        alone = dataclasses.replace(
            header, tile_shape=tile_shape, shapes=own, labels=labels, chunks=chunks
        )
        found.append(len(container.pack(alone, [])))
    return np.array(found)


def decompress(model, data, condition=None, progress=None):
    """The images that `compress` was given.

    Args:
      model: The model that they were compressed with.
      data: The bytes.
      condition: The vectors or pictures that `compress` was given. None for labels.
      progress: As in `compress`.

    Returns:
      Integers [N, H, W, C], uint8 for L <= 256; or a list of such arrays [H, W, C], if `compress`
      was given a list.

    Raises:
      ValueError: If the file is damaged, or was made with another model, library or kind of device,
        or if the pixels are not those that were compressed. No wrong image is ever returned.
    """
    header, chunks = container.unpack(data)
    pictures, _ = _decoded(model, header, chunks, condition, progress)
    return np.stack(pictures) if header.is_array else pictures


def salvage(model, data, condition=None, progress=None):
    """As `decompress`, for a file of which some chunks are damaged or missing.

    Args:
      model, data, condition, progress: As in `decompress`.

    Returns:
      (pictures, reasons). `pictures` lists arrays [H, W, C], or None for a picture that is lost.
      `reasons` lists a text for each chunk that is lost.

    Raises:
      ValueError: As `decompress`, if the header is damaged or the model does not fit.
    """
    header, chunks = container.unpack(data, allow_damage=True)
    return _decoded(model, header, chunks, condition, progress, allow_damage=True)


def _decoded(model, header, chunks, condition, progress, allow_damage=False):
    """The pictures of a file, None for those that are lost; and why chunks are lost."""
    model.likelihood.require_log_prob()
    identity.of(model).require(header.identity)
    config = model.config
    own = (config.image_shape[-1], config.num_levels)
    if own != (header.num_channels, header.num_levels):
        raise ValueError(
            f"The file must have images of {own[0]} channels and {own[1]} levels. "
            f"Received: {header.num_channels} channels and {header.num_levels} levels"
        )
    if condition is None and header.labels is not None:
        condition = np.array(header.labels, np.int64)
    condition = arguments.condition_of(
        model, condition, header.shapes, header.is_array, header.tile_shape
    )
    if header.condition != arguments.condition_digest(model, condition):
        raise ValueError(
            "The condition must be the one that the images were compressed with. Received: another"
        )
    _check_chunks(model, header)
    report = _reporter(model, header, progress, 1)

    def decode(planned):
        number, (chunk, data) = planned
        if isinstance(data, str):
            return data
        own = plan.condition_of(chunk, header.batch_size, condition)
        expected = header.chunks[number][-1]
        try:
            return _decode(model, header, number, chunk, own, data, expected, report)
        except ValueError as error:
            if not allow_damage:
                raise
            return str(error)

    sides = [sides[:2] for sides in header.shapes for _ in range(sides[-1])]
    pictures, lost, reasons = [None] * len(sides), set(), []
    dtype = likelihoods.level_dtype(header.num_levels)
    planned = enumerate(zip(_chunks(model, header), chunks, strict=True))
    for chunk, levels in zip(header.plan(), _in_parallel(decode, planned), strict=True):
        if isinstance(levels, str):
            reasons.append(levels)
            lost.update(tile.picture for tile in chunk.tiles)
            continue
        for index, tile in enumerate(chunk.tiles):
            if pictures[tile.picture] is None:
                shape = (*sides[tile.picture], header.num_channels)
                pictures[tile.picture] = np.zeros(shape, dtype)
            own = levels[: tile.height, : tile.width, index]
            tile.of(pictures[tile.picture])[...] = own
    return [None if i in lost else picture for i, picture in enumerate(pictures)], reasons


def _decode(model, header, number, chunk, condition, data, expected, report):
    """The levels [H, W, B, C] of a chunk, whose pixels must have the expected digest."""
    levels, sides = plan.canvas(chunk, header.batch_size, header.num_channels)
    try:
        fits = stages.decode(model, data, levels, sides, condition, report)
    except AssertionError:  # of constriction, for bytes that no encoder writes
        found = "bytes that do not fit"
    else:
        if fits and container.pixels_digest(number, _pixels(header, chunk, levels)) == expected:
            return levels
        found = "others" if fits else "pictures of the stages that contradict each other"
    raise ValueError(
        f"The pixels of chunk {number} must be those that were compressed; the numbers of this "
        f"machine may be rounded otherwise. Received: {found}"
    )


def _chunks(model, header):
    """The chunks of a file, with canvases that all stages of the model can divide."""
    return (plan.rounded_up(chunk, multiple(model)) for chunk in header.plan())


def _check_chunks(model, header):
    """Checks that no chunk is too large for the memory."""
    for chunk in _chunks(model, header):
        container.check_chunk(chunk, header.batch_size, header.num_channels)


def _needed(tile_shape, shapes):
    """The size of tiles, or None if there is one size of pictures, which are not larger."""
    if tile_shape is None or len(shapes) > 1:
        return tile_shape
    (height, width, _) = shapes[0]
    return tile_shape if height > tile_shape[0] or width > tile_shape[1] else None


def _bytes_per_level(header):
    return 1 if header.num_levels <= 256 else 2


def _pixels(header, chunk, levels):
    """The bytes of each tile of a chunk: its levels in raster order, of 1 or 2 bytes each."""
    dtype = f"<u{_bytes_per_level(header)}"
    return [
        levels[: tile.height, : tile.width, index].astype(dtype).tobytes()
        for index, tile in enumerate(chunk.tiles)
    ]


def _reporter(model, header, progress, passes):
    """Function (number of rows), which sums them up and calls `progress`."""
    if progress is None:
        return None
    total = passes * sum(stages.num_rows(model, chunk.height) for chunk in _chunks(model, header))
    done = []

    def report(num_rows):
        done.append(num_rows)  # atomic, as several threads call this
        progress(min(sum(done), total), total)

    return report


def _in_parallel(function, items):
    """Yields function(item) for each item in order. Some are computed at the same time."""
    with concurrent.futures.ThreadPoolExecutor(draw.num_workers()) as executor:
        futures = [executor.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
