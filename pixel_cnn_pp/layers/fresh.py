"""Fresh weights, and how they are left out of a model that gets its weights from elsewhere."""

import contextlib
import contextvars

_LEFT_OUT = contextvars.ContextVar("left_out", default=False)


@contextlib.contextmanager
def without_fresh_weights():
    """A context in which nothing is drawn for new layers: their kernels are zeros.

    At full size there are 53 million random numbers to draw. It takes longer than to read as many
    from a checkpoint.
    """
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def fresh(initializer):
    """The initializer of a new weight, where `initializer` is one that draws random numbers."""
    return "zeros" if _LEFT_OUT.get() else initializer
