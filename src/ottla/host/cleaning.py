"""Compaction in a process of its own, and how it leaves the machine to others.

Owns what a worker process keeps between the pieces of one round, its pace, and what it does to the
page cache: what it has brought in itself it sends out again. Must not decide what is compacted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from ottla.core.pending import Pending
from ottla.core.ports import Clock, DiskError, File, Offload, OffloadError, Timers
from ottla.host.disk import OsDisk
from ottla.host.files import OsFile
from ottla.host.mailbox import WakeLoop
from ottla.host.offload import WorkerOffload
from ottla.storage.cleaner.cleaner import Failure
from ottla.storage.cleaner.round import Cleaned, Noted, Piece, Plan, Round, Uncleanable
from ottla.storage.cleaner.swap import CLEANED
from ottla.storage.segment import stem

if TYPE_CHECKING:
    from ottla.core.config import Config
    from ottla.replication.table import PartitionTable

NICENESS: Final = 10
"""A worker gives way to the broker where there is one core for both."""
RESTS_MAX: Final = 4
"""How often a worker rests, with nothing to do in between, before its process ends."""
_TASKS_MAX: Final = 4  # one, and beside it what lets go of the one before
_TASK_S: Final = 7 * 24 * 3600.0
"""How long one piece may take: as good as for ever, since a slow pace can be asked for."""
_BUGS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What comes back of a fault in our own code: a partition must not be tried for ever because of
it, nor the others be left uncompacted."""


class QuietFile(OsFile):
    """A file that is read without changing what is in the page cache."""

    __slots__ = ("_advised", "absent_bytes")

    def __init__(self, path: str, disk: OsDisk, nowait: bool) -> None:
        super().__init__(path, disk.open_files, nowait)
        self.absent_bytes = 0
        """How much of what was read had to come from the disk."""
        self._advised = False

    def read(self, position: int, length: int) -> bytes:
        fd = self.fileno()
        if not self._nowait or not hasattr(os, "posix_fadvise"):
            return super().read(position, length)
        if not self._advised:
            # No reading ahead: those pages would look as if somebody had wanted them.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            self._advised = True
        found = self.read_nowait(position, length)
        if found is None:
            found = super().read(position, length)
            os.posix_fadvise(fd, position, len(found), os.POSIX_FADV_DONTNEED)
            self.absent_bytes += len(found)
        return found


class QuietDisk(OsDisk):
    """The disk of a worker: nothing of it is done on another thread."""

    def __init__(self) -> None:
        super().__init__(_no_loop)
        self.opened: list[QuietFile] = []

    def open(self, path: str) -> File:
        file = QuietFile(path, self, nowait=not self._portable)
        self.opened.append(file)
        return file

    def forget(self) -> int:
        """How many bytes were read from the disk since this was last asked."""
        opened, self.opened = self.opened, []
        return sum(file.absent_bytes for file in opened)


def _no_loop(_call: Any) -> None:
    raise AssertionError("a worker's disk has no loop")


class Pace:
    """Sleeps where bytes go by faster than they may."""

    def __init__(self, bytes_per_s_max: float) -> None:
        self._bytes_per_s_max = bytes_per_s_max
        self._free_at = 0.0

    def __call__(self, count: int) -> None:
        if self._bytes_per_s_max >= 1e18:  # no limit
            return
        now = monotonic()
        self._free_at = max(self._free_at, now) + count / self._bytes_per_s_max
        if self._free_at > now:
            sleep(self._free_at - now)


# --- in the worker process ---------------------------------------------------------------------


class _Begun:
    """A round that a worker is in the middle of."""

    def __init__(self, plan: Plan, bytes_per_s_max: float) -> None:
        self.disk = QuietDisk()
        self.plan = plan
        self.round = Round(self.disk, plan, Pace(bytes_per_s_max))


_begun: dict[int, _Begun] = {}  # by nothing: there is one at most


def note(plan: Plan, bytes_per_s_max: float) -> Noted | Failure:
    """Begin a round, in place of any before."""
    _begun.clear()
    os.nice(max(NICENESS - os.nice(0), 0))
    try:
        begun = _begun[0] = _Begun(plan, bytes_per_s_max)
        return begun.round.note()
    except (Uncleanable, DiskError) as error:
        return Failure(str(error), isinstance(error, Uncleanable))


def clean(group: Sequence[Piece]) -> Cleaned | Failure:
    """Write a group of the round's segments anew."""
    begun = _begun.get(0)
    if begun is None:
        return Failure("the worker process was started anew", lasting=False)
    try:
        cleaned = begun.round.clean(group)
    except (Uncleanable, DiskError) as error:
        return Failure(str(error), isinstance(error, Uncleanable))
    if begun.disk.forget() * 2 > sum(piece.size for piece in group):
        # Nobody has read the old ones lately. (Synced by now, or its pages could not go.)
        _send_out(f"{stem(begun.plan.directory, cleaned.base_offset)}.log{CLEANED}")
    return cleaned


def forget() -> None:
    """Let go of the last round: the table of keys may be large."""
    _begun.clear()


def _send_out(path: str) -> None:
    if hasattr(os, "posix_fadvise"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


# --- in the broker -----------------------------------------------------------------------------


class CleaningWorker:
    """The port `cleaner.Work`: a worker process, started when there is something to do."""

    def __init__(self, wake_loop: WakeLoop) -> None:
        self.offload = WorkerOffload(wake_loop, budget_s=_TASK_S, tasks_max=_TASKS_MAX)
        self._rests_count = RESTS_MAX  # since the last round: there was none

    def note(self, plan: Plan, bytes_per_s_max: float) -> Pending[Noted | Failure]:
        self._rests_count = 0
        return asked(self.offload, note, plan, bytes_per_s_max)

    def clean(self, group: Sequence[Piece]) -> Pending[Cleaned | Failure]:
        return asked(self.offload, clean, group)

    def rest(self) -> None:
        """Give back the memory at once, and the process when it was not needed for a while.

        To start one takes a third of a second of CPU: too much for every look at a busy topic.
        """
        self._rests_count += 1
        if self._rests_count == 1:
            self.offload.run(forget)
        elif self._rests_count == RESTS_MAX:
            self.offload.rest()

    def close(self) -> None:
        """End the process now."""
        self.offload.close()


class Compaction:
    """A node's cleaner and its worker, from now until `close`."""

    def __init__(
        self,
        table: PartitionTable,
        config: Config,
        ports: tuple[Clock, Timers],
        wake_loop: WakeLoop,
    ) -> None:
        from ottla.replication.compaction import cleaner_of  # not for the worker, which is small

        self.work = CleaningWorker(wake_loop)
        self.cleaner = cleaner_of(table, config, ports, self.work)
        self.cleaner.start()

    def close(self) -> None:
        """What is under way comes to nothing; what was put in place already stays."""
        self.cleaner.stop()
        self.work.close()


def asked(offload: Offload, work: Any, *arguments: Any) -> Pending[Any]:
    """What a task returns, or as a Failure why it did not."""
    outcome: Pending[Any] = Pending()
    running = offload.run(work, *arguments)

    def finish() -> None:
        try:
            result = running.result()
        except (OffloadError, MemoryError) as error:
            result = Failure(f"the worker process for compaction: {error!r}", lasting=False)
        except _BUGS as error:
            result = Failure(f"a fault of ottla's: {error!r}", lasting=True)
        outcome.complete(result)

    running.then(finish)
    return outcome
