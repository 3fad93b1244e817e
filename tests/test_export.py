import dataclasses
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest
import specimens
import tensorflow as tf
from processes import ROOT, run, run_in_new_process
from tensorflow.core.protobuf import saved_model_pb2

from pixel_cnn_pp import config, export, sampling
from pixel_cnn_pp.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from pixel_cnn_pp.runs import checkpoints

SERVING = (ROOT / "docs" / "serving.md").read_text()

# One of each kind: what the README's digits are, exported by the script without XLA; and without
# classes, with levels that uint8 does not hold, exported with XLA.
DIGITS = ModelConfig(
    image_shape=(8, 8, 1),
    num_levels=17,
    nr_resnet=1,
    nr_filters=6,
    nr_logistic_mix=2,
    num_classes=10,
)
DEEP_COLOR = ModelConfig(
    image_shape=(4, 8, 2), num_levels=1000, nr_resnet=1, nr_filters=4, nr_logistic_mix=2
)


def files_of(directory):
    """Path -> bytes of every file below a directory."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory): path.read_bytes() for path in paths}


def initialized(model_config, **kwargs):
    """A model whose averages, see `save_run`, and weights differ."""
    model = specimens.fresh(model_config, **kwargs)
    model.initialize(specimens.images(model_config, 16), specimens.labels(model_config, 16))
    return model


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of digits, as training leaves it behind."""
    path = tmp_path_factory.mktemp("run") / "digits"
    model = initialized(DIGITS)
    optimizer = keras.optimizers.Adamax(use_ema=True)
    optimizer.build(model.trainable_variables)
    for average, weight in zip(
        checkpoints.averages(model, optimizer), model.trainable_variables, strict=True
    ):
        average.assign(0.9 * weight)
    training = TrainingConfig(class_conditional=True)
    checkpoints.save_config(path, RunConfig(DIGITS, DataConfig(data_set="digits"), training))
    checkpoints.save(path, model, optimizer, checkpoints.TrainingState(step=7, epoch=1))
    return path


@pytest.fixture(scope="module")
def exported(run_dir, tmp_path_factory):
    """What the script made of the run: where, and what it printed."""
    path = tmp_path_factory.mktemp("served") / "digits" / "1"
    done = run_in_new_process("export.py", run_dir, path, "--nojit_compile")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return path, done.stdout


@pytest.fixture(scope="module")
def digits(run_dir):
    return checkpoints.load(run_dir, "ema")


@pytest.fixture(scope="module")
def served_digits(exported):
    return tf.saved_model.load(str(exported[0]))


@pytest.fixture(scope="module")
def deep_color():
    return initialized(DEEP_COLOR)


@pytest.fixture(scope="module")
def deep_color_path(deep_color, tmp_path_factory):
    path = tmp_path_factory.mktemp("deep_color") / "1"
    export.export_saved_model(deep_color, path)
    return path


@pytest.fixture(scope="module")
def served_deep_color(deep_color_path):
    return tf.saved_model.load(str(deep_color_path))


def call(served, signature, **arguments):
    """The outputs of a signature as arrays, its inputs in the dtypes that it asks for."""
    function = served.signatures[signature]
    _, specs = function.structured_input_signature
    assert arguments.keys() == specs.keys()
    outputs = function(
        **{name: tf.constant(value, specs[name].dtype) for name, value in arguments.items()}
    )
    return {name: output.numpy() for name, output in outputs.items()}


# What is in it


def test_signatures_take_and_give_integers_and_labels_where_there_are_classes(
    served_digits, served_deep_color
):
    drawn, completed = ["num_samples", "seed"], ["images", "mask", "seed"]
    controls = ["log_scale_offset", "mode", "temperature"]
    for served, labels, level_dtype in (
        (served_digits, ["labels"], tf.uint8),
        (served_deep_color, [], tf.int32),
    ):
        inputs = {
            name: sorted(function.structured_input_signature[1])
            for name, function in served.signatures.items()
        }
        assert inputs == {
            "log_prob": sorted(["images", *labels]),
            "serving_default": sorted(["images", *labels]),
            "sample": sorted([*drawn, *labels]),
            "sample_with_controls": sorted([*drawn, *labels, *controls]),
            "complete": sorted([*completed, *labels]),
            "complete_with_controls": sorted([*completed, *labels, *controls]),
            "config": [],
        }
        _, arguments = served.signatures["complete"].structured_input_signature
        assert arguments["images"].dtype == level_dtype and arguments["mask"].dtype == tf.bool
        assert served.signatures["sample"].structured_outputs["images"].dtype == level_dtype


def test_the_configuration_travels_as_a_signature_and_as_a_file(
    exported, served_digits, deep_color_path, served_deep_color
):
    for path, served, expected in (
        (exported[0], served_digits, DIGITS),
        (deep_color_path, served_deep_color, DEEP_COLOR),
    ):
        text = call(served, "config")["json"].decode()
        values = json.loads(text)
        assert ModelConfig(**values) == expected
        assert (path / "assets.extra" / "config.json").read_text() == text


def saved_model(path):
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    (meta_graph,) = proto.meta_graphs
    return meta_graph.graph_def


def test_the_weights_are_stored_once_and_as_variables(
    exported, digits, deep_color_path, deep_color
):
    for path, model in ((exported[0], digits), (deep_color_path, deep_color)):
        shapes = [
            shape
            for name, shape in tf.train.list_variables(str(path / "variables" / "variables"))
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
        ]
        assert sorted(shapes) == sorted(list(weight.shape) for weight in model.weights)
        graph = saved_model(path)
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        sizes = [
            np.prod([side.size for side in node.attr["value"].tensor.tensor_shape.dim])
            for node in nodes
            if node.op == "Const" and node.attr["dtype"].type != tf.string.as_datatype_enum
        ]
        assert max(sizes) < 100  # shapes and permutations; no kernel


def test_only_the_form_with_xla_needs_it(exported, deep_color_path):
    for path, is_compiled in ((exported[0], False), (deep_color_path, True)):
        functions = saved_model(path).library.function
        compiled = [f for f in functions if f.attr["_XlaMustCompile"].b]
        assert len(compiled) == is_compiled  # the step of a row, in one copy for all signatures
        # Operations of that name have a kernel of XLA's only.
        assert not any(node.op.startswith("Xla") for f in functions for node in f.node_def)


# Its results are those of the model


@pytest.mark.parametrize("batch_size", [1, 3, 70])
@pytest.mark.parametrize("size", [None, (12, 4)])
def test_log_prob_is_that_of_the_model_for_any_number_and_size(
    served_digits, digits, batch_size, size
):
    image_shape = DIGITS.image_shape if size is None else (*size, 1)
    shaped = dataclasses.replace(DIGITS, image_shape=image_shape)
    images, labels = specimens.images(shaped, batch_size), specimens.labels(shaped, batch_size)
    found = call(served_digits, "log_prob", images=images, labels=labels)
    # Sums of 64 float32 terms of size 1 to 10.
    nats = np.asarray(digits.log_prob(images, labels))
    np.testing.assert_allclose(found["nats"], nats, rtol=1e-5)
    bits_per_dim = -nats.astype(np.float64) / (np.prod(image_shape) * np.log(2))
    np.testing.assert_allclose(found["bits_per_dim"], bits_per_dim, rtol=1e-5)
    default = call(served_digits, "serving_default", images=images, labels=labels)
    np.testing.assert_array_equal(default["nats"], found["nats"])


def test_with_xla_the_same_seed_gives_the_same_images_and_completions(
    served_deep_color, deep_color
):
    found = call(served_deep_color, "sample", num_samples=3, seed=5)["images"]
    assert found.shape == (3, 4, 8, 2) and found.dtype == np.int32 and found.max() > 255
    np.testing.assert_array_equal(found, sampling.sample(deep_color, 3, seed=5))
    assert len(np.unique(found, axis=0)) == 3

    images = specimens.images(DEEP_COLOR, 3)
    mask = np.random.default_rng(1).random((3, 4, 8)) < 0.4
    controls = {"temperature": 0.8, "log_scale_offset": 0.4, "mode": "map"}
    arguments = {"images": images, "mask": mask, "seed": 6}
    found = call(served_deep_color, "complete_with_controls", **arguments, **controls)["images"]
    expected = sampling.sample(
        deep_color, 3, seed=6, init_images=images, known_mask=mask, **controls
    )
    np.testing.assert_array_equal(found, expected)
    assert (found[mask] == images[mask]).all() and (found[~mask] != images[~mask]).any()


@pytest.fixture(scope="module")
def seventy(digits):
    """Drawn in process: more than a block of the noise holds."""
    return sampling.sample(digits, 70, specimens.labels(DIGITS, 70), seed=5)


def assert_drawn_alike(found, expected):
    """Without XLA, products are rounded differently than in process.

    That tips one of ten thousand draws at 256 levels, and fewer at 17; these are 4480 at most.
    """
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert (found != expected).any(axis=(1, 2, 3)).sum() <= 1
    assert len(np.unique(found, axis=0)) == len(found)


@pytest.mark.parametrize("num_samples", [1, 3, 70])
def test_without_xla_any_number_of_images_is_drawn_as_in_process(
    served_digits, seventy, num_samples
):
    labels = specimens.labels(DIGITS, 70)[:num_samples]
    found = call(served_digits, "sample", num_samples=num_samples, seed=5, labels=labels)
    assert_drawn_alike(found["images"], seventy[:num_samples])


def test_without_xla_completions_are_those_in_process(served_digits, digits, seventy):
    images, labels = specimens.images(DIGITS, 70), specimens.labels(DIGITS, 70)
    mask = np.random.default_rng(1).random((70, 8, 8)) < 0.4
    arguments = {"images": images, "seed": 5, "labels": labels}
    found = call(served_digits, "complete", mask=mask, **arguments)["images"]
    expected = sampling.sample(digits, 70, labels, seed=5, init_images=images, known_mask=mask)
    assert_drawn_alike(found, expected)
    assert (found[mask] == images[mask]).all()
    nothing_known = call(served_digits, "complete", mask=mask & False, **arguments)["images"]
    assert_drawn_alike(nothing_known, seventy)


# The page on serving


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


def test_the_python_of_the_page_needs_tensorflow_alone_and_gives_the_same(
    exported, served_digits, tmp_path
):
    path, _ = exported
    (snippet,) = code_blocks("python")
    code = "import sys; sys.modules['pixel_cnn_pp'] = None\n"
    code += snippet.replace("served/digits/1", str(path))
    code += "import numpy as np; np.savez('out.npz', images=images, bits_per_dim=bits_per_dim)\n"
    code += "print(configuration, end='')\n"
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


def test_tensorflows_program_shows_and_runs_as_the_page_says(exported, tmp_path):
    path, _ = exported
    lines = "".join(code_blocks("sh")).splitlines()
    show_line, run_line = (line for line in lines if line.startswith("saved_model_cli"))
    program = pathlib.Path(sys.executable).with_name("saved_model_cli")
    for line in (show_line, run_line):
        _, *arguments = shlex.split(line.replace("served/digits/1", str(path)))
        done = run(tmp_path, program, *arguments)
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


# What is refused, by the server


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
            {"images": np.zeros((2, 8, 6, 1))},
            r"multiples of 4. Received: images of shape \[2 8 6 1\]",
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


# What is refused, by the export


def test_a_model_of_another_kind_or_backend_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"`model` must be a PixelCNNPP. Received: Sequential"):
        export.export_saved_model(keras.Sequential(), tmp_path / "1")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"TensorFlow backend. Received: KERAS_BACKEND=jax"):
        export.export_saved_model(specimens.build("relu"), tmp_path / "1")
    assert os.listdir(tmp_path) == []


def test_a_path_that_is_taken_is_one_line(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "file").write_text("kept")
    before = files_of(tmp_path)
    for path, overwrite, message in (
        ("notes", False, "must be new or empty, or be overwritten. Received: .*notes$"),
        ("notes", True, "Only a SavedModel is overwritten. Received: .*notes, which holds so"),
        ("notes/file", False, "The SavedModel is a directory. Received: .*file, which is a file"),
        ("notes/file/1", True, "Not a directory: .*notes/file$"),
    ):
        with pytest.raises(OSError, match=message):
            export.export_saved_model(specimens.build("relu"), tmp_path / path, overwrite=overwrite)
    assert files_of(tmp_path) == before


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match=f"Not a directory to write to: {tmp_path}$"):
        export.check_path(tmp_path / "new" / "1")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def instead(monkeypatch):
    """Function (write) that makes `write` what saves, with a model of nothing."""
    monkeypatch.setattr(export, "_served", lambda model, jit_compile: (tf.Module(), {}))
    return lambda write: monkeypatch.setattr(tf.saved_model, "save", write)


def test_an_export_that_fails_leaves_what_was_there(tmp_path, instead):
    def save(served, path, signatures, options):
        (pathlib.Path(path) / "saved_model.pb").write_text("half")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("kept")
    before = files_of(tmp_path)
    instead(save)
    for name in ("1", "2"):
        path = tmp_path / name
        with pytest.raises(OSError, match=f"{path} could not be written: No space left on devi"):
            export.export_saved_model(specimens.build("relu"), path, overwrite=True)
    assert files_of(tmp_path) == before and os.listdir(tmp_path) == ["1"]


def test_an_empty_directory_is_filled_and_a_saved_model_overwritten(tmp_path, instead):
    def save(served, path, signatures, options):
        (pathlib.Path(path) / "saved_model.pb").write_text("new")

    instead(save)
    for name, content in (("empty", None), ("full", "old")):
        path = tmp_path / name
        path.mkdir()
        if content is not None:
            (path / "saved_model.pb").write_text(content)
            (path / "more").write_text(content)
        # What an export that was killed has left behind is no hindrance.
        (tmp_path / f".incomplete_{name}").mkdir()
        export.export_saved_model(specimens.build("relu"), path, overwrite=content is not None)
        names = {str(file) for file in files_of(path)}
        assert names == {"saved_model.pb", "assets.extra/config.json"}
        assert (path / "saved_model.pb").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["empty", "full"]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("small_nin", {"log_scale_offset"}),
        ("energy", {"log_prob", "sample_with_controls", "complete_with_controls"}),
    ],
)
def test_a_variant_is_served_with_what_has_a_meaning_for_it(name, missing, tmp_path):
    model = initialized(specimens.SPECIMENS[name], dtype="float64")
    export.export_saved_model(model, tmp_path / "served", jit_compile=False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    signatures = served.signatures
    labels = specimens.labels(model.config, 2)
    has_score = "log_prob" not in missing
    default = signatures["serving_default"].structured_outputs
    assert set(default) == ({"nats", "bits_per_dim"} if has_score else {"images"})
    assert {"log_prob", "sample_with_controls", "complete_with_controls"} - set(signatures) == (
        missing - {"log_scale_offset"}
    )
    if has_score:
        images = specimens.images(model.config, 2)
        nats = call(served, "log_prob", images=images, labels=labels)["nats"]
        np.testing.assert_allclose(nats, model.log_prob(images, labels), rtol=1e-12)
        _, arguments = signatures["sample_with_controls"].structured_input_signature
        assert {"log_scale_offset"} - set(arguments) == missing
    drawn = call(served, "sample", num_samples=2, seed=7, labels=labels)["images"]
    np.testing.assert_array_equal(drawn, sampling.sample(model, 2, labels, seed=7))


def test_the_script_says_in_one_line_what_it_cannot_do(tmp_path):
    done = run(tmp_path, "export.py", tmp_path / "no_run", tmp_path / "1")
    assert done.returncode == 1, done
    assert re.search("^export.py: .* must hold a config.json. Received: .*no_run ", done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert os.listdir(tmp_path) == []
