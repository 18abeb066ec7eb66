"""I38 to I43 by a copier: it reads numbers, writes them elsewhere and notes how far it is, in one
transaction each time, on a node whose power fails or which is killed at any step.

What comes out under read_committed is what went in, each once and in order, whatever happens:
answers get lost, requests of transaction version 2 come again much later, transactions are aborted
or time out, and copiers that were thought dead go on beside those that took their place.

OTTLA_SEED=n runs one history; OTTLA_SOAK=1 runs many more.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Generator
from typing import Any, NamedTuple

import pytest

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
)
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.records.batch import TRANSACTIONAL_BIT
from ottla.records.builder import Producer
from ottla.testing.simnode import Call, SimConnection, SimNode
from tests.asking import batch, committed_values, produce
from tests.sim.histories import named_by, seed_ranges

HISTORIES = 4_000 if os.environ.get("OTTLA_SOAK") == "1" else 200
SEEDS_PER_TEST = 25
VALUES = [b"%d" % number for number in range(12)]
OUTPUTS = 2
TIMEOUT_MS = 60_000

AGAIN = {
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.UNSTABLE_OFFSET_COMMIT,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.REQUEST_TIMED_OUT,
}
OVER = {
    ErrorCode.INVALID_PRODUCER_EPOCH,
    ErrorCode.PRODUCER_FENCED,
    ErrorCode.INVALID_TXN_STATE,
    ErrorCode.TRANSACTION_ABORTABLE,
    ErrorCode.INVALID_PRODUCER_ID_MAPPING,
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
}


class Asked(NamedTuple):
    """A request, and how to read the error out of its answer."""

    message: Any
    version: int


Steps = Generator[Asked, Any, None]


class Fenced(Exception):
    """This copier is of no use any more."""


def error_of(answer: Any) -> int:
    """The first error that an answer tells, wherever it stands."""
    if getattr(answer, "error_code", 0):
        return int(answer.error_code)
    for name in ("topics", "responses", "groups", "results_by_topic_v3_and_below"):
        for one in getattr(answer, name, ()):
            if code := error_of(one):
                return code
    for name in ("partitions", "partition_responses", "results_by_partition"):
        for one in getattr(answer, name, ()):
            code = getattr(one, "error_code", None) or getattr(one, "partition_error_code", 0)
            if code:
                return int(code)
    return 0


class Copier:
    """A client, one request at a time. It asks again until it is told something."""

    def __init__(self, history: History, random: random.Random) -> None:
        self.history = history
        self.random = random
        self.is_over = False
        self.steps = self.copy()
        self.asked = next(self.steps)
        self.call: Call | None = None
        self.connection: SimConnection | None = None

    def go_on(self) -> None:
        """Send, or take the answer if it is there."""
        if self.is_over:
            return
        if self.connection is None or self.connection.closed:
            self.connection, self.call = self.history.node.connect(), None
        if self.call is None:
            self.call = self.connection.ask(*self.asked)
            self.history.sent.append(self.asked)
            return
        if not self.call.done:
            return
        answer, self.call = self.call.answer, None
        error = ErrorCode(error_of(answer))
        if error in AGAIN:
            self.history.seen["again"] += 1
            return
        try:
            if error:
                assert error in OVER, (error, self.asked)
                raise Fenced
            self.asked = self.steps.send(answer)
        except Fenced:
            self.history.seen["fenced"] += 1
            self.is_over = True
        except StopIteration:
            self.is_over = self.history.is_done = True

    # --- what it does ----------------------------------------------------------------------

    def copy(self) -> Steps:
        bumps = self.history.bumps
        told = yield Asked(
            InitProducerIdRequest(transactional_id="copier", transaction_timeout_ms=TIMEOUT_MS), 4
        )
        self.id, self.epoch = told.producer_id, told.producer_epoch
        self.sequences = [0] * OUTPUTS
        while True:
            wanted = [OffsetFetchRequestTopics(name="in", partition_indexes=[0])]
            groups = [OffsetFetchRequestGroup(group_id="g", topics=wanted)]
            told = yield Asked(OffsetFetchRequest(groups=groups, require_stable=True), 8)
            at = max(told.groups[0].topics[0].partitions[0].committed_offset, 0)
            if at >= len(VALUES):
                return
            taken = VALUES[at : at + self.random.randint(1, 4)]
            yield from self.transaction(taken, at + len(taken), bumps)

    def transaction(self, taken: list[bytes], until: int, bumps: bool) -> Steps:
        outputs = sorted({int(value) % OUTPUTS for value in taken})
        if not bumps:
            yield self.add_partitions(outputs)
        for number in outputs:
            values = [value for value in taken if int(value) % OUTPUTS == number]
            yield self.write(number, values, 12 if bumps else 9)
        if not bumps:
            own = self.own()
            yield Asked(AddOffsetsToTxnRequest(group_id="g", **own), 3)
        yield self.note(until, 5 if bumps else 3)
        committed = self.random.random() < 0.7
        request = EndTxnRequest(committed=committed, **self.own())
        told = yield Asked(request, 5 if bumps else 3)
        self.history.seen["committed" if committed else "aborted"] += 1
        if bumps:
            if (self.id, self.epoch) != (told.producer_id, told.producer_epoch):
                self.sequences = [0] * OUTPUTS
            self.id, self.epoch = told.producer_id, told.producer_epoch

    def own(self) -> dict[str, Any]:
        return {
            "transactional_id": "copier",
            "producer_id": self.id,
            "producer_epoch": self.epoch,
        }

    def add_partitions(self, outputs: list[int]) -> Asked:
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id="copier",
            v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[AddPartitionsToTxnTopic(name="out", partitions=outputs)],
        )
        return Asked(request, 3)

    def write(self, number: int, values: list[bytes], version: int) -> Asked:
        producer = Producer(self.id, self.epoch, self.sequences[number])
        self.sequences[number] += len(values)
        records = batch(*values, producer=producer, attributes=TRANSACTIONAL_BIT)
        request = produce({("out", number): records})
        request.transactional_id = "copier"
        return Asked(request, version)

    def note(self, until: int, version: int) -> Asked:
        part = TxnOffsetCommitRequestPartition(
            partition_index=0, committed_offset=until, committed_metadata=""
        )
        topics = [TxnOffsetCommitRequestTopic(name="in", partitions=[part])]
        return Asked(TxnOffsetCommitRequest(group_id="g", topics=topics, **self.own()), version)


class History:
    """One run from a seed."""

    def __init__(self, seed: int, *, watchful: bool = False) -> None:
        """`watchful`: look at what readers get after every step, not now and then."""
        self.watchful = watchful
        self.random = random.Random(seed)
        self.bumps = self.random.random() < 0.7
        """By the rules of transaction version 2, or the old ones."""
        self.synced = self.random.random() < 0.75
        self.node = SimNode(
            seed,
            flush_policy="commit" if self.synced else "os",
            offsets_topic_num_partitions="1",
            transaction_state_log_num_partitions="1",
        )
        self.node.create_topic("in", 1)
        self.node.create_topic("out", OUTPUTS)
        self.seen: Counter[str] = Counter()
        self.sent: list[Asked] = []
        self.is_done = False
        self.copiers = [Copier(self, self.random)]
        self.strangers: list[SimConnection] = []

    def run(self) -> None:
        for _ in range(self.random.randrange(60, 240)):
            self.random.choice(self.copiers).go_on()
            self.node.steps(self.random.choice((0, 0, 1, 3, 10, 40)))
            roll = self.random.random()
            if roll < 0.02 and not self.end_a_life():
                return
            if roll < 0.05:
                self.replace()
            elif roll < 0.11 and self.bumps:
                self.repeat()
            elif roll < 0.115:
                self.node.advance(TIMEOUT_MS / 1000 + 20)
                self.seen["time passed"] += 1
            elif roll < 0.18 or self.watchful:
                self.look()
            if all(copier.is_over for copier in self.copiers):
                self.replace()
        self.finish()

    def look(self) -> None:
        """What is there by now is a beginning: nothing that may yet be aborted, and no holes."""
        for number in range(OUTPUTS):
            found = self.read(number)
            assert found == self.expected(number)[: len(found)], (number, found)
            self.seen["looked at"] += 1

    def replace(self) -> None:
        """The copier is thought to be dead. It may not be."""
        if self.random.random() < 0.5:
            self.copiers.clear()
        self.copiers = [*self.copiers[-2:], Copier(self, self.random)]
        self.seen["replaced"] += 1

    def repeat(self) -> None:
        """A request that was sent long ago comes again, by another way."""
        if self.sent:
            asked = self.random.choice(self.sent[-40:])
            self.node.connect().ask(*asked)
            self.seen["repeated"] += 1

    def end_a_life(self) -> bool:
        """False where a log can't be written any more (see test_node_crashes)."""
        mended = self.node.context.transactions.hanging.mended_count
        assert not mended, "what was promised was kept, and so there was nothing to take back"
        how = self.random.choice(("kill", "crash", "crash", "stop") if self.synced else ("kill",))
        self.seen[how] += 1
        if how == "stop":
            self.node.stop()
        elif how == "kill":
            self.node.kill()
        else:
            self.node.crash(self.random.choice(("any", "prefix", "nothing", "everything")))
        if any(partition.log.failed for partition in self.node.table):
            self.seen["damaged"] += 1
            return False
        return True

    def finish(self) -> None:
        """No more trouble: a copier of its own gets through, and then all is there once."""
        self.copiers = [Copier(self, self.random)]
        self.is_done = False
        for _ in range(2_000):
            self.copiers[0].go_on()
            self.node.settle()
            if self.is_done:
                break
            if self.copiers[0].is_over:
                self.copiers = [Copier(self, self.random)]
            self.node.advance(0.1)
        assert self.is_done, "the copier hangs"
        self.node.advance(1)  # the last markers
        for number in range(OUTPUTS):
            assert self.read(number) == self.expected(number)
            partition = self.node.partition("out", number)
            assert partition.last_stable == partition.high_watermark, "something hangs"
        self.seen["finished"] += 1

    def expected(self, number: int) -> list[bytes]:
        return [value for value in VALUES if int(value) % OUTPUTS == number]

    def read(self, number: int) -> list[bytes]:
        return committed_values(self.node, "out", number)


def run_history(seed: int, *, watchful: bool = False) -> Counter[str]:
    with named_by(seed):
        history = History(seed, watchful=watchful)
        history.run()
    return history.seen


@pytest.mark.parametrize(
    "seeds", seed_ranges(HISTORIES, SEEDS_PER_TEST), ids=lambda seeds: f"from-{seeds[0]}"
)
def test_i42_what_is_copied_in_transactions_is_there_once(seeds: range) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen += run_history(seed)
    if len(seeds) > 1:
        wanted = {"kill", "crash", "stop", "fenced", "again", "repeated", "aborted", "finished"}
        assert wanted <= set(seen), seen
        assert 10 * seen["damaged"] <= seen["crash"], seen


@pytest.mark.parametrize(
    "seeds", seed_ranges(HISTORIES // 4, SEEDS_PER_TEST), ids=lambda seeds: f"from-{seeds[0]}"
)
def test_i39_nothing_that_readers_get_was_aborted_or_leaves_out_what_was_committed(
    seeds: range,
) -> None:
    """Whatever is delayed, repeated or lost: at every moment they get a beginning of the whole."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen += run_history(seed, watchful=True)
    if len(seeds) > 1:
        assert {"looked at", "repeated", "aborted", "kill"} <= set(seen), seen
