"""The models of the papers, each with the settings that the paper gives."""

from typing import NamedTuple

from pixel_cnn_pp.config.gated_pixel_cnn import GatedPixelCNNConfig
from pixel_cnn_pp.config.pixel_cnn import PixelCNNConfig
from pixel_cnn_pp.config.pixel_cnn_pp import ModelConfig
from pixel_cnn_pp.config.pixel_rnn import DiagonalBiLSTMConfig, RowLSTMConfig


class Preset(NamedTuple):
    """A model of a paper, given by the fields of its run.

    Attributes:
      values: {field: value}. Without `kind` the model is PixelCNN++.
      bits_per_dim: Bits/dim that the paper reports for the data set of the preset, or None. They
        are those of the test set of CIFAR-10, and of the validation set of ImageNet.
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
        **_pixel_rnn_presets(),
        **_gated_presets(),
    }


def _pixel_rnn_presets():
    # Van den Oord et al. 2016a. Section 4: 15 blocks or 12 LSTM layers and h = 128, 1024 features
    # behind them. Section 5.2: RMSProp, batches of 16 images. The paper does not give the learning
    # rate, which was chosen by hand for each data set.
    source = "of van den Oord et al. 2016, section 4 and table"
    cifar10 = {
        "data_set": "cifar",
        "nr_filters": 128,
        "nr_output_filters": 1024,
        "optimizer": "rmsprop",
        "batch_size": 16,
    }
    return {
        "pixel_cnn": Preset(
            {"kind": PixelCNNConfig.kind, **cifar10, "nr_resnet": 15}, 3.14, f"PixelCNN {source} 5"
        ),
        "row_lstm": Preset(
            {"kind": RowLSTMConfig.kind, **cifar10, "nr_resnet": 12}, 3.07, f"Row LSTM {source} 5"
        ),
        "diagonal_bilstm": Preset(
            {"kind": DiagonalBiLSTMConfig.kind, **cifar10, "nr_resnet": 12},
            3.00,
            f"Diagonal BiLSTM {source} 5",
        ),
        # Section 4: for MNIST 7 layers of h = 16, and 32 features behind them.
        "diagonal_bilstm_mnist": Preset(
            {
                **cifar10,
                "kind": DiagonalBiLSTMConfig.kind,
                "data_set": "binarized_mnist",
                "nr_resnet": 7,
                "nr_filters": 16,
                "nr_output_filters": 32,
            },
            None,
            f"Diagonal BiLSTM {source} 4: 79.20 nats of an image of the test set",
        ),
    }


def _gated_presets():
    # Van den Oord et al. 2016b, section 3.1, gives the network for ImageNet: 20 layers of 384
    # features, filters of 5 x 5. The paper gives neither the 1x1 layers nor the learning rate. The
    # 1x1 layers are those of PixelCNN for CIFAR-10.
    shared = {"kind": GatedPixelCNNConfig.kind, "filter_size": 5, "nr_output_filters": 1024}
    imagenet = {**shared, "nr_resnet": 20, "nr_filters": 384}
    source = "Gated PixelCNN of van den Oord et al. 2016b"
    presets = {
        # The paper does not give the network for CIFAR-10. Layers and features are PixelCNN's.
        "gated_pixel_cnn": Preset(
            {**shared, "data_set": "cifar", "nr_resnet": 15, "nr_filters": 128},
            3.03,
            f"{source}, table 1; layers and features are those of pixel_cnn, because this paper "
            "does not give them",
        ),
    }
    for size, bits_per_dim in ((32, 3.83), (64, 3.57)):
        presets[f"gated_pixel_cnn_imagenet{size}"] = Preset(
            {**imagenet, "data_set": f"imagenet{size}"},
            bits_per_dim,
            f"{source}, section 3.1 and table 2, after 200,000 updates of 128 images",
        )
    return presets


# {name: Preset}. These are all models of the tables and of sections 3.1 to 3.4 of Salimans et al.
# 2017, PixelCNN and PixelRNN of van den Oord et al. 2016, and Gated PixelCNN of their second paper.
PRESETS = _presets()
