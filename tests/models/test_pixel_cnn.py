"""What holds of PixelCNN alone: its network by hand, its field with the blind spot, its size."""

import numpy as np
import pytest
import slow_embedding
import specimens
from fields import field_of_view
from specimens import SPECIMENS

from pixel_cnn_pp import models
from pixel_cnn_pp.config import PixelCNNConfig


def masked_conv(x, layer, size, mask, num_channels, out_groups=None):
    """A masked convolution of one image [H, W, F_in], from its definition, tap by tap."""
    w, b = (np.asarray(weight) for weight in (layer.w, layer.b))
    reach = size // 2
    height, width, in_features = x.shape
    in_groups = np.arange(in_features) % num_channels
    if out_groups is None:
        out_groups = np.arange(len(b)) % num_channels
    outputs = np.tile(b, (height, width, 1))
    for row in range(height):
        for column in range(width):
            for i in range(-reach, 1):
                for j in range(-reach, reach + 1):
                    if not (row + i >= 0 and 0 <= column + j < width) or (i == 0 and j > 0):
                        continue
                    kernel = w[i + reach, j + reach]
                    if (i, j) == (0, 0):
                        reads = in_groups[:, None] < out_groups + (mask == "B")
                        kernel = kernel * reads
                    outputs[row, column] += x[row + i, column + j] @ kernel
    return outputs


def network(model, image, condition):
    """The raw parameters of one image, from the paper's table 1 and figure 5."""
    config = model.config
    c, levels = config.image_shape[-1], config.num_levels
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    x = masked_conv(2 * image / (levels - 1) - 1, model.input_layer, 7, "A", c)
    for block in model.blocks:
        h = masked_conv(relu(x), block.down, 1, "B", c)
        h = masked_conv(relu(h), block.conv, 3, "B", c)
        if condition is not None and condition.ndim == 0:
            h = h + np.asarray(block.class_bias)[condition]
        elif condition is not None:
            h = h + slow_embedding.of_condition(model, condition) @ np.asarray(block.class_bias)
        x = x + masked_conv(relu(h), block.up, 1, "B", c)
    for layer in model.hidden:
        x = masked_conv(relu(x), layer, 1, "B", c)
    per_channel = 1 if levels == 2 else levels
    return masked_conv(relu(x), model.output_layer, 1, "B", c, np.repeat(np.arange(c), per_channel))


@pytest.mark.parametrize("name", [name for name in SPECIMENS if name.startswith("pixel_cnn")])
def test_the_network_is_that_of_its_equations(name):
    model = specimens.opinionated(name)
    images, labels = specimens.images(model.config, 2), specimens.labels(model.config, 2)
    raw_params = np.asarray(model(images, labels))
    for i, image in enumerate(images):
        expected = network(model, image.astype("float64"), None if labels is None else labels[i])
        np.testing.assert_allclose(raw_params[i], expected, rtol=1e-10, atol=1e-10)


def test_its_field_has_the_blind_spot_on_the_right():
    # 3 blocks: 7x7 with mask A reaches 3 rows up, each 3x3 one more. To the right, every row up
    # brings one column more, and the first layer three at once: what lies flatter is not seen.
    config = PixelCNNConfig(
        image_shape=(12, 24, 1), num_levels=4, nr_resnet=3, nr_filters=4, nr_output_filters=4
    )
    row, column = 10, 10
    expected = np.zeros((12, 24), bool)
    seen = {(0, 0)}
    steps = {(i, j) for i in (0, -1) for j in (-1, 0, 1) if i < 0 or j <= 0}
    for _ in range(config.nr_resnet):
        seen = {(a + i, b + j) for a, b in seen for i, j in steps}
    first = {(i, j) for i in range(-3, 1) for j in range(-3, 4) if i < 0 or j < 0}
    for i, j in {(a + i, b + j) for a, b in seen for i, j in first}:
        expected[row + i, column + j] = True
    np.testing.assert_array_equal(field_of_view(config, row, column), expected)
    assert not expected[row - 1, column + 5], "above, within reach, and not seen"
    assert expected[row - 1, column - 5]


def test_the_papers_network_for_cifar_10_has_the_size_of_its_layers():
    h, hidden = 128, 1024
    expected = 4 * 7 * 3 * 2 * h + 2 * h  # of a 7x7 filter the upper four rows are stored
    expected += 15 * ((2 * h * h + h) + (2 * 3 * h * h + h) + (2 * h * h + 2 * h))
    expected += (2 * h * hidden + hidden) + (hidden * hidden + hidden)
    expected += hidden * 3 * 256 + 3 * 256
    assert models.make(PixelCNNConfig()).count_params() == expected
