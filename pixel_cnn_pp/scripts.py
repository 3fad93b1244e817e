"""What the scripts share: quiet start, positional arguments, one line for a user's mistake."""

import contextlib
import importlib
import os
import re
import sys

from absl import app, flags, logging


def run(main, arguments=(), on_tensorflow=True):
    """Parses the command line and calls `main`; flags may stand before or behind the arguments.

    A ValueError, OSError or FloatingPointError becomes one line and exit status 1; its traceback
    is shown with --verbosity=1.

    Args:
      main: Function, called with the positional arguments.
      arguments: Their names, as the usage shows them.
      on_tensorflow: Whether the script runs on TensorFlow, which is then imported quietly before
        `main`; otherwise it need not be installed.
    """

    def checked(argv):
        name, *given = argv
        script = os.path.basename(name)
        if len(given) != len(arguments):
            usage = " ".join(["usage: python", script, *arguments, "[flags]"])
            sys.exit(f"{usage}  (python {script} --help lists the flags). Received: {given}")
        try:
            if on_tensorflow:
                _import_tensorflow()
            if not flags.FLAGS["verbosity"].present:
                logging.set_verbosity(logging.WARNING)
            main(*given)
        except (ValueError, OSError, FloatingPointError) as error:
            logging.debug("Traceback:", exc_info=True)
            sys.exit(f"{script}: {' '.join(str(error).split())}")

    # Lines reach a pipe or a file when they are printed, also those of a run that is killed later.
    sys.stdout.reconfigure(line_buffering=True)
    flags.FLAGS.set_gnu_getopt()
    app.run(checked)


def parse_image_size(text):
    """Height and width from what a flag says.

    Args:
      text: A string, 64 or 48x64 (height x width).

    Returns:
      Height and width.

    Raises:
      ValueError: If it is another.

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


def _import_tensorflow():
    """Imports TensorFlow and lets it find its devices without the notes it prints on the way.

    They come from C++ before any log level is read, and tell a user without a GPU of errors.
    """
    # Of several workers, one that is lost is an exception in the others, so that what C++ tells of
    # it beforehand is not needed.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if os.environ.get("TF_CONFIG") else "2")
    # Left alone, TensorFlow uses oneDNN on the newest CPUs only; it is faster on older ones too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _silent_stderr():
        importlib.import_module("tensorflow").config.list_physical_devices()


@contextlib.contextmanager
def _silent_stderr():
    """Sends what is written to file descriptor 2 to nowhere; exceptions pass as always."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def check_writable(name, path):
    """Complains before the work that a file cannot be written, not behind it; makes its folders.

    Args:
      name: The flag that names the file.
      path: File to write or replace.

    Raises:
      OSError: If it cannot be.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"`{name}` must lie in a directory to write to. Received: {path}")
    if os.path.isdir(path):
        raise IsADirectoryError(f"`{name}` must be a file. Received: {path}, a directory")
