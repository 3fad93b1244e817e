"""Runs the gated residual blocks of a network on whole images, with their dropout."""

from keras import ops


def run_block(run, dropout, block, x, a, h, bits):
    """Applies or initialises a block.

    Args:
      run: `layers.apply` or `layers.initialize`.
      dropout: `layers.Dropout`, or None.
      block: The block.
      x: Float tensor [B, H, W, F].
      a: List of the parts of its short-cut input, all [B, H, W, F].
      h: Float tensor [B, F_h] or [B, H, W, F_h], the conditioning, or None.
      bits: The arguments `drawn` and `first_byte` of `Dropout.drop`, or None for no dropout.

    Returns:
      Float tensor [B, H, W, F].
    """
    if len(a) > 1:
        a = [ops.concatenate(a, axis=-1)]
    drop = None if bits is None else lambda x, shape: dropout.drop(x, *bits, shape)
    return run(block, x, a=a[0] if a else None, h=h, dropout=drop)


class GatedBlocks:
    """Applies or initialises blocks, one after the other, in one pass through a network.

    Each block takes the next part of the bits of the dropout.

    Attributes:
      run: `layers.apply` or `layers.initialize`, for layers that are no blocks.
    """

    def __init__(self, run, run_on_block, dropout=None, bits=None):
        """Keeps the arguments.

        Args:
          run: `layers.apply` or `layers.initialize`.
          run_on_block: Function with the last arguments of `run_block`, which does so for a block.
          dropout: `layers.Dropout`, or None.
          bits: All bits of the dropout, the result of `Dropout.draw`, or None for no dropout.
        """
        self.run = run
        self._run_on_block = run_on_block
        self._dropout = dropout
        self._bits = bits
        self._num_bytes = 0  # of the bits, used by the blocks so far

    def __call__(self, block, x, a=(), h=None):
        """Applies or initialises a block, with `x`, `a` and `h` as in `run_block`."""
        bits = None
        if self._bits is not None:
            bits = self._bits, ops.convert_to_tensor(self._num_bytes, dtype="int32")
            height, width = ops.shape(x)[1:3]
            self._num_bytes += self._dropout.num_bytes(num_dropped(block, height, width))
        return self._run_on_block(block, x, list(a), h, bits)


def num_dropped(block, height, width):
    """Number of units of an image to which a block applies dropout."""
    return block.num_dropped() * height * width
