"""Functions whose names are made of what they compute."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pixel_cnn_pp.sampling import named_functions


@pytest.fixture
def names(monkeypatch):
    """The names of the functions that were made, a set for each call of `with_xla`."""
    made = []
    named = named_functions.named

    def named_and_noted(graph):
        graph = named(graph)
        made.append({function.signature.name for function in graph.library.function})
        return graph

    monkeypatch.setattr(named_functions, "named", named_and_noted)
    return made


def branching(factor):
    """A function with a loop and branches, compiled within a graph of which it reads a tensor."""

    def compute(x, nothing, nest):
        def next_x(i, x):
            added = ops.cond(i % 2 == 0, lambda: x + nest["offset"], lambda: x * factor)
            return i + 1, added

        _, x = ops.while_loop(lambda i, x: i < 3, next_x, (0, x))
        return {"x": x + twice, "nothing": nothing}, i32

    def whole(x, offset):
        nonlocal twice, i32
        twice, i32 = 2 * offset, ops.cast(offset, "int32")
        return named_functions.with_xla(compute)(x, None, {"offset": offset})

    twice = i32 = None
    return tf.function(whole, autograph=False)


def test_the_same_contents_have_the_same_names_whatever_was_made_before(names):
    x, offset = tf.constant([1.0, 2.0]), tf.constant([3.0, 5.0])
    for _ in range(2):
        results, i32 = branching(7.0)(x, offset)
        # ((x + offset) * 7 + offset) + 2 * offset
        np.testing.assert_array_equal(results["x"], [37, 64])
        np.testing.assert_array_equal(i32, [3, 5])
        assert results["nothing"] is None
        tf.constant(1.0)  # TensorFlow counts tensors, and its own names have the number
    assert names[0] == names[1] and len(names[0]) == 5


def test_other_contents_or_shapes_have_other_names(names):
    x = tf.constant([1.0, 2.0])
    for factor, values in ((7.0, x), (8.0, x), (7.0, x[:1]), (7.0, tf.cast(x, "float64"))):
        branching(factor)(values, values)
    outer = [{name for name in made if name.startswith("compute")} for made in names]
    assert len(set.union(*outer)) == 4
