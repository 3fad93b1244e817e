"""CIFAR-10 (Krizhevsky 2009)."""

from pixel_cnn_pp.data import public_sets, store


def load_cifar(split, data_dir, image_size):
    """Loads CIFAR-10 with TensorFlow Datasets: 32 x 32 pixels, RGB, 10 classes.

    There are 50000 training images and 10000 test images. The first call downloads 162 MiB to
    `data_dir`.

    Args:
      split: "train" or "test".
      data_dir: Folder of the data sets.
      image_size: 32 or None.
    Returns:
      StoredImages, images uint8 [N, 32, 32, 3].
    Raises:
      ValueError: If `image_size` is another number.
      OSError: If the data set is not there and cannot be downloaded.
    """
    public_sets.check_fixed_size("cifar", image_size, 32)
    folder = public_sets.tfds_entry(
        "cifar10", split, data_dir, (32, 32, 3), public_sets.rgb, "CIFAR-10", num_classes=10
    )
    return store.load_stored(folder, split)
