"""How tests compare arrays."""

import contextlib

import numpy as np
import pytest

EPS = np.finfo("float32").eps


def to_numpy(tensors):
    """Arrays of tensors."""
    return [np.asarray(tensor) for tensor in tensors]


def weights_of(model):
    """Copies of all weights."""
    return [variable.numpy().copy() for variable in model.weights]


def assert_all_equal(arrays, expected):
    """Bit for bit."""
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other, strict=True)


def assert_close(actual, desired, atol):
    """Within an absolute tolerance."""
    np.testing.assert_allclose(np.asarray(actual), desired, rtol=0, atol=atol)


def largest_error(actual, expected):
    """The largest difference, relative to the largest expected entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    return np.abs(actual - expected).max() / np.abs(expected).max()


@contextlib.contextmanager
def one_line(part):
    """Expects a ValueError whose message is one line that has `part` in it."""
    with pytest.raises(ValueError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and part in message and "Received" in message, message
