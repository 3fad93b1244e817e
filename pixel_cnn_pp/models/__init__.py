"""The models: each answers the questions of `base.AutoregressiveModel`."""

from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP


def make(config, **kwargs):
    """The model that a configuration names."""
    return {"pixel_cnn_pp": PixelCNNPP}[getattr(config, "kind", "pixel_cnn_pp")](config, **kwargs)
