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
      slots: Their slots, two lists: means, and norms (Adamax) or squares (Adam).
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
    mean_bias = 1 - tf.cast(optimizer.beta_1, dtype) ** tf.cast(step + 1, dtype)
    square_bias = 1 - tf.cast(optimizer.beta_2, dtype) ** tf.cast(step + 1, dtype)
    # The first step sets the averages to the weights.
    momentum = tf.cast(step != 0, dtype) * optimizer.ema_momentum
    rest = 1 - momentum
    update_weight = _adamax if isinstance(optimizer, keras.optimizers.Adamax) else _release_adam
    constants = tuple(
        tf.constant(getattr(optimizer, name), dtype) for name in ("beta_1", "beta_2", "epsilon")
    )
    rates = learning_rate, mean_bias, square_bias, 1 - mean_bias, *constants
    for weight, average, *slots, gradient in zip(
        variables.weights, variables.averages, *variables.slots, gradients, strict=True
    ):
        update_weight(optimizer, weight, slots, tf.cast(gradient, dtype), rates)
        average.assign(momentum * average + rest * weight)
    variables.iterations.assign_add(1)


def _adamax(optimizer, weight, slots, gradient, rates):
    """Adamax (Kingma and Ba 2015, algorithm 2), as one operation."""
    learning_rate, _, _, mean_power, beta_1, beta_2, epsilon = rates
    m, u = slots
    tf.raw_ops.ResourceApplyAdaMax(
        var=weight.handle,
        m=m.handle,
        v=u.handle,
        beta1_power=mean_power,
        lr=learning_rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=gradient,
    )


def _release_adam(optimizer, weight, slots, gradient, rates):
    """The equations of `optimizers.ReleaseAdam`."""
    learning_rate, mean_bias, square_bias, *_ = rates
    m, v = slots
    mean = m.assign(optimizer.beta_1 * m + (1 - optimizer.beta_1) * gradient)
    square = v.assign(optimizer.beta_2 * v + (1 - optimizer.beta_2) * tf.square(gradient))
    weight.assign_sub(
        learning_rate * (mean / mean_bias) / tf.sqrt(square / square_bias + optimizer.epsilon)
    )


def _slots(optimizer):
    """The slots of an optimizer. Keras has no public name for the lists."""
    if isinstance(optimizer, keras.optimizers.Adamax):
        return optimizer._m, optimizer._u
    return optimizer._momentums, optimizer._velocities
