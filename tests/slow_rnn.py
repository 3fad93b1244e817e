"""The layers of PixelRNN in slow NumPy, written from the equations of van den Oord et al. 2016a.

All functions take one image, and numbers may be complex.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights_of(layer):
    """The weights of a layer of one direction, in the order in which the functions take them."""
    weights = [layer.to_state.w, layer.to_state.b, layer.state_kernel, layer.hidden, layer.cell]
    return weights if layer.condition_kernel is None else [*weights, layer.condition_kernel]


def gates_of_inputs(x, c, weights, num_channels):
    """K_is * x + b, and what a condition c ([F_h] or [H, W, F_h]) adds: [H, W, 4 h].

    K_is is [1, taps, F_in, 4 h], its last tap at the pixel itself, with mask B: feature i of a gate
    belongs to channel i mod C, and reads the inputs of no later channel.
    """
    w, b, _, hidden, _, *condition = weights
    height, width, _ = x.shape
    taps, num_features = w.shape[1], len(hidden)
    gates = np.zeros((height, width, 4 * num_features), x.dtype) + b
    for tap in range(taps):
        kernel = np.array(w[0, tap])
        left = taps - 1 - tap
        if left == 0:
            for i, f in np.ndindex(kernel.shape):
                if i % num_channels > f % num_features % num_channels:
                    kernel[i, f] = 0
        gates[:, left:] += x[:, : width - left] @ kernel
    if condition:
        gates = gates + c @ condition[0]
    return gates


def lstm(gates, cell):
    """(h, c) of equation 3. The gates are o, f, i, g."""
    o, f, i, g = np.split(gates, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def row_lstm(x, c, weights, num_channels):
    """Section 3.1: the state of a pixel comes from three pixels of the row above. [H, W, h]."""
    gates = gates_of_inputs(x, c, weights, num_channels)
    kernel, hidden, cell = weights[2:5]
    height, width, _ = x.shape
    hiddens = np.zeros((height, width, len(hidden)), gates.dtype)
    cells = np.zeros_like(hiddens)
    for row, column in np.ndindex(height, width):
        own = gates[row, column].copy()
        for tap in range(3):
            above = column + tap - 1
            if 0 <= above < width:
                own += (hiddens[row - 1, above] if row else hidden) @ kernel[tap]
        above = cells[row - 1, column] if row else cell
        hiddens[row, column], cells[row, column] = lstm(own, above)
    return hiddens


def skewed(x):
    """Figure 3: row r moved right by r, [H, W + H - 1, F]."""
    height, width, num_features = x.shape
    out = np.zeros((height, width + height - 1, num_features), x.dtype)
    for row, column in np.ndindex(height, width):
        out[row, row + column] = x[row, column]
    return out


def diagonal_lstm(x, c, weights, num_channels):
    """Section 3.2, from left to right, column by column of the skewed map: [H, W, h]."""
    gates = skewed(gates_of_inputs(x, c, weights, num_channels))
    kernel, hidden, cell = weights[2:5]
    height, width, _ = x.shape
    shape = (height, width + height - 1, len(hidden))
    # Wherever no pixel stands, the state is the learned one.
    hiddens, cells = (np.zeros(shape, gates.dtype) + state for state in (hidden, cell))
    for column in range(width + height - 1):
        for row in range(height):
            if not 0 <= column - row < width:
                continue
            left = hiddens[row, column - 1] if column else hidden
            above = hiddens[row - 1, column - 1] if row else hidden
            before = cells[row, column - 1] if column else cell
            own = gates[row, column] + left @ kernel[0] + above @ kernel[1]
            hiddens[row, column], cells[row, column] = lstm(own, before)
    return np.stack([hiddens[row, row : row + width] for row in range(height)])


def diagonal_bilstm(x, c, from_left, from_right, num_channels):
    """The sum of both directions; the one on the mirrored map is moved down by one row."""
    mirrored = c[:, ::-1] if c is not None and c.ndim == 3 else c
    right = diagonal_lstm(x[:, ::-1], mirrored, from_right, num_channels)[:, ::-1]
    left = diagonal_lstm(x, c, from_left, num_channels)
    return left + np.concatenate([np.zeros_like(right[:1]), right[:-1]])
