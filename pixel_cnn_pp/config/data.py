"""The options of the data set: which images a run trains on and tests on."""

import dataclasses
from dataclasses import field

from pixel_cnn_pp import views
from pixel_cnn_pp.config.fields import about, check_fields, message


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images a run uses, and where they are stored.

    `pixel_cnn_pp.data.names()` lists the names of the data sets.

    Raises:
      ValueError: If a field breaks its rule.

    Example:
      >>> DataConfig(data_set="digits").data_dir
      'data'
    """

    data_set: str = field(
        default="cifar",
        metadata=about(
            "Name of the data set: digits, photos, mnist, fashion_mnist, binarized_mnist, cifar, "
            "cifar100, imagenet32, imagenet64, celeba, celeba128, "
            "or folder:PATH of pictures, or file:PATH of "
            "arrays or an archive (npz:PATH is the same), or tfds:NAME of tensorflow-datasets",
            short_name="d",
        ),
    )
    data_dir: str = field(
        default="data",
        metadata=about(
            "Directory with the data sets and the cache of decoded images",
            short_name="i",
            may_change=True,
        ),
    )
    image_size: int | None = field(
        default=None,
        metadata=about(
            "Height and width of the images, for data sets that do not have one fixed size",
            bounds=[(">=", 1)],
        ),
    )
    crop: str = field(
        default="center",
        metadata=about(
            "How data sets at a path cut larger training images to image_size x image_size pixels: "
            "center cuts out the middle, random cuts out another part in every epoch",
            choices=("center", "random"),
        ),
    )
    test_fraction: float | None = field(
        default=None,
        metadata=about(
            "Fraction of the images to test on, for a data set at a path that has no test "
            "split; default: 0.1",
            bounds=[(">", 0), ("<", 1)],
        ),
    )
    num_levels: int | None = field(
        default=None,
        metadata=about(
            "Number of levels of a sub-pixel, for data sets at a path; default: from the files",
            bounds=[(">=", 2), ("<=", 65536)],
        ),
    )
    num_train_images: int | None = field(
        default=None,
        metadata=about(
            "Number of training images to use, the same ones in every run; default: all",
            bounds=[(">=", 1)],
        ),
    )
    channels_first: bool | None = field(
        default=None,
        metadata=about(
            "Whether arrays at a path are [N, C, H, W]; default: arrays that look so are refused"
        ),
    )
    convert: str | None = field(
        default=None,
        metadata=about(
            "Convert pictures at a path to colour or grey of 8 bits, or of more if all have "
            "them, and drop alpha; default: pictures of several kinds are refused",
            choices=("rgb", "grey"),
        ),
    )
    skip_odd: bool = field(
        default=False,
        metadata=about(
            "Leave out pictures at a path whose channels, bits or size are not those of most"
        ),
    )
    class_names: tuple[str, ...] | None = field(
        default=None,
        metadata=about(
            "Names of the classes in the order of their numbers, for data sets at a path",
            is_flag=False,
        ),
    )
    view: str | None = field(
        default=None,
        metadata=about(
            "The view of the images that a stage of a chain models, such as mean:2; None for the "
            "images themselves",
            is_flag=False,
        ),
    )
    condition_view: str | None = field(
        default=None,
        metadata=about(
            "The view of the images that a stage of a chain is conditioned on; None for no view",
            is_flag=False,
        ),
    )

    def __post_init__(self):
        """Checks each field, and the names of the views."""
        check_fields(self)
        for name in ("view", "condition_view"):
            value = getattr(self, name)
            try:
                views.parse(views.IMAGE.name if value is None else value)
            except ValueError as error:
                rule, _, _ = str(error).partition(". Received")
                raise ValueError(
                    message(f"`{name}` must be None or a view. {rule}", name, value)
                ) from None
