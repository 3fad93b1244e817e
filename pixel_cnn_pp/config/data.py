"""Which images a run is about."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp.config.fields import about, check_fields


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and where they lie; the room `data` knows the names of the data sets.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> DataConfig(data_set="digits").data_dir
      'data'
    """

    data_set: str = field(
        default="cifar",
        metadata=about(
            "Name of the data set: digits, photos, cifar, imagenet32, imagenet64, celeba, or "
            "folder:PATH of pictures, or npz:PATH of an array",
            short_name="d",
        ),
    )
    data_dir: str = field(
        default="data",
        metadata=about(
            "Directory of the data sets, and of the cache of decoded images",
            short_name="i",
            may_change=True,
        ),
    )
    image_size: int | None = field(
        default=None,
        metadata=about(
            "Height and width of the images, for a data set with no size of its own",
            bounds=[(">=", 4), ("a multiple of", 4)],
        ),
    )
    crop: str = field(
        default="center",
        metadata=about(
            "Which image_size x image_size pixels of larger training images, for folder: and npz:; "
            "random takes others in every epoch",
            choices=("center", "random"),
        ),
    )
    test_fraction: float | None = field(
        default=None,
        metadata=about(
            "Part of the images to test on, for a folder: or npz: without a test split of its own; "
            "default: 0.1",
            bounds=[(">", 0), ("<", 1)],
        ),
    )
    num_levels: int | None = field(
        default=None,
        metadata=about(
            "Levels of a sub-pixel, for folder: and npz:; default: what follows from the files",
            bounds=[(">=", 2), ("<=", 65536)],
        ),
    )
    num_train_images: int | None = field(
        default=None,
        metadata=about(
            "How many of the training images to train on, always the same ones; default: all",
            bounds=[(">=", 1)],
        ),
    )

    __post_init__ = check_fields
