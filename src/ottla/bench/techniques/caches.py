"""Page cache: a log that is read again from the kernel's memory, from the disk, from our own.

Owns the readers. Each sends what it reads to a socket, since that is what a broker does with it.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial

from ottla.bench.techniques import drain
from ottla.bench.techniques.model import Experiment, Measure, NotHere, Way

_FILE_BYTES = 256 << 20
_BLOCK_BYTES = 1 << 20
_SECONDS_MAX = 1.0
_QUOTED = (
    "Kafka's design page: a cache in the process holds everything twice, grows with objects' "
    "overhead, and is cold after a restart (10 GB take about 10 minutes to fill); the page cache "
    "is warm, uses all free memory, and leaves the collector alone."
)

Serve = Callable[[socket.socket, int], None]
"""Sends block number so-and-so."""


def experiments(folder: str) -> list[Experiment]:
    path = f"{folder}/cached"
    with open(path, "wb") as file:
        for _ in range(_FILE_BYTES // _BLOCK_BYTES):
            file.write(os.urandom(_BLOCK_BYTES))
        file.flush()
        os.fsync(file.fileno())
    cpu = Measure("CPU", "s/GB")
    rate = Measure("sent", "MB/s", more_is_better=True)
    held = Measure("held by the process", "MiB", compared=False)
    ours: dict[int, bytes] = {}
    again = Experiment(
        "3 Page cache",
        "A log of 256 MiB, read again",
        "Block after block of 1 MiB to a socket: from the page cache, by sendfile and by read and "
        "send; read past the cache (O_DIRECT) each time and sent; out of a cache of bytes objects "
        "in Python that holds it all. The second and the third differ in the cache alone.",
        _QUOTED,
        [rate, cpu, held],
        [
            Way("page cache", partial(_page_cache, path)),
            Way("page cache, read + send", partial(_read, path)),
            Way("O_DIRECT", partial(_direct, path)),
            Way("a cache in Python", partial(_own_cache, path, ours)),
        ],
    )
    first = Experiment(
        "3 Page cache",
        "The same log, read for the first time after the program was restarted",
        "The kernel's cache outlives the program; a cache of its own has to be filled again, from "
        "the disk: if it were filled from the page cache, memory would hold everything twice.",
        _QUOTED,
        [rate, cpu, held],
        [
            Way("page cache", partial(_page_cache, path)),
            Way("a cache in Python", lambda: _own_cache(path, {})),
        ],
        usual="10 minutes to fill 10 GB",
    )
    return [again, first]


def _page_cache(path: str) -> Mapping[str, float]:
    with open(path, "rb", buffering=0) as file:

        def serve(sock: socket.socket, block: int) -> None:
            at, left = block * _BLOCK_BYTES, _BLOCK_BYTES
            while left:
                sent = os.sendfile(sock.fileno(), file.fileno(), at, left)
                at, left = at + sent, left - sent

        return _served(serve) | {"held by the process": 0.0}


def _read(path: str) -> Mapping[str, float]:
    with open(path, "rb", buffering=0) as file, mmap.mmap(-1, _BLOCK_BYTES) as buffer:

        def serve(sock: socket.socket, block: int) -> None:
            os.preadv(file.fileno(), [buffer], block * _BLOCK_BYTES)
            sock.sendall(buffer)

        return _served(serve) | {"held by the process": _BLOCK_BYTES / (1 << 20)}


def _open_direct(path: str) -> int:
    if not hasattr(os, "O_DIRECT"):
        raise NotHere("this system has no O_DIRECT")
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        raise NotHere(f"this file system takes no O_DIRECT ({error.strerror})") from None


def _direct(path: str) -> Mapping[str, float]:
    fd = _open_direct(path)
    try:
        with mmap.mmap(-1, _BLOCK_BYTES) as buffer:  # aligned to a page, as O_DIRECT wants it

            def serve(sock: socket.socket, block: int) -> None:
                os.preadv(fd, [buffer], block * _BLOCK_BYTES)
                sock.sendall(buffer)

            return _served(serve) | {"held by the process": _BLOCK_BYTES / (1 << 20)}
    finally:
        os.close(fd)


def _own_cache(path: str, blocks: dict[int, bytes]) -> Mapping[str, float]:
    """What is missing in it is read past the page cache, or all would be held twice."""
    fd = _open_direct(path)
    try:
        with mmap.mmap(-1, _BLOCK_BYTES) as buffer:

            def serve(sock: socket.socket, block: int) -> None:
                data = blocks.get(block)
                if data is None:
                    os.preadv(fd, [buffer], block * _BLOCK_BYTES)
                    data = blocks[block] = bytes(buffer)
                sock.sendall(data)

            found = _served(serve)
    finally:
        os.close(fd)
    return found | {"held by the process": sum(map(len, blocks.values())) / (1 << 20)}


def _served(serve: Serve) -> dict[str, float]:
    """The whole log once, or as much as fits into the time."""
    with drain.drained() as sock:
        total = 0
        begun, cpu_begun = time.perf_counter(), time.process_time()
        for block in range(_FILE_BYTES // _BLOCK_BYTES):
            serve(sock, block)
            total += _BLOCK_BYTES
            if time.perf_counter() - begun > _SECONDS_MAX:
                break
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    return {"CPU": cpu / total * 1e9, "sent": total / seconds / 1e6}
