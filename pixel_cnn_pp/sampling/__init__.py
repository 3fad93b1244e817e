"""Sampling: pixel after pixel in raster order, each from its exact distribution.

driver     one loop over the sub-pixels of a row, which is handed the choice of each
draw       compiled functions from a seed to images
noise      the uniforms of an image
sample     `sample`, for users; arguments: its checks
"""

from pixel_cnn_pp.sampling.draw import make_draw_images, make_draw_rows
from pixel_cnn_pp.sampling.driver import completes, draws, teacher_forces, walk_row
from pixel_cnn_pp.sampling.sample import METHODS, MODES, sample

__all__ = [
    "METHODS",
    "MODES",
    "completes",
    "draws",
    "make_draw_images",
    "make_draw_rows",
    "sample",
    "teacher_forces",
    "walk_row",
]
