"""Stops a run after the current step when a signal comes."""

import signal
import threading


class StopRequest:
    """A context in which the first SIGTERM or Ctrl-C does not end the process but is recorded.

    A second signal ends the process as usual.

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
        """Sets the handlers of both signals, and returns the request."""
        # In Python, only the main thread can set signal handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception):
        """Restores the earlier handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number, frame):
        self.is_requested = True
        self.name = signal.Signals(number).name
        signal.signal(number, self._previous[number])
