"""The optimizers of a run, all with Polyak averages.

They are Adamax and the variant of Adam of the original release, and RMSProp.
"""

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


@_SERIALIZE
class ReleaseAdam(keras.optimizers.Adam):
    """Adam as in the original release (its `adam_updates`), with epsilon inside the root.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p - lr * (m / (1 - b1^t)) / sqrt(v / (1 - b2^t) + epsilon),  t = 1 at the first step
    """

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable by its gradient."""
        ops = keras.ops
        learning_rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign(m, self.beta_1 * m + (1 - self.beta_1) * gradient)
        self.assign(v, self.beta_2 * v + (1 - self.beta_2) * ops.square(gradient))
        mean = m / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        square = v / (1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        self.assign_sub(variable, learning_rate * mean / ops.sqrt(square + self.epsilon))


def make_optimizer(training):
    """Makes the optimizer of a run, with a decaying learning rate and Polyak averages.

    Args:
      training: TrainingConfig.

    Returns:
      Keras's Adamax, or `ReleaseAdam` with the constants of the original release, or Keras's
      RMSprop, which divides by sqrt(v + epsilon) with v <- rho v + (1 - rho) g^2.
    """
    arguments = {
        "learning_rate": DecayPerStep(training.learning_rate, training.lr_decay),
        "use_ema": True,
        "ema_momentum": training.polyak_decay,
    }
    if training.optimizer == "adam":
        return ReleaseAdam(beta_1=0.95, beta_2=0.9995, epsilon=1e-8, **arguments)
    if training.optimizer == "rmsprop":
        # Van den Oord et al. 2016a (section 5.2) name RMSProp without its constants. rho is that of
        # Hinton's lecture 6e, and epsilon is Keras's. There is no momentum.
        return keras.optimizers.RMSprop(rho=0.9, epsilon=1e-7, **arguments)
    return keras.optimizers.Adamax(**arguments)
