"""The models of the papers, each with the settings that the paper gives."""

from typing import NamedTuple

from pixel_cnn_pp.config.pixel_cnn import PixelCNNConfig
from pixel_cnn_pp.config.pixel_cnn_pp import ModelConfig


class Preset(NamedTuple):
    """A model of a paper, given by the fields of its run.

    Attributes:
      values: {field: value}. Without `kind` the model is PixelCNN++.
      bits_per_dim: Bits/dim that the paper reports on the test set of CIFAR-10, or None.
      source: Where the paper describes the model, or what the model is. The paper is Salimans et
        al. 2017 unless the text names another one.
    """

    values: dict
    bits_per_dim: float | None
    source: str

    @property
    def kind(self):
        """The key of the preset's model in `MODELS`."""
        return self.values.get("kind", ModelConfig.kind)


def _presets():
    # Section 3.1: three stages of 5 residual layers down and up, 192 feature maps, dropout 0.5.
    # Section 2.1 says that 5 mixture components are enough. This is the release's default of 10.
    cifar10 = {"data_set": "cifar", "nr_resnet": 5, "nr_filters": 192, "dropout_p": 0.5}
    presets = {
        "release": Preset({}, None, "the defaults of the release's train.py: 160 filters"),
        "cifar10": Preset(cifar10, 2.92, "table 1, section 3.1"),
        "cifar10_class_conditional": Preset(
            {**cifar10, "class_conditional": True}, 2.94, "section 3.2"
        ),
    }
    # Section 3.3 gives neither feature maps nor dropout. These are the values of section 3.1.
    small_bits_per_dim = {
        ("11x5", "plain"): 3.11,
        ("11x5", "nin"): 3.09,
        ("11x5", "autoregressive_channel"): 3.07,
        ("15x8", "plain"): 3.07,
        ("15x8", "nin"): 3.04,
        ("15x8", "autoregressive_channel"): 3.03,
    }
    for (receptive_field, variant), bits_per_dim in small_bits_per_dim.items():
        # The receptive field determines the number of residual blocks.
        values = {**cifar10, "receptive_field": receptive_field, "small_variant": variant}
        del values["nr_resnet"]
        presets[f"small_{receptive_field}_{variant}"] = Preset(values, bits_per_dim, "table 2")
    return {
        **presets,
        "softmax": Preset({**cifar10, "likelihood": "softmax"}, None, "section 3.4.1, figure 6"),
        "dequantized": Preset(
            {**cifar10, "likelihood": "dequantized"}, 3.11, "section 3.4.2, a bound"
        ),
        "no_shortcuts": Preset({**cifar10, "shortcuts": False}, None, "section 3.4.3, figure 7"),
        "no_dropout": Preset(
            {**cifar10, "dropout_p": 0.0},
            None,
            "section 3.4.4: above 6.0 at the end and never below 3.0; training set below 2.0",
        ),
        "energy_distance": Preset(
            {**cifar10, "nr_filters": 160, "energy_distance": True},
            None,
            "the release's --energy_distance; not in the paper",
        ),
        "pixel_cnn": Preset(
            {
                "kind": PixelCNNConfig.kind,
                "data_set": "cifar",
                "nr_resnet": 15,
                "nr_filters": 128,
                "nr_output_filters": 1024,
            },
            3.14,
            "PixelCNN of van den Oord et al. 2016, section 4 and table 5",
        ),
    }


# {name: Preset}. These are all models of the tables and of sections 3.1 to 3.4 of Salimans et al.
# 2017, and the PixelCNN of van den Oord et al. 2016.
PRESETS = _presets()
