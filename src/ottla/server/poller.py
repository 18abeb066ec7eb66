"""Readiness of many sockets, told to their drivers without asyncio in between.

Owns one epoll for all connections of a node, and which calls it makes. The loop watches its
descriptor alone: for each turn it makes one call here, and this makes one call for each socket
that is ready. asyncio's own way, by a selector key, a queue and a Handle run in a context, costs
a microsecond more for each event, of the 25 that a produced record takes at depth 1.

Where there is no epoll, the loop itself is the `Readiness` that drivers are given.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable
from typing import Protocol

_EVENTS_MAX = 256  # of one turn: the rest comes with the next
_IN: int = getattr(select, "EPOLLIN", 1)
_OUT: int = getattr(select, "EPOLLOUT", 4)


class Readiness(Protocol):
    """Who calls when a descriptor is ready. Each call is replaced by the next for its side."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object: ...

    def remove_reader(self, fd: int, /) -> object: ...

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> object: ...

    def remove_writer(self, fd: int, /) -> object: ...


class Poller:
    """`Readiness` over an epoll of its own. Level-triggered, as asyncio's is.

    A call must not raise: the sockets behind it would wait for the next turn.
    """

    __slots__ = ("_epoll", "_loop", "_readers", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        assert sys.platform == "linux", "only Linux has epoll"
        self._loop = loop
        self._readers: dict[int, Callable[[], object]] = {}
        self._writers: dict[int, Callable[[], object]] = {}
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._poll)

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> None:
        before = self._interest(fd)
        self._readers[fd] = callback
        self._change(fd, before)

    def remove_reader(self, fd: int, /) -> None:
        before = self._interest(fd)
        self._readers.pop(fd, None)
        self._change(fd, before)

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> None:
        before = self._interest(fd)
        self._writers[fd] = callback
        self._change(fd, before)

    def remove_writer(self, fd: int, /) -> None:
        before = self._interest(fd)
        self._writers.pop(fd, None)
        self._change(fd, before)

    def close(self) -> None:
        """Watch nothing any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self.forget_in_child()

    def forget_in_child(self) -> None:
        """In a forked process: close its copy, without a word to the loop."""
        self._epoll.close()

    def _interest(self, fd: int) -> int:
        return (_IN if fd in self._readers else 0) | (_OUT if fd in self._writers else 0)

    def _change(self, fd: int, before: int) -> None:
        now = self._interest(fd)
        if now == before:
            return
        if not before:
            self._epoll.register(fd, now)
        elif now:
            self._epoll.modify(fd, now)
        else:  # with no interest left, an epoll would still tell of errors
            self._epoll.unregister(fd)

    def _poll(self) -> None:
        readers, writers = self._readers, self._writers
        for fd, event in self._epoll.poll(0, _EVENTS_MAX):
            # Looked up for each: what was called before may have closed this one.
            if event != _OUT and (call := readers.get(fd)) is not None:
                call()
            if event != _IN and (call := writers.get(fd)) is not None:
                call()
