"""Options that several models share, beside `image_shape`. The data say their values."""

from dataclasses import field

from pixel_cnn_pp.config.fields import about, message, require_default

# A softmax has one output for every level. With more levels, the sums over levels by which a level
# is drawn are not precise enough in float32.
MAX_SOFTMAX_LEVELS = 4096


def kind(name):
    """The name of the model, which a file of a run holds. It is not a positional argument."""
    metadata = about("The name of the model", choices=(name,), is_flag=False)
    return field(default=name, kw_only=True, metadata=metadata)


def num_levels(most):
    """L, the number of levels of a sub-pixel, at most `most`."""
    help_text = "Levels of a sub-pixel: images are whole numbers in [0, num_levels - 1]"
    bounds = [(">=", 2), ("<=", most)]
    return field(default=256, metadata=about(help_text, bounds=bounds, is_flag=False))


def num_classes():
    """The number of classes that the model is conditioned on, or None."""
    help_text = "Number of classes that the model is conditioned on; None if it is not"
    return field(default=None, metadata=about(help_text, bounds=[(">=", 1)], is_flag=False))


def condition_shape():
    """The shape of a condition that is not a class, or None. `check_condition` has the rules."""
    help_text = (
        "Shape of what the model is conditioned on, if it is not a class: (D,) of a real vector, "
        "or (h, w, c) of a picture of whole numbers, where h and w divide the sides of the image; "
        "None if there is no such condition"
    )
    return field(default=None, metadata=about(help_text, is_flag=False))


def condition_levels():
    """The number of levels of a picture that the model is conditioned on."""
    help_text = "Levels of the picture that the model is conditioned on: whole numbers below it"
    bounds = [(">=", 2), ("<=", 65536)]
    return field(default=256, metadata=about(help_text, bounds=bounds, is_flag=False))


def embedding_resnet():
    """The number n of blocks of a group of the embedding network."""
    help_text = (
        "Number of residual blocks in each group of the network that makes features of the picture "
        "that the model is conditioned on; with 0 there is no such network, and the model takes "
        "the picture itself (Kolesnikov & Lampert 2017, section 4)"
    )
    return field(default=0, metadata=about(help_text, bounds=[(">=", 0)]))


def embedding_filters():
    """The number of filters of the embedding network, or None."""
    help_text = "Number of filters of the embedding network; default: nr_filters"
    return field(default=None, metadata=about(help_text, bounds=[(">=", 1)]))


def embedding_resolutions():
    """The number of resolutions of the embedding network, from the picture's own one down."""
    help_text = (
        "Number of resolutions of the first half of the embedding network: that of the picture, "
        "and further ones of half the sides each"
    )
    return field(default=2, metadata=about(help_text, bounds=[(">=", 1), ("<=", 6)]))


def check_condition(config):
    """Checks the fields of a condition against each other and against the image.

    Args:
      config: Configuration of a model with all fields of a condition that this file describes.

    Raises:
      ValueError: If there are both classes and another condition, if the sides of a picture do not
        divide those of the image, if `condition_levels` or an embedding network is given without a
        picture, or if the sizes of the network are given without the network.
    """
    shape = config.condition_shape
    if shape is None or len(shape) == 1:
        for name in ("condition_levels", "embedding_resnet"):
            require_default(config, name, "a `condition_shape` of a picture")
    if config.embedding_resnet == 0:
        for name in ("embedding_filters", "embedding_resolutions"):
            require_default(config, name, "an `embedding_resnet` of at least 1")
    if shape is None:
        return
    if config.num_classes is not None:
        rule = "`condition_shape` must be None for a model with classes"
        raise ValueError(message(rule, "condition_shape", shape))
    height, width, _ = config.image_shape
    if len(shape) == 3 and (height % shape[0] or width % shape[1]):
        rule = (
            f"`condition_shape` must have sides that divide those of the {height} x {width} image"
        )
        raise ValueError(message(rule, "condition_shape", shape))
