"""Views of an image: the pictures that the stages of a chain model, one after the other.

A view is a function psi of the whole image, from whole numbers to whole numbers (Kolesnikov &
Lampert 2017, section 3). It is computed with integers, so that it is the same on every machine. Its
name is a text:

    image      the image itself
    gray:G     grey with G levels: floor(G / L * (0.299 R + 0.587 G + 0.114 B))
    mean:N     the means of blocks of N x N pixels, rounded half to even
    every:N    the upper left pixel of each block of N x N pixels
"""

import dataclasses
import re

import numpy as np

# The products of `gray` stay below 2^31.
_MOST_GRAY = 2**21


@dataclasses.dataclass(frozen=True)
class View:
    """A view. `parse` makes it from its name.

    Attributes:
      kind: "image", "gray", "mean" or "every".
      number: G or N, see above; 1 for the image itself.
    """

    kind: str = "image"
    number: int = 1

    @property
    def name(self):
        """The name that `parse` takes."""
        return self.kind if self.kind == "image" else f"{self.kind}:{self.number}"

    @property
    def factor(self):
        """How many times the sides of the image are those of the view."""
        return self.number if self.kind in ("mean", "every") else 1

    def shape_of(self, image_shape):
        """The shape (h, w, c) of the view of images (H, W, C).

        Raises:
          ValueError: If there is no such view of such images.
        """
        height, width, channels = image_shape
        if self.kind == "gray" and channels != 3:
            raise ValueError(
                f"Images must have 3 channels for the view {self.name}. Received: {channels}"
            )
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"Height and width of images must be multiples of {self.factor} for the view "
                f"{self.name}. Received: {height} x {width}"
            )
        channels = 1 if self.kind == "gray" else channels
        return height // self.factor, width // self.factor, channels

    def levels_of(self, num_levels):
        """The number of levels of the view of images with L levels.

        Raises:
          ValueError: If there is no such view of such images.
        """
        if self.kind != "gray":
            return num_levels
        if not self.number <= num_levels <= _MOST_GRAY // self.number:
            raise ValueError(
                f"Images must have {self.number} to {_MOST_GRAY // self.number} levels for the "
                f"view {self.name}. Received: {num_levels}"
            )
        return self.number

    def of(self, images, num_levels):
        """Computes the view.

        Args:
          images: Array or tensor [B, H, W, C] of whole numbers in [0, L - 1], of any dtype.
          num_levels: L.

        Returns:
          Array or tensor [B, h, w, c] of whole numbers, see `shape_of` and `levels_of`. An array
          has the least unsigned dtype for its levels, and a tensor has int32. The image itself is
          returned as it is.
        """
        if self.kind == "image":
            return images
        if self.kind == "every":
            return images[:, :: self.number, :: self.number]
        if isinstance(images, np.ndarray):
            found = self._computed(images.astype(np.int32), num_levels, np)
            return found.astype(np.uint8 if self.levels_of(num_levels) <= 256 else np.uint16)
        from keras import ops  # data and configurations are read without Keras

        return self._computed(ops.cast(images, "int32"), num_levels, ops)

    def known(self, mask):
        """Where the view is known, if some pixels of the images are: where the whole block is.

        Args:
          mask: Boolean array or tensor [B, H, W].

        Returns:
          The same [B, h, w].
        """
        if self.kind == "every":
            return mask[:, :: self.number, :: self.number]
        if self.factor == 1:
            return mask
        xp = np
        if not isinstance(mask, np.ndarray):
            from keras import ops as xp
        batch_size, height, width = xp.shape(mask)
        n = self.number
        return xp.all(xp.reshape(mask, (batch_size, height // n, n, width // n, n)), axis=(2, 4))

    def _computed(self, images, num_levels, xp):
        """Computes "gray" or "mean" of int32 images, with the functions of `xp`."""
        if self.kind == "gray":
            red, green, blue = (images[..., channel] for channel in range(3))
            thousand_times = 299 * red + 587 * green + 114 * blue
            return (thousand_times * self.number // (1000 * num_levels))[..., None]
        n, size = self.number, self.number**2
        batch_size, height, width, channels = xp.shape(images)
        blocks = xp.reshape(images, (batch_size, height // n, n, width // n, n, channels))
        sums = xp.sum(blocks, axis=(2, 4))
        whole, rest = sums // size, sums % size
        is_up = (2 * rest > size) | ((2 * rest == size) & (whole % 2 == 1))
        return whole + xp.where(is_up, 1, 0)


IMAGE = View()


def parse(name):
    """Makes a view from its name.

    Args:
      name: A text, see the top of this file.

    Returns:
      View.

    Raises:
      ValueError: If there is no such view.

    Example:
      >>> parse("mean:4").shape_of((32, 32, 3))
      (8, 8, 3)
    """
    found = re.fullmatch(r"(gray|mean|every):([1-9][0-9]{0,4})", str(name))
    if name == IMAGE.name:
        return IMAGE
    if found is None or int(found[2]) < 2:
        raise ValueError(
            "A view must be image, gray:G, mean:N or every:N, with whole numbers of at least 2. "
            f"Received: {name!r}"
        )
    return View(found[1], int(found[2]))
