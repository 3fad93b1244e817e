"""The optimizers of the original release: Adamax, or its variant of Adam, with Polyak averages."""

import math

import keras

_SERIALIZE = keras.saving.register_keras_serializable("pixel_cnn_pp")


@_SERIALIZE
class DecayPerStep(keras.optimizers.schedules.LearningRateSchedule):
    """learning_rate(t) = initial * decay ** (t + 1) at step t = 0, 1, ...

    The rate decays before the first step, as in the original release. The power is computed with
    logarithms, because 0.999995 rounded to float32 would give an error of 3 % after a million
    steps.
    """

    def __init__(self, initial_learning_rate, decay_per_step):
        """Makes the schedule.

        Args:
          initial_learning_rate: Learning rate before the first decay, a positive number.
          decay_per_step: Factor per step, a positive number.
        """
        self.initial_learning_rate = initial_learning_rate
        self.decay_per_step = decay_per_step

    def __call__(self, step):
        """The learning rate of a step, a scalar in Keras's default dtype, which is float32."""
        dtype = keras.config.floatx()
        exponent = (keras.ops.cast(step, dtype) + 1) * math.log(self.decay_per_step)
        return self.initial_learning_rate * keras.ops.exp(exponent)

    def get_config(self):
        """The arguments that the schedule was made with."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_per_step": self.decay_per_step,
        }


def _constant(number, dtype):
    # On TensorFlow, `cast` would round the number to float32 first.
    return keras.ops.convert_to_tensor(number, dtype=dtype)


class _FewOperations:
    """Computes the values that are the same for every weight only once in a step.

    Keras computes them again for each weight. That is half of the operations of a step, and the
    user has to wait until all operations are traced. The Polyak averages are equal to those of
    Keras bit for bit.

    A subclass defines `_rates(learning_rate, dtype)`. Its result is passed to `update_step` instead
    of a learning rate.
    """

    def _bias(self, beta, dtype):
        """1 - beta^t, t = 1 at the first step."""
        step = keras.ops.cast(self.iterations + 1, dtype)
        return 1 - keras.ops.power(_constant(beta, dtype), step)

    # This overrides a private method, because the public `update_step` handles only one weight.
    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        rates = self._rates(learning_rate, trainable_variables[0].dtype)
        super()._backend_update_step(grads, trainable_variables, rates)

    # This overrides a private method, because Keras has no public one that updates the averages.
    def _update_model_variables_moving_average(self, trainable_variables):
        dtype = trainable_variables[0].dtype
        # The first step sets the averages to the weights.
        is_later = keras.ops.cast(self.iterations != 0, dtype)
        momentum = keras.ops.multiply(is_later, self.ema_momentum)
        rest = keras.ops.subtract(1, momentum)
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            average.assign(momentum * average + rest * variable)


@_SERIALIZE
class Adamax(_FewOperations, keras.optimizers.Adamax):
    """Keras's Adamax (Kingma and Ba 2015, algorithm 2). TensorFlow uses one operation per weight.

    m <- b1 m + (1 - b1) g;  u <- max(b2 u, |g|)
    p <- p - lr / (1 - b1^t) * m / (u + epsilon),  t = 1 at the first step
    """

    def _rates(self, learning_rate, dtype):
        learning_rate = keras.ops.cast(learning_rate, dtype) / self._bias(self.beta_1, dtype)
        constants = 0.0, self.beta_1, self.beta_2, self.epsilon
        return learning_rate, *(_constant(constant, dtype) for constant in constants)

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
                beta1_power=zero,  # because the rate already has the correction
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
    """Adam as in the original release (its `adam_updates`), with epsilon inside the root.

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
    """Makes the optimizer of a run, with a decaying learning rate and Polyak averages.

    Args:
      training: TrainingConfig.

    Returns:
      `Adamax`, or `ReleaseAdam` with the constants of the original release.
    """
    arguments = {
        "learning_rate": DecayPerStep(training.learning_rate, training.lr_decay),
        "use_ema": True,
        "ema_momentum": training.polyak_decay,
    }
    if training.optimizer == "adam":
        return ReleaseAdam(beta_1=0.95, beta_2=0.9995, epsilon=1e-8, **arguments)
    return Adamax(**arguments)
