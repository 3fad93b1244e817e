"""Computes parts of a network a second time for their gradient, to save memory."""

import keras
from keras import ops


def recomputed(weights, function, *inputs):
    """Computes a function, and computes it again when its gradient is needed.

    TensorFlow keeps no intermediate results of the function. It computes again only what depends on
    the inputs. Therefore this function makes the weights inputs too, because kernels are computed
    from them. Everything else that `function` reads and that may have a gradient must be in
    `inputs`.

    Args:
      weights: List of Keras variables that the function reads.
      function: Function of the inputs.
      *inputs: Nests of tensors.

    Returns:
      The result of the function.
    """

    def with_weights(values, *inputs):
        with keras.StatelessScope(state_mapping=zip(weights, values, strict=True)):
            return function(*inputs)

    # The weights are copied, because in eager mode TensorFlow would count their gradients twice.
    return keras.remat(with_weights)([ops.copy(weight) for weight in weights], *inputs)
