"""Open files, and how many of them have a descriptor at one time.

Owns descriptors: a file keeps its own while somebody uses it or while it holds bytes that were not
synced; of the others, those used least lately give theirs up and are opened again when needed.
Must not know what the files mean. Threads open and sync; only the loop's thread closes, so that a
descriptor can't be reused under a call.

A file that was written keeps its descriptor until it is synced: the kernel reports a lost write to
the descriptors that were open then. Where too many hold on, the oldest are synced ahead of time;
if that fails, whoever asks for a sync of the file later is told (I30).
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from errno import EAGAIN, EBADF, EINVAL, EIO, EOPNOTSUPP

from ottla.core.ports import Buffer, DiskError
from ottla.host import linux

_UNREADABLE_MAX = 64
"""Unreadable places remembered of a file. Who comes upon a forgotten one finds it again."""
_LOOKS_MAX = 64
"""Files looked at before giving up for now: a search over all of them at each opening would make
opening many slow."""


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file, as an `opener` too. Raises OSError, at once where it is no file: to
    open a pipe waits for who writes it, and a device may be read without end."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        check_regular(os.fstat(fd).st_mode)
    except OSError:
        os.close(fd)
        raise
    return fd


def check_regular(mode: int) -> None:
    """Raises OSError where what is so described is a pipe, a socket or a device."""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # to read a directory is refused anyway
        raise OSError(EINVAL, "it is a pipe, a socket or a device")


class OpenFiles:
    """The files that have a descriptor, the one used longest ago first, as far as is known."""

    __slots__ = ("_files", "_lock", "_syncing", "_thread", "files_max", "sync")

    def __init__(self, files_max: int) -> None:
        self.files_max = files_max
        """How many may have one, but for those that can't do without."""
        self.sync: Callable[[list[OsFile]], None] | None = None
        """Asked to sync files elsewhere, so that they can be closed; calls `synced_ahead` then."""
        self._files: OrderedDict[OsFile, None] = OrderedDict()
        self._lock = threading.Lock()
        self._syncing = False
        self._thread = threading.get_ident()

    def __len__(self) -> int:
        return len(self._files)

    def opened(self, path: str, file: OsFile, flags: int) -> int:
        """Open a file's descriptor. On any thread. Raises OSError."""
        with self._lock:
            if file.descriptor < 0:  # two threads may have found it closed
                file.descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
                self._files[file] = None
            return file.descriptor

    def close(self, file: OsFile) -> None:
        """Close a file's descriptor, if it has one. On the loop's thread."""
        with self._lock:
            fd, file.descriptor = file.descriptor, -1
            self._files.pop(file, None)
        if fd >= 0:
            # Closed all the same. What a network's file system tells us only here was never synced,
            # so nobody was told that it is safe; who closes has nobody to tell, and would end.
            with suppress(OSError):
                os.close(fd)

    def trim(self) -> None:
        """Close what is over the limit and not needed. Nothing, but on the loop's thread."""
        over = len(self._files) - self.files_max
        if over <= 0 or threading.get_ident() != self._thread:
            return  # what another thread opens too many is closed when its result is delivered
        dirty: list[OsFile] = []
        for _ in range(min(over + _LOOKS_MAX, len(self._files))):
            with self._lock:
                file = next(iter(self._files))
                self._files.move_to_end(file)
            if file.users:
                continue
            if file.used_lately:
                file.used_lately = False  # a second chance
            elif file.unsynced:
                dirty.append(file)
            else:
                self.close(file)
                over -= 1
                if over <= 0:
                    return
        if dirty and self.sync is not None and not self._syncing:
            self._syncing = True
            self.sync(dirty)

    def synced_ahead(self) -> None:
        """What `sync` was asked for is done. On the loop's thread."""
        self._syncing = False
        self.trim()


class OsFile:
    """A file by its path, with a descriptor when it needs one. See the port `File`."""

    __slots__ = (
        "_closing",
        "_files",
        "_nowait",
        "_path",
        "descriptor",
        "failure",
        "unreadable",
        "unsynced",
        "used_lately",
        "users",
    )

    def __init__(self, path: str, files: OpenFiles, nowait: bool) -> None:
        self._path = path
        self._files = files
        self._nowait = nowait
        self._closing = False
        self.descriptor = -1
        self.users = 0
        self.used_lately = True
        self.unsynced = False
        """Whether it was written since a sync last began."""
        self.unreadable: tuple[int, ...] = ()
        self.failure: DiskError | None = None
        """Why a sync failed that nobody had asked for: whoever asks for the next is told."""

    @property
    def path(self) -> str:
        return self._path

    def fileno(self) -> int:
        self.used_lately = True
        fd = self.descriptor
        return fd if fd >= 0 else self._open_inline()

    def open(self, action: str = "open", flags: int = os.O_RDWR) -> int:
        """Get a descriptor, and let others give up theirs later. Raises DiskError."""
        if self._closing:  # its name may be another file's by now
            raise DiskError(action, self._path, OSError(EBADF, "the file is closed"))
        try:
            return self._files.opened(self._path, self, flags)
        except OSError as error:
            raise DiskError(action, self._path, error) from error

    @property
    def gone(self) -> bool:
        """Whether it was closed without a descriptor: nothing can be had of it any more."""
        return self._closing and self.descriptor < 0

    def size(self) -> int:
        try:
            fd = self.descriptor
            found = os.fstat(fd) if fd >= 0 else os.stat(self._path)
            check_regular(found.st_mode)
        except OSError as error:
            raise DiskError("stat", self._path, error) from error
        return found.st_size

    def write(self, data: Buffer, position: int) -> None:
        fd = self.descriptor
        if fd < 0:
            fd = self._open_inline()
        try:
            written = os.pwrite(fd, data, position)
            if written != len(data):
                self._write_rest(memoryview(data), written, position)
        except OSError as error:
            raise DiskError("write", self._path, error) from error
        finally:
            # After the write, never before: a sync that begins in between would forget it.
            self.unsynced = self.used_lately = True

    def _write_rest(self, data: memoryview, written: int, position: int) -> None:
        # A short write is how a disk that is filling up, or a limit, announces the error that
        # the next call then names.
        while written < len(data):
            count = os.pwrite(self.descriptor, data[written:], position + written)
            if count == 0:
                raise OSError(EIO, "the write stayed short")
            written += count

    def _open_inline(self) -> int:
        """On the loop, for an append to a file that had given up its descriptor: it has no way to
        wait. To look up a name costs microseconds; where the directory is not in memory, a read of
        the disk. Only logs past `file.descriptors.logs.max` that were idle meanwhile come here."""
        fd = self.open()
        self.used_lately = True
        self._files.trim()
        return fd

    def read(self, position: int, length: int) -> bytes:
        fd = self.descriptor
        if fd < 0:
            fd = self._open_inline()
        missing = length
        try:
            found = os.pread(fd, length, position)
            if len(found) != length and found:
                parts = [found]
                missing -= len(found)
                while more := os.pread(fd, missing, position + length - missing):
                    parts.append(more)
                    missing -= len(more)
                found = b"".join(parts)
        except OSError as error:
            self.refused(position + length - missing)
            raise DiskError("read", self._path, error) from error
        if self.unreadable:
            self.given(position, position + length)
        return found

    def refused(self, position: int) -> None:
        # Replaced whole, and never changed: threads note what they meet, and the loop looks.
        if position not in self.unreadable:
            self.unreadable = (*self.unreadable, position)[-_UNREADABLE_MAX:]

    def given(self, start: int, end: int) -> None:
        """These bytes were read: what was refused of them once is no longer."""
        self.unreadable = tuple(at for at in self.unreadable if not start <= at < end)

    def read_nowait(self, position: int, length: int) -> bytes | None:
        if not self._nowait:
            return self.read(position, length)
        fd = self.descriptor
        if fd < 0:
            return None  # to open it may wait for the disk: `warm` does that elsewhere
        self.used_lately = True
        found = bytearray(length)
        try:
            count = linux.read_resident(fd, found, position)
        except OSError as error:
            if error.errno == EAGAIN:
                return None
            if error.errno != EOPNOTSUPP:
                raise DiskError("read", self._path, error) from error
            self._nowait = False  # a file system without it: better to wait than not to read
            return self.read(position, length)
        if count == length:
            return bytes(found)
        if position + count >= self.size():
            return bytes(found[:count])
        return None  # only the first pages were there

    def truncate(self, size: int) -> None:
        fd = self.descriptor
        if fd < 0:
            fd = self._open_inline()
        try:
            os.ftruncate(fd, size)
        except OSError as error:
            raise DiskError("truncate", self._path, error) from error
        finally:
            self.unsynced = True

    def sync(self, sync: Callable[[int], object]) -> None:
        """Sync by this call, on any thread. Raises DiskError, also for a sync before it."""
        if self.failure is not None:
            raise self.failure
        if self.gone:
            return  # it lost its descriptor when all was synced
        fd = self.fileno()
        self.unsynced = False  # before it: what is written meanwhile is not covered
        try:
            sync(fd)
        except OSError as error:
            self.unsynced = True
            self.failure = DiskError("sync", self._path, error)
            raise self.failure from error

    def retain(self) -> None:
        assert not self._closing or self.users, f"{self._path} is closed"
        self.users += 1

    def release(self) -> None:
        assert self.users > 0, f"{self._path} was released more often than retained"
        self.users -= 1
        if self._closing and self.users == 0:
            self._files.close(self)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self.users == 0:
            self._files.close(self)
