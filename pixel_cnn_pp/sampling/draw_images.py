"""The function that draws any number of images within one graph, as an export holds it."""

from keras import ops

from pixel_cnn_pp.sampling import draw


def make_draw_images(model, compile_step):
    """Makes the function that draws any number of images. An export traces this function.

    The function does the same as `sample` after its checks, with the batch sizes of this machine.
    The graph executor decides how many batches are drawn at the same time.

    Args:
      model: `models.AutoregressiveModel`.
      compile_step: As in `draw.make_draw_rows`.

    Returns:
      Function (images [N, H, W, C], known_mask [N, H, W], condition of the N images or None, seed,
      controls) -> images. Apart from the condition, the arguments are as in
      `draw.make_draw_rows`. N may be unknown when it is traced.
    """
    draw_rows = draw.make_draw_rows(model, compile_step)
    workers = draw.num_workers()

    def draw_images(images, known_mask, condition, seed, controls):
        num_wanted, height, width, _ = ops.shape(images)
        batch_size = draw.batch_size_of(num_wanted, workers)
        num_images = ops.maximum(num_wanted, batch_size)
        # As in `draw.draw_cached`, the last image is repeated if there are not enough for a batch.
        rows = ops.minimum(ops.arange(num_images), num_wanted - 1)
        images, known_mask = (ops.take(x, rows, axis=0) for x in (images, known_mask))
        if condition is not None:
            condition = ops.take(condition, rows, axis=0)
        step = model.cached_step
        weights = step.weights()

        def draw_batch(first, drawn):
            # The last batch may start earlier, as in `draw.draw_cached`.
            start = ops.minimum(first, num_images - batch_size)
            numbers = start + ops.arange(batch_size)
            embedded = None
            if condition is not None:
                embedded = model.embed(ops.take(condition, numbers, axis=0))
            _, batch = draw_rows(
                weights,
                step.initial_state(batch_size, width, embedded),
                ops.transpose(ops.take(images, numbers, axis=0), (1, 2, 0, 3)),
                ops.transpose(ops.take(known_mask, numbers, axis=0), (1, 2, 0)),
                embedded,
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
        return drawn[:num_wanted]

    return draw_images
