import math

import numpy as np
import pytest
from keras import ops
from processes import functions_of

from benchmarks import measure
from pixel_cnn_pp import sampling
from pixel_cnn_pp.config import ModelConfig
from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP

SAMPLING = functions_of("benchmarks/sampling.py")


@pytest.fixture
def products(monkeypatch):
    """List of (additions and multiplications, length of the left side, shape of the right one)."""
    found = []

    def count(name, flops):
        function = getattr(ops, name)

        def counted(x, kernel, *args, **kwargs):
            result = function(x, kernel, *args, **kwargs)
            found.append((flops(x.shape, kernel.shape, result.shape), x.shape[0], kernel.shape))
            return result

        monkeypatch.setattr(ops, name, counted)

    count("matmul", lambda x, kernel, result: 2 * math.prod(x) * kernel[-1])
    # A convolution multiplies the whole filter at each position of its outputs, a transposed one at
    # each of its inputs.
    count("conv", lambda x, kernel, result: 2 * math.prod(result[:-1]) * math.prod(kernel))
    count("conv_transpose", lambda x, kernel, result: 2 * math.prod(x[:-1]) * math.prod(kernel))
    return found


CONFIGS = pytest.mark.parametrize(
    "fields",
    [
        {"nr_filters": 6, "nr_resnet": 2, "nr_logistic_mix": 3},
        {"nr_filters": 3, "nr_resnet": 1, "resnet_nonlinearity": "elu", "num_classes": 5},
    ],
)


def model_and_labels(fields):
    """A model for images of 8 x 12 pixels; a label if it takes one."""
    model = PixelCNNPP(ModelConfig(image_shape=(8, 12, 3), **fields))
    return model, np.zeros(1, "int32") if "num_classes" in fields else None


@CONFIGS
def test_flops_are_those_of_the_products_of_one_pass(fields, products):
    model, labels = model_and_labels(fields)
    model(np.zeros((1, 8, 12, 3), "uint8"), labels)
    assert measure.flops_per_image(model, 8, 12) == sum(flops for flops, *_ in products)


def cached_sampling(model):
    """All rows of an image by the cached step, eagerly."""
    step = model.cached_step
    weights, state = step.weights(), step.initial_state(1, 12)

    def choose(raw_params, row, column, channel, earlier):
        return ops.zeros(1, "uint8")

    for row in range(8):
        row = ops.convert_to_tensor(row)
        state, _, _ = sampling.walk_row(model, weights, state, row, choose, (12, 1))


def test_the_cached_sampler_makes_as_many(products):
    # With a number of filters that 8 divides, no kernel has columns of zeros.
    model, _ = model_and_labels({"nr_filters": 8, "nr_resnet": 1})
    cached_sampling(model)
    assert measure.flops_per_image(model, 8, 12) == sum(flops for flops, *_ in products)


def test_weights_of_a_pixel_are_those_of_its_products(products):
    # With a number of filters that 8 divides, no kernel has columns of zeros.
    model, _ = model_and_labels({"nr_filters": 8, "nr_resnet": 1})
    cached_sampling(model)
    # Products with matrices for a whole row have at least 12 / 4 rows on their left side.
    sizes = [
        math.prod(kernel) for _, num_rows, kernel in products if num_rows == 1 and len(kernel) == 2
    ]
    expected = 4 * sum(sizes) / (8 * 12)  # float32
    assert SAMPLING.weight_bytes_per_pixel(model) == pytest.approx(expected, rel=1e-12)


def test_half_as_many_bytes_are_read_in_half_the_precision():
    config = ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4)
    single, half = (
        SAMPLING.weight_bytes_per_pixel(PixelCNNPP(config, dtype=dtype))
        for dtype in ("float32", "mixed_bfloat16")
    )
    assert half == single / 2


def test_a_step_makes_three_times_the_flops_of_a_pass():
    model = PixelCNNPP(ModelConfig(image_shape=(8, 8, 3), nr_resnet=1, nr_filters=4))
    flops = measure.flops_per_image(model, 8, 8)
    assert measure.training_flops_per_image(model, 8, 8) == 3 * flops


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (["64/2"], 8, "`cases` must be filters/blocks/batch size, .* Received: cases=64/2"),
        (["64/2/0"], 8, "`cases` must be filters/blocks/batch size, .* Received: cases=64/2/0"),
        ([], 8, "`cases` must name at least one case. Received: cases="),
    ],
)
def test_a_case_that_breaks_its_rule_is_named(texts, size, message):
    with pytest.raises(ValueError, match=message):
        measure.network_cases(texts, size)


def test_a_process_that_fails_is_named_with_its_case(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("import sys; sys.exit(3)")
    with pytest.raises(OSError, match=r'A case ended with exit status 3: \{"filters": 4\}'):
        measure.in_new_process(script, {"filters": 4})


def test_a_process_gets_its_case_and_its_environment(tmp_path):
    script = tmp_path / "prints.py"
    script.write_text(
        "import json, os, sys\nprint('noise')\n"
        "print(json.dumps([os.environ['EXTRA'], json.loads(sys.argv[2])]))"
    )
    assert measure.in_new_process(script, {"filters": 4}, EXTRA="x") == ["x", {"filters": 4}]
