"""One update of all weights, slots and averages of a replica, as one function of TensorFlow.

Keras's `apply` makes its operations anew for each weight and each replica, and the user waits until
all of them are traced. Here they are traced once, and every replica calls the same function with
its own variables.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from pixel_cnn_pp.runs import checkpoints


class ReplicaVariables(NamedTuple):
    """The variables of one replica. The lists have the order of `model.trainable_variables`.

    Attributes:
      iterations: Number of updates that are done.
      weights: The trainable weights.
      averages: Their Polyak averages.
      slots: Their slots, a list of each kind: means, and norms (Adamax) or squares (Adam); squares
        alone (RMSprop).
    """

    iterations: Any
    weights: list
    averages: list
    slots: tuple


def replica_variables(model, optimizer, strategy):
    """The variables of every replica of this worker.

    Args:
      model: AutoregressiveModel.
      optimizer: `runs.optimizers.make_optimizer`, built on the model's trainable weights.
      strategy: `tf.distribute.Strategy` in whose scope they were made.

    Returns:
      List of `ReplicaVariables`.
    """
    everything = ReplicaVariables(
        optimizer.iterations,
        model.trainable_variables,
        checkpoints.averages(model, optimizer),
        _slots(optimizer),
    )
    num_replicas = len(strategy.experimental_local_results(optimizer.iterations.value))

    def of_replica(number):
        return tf.nest.map_structure(
            lambda variable: strategy.experimental_local_results(variable.value)[number], everything
        )

    return [of_replica(number) for number in range(num_replicas)]


def update(optimizer, variables, gradients):
    """Updates the variables of a replica in place, as Keras's `apply` does with `use_ema`.

    Args:
      optimizer: As in `replica_variables`.
      variables: ReplicaVariables.
      gradients: Tensors in the order of the weights, summed over all replicas.
    """
    step = tf.identity(variables.iterations)
    dtype = variables.weights[0].dtype
    with keras.StatelessScope(state_mapping=[(optimizer.iterations, step)]):
        learning_rate = tf.cast(optimizer.learning_rate, dtype)
    if isinstance(optimizer, keras.optimizers.Adamax):
        update_weight = _adamax(optimizer, learning_rate, step, dtype)
    elif isinstance(optimizer, keras.optimizers.RMSprop):
        update_weight = _rmsprop(optimizer, learning_rate, dtype)
    else:
        update_weight = _release_adam(optimizer, learning_rate, step, dtype)
    # The first step sets the averages to the weights.
    momentum = tf.cast(step != 0, dtype) * optimizer.ema_momentum
    rest = 1 - momentum
    for weight, average, *slots, gradient in zip(
        variables.weights, variables.averages, *variables.slots, gradients, strict=True
    ):
        update_weight(weight, *slots, tf.cast(gradient, dtype))
        average.assign(momentum * average + rest * weight)
    variables.iterations.assign_add(1)


def _adamax(optimizer, learning_rate, step, dtype):
    """The function that updates a weight by Adamax (Kingma and Ba 2015, algorithm 2).

    m <- b1 m + (1 - b1) g;  u <- max(b2 u, |g|)
    p <- p - lr / (1 - b1^t) * m / (u + epsilon),  t = 1 at the first step
    """
    beta_1, beta_2, epsilon = _constants(optimizer, dtype, "beta_1", "beta_2", "epsilon")
    power = beta_1 ** tf.cast(step + 1, dtype)

    def update_weight(weight, m, u, gradient):
        tf.raw_ops.ResourceApplyAdaMax(
            var=weight.handle,
            m=m.handle,
            v=u.handle,
            beta1_power=power,
            lr=learning_rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=gradient,
        )

    return update_weight


def _release_adam(optimizer, learning_rate, step, dtype):
    """The function that updates a weight by the equations of `optimizers.ReleaseAdam`."""
    beta_1, beta_2, epsilon = _constants(optimizer, dtype, "beta_1", "beta_2", "epsilon")
    mean_bias, square_bias = (1 - beta ** tf.cast(step + 1, dtype) for beta in (beta_1, beta_2))
    new_1, new_2 = 1 - beta_1, 1 - beta_2

    def update_weight(weight, m, v, gradient):
        mean = m.assign(beta_1 * m + new_1 * gradient) / mean_bias
        square = v.assign(beta_2 * v + new_2 * tf.square(gradient)) / square_bias
        weight.assign_sub(learning_rate * mean / tf.sqrt(square + epsilon))

    return update_weight


def _rmsprop(optimizer, learning_rate, dtype):
    """The function that updates a weight by RMSProp (Tieleman and Hinton 2012, lecture 6e).

    v <- rho v + (1 - rho) g^2
    p <- p - lr * g / sqrt(v + epsilon)
    """
    rho, epsilon = _constants(optimizer, dtype, "rho", "epsilon")
    new = 1 - rho

    def update_weight(weight, v, gradient):
        square = v.assign(rho * v + new * tf.square(gradient))
        weight.assign_sub(learning_rate * gradient / tf.sqrt(square + epsilon))

    return update_weight


def _constants(optimizer, dtype, *names):
    # `constant` and not `cast`, which would round the numbers to float32 first.
    return [tf.constant(getattr(optimizer, name), dtype) for name in names]


def _slots(optimizer):
    """The slots of an optimizer. Keras has no public name for the lists."""
    if isinstance(optimizer, keras.optimizers.Adamax):
        return optimizer._m, optimizer._u
    if isinstance(optimizer, keras.optimizers.RMSprop):
        return (optimizer._velocities,)
    return optimizer._momentums, optimizer._velocities
