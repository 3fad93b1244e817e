"""What holds of Gated PixelCNN alone: its network by hand, its field, its size."""

import numpy as np
import pytest
import slow_embedding
import slow_gated
import specimens
from fields import field_of_view
from specimens import SPECIMENS

from pixel_cnn_pp import models
from pixel_cnn_pp.config import GatedPixelCNNConfig, PixelCNNConfig


def as_layers_take_it(model, condition, i):
    """The condition of image i, from what a user gives: [D], [H, W, D] or None."""
    config = model.config
    if config.num_classes is not None:
        return np.eye(config.num_classes)[condition[i]]
    if config.condition_shape is None:
        return None
    if len(config.condition_shape) == 1:
        return condition[i].astype("float64")
    return slow_embedding.of_condition(model, condition[i])


@pytest.mark.parametrize("name", [name for name in SPECIMENS if name.startswith("gated")])
def test_the_network_is_that_of_its_equations(name):
    model = specimens.opinionated(name)
    config = model.config
    images, condition = specimens.images(config, 2), specimens.labels(config, 2)
    layers = [[np.asarray(weight) for weight in layer.weights] for layer in model.stacks]
    head = [
        (np.asarray(layer.w), np.asarray(layer.b)) for layer in (*model.hidden, model.output_layer)
    ]
    raw_params = np.asarray(model(images, condition))
    for i, image in enumerate(images):
        c = as_layers_take_it(model, condition, i)
        expected = slow_gated.network(image, c, layers, head, config.num_levels)
        np.testing.assert_allclose(raw_params[i], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("filter_size", [3, 5])
def test_its_field_is_all_that_lies_above_and_on_the_left_up_to_its_reach(filter_size):
    num_layers, reach = 3, filter_size // 2
    height, width = 12, 20
    config = GatedPixelCNNConfig(
        (height, width, 1), num_levels=4, nr_resnet=num_layers, nr_filters=3,
        filter_size=filter_size, nr_output_filters=4,
    )  # fmt: skip
    row, column = 10, 9
    expected = np.zeros((height, width), bool)
    # Every layer brings `reach` rows and columns. The first one begins with the row above.
    top, side = row - num_layers * reach - 1, num_layers * reach
    expected[top:row, column - side : column + side + 1] = True
    expected[row, column - side : column] = True
    np.testing.assert_array_equal(field_of_view(config, row, column, scale=0.3), expected)


def test_it_sees_on_the_upper_right_what_pixel_cnn_does_not():
    shape = (8, 16, 1)
    fields = [
        field_of_view(config, 6, 6, scale=0.3)
        for config in (
            PixelCNNConfig(shape, num_levels=4, nr_resnet=4, nr_filters=3, nr_output_filters=4),
            GatedPixelCNNConfig(
                shape, num_levels=4, nr_resnet=4, nr_filters=3, nr_output_filters=4, filter_size=5
            ),
        )
    ]
    of_pixel_cnn, of_gated = fields
    # Both see everything on the left in the row above. A path through PixelCNN goes up once. Only
    # the layer that goes up also goes to the right: by 3 columns in the first layer.
    assert of_pixel_cnn[5, :6].all() and of_gated[5, :6].all()
    np.testing.assert_array_equal(of_pixel_cnn[5, 6:], np.arange(6, 16) <= 6 + 3)
    assert of_gated[5, 6:15].all()


def test_colours_of_a_pixel_depend_on_the_earlier_ones_and_on_no_later_ones():
    model = specimens.opinionated("gated")
    config = model.config
    image, condition = specimens.images(config, 1), specimens.labels(config, 1)
    before = np.asarray(model(image, condition))[0, 2, 3].reshape(3, config.num_levels)
    for channel in range(3):
        changed = image.copy()
        changed[0, 2, 3, channel] = (changed[0, 2, 3, channel] + 3) % config.num_levels
        after = np.asarray(model(changed, condition))[0, 2, 3].reshape(3, config.num_levels)
        assert (before != after).any(axis=-1).tolist() == [c > channel for c in range(3)]


def test_its_default_network_has_the_size_of_its_layers():
    p, n, hidden = 128, 5, 1024
    rows, taps = n // 2 + 1, n // 2 + 1
    expected = 0
    for features in [3] + 14 * [p]:
        expected += rows * n * features * 2 * p + 2 * p  # vertical
        expected += taps * features * 2 * p + 2 * p  # horizontal
        expected += 2 * p * 2 * p + p * p + p  # the link, and the 1x1 after the gate
    expected += (p * hidden + hidden) + (hidden * hidden + hidden)
    expected += hidden * 3 * 256 + 3 * 256
    assert models.make(GatedPixelCNNConfig()).count_params() == expected
