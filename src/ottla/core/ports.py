"""The ports: what the core asks of the outside world.

Implemented by `host/` for the real machine and by `testing/` for a simulated one. Whatever
can wait returns a `Pending`, completed on the loop. Must not hold any implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from ottla.core.model import FileSlice, Offset
from ottla.core.pending import Pending
from ottla.core.value import Value

Buffer: TypeAlias = bytes | bytearray | memoryview
T = TypeVar("T")


class Clock(Protocol):
    """Two clocks. Safety never depends on the wall clock (I54)."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970: for timestamps in records and logs, nothing else."""

    def monotonic(self) -> float:
        """Seconds that never run backwards: for deadlines and durations."""


class Uptime(Protocol):
    """A clock that nobody sets, and that goes on while the machine sleeps."""

    def since_boot(self) -> float:
        """Seconds, counted through suspension too: what the wall clock should have gone by."""


class Timer(Protocol):
    """A call that has not happened yet."""

    def cancel(self) -> None:
        """Take the call back. Harmless after it happened."""


class Timers(Protocol):
    """Calls at a later time, on the loop's thread."""

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call once, `delay_s` from now or a little (≤ 20 ms) later."""

    def soon(self, call: Callable[[], None]) -> None:
        """Call once, when what runs now has returned."""


class DiskError(Exception):
    """The disk refused: EIO, ENOSPC, a short write that stayed short. Ours, never the client's."""

    def __init__(self, action: str, path: str, cause: OSError) -> None:
        super().__init__(f"{action} {path}: {cause.strerror or cause}")
        self.action = action
        self.path = path
        self.errno = cause.errno


class File(Protocol):
    """A file of a log. Writes and non-blocking reads are inline: they go to the page cache.

    `retain` and `release` count those who still need it (a slice being sent, a sync round);
    `close` takes effect when the last of them has let go. How long it keeps a descriptor is the
    disk's business, so any call may raise DiskError where there is none to be had.
    """

    @property
    def path(self) -> str: ...

    @property
    def unreadable(self) -> tuple[int, ...]:
        """Where the disk has refused reads and has not given any since; there may be more."""

    def refused(self, position: int) -> None:
        """Remember that the disk can't read what is at `position`. Reads note it themselves."""

    def fileno(self) -> int:
        """The descriptor, for sendfile: who uses it tells `refused` what it is refused."""

    def size(self) -> int:
        """Length in bytes, asked of the file system."""

    def write(self, data: Buffer, position: int) -> None:
        """Write all of `data`. Raises DiskError; what then lies past `position` is unknown."""

    def read(self, position: int, length: int) -> bytes:
        """Up to `length` bytes, fewer only at the file's end. Blocks: at start and in tools."""

    def read_nowait(self, position: int, length: int) -> bytes | None:
        """As `read`, or None where the bytes are not in the page cache: then `Disk.warm` them."""

    def truncate(self, size: int) -> None:
        """Cut to `size`, which also frees what was reserved past it."""

    def retain(self) -> None: ...

    def release(self) -> None: ...

    def close(self) -> None:
        """Never fails."""


# Steps are values, so that a simulated disk can crash between any two of them.


class MakeDirectory(Value):
    """Make a directory and its parents; fine if it is there, unless it must be `new`."""

    path: str
    new: bool = False


class CreateFile(Value):
    """Make or truncate a file, write `content`; its File is in the result of `perform`."""

    path: str
    content: bytes = b""


class OpenFile(Value):
    """Open an existing file; its File is in the result of `perform`.

    `becomes` is the name that it will have: the next steps are to give it that. Until then the
    File must be retained, since it can't be opened by that name again.
    """

    path: str
    becomes: str


class ReplaceFile(Value):
    """Put a whole new content in place of a small file: write aside, fsync, rename.

    The directory is synced too when `sync_directory`: needed where something depends on it.
    """

    path: str
    content: bytes
    sync_directory: bool = True


class RenamePath(Value):
    """Rename a file or directory; does not sync the directory."""

    source: str
    target: str


class UnlinkFile(Value):
    """Remove a file; fine if it is not there."""

    path: str


class RemoveTree(Value):
    """Remove a directory with all in it; fine if it is not there."""

    path: str


class ReserveSpace(Value):
    """Ask for `length` bytes of blocks from `position` on, without changing the file's length.

    A hint: where the file system can't, nothing happens.
    """

    file: File
    position: int
    length: int


class SyncDirectory(Value):
    """Make the names in a directory durable."""

    path: str


class SyncFile(Value):
    """Make a file's bytes durable (fdatasync)."""

    file: File


Step: TypeAlias = (
    MakeDirectory
    | CreateFile
    | OpenFile
    | ReplaceFile
    | RenamePath
    | UnlinkFile
    | RemoveTree
    | ReserveSpace
    | SyncDirectory
    | SyncFile
)


class Space(NamedTuple):
    """Bytes and files of a file system: all, and those that we may still use."""

    total: int
    usable: int
    files: int = 0
    """0 where their number is not fixed."""
    files_usable: int = 0


class Disk(Protocol):
    """A file system. The first group blocks: at start, at stop and in tools only."""

    def names(self, path: str) -> list[str]:
        """Names in a directory, sorted; empty if there is no such directory."""

    def read_file(self, path: str) -> bytes | None:
        """A small file's whole content; None if there is no such file."""

    def read_ahead(self, logs: Sequence[tuple[str, Offset | None]]) -> Callable[[], None]:
        """Begin to bring directories of logs into memory: they are about to be opened.

        Each with the offset from which it will be read again; None where only ends are looked at.
        A hint, which never fails. What is returned waits until it is done.
        """

    def open(self, path: str) -> File:
        """An existing file for reading and writing. May be opened at its first use only."""

    def perform_now(self, steps: Sequence[Step]) -> list[File]:
        """Do the steps in order, at once; the Files of its CreateFile and OpenFile steps.

        Raises DiskError.
        """

    # From here on nothing blocks; each Pending fails with DiskError.

    def perform(self, steps: Sequence[Step]) -> Pending[list[File]]:
        """Do the steps in order, elsewhere; the Files of its CreateFile and OpenFile steps."""

    def perform_aside(self, steps: Sequence[Step]) -> Pending[list[File]]:
        """As `perform`, but in an order of its own beside that one: for what may take long."""

    def sync(self, files: Sequence[File], directories: Sequence[str]) -> Pending[None]:
        """fdatasync every file and fsync every directory, several at a time."""

    def warm(self, piece: FileSlice, *, ahead: bool = False) -> Pending[None]:
        """Bring a slice's pages into the page cache. Doesn't release the slice.

        `ahead`: nobody waits for them yet, so that others go first.
        """

    def examine(self, file: File, look: Callable[[File], T]) -> Pending[T]:
        """What `look` finds in a file, called elsewhere: it may block, and touches nothing else.

        The file is retained until then. Fails with DiskError if `look` does."""

    def space(self, path: str) -> Pending[Space]:
        """How much room the file system below `path` has."""


class OffloadError(Exception):
    """The work was not done: too much of it waits, it was too slow, or its process ended."""


class Offload(Protocol):
    """Work that would hold up the loop, done in a worker process."""

    def run(self, work: Callable[..., Any], *arguments: Any) -> Pending[Any]:
        """Call a module-level function with picklable arguments.

        The Pending has its result, or fails with what it raised or with OffloadError.
        """
