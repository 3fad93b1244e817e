"""Functions that are traced once, and called for every block of one form."""

import keras


class SharedFunctions:
    """Applies the blocks of a network.

    A network has many blocks that are the same function of other weights. Here such a function is
    traced once for each shape of its inputs, and called with the weights of each block.
    """

    def __init__(self, recompute):
        self._recompute = recompute
        self._functions = {}

    def __call__(self, function, block, *inputs):
        key = _form(block), len(block.weights)
        if key not in self._functions:

            def run(values, *inputs):
                with keras.StatelessScope(state_mapping=zip(block.weights, values, strict=True)):
                    return function(block, *inputs)

            self._functions[key] = _compile(run)
        values = [_value(weight) for weight in block.weights]
        return self._functions[key](values, *inputs)


def _value(weight):
    value = weight.value
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(value)
    return value


def _form(block):
    config = {name: value for name, value in block.get_config().items() if name != "name"}
    return repr((type(block), config, [(w.shape, w.dtype) for w in block.weights]))


def _compile(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    )
