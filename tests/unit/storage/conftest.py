"""A simulated disk and loop, a log on them, and batches to put in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.core.model import FileSlice, LeaderEpoch, Offset, TopicId
from ottla.core.ports import MakeDirectory, SyncDirectory
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.reader import Record
from ottla.storage.checked import Cold
from ottla.storage.log import Log, Opened
from ottla.storage.reading import LogPosition
from ottla.storage.rounds import FlushPolicy, Rounds
from ottla.storage.settings import LogSettings
from ottla.testing.simdisk import SimDisk
from ottla.testing.simloop import SimLoop

TOPIC_ID = TopicId(b"0123456789abcdef")
Batch = Callable[..., BatchView]


def make_batch(
    count: int = 1,
    *,
    size: int = 10,
    timestamp: int = 1000,
    producer: tuple[int, int, int] | None = None,
    attributes: int = 0,
) -> BatchView:
    records = [Record(value=bytes(size), timestamp=timestamp) for _ in range(count)]
    who = Producer() if producer is None else Producer(*producer)
    raw = build_batch(records, producer=who, attributes=attributes)
    return BatchView(memoryview(bytearray(raw)))


class Bench:
    """One log on a simulated disk, and what a broker would do with it."""

    def __init__(self, policy: FlushPolicy = "commit", settings: LogSettings | None = None) -> None:
        self.disk = SimDisk(1)
        self.disk.perform_now([MakeDirectory("/data"), SyncDirectory("/")])
        self.loop = SimLoop()
        self.rounds = Rounds(self.disk, self.loop, policy)
        self.settings = settings or LogSettings()
        self.log = self.open(Opened(TOPIC_ID))

    def open(self, opened: Opened) -> Log:
        return Log("/data/t-0", self.disk, self.loop, self.rounds, self.settings, opened)

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()

    def prepare(self, batch: BatchView, epoch: int = 1) -> None:
        arguments = (batch.length, LeaderEpoch(epoch), batch.max_timestamp)
        while (pending := self.log.prepare(*arguments, batch.last_offset_delta + 1)) is not None:
            while not pending.done:
                self.disk.step()
            pending.result()

    def append(self, batch: BatchView, epoch: int = 1) -> Offset:
        self.prepare(batch, epoch)
        return self.log.append(batch, LeaderEpoch(epoch))

    def read(
        self, offset: int, max_bytes: int = 1 << 20, bound: LogPosition | None = None
    ) -> list[int]:
        """Base offsets of what a read gives."""
        piece = self.log.read(Offset(offset), max_bytes, bound or self.log.end_position())
        while isinstance(piece, Cold):
            piece.bring(self.disk)
            self.settle()
            piece.slice.release()
            piece = self.log.read(Offset(offset), max_bytes, bound or self.log.end_position())
        if piece is None or piece is ErrorCode.KAFKA_STORAGE_ERROR:
            assert piece is None or offset >= self.log.damaged_at
            return []
        assert isinstance(piece, FileSlice), piece
        raw = memoryview(piece.file.read(piece.position, piece.length))
        piece.release()
        bases, at = [], 0
        while at < len(raw):
            batch = BatchView(raw, at)
            bases.append(batch.base_offset)
            at += batch.length
        assert at == len(raw), "a slice ends inside a batch"
        return bases


@pytest.fixture
def bench() -> Bench:
    return Bench()
