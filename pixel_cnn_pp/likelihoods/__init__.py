"""The mathematics of the likelihoods, in keras.ops.

scale               conversion between levels and the scale [-1, 1]; bits/dim
base                the base class; add a new likelihood as a subclass in a new file
logistic            one logistic: the mass of a level, the lower limit of its scale
mixture             the discretized mixture of logistics of PixelCNN++
dequantized         the continuous mixture on dequantized data
softmax             softmax over all levels, and Bernoulli
energy              the energy distance, which has no likelihood
mixture_statistics  mode and mean of a mixture
distributions       the mixture as a TensorFlow Probability distribution
"""

from pixel_cnn_pp.likelihoods.base import Likelihood
from pixel_cnn_pp.likelihoods.dequantized import DequantizedMixture
from pixel_cnn_pp.likelihoods.energy import EnergyDistance, energy_distance
from pixel_cnn_pp.likelihoods.mixture import DiscretizedMixture, LogisticMixture, MixtureParams
from pixel_cnn_pp.likelihoods.scale import (
    bits_per_dim,
    from_unit_scale,
    level_dtype,
    nats,
    to_unit_scale,
)
from pixel_cnn_pp.likelihoods.softmax import Bernoulli, LinearSoftmax, Softmax

__all__ = [
    "Bernoulli",
    "DequantizedMixture",
    "DiscretizedMixture",
    "EnergyDistance",
    "Likelihood",
    "LinearSoftmax",
    "LogisticMixture",
    "MixtureParams",
    "Softmax",
    "bits_per_dim",
    "energy_distance",
    "from_unit_scale",
    "level_dtype",
    "nats",
    "to_unit_scale",
]
