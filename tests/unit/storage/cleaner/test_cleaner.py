"""The cleaner of a log directory: which logs it gets to, and what it makes of what goes wrong."""

from __future__ import annotations

from errno import EIO, ENOSPC

import pytest

from ottla.core.model import LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.records.batch import BatchView
from ottla.records.builder import build_batch
from ottla.records.reader import Record, read_batches, records_of
from ottla.storage.checkpoints import CLEANED, MetaProperties, decode_offsets
from ottla.storage.cleaner.choice import Candidate, dirt_of, plan_for
from ottla.storage.cleaner.cleaner import Cleaner, Failure, Limits
from ottla.storage.cleaner.round import Round
from ottla.storage.directory import LogDirectory
from ottla.storage.log import Log
from ottla.storage.settings import LogSettings
from ottla.testing.simcleaning import SimWork
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault
from ottla.testing.simloop import SimLoop

SETTINGS = LogSettings(
    segment_bytes=1000, compacted=True, min_cleanable_ratio=0.01, file_delete_delay_ms=5000
)
ONE, TWO = TopicPartition("one", 0), TopicPartition("two", 0)
EPOCH = LeaderEpoch(1)


class Lock:
    def release(self) -> None:
        pass


class World:
    """A directory on a simulated disk, and its cleaner."""

    def __init__(self) -> None:
        self.disk = SimDisk(1)
        self.loop = SimLoop()
        self.directory = LogDirectory("/data", self.disk, self.loop, self.loop, "commit")
        self.directory.open(
            lambda _: Lock(), MetaProperties("c", 0, "d"), lambda _name, _id: SETTINGS
        )
        self.disk.on_loop = True
        self.work = SimWork(self.disk, self.loop)
        self.limits = Limits(True, 15_000, 1 << 20, 1e300, 1 << 20)
        self.failures: list[tuple[TopicPartition, Failure]] = []
        self.cleaner = Cleaner(
            self.directory,
            (self.loop, self.loop),
            self.work,
            lambda name: [self.directory.logs[name].flushed_position()],
            lambda: self.limits,
        )
        self.cleaner.on_failure = lambda name, failure: self.failures.append((name, failure))
        self.cleaner.start()

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()

    def look(self) -> None:
        """As long as the cleaner rests between two looks."""
        self.loop.advance(15)
        self.settle()

    def log(self, name: TopicPartition, rounds: int = 6) -> Log:
        """With a record of the same key and about 900 bytes in each of its segments."""
        log = self.directory.logs.get(name)
        if log is None:
            log = self.directory.create(name, TopicId(name.topic.encode().ljust(16)), SETTINGS)
        for number in range(rounds):
            raw = build_batch([Record(b"k", bytes([number]) * 900, 1000)])
            batch = BatchView(memoryview(bytearray(raw)))
            while (pending := log.prepare(len(raw), EPOCH, 1000)) is not None:
                while not pending.done:
                    self.disk.step()
                pending.result()
            log.append(batch, EPOCH)
        self.settle()
        return log

    def offsets(self, log: Log) -> list[int]:
        """Of the records that are left."""
        self.disk.on_loop = False
        raw = b"".join(segment.log.read(0, segment.size) for segment in log.segments)
        self.disk.on_loop = True
        return [record.offset for batch in read_batches(raw) for record in records_of(batch)]

    def names(self, name: TopicPartition) -> list[str]:
        self.disk.on_loop = False
        found = self.disk.names(f"/data/{name}")
        self.disk.on_loop = True
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_all_logs_that_are_due_are_compacted_and_then_the_worker_may_rest(world):
    logs = [world.log(ONE), world.log(TWO)]
    world.look()
    assert [world.offsets(log) for log in logs] == [[4, 5], [4, 5]]
    assert world.cleaner.rounds_count == 2
    assert world.work.rests_count == 1
    assert world.directory.checkpoints.cleaned == {ONE: 5, TWO: 5}
    world.look()
    assert world.cleaner.rounds_count == 2  # nothing to do


def test_what_was_compacted_is_written_down_and_the_old_files_go_later(world):
    world.log(ONE)
    world.look()
    world.disk.on_loop = False
    assert decode_offsets(world.disk.read_file(f"/data/{CLEANED}")) == {ONE: 5}
    assert any(name.endswith(".deleted") for name in world.names(ONE))
    for _ in range(10):
        world.look()
    assert not [name for name in world.names(ONE) if name.endswith((".deleted", ".swap"))]


def test_where_no_segment_begins_any_more_no_snapshot_of_producers_is_kept(world):
    log = world.log(ONE)
    log.settings = SETTINGS.replace(segment_bytes=10_000)
    assert [name for name in world.names(ONE) if name.endswith(".snapshot")] == [
        f"{base:020d}.snapshot" for base in range(1, 6)
    ]
    world.look()
    assert [name for name in world.names(ONE) if name.endswith(".snapshot")] == [
        f"{5:020d}.snapshot"
    ]


def test_a_log_without_the_policy_is_left_alone(world):
    log = world.log(ONE)
    log.settings = SETTINGS.replace(compacted=False)
    world.look()
    assert world.offsets(log) == list(range(6))


def test_nothing_is_compacted_where_that_is_switched_off(world):
    log = world.log(ONE)
    world.limits = world.limits.replace(enabled=False)
    world.look()
    assert world.offsets(log) == list(range(6))
    world.limits = world.limits.replace(enabled=True)
    world.look()
    assert world.offsets(log) == [4, 5]


def test_a_worker_that_ends_is_complained_of_once_and_the_round_is_done_again(world):
    log = world.log(ONE)
    for _ in range(2):
        world.work.ends = True
        world.look()
        assert world.offsets(log) == list(range(6))
    assert [(name, failure.lasting) for name, failure in world.failures] == [(ONE, False)]
    world.look()
    assert world.offsets(log) == [4, 5]
    assert not [name for name in world.names(ONE) if name.endswith(".cleaned")]


def test_a_full_disk_leaves_the_log_as_it_is_and_nothing_beside_it(world):
    log = world.log(ONE)
    world.disk.faults = [Fault("write", ENOSPC, path=".cleaned")]
    world.look()
    assert world.offsets(log) == list(range(6))
    assert not [name for name in world.names(ONE) if name.endswith(".cleaned")]
    assert not world.cleaner.uncleanable
    world.look()
    assert world.offsets(log) == [4, 5]


def test_a_damaged_log_is_left_alone_and_the_others_are_compacted(world):
    damaged, sound = world.log(ONE), world.log(TWO)
    world.disk.on_loop = False
    damaged.segments[1].log.write(b"x", 100)
    world.disk.on_loop = True
    world.look()
    world.look()
    assert [(name, failure.lasting) for name, failure in world.failures] == [(ONE, True)]
    assert "wrong checksum" in world.failures[0][1].text
    assert list(world.cleaner.uncleanable) == [damaged]
    assert world.offsets(sound) == [4, 5]


def compact_so_far(world: World, steps: int) -> None:
    """Begin a round, and leave it after so many turns of the loop or steps of the disk."""
    world.loop.advance(16)
    for _ in range(steps):
        if not world.loop.turn():
            world.disk.step()


def test_a_topic_that_is_deleted_in_the_midst_of_it_holds_up_nobody(world):
    for steps in range(40):
        name = TopicPartition(f"gone-{steps}", 0)
        world.log(name)
        compact_so_far(world, steps)
        world.directory.delete(name)
        world.settle()
        assert name not in world.directory.checkpoints.cleaned
    world.look()
    log = world.log(ONE)
    world.look()
    assert world.offsets(log) == [4, 5]
    assert not world.failures


def test_records_that_are_deleted_in_the_midst_of_it_stay_deleted(world):
    for steps in range(40):
        name = TopicPartition(f"t-{steps}", 0)
        log = world.log(name)
        compact_so_far(world, steps)
        world.directory.starts.move(log, Offset(5))
        world.settle()
        world.look()
        assert log.start == 5
        assert world.offsets(log)[-1] == 5
        bases = [segment.base_offset for segment in log.segments]
        there = {name for name in world.names(name) if name.endswith(".log")}
        assert there == {f"{base:020d}.log" for base in bases}
    assert not world.failures


def test_a_segment_that_can_not_be_put_in_its_place_ends_the_directory_not_the_log(world):
    log = world.log(ONE)
    told: list[int | None] = []
    world.cleaner.on_disk_error = lambda error: told.append(error.errno)
    world.disk.faults = [Fault("rename", EIO, path=".timeindex.swap")]
    world.look()
    assert told == [EIO]
    assert world.offsets(log) == [1, 2, 3, 4, 5]  # the first segment's: it was certain by then
    assert list(world.cleaner.uncleanable) == [log]


def test_after_a_stop_nothing_more_is_begun(world):
    log = world.log(ONE)
    world.cleaner.stop()
    world.look()
    assert world.offsets(log) == list(range(6))


def test_keys_that_do_not_fit_wait_for_another_round(world):
    log = world.log(ONE, rounds=0)
    for number in range(40):
        raw = build_batch([Record(b"%d.%d" % (number % 9, key), b"v") for key in range(30)])
        batch = BatchView(memoryview(bytearray(raw)))
        while (pending := log.prepare(len(raw), EPOCH, 1000, 30)) is not None:
            while not pending.done:
                world.disk.step()
            pending.result()
        log.append(batch, EPOCH)
    world.settle()
    plan = plan_for(
        Candidate(ONE, log, dirt_of(log, None, [log.flushed_position()], 0)), 0, 3500, 1 << 20
    )
    world.disk.on_loop = False
    noted = Round(world.disk, plan, lambda _count: None).note()
    assert noted.is_full
    assert noted.keys_count == 90, "batches of thirty, and the table holds no more than 95 keys"
    assert noted.known_to == 90


def test_what_takes_a_segments_place_has_a_name_that_a_power_cut_leaves(world):
    log = world.log(ONE)
    dirt = dirt_of(log, None, [log.flushed_position()], 0)
    plan = plan_for(Candidate(ONE, log, dirt), 0, 1 << 20, 1 << 20)
    world.disk.on_loop = False
    one = Round(world.disk, plan, lambda _count: None)
    one.note()
    cleaned = one.clean(plan.pieces)
    world.disk.crash("nothing")
    names = world.disk.names("/data/one-0")
    assert [name for name in names if name.endswith(".cleaned")] == sorted(
        f"{0:020d}{suffix}.cleaned" for suffix in cleaned.suffixes
    )


def test_compaction_of_a_log_says_nothing_of_one_that_was_made_under_its_name(world):
    for steps in range(120):
        name = TopicPartition(f"again-{steps}", 0)
        world.log(name)
        compact_so_far(world, steps)
        world.directory.delete(name)
        world.directory.create(name, TopicId(b"another".ljust(16)), SETTINGS)
        world.settle()
        assert name not in world.directory.checkpoints.cleaned, steps
    assert not world.failures


def test_a_segment_whose_files_get_their_names_just_now_stays(world):
    log = world.log(ONE)
    before = log.segments[0]
    world.loop.advance(16)
    while log.segments[0] is before:
        if not world.loop.turn():
            world.disk.step()
    new = log.segments[0]
    log.set_start(log.flushed)
    assert log.drop_below(log.flushed) == []
    world.settle()
    assert not log.replacing
    assert log.segments[0] is new
    assert log.drop_below(log.flushed)[0] is new
