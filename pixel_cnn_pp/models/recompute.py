"""Parts of a network that are computed again for their gradient, to save memory."""

import keras
from keras import ops


def recomputed(weights, function, *inputs):
    """Computes a function of inputs and layers' weights, and again for its gradient.

    TensorFlow starts to compute again when that gradient is asked for, but only what depends on the
    inputs. So the weights, from which kernels are made, are inputs too. So must be everything else
    that `function` reads and that may have a gradient.

    Args:
      weights: List of Keras variables.
      function: Function of the inputs.
      *inputs: Nests of tensors.

    Returns:
      What the function returns.
    """

    def with_weights(values, *inputs):
        with keras.StatelessScope(state_mapping=zip(weights, values, strict=True)):
            return function(*inputs)

    # Copies: TensorFlow's eager mode would count the gradient of a variable itself twice.
    return keras.remat(with_weights)([ops.copy(weight) for weight in weights], *inputs)
