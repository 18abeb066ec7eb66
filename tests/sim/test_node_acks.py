"""When an answer may leave: acks=all after a sync that began after its write, acks=1 after the write.

Told from what a recording disk saw, in order. The kill -9 and strace tests show the same of the
real process.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ottla.testing.simnode import Call, SimNode
from tests.asking import batch, produce, produced

SEEDS = range(40)


class Traffic:
    """Random pipelined producers on a node with three partitions that roll often."""

    def __init__(self, seed: int, acks: int, **given: str) -> None:
        self.random = random.Random(seed)
        self.node = SimNode(seed, **given)
        self.node.create_topic("t", 3, segment_index_bytes="40", index_interval_bytes="0")
        self.connections = [self.node.connect() for _ in range(3)]
        self.calls: list[tuple[int, Call]] = []
        for _ in range(60):
            self.ask(acks)
            self.node.steps(self.random.choice((0, 0, 1, 5, 20)))
        self.node.settle()

    def ask(self, acks: int) -> None:
        connection = self.random.choice(self.connections)
        numbers = self.random.sample(range(3), self.random.choice((1, 1, 2, 3)))
        body = {("t", number): batch(self.random.randbytes(50)) for number in numbers}
        self.calls.append((connection.number, connection.ask(produce(body, acks), 9)))

    def check(self, *, synced: bool) -> Counter[str]:
        """Walk through what the disk saw; every answer's writes must have come before it.

        The n-th write to a partition's `.log` files is its n-th batch, which begins at offset n.
        """
        owed = {
            f"{number}:{call.correlation_id}": [
                (part.index, part.base_offset)
                for part in call.answer.responses[0].partition_responses
            ]
            for number, call in self.calls
        }
        seen: Counter[str] = Counter()
        written: dict[int, int] = Counter()
        where: dict[tuple[int, int], str] = {}
        begun: dict[str, set[tuple[int, int]]] = {}
        durable: set[tuple[int, int]] = set()
        for action, what in self.node.disk.log:
            if action == "write" and what.endswith(".log"):
                number = int(what.split("/")[2].removeprefix("t-"))
                where[number, written[number]] = what
                written[number] += 1
            elif action == "sync begun":
                begun[what] = {key for key, path in where.items() if path == what}
            elif action == "sync returned":
                durable |= begun.pop(what)
            elif action == "answer" and what in owed:
                for key in owed.pop(what):
                    seen["answers"] += 1
                    seen["not yet synced"] += key not in durable
                    assert key in where, "answered before its write"
                    assert not synced or key in durable, "answered before a sync of its write"
        assert not owed
        seen["segments"] = len(set(where.values()))
        return seen


@pytest.mark.parametrize("seed", SEEDS)
def test_acks_all_is_answered_after_a_sync_that_began_after_its_write(seed: int) -> None:
    seen = Traffic(seed, acks=-1).check(synced=True)
    assert seen["answers"] > 60
    assert seen["segments"] > 6, "rolls are part of it"


def test_acks_all_is_answered_after_its_write_where_the_operating_system_flushes() -> None:
    traffics = [Traffic(seed, acks=-1, flush_policy="os") for seed in SEEDS[:10]]
    seen = sum((traffic.check(synced=False) for traffic in traffics), Counter())
    assert seen["not yet synced"] > seen["answers"] // 2


def test_acks_one_is_answered_after_its_write_whatever_the_policy() -> None:
    seen = sum((Traffic(seed, acks=1).check(synced=False) for seed in SEEDS[:10]), Counter())
    assert seen["not yet synced"] > 0


def test_nothing_but_a_sync_makes_an_acks_all_answer_leave() -> None:
    node = SimNode()
    node.create_topic("t")
    connection = node.connect()
    first = connection.ask(produce({("t", 0): batch(b"makes the files")}), 9)
    node.settle()
    assert first.done
    call = connection.ask(produce({("t", 0): batch(b"waits")}), 9)
    while node.loop.turn():
        pass
    node.loop.advance(5.0)
    assert node.disk.busy, "a round is under way"
    assert not call.done
    node.settle()
    assert produced(call).base_offset == 1
