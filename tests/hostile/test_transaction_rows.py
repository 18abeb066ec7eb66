"""Rows of the hostile table about transactional producers, through a broker on a real socket.

What is expected is the table's column "Ours". After each row the next well-formed connection works,
and the broker's memory and open files are back. Batches and markers: test_marker_rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ottla.coordinator.entries.transaction_log import (
    TransactionLogValue,
    decode_entry,
    encode_entry,
)
from ottla.core.model import Offset
from ottla.protocol.errors import ErrorCode as E
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
)
from ottla.protocol.messages.describe_transactions import DescribeTransactionsRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_transactions import ListTransactionsRequest
from ottla.records.batch import BatchView
from ottla.records.builder import build_batch
from ottla.records.reader import Record, pairs_of, read_batches
from tests.hostile.conftest import Start
from tests.hostile.wire import WELL, Peer, Victim, fetch, fetched
from tests.processes import Broker, wait_until

CLASSIC, BUMPING = 3, 5
WIDE = 300
LAST_EPOCH = (1 << 15) - 2
"""The last one that a producer is given; the one above is kept, to fence it with."""
NOT_YET = (E.COORDINATOR_LOAD_IN_PROGRESS, E.COORDINATOR_NOT_AVAILABLE, E.CONCURRENT_TRANSACTIONS)


@pytest.fixture(scope="module")
def broker(start: Start) -> Victim:
    victim = start(
        "request.partitions.max=1000",
        "transaction.state.log.num.partitions=1",
        "transaction.partitions.max=200",
        "transactional.ids.max=100",
        "transactional.id.length.max=200",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms=100",
    )
    # Its records are older than markers, for which their segment would be rolled.
    victim.create("wide", WIDE, segment_ms=2**60)
    with victim.peer() as peer:
        who = began(peer, "warm")  # which makes the coordinator's own topic
        add(peer, who)
        end(peer, who)
        ask(peer, AddOffsetsToTxnRequest(group_id="g", **who.fields()), 3)
        end(peer, who)
    victim.remember()
    return victim


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "broker" in request.fixturenames:
        request.getfixturevalue("broker").unharmed()


class Began(NamedTuple):
    """A producer with a transactional id."""

    name: str
    id: int
    epoch: int

    def fields(self) -> dict[str, Any]:
        return {
            "transactional_id": self.name,
            "producer_id": self.id,
            "producer_epoch": self.epoch,
        }


def ask(peer: Peer, message: Any, version: int) -> Any:
    """The answer, once it is more than "not yet"."""
    found: list[Any] = []

    def answered() -> bool:
        found[:] = [peer.ask(message, version)]
        return found[0].error_code not in NOT_YET

    wait_until(answered, f"an answer to {type(message).__name__}")
    return found[0]


def init(name: str | None, timeout_ms: int = 60_000, **more: int) -> InitProducerIdRequest:
    return InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=timeout_ms, **more)


def began(peer: Peer, name: str, timeout_ms: int = 60_000) -> Began:
    answer = ask(peer, init(name, timeout_ms), 5)
    assert answer.error_code == 0
    return Began(name, answer.producer_id, answer.producer_epoch)


def add(peer: Peer, who: Began, *numbers: int, topic: str = WELL, version: int = CLASSIC) -> int:
    """The error of the first partition."""
    topics = [AddPartitionsToTxnTopic(name=topic, partitions=list(numbers or (0,)))]
    request = AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=who.name,
        v3_and_below_producer_id=who.id,
        v3_and_below_producer_epoch=who.epoch,
        v3_and_below_topics=topics,
    )
    found: list[int] = []

    def answered() -> bool:
        (answered,) = peer.ask(request, version).results_by_topic_v3_and_below
        found[:] = [answered.results_by_partition[0].partition_error_code]
        return found[0] not in NOT_YET

    wait_until(answered, "partitions in a transaction")
    return found[0]


def end(peer: Peer, who: Began, committed: bool = True, version: int = CLASSIC) -> Any:
    return ask(peer, EndTxnRequest(committed=committed, **who.fields()), version)


def state_of(peer: Peer, who: Began) -> str:
    answer = peer.ask(DescribeTransactionsRequest(transactional_ids=[who.name]), 0)
    return str(answer.transaction_states[0].transaction_state)


# --- the rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001, 2**31 - 1])
def test_h112_a_timeout_out_of_bounds_is_refused(broker: Victim, timeout_ms: int) -> None:
    with broker.peer() as peer:
        answer = peer.ask(init("h112", timeout_ms), 5)
        assert (answer.error_code, answer.producer_id) == (E.INVALID_TRANSACTION_TIMEOUT, -1)


@pytest.mark.parametrize(
    "body",
    [init(""), init("h112", producer_id=5), init("h112", producer_epoch=5), init("x" * 201)],
    ids=["empty", "id without epoch", "epoch without id", "too long"],
)
def test_h112_what_can_not_be_a_producer_is_an_invalid_request(
    broker: Victim, body: InitProducerIdRequest
) -> None:
    with broker.peer() as peer:
        assert peer.ask(body, 5).error_code == E.INVALID_REQUEST


@pytest.mark.parametrize(
    ("version", "fenced"), [(0, E.INVALID_PRODUCER_EPOCH), (CLASSIC, E.PRODUCER_FENCED)]
)
def test_h113_who_is_not_the_producer_takes_no_part(
    broker: Victim, version: int, fenced: int
) -> None:
    with broker.peer() as peer:
        who = began(peer, "h113")
        nobody = who._replace(name="nobody")
        stranger = who._replace(id=1 << 40)
        for one, error in (
            (nobody, E.INVALID_PRODUCER_ID_MAPPING),
            (stranger, E.INVALID_PRODUCER_ID_MAPPING),
            (who._replace(epoch=who.epoch - 1), fenced),
            (who._replace(epoch=who.epoch + 1), fenced),
        ):
            assert add(peer, one, version=version) == error
            assert end(peer, one, version=version).error_code == error
            offsets = AddOffsetsToTxnRequest(group_id="g", **one.fields())
            assert ask(peer, offsets, version).error_code == error
        assert state_of(peer, who) == "Empty"


def test_h114_an_end_without_a_transaction_and_the_opposite_of_one(broker: Victim) -> None:
    with broker.peer() as peer:
        who = began(peer, "h114")
        assert end(peer, who).error_code == E.INVALID_TXN_STATE
        assert add(peer, who) == 0
        assert end(peer, who).error_code == 0
        assert end(peer, who).error_code == 0
        assert end(peer, who, committed=False).error_code == E.INVALID_TXN_STATE


def test_h115_a_late_end_does_not_end_the_next_transaction(broker: Victim) -> None:
    with broker.peer() as peer:
        who = began(peer, "h115")
        assert add(peer, who) == 0
        told = end(peer, who, version=BUMPING)
        following = who._replace(id=told.producer_id, epoch=told.producer_epoch)
        assert add(peer, following) == 0
        for committed in (True, False):
            late = end(peer, who, committed, version=BUMPING)
            assert late.error_code == E.PRODUCER_FENCED
        assert state_of(peer, following) == "Ongoing"
        assert end(peer, following, version=BUMPING).error_code == 0


def test_h116_a_transaction_that_is_never_ended_is_aborted(broker: Victim) -> None:
    """Over as many partitions as one may have; no reader is held back afterwards."""
    with broker.peer() as peer:
        who = began(peer, "h116", timeout_ms=200)
        assert add(peer, who, *range(200), topic="wide") == 0
        wait_until(lambda: state_of(peer, who) == "CompleteAbort", "its abort", seconds=20)
        assert end(peer, who).error_code == E.PRODUCER_FENCED
        part = fetched(peer.ask(fetch("wide", (7, 0)), 11))
        assert part.last_stable_offset == part.high_watermark


def test_h116_a_transaction_has_so_many_partitions_and_no_more(broker: Victim) -> None:
    with broker.peer() as peer:
        who = began(peer, "h116-wide")
        assert add(peer, who, *range(201), topic="wide") == E.POLICY_VIOLATION
        assert state_of(peer, who) == "Empty"
        assert broker.logged("transactions.max")


def test_h116_there_are_so_many_transactional_ids_and_no_more(broker: Victim) -> None:
    with broker.peer() as peer:
        codes = [ask(peer, init(f"many-{number}"), 5).error_code for number in range(101)]
        assert set(codes) == {0, E.POLICY_VIOLATION}
        assert codes == sorted(codes)
        assert ask(peer, init("many-0"), 5).error_code == 0


@pytest.mark.parametrize(
    ("message", "version"),
    [
        (DescribeTransactionsRequest(transactional_ids=["x"] * 1001), 0),
        (ListTransactionsRequest(producer_id_filters=[1] * 1001), 2),
    ],
    ids=["describe", "list"],
)
def test_h116_one_request_names_so_many_and_no_more(
    broker: Victim, message: Any, version: int
) -> None:
    with broker.peer() as peer:
        answer = peer.ask(message, version)
        states = answer.transaction_states
        codes = {one.error_code for one in states} if not version else {answer.error_code}
        assert codes == {E.INVALID_REQUEST}


@pytest.mark.parametrize("pattern", ["(a*)*b", "((a|aa)*)*", ".*" * 50 + "b"])
def test_h110_no_pattern_of_transactional_ids_holds_anybody_up(
    broker: Victim, pattern: str
) -> None:
    with broker.peer() as peer:
        began(peer, "warm")
        answer = peer.ask(ListTransactionsRequest(transactional_id_pattern=pattern), 2)
        assert answer.error_code in (0, E.INVALID_REGULAR_EXPRESSION)


def test_h119_after_its_last_epoch_a_producer_gets_another_id(tmp_path: Path) -> None:
    """Its last entry says that it has come so far, as after 32,766 starts."""
    broker = Broker(tmp_path / "data", "transaction.state.log.num.partitions=1")
    with broker:
        with Peer(broker) as peer:
            who = began(peer, "h119")
        broker.kill()
        log = tmp_path / "data" / "__transaction_state-0" / f"{0:020}.log"
        *_, last = read_batches(log.read_bytes())
        ((key, value),) = pairs_of(last)
        entry = decode_entry(key or b"", value)
        assert entry is not None
        assert isinstance(entry.value, TransactionLogValue)
        entry.value.producer_epoch = LAST_EPOCH - 1
        record = Record(*encode_entry(entry), last.max_timestamp)
        more = BatchView(memoryview(bytearray(build_batch([record]))))
        more.stamp(Offset(last.last_offset + 1), last.leader_epoch)
        with log.open("ab") as file:
            file.write(more.view)
        broker.restart()
        with Peer(broker) as peer:
            at_last = began(peer, "h119")
            assert at_last == Began("h119", who.id, LAST_EPOCH)
            following = began(peer, "h119")
            assert following.epoch == 0
            assert following.id > who.id
            assert end(peer, at_last).error_code == E.INVALID_PRODUCER_ID_MAPPING
