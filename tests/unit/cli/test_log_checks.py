"""What `log verify` finds in bytes that are sound, torn or damaged."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c

from ottla.cli.log_checks import (
    check_epochs,
    check_index,
    check_snapshot,
    check_time_index,
    check_txn_index,
    walk_segment,
)
from ottla.cli.log_files import unpadded
from ottla.cli.log_verify import PROBLEMS_SHOWN, Report, report_lines
from ottla.records.batch import BatchView, stamp_crc
from ottla.records.builder import build_batch
from ottla.records.reader import Record

NEWEST = 0
"""For `torn_from`: the newest segment, of which nothing is known to be on disk."""


def batch(base_offset: int, count: int = 2, codec: int = 0) -> bytes:
    records = [Record(b"k", b"v" * 20, 1000 + base_offset + n) for n in range(count)]
    return build_batch(records, base_offset=base_offset, codec=codec)


def spoiled(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]


FIRST, SECOND, THIRD = batch(0), batch(2, 3), batch(5, 1)
SOUND = FIRST + SECOND + THIRD
SECOND_AT, THIRD_AT = len(FIRST), len(FIRST) + len(SECOND)


def test_a_sound_segment_is_counted_and_has_no_problems() -> None:
    walk = walk_segment(SOUND, 0, 0, NEWEST)
    assert (walk.problems, walk.torn) == ([], None)
    assert walk.records_count == 6
    assert list(walk.positions) == [0, SECOND_AT, THIRD_AT]
    assert list(walk.last_offsets) == [1, 4, 5]


@pytest.mark.parametrize("codec", range(5))
def test_records_of_every_codec_are_walked(codec: int) -> None:
    walk = walk_segment(batch(0, 50, codec), 0, 0, NEWEST)
    assert (walk.problems, walk.records_count) == ([], 50)


def test_an_empty_segment_is_sound() -> None:
    walk = walk_segment(b"", 0, 0, NEWEST)
    assert (walk.problems, walk.torn, len(walk.positions)) == ([], None, 0)


def test_gaps_between_offsets_are_no_problem_since_compaction_makes_them() -> None:
    assert walk_segment(batch(0) + batch(100), 0, 0, NEWEST).problems == []


@pytest.mark.parametrize("cut", [1, 11, 12, 60, 61, len(THIRD) - 1])
def test_a_cut_last_batch_of_the_newest_segment_is_a_torn_tail(cut: int) -> None:
    walk = walk_segment(SOUND[: THIRD_AT + cut], 0, 0, NEWEST)
    assert walk.problems == []
    assert walk.torn is not None
    assert walk.torn.startswith(f"byte {THIRD_AT}: ")
    assert walk.records_count == 5


def test_a_tail_of_zeros_and_a_last_batch_with_a_wrong_checksum_are_torn_too() -> None:
    for tail in (bytes(4096), bytes(5), spoiled(THIRD, 70)):
        walk = walk_segment(FIRST + SECOND + tail, 0, 0, NEWEST)
        assert (walk.problems, walk.torn is not None) == ([], True)


def test_the_same_tail_is_damage_in_an_older_segment() -> None:
    walk = walk_segment(SOUND[:-1], 0, 0, None)
    assert walk.torn is None
    assert len(walk.problems) == 1


def test_the_same_tail_is_damage_where_it_was_known_to_be_on_disk() -> None:
    assert walk_segment(SOUND[:-1], 0, 0, 5).torn is not None
    known = walk_segment(SOUND[:-1], 0, 0, 6)
    assert (known.torn, len(known.problems)) == (None, 1)


@pytest.mark.parametrize("at", [8, 11, 16, 17, 40, 70])
def test_a_flipped_bit_before_a_sound_batch_is_damage_and_the_rest_is_read(at: int) -> None:
    walk = walk_segment(spoiled(SOUND, SECOND_AT + at), 0, 0, NEWEST)
    assert walk.torn is None
    [problem] = walk.problems
    assert problem.startswith(f"byte {SECOND_AT}: ")
    assert problem.endswith(f"the next sound batch is at byte {THIRD_AT}")
    assert walk.records_count == 3


def test_offsets_that_go_back_are_a_problem() -> None:
    [problem] = walk_segment(FIRST + batch(1), 0, 0, NEWEST).problems
    assert problem == f"byte {SECOND_AT}, offset 1: offsets before it reach 1 already"


def test_offsets_of_the_segment_before_count_too() -> None:
    assert len(walk_segment(batch(5), 5, 7, NEWEST).problems) == 1


def test_a_batch_that_counts_more_records_than_it_holds_is_a_problem() -> None:
    forged = bytearray(FIRST)
    struct.pack_into(">i", forged, 57, 3)
    stamp_crc(memoryview(forged))
    walk = walk_segment(bytes(forged) + SECOND, 0, 0, NEWEST)
    [problem] = walk.problems
    assert problem.startswith("byte 0, offset 0: after 2 of 3 records: ")
    assert walk.records_count == 5


def test_a_batch_that_can_not_be_opened_is_a_problem_and_trips_nothing_up() -> None:
    forged = bytearray(FIRST)
    forged[22] |= 4  # says zstd
    stamp_crc(memoryview(forged))
    walk = walk_segment(bytes(forged) + SECOND, 0, 0, NEWEST)
    assert len(walk.problems) == 1
    assert walk.records_count == 3


def test_messages_older_than_batches_are_named_and_skipped() -> None:
    old = struct.pack(">qiIbb", 0, 22, 0, 1, 0) + bytes(16)
    walk = walk_segment(old + SECOND, 0, 0, NEWEST)
    assert walk.problems == ["byte 0: magic 1, older than Kafka 0.11"]
    assert walk.records_count == 3


def test_a_falling_leader_epoch_is_a_problem() -> None:
    late, early = bytearray(FIRST), bytearray(SECOND)
    BatchView(memoryview(late)).stamp(0, 7)
    BatchView(memoryview(early)).stamp(2, 6)
    [problem] = walk_segment(bytes(late + early), 0, 0, NEWEST).problems
    assert problem.endswith("leader epoch 6 after 7")


def index(*entries: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">ii", *entry) for entry in entries)


def times(*entries: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">qi", *entry) for entry in entries)


def test_an_index_that_agrees_is_sound_with_and_without_kafkas_zeros() -> None:
    walk = walk_segment(SOUND, 0, 0, NEWEST)
    entries = index((4, SECOND_AT), (5, THIRD_AT))
    assert list(check_index(walk, entries)) == []
    assert list(check_index(walk, entries + bytes(8000))) == []
    assert list(check_index(walk, bytes(8000))) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (index((4, SECOND_AT + 1)), "entry 0 (offset 4) points at byte"),
        (index((3, SECOND_AT)), "entry 0 says offset 3 for the batch at byte"),
        (index((5, THIRD_AT), (4, SECOND_AT)), "entry 1 (offset 4, byte"),
        (index((9, 9999)), "entry 0 (offset 9) points at byte 9999, no batch"),
        (index((4, SECOND_AT)) + b"\0\0\1", "11 bytes are no multiple of 8"),
    ],
)
def test_an_index_that_disagrees_is_a_problem(content: bytes, sentence: str) -> None:
    walk = walk_segment(SOUND, 0, 0, NEWEST)
    assert any(fault.startswith(sentence) for fault in check_index(walk, content))


def test_an_entry_into_the_torn_tail_is_none_since_recovery_drops_it_too() -> None:
    walk = walk_segment(SOUND[:-1], 0, 0, NEWEST)
    assert list(check_index(walk, index((5, THIRD_AT)))) == []
    assert list(check_time_index(walk, times((1005, 5)))) == []


def test_a_time_index_names_the_greatest_timestamp_of_a_batch() -> None:
    walk = walk_segment(SOUND, 0, 0, NEWEST)
    assert list(check_time_index(walk, times((1004, 4), (1005, 5)) + bytes(1200))) == []
    assert list(check_time_index(walk, times((1003, 4)))) == [
        "entry 0 says timestamp 1003 for offset 4, whose batch has 1004"
    ]
    assert list(check_time_index(walk, times((1004, 40)))) == [
        "entry 0 names offset 40, which no batch holds"
    ]
    assert len(list(check_time_index(walk, times((1005, 5), (1004, 4))))) == 1


def test_an_index_of_aborted_transactions() -> None:
    entry = struct.Struct(">hqqqq")
    assert list(check_txn_index(entry.pack(0, 7, 0, 5, 6) + entry.pack(0, 8, 2, 9, 9))) == []
    assert list(check_txn_index(entry.pack(1, 7, 0, 5, 6))) == ["entry 0 has version 1, not 0"]
    assert list(check_txn_index(entry.pack(0, 7, 6, 5, 6))) == ["entry 0 spans offsets 6 to 5"]


def snapshot(*producers: int) -> bytes:
    body = struct.pack(">i", len(producers)) + b"".join(
        struct.pack(">qhiqiqiq", producer, 0, 1, 2, 1, 3, -1, -1) for producer in producers
    )
    return struct.pack(">hI", 1, crc32c(body)) + body


def test_a_snapshot_of_producers() -> None:
    assert list(check_snapshot(snapshot())) == []
    assert list(check_snapshot(snapshot(1, 2))) == []
    assert list(check_snapshot(snapshot(1, 1))) == ["a producer is in it twice"]
    assert list(check_snapshot(spoiled(snapshot(1), 20))) == ["the checksum doesn't fit"]
    assert list(check_snapshot(snapshot(1)[:5])) == ["5 bytes, where the header takes 10"]
    assert "don't hold 1 producers" in list(check_snapshot(snapshot(1)[:-1]))[-1]


def test_a_leader_epoch_checkpoint() -> None:
    assert list(check_epochs("0\n2\n0 0\n3 17\n")) == []
    assert list(check_epochs("0\n0\n")) == []
    assert list(check_epochs("0\n1\n0 0\n3 17\n")) != []
    assert list(check_epochs("0\n2\n3 0\n2 17\n")) == ["epoch 2 from offset 17 on, after epoch 3"]
    assert list(check_epochs("0\n1\nx 0\n")) == ["a line isn't an epoch and an offset"]
    assert list(check_epochs("")) != []


def test_padding_is_cut_at_a_whole_entry() -> None:
    assert unpadded(index((256, 256)) + bytes(24), 8) == index((256, 256))
    assert unpadded(bytes(24), 8) == b""


def test_the_report_is_a_line_and_at_most_twenty_problems() -> None:
    good = Report("t-0", 1, 3, 6, 400, 0, 5)
    assert report_lines(good) == [
        "t-0: 3 batches, 6 records, offsets 0 to 5, 400 bytes in 1 segment: ok\n"
    ]
    bad = Report("t-0", problems=["p"] * 50, torn="x")
    lines = report_lines(bad)
    assert lines[0].endswith("empty, 0 bytes in 0 segments: 50 problems\n")
    assert lines[1] == "  torn tail, which recovery will cut: x\n"
    assert len(lines) == 2 + PROBLEMS_SHOWN + 1
    assert lines[-1] == "  and 30 more\n"
