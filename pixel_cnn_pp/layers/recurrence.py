"""The recurrence of the layers of PixelRNN: an LSTM that updates many positions in every step.

    [o, f, i, g] = K_ss * h_before + gates of the inputs
    c = sigmoid(f) c_before + sigmoid(i) tanh(g)
    h = sigmoid(o) tanh(c)

(van den Oord et al. 2016a, equation 3). `lstm` has the layers.
"""

from keras import ops

from pixel_cnn_pp.layers.gradients import custom_gradient
from pixel_cnn_pp.layers.weight_norm import project


def lstm(gates, cell):
    """One step of an LSTM.

    Args:
      gates: Float tensor [..., 4 h], the gates o, f, i, g before their nonlinearities.
      cell: Float tensor [..., h], the cell state before the step.

    Returns:
      (hidden, cell), the state after the step, [..., h] each.
    """
    hidden, cell, *_ = _lstm(gates, cell)
    return hidden, cell


def _lstm(gates, cell):
    """The same, and the gates after their nonlinearities: o, f, i [..., 3 h], and g [..., h]."""
    num_features = cell.shape[-1]
    opened = ops.sigmoid(gates[..., : 3 * num_features])
    content = ops.tanh(gates[..., 3 * num_features :])
    out, forget, enter = ops.split(opened, 3, axis=-1)
    cell = forget * cell + enter * content
    return out * ops.tanh(cell), cell, opened, content


def recurrence(gates, kernel, hidden, cell, edge, offsets, is_delayed):
    """Takes many positions through an LSTM together. Each reads the states of its neighbours.

    In step t, position p reads the hidden states that the positions p + offset had after the step
    before, and its own cell state. All positions start from the same state.

    The gradient is written out. TensorFlow's own gradient of a loop adds up the gradient of the
    kernel step by step and keeps every intermediate result. Here the loop of the gradient has only
    what depends on the step after. All else is computed for all steps at once.

    Args:
      gates: Float tensor [T, P, B, 4 h], what the gates take from the inputs, for T steps.
      kernel: Float tensor [number of offsets, h, 4 h], K_ss.
      hidden, cell: Float tensors [h], the state before the first step.
      edge: Float tensor [h], the hidden state of positions that do not exist.
      offsets: The offsets of the neighbours, integers in {-1, 0, 1}.
      is_delayed: Whether position p starts with step p, and keeps its state until then.

    Returns:
      [T, P, B, h], the hidden states after each step.
    """
    num_features = kernel.shape[1]

    @custom_gradient
    def run(gates, kernel, hidden, cell, edge):
        num_steps, num_positions, batch_size, _ = ops.shape(gates)
        first = [
            ops.broadcast_to(x, (num_positions, batch_size, num_features)) for x in (hidden, cell)
        ]
        outside = ops.broadcast_to(edge, (1, batch_size, num_features))
        taps = [kernel[i] for i in range(len(offsets))]
        positions = ops.arange(num_positions)[:, None, None]
        steps = ops.arange(num_steps)

        def forward(state, step):
            hidden, cell, *_ = state
            own = gates[step]
            for tap, offset in zip(taps, offsets, strict=True):
                own = own + project(_shift(hidden, offset, outside), tap)
            new_hidden, new_cell, *activations = _lstm(own, cell)
            if is_delayed:
                has_started = step >= positions
                new_hidden = ops.where(has_started, new_hidden, hidden)
                new_cell = ops.where(has_started, new_cell, cell)
            state = (new_hidden, new_cell, *activations)
            return state, state

        blank = [ops.zeros_like(gates[0, ..., : n * num_features]) for n in (3, 1)]
        _, (hiddens, cells, opened, content) = ops.scan(forward, (*first, *blank), steps)

        def gradient(upstream):
            out, forget, enter = ops.split(opened, 3, axis=-1)
            cells_before = ops.concatenate([first[1][None], cells[:-1]], axis=0)
            squashed = ops.tanh(cells)
            # What the gradient of h adds to that of c; and what turns the gradients of h, c, c, c
            # into those of the gates o, f, i, g.
            to_cell = out * (1 - squashed * squashed)
            to_gates = [
                squashed * out * (1 - out),
                cells_before * forget * (1 - forget),
                content * enter * (1 - enter),
                enter * (1 - content * content),
            ]
            to_gates = ops.concatenate(to_gates, axis=-1)
            transposed = [ops.transpose(tap) for tap in taps]
            nothing = ops.zeros_like(outside)

            def backward(gradients, step):
                hidden, cell, _ = gradients
                hidden = hidden + upstream[step]
                inner = cell + hidden * to_cell[step]
                own = ops.concatenate([hidden, inner, inner, inner], axis=-1) * to_gates[step]
                inner = inner * forget[step]
                if is_delayed:
                    has_started = step >= positions
                    own = ops.where(has_started, own, 0)
                read = 0
                for tap, offset in zip(transposed, offsets, strict=True):
                    read = read + _shift(project(own, tap), -offset, nothing)
                if is_delayed:
                    read = read + ops.where(has_started, 0, hidden)
                    inner = ops.where(has_started, inner, cell)
                return (read, inner, own), (read, inner, own)

            start = (*map(ops.zeros_like, first), ops.zeros_like(gates[0]))
            (hidden_first, cell_first, _), (_, _, gates_gradient) = ops.scan(
                backward, start, steps, reverse=True
            )
            hiddens_before = ops.concatenate([first[0][None], hiddens[:-1]], axis=0)
            flat_gradient = ops.reshape(gates_gradient, (-1, 4 * num_features))
            kernel_gradient, edge_gradient = [], 0
            for tap, offset in zip(taps, offsets, strict=True):
                read = _shift(hiddens_before, offset, outside, axis=1)
                read = ops.transpose(ops.reshape(read, (-1, num_features)))
                kernel_gradient.append(ops.matmul(read, flat_gradient))
                if offset:
                    outermost = gates_gradient[:, 0 if offset < 0 else -1]
                    summed = ops.sum(outermost, axis=(0, 1))
                    edge_gradient = edge_gradient + ops.matmul(tap, summed[:, None])[:, 0]
            return (
                gates_gradient,
                ops.stack(kernel_gradient),
                ops.sum(hidden_first, axis=(0, 1)),
                ops.sum(cell_first, axis=(0, 1)),
                edge_gradient,
            )

        return hiddens, gradient

    return run(gates, kernel, hidden, cell, edge)


def _shift(x, offset, outside, axis=0):
    """out[p] = x[p + offset] along an axis, for an offset of -1, 0 or 1; `outside` elsewhere."""
    if offset == 0:
        return x
    if axis == 1:
        outside = ops.broadcast_to(outside, (ops.shape(x)[0], *ops.shape(outside)))
        kept = x[:, :-1] if offset < 0 else x[:, 1:]
    else:
        kept = x[:-1] if offset < 0 else x[1:]
    return ops.concatenate([outside, kept] if offset < 0 else [kept, outside], axis=axis)
