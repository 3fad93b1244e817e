"""Lossless coding: images to bytes and back, at the length that the model's likelihood promises.

images       the public functions `compress`, `decompress` and `salvage`
arguments    checks of what a user gives them
container    the file: its header, its checks, and the bytes of every number in it
identity     what a file says about the model and the machine that are needed to decode it
plan         pictures as tiles, and tiles in chunks that are coded side by side
stages       a chunk passes through the stages of a model, stage after stage
walk         compiled functions that walk through rows and stop at each sub-pixel
coder        what happens at a stop: the range coder, for encoding and for decoding
frequencies  probabilities as integers with a fixed sum
ideal        the length that the likelihood promises, to compare with
peers        PNG, WebP and JPEG XL, to compare with
"""

from pixel_cnn_pp.codec.images import compress, compress_and_report, decompress, salvage

__all__ = ["compress", "compress_and_report", "decompress", "salvage"]
