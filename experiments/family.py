"""The models of the family on binarized MNIST: their settings, and what papers report."""

from typing import NamedTuple

from experiments import comparisons


class Member(NamedTuple):
    """A model of the family.

    title: Its name in the table. values: {field: value} of its network. reason: Why this network.
    published: What papers report for it on the fixed set of Larochelle, in nats, or "". source:
    Where that stands.
    """

    title: str
    values: dict
    reason: str
    published: str = ""
    source: str = ""


_TABLE_4 = "van den Oord et al. 2016, Pixel Recurrent Neural Networks, table 4"

# Every network makes some epochs in 20 minutes on 2 cores, and none has the size of the papers'.
MEMBERS = {
    "pixel_cnn_pp": Member(
        "PixelCNN++",
        {"nr_resnet": 1, "nr_filters": 32, "nr_logistic_mix": 2, "dropout_p": 0.0},
        "all three resolutions with one block a stage; two levels need no more components; a "
        "training of a few epochs needs no dropout",
    ),
    "pixel_cnn": Member(
        "PixelCNN",
        {"nr_resnet": 7, "nr_filters": 32, "nr_output_filters": 32},
        "7 blocks see 10 rows up; 32 features before the output are the paper's for two levels",
        "81.30",
        _TABLE_4,
    ),
    "gated_pixel_cnn": Member(
        "Gated PixelCNN",
        {"nr_resnet": 5, "nr_filters": 32, "filter_size": 5, "nr_output_filters": 32},
        "5 layers of the paper's 5x5 filters see as far as the 7 blocks of PixelCNN",
    ),
    "row_lstm": Member(
        "Row LSTM",
        {"nr_resnet": 4, "nr_filters": 16, "nr_output_filters": 32},
        "the paper has h = 16 for MNIST, and does not give the number of layers of this model",
    ),
    "diagonal_bilstm": Member(
        "Diagonal BiLSTM",
        {"nr_resnet": 1, "nr_filters": 32, "nr_output_filters": 32},
        "one layer sees all that is above and on the left; 7 layers would not make an epoch",
        "79.20 (7 layers)",
        _TABLE_4,
    ),
}

# What all of them share. A fast start for a short time: a large learning rate that falls to a third
# in 11,000 steps, and averages over the last 500 steps.
SHARED = {
    "batch_size": 32,
    "init_batch_size": 128,
    "optimizer": "adam",
    "learning_rate": 0.002,
    "lr_decay": 0.9999,
    "polyak_decay": 0.998,
    "num_samples": 0,
    "nr_gpu": 1,
    "save_interval": 1,
    "save_minutes": 5.0,
}
DATA_SET = "binarized_mnist"


def plan(names, max_minutes, data_dir):
    """The runs of some models.

    Args:
      names: Keys of `MEMBERS`.
      max_minutes: Minutes to train each, a number.
      data_dir: Folder of the data sets.

    Returns:
      A list of `comparisons.Run`.
    """
    return [
        comparisons.Run(
            name,
            1,
            {
                "kind": name,
                "data_set": DATA_SET,
                "data_dir": data_dir,
                **MEMBERS[name].values,
                **SHARED,
                "max_minutes": max_minutes,
            },
            has_preset=False,
        )
        for name in names
    ]
