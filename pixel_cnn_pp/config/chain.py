"""The options of a chain: its stages, and the view of the image that each of them models."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp import views
from pixel_cnn_pp.config import model_fields
from pixel_cnn_pp.config.fields import about, checked, message


@dataclasses.dataclass(frozen=True)
class ChainConfig:
    """A chain of models with auxiliary variables (Kolesnikov & Lampert 2017).

    Stage k models the view psi_k(X) of an image X, given the view psi_{k-1}(X) of the stage before.
    The view of the last stage is the image itself. The first stage may be conditioned on what the
    user gives.

    Raises:
      ValueError: If a stage does not fit its view, or the stage before it.

    Example:
      >>> from pixel_cnn_pp.config import ModelConfig
      >>> small = ModelConfig(image_shape=(8, 8, 3))
      >>> large = ModelConfig(image_shape=(16, 16, 3), condition_shape=(8, 8, 3))
      >>> ChainConfig((small, large), ("mean:2", "image")).stage_names
      ('8', '16')
    """

    kind: str = model_fields.kind("chain")
    stages: tuple = field(
        default=(), metadata=about("The configurations of the models of the stages", is_flag=False)
    )
    views: tuple = field(
        default=(), metadata=about("The name of the view of each stage, see `views`", is_flag=False)
    )

    def __post_init__(self):
        """Checks the stages against their views, and against each other."""
        checked(self.__dataclass_fields__["kind"], self.kind)
        for name in ("stages", "views"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise ValueError(message(f"`{name}` must be a list", name, value))
            object.__setattr__(self, name, tuple(value))
        if len(self.stages) < 2 or len(self.views) != len(self.stages):
            rule = "`stages` must be at least 2, and `views` one for each of them"
            raise ValueError(message(rule, "views", self.views))
        for stage in self.stages:
            if not hasattr(stage, "image_shape") or isinstance(stage, ChainConfig):
                rule = "`stages` must be configurations of models that are no chains"
                raise ValueError(message(rule, "stage", stage))
            if getattr(stage, "energy_distance", False):
                rule = "`stages` must have a likelihood, because log-likelihoods of stages add up"
                raise ValueError(message(rule, "energy_distance", True))
        found = [views.parse(name) for name in self.views]
        if found[-1] != views.IMAGE:
            raise ValueError(message("`views` must end with image", "views", self.views))
        if len(set(found)) < len(found):
            raise ValueError(message("`views` must differ", "views", self.views))
        before = None
        for stage, view in zip(self.stages, found, strict=True):
            self._check_stage(stage, view, before)
            before = stage
        if len(set(self.stage_names)) < len(self.stages):
            rule = "`views` must be of different sizes, but for gray ones and the image"
            raise ValueError(message(rule, "views", self.views))

    def _check_stage(self, stage, view, before):
        """Checks that a stage models its view, and is conditioned on the stage before it."""
        expected = view.shape_of(self.image_shape), view.levels_of(self.num_levels)
        found = stage.image_shape, stage.num_levels
        if found != expected:
            rule = f"A stage must model its view {view.name}, of shape {expected[0]} and "
            raise ValueError(message(f"{rule}{expected[1]} levels", "stage", found))
        if before is None:
            return
        expected = None, before.image_shape, before.num_levels
        names = ("num_classes", "condition_shape", "condition_levels")
        found = tuple(getattr(stage, name, None) for name in names)
        if found != expected:
            rule = "A stage after the first must be conditioned on the pictures of the stage before"
            words = "`num_classes`, `condition_shape` and `condition_levels`"
            raise ValueError(message(f"{rule}: {words} must be {expected}", "stage", found))

    @property
    def image_shape(self):
        """(H, W, C) of the images."""
        return self.stages[-1].image_shape

    @property
    def num_levels(self):
        """L of the images."""
        return self.stages[-1].num_levels

    @property
    def num_classes(self):
        """The number of classes that the first stage is conditioned on, or None."""
        return self.stages[0].num_classes

    @property
    def condition_shape(self):
        """The shape of another condition of the first stage, or None."""
        return getattr(self.stages[0], "condition_shape", None)

    @property
    def condition_levels(self):
        """The number of levels of a picture that the first stage is conditioned on."""
        return getattr(self.stages[0], "condition_levels", None)

    @property
    def stage_names(self):
        """The name of each stage: gray and colour, or the size of its pictures: 8, or 8x12."""
        shapes = [stage.image_shape for stage in self.stages]
        sizes = [
            str(height) if height == width else f"{height}x{width}" for height, width, _ in shapes
        ]
        found = [views.parse(view) for view in self.views]
        grays = [view for view in found if view.kind == "gray"]
        names = []
        for view, size in zip(found, sizes, strict=True):
            if view.kind == "gray":
                names.append("gray" if len(grays) == 1 else f"gray{view.number}")
            else:
                names.append("colour" if grays and view == views.IMAGE else size)
        return tuple(names)
