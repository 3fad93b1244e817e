"""The optimizers of the release: Adamax or its own Adam, a decaying rate, Polyak averages."""

import math

import keras

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")


@_SERIALIZE
class DecayPerStep(keras.optimizers.schedules.LearningRateSchedule):
    """learning_rate(t) = initial * decay ** (t + 1) at step t = 0, 1, ...

    The original release decays before its first step. The exponent is formed in logarithms: in
    float32, 0.999995 itself is off by enough to be 3 % out after a million steps.
    """

    def __init__(self, initial_learning_rate, decay_per_step):
        """Makes the schedule from its two positive numbers."""
        self.initial_learning_rate = initial_learning_rate
        self.decay_per_step = decay_per_step

    def __call__(self, step):
        """The learning rate of a step, a float32 scalar."""
        exponent = (keras.ops.cast(step, "float32") + 1) * math.log(self.decay_per_step)
        return self.initial_learning_rate * keras.ops.exp(exponent)

    def get_config(self):
        """The arguments that the schedule was made with."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_per_step": self.decay_per_step,
        }


class _FewOperations:
    """What is the same for every weight, computed once: averages bit for bit as Keras has them.

    Keras computes it anew for each of them, which makes half of the operations of a step, and a
    user waits for all of these to be traced before the first one. What a class returns from
    `_rates(learning_rate, dtype)` is handed to its `update_step` in place of a learning rate.
    """

    def _bias(self, beta, dtype):
        """1 - beta^t, t = 1 at the first step."""
        step = keras.ops.cast(self.iterations + 1, dtype)
        return 1 - keras.ops.power(keras.ops.cast(beta, dtype), step)

    # Private: of Keras's public methods, `update_step` sees a single weight.
    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        rates = self._rates(learning_rate, trainable_variables[0].dtype)
        super()._backend_update_step(grads, trainable_variables, rates)

    # Private: Keras has no public method that updates the averages.
    def _update_model_variables_moving_average(self, trainable_variables):
        dtype = trainable_variables[0].dtype
        # The first step overwrites what an average starts from.
        is_later = keras.ops.cast(self.iterations != 0, dtype)
        momentum = keras.ops.multiply(is_later, self.ema_momentum)
        rest = keras.ops.subtract(1, momentum)
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            average.assign(momentum * average + rest * variable)


@_SERIALIZE
class Adamax(_FewOperations, keras.optimizers.Adamax):
    """Keras's Adamax (Kingma and Ba 2015, algorithm 2); on TensorFlow one operation a weight.

    m <- b1 m + (1 - b1) g;  u <- max(b2 u, |g|)
    p <- p - lr / (1 - b1^t) * m / (u + epsilon),  t = 1 at the first step
    """

    def _rates(self, learning_rate, dtype):
        learning_rate = keras.ops.cast(learning_rate, dtype) / self._bias(self.beta_1, dtype)
        constants = 0.0, self.beta_1, self.beta_2, self.epsilon
        return learning_rate, *(keras.ops.cast(constant, dtype) for constant in constants)

    def update_step(self, gradient, variable, rates):
        """Updates one variable by its gradient, at the rates of `_rates`."""
        learning_rate, zero, beta_1, beta_2, epsilon = rates
        index = self._get_variable_index(variable)
        m, u = self._m[index], self._u[index]
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.raw_ops.ResourceApplyAdaMax(
                var=variable.handle,
                m=m.value.handle,
                v=u.value.handle,
                beta1_power=zero,  # the rate is corrected already
                lr=learning_rate,
                beta1=beta_1,
                beta2=beta_2,
                epsilon=epsilon,
                grad=tf.cast(gradient, variable.dtype),
            )
            return
        ops = keras.ops
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(m, m + (gradient - m) * (1 - beta_1))
        self.assign(u, ops.maximum(beta_2 * u, ops.abs(gradient)))
        self.assign_sub(variable, learning_rate * m / (u + epsilon))


@_SERIALIZE
class ReleaseAdam(_FewOperations, keras.optimizers.Adam):
    """Adam as the last release has it, with epsilon inside the root (its `adam_updates`).

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p - lr * (m / (1 - b1^t)) / sqrt(v / (1 - b2^t) + epsilon),  t = 1 at the first step
    """

    def _rates(self, learning_rate, dtype):
        learning_rate = keras.ops.cast(learning_rate, dtype)
        return learning_rate, self._bias(self.beta_1, dtype), self._bias(self.beta_2, dtype)

    def update_step(self, gradient, variable, rates):
        """Updates one variable by its gradient, at the rates of `_rates`."""
        ops = keras.ops
        learning_rate, mean_bias, square_bias = rates
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign(m, self.beta_1 * m + (1 - self.beta_1) * gradient)
        self.assign(v, self.beta_2 * v + (1 - self.beta_2) * ops.square(gradient))
        mean, square = m / mean_bias, v / square_bias
        self.assign_sub(variable, learning_rate * mean / ops.sqrt(square + self.epsilon))


def make_optimizer(training):
    """The optimizer of a run, its learning rate decaying by the step, with Polyak averages.

    Args:
      training: TrainingConfig.

    Returns:
      Adamax, or Adam with the constants of the last release.
    """
    arguments = {
        "learning_rate": DecayPerStep(training.learning_rate, training.lr_decay),
        "use_ema": True,
        "ema_momentum": training.polyak_decay,
    }
    if training.optimizer == "adam":
        return ReleaseAdam(beta_1=0.95, beta_2=0.9995, epsilon=1e-8, **arguments)
    return Adamax(**arguments)
