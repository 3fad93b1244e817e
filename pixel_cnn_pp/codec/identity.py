"""What is needed to decode a file: which model, and what it is computed with.

Floating-point numbers depend on the library, on the device and on the shape of a batch. A decoder
needs exactly the encoder's numbers. So a file names all of this, and other files are refused.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import sys
from importlib import metadata

import keras
import numpy as np

from pixel_cnn_pp.codec import frequencies
from pixel_cnn_pp.models import conditions
from pixel_cnn_pp.sampling import draw

# Instructions that change how a CPU rounds sums and products.
_INSTRUCTIONS = ("fma", "avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
# Sizes of digests in bytes. What they miss, the digests of the pixels find. That of the weights
# covers the options too.
CONFIGURATION_DIGEST, WEIGHTS_DIGEST = 2, 4


@dataclasses.dataclass(frozen=True)
class Identity:
    """What is needed to decode a file. All fields are text; the digests are hexadecimal.

    Attributes:
      model: Title of the model.
      configuration: Digest of the options of the model.
      weights: Digest of the weights and of the options.
      dtype: Name of the dtype policy.
      backend: Library that computes, and its version.
      executor: What runs the functions: XLA, or TensorFlow's executor.
      device: Kind of device. For a CPU, its instructions and the number of cores that may be used.
      coder: The range coder, its version, and the precision of its probabilities.
    """

    model: str
    configuration: str
    weights: str
    dtype: str
    backend: str
    executor: str
    device: str
    coder: str

    def require(self, other):
        """Checks that a file with another identity can be decoded here.

        Args:
          other: The Identity in the file.

        Raises:
          ValueError: If it cannot. The message names the first difference.
        """
        for field in dataclasses.fields(self):
            own, received = (getattr(each, field.name) for each in (self, other))
            if own != received:
                raise ValueError(
                    f"The file must be decoded with the {field.name} that it was made with, "
                    f"{received}. Received: {field.name} {own}"
                )


def of(model):
    """The Identity of files that are made with a model, here and now."""
    backend = keras.backend.backend()
    version = sys.modules[backend].__version__
    options = json.dumps(_options(model.config), sort_keys=True).encode()
    return Identity(
        model=model.title,
        configuration=_digest(CONFIGURATION_DIGEST, options),
        weights=_digest(WEIGHTS_DIGEST, options, *map(_bytes_of, model.get_weights())),
        dtype=model.dtype_policy.name,
        backend=f"{backend} {version}, keras {keras.__version__}",
        executor="XLA" if backend == "jax" or draw.prefers_xla(model) else "TensorFlow",
        device=_device(),
        coder=f"constriction {metadata.version('constriction')} range coder of "
        f"{frequencies.PRECISION} bits, perfect=False",
    )


def _options(config):
    """The options that differ from their defaults: an option that is new changes nothing.

    The size of the images is left out, because weights and steps do not depend on it. Of a picture
    that they are conditioned on, only the ratio of the sizes counts. A chain has the options of its
    stages.
    """
    options = {"kind": config.kind, "channels": config.image_shape[-1]}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "stages":
            value = [_options(stage) for stage in value]
        if field.name == "condition_shape" and value is not None and len(value) == 3:
            value = (*conditions.times_larger(config), value[-1])
        if field.name != "image_shape" and value != field.default:
            options[field.name] = value
    return options


def _bytes_of(array):
    return repr((array.shape, array.dtype.name)).encode() + np.ascontiguousarray(array).tobytes()


def _digest(size, *parts):
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _device():
    """The kind of the first device, in words."""
    kind = keras.distribution.list_devices()[0].partition(":")[0]
    if kind != "cpu":
        return f"{kind} {_accelerator(kind)}".strip()
    flags = set()
    cpuinfo = pathlib.Path("/proc/cpuinfo")  # of Linux
    if os.access(cpuinfo, os.R_OK):
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.split())
                break
    found = [name for name in _INSTRUCTIONS if name in flags]
    # XLA divides sums among the threads that it has, so that another number rounds them otherwise.
    return " ".join(["cpu", platform.machine(), *found, f"{draw.num_workers()} threads"])


def _accelerator(kind):
    """The name of the first accelerator."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    # TensorFlow is imported here, because this package also runs on other backends without it.
    import tensorflow as tf

    device = tf.config.list_physical_devices(kind.upper())[0]
    return tf.config.experimental.get_device_details(device).get("device_name", "")
