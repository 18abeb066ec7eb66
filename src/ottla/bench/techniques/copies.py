"""Zero-copy: a file's bytes to a socket, without and with a stay in the program.

Owns two ways of sending, and a broker for each of its own two. Over loopback both ends are on one
machine and the kernel copies to the receiver all the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from ottla.bench import contenders, rounds, shapes
from ottla.bench.contenders import Variant
from ottla.bench.techniques import drain
from ottla.bench.techniques.brokers import COST, RATE, figures, settings
from ottla.bench.techniques.model import Experiment, Measure, NotHere, Way

_FILE_BYTES = 64 << 20
_SLICE_BYTES = 1 << 20
_SECONDS = 0.6
_QUOTED = (
    "The usual path copies four times (disk to page cache, to the program, to the socket, to the "
    "card) and changes four times between program and kernel; sendfile copies twice. A benchmark "
    "often quoted with it (IBM developerWorks, 2008) found transferTo to take 65 % less time, to a "
    "network. Here both ends are on one machine: no card fetches the pages by itself, the kernel "
    "copies them to the receiver in both ways, and sendfile can be the dearer one."
)
_USUAL = "a third of the time, to a network"

Send = Callable[[socket.socket, int, int, int], None]
"""Socket, file, position, length."""


@contextlib.contextmanager
def experiments(folder: str) -> Iterator[list[Experiment]]:
    path = f"{folder}/served"
    with open(path, "wb") as file:
        for _ in range(_FILE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    buffer = memoryview(bytearray(_SLICE_BYTES))
    ways = [
        Way("sendfile", partial(_sent, path, _sendfile)),
        Way("read + send", partial(_sent, path, partial(_read_and_send, buffer))),
    ]
    bare = Experiment(
        "2 Zero-copy",
        "A cached file to a socket, 1 MiB at a time",
        "Two loops and nothing else, to a process that throws the bytes away. CPU of the sender.",
        _QUOTED,
        [Measure("CPU", "s/GB"), Measure("sent", "MB/s", more_is_better=True)],
        ways,
        usual=_USUAL,
    )
    with (
        contenders.own_broker(f"{folder}/sendfile") as with_it,
        contenders.own_broker(
            f"{folder}/copying", environment={"OTTLA_PORTABLE": "sending"}
        ) as without,
    ):
        shape = shapes.FETCH[0]
        broker = Experiment(
            "2 Zero-copy",
            "The broker answers fetches of 1 MiB",
            "ottla as it is, and ottla told to read and send (OTTLA_PORTABLE=sending), with 4 "
            "connections that fetch the same batches again and again.",
            _QUOTED,
            [COST, RATE],
            [
                Way("sendfile", partial(_fetched, with_it, shape)),
                Way("read + send", partial(_fetched, without, shape)),
            ],
            usual=_USUAL,
        )
        yield [bare, broker]


def _fetched(running: contenders.Running, shape: shapes.Shape) -> Mapping[str, float]:
    contender = contenders.variant_contender(Variant(""), running)
    return figures(rounds.on_broker(contender, shape, _SECONDS, settings()))


def _sendfile(sock: socket.socket, fd: int, at: int, length: int) -> None:
    if not hasattr(os, "sendfile"):
        raise NotHere("this system has no sendfile")
    while length:
        sent = os.sendfile(sock.fileno(), fd, at, length)
        at, length = at + sent, length - sent


def _read_and_send(buffer: memoryview, sock: socket.socket, fd: int, at: int, length: int) -> None:
    count = os.preadv(fd, [buffer[:length]], at)
    sock.sendall(buffer[:count])


def _sent(path: str, send: Send) -> Mapping[str, float]:
    with drain.drained() as sock, open(path, "rb", buffering=0) as file:
        at = total = 0
        begun, cpu_begun = time.perf_counter(), time.process_time()
        while time.perf_counter() - begun < _SECONDS:
            send(sock, file.fileno(), at, _SLICE_BYTES)
            total += _SLICE_BYTES
            at = (at + _SLICE_BYTES) % _FILE_BYTES
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    return {"CPU": cpu / total * 1e9, "sent": total / seconds / 1e6}
