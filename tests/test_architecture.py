"""The rooms: who imports whom, where TensorFlow is, who reads flags, which names are public."""

import ast
import pathlib

import pytest

import pixel_cnn_pp as pcnn
from pixel_cnn_pp import command

PACKAGE = pathlib.Path(pcnn.__file__).parent
ROOT = PACKAGE.parent

# The floor of every room, a sub-package or a file. What is not here has no place yet: docs/map.md
# shows the map. Imports point down, and never along a floor. Within a room, files
# import each other, but not in a circle.
FLOORS = {
    "files": -1,  # the cellar: how a file is written
    "views": -1,  # and what the stages of a chain see of an image
    "compiled_files": -1,
    "config": 0,
    "likelihoods": 0,
    "layers": 0,
    "data": 0,
    "plots": 0,
    "registration": 0,
    "scripts": 0,  # how a script starts and ends; known to the roof only
    "models": 1,
    "sampling": 2,
    "evaluation": 2,
    "picture_codecs": 2,
    "codec": 3,  # it walks with the driver of `sampling`
    "runs": 3,
    "signatures": 3,  # of what `export` writes
    "export": 4,
    "tf1_import": 4,
    "command": 5,  # runs a script of the roof
}
# Rooms and files of rooms that stand on TensorFlow; all others run without it.
ON_TENSORFLOW = {
    "data.public_sets",
    "data.streams",
    "data.tfds_sets",
    "export",
    "likelihoods.distributions",
    "runs.chains",
    "runs.devices",
    "runs.loop",
    "runs.monitoring",
    "runs.refusals",
    "runs.trainer",
    "runs.updates",
    "signatures",
    "tf1_import.checkpoint",
    "tf1_import.files",
    "tf1_import.run",
}
# Of these, the ones that import TensorFlow by way of others only.
BY_OTHERS = {"runs.chains", "runs.loop", "tf1_import.run"}
# Compiling a function, calling one within a graph, and handing out a distribution of TensorFlow
# Probability: imported when they are called.
WHEN_CALLED = {
    ("sampling.draw", "compile_function"),
    ("sampling.graph_optimizer", "without_graph_optimizer"),
    ("sampling.named_functions", "with_xla"),
    ("codec.identity", "_accelerator"),
    ("codec.walk", "_stop"),
    ("layers.one_pass", "compiled"),
    ("layers.one_pass", "pays"),
    ("models.blocks", "_compile"),
    ("models.blocks", "_is_traced"),
    ("models.blocks", "_tensor"),
    ("likelihoods.mixture", "distribution"),
    ("likelihoods.whole_numbers", "_check_in_graph"),
}
# `scripts` warms TensorFlow up on behalf of scripts, by its name. `registration` names models.
BY_NAME = {"scripts", "registration"}
# The most lines that a file of the package has: one purpose each.
MAX_LINES = 400

# Names that users' scripts are written against, and the files that define them.
PUBLIC_NAMES = {
    "Chain": "models.chain",
    "ChainConfig": "config.chain",
    "DataConfig": "config.data",
    "DiagonalBiLSTM": "models.pixel_rnn",
    "DiagonalBiLSTMConfig": "config.pixel_rnn",
    "DiscretizedLogisticMixture": "likelihoods.distributions",
    "GatedPixelCNN": "models.gated_pixel_cnn",
    "GatedPixelCNNConfig": "config.gated_pixel_cnn",
    "ModelConfig": "config.pixel_cnn_pp",
    "PixelCNN": "models.pixel_cnn",
    "PixelCNNConfig": "config.pixel_cnn",
    "PixelCNNPP": "models.pixel_cnn_pp",
    "RowLSTM": "models.pixel_rnn",
    "RowLSTMConfig": "config.pixel_rnn",
    "RunConfig": "config.run",
    "TrainingConfig": "config.training",
    "compress": "codec.images",
    "decompress": "codec.images",
    "export_saved_model": "export",
    "load": "runs.checkpoints",
    "load_release": "tf1_import.run",
    "sample": "sampling.sample",
    "to_levels": "data.levels",
}


def name_of(path):
    """The dotted name of a file within the package; a room's own for its `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
FILES |= {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
SCRIPTS = {path.stem: path for path in ROOT.glob("*.py")}
# What stands on the rooms and the scripts, and on which neither stands.
OUTBUILDINGS = ("benchmarks", "experiments")
EACH_FILE = pytest.mark.parametrize("file", sorted(FILES))


def imports(path):
    """What a file imports, wherever in it: [(enclosing function or None, dotted name)]."""
    found = []

    def visit(node, function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((function, alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path.name}: imports name the package"
                found.extend((function, f"{child.module}.{alias.name}") for alias in child.names)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            visit(child, child.name if is_function else function)

    visit(ast.parse(path.read_text()), None)
    return found


def own_imports(path):
    """[(enclosing function or None, file or room)], of our own package."""
    found = []
    for function, name in imports(path):
        top, _, rest = name.partition(".")
        if top == PACKAGE.name and rest:
            # A file, or else something in a file.
            found.append((function, rest if rest in FILES else rest.rpartition(".")[0] or rest))
    return found


def room_of(name):
    return name.partition(".")[0]


def is_tensorflow(name):
    top = name.split(".")[0]
    return top.startswith("tensorflow") or top in ("tensorboard", "tf_keras")


def test_every_room_has_its_floor():
    assert {room_of(file) for file in FILES} == set(FLOORS)
    assert not list(PACKAGE.glob("*/*/*.py")), "rooms, not corridors"
    assert set(FILES) >= ON_TENSORFLOW and ON_TENSORFLOW >= BY_OTHERS


@EACH_FILE
def test_imports_point_down(file):
    for _, other in own_imports(FILES[file]):
        if room_of(other) != room_of(file):
            assert FLOORS[room_of(other)] < FLOORS[room_of(file)], f"{file} imports {other}"


def test_within_a_room_no_file_imports_itself_by_way_of_others():
    graph = {
        file: {
            other
            for function, other in own_imports(path)
            if room_of(other) == room_of(file) and (file, function) not in WHEN_CALLED
        }
        for file, path in FILES.items()
    }

    def reachable(file, seen):
        for other in graph.get(file, ()):
            # The room itself stands for the files that it hands on; from within, files are named.
            if other not in seen and "." in other:
                seen.add(other)
                reachable(other, seen)
        return seen

    for file in FILES:
        assert file not in reachable(file, set())


@EACH_FILE
def test_a_file_has_one_purpose_and_its_length_shows_it(file):
    assert len(FILES[file].read_text().splitlines()) <= MAX_LINES


def test_the_package_itself_imports_nothing_before_a_name_is_used():
    found = imports(PACKAGE / "__init__.py")
    assert found == [(None, "importlib"), (None, "pixel_cnn_pp.registration")]


def test_the_package_that_is_built_has_every_room_and_the_scripts():
    text = (ROOT / "pyproject.toml").read_text()
    packages = ast.literal_eval(text.partition("\npackages = ")[2].partition("]")[0] + "]")
    rooms = {f"{PACKAGE.name}.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    assert set(packages) == {PACKAGE.name, f"{PACKAGE.name}.commands", *rooms}
    assert 'package-dir = { "pixel_cnn_pp.commands" = "." }' in text
    assert {pathlib.Path(script).stem for script in command.SCRIPTS.values()} >= set(SCRIPTS)
    assert set(command.commands().values()) == set(SCRIPTS.values())


def test_no_room_imports_a_script():
    for path in (PACKAGE / "__init__.py", *FILES.values()):
        assert not {name.split(".")[0] for _, name in imports(path)} & set(SCRIPTS)


def test_neither_rooms_nor_scripts_import_the_benchmarks_or_the_experiments():
    for path in (*FILES.values(), *SCRIPTS.values()):
        assert not {name.split(".")[0] for _, name in imports(path)} & set(OUTBUILDINGS)
    for name, other in (OUTBUILDINGS, OUTBUILDINGS[::-1]):
        for path in (ROOT / name).glob("*.py"):
            assert other not in {name.split(".")[0] for _, name in imports(path)}


def test_of_the_experiments_the_scripts_alone_have_flags():
    for path in (ROOT / "experiments").glob("*.py"):
        is_script = path.name in ("run.py", "mnist.py")
        assert bool(flags_read(path) or defines_flags(path)) == is_script


@EACH_FILE
def test_tensorflow_is_imported_by_the_files_that_stand_on_it_alone(file):
    uses = any(
        is_tensorflow(name)
        for function, name in imports(FILES[file])
        if (file, function) not in WHEN_CALLED
    )
    assert uses == (file in ON_TENSORFLOW - BY_OTHERS)


@EACH_FILE
def test_modules_are_imported_by_their_text_not_by_a_string(file):
    if file not in BY_NAME:
        names = {name for _, name in imports(FILES[file])} - {"importlib.metadata"}
        assert "importlib" not in {name.split(".")[0] for name in names}
        assert "__import__" not in FILES[file].read_text()


def test_no_verb_asks_what_kind_of_model_or_likelihood_it_holds():
    # Outside of models, configurations and the release's checkpoints, which are of one model.
    words = ("energy_distance", "receptive_field", "PixelCNN", ".likelihood ==", "isinstance(model")
    verbs = [
        file
        for file in FILES
        if room_of(file) in ("sampling", "codec", "evaluation", "runs", "data")
    ]
    for path in (*(FILES[file] for file in verbs), SCRIPTS["sample"], SCRIPTS["evaluate"]):
        code = ast.unparse(without_texts(ast.parse(path.read_text())))
        assert not [word for word in words if word in code], path.name


def without_texts(tree):
    """A tree without docstrings and without the constant parts of texts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            node.value = node.value[:0]
    return tree


def test_importing_the_package_imports_neither_tensorflow_nor_keras(run_python):
    code = "import sys, pixel_cnn_pp, pixel_cnn_pp.config; print(*sys.modules)"
    modules = {name.split(".")[0] for name in run_python(code).split()}
    assert "pixel_cnn_pp" in modules
    assert not {"tensorflow", "tensorflow_probability", "keras", "tf_keras", "jax"} & modules


def test_what_is_off_tensorflow_needs_it_nowhere(run_python):
    # The door of `data` opens on its streams, so that the whole room stands on TensorFlow.
    files = [name for name in FILES if name not in ON_TENSORFLOW and room_of(name) != "data"]
    files = [name for name in files if room_of(name) != "tf1_import"]
    code = "import sys; sys.modules['tensorflow'] = None\n"
    code += "".join(f"import pixel_cnn_pp.{name}\n" for name in sorted(files)) + "print('imported')"
    assert "imported" in run_python(code, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")


def test_every_public_name_resolves_to_something_of_its_file():
    assert set(pcnn.__all__) == set(PUBLIC_NAMES)
    assert dir(pcnn) == sorted(PUBLIC_NAMES)
    for name, file in PUBLIC_NAMES.items():
        value = getattr(pcnn, name)
        assert callable(value) and value.__name__ == name
        assert value.__module__ == f"pixel_cnn_pp.{file}"


def test_a_name_that_is_not_public_is_refused_as_python_does_it():
    with pytest.raises(AttributeError, match="module 'pixel_cnn_pp' has no attribute 'PixelRNN'"):
        _ = pcnn.PixelRNN


def flags_read(path):
    """What a file takes out of absl's FLAGS, by FLAGS.name or FLAGS["name"]; ? for another key."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        is_use = isinstance(node, ast.Attribute | ast.Subscript)
        if is_use and ast.unparse(node.value) in ("FLAGS", "flags.FLAGS"):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            else:
                names.add(getattr(node.slice, "value", "?"))
    return names


def defines_flags(path):
    return "flags.DEFINE_" in path.read_text()


@EACH_FILE
def test_no_room_reads_a_flag_and_only_the_configuration_defines_any(file):
    # `scripts` sets absl itself up.
    assert flags_read(FILES[file]) <= (
        {"set_gnu_getopt", "verbosity"} if file == "scripts" else set()
    )
    if room_of(file) not in ("config", "scripts"):
        assert not defines_flags(FILES[file])
        assert "absl.flags" not in {name for _, name in imports(FILES[file])}


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_composes_rooms_and_is_imported_by_no_other_script(script):
    names = {name.split(".")[0] for _, name in imports(SCRIPTS[script])}
    assert PACKAGE.name in names
    assert not names & set(SCRIPTS)


def test_the_checks_above_see_what_they_look_for(tmp_path):
    path = tmp_path / "room.py"
    path.write_text(
        "import tensorflow as tf\n"
        "from absl import flags\n"
        "def f():\n"
        "    from pixel_cnn_pp.models.pixel_cnn_pp import PixelCNNPP\n"
        "    from pixel_cnn_pp import data\n"
        "    return flags.FLAGS.batch_size, FLAGS['seed'].present, FLAGS[f]\n"
    )
    assert imports(path)[:2] == [(None, "tensorflow"), (None, "absl.flags")]
    assert own_imports(path) == [("f", "models.pixel_cnn_pp"), ("f", "data")]
    assert is_tensorflow("tensorflow") and not is_tensorflow("keras")
    assert flags_read(path) == {"batch_size", "seed", "?"} and not defines_flags(path)
