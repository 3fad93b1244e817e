"""The options of PixelCNN++."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp.config import model_fields
from pixel_cnn_pp.config.fields import about, check_fields, message, require_default
from pixel_cnn_pp.config.model_fields import MAX_SOFTMAX_LEVELS

# Small receptive fields: width x height -> number of residual blocks. Each block adds two rows and,
# on each side, two columns.
SMALL_FIELDS = {"11x5": 2, "15x8": 3}
# Number of channel groups of the variant "autoregressive_channel". The paper does not give it.
CHANNEL_GROUPS = 4


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The options of PixelCNN++ (Salimans et al. 2017): its network and its likelihood.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> ModelConfig(image_shape=(8, 8, 1), num_levels=17, nr_filters=32).dropout_p
      0.5
    """

    kind: str = model_fields.kind("pixel_cnn_pp")
    image_shape: tuple[int, int, int] = field(
        default=(32, 32, 3),
        metadata=about("Height, width and channels of an image, any sizes", is_flag=False),
    )
    num_levels: int = model_fields.num_levels(most=65536)
    nr_resnet: int = field(
        default=5,
        metadata=about(
            "Number of residual blocks at each resolution of each half of the model; a small "
            "receptive_field determines the number itself",
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
    num_classes: int | None = model_fields.num_classes()
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
            "num_resolutions reaches. 11x5 and 15x8: a rectangle of this width and height above "
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
    condition_shape: tuple[int, ...] | None = model_fields.condition_shape()
    condition_levels: int = model_fields.condition_levels()
    num_resolutions: int = field(
        default=3,
        metadata=about(
            "Number of resolutions of the network with the full receptive_field, each of half the "
            "height and width of the one before. With 1, the network has nr_resnet residual blocks "
            "and no second half, as in the pyramid of Kolesnikov & Lampert 2017",
            bounds=[(">=", 1), ("<=", 3)],
        ),
    )
    embedding_resnet: int = model_fields.embedding_resnet()
    embedding_filters: int | None = model_fields.embedding_filters()
    embedding_resolutions: int = model_fields.embedding_resolutions()

    def __post_init__(self):
        """Checks each field, and the fields that depend on each other."""
        check_fields(self)
        model_fields.check_condition(self)
        if self.receptive_field in SMALL_FIELDS:
            self._check_blocks()
            require_default(self, "shortcuts", "the full `receptive_field`")
            require_default(self, "num_resolutions", "the full `receptive_field`")
        else:
            require_default(self, "small_variant", "a small `receptive_field`")
        if self.num_resolutions == 1:
            require_default(self, "shortcuts", "2 or 3 `num_resolutions`")
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
        """Residual blocks at a resolution: `nr_resnet`, or those of a small receptive field."""
        return SMALL_FIELDS.get(self.receptive_field, self.nr_resnet)

    @property
    def num_halvings(self):
        """How many times the network halves the sides. With a small receptive field, it is 0."""
        return 0 if self.receptive_field in SMALL_FIELDS else self.num_resolutions - 1

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
