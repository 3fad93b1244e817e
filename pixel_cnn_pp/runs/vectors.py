"""All weights of a model as one vector, and the slots of its optimizer as one vector of each kind.

XLA compiles the update of every array on its own. For the hundreds of weights of a network, that
takes as long as half of the network. The update of a vector is compiled once.
"""

import math
from typing import Any, NamedTuple

import jax
import keras
import numpy as np


class State(NamedTuple):
    """The values of all variables that training changes.

    Attributes:
      weights: The trainable weights, a vector [P].
      slots: The variables of an optimizer of that vector: vectors [P], and the number of updates.
    """

    weights: Any
    slots: list


class Vectors:
    """The way between the variables of a model and its optimizer, and a `State`.

    Attributes:
      variables: All variables of which a state has the values.
    """

    def __init__(self, model, optimizer, vector_optimizer, outputs_first=False):
        """Makes the way for one model.

        Args:
          model: AutoregressiveModel. All its weights have the same dtype.
          optimizer: Keras optimizer, built on the model's trainable weights, with `use_ema`.
          vector_optimizer: Another optimizer with the same arguments, which is not built yet. It
            updates the vector.
          outputs_first: Whether filters are stored with their last axis first. On GPUs, XLA then
            has to transpose none of them.
        """
        weights = model.trainable_variables
        self._outputs_first = outputs_first
        self._shapes = [tuple(weight.shape) for weight in weights]
        size = sum(math.prod(shape) for shape in self._shapes)
        vector = keras.Variable(np.zeros(size), dtype=weights[0].dtype, name="vector")
        vector_optimizer.build([vector])
        self._optimizer = vector_optimizer
        # The name of a slot is the path of its weight and the kind of slot.
        kinds = [
            variable.name.removeprefix(_name(vector)) for variable in vector_optimizer.variables
        ]
        self._iterations = kinds.index(optimizer.iterations.name)
        self._averages = kinds.index("_average")
        by_name = {variable.name: variable for variable in optimizer.variables}
        # The variables of the model's optimizer that correspond to each one of the vector's.
        self._slots = [
            [by_name[kind]] if kind in by_name else [by_name[_name(w) + kind] for w in weights]
            for kind in kinds
        ]
        self._weights = weights
        self.variables = [x for variables in (weights, *self._slots) for x in variables]
        assert len(self.variables) == len(weights) + len(optimizer.variables)
        for variable in (vector, *vector_optimizer.variables):
            variable.value.delete()  # the values are in the states

    def join(self):
        """The state that the variables have, in NumPy arrays."""
        weights, *slots = (
            np.concatenate([np.ravel(self._stored(variable)) for variable in variables])
            for variables in (self._weights, *self._slots)
        )
        slots[self._iterations] = slots[self._iterations][0]
        return State(weights, slots)

    def assign(self, state):
        """Sets the variables to the values of a state."""
        for variables, value in zip(
            (self._weights, *self._slots), (state[0], *state[1]), strict=True
        ):
            value = np.asarray(value)
            values = self.split(value) if value.ndim else [value]
            for variable, part in zip(variables, values, strict=True):
                variable.assign(part)

    def split(self, vector):
        """The parts of a vector [P] in the shapes of the weights: a list of arrays of its kind."""
        sizes = [math.prod(shape) for shape in self._shapes]
        if isinstance(vector, np.ndarray):
            parts = np.split(vector, np.cumsum(sizes)[:-1])
        else:
            parts = jax.lax.split(vector, sizes)
        return [self._shaped(*pair) for pair in zip(parts, self._shapes, strict=True)]

    def update(self, state, gradient):
        """The state after one update by a gradient [P]."""
        (weights,), slots = self._optimizer.stateless_apply(
            state.slots, [gradient], [state.weights]
        )
        return State(weights, slots)

    def iterations(self, state):
        """The number of updates that are done, an integer array []."""
        return state.slots[self._iterations]

    def averages(self, state):
        """The Polyak averages of the weights, a vector [P]."""
        return state.slots[self._averages]

    def learning_rate(self, state):
        """The learning rate of the next step, an array []."""
        mapping = [(self._optimizer.iterations, self.iterations(state))]
        with keras.StatelessScope(state_mapping=mapping):
            return self._optimizer.learning_rate

    def _stored(self, variable):
        """The values of a variable in the order of a vector."""
        values = np.asarray(variable)
        return np.moveaxis(values, -1, 0) if self._turns(values.shape) else values

    def _shaped(self, part, shape):
        """A part of a vector in the shape of its weight."""
        if not self._turns(shape):
            return part.reshape(shape)
        last_first = part.reshape((shape[-1], *shape[:-1]))
        return last_first.transpose((*range(1, len(shape)), 0))

    def _turns(self, shape):
        """Whether a weight of this shape is a filter that is stored with its last axis first."""
        return self._outputs_first and len(shape) == 4


def _name(weight):
    """What Keras makes of the path of a weight in the names of its slots."""
    return weight.path.replace("/", "_")
