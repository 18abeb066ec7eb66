"""A journal replayed: all of it, in pieces, whatever lies in it."""

from __future__ import annotations

import logging

import pytest

from ottla.coordinator.loading import STEP_S, Loading
from ottla.core.model import Offset
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import CONTROL_BIT, TRANSACTIONAL_BIT
from ottla.records.builder import Producer
from ottla.testing.simloop import SimLoop
from tests.journals import Codec, MemoryJournal
from tests.unit.coordinator.counting import CountingShard, put


class SlowClock(SimLoop):
    """Each look at the clock takes as long as half a step."""

    def monotonic(self) -> float:
        self.now_s += STEP_S / 2
        return self.now_s


def load(journal: MemoryJournal, shard: CountingShard, clock: SimLoop | None = None) -> Loading:
    return Loading(journal, Codec().decode, shard, clock or SimLoop())


def test_everything_is_replayed_in_order_over_many_reads() -> None:
    journal, shard = MemoryJournal(), CountingShard()
    journal.read_bytes_max = 1
    for number in range(300):
        journal.write(put("a", number), put(f"b{number}", number))
    loading = load(journal, shard)
    assert loading.step() is ErrorCode.NONE
    assert loading.entries_count == 600
    assert shard.values == {"a": 299, **{f"b{number}": number for number in range(300)}}


def test_an_empty_journal_is_loaded_at_once() -> None:
    assert load(MemoryJournal(), CountingShard()).step() is ErrorCode.NONE


def test_a_step_ends_when_its_time_is_up_also_within_a_batch() -> None:
    journal, shard = MemoryJournal(), CountingShard()
    journal.write(*(put(f"t{number}", number) for number in range(1000)))
    loading = load(journal, shard, SlowClock())
    steps = 0
    while loading.step() is None:
        steps += 1
    assert steps > 3
    assert len(shard.values) == 1000


def test_a_log_whose_beginning_is_gone_is_read_from_its_start() -> None:
    journal, shard = MemoryJournal(), CountingShard()
    for number in range(5):
        journal.write(put("a", number))
    del journal.batches[:3]
    journal.start = Offset(3)
    assert load(journal, shard).step() is ErrorCode.NONE
    assert shard.values == {"a": 4}


def test_gaps_that_compaction_left_do_no_harm() -> None:
    journal, shard = MemoryJournal(), CountingShard()
    for number in range(5):
        journal.write(put(f"t{number}", number))
    del journal.batches[1:3]
    assert load(journal, shard).step() is ErrorCode.NONE
    assert shard.values == {"t0": 0, "t3": 3, "t4": 4}


def test_kinds_of_entries_that_are_not_known_are_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal, shard = MemoryJournal(), CountingShard()
    journal.write((b"\x00\x63whatever", b"\x00\x00"), put("a", 1))
    loading = load(journal, shard)
    with caplog.at_level(logging.WARNING):
        assert loading.step() is ErrorCode.NONE
    assert (loading.unknown_count, shard.values) == (1, {"a": 1})
    assert "1 of kinds not known" in caplog.text


def test_an_entry_that_cannot_be_read_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    journal, shard = MemoryJournal(), CountingShard()
    journal.write(put("a", 1), (b"\x00\x01\x00\x05x", b"\x00\x04"), (b"\x00", None), put("b", 2))
    journal.write(put("c", 3))
    with caplog.at_level(logging.ERROR):
        loading = load(journal, shard)
        assert loading.step() is ErrorCode.NONE
    assert (loading.damaged_count, shard.values) == (2, {"a": 1, "b": 2, "c": 3})
    assert "can't be read" in caplog.text


def test_bytes_that_are_no_batch_end_the_load_and_keep_what_came_before() -> None:
    journal, shard = MemoryJournal(), CountingShard()
    journal.write(put("a", 1))
    journal.write(put("b", 1))
    journal.batches[1] = journal.batches[1][:16] + b"\x07" + journal.batches[1][17:]
    loading = load(journal, shard)
    assert loading.step() is ErrorCode.NONE
    assert (shard.values, loading.damaged_count > 0) == ({"a": 1}, True)


def test_the_end_of_a_transaction_is_told_with_its_producer() -> None:
    journal, shard = MemoryJournal(), CountingShard()
    writer = Producer(7, 0, 0)
    journal.write(put("a", 1), producer=writer, attributes=TRANSACTIONAL_BIT)
    for kind in (1, 0):
        marker = (b"\x00\x00" + kind.to_bytes(2, "big"), bytes(6))
        journal.write(marker, producer=writer, attributes=TRANSACTIONAL_BIT | CONTROL_BIT)
    assert load(journal, shard).step() is ErrorCode.NONE
    assert shard.ended == [(7, True), (7, False)]


def test_a_read_that_must_be_waited_for_is_taken_up_where_it_was() -> None:
    journal, shard = MemoryJournal(), CountingShard()
    journal.write(put("a", 1))
    journal.reads = []
    loading = load(journal, shard)
    waiting = loading.step()
    assert isinstance(waiting, Pending)
    assert waiting is journal.reads[0]
    waiting.complete(journal.bytes_from(0))
    assert loading.step() is ErrorCode.NONE
    assert shard.values == {"a": 1}


def test_a_disk_that_cannot_be_read_ends_the_load_with_an_error() -> None:
    journal = MemoryJournal()
    journal.write(put("a", 1))
    journal.reads = []
    loading = load(journal, CountingShard())
    waiting = loading.step()
    assert isinstance(waiting, Pending)
    waiting.fail(DiskError("read", "/x", OSError(5, "EIO")))
    assert loading.step() is ErrorCode.COORDINATOR_NOT_AVAILABLE
