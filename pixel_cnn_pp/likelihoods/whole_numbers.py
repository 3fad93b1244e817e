"""The check that values are levels or labels: whole numbers in a range, of any numeric dtype."""

import contextlib
import re

import keras
import numpy as np
from keras import ops

# How the message of a check within a graph begins in TensorFlow's error.
_FAILED = re.compile(
    r"assertion failed: \[(\w+ must be whole numbers in .*? Received), from, to, and all whole:\] "
    r"\[(\S+)\] \[(\S+)\] \[(\d)\]"
)


def check(name, values, largest):
    """Checks that values are whole numbers in [0, largest].

    On TensorFlow, this holds within a compiled function too, where the check is an operation of the
    graph. Its error is an `InvalidArgumentError`, which has the same line in its message.

    Args:
      name: Name of the values in the message.
      values: An array or a tensor.
      largest: The greatest value.

    Returns:
      None if the values are right. Within a compiled function, a Boolean tensor [] that says so.
      What is computed of the values must depend on it: JAX has no errors there.

    Raises:
      ValueError: If the dtype is not numeric, or a value is not such a number. One line.
    """
    dtype = numpy_dtype(values)
    kind = kind_of(dtype)
    if kind not in ("i", "u", "f"):
        raise ValueError(f"{name} must be whole numbers. Received: dtype {dtype}")
    if 0 in values.shape or (kind == "u" and np.iinfo(dtype).max <= largest):
        return None  # no value can be out of range
    summary = _summary(values, kind)
    found = concrete(summary)
    if found is None:
        return _check_in_graph(name, *summary, largest)
    smallest, greatest, is_whole = found
    if not is_whole:
        raise ValueError(
            f"{name} must be whole numbers in [0, {largest}]. Received: fractions or NaN"
        )
    if smallest < 0 or greatest > largest:
        raise ValueError(
            f"{name} must be whole numbers in [0, {largest}]. "
            f"Received: values in [{smallest}, {greatest}]"
        )
    return None


def numpy_dtype(values):
    """The dtype of an array or a tensor as NumPy has it, or its name where NumPy has none."""
    if isinstance(values, np.ndarray):
        return values.dtype
    name = keras.backend.standardize_dtype(values.dtype)
    try:
        return np.dtype(name)
    except TypeError:
        return name


def kind_of(dtype):
    """The kind of a result of `numpy_dtype`, one letter as in NumPy, or an empty string."""
    return "f" if dtype == "bfloat16" else getattr(dtype, "kind", "")


def concrete(tensors):
    """The values of tensors [] as numbers. None inside a compiled function, which has none yet."""
    try:
        return tuple(x if isinstance(x, bool) else ops.convert_to_numpy(x)[()] for x in tensors)
    except (NotImplementedError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def in_one_line():
    """Turns the error of a check within a graph into a ValueError with its line alone."""
    try:
        yield
    except Exception as error:
        found = None
        if type(error).__name__ == "InvalidArgumentError":
            found = _FAILED.search(str(error))
        if found is None:
            raise
        rule, smallest, greatest, is_whole = found.groups()
        values = f"values in [{smallest}, {greatest}]" if is_whole == "1" else "fractions or NaN"
        raise ValueError(f"{rule}: {values}") from None


def _summary(values, kind):
    """Smallest and greatest value, and whether all are whole.

    Tensors are reduced on their device. Only three numbers are copied to the host.
    """
    if isinstance(values, np.ndarray):
        is_whole = kind != "f" or np.array_equal(values, np.round(values))
        return values.min(), values.max(), is_whole
    is_whole = ops.all(values == ops.round(values)) if kind == "f" else True
    return ops.min(values), ops.max(values), is_whole


def _check_in_graph(name, smallest, greatest, is_whole, largest):
    is_right = ops.logical_and(is_whole, ops.logical_and(smallest >= 0, greatest <= largest))
    if keras.backend.backend() != "tensorflow":
        return is_right
    # TensorFlow is imported here, because this package also runs on other backends without it.
    import tensorflow as tf

    # XLA knows no operations on texts but constants.
    text = f"{name} must be whole numbers in [0, {largest}]. Received, from, to, and all whole:"
    # Without this order, an update of the weights could come before the error.
    with tf.control_dependencies(
        [tf.debugging.Assert(is_right, [text, smallest, greatest, is_whole])]
    ):
        return tf.identity(is_right)
