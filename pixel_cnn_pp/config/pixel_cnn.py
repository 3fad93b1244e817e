"""The options of PixelCNN."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp.config import model_fields
from pixel_cnn_pp.config.fields import about, check_fields


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

    kind: str = model_fields.kind("pixel_cnn")
    image_shape: tuple[int, int, int] = field(
        default=(32, 32, 3),
        metadata=about("Height, width and channels of an image, any sizes", is_flag=False),
    )
    num_levels: int = model_fields.num_levels(most=model_fields.MAX_SOFTMAX_LEVELS)
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
    num_classes: int | None = model_fields.num_classes()
    condition_shape: tuple[int, ...] | None = model_fields.condition_shape()
    condition_levels: int = model_fields.condition_levels()
    embedding_resnet: int = model_fields.embedding_resnet()
    embedding_filters: int | None = model_fields.embedding_filters()
    embedding_resolutions: int = model_fields.embedding_resolutions()

    def __post_init__(self):
        """Checks each field, and the fields that depend on each other."""
        check_fields(self)
        model_fields.check_condition(self)
