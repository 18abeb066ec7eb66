"""HTTP for those who watch a node: /metrics, /stats, /health.

Owns the pages, and the threads and sockets of those who look at them. It is imported when the
first visitor connects: what it needs takes a tenth of the broker's memory. Only tells: no request
changes anything. Must not touch the node but by the two calls it is given.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from ottla.console import exposition

_IDLE_S = 10.0
_ANSWERS_MAX = 8
_VISITORS_MAX = 32
"""Connections that have asked nothing yet: beyond them the oldest is closed for each that comes.
With those that are being answered there are at most twice as many."""
_GRACE_S = 0.2
"""So long everybody may stay: in a flood those who come wait at the door instead."""
_PIECES_AT_ONCE = 100
_SCARCE_S = 0.2
_INDEX = "ottla: /metrics for Prometheus, /stats as JSON, /health\n"

Report = Callable[[], Mapping[str, Any]]


def serve(
    listening: socket.socket,
    report: Report,
    alive: Callable[[], None],
    begin: Callable[[Callable[[], None]], bool],
    rest: Callable[[], None],
) -> None:
    """Answer visitors of `listening` until what `begin` is given is called, from elsewhere.

    If `begin` returns False, don't. On return no thread and no connection is left. `report` and
    `alive` raise TimeoutError or RuntimeError where the node does not answer. `rest` is called
    now and then, so that making a long page leaves others their turn.
    """
    ending, end = socket.socketpair()
    visitors = Visitors(report, alive, rest)
    with ending, end:
        listening.setblocking(False)
        if begin(lambda: _wake(end)):
            _receive(listening, ending, visitors)
        visitors.send_away()


def _receive(listening: socket.socket, ending: socket.socket, visitors: Visitors) -> None:
    """Let visitors come until there is something to read from `ending`."""
    poll = select.poll()  # not select, which takes no descriptor above 1,023
    poll.register(ending, select.POLLIN)
    poll.register(listening, select.POLLIN)
    while ending.fileno() not in dict(poll.poll()):
        try:
            visitors.come(listening.accept()[0])
        except (BlockingIOError, ConnectionError):
            continue
        except OSError:  # no descriptor is left: not a reason to ask again at once
            time.sleep(_SCARCE_S)


def _wake(end: socket.socket) -> None:
    with suppress(OSError):
        end.send(b"\0")


class _Asking(NamedTuple):
    """Who has not asked anything yet: since when."""

    thread: threading.Thread
    since: float


class Visitors:
    """Who is connected: a thread each, so many at most."""

    def __init__(self, report: Report, alive: Callable[[], None], rest: Callable[[], None]) -> None:
        self.report = report
        self.alive = alive
        self.rest = rest
        self.answers = threading.BoundedSemaphore(_ANSWERS_MAX)
        self._guard = threading.Lock()
        self._asking: dict[socket.socket, _Asking] = {}  # the oldest first
        self._threads: dict[threading.Thread, socket.socket] = {}
        self._leaving: deque[threading.Thread] = deque(maxlen=_VISITORS_MAX * 2)
        self._ending: list[threading.Thread] = []  # on their last instructions

    def come(self, sock: socket.socket) -> None:
        """Take over a connection."""
        with self._guard:
            oldest = next(iter(self._asking.values())) if self._is_crowded else None
        if oldest is not None:
            time.sleep(max(0.0, oldest.since + _GRACE_S - time.monotonic()))
            self._send_oldest_away()
        while len(self._threads) >= _VISITORS_MAX * 2:
            if not self._leaving:  # all are being answered
                sock.close()
                return
            self._leaving.popleft().join(_SCARCE_S)
        thread = threading.Thread(
            target=self._attend, args=(sock,), name="ottla-admin-visitor", daemon=True
        )
        with self._guard:
            self._asking[sock] = _Asking(thread, time.monotonic())
            self._threads[thread] = sock
        try:
            thread.start()
        except RuntimeError:  # the system has no thread for it
            self._gone(sock, thread)

    @property
    def _is_crowded(self) -> bool:
        return len(self._asking) >= _VISITORS_MAX

    def _send_oldest_away(self) -> None:
        with self._guard:
            if self._is_crowded:
                sock = next(iter(self._asking))
                self._leaving.append(self._asking.pop(sock).thread)
                _hang_up(sock)

    def _attend(self, sock: socket.socket) -> None:
        try:
            with suppress(OSError):  # a visitor who hangs up is no event
                sock.settimeout(_IDLE_S)
                _Handler(sock, self)
        finally:
            self._gone(sock, threading.current_thread())

    def _gone(self, sock: socket.socket, thread: threading.Thread) -> None:
        with self._guard:
            self._asking.pop(sock, None)
            self._threads.pop(thread, None)
            self._ending = [one for one in self._ending if one.is_alive()] + [thread]
            sock.close()

    def asked(self, sock: socket.socket) -> bool:
        """A request of this one is whole. False if it was sent away before: half a request looks
        whole when nothing more can come."""
        with self._guard:
            return self._asking.pop(sock, None) is not None

    def send_away(self) -> None:
        """Close all connections, and wait for the threads."""
        with self._guard:
            left = dict(self._threads)
            for sock in left.values():
                _hang_up(sock)
            ending = self._ending
        for thread in (*left, *ending):
            if thread.is_alive():
                thread.join()


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    timeout = _IDLE_S
    server_version = "ottla"
    sys_version = ""

    def __init__(self, sock: socket.socket, visitors: Visitors) -> None:
        self._sock = sock
        self._visitors = visitors
        super().__init__(sock, ("", 0), None)  # type: ignore[arg-type]  # no server is needed

    def do_GET(self) -> None:
        visitors = self._visitors
        if not visitors.asked(self._sock):
            return
        if not visitors.answers.acquire(blocking=False):
            self.send_error(503, "too many ask at once")
            return
        try:
            self._answer()
        finally:
            visitors.answers.release()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Who looks is not written down."""

    def _answer(self) -> None:
        visitors = self._visitors
        try:
            found = _page(self.path.partition("?")[0], visitors.report, visitors.alive)
            if found is None:
                self.send_error(404, "there are /metrics, /stats and /health")
                return
            kind, pieces = found
            data = _joined(pieces, visitors.rest)
        except (TimeoutError, RuntimeError):
            self.send_error(503, "the broker's loop does not answer")
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(sum(map(len, data))))
        self.end_headers()
        if self.command != "HEAD":
            for piece in data:
                self.wfile.write(piece)


def _page(path: str, report: Report, alive: Callable[[], None]) -> tuple[str, Iterable[str]] | None:
    """Its type and its text, in pieces; None if there is no such page."""
    if path == "/metrics":
        return exposition.CONTENT_TYPE, exposition.lines(report())
    if path == "/stats":
        return "application/json", _as_json(report())
    if path == "/health":
        alive()
        return "text/plain", ["ok\n"]
    return ("text/plain", [_INDEX]) if path == "/" else None


def _as_json(report: Mapping[str, Any]) -> Iterator[str]:
    """One object. In pieces: the encoder keeps the interpreter to itself until it is done."""
    head = {name: value for name, value in report.items() if name != "partitions"}
    yield json.dumps(head)[:-1]
    yield ', "partitions": ['
    for index, one in enumerate(report["partitions"]):
        yield f"{',' if index else ''}\n{json.dumps(one)}"
    yield "\n]}\n"


def _joined(pieces: Iterable[str], rest: Callable[[], None]) -> list[bytes]:
    """As few pieces of bytes, with a rest after each."""
    out: list[bytes] = []
    some: list[str] = []
    for piece in pieces:
        some.append(piece)
        if len(some) == _PIECES_AT_ONCE:
            out.append("".join(some).encode())
            some.clear()
            rest()
    return [*out, "".join(some).encode()]
