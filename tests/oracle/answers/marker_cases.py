"""Cases of partitions in transactions: WriteTxnMarkers, and Produce, Fetch, ListOffsets and
DescribeProducers while a transaction is open and after it has ended.

Producer ids have names of their own, and records are told by their size: they hold such an id.
"""

from __future__ import annotations

import time
from typing import Any

from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer as Who
from ottla.records.builder import build_batch
from ottla.records.reader import Record
from tests.oracle.answers.batches import NOW_MS
from tests.oracle.answers.case import each, error, success
from tests.oracle.answers.data_cases import BY_ID, batch, delete, fetch, produce, producers_of
from tests.oracle.answers.peer import Peer
from tests.oracle.answers.txn_cases import STRANGER, Producer, begun, describe

PRODUCE, FETCH, LIST_OFFSETS, END, WRITE_MARKERS, DESCRIBE_PRODUCERS = 0, 1, 2, 26, 27, 61
ADDS = 12
"""From this version of Produce on a batch adds its partition to the transaction (KIP-890)."""


def of_transaction(who: Who, count: int = 1, timestamp: int = NOW_MS) -> bytes:
    records = [Record(value=b"v", timestamp=timestamp + at) for at in range(count)]
    return build_batch(records, producer=who, attributes=TRANSACTIONAL_BIT)


def send(
    producer: Producer, topic: str, sequence: int, version: int, count: int = 1, **more: Any
) -> Any:
    """One batch in the producer's transaction."""
    who = Who(more.pop("id", producer.id), more.pop("epoch", producer.epoch), sequence)
    raw = of_transaction(who, count, more.pop("timestamp", NOW_MS))
    given = {"transactional_id": producer.name} | more
    return produce(producer.peer, topic, raw, version, **given)


def enter(producer: Producer, topic: str, version: int) -> None:
    """What a client does before it produces by a version that does not add by itself."""
    if version < ADDS:
        producer.add(3, (topic, 0))


def finish(producer: Producer, *, committed: bool, bumps: bool = True) -> None:
    """Ended, and the markers are in: the coordinator says so."""
    producer.end(5 if bumps else 3, committed)
    producer.described()


def marker(
    who: int, epoch: int, *places: tuple[str, int], committed: bool = False, **more: Any
) -> WritableTxnMarker:
    topics = [WritableTxnMarkerTopic(name=name, partition_indexes=[at]) for name, at in places]
    given = {"coordinator_epoch": 0} | more
    return WritableTxnMarker(
        producer_id=who,
        producer_epoch=epoch,
        transaction_result=committed,
        topics=topics,
        **given,
    )


def mark(peer: Peer, version: int, *markers: WritableTxnMarker) -> Any:
    return peer.ask(WriteTxnMarkersRequest(markers=list(markers)), version)


def plainly(peer: Peer, answer: Any, *producers: Producer) -> Any:
    """A Fetch or DescribeProducers answer, producer ids as names, records as their sizes."""
    ids = {one.id: f"producer {at}" for at, one in enumerate(producers)}

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            named = {key: walk(one) for key, one in value.items()}
            if named.get("producer_id") in ids:
                named["producer_id"] = ids[named["producer_id"]]
            for key in ("last_timestamp", "timestamp"):
                if named.get(key, 0) > NOW_MS + 1000:
                    named[key] = "a marker's"
            if "coordinator_epoch" in named:
                named["coordinator_epoch"] = min(named["coordinator_epoch"], 0)
            return named
        if isinstance(value, list):
            return [walk(one) for one in value]
        return len(value) if isinstance(value, bytes) else value

    return walk(answer)


def ends(peer: Peer, topic: str, version: int = 9, timestamp: int = -1) -> Any:
    """What readers of all records and of committed ones are told of a time."""
    answers = []
    for level in (0, 1):
        asked = ListOffsetsPartition(partition_index=0, timestamp=timestamp)
        there = [ListOffsetsTopic(name=topic, partitions=[asked])]
        request = ListOffsetsRequest(replica_id=-1, isolation_level=level, topics=there)
        answers.append(plainly(peer, peer.ask(request, version)))
    return answers


def both(peer: Peer, topic: str, version: int, offset: int, *producers: Producer) -> Any:
    return [
        plainly(
            peer,
            fetch(peer, topic, version, fetch_offset=offset, isolation_level=level),
            *producers,
        )
        for level in (0, 1)
    ]


# --- WriteTxnMarkers ---------------------------------------------------------------------------


@success(WRITE_MARKERS)
def an_admin_ends_what_hangs(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    enter(producer, topic, 9)
    sent = send(producer, topic, 0, 9)
    before = ends(peer, topic)
    ended = mark(peer, version, marker(producer.id, producer.epoch, (topic, 0)))
    ended["markers"][0]["producer_id"] = "its"
    after = ends(peer, topic)
    told = plainly(peer, producers_of(peer, 0, (topic, [0])), producer)
    return [sent, before, ended, after, told, both(peer, topic, 12, 0, producer)]


@success(WRITE_MARKERS)
def for_a_producer_that_was_never_here(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    one = marker(77, 3, (topic, 0), committed=True, coordinator_epoch=5)
    return [mark(peer, version, one), producers(peer, topic), ends(peer, topic)]


def producers(peer: Peer, topic: str, *known: Producer) -> Any:
    return plainly(peer, producers_of(peer, 0, (topic, [0])), *known)


@error(WRITE_MARKERS, 1, 2)
def h117_nothing_and_nowhere(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    nowhere = marker(77, 0, (topic, 9), ("nowhere", 0), (topic, 0))
    return [mark(peer, version), mark(peer, version, nowhere), mark(peer, version, marker(7, 0))]


@each(WRITE_MARKERS, 2, id=(-1, 0), epoch=(77, -1))
def h117_without_a_producers(peer: Peer, version: int, given: tuple[int, int]) -> Any:
    topic = peer.topic()
    return [mark(peer, version, marker(*given, (topic, 0))), ends(peer, topic)]


@error(WRITE_MARKERS, 2)
def h117_without_a_version(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    return [
        mark(peer, version, marker(77, 0, (topic, 0), transaction_version=-1)),
        ends(peer, topic),
    ]


@error(WRITE_MARKERS, 1, 2)
def h117_a_partition_twice(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    with peer.less_patient():  # Kafka never answers
        return mark(peer, version, marker(77, 1, (topic, 0), (topic, 0)))


@error(WRITE_MARKERS, 1, 2)
def h117_one_without_partitions_beside_another(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    with peer.less_patient():  # Kafka never answers
        return mark(peer, version, marker(77, 1, (topic, 0)), marker(78, 1))


@error(WRITE_MARKERS, 1, 2)
def h117_several_of_a_producer(peer: Peer, version: int) -> Any:
    topic = peer.topic(2)
    both = [marker(77, 1, (topic, number), committed=bool(number)) for number in (0, 1)]
    return [mark(peer, version, *both), producers(peer, topic)]


@each(WRITE_MARKERS, 1, 2, older=4, same=5, newer=6)
def by_a_coordinator(peer: Peer, version: int, given: int) -> Any:
    topic = peer.topic()
    first = marker(77, 1, (topic, 0), coordinator_epoch=5)
    second = marker(77, 1, (topic, 0), coordinator_epoch=given)
    return [mark(peer, version, first), mark(peer, version, second), ends(peer, topic)]


@each(WRITE_MARKERS, 1, 2, older=-1, same=0, newer=1)
def h115_over_an_open_transaction_with_an_epoch(peer: Peer, version: int, given: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    producer.init()
    enter(producer, topic, 9)
    send(producer, topic, 0, 9)
    answers = []
    for rules in (1, 2):
        more = {"transaction_version": rules} if version > 1 else {}
        one = marker(producer.id, producer.epoch + given, (topic, 0), **more)
        ended = mark(peer, version, one)
        ended["markers"][0]["producer_id"] = "its"
        answers += [ended, ends(peer, topic), producers(peer, topic, producer)]
    return answers


@error(END, 3, 5)
def after_a_marker_of_a_later_epoch(peer: Peer, version: int) -> Any:
    """By an admin, so that the partition refuses the coordinator's own."""
    topic, producer = peer.topic(), begun(peer)
    send(producer, topic, 0, 12)
    mark(peer, 2, marker(producer.id, producer.epoch + 2, (topic, 0), transaction_version=2))
    answer = producer.end(version)
    rests = time.monotonic() + 3
    while (told := describe(peer, [producer.name])[0])["transaction_state"] != "CompleteCommit":
        if time.monotonic() > rests:
            break
    told["producer_id"] = "its"
    return [answer["error_code"], told]


@error(WRITE_MARKERS, 2)
def h115_a_marker_again_over_the_next_transaction(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    send(producer, topic, 0, 12)
    was = producer.epoch
    finish(producer, committed=True)
    again = marker(producer.id, was + 1, (topic, 0), transaction_version=2, coordinator_epoch=9)
    answers = [mark(peer, version, again)]
    send(producer, topic, 0, 12)
    answers.append(mark(peer, version, again))
    for one in answers:
        one["markers"][0]["producer_id"] = "its"
    return [*answers, ends(peer, topic)]


# --- Produce -----------------------------------------------------------------------------------


@success(PRODUCE)
def in_a_transaction(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    enter(producer, topic, version)
    sent = [send(producer, topic, 0, version, 2), send(producer, topic, 2, version)]
    again = send(producer, topic, 2, version)
    finish(producer, committed=True, bumps=version >= ADDS)
    follows = 0 if version >= ADDS else 3
    enter(producer, topic, version)
    sent.append(send(producer, topic, follows, version))
    finish(producer, committed=False, bumps=version >= ADDS)
    return [sent, again, ends(peer, topic), both(peer, topic, 12, 0, producer)]


@error(PRODUCE, *range(3, 14))
def h60_not_in_the_transaction(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    other = peer.topic()
    producer.add(3, (other, 0))
    return [
        send(producer, topic, 0, version),
        send(producer, topic, 0, version, id=STRANGER),
        send(producer, topic, 0, version, epoch=producer.epoch + 1),
        send(producer, topic, 0, version, transactional_id=f"{producer.name}-unknown"),
        send(producer, topic, 0, version, transactional_id=""),
        ends(peer, topic),
    ]


@error(PRODUCE, 3, 8, 11, 12, 13)
def h59_without_a_transactional_id(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    return send(producer, topic, 0, version, transactional_id=None)


@error(PRODUCE, 3, 8, 11, 12, 13)
def h61_a_plain_batch_inside_a_transaction(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    enter(producer, topic, version)
    sent = send(producer, topic, 0, version)
    plain = batch(1, Who(producer.id, producer.epoch, 1))
    return [sent, produce(peer, topic, plain, version), ends(peer, topic)]


@error(PRODUCE, 3, 8, 11, 12, 13)
def of_an_epoch_that_is_over(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    enter(producer, topic, version)
    sent = send(producer, topic, 0, version)
    was = producer.epoch
    producer.init()
    late = [send(producer, topic, 1, version, epoch=was)]
    enter(producer, topic, version)
    late.append(send(producer, topic, 1, version, epoch=was))
    plain = batch(1, Who(producer.id, was, 1))
    return [sent, late, produce(peer, topic, plain, version)]


@error(PRODUCE, 3, 8, 11, 12, 13)
def of_an_epoch_that_only_the_log_knows_to_be_over(peer: Peer, version: int) -> Any:
    """Nothing is begun for it."""
    topic, producer = peer.topic(), begun(peer)
    mark(peer, 1, marker(producer.id, producer.epoch + 1, (topic, 0)))
    return [send(producer, topic, 0, version), producer.described()]


@error(PRODUCE, 3, 8, 11, 12, 13)
def out_of_sequence(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    enter(producer, topic, version)
    first = send(producer, topic, 5, version)
    follows = 6 if first["responses"][0]["partition_responses"][0]["error_code"] == "none" else 0
    return [first, *(send(producer, topic, at, version) for at in (follows, follows + 5, follows))]


@error(PRODUCE, 11, 12)
def after_a_refused_one_that_claimed_a_later_epoch(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    enter(producer, topic, version)
    sent = [send(producer, topic, 0, version)]
    sent.append(send(producer, topic, 0, version, epoch=producer.epoch + 2))
    return [*sent, send(producer, topic, 1, version)]


@error(PRODUCE, 9, 11, 12)
def h62_an_internal_topic_in_a_transaction(peer: Peer, version: int) -> Any:
    producer = begun(peer)
    return [send(producer, "__transaction_state", 0, version), producer.described()]


@error(PRODUCE, 12)
def after_a_refused_one_of_an_older_version(peer: Peer, version: int) -> Any:
    topic, zombie = peer.topic(), begun(peer)
    producer = begun(peer)
    return [send(zombie, topic, 0, 11), send(producer, topic, 1, version)]


@error(PRODUCE, 11)
def not_in_the_transaction_and_without_a_sequence(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    return send(producer, topic, -1, version)


@error(PRODUCE, 9, 12, 13)
def two_producers_in_one_request(peer: Peer, version: int) -> Any:
    one, two = begun(peer, "-one"), begun(peer, "-two")
    topics = [peer.topic(), peer.topic()]
    there = []
    for topic, who in zip(topics, (one, two), strict=True):
        raw = of_transaction(Who(who.id, who.epoch, 0))
        data = PartitionProduceData(index=0, records=memoryview(raw))
        named = TopicProduceData(partition_data=[data])
        if version >= BY_ID:
            named.topic_id = peer.id_of(topic)
        else:
            named.name = topic
        there.append(named)
    request = ProduceRequest(transactional_id=one.name, acks=-1, timeout_ms=5000, topic_data=there)
    return peer.ask(request, version)


@error(PRODUCE, 9, 12)
def in_a_transaction_that_has_ended(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    enter(producer, topic, version)
    send(producer, topic, 0, version)
    was = producer.epoch
    finish(producer, committed=True, bumps=version >= ADDS)
    return [send(producer, topic, 1, version, epoch=was), ends(peer, topic)]


# --- Fetch, ListOffsets, DescribeProducers -----------------------------------------------------


@success(FETCH)
def committed_records_beside_open_and_aborted_ones(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    one, two, three = (begun(peer, name) for name in ("-one", "-two", "-three"))
    known = (one, two, three)
    for who in known:
        send(who, topic, 0, 12, 2)
    produce(peer, topic, batch(1), 9)
    answers = [both(peer, topic, version, offset, *known) for offset in (0, 2)]
    for who, committed in ((two, False), (one, True), (three, False)):
        finish(who, committed=committed)
        answers += [both(peer, topic, version, offset, *known) for offset in (0, 3, 8)]
    for offset in range(11):
        answers.append(both(peer, topic, version, offset, *known))
    return answers


@error(FETCH, 12)
def stable_where_a_batch_of_an_open_transaction_was_cut(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    send(producer, topic, 0, 12, 3)
    return [
        delete(peer, topic, 2, (0, 1)),
        ends(peer, topic),
        both(peer, topic, version, 1, producer),
    ]


@error(LIST_OFFSETS, 7, 11)
def the_greatest_time_is_of_what_was_deleted(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    for timestamp in (NOW_MS + 10, NOW_MS):
        produce(peer, topic, batch(1, timestamp=timestamp), 9)
    told = [ends(peer, topic, version, -3), delete(peer, topic, 2, (0, 1))]
    return [*told, ends(peer, topic, version, -3)]


@success(LIST_OFFSETS)
def ends_and_times_of_committed_records(peer: Peer, version: int) -> Any:
    topic, producer = peer.topic(), begun(peer)
    produce(peer, topic, batch(1, timestamp=NOW_MS), 9)
    times = [-1, -2, NOW_MS, NOW_MS + 5, NOW_MS + 50]
    if version >= 7:
        times.append(-3)
    send(producer, topic, 0, 12, 2, timestamp=NOW_MS + 5)
    answers = [ends(peer, topic, version, at) for at in times]
    finish(producer, committed=False)
    return answers + [ends(peer, topic, version, at) for at in times if at != -3]


@success(DESCRIBE_PRODUCERS)
def what_is_open_and_what_has_ended(peer: Peer, version: int) -> Any:
    topic = peer.topic()
    old, new = begun(peer, "-old"), begun(peer, "-new")
    enter(old, topic, 9)
    send(old, topic, 0, 9, 3)
    send(new, topic, 0, 12)
    answers = [producers(peer, topic, old, new)]
    finish(old, committed=True, bumps=False)
    finish(new, committed=False)
    return [*answers, producers(peer, topic, old, new)]
