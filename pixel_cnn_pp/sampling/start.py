"""What a drawing starts from: the canvas of each stage, or a picture of a stage that is given."""

import numpy as np
from keras import ops

from pixel_cnn_pp import layers, likelihoods


def seed_of(seed, number):
    """The seed of a stage. Stages must not draw from the same noise.

    Args:
      seed: Integer or int32 tensor [], signed 32 bits.
      number: Number of the stage. The first one, 0, has the seed itself.

    Returns:
      The seed, or int32 tensor [].
    """
    if number == 0:
        return seed
    # Rows draw their noise with the seed and a number that is not negative.
    own = [ops.convert_to_tensor(each, "int32") for each in (seed, -number)]
    return layers.words(ops.stack(own)[None], 1)[0, 0]


def canvases(model, stages, images, known_mask):
    """The known pixels of stages, from those of the whole images.

    A pixel of a smaller picture is known if all pixels are that it stands for.

    Args:
      model: `models.AutoregressiveModel`.
      stages: Those of its stages that are to be drawn.
      images: Integer array [N, H, W, C] with the known pixels.
      known_mask: Boolean array [N, H, W].

    Returns:
      List of (pictures [N, h, w, c], mask [N, h, w]), one for each of these stages.

    Raises:
      ValueError: If a stage has no pictures of images of these sides.
    """
    num_levels = model.config.num_levels
    found = []
    for stage in stages:
        levels = stage.model.config.num_levels
        pictures = stage.view.of(images, num_levels).astype(likelihoods.level_dtype(levels))
        found.append((pictures, stage.view.known(known_mask)))
    return found


def given_pictures(model, num_samples, given, given_stage, image_shape):
    """The pictures of a stage that a user gives.

    Args:
      model: `models.AutoregressiveModel`.
      num_samples, given, given_stage, image_shape: As in `sampling.sample`.

    Returns:
      (number of the stage, pictures [N, h, w, c] or None, image_shape). Without `given`, the number
      is -1.

    Raises:
      ValueError: If `given` fits no stage, or several.
    """
    if given is None:
        if given_stage is not None:
            raise ValueError(
                "`given_stage` must be left out without `given`. "
                f"Received: given_stage={given_stage!r}"
            )
        return -1, None, image_shape
    stages = model.stages[:-1]
    if not stages:
        raise ValueError("`given` must be left out: the model has one stage. Received: given")
    given = np.asarray(given)
    if given.ndim not in (3, 4) or given.shape[:-3] not in ((), (num_samples,)):
        raise ValueError(
            f"`given` must have the shape [h, w, c] or [{num_samples}, h, w, c]. "
            f"Received: given of shape {given.shape}"
        )
    given = np.broadcast_to(given, (num_samples, *given.shape[-3:]))
    names = [stage.name for stage in stages]
    if given_stage is not None and given_stage not in names:
        raise ValueError(
            f"`given_stage` must be one of {', '.join(names)}. "
            f"Received: given_stage={given_stage!r}"
        )
    shape = model.config.image_shape if image_shape is None else image_shape
    fitting = [
        number
        for number, stage in enumerate(stages)
        if given_stage in (None, stage.name) and _fits(stage, given.shape[1:], shape)
    ]
    if given_stage is not None and not fitting and image_shape is None:
        stage = stages[names.index(given_stage)]
        height, width, channels = given.shape[1:]
        if channels == stage.model.config.image_shape[-1]:
            factor = stage.view.factor  # the images have so many times its sides
            shape = (height * factor, width * factor, shape[-1])
            fitting = [names.index(given_stage)]
    if len(fitting) != 1:
        sizes = "; ".join(f"{stage.name}: {_shape(stage, shape)}" for stage in stages)
        raise ValueError(
            f"`given` must have the shape (h, w, c) of the pictures of one stage ({sizes}), or "
            f"`given_stage` name it. Received: {given.shape[1:]}"
        )
    return fitting[0], given, shape


def _fits(stage, shape, image_shape):
    try:
        return stage.view.shape_of(tuple(image_shape)) == shape
    except (ValueError, TypeError):
        return False


def _shape(stage, image_shape):
    try:
        return stage.view.shape_of(tuple(image_shape))
    except (ValueError, TypeError):
        return "none of this image_shape"
