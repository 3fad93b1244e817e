"""The commands and snippets of the README, the docs and the Makefile do what they say."""

import pathlib
import re
import shlex
import socket
import subprocess
import sys

import keras
import numpy as np
import processes
import pytest

import pixel_cnn_pp as pcnn
from pixel_cnn_pp.runs import checkpoints

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]


def code_blocks(language, text=README):
    """The fenced blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def shell_commands(text=README):
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


COMMANDS = [line for line in shell_commands() if line.startswith("python ")]
MAKE_TARGETS = [line.split()[1] for line in shell_commands() if line.startswith("make ")]
EVERY_COMMAND = [
    *COMMANDS,
    *(line for page in PAGES for line in shell_commands(page) if line.startswith("python ")),
    *(line for target in MAKE_TARGETS for line in makefile_commands(target)),
]


@pytest.mark.parametrize("command", dict.fromkeys(EVERY_COMMAND))
def test_every_command_has_a_script_that_takes_its_flags(command, tmp_path):
    python, *arguments = shlex.split(command)
    assert python == "python"
    # absl's --only_check_args parses the command line, checks every value and ends.
    done = processes.run(tmp_path, *arguments, "--only_check_args")
    assert done.returncode == 0, done.stderr


def test_the_readme_names_its_commands():
    assert "make demo" in README and "make test" in README
    assert "train.py --nr_gpu 8 --data_set cifar" in README
    scripts = {"train.py", "evaluate.py", "sample.py", "export.py", "import_release.py"}
    benchmarks = ("sampling", "training", "presets", "accelerator")
    scripts |= {f"benchmarks/{name}.py" for name in benchmarks}
    scripts.add("experiments/run.py")
    assert {command.split()[1] for command in COMMANDS} == scripts
    assert set(MAKE_TARGETS) == {"demo", "demo-photos", "experiments"}


def test_the_snippet_on_own_images_trains_and_saves_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippet = code_blocks("python")[1]
    images = np.random.default_rng(0).integers(0, 256, (128, 28, 28, 1), np.uint8)
    names = {"pcnn": pcnn, "images": images}
    exec(compile(snippet, "README.md", "exec"), names)
    reloaded = keras.saving.load_model("model.keras")
    assert np.array_equal(reloaded(images[:2]), names["model"](images[:2]))


def test_the_two_workers_train_together(tmp_path):
    (example,) = [block for block in code_blocks("sh") if "TF_CONFIG" in block]
    for number in ("12345", "12346"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            example = example.replace(number, str(free.getsockname()[1]))
    example = example.replace("save/two", str(tmp_path / "run"))
    example = example.replace("max_epochs 2", "max_epochs 1 --num_samples 0")
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
    named = set(re.findall(r"`(\w+\.py)`", README))
    modules = {path.name for path in (ROOT / "pixel_cnn_pp").glob("*.py")} - {"__init__.py"}
    scripts = {path.name for path in ROOT.glob("*.py")}
    assert named == modules | scripts


def test_the_readme_says_why_each_pinned_package_is_there():
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line
    }
    table = README.partition("## Why each package is there")[2]
    named = {
        name
        for row in re.findall(r"^\| ([\w, -]+) \|", table, re.MULTILINE)
        for name in row.split(", ")
    } - {"package"}
    assert named - {"---"} == pinned


def test_every_picture_of_the_readme_is_in_the_repository():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)
