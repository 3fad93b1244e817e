"""The chains of the papers, each with the settings that its paper gives."""

from typing import NamedTuple

from pixel_cnn_pp import views
from pixel_cnn_pp.config.chain import ChainConfig
from pixel_cnn_pp.config.pixel_cnn_pp import ModelConfig
from pixel_cnn_pp.config.pixel_rnn import RowLSTMConfig
from pixel_cnn_pp.config.presets import Preset


class ChainPreset(NamedTuple):
    """A chain of a paper, given by the fields of the runs of its stages.

    Attributes:
      stages: Tuple of (name of the view, {field: value} of this stage alone).
      values: {field: value} of all stages. Without `kind` the models are PixelCNN++.
      bits_per_dim: The bound in bits/dim that the paper reports, or None.
      source: Where the paper describes the model. The paper is Kolesnikov & Lampert 2017 unless the
        text names another one.
    """

    stages: tuple
    values: dict
    bits_per_dim: float | None
    source: str

    @property
    def kind(self):
        """The key in `MODELS` of the models of all stages."""
        return self.values.get("kind", ModelConfig.kind)

    def of_stage(self, number):
        """The `Preset` of the run of one stage."""
        return Preset({**self.values, **self.stages[number][1]}, None, self.source)

    def model_config(self, of_stages, image_shape, num_levels, num_classes=None):
        """Makes the configuration of the chain.

        Args:
          of_stages: List of pairs (class of the model, {field: value} of its options).
          image_shape: (H, W, C) of the images.
          num_levels: L of the images.
          num_classes: The number of classes that the first stage is conditioned on, or None.

        Returns:
          `ChainConfig`.

        Raises:
          ValueError: If the images have no such views, or a value breaks its rule.
        """
        found, before = [], None
        for (view, _), (model_class, values) in zip(self.stages, of_stages, strict=True):
            view = views.parse(view)
            own = {
                "image_shape": view.shape_of(image_shape),
                "num_levels": view.levels_of(num_levels),
            }
            if before is None:
                # The first stage has no picture to embed.
                values = {k: v for k, v in values.items() if not k.startswith("embedding_")}
                own["num_classes"] = num_classes
            else:
                own |= {
                    "condition_shape": before.image_shape,
                    "condition_levels": before.num_levels,
                }
            before = model_class(**{**values, **own})
            found.append(before)
        return ChainConfig(tuple(found), tuple(view for view, _ in self.stages))


def _sizes(*factors):
    """The stages of a pyramid: means of blocks of these sizes, and the image."""
    return (*((f"mean:{factor}", {}) for factor in factors), ("image", {}))


def _grayscale():
    # Section 4: 16 levels of gray; a softmax over them is taken, because the paper gives no other
    # likelihood of so few levels. 30 epochs for gray and 200 for colour, batches of 64, a decay of
    # 0.99999 a step, flips. The colour network and its embedding have 24 residual blocks in place
    # of 36: 3 blocks a stage in place of 5. Filters are those of the release.
    colour = {"max_epochs": 200, "nr_resnet": 3, "embedding_resnet": 3, "embedding_resolutions": 3}
    values = {"batch_size": 64, "lr_decay": 0.99999, "augment": "flip"}
    stages = (("gray:16", {"likelihood": "softmax", "max_epochs": 30}), ("image", colour))
    small = {"nr_resnet": 1, "nr_filters": 24, "nr_logistic_mix": 5, "dropout_p": 0.0}
    small |= {"batch_size": 8, "init_batch_size": 64, "optimizer": "adam", "learning_rate": 0.002}
    small |= {"lr_decay": 0.9998, "polyak_decay": 0.995, "data_set": "photos", "num_samples": 0}
    small |= {"save_interval": 4}
    return {
        "grayscale_cifar10": ChainPreset(
            stages,
            {**values, "data_set": "cifar"},
            2.98,
            "Grayscale PixelCNN, section 4: 0.459 bits/dim of gray and 2.52 of colour",
        ),
        "grayscale_photos": ChainPreset(
            (
                ("gray:16", {"likelihood": "softmax", "max_epochs": 3}),
                ("image", {"max_epochs": 4, "embedding_resnet": 1, "embedding_resolutions": 2}),
            ),
            small,
            None,
            "a small Grayscale PixelCNN for crops of photographs, on 2 CPU cores",
        ),
    }


def _pyramid():
    # Section 4: three residual blocks at one resolution, 100 filters, batches of 16, a decay of
    # 0.999995 a step, 60 epochs; the embedding has 15 blocks. Where the paper is silent (mixture,
    # dropout, first stage), values are those of the release and of the other stages. The authors'
    # sampling code (FaceGeneration, utils.py) has three blocks in each stream and 10 components
    # too. But there the embedding has 10 blocks, all filters of the blocks are 3x3, and each block
    # takes the embedding as its short-cut input. Here the filters are those of PixelCNN++, which
    # read 4 and 6 positions in place of 9, and the embedding is added as a class would be.
    light = {"nr_resnet": 3, "num_resolutions": 1, "nr_filters": 100}
    light |= {"embedding_resnet": 3, "embedding_resolutions": 2}
    light |= {"batch_size": 16, "lr_decay": 0.999995, "max_epochs": 60}
    small = {"nr_resnet": 2, "num_resolutions": 1, "nr_filters": 24, "nr_logistic_mix": 5}
    small |= {"embedding_resnet": 1, "embedding_resolutions": 2, "dropout_p": 0.0}
    small |= {"batch_size": 8, "init_batch_size": 64, "optimizer": "adam", "learning_rate": 0.002}
    small |= {"lr_decay": 0.9998, "polyak_decay": 0.998, "data_set": "photos", "num_samples": 0}
    small |= {"save_interval": 4}
    # The smaller the pictures of a stage, the faster an epoch is.
    epochs = (10, 8, 12)
    return {
        "pyramid_celeba": ChainPreset(
            _sizes(16, 8, 4, 2),
            {**light, "data_set": "celeba128"},
            None,
            "Pyramid PixelCNN, section 4: 4.58, 4.30, 3.33, 2.61 and 1.52 bits/dim of the stages "
            "8, 16, 32, 64 and 128",
        ),
        "pyramid_cifar10": ChainPreset(
            _sizes(4, 2), {**light, "data_set": "cifar"}, 3.32, "Pyramid PixelCNN, section 4"
        ),
        "pyramid_photos": ChainPreset(
            tuple(
                (view, {"max_epochs": number})
                for (view, _), number in zip(_sizes(4, 2), epochs, strict=True)
            ),
            small,
            None,
            "a small Pyramid PixelCNN for crops of photographs, on 2 CPU cores",
        ),
    }


def _multi_scale():
    # Van den Oord et al. 2016, section 3.6: an unconditional network draws the subsampled picture,
    # and a conditional one the image. Section 4: Row LSTMs, 12 layers of h = 384 for 32 x 32 and 4
    # layers of h = 512 for 64 x 64. The paper does not say how small the first picture is, nor
    # which layers bring it to the size of the image.
    return {
        "multi_scale_row_lstm": ChainPreset(
            (
                ("every:2", {"nr_resnet": 12, "nr_filters": 384}),
                (
                    "image",
                    {
                        "nr_resnet": 4,
                        "nr_filters": 512,
                        "embedding_resnet": 1,
                        "embedding_resolutions": 1,
                    },
                ),
            ),
            {
                "kind": RowLSTMConfig.kind,
                "data_set": "imagenet64",
                "nr_output_filters": 1024,
                "optimizer": "rmsprop",
                "batch_size": 16,
            },
            None,
            "Multi-scale PixelRNN of van den Oord et al. 2016, sections 3.6 and 4",
        ),
    }


# {name: ChainPreset}.
CHAIN_PRESETS = {**_grayscale(), **_pyramid(), **_multi_scale()}
