"""Functions that TensorFlow compiles with XLA, under names that are made of what they compute.

TensorFlow keeps what XLA has compiled by the name of the function, until the process ends. Its own
names have a number that counts up. So a function that is traced a second time is compiled a second
time, and the memory of both is kept. With a name that follows from the contents, the second one
finds what is compiled already: in the process, and in TensorFlow's cache on the disk.
"""

import contextlib
import hashlib
import pickle
import re
from typing import Any, NamedTuple

from pixel_cnn_pp import compiled_files, files, layers


def with_xla(function, key=None):
    """Makes the function that calls another one, compiled with XLA, within a graph of TensorFlow.

    Args:
      function: Function of nests of tensors. It may read other tensors of the graph.
      key: Anything whose `repr` says all that the function depends on, apart from its arguments and
        the code of this package. Then a script keeps its graph for the next start, see
        `compiled_files`. None to keep nothing.

    Returns:
      Function with the same arguments and results.
    """
    # TensorFlow is imported here, because this package also runs on other backends without it.
    import tensorflow as tf

    # There is no public way to give a function a name.
    from tensorflow.python.eager import context

    name = re.sub(r"\W", "", getattr(function, "__name__", "piece"))

    def flatten(nest):
        """The tensors of a nest, and the nest with `...` in their places."""
        tensors = [leaf for leaf in tf.nest.flatten(nest) if tf.is_tensor(leaf)]
        return tensors, tf.nest.map_structure(lambda x: ... if tf.is_tensor(x) else x, nest)

    def pack(nest, tensors):
        own = iter(tensors)
        return tf.nest.map_structure(lambda x: next(own) if x is ... else x, nest)

    def traced(tensors, nest):
        """The `_Traced` of the function, and the tensors that it reads besides its arguments."""
        results = None

        def of_tensors(*tensors):
            nonlocal results
            with layers.for_xla():
                tensors, results = flatten(function(*pack(nest, tensors)))
            return tensors

        of_tensors.__name__ = name
        compiled = tf.function(of_tensors, jit_compile=True, autograph=False)
        caller = tf.function(lambda *own: compiled(*own), autograph=False)
        caller = caller.get_concrete_function(*tensors)
        inputs, outputs = ([x.name for x in own] for own in (caller.inputs, caller.outputs))
        shapes = [x.shape.as_list() for x in caller.outputs]
        graph = named(caller.graph.as_graph_def())
        return _Traced(graph, inputs, outputs, shapes, results), caller.captured_inputs

    def call(*arguments):
        tensors, nest = flatten(arguments)
        path = None
        if key is not None:
            path = compiled_files.path_of((key, nest, [(x.dtype, x.shape) for x in tensors]))
        found = _read(path)
        if found is None:
            found, captured = traced(tensors, nest)
            tensors += [tf.identity(tensor) for tensor in captured]
            if path is not None and not captured:
                with contextlib.suppress(OSError):
                    files.replace(path, lambda file: pickle.dump(found, file))
        for called in found.graph.library.function:
            if not context.context().has_function(called.signature.name):
                context.context().add_function_def(called)
        results = tf.graph_util.import_graph_def(
            found.graph,
            input_map=dict(zip(found.inputs, tensors, strict=True)),
            return_elements=found.outputs,
            name=name,
        )
        for result, shape in zip(results, found.shapes, strict=True):
            result.set_shape(shape)
        return pack(found.results, results)

    return call


class _Traced(NamedTuple):
    """A traced function: its `GraphDef`, and what is needed to call it.

    inputs, outputs: Names of tensors of the graph.
    shapes: Shapes of the outputs.
    results: The nest that the function returns, with `...` for every tensor.
    """

    graph: Any
    inputs: Any
    outputs: Any
    shapes: Any
    results: Any


def _read(path):
    """The `_Traced` of a file, or None if there is none, or if it cannot be read."""
    if path is None:
        return None
    # Who can write to this folder can change what XLA has compiled. So pickle adds no risk.
    with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
        return pickle.loads(path.read_bytes())


def named(graph):
    """Gives all functions of a graph names that are made of their contents.

    Args:
      graph: `GraphDef`. It is changed.

    Returns:
      The graph. Of functions of the same contents it has one.
    """
    bodies = {function.signature.name: function for function in graph.library.function}
    names = {}

    def name_of(old):
        if old not in names:
            function = bodies[old]
            function.signature.name = ""
            _number_arguments(function)
            for node in function.node_def:
                rename_calls(node)
            contents = function.SerializeToString(deterministic=True)
            prefix = re.sub(r"\W", "", old.removeprefix("__inference_")).strip("0123456789_")
            names[old] = f"{prefix}_{hashlib.sha256(contents).hexdigest()}"
            function.signature.name = names[old]
        return names[old]

    def rename_calls(node):
        if node.op in bodies:
            node.op = name_of(node.op)
        for key in sorted(node.attr):
            for called in (node.attr[key].func, *node.attr[key].list.func):
                if called.name in bodies:
                    called.name = name_of(called.name)

    for node in graph.node:
        rename_calls(node)
    used = {names[old]: function for old, function in bodies.items() if old in names}
    del graph.library.function[:]
    graph.library.function.extend(used.values())
    return graph


def _number_arguments(function):
    """Gives the arguments of a `FunctionDef` numbers for names. TensorFlow's names count up too."""
    new_names = {}
    for number, argument in enumerate(function.signature.input_arg):
        new_names[argument.name] = argument.name = f"argument_{number}"
        function.arg_attr[number].attr.pop("_user_specified_name", None)

    def renamed(value):
        name, *rest = value.split(":")
        return ":".join([new_names.get(name, name), *rest])

    for node in function.node_def:
        node.input[:] = [renamed(value) for value in node.input]
    for name in list(function.ret):
        function.ret[name] = renamed(function.ret[name])
