"""Rows of the hostile table about Produce: what a batch may be, from whom, and where to.

One request can show each; the broker, and what must hold after each row, is in rows.py.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.records.batch import CONTROL_BIT, CRC_START, LOG_APPEND_TIME_BIT
from ottla.records.builder import Producer
from ottla.records.compress import GZIP, LZ4, SNAPPY, ZSTD, compress
from tests.hostile.batches import (
    EMPTY_GZIP,
    EMPTY_ZSTD,
    LZ4_SKIPPABLE,
    XERIAL,
    altered,
    batch_of,
    bomb,
    record,
    zigzag,
    zstd_window,
)
from tests.hostile.conftest import Start
from tests.hostile.rows import (
    MAX,
    PRODUCERS_MAX,
    WIDE,
    broker_of_rows,
)
from tests.hostile.wire import (
    NOW_MS,
    WELL,
    Victim,
    batch,
    create,
    delete,
    fetch,
    fetched,
    produce,
    produced,
    request,
)
from tests.processes import OTTLA


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    return broker_of_rows(start)


@pytest.fixture(autouse=True)
def unharmed(broker: Victim) -> Iterator[None]:
    yield
    broker.unharmed()


# --- Produce: what a batch may be -------------------------------------------------------------


class Bad(NamedTuple):
    """A batch, and what it is answered by a topic that walks records; `header`: by one that
    does not, where that differs."""

    batch: bytes | Callable[[], bytes] | None
    error: E
    header: E | None = None
    version: int = 9
    topic: str = "records"

    def made(self) -> bytes | None:
        return self.batch() if callable(self.batch) else self.batch


def stored(made: bytes | Callable[[], bytes], topic: str = "records") -> Bad:
    """Refused only where records are walked."""
    return Bad(made, E.INVALID_RECORD, E.NONE, topic=topic)


GOOD = batch(b"a", b"b")
OK = E.NONE
HEADERS = {
    "2^31-1 headers": zigzag(MAX),
    "-1 headers": zigzag(-1),
    "a header key of -1 bytes": zigzag(1) + zigzag(-1) + zigzag(-1),
    "a header key beyond the record": zigzag(1) + zigzag(99) + zigzag(-1),
}

BATCHES: dict[str, Bad] = {
    "H31 null records": Bad(None, E.INVALID_RECORD),
    "H31 no bytes": Bad(b"", E.INVALID_RECORD),
    "H32 two batches": Bad(GOOD * 2, E.INVALID_RECORD),
    "H33 magic 0": Bad(altered(GOOD, magic=0), E.INVALID_RECORD),
    "H33 magic 1": Bad(altered(GOOD, magic=1), E.INVALID_RECORD),
    "H33 magic 3": Bad(altered(GOOD, magic=3), E.CORRUPT_MESSAGE),
    "H33 magic -1": Bad(altered(GOOD, magic=-1), E.CORRUPT_MESSAGE),
    "H34 a length of -1": Bad(altered(GOOD, length=-1), E.CORRUPT_MESSAGE),
    "H34 a length of -2^31": Bad(altered(GOOD, length=-(2**31)), E.CORRUPT_MESSAGE),
    "H34 a length of 13": Bad(altered(GOOD, length=13), E.CORRUPT_MESSAGE),
    "H34 a length beyond the rest": Bad(altered(GOOD, length=len(GOOD)), E.INVALID_RECORD),
    "H34 a length of 2^31-1": Bad(altered(GOOD, length=MAX), E.INVALID_RECORD),
    "H34 cut short": Bad(GOOD[:-1], E.INVALID_RECORD),
    "H36 another base offset": Bad(altered(GOOD, base_offset=5), E.INVALID_RECORD),
    "H36 another leader epoch": Bad(altered(GOOD, leader_epoch=77), OK),
    "H37 above max.message.bytes": Bad(batch(bytes(100_001)), E.MESSAGE_TOO_LARGE, topic="small"),
    "H38 above segment.bytes": Bad(batch(bytes(3 << 19)), E.RECORD_LIST_TOO_LARGE, topic="short"),
    **{
        f"H39 {number} records, a last delta of {delta}": Bad(
            altered(GOOD, records_count=number, last_offset_delta=delta), E.INVALID_RECORD
        )
        for number, delta in [(0, 1), (-1, 1), (MAX, 1), (2, 0), (2, -1), (2, MAX), (0, -1)]
    },
    "H39 a count beyond the records": stored(
        altered(GOOD, records_count=5, last_offset_delta=4)
    ),
    **{
        f"H40 a record of {length} bytes, codec {codec}": stored(
            batch_of(compress(codec, record(length=length)), codec=codec)
        )
        for length in (-1, -(2**31), MAX, 99, 0)
        for codec in (0, GZIP)
    },
    **{f"H41 {what}": stored(batch_of(record(headers=h))) for what, h in HEADERS.items()},
    "H41 a key of -2 bytes": stored(batch_of(record(key=zigzag(-2)))),
    "H42 bytes after the last record": stored(batch_of(record() + b"xyz")),
    "H42 a record beyond the count": stored(batch_of(record() + record(offset=1))),
    **{
        f"H43 offsets {one} and {two}": stored(
            batch_of(record(offset=one) + record(offset=two), count=2)
        )
        for one, two in [(0, 0), (0, 5), (1, 2), (1, 0), (-1, 0)]
    },
    "H43 offsets 0 and 0, compressed": stored(
        batch_of(compress(LZ4, record() + record()), count=2, codec=LZ4)
    ),
    "H44 a control batch": Bad(altered(GOOD, attributes=CONTROL_BIT), E.INVALID_RECORD),
    "H45 LogAppendTime": Bad(altered(GOOD, attributes=LOG_APPEND_TIME_BIT), E.INVALID_TIMESTAMP),
    "H46 a timestamp of 2^62": Bad(batch(b"a", timestamp=2**62), E.INVALID_TIMESTAMP),
    "H46 a timestamp of 2^63-1": Bad(batch(b"a", timestamp=2**63 - 1), E.INVALID_TIMESTAMP),
    "H46 a timestamp of -1": Bad(batch(b"a", timestamp=-1), OK),
    **{
        f"H48 codec {codec}": Bad(
            altered(GOOD, attributes=codec), E.UNSUPPORTED_COMPRESSION_TYPE
        )
        for codec in (5, 6, 7)
    },
    "H49 zstd in v6": Bad(batch(b"a", codec=ZSTD), E.UNSUPPORTED_COMPRESSION_TYPE, version=6),
    "H49 zstd in v7": Bad(batch(b"a", codec=ZSTD), OK, version=7),
    **{
        f"H50 garbage for codec {codec}": stored(batch_of(b"\xde\xad\xbe\xef" * 9, codec=codec))
        for codec in (GZIP, SNAPPY, LZ4, ZSTD)
    },
    **{
        f"H50 codec {codec}, cut short": stored(
            batch_of(compress(codec, record())[:-3], codec=codec)
        )
        for codec in (GZIP, SNAPPY, LZ4, ZSTD)
    },
    "H51 a gzip bomb": stored(lambda: bomb(GZIP, 32), topic="small"),
    "H51 a zstd bomb": stored(lambda: bomb(ZSTD, 256), topic="small"),
    "H51 an lz4 bomb": stored(lambda: bomb(LZ4, 20), topic="small"),
    "H52 raw snappy of 4 GiB": stored(
        batch_of(b"\xff\xff\xff\xff\x0f" + bytes(40), codec=SNAPPY)
    ),
    "H53 a zstd window of 2 GiB": stored(batch_of(zstd_window(31), codec=ZSTD)),
    "H53 a zstd window of 16 MiB": stored(batch_of(zstd_window(24), codec=ZSTD)),
    **{
        f"H54 a xerial chunk of {size} bytes": stored(
            batch_of(XERIAL + struct.pack(">i", size) + bytes(20), codec=SNAPPY)
        )
        for size in (MAX, 0, -1)
    },
    "H54 many empty gzip members": stored(batch_of(EMPTY_GZIP * 4000, codec=GZIP)),
    "H54 many skippable lz4 frames": stored(batch_of(LZ4_SKIPPABLE * 7000, codec=LZ4)),
    "H54 many empty zstd frames": stored(batch_of(EMPTY_ZSTD * 9000, codec=ZSTD)),
    "H55 a record with a codec": stored(batch_of(record(attributes=ZSTD))),
    "H56 a producer without a sequence": Bad(
        batch(b"a", producer=Producer(900, 0, -1)), E.INVALID_RECORD
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", BATCHES.values(), ids=BATCHES)
def test_a_batch_is_judged_by_a_topic_that_walks_records(broker: Victim, bad: Bad) -> None:
    made = bad.made()  # a bomb takes long to build: longer than a connection may say nothing
    with broker.peer() as peer:
        answer = peer.ask(produce(bad.topic, (0, made)), bad.version)
        error, offset = produced(answer)
        assert E(error) == bad.error
        assert (offset >= 0) is (error == 0)
        peer.ping()


@pytest.mark.parametrize(
    "bad", [b for b in BATCHES.values() if b.header is not None],
    ids=[n for n, b in BATCHES.items() if b.header is not None],
)  # fmt: skip
def test_what_is_stored_as_sent_is_read_as_sent_and_harms_nobody(broker: Victim, bad: Bad) -> None:
    made = bad.made()
    assert made is not None
    with broker.peer() as peer:
        error, offset = produced(peer.ask(produce("header", (0, made)), bad.version))
        assert E(error) == bad.header
        part = fetched(peer.ask(fetch("header", (0, offset)), 12))
        # But for the base offset and the leader epoch, which the broker sets.
        assert bytes(part.records)[16:] == made[16:]
        assert _listed(peer.ask(_list("header", NOW_MS), 6)) in (E.NONE, E.CORRUPT_MESSAGE)
        assert _listed(peer.ask(_list("header", -3), 7)) in (E.NONE, E.CORRUPT_MESSAGE)
        peer.ping()


def _list(topic: str, timestamp: int) -> ListOffsetsRequest:
    part = ListOffsetsPartition(partition_index=0, timestamp=timestamp)
    return ListOffsetsRequest(topics=[ListOffsetsTopic(name=topic, partitions=[part])])


def _listed(answer: Any) -> int:
    return int(answer.topics[0].partitions[0].error_code)


@pytest.mark.parametrize("topic", ["header", "records"])
def test_h35_any_bit_flipped_behind_the_checksum_is_corrupt(broker: Victim, topic: str) -> None:
    whole = bytearray(batch(b"a"))
    bits = range((CRC_START - 4) * 8, len(whole) * 8)
    with broker.peer() as peer:
        for bit in bits:
            whole[bit // 8] ^= 1 << bit % 8
            answer = peer.ask(produce(topic, (0, bytes(whole))), 9)
            assert produced(answer) == (E.CORRUPT_MESSAGE, -1), bit
            whole[bit // 8] ^= 1 << bit % 8


def test_h47_a_record_without_key_is_named_on_a_compacted_topic(broker: Victim) -> None:
    with broker.peer() as peer:
        answer = peer.ask(produce("compacted", (0, batch(b"a", b"b"))), 9)
        assert produced(answer) == (E.INVALID_RECORD, -1)
        errors = answer.responses[0].partition_responses[0].record_errors
        assert [error.batch_index for error in errors] == [0, 1]


def test_batches_that_were_stored_as_sent_survive_a_kill(broker: Victim) -> None:
    """H40 to H43 and H50 to H55 under `header`: a start after a crash reads them again."""
    made = [bad.made() for bad in BATCHES.values() if bad.header is E.NONE]
    with broker.peer() as peer:
        for one in made:
            assert produced(peer.ask(produce("header", (0, one)), 9))[0] == 0
        end = fetched(peer.ask(fetch("header", (0, 0)), 12)).high_watermark
    broker.broker.kill()
    _tools_read(broker.broker.directory / "header-0")
    broker.broker.restart()
    with broker.peer() as peer:
        part = fetched(peer.ask(fetch("header", (0, 0)), 12))
        assert (part.error_code, part.high_watermark) == (0, end)
        # The worker process again, so that it is counted.
        assert produced(peer.ask(produce("records", (0, batch(bytes(40_000)))), 9))[0] == 0
        for number in range(WIDE):
            assert produced(peer.ask(produce("wide", (number, batch(b"a"))), 9))[0] == 0
        for topic in ("small", "short", "compacted", "a.b"):
            assert produced(peer.ask(produce(topic, (0, batch(b"a", key=b"k"))), 9))[0] == 0
    broker.remember()


def _tools_read(directory: Path) -> None:
    """What the tools say of such a log is no traceback: verify finds fault, dump goes through."""
    for *command, code in (["verify", 1], ["dump", 0], ["dump", "--no-records", 0]):
        tool = [str(OTTLA), "log", *map(str, command), str(directory)]
        done = subprocess.run(tool, capture_output=True, timeout=60, check=False)
        assert b"Traceback" not in done.stderr, done.stderr[-2000:]
        assert done.returncode == code, (command, done.stderr[-2000:])
        assert len(done.stdout.splitlines()) >= 20


# --- Produce: acks, producers, places ---------------------------------------------------------


@pytest.mark.parametrize("acks", [2, -2, 32767])
def test_h29_other_acks_are_refused(broker: Victim, acks: int) -> None:
    with broker.peer() as peer:
        answer = peer.ask(produce(WELL, (0, batch(b"a")), acks=acks), 9)
        assert produced(answer) == (E.INVALID_REQUIRED_ACKS, -1)


def test_h30_an_error_under_acks_0_is_told_by_closing(broker: Victim) -> None:
    with broker.peer() as peer:
        peer.send(request(produce(WELL, (0, batch(b"a")), acks=0), 9))
        peer.ping()  # no answer comes between
        for bad in ((0, b""), (99, batch(b"a")), (0, altered(GOOD, crc=1))):
            with broker.peer() as other:
                other.send(request(produce(WELL, bad, acks=0), 9))
                assert other.rest() == b""


def test_h56_sequences_must_follow_each_other(broker: Victim) -> None:
    pid = next(_PIDS)
    with broker.peer() as peer:

        def put(sequence: int, epoch: int = 0) -> tuple[int, int]:
            one = batch(b"a", producer=Producer(pid, epoch, sequence))
            return produced(peer.ask(produce(WELL, (0, one)), 9))

        offsets = [put(sequence)[1] for sequence in range(7)]
        assert -1 not in offsets
        assert put(6) == (E.NONE, offsets[6])  # again: where it is already
        assert put(2) == (E.NONE, offsets[2])  # of the last five
        for past in (0, 1, 9, MAX):
            assert put(past) == (E.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
        assert put(7)[0] == 0


def test_h57_an_older_epoch_is_fenced(broker: Victim) -> None:
    pid = next(_PIDS)
    with broker.peer() as peer:
        for epoch, sequence, error in [(5, 0, E.NONE), (4, 0, E.INVALID_PRODUCER_EPOCH)]:
            one = batch(b"a", producer=Producer(pid, epoch, sequence))
            assert produced(peer.ask(produce(WELL, (0, one)), 9))[0] == error


def test_h58_a_new_epoch_begins_with_sequence_0(broker: Victim) -> None:
    pid = next(_PIDS)
    with broker.peer() as peer:
        for epoch, sequence, error in [
            (0, 0, E.NONE),
            (1, 1, E.OUT_OF_ORDER_SEQUENCE_NUMBER),
            (1, 0, E.NONE),
        ]:
            one = batch(b"a", producer=Producer(pid, epoch, sequence))
            assert produced(peer.ask(produce(WELL, (0, one)), 9))[0] == error


_PIDS = count(1000)


@pytest.mark.parametrize("name", ["__consumer_offsets", "__transaction_state"])
def test_h62_nobody_writes_to_an_internal_topic(broker: Victim, name: str) -> None:
    with broker.peer() as peer:
        peer.ask(create(name), 5)
        answer = peer.ask(produce(name, (0, batch(b"a", key=b"k"))), 9)
        assert produced(answer) == (E.INVALID_TOPIC_EXCEPTION, -1)
        peer.ask(delete(name), 6)


def test_h63_producer_ids_beyond_the_cap_make_the_oldest_forgotten(broker: Victim) -> None:
    with broker.peer() as peer:
        for pid in range(100_000, 100_000 + 4 * PRODUCERS_MAX):
            one = batch(b"a", producer=Producer(pid, 0, 0))
            assert produced(peer.ask(produce("records", (0, one)), 9))[0] == 0
        asked = DescribeProducersRequest(
            topics=[TopicRequest(name="records", partition_indexes=[0])]
        )
        active = peer.ask(asked, 0).topics[0].partitions[0].active_producers
        assert len(active) == PRODUCERS_MAX
        assert max(producer.producer_id for producer in active) == 100_000 + 4 * PRODUCERS_MAX - 1


def test_h64_what_is_not_there_is_unknown(broker: Victim) -> None:
    with broker.peer() as peer:
        for topic, number in [(WELL, 1), (WELL, -1), (WELL, MAX), ("nowhere", 0), ("../x", 0)]:
            answer = peer.ask(produce(topic, (number, batch(b"a"))), 9)
            assert produced(answer) == (E.UNKNOWN_TOPIC_OR_PARTITION, -1)


def test_h65_a_partition_named_twice_is_refused_and_nothing_written(broker: Victim) -> None:
    with broker.peer() as peer:
        before = fetched(peer.ask(fetch(WELL, (0, 0)), 12)).high_watermark
        answer = peer.ask(produce(WELL, (0, batch(b"a")), (0, batch(b"b"))), 9)
        errors = [part.error_code for part in answer.responses[0].partition_responses]
        assert errors == [E.INVALID_REQUEST, E.INVALID_REQUEST]
        assert fetched(peer.ask(fetch(WELL, (0, 0)), 12)).high_watermark == before
