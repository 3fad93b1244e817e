"""The options of each model, one class for each model."""

import dataclasses
import typing
from dataclasses import field

from pixel_cnn_pp.config.fields import (
    about,
    check_fields,
    from_dict,
    message,
    require_default,
)

# Small receptive fields of PixelCNN++: width x height -> number of residual blocks. Each block adds
# two rows and, on each side, two columns.
SMALL_FIELDS = {"11x5": 2, "15x8": 3}
# Number of channel groups of the variant "autoregressive_channel". The paper does not give it.
CHANNEL_GROUPS = 4
# A softmax has one output for every level. With more levels, the sums over levels by which a level
# is drawn are not precise enough in float32.
MAX_SOFTMAX_LEVELS = 4096


# What every model has, beside `image_shape`: the data say its value, and no flag does.


def _kind(name):
    # By keyword only: `image_shape` is the first argument.
    metadata = about("The name of the model", choices=(name,), is_flag=False)
    return field(default=name, kw_only=True, metadata=metadata)


def _num_levels(most):
    help_text = "Levels of a sub-pixel: images are whole numbers in [0, num_levels - 1]"
    bounds = [(">=", 2), ("<=", most)]
    return field(default=256, metadata=about(help_text, bounds=bounds, is_flag=False))


def _num_classes():
    help_text = "Number of classes that the model is conditioned on; None if it is not"
    return field(default=None, metadata=about(help_text, bounds=[(">=", 1)], is_flag=False))


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The options of PixelCNN++ (Salimans et al. 2017): its network and its likelihood.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> ModelConfig(image_shape=(8, 8, 1), num_levels=17, nr_filters=32).dropout_p
      0.5
    """

    kind: str = _kind("pixel_cnn_pp")
    image_shape: tuple[int, int, int] = field(
        default=(32, 32, 3),
        metadata=about(
            "Height, width and channels of an image",
            # The network halves height and width twice.
            bounds=[("with H and W multiples of", 4)],
            is_flag=False,
        ),
    )
    num_levels: int = _num_levels(most=65536)
    nr_resnet: int = field(
        default=5,
        metadata=about(
            "Number of residual blocks per stage of the model; a small receptive_field determines "
            "the number itself",
            short_name="q",
            bounds=[(">=", 1)],
        ),
    )
    nr_filters: int = field(
        default=160,
        metadata=about(
            "Number of filters across the model; higher is a larger model",
            short_name="n",
            bounds=[(">=", 1)],
        ),
    )
    nr_logistic_mix: int = field(
        default=10,
        metadata=about(
            "Number of logistic components in the mixture; more components are more flexible; the "
            "softmax and the energy distance do not use it",
            short_name="m",
            bounds=[(">=", 1)],
        ),
    )
    resnet_nonlinearity: str = field(
        default="concat_elu",
        metadata=about(
            "The non-linearity in the residual blocks",
            short_name="z",
            choices=("concat_elu", "elu", "relu"),
        ),
    )
    dropout_p: float = field(
        default=0.5,
        metadata=about(
            "Probability that dropout zeroes a value; 0 is no dropout",
            short_name="p",
            bounds=[(">=", 0), ("<", 1)],
        ),
    )
    num_classes: int | None = _num_classes()
    likelihood: str = field(
        default="logistic_mixture",
        metadata=about(
            "Distribution of a pixel that the network's outputs describe: a discretized mixture of "
            "logistics, a softmax over all levels, or a continuous mixture of logistics on "
            "dequantized data, which gives an upper bound of the bits/dim",
            choices=("logistic_mixture", "softmax", "dequantized"),
        ),
    )
    receptive_field: str = field(
        default="full",
        metadata=about(
            "Which pixels the distribution of a pixel depends on. full: all that the network with "
            "three resolutions reaches. 11x5 and 15x8: a rectangle of this width and height above "
            "the pixel, and half the width to the left of the pixel in its own row",
            choices=("full", *SMALL_FIELDS),
        ),
    )
    small_variant: str = field(
        default="plain",
        metadata=about(
            "What is added between the residual blocks of a small receptive_field. plain: nothing. "
            "nin: three residual blocks of 1x1 convolutions. autoregressive_channel: one block in "
            "which groups of channels read earlier groups",
            choices=("plain", "nin", "autoregressive_channel"),
        ),
    )
    shortcuts: bool = field(
        default=True,
        metadata=about("Short-cut connections from the first half of the network to the second"),
    )
    energy_distance: bool = field(
        default=False,
        metadata=about(
            "Train with the energy distance between samples and data; such a model has no "
            "likelihood",
            short_name="ed",
        ),
    )

    min_log_scale: float | None = field(
        default=None,
        metadata=about(
            "Lower limit of the log-scales, for sub-pixels scaled to [-1, 1]. None means -7 for up "
            "to 256 levels and -7 - log((num_levels - 1) / 255) for more levels. Earlier versions "
            "used -7 for any num_levels",
            is_flag=False,
        ),
    )

    def __post_init__(self):
        """Checks each field, and the fields that depend on each other."""
        check_fields(self)
        if self.receptive_field in SMALL_FIELDS:
            self._check_blocks()
            require_default(self, "shortcuts", "the full `receptive_field`")
        else:
            require_default(self, "small_variant", "a small `receptive_field`")
        if self.small_variant == "autoregressive_channel" and self.nr_filters % CHANNEL_GROUPS:
            rule = (
                f"`nr_filters` must be a multiple of {CHANNEL_GROUPS} for "
                "small_variant=autoregressive_channel, which has as many groups of channels"
            )
            raise ValueError(message(rule, "nr_filters", self.nr_filters))
        if self.energy_distance:
            require_default(self, "likelihood", "a model without `energy_distance`")
        if self.likelihood == "softmax" and self.num_levels > MAX_SOFTMAX_LEVELS:
            rule = f"`num_levels` must be at most {MAX_SOFTMAX_LEVELS} for likelihood=softmax"
            raise ValueError(message(rule, "num_levels", self.num_levels))

    @property
    def num_blocks(self):
        """Residual blocks of a stage: `nr_resnet`, or those that a small receptive field has."""
        return SMALL_FIELDS.get(self.receptive_field, self.nr_resnet)

    def _check_blocks(self):
        """Refuses a number of blocks beside a small receptive field, whose size gives the number.

        The default is accepted, and so is the number itself, which earlier versions asked for.
        """
        if self.nr_resnet not in (self.num_blocks, type(self).nr_resnet):
            rule = (
                f"`nr_resnet` must be left out for a receptive_field of {self.receptive_field}, "
                f"which has {self.num_blocks} residual blocks"
            )
            raise ValueError(message(rule, "nr_resnet", self.nr_resnet))


@dataclasses.dataclass(frozen=True)
class PixelCNNConfig:
    """The options of PixelCNN (van den Oord et al. 2016, "Pixel Recurrent Neural Networks").

    The network consists of masked convolutions. The distribution of a sub-pixel is a softmax over
    its levels, or a Bernoulli distribution if there are two levels. The defaults are the paper's
    network for CIFAR-10.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> PixelCNNConfig(image_shape=(5, 7, 1), num_levels=2, nr_filters=16).nr_resnet
      15
    """

    kind: str = _kind("pixel_cnn")
    image_shape: tuple[int, int, int] = field(
        default=(32, 32, 3),
        metadata=about("Height, width and channels of an image, any sizes", is_flag=False),
    )
    num_levels: int = _num_levels(most=MAX_SOFTMAX_LEVELS)
    nr_resnet: int = field(
        default=15,
        metadata=about(
            "Number of residual blocks; the paper uses 15 for CIFAR-10 (van den Oord et al. 2016, "
            "section 4)",
            short_name="q",
            bounds=[(">=", 1)],
        ),
    )
    nr_filters: int = field(
        default=128,
        metadata=about(
            "Number of features h inside a residual block; its input and output have 2h features; "
            "the paper uses 128 for CIFAR-10 (section 4)",
            short_name="n",
            bounds=[(">=", 1)],
        ),
    )
    nr_output_filters: int = field(
        default=1024,
        metadata=about(
            "Number of features of the two 1x1 layers before the output; the paper uses 1024 for "
            "CIFAR-10 and 32 for images with two levels (section 4)",
            bounds=[(">=", 1)],
        ),
    )
    num_classes: int | None = _num_classes()

    __post_init__ = check_fields


# The configuration classes of all models. Flags, files and runs read this list, so add the class
# of a new model here.
AnyModelConfig = ModelConfig | PixelCNNConfig
# {kind: class}. The first model is the default.
MODELS = {config_class.kind: config_class for config_class in typing.get_args(AnyModelConfig)}


def model_config(values, prefix=""):
    """Makes the configuration of a model from the values in a file.

    Args:
      values: A dict, field name -> value. If it has no `kind`, an earlier version wrote it. That
        version had only PixelCNN++, and its lower limit of the log-scales was always -7.
      prefix: The place of the fields in the file, such as "model.", for error messages.

    Returns:
      An instance of one of `MODELS`.

    Raises:
      ValueError: If the kind or a field is unknown, or a value breaks its rule.

    Example:
      >>> model_config({"kind": "pixel_cnn", "nr_filters": 16}).nr_output_filters
      1024
    """
    if not isinstance(values, dict) or "kind" not in values:
        config = from_dict(ModelConfig, values, prefix)
        if config.num_levels > 256 and config.min_log_scale is None:
            config = dataclasses.replace(config, min_log_scale=-7.0)
        return config
    kind = values["kind"]
    if kind not in list(MODELS):
        rule = f"`{prefix}kind` must be one of {', '.join(MODELS)}; a newer version may have "
        raise ValueError(message(f"{rule}written it", f"{prefix}kind", kind))
    return from_dict(MODELS[kind], values, prefix)


def require_options_of(model_class, values):
    """Refuses options that other models have and this one does not.

    Args:
      model_class: A class of `MODELS`.
      values: A dict, field name -> value, of any options.

    Raises:
      ValueError: If one of them is another model's alone, naming all that are.
    """
    own = {item.name for item in dataclasses.fields(model_class)}
    known = {item.name for each in MODELS.values() for item in dataclasses.fields(each)}
    foreign = [name for name in values if name in known - own]
    if foreign:
        listed = ", ".join(f"`{name}`" for name in foreign)
        received = ", ".join(f"{name}={values[name]!r}" for name in foreign)
        raise ValueError(
            f"{listed} must be left out: the model {model_class.kind} has no such option. "
            f"Received: {received}"
        )
