"""The command `pixel-cnn-pp`: pixel-cnn-pp train --data_set digits is python train.py with it."""

import pathlib
import runpy
import sys

import pixel_cnn_pp
from pixel_cnn_pp import scripts

# {name of a command: its script}. In an installed package the scripts lie in the folder `commands`.
SCRIPTS = {
    "train": "train.py",
    "evaluate": "evaluate.py",
    "sample": "sample.py",
    "compress": "compress.py",
    "export": "export.py",
    "import-release": "import_release.py",
}
_PACKAGE = pathlib.Path(__file__).parent
_FOLDERS = (_PACKAGE / "commands", _PACKAGE.parent)


def main():
    """Runs the script that the first argument names, with the arguments after it."""
    program, *arguments = sys.argv
    program = pathlib.Path(program).name
    if arguments == ["--version"]:
        print(pixel_cnn_pp.__version__)
        return
    found = commands()
    usage = f"usage: {program} {'|'.join(found)} ...  ({program} train --help lists its flags)"
    if arguments in (["--help"], ["-h"]):
        print(usage)
        return
    name = arguments[0] if arguments else ""
    if name not in found:
        sys.exit(f"{usage}. Received: {name or 'nothing'}")
    sys.argv = [program, *arguments[1:]]
    with scripts.called(f"{program} {name}"):
        runpy.run_path(str(found[name]), run_name="__main__")


def commands():
    """{name of a command: path of its script}."""
    paths = {
        name: next((path for path in (folder / file for folder in _FOLDERS) if path.exists()), None)
        for name, file in SCRIPTS.items()
    }
    return {name: path for name, path in paths.items() if path is not None}
