"""An open file of a simulated disk, and the plan of what the disk refuses.

Owns the port `File`: writes that no sync has settled, pages that are not in memory or can't be
read. Must not be kinder than a real file: every call that may fail there can be refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EIO
from typing import TYPE_CHECKING

from ottla.core.ports import Buffer, DiskError
from ottla.testing.simimage import Cut, Node, Write

if TYPE_CHECKING:
    from ottla.testing.simdisk import SimDisk

PAGE = 4096


def error_of(action: str, path: str, number: int) -> DiskError:
    return DiskError(action, path, OSError(number, f"simulated error {number}"))


@dataclass
class Fault:
    """Refuse calls of one kind: `skip` that match pass first, then `times` fail."""

    action: str
    """write, sync, truncate, create, replace, rename, remove, make directory, read, read nowait,
    stat, open, list, warm, examine, reserve, …: every call of the port that may fail has one."""
    errno: int = EIO
    path: str = ""
    """Part of the path; empty matches all."""
    skip: int = 0
    times: int = 1
    short: int = 0
    """How many bytes a refused write leaves behind."""


class SimFile:
    """An open file of a SimDisk. Dead after a crash."""

    def __init__(self, disk: SimDisk, path: str, node: Node) -> None:
        self._disk = disk
        self._path = path
        self.node = node
        self._boot = disk.boots
        self.users = 0
        self.closed = False
        self.unreadable: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        return self._path

    def fileno(self) -> int:
        self._alive()
        self._check("open")
        return id(self) & 0x7FFFFFFF

    def _alive(self) -> None:
        assert self._boot == self._disk.boots, f"{self._path} was open before the crash"
        assert not self.closed or self.users, f"{self._path} is closed"

    def _check(self, action: str) -> None:
        fault = self._disk.due(action, self._path)
        if fault is not None:
            raise error_of(action, self._path, fault.errno)

    def size(self) -> int:
        self._alive()
        self._check("stat")
        return len(self.node.data)

    def write(self, data: Buffer, position: int) -> None:
        self._alive()
        fault = self._disk.due("write", self._path)
        raw = bytes(data)
        if fault is not None:
            self._put(raw[: fault.short], position)
            raise error_of("write", self._path, fault.errno)
        self._put(raw, position)

    def _put(self, raw: bytes, position: int) -> None:
        if raw:
            node = self.node
            grown = position - len(node.data)
            if grown > 0:
                node.data += bytes(grown)
            node.data[position : position + len(raw)] = raw
            node.pending.append(Write(position, raw))
            pages = range(position // PAGE, (position + len(raw) - 1) // PAGE + 1)
            node.absent.difference_update(pages)
            self._disk.log.append(("write", self._path))

    def read(self, position: int, length: int) -> bytes:
        self._alive()
        self._disk.blocks("read", self._path)
        self._check("read")
        self.warm(position, length)
        return bytes(self.node.data[position : position + length])

    def read_nowait(self, position: int, length: int) -> bytes | None:
        self._alive()
        self._check("read nowait")
        if not (self.node.absent | self.node.bad).isdisjoint(self._pages(position, length)):
            return None
        return bytes(self.node.data[position : position + length])

    def _pages(self, position: int, length: int) -> range:
        end = min(position + length, len(self.node.data))
        return range(position // PAGE, (end - 1) // PAGE + 1) if end > position else range(0)

    def warm(self, position: int, length: int) -> None:
        """What `Disk.warm` does to this file. Raises DiskError."""
        pages = self._pages(position, length)
        bad = min(self.node.bad.intersection(pages), default=None)
        self.node.absent.difference_update(page for page in pages if bad is None or page < bad)
        if bad is not None:
            self.refused(max(bad * PAGE, position))
            raise error_of("read", self._path, EIO)
        end = position + length
        self.unreadable = tuple(at for at in self.unreadable if not position <= at < end)

    def refused(self, position: int) -> None:
        if position not in self.unreadable:
            self.unreadable += (position,)

    def truncate(self, size: int) -> None:
        self._alive()
        self._check("truncate")
        if size != len(self.node.data):
            del self.node.data[size:]
            self.node.data += bytes(size - len(self.node.data))
            self.node.pending.append(Cut(size))

    def retain(self) -> None:
        self._alive()
        self.users += 1

    def release(self) -> None:
        assert self.users > 0, f"{self._path} was released more often than retained"
        self.users -= 1

    def close(self) -> None:
        self.closed = True
