"""The models that are exported, and how a signature is called."""

import specimens
import tensorflow as tf

from pixel_cnn_pp.config import ModelConfig

# One of each kind: what the README's digits are, exported by the script without XLA; and without
# classes, with levels that uint8 does not hold, on a small receptive field, exported with XLA.
DIGITS = ModelConfig(
    image_shape=(8, 8, 1),
    num_levels=17,
    nr_resnet=1,
    nr_filters=6,
    nr_logistic_mix=2,
    num_classes=10,
)
DEEP_COLOR = ModelConfig(
    image_shape=(4, 8, 2),
    num_levels=1000,
    nr_resnet=2,
    nr_filters=4,
    nr_logistic_mix=2,
    receptive_field="11x5",
)


def initialized(config, **kwargs):
    """A model that has seen images."""
    model = specimens.fresh(config, **kwargs)
    model.initialize(specimens.images(config, 16), specimens.labels(config, 16))
    return model


def call(served, signature, **arguments):
    """The outputs of a signature as arrays, its inputs in the dtypes that it asks for."""
    function = served.signatures[signature]
    _, specs = function.structured_input_signature
    assert arguments.keys() == specs.keys()
    outputs = function(
        **{name: tf.constant(value, specs[name].dtype) for name, value in arguments.items()}
    )
    return {name: output.numpy() for name, output in outputs.items()}
