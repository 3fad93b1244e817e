"""Stops a run after the current step when a signal comes, or when nobody reads its lines."""

import contextlib
import signal
import sys
import threading

# SIGHUP comes when the terminal is closed. Windows does not have it.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
]


class StopRequest:
    """A context in which the first SIGTERM, SIGHUP or Ctrl-C does not end the process.

    It is only recorded. A second signal of the same kind ends the process as usual. A signal that
    the process was told to ignore, as `nohup` does, stays ignored.

    Attributes:
      is_requested: Whether a signal has come.
      name: Name of the signal, or of the other source of the request.
    """

    def __init__(self):
        """Makes the context. It handles signals only after it is entered."""
        self.is_requested = False
        self.name = "another worker"
        self._previous = {}

    def __enter__(self):
        """Sets the handlers of the signals, and returns the request."""
        # In Python, only the main thread can set signal handlers.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception):
        """Restores the earlier handlers."""
        for number in self._previous:
            self._restore(number)

    def telling(self, log):
        """Makes a log function that outlives whoever reads its lines.

        If the reader of a pipe is gone, a stop is requested. A terminal that is gone, or a full
        disk under a log file, only loses lines.

        Args:
          log: Function of a string.

        Returns:
          Function of a string.
        """

        def tell(line):
            try:
                log(line)
            except BrokenPipeError:
                self.is_requested = True
                self.name = "a closed pipe"
                with contextlib.suppress(OSError):
                    print(line, file=sys.stderr)
            except OSError:
                pass

        return tell

    def _request(self, number, frame):
        self.is_requested = True
        self.name = signal.Signals(number).name
        self._restore(number)

    def _restore(self, number):
        # Python cannot name a handler that another library has set.
        previous = self._previous[number]
        signal.signal(number, signal.SIG_DFL if previous is None else previous)
