import functools
import importlib.util
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import specimens
import tensorflow as tf
from processes import ROOT, run_script
from saved_run import files_of
from served import DIGITS, call

from pixel_cnn_pp import config, sampling

SERVING = (ROOT / "docs" / "serving.md").read_text()


def as_serving_does(served, request):
    """Runs a request in TensorFlow Serving's JSON: its lists become tensors of the signature."""
    request = json.loads(request)
    inputs = request.get("inputs")
    if inputs is None:
        rows = request["instances"]
        inputs = {name: [row[name] for row in rows] for name in rows[0]}
    return call(served, request.get("signature_name", "serving_default"), **inputs)


def code_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", SERVING, flags=re.DOTALL)


def test_the_requests_of_the_page_are_answered(served_digits):
    score, drawn, with_controls, completed = (
        as_serving_does(served_digits, request) for request in code_blocks("json")
    )
    assert score["nats"].shape == score["bits_per_dim"].shape == (1,)
    assert drawn["images"].shape == with_controls["images"].shape == (2, 8, 8, 1)
    assert (drawn["images"] != with_controls["images"]).any()
    assert completed["images"].shape == (1, 8, 8, 1)
    request = json.loads(code_blocks("json")[3])["inputs"]
    upper = np.array(request["images"])[:, :4]
    np.testing.assert_array_equal(completed["images"][:, :4], upper)
    assert completed["images"][:, 4:].any()


# What a client asks of a chain, in the process below: requests and answers by their numbers.
ASK_A_CHAIN = """
chain = tf.saved_model.load(CHAIN).signatures
answers = {}
with np.load("requests.npz") as requests:
    for key in requests:
        number, _, name = key.partition("/")
        answers.setdefault(number, {})[name] = requests[key]
for number, request in answers.items():
    function = chain[str(request.pop("signature"))]
    found = function(**{name: tf.constant(value) for name, value in request.items()})
    answers[number] = found["nats" if "nats" in found else "images"]
np.savez("answers.npz", **answers)
"""


def test_the_python_of_the_page_needs_tensorflow_alone_and_gives_the_same_and_so_does_a_chain(
    exported, served_digits, gray_and_colour, tmp_path
):
    path, _ = exported
    requests, expected = chain_requests(gray_and_colour[0])
    np.savez(tmp_path / "requests.npz", **requests)
    (snippet,) = code_blocks("python")
    code = "import sys; sys.modules['pixel_cnn_pp'] = None\n"
    code += snippet.replace("served/digits/1", str(path))
    code += "import numpy as np; np.savez('out.npz', images=images, bits_per_dim=bits_per_dim)\n"
    code += "print(configuration, end='')\n"
    code += ASK_A_CHAIN.replace("CHAIN", repr(str(gray_and_colour[1])))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == config.to_json(DIGITS)
    drawn = call(served_digits, "sample", num_samples=2, seed=7, labels=[3, 8])
    scored = call(served_digits, "log_prob", images=drawn["images"], labels=[3, 8])
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], drawn["images"])
        np.testing.assert_allclose(arrays["bits_per_dim"], scored["bits_per_dim"], rtol=1e-6)
    with np.load(tmp_path / "answers.npz") as answers:
        assert len(answers) == len(expected)
        for number, answer in expected.items():
            # In float64 both draw the same. Scores are sums of 96 terms.
            np.testing.assert_allclose(answers[number], answer, rtol=1e-12, strict=True)


def chain_requests(model):
    """Requests to a chain of gray pictures and colours, {number/argument: value}; the answers."""
    images = specimens.images(model.config, 3)
    gray = model.stages[0].view.of(images, model.config.num_levels)
    mask = np.random.default_rng(1).random(images.shape[:-1]) < 0.4
    controls = {"temperature": 0.5, "log_scale_offset": 0.25, "mode": "map"}
    one = {"temperature": np.float32(0.5), "log_scale_offset": np.float32(0.25), "mode": "map"}
    seed, known = {"seed": np.int32(2**31 - 1)}, {"init_images": images, "known_mask": mask}
    draw = functools.partial(sampling.sample, model, 3, seed=2**31 - 1, method="naive")
    requests = {
        "0": {"signature": "log_prob", "images": images},
        "1": {"signature": "sample", "num_samples": np.int32(3), **seed},
        "2": {"signature": "complete", "images": images, "mask": mask, **seed},
        "3": {"signature": "complete_with_controls", "images": images, "mask": mask, **seed, **one},
        "4": {"signature": "sample_from_gray", "pictures": gray, **seed},
        "5": {"signature": "sample_from_gray_with_controls", "pictures": gray, **seed, **one},
    }
    answers = {
        "0": np.asarray(model.log_prob(images)),
        "1": draw(),
        "2": draw(**known),
        "3": draw(**known, **controls),
        "4": draw(given=gray),
        "5": draw(given=gray, **controls),
    }
    assert len(np.unique([answers[number] for number in "12345"], axis=0)) == 5
    flat = {
        f"{number}/{name}": value
        for number, request in requests.items()
        for name, value in request.items()
    }
    return flat, answers


def test_tensorflows_program_shows_and_runs_as_the_page_says(exported):
    path, _ = exported
    lines = "".join(code_blocks("sh")).splitlines()
    show_line, run_line = (line for line in lines if line.startswith("saved_model_cli"))
    assert pathlib.Path(sys.executable).with_name("saved_model_cli").exists()
    program = importlib.util.find_spec("tensorflow.python.tools.saved_model_cli")
    for line in (show_line, run_line):
        _, *arguments = shlex.split(line.replace("served/digits/1", str(path)))
        done = run_script(program.origin, *arguments)
        assert done.returncode == 0, done.stderr
        if line is show_line:
            signatures = set(re.findall(r"signature_def\['(\w+)'\]", done.stdout))
            assert {"log_prob", "sample", "complete", "serving_default"} <= signatures
        else:
            assert "Result for output key images:" in done.stdout


def test_the_script_says_what_it_wrote_and_how_it_is_served(exported):
    path, printed = exported
    written, how = printed.splitlines()
    megabytes = sum(len(content) for content in files_of(path).values()) / 1e6
    assert written.startswith(f"Wrote {path}: {megabytes:.1f} MB in ")
    assert how == (
        "To serve it: tensorflow_model_server --rest_api_port=8501 --model_name=digits "
        f"--model_base_path={path.parent}"
    )
    assert os.listdir(path.parent) == ["1"]


@pytest.mark.parametrize(
    ("signature", "changed", "message"),
    [
        ("log_prob", {"labels": [3, 10]}, r"labels must .*\[0, 9\]. Received: values in \[3, 10\]"),
        ("sample", {"labels": [-1, 3]}, r"labels must .*\[0, 9\]. Received: values in \[-1, 3\]"),
        ("sample", {"labels": [3]}, "labels must be one for each of .*: 1 labels, 2 images"),
        ("sample", {"num_samples": 0}, "`num_samples` must .* at least 1. Received: num_samples=0"),
        ("sample", {"seed": -1}, "`seed` must be a whole number in .* Received: seed=-1"),
        ("complete", {"mask": np.zeros((3, 8, 8))}, "`mask` .* Received: 3 masks, 2 images"),
        (
            "log_prob",
            {"images": np.full((2, 8, 8, 1), 17)},
            r"images must be whole numbers in \[0, 16\]. Received: values in \[17, 17\]",
        ),
        (
            "log_prob",
            {"images": np.zeros((2, 8, 0, 1))},
            r"must be at least 1. Received: images of shape \[2 8 0 1\]",
        ),
        (
            "log_prob",
            {"images": np.zeros((0, 8, 8, 1)), "labels": []},
            r"images must be at least 1. Received: images of shape \[0 8 8 1\]",
        ),
        (
            "sample_with_controls",
            {"temperature": 0},
            "`temperature` must be a number above 0. Received: temperature=0",
        ),
        (
            "sample_with_controls",
            {"log_scale_offset": np.nan},
            "`log_scale_offset` must be a number. Received: log_scale_offset=nan",
        ),
        (
            "sample_with_controls",
            {"mode": "mean"},
            "`mode` must be one of sample, map. Received: mode=.*mean",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_is_one_line(served_digits, signature, changed, message):
    right = {
        "images": np.zeros((2, 8, 8, 1)),
        "mask": np.zeros((2, 8, 8)),
        "labels": [3, 8],
        "num_samples": 2,
        "seed": 1,
        "temperature": 1,
        "log_scale_offset": 0,
        "mode": "sample",
    }
    _, specs = served_digits.signatures[signature].structured_input_signature
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        call(served_digits, signature, **{name: (right | changed)[name] for name in specs})
    lines = [line for line in str(caught.value).splitlines() if re.search(message, line)]
    assert lines, str(caught.value)
