"""Loads both splits of a user's own data, with the options of the loaders by name."""

from pixel_cnn_pp.data import arrays, folders, splits, store


def load_both(load, path, data_dir, **options):
    """The stored training and test split."""
    return [load(path, split, data_dir, splits.Options(**options)) for split in store.SPLITS]


def load_folder(root, data_dir, **options):
    return load_both(folders.load_folder, root, data_dir, **options)


def load_arrays(path, data_dir, **options):
    return load_both(arrays.load_arrays, path, data_dir, **options)


def as_set(images):
    return {image.tobytes() for image in images}
