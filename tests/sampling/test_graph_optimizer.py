"""Functions that are called without TensorFlow's graph optimizer."""

import threading

import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from pixel_cnn_pp.sampling.graph_optimizer import without_graph_optimizer


def is_off():
    options = context.context().function_call_options
    config = tf.compat.v1.ConfigProto.FromString(options.config_proto_serialized)
    return config.graph_options.rewrite_options.disable_meta_optimizer


def test_it_is_off_within_the_context_in_this_thread_and_on_again_after_an_error():
    found = []
    other = threading.Thread(target=lambda: found.append(is_off()))
    with pytest.raises(KeyError), without_graph_optimizer():
        assert is_off()
        other.start()
        other.join()
        with without_graph_optimizer():
            assert is_off()
        assert is_off()
        raise KeyError
    assert found == [False]
    assert not is_off()


def test_within_the_context_a_function_computes_the_same():
    @tf.function(autograph=False)
    def compute(x):
        return tf.nn.bias_add(x @ x, tf.reduce_sum(x, axis=0))

    x = tf.random.stateless_normal((3, 3), (1, 2))
    with without_graph_optimizer():
        found = compute(x)
    tf.debugging.assert_near(found, x @ x + tf.reduce_sum(x, axis=0))
