"""A time index that was cut between two entries looks whole, and is not believed (I29)."""

from __future__ import annotations

import pytest

from ottla.core.ports import DiskError
from ottla.storage.checked import Cold
from ottla.storage.index import TIME_ENTRY
from ottla.storage.reading import TimeHit
from ottla.storage.recovery import Hints, open_log
from ottla.storage.retention import judge
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault

from .conftest import TOPIC_ID, Bench, make_batch

SETTINGS = LogSettings(segment_bytes=3000, index_interval_bytes=300)
RISING = list(range(1000, 1060))
PEAKS = [1000 + number % 20 * (-1) ** number + number // 20 * 100 for number in range(60)]
EQUAL = [1000] * 60
NONE = [-1] * 60


def bench_of(times: list[int]) -> Bench:
    """A batch of each time, in several segments, after a clean stop."""
    bench = Bench(settings=SETTINGS)
    for time in times:
        bench.append(make_batch(size=40, timestamp=time))
    bench.settle()
    bench.disk.perform_now(bench.log.closing_steps())
    return bench


def reopen(bench: Bench) -> None:
    bench.disk.kill()
    hints = Hints(clean=True, recovery_point=bench.log.end)
    opened, _ = open_log(bench.disk, "/data/t-0", TOPIC_ID, SETTINGS, hints)
    bench.log = bench.open(opened)


def first_of(bench: Bench, timestamp: int | None) -> int | None:
    """The offset found for a time, or for the largest there is."""
    while True:
        log = bench.log
        hit = (
            log.max_timestamp()
            if timestamp is None
            else log.offset_for_time(timestamp, log.end_position())
        )
        if hit is None:
            return None
        if isinstance(hit, Cold):
            pending = hit.bring(bench.disk)
            bench.settle()
            hit.slice.release()
            pending.result()
        else:
            assert isinstance(hit, TimeHit)
            hit.slice.release()
            return hit.base_offset


def expected(times: list[int], timestamp: int | None) -> int | None:
    if timestamp is None:
        return times.index(max(times)) if max(times) >= 0 else None
    return next((at for at, time in enumerate(times) if time >= timestamp), None)


def indexes(bench: Bench) -> list[str]:
    return [segment.times.file.path for segment in bench.log.segments]


@pytest.mark.parametrize("times", [RISING, PEAKS, EQUAL, NONE])
@pytest.mark.parametrize("goes_on", [False, True])
def test_i29_whatever_is_asked_first_of_a_cut_time_index_is_answered_rightly(times, goes_on):
    after = [*times, max(times) + 5, 990] if goes_on else times
    for asked in (None, *sorted(set(after)), max(after) + 1):
        lengths = [bench_of(times).disk.open(path).size() for path in indexes(bench_of(times))]
        for at in range(len(lengths)):
            bench = bench_of(times)
            path = indexes(bench)[at]
            entries = lengths[at] // TIME_ENTRY.size
            bench.disk.open(path).truncate(max(entries - 1 - (asked or 0) % 3, 0) * TIME_ENTRY.size)
            reopen(bench)
            for time in after[len(times) :]:
                bench.append(make_batch(size=40, timestamp=time))
            assert first_of(bench, asked) == expected(after, asked), (asked, path)
            assert first_of(bench, None) == expected(after, None), path


def test_a_sound_index_is_looked_at_once_and_only_where_it_would_say_no():
    bench = bench_of(RISING)
    reopen(bench)
    assert all(segment.doubted for segment in bench.log.segments)
    assert first_of(bench, 1000) == 0
    assert all(segment.doubted for segment in bench.log.segments)
    assert first_of(bench, 1059) == 59
    assert [segment.doubted is None for segment in bench.log.segments][:-1] == [True] * (
        len(bench.log.segments) - 1
    )
    assert bench.log.segments[0].times.count > 1


def test_a_start_makes_an_index_anew_that_was_found_to_be_cut():
    bench = bench_of(RISING)
    path = indexes(bench)[0]
    whole = bench.disk.read_file(path)
    bench.disk.open(path).truncate(len(whole) - TIME_ENTRY.size)
    reopen(bench)
    assert first_of(bench, 1059) == 59
    reopen(bench)
    assert bench.disk.read_file(path) == whole


def test_a_segment_is_not_old_enough_to_go_by_an_index_alone():
    bench = bench_of(RISING)
    bench.disk.open(indexes(bench)[0]).truncate(TIME_ENTRY.size)
    reopen(bench)
    log = bench.log
    log.settings = SETTINGS.replace(retention_ms=0)
    first = log.segments[0]
    now_ms = first.end + 1000 - 1  # as the last of its records; what the index tells is older
    verdict = judge(log, now_ms, log.end)
    assert (verdict.start, verdict.doubted) == (0, first)
    doubt = first.doubt()
    assert doubt is not None
    doubt.bring(bench.disk)
    bench.settle()
    doubt.slice.release()
    assert (judge(log, now_ms, log.end).start, judge(log, now_ms, log.end).doubted) == (0, None)
    assert judge(log, now_ms + 1, log.end).start == first.end


def test_where_batches_can_not_be_read_nobody_says_which_is_the_newest():
    bench = bench_of(PEAKS)
    bench.disk.open(indexes(bench)[0]).truncate(TIME_ENTRY.size)
    length = make_batch(size=40, timestamp=1000).length
    bench.disk.open(bench.log.segments[0].log.path).write(b"\xff", 5 * length + 16)  # its magic
    reopen(bench)
    with pytest.raises(DiskError):
        first_of(bench, None)
    with pytest.raises(DiskError):
        first_of(bench, 5000)


def test_what_could_not_be_read_is_tried_once_more_from_the_segments_start():
    bench = bench_of(RISING)
    reopen(bench)
    bench.disk.faults.append(Fault("read", path="00000000.log"))
    assert first_of(bench, 1059) == 59
    assert bench.disk.faults[0].times == 0
    assert bench.log.segments[0].doubted is None
    assert bench.log.segments[0].times.count > 1
