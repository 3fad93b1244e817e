"""Calls functions of TensorFlow without its graph optimizer."""

import contextlib


@contextlib.contextmanager
def without_graph_optimizer():
    """A context in which functions of this thread are called without TensorFlow's optimizer.

    The optimizer runs once for every function, before its first call. For a function that leaves
    its work to XLA it finds nothing, and takes longer than it takes to load what XLA has compiled.
    """
    # TensorFlow is imported here, because this package also runs on other backends without it.
    import tensorflow as tf

    # The public option holds for all threads, and a context of one thread would end that of others.
    from tensorflow.python.eager import context

    current = context.context()
    before = current.function_call_options
    config = tf.compat.v1.ConfigProto.FromString(before.config_proto_serialized)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    current.function_call_options = context.FunctionCallOptions(before.executor_type, config)
    try:
        yield
    finally:
        current.function_call_options = before
