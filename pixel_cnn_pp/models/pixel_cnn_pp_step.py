"""The cached step of PixelCNN++, which computes the raw parameters pixel after pixel.

The downward stream of a row depends only on the rows above. So it is computed for a whole row at
once. The contribution of the row above to the rightward stream is also computed for a whole row.
Only the rest of the rightward stream is computed pixel by pixel. A layer at a coarser resolution
runs only on every second row and column, or on every fourth.
"""

from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp.models import conditions
from pixel_cnn_pp.models.step import Step

# Value of the fields below that a resolution does not use.
_NOTHING = ()


class _Kept(NamedTuple):
    """The tensors that a stream keeps at one resolution for later positions.

    The downward stream keeps rows for the next row. The rightward stream keeps pixels for the next
    pixel and for the next row.

    blocks: {name of a block: {name of a layer: its inputs}}.
    image: Inputs of the first layers, at the finest resolution.
    output: Output of the resolution, which is the input of the finer one.
    halve: Inputs of the layer that leads to the coarser resolution.
    pending: One pixel of the coarser resolution gives two pixels. This is the second one.
    """

    blocks: Any
    image: Any = _NOTHING
    output: Any = _NOTHING
    halve: Any = _NOTHING
    pending: Any = _NOTHING


class _FromAbove(NamedTuple):
    """Contributions of the rows above and of the downward stream to the rightward stream of a row.

    blocks: {name of a block: result of its `row_above`}.
    input: The contribution to the input of the resolution.
    double: The result of the coarser resolution, in rows in which it is complete.
    """

    blocks: Any
    input: Any
    double: Any = _NOTHING


class _State(NamedTuple):
    """The tensors kept of the rows above, at one resolution: a `_Kept` of rows for each stream."""

    down: Any
    right: Any


class _Context(NamedTuple):
    """The result of `begin_row`: [`_State`] and [packed `_FromAbove`], the finest first."""

    states: Any
    above: Any
    weights: Any


class _Pixel(NamedTuple):
    """A pixel after `step` of channel 0. kept: [`_Kept`]; raw_params: [B, P]."""

    kept: Any
    raw_params: Any


class PixelCNNPPStep(Step):
    """The cached step of `PixelCNNPP`. The call for channel 0 computes all channels of a pixel."""

    def __init__(self, model):
        """Keeps the model and reads the sizes of its layers."""
        self._model = model
        self._down, self._right, self._above = _sizes(model)

    def weights(self):
        """As in `Step`."""
        model = self._model
        layers = [layer for layer in model.layers if layer is not model.embedding]
        return {layer.name: layer.step_weights() for layer in layers}

    def initial_state(self, batch_size, width, condition=None):
        """As in `Step`. The row is padded to the width that the coarsest layers need."""
        width += -width % self._model.side_multiple
        states = []
        for level, (down, right) in enumerate(zip(self._down, self._right, strict=True)):
            zeros = partial(self._zeros, (width >> level, batch_size))
            right = right._replace(pending=_NOTHING)  # because only the next pixel needs it
            states.append(_State(*(keras.tree.map_structure(zeros, x) for x in (down, right))))
        return states

    def begin_row(self, weights, state, row, condition=None):
        """As in `Step`."""
        vector, pictures = condition or conditions.Condition()
        h = [vector] * len(self._above)
        if pictures is not None:
            h = [conditions.row_of(x, row // 2**level) for level, x in enumerate(pictures)]
        step = _RowStep(weights, h, self._above, state, row)
        self._model.walk(step, self._enter_row(step))
        states, above = step.results()
        batch_size = ops.shape(above[0][0])[1]
        left = [self._zeros((batch_size,), _total(sizes)) for sizes in self._right]
        return _Context(states, above, weights), left

    def step(self, weights, context, pixel, row, column, channel, earlier):
        """As in `Step`."""
        if channel > 0:
            return pixel.raw_params, pixel
        model = self._model
        step = _PixelStep(weights, (self._right, self._above), context.above, pixel, row, column)
        right = model.input_left.pixel(
            weights[model.input_left.name], step.above.input, step.left.image
        )
        right = model.walk(step, right)
        output_layer = partial(model.output_layer.step, weights[model.output_layer.name])
        raw_params = model.output(output_layer, right)
        return raw_params, _Pixel(step.kept(), raw_params)

    def end_pixel(self, pixel, levels):
        """As in `Step`."""
        finest, *coarser = pixel.kept
        finest = finest._replace(image=self._model.scale(levels))
        return [_pack_features(finest), *coarser]

    def end_row(self, context, pixels, row):
        """As in `Step`."""
        pixels = self._pad_row(context, pixels, row)
        states = []
        for level, state in enumerate(context.states):
            stride = 2**level  # a coarser resolution has its pixels in every second row and column

            def kept(state=state):
                return state.right

            def computed(level=level, stride=stride):
                right = _unpack_features(pixels[level][::stride], self._right[level])
                return right._replace(pending=_NOTHING)

            states.append(state._replace(right=ops.cond(row % stride == 0, computed, kept)))
        return states

    def _pad_row(self, context, pixels, row):
        """Adds the pixels on the right of the image that belong to the padding, if there are any.

        The layers of later rows see them. Their levels are zeros.
        """
        width, padded_width = pixels[0].shape[0], context.above[0][0].shape[0]
        if width == padded_width:
            return pixels

        def next_pixel(left, column):
            _, pixel = self.step(context.weights, context, left, row, column, 0, [])
            finest, *coarser = pixel.kept
            image = ops.zeros((ops.shape(pixel.raw_params)[0], self._right[0].image), left[0].dtype)
            left = [_pack_features(finest._replace(image=image)), *coarser]
            return left, left

        first = [x[-1] for x in pixels]
        _, beyond = ops.scan(next_pixel, first, ops.arange(width, padded_width))
        return [ops.concatenate(both) for both in zip(pixels, beyond, strict=True)]

    def _zeros(self, shape, num_features):
        return ops.zeros((*shape, num_features), self._model.compute_dtype)

    def _enter_row(self, step):
        """Computes the input of the downward stream, and keeps what the rightward stream needs."""
        model, weights = self._model, step.weights
        image_above = step.state.right.image
        num_rows = model.input_above.kernel_size[0]
        down, row_above = (
            # Row 0 is 0, because `down_shift` fills it with zeros. The layer would give its bias.
            ops.where(step.row > 0, layer.row(weights[layer.name], *rows), 0)
            for layer, rows in (
                (model.input_above, (image_above, step.state.down.image)[:num_rows]),
                (model.input_row_above, (image_above,)),
            )
        )
        left = model.input_left.row_above(weights[model.input_left.name], image_above)
        step.input_above = row_above + ops.pad(left[:-1], ((1, 0), (0, 0), (0, 0)))
        step.image = image_above
        return down


class _RowStep:
    """The `step` of `walk` for one row of the downward stream, [W, B, F].

    It works at one resolution and all coarser ones. It also computes the contributions of the rows
    above and of the downward stream to the rightward stream of this row.
    """

    def __init__(self, weights, h, above_sizes, states, row):
        self.weights, self.row = weights, row
        self._above_sizes = above_sizes
        self.state, *self._coarser_states = states
        self._coarser_above = []
        self._h = h  # the conditioning at this resolution and all coarser ones
        self._kept, self._above = {}, {}  # of the blocks
        # The other fields of `_Kept` and `_FromAbove`.
        self.input_above = None
        self.image = self.output = self._halve = self._double = _NOTHING

    def encode(self, blocks, x, a=None):
        down, right = blocks
        x, self._kept[down.name] = down.row(
            self.weights[down.name], x, self.state.down.blocks[down.name], a, self._h[0]
        )
        self._above[right.name] = right.row_above(
            self.weights[right.name], self.state.right.blocks[right.name], x, self._h[0]
        )
        return x

    def decode(self, blocks, x, skip):
        return self.encode(blocks, x, skip)

    def coarser(self, resolution, x, walk):
        (halve, halve_right), (double, double_right) = resolution.halve, resolution.double
        is_even = self.row % 2 == 0

        def compute():
            step = _RowStep(
                self.weights,
                self._h[1:],
                self._above_sizes[1:],
                self._coarser_states,
                self.row // 2,
            )
            step.input_above = halve_right.row_above(
                self.weights[halve_right.name], self.state.right.halve
            )
            halved = halve.row(self.weights[halve.name], x, self.state.down.halve)
            step.output = walk(step, halved)
            return step.results()

        def hold():
            # The pixels of coarser resolutions exist already, and need nothing from above.
            width, batch_size, dtype = x.shape[0], ops.shape(x)[1], x.dtype
            above = [
                [ops.zeros((width >> level, batch_size, sum(x)), dtype) for x in _in_turns(sizes)]
                for level, sizes in enumerate(self._above_sizes[1:], start=1)
            ]
            return self._coarser_states, above

        states, above = ops.cond(is_even, compute, hold)
        self._coarser_states, self._coarser_above = states, above
        self._halve = x
        # On odd rows the coarser row is complete. On even rows it is computed pixel by pixel.
        self._double = ops.cond(
            is_even,
            lambda: ops.zeros_like(x),
            lambda: double_right.row(self.weights[double_right.name], states[0].right.output),
        )
        return double.row(self.weights[double.name], states[0].down.output, self.row % 2)

    def results(self):
        """The states and the `_FromAbove` of this resolution and of the coarser ones.

        The states have the downward stream of this row, and the rightward stream of the row above.
        """
        down = _Kept(self._kept, self.image, self.output, self._halve)
        above = _pack_above(_FromAbove(self._above, self.input_above, self._double))
        states = [self.state._replace(down=down), *self._coarser_states]
        return states, [above, *self._coarser_above]


class _PixelStep:
    """The `step` of `walk` for one pixel of the rightward stream, [B, F].

    It works at one resolution and all coarser ones. `left` has the tensors that were kept of the
    pixel on the left.
    """

    def __init__(self, weights, sizes, above, left, row, column):
        self._weights, self._sizes, self._above = weights, sizes, above
        self._row, self._column = row, column
        right_sizes, above_sizes = (of_stream[0] for of_stream in sizes)
        self.above = _unpack_above([x[column] for x in above[0]], above_sizes)
        self.left = _unpack_features(left[0], right_sizes)
        self._coarser_left = left[1:]
        self._kept = {}  # of the blocks
        self.output = self._halve = self._pending = _NOTHING

    def encode(self, blocks, x, a=None):
        _, right = blocks
        name = right.name
        x, self._kept[name] = right.pixel(
            self._weights[name], x, self.left.blocks[name], self.above.blocks[name], a
        )
        return x

    def decode(self, blocks, x, skip):
        return self.encode(blocks, x, skip)

    def coarser(self, resolution, x, walk):
        (_, halve), (_, double) = resolution.halve, resolution.double
        is_even_row = self._row % 2 == 0

        def compute():
            step = _PixelStep(
                self._weights,
                [of_stream[1:] for of_stream in self._sizes],
                self._above[1:],
                self._coarser_left,
                self._row // 2,
                self._column // 2,
            )
            halved = halve.pixel(self._weights[halve.name], step.above.input, self.left.halve, x)
            step.output = walk(step, halved)
            present, pending = double.pixel(self._weights[double.name], step.output)
            finest, *coarser = step.kept()
            return present, pending, [_pack_features(finest), *coarser]

        def hold():
            pending = self.left.pending
            present = ops.where(is_even_row, pending, self.above.double)
            return present, pending, self._coarser_left

        present, self._pending, self._coarser_left = ops.cond(
            is_even_row & (self._column % 2 == 0), compute, hold
        )
        self._halve = x
        return present

    def kept(self):
        """The `_Kept` of this pixel, of this resolution and the coarser ones, packed."""
        kept = _Kept(self._kept, _NOTHING, self.output, self._halve, self._pending)
        return [kept, *self._coarser_left]


def _sizes(model):
    """Numbers of features in the tuples above, for each resolution, the finest first.

    Returns:
      Lists of `_Kept` (downward stream), `_Kept` (rightward stream) and `_FromAbove`. Their fields
      are integers instead of tensors.
    """
    filters, channels = model.config.nr_filters, model.config.image_shape[-1]
    down, right, above = [], [], []
    for level, resolution in enumerate(model.resolutions()):
        pairs = [*resolution.encoder, *resolution.decoder]
        is_finest, is_coarsest = level == 0, resolution.halve is None
        others = {
            "image": channels + 1 if is_finest else _NOTHING,
            "output": _NOTHING if is_finest else filters,
            "halve": _NOTHING if is_coarsest else filters,
        }
        down.append(_Kept({block.name: block.state_sizes() for block, _ in pairs}, **others))
        others["pending"] = others["halve"]
        right.append(_Kept({block.name: block.state_sizes() for _, block in pairs}, **others))
        blocks = {block.name: block.above_sizes() for _, block in pairs}
        above.append(_FromAbove(blocks, filters, others["halve"]))
    return down, right, above


def _total(sizes):
    return sum(keras.tree.flatten(sizes))


def _pack_features(tensors):
    """Joins a nest of tensors on their last axis. A loop runs faster with one tensor than many."""
    return ops.concatenate(keras.tree.flatten(tensors), axis=-1)


def _unpack_features(packed, sizes):
    """The inverse of `_pack_features`. `sizes` is the nest of the numbers of features."""
    ends = np.cumsum(keras.tree.flatten(sizes))[:-1]
    return keras.tree.pack_sequence_as(sizes, ops.split(packed, ends.tolist(), axis=-1))


def _pack_above(tensors):
    """Joins a nest of tensors as `_pack_features` does, but to two tensors, which take turns.

    So the terms of value and gate of a block, which are neighbours, are in two tensors. If both
    came from one slice of one tensor, XLA would compute the gate of a pixel number by number.
    """
    return [ops.concatenate(part, axis=-1) for part in _in_turns(tensors)]


def _unpack_above(packed, sizes):
    """The inverse of `_pack_above`, also for one pixel of each."""
    both = zip(packed, _in_turns(sizes), strict=True)
    parts = [ops.split(x, np.cumsum(own)[:-1].tolist(), axis=-1) for x, own in both]
    tensors = [parts[i % 2][i // 2] for i in range(sum(map(len, parts)))]
    return keras.tree.pack_sequence_as(sizes, tensors)


def _in_turns(nest):
    """Two lists that take turns with the leaves of a nest."""
    leaves = keras.tree.flatten(nest)
    return leaves[::2], leaves[1::2]
