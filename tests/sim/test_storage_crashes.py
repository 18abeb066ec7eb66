"""Random histories of a log directory on a disk that crashes in any way the model allows.

After each crash: what was flushed is there, byte for byte; what is there is a prefix of what was
written; recovering again changes nothing; producers, epochs and indexes are those of a full
rebuild; no offset is given out twice in one epoch (I27, I28, I32).

OTTLA_SEED=n runs one history; OTTLA_SOAK=1 runs many more.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EIO, ENOSPC

import pytest

from ottla.core.model import NO_TOPIC_ID, FileSlice, LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.core.ports import DiskError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.reader import Record
from ottla.storage.checked import Cold
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.directory import LogDirectory
from ottla.storage.epochs import LeaderEpochs
from ottla.storage.findings import Case
from ottla.storage.log import Log
from ottla.storage.settings import LogSettings
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault
from ottla.testing.simloop import SimLoop
from tests.sim.histories import named_by, seed_ranges

HISTORIES = 60_000 if os.environ.get("OTTLA_SOAK") == "1" else 2000
SEEDS_PER_TEST = 100
SETTINGS = LogSettings(segment_bytes=6000, index_interval_bytes=300, segment_index_bytes=800)
POLICIES = ("any", "any", "any", "prefix", "prefix", "nothing", "everything")


class _Lock:
    def release(self) -> None:
        pass


@dataclass
class Model:
    """What was written to one partition, and how far it must still be there."""

    topic_id: TopicId
    batches: list[bytes] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    """Whole batches whose append failed: what was cut off again may be back after a crash, as
    if it had arrived. Nobody was told that it is there, or that it never will be."""
    flushed: int = 0
    sequences: dict[int, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return BatchView(memoryview(self.batches[-1])).last_offset + 1 if self.batches else 0

    def accept(self, content: bytes) -> bool:
        """Whether this is a prefix of what was written.

        Where nothing is flushed a refused batch may stand for the one that was written over it:
        the medium may have kept the one and lost the other, whatever came after them.
        """
        if b"".join(self.batches).startswith(content):
            return True
        found: list[bytes] = []
        at, expected = 0, BatchView(memoryview((*self.batches, *self.refused)[0])).base_offset
        while at < len(content):
            batch = BatchView(memoryview(content), at)
            raw = content[at : at + batch.length]
            if batch.base_offset != expected:
                return False
            if raw not in self.batches and (expected < self.flushed or raw not in self.refused):
                return False
            found.append(raw)
            at, expected = at + batch.length, batch.last_offset + 1
        self.batches = found
        return True

    def cut(self, end: int) -> None:
        while self.batches and BatchView(memoryview(self.batches[-1])).base_offset >= end:
            self.batches.pop()
        assert self.end == end, "the log ends inside a batch"


class History:
    """One run from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = SimDisk(seed)
        self.policy = self.random.choice(("commit", "commit", "os"))
        self.epoch = 0
        self.models: dict[TopicPartition, Model] = {}
        self.given: set[tuple[bytes, int, int]] = set()
        self.seen: Counter[str] = Counter()
        self.ids = 0
        self.start()

    # -- life and death

    def start(self) -> None:
        self.loop = SimLoop()
        self.disk.on_loop = False
        self.directory = LogDirectory("/data", self.disk, self.loop, self.loop, self.policy)
        self.directory.open(
            lambda _: _Lock(), MetaProperties("c", 0, "d"), lambda _partition, _id: SETTINGS
        )
        self.claim()
        self.disk.on_loop = True
        self.epoch += 1

    def claim(self) -> None:
        """Tell whose the logs without an id are, as `PartitionTable.load` does."""
        for name, log in list(self.directory.logs.items()):
            model = self.models.get(name)
            if log.topic_id != NO_TOPIC_ID:
                continue
            empty = not log.segments and not log.failed
            if model is not None and (empty or name in self.directory.adoptable):
                self.directory.adopt(log, model.topic_id)
            else:
                self.directory.set_aside([name])

    def note_flushed(self) -> None:
        for name, log in self.directory.logs.items():
            model = self.models[name]
            flushed = log.flushed if self.policy == "commit" else log.recovery_point
            if flushed <= log.start:
                continue  # it may have moved with the start: there is nothing to recover below
            model.flushed = max(model.flushed, flushed)

    def crash(self) -> None:
        self.note_flushed()
        policy = self.random.choice(POLICIES)
        self.disk.faults.clear()
        self.disk.crash(policy)
        self.seen[f"crash {policy}"] += 1
        while self.random.random() < 0.25:  # again, while recovering
            self.seen["crash in recovery"] += 1
            action = self.random.choice(("sync", "truncate", "remove", "replace", "sync directory"))
            self.disk.faults = [Fault(action, skip=self.random.randrange(4))]
            with suppress(DiskError):
                self.start()
            self.disk.faults.clear()
            self.disk.crash(policy)
        self.start()
        self.check()

    def kill(self) -> None:
        self.note_flushed()
        ends = {name: log.end for name, log in self.directory.logs.items()}
        self.disk.faults.clear()
        self.disk.kill()
        self.start()
        for name, end in ends.items():
            if name in self.directory.logs:
                assert self.directory.logs[name].end == end, "kill -9 lost what was written"
        self.check()

    def stop(self) -> None:
        self.settle()
        self.disk.on_loop = False
        try:
            self.directory.stop(broker_epoch=self.epoch)
        except DiskError:
            self.seen["stop refused"] += 1
            self.crash()
            return
        if self.directory.rounds.failure is not None:
            self.crash()
            return
        for name, log in self.directory.logs.items():
            self.models[name].flushed = log.end
        self.disk.faults.clear()
        if self.random.random() < 0.5:
            self.disk.crash("nothing")
        else:
            self.disk.kill()
        self.start()
        assert self.directory.was_clean
        cases = {found.finding.case for found in self.directory.found}
        assert cases <= {Case.LEFTOVER, Case.EMPTY_SEGMENT}, cases  # what a refused roll left
        self.check()

    # -- what a broker does

    def turn(self, count: int) -> None:
        for _ in range(count):
            if self.loop.ready and self.random.random() < 0.5:
                self.loop.turn()
            else:
                self.disk.step()

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()

    def append(self) -> None:
        name = TopicPartition("t", self.random.randrange(2))
        log = self.directory.logs.get(name)
        if log is None:
            self.ids += 1
            model = self.models[name] = Model(TopicId(self.ids.to_bytes(16, "big")))
            log = self.directory.create(name, model.topic_id, SETTINGS)
        model = self.models[name]
        raw = bytearray(self.batch(model))
        batch = BatchView(memoryview(raw))
        epoch = LeaderEpoch(self.epoch)
        for _ in range(3):
            pending = log.prepare(len(raw), epoch, batch.max_timestamp)
            if pending is None:
                break
            self.turn(self.random.randrange(30))
            if not pending.done:
                return
            try:
                pending.result()
            except DiskError:
                self.seen["prepare refused"] += 1
                return
        else:
            return
        if not log.usable:
            return
        self.put(log, model, batch, raw)

    def put(self, log: Log, model: Model, batch: BatchView, raw: bytearray) -> None:
        before = log.end
        try:
            base = log.append(batch, LeaderEpoch(self.epoch))
        except DiskError:
            self.seen["append refused"] += 1
            assert log.end == before
            model.refused.append(bytes(raw))
            return
        assert base == before == model.end
        for offset in range(base, log.end):
            key = (model.topic_id, self.epoch, offset)
            assert key not in self.given, "an offset was given out twice in one epoch"
            self.given.add(key)
        model.batches.append(bytes(raw))
        if batch.producer_id >= 0:
            model.sequences[batch.producer_id] = batch.last_sequence

    def batch(self, model: Model) -> bytes:
        count = self.random.choice((1, 1, 2, 5, 20))
        size = self.random.choice((0, 10, 100, 100, 900))
        timestamp = self.loop.wall_ms() + self.random.randrange(-50, 200)
        producer = Producer()
        if self.random.random() < 0.5:
            number = self.random.randrange(4)
            sequence = model.sequences.get(number, -1) + 1
            producer = Producer(number, 0, sequence)
        records = [
            Record(value=self.random.randbytes(size), timestamp=timestamp) for _ in range(count)
        ]
        return build_batch(records, producer=producer)

    def run(self) -> None:
        for _ in range(self.random.randrange(10, 60)):
            chance = self.random.random()
            if chance < 0.62:
                self.append()
            elif chance < 0.80:
                self.turn(self.random.randrange(12))
            elif chance < 0.84:
                self.settle()
            elif chance < 0.87:
                self.directory.checkpoint().then(lambda: None)
            elif chance < 0.89:
                self.stop()
            elif chance < 0.90:
                self.kill()
            elif chance < 0.91:
                self.disk.evict()
            elif chance < 0.92:
                self.plan_fault()
            else:
                self.crash()
            if self.directory.rounds.failure is not None:
                self.seen["offline"] += 1
                self.crash()
        self.crash()

    def plan_fault(self) -> None:
        action = self.random.choice(("write", "write", "create", "sync", "truncate", "replace"))
        number = self.random.choice((EIO, ENOSPC))
        self.disk.faults = [
            Fault(action, number, skip=self.random.randrange(6), short=self.random.randrange(200))
        ]

    # -- what must hold

    def check(self) -> None:
        """Everything, after a start; then start again and see that nothing has changed."""
        self.note_cases()
        first = {name: self.state(name, log) for name, log in self.directory.logs.items()}
        damaged = {name for name, log in self.directory.logs.items() if log.failed}
        for name, model in self.models.items():
            if name not in self.directory.logs:
                assert model.flushed == 0, f"{name} is gone with what was flushed"
                model.batches.clear()
        self.models = {k: v for k, v in self.models.items() if k in self.directory.logs}
        self.disk.kill()
        self.epoch += 1
        self.start()
        for found in self.directory.found:
            assert found.partition in damaged, found  # whose files are kept as they are
        again = {name: self.state(name, log) for name, log in self.directory.logs.items()}
        assert again == first, "recovering twice is not recovering once"
        for name in damaged:
            assert self.directory.logs[name].failed
            self.directory.delete(name)
            del self.models[name]
        if damaged:
            self.settle()

    def note_cases(self) -> None:
        for found in self.directory.found:
            self.seen[found.finding.case.name] += 1

    def state(self, name: TopicPartition, log: Log) -> object:
        model = self.models[name]
        content = self.content(log)
        assert model.accept(content), f"{name}: not a prefix of what was written"
        assert model.flushed <= log.end, f"{name}: {model.flushed} was flushed, {log.end} is there"
        model.cut(log.end)
        producers = {
            producer_id: (epoch, sequence, offset)
            for producer_id, epoch, sequence, offset, *_ in log.producers.entries()
        }
        expected_producers = {}
        expected_epochs = LeaderEpochs()
        for raw in model.batches:
            batch = BatchView(memoryview(raw))
            expected_epochs.assign(LeaderEpoch(batch.leader_epoch), batch.base_offset)
            if batch.producer_id >= 0:
                expected_producers[batch.producer_id] = (
                    batch.producer_epoch,
                    batch.last_sequence,
                    batch.last_offset,
                )
        assert producers == expected_producers
        model.sequences = {key: value[1] for key, value in producers.items()}
        assert log.epochs.entries() == expected_epochs.entries()
        self.check_indexes(log, model)
        return content, producers, log.epochs.entries(), log.start, log.end, log.failed

    def content(self, log: Log) -> bytes:
        """The whole log, as a consumer reads it."""
        parts = []
        offset = log.start
        bound = log.end_position()
        while (piece := log.read(offset, self.random.choice((1, 500, 5000)), bound)) is not None:
            if isinstance(piece, Cold):
                piece.bring(self.disk)
                self.settle()
                piece.slice.release()
                continue
            if piece is ErrorCode.KAFKA_STORAGE_ERROR:
                assert log.failed
                assert offset == max(log.damaged_at, log.start)
                break
            assert isinstance(piece, FileSlice), piece
            blocked, self.disk.on_loop = self.disk.on_loop, False
            raw = piece.file.read(piece.position, piece.length)
            self.disk.on_loop = blocked
            piece.release()
            assert len(raw) == piece.length
            parts.append(raw)
            at = 0
            while at < len(raw):
                batch = BatchView(memoryview(raw), at)
                at += batch.length
            assert at == len(raw), "a slice ends inside a batch"
            offset = Offset(batch.last_offset + 1)
        return b"".join(parts)

    def check_indexes(self, log: Log, model: Model) -> None:
        """Each segment's entries are those that appending its batches would have made."""
        for segment in log.segments:
            offsets, times, since, largest, position = [], [], 0, (-1, 0), 0
            for raw in model.batches:
                batch = BatchView(memoryview(raw))
                if not segment.base_offset <= batch.base_offset < segment.end:
                    continue
                if batch.max_timestamp > largest[0]:
                    largest = (batch.max_timestamp, batch.last_offset - segment.base_offset)
                if since > SETTINGS.index_interval_bytes:
                    offsets.append((batch.last_offset - segment.base_offset, position))
                    since = 0
                    if not times or largest[0] > times[-1][0]:
                        times.append(largest)
                since += batch.length
                position += batch.length
            blocked, self.disk.on_loop = self.disk.on_loop, False
            segment.offsets.write_out()
            segment.times.write_out()
            entry = segment.offsets.file.read(0, 1 << 20)
            assert entry == b"".join(
                a.to_bytes(4, "big") + b.to_bytes(4, "big") for a, b in offsets
            )
            entry = segment.times.file.read(0, 1 << 20)
            self.disk.on_loop = blocked
            assert segment.size == position
            found = [
                (
                    int.from_bytes(entry[at : at + 8], "big"),
                    int.from_bytes(entry[at + 8 : at + 12], "big"),
                )
                for at in range(0, len(entry), 12)
            ]
            # A segment that was closed ends with an entry for its largest timestamp.
            extra = [one for one in found if one not in times]
            assert [one for one in found if one not in extra] == times
            assert len(found) - len(times) == len(extra)
            assert found == sorted(found)


def run_history(seed: int) -> Counter[str]:
    with named_by(seed):
        history = History(seed)
        history.run()
    return history.seen


@pytest.mark.parametrize(
    "seeds", seed_ranges(HISTORIES, SEEDS_PER_TEST), ids=lambda seeds: f"from-{seeds[0]}"
)
def test_after_any_crash_the_log_is_what_was_flushed_or_more_of_what_was_written(seeds):
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen += run_history(seed)
    if len(seeds) > 1:
        assert seen["TORN_TAIL"], seen
        assert seen["crash any"], seen


if __name__ == "__main__":
    total: Counter[str] = Counter()
    for one in range(200):
        total += run_history(one)
    print(total)
