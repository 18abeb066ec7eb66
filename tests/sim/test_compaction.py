"""Random histories of a compacted log on a disk that crashes in any way the model allows.

A dictionary says what must be there: below what was compacted the latest record of each key, behind
it everything; never a record that a transaction took back, never one that was not written; offsets,
keys, values, headers and timestamps as they were. After a crash old segments are there or new ones,
whichever: the same records of every key as before or fewer, and recovering again changes nothing
(I34).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from ottla.core.model import LeaderEpoch, Offset, TopicId, TopicPartition
from ottla.core.ports import DiskError
from ottla.records.batch import CONTROL_BIT, TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.records.reader import Record, read_batches, records_of
from ottla.storage.checkpoints import MetaProperties
from ottla.storage.cleaner.cleaner import Cleaner, Failure, Limits
from ottla.storage.directory import LogDirectory
from ottla.storage.log import Log
from ottla.storage.segment import Segment
from ottla.storage.settings import LogSettings
from ottla.testing.simcleaning import SimWork
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault
from ottla.testing.simloop import SimLoop
from tests.sim.histories import named_by, seed_ranges

HISTORIES = 20_000 if os.environ.get("OTTLA_SOAK") == "1" else 240
PER_TEST = 40
PARTITION = TopicPartition("t", 0)
EPOCH = LeaderEpoch(1)
HOUR_MS = 3_600_000
SETTINGS = LogSettings(
    segment_bytes=3000,
    index_interval_bytes=200,
    segment_index_bytes=800,
    compacted=True,
    min_cleanable_ratio=0.01,
    delete_retention_ms=HOUR_MS,
    file_delete_delay_ms=1000,
)
POLICIES = ("any", "any", "prefix", "nothing", "everything")


class Known(NamedTuple):
    """A record as it was written. `pid` of a transaction's."""

    key: bytes
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...]
    pid: int | None


class _DamagedEnd(Exception):
    """A crash after which nothing can be said."""


class _Lock:
    def release(self) -> None:
        pass


class History:
    """One run from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = SimDisk(seed)
        self.loop = SimLoop()
        self.written: dict[int, Known] = {}
        self.aborted: set[int] = set()
        self.open: dict[int, list[int]] = {}
        """Offsets of the open transaction of each producer that has one."""
        self.sequences: dict[int, int] = {}
        self.upto = 0
        """How far it was compacted, at least once."""
        self.flushed = 0
        self.codec = self.random.choice((0, 0, 1, 3, 4))
        self.keys = self.random.choice((2, 5, 40))
        self.buffer = self.random.choice((1 << 20, 1 << 20, 320))
        self.seen: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        self.count_rounds()
        self.loop.forget()
        self.disk.on_loop = False
        self.directory = LogDirectory("/data", self.disk, self.loop, self.loop, "commit")
        self.directory.open(
            lambda _: _Lock(), MetaProperties("c", 0, "d"), lambda _partition, _id: SETTINGS
        )
        if PARTITION not in self.directory.logs:
            self.directory.create(PARTITION, TopicId(b"0" * 16), SETTINGS)
        self.disk.on_loop = True
        self.work = SimWork(self.disk, self.loop)
        self.cleaner = Cleaner(
            self.directory, (self.loop, self.loop), self.work, self.bounds, self.limits
        )
        self.cleaner.on_failure = self.note_failure
        self.cleaner.start()

    def count_rounds(self) -> None:
        """What the cleaner of this boot has done; a process that died takes it along."""
        if (cleaner := getattr(self, "cleaner", None)) is not None:
            self.seen["rounds"] += cleaner.rounds_count
            cleaner.rounds_count = 0

    def limits(self) -> Limits:
        return Limits(True, 15_000, self.buffer, 1e308, 1 << 20)

    def bounds(self, _: TopicPartition):
        bounds = [self.log.flushed_position()]
        if (first := self.log.producers.unstable.first) is not None:
            assert first.place is not None
            bounds.append(first.place)
        return bounds

    def note_failure(self, _: TopicPartition, failure: Failure) -> None:
        self.seen["failure"] += 1
        assert not failure.lasting or "remove" in failure.text or "sync" in failure.text, failure

    @property
    def log(self) -> Log:
        return self.directory.logs[PARTITION]

    # -- what happens

    def turn(self, count: int) -> None:
        for _ in range(count):
            if self.loop.ready and self.random.random() < 0.5:
                self.loop.turn()
            else:
                self.disk.step()

    def settle(self) -> None:
        while self.loop.turn() or self.disk.busy:
            self.disk.step()
        self.note()

    def note(self) -> None:
        self.flushed = max(self.flushed, self.log.flushed)
        self.upto = max(self.upto, self.directory.checkpoints.cleaned.get(PARTITION, 0))

    def put(self, raw: bytearray, marker: EndMarker | None = None) -> int | None:
        batch = BatchView(memoryview(raw))
        prepare = self.log.prepare
        if marker is not None and marker.type == ControlType.ABORT:
            prepare = self.log.prepare_abort
        for _ in range(4):
            pending = prepare(len(raw), EPOCH, batch.max_timestamp)
            if pending is None:
                append = self.log.append if marker is None else self.log.append_marker
                return append(batch, EPOCH)
            while not pending.done:
                self.turn(1)
            pending.result()
        return None

    def produce(self) -> None:
        count = self.random.choice((1, 1, 2, 5, 12))
        records = [
            Record(
                key=b"k%d" % self.random.randrange(self.keys) * self.random.choice((1, 1, 1, 6)),
                value=None
                if self.random.random() < 0.2
                else self.random.randbytes(self.random.choice((0, 1, 60, 200))),
                timestamp=self.loop.wall_ms() - self.random.randrange(1000),
                headers=[("h", b"1")] * self.random.choice((0, 0, 1)),
            )
            for _ in range(count)
        ]
        pid, attributes, producer = None, 0, Producer()
        kind = self.random.random()
        if kind < 0.6:
            number = self.random.randrange(4)
            transactional = number >= 2
            first = self.sequences.get(number, -1) + 1
            producer = Producer(number, 0, first)
            if transactional:
                pid, attributes = number, TRANSACTIONAL_BIT
        raw = bytearray(
            build_batch(records, producer=producer, attributes=attributes, codec=self.codec)
        )
        base = self.put(raw)
        if base is None:
            return
        if producer.id >= 0:
            self.sequences[producer.id] = producer.sequence + count - 1
        for at, record in enumerate(records):
            known = Known(record.key, record.value, record.timestamp, tuple(record.headers), pid)
            self.written[base + at] = known
        if pid is not None:
            self.open.setdefault(pid, []).extend(range(base, base + count))

    def end(self) -> None:
        if not self.open:
            return
        pid = self.random.choice(sorted(self.open))
        marker = EndMarker(self.random.choice((ControlType.COMMIT, ControlType.ABORT)), 0)
        raw = build_end_marker(marker, pid, 0, self.loop.wall_ms())
        if self.put(raw, marker) is None:
            return
        offsets = self.open.pop(pid)
        if marker.type == ControlType.ABORT:
            self.aborted.update(offsets)

    def delete_records(self) -> None:
        offset = Offset(self.random.randint(self.log.start, self.log.flushed))
        self.directory.starts.move(self.log, offset)
        self.turn(self.random.randrange(30))

    def compact(self) -> None:
        self.loop.advance(16)
        if self.random.random() < 0.2:
            self.work.ends = True
        self.turn(self.random.randrange(200))

    def crash(self) -> None:
        self.note()
        self.disk.faults.clear()
        policy = self.random.choice(POLICIES)
        self.disk.crash(policy)
        self.seen[policy] += 1
        while self.random.random() < 0.3:
            action = self.random.choice(("sync directory", "rename", "remove", "sync", "truncate"))
            self.disk.faults = [Fault(action, skip=self.random.randrange(4))]
            with suppress(DiskError):
                self.start()
            self.disk.faults.clear()
            self.disk.crash(policy)
        self.start()
        self.after_start()

    def restart(self) -> None:
        self.settle()
        self.disk.on_loop = False
        self.cleaner.stop()
        self.directory.stop(1)
        self.disk.kill()
        self.start()
        assert self.directory.was_clean
        self.after_start()

    def after_start(self) -> None:
        if self.log.failed:
            # Sectors in the midst of what was not synced: told from a torn tail by what follows.
            assert self.log.damaged_at >= self.flushed, self.directory.found
            raise _DamagedEnd
        self.seen.update(found.finding.case.name for found in self.directory.found)
        assert self.log.end >= self.flushed
        end = self.log.end
        for offset in [one for one in self.written if one >= end]:
            del self.written[offset]
        self.aborted = {one for one in self.aborted if one < end}
        self.reopen_transactions(end)
        before = self.state()
        self.disk.kill()
        self.start()
        cases = {found.finding.case for found in self.directory.found}
        assert not cases, cases
        assert self.state() == before, "recovering twice is not recovering once"
        self.check()

    def reopen_transactions(self, end: int) -> None:
        """A marker that was lost leaves its transaction open, one that is there has ended it."""
        self.open = {}
        for transaction in list(self.log.producers.unstable.open()):
            pid = transaction.producer_id
            offsets = [
                offset
                for offset, known in sorted(self.written.items())
                if known.pid == pid and transaction.first_offset <= offset < end
            ]
            self.open[pid] = offsets
            self.aborted.difference_update(offsets)
        self.sequences = {
            entry[0]: entry[2] for entry in self.log.producers.entries() if entry[2] >= 0
        }

    # -- what must hold

    def batches(self, segment: Segment) -> list[BatchView]:
        blocked, self.disk.on_loop = self.disk.on_loop, False
        raw = segment.log.read(0, segment.size)
        self.disk.on_loop = blocked
        found = list(read_batches(raw))
        assert sum(batch.length for batch in found) == segment.size
        return found

    def state(self) -> object:
        content = [b"".join(bytes(b.view) for b in self.batches(s)) for s in self.log.segments]
        return content, sorted(self.log.producers.entries()), self.log.end, self.log.start

    def check(self) -> None:
        """Compare with the dictionary."""
        left: dict[int, Known] = {}
        expected = -1
        for segment in self.log.segments:
            for batch in self.batches(segment):
                assert batch.base_offset > expected, "offsets rise"
                expected = batch.last_offset
                if batch.attributes & CONTROL_BIT:
                    continue
                for record in records_of(batch):
                    known = self.written[record.offset]
                    pid = known.pid
                    found = Known(
                        record.key, record.value, record.timestamp, tuple(record.headers), pid
                    )
                    assert found == known, record.offset
                    left[record.offset] = known
        committed = {
            offset: known for offset, known in self.written.items() if offset not in self.aborted
        }
        latest: dict[bytes, int] = {}
        for offset in sorted(committed):
            latest[committed[offset].key] = offset
        # Nothing that anybody needs is gone: every key's last word, but for old farewells.
        for key, offset in latest.items():
            if committed[offset].value is not None and offset >= self.log.start:
                assert offset in left, f"{key!r}: the last record, at {offset}, is gone"
        # And what is there says the same as what was written, read in order.
        says = {
            left[offset].key: left[offset].value
            for offset in sorted(left)
            if offset not in self.aborted
        }
        wanted = {
            key: committed[offset].value
            for key, offset in latest.items()
            if offset >= self.log.start
        }
        for key, value in wanted.items():
            assert says.get(key) == value
        for offset in committed:
            if offset >= max(self.log_uncompacted(), self.log.start):
                assert offset in left, f"{offset} was not compacted and is gone"
        if self.log.producers.unstable.first is None:
            for pid, sequence in self.sequences.items():
                state = self.log.producers.get(pid)
                assert (
                    state is None
                    or not state.batches
                    or (state.batches[-1].last_sequence == sequence)
                )

    def log_uncompacted(self) -> int:
        """From here on nothing can have been compacted: the last segment."""
        return self.log.segments[-1].base_offset if self.log.segments else 0

    def check_compacted(self) -> None:
        """Below what was compacted only the latest are left, and farewells not yet old."""
        upto = self.directory.checkpoints.cleaned.get(PARTITION, Offset(0))
        committed = [o for o in sorted(self.written) if o not in self.aborted]
        latest = {self.written[o].key: o for o in committed if o < upto}
        for segment in self.log.segments:
            for batch in self.batches(segment):
                if batch.attributes & CONTROL_BIT:
                    continue
                for record in records_of(batch):
                    if self.log.start <= record.offset < upto:
                        assert record.offset not in self.aborted
                        assert latest[record.key] == record.offset

    def run(self) -> None:
        with suppress(_DamagedEnd):
            self.live()

    def live(self) -> None:
        for _ in range(self.random.randrange(20, 120)):
            chance = self.random.random()
            if chance < 0.62:
                self.produce()
            elif chance < 0.72:
                self.end()
            elif chance < 0.86:
                self.compact()
            elif chance < 0.90:
                self.settle()
                self.check()
            elif chance < 0.91:
                self.delete_records()
            elif chance < 0.92:
                self.loop.advance(self.random.choice((60, 1800, 4000)))
            elif chance < 0.94:
                self.restart()
            else:
                self.crash()
        self.finish()

    def finish(self) -> None:
        """Without faults it converges."""
        self.disk.faults.clear()
        self.settle()
        for _ in range(3):
            self.loop.advance(16)
            self.settle()
        self.check()
        self.check_compacted()
        assert not self.cleaner.uncleanable
        self.crash()


def test_a_compacted_log_says_what_a_dictionary_says(seeds):
    for seed in seeds:
        with named_by(seed):
            History(seed).run()


def pytest_generate_tests(metafunc):
    metafunc.parametrize("seeds", seed_ranges(HISTORIES, PER_TEST), ids=str)
