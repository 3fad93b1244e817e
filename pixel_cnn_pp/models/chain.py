"""A chain of models: each stage models a view of the image, given the view before it."""

import functools

import keras
import numpy as np
from keras import ops

from pixel_cnn_pp import config as configs
from pixel_cnn_pp import views
from pixel_cnn_pp.models import inputs, stages
from pixel_cnn_pp.models.base import AutoregressiveModel

# Seeds of neighbouring stages differ by this number, so that no other seed of a run is among them.
_SPREAD = 1013904223


class _Likelihood:
    """What the likelihoods of the stages have in common, see `likelihoods.Likelihood`."""

    name = "a chain"
    unit = "bits/dim (bound)"
    loss_name = "bits_per_dim"

    def __init__(self, of_stages):
        self.controls = tuple(
            name
            for name in ("temperature", "log_scale_offset", "mode")
            if any(name in likelihood.controls for likelihood in of_stages)
        )
        reasons = [likelihood.why_no_log_prob for likelihood in of_stages]
        self.why_no_log_prob = next((reason for reason in reasons if reason is not None), None)

    def noise_shape(self, height, width):
        """The noise is that of the stages, see `Chain.noise`."""
        return None

    def require_log_prob(self):
        """As in `likelihoods.Likelihood`."""
        if self.why_no_log_prob is not None:
            raise ValueError(self.why_no_log_prob)


@keras.saving.register_keras_serializable("pixel_cnn_pp")
class Chain(AutoregressiveModel):
    """A chain of models with auxiliary variables (Kolesnikov & Lampert 2017).

    With the views psi_1(X), ..., psi_n(X) = X of an image X,

        log p(X) >= sum{ log p(psi_k(X) | psi_{k-1}(X)) : k }

    (their equation 2, applied n - 1 times). The right side is what this model calls `log_prob`. The
    difference is -log p(psi_{k-1}(X) | psi_k(X)) under the model itself, summed over k, which is
    small if stage k follows its condition. Sampling draws stage after stage.

    Grayscale PixelCNN is a chain of two stages, of a gray picture and of the image. Pyramid
    PixelCNN is a chain of pictures that grow.

    The stages may be trained together by `fit`, or each alone, as `train.py` does.

    Example:

    >>> from pixel_cnn_pp import ModelConfig, PixelCNNPP
    >>> size = {"nr_resnet": 1, "nr_filters": 4}
    >>> small = PixelCNNPP(ModelConfig(image_shape=(4, 4, 3), **size))
    >>> large = PixelCNNPP(ModelConfig(image_shape=(8, 8, 3), condition_shape=(4, 4, 3), **size))
    >>> chain = Chain([small, large])
    >>> [stage.name for stage in chain.stages]
    ['4', '8']
    """

    title = "Chain"

    def __init__(self, stages, views=None, recompute=False, **kwargs):
        """Makes a chain of models, or all models of a configuration.

        Args:
          stages: List of models, the first stage first; or a `config.ChainConfig`, whose models
            are made with fresh weights.
          views: Names of the views of the stages, see `views`. None for views that follow from the
            shapes: a gray picture with as many levels as the stage has, means of blocks for a
            smaller picture, and the image itself at the end.
          recompute: As in `AutoregressiveModel`, for a configuration.
          **kwargs: As in `AutoregressiveModel`. The dtype of models that are given is their own.

        Raises:
          ValueError: If the stages do not fit each other.
        """
        if isinstance(stages, configs.ChainConfig):
            if views is not None:
                raise ValueError(
                    "`views` must be left out for a ChainConfig, which has its own. "
                    f"Received: views={_in_one_line(views)}"
                )
            from pixel_cnn_pp import models  # the room makes chains too

            config = stages
            names = [f"stage_{name}" for name in config.stage_names]
            of_stages = [
                models.make(each, recompute=recompute, name=name, **_dtype(kwargs))
                for each, name in zip(config.stages, names, strict=True)
            ]
        else:
            of_stages = _checked(stages)
            if "dtype" in kwargs:
                raise ValueError(
                    "`dtype` must be left out for models, which have their own. "
                    f"Received: dtype={_in_one_line(kwargs['dtype'])}"
                )
            kwargs["dtype"] = of_stages[0].dtype_policy
            recompute = recompute or any(model.recompute for model in of_stages)
            of_configs = tuple(model.config for model in of_stages)
            config = configs.ChainConfig(of_configs, _views(of_configs) if views is None else views)
        super().__init__(config, recompute, **kwargs)
        self.stage_models = of_stages
        self.likelihood = _Likelihood([model.likelihood for model in of_stages])
        self.has_dropout = any(model.has_dropout for model in of_stages)
        self.built = True

    @property
    def stages(self):
        """As in `AutoregressiveModel`."""
        found = zip(self.config.stage_names, self.stage_models, self.config.views, strict=True)
        return tuple(stages.Stage(name, model, views.parse(view)) for name, model, view in found)

    @property
    def cached_step(self):
        """A chain has none: each of its stages has one."""
        raise ValueError(
            "A cached step must be asked of a stage: chain.stages[0].model. Received: a chain"
        )

    def build(self, input_shape):
        """The stages are built already."""

    def conditionals(self, images, condition=None, training=False, seed=None, first_image=0):
        """The raw parameters of each stage, a list. Otherwise as in `AutoregressiveModel`."""
        found = []
        for number, (stage, (pictures, condition_of_stage)) in enumerate(
            zip(self.stages, stages.pictures(self, images, condition), strict=True)
        ):
            own_seed = None if seed is None else _seed_of(seed, number)
            found.append(
                stage.model.conditionals(
                    pictures, condition_of_stage, training, own_seed, first_image
                )
            )
        return found

    @inputs.takes_labels
    def initialize(self, images, condition=None, seed=0):
        """Initialises each stage from its views of one whole batch. As in `AutoregressiveModel`."""
        self.check_inputs(images, condition)
        parts = stages.pictures(self, images, condition)
        for number, (stage, (pictures, condition_of_stage)) in enumerate(
            zip(self.stages, parts, strict=True)
        ):
            own_seed = (seed + number * _SPREAD) % 2**31
            stage.model.initialize(pictures, condition_of_stage, seed=own_seed)

    def loss_of(self, raw_params, images, noise=None):
        """The sum of the losses of the stages. As in `AutoregressiveModel`."""
        noise = self.noise(images) if noise is None else noise
        parts = stages.pictures(self, images, None)
        return sum(
            stage.model.loss_of(raw, pictures, own)
            for stage, raw, (pictures, _), own in zip(
                self.stages, raw_params, parts, noise, strict=True
            )
        )

    def noise(self, images, seed=None, first_image=0):
        """The noise of each stage, a list. As in `AutoregressiveModel`."""
        parts = stages.pictures(self, images, None)
        return [
            stage.model.noise(
                pictures, None if seed is None else _seed_of(seed, number), first_image
            )
            for number, (stage, (pictures, _)) in enumerate(zip(self.stages, parts, strict=True))
        ]

    def log_prob_parts(self, raw_params, images, reduce):
        """As in `AutoregressiveModel`.

        With "pixel", the nats of a pixel of a smaller picture are divided among the pixels of the
        image that it stands for.

        Raises:
          ValueError: If `reduce` is "channel".
        """
        if reduce == "image":
            return self.log_prob_of(raw_params, images)
        if reduce == "channel":
            raise ValueError(
                "`reduce` must be image or pixel for a chain, whose stages may have other "
                "channels. Received: reduce='channel'"
            )
        total = 0
        parts = stages.pictures(self, images, None)
        for stage, raw, (pictures, _) in zip(self.stages, raw_params, parts, strict=True):
            nats = stage.model.log_prob_parts(raw, pictures, reduce)  # [B, h, w]
            factor = stage.view.factor
            for axis in (1, 2):
                nats = ops.repeat(nats, factor, axis=axis)
            total = total + nats / factor**2
        return total

    def level_probabilities(self, *arguments, **named):
        """A chain has none: its stages have.

        Raises:
          ValueError: Always.
        """
        raise ValueError(
            "Probabilities of levels must be asked of a stage: chain.stages[0].model. "
            "Received: a chain"
        )

    def distribution(self, raw_params):
        """A chain has none: its stages have.

        Raises:
          ValueError: Always.
        """
        raise ValueError(
            "A distribution must be asked of a stage: chain.stages[0].model. Received: a chain"
        )

    @property
    def is_conditional(self):
        """Whether the first stage is conditioned on something."""
        return self.stage_models[0].is_conditional

    @inputs.takes_labels
    def check_inputs(self, images, condition=None):
        """Checks images, and the condition of the first stage. As in `AutoregressiveModel`."""
        channels, num_levels = self.config.image_shape[-1], self.config.num_levels
        found = [inputs.check_images(images, channels, num_levels)]
        shape = tuple(images.shape)  # a side is None where it is unknown
        shapes = [stage.view.shape_of(shape[1:]) for stage in self.stages]
        first = self.stage_models[0].config
        found.append(inputs.check_condition(condition, (shape[0], *shapes[0]), first))
        found = [is_right for is_right in found if is_right is not None]
        return functools.reduce(ops.logical_and, found) if found else None

    def keyed_weights(self):
        """The keys of a stage begin with its name. Otherwise as in `KerasModel`."""
        return {
            f"{stage.name}/{key}": weight
            for stage in self.stages
            for key, weight in stage.model.keyed_weights().items()
        }

    @classmethod
    def from_config(cls, values):
        """The chain with these arguments, with fresh weights."""
        values = dict(values)
        return cls(configs.model_config(values.pop("config")), **values)


def _dtype(kwargs):
    return {"dtype": kwargs["dtype"]} if "dtype" in kwargs else {}


def _seed_of(seed, number):
    """The seed [2] of a stage, another one for each number. The sum may wrap around."""
    seed = ops.convert_to_tensor(seed)
    return seed + ops.cast(np.array([number * _SPREAD % 2**31, 0], "int32"), seed.dtype)


def _in_one_line(value):
    return " ".join(repr(value).split())


def _checked(of_stages):
    """The stages that a user gives, as a list. They must be ordinary models of one dtype."""
    if not isinstance(of_stages, list | tuple) or len(of_stages) < 2:
        raise ValueError(
            "`stages` must be a list of at least 2 models, or a ChainConfig. "
            f"Received: {type(of_stages).__name__}"
        )
    for model in of_stages:
        if not isinstance(model, AutoregressiveModel) or isinstance(model, Chain):
            raise ValueError(
                "`stages` must be models of this package that are no chains. "
                f"Received: {type(model).__name__}"
            )
    dtypes = {model.dtype_policy.name for model in of_stages}
    if len(dtypes) > 1:
        raise ValueError(f"`stages` must have one dtype. Received: {', '.join(sorted(dtypes))}")
    return list(of_stages)


def _views(of_configs):
    """The names of the views that follow from the shapes of the stages."""
    *others, last = of_configs
    height, width, channels = last.image_shape
    found = []
    for each in others:
        own_height, own_width, own_channels = each.image_shape
        factor = height // own_height
        times_larger = own_height * factor, own_width * factor, own_channels
        if (own_height, own_width, own_channels, channels) == (height, width, 1, 3):
            found.append(f"gray:{each.num_levels}")
        elif factor > 1 and times_larger == last.image_shape:
            found.append(f"mean:{factor}")
        else:
            raise ValueError(
                "`views` must be given where they do not follow from the shapes of the stages. "
                f"Received: a stage of {each.image_shape} before {last.image_shape}"
            )
    return (*found, "image")
