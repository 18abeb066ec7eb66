"""A log's own batches: entries and markers built a moment before, appended without being read."""

from __future__ import annotations

from errno import ENOSPC

import pytest

from ottla.core.model import LeaderEpoch, Offset
from ottla.core.ports import DiskError
from ottla.storage.log import Log
from ottla.storage.rounds import FlushPolicy
from ottla.storage.settings import LogSettings
from ottla.testing.simfile import Fault

from .conftest import Bench, make_batch

E1 = LeaderEpoch(1)


def bases(log: Log) -> list[int]:
    return [segment.base_offset for segment in log.segments]


@pytest.mark.parametrize("policy", ["commit", "os"])
@pytest.mark.parametrize(
    "settings",
    [
        LogSettings(),
        LogSettings(segment_bytes=500, index_interval_bytes=100),
        LogSettings(segment_ms=50, segment_jitter_ms=20),
        LogSettings(segment_index_bytes=24, index_interval_bytes=1, flush_messages=3),
    ],
)
def test_what_was_built_here_is_appended_as_any_batch_is(
    policy: FlushPolicy, settings: LogSettings
) -> None:
    built, usual = Bench(policy, settings), Bench(policy, settings)
    at_once = 0
    for number in range(20):
        for bench in (built, usual):
            view = make_batch(size=number * 7, timestamp=1000 + 5 * number)
            offset = None
            if bench is built:
                raw = bytearray(view.view)
                offset = bench.log.append_single(raw, E1, view.max_timestamp)
            at_once += offset is not None
            assert (bench.append(view) if offset is None else offset) == number
        assert bases(built.log) == bases(usual.log)
        assert built.log.flushed == usual.log.flushed
        assert built.log._queued == usual.log._queued
        here, there = built.log._active, usual.log._active
        assert here is not None
        assert there is not None
        for name in ("size", "end", "max_timestamp", "max_timestamp_offset", "first_timestamp"):
            assert getattr(here, name) == getattr(there, name), name
        assert (here.offsets.last, here.times.last) == (there.offsets.last, there.times.last)
    built.settle()
    usual.settle()
    assert 0 < at_once <= 19, "the first had to be prepared"
    assert built.read(0) == usual.read(0)
    written = [
        [segment.log.read(0, segment.size) for segment in bench.log.segments]
        for bench in (built, usual)
    ]
    assert written[0] == written[1]


def test_what_was_built_here_is_not_appended_where_something_must_be_made_or_the_log_is_gone(
    bench: Bench,
) -> None:
    def append(epoch: int = 1) -> Offset | None:
        raw = bytearray(make_batch().view)
        return bench.log.append_single(raw, LeaderEpoch(epoch), 1000)

    assert append() is None, "there is no segment yet"
    bench.append(make_batch())
    assert append(2) is None, "the epoch has no line yet"
    assert append() == 1
    bench.disk.faults = [Fault("write", ENOSPC)]
    with pytest.raises(DiskError):
        append()
    assert (bench.log.end, bench.log.failed) == (2, False)
    assert append() == 2
    assert bench.read(0) == [0, 1, 2]
    bench.log.failed = True
    assert append() is None
