"""Readiness of many sockets, told to their drivers without asyncio in between.

Owns the one epoll of a loop, and which calls it makes. It is the selector that the loop waits in,
and calls the drivers of the sockets that are ready before it returns to the loop: a request takes
one epoll_wait, and no selector key, queue and Handle. The loop's own descriptors (its wake-up, the
listeners) stand in the same epoll and are treated as by any selector.

Where there is no epoll, or somebody else made the loop, the loop itself is the `Readiness` that
drivers are given. Design: docs/design/0005-one-socket-one-owner.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import select
import selectors
import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from ottla.core.metrics import TurnTally
from ottla.server.transfer import PORTABLE

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_log = logging.getLogger("ottla.server")

_EVENTS_MAX = 256  # of one turn: the rest comes with the next
_IN: int = getattr(select, "EPOLLIN", 1)
_OUT: int = getattr(select, "EPOLLOUT", 4)


class Readiness(Protocol):
    """Who calls when a descriptor is ready. Each call is replaced by the next for its side."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object: ...

    def remove_reader(self, fd: int, /) -> object: ...

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> object: ...

    def remove_writer(self, fd: int, /) -> object: ...


class Poller(selectors.BaseSelector):
    """A selector, and beside that `Readiness`. Level-triggered, as asyncio's own is.

    A driver's call must not raise: it would end the loop, and every connection with it.
    """

    def __init__(self) -> None:
        assert sys.platform == "linux", "only Linux has epoll"
        self._readers: dict[int, Callable[[], object]] = {}
        self._writers: dict[int, Callable[[], object]] = {}
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._epoll = select.epoll()
        self._wait = self._epoll.poll
        self.tally = TurnTally()

    # --- what drivers use ----------------------------------------------------------------------

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

    # --- what the loop uses: selectors.BaseSelector --------------------------------------------

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        """Raises KeyError for what is registered, as the standard selectors do."""
        fd = _fileno(fileobj)
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} (descriptor {fd}) is registered")
        self._epoll.register(fd, _mask(events))
        self._keys[fd] = key = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """Raises KeyError for what is not registered."""
        key = self._keys.pop(_fileno(fileobj))
        with contextlib.suppress(OSError):  # closed before: then it is not in there any more
            self._epoll.unregister(key.fd)
        return key

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        """Raises KeyError for what is not registered."""
        fd = _fileno(fileobj)
        before = self._keys[fd]
        self._keys[fd] = key = selectors.SelectorKey(fileobj, fd, events, data)
        if events != before.events:
            self._epoll.modify(fd, _mask(events))
        return key

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """What the loop has registered, by descriptor; nothing of the drivers'."""
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait at most `timeout` seconds (None: for ever), call the drivers, return the rest."""
        if timeout is None:
            timeout = -1
        elif timeout > 0:  # whole milliseconds, and rather too late than too early
            timeout = math.ceil(timeout * 1e3) * 1e-3
        else:
            timeout = 0
        ready: list[tuple[selectors.SelectorKey, int]] = []
        readers, writers = self._readers, self._writers
        tally = self.tally
        if not tally.left:
            tally.end(perf_counter())
        events = self._wait(timeout, _EVENTS_MAX)
        tally.left = left = tally.left - 1
        if not left:
            tally.begin(perf_counter())
        for fd, event in events:
            # Looked up for each: what was called before may have closed this one.
            if (call := readers.get(fd)) is not None:
                if event != _OUT:
                    call()
                    if event == _IN:
                        continue
            elif (key := self._keys.get(fd)) is not None:
                told = selectors.EVENT_READ if event & ~_OUT else 0
                told |= selectors.EVENT_WRITE if event & ~_IN else 0
                if told & key.events:
                    ready.append((key, told & key.events))
                continue
            if event != _IN and (call := writers.get(fd)) is not None:
                call()
        return ready

    def close(self) -> None:
        """Watch nothing any more."""
        self._epoll.close()
        for watched in (self._keys, self._readers, self._writers):
            watched.clear()

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


class Loop(asyncio.SelectorEventLoop):
    """An event loop that waits in a `Poller`; `readiness` is what drivers are given."""

    def __init__(self) -> None:
        self.readiness = Poller()
        super().__init__(self.readiness)


def _mask(events: int) -> int:
    reads, writes = events & selectors.EVENT_READ, events & selectors.EVENT_WRITE
    return (_IN if reads else 0) | (_OUT if writes else 0)


def _fileno(fileobj: FileDescriptorLike) -> int:
    return fileobj if isinstance(fileobj, int) else fileobj.fileno()


def new_loop(portable: bool = PORTABLE) -> asyncio.SelectorEventLoop:
    """The loop that a node runs in best. `portable`: without what only Linux has."""
    return asyncio.SelectorEventLoop() if portable else Loop()


def tell_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop called has raised: a completion or a timer. It ends there, and is named here.

    What a connection sets off never comes this far (`server/driver.py`).
    """
    error = context.get("exception")
    if error is None:
        loop.default_exception_handler(context)
        return
    _log.error(
        "%s: a fault of ottla's. Please report it",
        context["message"],
        exc_info=error,
        extra={"fields": {"event": "failed"}},
    )
