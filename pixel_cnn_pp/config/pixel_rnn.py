"""The options of the two models of PixelRNN: the Row LSTM and the Diagonal BiLSTM."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp.config import model_fields
from pixel_cnn_pp.config.fields import about, check_fields


@dataclasses.dataclass(frozen=True)
class _PixelRNNConfig:
    """The options of both models. The defaults are the paper's network for CIFAR-10."""

    # The first field in a file. Each model has its own name in its place.
    kind: str = model_fields.kind("pixel_rnn")
    image_shape: tuple[int, int, int] = field(
        default=(32, 32, 3),
        metadata=about("Height, width and channels of an image, any sizes", is_flag=False),
    )
    num_levels: int = model_fields.num_levels(most=model_fields.MAX_SOFTMAX_LEVELS)
    nr_resnet: int = field(
        default=12,
        metadata=about(
            "Number of LSTM layers, each with a residual connection; the paper uses 12 for "
            "CIFAR-10, and 7 layers of the Diagonal BiLSTM for MNIST (van den Oord et al. 2016, "
            "section 4)",
            short_name="q",
            bounds=[(">=", 1)],
        ),
    )
    nr_filters: int = field(
        default=128,
        metadata=about(
            "Number of features h of the state of an LSTM layer; its input and output have 2h "
            "features; the paper uses 128 for CIFAR-10, and 16 for MNIST (section 4)",
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


@dataclasses.dataclass(frozen=True)
class RowLSTMConfig(_PixelRNNConfig):
    """The options of the Row LSTM (van den Oord et al. 2016a, "Pixel Recurrent Neural Networks").

    The layers walk over the image row by row. The distribution of a sub-pixel is a softmax over its
    levels, or a Bernoulli distribution if there are two levels. The defaults are the paper's
    network for CIFAR-10.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> RowLSTMConfig(image_shape=(5, 7, 1), num_levels=2, nr_filters=16).nr_resnet
      12
    """

    kind: str = model_fields.kind("row_lstm")


@dataclasses.dataclass(frozen=True)
class DiagonalBiLSTMConfig(_PixelRNNConfig):
    """The options of the Diagonal BiLSTM (van den Oord et al. 2016a).

    The layers walk along the diagonals of the image, in two directions. Everything else is as in
    `RowLSTMConfig`.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> DiagonalBiLSTMConfig(image_shape=(5, 7, 1), num_levels=2, nr_filters=16).nr_resnet
      12
    """

    kind: str = model_fields.kind("diagonal_bilstm")
