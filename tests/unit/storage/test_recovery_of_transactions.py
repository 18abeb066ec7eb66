"""Open and aborted transactions over a restart: from snapshots, and from the batches alone."""

from __future__ import annotations

import random
from errno import EACCES

import pytest

from ottla.core.model import LeaderEpoch, Offset
from ottla.core.ports import UnlinkFile
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.storage.aborted import Aborted, AbortedIndex
from ottla.storage.checkpoints import AbortedSeals
from ottla.storage.findings import Case, Finding
from ottla.storage.log import Opened
from ottla.storage.reading import aborted_between
from ottla.storage.recovery import Hints, open_log
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault

from .conftest import TOPIC_ID, Bench, make_batch

SETTINGS = LogSettings(segment_bytes=1000, index_interval_bytes=100)
EPOCH = LeaderEpoch(1)


@pytest.fixture
def bench() -> Bench:
    return Bench(settings=SETTINGS)


class Writer:
    """Producers in a log, each with its next sequence."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.sequences: dict[int, int] = {}

    def write(self, pid: int, size: int = 20) -> Offset:
        sequence = self.sequences.get(pid, 0)
        self.sequences[pid] = sequence + 1
        batch = make_batch(size=size, producer=(pid, 0, sequence), attributes=TRANSACTIONAL_BIT)
        return self.bench.append(batch)

    def end(self, pid: int, *, commit: bool) -> Offset:
        kind = ControlType.COMMIT if commit else ControlType.ABORT
        batch = BatchView(memoryview(build_end_marker(EndMarker(kind, 3), pid, 0, 1000)))
        log, disk = self.bench.log, self.bench.disk
        while (pending := log.prepare_abort(batch.length, EPOCH, 1000)) is not None:
            while not pending.done:
                disk.step()
            pending.result()
        return log.append_marker(batch, EPOCH)

    def roll(self) -> None:
        segments = len(self.bench.log.segments)
        while len(self.bench.log.segments) == segments:
            self.bench.append(make_batch(size=200))


def reopen(
    bench: Bench,
    *,
    clean: bool = False,
    recovery_point: int = 0,
    aborted: AbortedSeals | None = None,
) -> list[Finding]:
    bench.disk.kill()
    hints = Hints(clean, Offset(recovery_point), aborted=aborted)
    opened: Opened
    opened, findings = open_log(bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, hints)
    bench.log = bench.open(opened)
    return findings


def stop(bench: Bench) -> int:
    bench.disk.perform_now(bench.log.closing_steps())
    return bench.log.end


def every_aborted(bench: Bench) -> list[Aborted]:
    return aborted_between(bench.log.segments, Offset(0), Offset(1 << 60))


def opened(bench: Bench) -> list[tuple[int, int, int, int]]:
    """Producer, first offset and place of each open transaction."""
    found = []
    for one in bench.log.producers.unstable.open():
        assert one.place.segment in bench.log.segments
        place = one.place.segment.base_offset, one.place.position
        found.append((one.producer_id, one.first_offset, *place))
    return found


def two_aborted_one_open(bench: Bench) -> list[Aborted]:
    """Over several segments: one that is short, one that is long, and one without end."""
    writer = Writer(bench)
    writer.write(1)
    writer.write(2)
    writer.end(1, commit=False)
    writer.roll()
    writer.write(3)
    writer.end(2, commit=False)
    writer.write(4)
    writer.end(4, commit=True)
    writer.roll()
    bench.append(make_batch())
    bench.settle()
    return every_aborted(bench)


def test_after_a_clean_stop_the_indexes_are_as_they_were(bench):
    before = two_aborted_one_open(bench)
    there = opened(bench)
    assert [one.producer_id for one in before] == [1, 2]
    assert [one[0] for one in there] == [3]
    assert reopen(bench, clean=True, recovery_point=stop(bench)) == []
    assert every_aborted(bench) == before
    assert opened(bench) == there


def test_after_any_other_stop_both_are_found_in_the_batches(bench):
    before = two_aborted_one_open(bench)
    there = opened(bench)
    reopen(bench)
    assert every_aborted(bench) == before
    assert opened(bench) == there


@pytest.mark.parametrize("clean", [True, False])
def test_an_index_that_is_damaged_is_made_anew(bench, clean):
    before = two_aborted_one_open(bench)
    point = stop(bench)
    for segment in bench.log.segments:
        if segment.aborted is not None:
            bench.disk.open(segment.aborted.file.path).write(b"\1\1\1", 0)
    findings = reopen(bench, clean=clean, recovery_point=point)
    assert [one.case for one in findings].count(Case.INDEX_REBUILT) == 2
    assert every_aborted(bench) == before
    assert reopen(bench, clean=True, recovery_point=stop(bench)) == []
    assert every_aborted(bench) == before


def test_an_index_that_is_missing_is_made_anew_after_a_crash(bench):
    before = two_aborted_one_open(bench)
    for segment in bench.log.segments:
        if segment.aborted is not None:
            bench.disk.open(segment.aborted.file.path).truncate(0)
    reopen(bench)
    assert every_aborted(bench) == before


def indexes(bench: Bench) -> list[AbortedIndex]:
    return [one.aborted for one in bench.log.segments if one.aborted is not None]


@pytest.mark.parametrize("clean", [True, False])
def test_an_entry_that_could_be_right_and_is_not_the_one_written_is_made_anew(bench, clean):
    before = two_aborted_one_open(bench)
    point, seals = stop(bench), bench.log.aborted_seals()
    for index in indexes(bench):
        index.file.write(b"\x63", 9)  # another producer
    findings = reopen(bench, clean=clean, recovery_point=point, aborted=seals)
    assert [one.case for one in findings].count(Case.INDEX_REBUILT) >= 1
    assert every_aborted(bench) == before
    point = stop(bench)
    assert reopen(bench, clean=True, recovery_point=point, aborted=seals) == []


@pytest.mark.parametrize("clean", [True, False])
def test_an_index_that_a_checkpoint_knows_of_is_missed(bench, clean):
    before = two_aborted_one_open(bench)
    point, seals = stop(bench), bench.log.aborted_seals()
    assert len(seals) == 2
    for index in indexes(bench):
        bench.disk.perform_now([UnlinkFile(index.file.path)])
    reopen(bench, clean=clean, recovery_point=point, aborted=seals)
    assert every_aborted(bench) == before


def test_indexes_that_nothing_vouches_for_are_held_against_the_batches(bench):
    """As in a directory of Kafka's. A snapshot says that there have been transactions."""
    before = two_aborted_one_open(bench)
    point = stop(bench)
    for index in indexes(bench):
        bench.disk.perform_now([UnlinkFile(index.file.path)])
    reopen(bench, clean=True, recovery_point=point, aborted=None)
    assert every_aborted(bench) == before


def test_a_log_without_transactions_is_not_read_for_them(bench, monkeypatch):
    bench.append(make_batch(size=200))
    bench.settle()
    point = stop(bench)
    begins: list[Offset] = []
    monkeypatch.setattr(
        "ottla.storage.derived._replay", lambda _producers, _segments, begin: begins.append(begin)
    )
    assert reopen(bench, clean=True, recovery_point=point, aborted=None) == []
    assert begins == [point]


def test_an_index_tells_nothing_of_a_marker_that_was_lost(bench):
    writer = Writer(bench)
    writer.write(1)
    bench.settle()
    end = bench.log.segments[-1].size
    writer.end(1, commit=False)
    bench.log.segments[-1].log.truncate(end)
    reopen(bench)
    assert every_aborted(bench) == []
    assert opened(bench) == [(1, 0, 0, 0)]


def test_an_entry_of_an_append_that_failed_is_not_left_in_a_closed_segment(bench):
    writer = Writer(bench)
    writer.write(1)
    writer.end(1, commit=False)
    segment = bench.log.segments[-1]
    assert segment.aborted is not None
    segment.aborted.stage(Aborted(1, Offset(0), Offset(9), Offset(10)))
    point, seals = stop(bench), bench.log.aborted_seals()
    assert reopen(bench, clean=True, recovery_point=point, aborted=seals) == []
    assert every_aborted(bench) == [Aborted(1, 0, 1, 2)]


def test_markers_that_a_chunk_of_recovery_cuts_in_two_are_read_whole(bench, monkeypatch):
    monkeypatch.setattr("ottla.storage.scanning.HEADERS_CHUNK", 100)
    before = two_aborted_one_open(bench)
    reopen(bench)
    assert every_aborted(bench) == before


def test_a_log_that_loses_its_tail_at_any_point_knows_what_is_open_and_aborted_below(bench):
    """A dictionary is the model: what a walk over the batches that are left would find."""
    seed = 20261125
    chance = random.Random(seed)
    for _ in range(25):
        bench = Bench(settings=SETTINGS)
        writer = Writer(bench)
        history: list[tuple[int, str, int]] = []
        for _ in range(chance.randrange(1, 60)):
            pid = chance.randrange(1, 5)
            match chance.randrange(6):
                case 0:
                    history.append((writer.end(pid, commit=True), "commit", pid))
                case 1 | 2:
                    history.append((writer.end(pid, commit=False), "abort", pid))
                case _:
                    history.append((writer.write(pid), "write", pid))
        bench.settle()
        last = bench.log.segments[-1]
        cut = chance.randrange(last.size + 1)
        last.log.truncate(cut)
        reopen(bench)
        begun: dict[int, int] = {}
        aborted: list[tuple[int, int, int]] = []
        for offset, what, pid in history:
            if offset >= bench.log.end:
                break
            if what == "write":
                begun.setdefault(pid, offset)
            elif pid in begun:
                first = begun.pop(pid)
                if what == "abort":
                    aborted.append((pid, first, offset))
        found = [one[:3] for one in every_aborted(bench)]
        assert found == aborted, f"seed {seed}"
        expected = sorted((first, pid) for pid, first in begun.items())
        there = [(first, pid) for pid, first, *_ in opened(bench)]
        assert there == expected, f"seed {seed}"
        for one in bench.log.producers.unstable.open():
            assert bench.read(one.first_offset)[0] == one.first_offset
            assert one.place.segment is not None
            raw = one.place.segment.log.read(one.place.position, 61)
            assert BatchView(memoryview(raw)).base_offset == one.first_offset


def test_aborted_transactions_are_found_anew_after_none_of_the_files_could_be_read(bench):
    """As where somebody else owns them all: no index is there then, and nothing vouches for any."""
    were = two_aborted_one_open(bench)
    end = stop(bench)
    bench.disk.faults.append(Fault("read", EACCES, "/t-0/", times=1 << 30))
    assert reopen(bench, recovery_point=end)[-1].case is Case.UNREADABLE
    assert bench.log.aborted_seals() == {}
    bench.disk.faults.clear()
    reopen(bench, recovery_point=end, aborted={})
    assert not bench.log.failed
    assert every_aborted(bench) == were


def test_i39_an_abort_since_the_checkpoint_is_found_though_its_index_is_lost(bench):
    """The checkpoint knows of no index, and there is none: only the batches tell of it."""
    bench.append(make_batch())
    bench.settle()
    seals, point = bench.log.aborted_seals(), bench.log.end
    assert seals == {}
    writer = Writer(bench)
    writer.write(1)
    writer.end(1, commit=False)
    bench.settle()
    before = every_aborted(bench)
    assert [one.producer_id for one in before] == [1]
    for index in indexes(bench):
        bench.disk.perform_now([UnlinkFile(index.file.path)])
    reopen(bench, recovery_point=point, aborted=seals)
    assert every_aborted(bench) == before


def test_an_open_transaction_is_as_old_after_a_restart_as_its_first_batch(bench):
    """Not as its last one, which is all that a snapshot has the time of."""
    for sequence, timestamp in enumerate((2000, 9000)):
        more = {"producer": (1, 0, sequence), "attributes": TRANSACTIONAL_BIT}
        bench.append(make_batch(timestamp=timestamp, **more))
    bench.settle()
    reopen(bench, clean=True, recovery_point=stop(bench))
    [one] = bench.log.producers.unstable.open()
    assert one.since_ms == 2000
