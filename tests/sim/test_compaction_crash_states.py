"""Every state that a power cut may leave of a compaction, at each of its steps.

As test_crash_states.py does for a log that is written to: the states that the disk may be found in
are listed (`testing/simcrash.py`), and the storage code opens each, twice. Every group of segments
is then the old ones or the new one (I34), and what is not compacted is untouched.

How many states were tried is printed (`-s`). OTTLA_SOAK=1 tries 20 times as many. A failure prints
the command that repeats it.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from ottla.core.model import TopicId, TopicPartition
from ottla.records.batch import CONTROL_BIT, TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import build_batch
from ottla.records.control import ControlType, end_marker_of
from ottla.records.reader import Record
from ottla.storage.findings import Case
from ottla.storage.reading import aborted_between
from ottla.testing.simcrash import crash_states
from ottla.testing.simdisk import SimDisk
from ottla.testing.simimage import folder_of
from tests.sim.test_compaction_crashes import (
    AFTER,
    BEFORE,
    EPOCH,
    GROUPS,
    SETTINGS,
    Segments,
    World,
    within,
)

SOAK = os.environ.get("OTTLA_SOAK") == "1"
SEEDS = range(20 if SOAK else 1)
DRAWN = 40
PARTS = 4
LEAST = 500
ROOT = Path(__file__).parents[2]
WRITES = 0.5
OTHER = TopicPartition("u", 0)


class Busy(World):
    """The log that is compacted, and one beside it that is written to meanwhile."""

    def start(self) -> None:
        super().start()
        settings = SETTINGS.replace(compacted=False)
        self.other = self.directory.logs.get(OTHER) or self.directory.create(
            OTHER, TopicId(b"1" * 16), settings
        )
        self.other.settings = settings
        self.written = bytearray()

    def write(self, dice: random.Random) -> None:
        """Append if a segment is there for it, else begin to make one; no sync is waited for."""
        raw = bytearray(build_batch([Record(value=dice.randbytes(dice.randrange(600)))]))
        batch = BatchView(memoryview(raw))
        if self.other.prepare(batch.length, EPOCH, batch.max_timestamp) is None:
            self.other.append(batch, EPOCH)
            self.written += raw


class Found(Busy):
    """The same logs, found in one of those states."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.disk = SimDisk()
        self.disk.root = folder_of(files)
        self.start()

    def others(self) -> bytes:
        self.disk.on_loop = False
        found = b"".join(one.log.read(0, one.size) for one in self.other.segments)
        self.disk.on_loop = True
        return found


def judge(files: dict[str, bytes], other: bytes, flushed: int) -> Counter[str]:
    world = Found(files)
    assert other.startswith(world.others())
    assert world.other.end >= flushed, "what was flushed is not there"
    assert not world.log.failed, world.directory.found
    found = world.segments()
    taken = Counter(one.finding.case.name for one in world.directory.found)
    for group in GROUPS:
        here, old, new = (within(one, group) for one in (found, BEFORE, AFTER))
        assert here in (old, new), group
        taken["new" if here == new else "old"] += 1
    aborted = aborted_between(world.log.segments, world.log.start, world.log.end)
    assert {one.last_offset for one in aborted} >= shown_aborts(found), "records taken back show"
    content = world.others()
    world.disk.kill()
    world.start()
    assert world.others() == content
    damaged = {OTHER} if world.other.failed else set()  # its files are kept as they are
    again = [one for one in world.directory.found if one.partition not in damaged]
    assert again == [], "starting twice is not starting once"
    assert world.segments() == found
    return taken


def shown_aborts(segments: Segments) -> set[int]:
    """Offsets of the markers of what was aborted and still has a record in these segments."""
    open_since, found = False, set()
    for _, raw in segments:
        at = 0
        while at < len(raw):
            batch = BatchView(memoryview(raw), at)
            at += batch.length
            if not batch.attributes & TRANSACTIONAL_BIT:
                continue
            if not batch.attributes & CONTROL_BIT:
                open_since = open_since or batch.records_count > 0
            else:
                if open_since and end_marker_of(batch).type is ControlType.ABORT:
                    found.add(int(batch.base_offset))
                open_since = False
    return found


def command(seed: int, part: int) -> str:
    """What runs the states of one seed and part again, and no others."""
    soak = "OTTLA_SOAK=1 " if SOAK else ""
    return f"{soak}.venv/bin/pytest '{Path(__file__).relative_to(ROOT)}' -k '[{part}-{seed}]'"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("part", range(PARTS))
def test_i34_every_state_after_a_power_cut_has_the_old_segments_or_the_new_one(seed, part):
    dice = random.Random(seed)
    tried: set[int] = set()
    seen: Counter[str] = Counter()
    world = Busy(seed)
    world.compact()
    number, goes_on = 0, True
    while goes_on:
        if number % PARTS == part:
            flushed = int(world.other.flushed)
            for at, files in enumerate(crash_states(world.disk.root, dice, DRAWN)):
                key = hash((frozenset(files.items()), flushed))
                if key in tried:
                    continue
                tried.add(key)
                try:
                    seen += judge(files, bytes(world.written), flushed)
                except BaseException:
                    print(f"\nstep {number}, state {at}; {command(seed, part)} repeats it")
                    raise
        if world.cleaner.rounds_count == 0 and dice.random() < WRITES:
            world.write(dice)
        goes_on = world.step()
        number += 1
    assert world.segments() == AFTER
    print(f"\n{len(tried)} states (compaction): {dict(seen)}")
    assert len(tried) >= LEAST, "too few states of a compaction"
    assert seen["old"]
    assert seen["new"]
    assert seen[Case.SWAPPED.name]
    assert seen[Case.TORN_TAIL.name]
