"""Any data set of images of TensorFlow Datasets, by its name there."""

import dataclasses
import pathlib
import re

import numpy as np

from pixel_cnn_pp.data import folders, layout, public_sets, store
from pixel_cnn_pp.data.listing import ListedFile


def load_tfds(name, split, data_dir, options):
    """Loads one split of a data set of TensorFlow Datasets, which downloads it to `data_dir`.

    The images are the feature "image". The classes are the feature "label", if it is a
    `ClassLabel` and every image has one. The test split is "test", or "validation" where there is
    no "test". If there is neither, images of "train" are chosen by their numbers, as
    `splits.choose_test` does. Other splits are not used. What holds for a folder of pictures holds
    for the images: kinds, sizes, levels, crops.

    Args:
      name: Name, such as "stanford_dogs", "eurosat/rgb" or "cmaterdb:1.0.0".
      split: "train" or "test".
      data_dir: Folder of the data sets.
      options: `splits.Options`.
    Returns:
      StoredImages.
    Raises:
      ValueError: If the name is unknown, or the data set has no images or no training split; or as
        for `folders.load_pictures`.
      OSError: If the data set is not there and cannot be downloaded.
    """
    options.check_crop()
    title = f"tfds:{name}"
    builder = _builder(name, data_dir, title)
    has_classes = _has_classes(builder.info.features, title)
    with public_sets.tfds_errors(title, data_dir):
        builder.download_and_prepare()
    class_names = tuple(builder.info.features["label"].names) if has_classes else None
    arranged = _arranged(builder.info, options, title)
    arranged = dataclasses.replace(arranged, class_names=class_names)
    pictures = _Pictures(builder, arranged, title, data_dir)
    states = [
        [path.name, *store.file_state(path)]
        for path in sorted(pathlib.Path(builder.data_path).glob("*"))
    ]
    return folders.load_pictures(
        split,
        data_dir,
        pathlib.Path(f"tfds-{builder.info.full_name.replace('/', '-')}"),
        ["tfds", builder.info.full_name, states],
        arranged,
        options,
        pictures.encoded,
    )


def _builder(name, data_dir, title):
    """The builder of a data set.

    Raises:
      ValueError: If TensorFlow Datasets knows no data set, configuration or version of this name.
    """
    with public_sets.tfds_errors(title, data_dir):
        import tensorflow_datasets as tfds

        tfds.disable_progress_bar()  # It draws itself again and again, which fills a log file.
    try:
        return tfds.builder(name, data_dir=str(data_dir))
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError, KeyError) as error:
        reason = " ".join(str(error).split())
        reason = re.sub(r'^Failed to construct dataset .*?\}": ', "", reason).split(". ")[0]
        raise ValueError(
            "`data_set` must be a data set of TensorFlow Datasets, a configuration after a slash "
            f"(https://www.tensorflow.org/datasets lists them). Received: {title} ({reason[:120]})"
        ) from None
    except Exception as error:
        with public_sets.tfds_errors(title, data_dir):
            raise error from None


def _has_classes(features, title):
    """Whether the data set has classes.

    Raises:
      ValueError: If it has no images of levels.
    """
    import tensorflow_datasets as tfds

    named = features if isinstance(features, tfds.features.FeaturesDict) else {}
    image = dict(named.items()).get("image")
    # A video or a labelled map is another class below that of images.
    is_image = type(image) is tfds.features.Image
    if not is_image or image.np_dtype not in (np.uint8, np.uint16):
        raise ValueError(
            "A data set of TensorFlow Datasets must have a feature `image` of 8 or 16 bits. "
            f"Received: {title} with {', '.join(named) or type(features).__name__}"
        )
    return "label" in named and isinstance(named["label"], tfds.features.ClassLabel)


def _arranged(info, options, title):
    """Which image is of which split: `layout.Layout`, without labels."""
    if "train" not in info.splits:
        raise ValueError(
            "A data set of TensorFlow Datasets must have a split `train`. "
            f"Received: {title} with {', '.join(info.splits)}"
        )
    test_name = next((part for part in ("test", "validation") if part in info.splits), None)
    used = ["train"] if test_name is None else ["train", test_name]
    files = [
        ListedFile(f"{part}/{number:08}", (part, number))
        for part in used
        for number in range(info.splits[part].num_examples)
    ]
    arranged = layout.arranged(files, options, title, labels={})
    for part in sorted(info.splits.keys() - set(used)):
        arranged.notes.append(f"{info.splits[part].num_examples} of {part} not used")
    return arranged


class _Pictures:
    """The pictures of a data set, encoded. Reading them brings their labels to the layout.

    `folders.load_pictures` first asks for the pictures of both splits, for their headers. So the
    labels are there when it looks at them, and no pass over the data set is needed for them alone.
    """

    def __init__(self, builder, arranged, title, data_dir):
        self._builder, self._arranged = builder, arranged
        self._title, self._data_dir = title, data_dir
        self._is_labelled = arranged.class_names is not None

    def encoded(self, files):
        """Yields the bytes of the pictures of one split, in the order of the data set."""
        import tensorflow_datasets as tfds

        # The encoded bytes, because TensorFlow decodes JPEG with other rounding than Pillow.
        decoders = {"image": tfds.decode.SkipDecoding()}
        names = {file.path[1]: file.name for file in files}
        part = files[0].path[0]
        with public_sets.tfds_errors(self._title, self._data_dir):
            stream = self._builder.as_dataset(split=part, decoders=decoders)
            for number, example in enumerate(tfds.as_numpy(stream)):
                if number in names:
                    self._note_label(names[number], example)
                    yield example["image"]

    def _note_label(self, name, example):
        """Notes the class of a picture. If one has none, -1, then no picture has."""
        labels = self._arranged.labels
        self._is_labelled = self._is_labelled and int(example["label"]) >= 0
        if self._is_labelled:
            labels[name] = self._arranged.class_names[int(example["label"])]
        else:
            labels.clear()
