"""Whether XLA compiles what is traced. It likes other operations than TensorFlow's executor."""

import contextlib
import contextvars

_IS_USED = contextvars.ContextVar("is_used", default=False)


@contextlib.contextmanager
def for_xla():
    """A context in which functions are traced that XLA compiles."""
    token = _IS_USED.set(True)
    try:
        yield
    finally:
        _IS_USED.reset(token)


def is_for_xla():
    """Whether what is traced now is within `for_xla`."""
    return _IS_USED.get()
