"""The recurrence of the layers of PixelRNN: an LSTM that updates many positions in every step.

    [o, f, i, g] = K_ss * h_before + gates of the inputs
    c = sigmoid(f) c_before + sigmoid(i) tanh(g)
    h = sigmoid(o) tanh(c)

(van den Oord et al. 2016a, equation 3). `lstm` has the layers.
"""

from keras import ops

from pixel_cnn_pp.layers.weight_norm import project


def lstm(gates, cell):
    """One step of an LSTM.

    Args:
      gates: Float tensor [..., 4 h], the gates o, f, i, g before their nonlinearities.
      cell: Float tensor [..., h], the cell state before the step.

    Returns:
      (hidden, cell), the state after the step, [..., h] each.
    """
    hidden, cell, _ = _lstm(gates, cell)
    return hidden, cell


def _lstm(gates, cell):
    """The same, with the gates after their nonlinearities as a third result."""
    num_features = cell.shape[-1]
    opened = ops.sigmoid(gates[..., : 3 * num_features])
    content = ops.tanh(gates[..., 3 * num_features :])
    out, forget, enter = ops.split(opened, 3, axis=-1)
    cell = forget * cell + enter * content
    return out * ops.tanh(cell), cell, ops.concatenate([opened, content], axis=-1)


def _lstm_gradient(gates, cell_before, cell, hidden_gradient, cell_gradient):
    """The gradient of `_lstm`, given its result and the gradients of it.

    Returns:
      Gradients of the gates before their nonlinearities, and of the cell state before the step.
    """
    out, forget, enter, content = ops.split(gates, 4, axis=-1)
    squashed = ops.tanh(cell)
    cell_gradient = cell_gradient + hidden_gradient * out * (1 - squashed * squashed)
    opened_gradient = ops.concatenate(
        [hidden_gradient * squashed, cell_gradient * cell_before, cell_gradient * content], axis=-1
    )
    opened = gates[..., : opened_gradient.shape[-1]]
    content_gradient = cell_gradient * enter * (1 - content * content)
    gates_gradient = [opened_gradient * opened * (1 - opened), content_gradient]
    return ops.concatenate(gates_gradient, axis=-1), cell_gradient * forget


def recurrence(gates, kernel, hidden, cell, edge, offsets, is_delayed):
    """Takes many positions through an LSTM together. Each reads the states of its neighbours.

    In step t, position p reads the hidden states that the positions p + offset had after the step
    before, and its own cell state. All positions start from the same state.

    The gradient is written out. TensorFlow's own gradient of a loop adds up the gradient of the
    kernel step by step and keeps every intermediate result. Here it is one product for all steps.

    Args:
      gates: Float tensor [T, B, P, 4 h], what the gates take from the inputs, for T steps.
      kernel: Float tensor [number of offsets, h, 4 h], K_ss.
      hidden, cell: Float tensors [h], the state before the first step.
      edge: Float tensor [h], the hidden state of positions that do not exist.
      offsets: The offsets of the neighbours, integers in {-1, 0, 1}.
      is_delayed: Whether position p starts with step p, and keeps its state until then.

    Returns:
      [T, B, P, h], the hidden states after each step.
    """
    num_features = kernel.shape[1]
    flat_shape = (-1, len(offsets) * num_features)

    def read(x, edge):
        return ops.concatenate([_shift(x, offset, edge) for offset in offsets], axis=-1)

    @ops.custom_gradient
    def run(gates, kernel, hidden, cell, edge):
        num_steps, batch_size, num_positions, _ = ops.shape(gates)
        flat_kernel = ops.reshape(kernel, (*flat_shape[1:], 4 * num_features))
        first = [
            ops.broadcast_to(x, (batch_size, num_positions, num_features)) for x in (hidden, cell)
        ]
        positions = ops.arange(num_positions)[:, None]
        steps = ops.arange(num_steps)

        def forward(state, step):
            hidden, cell, _ = state
            own = gates[step] + project(read(hidden, edge), flat_kernel)
            state = _lstm(own, cell)
            if is_delayed:
                has_started = step >= positions
                state = (
                    ops.where(has_started, state[0], hidden),
                    ops.where(has_started, state[1], cell),
                    state[2],
                )
            return state, state

        _, (hiddens, cells, opened) = ops.scan(forward, (*first, ops.zeros_like(gates[0])), steps)

        def gradient(upstream):
            transposed = ops.transpose(flat_kernel)
            hiddens_before = ops.concatenate([first[0][None], hiddens[:-1]], axis=0)
            cells_before = ops.concatenate([first[1][None], cells[:-1]], axis=0)

            def backward(gradients, step):
                hidden_after, cell_after, _ = gradients
                hidden_after = hidden_after + upstream[step]
                own, cell = _lstm_gradient(
                    opened[step], cells_before[step], cells[step], hidden_after, cell_after
                )
                if is_delayed:
                    own = ops.where(step >= positions, own, 0)
                reads = project(own, transposed)
                reads = ops.split(reads, len(offsets), axis=-1)
                hidden = sum(
                    _shift(x, -offset, 0) for x, offset in zip(reads, offsets, strict=True)
                )
                if is_delayed:
                    hidden = hidden + ops.where(step >= positions, 0, hidden_after)
                    cell = ops.where(step >= positions, cell, cell_after)
                return (hidden, cell, own), (hidden, cell, own)

            start = (*map(ops.zeros_like, first), ops.zeros_like(gates[0]))
            (hidden_first, cell_first, _), (_, _, gates_gradient) = ops.scan(
                backward, start, steps, reverse=True
            )
            flat_gradient = ops.reshape(gates_gradient, (-1, 4 * num_features))
            flat_reads = ops.reshape(read(hiddens_before, edge), flat_shape)
            kernel_gradient = ops.matmul(ops.transpose(flat_reads), flat_gradient)
            return (
                gates_gradient,
                ops.reshape(kernel_gradient, kernel.shape),
                ops.sum(hidden_first, axis=(0, 1)),
                ops.sum(cell_first, axis=(0, 1)),
                _edge_gradient(gates_gradient, kernel, offsets),
            )

        return hiddens, gradient

    return run(gates, kernel, hidden, cell, edge)


def _edge_gradient(gates_gradient, kernel, offsets):
    """The gradient [h] of the hidden state at the edge, which the outermost positions read."""
    total = 0.0
    for tap, offset in enumerate(offsets):
        if offset:
            outermost = gates_gradient[:, :, 0 if offset < 0 else -1]
            summed = ops.sum(outermost, axis=(0, 1))
            total = total + ops.matmul(kernel[tap], summed[:, None])[:, 0]
    return total


def _shift(x, offset, edge):
    """out[..., p, :] = x[..., p + offset, :], for an offset of -1, 0 or 1; `edge` outside."""
    if offset == 0:
        return x
    outside = ops.broadcast_to(ops.cast(edge, x.dtype), (*ops.shape(x)[:-2], 1, x.shape[-1]))
    if offset < 0:
        return ops.concatenate([outside, x[..., :-1, :]], axis=-2)
    return ops.concatenate([x[..., 1:, :], outside], axis=-2)
