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
import math
import re

import numpy as np

# What is computed of one pixel or of one block stays below 2^31: 1000 G L, and N^2 L.
_MOST_GRAY = 2**31 // 1000
_MOST_MEAN = 2**31
# A gray picture has at most as many levels as the image, so that its own number has a limit too.
_MOST_GRAY_LEVELS = math.isqrt(_MOST_GRAY)


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
        """The shape (h, w, c) of the view of images (H, W, C). A side is None if it is unknown.

        Raises:
          ValueError: If there is no such view of such images.
        """
        height, width, channels = image_shape
        if self.kind == "gray" and channels != 3:
            raise ValueError(
                f"Images must have 3 channels for the view {self.name}. Received: {channels}"
            )
        if any(side is not None and side % self.factor for side in (height, width)):
            raise ValueError(
                f"Height and width of images must be multiples of {self.factor} for the view "
                f"{self.name}. Received: {height} x {width}"
            )
        channels = 1 if self.kind == "gray" else channels
        height, width = (side and side // self.factor for side in (height, width))
        return height, width, channels

    def levels_of(self, num_levels):
        """The number of levels of the view of images with L levels.

        Raises:
          ValueError: If there is no such view of such images.
        """
        lowest, highest = 2, num_levels
        if self.kind == "gray":
            lowest, highest = self.number, _MOST_GRAY // self.number
        if self.kind == "mean":
            highest = _MOST_MEAN // self.number**2
        if not lowest <= num_levels <= highest:
            raise ValueError(
                f"Images must have {lowest} to {highest} levels for the view {self.name}. "
                f"Received: {num_levels}"
            )
        return self.number if self.kind == "gray" else num_levels

    def of(self, images, num_levels):
        """Computes the view.

        Args:
          images: Array or tensor [B, H, W, C] of whole numbers in [0, L - 1], of any dtype.
          num_levels: L.

        Returns:
          Array or tensor [B, h, w, c] of whole numbers, see `shape_of` and `levels_of`. Of "gray"
          and "mean", an array has the least unsigned dtype for its levels, and a tensor has int32.
          The other views keep the dtype, and the image itself is returned as it is.

        Raises:
          ValueError: If there is no such view of such images.
        """
        if self.kind == "image":
            return images
        self.shape_of(tuple(images.shape[1:]))
        if self.kind == "every":
            return images[:, :: self.number, :: self.number]
        if isinstance(images, np.ndarray):
            found = self._computed(images.astype(np.int32), num_levels, np)
            return found.astype(np.uint8 if self.levels_of(num_levels) <= 256 else np.uint16)
        from keras import ops  # data and configurations are read without Keras

        return self._computed(ops.cast(images, "int32"), num_levels, ops)

    def known(self, mask):
        """Where the view is known, if some pixels of the images are: where all are that it is of.

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
    if isinstance(name, str) and name == IMAGE.name:
        return IMAGE
    found = re.fullmatch(r"(gray|mean|every):([1-9][0-9]{0,3})", str(name))
    number = int(found[2]) if found else 0
    if number < 2 or (found[1] == "gray" and number > _MOST_GRAY_LEVELS):
        raise ValueError(
            f"A view must be image, gray:G, mean:N or every:N, G from 2 to {_MOST_GRAY_LEVELS} "
            f"and N from 2 to 9999. Received: {' '.join(repr(name).split())}"
        )
    return View(found[1], number)
