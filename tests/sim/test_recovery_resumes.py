"""Recovery that begins behind what was on disk finds what one that reads everything finds (I27).

Histories of appends, checkpoints and crashes, with indexes that are written entry by entry, so that
crashes leave any part of them. OTTLA_SEED=n runs one; OTTLA_SOAK=1 runs many more.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator

import pytest

from ottla.core.model import LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.records.batch import BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.reader import Record
from ottla.storage import index, recovery, snapshots
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.directory import LogDirectory
from ottla.storage.log import Log
from ottla.storage.resuming import resume
from ottla.storage.segment import Segment
from ottla.storage.settings import LogSettings
from ottla.testing.simdisk import SimDisk
from ottla.testing.simloop import SimLoop
from tests.sim.histories import named_by

SETTINGS = LogSettings(segment_bytes=20_000, index_interval_bytes=300)
NAME = TopicPartition("t", 0)
ID = TopicId(bytes(range(16)))


class _Lock:
    def release(self) -> None:
        pass


class History:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = SimDisk(seed)
        self.epoch = 0
        self.timestamp = 1000
        self.sequence = 0
        self.start()

    def start(self) -> None:
        self.epoch += 1
        self.loop = SimLoop()
        self.disk.on_loop = False
        self.directory = opened(self.disk, self.loop)
        if NAME not in self.directory.logs:
            self.directory.create(NAME, ID, SETTINGS)

    @property
    def log(self) -> Log:
        return self.directory.logs[NAME]

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()

    def append(self) -> None:
        if self.log.failed:
            return  # pages of what was not acknowledged have arrived in the wrong order
        rise = self.random.choice((0, 0, 1, 5, -3))
        self.timestamp += rise
        records = [
            Record(value=bytes(self.random.randrange(300)), timestamp=self.timestamp)
            for _ in range(self.random.randrange(1, 4))
        ]
        producer = Producer()
        if self.random.random() < 0.5:
            producer = Producer(7, 0, self.sequence)
            self.sequence += len(records)
        batch = BatchView(memoryview(bytearray(build_batch(records, producer=producer))))
        while self.log.prepare(batch.length, LeaderEpoch(self.epoch), self.timestamp) is not None:
            self.settle()
        self.log.append(batch, LeaderEpoch(self.epoch))

    def step(self) -> None:
        match self.random.randrange(12):
            case 0:
                self.directory.checkpoint()
                self.settle()
            case 1 | 2:
                self.settle()
            case 3:
                for _ in range(self.random.randrange(5)):
                    self.loop.turn()
                    self.disk.step()
            case _:
                self.append()


def opened(disk: SimDisk, loop: SimLoop) -> LogDirectory:
    directory = LogDirectory("/data", disk, loop, loop, "commit")
    directory.open(lambda _: _Lock(), MetaProperties("c", 0, "d"), lambda *_: SETTINGS)
    return directory


def told(log: Log) -> Iterator[object]:
    """All that a log knows, but for how much of it was looked at."""
    yield log.start, log.end, log.failed, log.epochs.entries(), list(log.producers.entries())
    for segment in log.segments:
        yield segment.base_offset, segment.end, segment.size, segment.first_timestamp
        yield segment.max_timestamp, segment.max_timestamp_offset, segment._since_entry
        for one, entry in (
            (segment.offsets, index.OFFSET_ENTRY),
            (segment.times, index.TIME_ENTRY),
        ):
            yield one.count, one.last, one.file.read(0, one.count * entry.size)


@pytest.mark.parametrize(
    "first", range(0, 4000 if os.environ.get("OTTLA_SOAK") == "1" else 240, 40)
)
def test_beginning_behind_the_recovery_point_finds_the_same(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = range(first, first + 40)
    if "OTTLA_SEED" in os.environ:
        seeds = range(int(os.environ["OTTLA_SEED"]), int(os.environ["OTTLA_SEED"]) + 1)
    resumed: list[bool] = []

    def counting(segment: Segment, certain: Offset) -> BatchView | None:
        found = resume(segment, certain)
        resumed.append(found is not None)
        return found

    for seed in seeds:
        with named_by(seed):
            monkeypatch.setattr(snapshots, "_EVERY", 1000)
            monkeypatch.setattr(snapshots, "_EVERY_PRODUCER", 0)
            monkeypatch.setattr(index, "_WRITE_AT", random.Random(seed).choice((1, 2, 5)))
            history = History(seed)
            for _ in range(history.random.randrange(1, 4)):
                for _ in range(history.random.randrange(80)):
                    history.step()
                history.disk.crash(history.random.choice(("any", "prefix", "everything")))
                other = copy.deepcopy(history.disk)
                monkeypatch.setattr(recovery, "resume", lambda *_: None)
                whole = list(told(opened(other, SimLoop()).logs[NAME])) if _is_there(other) else []
                monkeypatch.setattr(recovery, "resume", counting)
                history.start()
                if whole:
                    assert list(told(history.log)) == whole
    if len(seeds) > 1:
        assert sum(resumed) > len(seeds) // 4, "it is hardly tried"


def _is_there(disk: SimDisk) -> bool:
    return str(NAME) in disk.names("/data")


def test_a_checkpoint_leaves_indexes_that_lead_to_its_recovery_point() -> None:
    history = History(1)
    for _ in range(8):
        history.timestamp += 1
        history.append()
    segment = history.log.segments[-1]
    history.settle()
    assert segment.offsets.count > 1
    assert segment.offsets.file.size() == 0
    history.directory.checkpoint()
    history.settle()
    assert segment.offsets.file.size() == segment.offsets.count * index.OFFSET_ENTRY.size
    assert segment.times.file.size() == segment.times.count * index.TIME_ENTRY.size
    batch = resume(segment, history.log.recovery_point)
    assert batch is not None
    assert segment.offsets.last is not None
    assert batch.last_offset == segment.base_offset + segment.offsets.last[0]
