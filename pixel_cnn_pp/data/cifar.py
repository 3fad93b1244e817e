"""CIFAR-10 (Krizhevsky 2009)."""

from pixel_cnn_pp.data import public_sets, store


def load_cifar(split, data_dir, image_size):
    """CIFAR-10 through TensorFlow Datasets: 50000 and 10000 images of 32 x 32 pixels, 10 classes.

    The first call downloads 162 MiB into `data_dir`.
    """
    public_sets.check_fixed_size("cifar", image_size, 32)
    folder = public_sets.tfds_entry(
        "cifar10", split, data_dir, (32, 32, 3), public_sets.rgb, "CIFAR-10", num_classes=10
    )
    return store.load_stored(folder, split)
