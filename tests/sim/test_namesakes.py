"""A topic deleted and made anew: whatever a power cut leaves, the new one takes nothing of the old.

The states of one power cut over delete and create are listed (`testing/simcrash.py`). Each is
started from as a broker starts: what belongs to the old topic is set aside, the new one is written
to; then the states of a second power cut are listed, and what the new topic had must be there.
The checkpoints are Kafka's and name logs by topic and number only: they must not speak of the old.
"""

from __future__ import annotations

import random

import pytest

from ottla.core.model import NO_TOPIC_ID, LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.records.batch import BatchView
from ottla.records.builder import build_batch
from ottla.records.reader import Record
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.directory import LogDirectory
from ottla.storage.log import Log
from ottla.storage.rounds import FlushPolicy
from ottla.storage.settings import LogSettings
from ottla.testing.simcrash import crash_states
from ottla.testing.simdisk import SimDisk
from ottla.testing.simimage import folder_of
from ottla.testing.simloop import SimLoop

T0 = TopicPartition("t", 0)
OLD, NEW = TopicId(b"o" * 16), TopicId(b"n" * 16)
SETTINGS = LogSettings()
DRAWN = 4


class _Lock:
    def release(self) -> None:
        pass


class Life:
    """A broker from one start to the next power cut."""

    def __init__(self, disk: SimDisk, policy: FlushPolicy, epoch: int, known: TopicId) -> None:
        self.disk, self.loop, self.epoch = disk, SimLoop(), LeaderEpoch(epoch)
        disk.on_loop = False
        here = MetaProperties("c", 0, "d")
        self.directory = LogDirectory("/data", disk, self.loop, self.loop, policy)
        self.directory.open(lambda _: _Lock(), here, lambda _partition, _id: SETTINGS)
        log = self.directory.logs.get(T0)
        if log is not None:  # as PartitionTable.load does
            empty = not log.segments and not log.failed
            if log.topic_id == NO_TOPIC_ID and (empty or T0 in self.directory.adoptable):
                self.directory.adopt(log, known)
            if log.topic_id != known:
                self.directory.set_aside([T0])
        disk.on_loop = True
        self.log = self.directory.logs.get(T0) or self.create(known)

    def create(self, topic_id: TopicId) -> Log:
        self.log = self.directory.create(T0, topic_id, SETTINGS)
        return self.log

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()

    def append(self) -> None:
        raw = bytearray(build_batch([Record(value=b"x" * 100)]))
        while self.log.prepare(len(raw), self.epoch, 0) is not None:
            self.settle()
        self.log.append(BatchView(memoryview(raw)), self.epoch)


def after(files: dict[str, bytes], policy: FlushPolicy, epoch: int, seed: int) -> Life:
    disk = SimDisk(seed)
    disk.root = folder_of(files)
    return Life(disk, policy, epoch, NEW)


def written_on(files: dict[str, bytes], policy: FlushPolicy, dice: random.Random) -> int:
    """Go on from a state with three records of the new topic; how many states come after that."""
    life = after(files, policy, 2, 1)
    had = life.log.end
    for _ in range(3):
        life.append()
    life.settle()
    durable = life.log.recovery_point
    assert policy == "os" or durable == had + 3
    count = 0
    for left in crash_states(life.disk.root, dice, 1):
        count += 1
        again = after(left, policy, 3, 2).log
        assert again.start == 0
        if policy == "commit":  # else pages of the tail may have come in another order: damage
            assert not again.failed, "by what is known of the old one it is damaged"
        assert durable <= again.end <= had + 3
    return count


@pytest.mark.parametrize("policy", ["commit", "os"])
@pytest.mark.parametrize("synced", [False, True])
def test_a_topic_made_anew_takes_nothing_from_its_namesake_whatever_a_power_cut_leaves(
    policy: FlushPolicy, synced: bool
) -> None:
    dice = random.Random(7)
    disk = SimDisk(0)
    life = Life(disk, policy, 1, OLD)
    for _ in range(9):
        life.append()
    if synced:
        life.directory.rounds.request(life.log)
    life.settle()
    life.directory.starts.move(life.log, Offset(5))
    life.settle()
    if synced:
        life.directory.checkpoint()
        life.settle()
        life.directory.checkpoints.note_cleaned(T0, Offset(7))
        life.settle()
    life.directory.delete(T0)  # the metadata says so from here on
    life.create(NEW)
    waiting = life.log.prepare(100, life.epoch, 0)
    assert waiting is not None
    tried: set[int] = set()
    seconds = 0
    while True:
        for files in crash_states(disk.root, dice, DRAWN):
            key = hash(frozenset(files.items()))
            if key in tried:
                continue
            tried.add(key)
            found = after(files, policy, 2, 1)
            assert (found.log.topic_id, found.log.start, found.log.end) == (NEW, 0, 0)
            assert T0 not in found.directory.checkpoints.cleaned
            seconds += written_on(files, policy, dice)
        if waiting.done:
            break
        if not life.loop.turn():
            disk.step()
    print(f"\n{len(tried)} states, {seconds} after them")
    assert len(tried) > 10
