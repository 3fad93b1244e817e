"""Reads a checkpoint of the original release (TensorFlow 1).

Such a checkpoint holds these variables:

    model/conv2d_0/V, ...                    the weights, all listed by `names.release_names`
    <each of them>/ExponentialMovingAverage  their averages
    Variable, Variable_1, ...                variables without a name

The variables without a name are numbered from 0:

    0, ..., k - 1    labels of the pictures that are drawn in training: k is the number of GPUs, or
                     0 for a model without classes
    k                Adam's step
    k + 1 + 2 i      Adam's second moment of weight i of the network
    k + 2 + 2 i      Adam's first moment of weight i of the network

The averages and the variables without a name may be missing. TensorFlow reads both file formats:
V2 has the files PREFIX.index and PREFIX.data-00000-of-00001, and the older V1 has a single file.
"""

import contextlib
import dataclasses
import fnmatch
import re

import numpy as np
import tensorflow as tf

from pixel_cnn_pp import likelihoods
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.files import checked_path
from pixel_cnn_pp.runs import checkpoints
from pixel_cnn_pp.tf1_import import files
from pixel_cnn_pp.tf1_import.names import release_names, release_variables

_AVERAGE = "/ExponentialMovingAverage"
_SUFFIXES = {"ema": _AVERAGE, "raw": ""}
_VARIABLE = re.compile(r"(|.*/)(?:conv2d|deconv2d|dense|conditional_weights)_\d+/(?:V|g|b|hw)")
# Fields of ModelConfig that must have their defaults. With other values, the network or the meaning
# of its outputs would not be those of the release.
_VARIANTS = (
    "likelihood",
    "receptive_field",
    "small_variant",
    "shortcuts",
    "energy_distance",
    "num_resolutions",
)
_UNNAMED = re.compile(r"Variable(?:_(\d+))?")
# Errors that TensorFlow raises for a file that is incomplete, changed or of another kind.
_READ_ERRORS = (tf.errors.OpError, IndexError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class _Slots:
    """Names of Adam's step and of its moments, which have the order of `release_names`."""

    step: str
    first_moments: list
    second_moments: list


class ReleaseCheckpoint:
    """An open checkpoint of the release. Its variables are checked, but their values not yet read.

    Attributes:
      path: Prefix of its files, or the single file.
      has_averages: Whether it holds averages.
      num_channels: Number of channels of the images.
      why_no_moments: None if the checkpoint has the moments of Adam. Otherwise the reason why they
        are missing, a string.
    """

    def __init__(self, path, ignore=()):
        """Opens a checkpoint, and finds the meaning of its variables by their names and shapes.

        Args:
          path: The prefix of its files, one of its files, the single file of the older format, or
            a directory. A directory must hold one checkpoint, or TensorFlow's file "checkpoint",
            which names the newest one.
          ignore: Names of variables to ignore. They may be patterns such as "global/*".

        Raises:
          ValueError: If there is no checkpoint, if it is damaged, or if its variables are not those
            of a PixelCNN++.
        """
        self.path = files.find(checked_path("ckpt_prefix", path))
        with self._readable("it"):
            self._reader = tf.train.load_checkpoint(str(self.path))
            self._shapes = {
                name: tuple(shape)
                for name, shape in self._reader.get_variable_to_shape_map().items()
                if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
            }
            self._dtypes = self._reader.get_variable_to_dtype_map()
        self._scope = self._find_scope()
        self._names, self._nr_resnet = self._find_names()
        self.has_averages = any(name.endswith(_AVERAGE) for name in self._shapes)
        self._check_names()
        self._found = self._infer()
        self._slots, self.why_no_moments = self._find_slots()

    @property
    def num_channels(self):
        """Number of channels of the images."""
        return self._found["num_channels"]

    def config(self, **given):
        """The configuration of the network, from the shapes in the checkpoint and given fields.

        Args:
          **given: Fields of ModelConfig. Fields that the shapes determine may be given, but must
            agree with the shapes. These fields do not follow from the shapes:
            `image_shape` is needed, except for three channels, where its default is (32, 32, 3) as
            in the release; `resnet_nonlinearity` is needed if it is "elu" or "relu";
            `num_levels` and `dropout_p` have the defaults of the release, 256 and 0.5.

        Returns:
          ModelConfig.

        Raises:
          ValueError: If a field is needed and not given, or contradicts the checkpoint.
        """
        for name in _VARIANTS:
            default = ModelConfig.__dataclass_fields__[name].default
            if given.get(name, default) != default:
                raise ValueError(
                    f"`{name}` must be left out: a checkpoint of the release is read as its full "
                    f"network with the mixture likelihood. Received: {name}={given[name]!r}"
                )
        found = dict(self._found)
        num_channels, is_widened = found.pop("num_channels"), found.pop("is_widened")
        told = {name: repr(value) for name, value in found.items()}
        clashes = [name for name, value in found.items() if given.get(name, value) != value]
        if "image_shape" in given and given["image_shape"][-1] != num_channels:
            clashes.append("image_shape")
            told["image_shape"] = f"(H, W, {num_channels})"
        nonlinearity = given.get("resnet_nonlinearity")
        if nonlinearity is not None and (nonlinearity == "concat_elu") != is_widened:
            clashes.append("resnet_nonlinearity")
            told["resnet_nonlinearity"] = "'concat_elu'" if is_widened else "'elu' or 'relu'"
        if clashes:
            different = [f"{name}: {told[name]} != {given[name]!r}" for name in clashes]
            raise ValueError(
                "A checkpoint must be of the given configuration. "
                f"Received: {self.path} with {', '.join(different)} (checkpoint != given)"
            )
        if nonlinearity is None and not is_widened:
            raise ValueError(
                "`resnet_nonlinearity` must be given, elu or relu: the shapes in the checkpoint "
                "are the same for both. Received: None"
            )
        if "image_shape" not in given and num_channels != 3:
            raise ValueError(
                "The size of the images must be given where they do not have 3 channels, H and W "
                f"are not in a checkpoint. Received: None, for {self.path} with {num_channels}"
            )
        if given.get("num_levels", 256) > 256:
            given.setdefault("min_log_scale", -7.0)  # the release's floor for any number of levels
        return ModelConfig(**{**given, **found})

    def check_holds(self, weights):
        """Checks that the checkpoint holds the weights that the user asks for.

        Args:
          weights: "ema" for the averages, or "raw".

        Raises:
          ValueError: If `weights` is another word, or the checkpoint has no averages.
        """
        if weights not in _SUFFIXES:
            raise ValueError(
                f"`weights` must be one of {', '.join(_SUFFIXES)}. Received: weights={weights!r}"
            )
        if weights == "ema" and not self.has_averages:
            raise ValueError(
                '`weights` must be "raw" for a checkpoint without averages. '
                f"Received: weights={weights!r}, {self.path}"
            )

    def load_weights(self, model, weights):
        """Copies the weights of the checkpoint to a model.

        Args:
          model: PixelCNNPP of the checkpoint's configuration.
          weights: "ema" or "raw".

        Raises:
          ValueError: If there are no averages, a shape is wrong, a value is not finite, or the
            checkpoint is damaged.
        """
        self.check_holds(weights)
        variables = release_variables(model).values()
        self._assign(
            (name + _SUFFIXES[weights], variable)
            for name, variable in zip(self._names, variables, strict=True)
        )

    def load_optimizer(self, model, optimizer):
        """Copies the averages and the moments of Adam from the checkpoint to an optimizer.

        If the checkpoint has no averages, the weights of the model are used instead. If it has no
        moments, those of the optimizer do not change.

        Args:
          model: PixelCNNPP with the checkpoint's raw weights.
          optimizer: `optimizers.ReleaseAdam`, built on the model's weights, with `use_ema`.

        Raises:
          ValueError: As in `load_weights`.
        """
        averages = dict(
            zip(
                (weight.path for weight in model.trainable_variables),
                checkpoints.averages(model, optimizer),
                strict=True,
            )
        )
        # The name that Keras gives to a slot contains the path of its weight.
        slots = {variable.name: variable for variable in optimizer.variables}
        pairs = []
        variables = release_variables(model).values()
        for number, (name, weight) in enumerate(zip(self._names, variables, strict=True)):
            if self.has_averages:
                pairs.append((name + _AVERAGE, averages[weight.path]))
            else:
                averages[weight.path].assign(weight)
            if self._slots is not None:
                stem = weight.path.replace("/", "_")
                pairs.append((self._slots.second_moments[number], slots[f"{stem}_velocity"]))
                pairs.append((self._slots.first_moments[number], slots[f"{stem}_momentum"]))
        self._assign(pairs)
        optimizer.iterations.assign(self.num_steps)

    @property
    def num_steps(self):
        """Number of updates that are done. It is 0 or 1 if the checkpoint does not tell."""
        if self._slots is not None:
            # The release's t is 1 before the first update.
            return max(0, round(float(self._read(self._slots.step))) - 1)
        # At step 0, Keras would overwrite the averages with the weights. So this is 1. Then Adam's
        # bias correction is one step ahead of its moments, which makes the first updates smaller.
        return 1 if self.has_averages else 0

    def _find_scope(self):
        """The prefix of the names of the network. In the release it is "model/"."""
        matches = (_VARIABLE.fullmatch(name) for name in self._shapes)
        scopes = sorted({match[1] for match in matches if match})
        if len(scopes) != 1:
            found = files.first(scopes or sorted(self._shapes))
            what = f"several, in {found}" if scopes else found
            raise ValueError(
                "A checkpoint of the release must hold one network, variables such as "
                f"model/conv2d_0/V. Received: {self.path} with {what or 'nothing'}"
            )
        return scopes[0]

    def _find_names(self):
        """Names and nr_resnet of the network whose names fit those in the checkpoint best."""
        raw = {
            name.removeprefix(self._scope)
            for name in self._shapes
            if not name.endswith(_AVERAGE) and not _UNNAMED.fullmatch(name)
        }
        is_conditional = any(name.startswith("conditional_weights_") for name in raw)
        fits = []
        # A network has more than 99 * nr_resnet variables.
        for nr_resnet in range(1, len(raw) // 99 + 2):
            names = release_names(nr_resnet, is_conditional)
            fits.append((len(raw ^ set(names)), nr_resnet, names))
        _, nr_resnet, names = min(fits, key=lambda fit: fit[:2])
        return [self._scope + name for name in names], nr_resnet

    def _check_names(self):
        """Checks that the checkpoint has all variables of its network, and no others."""
        expected = [*self._names]
        if self.has_averages:
            expected += [name + _AVERAGE for name in self._names]
        missing = [name for name in expected if name not in self._shapes]
        known = set(expected)
        others = [
            name
            for name in sorted(self._shapes)
            if name not in known and not _UNNAMED.fullmatch(name)
        ]
        if missing or others:
            parts = [f"without {files.first(missing)}"] if missing else []
            if others:
                parts.append(f"beside it {files.first(others)} (`ignore` leaves variables out)")
            raise ValueError(
                "A checkpoint of the release must hold its network and nothing else. "
                f"Received: {self.path}, nr_resnet={self._nr_resnet}, {'; '.join(parts)}"
            )

    def _infer(self):
        """Reads from the shapes: fields of ModelConfig, num_channels, is_widened (concat_elu)."""
        deciding = [f"{self._scope}conv2d_0/V", f"{self._scope}conv2d_3/V", self._names[-3]]
        first, inner, output = (self._shapes[name] for name in deciding)
        if (len(first), len(inner), len(output)) == (4, 4, 2) and first[2] > 1:
            num_channels, filters = first[2] - 1, first[3]  # one input channel is all ones
            likelihood = likelihoods.LogisticMixture(num_channels, num_levels=256)
            num_components, rest = divmod(output[1], likelihood.params_per_component())
            if not rest and inner[2] in (filters, 2 * filters):
                classes = self._shapes.get(f"{self._scope}conditional_weights_0/hw")
                return {
                    "nr_resnet": self._nr_resnet,
                    "nr_filters": filters,
                    "nr_logistic_mix": num_components,
                    "num_classes": classes and classes[0],
                    "num_channels": num_channels,
                    "is_widened": inner[2] == 2 * filters,
                }
        shapes = ", ".join(f"{name} {self._shapes[name]}" for name in deciding)
        raise ValueError(
            "The shapes in a checkpoint must be those of a PixelCNN++. "
            f"Received: {self.path} with {shapes}"
        )

    def _find_slots(self):
        """Finds the variables of Adam. If they are not there, returns None and the reason."""
        matches = (_UNNAMED.fullmatch(name) for name in self._shapes)
        unnamed = {int(match[1] or 0): match[0] for match in matches if match}
        if not unnamed:
            return None, "the checkpoint holds no moments"
        # The first scalar is the step. The vectors of labels come before it.
        k = min((i for i, name in unnamed.items() if self._shapes[name] == ()), default=0)
        shapes = [()]
        for name in self._names:
            shapes += [self._shapes[name]] * 2
        found = {i: self._shapes[name] for i, name in unnamed.items() if i >= k}
        if found != dict(enumerate(shapes, start=k)):
            return None, (
                f"the {len(unnamed)} variables without a name in the checkpoint are not those of "
                "the release's Adam"
            )
        names = [unnamed[i] for i in range(k, k + len(shapes))]
        return _Slots(names[0], first_moments=names[2::2], second_moments=names[1::2]), None

    def _assign(self, pairs):
        """Sets variables, given pairs (name in the checkpoint, variable)."""
        pairs = list(pairs)
        unfit = [
            f"{name}: {self._dtypes[name].name} {self._shapes[name]} in the checkpoint, "
            f"{tuple(variable.shape)} in the network"
            for name, variable in pairs
            if self._shapes[name] != tuple(variable.shape) or not self._dtypes[name].is_floating
        ]
        if unfit:
            more = f", and {len(unfit) - 1} more" if len(unfit) > 1 else ""
            raise ValueError(
                "The shapes in a checkpoint must be those of the network. "
                f"Received: {self.path} with {unfit[0]}{more}"
            )
        for name, variable in pairs:
            variable.assign(self._read(name))

    def _read(self, name):
        """Reads the value of a variable as an array, and checks that it is finite."""
        with self._readable(f"{name} in it"):
            value = self._reader.get_tensor(name)
        is_finite = np.isfinite(value)
        if not is_finite.all():
            raise ValueError(
                "The values in a checkpoint must be finite. Received: "
                f"{self.path} with {np.sum(~is_finite)} of {value.size} not finite in {name}"
            )
        return value

    @contextlib.contextmanager
    def _readable(self, what):
        """A context that turns TensorFlow's errors of an unreadable file into one line."""
        try:
            yield
        except _READ_ERRORS as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                "A checkpoint must be whole, and one of TensorFlow. "
                f"Received: {self.path}, {what} cannot be read ({reason})"
            ) from None
