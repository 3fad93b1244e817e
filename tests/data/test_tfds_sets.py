"""Any data set of images of TensorFlow Datasets: `tfds:NAME`."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pixel_cnn_pp import data
from pixel_cnn_pp.data import store

RANDOM = np.random.default_rng(0)


def picture(height, width, number):
    """An image whose first pixel is its number."""
    image = RANDOM.integers(0, 256, (height, width, 3), np.uint8)
    image[0, 0] = number
    return image


class Little(tfds.core.GeneratorBasedBuilder):
    """Data sets that are made here, and so need no network."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(
        tfds.core.BuilderConfig(name=name, version="1.0.0")
        for name in (
            *("three_splits", "validation", "train", "half_labelled", "sizes", "floats", "test"),
            *("no_image", "numbers"),
        )
    )
    # Sorted otherwise than their numbers.
    CLASSES = ("zebra", "ape", "cow")

    def _info(self):
        name = self.builder_config.name
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png", dtype=np.uint8)
        if name == "floats":
            image = tfds.features.Image(shape=(8, 8, 1), dtype=np.float32)
        features = {"image": image, "label": tfds.features.ClassLabel(names=self.CLASSES)}
        if name == "no_image":
            features["picture"] = features.pop("image")
        if name == "numbers":
            features["label"] = np.float32
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        parts = {
            "three_splits": ("train", "validation", "test"),
            "half_labelled": ("train", "test"),
            "validation": ("train", "validation"),
            "test": ("test",),
        }.get(self.builder_config.name, ("train",))
        return {part: self._generate_examples(part) for part in parts}

    def _generate_examples(self, part):
        first = {"train": 0, "validation": 100, "test": 200}[part]
        name = self.builder_config.name
        for number in range(first, first + (24 if part == "train" else 9)):
            label = -1 if name == "half_labelled" and part == "test" else number % 3
            is_small = name == "sizes" and number % 4 == 0
            image = picture(4 if is_small else 8, 12, number)
            yield number, {"image": image, "label": float(label) if name == "numbers" else label}


def load(config, split, data_dir, lines=None, **options):
    log = (lambda line: None) if lines is None else lines.append
    return data.load(f"tfds:little/{config}", split, data_dir, log=log, **options)


def numbers(images):
    return sorted(images.images[:, 0, 0, 0].tolist())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def test_a_data_set_has_its_splits_classes_and_pixels(data_dir):
    lines = []
    train, test = (load("three_splits", split, data_dir, lines) for split in store.SPLITS)
    assert numbers(train) == list(range(24)) and numbers(test) == list(range(200, 209))
    assert (train.images.shape, train.num_levels) == ((24, 8, 12, 3), 256)
    for part in (train, test):
        assert part.class_names == Little.CLASSES
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0, 0] % 3)
    expected = {
        example["image"].tobytes()
        for example in tfds.as_numpy(
            tfds.load("little/three_splits", split="train", data_dir=str(data_dir))
        )
    }
    assert {image.tobytes() for image in train.images} == expected
    assert lines[0] == (
        "tfds:little/three_splits, train: 24 images; 3 classes: zebra (8), ape (8), cow (8); "
        "9 of validation not used"
    )


def test_a_second_load_reads_the_cache_alone(data_dir, monkeypatch):
    first = load("three_splits", "train", data_dir)
    monkeypatch.setattr(Little, "as_dataset", None)
    again = load("three_splits", "train", data_dir)
    np.testing.assert_array_equal(first.images, again.images)


def test_validation_is_the_test_split_where_there_is_no_other(data_dir):
    assert numbers(load("validation", "test", data_dir)) == list(range(100, 109))


def test_without_a_test_split_the_images_of_small_hashes_are_the_test_split(data_dir):
    train, test = (load("train", split, data_dir, test_fraction=0.25) for split in store.SPLITS)
    assert sorted(numbers(train) + numbers(test)) == list(range(24))
    assert 0 < len(test.images) < 12
    for part in (train, test):
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0, 0] % 3)
    with pytest.raises(ValueError, match=r"`test_fraction` must be left out .* have a test split"):
        load("three_splits", "train", data_dir, test_fraction=0.25)


def test_where_some_images_have_no_class_none_has(data_dir):
    for split in store.SPLITS:
        assert load("half_labelled", split, data_dir).labels is None
    assert load("numbers", "train", data_dir).labels is None


def test_sizes_that_differ_need_an_image_size(data_dir):
    message = r"must have one size, or `image_size` .* 6 4 x 12 such as .*, 18 others of 8 x 12$"
    with pytest.raises(ValueError, match=message):
        load("sizes", "train", data_dir)
    found = [load("sizes", split, data_dir, image_size=8) for split in store.SPLITS]
    assert all(part.images.shape[1:] == (8, 8, 3) for part in found)
    assert sum(len(part.images) for part in found) == 18


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "little/nonesuch",
            r"`data_set` must be .* Received: tfds:little/nonesuch \(BuilderConfig",
        ),
        ("nonesuch_of_all", r"`data_set` must be .* \(Dataset nonesuch_of_all not found\)$"),
        ("a b", r"`data_set` must be .* \(Parsing builder name string a b failed\)$"),
        ("little/no_image", r"feature `image` of 8 or 16 bits. .*no_image with .*picture"),
        ("little/floats", r"feature `image` of 8 or 16 bits. Received: tfds:little/floats with im"),
        ("little/test", "must have a split `train`. Received: tfds:little/test with test$"),
    ],
)
def test_what_is_no_data_set_of_images_is_one_line(name, message, data_dir):
    with pytest.raises(ValueError, match=message) as caught:
        data.load(f"tfds:{name}", "train", data_dir)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_cannot_be_downloaded_is_one_line_with_the_reason(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", fail)
    with pytest.raises(OSError, match=r"^tfds:kmnist could be .*Reason: .*no route to host$"):
        data.load("tfds:kmnist", "train", tmp_path)
