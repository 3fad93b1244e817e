"""How a run is asked to stop by a signal."""

import signal
import threading


class StopRequest:
    """A context in which SIGTERM and Ctrl-C only leave a wish to stop; a second one is obeyed.

    Attributes:
      is_requested: Whether a signal has come.
      name: The signal, or who else has asked.
    """

    def __init__(self):
        """Makes the context; signals are taken once it is entered."""
        self.is_requested = False
        self.name = "another worker"
        self._previous = {}

    def __enter__(self):
        """Takes both signals; returns the request."""
        # Python lets the main thread alone have a say in signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception):
        """Gives them back to who had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number, frame):
        self.is_requested = True
        self.name = signal.Signals(number).name
        signal.signal(number, self._previous[number])
