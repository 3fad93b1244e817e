"""The lock of a run's directory: one process at a time writes to it.

The lock is one of the operating system, on the file RUN_DIR/.lock. The system releases it when the
process ends, however it ends. The file itself stays. While it is locked, it says who holds it.
"""

import contextlib
import errno
import os
import pathlib
import secrets
import socket
import threading

try:
    import fcntl
except ImportError:  # Windows does not have it.
    fcntl = None

_NAME = ".lock"
# What a disk answers that has no locks, such as some network disks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
# {real path of a run: RunLock}, for each thread.
_HELD = threading.local()


class RunLock:
    """The lock on the directory of a run. `locked` makes it.

    Attributes:
      is_real: Whether other processes are kept out. False on a disk that has no locks.
    """

    def __init__(self, run_dir):
        """Takes the lock.

        Args:
          run_dir: Path of an existing directory.

        Raises:
          OSError: If another process holds the lock, or the directory cannot be written.
        """
        self._run_dir = pathlib.Path(run_dir)
        self._path = self._run_dir / _NAME
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self.is_real = self._is_locked()
            self._owner = f"process {os.getpid()} on {socket.gethostname()}".encode()
            # The same process may lock another file at the same path later.
            self._owner += f" ({secrets.token_hex(8)})\n".encode()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, self._owner, 0)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _is_locked(self):
        """Locks the file. False if the disk has no locks."""
        if fcntl is None:
            return False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 200, 0).decode(errors="replace").partition(" (")[0]
            raise BlockingIOError(
                f"Another process writes to {self._run_dir} ({owner or 'unknown'}): wait until it "
                "has ended, or choose another --save_dir."
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return False
        return True

    def check(self):
        """Checks that the directory still lies where it was locked.

        Raises:
          FileNotFoundError: If it was removed, moved or replaced by another.
        """
        try:
            owner = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            owner = None
        except OSError:  # The disk fails for a moment. Who writes next will tell.
            return
        if owner is None or (self.is_real and owner != self._owner):
            raise FileNotFoundError(
                f"{self._run_dir} was removed, moved or replaced while this process wrote to it. "
                "Nothing more is written there; where it was moved to, it goes on with "
                "--load_params."
            )

    def release(self):
        """Releases the lock."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


@contextlib.contextmanager
def locked(run_dir):
    """A context in which only this thread writes to the directory of a run.

    Within the context, the same thread may enter it again.

    Args:
      run_dir: Path of the run. It is created if it is missing.

    Yields:
      RunLock.

    Raises:
      OSError: If another process writes to the directory, if it was removed or moved since this
        thread has locked it, or if it cannot be written.
    """
    held = vars(_HELD)
    key = os.path.abspath(run_dir)
    if key in held:
        held[key].check()
        yield held[key]
        return
    pathlib.Path(run_dir).mkdir(parents=True, exist_ok=True)
    held[key] = lock = RunLock(run_dir)
    try:
        yield lock
    finally:
        del held[key]
        lock.release()
