"""Each rule of the transaction coordinator is needed: without it one of its tests fails.

A rule is taken out of the source's own text, from here: the sources know nothing of it. The tests
are those of the coordinator by itself; what they have in their parametrize marks is written out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest

from tests.sim.test_rules_of_transactions import Rule, take_out
from tests.transactions import World
from tests.unit.coordinator.transaction import (
    test_ending,
    test_producers,
    test_sending,
    test_taking_part,
    test_time,
)

PACKAGE = "coordinator.transaction"
SUITES = (test_producers, test_taking_part, test_ending, test_sending, test_time)

RULES = {
    "I40 an older epoch takes no part": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.add_partitions",
        "if found.epoch != producer.epoch:",
        "if False:",
    ),
    "I40 an older epoch of version 1 ends nothing": Rule(
        f"{PACKAGE}.ending", "_judge_classic", "if found.epoch != producer.epoch:", "if False:"
    ),
    "I40 an older epoch of version 2 ends nothing": Rule(
        f"{PACKAGE}.ending",
        "_judge_bumping",
        "if not (is_same or again or again_with_a_new_id):",
        "if False:",
    ),
    "I40 a zombie is not taken for its successor": Rule(
        f"{PACKAGE}.ending", "_judge_bumping", "found.version >= BUMPING and ", ""
    ),
    "I40 each producer that begins has an epoch of its own": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.init_producer_id",
        "epoch, last = found.epoch + 1, NO_EPOCH",
        "epoch, last = found.epoch, NO_EPOCH",
    ),
    "I40 what a replaced producer has open is aborted first": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.init_producer_id",
        "if found.state is _S.ONGOING:",
        "if False:",
    ),
    "KIP-360 only who was the producer goes on as it": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.init_producer_id",
        "if expected is not None and not found.may_be(*expected):",
        "if False:",
    ),
    "H119 the last epoch is followed by another id": Rule(
        f"{PACKAGE}.metadata", "is_exhausted", "epoch >= EXHAUSTED_EPOCH", "False"
    ),
    "I39 each transaction of version 2 has an epoch of its own": Rule(
        f"{PACKAGE}.metadata",
        "Transaction.prepared",
        "epoch = min(epoch + 1, EPOCH_MAX)",
        "pass",
    ),
    "I39 a transaction that is about to end takes nothing more in": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.add_partitions",
        "if found.is_prepared:",
        "if False:",
    ),
    "I38 no marker before the decision is on disk": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard._prepare",
        "WhenCommitted(self._node.prepared, self, [found])",
        "Do(self._node.prepared, self, [found])",
    ),
    "I38 every partition gets its marker": Rule(
        f"{PACKAGE}.sending", "Sending._written", "if error not in _OVER", "if False"
    ),
    "I38 what was prepared is ended after a restart": Rule(
        f"{PACKAGE}.shard", "TransactionShard.loaded", "if prepared:", "if False:"
    ),
    "I41 a partition that is not in the transaction is not let in": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.verified",
        "ErrorCode.NONE if one in there else ErrorCode.TRANSACTION_ABORTABLE",
        "ErrorCode.NONE",
    ),
    "I41 what takes too long is aborted": Rule(
        f"{PACKAGE}.shard", "TransactionShard._scan", "if late:", "if False:"
    ),
    "I41 also after a restart": Rule(
        f"{PACKAGE}.shard", "TransactionShard.loaded", "if self.open:", "if False:"
    ),
    "I41 whatever the wall clock says": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.loaded",
        "min(timeout_s, max(left_s, GRACE_S))",
        "left_s",
    ),
    "I41 a partition that is gone holds nothing up": Rule(
        f"{PACKAGE}.sending", "Sending._written", "if error not in _OVER", "if error"
    ),
    "I43 a marker is not sent again for what has ended": Rule(
        f"{PACKAGE}.sending", "Sending._write_again", "and way.is_wanted()", ""
    ),
    "I43 a marker that is done late completes nothing else": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.complete",
        " or (found.producer_id, found.epoch) != producer",
        "",
    ),
    "H114 the opposite of what was done is refused": Rule(
        f"{PACKAGE}.ending",
        "_judge_classic",
        "ErrorCode.NONE if found.state is done else ErrorCode.INVALID_TXN_STATE",
        "ErrorCode.NONE",
    ),
    "a transaction that rests may be forgotten, no other": Rule(
        f"{PACKAGE}.shard",
        "TransactionShard.expire_ids",
        " and found.state in RESTING",
        "",
    ),
    "a batch waits for the end of the transaction before": Rule(
        f"{PACKAGE}.coordinator",
        "Transactions._added",
        "told is not ErrorCode.CONCURRENT_TRANSACTIONS or joining.is_late",
        "True",
    ),
}


def written_out(function: Callable[..., Any]) -> Iterator[Callable[[], Any]]:
    """The test with each of its arguments, in a world of its own."""
    marks = [one for one in getattr(function, "pytestmark", ()) if one.name == "parametrize"]
    names = [
        [name.strip() for name in mark.args[0].split(",")]
        if isinstance(mark.args[0], str)
        else list(mark.args[0])
        for mark in marks
    ]
    for values in product(*(mark.args[1] for mark in marks)):
        given: dict[str, Any] = {}
        for these, value in zip(names, values, strict=True):
            given |= dict(zip(these, value if len(these) > 1 else (value,), strict=True))
        if "world" in inspect.signature(function).parameters:
            given["world"] = World()
        yield partial(function, **given)


def some_test_fails() -> bool:
    for suite in SUITES:
        for name, function in vars(suite).items():
            if name.startswith("test_") and inspect.isfunction(function):
                for test in written_out(function):
                    try:
                        test()
                    except Exception:
                        return True
    return False


def test_with_all_rules_no_test_fails() -> None:
    assert not some_test_fails()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_without_this_rule_some_test_fails(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    take_out(rule, monkeypatch)
    assert some_test_fails()
