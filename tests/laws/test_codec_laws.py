"""The law of the codec: decode(encode(x)) = x, for every model, and in another process."""

import numpy as np
import pytest
import specimens
from specimens import CHAINS, ONE_OF_EACH_LIKELIHOOD, ONE_OF_EACH_MODEL, WITH_LIKELIHOOD

from pixel_cnn_pp import codec, sampling
from pixel_cnn_pp.codec import ideal

# Read by the other process too.
WITHOUT_XLA = """
from pixel_cnn_pp import sampling
compile_function = sampling.draw.compile_function
sampling.draw.compile_function = lambda f, *_: compile_function(f, False)
"""
DECODE = f"""
import sys
import numpy as np
import specimens
from pixel_cnn_pp import codec
{WITHOUT_XLA}
for name in sys.argv[2:]:
    with np.load(f"{{sys.argv[1]}}/{{name}}.npz") as file:
        data, weights = bytes(file["data"]), [file[f"arr_{{i}}"] for i in range(len(file) - 1)]
    model = specimens.fresh((specimens.SPECIMENS | specimens.CHAINS)[name], dtype="float64")
    model.set_weights(weights)
    condition = specimens.labels(model.config, 3, 1) if model.config.num_classes is None else None
    np.save(f"{{sys.argv[1]}}/{{name}}.npy", codec.decompress(model, data, condition))
"""

DECODED_ELSEWHERE = [*(name for name in ONE_OF_EACH_MODEL if name in WITH_LIKELIHOOD), *CHAINS]


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """XLA compiles for seconds. tests/scripts/test_compress.py has it."""
    compile_function = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("codec")


@pytest.mark.parametrize("name", [*WITH_LIKELIHOOD, *CHAINS])
def test_what_is_decoded_is_what_was_encoded(name, folder):
    model = specimens.opinionated(name)  # in float64, as other laws have it
    images, condition = specimens.images(model.config, 3, 1), specimens.labels(model.config, 3, 1)
    # The second batch is filled up.
    data, report = codec.compress_and_report(model, images, condition, batch_size=2)
    if name in DECODED_ELSEWHERE:
        np.savez(folder / f"{name}.npz", *model.get_weights(), data=np.frombuffer(data, np.uint8))
    given = condition if model.config.num_classes is None else None
    np.testing.assert_array_equal(codec.decompress(model, data, given), images, strict=True)
    if name in (*ONE_OF_EACH_LIKELIHOOD, *CHAINS) and model.likelihood.noise_shape(1, 1) is None:
        promised = ideal.bits(model, list(images), condition)
        # Where the model is surprised a step costs at most 24 bits, so a file may be shorter.
        assert (report.bits < promised * 1.001 + 0.01).all()


def test_another_process_decodes_them(folder, run_python):
    missing = [name for name in DECODED_ELSEWHERE if not (folder / f"{name}.npz").exists()]
    for name in missing:  # if this test runs alone, or in another worker
        test_what_is_decoded_is_what_was_encoded(name, folder)
    run_python(DECODE, folder, *DECODED_ELSEWHERE)
    for name in DECODED_ELSEWHERE:
        expected = specimens.images((specimens.SPECIMENS | CHAINS)[name], 3, 1)
        np.testing.assert_array_equal(np.load(folder / f"{name}.npy"), expected)
