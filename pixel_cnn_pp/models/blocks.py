"""Functions that are traced once, and called for all blocks of a network that have the same form.

A deep network has many blocks that are the same function of other weights. If each of them were
traced, a user would wait for minutes before the first step.
"""

import keras

from pixel_cnn_pp import layers


class BlockFunction:
    """A function of a block and its inputs. It is traced once for all blocks of the same form.

    Blocks have the same form if their classes, their configurations except for the name, and the
    shapes of their weights are equal. The result of the function may depend on nothing but the
    form, the weights and the inputs.
    """

    def __init__(self, function, recompute=False):
        """Keeps the function.

        Args:
          function: Function (block, *inputs) of a built `keras.layers.Layer` and nests of tensors.
          recompute: Whether gradients compute the function again, instead of keeping its
            intermediate results in memory. The result is the same.
        """
        self._function = function
        self._recompute = recompute
        self._compiled = {}  # {(form of a block, whether gradients are taken): function}

    def __call__(self, block, *inputs):
        """Computes the function.

        Args:
          block: The block.
          *inputs: Nests of tensors. A number must be a tensor too: the function would be traced
            again for every Python number.

        Returns:
          The result of the function.
        """
        weights = [_tensor(weight) for weight in block.weights]
        if not _is_traced():
            return self._of_weights(block)(weights, *inputs)
        form = _form(block), layers.gradients_are_taken()
        if form not in self._compiled:
            self._compiled[form] = _compile(self._of_weights(block))
        return self._compiled[form](weights, *inputs)

    def _of_weights(self, block):
        """The function of the weights and the inputs. `block` stands for all blocks of its form."""

        def run(weights, *inputs):
            mapping = zip(block.weights, weights, strict=True)
            with keras.StatelessScope(state_mapping=mapping):
                return self._function(block, *inputs)

        return _recomputed(run) if self._recompute and layers.gradients_are_taken() else run


def _recomputed(function):
    """The function of weights and inputs, whose gradient computes it again."""

    def run(weights, *inputs):
        leaves = keras.tree.flatten(inputs)
        # TensorFlow takes the gradient by all arguments, so these must be floats.
        is_float = [x is not None and keras.backend.is_float_dtype(x.dtype) for x in leaves]

        def of_floats(weights, floats):
            floats = iter(floats)
            own = [next(floats) if use else x for use, x in zip(is_float, leaves, strict=True)]
            return function(weights, *keras.tree.pack_sequence_as(inputs, own))

        floats = [x for use, x in zip(is_float, leaves, strict=True) if use]
        return keras.remat(of_floats)(weights, floats)

    return run


def _is_traced():
    """Whether a graph is made. Otherwise TensorFlow computes each operation at once."""
    if keras.backend.backend() == "jax":
        return True
    # TensorFlow is imported here, because models also run on other backends without it.
    import tensorflow as tf

    return tf.inside_function()


def _compile(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    # Without this attribute, TensorFlow would copy the function into the graph at every call.
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def _form(block):
    """What blocks of the same form have in common, as text."""
    config = {name: value for name, value in block.get_config().items() if name != "name"}
    return repr((type(block), config, [(weight.shape, weight.dtype) for weight in block.weights]))


def _tensor(weight):
    """The value of a Keras variable as a tensor. Within a scope, this is the value of the scope."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(weight.value)
    return weight.value
