"""InitProducerId. Expectations are what Apache Kafka 4.3.1 answers."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ottla.cluster.store import StoreError
from ottla.coordinator.transaction.coordinator import Transactions
from ottla.coordinator.transaction.ending import Identity
from ottla.core.model import ProducerId
from ottla.core.pending import Pending, completed
from ottla.handlers.reply import Parked
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from tests.unit.handlers.node import FakeNode

VERSIONS = range(6)
LOADING = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


def asking(transactional_id: str | None = None, **more: Any) -> InitProducerIdRequest:
    more.setdefault("transaction_timeout_ms", 60_000)
    return InitProducerIdRequest(transactional_id=transactional_id, **more)


@pytest.fixture
def node() -> FakeNode:
    node = FakeNode()
    node.producer_ids = [completed(ProducerId(4000))]
    return node


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gets_a_new_id_with_epoch_zero(node: FakeNode, version: int) -> None:
    answer = node.ask(asking(), version)
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, 4000, 0)


@pytest.mark.parametrize("timeout_ms", [0, -5, 2**31 - 1])
def test_the_timeout_means_nothing_without_a_transactional_id(
    node: FakeNode, timeout_ms: int
) -> None:
    answer = node.ask(asking(transaction_timeout_ms=timeout_ms), 4)
    assert (answer.error_code, answer.producer_id) == (0, 4000)


@pytest.mark.parametrize(("producer_id", "epoch"), [(1, 0), (100_000, 3), (1, 32_767), (-7, -7)])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_an_idempotent_producer_gets_a_new_id_whatever_it_had(
    node: FakeNode, version: int, producer_id: int, epoch: int
) -> None:
    answer = node.ask(asking(producer_id=producer_id, producer_epoch=epoch), version)
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, 4000, 0)


@pytest.mark.parametrize(("producer_id", "epoch"), [(5, -1), (-1, 5)])
@pytest.mark.parametrize("transactional_id", [None, "x"])
def test_h112_half_of_a_pair_is_an_invalid_request(
    node: FakeNode, transactional_id: str | None, producer_id: int, epoch: int
) -> None:
    request = asking(transactional_id, producer_id=producer_id, producer_epoch=epoch)
    answer = node.ask(request, 4)
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert (answer.producer_id, answer.producer_epoch) == (-1, -1)


@pytest.mark.parametrize("version", VERSIONS)
def test_h112_an_empty_transactional_id_is_an_invalid_request(node: FakeNode, version: int) -> None:
    assert node.ask(asking(""), version).error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001, 10**9])
def test_h112_a_transaction_timeout_out_of_bounds_is_refused(
    node: FakeNode, timeout_ms: int
) -> None:
    answer = node.ask(asking("x", transaction_timeout_ms=timeout_ms), 4)
    assert answer.error_code == ErrorCode.INVALID_TRANSACTION_TIMEOUT


class FakeTransactions:
    """A coordinator that answers what the test says, and remembers what it was asked."""

    def __init__(self, told: Identity | ErrorCode) -> None:
        self.told = told
        self.asked: list[tuple[str, int, Identity | None]] = []

    def init_producer_id(
        self, name: str, timeout_ms: int, expected: Identity | None
    ) -> Pending[Identity | ErrorCode]:
        self.asked.append((name, timeout_ms, expected))
        return completed(self.told)


def coordinated(told: Identity | ErrorCode, **options: str) -> tuple[FakeNode, FakeTransactions]:
    node, transactions = FakeNode(**options), FakeTransactions(told)
    node.context.transactions = cast(Transactions, transactions)
    return node, transactions


def test_how_long_a_transaction_may_ask_for_is_an_option() -> None:
    node, _ = coordinated(Identity(7, 3), transaction_max_timeout_ms="5000")
    answers = [node.ask(asking("x", transaction_timeout_ms=ms), 4) for ms in (5000, 5001)]
    assert [answer.error_code for answer in answers] == [
        ErrorCode.NONE,
        ErrorCode.INVALID_TRANSACTION_TIMEOUT,
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_transactional_producer_gets_what_its_coordinator_says(version: int) -> None:
    node, transactions = coordinated(Identity(7, 3))
    answer = node.ask(asking("x", transaction_timeout_ms=5000), version)
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, 7, 3)
    assert transactions.asked == [("x", 5000, None)]


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_producer_that_says_what_it_had_is_taken_at_its_word_by_the_coordinator(
    version: int,
) -> None:
    node, transactions = coordinated(Identity(7, 3))
    node.ask(asking("x", producer_id=7, producer_epoch=2), version)
    assert transactions.asked == [("x", 60_000, Identity(7, 2))]


@pytest.mark.parametrize("version", VERSIONS)
def test_h113_a_fenced_producer_is_told_in_a_code_that_it_knows(version: int) -> None:
    node, _ = coordinated(ErrorCode.PRODUCER_FENCED)
    answer = node.ask(asking("x"), version)
    known = ErrorCode.PRODUCER_FENCED if version >= 4 else ErrorCode.INVALID_PRODUCER_EPOCH
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (known, -1, -1)


def test_a_transactional_id_that_is_too_long_is_an_invalid_request() -> None:
    node, _ = coordinated(Identity(7, 3), transactional_id_length_max="5")
    answers = [node.ask(asking("x" * length), 4) for length in (5, 6)]
    assert [answer.error_code for answer in answers] == [0, ErrorCode.INVALID_REQUEST]


def test_too_many_transactional_ids_are_noted() -> None:
    node, _ = coordinated(ErrorCode.POLICY_VIOLATION)
    assert node.ask(asking("x"), 4).error_code == ErrorCode.POLICY_VIOLATION
    assert node.context.complaints.counts["transactions.max"] == 1


def test_an_id_that_has_to_be_waited_for_comes_when_it_is_there() -> None:
    node, pending = FakeNode(), Pending[ProducerId]()
    node.producer_ids = [pending]
    parked = node.ask(asking(), 4)
    assert isinstance(parked, Parked)
    pending.complete(ProducerId(5000))
    assert node.as_sent(parked.resume(), 22, 4).producer_id == 5000


def test_where_no_block_of_ids_can_be_had_the_client_is_to_try_again() -> None:
    node, late, failed = FakeNode(), Pending[ProducerId](), Pending[ProducerId]()
    failed.fail(StoreError("no"))
    node.producer_ids = [late, failed]
    parked = node.ask(asking(), 4)
    assert isinstance(parked, Parked)
    assert node.as_sent(parked.resume(), 22, 4).error_code == LOADING
    assert node.ask(asking(), 4).error_code == LOADING
