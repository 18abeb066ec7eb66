"""The rows of the hostile table that one request can show, through a broker on a real socket.

What is expected is the table's column "Ours". After each row the next well-formed connection
works, and the broker's memory and open files are back. Rows about connections and their limits
are in test_limits.py, those about bytes in pieces in test_frames.py, too.
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
from ottla.protocol.messages import alter_configs, incremental_alter_configs
from ottla.protocol.messages.api_versions import ApiVersionsRequest
from ottla.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreateTopicsRequest,
)
from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from ottla.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
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
from tests.hostile.wire import (
    NOW_MS,
    WELL,
    Victim,
    answer_of,
    batch,
    create,
    delete,
    fetch,
    fetched,
    framed,
    head,
    produce,
    produced,
    raw,
    request,
)
from tests.processes import OTTLA

MAX = 2**31 - 1
FETCH_MAX = 1 << 20
SESSIONS_MAX = 20
PARKED_MAX = 20
PRODUCERS_MAX = 50
AUTO_MAX = 3
WIDE = 30
WIDE_BATCH = 100_000
UNKNOWN_ID = b"\x01" * 16


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    """One broker for all rows, its limits low enough to be reached."""
    victim = start(
        f"fetch.max.bytes={FETCH_MAX}",
        "fetch.max.wait.ms.limit=700",
        f"fetch.parked.max={PARKED_MAX}",
        f"max.incremental.fetch.session.cache.slots={SESSIONS_MAX}",
        f"producer.ids.per.partition.max={PRODUCERS_MAX}",
        f"auto.create.topics.request.max={AUTO_MAX}",
        "max.partitions.per.topic=40",
        "max.partitions.total=200",
    )
    victim.create("header")
    victim.create("records", record_validation="records")
    victim.create("small", max_message_bytes=100_000, record_validation="records")
    victim.create("short", max_message_bytes=4 << 20, segment_bytes=1 << 20)
    victim.create("compacted", cleanup_policy="compact")
    victim.create("wide", WIDE)
    victim.create("a.b")
    with victim.peer() as peer:
        full = batch(bytes(WIDE_BATCH))
        for number in range(WIDE):
            assert produced(peer.ask(produce("wide", (number, full)), 9))[0] == 0
        # The worker process comes with the first batch that is too large to be opened here.
        assert produced(peer.ask(produce("records", (0, batch(bytes(40_000)))), 9))[0] == 0
    victim.remember()
    return victim


@pytest.fixture(autouse=True)
def unharmed(broker: Victim) -> Iterator[None]:
    yield
    broker.unharmed()


# --- what ends a connection -------------------------------------------------------------------

TWO_GIB = b"\xff\xff\xff\xff\x07"  # 2^31-1 as an unsigned varint
METADATA_V9_REST = b"\0\0\0\0"
INTER_BROKER = {
    4: "LeaderAndIsr", 5: "StopReplica", 6: "UpdateMetadata", 7: "ControlledShutdown", 52: "Vote",
    53: "BeginQuorumEpoch", 54: "EndQuorumEpoch", 56: "AlterPartition", 58: "Envelope",
    59: "FetchSnapshot", 67: "AllocateProducerIds", 73: "AssignReplicasToDirs",
}  # fmt: skip
REGISTRATIONS = {62: "BrokerRegistration", 63: "BrokerHeartbeat", 70: "ControllerRegistration"}

CLOSED = {
    "H1 a size of -1": struct.pack(">i", -1),
    "H1 a size of -2^31": struct.pack(">I", 1 << 31),
    "H2 a size above socket.request.max.bytes": struct.pack(">i", 104_857_601) + bytes(100),
    "H4 a size of 0": struct.pack(">i", 0),
    "H7 HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "H7 TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "H10 key 9999": raw(9999, 0),
    "H10 key -1": raw(-1, 0),
    "H11 Metadata v99": raw(3, 99, b"\0\0\0\0"),
    "H11 Metadata v-1": raw(3, -1, b"\0\0\0\0"),
    "H11 Fetch v3": raw(1, 3, bytes(40)),
    "H11 Produce v2": raw(0, 2, bytes(40)),
    **{f"H14 {name}": raw(key, 0, bytes(40)) for key, name in INTER_BROKER.items()},
    **{f"H80 {name}": raw(key, 0, bytes(40)) for key, name in REGISTRATIONS.items()},
    "H15 a header of 9 bytes": framed(head(3, 1)[:9]),
    "H15 cut inside the client id": framed(struct.pack(">hhih", 3, 1, 1, 9) + b"me"),
    "H15 a client id of -2 bytes": framed(struct.pack(">hhih", 3, 1, 1, -2) + b"me"),
    "H15 a client id of 32767 bytes": framed(struct.pack(">hhih", 3, 1, 1, 32767) + b"me"),
    "H15 a client id that is not UTF-8": framed(struct.pack(">hhih", 3, 1, 1, 2) + b"\xff\xfe"),
    "H16 2^31-1 tags in the header": raw(3, 9, METADATA_V9_REST, tags=TWO_GIB),
    "H16 2^31-1 tags in the body": raw(3, 9, b"\0\0\0\0" + TWO_GIB),
    "H16 one tag twice": raw(3, 9, METADATA_V9_REST, tags=b"\2\5\0\5\0"),
    "H16 tags that descend": raw(3, 9, METADATA_V9_REST, tags=b"\2\5\0\4\0"),
    "H16 a tag larger than the rest": raw(3, 9, METADATA_V9_REST, tags=b"\1\0\x7f"),
    "H17 a count of six bytes": raw(3, 9, b"\xff" * 6 + bytes(8)),
    "H17 tags in six bytes": raw(3, 9, METADATA_V9_REST, tags=b"\xff" * 6),
    "H17 a string's length of nine bytes": raw(3, 9, b"\2" + b"\xff" * 9 + bytes(8)),
    "H18 2^31-1 topics": raw(3, 1, struct.pack(">i", MAX) + bytes(20)),
    "H18 2^31-2 topics, compact": raw(3, 9, TWO_GIB + bytes(20)),
    "H18 2^31-1 partitions": raw(1, 4, struct.pack(">iiiibi", -1, 0, 0, 0, 0, MAX) + bytes(20)),
    "H19 a null name": raw(3, 1, struct.pack(">ih", 1, -1)),
    "H19 a null name, compact": raw(3, 9, b"\2\0\0" + bytes(4)),
    "H19 null topics": raw(0, 3, struct.pack(">hhii", -1, -1, 100, -1)),
    "H20 a compact string of 40000 bytes": raw(3, 9, b"\2\xc1\xb8\x02" + b"a" * 40_000 + bytes(5)),
    "H21 nothing behind the header": raw(3, 1),
    "H21 a Produce cut short": raw(0, 3, struct.pack(">hh", -1, -1)),
    "H21 a Fetch cut short": raw(1, 12, bytes(10)),
}  # fmt: skip


@pytest.mark.parametrize("data", CLOSED.values(), ids=CLOSED)
def test_is_no_request_and_ends_its_connection_alone(broker: Victim, data: bytes) -> None:
    with broker.peer() as other, broker.peer() as peer:
        peer.send(request(ApiVersionsRequest(), 0, 7) + data)
        first = peer.rest()
        # What came before it is answered; nothing else is.
        assert not first or struct.unpack_from(">ii", first) == (len(first) - 4, 7)
        other.ping()


# --- ApiVersions, and frames that are well all the same ---------------------------------------


def test_h12_an_unknown_version_of_api_versions_is_answered_in_version_0(broker: Victim) -> None:
    with broker.peer() as peer:
        for version in (5, 99, -1, 32767):
            peer.send(raw(18, version, b"\1\1\0"))
            answer = answer_of(ApiVersionsRequest(), 0, peer.answer())
            assert answer.error_code == E.UNSUPPORTED_VERSION
            assert [api.api_key for api in answer.api_keys] == [18]
        peer.ping()


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "a\0", "ä", "a/b", "%s%n", "\n"])
def test_h13_a_software_name_out_of_shape_is_an_invalid_request(broker: Victim, name: str) -> None:
    with broker.peer() as peer:
        for bad in (
            ApiVersionsRequest(client_software_name=name, client_software_version="1"),
            ApiVersionsRequest(client_software_name="a", client_software_version=name),
        ):
            assert peer.ask(bad, 3).error_code == E.INVALID_REQUEST
        peer.ping()


def test_h22_bytes_behind_the_body_are_ignored(broker: Victim) -> None:
    with broker.peer() as peer:
        for extra in (b"\0", bytes(3), b"\xff" * 5000):
            asked = MetadataRequest(topics=[MetadataRequestTopic(name=WELL)])
            peer.send(framed(request(asked, 4, 9)[4:] + extra))
            assert answer_of(asked, 4, peer.answer()).topics[0].error_code == 0


def test_h25_correlation_ids_are_echoed_whatever_they_are(broker: Victim) -> None:
    ids = [7, 7, -1, -(2**31), MAX, 0, 7]
    with broker.peer() as peer:
        peer.send(b"".join(request(ApiVersionsRequest(), 0, number) for number in ids))
        assert [struct.unpack_from(">i", peer.answer())[0] for _ in ids] == ids


# --- H28: many partitions ---------------------------------------------------------------------

TOO_MANY = 100_001


def _too_many() -> dict[str, tuple[Any, int, Callable[[Any], set[int]]]]:
    """Requests beyond request.partitions.max, and where their answers have the errors."""

    def of_partitions(answer: Any) -> set[int]:
        (topic,) = answer.responses
        parts = getattr(topic, "partitions", None) or topic.partition_responses
        assert len(parts) == TOO_MANY
        return {part.error_code for part in parts}

    wanted = [FetchPartition(partition=n, fetch_offset=0) for n in range(TOO_MANY)]
    offered = [PartitionProduceData(index=n, records=b"") for n in range(TOO_MANY)]
    asked = [MetadataRequestTopic(name="x") for _ in range(TOO_MANY)]
    listed = [ListOffsetsPartition(partition_index=n, timestamp=-1) for n in range(TOO_MANY)]
    fetched_from = [FetchTopic(topic=WELL, partitions=wanted)]
    produced_to = [TopicProduceData(name=WELL, partition_data=offered)]
    listed_of = [ListOffsetsTopic(name=WELL, partitions=listed)]
    return {
        "Metadata": (
            MetadataRequest(topics=asked),
            9,
            lambda answer: {topic.error_code for topic in answer.topics},
        ),
        "Fetch v12": (
            FetchRequest(topics=fetched_from),
            12,
            lambda answer: {answer.error_code},
        ),
        "Fetch v4": (FetchRequest(topics=fetched_from), 4, of_partitions),
        "Produce": (ProduceRequest(acks=1, topic_data=produced_to), 9, of_partitions),
        "ListOffsets": (
            ListOffsetsRequest(topics=listed_of),
            6,
            lambda answer: {part.error_code for part in answer.topics[0].partitions},
        ),
    }


@pytest.mark.parametrize("which", ["Metadata", "Fetch v12", "Fetch v4", "Produce", "ListOffsets"])
def test_h28_more_partitions_than_a_request_may_name_are_refused(
    broker: Victim, which: str
) -> None:
    asked, version, errors = _too_many()[which]
    with broker.peer() as peer:
        assert errors(peer.ask(asked, version)) == {E.INVALID_REQUEST}
        peer.ping()


def test_h28_more_elements_than_any_request_has_end_the_connection(broker: Victim) -> None:
    """Two bytes each on the wire, a hundred as an object: refused while it is decoded."""
    many = 20 << 20
    with broker.peer() as peer:
        peer.send(framed(head(3, 9) + b"\x81\x80\x80\x0a" + b"\1\0" * many + bytes(4)))
        assert peer.rest() == b""


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
    with broker.peer() as peer:
        answer = peer.ask(produce(bad.topic, (0, bad.made())), bad.version)
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


# --- Fetch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-1, -(2**63), 2**63 - 1])
def test_h66_an_offset_outside_the_log_is_out_of_range(broker: Victim, offset: int) -> None:
    with broker.peer() as peer:
        part = fetched(peer.ask(fetch(WELL, (0, offset)), 12))
        assert (part.error_code, part.high_watermark) == (E.OFFSET_OUT_OF_RANGE, -1)


@pytest.mark.parametrize("most", [0, -1, -(2**31), MAX])
def test_h67_an_answer_holds_one_batch_at_least_and_no_more_than_its_cap(
    broker: Victim, most: int
) -> None:
    everything = [(number, 1) for number in range(WIDE)]
    with broker.peer() as peer:
        asked = fetch("wide", *everything, max_bytes=most, partition_max_bytes=most)
        (topic,) = peer.ask(asked, 12).responses
        sizes = [len(part.records) for part in topic.partitions if part.records]
        assert sum(sizes) <= FETCH_MAX
        assert len(sizes) == (1 if most <= 0 else FETCH_MAX // WIDE_BATCH)


def test_h67_a_session_serves_its_partitions_in_turn(broker: Victim) -> None:
    everything = [(number, 1) for number in range(WIDE)]
    with broker.peer() as peer:
        first = peer.ask(fetch("wide", *everything, session_epoch=0), 12)
        served = {p.partition_index for p in first.responses[0].partitions if p.records}
        for epoch in (1, 2):
            more = {"session_id": first.session_id, "session_epoch": epoch}
            answer = peer.ask(FetchRequest(max_bytes=MAX, topics=[], **more), 12)
            served |= {p.partition_index for p in answer.responses[0].partitions if p.records}
        assert served == set(range(WIDE))
        end = {"session_id": first.session_id, "session_epoch": -1}
        peer.ask(FetchRequest(topics=[], **end), 12)


def test_h68_a_fetch_without_end_is_answered_when_the_longest_wait_is_over(broker: Victim) -> None:
    for_ever = fetch(WELL, (0, 0), min_bytes=MAX, max_wait_ms=MAX)
    with broker.peer() as peer:
        assert fetched(peer.ask(for_ever, 12)).error_code == 0


def test_h68_fetches_beyond_those_that_may_wait_are_answered_at_once(broker: Victim) -> None:
    for_ever = request(fetch("a.b", (0, 0), min_bytes=MAX, max_wait_ms=MAX), 12)
    peers = [broker.peer() for _ in range(2 * PARKED_MAX)]
    for peer in peers:
        peer.send(for_ever)
    for peer in peers:
        peer.answer()
        peer.close()
    assert len(broker.logged("(fetch.parked.max")) == 1


def test_h69_sessions_are_known_by_id_and_epoch_and_there_is_an_end_of_them(
    broker: Victim,
) -> None:
    with broker.peer() as peer:

        def session(number: int, epoch: int) -> Any:
            more = {"session_id": number, "session_epoch": epoch}
            return peer.ask(FetchRequest(topics=[], **more), 12)

        ids = [
            peer.ask(fetch(WELL, (0, 0), session_epoch=0), 12).session_id
            for _ in range(2 * SESSIONS_MAX)
        ]
        assert 0 in ids, "without a free slot a client goes on without a session"
        assert len([number for number in ids if number]) <= SESSIONS_MAX
        assert session(ids[0], 5).error_code == E.INVALID_FETCH_SESSION_EPOCH
        assert session(MAX, 1).error_code == E.FETCH_SESSION_ID_NOT_FOUND
        assert session(-5, 1).error_code == E.FETCH_SESSION_ID_NOT_FOUND
        for number in filter(None, ids):
            session(number, -1)
    assert len(broker.logged("(max.incremental.fetch.session.cache.slots")) == 1


def test_h71_no_node_is_a_follower_here(broker: Victim) -> None:
    with broker.peer() as peer:
        part = fetched(peer.ask(fetch(WELL, (0, 0), replica_id=5), 12))
        assert part.error_code in (E.NOT_LEADER_OR_FOLLOWER, E.UNKNOWN_LEADER_EPOCH)


@pytest.mark.parametrize(
    ("epoch", "error"), [(99, E.UNKNOWN_LEADER_EPOCH), (MAX, E.UNKNOWN_LEADER_EPOCH), (-1, OK)]
)
def test_h72_an_epoch_yet_to_come_is_unknown(broker: Victim, epoch: int, error: E) -> None:
    with broker.peer() as peer:
        part = fetched(peer.ask(fetch(WELL, (0, 0), current_leader_epoch=epoch), 12))
        assert part.error_code == error


@pytest.mark.parametrize("topic_id", [UNKNOWN_ID, bytes(16)], ids=["unknown", "zero"])
def test_h73_a_topic_id_that_is_nobodys_is_unknown(broker: Victim, topic_id: bytes) -> None:
    with broker.peer() as peer:
        assert fetched(peer.ask(fetch(topic_id, (0, 0)), 13)).error_code == E.UNKNOWN_TOPIC_ID
        part = PartitionProduceData(index=0, records=batch(b"a"))
        data = [TopicProduceData(topic_id=topic_id, partition_data=[part])]
        answer = peer.ask(ProduceRequest(acks=1, timeout_ms=100, topic_data=data), 13)
        assert produced(answer)[0] == E.UNKNOWN_TOPIC_ID


def test_h73_a_topic_is_asked_for_by_its_name_or_its_id(broker: Victim) -> None:
    with broker.peer() as peer:
        asked = [MetadataRequestTopic(name=None, topic_id=UNKNOWN_ID)]
        (topic,) = peer.ask(MetadataRequest(topics=asked), 12).topics
        assert topic.error_code == E.UNKNOWN_TOPIC_ID
        both = [DeleteTopicState(name=WELL, topic_id=UNKNOWN_ID)]
        (result,) = peer.ask(DeleteTopicsRequest(topics=both, timeout_ms=100), 6).responses
        assert result.error_code == E.INVALID_REQUEST


# --- topics -----------------------------------------------------------------------------------

NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc",
    "a\0b",
    "x" * 250,
    "ä",
    "a b",
    "a\n",
    "a_b",
    "%2e%2e",
]


@pytest.mark.parametrize("name", NAMES)
def test_h74_a_name_that_is_no_topics_is_refused(broker: Victim, name: str) -> None:
    """`a_b` collides with `a.b`, which is there."""
    with broker.peer() as peer:
        (topic,) = peer.ask(create(name), 5).topics
        assert topic.error_code == E.INVALID_TOPIC_EXCEPTION
        asked = MetadataRequest(topics=[MetadataRequestTopic(name=name)])
        (topic,) = peer.ask(asked, 9).topics
        assert topic.error_code == E.INVALID_TOPIC_EXCEPTION
    assert not (broker.broker.directory.parent / "x-0").exists()


def _creating(*topics: CreatableTopic) -> CreateTopicsRequest:
    return CreateTopicsRequest(topics=list(topics))


def test_h75_topics_named_twice_are_refused(broker: Victim) -> None:
    twice = [CreatableTopic(name="twice", num_partitions=1, replication_factor=1)] * 2
    with broker.peer() as peer:
        answer = peer.ask(_creating(*twice), 5)
        assert {topic.error_code for topic in answer.topics} == {E.INVALID_REQUEST}


def _with(partitions: int, factor: int, *replicas: list[int]) -> CreatableTopic:
    assignments = [
        CreatableReplicaAssignment(partition_index=index, broker_ids=ids)
        for index, ids in enumerate(replicas)
    ]
    return CreatableTopic(
        name="h76", num_partitions=partitions, replication_factor=factor, assignments=assignments
    )


@pytest.mark.parametrize(
    ("topic", "error"),
    [
        (_with(0, 1), E.INVALID_PARTITIONS),
        (_with(-5, 1), E.INVALID_PARTITIONS),
        (_with(10**9, 1), E.POLICY_VIOLATION),
        (_with(41, 1), E.POLICY_VIOLATION),
        (_with(1, 0), E.INVALID_REPLICATION_FACTOR),
        (_with(1, 2), E.INVALID_REPLICATION_FACTOR),
        (_with(1, 1, [0]), E.INVALID_REQUEST),
        (_with(-1, -1, [0, 0]), E.INVALID_REPLICA_ASSIGNMENT),
        (_with(-1, -1, [7]), E.INVALID_REPLICA_ASSIGNMENT),
        (_with(-1, -1, []), E.INVALID_REPLICA_ASSIGNMENT),
    ],
)
def test_h76_counts_that_no_topic_has_are_refused(
    broker: Victim, topic: CreatableTopic, error: E
) -> None:
    with broker.peer() as peer:
        (result,) = peer.ask(_creating(topic), 5).topics
        assert E(result.error_code) == error


def test_h76_partitions_of_all_topics_together_are_capped(broker: Victim) -> None:
    names = [f"many{number}" for number in range(5)]
    with broker.peer() as peer:
        topics = [CreatableTopic(name=n, num_partitions=40, replication_factor=1) for n in names]
        errors = {topic.error_code for topic in peer.ask(_creating(*topics), 5).topics}
        assert E.POLICY_VIOLATION in errors
        peer.ask(delete(*names), 6)


SETTINGS = {
    "an unknown key": ("no.such.config", "1"),
    "a class": ("metric.reporters", "com.example.Evil"),
    "a class of a topic": ("topic.creation.policy.class.name", "com.example.Evil"),
    "a file": ("ssl.keystore.location", "/etc/passwd"),
    "a path of the data": ("log.dir", "/etc"),
    "a negative size": ("max.message.bytes", "-5"),
    "no number": ("segment.bytes", "1e9"),
    "a word": ("cleanup.policy", "shred"),
    "a name of 30000 characters": ("x" * 30_000, "1"),
    "a name with NUL": ("retention.ms\0", "1"),
}
TOPIC, BROKER_ITSELF, DEFAULT_OF_BROKERS = (2, WELL), (4, "0"), (4, "")


@pytest.mark.parametrize("resource", [TOPIC, BROKER_ITSELF, DEFAULT_OF_BROKERS], ids=str)
@pytest.mark.parametrize(("name", "value"), SETTINGS.values(), ids=SETTINGS)
def test_h78_only_known_settings_with_sound_values_are_taken(
    broker: Victim, resource: tuple[int, str], name: str, value: str
) -> None:
    kind, who = resource
    whole = alter_configs.AlterConfigsRequest(
        resources=[
            alter_configs.AlterConfigsResource(
                resource_type=kind,
                resource_name=who,
                configs=[alter_configs.AlterableConfig(name=name, value=value)],
            )
        ]
    )
    one = incremental_alter_configs.IncrementalAlterConfigsRequest(
        resources=[
            incremental_alter_configs.AlterConfigsResource(
                resource_type=kind,
                resource_name=who,
                configs=[incremental_alter_configs.AlterableConfig(name=name, value=value)],
            )
        ]
    )
    with broker.peer() as peer:
        for asked in (whole, one):
            (answer,) = peer.ask(asked, 1).responses
            # Kafka's own code for a broker's setting that can't be changed is INVALID_REQUEST.
            allowed = {E.INVALID_CONFIG} if kind == TOPIC[0] else _BROKER_REFUSALS
            assert E(answer.error_code) in allowed
        (made,) = peer.ask(create("h78", **{name.replace(".", "_"): value}), 5).topics
        assert made.error_code == E.INVALID_CONFIG


_BROKER_REFUSALS = {E.INVALID_CONFIG, E.INVALID_REQUEST}


@pytest.mark.parametrize(
    ("offset", "error"), [(10**9, E.OFFSET_OUT_OF_RANGE), (-2, E.OFFSET_OUT_OF_RANGE)]
)
def test_h79_records_that_are_not_there_are_not_deleted(
    broker: Victim, offset: int, error: E
) -> None:
    with broker.peer() as peer:
        assert _deleted(peer.ask(_delete_records(WELL, offset), 2)) == error


def test_h79_a_compacted_topic_keeps_its_records(broker: Victim) -> None:
    with broker.peer() as peer:
        assert _deleted(peer.ask(_delete_records("compacted", 0), 2)) == E.POLICY_VIOLATION


def _delete_records(topic: str, offset: int) -> DeleteRecordsRequest:
    part = DeleteRecordsPartition(partition_index=0, offset=offset)
    topics = [DeleteRecordsTopic(name=topic, partitions=[part])]
    return DeleteRecordsRequest(topics=topics, timeout_ms=1000)


def _deleted(answer: Any) -> int:
    return int(answer.topics[0].partitions[0].error_code)


def test_h81_asking_for_topics_makes_only_so_many(broker: Victim) -> None:
    names = [f"auto{number}" for number in range(1000)]
    asked = MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in names])
    with broker.peer() as peer:
        topics = peer.ask(asked, 9).topics
        made = [topic.name for topic in topics if topic.error_code == 0]
        assert len(made) == AUTO_MAX
        rest = {topic.error_code for topic in topics if topic.error_code}
        assert rest == {E.UNKNOWN_TOPIC_OR_PARTITION}
        peer.ask(delete(*made), 6)
