"""Each rule by which a partition takes part in transactions is needed: without it readers are wrong.

A rule is taken out of the source's own text, from here: the sources know nothing of it. Then some
of the histories of test_committed_reads must fail, for one that all pass would be no rule at all.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from tests.sim.test_committed_reads import STEPS, World

HISTORIES_MAX = 60


class Rule(NamedTuple):
    """Where a rule stands, its text, and what is left in its place."""

    module: str
    name: str
    text: str
    instead: str


RULES = {
    "I41 an answer from before the marker is worth nothing": Rule(
        "storage.producers",
        "ProducerStates.mark",
        "self._verifying.pop(producer_id, None)",
        "pass",
    ),
    "I41 nothing begins unverified": Rule(
        "storage.producers",
        "ProducerStates._check_transactional",
        "if not open_here and (verification is None or verification is not known):",
        "if False:",
    ),
    "I40 an older epoch writes nothing": Rule(
        "storage.producers",
        "ProducerStates.check",
        "if epoch < state.epoch:",
        "if False:",
    ),
    "H61 a producer writes nothing beside its transaction": Rule(
        "storage.producers",
        "ProducerStates.check",
        "if state.transaction is not None and not batch.attributes & TRANSACTIONAL_BIT:",
        "if False:",
    ),
    "I43 a marker of an earlier transaction ends no later one": Rule(
        "storage.producers",
        "ProducerStates.check_marker",
        "if epoch < state.epoch or (late and epoch == state.epoch):",
        "if epoch < state.epoch:",
    ),
    "a batch that was lost leaves no gap": Rule(
        "storage.producers",
        "ProducerStates.check",
        "if first != last_sequence + 1 and (first or last_sequence != SEQUENCE_MAX):",
        "if False:",
    ),
    "a marker ends what is open": Rule(
        "storage.producers",
        "ProducerStates.mark",
        "ending = state.transaction",
        "ending = None",
    ),
    "I39 an abort is told to readers": Rule(
        "storage.log",
        "Log.append_marker",
        "aborted = self.producers.taken_back(batch, self.end)",
        "aborted = None",
    ),
    "I39 each abort is told, and not the first alone": Rule(
        "storage.aborted",
        "AbortedIndex.search",
        "if aborted.last_stable >= upper:",
        "if True:",
    ),
    "I39 a long transaction is told of where it began, too": Rule(
        "storage.aborted",
        "AbortedIndex.search",
        "if aborted.first_offset < upper:",
        "if offset <= aborted.first_offset < upper:",
    ),
    "I39 aborts are found again after a crash": Rule(
        "storage.derived",
        "find_aborted",
        "if not work.aborted_unsound:",
        "if True:",
    ),
    "I38 the first open transaction holds readers back": Rule(
        "storage.unstable",
        "Unstable.settle",
        "next(iter(by_first.values()))",
        "next(reversed(by_first.values()))",
    ),
    "I38 a marker counts once it is committed": Rule(
        "storage.unstable",
        "Unstable.settle",
        "ended[0].marker < high_watermark",
        "ended[0].marker <= high_watermark",
    ),
    "I38 readers stop where the first open transaction began": Rule(
        "replication.partition",
        "Partition._settle",
        "self.stable_position = high if place.offset > high.offset else place",
        "self.stable_position = high",
    ),
    "I38 what is open is remembered over a restart": Rule(
        "storage.producers",
        "ProducerStates.load",
        "if first >= 0:",
        "if False:",
    ),
    "I38 where it began is found again after a restart": Rule(
        "storage.derived",
        "place_open",
        "if segment.end > first:",
        "if False:",
    ),
    "I38 where it began is noted": Rule(
        "storage.log",
        "Log.append",
        "self.producers.update(batch, segment, segment.size - batch.length)",
        "self.producers.update(batch)",
    ),
}


def without(rule: Rule) -> tuple[Any, str, Callable[..., Any]]:
    """Where the function hangs, its name there, and the function without the rule."""
    module = import_module(f"ottla.{rule.module}")
    owner_name, _, name = rule.name.rpartition(".")
    owner: Any = getattr(module, owner_name) if owner_name else module
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(rule.text) == 1, f"{rule.name} has changed: what is its rule now?"
    space = vars(module).copy()
    exec("from __future__ import annotations\n" + source.replace(rule.text, rule.instead), space)
    return owner, name, space[name]


def take_out(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, function = without(rule)
    before = getattr(owner, name)
    monkeypatch.setattr(owner, name, function)
    if isinstance(owner, ModuleType):
        for module in list(sys.modules.values()):  # whoever has imported it by name
            if module.__name__.startswith("ottla.") and vars(module).get(name) is before:
                monkeypatch.setattr(module, name, function)


def some_history_fails() -> bool:
    for seed in range(HISTORIES_MAX):
        try:
            world = World(seed)
            for _ in range(STEPS):
                world.step()
            world.node.settle()
            for client in world.clients:
                world.end(client, bump=True)
            world.node.settle()
            world.check()
        except (AssertionError, KeyError):
            return True
    return False


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_without_this_rule_some_history_fails(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    take_out(rule, monkeypatch)
    assert some_history_fails()
