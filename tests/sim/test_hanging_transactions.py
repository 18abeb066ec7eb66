"""I41 where a power cut takes what was not synced: whatever is left of a transaction, in whichever
of the logs, is ended, and nobody who reads what is committed waits for it.

Under flush.policy=os each log keeps a beginning of its own, so that a partition may have batches of
a transaction of which its coordinator has nothing, or a decision may be known and its marker lost.

OTTLA_SEED=n runs one seed, at every moment; OTTLA_SOAK=1 many of them.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from ottla.testing.simnode import SimNode
from tests.asking import committed_values
from tests.sim.histories import named_by, seed_ranges
from tests.sim.test_two_transactions import PARTITIONS, TIMEOUT_MS, Case, Client, Run

SOAK = os.environ.get("OTTLA_SOAK") == "1"
SEEDS = 640 if SOAK else 64
SEEDS_PER_TEST = 16
MOMENTS_TRIED = 5


def end_of_faults(node: SimNode) -> None:
    """All the time that I41 leaves after the last fault; the disk works in it, too."""
    node.settle()
    for _ in range(TIMEOUT_MS // 1000 + 10):
        node.advance(1)


class Cut(Run):
    """Two transactions, during which the node ends. Who is refused afterwards begins anew."""

    def __init__(self, case: Case, seed: int) -> None:
        super().__init__(case, seed)
        self.is_refused = False
        self.committed: dict[int, bool] = {}
        """By number: whether the end was asked for, and so."""
        if seed >> 5 & 1 and not case.exhausted:
            self.node.stop()  # that there is such a producer is on disk for certain
            self.node.disk.due = self.due

    def both(self, left: int | None) -> None:
        self.taken, self.left = 0, left
        for number, committed in enumerate(self.case.ends, 1):
            if self.is_ended and not self.case.goes_on:
                break
            if self.is_refused:
                self.is_refused = False
                self.go(self.client.init())
                assert not self.is_refused, "a producer that is new may write"
            asked = len(self.client.told)
            self.go(self.client.transaction(number, committed))
            if len(self.client.told) > asked:
                self.committed[number] = committed
        self.left = None

    def ask(self, request: Any, version: int) -> Any:
        try:
            return super().ask(request, version)
        except AssertionError:
            if not self.is_ended or self.is_refused:
                raise
        self.is_refused = True
        return None

    def check(self) -> None:
        end_of_faults(self.node)
        for topic in ("out", "__consumer_offsets"):
            for partition in self.node.table.of_topic(topic):
                assert partition.last_stable == partition.high_watermark, f"{partition.key} hangs"
        self.is_refused = True
        after = Client(self.case, b"b")
        self.go(after.init())
        self.go(after.transaction(9, True))
        self.node.advance(1)
        for number in PARTITIONS:
            values = committed_values(self.node, "out", number)
            assert values[-1:] == [b"b9"]
            self.judge(values)

    def judge(self, values: list[bytes]) -> None:
        """What was lost is lost. But nothing is shown that nobody committed."""
        if self.case.bumps:
            for value in values[:-1]:
                assert self.committed.get(int(value[1:])), f"{value!r} is shown"


def case_of(seed: int, policy: str = "os", how: str = "crash") -> Case:
    """By turns all combinations: rules, outcomes, who goes on, the last epoch of an id or not;
    `Cut` adds to that whether the producer has its id for certain."""
    bits = [bool(seed >> at & 1) for at in range(5)]
    return Case(bits[0], (bits[1], bits[2]), policy, how, bits[3], bits[0] and bits[4])


@pytest.mark.parametrize(
    "seeds", seed_ranges(SEEDS, SEEDS_PER_TEST), ids=lambda seeds: f"from-{seeds[0]}"
)
def test_i41_no_transaction_hangs_whatever_a_power_cut_leaves_of_what_was_not_synced(
    seeds: range,
) -> None:
    for seed in seeds:
        with named_by(seed):
            at_moments(seed, case_of(seed), whole=SOAK or len(seeds) == 1)


@pytest.mark.parametrize(
    ("policy", "how"), [("commit", "crash"), ("commit", "kill"), ("os", "kill")]
)
def test_i41_where_nothing_is_lost_nothing_hangs_and_nothing_is_taken_back(
    policy: str, how: str
) -> None:
    seed = random.randrange(1 << 30)
    with named_by(seed):
        for at in range(seed, seed + (64 if SOAK else 8)):
            at_moments(at, case_of(at, policy, how), whole=SOAK)


class Watched(Run):
    """Is looked through for hanging transactions at every step of its own."""

    def step(self) -> None:
        self.node.context.transactions.hanging.look()
        super().step()


@pytest.mark.parametrize(
    ("policy", "how"), [("commit", "crash"), ("commit", "kill"), ("os", "kill")]
)
def test_no_step_of_a_transaction_that_is_alive_is_taken_for_one_that_hangs(
    policy: str, how: str
) -> None:
    seed = random.randrange(1 << 30)
    with named_by(seed):
        for at in range(seed, seed + (64 if SOAK else 8)):
            case = case_of(at, policy, how)
            whole = Watched(case, at)
            whole.both(None)
            ended = Watched(case, at)
            ended.both(random.Random(at).randrange(whole.taken) + 1)
            for run in (whole, ended):
                run.check()
                assert not run.node.context.transactions.hanging.mended_count, case


def at_moments(seed: int, case: Case, *, whole: bool) -> None:
    run = Cut(case, seed)
    run.both(None)
    moments = list(range(1, run.taken + 1))
    if not whole:
        moments = random.Random(seed).sample(moments, MOMENTS_TRIED)
    for left in moments:
        run = Cut(case, seed)
        try:
            run.both(left)
            run.check()
        except AssertionError as error:
            raise AssertionError(f"{case}, ended at moment {left}: {error}") from error
        if (case.policy, case.how) != ("os", "crash"):
            assert not run.node.context.transactions.hanging.mended_count, "nothing was lost"
