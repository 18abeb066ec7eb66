"""The two loops of compaction against a plain reading of the same records, and a dictionary."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.records.batch import BatchView, RecordError
from ottla.records.builder import build_batch
from ottla.records.reader import Record, payload, records_of
from ottla.storage.cleaner.filtering import Filter
from ottla.storage.cleaner.latest import LatestOffsets, PackedOffsets, token_of
from ottla.storage.cleaner.transactions import Transactions
from ottla.storage.cleaner.walking import Rules, kept_of, note_keys

KEYS = st.one_of(st.none(), st.binary(max_size=40), st.binary(min_size=60, max_size=200))
VALUES = st.one_of(st.none(), st.binary(max_size=20), st.integers(60, 20_000).map(bytes))
HEADERS = st.lists(st.tuples(st.text(max_size=4), st.none() | st.binary(max_size=9)), max_size=2)
TIMES = st.integers(-1, 1 << 45)


@st.composite
def batches(draw: st.DrawFn, bases: tuple[int, ...] = (0, 7, 1 << 40)) -> BatchView:
    """A batch as it may lie in a log: with holes, where it was compacted before."""
    base = draw(st.sampled_from(bases))
    offset = base
    records = []
    for _ in range(draw(st.integers(1, 12))):
        record = Record(draw(KEYS), draw(VALUES), draw(TIMES), draw(HEADERS), offset)
        records.append(record)
        offset += draw(st.sampled_from([1, 1, 1, 2, 70, 9000, 1 << 21]))
    return BatchView(
        memoryview(build_batch(records, base_offset=base, codec=draw(st.sampled_from([0, 0, 4]))))
    )


def opened(batch: BatchView) -> bytes:
    return bytes(payload(batch))


def table(latest: dict[bytes, int], first: int = 1 << 62) -> LatestOffsets:
    """Offsets that were noted somehow, without marks."""
    offsets = LatestOffsets(1 << 20, first)
    offsets.table = latest
    return offsets


@given(st.lists(batches(), min_size=1, max_size=4))
def test_the_keys_noted_are_those_that_a_reader_finds(several):
    found: dict[bytes, int] = {}
    wanted: dict[bytes, int] = {}
    for batch in several:
        data = opened(batch)
        note_keys(table(found), data, (0, len(data)), batch.records_count, batch.base_offset)
        for record in records_of(batch):
            if record.key is not None:
                wanted[token_of(record.key)] = record.offset
    assert found == wanted


@given(batches(), st.randoms(use_true_random=False), st.booleans(), st.integers(0, 1 << 23))
def test_what_stays_is_what_a_dictionary_says(batch, chance, tombstones, known):
    latest = {
        token_of(record.key): record.offset + chance.choice((-1, 0, 1))
        for record in records_of(batch)
        if record.key is not None and chance.random() < 0.7
    }
    known_to = batch.base_offset + known
    data = opened(batch)
    rules = Rules(latest, known_to, tombstones)
    kept = kept_of(rules, data, (0, len(data)), batch.records_count, batch.base_offset)
    wanted = [
        record
        for record in records_of(batch)
        if (
            record.offset >= known_to
            if record.key is None
            else latest.get(token_of(record.key), -1) <= record.offset
        )
        and (record.value is not None or tombstones or record.offset >= known_to)
    ]
    assert kept.records_count == len(wanted)
    assert kept.tombstones == any(record.value is None for record in wanted)
    runs = [(0, len(data))] if kept.runs is None else kept.runs
    assert all(begin < end for begin, end in runs)
    assert (kept.runs is None) == (len(wanted) == batch.records_count)


@given(batches(), st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_a_batch_made_smaller_has_its_records_and_fields(batch, chance, now_late, log_append_time):
    latest = {
        token_of(record.key): record.offset
        for record in records_of(batch)
        if record.key is not None and chance.random() < 0.5
    }
    records = list(records_of(batch))
    if log_append_time:
        raw = bytearray(batch.view)
        batch = BatchView(memoryview(raw))
        batch.stamp_log_append_time(max(record.timestamp for record in records))
        records = list(records_of(batch))
    now_ms = 1 << 44 if now_late else 0
    known_to = batch.last_offset + 1
    keeping = Filter(
        table(latest), known_to, Transactions([]), {}, (now_ms, 1000), (1 << 60, 1 << 27)
    )
    wanted = [
        r for r in records if r.key is not None and latest.get(token_of(r.key), -1) <= r.offset
    ]
    raw_kept = keeping.kept(batch, bytes(batch.view), 0)
    if raw_kept is None:
        assert wanted == []
        return
    kept = BatchView(memoryview(raw_kept))
    assert kept.length == len(raw_kept)
    assert list(records_of(kept)) == wanted
    assert kept.codec == batch.codec
    for name in (
        "base_offset",
        "last_offset_delta",
        "leader_epoch",
        "producer_id",
        "base_sequence",
    ):
        assert getattr(kept, name) == getattr(batch, name)
    assert kept.max_timestamp == max(record.timestamp for record in wanted)
    # Once more, when the time of what was deleted has come.
    later = Filter(
        table(latest), known_to, Transactions([]), {}, (now_ms + 1000, 0), (1 << 60, 1 << 27)
    )
    again = later.kept(kept, bytes(kept.view), 0)
    left = [record for record in wanted if record.value is not None]
    assert ([] if again is None else list(records_of(BatchView(memoryview(again))))) == left


@given(st.lists(batches((0,)), min_size=1, max_size=6), st.integers(0, 60), st.integers(3, 14))
def test_marks_say_the_same_as_asking_for_every_key(several, first, room):
    """Whatever was noted before, and however far the marks reach."""
    offsets = LatestOffsets(1 << (room + 3), first)
    log = []
    end = 0
    for batch in several:
        raw = bytearray(batch.view)
        moved = BatchView(memoryview(raw))
        moved.stamp(end, 0)
        end = moved.last_offset + 1
        log.append(moved)
        if moved.last_offset >= first:
            offsets.superseded.reach(end)
            data = opened(moved)
            note_keys(offsets, data, (0, len(data)), moved.records_count, moved.base_offset)
    asked = table(dict(offsets.table))
    given = (end, Transactions([]), {}, (5000, 1000), (1 << 60, 1 << 27))
    by_marks, by_keys = Filter(offsets, *given), Filter(asked, *given)
    for batch in log:
        data = bytes(batch.view)
        assert by_marks.kept(batch, data, 0) == by_keys.kept(batch, data, 0)
    assert by_marks.records_dropped == by_keys.records_dropped


@given(batches(), st.data())
def test_whatever_the_bytes_are_the_loops_end_or_say_what_is_wrong(batch, data):
    raw = bytearray(opened(batch))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    content = bytes(raw)
    for count in (batch.records_count, 1 << 31):
        for work in (
            lambda n: note_keys(table({}), content, (0, len(content)), n, 0),
            lambda n: kept_of(Rules({}, 1 << 60, True), content, (0, len(content)), n, 0),
        ):
            try:
                work(count)
            except RecordError:
                continue


@pytest.mark.parametrize("bytes_max", [1 << 30, 4000])
def test_a_table_of_keys_answers_as_a_dictionary(bytes_max):
    chance = random.Random(3)
    offsets = LatestOffsets(bytes_max)
    wanted: dict[bytes, int] = {}
    for offset in range(5000):
        token = token_of(chance.randbytes(chance.choice((0, 1, 2, 15, 16, 17, 90))))
        if token not in wanted and not offsets.room(1):
            continue
        offsets.table[token] = wanted[token] = offset
        other = token_of(chance.randbytes(2))
        assert offsets.table.get(other, -5) == wanted.get(other, -5)
    assert len(offsets) == len(wanted)
    assert all(offsets.table.get(token, -1) == offset for token, offset in wanted.items())
    assert len(wanted) <= max(offsets.entries_max, 1)
    assert isinstance(offsets.table, PackedOffsets) == (bytes_max == 4000)
