"""The lock that keeps a second process out of a data directory.

Owns the `.lock` files this process holds. It is the lock Apache Kafka takes (Java's
`FileChannel.tryLock`, which is fcntl's), so the two exclude each other.
"""

from __future__ import annotations

import fcntl
import os
import threading

_held: set[tuple[int, int]] = set()
_guard = threading.Lock()  # nodes embedded in several threads share the process's locks


class DirectoryInUse(Exception):
    """Another node has the directory. The text names it and says what to do."""

    def __init__(self, directory: str, holder: str) -> None:
        super().__init__(
            f"the data directory {directory} is in use by {holder}: "
            "stop that one first, or choose another directory"
        )
        self.directory = directory


class DirectoryLock:
    """A held lock. It ends with `release`, or with the process."""

    __slots__ = ("_fd", "_identity")

    def __init__(self, fd: int, identity: tuple[int, int]) -> None:
        self._fd = fd
        self._identity = identity

    def release(self) -> None:
        """Let others in. Harmless when repeated. The file stays, as Kafka leaves it."""
        with _guard:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                _held.discard(self._identity)


def lock_directory(directory: str) -> DirectoryLock:
    """Take `directory`/.lock. Raises DirectoryInUse; OSError if the directory can't be written.

    Nothing else in the process may open that file: POSIX drops a process's locks on a file
    when any of its descriptors for it is closed. So who holds it is looked up before opening.
    """
    path = f"{directory}/.lock"
    with _guard:
        if _identity_of(path) in _held:
            raise DirectoryInUse(directory, "another broker in this process")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DirectoryInUse(directory, "another process") from None
        except OSError as error:
            os.close(fd)
            if isinstance(error, PermissionError):  # how some systems say the same
                raise DirectoryInUse(directory, "another process") from None
            raise
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        _held.add(identity)
        return DirectoryLock(fd, identity)


def _forget() -> None:
    """A forked process holds none of its parent's locks, and none of its threads is in here."""
    global _guard  # noqa: PLW0603  # another thread may have held it when the process forked
    _guard = threading.Lock()
    _held.clear()


os.register_at_fork(after_in_child=_forget)


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
