"""Rules of transactions, each of which some test must miss when it is gone (see `mutants`)."""

from __future__ import annotations

import pytest

from tests.mutation.mutants import Mutant, chosen, survives

UNIT = "tests/unit"
OFFSETS = f"{UNIT}/coordinator/group/test_offsets_in_transactions.py"
KEEPER = f"{UNIT}/coordinator/test_keeper.py"
LOADING = f"{UNIT}/coordinator/test_loading.py"
PRODUCERS = f"{UNIT}/storage/test_producers_in_transactions.py"
PARTITION = f"{UNIT}/replication/test_partition_in_transactions.py"
PRODUCE = f"{UNIT}/handlers/test_produce_in_transactions.py"
COORDINATOR = (f"{UNIT}/coordinator/transaction", "tests/sim/test_rules_of_transactions.py")
COPIED = "tests/sim/test_copiers.py::test_i42_what_is_copied_in_transactions_is_there_once"
COPIERS = tuple(f"{COPIED}[from-{seed}]" for seed in (0, 25, 50))


def _rule(rule: str, module: str, text: str, instead: str, *tests: str) -> Mutant:
    return Mutant(rule, f"ottla.{module}", text, instead, tests)


_GROUP, _SHARD = "coordinator.group.offsets", "coordinator.transaction.shard"

MUTANTS = [
    # offsets in transactions
    _rule(
        "of two commits of a place the later in the log counts",
        _GROUP,
        "if committed and turn > unstable.counts_since:",
        "if committed:",
        OFFSETS,
    ),
    _rule(
        "an offset of an aborted transaction never counts",
        _GROUP,
        "if committed and turn > unstable.counts_since:",
        "if turn > unstable.counts_since:",
        OFFSETS,
    ),
    _rule(
        "deleting an offset takes what is pending along",
        _GROUP,
        "            self._drop_pending(place)\n",
        "",
        OFFSETS,
    ),
    _rule(
        "a commit without a transaction counts more than what is pending",
        _GROUP,
        "            self._supersede(place)\n",
        "",
        OFFSETS,
    ),
    _rule(
        "what is pending is not told to who wants it stable",
        "coordinator.group.shard",
        "if require_stable and offsets.is_pending(group_id, topic, partition):",
        "if False:",
        OFFSETS,
    ),
    _rule(
        "a group with something pending does not expire",
        "coordinator.group.retention",
        "if not kept and not self._offsets.has_pending(group_id):",
        "if not kept:",
        OFFSETS,
    ),
    _rule(
        "a batch that a coordinator writes in a transaction says so",
        "coordinator.batches",
        "attributes = 0 if producer is None else TRANSACTIONAL_BIT",
        "attributes = 0",
        KEEPER,
    ),
    _rule(
        "what is written in a transaction is pending at first",
        "coordinator.keeper",
        "producer_id = -1 if producer is None else producer.id",
        "producer_id = -1",
        KEEPER,
    ),
    _rule(
        "the end of a transaction reaches the shard",
        "coordinator.keeper",
        "        self.shard.end_transaction(ending.producer_id, ending.committed)\n",
        "",
        KEEPER,
    ),
    _rule(
        "loading tells a commit from an abort",
        "coordinator.loading",
        'committed = int.from_bytes(key[2:4], "big") == _CONTROL_COMMIT',
        "committed = True",
        LOADING,
        *COPIERS,
    ),
    _rule(
        "a reply waits for the commit of what it tells, however it is asked for",
        "coordinator.keeper",
        "isinstance(reply, Pending) or not journal.is_all_committed()",
        "isinstance(reply, Pending)",
        KEEPER,
    ),
    # what a partition takes
    _rule(
        "the first batch of a transaction must be verified",
        "storage.producers",
        "if not open_here and (verification is None or verification is not known):",
        "if False:",
        PRODUCERS,
    ),
    _rule(
        "a marker makes a verification before it worthless",
        "storage.producers",
        "        self._verifying.pop(producer_id, None)\n        state.coordinator_epoch = ",
        "        state.coordinator_epoch = ",
        PRODUCERS,
    ),
    _rule(
        "a marker of an earlier transaction does not end a later one",
        "storage.producers",
        "if epoch < state.epoch or (late and epoch == state.epoch):",
        "if epoch < state.epoch:",
        PRODUCERS,
    ),
    _rule(
        "a marker of an earlier producer is refused",
        "storage.producers",
        "if epoch < state.epoch or (late and epoch == state.epoch):",
        "if late and epoch == state.epoch:",
        PRODUCERS,
    ),
    _rule(
        "an earlier coordinator is fenced",
        "storage.producers",
        "if coordinator_epoch is not None and coordinator_epoch < state.coordinator_epoch:",
        "if False:",
        PRODUCERS,
    ),
    _rule(
        "a producer writes nothing outside the transaction that it has open",
        "storage.producers",
        "if state.transaction is not None and not batch.attributes & TRANSACTIONAL_BIT:",
        "if False:",
        PRODUCERS,
    ),
    _rule(
        "a coordinator that has been asked is not asked again",
        "handlers.produce",
        "is not _NO_ERROR:\n        return go_on",
        "is not _NO_ERROR:\n        return None",
        PRODUCE,
    ),
    _rule(
        "readers of committed records stop where a transaction is open",
        "replication.partition",
        "self.stable_position = high if place.offset > high.offset else place",
        "self.stable_position = high",
        PARTITION,
        *COPIERS,
    ),
    # the coordinator
    _rule(
        "what is not committed is told to nobody who only looks",
        "coordinator.keeper",
        "return journal.is_all_committed()",
        "return True",
        *COORDINATOR,
    ),
    _rule(
        "a producer that begins waits for the end of the one before",
        _SHARD,
        "        if found.is_prepared:\n            return Decision(ErrorCode.CONCURRENT_TRANSACTIONS)\n"
        "        if expected is not None",
        "        if expected is not None",
        *COORDINATOR,
    ),
    _rule(
        "a producer that begins aborts what the one before has open",
        _SHARD,
        "        if found.state is _S.ONGOING:\n            # Its end",
        "        if False:\n            # Its end",
        *COORDINATOR,
    ),
    _rule(
        "an earlier producer adds no partitions",
        _SHARD,
        "        if found.epoch != producer.epoch:\n            return Decision(ErrorCode.PRODUCER_FENCED)\n"
        "        begins",
        "        begins",
        *COORDINATOR,
    ),
    _rule(
        "markers are written once it is durable how the transaction ends",
        _SHARD,
        "effects: Sequence[Effect] = (WhenCommitted(self._node.prepared, self, [found]),)",
        "effects: Sequence[Effect] = (Do(self._node.prepared, self, [found]),)",
        *COORDINATOR,
        *COPIERS,
    ),
    _rule(
        "markers that may be missing are written after a start",
        _SHARD,
        "        if prepared:\n            effects.append(",
        "        if False:\n            effects.append(",
        *COORDINATOR,
    ),
    _rule(
        "a transaction that takes too long is aborted",
        _SHARD,
        "late = [found for found in self.open.values() if found.deadline_s <= now_s]",
        "late: list[Transaction] = []",
        *COORDINATOR,
    ),
    _rule(
        "who timed out or was replaced does not go on in its epoch",
        _SHARD,
        "decision = self._prepare(found, False, BUMPING)",
        "decision = self._prepare(found, False, BUMPING - 1)",
        *COORDINATOR,
    ),
    _rule(
        "markers of a transaction do not complete a later one",
        _SHARD,
        "        if not found.is_prepared or (found.producer_id, found.epoch) != producer:\n",
        "        if not found.is_prepared:\n",
        *COORDINATOR,
    ),
    _rule(
        "who is unloaded sends no marker again",
        "coordinator.transaction.sending",
        "self._live(way.prepared.id) is way.shard and way.is_wanted()",
        "way.is_wanted()",
        *COORDINATOR,
    ),
    _rule(
        "what is complete is written before a stop",
        "coordinator.transaction.coordinator",
        "            self.runtime.submit_to(shard.partition, lambda one: one.settle(len(one.transactions)))\n",
        "            pass\n",
        *COORDINATOR,
    ),
    _rule(
        "an earlier producer ends nothing by the old rules",
        "coordinator.transaction.ending",
        "    if found.epoch != producer.epoch:\n        return ErrorCode.PRODUCER_FENCED\n",
        "",
        *COORDINATOR,
    ),
    _rule(
        "a request of an earlier transaction ends no later one",
        "coordinator.transaction.ending",
        "if not (is_same or again or again_with_a_new_id):",
        "if False:",
        *COORDINATOR,
    ),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", chosen(MUTANTS), ids=lambda one: one.rule)
def test_some_test_misses_the_rule_that(mutant: Mutant) -> None:
    assert survives(mutant) is None


def test_a_rule_is_taken_out_in_one_place_and_no_rule_is_tried_twice() -> None:
    assert len({one.rule for one in MUTANTS}) == len(MUTANTS)
    for one in MUTANTS:
        one.source()
