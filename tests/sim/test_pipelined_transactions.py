"""A producer that does not wait for answers: what it sends takes effect in the order it was sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
)
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest
from tests.sim.test_committed_offsets import ask
from tests.sim.test_offsets_in_transactions import Producing, error_of


def _partitions(one: Producing, *names: str) -> AddPartitionsToTxnRequest:
    return AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=one.own["transactional_id"],
        v3_and_below_producer_id=one.own["producer_id"],
        v3_and_below_producer_epoch=one.own["producer_epoch"],
        v3_and_below_topics=[AddPartitionsToTxnTopic(name=name, partitions=[0]) for name in names],
    )


BEGINS: dict[str, Callable[[Producing], Any]] = {
    "AddPartitionsToTxn": lambda one: _partitions(one, "t"),
    "AddPartitionsToTxn of two topics": lambda one: _partitions(one, "t", "u"),
    "AddOffsetsToTxn": lambda one: AddOffsetsToTxnRequest(group_id="h", **one.own),
}


def _errors(answer: Any) -> set[int]:
    if hasattr(answer, "error_code") and not hasattr(answer, "results_by_topic_v3_and_below"):
        return {answer.error_code}
    return {
        part.partition_error_code
        for topic in answer.results_by_topic_v3_and_below
        for part in topic.results_by_partition
    }


@pytest.mark.parametrize("name", BEGINS)
def test_i39_an_end_sent_behind_what_begins_the_transaction_ends_that_one(name: str) -> None:
    """The end is sent one step later each time, while the transaction before it is being ended."""
    for steps in range(30):
        one = Producing(steps, flush_policy="commit")
        one.node.create_topic("u", 1)
        one.add_offsets()
        client = one.node.connect()
        before = client.ask(one.end(), 1)
        begins = client.ask(BEGINS[name](one), 3)
        one.node.steps(steps)
        ends = client.ask(one.end(), 1)
        one.node.settle()
        one.node.advance(1)
        request = DescribeTransactionsRequest(transactional_ids=["x"])
        [described] = ask(one.node, request, 0).transaction_states
        assert before.answer.error_code == 0
        assert _errors(begins.answer) == {0}
        if ends.answer.error_code == 0:
            assert described.transaction_state == "CompleteCommit", f"seed {steps}"
        else:
            assert ends.answer.error_code == 51
            assert described.transaction_state == "Ongoing", f"seed {steps}"


@pytest.mark.parametrize("version", [4, 5])
def test_i39_an_end_sent_behind_offsets_commits_them(version: int) -> None:
    """The old producer has told of the group before; the new one begins a transaction so, and
    while the one before it is being ended."""
    for steps in range(30):
        one = Producing(steps, flush_policy="commit")
        client = one.node.connect()
        if version == 5:
            assert error_of(ask(one.node, one.commit(4), 5)) == 0
            before = client.ask(one.end(), 5)
            while not before.done:
                one.node.step()
            one.own["producer_epoch"] += 1
        else:
            one.add_offsets()
        commits = client.ask(one.commit(5), version)
        one.node.steps(steps)
        ends = client.ask(one.end(), 5 if version == 5 else 1)
        one.node.settle()
        one.node.advance(1)
        assert (error_of(commits.answer), ends.answer.error_code) == (0, 0), f"seed {steps}"
        assert one.told() == (5, 0), f"seed {steps}"


@pytest.mark.parametrize("committed", [True, False])
def test_offsets_that_begin_the_next_transaction_wait_for_the_marker_of_the_last(
    committed: bool,
) -> None:
    """The first abort of a segment has an index made before its marker is written."""
    for policy in ("os", "commit"):
        for seed in range(10):
            one = Producing(seed, flush_policy=policy)
            assert error_of(ask(one.node, one.commit(4), 5)) == 0
            client = one.node.connect()
            ended = client.ask(one.end(committed=committed), 5)
            while not ended.done:
                one.node.step()
            one.own["producer_epoch"] += 1
            again = client.ask(one.commit(5), 5)
            one.node.settle()
            one.node.advance(1)
            assert error_of(again.answer) == 0, f"{policy}, seed {seed}"
