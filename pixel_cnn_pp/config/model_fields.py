"""The options that every model has, beside `image_shape`. The data say their values."""

from dataclasses import field

from pixel_cnn_pp.config.fields import about

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
