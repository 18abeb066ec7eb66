"""Append, roll and read."""

from __future__ import annotations

import random
from errno import EIO, ENOSPC
from typing import Any

import pytest

from ottla.core.model import LeaderEpoch, Offset
from ottla.core.ports import DiskError, ReserveSpace
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import HEADER_SIZE, LOG_OVERHEAD, BatchView
from ottla.storage.checked import Cold
from ottla.storage.checkpoints import encode_epochs
from ottla.storage.log import Log
from ottla.storage.reading import LogPosition
from ottla.storage.recovery import Hints, open_log
from ottla.storage.segment import Damaged
from ottla.storage.settings import LogSettings
from ottla.testing.simcrash import crash_states
from ottla.testing.simdisk import SimDisk
from ottla.testing.simfile import Fault
from ottla.testing.simimage import folder_of

from .conftest import TOPIC_ID, Bench, make_batch

E1 = LeaderEpoch(1)


def epochs(*entries: tuple[int, int]) -> bytes:
    return encode_epochs((LeaderEpoch(epoch), Offset(start)) for epoch, start in entries)


def bases(log: Log) -> list[int]:
    return [segment.base_offset for segment in log.segments]


def test_offsets_go_on_where_the_last_batch_ended(bench):
    assert bench.append(make_batch(3)) == 0
    assert bench.append(make_batch(2)) == 3
    assert bench.log.end == 5


def test_a_batch_is_stamped_and_its_checksum_still_holds(bench):
    first, batch = make_batch(3), make_batch()
    bench.append(first)
    bench.append(batch)
    raw = bench.disk.read_file("/data/t-0/00000000000000000000.log")
    stored = BatchView(memoryview(raw), first.length)
    assert (stored.base_offset, stored.leader_epoch, stored.crc) == (3, 1, batch.crc)


def test_nothing_is_on_disk_before_the_first_append(bench):
    assert bench.disk.names("/data") == []
    bench.append(make_batch())
    assert bench.disk.names("/data/t-0") == [
        "00000000000000000000.index",
        "00000000000000000000.log",
        "00000000000000000000.timeindex",
        "leader-epoch-checkpoint",
        "partition.metadata",
    ]
    assert bench.disk.read_file("/data/t-0/leader-epoch-checkpoint") == epochs((1, 0))


def test_all_who_wait_for_files_are_called(bench):
    pendings = [bench.log.prepare(80, E1, 0) for _ in range(3)]
    bench.settle()
    assert all(pending is not None and pending.done for pending in pendings)
    assert bench.log.prepare(80, E1, 0) is None
    assert bases(bench.log) == [0]


def test_files_that_could_not_be_made_fail_those_who_wait_and_are_tried_again(bench):
    bench.disk.faults = [Fault("create", ENOSPC, path=".index")]
    pendings = [bench.log.prepare(80, E1, 0) for _ in range(2)]
    bench.settle()
    for pending in pendings:
        with pytest.raises(DiskError):
            pending.result()
    assert bench.append(make_batch()) == 0


def test_a_new_epoch_is_in_the_checkpoint_before_its_first_append(bench):
    bench.append(make_batch())
    assert bench.log.prepare(80, LeaderEpoch(4), 0) is not None
    bench.settle()
    assert bench.disk.read_file("/data/t-0/leader-epoch-checkpoint") == epochs((1, 0), (4, 1))
    assert bench.append(make_batch(), epoch=4) == 1


def test_a_refused_write_is_taken_back(bench):
    bench.append(make_batch())
    size = bench.log.segments[0].size
    bench.disk.faults = [Fault("write", ENOSPC, short=40)]
    with pytest.raises(DiskError):
        bench.append(make_batch())
    assert bench.log.segments[0].log.size() == size
    assert bench.log.usable
    assert bench.append(make_batch()) == 1


def test_a_write_that_can_not_be_taken_back_ends_the_log(bench):
    bench.append(make_batch())
    bench.disk.faults = [Fault("write", EIO, short=40), Fault("truncate", EIO)]
    with pytest.raises(DiskError):
        bench.append(make_batch())
    assert bench.log.failed
    assert not bench.log.usable
    assert bench.log.end == 1
    assert bench.read(0) == [0]


def test_a_refused_batch_is_not_remembered_of_its_producer(bench):
    bench.append(make_batch(producer=(7, 0, 0)))
    bench.disk.faults = [Fault("write", ENOSPC)]
    refused = make_batch(producer=(7, 0, 1))
    with pytest.raises(DiskError):
        bench.append(refused)
    assert bench.log.producers.check(refused) is None


# -- rolling


def test_a_segment_is_closed_before_it_grows_past_its_size():
    bench = Bench(settings=LogSettings(segment_bytes=200))
    for _ in range(5):
        bench.append(make_batch())
    assert bases(bench.log) == [0, 2, 4]
    assert all(segment.size <= 200 for segment in bench.log.segments)


def test_the_bytes_that_were_appended_add_up_over_segments_that_are_gone():
    bench = Bench(settings=LogSettings(segment_bytes=200))
    appended = 0
    for _ in range(5):
        batch = make_batch()
        bench.append(batch)
        appended += batch.length
        assert bench.log.bytes_end == appended
    bench.settle()
    bench.log.set_start(Offset(4))
    assert len(bench.log.drop_below(Offset(4))) == 2
    assert bench.log.size < bench.log.bytes_end == appended


def test_what_was_let_go_before_its_round_began_needs_none():
    bench = Bench(policy="os", settings=LogSettings(segment_bytes=200))
    for _ in range(4):
        bench.append(make_batch())
    log = bench.log
    log.set_start(log.segments[-1].base_offset)
    assert log.drop_below(log.start), "rolled, and no round has begun"
    bench.settle()
    assert bench.rounds.rounds_count == 1
    assert bench.rounds.failure is None
    assert log.recovery_point == log.end


def test_a_batch_larger_than_a_segment_has_one_for_itself():
    bench = Bench(settings=LogSettings(segment_bytes=200))
    for size in (10, 500, 10):
        bench.append(make_batch(size=size))
    assert bases(bench.log) == [0, 1, 2]


def test_a_segment_is_closed_by_the_time_of_its_records():
    bench = Bench(settings=LogSettings(segment_ms=100))
    for timestamp in (1000, 1100, 1101, 1050):
        bench.append(make_batch(timestamp=timestamp))
    assert bases(bench.log) == [0, 2]


def test_segments_are_closed_earlier_by_a_chance_of_their_own():
    def rolls_at(**settings: int) -> int:
        bench = Bench(settings=LogSettings(segment_ms=1000, **settings))
        for timestamp in range(5000, 7000, 10):
            bench.append(make_batch(timestamp=timestamp))
        return bases(bench.log)[1] * 10

    assert rolls_at() == 1010
    assert 1010 - 500 < rolls_at(segment_jitter_ms=500) < 1010
    assert rolls_at(segment_jitter_ms=500) == rolls_at(segment_jitter_ms=500)
    # More than the whole age is as much as the whole age: a segment still holds something.
    assert 0 < rolls_at(segment_jitter_ms=10**9) <= 1010


def test_what_was_reserved_and_given_back_is_reserved_anew(monkeypatch) -> None:
    bench = Bench("os", LogSettings(segment_bytes=16 << 20))
    steps: list[tuple[int, int]] = []
    perform = bench.disk.perform

    def noted(asked):
        steps.extend((one.position, one.length) for one in asked if isinstance(one, ReserveSpace))
        return perform(asked)

    monkeypatch.setattr(bench.disk, "perform", noted)
    size = make_batch(size=1 << 19).length
    for _ in range(9):
        bench.append(make_batch(size=1 << 19))
    assert steps == [(2 * size, 1 << 20), (4 * size, 2 << 20), (8 * size, 4 << 20)]
    bench.log.segments[0].seal()  # as for a roll that then fails: the segment goes on
    bench.append(make_batch(size=1 << 19))
    assert steps[3:] == [(10 * size, 4 << 20)]


@pytest.mark.parametrize(
    "settings",
    [
        LogSettings(segment_bytes=1000, segment_ms=100),
        LogSettings(segment_ms=100, segment_jitter_ms=60),
        LogSettings(segment_ms=100, segment_jitter_ms=10**9),
        LogSettings(segment_index_bytes=24, index_interval_bytes=1),
    ],
)
def test_what_has_room_at_one_glance_needs_no_new_segment(settings: LogSettings) -> None:
    bench = Bench(settings=settings)
    log, epoch = bench.log, LeaderEpoch(1)
    assert not log.has_room(1, epoch, 1000, 1), "nothing is there yet"
    seen = set()
    for count in range(5):
        bench.append(make_batch(timestamp=1000))
        for size in (1, 1000 - log.size, 1001 - log.size, 1 << 31):
            for timestamp in (-1, 0, 940, 1000, 1040, 1100, 1101):
                for offsets in (1, (1 << 31) - log.end, (1 << 31) - log.end + 1):
                    room = log.has_room(size, epoch, timestamp, offsets)
                    segments = len(log.segments)
                    seen.add(room)
                    if room:
                        assert log.prepare(size, epoch, timestamp, offsets) is None, (count, size)
                        assert len(log.segments) == segments
        assert not log.has_room(1, LeaderEpoch(2), 1000, 1), "the epoch has no line yet"
    assert seen == ({False} if settings.segment_jitter_ms > 100 else {False, True})


def test_a_segment_of_records_without_time_is_closed_by_its_age():
    bench = Bench(settings=LogSettings(segment_ms=100))
    bench.append(make_batch(timestamp=-1))
    bench.loop.advance(0.1)
    bench.append(make_batch(timestamp=-1))
    bench.loop.advance(0.001)
    bench.append(make_batch(timestamp=-1))
    assert bases(bench.log) == [0, 2]


def test_a_segment_is_closed_when_an_index_is_full():
    bench = Bench(settings=LogSettings(segment_index_bytes=8 * 3, index_interval_bytes=0))
    for _ in range(6):
        bench.append(make_batch(timestamp=-1))
    assert bases(bench.log) == [0, 4]


def test_a_segment_is_closed_before_relative_offsets_overflow(bench):
    bench.append(make_batch())
    assert bench.log.prepare(80, E1, 0, offsets=(1 << 31) - 1) is None
    assert bench.log.prepare(80, E1, 0, offsets=1 << 31) is not None
    bench.settle()
    assert bases(bench.log) == [0, 1]


def test_a_roll_leaves_a_snapshot_and_a_last_time_entry():
    bench = Bench(settings=LogSettings(segment_bytes=200))
    for number in range(3):
        bench.append(make_batch(timestamp=1000 + number, producer=(7, 0, number)))
    assert "00000000000000000002.snapshot" in bench.disk.names("/data/t-0")
    times = bench.disk.read_file("/data/t-0/00000000000000000000.timeindex")
    assert times == (1001).to_bytes(8, "big") + (1).to_bytes(4, "big")


def test_a_refused_roll_leaves_no_files_behind():
    bench = Bench(settings=LogSettings(segment_bytes=200))
    bench.append(make_batch())
    bench.append(make_batch())
    bench.disk.faults = [Fault("create", ENOSPC, path=".timeindex")]
    assert bench.log.prepare(80, E1, 0) is not None
    bench.settle()
    assert not [name for name in bench.disk.names("/data/t-0") if name.startswith(f"{2:020d}")]
    assert bench.append(make_batch()) == 2


@pytest.mark.parametrize("recovery_point", [0, 1, 2])
def test_what_is_synced_after_a_refused_roll_survives_the_files_that_it_had_made(recovery_point):
    settings = LogSettings(segment_bytes=400)
    bench = Bench(settings=settings)
    bench.append(make_batch())
    bench.settle()
    bench.disk.faults = [Fault("create", ENOSPC, path=".timeindex")]
    refused = bench.log.prepare(make_batch(size=350).length, E1, 0)
    bench.settle()
    with pytest.raises(DiskError):
        refused.result()
    assert bench.append(make_batch()) == 1  # there is room for a small one where that began
    bench.settle()
    assert bench.log.flushed == 2
    states = list(crash_states(bench.disk.root, random.Random(1), 20))
    for files in states:
        disk = SimDisk(1)
        disk.root = folder_of(files)
        hints = Hints(False, Offset(recovery_point))
        opened, _ = open_log(disk, "/data/t-0", TOPIC_ID, settings, hints)
        assert [(one.base_offset, one.end) for one in opened.segments] == [(0, 2)]
        assert not opened.failed
    assert not any("00000000000000000001.log" in path for files in states for path in files)


def test_space_is_asked_for_in_steps_that_double():
    bench = Bench()
    asked = []
    perform = bench.disk.perform

    def spy(steps):
        asked.extend(step for step in steps if isinstance(step, ReserveSpace))
        return perform(steps)

    bench.disk.perform = spy
    for _ in range(24):
        bench.append(make_batch(size=400_000))
    assert [step.length >> 20 for step in asked] == [1, 2, 4, 8]
    assert bench.log.segments[0].log.size() == bench.log.segments[0].size


# -- reading


def test_a_read_gives_whole_batches_from_the_one_with_the_offset(bench):
    for _ in range(4):
        bench.append(make_batch(5))
    assert bench.read(7) == [5, 10, 15]


def test_a_read_gives_what_fits_but_one_batch_at_least(bench):
    for _ in range(4):
        bench.append(make_batch(size=100))
    length = bench.log.segments[0].size // 4
    assert bench.read(0, 1) == [0]
    assert bench.read(0, 2 * length - 1) == [0]
    assert bench.read(0, 2 * length) == [0, 1]


def test_a_read_ends_at_the_bound(bench):
    bench.append(make_batch())
    bound = bench.log.end_position()
    bench.append(make_batch())
    assert bench.read(0, bound=bound) == [0]
    assert bench.log.read(Offset(1), 1000, bound) is None
    assert bench.log.read(Offset(2), 1000, bound) is ErrorCode.OFFSET_OUT_OF_RANGE


def test_a_read_before_the_start_is_out_of_range(bench):
    bench.append(make_batch())
    bench.append(make_batch())
    bench.settle()
    bench.log.set_start(Offset(1))
    bound = bench.log.end_position()
    assert bench.log.read(Offset(0), 1000, bound) is ErrorCode.OFFSET_OUT_OF_RANGE
    assert bench.read(1) == [1]


@pytest.mark.parametrize("interval", [0, 300, 4096, 1 << 30])
@pytest.mark.parametrize("max_bytes", [1, 150, 1000, 9000, 1 << 20])
def test_reading_on_from_each_end_gives_every_batch_once(interval, max_bytes):
    bench = Bench(settings=LogSettings(segment_bytes=9000, index_interval_bytes=interval))
    wanted = [bench.append(make_batch(1 + n % 3, size=n % 70)) for n in range(400)]
    for evict in (False, True):
        found: list[int] = []
        while at := bench.read([*wanted, bench.log.end][len(found)], max_bytes):
            found += at
            if evict and len(found) % 7 == 0:
                bench.disk.evict()
        assert found == wanted


def test_a_read_of_any_offset_begins_with_the_batch_that_has_it():
    bench = Bench(settings=LogSettings(segment_bytes=3000, index_interval_bytes=100))
    ends = []
    for n in range(120):
        base = bench.append(make_batch(1 + n % 4))
        ends += [base] * (1 + n % 4)
    for offset in sorted(range(bench.log.end), key=lambda n: n * 7919 % 1009):
        assert bench.read(offset, 100)[0] == ends[offset]


def test_what_is_not_in_memory_is_cold_and_never_waited_for(bench):
    for _ in range(200):
        bench.append(make_batch(size=5000))
    bench.disk.evict()
    bench.disk.on_loop = True
    piece = bench.log.read(Offset(70), 1 << 20, bench.log.end_position())
    assert isinstance(piece, Cold)


def test_a_slice_keeps_its_file_open_while_the_log_closes(bench):
    bench.append(make_batch())
    piece = bench.log.read(Offset(0), 1000, bench.log.end_position())
    bench.log.close()
    assert len(piece.file.read(piece.position, piece.length)) == piece.length
    piece.release()


def test_a_rotten_index_is_seen_and_done_without():
    bench = Bench(settings=LogSettings(index_interval_bytes=0))
    for _ in range(300):
        bench.append(make_batch())
    index = bench.log.segments[0].offsets
    index.write_out()
    raw = bytearray(bench.disk.read_file(index.file.path))
    raw[4::8] = bytes(len(raw) // 8)
    raw[7::8] = bytes([77]) * (len(raw) // 8)
    index.file.write(raw, 0)
    assert bench.read(150, 1) == [150]


def test_damage_inside_the_log_is_reported_and_not_served(bench):
    for number in range(3):
        bench.append(make_batch(size=100, timestamp=number))
    segment = bench.log.segments[0]
    third = segment.size // 3
    segment.log.write(b"\0" * 20, third)
    bound = bench.log.end_position()
    where = rf"{segment.log.path}: there is no batch at byte {third}"
    with pytest.raises(Damaged, match=where):
        bench.log.read(Offset(1), 10, bound)
    with pytest.raises(Damaged, match=where):
        bench.log.offset_for_time(1, bound)
    with pytest.raises(Damaged, match=where):
        bench.log.max_timestamp()


@pytest.mark.parametrize(("interval", "damaged"), [(1 << 30, 300), (4096, 355)])
def test_reads_below_the_damage_go_on(interval, damaged):
    bench = Bench(settings=LogSettings(index_interval_bytes=interval))
    for _ in range(400):
        bench.append(make_batch(size=100))
    segment = bench.log.segments[0]
    length = segment.size // 400
    segment.log.write(b"\0" * 20, damaged * length)
    found: list[int] = []
    while len(found) < damaged:  # the window of the last read reaches past the damage
        found += bench.read(len(found), 60 * length)
    assert found == list(range(damaged))
    with pytest.raises(Damaged):
        bench.read(damaged, 60 * length)


# -- time


@pytest.mark.parametrize("interval", [0, 200, 1 << 20])
def test_the_first_batch_of_a_time_is_found(interval):
    bench = Bench(settings=LogSettings(segment_bytes=2000, index_interval_bytes=interval))
    stamps = [1000 + (n * 37) % 90 + n for n in range(200)]
    for stamp in stamps:
        bench.append(make_batch(timestamp=stamp))
    bound = bench.log.end_position()
    for wanted in range(990, 1300):
        expected = next((at for at, stamp in enumerate(stamps) if stamp >= wanted), None)
        hit = bench.log.offset_for_time(wanted, bound)
        assert (None if hit is None else hit.base_offset) == expected
        if hit is not None:
            hit.slice.release()


def test_a_time_is_looked_for_from_the_start_and_up_to_the_bound(bench):
    for stamp in (5000, 1000, 6000):
        bench.append(make_batch(timestamp=stamp))
    bound = bench.log.end_position()
    bench.append(make_batch(timestamp=9000))
    bench.settle()
    assert bench.log.offset_for_time(7000, bound) is None
    bench.log.set_start(Offset(1))
    assert bench.log.offset_for_time(4000, bound).base_offset == 2


def test_the_largest_timestamp_names_the_first_batch_that_has_it(bench):
    assert bench.log.max_timestamp() is None
    for stamp in (1000, 3000, 2000, 3000):
        bench.append(make_batch(2, timestamp=stamp))
    hit = bench.log.max_timestamp()
    assert (hit.max_timestamp, hit.base_offset, hit.last_offset) == (3000, 2, 3)


def without_records(offsets: int) -> BatchView:
    """What compaction leaves of a batch so that its offsets stay taken: a header."""
    raw = bytearray(make_batch(offsets).view[:HEADER_SIZE])
    raw[8:12] = (HEADER_SIZE - LOG_OVERHEAD).to_bytes(4, "big")
    raw[57:61] = bytes(4)
    return BatchView(memoryview(raw))


@pytest.mark.parametrize("segment_bytes", [120, 180])  # each in a segment of its own, or two
def test_a_reader_is_not_given_batches_without_records_while_others_follow(segment_bytes):
    bench = Bench(settings=LogSettings(segment_bytes=segment_bytes))
    for batch in (make_batch(3), without_records(2), without_records(4), make_batch(3)):
        bench.append(batch)
    assert len(bench.log.segments) > 1
    assert all(9 in bench.read(offset) for offset in (3, 4, 5, 8))
    assert bench.read(0) in ([0], [0, 3])  # with a record before it, one may come along


def test_a_reader_is_given_batches_without_records_where_nothing_follows_yet():
    bench = Bench(settings=LogSettings(segment_bytes=120))
    for batch in (make_batch(3), without_records(2), without_records(4)):
        bench.append(batch)
    assert bench.read(3) == [3]
    assert bench.read(5) == [5]
    bound = LogPosition(Offset(5), bench.log.segments[1], HEADER_SIZE)
    assert bench.read(3, bound=bound) == [3]
    logs: list[Any] = [segment.log for segment in bench.log.segments]
    assert [log.users for log in logs] == [0] * 3


def test_what_was_reserved_is_given_back_when_the_segment_is_closed(monkeypatch) -> None:
    bench = Bench("os", LogSettings(segment_bytes=16 << 20))
    for _ in range(3):
        bench.append(make_batch(size=1 << 19))
    bench.settle()
    segment = bench.log.segments[0]
    cuts: list[int] = []
    monkeypatch.setattr(segment.log, "truncate", cuts.append)
    segment.seal()
    assert cuts == [segment.size]
    segment.seal()
    assert cuts == [segment.size], "there is nothing left to give back"


def test_what_is_on_disk_for_certain_does_not_move_back_where_segments_went_meanwhile():
    bench = Bench(policy="os", settings=LogSettings(segment_bytes=200))
    for _ in range(2):
        bench.append(make_batch())
    log = bench.log
    covered = log.begin_sync()
    for _ in range(4):
        bench.append(make_batch())
    log.set_start(log.segments[-1].base_offset)
    assert log.drop_below(log.start)
    assert log.recovery_point == log.segments[0].base_offset > 2, "where it now begins"
    covered.synced()
    assert log.recovery_point == log.segments[0].base_offset
