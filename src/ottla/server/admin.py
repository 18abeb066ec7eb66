"""A port for those who watch, and the report that they get.

Owns that listener, and how the report is gathered: by threads that ask the loop for the counters
in small pieces. Nothing of it runs, and nothing is imported for it, before somebody connects; then
the pages (`console/pages.py`) are loaded by name, since nothing on the way to serving may import
HTTP. There is no authentication, so it listens where it is told to and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

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

_AT_ONCE = 100  # partitions that one turn of the loop reports
_REST_S: Final = 0.001
"""After each piece of a report the thread that makes it sleeps: the loop gives the interpreter's
lock away at every call to the system, and would wait 5 ms to have it back from one that computes.
"""
_ANSWER_S = 10.0
_SAMPLES_MAX = 8  # batches that are opened for a ratio, each time somebody asks
_SAMPLE_BYTES_MAX = 1 << 20
_FILES_MAX = 20_000  # whose residency is asked for, whole partitions at a time
_BACKLOG = 64
_CLOSED = "the broker is stopped"


class Admin:
    """One listener. `listen` on the loop's thread, `close` when the loop is done."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        residency: Residency,
        connections: Callable[[], int] | None = None,
    ) -> None:
        """`connections()` is how many clients are connected."""
        self._loop = loop
        self._context = context
        self._residency = residency
        self._connections = connections
        self._begun, self._begun_at = time.monotonic(), time.time()
        self._listening: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()  # of the next four
        self._stop: Callable[[], None] | None = None
        self._closed = False
        self._waiting = 0
        self._asked: set[Future[Any]] = set()
        self._making = threading.Lock()
        self._made: tuple[float, dict[str, Any]] | None = None

    def listen(self, host: str, port: int) -> Endpoint:
        """Where it listens. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = listening = socket.create_server(
            (host, port), family=family, backlog=_BACKLOG
        )
        self._loop.add_reader(listening.fileno(), self._first_visitor)
        return Endpoint(*listening.getsockname()[:2])

    def _first_visitor(self) -> None:
        assert self._listening is not None, "it is listening"
        self._loop.remove_reader(self._listening.fileno())
        self._thread = threading.Thread(target=self._serve, name="ottla-admin", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more: no thread and no connection is left."""
        with self._guard:
            self._closed = True
            asked = list(self._asked)
        for question in asked:
            question.cancel()  # the loop does not run any more
        if self._listening is not None:
            if self._thread is None and not self._loop.is_closed():
                self._loop.remove_reader(self._listening.fileno())
            if self._stop is not None:
                self._stop()
            if self._thread is not None:
                self._thread.join()
            self._listening.close()
            self._listening = None

    # --- in threads of its own ---------------------------------------------------------------

    def _serve(self) -> None:
        pages = import_module("ottla.console.pages")
        assert self._listening is not None, "it is closed after this thread has ended"
        rest = partial(time.sleep, _REST_S)
        pages.serve(self._listening, self.shared, self.alive, self._serving, rest)

    def _serving(self, stop: Callable[[], None]) -> bool:
        with self._guard:
            self._stop = stop
            return not self._closed

    def alive(self) -> None:
        """Raises TimeoutError where the loop does not answer, RuntimeError where it is gone."""
        self._on_loop(lambda: None)

    def shared(self) -> dict[str, Any]:
        """A report not older than this call, made once for all who ask at the same time.

        So however many ask, one thread works on it. Not to be changed. Raises as `report`.
        """
        asked = time.monotonic()
        with self._guard:
            self._waiting += 1
        try:
            with self._making:
                if self._made is None or self._made[0] < asked:
                    begun = time.monotonic()
                    self._made = (begun, self.report())
                return self._made[1]
        finally:
            with self._guard:
                self._waiting -= 1
                if not self._waiting:
                    self._made = None  # nobody is left to share it with

    def report(self) -> dict[str, Any]:
        """All that there is to tell. Raises TimeoutError where the loop does not answer,
        RuntimeError where it is gone."""
        context = self._context
        # At once: what is deleted in between would be neither here nor among what is gone, and the
        # sums would fall. What is deleted later is still here.
        head, everyone = self._on_loop(lambda: (stats.broker(context), list(context.table)))
        found: list[dict[str, Any]] = []
        for at in range(0, len(everyone), _AT_ONCE):
            found += self._on_loop(partial(stats.partitions, everyone[at : at + _AT_ONCE]))
            time.sleep(_REST_S)
        kept, lags_left = [], stats.LAGS_MAX
        for shard in self._on_loop(context.groups.loaded_shards):
            kept.append(self._on_loop(partial(stats.offsets, context, shard, lags_left)))
            lags_left -= len(kept[-1]["lag"])
        self._add_residency(found)
        head["broker"] |= {
            "uptime_s": time.monotonic() - self._begun,
            "connections": None if self._connections is None else self._connections(),
        }
        return stats.whole(head, found, kept, self._ratios(found)) | {
            "process": self._process(),
            "disk": _room(context.table.directory.path),
        }

    def _add_residency(self, found: list[dict[str, Any]]) -> None:
        left = _FILES_MAX
        for index, one in enumerate(found):
            paths = one["segments"]
            left -= len(paths)
            known = [self._residency(path) for path in paths] if left >= 0 else [None]
            cached = [file[0] for file in known if file is not None]
            whole = len(cached) == len(known)
            one["cached_bytes"] = min(sum(cached), one["size_bytes"]) if whole else None
            if not index % _AT_ONCE:
                time.sleep(_REST_S)

    def _ratios(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """Of a few batches, by codec: bytes of their records over bytes of the batch."""
        places = stats.busiest_compressed(found, _SAMPLES_MAX)
        samples = self._on_loop(partial(stats.compressed_samples, self._context, places))
        sizes: dict[str, list[int]] = {}
        try:
            for piece in samples:
                self._look_into(piece, sizes)
        finally:
            for piece in samples:
                self._release(piece)
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
            self._on_loop(partial(self._context.metrics.open, "statistics"))

    def _release(self, piece: FileSlice) -> None:
        with suppress(RuntimeError):  # closed: with the loop went the files
            self._loop.call_soon_threadsafe(piece.release)

    def _process(self) -> dict[str, Any]:
        usage = os.times()
        return {
            "cpu_s": usage.user + usage.system,
            "resident_bytes": _resident_bytes(),
            "open_descriptors": _open_descriptors(),
            "descriptors_max": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "started_at_s": self._begun_at,
        }

    def _on_loop(self, work: Callable[[], T]) -> T:
        """What `work` returns on the loop's thread."""
        done: Future[T] = Future()

        def do() -> None:
            if done.set_running_or_notify_cancel():  # not given up meanwhile
                try:
                    done.set_result(work())
                except RuntimeError as error:
                    done.set_exception(error)

        with self._guard:
            if self._closed:
                raise RuntimeError(_CLOSED)
            self._asked.add(done)
        try:
            self._loop.call_soon_threadsafe(do)
            return done.result(_ANSWER_S)
        except CancelledError:
            raise RuntimeError(_CLOSED) from None
        finally:
            done.cancel()
            with self._guard:
                self._asked.discard(done)


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _open_descriptors() -> int | None:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return None


def _room(path: str) -> dict[str, Any]:
    """Bytes of the file system below the log directory, and those that are free for us."""
    try:
        found = os.statvfs(path)
    except OSError:
        return {"bytes": None, "free_bytes": None}
    return {"bytes": found.f_blocks * found.f_frsize, "free_bytes": found.f_bavail * found.f_frsize}
