"""What is known of a picture file before its pixels are read."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Header:
    """The properties of a picture file that are known before its pixels are read.

    Attributes:
      height: H.
      width: W.
      num_channels: C: 1 for grey, 3 for colour, other numbers for bands, and one more with alpha.
      num_bits: In [1, 16]. Levels are whole numbers in [0, 2**num_bits - 1].
      has_alpha: Whether the last channel is alpha.
      num_pages: Number of images in the file, its pages.
      is_animated: Whether the file has more frames, which are not read.
    """

    height: int
    width: int
    num_channels: int
    num_bits: int
    has_alpha: bool = False
    num_pages: int = 1
    is_animated: bool = False

    @property
    def kind(self):
        """Channels without alpha, bits, and whether there is alpha."""
        return self.num_channels - self.has_alpha, self.num_bits, self.has_alpha

    def __str__(self):
        """Channels and bits in words, for messages."""
        bands = self.num_channels - self.has_alpha
        kind = {1: "grey", 3: "RGB"}.get(bands, f"{bands} bands")
        return f"{kind}{' with alpha' if self.has_alpha else ''} of {self.num_bits} bits"


def not_levels(received):
    """The error for pixels that are no levels."""
    return ValueError(
        f"pixels must be whole numbers of at most 16 bits, grey, RGB or bands, not {received}"
    )
