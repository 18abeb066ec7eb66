"""Which log is compacted next, how far, and which segments become one: Kafka's arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ottla.core.model import Offset, TopicPartition
from ottla.records.batch import BatchView
from ottla.records.builder import build_batch
from ottla.records.reader import Record
from ottla.storage.cleaner.choice import (
    Candidate,
    Dirt,
    dirt_of,
    filthiest,
    grouped,
    is_due,
    plan_for,
)
from ottla.storage.reading import LogPosition
from ottla.storage.settings import LogSettings
from tests.unit.storage.conftest import Bench

NOW_MS = 1_700_000_000_000
SETTINGS = LogSettings(segment_bytes=1000, index_interval_bytes=100, compacted=True)


def bench_with(ages_ms: Sequence[int], **settings: object) -> Bench:
    """A log with a segment of about 900 bytes for each age, the last one active."""
    bench = Bench("commit", SETTINGS.replace(**settings))
    for age in ages_ms:
        raw = build_batch([Record(b"k", bytes(830), NOW_MS - age)])
        bench.append(BatchView(memoryview(bytearray(raw))))
    bench.settle()
    assert len(bench.log.segments) == len(ages_ms)
    return bench


def dirt(
    bench: Bench, cleaned_to: int | None = None, bounds: Sequence[LogPosition] | None = None
) -> Dirt | None:
    given = [bench.log.flushed_position()] if bounds is None else bounds
    return dirt_of(bench.log, None if cleaned_to is None else Offset(cleaned_to), given, NOW_MS)


def test_a_log_of_one_segment_has_nothing_to_compact():
    assert dirt(bench_with([0])) is None


def test_all_below_the_last_segment_is_dirty_at_first_and_clean_after_a_round():
    bench = bench_with([0, 0, 0])
    before, after = dirt(bench), dirt(bench, 2)
    assert before is not None
    assert (before.first_dirty, before.upper, before.clean_bytes, before.ratio) == (0, 2, 0, 1)
    assert after is not None
    assert (after.first_dirty, after.upper, after.ratio) == (2, 2, 0)
    assert not is_due(bench.log, after)


def test_the_share_of_dirt_is_compared_with_the_topics_ratio():
    bench = bench_with([0, 0, 0, 0, 0])
    found = dirt(bench, 3)
    assert found is not None
    assert found.ratio == 0.25
    assert not is_due(bench.log, found)  # 0.5 by default
    bench.log.settings = SETTINGS.replace(min_cleanable_ratio=0.25)
    assert not is_due(bench.log, found), "it must be larger, as in Kafka"
    bench.log.settings = SETTINGS.replace(min_cleanable_ratio=0.2)
    assert is_due(bench.log, found)


@pytest.mark.parametrize("cleaned_to", [-1, 99], ids=["before the start", "behind the end"])
def test_a_checkpoint_that_can_not_be_means_that_nothing_is_clean(cleaned_to):
    bench = bench_with([0, 0])
    bench.log.set_start(Offset(0))
    found = dirt(bench, cleaned_to)
    assert found is not None
    assert found.first_dirty == 0


def test_nothing_is_compacted_at_or_behind_what_readers_are_bounded_by():
    bench = bench_with([0, 0, 0])
    high = bench.log.flushed_position()
    stable = LogPosition(Offset(1), bench.log.segments[1], 0)
    found = dirt(bench, bounds=[high, stable])
    assert found is not None
    assert found.upper == 1
    # At its very end, the segment in which it was captured is still what bounds a read.
    at_end = LogPosition(Offset(2), bench.log.segments[1], bench.log.segments[1].size)
    found = dirt(bench, bounds=[high, at_end])
    assert found is not None
    assert found.upper == 1


def test_what_was_not_synced_is_not_compacted():
    bench = bench_with([0, 0, 0])
    bench.log.recovery_point = Offset(1)
    found = dirt(bench)
    assert found is not None
    assert found.upper == 1


def test_a_young_segment_holds_up_all_behind_it():
    bench = bench_with([5000, 100, 5000, 0], min_compaction_lag_ms=1000)
    found = dirt(bench)
    assert found is not None
    assert found.upper == 1


@pytest.mark.parametrize("cleaned_to", [None, 2])
def test_a_compaction_that_is_held_for_ever_never_comes_due(cleaned_to):
    bench = bench_with([10**12, 10**11, 10**11, 0], min_compaction_lag_ms=(1 << 63) - 1)
    found = dirt(bench, cleaned_to)
    assert found is None or (found.dirty_bytes, is_due(bench.log, found)) == (0, False)


def test_what_has_waited_too_long_is_due_whatever_its_share():
    bench = bench_with([0, 0, 0, 0, 2000, 0], max_compaction_lag_ms=1000)
    found = dirt(bench, 4)
    assert found is not None
    assert (found.ratio, found.overdue) == (0.2, True)
    assert is_due(bench.log, found)
    bench.log.settings = SETTINGS.replace(max_compaction_lag_ms=3000)
    found = dirt(bench, 4)
    assert found is not None
    assert not is_due(bench.log, found)


def test_the_log_with_the_largest_share_goes_first():
    log = bench_with([0, 0]).log
    partitions = [TopicPartition("t", number) for number in range(3)]
    dirts = [Dirt(Offset(0), Offset(1), clean, 100, False) for clean in (300, 0, 100)]
    due = [Candidate(name, log, one) for name, one in zip(partitions, dirts, strict=True)]
    chosen = filthiest(due)
    assert chosen is not None
    assert chosen.partition == partitions[1]
    assert filthiest([]) is None


def test_a_damaged_log_is_left_alone():
    bench = bench_with([0, 0])
    bench.log.failed = True
    assert dirt(bench) is None


def test_small_segments_become_one_as_long_as_that_fits():
    bench = bench_with([0] * 7)
    bench.log.settings = SETTINGS.replace(segment_bytes=2000)
    groups = grouped(bench.log, Offset(6), Offset(6))
    assert [[one.base_offset for one in group] for group in groups] == [[0, 1], [2, 3], [4, 5]]
    assert [len(group) for group in grouped(bench.log, Offset(3), Offset(6))] == [2, 1]
    bench.log.segments[1].end = Offset(1 << 31)  # as far as the 32 bits of an index go, and further
    assert [len(group) for group in grouped(bench.log, Offset(2), Offset(6))] == [2]
    bench.log.segments[1].end = Offset((1 << 31) + 1)
    assert [len(group) for group in grouped(bench.log, Offset(2), Offset(6))] == [1, 1]


def test_segments_whose_indexes_would_not_fit_into_one_stay_apart():
    bench = bench_with([0, 0, 0])
    bench.log.settings = SETTINGS.replace(segment_bytes=5000, segment_index_bytes=12)
    assert [len(group) for group in grouped(bench.log, Offset(2), Offset(2))] == [1, 1]


def test_a_plan_names_what_lies_below_its_end_and_the_producers_there():
    bench = bench_with([0, 0, 0])
    found = dirt(bench)
    assert found is not None
    plan = plan_for(Candidate(TopicPartition("t", 0), bench.log, found), NOW_MS, 1 << 20, 1 << 20)
    assert [(piece.base_offset, piece.end) for piece in plan.pieces] == [(0, 1), (1, 2)]
    assert (plan.first_dirty, plan.upper, plan.producers, plan.aborted_in) == (0, 2, {}, [])
