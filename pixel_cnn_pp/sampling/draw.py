"""Compiled functions that draw rows, and whole images, from a seed."""

import collections
import concurrent.futures
import contextlib
import os
import threading
import weakref

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp.sampling import driver, named_functions
from pixel_cnn_pp.sampling.graph_optimizer import without_graph_optimizer
from pixel_cnn_pp.sampling.noise import row_uniforms

# Largest number of images in a batch. Larger batches need more memory and are not faster.
_MAX_BATCH_SIZE = 64
# A batch has one of these sizes, or the largest. Each is compiled for itself, which takes seconds,
# and on TensorFlow some 40 MB that are never given back.
_BATCH_SIZES = (1, 2, 4, 8, 16, 24, 32, 40, 48, 56)
# Most pairs of compiled functions that are kept, over all models and shapes.
_MOST_COMPILED = 32
# How many rows are drawn from one report of the progress to the next.
_ROWS_PER_REPORT = 4


def draw_cached(model, images, known_mask, condition, seed, controls, progress=None, with_xla=None):
    """Draws images with the cached step, in batches of few sizes. Each size is compiled once.

    Args:
      model: `models.AutoregressiveModel`.
      images: Integer array [N, H, W, C] with the known pixels.
      known_mask: Boolean array [N, H, W].
      condition: Array of what the N images are conditioned on, or None.
      seed: Python integer, signed 32 bits.
      controls: Float array [3], as `likelihoods.Likelihood.draw` takes it.
      progress: As in `sampling.sample`.
      with_xla: Whether XLA compiles the function that draws a row. None for what `prefers_xla`
        says. JAX always uses XLA.

    Returns:
      `images`, in which all unknown pixels are replaced by drawn ones.
    """
    num_wanted, height, width, _ = images.shape
    with_xla = prefers_xla(model) if with_xla is None else with_xla
    batch_size = batching(num_wanted)
    num_images = max(num_wanted, batch_size)
    images, known_mask, condition = (
        None if x is None else _repeated(x, num_images) for x in (images, known_mask, condition)
    )
    # All batches have one size, so that one function is compiled. If the images do not fill the
    # last batch, it starts earlier. Then it draws some images of the batch before again, with the
    # same result. If they do not fill a single batch, images are added that nobody gets.
    starts = [min(i, num_images - batch_size) for i in range(0, num_images, batch_size)]
    prepare, embed = _functions_of(model)
    shared = _shared_functions(model, with_xla, batch_size, width)
    weights = prepare()
    # Without `progress`, one call draws all rows.
    num_rows = height if progress is None else _ROWS_PER_REPORT
    lock, done = threading.Lock(), [0]
    is_ended = threading.Event()

    def draw_batch(start):
        batch = slice(start, start + batch_size)
        embedded = None
        if condition is not None:
            own = condition[batch]
            dtype = "int32" if own.dtype.kind in "iub" else model.variable_dtype
            embedded = embed(ops.convert_to_tensor(own.astype(dtype)))
        state = model.cached_step.initial_state(batch_size, width, embedded)
        drawn = np.moveaxis(images[batch], 0, 2)  # [H, W, B, C]
        drawn, batch_mask, batch_controls, *numbers = (
            ops.convert_to_tensor(x)
            for x in (
                drawn,
                np.moveaxis(known_mask[batch], 0, 2),
                controls,
                *(np.asarray(number, "int32") for number in (seed, start)),
            )
        )
        arguments = (batch_mask, embedded, batch_controls, *numbers)
        for row in range(0, height, num_rows):
            if is_ended.is_set():
                return None
            last_row = min(row + num_rows, height)
            rows = [ops.convert_to_tensor(r, dtype="int32") for r in (row, last_row)]
            state, drawn = shared(model, weights, state, drawn, *arguments, *rows)
            if progress is None:
                continue
            ops.convert_to_numpy(drawn[row, 0, 0])  # waits until the rows are drawn
            with lock:
                done[0] += last_row - row
                progress(done[0] * num_wanted // len(starts), height * num_wanted)
        return np.moveaxis(ops.convert_to_numpy(drawn), 2, 0)

    executor = concurrent.futures.ThreadPoolExecutor(num_workers())
    try:
        for start, drawn in zip(starts, executor.map(draw_batch, starts), strict=True):
            images[start : start + batch_size] = drawn
    finally:
        # On Ctrl-C nothing waits for the batches that are being drawn.
        is_ended.set()
        executor.shutdown(wait=False, cancel_futures=True)
    return images[:num_wanted]


def _repeated(array, length):
    """An array whose last row is repeated up to a length. The same array if it is long enough."""
    num_missing = length - len(array)
    if num_missing == 0:
        return array
    return np.concatenate([array, np.repeat(array[-1:], num_missing, axis=0)])


def prefers_xla(model):
    """Whether XLA draws faster than TensorFlow's graph executor (benchmarks/sampling.py has both).

    It does in float32. On a CPU, XLA has no fast products in bfloat16, and TensorFlow has.
    """
    return not (_is_on_cpu() and model.compute_dtype == "bfloat16")


def _is_on_cpu():
    return keras.distribution.list_devices()[0].startswith("cpu")


def num_workers():
    """Number of batches to draw at the same time.

    The computation for one pixel is too small to be divided among the cores of a CPU. So each core
    draws a batch of its own. Other devices draw one batch at a time.
    """
    if not _is_on_cpu():
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def batching(num_images):
    """Number of images in a batch: all cores are busy, but batches are not too large."""
    return batch_size_of(num_images, num_workers())


def batch_size_of(num_images, workers):
    """Number of images in a batch: the images of a worker, rounded up to one of the sizes.

    `sample` and an exported function use the same rule. In batches of another size, products may be
    rounded differently, which changes some of the draws.

    Args:
      num_images: Number of images, a Python integer or an integer tensor.
      workers: Number of batches that are drawn at the same time.

    Returns:
      An integer, or a tensor. It may be above the number of images.
    """
    share = (num_images + workers - 1) // workers
    sizes = [size for size in _BATCH_SIZES if size < _MAX_BATCH_SIZE]
    if isinstance(num_images, int):
        return next((size for size in sizes if size >= share), _MAX_BATCH_SIZE)
    sizes = ops.convert_to_tensor(sizes, dtype=share.dtype)
    return ops.min(ops.where(sizes >= share, sizes, _MAX_BATCH_SIZE))


# {model: its compiled functions}. They hold only weak references to their models.
_COMPILED = weakref.WeakKeyDictionary()


def _functions_of(model):
    """The functions `weights` and `embed` of a model, compiled for it alone: they read weights."""
    if model not in _COMPILED:
        model_proxy = weakref.proxy(model)

        def prepare():
            return model_proxy.cached_step.weights()

        def embed(condition):
            return model_proxy.embed(condition)

        if keras.backend.backend() == "tensorflow":  # JAX would make the weights constants
            prepare, embed = _compiled_when_repeated(prepare), compile_function(embed, False)
        _COMPILED[model] = prepare, embed
    return _COMPILED[model]


def _compiled_when_repeated(function):
    """A function that is compiled at its second call. It has no arguments.

    To compile the effective weights of a big network takes ten times as long as to compute them.
    Both compute the same numbers, operation by operation.
    """
    compiled = compile_function(function, False)
    is_first = [True]

    def call():
        return function() if is_first and is_first.pop() else compiled()

    return call


# {what functions depend on: _SharedFunctions}. They are kept as long as one of their models.
_SHARED = weakref.WeakValueDictionary()
# {model: {what functions depend on: _SharedFunctions}}, for the models that live.
_USED = weakref.WeakKeyDictionary()
# The keys of `_SHARED`, the last used ones at the end.
_LAST_USED = collections.OrderedDict()
_SHARED_LOCK = threading.Lock()


def _shared_functions(model, with_xla, batch_size, width):
    """The compiled function `draw_rows` for all models of a configuration, and one batch shape.

    It is freed with the last model that uses it, or when too many others were used after it.
    """
    key = (
        type(model),
        repr(model.config),
        (model.compute_dtype, model.variable_dtype),
        (with_xla, batch_size, width),
    )
    with _SHARED_LOCK:
        functions = _SHARED.get(key)
        if functions is None:
            functions = _SHARED[key] = _SharedFunctions(with_xla, key)
        _USED.setdefault(model, {})[key] = functions
        _LAST_USED[key] = None
        _LAST_USED.move_to_end(key)
        while len(_LAST_USED) > _MOST_COMPILED:
            oldest, _ = _LAST_USED.popitem(last=False)
            for used in list(_USED.values()):
                used.pop(oldest, None)
        return functions


class _SharedFunctions:
    """A compiled `draw_rows` that takes the model as its first argument. It keeps no model.

    The models must have the same configuration. All but their weights is the same then, and the
    weights are arguments: of the methods of a step, only `weights` reads those of the model.

    On TensorFlow a graph draws the rows, and one call of XLA in it draws each row. The noise is
    drawn outside XLA, because XLA has another generator. So the noise is the same everywhere.
    """

    def __init__(self, with_xla, key):
        self._own = threading.local()
        # XLA optimizes by itself. Other functions need the optimizer of TensorFlow.
        is_optimized = not with_xla or keras.backend.backend() != "tensorflow"
        self._calling = contextlib.nullcontext if is_optimized else without_graph_optimizer
        # The code of models of other packages may change while this package stays the same.
        is_own = key[0].__module__.startswith("pixel_cnn_pp.")
        kept_key = ("draw_row", _is_on_cpu(), *key) if is_own else None
        draw_rows = make_draw_rows(
            _ModelOfThread(self._own), lambda step: compile_function(step, with_xla, kept_key)
        )
        self._draw_rows = compile_function(draw_rows, False)

    def __call__(self, model, *arguments):
        self._own.model = model
        try:
            with self._calling():
                return self._draw_rows(*arguments)
        finally:
            del self._own.model


class _ModelOfThread:
    """Stands for the model with which this thread calls a function, while it is traced."""

    def __init__(self, own):
        self._own = own

    def __getattr__(self, name):
        return getattr(self._own.model, name)


def make_draw_rows(model, compile_step):
    """Makes the function that draws rows of a batch from a seed.

    Args:
      model: `models.AutoregressiveModel`.
      compile_step: Function that compiles a function. It is applied to the function that draws one
        row.

    Returns:
      Function (weights, state, images, known_mask, condition, controls, seed, first_image,
      first_row, last_row) -> (state, images), with these arguments:
        weights, state: As in `walk_row`.
        images, known_mask: The known pixels, [H, W, B, C], and where they are, [H, W, B].
        condition: The result of the model's `embed`, or None for an unconditional model.
        controls: Floats [temperature, log_scale_offset, 1 for the mode "map" or else 0].
        seed, first_image, first_row, last_row: Integers []. `first_image` is the number of the
          first image, counted over all batches.
      When the function is traced, W and C must be known. B must be known if it is above 64.
    """

    def draw_row(weights, state, images, known_mask, condition, controls, uniforms, row):
        likelihood = model.likelihood.using(weights)
        choose = driver.draws(likelihood, uniforms, controls)
        choose = driver.completes(choose, images, known_mask)
        state, levels, _ = driver.walk_row(
            model, weights, state, row, choose, ops.shape(images)[:2], condition
        )
        return state, levels

    draw_row = compile_step(draw_row)

    def draw_rows(
        weights,
        state,
        images,
        known_mask,
        condition,
        controls,
        seed,
        first_image,
        first_row,
        last_row,
    ):
        _, width, batch_size, _ = ops.shape(images)
        # If the number of images is unknown, it is that of a batch, so at most _MAX_BATCH_SIZE.
        most_images = batch_size if isinstance(batch_size, int) else _MAX_BATCH_SIZE

        def next_row(row, state, images):
            uniforms = row_uniforms(
                seed,
                row,
                first_image,
                batch_size,
                width,
                model.likelihood.num_uniforms,
                most_images,
            )
            state, levels = draw_row(
                weights, state, images[row], known_mask[row], condition, controls, uniforms, row
            )
            # `ops.slice_update` cannot be used here. In TensorFlow it needs XLA, which a server may
            # not have.
            return row + 1, state, ops.scatter_update(images, [[row]], levels[None])

        _, state, images = ops.while_loop(
            lambda row, *_: row < last_row, next_row, (first_row, state, images)
        )
        return state, images

    return draw_rows


def compile_function(function, with_xla, key=None):
    """Compiles a function of tensors for the current Keras backend. JAX always uses XLA.

    `key` is for `named_functions.with_xla`.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    # TensorFlow is imported here, because this package also runs on other backends without it.
    import tensorflow as tf

    function = named_functions.with_xla(function, key) if with_xla else function
    return tf.function(function, autograph=False)
