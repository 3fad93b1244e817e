"""What passes through PixelCNN++ when it computes whole images."""


class WholeImages:
    """The `step` of `PixelCNNPP.walk` for whole images. x is (downward, rightward) [B, H, W, F]."""

    def __init__(self, blocks, h):
        """Keeps the arguments.

        Args:
          blocks: `gated_blocks.GatedBlocks`.
          h: The conditioning at each resolution, a list that begins with the finest.
        """
        self._blocks = blocks
        self._h = h
        self._level = 0  # number of the resolution, 0 for the finest

    def _block(self, block, x, *a):
        """Applies a block to x and the parts of its short-cut input, all [B, H, W, F]."""
        return self._blocks(block, x, a, self._h[self._level])

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
        return tuple(
            self._blocks.run(layer, stream) for layer, stream in zip(layers, x, strict=True)
        )
