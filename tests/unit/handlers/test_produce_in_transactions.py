"""Produce in transactions: when the coordinator is asked, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ottla.core.model import TopicPartition
from ottla.core.pending import Pending, Soon
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer
from ottla.testing.simnode import Call, SimConnection, SimNode
from tests.asking import batch, produce, produced

Results = dict[TopicPartition, ErrorCode]
E = ErrorCode


class Admission:
    """A coordinator that says what a test wants, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int, list[TopicPartition], bool]] = []
        self.error = E.NONE
        self.errors: Results = {}
        self.held: Pending[Results] | None = None
        self.holds = False

    def admit(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Sequence[TopicPartition],
        *,
        add: bool,
    ) -> Soon[Results]:
        self.asked.append((transactional_id, producer_id, producer_epoch, list(partitions), add))
        results = {one: self.errors.get(one, self.error) for one in partitions}
        if not self.holds:
            return results
        self.held = Pending()
        return self.held

    def stop(self) -> None:
        pass


@pytest.fixture
def admission() -> Admission:
    return Admission()


@pytest.fixture
def node(admission: Admission) -> SimNode:
    node = SimNode()
    node.create_topic("t", 3)
    node.context.transactions = admission
    return node


def of(sequence: int, *, pid: int = 7, epoch: int = 0) -> bytes:
    return batch(b"v", producer=Producer(pid, epoch, sequence), attributes=TRANSACTIONAL_BIT)


def ask(
    where: SimConnection, parts: dict[int, bytes], version: int = 11, *, name: str = "mine"
) -> Call:
    body = produce({("t", number): records for number, records in parts.items()})
    body.transactional_id = name
    return where.ask(body, version)


def codes(node: SimNode, parts: dict[int, bytes], version: int = 11) -> list[int]:
    call = ask(node.connect(), parts, version)
    node.settle()
    return [part.error_code for part in call.answer.responses[0].partition_responses]


def end(node: SimNode, *, epoch: int = 0, commit: bool = True) -> int:
    topic = WritableTxnMarkerTopic(name="t", partition_indexes=[0])
    marker = WritableTxnMarker(
        producer_id=7, producer_epoch=epoch, transaction_result=commit, topics=[topic]
    )
    call = node.connect().ask(WriteTxnMarkersRequest(markers=[marker]), 1)
    node.settle()
    ((result,),) = (one.partitions for one in call.answer.markers[0].topics)
    return int(result.error_code)


@pytest.mark.parametrize(("version", "adds"), [(3, False), (11, False), (12, True)])
def test_the_first_batch_of_a_transaction_has_the_coordinator_asked_and_the_next_not(
    node, admission, version, adds
):
    assert codes(node, {0: of(0), 2: of(0)}, version) == [E.NONE, E.NONE]
    places = [TopicPartition("t", 0), TopicPartition("t", 2)]
    assert admission.asked == [("mine", 7, 0, places, adds)]
    assert codes(node, {0: of(1), 1: of(0)}, version) == [E.NONE, E.NONE]
    assert admission.asked[1:] == [("mine", 7, 0, [TopicPartition("t", 1)], adds)]


@pytest.mark.parametrize("version", [9, 12])
@pytest.mark.parametrize("partitions", [[0], [0, 1], [0, 1, 2]])
def test_of_an_epoch_that_its_partition_knows_to_be_over_the_coordinator_is_not_asked(
    node, admission, version, partitions
):
    assert end(node, epoch=3) == E.NONE
    call = ask(node.connect(), {number: of(0) for number in partitions}, version)
    node.settle()
    told = {one.index: one for one in call.answer.responses[0].partition_responses}
    assert (told[0].error_code, told[0].log_start_offset) == (E.INVALID_PRODUCER_EPOCH, -1)
    others = [TopicPartition("t", number) for number in partitions[1:]]
    assert [one[3] for one in admission.asked] == ([others] if others else [])
    assert {told[number].error_code for number in partitions[1:]} <= {E.NONE}


def test_what_the_coordinator_refuses_is_refused_alone(node, admission):
    admission.errors = {TopicPartition("t", 1): E.INVALID_TXN_STATE}
    assert codes(node, {0: of(0), 1: of(0)}) == [E.NONE, E.INVALID_TXN_STATE]
    assert node.partition("t", 1).log.end == 0


@pytest.mark.parametrize(
    ("said", "version", "told"),
    [
        (E.PRODUCER_FENCED, 3, E.INVALID_PRODUCER_EPOCH),
        (E.PRODUCER_FENCED, 12, E.INVALID_PRODUCER_EPOCH),
        (E.TRANSACTION_ABORTABLE, 10, E.INVALID_TXN_STATE),
        (E.TRANSACTION_ABORTABLE, 11, E.TRANSACTION_ABORTABLE),
        (E.CONCURRENT_TRANSACTIONS, 11, E.NOT_ENOUGH_REPLICAS),
        (E.CONCURRENT_TRANSACTIONS, 12, E.CONCURRENT_TRANSACTIONS),
        (E.NOT_COORDINATOR, 12, E.NOT_ENOUGH_REPLICAS),
        (E.COORDINATOR_NOT_AVAILABLE, 12, E.NOT_ENOUGH_REPLICAS),
        (E.COORDINATOR_LOAD_IN_PROGRESS, 3, E.NOT_ENOUGH_REPLICAS),
        (E.INVALID_PRODUCER_ID_MAPPING, 3, E.INVALID_PRODUCER_ID_MAPPING),
    ],
)
def test_a_coordinators_error_is_told_in_codes_of_the_producers_version(
    node, admission, said, version, told
):
    admission.error = said
    assert codes(node, {0: of(0)}, version) == [told]
    assert node.partition("t").log.end == 0


def test_a_marker_that_comes_while_the_coordinator_is_asked_makes_its_answer_worthless(
    node, admission
):  # I41
    assert codes(node, {0: of(0)}) == [E.NONE]
    assert end(node, commit=False) == E.NONE
    admission.holds = True
    call = ask(node.connect(), {0: of(1)})
    node.settle()
    assert not call.done
    assert end(node, commit=False) == E.NONE
    assert admission.held is not None
    admission.held.complete({TopicPartition("t", 0): E.NONE})
    node.settle()
    assert produced(call).error_code == E.INVALID_TXN_STATE
    assert node.partition("t").last_stable == node.partition("t").high_watermark == 3


@pytest.mark.parametrize("version", [11, 12])
@pytest.mark.parametrize("said", [E.NONE, E.CONCURRENT_TRANSACTIONS, None])
def test_the_coordinator_is_asked_once_for_a_batch(node, admission, version, said):
    """Also where the log's files are still to be made, or where it takes time to answer."""
    admission.holds, admission.error = said is None, said or E.NONE
    body = produce({("t", 0): of(0)}, acks=1)
    body.transactional_id = "mine"
    call = node.connect().ask(body, version)
    if said is None:
        node.settle()
        assert admission.held is not None
        admission.held.complete({TopicPartition("t", 0): E.NONE})
    node.settle()
    assert (produced(call).error_code == E.NONE) is (said is not E.CONCURRENT_TRANSACTIONS)
    assert len(admission.asked) == 1


def test_later_requests_of_the_connection_wait_until_the_coordinator_has_answered(node, admission):
    admission.holds = True
    connection = node.connect()
    first, second = ask(connection, {0: of(0)}), ask(connection, {0: of(1)})
    node.settle()
    assert node.partition("t").log.end == 0
    assert admission.held is not None
    admission.holds = False
    admission.held.complete({TopicPartition("t", 0): E.NONE})
    node.settle()
    assert [produced(one).base_offset for one in (first, second)] == [0, 1]
    assert len(admission.asked) == 1


def test_a_coordinator_that_does_not_answer_in_time_is_tried_again_by_the_client(node, admission):
    admission.holds = True
    call = ask(node.connect(), {0: of(0)})
    node.settle()
    node.advance(31.0)
    assert produced(call).error_code == E.NOT_ENOUGH_REPLICAS
    assert "NETWORK_EXCEPTION" in produced(call).error_message


def test_a_request_of_two_producers_is_refused_whole(node, admission):
    mapping = E.INVALID_PRODUCER_ID_MAPPING
    assert codes(node, {0: of(0), 1: of(0, pid=8)}) == [mapping, mapping]
    assert admission.asked == []


def test_a_plain_batch_asks_nobody(node, admission):
    assert codes(node, {0: batch(b"v"), 1: batch(b"v", producer=Producer(7, 0, 0))}) == [0, 0]
    assert admission.asked == []


# --- markers


def test_a_marker_is_answered_when_it_is_on_the_disk(node, admission):
    assert codes(node, {0: of(0)}) == [E.NONE]
    assert end(node) == E.NONE
    assert node.partition("t").last_stable == 2


def test_a_marker_of_an_old_epoch_or_for_an_unknown_partition_is_refused(node, admission):
    assert codes(node, {0: of(0, epoch=3)}) == [E.NONE]
    assert end(node, epoch=2) == E.INVALID_PRODUCER_EPOCH
    topic = WritableTxnMarkerTopic(name="t", partition_indexes=[7, 7])
    marker = WritableTxnMarker(producer_id=7, producer_epoch=3, topics=[topic])
    call = node.connect().ask(WriteTxnMarkersRequest(markers=[marker]), 2)
    node.settle()
    [told] = call.answer.markers[0].topics[0].partitions
    assert (told.partition_index, told.error_code) == (7, E.UNKNOWN_TOPIC_OR_PARTITION)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (E.INVALID_PRODUCER_ID_MAPPING, 0),
        (E.PRODUCER_FENCED, 0),
        (E.INVALID_REQUEST, 0),
        (E.CONCURRENT_TRANSACTIONS, 1),
        (E.TRANSACTION_ABORTABLE, 1),
        (E.NOT_COORDINATOR, 1),
    ],
)
def test_a_producer_that_was_refused_for_good_is_not_remembered(node, admission, error, kept):
    """One that may yet be let in is: what comes behind its batch must not overtake it (I41)."""
    admission.error = error
    codes(node, {0: of(0)})
    producers = node.context.table.get("t", 0).log.producers
    assert len(producers._verifying) == kept


def test_a_request_of_two_producers_has_none_of_them_remembered(node):
    assert codes(node, {0: of(0), 1: of(0, pid=8)}) == [E.INVALID_PRODUCER_ID_MAPPING] * 2
    for number in range(2):
        assert not node.context.table.get("t", number).log.producers._verifying
