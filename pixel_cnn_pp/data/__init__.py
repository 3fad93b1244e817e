"""Data set names -> arrays of integer images -> `tf.data` streams of whole batches.

    names.py      the table of the data sets; loads any by its name
    cifar.py      CIFAR-10; beside it one file for each data set of the literature:
    imagenet.py   down-sampled ImageNet
    celeba.py     CelebA
    embedded.py   what comes with scikit-learn: digits, photos
    folders.py    anybody's own folders of pictures
    arrays.py     anybody's own files of arrays
    reading.py    images out of one file
    streams.py    the batches of an epoch, and those of an evaluation

To add a data set, write a file with a loader `(split, data_dir, image_size) -> store.StoredImages`,
as cifar.py is one, and name it in `_SETS` of names.py.
"""

from pixel_cnn_pp.data.images import ImageData
from pixel_cnn_pp.data.names import check_name, load, load_split, names
from pixel_cnn_pp.data.reading import read_images
from pixel_cnn_pp.data.streams import epoch_order, eval_batches, train_batches

__all__ = [
    "ImageData",
    "check_name",
    "epoch_order",
    "eval_batches",
    "load",
    "load_split",
    "names",
    "read_images",
    "train_batches",
]
