"""Transactions that are open in partitions, and who began them: asked of leaders and coordinators.

Owns the questions of KIP-664 and what they tell together. Must not print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ottla.cli.asking import Brokers, said
from ottla.cli.errors import CommandError
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    TopicRequest,
)
from ottla.protocol.messages.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TransactionState,
)
from ottla.protocol.messages.list_transactions import (
    ListTransactionsRequest,
    ListTransactionsResponse,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ottla.cli.asking import Address

_LIST, _LIST_BY_AGE = 0, 1
_OPEN = frozenset({"Ongoing", "PrepareCommit", "PrepareAbort"})
"""The states in which there is a transaction that can have been open for so long."""


class Listed(NamedTuple):
    """A transactional id as its coordinator lists it."""

    transactional_id: str
    producer_id: int
    state: str


class Open(NamedTuple):
    """A transaction that has no marker in a partition yet.

    `transactional_id` and `started_ms` are None where no coordinator knows of a transaction that
    has the partition: then it hangs, and nobody will end it. `last_ms` is the time of its last
    batch there.
    """

    topic: str
    partition: int
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    first_offset: int
    last_ms: int
    transactional_id: str | None
    started_ms: int | None


def listed(
    brokers: Brokers,
    *,
    states: Sequence[str] = (),
    producer_ids: Sequence[int] = (),
    older_ms: int = -1,
) -> list[Listed]:
    """Of every coordinator, what passes every filter; in order. Raises CommandError.

    With `older_ms` only what is open: brokers count the age of ids that have nothing open too,
    from when their last one began, and of those that never had one as if it were endless.
    """
    request = ListTransactionsRequest(
        state_filters=list(states), producer_id_filters=list(producer_ids), duration_filter=older_ms
    )
    version = _LIST if older_ms < 0 else _LIST_BY_AGE
    found: list[Listed] = []
    for place in brokers.all():
        answer = brokers.ask(request, version, ListTransactionsResponse, place)
        if answer.error_code:
            raise CommandError(f"transactions can't be listed: {said(answer.error_code)}")
        found += [
            Listed(one.transactional_id, one.producer_id, one.transaction_state)
            for one in answer.transaction_states
            if older_ms < 0 or one.transaction_state in _OPEN
        ]
    return sorted(found)


def described(brokers: Brokers, transactional_id: str) -> TransactionState | ErrorCode:
    """What its coordinator tells of a transactional id, or that it doesn't know of it."""
    place = brokers.coordinator(transactional_id)
    request = DescribeTransactionsRequest(transactional_ids=[transactional_id])
    (found,) = brokers.ask(request, 0, DescribeTransactionsResponse, place).transaction_states
    if found.error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND:
        return ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    if found.error_code:
        raise CommandError(f"{transactional_id!r} can't be described: {said(found.error_code)}")
    return found


def open_in(brokers: Brokers, topic: str, numbers: Sequence[int]) -> list[Open]:
    """All that is open in these partitions, what began first at first. Raises CommandError."""
    by_leader: dict[Address, list[int]] = {}
    leaders = brokers.leaders(topic)
    for number in numbers:
        leader = leaders.get(number)
        if leader is None:
            raise CommandError(f"{topic}-{number} has no leader now; try again")
        by_leader.setdefault(leader, []).append(number)
    found: list[Open] = []
    for leader, mine in by_leader.items():
        request = DescribeProducersRequest(
            topics=[TopicRequest(name=topic, partition_indexes=mine)]
        )
        (told,) = brokers.ask(request, 0, DescribeProducersResponse, leader).topics
        for part in told.partitions:
            if part.error_code:
                raise CommandError(
                    f"{topic}-{part.partition_index} doesn't tell its producers: "
                    f"{said(part.error_code)}"
                )
            found += [
                Open(
                    topic,
                    part.partition_index,
                    one.producer_id,
                    one.producer_epoch,
                    one.coordinator_epoch,
                    one.current_txn_start_offset,
                    one.last_timestamp,
                    None,
                    None,
                )
                for one in part.active_producers
                if one.current_txn_start_offset >= 0
            ]
    return _named(brokers, sorted(found, key=lambda one: (one.partition, one.first_offset)))


def _named(brokers: Brokers, found: list[Open]) -> list[Open]:
    """Each with its transactional id, where a coordinator has such a transaction."""
    if not found:
        return found
    owners: dict[tuple[int, str, int], TransactionState] = {}
    for one in listed(brokers, producer_ids=sorted({each.producer_id for each in found})):
        told = described(brokers, one.transactional_id)
        if not isinstance(told, ErrorCode):
            for topic in told.topics:
                for number in topic.partitions:
                    owners[one.producer_id, topic.topic, number] = told
    return [_with_owner(each, owners) for each in found]


def _with_owner(each: Open, owners: dict[tuple[int, str, int], TransactionState]) -> Open:
    owner = owners.get((each.producer_id, each.topic, each.partition))
    if owner is None:
        return each
    return each._replace(
        transactional_id=owner.transactional_id, started_ms=owner.transaction_start_time_ms
    )
