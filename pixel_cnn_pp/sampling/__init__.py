"""Ancestral sampling: pixel after pixel in raster order, each from its exact distribution."""

import concurrent.futures
import math
import numbers
import os
import threading
import weakref

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp import layers, likelihoods

METHODS = ("cached", "naive")
MODES = ("sample", "map")

# Images are drawn together by at most as many: more fill no core better, and their caches grow.
_MAX_BATCH_SIZE = 64
# The noise of images comes in blocks of this many, so that an image does not depend on how many are
# drawn, nor on how they are divided into batches.
_NOISE_BLOCK = 64
_MAX_SEED = 2**32 - 1
# Room for the numbers of the rows in a seed, beside those of the blocks.
_MAX_ROWS = 2**16


def sample(
    model,
    num_samples,
    labels=None,
    seed=0,
    method="cached",
    image_shape=None,
    temperature=1.0,
    log_scale_offset=0.0,
    mode="sample",
    init_images=None,
    known_mask=None,
    progress=None,
):
    """Draws images from a model, or completes images of which some pixels are known.

    Noise is drawn from the seed; the images are then a deterministic function of it, and every draw
    is rounded to a level before it conditions the next. So the images follow the model's
    `log_prob`, as long as temperature, offset and mode are left alone. Image i depends on the seed
    and on i, not on how many are drawn.

    With mixture logits m and log-scales s of a pixel, draws are made from

        m / temperature,  s + log(temperature) - log_scale_offset.

    Less variance gives cleaner, less varied pictures (Kolesnikov & Lampert 2017, section 4.2). Of a
    softmax, the temperature divides the logits, and there is no offset; a model that is trained by
    the energy distance takes neither, and no mode.

    Args:
      model: PixelCNNPP.
      num_samples: N, how many images.
      labels: Integers [N], the classes to draw, for a class-conditional model; None otherwise.
      seed: Whole number in [0, 2^31 - 1]; the same seed gives the same images.
      method: "cached" computes each part of the network once for every pixel, "naive" the whole
        network for the whole image for every pixel. Both draw the same images, but for the
        rounding of floats. The cached one compiles itself at the first call for a batch size and
        a width, which takes seconds.
      image_shape: (H, W, C), H and W any multiples of 4; default: that of `init_images`, or else
        that of the model's configuration.
      temperature: Above 0.
      log_scale_offset: Any number.
      mode: "sample", or "map": of the mixture component, which is drawn all the same, the mode is
        taken instead of a draw.
      init_images: Integers [N, H, W, C] or [H, W, C], with the known pixels of each image, or of
        all; what stands at the others has no influence.
      known_mask: Booleans [N, H, W] or [H, W], true for the pixels to take from `init_images`.
        They condition all pixels that come after them.
      progress: Function (done, total), called now and then with the numbers of rows that are
        drawn and to be drawn, of all images together; None for none.

    Returns:
      NumPy array [N, H, W, C] of integers in [0, L - 1], uint8 for L <= 256.

    Raises:
      ValueError: If an argument is out of its range, or does not fit the model or the others.

    Example:

    >>> from pixel_cnn_pp import ModelConfig, PixelCNNPP
    >>> model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 1), nr_resnet=1, nr_filters=4))
    >>> images = sample(model, num_samples=2)
    >>> upper_half = np.arange(8)[:, None] * np.ones(8) < 4
    >>> completed = sample(model, 2, seed=1, init_images=images, known_mask=upper_half)
    >>> bool((completed[:, :4] == images[:, :4]).all())
    True
    """
    _check_choice("method", method, METHODS)
    _check_choice("mode", mode, MODES)
    _check_number("num_samples", num_samples, numbers.Integral, "a whole number of at least 1", 1)
    _check_number("seed", seed, numbers.Integral, f"a whole number in [0, {_MAX_SEED}]", 0)
    if seed > _MAX_SEED:
        raise ValueError(
            f"`seed` must be a whole number in [0, {_MAX_SEED}]. Received: seed={seed!r}"
        )
    smallest = np.finfo("float32").tiny
    _check_number("temperature", temperature, numbers.Real, "a number above 0", smallest)
    _check_number("log_scale_offset", log_scale_offset, numbers.Real, "a number")
    _check_controls(model.config, temperature, log_scale_offset, mode)
    images, known_mask = _canvas(model.config, num_samples, image_shape, init_images, known_mask)
    labels = None if labels is None else np.asarray(labels)
    model.check_inputs(images, labels)
    images = images.astype(likelihoods.level_dtype(model.config.num_levels))

    controls = np.array([temperature, log_scale_offset, mode == "map"], model.variable_dtype)
    seed = int(np.uint32(seed).astype(np.int32))  # TensorFlow's seeds are signed
    draw = _sample_naive if method == "naive" else _sample_cached
    return draw(model, images, known_mask, labels, seed, controls, progress or _ignore)


def _sample_naive(model, images, known_mask, labels, seed, controls, progress):
    num_images, height, width, _ = images.shape
    weights, num_uniforms = model.step_weights(), model.num_uniforms()
    inputs = images if labels is None else (images, labels)
    for row in range(height):
        uniforms = _uniforms(seed, row, 0, num_images, width, num_uniforms)
        for column in range(width):
            raw_params = ops.convert_to_tensor(model.predict_on_batch(inputs)[:, row, column])
            levels = model.draw(weights, raw_params, uniforms[column], controls)
            is_drawn = ~known_mask[:, row, column]
            images[is_drawn, row, column] = ops.convert_to_numpy(levels)[is_drawn]
        progress((row + 1) * num_images, height * num_images)
    return images


def _sample_cached(model, images, known_mask, labels, seed, controls, progress):
    num_images, height, width, _ = images.shape
    num_workers = _num_workers()
    batch_size = _batch_size(num_images, num_workers)
    # The last batch reaches back over images of the one before, which are drawn twice and alike, so
    # that all batches have one size and one compiled function.
    starts = [min(i, num_images - batch_size) for i in range(0, num_images, batch_size)]
    step_weights, draw_rows = _compiled_functions(model)
    weights = step_weights()
    # Without a listener all rows in one go, otherwise as many as the coarsest layers look at.
    num_rows = height if progress is _ignore else 4
    lock, done = threading.Lock(), [0]

    def draw_batch(start):
        batch = slice(start, start + batch_size)
        caches = model.empty_cache(batch_size, width)
        drawn = np.moveaxis(images[batch], 0, 2)  # [H, W, B, C]
        arguments = [
            np.moveaxis(known_mask[batch], 0, 2),
            None if labels is None else labels[batch].astype("int32"),
            controls,
            *(np.asarray(number, "int32") for number in (seed, start)),
        ]
        arguments = [None if x is None else ops.convert_to_tensor(x) for x in arguments]
        drawn = ops.convert_to_tensor(drawn)
        for row in range(0, height, num_rows):
            rows = [ops.convert_to_tensor(r, dtype="int32") for r in (row, row + num_rows)]
            caches, drawn = draw_rows(weights, caches, drawn, *arguments, *rows)
            with lock:
                done[0] += num_rows
                progress(done[0] * num_images // len(starts), height * num_images)
        return np.moveaxis(ops.convert_to_numpy(drawn), 2, 0)

    with concurrent.futures.ThreadPoolExecutor(num_workers) as executor:
        for start, drawn in zip(starts, executor.map(draw_batch, starts), strict=True):
            images[start : start + batch_size] = drawn
    return images


def _num_workers():
    """How many batches to draw at a time.

    The steps from pixel to pixel are too small to be divided among the cores of a CPU, so each core
    gets a batch of its own. Other devices do one thing at a time.
    """
    if not keras.distribution.list_devices()[0].startswith("cpu"):
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _batch_size(num_images, num_workers, minimum=min):
    """How many images to draw together; `minimum` is `ops.minimum` where their number is a tensor.

    One rule for a call and for an exported function: products of other batches may be rounded
    differently, and then now and then a draw is another one.
    """
    return minimum(_MAX_BATCH_SIZE, (num_images + num_workers - 1) // num_workers)


# {model: its compiled functions}; the functions know their models by weak references only.
_COMPILED = weakref.WeakKeyDictionary()


def _compiled_functions(model):
    """The model's `step_weights` and `draw_rows`, compiled; the same for every call.

    On TensorFlow the rows are drawn by a graph, and each of them in it by one call of XLA, which
    measures faster than the graph's own executor (benchmarks/sampling.py prints both). The noise
    stays outside XLA, which has a generator of its own: it is the same wherever it is drawn.
    """
    if model not in _COMPILED:
        model_proxy = weakref.proxy(model)

        def step_weights():
            return model_proxy.step_weights()

        if keras.backend.backend() == "tensorflow":  # JAX would compile the weights' values in
            step_weights = _compile(step_weights, False)
        draw_rows = make_draw_rows(model_proxy, lambda step: _compile(step, True))
        _COMPILED[model] = step_weights, _compile(draw_rows, False)
    return _COMPILED[model]


def make_draw_rows(model, compile_step):
    """Makes the function that draws rows of a batch, the whole way from the seed to the integers.

    Args:
      model: PixelCNNPP.
      compile_step: Function that compiles a function, applied to the step that draws one row.

    Returns:
      Function (weights, caches, images, known_mask, labels, controls, seed, first_image, first_row,
      last_row) -> (caches, images). `weights` and `caches` are those of `PixelCNNPP.next_row`;
      images [H, W, B, C] and known_mask [H, W, B] hold the known pixels, labels [B] or None;
      controls are [temperature, log_scale_offset, 1 for the mode "map" or else 0]; `first_image`
      is the number of the first image, counted over all batches; all from `seed` on integers [].
      Of the sizes, W and C must be known when it is traced, and B where it is above 64.
    """

    def draw_row(weights, caches, images, known_mask, labels, controls, uniforms, row):
        def draw(raw_params, column):
            levels = model.draw(weights, raw_params, uniforms[column], controls)
            return ops.where(known_mask[column][:, None], images[column], levels)

        caches, levels, _ = model.next_row(weights, caches, row, draw, labels)
        return caches, levels

    draw_row = compile_step(draw_row)

    def draw_rows(
        weights,
        caches,
        images,
        known_mask,
        labels,
        controls,
        seed,
        first_image,
        first_row,
        last_row,
    ):
        _, width, batch_size, _ = ops.shape(images)
        num_uniforms = model.num_uniforms()

        def next_row(row, caches, images):
            uniforms = _uniforms(seed, row, first_image, batch_size, width, num_uniforms)
            caches, levels = draw_row(
                weights, caches, images[row], known_mask[row], labels, controls, uniforms, row
            )
            # Not `ops.slice_update`: TensorFlow has that as an operation of XLA's only, which a
            # server may be without.
            return row + 1, caches, ops.scatter_update(images, [[row]], levels[None])

        _, caches, images = ops.while_loop(
            lambda row, *_: row < last_row, next_row, (first_row, caches, images)
        )
        return caches, images

    return draw_rows


def make_draw_images(model, compile_step):
    """Makes the function that draws any number of images, to be traced as part of an export.

    It does what `sample` does behind its checks, in the same batches as on this machine, but leaves
    it to the graph's executor to draw several of them at a time.

    Args:
      model: PixelCNNPP.
      compile_step: As in `make_draw_rows`.

    Returns:
      Function (images [N, H, W, C], known_mask [N, H, W], labels [N] or None, seed, controls) ->
      images; arguments as in `make_draw_rows`. N may be unknown when it is traced.
    """
    draw_rows = make_draw_rows(model, compile_step)
    num_workers = _num_workers()

    def draw_images(images, known_mask, labels, seed, controls):
        num_images, height, width, _ = ops.shape(images)
        batch_size = _batch_size(num_images, num_workers, ops.minimum)
        weights = model.step_weights()

        def draw_batch(first, drawn):
            # The last batch reaches back, as in `sample`.
            start = ops.minimum(first, num_images - batch_size)
            numbers = start + ops.arange(batch_size)
            _, batch = draw_rows(
                weights,
                model.empty_cache(batch_size, width),
                ops.transpose(ops.take(images, numbers, axis=0), (1, 2, 0, 3)),
                ops.transpose(ops.take(known_mask, numbers, axis=0), (1, 2, 0)),
                None if labels is None else ops.take(labels, numbers, axis=0),
                controls,
                seed,
                start,
                ops.convert_to_tensor(0),
                ops.convert_to_tensor(height),
            )
            batch = ops.transpose(batch, (2, 0, 1, 3))
            return first + batch_size, ops.scatter_update(drawn, numbers[:, None], batch)

        _, drawn = ops.while_loop(
            lambda first, _: first < num_images, draw_batch, (ops.convert_to_tensor(0), images)
        )
        return drawn

    return draw_images


def _compile(function, with_xla):
    """Compiles a function of tensors for the backend in use; JAX has XLA only."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    # Only here, and only where it is there anyway: this room runs on other backends too.
    import tensorflow as tf

    return tf.function(function, jit_compile=with_xla, autograph=False)


def _uniforms(seed, row, first_image, num_images, width, size):
    """The noise of a row of images: uniforms [W, B, size] in (0, 1)."""
    first_block = first_image // _NOISE_BLOCK
    # A number that is not known yet is that of a batch.
    most_images = num_images if isinstance(num_images, int) else _MAX_BATCH_SIZE
    blocks = []
    for i in range(math.ceil(most_images / _NOISE_BLOCK) + 1):  # they may start within a block
        number = row + _MAX_ROWS * (first_block + i)
        # 0 itself would send a logarithm to -inf.
        smallest = float(np.finfo("float32").tiny)
        shape = (_NOISE_BLOCK, width, size)
        seed_of_block = layers.FixedSeed(ops.stack([seed, number]))
        blocks.append(keras.random.uniform(shape, smallest, dtype="float32", seed=seed_of_block))
    start = first_image % _NOISE_BLOCK
    uniforms = ops.slice(ops.concatenate(blocks), (start, 0, 0), (num_images, width, size))
    return ops.transpose(uniforms, (1, 0, 2))


def _canvas(config, num_samples, image_shape, init_images, known_mask):
    """Arrays [N, H, W, C] with what is known of the images, and [N, H, W], where it is."""
    if (init_images is None) != (known_mask is None):
        given, missing = ("init_images", "known_mask")[:: 1 if known_mask is None else -1]
        raise ValueError(
            f"`init_images` and `known_mask` belong together. "
            f"Received: `{given}` without `{missing}`"
        )
    if image_shape is None:
        image_shape = config.image_shape if init_images is None else np.shape(init_images)[-3:]
    shape, channels = tuple(image_shape), config.image_shape[-1]
    is_shape = len(shape) == 3 and all(isinstance(side, numbers.Integral) for side in shape)
    if not is_shape or min(shape) < 1 or shape[0] % 4 or shape[1] % 4 or shape[2] != channels:
        raise ValueError(
            f"`image_shape` must be (height, width, {channels}), height and width multiples of 4. "
            f"Received: image_shape={image_shape!r}"
        )
    if init_images is None:
        return np.zeros((num_samples, *shape), "uint8"), np.zeros((num_samples, *shape[:2]), bool)
    init_images, known_mask = np.asarray(init_images), np.asarray(known_mask)
    for name, array, end in (
        ("init_images", init_images, shape),
        ("known_mask", known_mask, shape[:2]),
    ):
        if array.shape not in (end, (num_samples, *end)):
            raise ValueError(
                f"`{name}` must have the shape {end} or {(num_samples, *end)}. "
                f"Received: {name} of shape {array.shape}"
            )
    if known_mask.dtype != bool:
        raise ValueError(f"`known_mask` must be booleans. Received: dtype {known_mask.dtype}")
    return (
        np.broadcast_to(init_images, (num_samples, *shape)),
        np.broadcast_to(known_mask, (num_samples, *shape[:2])),
    )


def _check_controls(config, temperature, log_scale_offset, mode):
    """Refuses controls that have no meaning for a model, but at their defaults."""
    refused = {}
    if config.energy_distance:
        refused = {"temperature": (temperature, 1.0), "mode": (mode, "sample")}
    if config.energy_distance or config.likelihood == "softmax":
        refused["log_scale_offset"] = (log_scale_offset, 0.0)
    kind = "energy_distance" if config.energy_distance else f"likelihood {config.likelihood}"
    for name, (value, default) in refused.items():
        if value != default:
            raise ValueError(
                f"`{name}` must be left out: it has no meaning for a model of {kind}. "
                f"Received: {name}={value!r}"
            )


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(choices)}. Received: {name}={value!r}"
        )


def _check_number(name, value, kind, rule, smallest=-math.inf):
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < smallest:
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")


def _ignore(done, total):
    """The progress that nobody listens to."""
