"""The embedding network in NumPy, from its description: pixel after pixel, tap after tap."""

import numpy as np


def kernel_of(layer, output_axis):
    """g v / ||v||, with the axis of the outputs at the end."""
    v = np.moveaxis(np.asarray(layer.v), output_axis, -1)
    return v / np.sqrt((v**2).sum(axis=tuple(range(v.ndim - 1)))) * np.asarray(layer.g)


def convolution(x, layer, stride=1):
    """3x3: [H, W, F] -> [H / stride, W / stride, F']. Outside of x are zeros.

    With a stride of 1 the filter has its centre at the pixel. With 2 its upper left tap is there.
    """
    height, width, _ = x.shape
    kernel = kernel_of(layer, -1)
    out = np.zeros((height // stride, width // stride, kernel.shape[-1])) + np.asarray(layer.b)
    for row, column in np.ndindex(*out.shape[:2]):
        for i, j in np.ndindex(3, 3):
            y, x_ = stride * row + i - (stride == 1), stride * column + j - (stride == 1)
            if 0 <= y < height and 0 <= x_ < width:
                out[row, column] += x[y, x_] @ kernel[i, j]
    return out


def doubled(x, layer):
    """Every pixel adds its 3x3 filter, whose upper left tap is at twice the pixel's place."""
    height, width, _ = x.shape
    kernel = kernel_of(layer, -2)
    out = np.zeros((2 * height, 2 * width, kernel.shape[-1])) + np.asarray(layer.b)
    for row, column in np.ndindex(height, width):
        for i, j in np.ndindex(3, 3):
            if 2 * row + i < 2 * height and 2 * column + j < 2 * width:
                out[2 * row + i, 2 * column + j] += x[row, column] @ kernel[i, j]
    return out


def nonlinear(x, name):
    """concat_elu, elu or relu."""
    if name == "concat_elu":
        return nonlinear(np.concatenate([x, -x], axis=-1), "elu")
    return np.maximum(x, 0) if name == "relu" else np.where(x > 0, x, np.expm1(x))


def block(x, a, layer):
    """x + value sigmoid(gate), with the short-cut input `a`, or None."""
    name = layer.nonlinearity
    c = convolution(nonlinear(x, name), layer.conv_in)
    if a is not None:
        c = c + nonlinear(a, name) @ kernel_of(layer.skip, -1) + np.asarray(layer.skip.b)
    value, gate = np.split(convolution(nonlinear(c, name), layer.conv_out), 2, axis=-1)
    return x + value / (1 + np.exp(-gate))


def features(picture, network):
    """The features of one scaled picture [h, w, c], with the weights of an `EmbeddingNetwork`."""
    n, num_resolutions = network.num_blocks, network.num_resolutions
    height, width, channels = picture.shape
    multiple = 2 ** (num_resolutions - 1)
    rows, columns = (-(-side // multiple) * multiple for side in (height, width))
    x = np.zeros((rows, columns, channels + 1))
    x[:height, :width, :channels], x[:height, :width, channels] = picture, 1
    x = convolution(x, network.first)
    kept = []  # the outputs of the first half's blocks
    for i, each in enumerate(network.encoder):
        if i > 0 and i % n == 0:
            x = convolution(x, network.halve[i // n - 1], stride=2)
        x = block(x, None, each)
        kept.append(x)
    for i, each in enumerate(network.decoder):
        if i > 0 and i % n == 0:
            x = doubled(x, network.double[i // n - 1])
        x = block(x, kept[-1 - i] if i < len(kept) else None, each)
    larger = 2**network.num_doublings
    return convolution(x, network.last)[: height * larger, : width * larger]


def of_condition(model, condition):
    """What the layers of a model take of one picture of whole numbers: [H, W, E]."""
    config = model.config
    x = 2 * condition.astype("float64") / (config.condition_levels - 1) - 1
    if model.embedding is not None:
        x = features(x, model.embedding)
    # Every pixel stands for a block of pixels of the image.
    times = [side // own for side, own in zip(config.image_shape[:2], x.shape[:2], strict=True)]
    return np.kron(x, np.ones((*times, 1)))
