"""Functions with a gradient of their own, and networks that nobody takes a gradient of.

In a graph, TensorFlow keeps the gradient of such a function until the process ends, and with it the
whole graph. So a network that only scores images does without.
"""

import contextlib
import contextvars

from keras import ops

_LEFT_OUT = contextvars.ContextVar("left_out", default=False)


@contextlib.contextmanager
def without_gradients():
    """A context for networks that nobody takes a gradient of. The numbers are the same."""
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def gradients_are_taken():
    """Whether somebody may take a gradient."""
    return not _LEFT_OUT.get()


def custom_gradient(function):
    """As `keras.ops.custom_gradient`, except within `without_gradients`.

    Args:
      function: Function of tensors that returns its result and the function of its gradient.

    Returns:
      Function that returns the result.
    """
    if gradients_are_taken():
        return ops.custom_gradient(function)
    return lambda *arguments: function(*arguments)[0]
