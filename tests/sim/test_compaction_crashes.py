"""The power fails at every step of a compaction, and takes any legal subset of what was not synced.

Each group of segments is then found as it was, or as the one segment that took its place: never
both, never neither, never a part of either (I34). Starting again finds the same.
"""

from __future__ import annotations

import os

import pytest

from ottla.core.model import LeaderEpoch, TopicId, TopicPartition
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.records.reader import Record
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.cleaner.cleaner import Cleaner, Limits
from ottla.storage.directory import LogDirectory
from ottla.storage.settings import LogSettings
from ottla.testing.simcleaning import SimWork
from ottla.testing.simdisk import CrashPolicy, SimDisk
from ottla.testing.simloop import SimLoop

SEEDS = range(60 if os.environ.get("OTTLA_SOAK") == "1" else 2)
POLICIES: tuple[CrashPolicy, ...] = ("any", "prefix", "nothing", "everything")
PARTITION = TopicPartition("t", 0)
EPOCH = LeaderEpoch(1)
SETTINGS = LogSettings(
    segment_bytes=700,
    index_interval_bytes=100,
    compacted=True,
    min_cleanable_ratio=0.01,
    file_delete_delay_ms=0,
)

Segments = tuple[tuple[int, bytes], ...]


class _Lock:
    def release(self) -> None:
        pass


class World:
    """A log of nine segments in groups of some, about to be compacted."""

    def __init__(self, seed: int) -> None:
        self.disk = SimDisk(seed)
        self.start()
        self.fill()
        self.settle()
        self.disk.on_loop = False
        self.disk.perform_now(self.directory.checkpoints.steps())
        self.disk.on_loop = True

    def start(self) -> None:
        self.loop = SimLoop()
        self.disk.on_loop = False
        self.directory = LogDirectory("/data", self.disk, self.loop, self.loop, "commit")
        self.directory.open(
            lambda _: _Lock(), MetaProperties("c", 0, "d"), lambda _name, _id: SETTINGS
        )
        self.log = self.directory.logs.get(PARTITION) or self.directory.create(
            PARTITION, TopicId(b"0" * 16), SETTINGS
        )
        self.disk.on_loop = True

    def compact(self) -> None:
        self.log.settings = SETTINGS.replace(segment_bytes=1500)  # two of the old ones, and more
        limits = Limits(True, 15_000, 1 << 20, 1e300, 1 << 20)
        self.cleaner = Cleaner(
            self.directory,
            (self.loop, self.loop),
            SimWork(self.disk, self.loop),
            lambda _: [self.log.flushed_position()],
            lambda: limits,
        )
        self.cleaner.start()
        self.loop.advance(1)

    def step(self) -> bool:
        if self.loop.turn():
            return True
        if self.disk.busy:
            self.disk.step()
            return True
        return False

    def settle(self) -> None:
        while self.step():
            pass

    def put(self, raw: bytes | bytearray, marker: EndMarker | None = None) -> None:
        batch = BatchView(memoryview(bytearray(raw)))
        aborts = marker is not None and marker.type == ControlType.ABORT
        prepare = self.log.prepare_abort if aborts else self.log.prepare
        while (pending := prepare(len(raw), EPOCH, 1000)) is not None:
            while not pending.done:
                self.step()
            pending.result()
        (self.log.append if marker is None else self.log.append_marker)(batch, EPOCH)

    def fill(self) -> None:
        for number in range(9):
            records = [Record(b"key-%d" % (number % 3), bytes([number]) * 100, 1000)]
            self.put(build_batch(records))
            mine = Record(b"mine-%d" % number, bytes(200), 1000)
            producer = Producer(7, 0, number)
            self.put(build_batch([mine], producer=producer, attributes=TRANSACTIONAL_BIT))
            kind = ControlType.ABORT if number % 2 else ControlType.COMMIT
            marker = EndMarker(kind, 0)
            self.put(build_end_marker(marker, 7, 0, 1000), marker)

    def segments(self) -> Segments:
        self.disk.on_loop = False
        found = tuple(
            (int(one.base_offset), one.log.read(0, one.size)) for one in self.log.segments
        )
        self.disk.on_loop = True
        return found


def before_and_after() -> tuple[Segments, Segments, int]:
    """The segments before and after, and how many steps that takes."""
    world = World(0)
    before = world.segments()
    world.compact()
    count = 0
    while world.step():
        count += 1
    assert world.cleaner.rounds_count == 1
    return before, world.segments(), count


BEFORE, AFTER, STEPS = before_and_after()
ENDS = [base for base, _ in AFTER[1:]] + [1 << 62]
GROUPS = [(begin, end) for (begin, _), end in zip(AFTER, ENDS, strict=True)]


def within(segments: Segments, group: tuple[int, int]) -> Segments:
    return tuple(one for one in segments if group[0] <= one[0] < group[1])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_i34_a_crash_at_any_step_leaves_the_old_segments_or_the_new_one(seed, policy):
    assert len(GROUPS) > 2
    assert len(BEFORE) > len(AFTER)
    taken = 0
    for steps in range(STEPS + 1):
        world = World(seed)
        world.compact()
        for _ in range(steps):
            world.step()
        world.disk.crash(policy)
        world.start()
        assert not world.log.failed, world.directory.found
        found = world.segments()
        for group in GROUPS:
            new = within(AFTER, group)
            assert within(found, group) in (within(BEFORE, group), new), (steps, group)
            taken += within(found, group) == new != within(BEFORE, group)
        world.disk.kill()
        world.start()
        assert world.directory.found == []
        assert world.segments() == found
    assert taken, "not one new segment was found"
