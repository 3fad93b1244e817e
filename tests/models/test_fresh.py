import pytest
from keras import ops
from specimens import SPECIMENS

from pixel_cnn_pp import layers, models


def constant(weight):
    return bool(ops.max(weight) == ops.min(weight))


def test_a_model_without_fresh_weights_draws_nothing():
    for name, config in SPECIMENS.items():
        model = models.make(config, fresh=False)
        drawn = [weight.path for weight in model.trainable_weights if not constant(weight)]
        assert drawn == [], name


def test_the_next_model_has_fresh_weights_even_after_an_error():
    with pytest.raises(ZeroDivisionError), layers.without_fresh_weights():
        _ = 1 / 0
    model = models.make(SPECIMENS["digits"])
    kernels = [weight for weight in model.trainable_weights if len(weight.shape) > 1]
    assert kernels and not any(constant(weight) for weight in kernels)
