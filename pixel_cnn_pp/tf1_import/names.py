"""The table from the names of the release's variables to the paths of our weights."""

import collections

# Kind of a layer in the release -> names of its variables there and here.
_VARIABLES = {
    "conv2d": {"V": "v", "g": "g", "b": "b"},
    "deconv2d": {"V": "v", "g": "g", "b": "b"},
    "dense": {"V": "v", "g": "g", "b": "b"},
    "conditional_weights": {"hw": "hw"},
}


def release_names(nr_resnet, is_conditional):
    """The table from the release's names to ours, in the order in which the release makes layers.

    The release numbers the layers of each kind from 0. It first makes the three input convolutions,
    then the layers of both streams in turn, and then the output layer. In a gated block it makes
    the convolution `conv_in`, the nin of the short-cut, `conv_out`, and the projection of the
    classes, in this order.

    Args:
      nr_resnet: Number of gated blocks in a stage.
      is_conditional: Whether the network is conditioned on classes.

    Returns:
      A dict, name in the release within its scope `model/` -> path of our weight within the model.

    Example:
      >>> names = release_names(nr_resnet=5, is_conditional=True)
      >>> names["conv2d_4/V"], names["conditional_weights_0/hw"], names["dense_49/b"]
      ('encoder_down_0/conv_out/v', 'encoder_down_0/hw', 'output/b')
    """
    blocks = ["block"] * nr_resnet
    halves = {
        "encoder": [*blocks, "conv2d", *blocks, "conv2d", *blocks],
        "decoder": [*blocks, "deconv2d", "block", *blocks, "deconv2d", "block", *blocks],
    }
    layers = [("conv2d", "input_above"), ("conv2d", "input_row_above"), ("conv2d", "input_left")]
    for half, kinds in halves.items():
        for number, kind in enumerate(kinds):
            for stream in ("down", "right"):
                path = f"{half}_{stream}_{number}"
                if kind != "block":
                    layers.append((kind, path))
                    continue
                layers.append(("conv2d", f"{path}/conv_in"))
                if (half, stream) != ("encoder", "down"):  # the only stream without a short-cut
                    layers.append(("dense", f"{path}/skip"))
                layers.append(("conv2d", f"{path}/conv_out"))
                if is_conditional:
                    layers.append(("conditional_weights", path))
    layers.append(("dense", "output"))

    counts, names = collections.Counter(), {}
    for kind, path in layers:
        for theirs, ours in _VARIABLES[kind].items():
            names[f"{kind}_{counts[kind]}/{theirs}"] = f"{path}/{ours}"
        counts[kind] += 1
    return names


def release_variables(model):
    """The variables of a model by the names that the release gives them.

    Args:
      model: PixelCNNPP.

    Returns:
      A dict: name in the release, such as "model/conv2d_0/V" -> Keras variable. It has the order in
      which the release makes the variables.
    """
    names = release_names(model.config.nr_resnet, model.config.num_classes is not None)
    weights = {weight.path.partition("/")[2]: weight for weight in model.weights}
    assert sorted(names.values()) == sorted(weights), "the table is not that of the network"
    return {f"model/{name}": weights[path] for name, path in names.items()}
