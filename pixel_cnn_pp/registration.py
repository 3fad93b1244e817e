"""Makes the models known to Keras as soon as it is imported, without importing them.

So `keras.models.load_model` can read a file of a model after `import pixel_cnn_pp` alone, which
imports neither Keras nor TensorFlow.
"""

import importlib

import wrapt


class _Later:
    """Stands for a class of a model until a file asks for it."""

    def __init__(self, module, name):
        self._module, self._name = module, name

    def from_config(self, config):
        """Imports the class, and makes the model."""
        return getattr(importlib.import_module(self._module), self._name).from_config(config)


def register_with_keras(modules):
    """Registers classes with Keras, now or when it is imported.

    Args:
      modules: {name of a class: name of its module}. The import of a module replaces what is
        registered here by the class itself.
    """

    @wrapt.when_imported("keras")
    def register(keras):
        known = keras.saving.get_custom_objects()
        for name, module in modules.items():
            known.setdefault(f"pixel_cnn_pp>{name}", _Later(module, name))
