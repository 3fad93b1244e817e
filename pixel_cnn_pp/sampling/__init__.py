"""Sampling: pixel after pixel in raster order, each from its exact distribution.

driver     the loop over the sub-pixels of a row; a function that it is given chooses each level
draw       compiled functions that compute images from a seed
noise      the uniform random numbers of an image
sample     the public function `sample`
start      the canvas of each stage of a chain
arguments  checks of the arguments of `sample`
"""

from pixel_cnn_pp.sampling.arguments import MODES
from pixel_cnn_pp.sampling.draw import make_draw_rows
from pixel_cnn_pp.sampling.draw_images import make_draw_images
from pixel_cnn_pp.sampling.driver import completes, draws, teacher_forces, walk_row
from pixel_cnn_pp.sampling.sample import METHODS, sample, sample_stages
from pixel_cnn_pp.sampling.start import seed_of

__all__ = [
    "METHODS",
    "MODES",
    "completes",
    "draws",
    "make_draw_images",
    "make_draw_rows",
    "sample",
    "sample_stages",
    "seed_of",
    "teacher_forces",
    "walk_row",
]
