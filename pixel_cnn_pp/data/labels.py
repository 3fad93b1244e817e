"""The labels of the user: which forms they may have, and which classes they name.

Classes are the labels that occur, in their order, and each keeps its name: labels 1 to 4 are four
classes, named "1" to "4". A run keeps these names, so that other data mean the same classes by the
same labels.
"""

import re

import numpy as np

_NUM_COUNTED = 12  # Classes of which a message gives each name.


def flattened(labels, num_images, where):
    """Brings labels to the form [N].

    Args:
      labels: One label an image: whole numbers of at least 0, booleans or strings, in an array or a
        list, [N] or [N, 1, ...]; or one-hot rows [N, K] of zeros and a one, of any type.
      num_images: N.
      where: Where the labels come from, for the message.
    Returns:
      Array [N] of whole numbers or of strings.
    Raises:
      ValueError: If they have another form.
    """
    given = labels
    try:
        labels = np.asarray(labels)
    except ValueError:  # Rows of different lengths.
        labels = np.empty((), object)
    if labels.ndim > 1 and labels.size == len(labels) == num_images:
        labels = labels.reshape(-1)
    is_one_hot = labels.ndim == 2 and labels.shape[0] == num_images and labels.dtype.kind in "uibf"
    if is_one_hot and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        return labels.argmax(axis=1)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    if labels.shape != (num_images,) or labels.dtype.kind not in "uiU":
        form = f"{labels.dtype} of shape {labels.shape}" if labels.ndim else type(given).__name__
        raise ValueError(
            f"Labels must be {num_images} whole numbers or names, one for each image, or one-hot "
            f"rows. Received: {form} {where}"
        )
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise ValueError(
            "Labels must be whole numbers of at least 0. "
            f"Received: values in [{labels.min()}, {labels.max()}] {where}"
        )
    return labels


def names_of(*labels):
    """The names of the classes that occur: numbers in their order, strings in theirs.

    Args:
      *labels: Arrays of whole numbers, or arrays of strings, as from `flattened`.
    Returns:
      Tuple of strings.

    >>> names_of(np.array([10, 9]), np.array([9, 1]))
    ('1', '9', '10')
    """
    return tuple(str(name) for name in np.unique(np.concatenate([np.unique(a) for a in labels])))


def are_numbers(names):
    """Whether the names of classes are whole numbers: then a number means the name."""
    return all(re.fullmatch(r"\d+", name) for name in names)


def numbered(labels, names, where):
    """The numbers of labels among the classes of a run.

    A label is the name of a class. If the names are no numbers, it may also be the class's number
    in their order.

    Args:
      labels: Array [N] of whole numbers or strings, as from `flattened`.
      names: Names of the classes, strings.
      where: Where the labels come from, for the message.
    Returns:
      int32 array [N] in [0, len(names) - 1].
    Raises:
      ValueError: If a label is no class of the run.
    """
    known = {name: number for number, name in enumerate(names)}
    if not are_numbers(names):
        known |= {str(number): number for number in range(len(names)) if str(number) not in known}
    found, places = np.unique(labels, return_inverse=True)
    unknown = [str(label) for label in found if str(label) not in known]
    if unknown:
        raise ValueError(
            f"Labels must be classes of the run: {shortened(names)}. "
            f"Received: {shortened(unknown)} {where}"
        )
    return np.array([known[str(label)] for label in found], np.int32)[places.reshape(-1)]


def class_numbers(texts, names):
    """The numbers of classes that a person names.

    Args:
      texts: Strings.
      names: Names of the classes of the run, or None if a label is the number of its class.
    Returns:
      Array [N] of whole numbers.
    Raises:
      ValueError: If a text is no class of the run.
    """
    if names is not None:
        return numbered(np.array(texts), names, "in `labels`")
    try:
        return np.array([int(text) for text in texts])
    except ValueError:
        raise ValueError(
            f"`labels` must be whole numbers. Received: labels={','.join(texts)}"
        ) from None


def given_labels(labels, names):
    """Class numbers [N] as the user has the labels, where the names of the classes are numbers."""
    if labels is None or names is None or not are_numbers(names):
        return labels
    return np.array([int(name) for name in names])[labels]


def shortened(names):
    """The first few of some names, in words."""
    shown = ", ".join(names[:_NUM_COUNTED])
    return shown + (f", ... ({len(names)} in all)" if len(names) > _NUM_COUNTED else "")


def counted(labels, names):
    """The classes and the numbers of their images, in words.

    Args:
      labels: Array [N] of class numbers.
      names: Names of the classes.

    >>> counted(np.array([0, 1, 1]), ("cat", "dog"))
    '2 classes: cat (1), dog (2)'
    """
    counts = np.bincount(labels, minlength=len(names))
    classes = f"{len(names)} class{'es' if len(names) > 1 else ''}"
    if len(names) > _NUM_COUNTED:
        return f"{classes}, {names[0]} to {names[-1]}, of {counts.min()} to {counts.max()} images"
    each = (f"{name} ({count})" for name, count in zip(names, counts, strict=True))
    return f"{classes}: {', '.join(each)}"
