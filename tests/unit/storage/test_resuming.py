"""Where reading begins after a crash: an index that no sync has covered is believed if it fits."""

from __future__ import annotations

import pytest

from ottla.core.model import Offset
from ottla.storage.index import OFFSET_ENTRY, TIME_ENTRY, SparseIndex, open_index
from ottla.storage.resuming import resume
from ottla.storage.segment import Segment
from ottla.storage.settings import LogSettings

from .conftest import Bench, make_batch


@pytest.fixture
def bench() -> Bench:
    """Forty batches in one segment, with a dozen entries in each of its indexes."""
    bench = Bench(settings=LogSettings(index_interval_bytes=300))
    for number in range(40):
        bench.append(make_batch(size=40, timestamp=1000 + number))
    bench.settle()
    bench.log.segments[0].write_indexes()
    return bench


def found(bench: Bench) -> Segment:
    """The segment as a start meets it."""
    segment = bench.log.segments[0]
    indexes: list[SparseIndex] = []
    for file, entry in ((segment.offsets.file, OFFSET_ENTRY), (segment.times.file, TIME_ENTRY)):
        index = open_index(file, entry)
        assert index is not None
        indexes.append(index)
    return Segment(Offset(0), segment.log, *indexes)


def test_it_begins_behind_the_last_batch_that_an_index_leads_to(bench):
    batch = resume(found(bench), Offset(40))
    assert batch is not None
    assert 20 < batch.last_offset < 40
    assert resume(found(bench), Offset(10)).last_offset < 10


def test_an_entry_that_its_batch_does_not_bear_out_is_not_believed(bench):
    segment = found(bench)
    relative = resume(segment, Offset(10)).last_offset
    number = segment.offsets.count - 1
    again = found(bench)
    for at in range(again.offsets.count):
        if again.offsets.at(at)[0] == relative:
            number = at
    position = again.offsets.at(number)[1]
    again.offsets.file.write(OFFSET_ENTRY.pack(relative - 1, position), number * OFFSET_ENTRY.size)
    assert resume(found(bench), Offset(10)) is None


@pytest.mark.parametrize("which", ["offsets", "times"])
def test_an_index_that_begins_with_zeros_is_not_believed(bench, which):
    segment = found(bench)
    index = getattr(segment, which)
    entry = OFFSET_ENTRY if which == "offsets" else TIME_ENTRY
    index.file.write(bytes(entry.size), 0)
    assert resume(found(bench), Offset(40)) is None
