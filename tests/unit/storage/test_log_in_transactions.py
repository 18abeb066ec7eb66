"""A log that transactions end in: its index of aborted ones, on a disk that refuses."""

from __future__ import annotations

from errno import EIO, ENOSPC

import pytest

from ottla.core.model import FileSlice, LeaderEpoch, Offset
from ottla.core.ports import DiskError
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.control import ControlType, EndMarker, build_end_marker
from ottla.storage.aborted import Aborted
from ottla.storage.reading import aborted_between
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault

from .conftest import Bench, make_batch

EPOCH = LeaderEpoch(1)
SETTINGS = LogSettings(segment_bytes=1000, index_interval_bytes=100)


@pytest.fixture
def bench() -> Bench:
    return Bench(settings=SETTINGS)


def write(bench: Bench, pid: int = 7, sequence: int = 0) -> Offset:
    batch = make_batch(producer=(pid, 0, sequence), attributes=TRANSACTIONAL_BIT)
    return bench.append(batch)


def marker(pid: int = 7) -> BatchView:
    raw = build_end_marker(EndMarker(ControlType.ABORT, 0), pid, 0, 1000)
    return BatchView(memoryview(raw))


def abort(bench: Bench, pid: int = 7) -> Offset:
    batch = marker(pid)
    while (pending := bench.log.prepare_abort(batch.length, EPOCH, 1000)) is not None:
        bench.settle()
        pending.result()
    return bench.log.append_marker(batch, EPOCH)


def aborted(bench: Bench, offset: int = 0, upper: int = 1 << 60) -> list[Aborted]:
    return aborted_between(bench.log.segments, Offset(offset), Offset(upper))


def test_an_abort_waits_until_its_segment_has_an_index(bench):
    write(bench)
    batch = marker()
    waiting = bench.log.prepare_abort(batch.length, EPOCH, 1000)
    assert waiting is not None
    assert bench.log.prepare(batch.length, EPOCH, 1000) is not None  # and so does all else
    bench.settle()
    assert bench.log.prepare_abort(batch.length, EPOCH, 1000) is None
    bench.log.append_marker(batch, EPOCH)
    assert aborted(bench) == [Aborted(7, 0, 1, 2)]


def test_without_room_for_the_index_there_is_no_marker_and_later_there_is(bench):
    write(bench)
    bench.disk.faults = [Fault("create", ENOSPC)]
    with pytest.raises(DiskError):
        abort(bench)
    assert bench.log.end == 1
    assert not bench.log.failed
    assert abort(bench) == 1
    assert aborted(bench) == [Aborted(7, 0, 1, 2)]


def test_an_entry_that_could_not_be_written_has_no_marker(bench):
    write(bench)
    abort(bench)
    write(bench, sequence=1)
    bench.disk.faults = [Fault("write", EIO)]
    with pytest.raises(DiskError):
        abort(bench)
    assert bench.log.end == 3
    assert len(aborted(bench)) == 1


def test_a_marker_that_could_not_be_written_leaves_no_entry(bench):
    write(bench)
    abort(bench)
    write(bench, sequence=1)
    bench.disk.faults = [Fault("write", EIO, path=".log")]
    with pytest.raises(DiskError):
        abort(bench)
    assert len(aborted(bench)) == 1
    assert [one.producer_id for one in bench.log.producers.unstable.open()] == [7]


def test_each_segment_has_the_aborts_whose_markers_lie_in_it(bench):
    write(bench, 7)
    write(bench, 8)
    abort(bench, 7)
    while len(bench.log.segments) == 1:
        bench.append(make_batch(size=200))
    abort(bench, 8)
    counts = [one.aborted and one.aborted.count for one in bench.log.segments]
    assert counts == [1, 1]
    end = bench.log.end
    assert aborted(bench) == [Aborted(7, 0, 2, 1), Aborted(8, 1, end - 1, end)]
    assert aborted(bench, 3, 4) == [Aborted(8, 1, end - 1, end)]


def test_a_slice_is_told_of_what_is_aborted_in_it_and_not_of_what_lies_far_behind(bench):
    write(bench, 7)
    abort(bench, 7)
    for _ in range(8):
        bench.append(make_batch(size=60))
    write(bench, 8)
    abort(bench, 8)
    piece = bench.log.read(Offset(0), 1, bench.log.end_position())
    assert isinstance(piece, FileSlice)
    assert bench.log.aborted_in(Offset(0), piece) == [Aborted(7, 0, 1, 2)]
    piece.release()


def test_dropped_segments_take_their_indexes_along(bench):
    write(bench, 7)
    abort(bench, 7)
    while len(bench.log.segments) == 1:
        bench.append(make_batch(size=200))
    bench.settle()
    start = bench.log.segments[1].base_offset
    bench.log.set_start(start)
    [gone] = bench.log.drop_below(start)
    assert [file.path.rpartition(".")[2] for file in gone.files()] == [
        "log", "index", "timeindex", "txnindex",
    ]  # fmt: skip
    assert aborted(bench) == []


def test_what_a_refused_marker_has_left_in_its_index_is_cut_when_the_segment_is_closed(bench):
    write(bench)
    abort(bench)
    write(bench, 8)
    bench.disk.faults = [Fault("write", ENOSPC, path=".log")]
    with pytest.raises(DiskError):
        abort(bench, 8)
    index = bench.log.segments[-1].aborted
    assert index.file.size() == 2 * 34
    bench.disk.perform_now(bench.log.closing_steps())
    assert index.file.size() == 34
