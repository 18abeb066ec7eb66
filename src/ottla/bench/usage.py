"""What a process uses, as the kernel counts it: CPU, memory; and what machine this is.

Owns the reading of Linux's /proc. Must not start or load anything. Raises OSError where there is
no such process, and Unmeasurable where there is no /proc.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOUCHED_MIB = 640
"""A kernel that reports free pages hands them back to the host once about a GiB of them waits, and
whoever writes there next pays 1 s/GB for them: touch less than that, and send less still."""
TOUCHED_PIECE_BYTES = 1 << 20
_SMALL_PIECE_BYTES = 4096
_SMALL_SHARE = 10  # one part in so many is touched page by page

IN_MEMORY = frozenset({"tmpfs", "ramfs"})

_TICKS = os.sysconf("SC_CLK_TCK")
_LISTENS = "0A"


class Unmeasurable(Exception):
    """This system doesn't say what a process uses."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds, of a process, its threads and its children, in steps of 10 ms."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.user - other.user, self.system - other.system)


def touch_memory(mib: int = TOUCHED_MIB, piece_bytes: int = TOUCHED_PIECE_BYTES) -> None:
    """Touch and free pages: on a virtual machine the first touch of a page is paid to the host.

    By a file that is written in pieces of `piece_bytes`, as the load will write its log: a kernel
    finds a place for a large write among its large free blocks, which are other pages than those
    that a process gets one by one.
    """
    if mib <= 0:
        return
    with tempfile.TemporaryFile(buffering=0) as file:
        small = (mib << 20) // _SMALL_SHARE
        for size, total in (
            (_SMALL_PIECE_BYTES, small),
            (max(piece_bytes, _SMALL_PIECE_BYTES), (mib << 20) - small),
        ):
            piece = bytes(size)
            for _ in range(total // size):
                file.write(piece)


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from family(int(child))


def cpu(pid: int) -> Cpu:
    """User and system time of a process, its threads and its children, reaped ones too."""
    if sys.platform != "linux":
        raise Unmeasurable("the CPU of another process is read from /proc, which is Linux's")
    user = system = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            times = stat_times(Path(f"/proc/{one}/stat").read_text())
            user, system = user + times[0], system + times[1]
    return Cpu(user / _TICKS, system / _TICKS)


def stat_times(stat: str) -> tuple[int, int]:
    """User and system ticks of a line of /proc/PID/stat, reaped children included."""
    # The name stands in parentheses and may hold spaces and parentheses itself.
    user, system, children_user, children_system = map(int, stat.rpartition(")")[2].split()[11:15])
    return user + children_user, system + children_system


def run_seconds(pid: int) -> float:
    """Time on a CPU of the threads that live now, in steps far below 10 ms: for what is idle."""
    total = 0
    for one in family(pid):
        for file in Path(f"/proc/{one}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(file.read_text().split()[0])
    return total / 1e9


@contextlib.contextmanager
def on_one_processor(pid: int) -> Iterator[None]:
    """This process and another, all its threads and children, on one and the same processor."""
    tasks = [0, *(int(task.name) for one in family(pid) for task in _tasks(one))]
    before = {task: os.sched_getaffinity(task) for task in tasks}
    one = {min(before[0])}
    try:
        for task in tasks:
            _place(task, one)
        yield
    finally:
        for task, processors in before.items():
            _place(task, processors)


def _tasks(pid: int) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from Path(f"/proc/{pid}/task").iterdir()


def _place(task: int, processors: set[int]) -> None:
    with contextlib.suppress(ProcessLookupError):  # a thread that has ended meanwhile
        os.sched_setaffinity(task, processors)


def resident_bytes(pid: int) -> int:
    """Memory in RAM of a process and its descendants; pages they share count for each."""
    pages = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE


def listening_inodes(table: str, port: int) -> set[str]:
    """The sockets that listen on a port, of the text of /proc/net/tcp."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {
        row[9] for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port
    }


def listening_pid(port: int) -> int | None:
    """The process that listens on a port of this machine; None if it can't be seen."""
    inodes: set[str] = set()
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            inodes |= listening_inodes(Path(file).read_text(), port)
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(os.readlink(entry) in wanted for entry in folder.iterdir()):
                return int(folder.parent.name)
    return None


def stolen_share(before: str, after: str) -> float:
    """Of two texts of /proc/stat: the share of all CPU time that the host gave to others."""
    ticks = [list(map(int, text.split("\n", 1)[0].split()[1:9])) for text in (before, after)]
    spent = [late - early for early, late in zip(*ticks, strict=True)]
    return spent[7] / sum(spent) if sum(spent) else 0.0


def file_system(path: str, mounts: str | None = None) -> str:
    """The kind of file system that a path lies on (ext4, tmpfs …); "" where nobody tells.

    `mounts` is the text of /proc/self/mountinfo.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return ""
    path, found, longest = os.path.realpath(path), "", -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")  # a space is \\040
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # a later mount hides an earlier one
            found, longest = after.split()[0], len(point)
    return found


def machine() -> str:
    """One line: the processor, how many, the kernel, the Python."""
    model = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return (
        f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )
