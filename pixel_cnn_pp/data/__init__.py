"""Loads data sets as arrays of integer images, and streams them as `tf.data` batches.

    names.py      the table of the data sets, and the function that loads one by its name
    mnist.py      MNIST and Fashion-MNIST
    binarized_mnist.py  MNIST in black and white
    cifar.py      CIFAR-10 and CIFAR-100
    imagenet.py   down-sampled ImageNet
    celeba.py     CelebA
    tfds_sets.py  any data set of images of TensorFlow Datasets
    embedded.py   the data sets of scikit-learn: digits, photos
    own.py        the user's own files and folders: which of the next three loads them
    folders.py    the user's own folders of pictures
    archives.py   the user's own archives of pictures
    arrays.py     the user's own files of arrays
    levels.py     levels from floats
    reading.py    all images of one file
    viewed.py     views of the images, for the stages of a chain
    streams.py    the batches of a training epoch, and the batches of an evaluation

To add a data set, write a file with a loader `(split, data_dir, image_size) -> store.StoredImages`,
and add the loader to `_SETS` in names.py. cifar.py is the shortest example.
"""

from pixel_cnn_pp.data.images import ImageData
from pixel_cnn_pp.data.labels import class_numbers, given_labels
from pixel_cnn_pp.data.levels import to_levels
from pixel_cnn_pp.data.names import check_name, load, load_split, names
from pixel_cnn_pp.data.reading import load_file
from pixel_cnn_pp.data.streams import epoch_order, eval_batches, train_batches
from pixel_cnn_pp.data.viewed import ViewedData

__all__ = [
    "ImageData",
    "ViewedData",
    "check_name",
    "class_numbers",
    "epoch_order",
    "eval_batches",
    "given_labels",
    "load",
    "load_file",
    "load_split",
    "names",
    "to_levels",
    "train_batches",
]
