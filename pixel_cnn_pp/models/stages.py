"""The stages of a model: an ordinary model has one, and a chain has several."""

import math
from typing import Any, NamedTuple

from pixel_cnn_pp import views


class Stage(NamedTuple):
    """A stage models a view of the image, given the view of the stage before it.

    Attributes:
      name: What the stage is called in runs and messages, such as "gray" or "16".
      model: `AutoregressiveModel`.
      view: `views.View`.
    """

    name: str
    model: Any
    view: views.View


def multiple(model):
    """The number of which height and width of images are multiples, if all stages are to fit."""
    return math.lcm(*(stage.view.factor for stage in model.stages))


def pictures(model, images, condition):
    """What each stage of a model models of images, and what that is conditioned on.

    Args:
      model: `AutoregressiveModel`.
      images: Array or tensor [B, H, W, C] of whole images.
      condition: The condition of the first stage, or None.

    Returns:
      List of (pictures [B, h, w, c], condition), one for each stage.
    """
    found = []
    for stage in model.stages:
        pictures_of_stage = stage.view.of(images, model.config.num_levels)
        found.append((pictures_of_stage, condition))
        condition = pictures_of_stage
    return found
