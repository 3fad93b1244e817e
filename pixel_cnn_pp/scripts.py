"""Code that the scripts share: a quiet start, positional arguments and errors of one line."""

import contextlib
import gc
import importlib
import json
import os
import pathlib
import re
import signal
import sys
import threading
from importlib import util

from absl import app, flags, logging

from pixel_cnn_pp import compiled_files

# The file descriptor at which the terminal is, also while file descriptor 2 is another file.
_terminal = 2


# What the user has called, if it is not the script itself.
_called = None


@contextlib.contextmanager
def called(name):
    """A context in which messages of a script begin with another name than that of its file."""
    global _called
    _called = name
    try:
        yield
    finally:
        _called = None


def run(main, arguments=(), on_tensorflow=True, keeps_compiled=False):
    """Parses the command line and calls `main`; flags may stand before or after the arguments.

    A ValueError, OSError or FloatingPointError becomes one line and exit status 1; its traceback
    is shown with --verbosity=1. Ctrl-C becomes one line and exit status 130.

    Args:
      main: Function, called with the positional arguments.
      arguments: Their names, as the usage shows them. If the last is in brackets, as in [FILES...],
        there may be any number of it.
      on_tensorflow: Whether the script uses TensorFlow. If so, it is imported quietly before
        `main`; if not, it need not be installed.
      keeps_compiled: Whether TensorFlow keeps what XLA compiles on the disk, for the next start.
    """
    script = _called or os.path.basename(sys.argv[0])
    interrupt = _Interrupt(f"{script}: stopped by Ctrl-C")

    def checked(argv):
        _, *given = argv
        any_number = bool(arguments) and arguments[-1].startswith("[")
        least = len(arguments) - any_number
        if len(given) < least or (len(given) > least and not any_number):
            program = f"python {script}" if script.endswith(".py") else script
            usage = " ".join([f"usage: {program}", *arguments, "[flags]"])
            sys.exit(f"{usage}  ({program} --help lists the flags). Received: {given}")
        try:
            if on_tensorflow:
                _import_tensorflow(keeps_compiled)
            if not flags.FLAGS["verbosity"].present:
                logging.set_verbosity(logging.WARNING)
            with interrupt.raised():
                main(*given)
        except BaseException as error:
            # Libraries turn it into other errors.
            if interrupt.has_come or isinstance(error, KeyboardInterrupt):
                interrupt.end()
            if isinstance(error, BrokenPipeError):
                sys.exit(f"{script}: stopped, because the pipe that reads its lines is closed")
            if not isinstance(error, (ValueError, OSError, FloatingPointError)):
                raise
            logging.debug("Traceback:", exc_info=True)
            sys.exit(f"{script}: {' '.join(str(error).split())}")
        finally:
            _end_of_output()

    # A line reaches a pipe or a file when it is printed, even if the run is killed later.
    # A file name may have bytes that are no text.
    with contextlib.suppress(OSError):  # of a pipe that is closed already
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    flags.FLAGS.set_gnu_getopt()
    with interrupt:
        app.run(checked)


class _Interrupt:
    """A context in which Ctrl-C ends the process with one line and status 130.

    Attributes:
      has_come: Whether Ctrl-C has raised a KeyboardInterrupt.
    """

    def __init__(self, line):
        """Keeps the line to print."""
        self.has_come = False
        self._line = line
        self._raises = False
        self._previous = None

    def __enter__(self):
        """Sets the handler, unless Ctrl-C is ignored or handled by others."""
        is_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT)
        is_of_script = getattr(handler, "__module__", None) == "__main__"  # until now
        if is_main and (handler == signal.default_int_handler or is_of_script):
            signal.signal(signal.SIGINT, self._handle)
            self._previous = signal.default_int_handler
        return self

    def __exit__(self, *exception):
        """Restores the earlier handler."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    @contextlib.contextmanager
    def raised(self):
        """A context in which the first Ctrl-C is a KeyboardInterrupt, so that files are removed.

        Outside of it there is nothing to remove. And an exception within an import would be turned
        into others, or lost.
        """
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def end(self):
        """Prints the line and ends the process, without waiting for its other threads."""
        with contextlib.suppress(OSError):
            os.write(_terminal, f"{self._line}\n".encode())
        os._exit(130)

    def _handle(self, number, frame):
        if not self._raises or self.has_come:
            self.end()
        self.has_come = True
        raise KeyboardInterrupt


def _end_of_output():
    """Writes what is left of the output. If nobody takes it, Python must not try again at its end.

    It would print a traceback and change the exit status.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_image_size(text):
    """Height and width from the value of a flag.

    Args:
      text: A string, 64 or 48x64 (height x width).

    Returns:
      Height and width.

    Raises:
      ValueError: If the text has another form.

    Example:
      >>> parse_image_size("48x64")
      (48, 64)
    """
    sides = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if sides is None:
        raise ValueError(
            "`image_size` must be a number or two, such as 64 or 48x64. "
            f"Received: image_size={text}"
        )
    height, width = sides.groups()
    return int(height), int(width or height)


def _import_tensorflow(keeps_compiled=False):
    """Imports TensorFlow and lets it find its devices, without the notes that it prints.

    The notes come from C++ before any log level is read. Without a GPU they look like errors.
    """
    # If one of several workers is lost, the others raise an exception. What C++ prints before it is
    # not needed. And TensorFlow prints errors that are none when it reads a file of XLA.
    is_quiet = keeps_compiled or os.environ.get("TF_CONFIG")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if is_quiet else "2")
    if keeps_compiled:
        compiled_files.keep(util.find_spec("tensorflow").origin)
    # By default TensorFlow uses oneDNN on the newest CPUs only, but it is faster on older ones too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _silent_stderr(), _hidden("matplotlib", "sklearn"), _nothing_collected():
        # TensorFlow imports parts of Keras, which may compute with these two.
        with _hidden(*(("jax", "scipy") if _uses_tensorflow() else ())):
            tensorflow = importlib.import_module("tensorflow")
        keras = importlib.import_module("keras")
        if keras.backend.backend() != "tensorflow":
            # TensorFlow then only reads data. It would take the memory of the GPU from Keras.
            tensorflow.config.set_visible_devices([], "GPU")
        # Several stages or sizes are several functions of one name. It warns of retracing then.
        tensorflow.get_logger().setLevel("ERROR")
        tensorflow.config.list_physical_devices()


def _uses_tensorflow():
    """Whether Keras will compute with TensorFlow, by its environment variable, file or default."""
    backend = os.environ.get("KERAS_BACKEND")
    if not backend:
        folder = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
        try:
            backend = json.loads((pathlib.Path(folder) / "keras.json").read_text()).get("backend")
        except (OSError, ValueError):
            backend = None
    return backend in (None, "tensorflow")


@contextlib.contextmanager
def _nothing_collected():
    """A context in which Python does not look for garbage. Later it looks at new objects only.

    The modules that are imported stay until the process ends. To look through their objects again
    and again takes a tenth of the time in which a script starts.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


@contextlib.contextmanager
def _hidden(*packages):
    """A context in which packages that nobody has imported seem not to be installed.

    TensorFlow and Keras import these if they find them, for what no script uses. It takes a third
    of the time in which a script starts. Who needs them imports them after the context.
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None is an ImportError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _silent_stderr():
    """A context that discards everything that is written to file descriptor 2."""
    global _terminal
    sys.stderr.flush()
    _terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        kept, _terminal = _terminal, 2
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def check_writable(name, path):
    """Checks that a file can be written, and creates its folders. Call it before long work.

    Args:
      name: The flag that names the file.
      path: File to write or replace.

    Raises:
      OSError: If the file cannot be written.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"`{name}` must lie in a directory to write to. Received: {path}")
    if os.path.isdir(path):
        raise IsADirectoryError(f"`{name}` must be a file. Received: {path}, a directory")
