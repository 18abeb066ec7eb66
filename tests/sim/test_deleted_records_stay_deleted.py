"""Records that were deleted stay deleted, whatever crash follows, and the rest stays there.

A log with several segments on a disk that crashes in any way the model allows, at any step of
moving its start: an answered deletion holds, and what lies at or above the start is whole.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress

import pytest

from ottla.core.model import FileSlice, LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.records.batch import BatchView
from ottla.records.builder import build_batch
from ottla.records.reader import Record
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.directory import LogDirectory
from ottla.storage.log import Log
from ottla.storage.settings import LogSettings
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault
from ottla.testing.simloop import SimLoop
from tests.sim.histories import named_by

SETTINGS = LogSettings(segment_bytes=700, index_interval_bytes=100)
NAME = TopicPartition("t", 0)
BATCHES_COUNT, RECORDS_COUNT = 12, 5
END = BATCHES_COUNT * RECORDS_COUNT


class _Lock:
    def release(self) -> None:
        pass


class World:
    def __init__(self, seed: int, policy: str = "commit") -> None:
        self.disk = SimDisk(seed)
        self.policy = policy
        self.epoch = 0
        self.start()

    def start(self) -> Log | None:
        self.epoch += 1
        self.loop = SimLoop()
        self.disk.on_loop = False
        self.directory = LogDirectory("/data", self.disk, self.loop, self.loop, self.policy)
        self.directory.open(lambda _: _Lock(), MetaProperties("c", 0, "d"), lambda *_: SETTINGS)
        self.disk.on_loop = True
        return self.directory.logs.get(NAME)

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()

    def filled(self) -> Log:
        log = self.directory.create(NAME, TopicId(bytes(16)), SETTINGS)
        for _ in range(BATCHES_COUNT):
            self.append(log)
        self.settle()
        assert log.end == END
        assert len(log.segments) > 3
        return log

    def append(self, log: Log) -> None:
        records = [Record(value=b"x" * 30, timestamp=1) for _ in range(RECORDS_COUNT)]
        batch = BatchView(memoryview(bytearray(build_batch(records))))
        while log.prepare(batch.length, LeaderEpoch(self.epoch), 1) is not None:
            self.settle()
        log.append(batch, LeaderEpoch(self.epoch))

    def move_start(self, log: Log, offset: int) -> Pending[None]:
        return self.directory.starts.move(log, Offset(offset))

    def names(self, suffix: str) -> list[int]:
        self.disk.on_loop = False
        found = [name for name in self.disk.names(f"/data/{NAME}") if name.endswith(suffix)]
        self.disk.on_loop = True
        return [int(name.removesuffix(suffix)) for name in found]


def test_segments_below_the_start_go_with_their_indexes_and_snapshots() -> None:
    world = World(1)
    log = world.filled()
    bases = [segment.base_offset for segment in log.segments]
    done = world.move_start(log, bases[2] + 1)
    world.settle()
    done.result()
    for suffix in (".log", ".index", ".timeindex"):
        assert world.names(suffix) == bases[2:]
    assert min(world.names(".snapshot")) >= bases[2]
    assert (log.start, log.segments[0].base_offset) == (bases[2] + 1, bases[2])


def test_the_start_never_moves_back_nor_does_the_last_segment_go() -> None:
    world = World(1)
    log = world.filled()
    for offset in (END, 3):
        world.move_start(log, offset)
        world.settle()
    assert log.start == log.end == END
    assert len(log.segments) == 1
    world.append(log)
    assert log.end == END + RECORDS_COUNT


def test_a_slice_on_its_way_keeps_the_bytes_of_a_segment_that_goes() -> None:
    world = World(1)
    log = world.filled()
    piece = log.read(Offset(0), 1 << 20, log.end_position())
    assert isinstance(piece, FileSlice)
    world.move_start(log, END)
    world.settle()
    world.disk.on_loop = False
    assert piece.file.read(piece.position, 17)[16] == 2
    piece.release()


def test_epochs_before_the_start_are_forgotten() -> None:
    world = World(1)
    log = world.filled()
    world.move_start(log, 7)
    assert log.epochs.entries() == [(1, 7)]


def test_the_segment_that_bounds_readers_stays_until_they_are_past_it() -> None:
    world = World(1)
    log = world.filled()
    bound = log.flushed_position()
    records = [Record(value=b"x" * 500, timestamp=1)]
    batch = BatchView(memoryview(bytearray(build_batch(records))))
    pending = log.prepare(batch.length, LeaderEpoch(1), 1)
    assert pending is not None, "there is still room"
    while not pending.done:
        world.disk.step()  # no round begins: the loop does not turn
    log.append(batch, LeaderEpoch(1))
    log.set_start(bound.offset)
    log.drop_below(log.start)
    assert log.segments[0] is bound.segment
    assert log.segments[1].base_offset == log.start


def test_deletions_that_come_while_one_is_written_share_the_next_writing() -> None:
    world = World(1)
    log = world.filled()
    pendings = [world.move_start(log, offset) for offset in range(1, 9)]
    writings = 0
    original = world.disk.perform

    def counted(steps):
        nonlocal writings
        writings += 1
        return original(steps)

    world.disk.perform = counted
    world.settle()
    assert all(pending.done for pending in pendings)
    assert writings == 1


def test_a_deletion_that_could_not_be_written_fails_and_the_next_one_tries_again() -> None:
    world = World(1)
    log = world.filled()
    world.disk.faults = [Fault("replace")]
    refused = world.move_start(log, 30)
    world.settle()
    with pytest.raises(DiskError):
        refused.result()
    done = world.move_start(log, 30)
    world.settle()
    done.result()
    world.disk.crash("nothing")
    assert world.start().start == 30


def test_files_that_could_not_be_removed_are_reported_and_go_at_the_next_start() -> None:
    world = World(1)
    log = world.filled()
    reported: list[DiskError] = []
    world.directory.removals.failed = reported.append
    world.disk.faults = [Fault("rename", path="00.log")]
    done = world.move_start(log, 35)
    world.settle()
    done.result()
    assert len(reported) == 1
    assert world.names(".log")[0] == 0
    world.disk.kill()
    assert world.start().start == 35
    assert world.names(".log")[0] == 30


def test_the_files_of_deleted_records_stay_renamed_for_as_long_as_is_asked() -> None:
    world = World(1)
    log = world.filled()
    bases = [segment.base_offset for segment in log.segments]
    world.move_start(log, bases[2])
    world.settle()
    assert world.names(".log") == bases[2:]
    assert world.names(".log.deleted") == world.names(".index.deleted") == bases[:2]
    world.loop.advance(SETTINGS.file_delete_delay_ms / 1000 - 1)
    world.settle()
    assert world.names(".log.deleted") == bases[:2]
    world.loop.advance(1)
    world.settle()
    world.loop.advance(10)  # the rest after each
    world.settle()
    assert world.names(".log.deleted") == world.names(".index.deleted") == []


def test_a_large_deletion_does_not_hold_up_what_is_performed() -> None:
    world = World(1)
    log = world.filled()
    world.move_start(log, END - 1)
    world.settle()
    world.directory.removals.hurry()
    waits = len(world.directory.removals)
    assert waits > 2
    world.append(log)
    assert log.end > END, "rolls, commits and checkpoints go their way meanwhile"


@pytest.mark.parametrize("policy", ["commit", "os"])
def test_an_answered_deletion_survives_every_crash(policy: str) -> None:
    first = int(os.environ.get("OTTLA_SEED", "0"))
    count = 1 if "OTTLA_SEED" in os.environ else 300
    for seed in range(first, first + count):
        with named_by(seed):
            _crash_somewhere(seed, policy)


def _crash_somewhere(seed: int, policy: str) -> None:
    chance = random.Random(seed)
    world = World(seed, policy)
    log = world.filled()
    certain = log.flushed if policy == "commit" else log.recovery_point
    promised = 0
    waiting: dict[int, Pending[None]] = {}
    for _ in range(chance.randrange(1, 5)):
        offset = chance.randrange(certain + 1)
        waiting[offset] = world.move_start(log, offset)
        for _ in range(chance.randrange(12)):
            world.loop.turn()
            world.disk.step()
        if chance.random() < 0.2:
            with suppress(DiskError):
                world.directory.checkpoint().then(lambda: None)
    promised = max([offset for offset, done in waiting.items() if done.done], default=0)
    if chance.random() < 0.1:
        world.settle()
        promised = max(waiting)
    world.disk.crash(chance.choice(("any", "any", "prefix", "nothing", "everything")))
    opened = world.start()
    assert opened is not None
    if policy == "os" and opened.failed:
        return  # a hole among batches that no sync had covered: kept as evidence, as ever
    assert not opened.failed, world.directory.found
    assert promised <= opened.start <= max(waiting), "a deleted record is back"
    assert opened.end >= certain, "what was kept is gone"
    assert opened.segments[0].base_offset <= opened.start
    start, end = opened.start, opened.end
    world.disk.kill()
    again = world.start()
    assert again is not None
    assert (again.start, again.end) == (start, end)
    world.append(again)
