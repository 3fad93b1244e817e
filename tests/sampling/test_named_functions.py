"""Functions whose names are made of what they compute."""

import hashlib

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


def test_a_kept_graph_is_read_in_place_of_the_function(monkeypatch, tmp_path):
    def path_of(key):
        return tmp_path / hashlib.sha256(repr(key).encode()).hexdigest()

    monkeypatch.setattr(named_functions.compiled_files, "path_of", path_of)
    traces = []

    def call(x, key, reads_another=False):
        other = tf.constant(3.0)

        def compute(nest):
            traces.append(key)
            y = nest["x"] * other if reads_another else nest["x"] * 3.0
            return {"y": (y, None), "x": nest["x"]}

        def whole(x):
            tf.constant(1.0)  # TensorFlow counts tensors
            nonlocal other
            other = tf.identity(other)
            return named_functions.with_xla(compute, key)({"x": x})

        return tf.function(whole, autograph=False)(x)

    x = tf.constant([1.0, 2.0])
    for _ in range(2):
        results = call(x, "a")
        np.testing.assert_array_equal(results["y"][0], [3, 6])
        np.testing.assert_array_equal(results["x"], x)
        assert results["y"][1] is None and results["y"][0].shape == (2,)
    assert traces == ["a"]
    # Another key, shape or dtype is another function.
    call(x, "b")
    call(x[:1], "a")
    call(tf.cast(x, "float16"), "a")
    assert traces == ["a", "b", "a", "a"]
    # What reads other tensors of its graph, or has no key, is not kept.
    for key in ("c", None):
        for _ in range(2):
            np.testing.assert_array_equal(call(x, key, True)["y"][0], [3, 6])
    assert traces[4:] == ["c", "c", None, None]
    # A damaged file is replaced.
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):
        np.testing.assert_array_equal(call(x, "a")["y"][0], [3, 6])
    assert traces[8:] == ["a"]
