"""The options of Gated PixelCNN."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp.config import model_fields
from pixel_cnn_pp.config.fields import about, check_fields, message


@dataclasses.dataclass(frozen=True)
class GatedPixelCNNConfig:
    """The options of Gated PixelCNN (van den Oord et al. 2016b, "Conditional Image Generation").

    The paper is "Conditional Image Generation with PixelCNN Decoders", NIPS 2016. The network
    consists of layers with a vertical and a horizontal stack of features. The distribution of a
    sub-pixel is a softmax over its levels, or a Bernoulli distribution if there are two levels.

    The paper does not give its network for CIFAR-10. The defaults have the depth and the features
    of PixelCNN for CIFAR-10, and the filters of the paper's network for ImageNet.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> GatedPixelCNNConfig(image_shape=(5, 7, 1), num_levels=2, nr_filters=16).filter_size
      5
    """

    kind: str = model_fields.kind("gated_pixel_cnn")
    image_shape: tuple[int, int, int] = field(
        default=(32, 32, 3),
        metadata=about("Height, width and channels of an image, any sizes", is_flag=False),
    )
    num_levels: int = model_fields.num_levels(most=model_fields.MAX_SOFTMAX_LEVELS)
    nr_resnet: int = field(
        default=15,
        metadata=about(
            "Number of layers, the first one included; the paper uses 20 for ImageNet (van den "
            "Oord et al. 2016b, section 3.1)",
            short_name="q",
            bounds=[(">=", 1)],
        ),
    )
    nr_filters: int = field(
        default=128,
        metadata=about(
            "Number of features p of each stack; the paper uses 384 for ImageNet (section 3.1)",
            short_name="n",
            bounds=[(">=", 1)],
        ),
    )
    filter_size: int = field(
        default=5,
        metadata=about(
            "Height and width n of the filters of all layers, an odd number; the paper uses 5 for "
            "ImageNet (section 3.1)",
            bounds=[(">=", 3)],
        ),
    )
    nr_output_filters: int = field(
        default=1024,
        metadata=about(
            "Number of features of the two 1x1 layers before the output; the paper does not give "
            "it, and PixelCNN has 1024 for CIFAR-10",
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
        if self.filter_size % 2 == 0:
            rule = "`filter_size` must be an odd integer >= 3"
            raise ValueError(message(rule, "filter_size", self.filter_size))
        model_fields.check_condition(self)
