"""What was found in the files is looked at before it is served; damage is answered, not sent."""

from __future__ import annotations

from errno import EIO

import pytest

from ottla.core.model import FileSlice, Offset
from ottla.core.ports import DiskError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import HEADER_SIZE
from ottla.storage.checked import Cold, Region, Spans, Unchecked, look
from ottla.storage.reading import INTACT, TimeHit
from ottla.storage.recovery import Hints, open_log
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault, SimFile

from .conftest import TOPIC_ID, Bench, make_batch

SETTINGS = LogSettings(segment_bytes=3000, index_interval_bytes=300)
FIRST = "/data/t-0/00000000000000000000"


@pytest.fixture
def bench() -> Bench:
    """Sixty batches in several segments, opened again after a clean stop."""
    bench = Bench(settings=SETTINGS)
    for number in range(60):
        bench.append(make_batch(size=40, timestamp=1000 + number))
    bench.settle()
    bench.disk.perform_now(bench.log.closing_steps())
    reopen(bench)
    return bench


def reopen(bench: Bench) -> None:
    bench.disk.kill()
    opened, _ = open_log(
        bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, Hints(clean=True, recovery_point=Offset(60))
    )
    bench.log = bench.open(opened)


def spoil(bench: Bench, offset: int, byte: int) -> None:
    """Change one byte of a batch in the first segment."""
    length = make_batch(size=40, timestamp=1000).length
    at = offset * length + byte
    raw = bench.disk.read_file(FIRST + ".log")
    bench.disk.open(FIRST + ".log").write(bytes([raw[at] ^ 0x10]), at)


def looks(bench: Bench, offset: int) -> int:
    """Read once; how many looks that took."""
    count = 0
    while isinstance(piece := bench.log.read(Offset(offset), 500, bench.log.end_position()), Cold):
        count += isinstance(piece, Unchecked)
        piece.bring(bench.disk)
        bench.settle()
        piece.slice.release()
    if isinstance(piece, FileSlice):
        piece.release()
    return count


def test_what_was_found_in_a_file_is_looked_at_once(bench):
    assert looks(bench, 0) == 1
    assert [looks(bench, offset) for offset in range(20)] == [0] * 20


def test_a_look_begins_near_what_is_wanted(bench):
    piece = bench.log.read(Offset(15), 1, bench.log.end_position())
    assert isinstance(piece, Unchecked)
    assert piece.slice.position > 0
    piece.slice.release()
    assert looks(bench, 15) == 1
    assert looks(bench, 2) == 1


def test_what_this_process_wrote_needs_no_look(bench):
    bench.append(make_batch(), epoch=2)
    assert looks(bench, 60) == 0
    assert looks(Bench(settings=SETTINGS), 0) == 0


@pytest.mark.parametrize("byte", [3, 7, 10, 16, 18, 22, 40, 60, 80])
def test_damage_is_answered_from_where_it_is_and_what_lies_below_is_served(bench, byte):
    spoil(bench, 5, byte)
    told = []
    bench.log.on_damage = told.append
    assert bench.read(0, 10_000) == [0, 1, 2, 3, 4]
    assert [bench.log.read(Offset(at), 1, bench.log.end_position()) for at in (5, 6, 40, 60)] == [
        ErrorCode.KAFKA_STORAGE_ERROR
    ] * 4
    assert bench.log.damaged_at == 5
    assert not bench.log.usable
    assert len(told) == 1
    assert bench.read(3, 10_000) == [3, 4]


def test_damage_that_a_header_shows_in_passing_quarantines_the_log(bench):
    spoil(bench, 5, 16)
    assert looks(bench, 5) == 1
    assert bench.log.damaged_at == 5


def test_a_batch_that_claims_a_later_offset_is_not_served(bench):
    spoil(bench, 6, 6)
    bench.disk.open(FIRST + ".index").truncate(0)
    reopen(bench)
    assert bench.read(0, 10_000) == [0, 1, 2, 3, 4, 5]
    assert bench.log.damaged_at == 6


def test_the_last_batch_of_a_segment_can_not_claim_an_offset_of_the_next(bench):
    last = bench.log.segments[1].base_offset - 1
    spoil(bench, last, 6)
    assert bench.read(last - 1, 10_000) == [last - 1]
    assert bench.log.damaged_at == last


def test_where_holes_may_be_the_last_batch_leaves_room_for_the_next_segment(bench):
    bench.disk.kill()
    last = bench.log.segments[1].base_offset - 1
    spoil(bench, last, 6)
    hints = Hints(clean=True, recovery_point=Offset(60))
    compacted = SETTINGS.replace(compacted=True)
    bench.log = bench.open(open_log(bench.disk, "/data/t-0", TOPIC_ID, compacted, hints)[0])
    assert bench.read(last - 1, 10_000) == [last - 1]
    assert bench.log.damaged_at == last


def test_a_look_that_does_not_find_what_the_index_promised_says_so(bench):
    segment = bench.log.segments[0]
    region = Region(0, segment.size, segment.size, 0, 7, segment.end, 0)
    seen = look(region, bench.disk.open(segment.log.path))
    assert not seen.first_fits
    segment.looked_at(region, seen)
    assert segment.damage is None
    assert segment.offsets.count == 0, "the index is not believed any more"


def test_holes_that_compaction_left_are_no_damage():
    bench = Bench(settings=SETTINGS)
    for number in range(9):
        bench.append(make_batch(size=40, timestamp=1000))
        if number % 3 == 1:
            bench.log._move(bench.log.start, bench.log.flushed, Offset(bench.log.end + 7))
    end = bench.log.end
    bench.settle()
    bench.disk.perform_now(bench.log.closing_steps())
    bench.disk.kill()
    hints = Hints(clean=True, recovery_point=end)
    compacted = SETTINGS.replace(compacted=True)
    opened, _ = open_log(bench.disk, "/data/t-0", TOPIC_ID, compacted, hints)
    bench.log = bench.open(opened)
    assert bench.read(0, 10_000) == [0, 1, 9, 10, 11, 19, 20, 21, 29]
    assert bench.log.damaged_at == INTACT


def test_an_index_that_lies_is_not_believed_and_not_held_against_the_log(bench):
    file = bench.disk.open(FIRST + ".index")
    raw = file.read(0, 8)
    file.write(bytes([*raw[:3], raw[3] ^ 1, *raw[4:]]), 0)
    assert bench.read(10, 500)[0] == 10
    assert bench.log.damaged_at == INTACT


def test_a_file_that_was_cut_is_noticed(bench):
    bench.disk.open(FIRST + ".log").truncate(1000)
    count = 1000 // make_batch(size=40, timestamp=1000).length
    assert bench.read(0, 10_000) == list(range(count))
    assert bench.log.damaged_at == count


def test_a_batch_found_by_its_time_is_looked_at_too(bench):
    spoil(bench, 5, 70)
    found = bench.log.offset_for_time(1005, bench.log.end_position())
    assert isinstance(found, Unchecked)
    found.bring(bench.disk)
    bench.settle()
    found.slice.release()
    assert bench.log.damaged_at == 5
    found = bench.log.offset_for_time(1002, bench.log.end_position())
    assert isinstance(found, Unchecked)
    found.bring(bench.disk)
    bench.settle()
    found.slice.release()
    found = bench.log.offset_for_time(1002, bench.log.end_position())
    assert isinstance(found, TimeHit)
    found.slice.release()


def test_a_disk_that_refuses_a_look_fails_it_and_accuses_nobody(bench):
    piece = bench.log.read(Offset(0), 1, bench.log.end_position())
    assert isinstance(piece, Unchecked)
    bench.disk.faults = [Fault("read", times=2)]
    looking = piece.bring(bench.disk)
    bench.settle()
    with pytest.raises(DiskError):
        looking.result()
    assert bench.log.usable


def test_ranges_that_touch_become_one():
    spans = Spans()
    spans.add(0, 10, 1)
    spans.add(20, 30, 3)
    assert spans.before(15) == (0, 10, 1)
    spans.add(10, 20, 2)
    assert spans.before(29) == (0, 30, 3)
    spans.add(5, 7, 0)
    assert spans.before(0) == (0, 30, 3)


@pytest.mark.parametrize("batches", [1, 3, 10])
def test_what_lies_before_an_unreadable_sector_is_served(bench, monkeypatch, batches):
    """Nobody has asked for what a look takes in besides."""
    length = make_batch(size=40, timestamp=1000).length
    path, bad = FIRST + ".log", 10 * length + HEADER_SIZE
    read = SimFile.read

    def failing(file, position, count):
        if file.path == path and position <= bad < position + count:
            raise DiskError("read", path, OSError(EIO, "unreadable"))
        return read(file, position, count)

    monkeypatch.setattr(SimFile, "read", failing)
    first = 10 - batches

    def wanted(count):
        while isinstance(
            piece := bench.log.read(Offset(first), count * length, bench.log.end_position()), Cold
        ):
            pending = piece.bring(bench.disk)
            bench.settle()
            piece.slice.release()
            pending.result()
        assert isinstance(piece, FileSlice)
        piece.release()
        return piece.length

    with pytest.raises(DiskError):
        wanted(batches + 1)
    assert wanted(batches) == batches * length
    assert not bench.log.failed, "it is no damage"


@pytest.fixture
def hurt() -> tuple[Bench, int]:
    """One segment of several pages, opened again; the first batch with a byte of the third."""
    bench = Bench(settings=LogSettings(index_interval_bytes=300))
    for number in range(200):
        bench.append(make_batch(size=40, timestamp=1000 + number))
    bench.settle()
    bench.disk.perform_now(bench.log.closing_steps())
    bench.disk.kill()
    hints = Hints(clean=True, recovery_point=Offset(200))
    opened, _ = open_log(bench.disk, "/data/t-0", TOPIC_ID, bench.settings, hints)
    bench.log = bench.open(opened)
    log = bench.log.segments[0].log
    assert isinstance(log, SimFile)
    log.node.bad.add(2)
    return bench, 2 * 4096 // make_batch(size=40).length


def test_who_asks_past_an_unreadable_sector_gets_what_lies_before_it(hurt):
    bench, bad = hurt
    assert bench.read(0) == [*range(bad)]
    assert bench.read(bad - 3) == [*range(bad - 3, bad)]
    for _ in range(2):
        piece = bench.log.read(Offset(bad), 1 << 20, bench.log.end_position())
        assert isinstance(piece, Cold)
        pending = piece.bring(bench.disk)
        bench.settle()
        piece.slice.release()
        with pytest.raises(DiskError):
            pending.result()
    assert bench.read(170) == [*range(170, 200)]
    assert not bench.log.failed, "it is no damage"


def test_a_look_leaves_out_what_it_could_not_read_before(hurt, monkeypatch):
    bench, bad = hurt
    assert bench.read(0) == [*range(bad)]
    bench.log.segments[0].spans = Spans()
    refused = []
    monkeypatch.setattr(SimFile, "refused", lambda _self, position: refused.append(position))
    assert bench.read(bad - 3) == [*range(bad - 3, bad)]
    assert refused == []


def test_a_segment_that_was_cut_between_batches_answers_an_error_to_who_begins_behind(bench):
    first = bench.log.segments[0]
    length = make_batch(size=40, timestamp=1000).length
    bench.disk.open(FIRST + ".log").truncate(first.size - length)
    reopen(bench)
    behind = bench.log.segments[0].end - 1
    assert bench.read(behind) == []
    assert bench.log.damaged_at == behind
    assert bench.read(0, 1 << 20)[-1] == behind - 1
