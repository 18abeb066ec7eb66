"""A port for those who watch, and the report that they get.

Owns that listener, and how the report is gathered: by threads that ask the loop for the counters
in small pieces. Nothing of it runs, and nothing is imported for it, before somebody connects; then
the pages (`console/pages.py`) are loaded by name, since nothing on the way to serving may import
HTTP. There is no authentication, so it listens where it is told to and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from ottla.core.endpoints import Endpoint
from ottla.core.model import FileSlice
from ottla.core.ports import DiskError
from ottla.handlers import stats
from ottla.records.batch import BatchView, RecordError
from ottla.records.compress import CODEC_NAMES, DecompressError
from ottla.records.reader import payload

if TYPE_CHECKING:
    from ottla.handlers.context import Context

T = TypeVar("T")
Residency = Callable[[str], tuple[int, int] | None]
"""Bytes of a file that are cached, and of those not yet on the disk; None where nobody knows."""

_AT_ONCE = 200  # partitions that one turn of the loop reports
_ANSWER_S = 10.0
_SAMPLES_MAX = 8  # batches that are opened for a ratio, each time somebody asks
_SAMPLE_BYTES_MAX = 4 << 20
_FILES_MAX = 2_000  # whose residency is asked for: the newest segments first


class Admin:
    """One listener. `listen` on the loop's thread, `close` when the loop is done."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: Context, residency: Residency
    ) -> None:
        self._loop = loop
        self._context = context
        self._residency = residency
        self._begun = time.monotonic()
        self._listening: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], None] | None = None

    def listen(self, host: str, port: int) -> Endpoint:
        """Where it listens. Raises OSError."""
        self._listening = listening = socket.create_server((host, port), backlog=16)
        self._loop.add_reader(listening.fileno(), self._first_visitor)
        return Endpoint(*listening.getsockname()[:2])

    def _first_visitor(self) -> None:
        assert self._listening is not None, "it is listening"
        self._loop.remove_reader(self._listening.fileno())
        self._thread = threading.Thread(target=self._serve, name="ottla-admin", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        if self._listening is not None:
            if self._thread is None and not self._loop.is_closed():
                self._loop.remove_reader(self._listening.fileno())
            if self._stop is not None:
                self._stop()
            self._listening.close()
            self._listening = None
        if self._thread is not None:
            self._thread.join(1.0)

    # --- in threads of its own ---------------------------------------------------------------

    def _serve(self) -> None:
        pages = import_module("ottla.console.pages")
        listening = self._listening
        if listening is not None:  # not closed meanwhile
            pages.serve(listening, self.report, self.alive, self._serving)

    def _serving(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def alive(self) -> None:
        """Raises TimeoutError where the loop does not answer, RuntimeError where it is gone."""
        self._on_loop(lambda: None)

    def report(self) -> dict[str, Any]:
        """All that there is to tell. Raises TimeoutError where the loop does not answer."""
        head = self._on_loop(lambda: stats.broker(self._context))
        everyone = self._on_loop(lambda: list(self._context.table))
        found: list[dict[str, Any]] = []
        for at in range(0, len(everyone), _AT_ONCE):
            some = everyone[at : at + _AT_ONCE]
            found += self._on_loop(partial(stats.partitions, some))
        self._add_residency(found)
        usage = os.times()
        head["broker"]["uptime_s"] = time.monotonic() - self._begun
        head["process"] = {"cpu_s": usage.user + usage.system, "resident_bytes": _resident_bytes()}
        return stats.whole(head, found, self._ratios())

    def _add_residency(self, found: list[dict[str, Any]]) -> None:
        left = _FILES_MAX
        for one in found:
            paths = one["segments"][-left:] if left > 0 else []
            left -= len(paths)
            known = [self._residency(path) for path in paths]
            cached = [file[0] for file in known if file is not None]
            one["cached_bytes"] = min(sum(cached), one["size_bytes"]) if cached else None

    def _ratios(self) -> dict[str, float]:
        """Of a few batches, by codec: bytes of their records over bytes of the batch."""
        samples = self._on_loop(lambda: stats.compressed_samples(self._context.table, _SAMPLES_MAX))
        sizes: dict[str, list[int]] = {}
        try:
            for piece in samples:
                self._look_into(piece, sizes)
        finally:
            for piece in samples:
                self._loop.call_soon_threadsafe(piece.release)
        return {name: plain / packed for name, (plain, packed) in sizes.items() if packed}

    def _look_into(self, piece: FileSlice, sizes: dict[str, list[int]]) -> None:
        if piece.length > _SAMPLE_BYTES_MAX:
            return
        try:
            batch = BatchView(memoryview(piece.file.read(piece.position, piece.length)))
            plain = len(payload(batch, _SAMPLE_BYTES_MAX * 4))
        except (DiskError, RecordError, DecompressError):
            return
        if batch.codec:
            both = sizes.setdefault(CODEC_NAMES[batch.codec], [0, 0])
            both[0] += plain
            both[1] += piece.length
            self._loop.call_soon_threadsafe(self._context.metrics.open, "statistics")

    def _on_loop(self, work: Callable[[], T]) -> T:
        async def do() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(_ANSWER_S)


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
