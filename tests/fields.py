"""Receptive fields by intervention."""

import numpy as np
import specimens


def field_of_view(config, row, column, scale=1.0):
    """Where a changed sub-pixel changes the parameters of one pixel, booleans [H, W].

    `scale` is that of the kernels. It must be small for a network whose gates saturate.
    """
    model = specimens.fresh(config, dtype="float64")
    rng = np.random.default_rng(1)
    # Positive kernels and features, so that no relu stops a change on its way.
    for weight in model.weights:
        sizes = np.abs(rng.normal(size=weight.shape))
        weight.assign(scale * sizes / np.sqrt(np.prod(weight.shape[:-1])))
    (image,) = specimens.images(config, 1)
    before = np.repeat(image[None], image.size, axis=0)
    after = before.copy()
    places = (np.arange(image.size), np.arange(image.size))
    changed = (image.ravel().astype(int) + config.num_levels // 2) % config.num_levels
    after.reshape(image.size, image.size)[places] = changed
    expected = model(before[:1]).numpy()[0, row, column]
    found = model(after).numpy()[:, row, column]
    differs = np.abs(found - expected) > 1e-12 * np.abs(expected).max()
    return differs.any(axis=-1).reshape(*config.image_shape).any(axis=-1)
