"""The kind that all images of a folder have or are made to have: channels, bits, alpha, size."""

import collections
import dataclasses

import numpy as np

from pixel_cnn_pp.data import splits

_BANDS = {"grey": 1, "rgb": 3}
# ITU-R BT.601, in 65536ths, as Pillow has them.
_LUMA = np.array([19595, 38470, 7471])


@dataclasses.dataclass(frozen=True)
class Kind:
    """What images become.

    Attributes:
      bands: Number of channels without alpha.
      num_bits: Number of bits.
      has_alpha: Whether there is an alpha channel.
      is_mixed: Whether some images have alpha and others not: then it must be opaque.
      is_converted: Whether the user asks for the conversion, in which alpha is dropped.
      size: (H, W).
    """

    bands: int
    num_bits: int
    has_alpha: bool
    is_mixed: bool
    is_converted: bool
    size: tuple[int, int]

    @property
    def num_channels(self):
        """C."""
        return self.bands + self.has_alpha

    @property
    def dtype(self):
        """The dtype of the images."""
        return np.dtype(np.uint8 if self.num_bits <= 8 else np.uint16)

    def fits(self, header):
        """Whether an image is as large as it must be."""
        return header.height >= self.size[0] and header.width >= self.size[1]

    def converted(self, pixels, header):
        """Pixels [H, W, C] of this kind, or None if they have alpha that is not opaque."""
        opaque = 2**header.num_bits - 1
        if header.has_alpha and (self.is_converted or self.is_mixed):
            if not self.is_converted and pixels[..., -1].min() < opaque:
                return None
            pixels = pixels[..., :-1]
        if self.is_converted:
            if pixels.shape[-1] == 3 and self.bands == 1:
                grey = (pixels.astype(np.int64) @ _LUMA + 2**15) >> 16
                pixels = grey[..., np.newaxis].astype(pixels.dtype)
            elif pixels.shape[-1] == 1 and self.bands == 3:
                pixels = np.repeat(pixels, 3, axis=-1)
        if header.num_bits != self.num_bits:
            brightest = 2**self.num_bits - 1
            scaled = (pixels.astype(np.int64) * brightest + opaque // 2) // opaque
            pixels = scaled.astype(self.dtype)
        return pixels


def common(headers, options, where, min_bits=1):
    """Finds the kind of the images of a folder, and which of them are odd.

    Args:
      headers: {file: Header} of at least one file.
      options: `splits.Options`.
      where: Path of the folder, for messages.
      min_bits: Number of bits that images count as having at least.
    Returns:
      Kind, and {file: what is odd about it, in words} of the images to leave out.
    Raises:
      ValueError: If images are odd, and the options do not say what to do with them.
    """
    kept, odd = _of_one_kind(headers, options, where)
    has_alpha = {header.has_alpha for header in kept.values()}
    bits = {header.num_bits for header in kept.values()}
    if len(bits) == 1:
        num_bits = max(bits.pop(), min_bits)
    else:  # Only a conversion mixes more bits with fewer.
        num_bits = 8 if options.convert else max(8, *bits)
    size, odd_sizes = _common_size(kept, options)
    kind = Kind(
        _BANDS[options.convert] if options.convert else next(iter(kept.values())).kind[0],
        num_bits,
        has_alpha == {True} and options.convert is None,
        len(has_alpha) > 1,
        options.convert is not None,
        size,
    )
    return kind, odd | odd_sizes


def _of_one_kind(headers, options, where):
    """The images that have the usual kind or can be converted, and the others in words."""

    def kind(header):
        if options.convert:
            return header.kind[0] in (1, 3)
        # Programs that make files smaller use fewer bits if these are enough. For example, they
        # store an 8-bit grey image that is only black and white with 1 bit. It still means 0, 255.
        return header.kind[0], max(header.num_bits, 8)

    kinds = {file: kind(header) for file, header in headers.items()}
    usual = True if options.convert else collections.Counter(kinds.values()).most_common(1)[0][0]
    odd = {file: str(headers[file]) for file, found in kinds.items() if found != usual}
    kept = {file: header for file, header in headers.items() if file not in odd}
    if odd and (not options.skip_odd or not kept):
        named, others = _counted(odd), len(kept)
        example = f"{others} others {next(iter(kept.values()))}" if kept else "no others"
        ways = "--skip_odd leaves odd ones out"
        if options.convert is None:
            ways = f"--convert rgb or --convert grey makes them so, {ways}"
        raise ValueError(
            f"All images of a folder must have the same channels and bits: {ways}. "
            f"Received: {named} in {where}, {example}"
        )
    return kept, odd


def _counted(odd):
    """Odd files by what is odd about them: the number of each, and one of their names."""
    groups = collections.defaultdict(list)
    for file, words in odd.items():
        groups[words].append(file.name)
    each = [
        f"{names[0]} ({words})" if len(names) == 1 else f"{len(names)} {words} such as {names[0]}"
        for words, names in groups.items()
    ]
    return ", ".join(each[:6]) + (", ..." if len(each) > 6 else "")


def _common_size(headers, options):
    """The height and width that the images will have, and the images of other sizes in words."""
    if options.image_size is not None:
        return options.size(None), {}
    sizes = {file: (header.height, header.width) for file, header in headers.items()}
    usual = collections.Counter(sizes.values()).most_common(1)[0][0]
    odd = {file: f"{size[0]} x {size[1]}" for file, size in sizes.items() if size != usual}
    if odd and not options.skip_odd:
        raise ValueError(
            "All images of a folder must have one size, or `image_size` must say what to crop them "
            f"to; --skip_odd leaves odd ones out. Received: {_counted(odd)}, "
            f"{len(sizes) - len(odd)} others of {usual[0]} x {usual[1]}"
        )
    splits.check_size(usual)
    return usual, odd
