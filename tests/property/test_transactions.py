"""I38 to I41 and I43: transactions on a node that dies at any step, over a network that keeps nothing.

Requests are delayed, come twice, overtake each other and come again long after; producers are
replaced while they are still there; the node is killed, or its power fails. A dictionary of what
producers were told is the model. Clients are as correct as they must be, in both versions: they
commit only what was acknowledged, and those of version 1 begin anew where they know nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
)
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer
from ottla.testing.simnode import Call, SimNode
from tests.asking import batch, committed_values, produce
from tests.conftest import SOAK

NAMES = ("a", "b")
PARTITIONS = 2
TIMEOUT_MS = 20_000
WAIT_S = TIMEOUT_MS / 1000 + 10
CLIENTS_MAX = 6
KEPT_MAX = 60

which = st.integers(0, 99)
"""Picks one of a list, whatever its length."""
sometimes = st.sampled_from([False, False, False, True])


class Sent(NamedTuple):
    """A request as it is on the wire, to be sent again."""

    message: Any
    version: int


class Transaction:
    """What its producer knows of it."""

    def __init__(self) -> None:
        self.values: dict[bytes, bool] = {}
        """Each value, and whether it was acknowledged."""
        self.places: set[int] = set()
        self.asked: bool | None = None
        """How it was asked to end: committed or not."""
        self.ended: bool | None = None
        """How it was acknowledged to have ended."""

    @property
    def is_sure(self) -> bool:
        return all(self.values.values())


class Client:
    """One transactional producer, of one version of transactions."""

    def __init__(self, name: str, bumps: bool, identity: tuple[int, int]) -> None:
        self.name = name
        self.bumps = bumps
        self.identity = identity
        self.sequences = [0] * PARTITIONS
        self.current: Transaction | None = None
        self.waits = False
        """A request of it is on its way."""
        self.is_over = False

    def goes_on_as(self, identity: tuple[int, int]) -> None:
        if identity != self.identity:
            self.identity = identity
            self.sequences = [0] * PARTITIONS


class Delayed(NamedTuple):
    """A request that was not delivered yet, and who waits for its answer."""

    client: Client
    sent: Sent
    told: Any


class Transactions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []
        self.done: list[Transaction] = []
        """All transactions, current ones too."""
        self.delayed: list[Delayed] = []
        self.sent: list[Sent] = []
        """What may come again: everything of version 2, and what names its sequence."""
        self.ended: list[tuple[tuple[int, int], bool]] = []
        """Markers of version 2 that were written: as whom, and how."""
        self.floor: dict[str, tuple[int, int]] = {}
        """The identity below which every producer of that name is fenced."""
        self.fenced: set[bytes] = set()
        """Values that were first sent by a producer when it was fenced already."""
        self.seen: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self.number = 0
        self.is_over = False

    @initialize(
        seed=st.integers(0, 2**32),
        shards=st.sampled_from(["1", "3"]),
        bumps=st.tuples(st.booleans(), st.booleans()),
    )
    def begin(self, seed: int, shards: str, bumps: tuple[bool, bool]) -> None:
        self.node = SimNode(seed, transaction_state_log_num_partitions=shards)
        self.node.create_topic("t", PARTITIONS)
        for name, one in zip(NAMES, bumps, strict=True):
            self._begin(name, one)

    # --- the network -------------------------------------------------------------------------

    def _deliver(self, sent: Sent) -> Any:
        """The answer; None where none comes without time passing."""
        call = self._send(sent)
        self.node.settle()
        return call.answer

    def _send(self, sent: Sent) -> Call:
        return self.node.connect().ask(*sent)

    def _ask(self, client: Client, sent: Sent, told: Any, late: bool) -> None:
        client.waits = True
        if late:
            self.delayed.append(Delayed(client, sent, told))
            return
        answer = self._deliver(sent)
        client.waits = False
        if answer is not None:
            told(answer)

    @precondition(lambda self: self.delayed)
    @rule(at=which)
    def what_was_delayed_arrives(self, at: int) -> None:
        delayed = self.delayed.pop(at % len(self.delayed))
        answer = self._deliver(delayed.sent)
        delayed.client.waits = False
        if answer is not None:
            delayed.told(answer)

    @precondition(lambda self: self.delayed)
    @rule(at=which)
    def a_client_loses_patience(self, at: int) -> None:
        """It goes on without the answer; the request may arrive yet, when it wants."""
        delayed = self.delayed.pop(at % len(self.delayed))
        delayed.client.waits = False
        if delayed.client.bumps:
            self._note(delayed.sent)

    def _note(self, sent: Sent) -> None:
        self.sent = [*self.sent[-KEPT_MAX:], sent]

    @precondition(lambda self: self.sent)
    @rule(at=which)
    def a_request_comes_again(self, at: int) -> None:
        self._deliver(self.sent[at % len(self.sent)])

    @precondition(lambda self: self.ended)
    @rule(at=which)
    def i43_a_marker_comes_again(self, at: int) -> None:
        (producer_id, epoch), committed = self.ended[at % len(self.ended)]
        marker = WritableTxnMarker(
            producer_id=producer_id,
            producer_epoch=epoch,
            transaction_result=committed,
            coordinator_epoch=0,
            transaction_version=2,
            topics=[WritableTxnMarkerTopic(name="t", partition_indexes=list(range(PARTITIONS)))],
        )
        self._deliver(Sent(WriteTxnMarkersRequest(markers=[marker]), 2))

    # --- producers -------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), bumps=st.booleans(), replaces=sometimes)
    def a_producer_begins(self, name: str, bumps: bool, replaces: bool) -> None:
        """Where there is one, it is thought to be dead."""
        there = any(one.name == name and not one.is_over for one in self.clients)
        if replaces or not there:
            self._begin(name, bumps)

    @rule(at=which, counts=st.lists(st.integers(0, 2), min_size=1, max_size=3))
    def a_producer_works_for_a_while(self, at: int, counts: list[int]) -> None:
        for count in counts:
            for partition in range(count):
                self.a_producer_writes(at, partition % PARTITIONS, False)
                self.a_producer_writes(at, partition % PARTITIONS, False)
            self.a_producer_ends_its_transaction(at, bool(count % 2), False)

    def _begin(self, name: str, bumps: bool) -> Client | None:
        if self.is_over:
            return None
        request = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=TIMEOUT_MS)
        sent = Sent(request, 5 if bumps else 3)
        self._note(sent)
        answer = self._deliver(sent)
        if answer is None or answer.error_code:
            return None
        identity = (answer.producer_id, answer.producer_epoch)
        assert identity > self.floor.get(name, (-1, -1)), "an epoch is given once"
        self.floor[name] = identity
        client = Client(name, bumps, identity)
        self.clients = [*self.clients[1 - CLIENTS_MAX :], client]
        return client

    def _idle(self, at: int) -> Client | None:
        there = [one for one in self.clients if not one.waits and not one.is_over]
        return there[at % len(there)] if there and not self.is_over else None

    def _is_fenced(self, client: Client) -> bool:
        return client.identity < self.floor[client.name]

    @rule(at=which, partition=st.integers(0, PARTITIONS - 1), late=sometimes)
    def a_producer_writes(self, at: int, partition: int, late: bool) -> None:
        client = self._idle(at)
        if client is None or (client.current is not None and not self._may_write(client.current)):
            return
        if client.current is None:
            client.current = Transaction()
            self.done.append(client.current)
        current = client.current
        if not client.bumps and partition not in current.places:
            self._add_partition(client, current, partition, late)
            return
        current.places.add(partition)
        self.number += 1
        value = b"%d" % self.number
        current.values[value] = False
        if self._is_fenced(client):
            self.fenced.add(value)
        producer = Producer(*client.identity, client.sequences[partition])
        client.sequences[partition] += 1
        records = batch(value, producer=producer, attributes=TRANSACTIONAL_BIT)
        request = produce({("t", partition): records})
        request.transactional_id = client.name
        sent = Sent(request, 12 if client.bumps else 9)
        self._note(sent)

        def told(answer: Any) -> None:
            ((part,),) = (topic.partition_responses for topic in answer.responses)
            if not part.error_code:
                current.values[value] = True

        self._ask(client, sent, told, late)

    @staticmethod
    def _may_write(current: Transaction) -> bool:
        """A client that knows not what became of a batch sends no other behind it."""
        return current.asked is None and current.is_sure

    def _add_partition(
        self, client: Client, current: Transaction, partition: int, late: bool
    ) -> None:
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=client.name,
            v3_and_below_producer_id=client.identity[0],
            v3_and_below_producer_epoch=client.identity[1],
            v3_and_below_topics=[AddPartitionsToTxnTopic(name="t", partitions=[partition])],
        )
        fenced = self._is_fenced(client)

        def told(answer: Any) -> None:
            ((part,),) = (one.results_by_partition for one in answer.results_by_topic_v3_and_below)
            if part.partition_error_code == ErrorCode.NONE:
                assert not fenced, "I40: a zombie takes no part"
                current.places.add(partition)
            elif part.partition_error_code != ErrorCode.CONCURRENT_TRANSACTIONS:
                client.is_over = True

        self._ask(client, Sent(request, 3), told, late)

    @rule(at=which, committed=st.booleans(), late=sometimes)
    def a_producer_ends_its_transaction(self, at: int, committed: bool, late: bool) -> None:
        client = self._idle(at)
        if client is None or client.current is None:
            return
        current = client.current
        if current.asked is not None:
            committed = current.asked  # again: there is no answer yet
        elif not current.is_sure:
            committed = False
        current.asked = committed
        as_whom, fenced = client.identity, self._is_fenced(client)
        request = EndTxnRequest(
            transactional_id=client.name,
            producer_id=as_whom[0],
            producer_epoch=as_whom[1],
            committed=committed,
        )
        sent = Sent(request, 5 if client.bumps else 3)
        if client.bumps:
            self._note(sent)

        def told(answer: Any) -> None:
            if answer.error_code == ErrorCode.CONCURRENT_TRANSACTIONS:
                return  # it asks again
            if answer.error_code in (
                ErrorCode.COORDINATOR_NOT_AVAILABLE,
                ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
            ):
                return
            if answer.error_code:
                client.is_over = True
                return
            assert not fenced, "I40: a zombie ends nothing"
            current.ended = committed
            client.current = None
            if client.bumps:
                goes_on = (answer.producer_id, answer.producer_epoch)
                self.ended.append(((as_whom[0], as_whom[1] + 1), committed))
                client.goes_on_as(goes_on)
            elif not current.is_sure:
                client.is_over = True  # what is still on its way could join the next one

        self._ask(client, sent, told, late)

    # --- what happens to the node -----------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 0.2, 1.0, WAIT_S]))
    def time_passes(self, seconds: float) -> None:
        self.node.advance(seconds)

    @rule(how=st.sampled_from(["kill", "any", "prefix", "nothing", "everything", "stop"]))
    def the_node_dies_and_comes_back(self, how: Any) -> None:
        if self.is_over:
            return
        if how == "kill":
            self.node.kill()
        elif how == "stop":
            self.node.stop()
        else:
            self.node.crash(how)
        # A log that can't be written any more: see test_node_crashes.
        self.is_over = any(one.log.failed for one in self.node.table)

    @rule(
        at=which,
        partition=st.integers(0, PARTITIONS - 1),
        steps=st.integers(0, 30),
        how=st.sampled_from(["kill", "any", "nothing"]),
        ends=st.booleans(),
    )
    def the_node_dies_while_it_answers(
        self, at: int, partition: int, steps: int, how: Any, ends: bool
    ) -> None:
        """At any step of what a request brings about, and nobody hears of it."""
        before = len(self.delayed)
        if ends:
            self.a_producer_ends_its_transaction(at, True, True)
        else:
            self.a_producer_writes(at, partition, True)
        if len(self.delayed) > before:
            delayed = self.delayed.pop()
            delayed.client.waits = False
            self._send(delayed.sent)
            self.node.steps(steps)
            self.the_node_dies_and_comes_back(how)

    # --- what must hold ---------------------------------------------------------------------------

    @rule()
    def a_reader_looks(self) -> None:
        self._look()

    def _look(self) -> set[bytes]:
        self.node.settle()
        if self.is_over:
            return set()
        visible: set[bytes] = set()
        for number in range(PARTITIONS):
            values = committed_values(self.node, "t", number)
            before = self.seen[number]
            assert values[: len(before)] == before, "I39: what was seen stays"
            self.seen[number] = values
            assert len(set(values)) == len(values), "each once"
            visible.update(values)
        assert not visible & self.fenced, "I40: nothing of a zombie's"
        for one in self.done:
            mine = visible & set(one.values)
            if one.ended is False or one.asked is not True:
                assert not mine, "I39: nothing that was not committed"
        return visible

    def teardown(self) -> None:
        """No more trouble, and as much time as a transaction may take: then nothing is open."""
        if not hasattr(self, "node") or self.is_over:
            return
        self.node.settle()
        self.node.advance(WAIT_S)
        visible = self._look()
        for one in self.done:
            mine = visible & set(one.values)
            if one.ended:
                assert mine == set(one.values), "I38, I39: all of what was committed"
            else:
                assert mine in (set(), set(one.values)), "I38: all or nothing"
        for number in range(PARTITIONS):
            partition = self.node.partition("t", number)
            assert partition.last_stable == partition.high_watermark, "I41: nothing hangs"


TestTransactions = Transactions.TestCase
TestTransactions.settings = settings(max_examples=1_000 if SOAK else 120, stateful_step_count=50)
