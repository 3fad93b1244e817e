"""What a run needs of the library that Keras computes with: its devices, and the trainer."""

import keras

if keras.backend.backend() == "tensorflow":
    from pixel_cnn_pp.runs import devices
    from pixel_cnn_pp.runs.trainer import Trainer
elif keras.backend.backend() == "jax":
    from pixel_cnn_pp.runs import jax_devices as devices
    from pixel_cnn_pp.runs.jax_trainer import Trainer
else:
    raise ValueError(
        "KERAS_BACKEND must be tensorflow or jax to train a run. "
        f"Received: {keras.backend.backend()}"
    )

__all__ = ["Trainer", "devices"]
