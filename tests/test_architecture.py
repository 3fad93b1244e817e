"""The rooms: who imports whom, where TensorFlow is, who reads flags, which names are public."""

import ast
import pathlib

import pytest

import pixel_cnn_pp as pcnn

PACKAGE = pathlib.Path(pcnn.__file__).parent
ROOT = PACKAGE.parent

# The floor of every room. A file that is not here has no place yet: see the README's map, or the
# table of rooms, before adding one. Imports point down, and never along a floor.
FLOORS = {
    "config": 0,
    "likelihoods": 0,
    "layers": 0,
    "pictures": 0,
    "image_store": 0,
    "optimizers": 0,
    "devices": 0,
    "monitoring": 0,
    "plots": 0,
    "scripts": 0,  # how a script starts and ends; known to the roof only
    "image_files": 1,
    "image_sets": 1,
    "model": 1,
    "distributions": 1,
    "sampling": 2,
    "data": 2,
    "evaluation": 2,
    "checkpoints": 2,
    "auxiliary": 2,
    "training": 3,
    "export": 3,
    "tf1_import": 3,
    "compression": 3,
}
ON_TENSORFLOW = {
    "data",
    "devices",
    "monitoring",
    "image_sets",
    "distributions",
    "training",
    "export",
    "tf1_import",
}
# Handing out a distribution is a method of the model, for its users' sake, and the only thing that
# goes along a floor. It is imported when it is called, so that the model needs no TensorFlow.
LAZY_EXCEPTION = ("model", "distribution", "distributions")
# Compiling a function, and updating a weight in one operation, are the backend's own affair:
# imported when that backend is the one in use.
OF_THE_BACKEND = {("sampling", "_compile"), ("optimizers", "update_step")}
# `scripts` warms TensorFlow up on behalf of scripts, by its name.
BY_NAME = {"scripts"}

# Names that users' scripts are written against, and their rooms.
PUBLIC_NAMES = {
    "ModelConfig": "config",
    "DataConfig": "config",
    "TrainingConfig": "config",
    "RunConfig": "config",
    "PixelCNNPP": "model",
    "DiscretizedLogisticMixture": "distributions",
    "sample": "sampling",
    "load": "checkpoints",
    "load_release": "tf1_import",
    "export_saved_model": "export",
}

ROOMS = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
SCRIPTS = {path.stem: path for path in ROOT.glob("*.py")}
# What stands on the rooms and the scripts, and on which neither stands.
OUTBUILDINGS = ("benchmarks", "experiments")
EACH_ROOM = pytest.mark.parametrize("room", sorted(ROOMS))


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


def rooms_imported(path):
    """[(enclosing function or None, room)], of our own package."""
    return [
        (function, name.split(".")[1])
        for function, name in imports(path)
        if name.split(".")[0] == PACKAGE.name
    ]


def is_tensorflow(name):
    top = name.split(".")[0]
    return top.startswith("tensorflow") or top in ("tensorboard", "tf_keras")


def test_every_file_of_the_package_has_its_floor():
    assert not list(PACKAGE.glob("*/*.py")), "rooms, not corridors"
    assert set(ROOMS) <= set(FLOORS), "files without a floor"


@EACH_ROOM
def test_imports_point_down(room):
    for function, other in rooms_imported(ROOMS[room]):
        if (room, function, other) != LAZY_EXCEPTION:
            assert FLOORS[other] < FLOORS[room], f"{room} imports {other}"


def test_the_package_itself_imports_nothing_before_a_name_is_used():
    assert imports(PACKAGE / "__init__.py") == [(None, "importlib")]


def test_no_room_imports_a_script():
    for path in (PACKAGE / "__init__.py", *ROOMS.values()):
        assert not {name.split(".")[0] for _, name in imports(path)} & set(SCRIPTS)


def test_neither_rooms_nor_scripts_import_the_benchmarks_or_the_experiments():
    for path in (*ROOMS.values(), *SCRIPTS.values()):
        assert not {name.split(".")[0] for _, name in imports(path)} & set(OUTBUILDINGS)
    for name, other in (OUTBUILDINGS, OUTBUILDINGS[::-1]):
        for path in (ROOT / name).glob("*.py"):
            assert other not in {name.split(".")[0] for _, name in imports(path)}


def test_of_the_experiments_the_script_alone_has_flags():
    for path in (ROOT / "experiments").glob("*.py"):
        assert bool(flags_read(path) or defines_flags(path)) == (path.name == "run.py")


@EACH_ROOM
def test_tensorflow_is_imported_by_the_rooms_that_stand_on_it_alone(room):
    uses = any(
        is_tensorflow(name)
        for function, name in imports(ROOMS[room])
        if (room, function) not in OF_THE_BACKEND
    )
    assert uses == (room in ON_TENSORFLOW)


@EACH_ROOM
def test_modules_are_imported_by_their_text_not_by_a_string(room):
    if room not in BY_NAME:
        assert "importlib" not in {name.split(".")[0] for _, name in imports(ROOMS[room])}
        assert "__import__" not in ROOMS[room].read_text()


def test_importing_the_package_imports_neither_tensorflow_nor_keras(run_python):
    code = "import sys, pixel_cnn_pp, pixel_cnn_pp.config; print(*sys.modules)"
    modules = {name.split(".")[0] for name in run_python(code).split()}
    assert "pixel_cnn_pp" in modules
    assert not {"tensorflow", "tensorflow_probability", "keras", "tf_keras", "jax"} & modules


def test_the_rooms_off_tensorflow_need_it_nowhere(run_python):
    rooms = sorted(set(ROOMS) - ON_TENSORFLOW)
    code = "import sys; sys.modules['tensorflow'] = None\n"
    code += "".join(f"import pixel_cnn_pp.{room}\n" for room in rooms) + "print('imported')"
    printed = run_python(code, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    assert "imported" in printed


def test_every_public_name_whose_room_exists_resolves_to_something_of_that_room():
    expected = {name for name, room in PUBLIC_NAMES.items() if room in ROOMS}
    assert set(pcnn.__all__) == expected
    assert dir(pcnn) == sorted(expected)
    for name in expected:
        value = getattr(pcnn, name)
        assert callable(value) and value.__name__ == name
        assert value.__module__ == f"pixel_cnn_pp.{PUBLIC_NAMES[name]}"


def test_a_name_that_is_not_public_is_refused_as_python_does_it():
    with pytest.raises(AttributeError, match="module 'pixel_cnn_pp' has no attribute 'PixelCNN'"):
        _ = pcnn.PixelCNN


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


@EACH_ROOM
def test_no_room_reads_a_flag_and_only_the_configuration_defines_any(room):
    # `scripts` sets absl itself up.
    assert flags_read(ROOMS[room]) <= (
        {"set_gnu_getopt", "verbosity"} if room == "scripts" else set()
    )
    assert defines_flags(ROOMS[room]) == (room == "config")
    if room not in ("config", "scripts"):
        assert "absl.flags" not in {name for _, name in imports(ROOMS[room])}


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
    assert rooms_imported(path) == [("f", "model"), ("f", "data")]
    assert is_tensorflow("tensorflow") and not is_tensorflow("keras")
    assert flags_read(path) == {"batch_size", "seed", "?"} and not defines_flags(path)
