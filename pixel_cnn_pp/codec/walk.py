"""The walk through a chunk of images, which stops at each sub-pixel for the coder.

Encoder and decoder run the same compiled functions on batches of the same shape. What differs is
only what happens at a stop. So both compute exactly the same probabilities.
"""

import functools
import itertools
import weakref

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp import likelihoods, sampling
from pixel_cnn_pp.codec import frequencies
from pixel_cnn_pp.models.step import Step
from pixel_cnn_pp.sampling import draw

# About how many pixels one call of a compiled function walks through. A call costs milliseconds.
_PIXELS_PER_CALL = 256

# The canvases that are being coded, {number: `coder.Canvas`}.
_CANVASES = {}
_NUMBERS = itertools.count()


def walk(model, canvas, condition, report=None):
    """Walks through the images of a chunk. At each sub-pixel it calls `canvas.stop`.

    Args:
      model: `models.AutoregressiveModel` with a likelihood, of one stage.
      canvas: `coder.Canvas` of B images.
      condition: NumPy array of what the B images are conditioned on, such as labels [B]; or None.
      report: Function (number of rows), called after some rows. None for no calls.

    Raises:
      Exception: The one that ended the coding, if there was one.
    """
    height, width, batch_size, _ = canvas.levels.shape
    prepare, embed, walk_rows = _compiled_functions(model, draw.prefers_xla(model))
    weights = prepare()
    embedded = None
    if condition is not None:
        dtype = "int32" if condition.dtype.kind in "iu" else model.variable_dtype
        embedded = embed(ops.convert_to_tensor(condition.astype(dtype)))
    state = model.cached_step.initial_state(batch_size, width, embedded)
    number = next(_NUMBERS) % 2**31
    _CANVASES[number] = canvas
    num_rows = -(-_PIXELS_PER_CALL // width)
    try:
        for row in range(0, height, num_rows):
            last_row = min(row + num_rows, height)
            numbers = (ops.convert_to_tensor(x, "int32") for x in (number, row, last_row))
            row_done, state = walk_rows(weights, state, embedded, *numbers, width, batch_size)
            ops.convert_to_numpy(row_done)  # waits until the rows are done
            if canvas.error is not None:
                raise canvas.error
            if report is not None:
                report(last_row - row)
    finally:
        del _CANVASES[number]


# {model: {with_xla: its compiled functions}}. The functions hold only weak references to their
# models.
_COMPILED = weakref.WeakKeyDictionary()


def _compiled_functions(model, with_xla):
    """The functions `weights` and `embed` of a model and `walk_rows`, compiled when called."""
    compiled = _COMPILED.setdefault(model, {})
    if with_xla not in compiled:
        model_proxy = weakref.proxy(model)

        def prepare():
            return model_proxy.cached_step.weights()

        def embed(condition):
            return model_proxy.embed(condition)

        if keras.backend.backend() == "tensorflow":  # JAX would make the weights constants
            prepare, embed = (draw.compile_function(each, False) for each in (prepare, embed))
        compiled[with_xla] = prepare, embed, _make_walk_rows(model_proxy, with_xla)
    return compiled[with_xla]


def _make_walk_rows(model, with_xla):
    """Makes the function that walks through rows.

    XLA cannot stop. So TensorFlow's executor runs the loops, and XLA what lies between two stops.

    Args:
      model: `models.AutoregressiveModel`.
      with_xla: Whether XLA compiles what lies between two stops.

    Returns:
      Function (weights, state, condition, number, first_row, last_row, width, batch_size) ->
      (row, state).
    """

    def walk_rows(weights, state, condition, number, first_row, last_row, width, batch_size):
        step = _InPieces(model, with_xla)
        choose = _codes(model.likelihood.using(weights), step, number, with_xla)

        def next_row(row, state):
            state, _, _ = sampling.walk_row(
                model, weights, state, row, choose, (width, batch_size), condition, step
            )
            return row + 1, state

        return ops.while_loop(lambda row, state: row < last_row, next_row, (first_row, state))

    @functools.cache
    def of_shape(width, batch_size):
        def walk_rows_of_shape(*arguments):
            return walk_rows(*arguments, width, batch_size)

        return draw.compile_function(walk_rows_of_shape, False)

    return lambda *arguments: of_shape(*arguments[-2:])(*arguments[:-2])


def _call_compiled(function, with_xla):
    """Calls a function, which is compiled as a piece of its own.

    It has no arguments. It takes what it needs from its surroundings, because each argument of a
    call of XLA costs time, and most pieces need few of the weights.
    """
    if keras.backend.backend() == "jax":  # JAX compiles everything at once
        return function()
    return draw.compile_function(function, with_xla)()


class _InPieces(Step):
    """A model's cached step. Each of its expensive parts is compiled as a piece of its own.

    A call of a piece takes time. So the piece of a sub-pixel also has the first table for its stop.

    Attributes:
      first_table: The table of step 0 of the sub-pixel that `step` was last called for.
      given: What the tables of its later steps are computed from. None if there are none.
    """

    def __init__(self, model, with_xla):
        self._model, self._with_xla = model, with_xla
        self.first_table = self.given = None

    def weights(self):
        return self._model.cached_step.weights()

    def initial_state(self, batch_size, width, condition=None):
        return self._model.cached_step.initial_state(batch_size, width, condition)

    def begin_row(self, *arguments):
        begin_row = self._model.cached_step.begin_row
        return _call_compiled(lambda: begin_row(*arguments), self._with_xla)

    def step(self, weights, context, pixel, row, column, channel, earlier):
        model, likelihood = self._model, self._model.likelihood.using(weights)

        def step(pixel):
            arguments = (weights, context, pixel, row, column, channel, earlier)
            return model.cached_step.step(*arguments)

        def tables(raw_params):
            first = ops.zeros(ops.shape(raw_params)[:1], "int32")
            given = likelihood.given(raw_params, channel, earlier)
            has_more = len(frequencies.part_sizes(likelihood.num_levels)) > 1
            return frequencies.table(likelihood, given, 0, first), given if has_more else None

        def piece():
            raw_params, own = step(pixel)
            return raw_params, own, *tables(raw_params)

        if channel == 0 or model.reads_channels:
            raw_params, pixel, *found = _call_compiled(piece, self._with_xla)
        else:  # nothing is left to compute but the table
            raw_params, pixel = step(pixel)
            found = _call_compiled(lambda: tables(raw_params), self._with_xla)
        self.first_table, self.given = found
        return raw_params, pixel

    def end_pixel(self, pixel, levels):
        return self._model.cached_step.end_pixel(pixel, levels)

    def end_row(self, *arguments):
        end_row = self._model.cached_step.end_row
        return _call_compiled(lambda: end_row(*arguments), self._with_xla)


def _codes(likelihood, pieces, number, with_xla):
    """Makes the function that lets the canvas of a number code each level, for `walk_row`."""
    num_levels = likelihood.num_levels

    def choose(raw_params, row, column, channel, earlier):
        table, first = pieces.first_table, None
        for step in range(len(frequencies.part_sizes(num_levels))):
            if step > 0:
                arguments = (likelihood, pieces.given, step, first)
                table = functools.partial(frequencies.table, *arguments)
                table = _call_compiled(table, with_xla)
            first = _stop(functools.partial(_at_stop, channel, step), table, number, row, column)
        return ops.cast(first, likelihoods.level_dtype(num_levels))

    return choose


def _at_stop(channel, step, table, number, row, column):
    canvas = _CANVASES[int(number)]
    return canvas.stop(np.asarray(table), int(row), int(column), channel, step)


def _stop(function, table, *arguments):
    """Calls a function of arrays from within a compiled function. It returns int32 [B]."""
    if keras.backend.backend() == "jax":
        import jax
        from jax.experimental import io_callback

        result = jax.ShapeDtypeStruct(table.shape[:1], "int32")
        return io_callback(function, result, table, *arguments)
    # TensorFlow is imported here, because this package also runs on other backends without it.
    import tensorflow as tf

    result = tf.numpy_function(function, [table, *arguments], tf.int32)
    result.set_shape(table.shape[:1])
    return result
