"""A model in a file of Keras, model.keras, where a run is expected: a model without its run."""

import pathlib
import zipfile

import keras

from pixel_cnn_pp import config
from pixel_cnn_pp.models import AutoregressiveModel


def is_model_file(path):
    """Whether a path names a file of Keras, by its ending."""
    return pathlib.Path(path).suffix == ".keras"


def load(path):
    """Loads the model of a file.

    Args:
      path: Path of the file, as `model.save` has written it.

    Returns:
      AutoregressiveModel.

    Raises:
      ValueError: If the file cannot be read, or holds another model.
    """
    try:
        found = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        # Keras adds the whole configuration to some errors.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"A .keras file must hold a model of this package. Received: {path} ({reason})"
        ) from None
    if not isinstance(found, AutoregressiveModel):
        raise ValueError(
            "A .keras file must hold a model of this package. "
            f"Received: {path}, a {type(found).__name__}"
        )
    return found


def run_of(model):
    """The configuration of a run with this model. Of data and training, nothing is known."""
    return config.RunConfig(model.config, config.DataConfig(), config.TrainingConfig())


def check_data_set(path, data_set):
    """Checks that a data set is given where a file has no run that could name it.

    Args:
      path: Path of a run, or of a file.
      data_set: The name that the user has given, or None.

    Raises:
      ValueError: If it is missing.
    """
    if data_set is None and is_model_file(path):
        raise ValueError(
            "`data_set` must be given: a .keras file does not say what its model was trained on. "
            f"Received: {path} alone"
        )


def folder_of(path):
    """The folder for what is made from a run: its own; that of a.keras is a."""
    return pathlib.Path(path).with_suffix("") if is_model_file(path) else pathlib.Path(path)
