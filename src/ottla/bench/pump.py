"""The pump: some connections, each with a fixed number of requests in flight, for some seconds.

Owns sockets and the timing of answers. Looks at an answer's size and one error code and throws
the rest away, so that it costs less than the broker. Must not know what the requests mean.
"""

from __future__ import annotations

import array
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import crc32c

from ottla.bench import stats

_SIZE = struct.Struct(">i")
_ERROR = struct.Struct(">h")
_CHECKSUM = struct.Struct(">I")
_CHECKSUM_AT, _CHECKED_FROM, _SEQUENCE_AT = 17, 21, 53  # in a batch
# Taken in larger pieces an answer of 1 MiB costs its sender up to twice as much, over loopback.
_RECEIVE_BYTES = 1 << 16
_CORRELATION_AT = 8
_DEADLINE_S = 30.0


class LoadFailed(Exception):
    """The broker closed a connection, answered an error, or nothing for too long."""


@dataclass(frozen=True, slots=True)
class Sequenced:
    """Where the batch stands in the requests of an idempotent producer (KIP-98).

    Each request then gets the sequence number that follows, and a checksum over all of it.
    """

    batch_at: int
    batch_end: int
    records_count: int


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: one request for each connection, `depth` of them in flight at a time.

    `error_at` is where an answer has its error code; None looks at nothing but sizes.
    """

    requests: Sequence[bytes]
    depth: int
    error_at: int | None
    seconds: float
    answers_max: int
    sequenced: Sequenced | None = None


@dataclass(slots=True)
class Measured:
    """What came of it: counts, the wall time, latency in seconds (sorted)."""

    answers: int
    bytes_in: int
    bytes_out: int
    seconds: float
    latencies: Sequence[float]
    client_cpu_s: float = 0.0

    def latency(self, share: float) -> float:
        """The latency that `share` of the requests did not exceed, in seconds."""
        return stats.quantile(self.latencies, share)


class Sequencer:
    """An idempotent producer's requests, one after the other."""

    def __init__(self, request: bytes, where: Sequenced) -> None:
        self._request = request
        self._where = where

    def next(self, correlation_id: int) -> bytearray:
        """A copy of the request with the sequence number that is due. Ids count from 1."""
        where, request = self._where, bytearray(self._request)
        sequence = (correlation_id - 1) * where.records_count & 0x7FFFFFFF
        _SIZE.pack_into(request, _CORRELATION_AT, correlation_id & 0x7FFFFFFF)
        _SIZE.pack_into(request, where.batch_at + _SEQUENCE_AT, sequence)
        with memoryview(request) as view:
            checked = crc32c.crc32c(view[where.batch_at + _CHECKED_FROM : where.batch_end])
        _CHECKSUM.pack_into(request, where.batch_at + _CHECKSUM_AT, checked)
        return request


class _Connection:
    """One socket with its requests in flight. Receives into one buffer and skips what is large."""

    def __init__(self, address: tuple[str, int], request: bytes, load: Load) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.sent_at: deque[float] = deque()
        self.unsent: deque[memoryview] = deque()
        self.bytes_in = 0
        self.bytes_out = 0
        self.registered = 0
        self._request = request
        self._correlation = 0
        self._sequencer = Sequencer(request, load.sequenced) if load.sequenced else None
        self._peek = 4 if load.error_at is None else load.error_at + _ERROR.size
        self._error_at = load.error_at
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._fill = 0
        self._skip = 0

    @property
    def interest(self) -> int:
        return select.EPOLLIN | select.EPOLLOUT if self.unsent else select.EPOLLIN

    def push(self, count: int) -> None:
        """Put `count` requests on the way, with correlation ids that rise by one."""
        now = time.perf_counter()
        self.sent_at.extend([now] * count)
        request = self._request
        if self._sequencer is not None:
            for _ in range(count):
                self._correlation += 1
                self.unsent.append(memoryview(self._sequencer.next(self._correlation)))
            self.flush()
            return
        pieces: list[bytes] = []
        for _ in range(count):
            self._correlation += 1
            pieces += (
                request[:_CORRELATION_AT],
                _SIZE.pack(self._correlation),
                request[_CORRELATION_AT + 4 :] if len(request) < 65_536 else b"",
            )
            if len(request) >= 65_536:  # not worth a copy
                self.unsent.append(memoryview(b"".join(pieces)))
                self.unsent.append(memoryview(request)[_CORRELATION_AT + 4 :])
                pieces = []
        if pieces:
            self.unsent.append(memoryview(b"".join(pieces)))
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes."""
        unsent = self.unsent
        while unsent:
            try:
                sent = self.socket.sendmsg(list(unsent)[:16])
            except BlockingIOError:
                return
            self.bytes_out += sent
            while unsent and sent >= len(unsent[0]):
                sent -= len(unsent.popleft())
            if sent:
                unsent[0] = unsent[0][sent:]

    def receive(self, latencies: array.array[float]) -> int:
        """Take what has arrived; how many answers are complete now."""
        try:
            count = self.socket.recv_into(self._view[self._fill :])
        except BlockingIOError:
            return 0
        if count == 0:
            raise LoadFailed("the broker closed a connection")
        self.bytes_in += count
        now = time.perf_counter()
        end, at, done = self._fill + count, 0, 0
        while True:
            if self._skip:
                step = min(self._skip, end - at)
                at += step
                self._skip -= step
                if self._skip:
                    break
                latencies.append(now - self.sent_at.popleft())
                done += 1
            if end - at < self._peek:
                break
            self._check(at)
            self._skip = 4 + _SIZE.unpack_from(self._buffer, at)[0]
        self._view[: end - at] = self._view[at:end]
        self._fill = end - at
        return done

    def _check(self, at: int) -> None:
        if self._error_at is None:
            return
        if error := _ERROR.unpack_from(self._buffer, at + self._error_at)[0]:
            raise LoadFailed(f"the broker answered error {error}")


def run(address: tuple[str, int], load: Load) -> Measured:
    """Drive the load for its time (or its number of answers), then wait for the last answers.

    Raises LoadFailed.
    """
    connections = [_Connection(address, request, load) for request in load.requests]
    by_fd = {connection.socket.fileno(): connection for connection in connections}
    latencies = array.array("d")
    poller = select.epoll()
    begun, cpu_begun = time.perf_counter(), time.process_time()
    for connection in connections:
        connection.push(load.depth)
        connection.registered = connection.interest
        poller.register(connection.socket, connection.registered)
    open_until, waiting = begun + load.seconds, load.depth * len(connections)
    while waiting:
        events = poller.poll(_DEADLINE_S)
        if not events:
            raise LoadFailed(f"no answer within {_DEADLINE_S:g} s")
        for fd, event in events:
            connection = by_fd[fd]
            if event & select.EPOLLOUT:
                connection.flush()
            if event & ~select.EPOLLOUT:
                done = connection.receive(latencies)
                waiting -= done
                going_on = time.perf_counter() < open_until and len(latencies) < load.answers_max
                if done and going_on:
                    connection.push(done)
                    waiting += done
            if (interest := connection.interest) != connection.registered:
                connection.registered = interest
                poller.modify(fd, interest)
    seconds = time.perf_counter() - begun
    client_cpu_s = time.process_time() - cpu_begun
    poller.close()
    for connection in connections:
        connection.socket.close()
    return Measured(
        answers=len(latencies),
        bytes_in=sum(c.bytes_in for c in connections),
        bytes_out=sum(c.bytes_out for c in connections),
        seconds=seconds,
        latencies=sorted(latencies),
        client_cpu_s=client_cpu_s,
    )


def ask(address: tuple[str, int], request: bytes) -> bytes:
    """Send one request on a connection of its own; the answer without its size."""
    with socket.create_connection(address, timeout=_DEADLINE_S) as sock:
        sock.sendall(request)
        with sock.makefile("rb") as stream:
            size = stream.read(4)
            if len(size) < 4:
                raise LoadFailed("the broker closed the connection")
            return stream.read(_SIZE.unpack(size)[0])
