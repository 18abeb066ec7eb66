"""Offsets: a consumer that keeps a position, against a broker that keeps an acknowledgement each.

Owns the loads of this experiment: as many records are written, delivered and done with in each
way, a hundred at a time. The models of acknowledging brokers stand in queues.py.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from functools import partial

from ottla.bench import asking, contenders, pump, usage, wire
from ottla.bench.contenders import Running
from ottla.bench.techniques import brokers, queues
from ottla.bench.techniques.model import Experiment, Measure, Way
from ottla.protocol.messages import fetch, offset_commit
from ottla.records import compress
from ottla.records.reader import read_batches, records_of

RECORDS = 40_000
AT_ONCE = 100
_SIZE = struct.Struct(">i")
_QUOTED = (
    "Kafka's design page: most brokers keep for every message whether it was consumed, sent, "
    "acknowledged; a position is one number for a partition, and a consumer can go back."
)
_COST = Measure("broker CPU", "s/million messages")
_RATE = Measure("rate", "thousand messages/s", more_is_better=True)


@contextlib.contextmanager
def experiments(folder: str) -> Iterator[list[Experiment]]:
    bodies = [record.value or b"" for batch in read_batches(brokers.log_lines(AT_ONCE, 0))
              for record in records_of(batch)]  # fmt: skip
    with contenders.own_broker(f"{folder}/positions") as running:
        yield [
            Experiment(
                "6 Offsets",
                f"{RECORDS:,} messages of about 150 B written, delivered and done with",
                "Written, read and done with 100 at a time. ottla: produce, fetch, and one commit "
                "of a position for each hundred. SQLite: a queue as an honest program would build "
                "it, a row for each message with its state, in the program itself, without any "
                "network (in its favour); Redis Streams: XADD, XREADGROUP, XACK; RabbitMQ: "
                "publish, deliver, one ack each. Nobody waits for the disk. The clients are in "
                "Python, and the rates depend on them; the CPU is that of brokers alone, except "
                "for SQLite, where both are one process.",
                _QUOTED,
                [_COST, _RATE],
                [
                    Way("a position (ottla)", partial(_positions, running)),
                    Way("a row each (SQLite)", partial(queues.sqlite, folder, bodies, RECORDS)),
                    Way("Redis Streams", partial(queues.redis, folder, bodies, RECORDS)),
                    Way("RabbitMQ", partial(queues.rabbitmq, folder, bodies, RECORDS)),
                ],
            )
        ]


def _positions(running: Running) -> Mapping[str, float]:
    batch = brokers.log_lines(AT_ONCE, compress.NONE)
    with brokers.topic(running, 1) as topic, _Peer(running.address) as peer:
        # what made the topic ready is one record; a group's first commit makes the offsets topic
        peer.until_done(_commit(topic, 0), _commit_error_at(topic))
        before, begun = usage.cpu(running.pid).total, time.perf_counter()
        for number in range(RECORDS // AT_ONCE):
            peer.ask(wire.produce(topic, 0, batch, 1), wire.produce_error_at(topic))
            at = 1 + number * AT_ONCE
            answer = peer.ask(_fetch(topic, at, len(batch)), wire.fetch_error_at(topic))
            if answer < len(batch):
                raise pump.LoadFailed(f"a fetch of {len(batch)} bytes was answered with {answer}")
            peer.ask(_commit(topic, at + AT_ONCE), _commit_error_at(topic))
        seconds = time.perf_counter() - begun
        spent = usage.cpu(running.pid).total - before
    return {"broker CPU": spent / RECORDS * 1e6, "rate": RECORDS / seconds / 1e3}


def _fetch(topic: str, offset: int, bytes_max: int) -> bytes:
    wanted = fetch.FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=bytes_max)
    topics = [fetch.FetchTopic(topic=topic, partitions=[wanted])]
    request = fetch.FetchRequest(max_wait_ms=500, min_bytes=1, max_bytes=bytes_max, topics=topics)
    return asking.frame(request, 12)


def _commit(topic: str, offset: int) -> bytes:
    one = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
    topics = [offset_commit.OffsetCommitRequestTopic(name=topic, partitions=[one])]
    request = offset_commit.OffsetCommitRequest(
        group_id="techniques", generation_id_or_member_epoch=-1, member_id="", topics=topics
    )
    return asking.frame(request, 8)


def _commit_error_at(topic: str) -> int:
    """After size, id, tags, throttle, 1 topic, its name, 1 partition, its index."""
    return 4 + 4 + 1 + 4 + 1 + (1 + len(topic)) + 1 + 4


class _Peer:
    """One connection, one request at a time, as a consumer's loop has it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> _Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def _error(self, request: bytes, error_at: int) -> tuple[int, int]:
        self._socket.sendall(request)
        size = _SIZE.unpack(self._stream.read(4))[0]
        answer = self._stream.read(size)
        return struct.unpack_from(">h", answer, error_at - 4)[0], size

    def ask(self, request: bytes, error_at: int) -> int:
        """Bytes of the answer. Raises pump.LoadFailed."""
        error, size = self._error(request, error_at)
        if error:
            raise pump.LoadFailed(f"a request was answered with error {error}")
        return size

    def until_done(self, request: bytes, error_at: int) -> None:
        """Ask until there is no error: a coordinator may be a moment in coming."""
        deadline = time.monotonic() + 30
        while self._error(request, error_at)[0]:
            if time.monotonic() > deadline:
                raise pump.LoadFailed("the group's coordinator does not come")
            time.sleep(0.02)
