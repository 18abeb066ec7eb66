"""AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, DescribeTransactions, ListTransactions on a node.

Expectations are what Apache Kafka 4.3.1 answers; field by field: tests/oracle.
"""

from __future__ import annotations

from typing import Any

import pytest

from ottla.handlers import list_transactions, listing
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_transactions import ListTransactionsRequest
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.testing.simnode import SimNode
from tests.asking import ask


@pytest.fixture
def node() -> SimNode:
    node = SimNode(7, transaction_state_log_num_partitions="3", request_partitions_max="20")
    node.create_topic("t", 3)
    return node


def begun(node: SimNode, name: str) -> int:
    answer = ask(
        node, InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000), 5
    )
    assert (answer.error_code, answer.producer_epoch) == (0, 0)
    return int(answer.producer_id)


def transaction(
    name: str, producer_id: int, *numbers: int, topic: str = "t", **more: Any
) -> AddPartitionsToTxnTransaction:
    topics = [AddPartitionsToTxnTopic(name=topic, partitions=list(numbers))]
    return AddPartitionsToTxnTransaction(
        transactional_id=name, producer_id=producer_id, topics=topics, **more
    )


def told(answer: Any) -> dict[str, list[int]]:
    """The codes of each transaction's partitions."""
    return {
        one.transactional_id: [
            part.partition_error_code
            for topic in one.topic_results
            for part in topic.results_by_partition
        ]
        for one in answer.results_by_transaction
    }


def states(answer: Any) -> dict[str, str]:
    return {one.transactional_id: one.transaction_state for one in answer.transaction_states}


def test_each_transaction_of_a_request_has_an_answer_of_its_own(node: SimNode) -> None:
    ids = [begun(node, name) for name in "abc"]
    asked = [
        transaction("a", ids[0], 0, 1),
        transaction("b", ids[1], 0, 7),
        transaction("c", ids[0], 2),
        transaction("a", ids[0], 0, 2, verify_only=True),
    ]
    answer = ask(node, AddPartitionsToTxnRequest(transactions=asked), 5)
    codes = [
        [part.partition_error_code for part in one.topic_results[0].results_by_partition]
        for one in answer.results_by_transaction
    ]
    assert codes == [
        [0, 0],
        [ErrorCode.OPERATION_NOT_ATTEMPTED, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
        [ErrorCode.INVALID_PRODUCER_ID_MAPPING],
        [0, ErrorCode.TRANSACTION_ABORTABLE],
    ]


@pytest.mark.parametrize("version", range(4))
def test_one_transaction_is_answered_by_topic_however_many_topics_it_names(
    node: SimNode, version: int
) -> None:
    node.create_topic("u", 2)
    producer_id = begun(node, "a")
    asked: list[dict[str, list[int]]] = [
        {"t": [0]},
        {"t": [1, 0]},
        {"t": []},
        {"t": [0], "u": [0, 1]},
        {},
    ]
    for named in asked:
        topics = [AddPartitionsToTxnTopic(name=name, partitions=of) for name, of in named.items()]
        for id_, code in (
            (producer_id, 0),
            (producer_id + 1, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        ):
            request = AddPartitionsToTxnRequest(
                v3_and_below_transactional_id="a",
                v3_and_below_producer_id=id_,
                v3_and_below_producer_epoch=0,
                v3_and_below_topics=topics,
            )
            answer = ask(node, request, version)
            assert {
                topic.name: [
                    (part.partition_index, part.partition_error_code)
                    for part in topic.results_by_partition
                ]
                for topic in answer.results_by_topic_v3_and_below
            } == {name: [(number, code) for number in of] for name, of in named.items()}


@pytest.mark.parametrize("version", range(4))
@pytest.mark.parametrize("beside", [False, True])
def test_a_client_adds_no_partition_of_an_internal_topic(
    node: SimNode, version: int, beside: bool
) -> None:
    request = AddPartitionsToTxnRequest(
        v3_and_below_transactional_id="a",
        v3_and_below_producer_id=begun(node, "a"),
        v3_and_below_topics=[AddPartitionsToTxnTopic(name="__transaction_state", partitions=[0])],
    )
    if beside:
        request.v3_and_below_topics.append(AddPartitionsToTxnTopic(name="t", partitions=[0, 7]))
    told = {
        (topic.name, part.partition_index): part.partition_error_code
        for topic in ask(node, request, version).results_by_topic_v3_and_below
        for part in topic.results_by_partition
    }
    refused = {("__transaction_state", 0): ErrorCode.TOPIC_AUTHORIZATION_FAILED}
    if beside:
        refused[("t", 0)] = ErrorCode.OPERATION_NOT_ATTEMPTED
        refused[("t", 7)] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert told == refused
    asked = ask(node, DescribeTransactionsRequest(transactional_ids=["a"]), 0)
    assert asked.transaction_states[0].transaction_state == "Empty"


@pytest.mark.parametrize("version", range(4))
def test_the_next_transaction_of_an_old_client_waits_for_the_markers_of_the_one_before(
    node: SimNode, version: int
) -> None:
    producer_id = begun(node, "a")
    add = AddPartitionsToTxnRequest(
        v3_and_below_transactional_id="a",
        v3_and_below_producer_id=producer_id,
        v3_and_below_topics=[AddPartitionsToTxnTopic(name="t", partitions=[0, 1])],
    )
    end = EndTxnRequest(transactional_id="a", producer_id=producer_id, committed=True)
    connections = node.connect(), node.connect()
    added = connections[0].ask(add, version)
    for _ in range(3):
        node.settle()
        ended = connections[0].ask(end, version)
        added = connections[1].ask(add, version)
        assert not added.done
        assert node.answer(ended).error_code == 0
        [topic] = node.answer(added).results_by_topic_v3_and_below
        assert [one.partition_error_code for one in topic.results_by_partition] == [0, 0]
    shard = node.context.transactions.runtime.settled("a")
    assert shard is not None
    assert shard.transactions["a"].state.title == "Ongoing"


@pytest.mark.parametrize("count", [20, 21])
def test_h28_so_many_partitions_and_no_more(node: SimNode, count: int) -> None:
    one = transaction("a", begun(node, "a"), *([0] * (count - 1)))
    codes = told(ask(node, AddPartitionsToTxnRequest(transactions=[one]), 5))["a"]
    assert set(codes) == {0 if count == 20 else ErrorCode.INVALID_REQUEST}


@pytest.mark.parametrize("version", range(5))
def test_adding_offsets_makes_their_topic_where_it_is_not_there(
    node: SimNode, version: int
) -> None:
    producer_id = begun(node, "a")
    assert "__consumer_offsets" not in node.view.image.topics
    request = AddOffsetsToTxnRequest(
        transactional_id="a", producer_id=producer_id, producer_epoch=0, group_id="g"
    )
    assert ask(node, request, version).error_code == 0
    answer = ask(node, DescribeTransactionsRequest(transactional_ids=["a"]), 0)
    (topic,) = answer.transaction_states[0].topics
    assert topic.topic == "__consumer_offsets"
    assert topic.partitions == [node.context.groups.partition_for("g")]


@pytest.mark.parametrize("version", range(6))
def test_h113_a_zombie_is_told_in_a_code_that_it_knows(node: SimNode, version: int) -> None:
    request = EndTxnRequest(
        transactional_id="a", producer_id=begun(node, "a"), producer_epoch=5, committed=True
    )
    known = ErrorCode.INVALID_PRODUCER_EPOCH if version < 2 else ErrorCode.PRODUCER_FENCED
    answer = ask(node, request, version)
    assert answer.error_code == known
    assert (answer.producer_id, answer.producer_epoch) == (-1, -1)


def test_transactions_are_listed_across_all_shards(node: SimNode) -> None:
    ids = {name: begun(node, name) for name in ("a", "b", "c", "d")}
    one = transaction("b", ids["b"], 0)
    ask(node, AddPartitionsToTxnRequest(transactions=[one]), 5)
    assert states(ask(node, ListTransactionsRequest(), 2)) == {
        "a": "Empty",
        "b": "Ongoing",
        "c": "Empty",
        "d": "Empty",
    }
    only = ask(node, ListTransactionsRequest(state_filters=["Ongoing", "Asleep"]), 2)
    assert states(only) == {"b": "Ongoing"}
    assert only.unknown_state_filters == ["Asleep"]


def test_nothing_is_listed_where_nobody_ever_asked_for_a_transaction(node: SimNode) -> None:
    answer = ask(node, ListTransactionsRequest(), 2)
    assert (answer.error_code, answer.transaction_states) == (0, [])
    assert "__transaction_state" not in node.view.image.topics


def counted_turns(node: SimNode, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each turn of the loop that somebody asks for from now on."""
    turns: list[None] = []
    soon = node.loop.soon
    monkeypatch.setattr(node.loop, "soon", lambda call: (turns.append(None), soon(call))[1])
    return turns


@pytest.mark.parametrize("version", [0, 2])
def test_many_transactions_are_listed_a_slice_at_a_time_with_the_same_answer(
    node: SimNode, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    for number in range(20):
        begun(node, f"job-{number}")
    body = ListTransactionsRequest(state_filters=["Empty", "Asleep"])
    at_once = ask(node, body, version)
    monkeypatch.setattr(listing, "SLICE_COUNT", 3)
    turns = counted_turns(node, monkeypatch)
    assert ask(node, body, version) == at_once
    assert len(at_once.transaction_states) == 20
    assert len(turns) >= 6


def test_an_id_that_goes_while_a_list_is_made_is_not_told_nor_waited_for(
    node: SimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        begun(node, f"job-{number}")
    monkeypatch.setattr(listing, "SLICE_COUNT", 1)
    connection = node.connect()
    call = connection.ask(ListTransactionsRequest(), 2)
    assert not call.done
    for shard in node.context.transactions.runtime.loaded_shards():
        shard.transactions.clear()
    assert len(node.answer(call).transaction_states) <= 1
    connection.close()


def test_h110_a_pattern_is_matched_a_slice_at_a_time(
    node: SimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        begun(node, f"job-{number}")
    monkeypatch.setattr(list_transactions, "SLICE_STEPS", 12)
    turns = counted_turns(node, monkeypatch)
    answer = ask(node, ListTransactionsRequest(transactional_id_pattern="job-[2-5]"), 2)
    assert sorted(states(answer)) == ["job-2", "job-3", "job-4", "job-5"]
    assert len(turns) >= 4


def test_a_client_that_goes_while_a_pattern_is_matched_leaves_nothing_behind(
    node: SimNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        begun(node, f"job-{number}")
    monkeypatch.setattr(list_transactions, "SLICE_STEPS", 1)
    connection = node.connect()
    connection.ask(ListTransactionsRequest(transactional_id_pattern="job.*"), 2)
    connection.close()
    node.settle()
    assert states(ask(node, ListTransactionsRequest(), 2)).keys() == {
        f"job-{number}" for number in range(9)
    }


def test_once_the_topic_of_transactions_is_deleted_nothing_is_known(node: SimNode) -> None:
    producer_id = begun(node, "a")
    node.delete_topic("__transaction_state")
    node.settle()
    request = EndTxnRequest(
        transactional_id="a", producer_id=producer_id, producer_epoch=0, committed=True
    )
    assert ask(node, request, 5).error_code == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert begun(node, "a") > producer_id


def test_a_state_that_is_unknown_is_named_once(node):
    begun(node, "x")
    answer = ask(node, ListTransactionsRequest(state_filters=["b", "a", "b", "Empty"]), 2)
    assert answer.unknown_state_filters == ["b", "a"]
    assert [one.transactional_id for one in answer.transaction_states] == ["x"]


def test_what_is_only_verified_tells_nothing_of_topics_without_partitions(node):
    one = transaction("x", begun(node, "x"), verify_only=True)
    answer = ask(node, AddPartitionsToTxnRequest(transactions=[one]), 5)
    assert [one.topic_results for one in answer.results_by_transaction] == [[]]


@pytest.mark.parametrize(
    "wrong", [{"producer_id": -1}, {"producer_epoch": -1}, {"transaction_version": -1}]
)
def test_h117_a_marker_that_nobody_can_have_written_is_refused(node, wrong: dict[str, int]):
    topics = [WritableTxnMarkerTopic(name="t", partition_indexes=[0])]
    given = {"producer_id": 7, "producer_epoch": 0} | wrong
    marker = WritableTxnMarker(topics=topics, **given)
    answer = ask(node, WriteTxnMarkersRequest(markers=[marker]), 2)
    assert answer.markers[0].topics[0].partitions[0].error_code == ErrorCode.INVALID_REQUEST
    assert node.partition("t").log.end == 0
