"""Rows of the hostile table about batches of transactions, and markers from who is no coordinator.

After each row the next well-formed connection works, and the broker's memory and open files are
back. What a coordinator is asked is not here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages.find_coordinator import FindCoordinatorRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer
from tests.hostile.conftest import Start
from tests.hostile.wire import Peer, Victim, batch, fetch, fetched, produce
from tests.processes import wait_until

TOPIC = "t"
BEGINS, ADDS = 11, 12
TRANSACTIONS = 1


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    victim = start("transaction.state.log.num.partitions=1", "request.partitions.max=1000")
    victim.create(TOPIC)
    with victim.peer() as peer:
        # Makes the coordinator's own topic, and the files of a segment with an aborted transaction.
        who = began(peer, "the-first")
        assert sent(peer, Producer(who.id, who.epoch, 0), who.name, ADDS) == E.NONE
        assert mark(peer, who, who.epoch + 1) == E.NONE
    victim.remember()
    return victim


@pytest.fixture(autouse=True)
def unharmed(broker: Victim) -> Iterator[None]:
    yield
    broker.unharmed()


class Began(NamedTuple):
    """A producer with a transactional id."""

    name: str
    id: int
    epoch: int


def began(peer: Peer, name: str) -> Began:
    found: list[Any] = []

    def given() -> bool:
        peer.ask(FindCoordinatorRequest(key=name, key_type=TRANSACTIONS), 2)
        body = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000)
        found[:] = [peer.ask(body, 4)]
        return not found[0].error_code

    wait_until(given, "a producer id")
    return Began(name, found[0].producer_id, found[0].producer_epoch)


def sent(
    peer: Peer, who: Producer, name: str | None, version: int, bits: int = TRANSACTIONAL_BIT
) -> int:
    """The error of one batch; by default of a transaction."""
    # Not of another time than the marker, for which the segment would be rolled.
    records = batch(b"x", producer=who, attributes=bits, timestamp=int(time.time() * 1000))
    body = produce(TOPIC, (0, records))
    body.transactional_id = name
    ((part,),) = (topic.partition_responses for topic in peer.ask(body, version).responses)
    return int(part.error_code)


def stable(peer: Peer) -> tuple[int, int]:
    """Last stable offset and high watermark."""
    part = fetched(peer.ask(fetch(TOPIC, (0, 0)), 11))
    return part.last_stable_offset, part.high_watermark


def mark(peer: Peer, who: Began, epoch: int, version: int = 2) -> int:
    topics = [WritableTxnMarkerTopic(name=TOPIC, partition_indexes=[0])]
    marker = WritableTxnMarker(
        producer_id=who.id, producer_epoch=epoch, topics=topics, transaction_version=version
    )
    answer = peer.ask(WriteTxnMarkersRequest(markers=[marker]), 2)
    return int(answer.markers[0].topics[0].partitions[0].error_code)


@pytest.mark.parametrize("version", [3, BEGINS, ADDS])
def test_h59_a_transactional_batch_without_a_transactional_id_is_refused(
    broker: Victim, version: int
) -> None:
    with broker.peer() as peer:
        before = stable(peer)
        denied = E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        assert sent(peer, Producer(7, 0, 0), None, version) == denied
        assert stable(peer) == before


@pytest.mark.parametrize(
    ("version", "error"), [(9, E.INVALID_TXN_STATE), (BEGINS, E.TRANSACTION_ABORTABLE)]
)
def test_h60_a_batch_that_is_in_no_transaction_is_refused(
    broker: Victim, version: int, error: int
) -> None:
    with broker.peer() as peer:
        who = began(peer, f"h60-{version}")
        before = stable(peer)
        assert sent(peer, Producer(who.id, who.epoch, 0), who.name, version) == error
        assert sent(peer, Producer(1 << 40, 0, 0), "nobody", version) == (
            E.INVALID_PRODUCER_ID_MAPPING
        )
        assert stable(peer) == before


def test_h61_a_plain_batch_inside_a_transaction_is_refused(broker: Victim) -> None:
    with broker.peer() as peer:
        who = began(peer, "h61")
        assert sent(peer, Producer(who.id, who.epoch, 0), who.name, ADDS) == E.NONE
        assert sent(peer, Producer(who.id, who.epoch, 1), None, ADDS, 0) == E.INVALID_TXN_STATE
        assert mark(peer, who, who.epoch + 1) == E.NONE
        last_stable, end = stable(peer)
        assert last_stable == end


def test_h117_a_clients_marker_ends_what_is_open_there_and_nothing_else(broker: Victim) -> None:
    with broker.peer() as peer:
        one, other = began(peer, "h117"), began(peer, "h117-other")
        for who in (one, other):
            assert sent(peer, Producer(who.id, who.epoch, 0), who.name, ADDS) == E.NONE
        held = stable(peer)[0]
        assert mark(peer, one, one.epoch) == E.INVALID_PRODUCER_EPOCH
        assert stable(peer)[0] == held
        assert mark(peer, one, one.epoch + 1) == E.NONE
        assert stable(peer)[0] == held + 1
        assert mark(peer, other, -1) == E.INVALID_REQUEST
        assert mark(peer, other, other.epoch + 1) == E.NONE
        last_stable, end = stable(peer)
        assert last_stable == end


def test_h117_markers_for_more_partitions_than_a_request_may_name_are_refused(
    broker: Victim,
) -> None:
    topics = [WritableTxnMarkerTopic(name=TOPIC, partition_indexes=list(range(300)))]
    marker = WritableTxnMarker(producer_id=1, producer_epoch=0, topics=topics)
    with broker.peer() as peer:
        answer = peer.ask(WriteTxnMarkersRequest(markers=[marker] * 5), 1)
        codes = {
            part.error_code
            for one in answer.markers
            for topic in one.topics
            for part in topic.partitions
        }
        assert codes == {E.INVALID_REQUEST}
