"""The layer of Gated PixelCNN in NumPy, from its equations: pixel after pixel, tap after tap.

All functions take complex numbers, so that a derivative is the imaginary part of f(x + i e d) / e:
no difference is taken, and nothing is lost to rounding however small e is.
"""

import numpy as np


def gate(x):
    """tanh of the first half of the features times the sigmoid of the second half."""
    first, second = np.split(x, 2, axis=-1)
    return np.tanh(first) / (1 + np.exp(-second))


def vertical(v, w, b):
    """The n x n filter that reads the current row and those above: [H, W, F] -> [H, W, 2 p]."""
    height, width, _ = v.shape
    reach = w.shape[1] // 2
    out = np.zeros((height, width, w.shape[-1]), w.dtype) + b
    for row, column in np.ndindex(height, width):
        for up in range(reach + 1):
            for right in range(-reach, reach + 1):
                if row - up >= 0 and 0 <= column + right < width:
                    out[row, column] += v[row - up, column + right] @ w[reach - up, reach + right]
    return out


def of_group(x, num_channels, num_parts, groups):
    """x with zeros for the features that belong to another group. Every part has all groups."""
    part = x.shape[-1] // num_parts
    is_in = [feature % part % num_channels in groups for feature in range(x.shape[-1])]
    return np.where(is_in, x, 0)


def horizontal(h, w, b, mask, num_channels, num_parts):
    """The 1 x n filter with a mask: [H, W, F] -> [H, W, F']. Its taps end at the current pixel."""
    height, width, _ = h.shape
    reach = w.shape[1] - 1
    out = np.zeros((height, width, w.shape[-1]), w.dtype) + b
    for row, column in np.ndindex(height, width):
        for left in range(1, reach + 1):
            if column - left >= 0:
                out[row, column] += h[row, column - left] @ w[0, reach - left]
        for group in range(num_channels):
            read = range(group + (mask == "B"))
            known = of_group(h[row, column], num_channels, 1, read)
            out[row, column] += of_group(known @ w[0, reach], num_channels, num_parts, [group])
    return out


def stacks(v, h, c, weights, num_channels, is_first):
    """A layer of one image: v' and h' [H, W, p] of v, h [H, W, F] and c, [D], [H, W, D] or None.

    `weights` are those of `GatedStacks`, in its order.
    """
    link, *of_c = weights[:-6]
    vertical_w, vertical_b, horizontal_w, horizontal_b, out_w, out_b = weights[-6:]
    a = vertical(v, vertical_w, vertical_b)
    if c is not None:
        a = a + c @ of_c[0]
    mask = "A" if is_first else "B"
    before = horizontal(h, horizontal_w, horizontal_b, mask, num_channels, 2) + a @ link
    if c is not None:
        before = before + c @ of_c[1]
    y = horizontal(gate(before), out_w, out_b, "B", num_channels, 1)
    return gate(a), y if is_first else h + y


def network(image, c, layers, head, num_levels):
    """The raw parameters [H, W, P] of one image [H, W, C] of integers.

    Args:
      image: The levels.
      c: The condition as a layer takes it: [D], [H, W, D] or None.
      layers: For each gated layer, its list of weights.
      head: For each of the three 1x1 layers behind them, its (w, b).
      num_levels: L.
    """
    num_channels = image.shape[-1]
    h = 2 * image.astype("float64") / (num_levels - 1) - 1
    v = np.zeros_like(h)
    v[1:] = h[:-1]
    for i, weights in enumerate(layers):
        v, h = stacks(v, h, c, weights, num_channels, is_first=i == 0)
    for w, b in head[:-1]:
        h = horizontal(np.maximum(h, 0), w, b, "B", num_channels, 1)
    # The outputs of a channel stand together.
    w, b = head[-1]
    h = np.maximum(h, 0)
    parts = []
    for channel in range(num_channels):
        own = slice(channel * len(b) // num_channels, (channel + 1) * len(b) // num_channels)
        known = of_group(h, num_channels, 1, range(channel + 1))
        parts.append(known @ w[0, 0][:, own] + b[own])
    return np.concatenate(parts, axis=-1)
