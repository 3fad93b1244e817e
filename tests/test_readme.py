"""The commands and snippets of the README, the docs and the Makefile do what they say."""

import copy
import functools
import os
import pathlib
import re
import runpy
import shlex
import socket
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

# Before any script: its flag `case` belongs to whoever imports it first.
import benchmarks.measure  # noqa: F401
import pixel_cnn_pp as pcnn
from pixel_cnn_pp import sampling
from pixel_cnn_pp.runs import checkpoints

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
MAP = DOCS["map.md"]
EACH_PAGE = pytest.mark.parametrize("path", ["README.md", *(f"docs/{name}" for name in DOCS)])


def code_blocks(language, text):
    """The fenced blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def shell_commands(text):
    """The lines of the shell blocks."""
    lines = [line for block in code_blocks("sh", text) for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines]


def makefile_commands(target):
    """The scripts that a target of the Makefile runs, as make prints them."""
    done = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [line.removeprefix(".venv/bin/") for line in lines if ".py" in line]


SHELL_LINES = [line for page in (README, *DOCS.values()) for line in shell_commands(page)]
COMMANDS = [line for line in SHELL_LINES if line.startswith("python ")]
MAKE_TARGETS = [line.split()[1] for line in SHELL_LINES if line.startswith("make ")]


@functools.cache
def flags_of(script):
    """The flags that a script defines, in `FlagValues` of their own."""
    ours = vars(flags.FLAGS)
    kept = dict(ours)
    found = flags.FlagValues()
    try:
        ours.clear()
        ours.update(vars(found))
        # benchmarks/accelerator.py chooses a backend, and those in folders add the root.
        with mock.patch.dict(os.environ), mock.patch.object(sys, "path", [*sys.path]):
            runpy.run_path(str(ROOT / script))  # under another name than __main__: it ends here
        vars(found).update(ours)
    finally:
        ours.clear()
        ours.update(kept)
    found.set_gnu_getopt()
    return found


def parse(command):
    """Reads the flags of a command as its script does, and checks every value."""
    python, script, *arguments = shlex.split(command)
    assert python == "python"
    parsed = copy.deepcopy(flags_of(script))
    return parsed([script, *arguments])


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_every_command_has_a_script_that_takes_its_flags(command):
    parse(command)


@pytest.mark.parametrize("target", dict.fromkeys(MAKE_TARGETS))
def test_every_target_of_the_makefile_runs_scripts_that_take_its_flags(target):
    for command in makefile_commands(target):
        parse(command)


def test_a_command_that_its_script_does_not_take_is_found():
    with pytest.raises(flags.UnrecognizedFlagError):
        parse("python sample.py save/digits --no_such_flag 3")
    with pytest.raises(flags.IllegalFlagValueError):
        parse("python train.py --nr_resnet 0")


def test_the_pages_name_every_script_and_the_readme_those_that_a_newcomer_needs():
    assert "make demo" in README and "make test" in README
    assert "train.py --nr_gpu 8 --data_set cifar" in README
    scripts = {
        str(path.relative_to(ROOT))
        for folder in (ROOT, ROOT / "benchmarks", ROOT / "experiments")
        for path in folder.glob("*.py")
        if "scripts.run(main" in path.read_text()
    }
    assert {command.split()[1] for command in COMMANDS} == scripts
    in_readme = {line.split()[1] for line in shell_commands(README) if line.startswith("python ")}
    assert in_readme >= {"train.py", "evaluate.py", "sample.py"}
    assert set(MAKE_TARGETS) == {"demo", "demo-photos", "demo-chains", "experiments", "mnist"}


def test_the_readme_is_one_page():
    assert README.count("\n") <= 150


def test_the_snippet_on_own_images_trains_scores_draws_and_saves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (snippet,) = code_blocks("python", README)
    # The same on smaller images, which are drawn sooner, and on a network that is traced sooner.
    assert snippet.count("28, 28, 1") == 3 and snippet.count("nr_resnet=1, nr_filters=16") == 1
    snippet = snippet.replace("28, 28, 1", "8, 8, 1")
    snippet = snippet.replace("nr_resnet=1, nr_filters=16", "receptive_field='11x5', nr_filters=4")
    images = np.random.default_rng(0).integers(0, 256, (128, 8, 8, 1), np.uint8)
    np.save("images.npy", images)
    # And without XLA, which compiles for seconds.
    whole = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: whole(f, False))
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["bits_per_dim"].shape == (8,)
    assert names["drawn"].shape == (4, 8, 8, 1)
    reloaded = keras.saving.load_model("model.keras")
    assert np.array_equal(reloaded(images[:2]), names["model"](images[:2]))


def test_the_snippets_of_the_page_on_python_make_models_of_ones_own():
    # The first block takes a trained run: test_sampling.py and test_scripts.py use one so. The
    # second one is in the README, and is run above.
    _, own, *others = code_blocks("python", DOCS["python.md"])
    (in_readme,) = code_blocks("python", README)
    lines, readme_lines = (re.findall(r"^\w[^#\n]*\b\S", x, re.M) for x in (own, in_readme))
    assert lines and set(lines) <= set(readme_lines)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    names = {"pcnn": pcnn}
    names |= {"images": images, "pictures": images[:, ::2, ::2]}
    for snippet in others:
        if "keras.Model" in snippet:
            continue  # a model around a model, in the next test
        snippet = snippet.replace("28, 28, 1", "8, 8, 1").replace("14, 14, 1", "4, 4, 1")
        exec(compile(snippet, "python.md", "exec"), names)
        model = names["model"]
        condition = names["pictures"] if model.is_conditional else None
        assert model(images, condition).shape[:3] == (2, 8, 8)


def test_the_vae_of_the_page_on_python_trains_its_encoder_through_its_decoder(monkeypatch):
    (snippet,) = [x for x in code_blocks("python", DOCS["python.md"]) if "keras.Model" in x]
    assert sum(1 for line in snippet.splitlines() if line.strip()) < 50
    # The same for a shorter time, without XLA for the samples.
    assert "batch_size=64, epochs=10" in snippet
    snippet = snippet.replace("batch_size=64, epochs=10", "batch_size=64, epochs=3, verbose=0")
    whole = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: whole(f, False))
    keras.utils.set_random_seed(1)
    names = {}
    exec(compile(snippet, "python.md", "exec"), names)
    losses = names["history"].history["loss"]
    assert losses[-1] < losses[0] - 5, "nats an image"
    vae, images = names["vae"], names["images"][:64]
    assert names["drawn"].shape == (4, 8, 8, 1)
    with tf.GradientTape() as tape:
        negative_elbo = tf.reduce_mean(vae(images))
    weights = [weight.value for weight in vae.encoder.trainable_weights]
    assert len(weights) == 6
    for gradient in tape.gradient(negative_elbo, weights):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    # An image is more probable given its own code than given another's: the code says something.
    own, other = (vae.encode(x)[0] for x in (images, images[::-1]))
    own, other = (vae.decoder.log_prob(images, code).numpy().mean() for code in (own, other))
    assert own > other + 1


def test_the_snippet_of_the_page_on_chains_scores_draws_and_enlarges(monkeypatch):
    (snippet,) = code_blocks("python", DOCS["chains.md"])
    whole = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: whole(f, False))
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    names = {"images": images}
    assert snippet.count("nr_resnet=2") == 2  # the same with fewer blocks
    exec(compile(snippet.replace("nr_resnet=2", "nr_resnet=1"), "chains.md", "exec"), names)
    assert names["bits_per_dim"].shape == names["of_large"].shape == (8,)
    assert names["drawn"].shape == names["larger"].shape == (2, 8, 8, 3)
    assert not np.array_equal(names["drawn"], names["larger"])


def test_the_two_workers_train_together(tmp_path):
    (example,) = [block for block in code_blocks("sh", DOCS["training.md"]) if "TF_CONFIG" in block]
    for number in ("12345", "12346"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            example = example.replace(number, str(free.getsockname()[1]))
    example = example.replace("save/two", str(tmp_path / "run"))
    example = example.replace("max_epochs 2", "max_epochs 1 --num_samples 0")
    # The same on a smaller network, which is traced sooner.
    assert "nr_resnet 1 --nr_filters 16" in example
    example = example.replace("nr_resnet 1", "receptive_field 11x5")
    example = example.replace("nr_filters 16", "nr_filters 2").replace("python", sys.executable)
    done = subprocess.run(
        ["bash", "-c", example + "status=$?; wait $! && exit $status"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Worker 1 of 2: worker 0 reports and writes." in done.stdout
    assert re.search(r"^epoch 1/1  step \d+  train ", done.stdout, flags=re.MULTILINE)
    assert checkpoints.latest(tmp_path / "run") is not None


def test_every_file_of_the_map_exists_and_every_module_is_in_the_map():
    (tree,) = [block for block in code_blocks("", MAP) if block.startswith("pixel_cnn_pp/\n")]
    named, folder = [], None
    for line in tree.splitlines()[1:]:
        indent, name = re.match(r"( +)([\w/.]+)", line).groups()
        folder = name if len(indent) == 2 else folder
        named.append(f"{folder}{name}" if len(indent) == 4 else name)
    package = ROOT / "pixel_cnn_pp"
    rooms = [path.parent for path in package.glob("*/__init__.py")]
    found = [f"{path.name}/" for path in rooms]
    for path in (*package.glob("*.py"), *(path for room in rooms for path in room.glob("*.py"))):
        if path.name != "__init__.py":
            found.append(str(path.relative_to(package)))
    assert sorted(named) == sorted(found)
    scripts = set(re.findall(r"`(\w+\.py)`", MAP.partition("```")[0]))
    assert scripts == {path.name for path in ROOT.glob("*.py")}


def test_the_map_says_why_each_pinned_package_is_there():
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line
    }
    table = MAP.partition("## Why each package is there")[2]
    named = {
        name
        for row in re.findall(r"^\| ([\w, -]+) \|", table, re.MULTILINE)
        for name in row.split(", ")
    } - {"package"}
    assert named - {"---"} == pinned


@EACH_PAGE
def test_every_picture_and_every_link_of_a_page_leads_somewhere(path):
    text = re.sub(r"```.*?```|^ {4}.*?$", "", (ROOT / path).read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\((?!https?:)(.*?)\)", text):
        name, _, section = target.partition("#")
        page = (ROOT / path).parent / name if name else ROOT / path
        assert page.is_file(), target
        if section:
            titles = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert section in anchors, target


def test_the_readme_shows_pictures_and_every_page_is_linked_from_it():
    assert re.search(r"!\[.*?\]\(.*?\)", README)
    assert set(re.findall(r"\]\(docs/(\w+\.md)\)", README)) >= set(DOCS)
