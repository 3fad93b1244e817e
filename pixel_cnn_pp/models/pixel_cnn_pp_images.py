"""What passes through PixelCNN++ when it computes whole images: blocks, and their dropout."""

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
    drop = None if bits is None else lambda x: dropout.drop(x, *bits)
    return run(block, x, a=a[0] if a else None, h=h, dropout=drop)


class WholeImages:
    """The `step` of `PixelCNNPP.walk` for whole images. x is (downward, rightward) [B, H, W, F].

    `run` applies or initialises a layer, and `run_on_block` does so for a block, with the last
    arguments of `run_block`. `h` is the conditioning at each resolution. `bits` are all bits of
    the dropout, or None.
    """

    def __init__(self, run, run_on_block, h, dropout, bits):
        """Keeps the arguments, which the class describes."""
        self._run = run
        self._run_block = run_on_block
        self._h = h
        self._level = 0  # number of the resolution, 0 for the finest
        self._dropout = dropout
        self._bits = bits
        self._num_bytes = 0  # of the bits, used by the blocks so far

    def _block(self, block, x, *a):
        """Applies a block to x and the parts of its short-cut input, all [B, H, W, F]."""
        bits = None
        if self._bits is not None:
            bits = self._bits, ops.convert_to_tensor(self._num_bytes, dtype="int32")
            height, width = ops.shape(x)[1:3]
            self._num_bytes += self._dropout.num_bytes(num_dropped(block, height, width))
        return self._run_block(block, x, list(a), self._h[self._level], bits)

    def encode(self, blocks, x):
        """As `PixelCNNPP.walk` asks for."""
        down = self._block(blocks[0], x[0])
        return down, self._block(blocks[1], x[1], down)

    def decode(self, blocks, x, skip):
        """As `PixelCNNPP.walk` asks for."""
        down = self._block(blocks[0], x[0], skip[0])
        return down, self._block(blocks[1], x[1], down, skip[1])

    def coarser(self, resolution, x, walk):
        """As `PixelCNNPP.walk` asks for."""
        x = self._run_both(resolution.halve, x)
        self._level += 1
        x = walk(self, x)
        self._level -= 1
        return self._run_both(resolution.double, x)

    def _run_both(self, layers, x):
        return tuple(self._run(layer, stream) for layer, stream in zip(layers, x, strict=True))


def num_dropped(block, height, width):
    """Number of units of an image to which a block applies dropout."""
    return block.num_dropped() * height * width
