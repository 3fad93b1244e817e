"""Functions that TensorFlow compiles with XLA, under names that are made of what they compute.

TensorFlow keeps what XLA has compiled by the name of the function, until the process ends. Its own
names have a number that counts up. So a function that is traced a second time is compiled a second
time, and the memory of both is kept. With a name that follows from the contents, the second one
finds what is compiled already: in the process, and in TensorFlow's cache on the disk.
"""

import hashlib
import re


def with_xla(function):
    """Makes the function that calls another one, compiled with XLA, within a graph of TensorFlow.

    Args:
      function: Function of nests of tensors. It may read other tensors of the graph.

    Returns:
      Function with the same arguments and results.
    """
    # TensorFlow is imported here, because this package also runs on other backends without it.
    import tensorflow as tf

    # There is no public way to give a function a name.
    from tensorflow.python.eager import context

    name = re.sub(r"\W", "", getattr(function, "__name__", "piece"))

    def flatten(nest):
        """The tensors of a nest, and the function that puts others in their places."""
        leaves = tf.nest.flatten(nest)
        are_tensors = [tf.is_tensor(leaf) for leaf in leaves]

        def pack(tensors):
            own = iter(tensors)
            of_both = zip(leaves, are_tensors, strict=True)
            flat = [next(own) if is_tensor else leaf for leaf, is_tensor in of_both]
            return tf.nest.pack_sequence_as(nest, flat)

        return [leaf for leaf in leaves if tf.is_tensor(leaf)], pack

    def call(*arguments):
        tensors, pack_arguments = flatten(arguments)
        pack_results = None

        def of_tensors(*tensors):
            nonlocal pack_results
            results, pack_results = flatten(function(*pack_arguments(tensors)))
            return results

        of_tensors.__name__ = name
        compiled = tf.function(of_tensors, jit_compile=True, autograph=False)
        caller = tf.function(lambda *own: compiled(*own), autograph=False)
        caller = caller.get_concrete_function(*tensors)
        tensors += [tf.identity(tensor) for tensor in caller.captured_inputs]
        graph = named(caller.graph.as_graph_def())
        for called in graph.library.function:
            if not context.context().has_function(called.signature.name):
                context.context().add_function_def(called)
        results = tf.graph_util.import_graph_def(
            graph,
            input_map=dict(zip((x.name for x in caller.inputs), tensors, strict=True)),
            return_elements=[x.name for x in caller.outputs],
            name=name,
        )
        for result, traced in zip(results, caller.outputs, strict=True):
            result.set_shape(traced.shape)
        return pack_results(results)

    return call


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
