"""Random sequences of what producers of transactions ask, well-behaved and not.

Owns the making of them from a seed. A step names producers and not their ids, so that it means the
same for two brokers, and whatever was cut out before it. Must not know how a step is asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

PARTITIONS = 3
ACTORS = ("a", "b", "zombie", "plain")
"""`a` and `zombie` share a transactional id, `plain` has none."""
NEXT, OLD, OVERLAPS = "next", "old", "overlaps"
"""Sequences: the one that is due; that of a batch sent before; with one record more than that."""


class Step(NamedTuple):
    """`version` is that of the request, `more` what else it is asked with."""

    kind: str
    who: str
    version: int
    more: dict[str, Any]


class _Making:
    """One sequence on its way. `old_share` is how many requests are of transactions of version 1."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)
        self.old_share = self.chance.choice([0.0, 0.5, 0.5, 1.0])
        self.is_cut = False
        """Whether DeleteRecords is among the steps: see `ends`."""

    # --- chances

    def pick(self, weighted: dict[Any, int]) -> Any:
        return self.chance.choices(list(weighted), list(weighted.values()))[0]

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    def actor(self, plain: float = 0.02) -> str:
        if self.often(plain):
            return "plain"
        return str(self.pick({"a": 6, "b": 4, "zombie": 2}))

    def partitions(self, most: int = 2) -> list[int]:
        return self.chance.sample(range(PARTITIONS), self.chance.randint(1, most))

    def by_version(self, old: list[int], new: list[int]) -> int:
        return self.chance.choice(old if self.often(self.old_share) else new)

    def lies(self) -> dict[str, Any]:
        """How it names itself other than it should, now and then."""
        told = self.pick({"": 85, -1: 6, 1: 3, -2: 1, 2: 1, "stranger": 2, "nobody": 1})
        found: dict[str, Any] = {"lie": told} if told else {}
        if self.often(0.03):
            found["name"] = self.chance.choice(["a", "b", "unknown", ""])
        return found

    # --- requests

    def init(self) -> Step:
        who, more = self.actor(0.05), dict[str, Any]()
        version = self.chance.randrange(6)
        if self.often(0.1):
            more["timeout_ms"] = self.chance.choice([0, -1, 1_000_000, 30_000])
        if self.often(0.5):
            version = self.chance.choice([3, 4, 5])
            more["known"] = who if self.often(0.8) else self.actor()
            more["known_lie"] = self.pick({0: 70, -1: 15, 1: 8, -2: 2, "stranger": 3, "half": 2})
        if self.often(0.1):
            more["forgets"] = True
        return Step("init", who, version, more)

    def add(self) -> Step:
        numbers = self.partitions()
        places: list[list[object]] = [["topic", numbers]]
        if self.often(0.04):
            numbers.append(7)
        if self.often(0.03):
            places.append(["internal", [0]])
        if self.often(0.02):
            places.append(["nowhere", [0]])
        version = self.by_version([0, 1, 2, 3], [4, 5])
        if version >= 4:
            places = places[:1]  # brokers may name internal topics
        more = {"places": places, "verify_only": version >= 4 and self.often(0.4)}
        return Step("add", self.actor(0.01), version, more | self.lies())

    def add_offsets(self) -> Step:
        more = {"group": self.chance.choice("gggh")} | self.lies()
        return Step("add_offsets", self.actor(0.01), self.chance.randrange(5), more)

    def commit(self) -> Step:
        more: dict[str, Any] = {"group": self.chance.choice("gggh")}
        numbers = self.partitions() + ([9] if self.often(0.03) else [])
        more["offsets"] = [[number, self.chance.randrange(100)] for number in numbers]
        if self.often(0.05):
            more["generation_id"] = self.chance.choice([0, 1])
        if self.often(0.03):
            more["member_id"] = "m"
        version = self.by_version([0, 1, 2, 3, 4], [5])
        return Step("commit", self.actor(0.01), version, more | self.lies())

    def produce(self) -> Step:
        who, more = self.actor(0.1), self.lies()
        version = self.by_version([9, 10, 11], [12, 13])
        plain = who == "plain" or self.often(0.08)
        parts = []
        for number in self.partitions(PARTITIONS):
            sequence = self.pick({NEXT: 75, OLD: 10, OVERLAPS: 4, 1: 4, 0: 2, -1: 3, 7: 1})
            part = {"partition": number, "sequence": sequence, "time": self.chance.randrange(50)}
            if sequence == OLD:
                part["back"] = self.chance.randrange(7)
            part["count"] = self.pick({1: 7, 2: 2, 3: 1})
            part["transactional"] = not (plain or self.often(0.02))
            if self.often(0.03):
                part["other"] = self.actor()
            parts.append(part)
        if plain and self.often(0.8):
            more["name"] = None
        return Step("produce", who, version, {"parts": parts} | more)

    def end(self) -> Step:
        more = {"committed": self.often(0.55), "forgets": self.often(0.1)} | self.lies()
        return Step("end", self.actor(), self.by_version([0, 1, 2, 3, 4], [5]), more)

    def mark(self) -> Step:
        version = self.chance.choice([1, 2])
        more: dict[str, Any] = {"committed": self.often(0.5), "partitions": self.partitions()}
        more["coordinator_epoch"] = self.pick({-1: 30, 50: 1, 100: 1})
        more["group"] = self.often(0.2)
        if version == 2:
            more["transaction_version"] = self.chance.choice([0, 1, 2])
        lie = self.pick({"": 78, -1: 15, 1: 2, 2: 1, "stranger": 4})
        return Step("mark", self.actor(0.2), version, more | ({"lie": lie} if lie else {}))

    # --- what is told

    def delete(self) -> Step:
        self.is_cut = True
        more = {"partition": self.chance.randrange(PARTITIONS)}
        more["quarters"] = self.pick({-1: 3, 1: 2, 2: 2, 3: 2, 4: 1, 5: 1})
        return Step("delete", "", 2, more)

    def fetch(self) -> Step:
        more = {"partition": self.chance.randrange(PARTITIONS)}
        more["quarters"] = self.chance.randrange(6)
        more["level"] = self.pick({1: 4, 0: 1})
        more["bytes_max"] = self.pick({1 << 20: 7, 300: 1, 100: 1, 1: 1})
        return Step("fetch", "", self.chance.choice([4, 6, 11, 12]), more)

    def ends(self) -> Step:
        """Once records are deleted, not all that Kafka tells of the ends is so: see `allowed`."""
        times = {-2: 2, self.chance.randrange(60): 3} | ({} if self.is_cut else {-1: 3, -3: 2})
        return Step("ends", "", self.chance.choice([7, 10]), {"time": self.pick(times)})

    def listed(self) -> Step:
        more: dict[str, Any] = {}
        version = self.chance.randrange(3)
        if self.often(0.5):
            names = ["Ongoing", "Empty", "CompleteCommit", "CompleteAbort", "Dead", "ongoing", "x"]
            more["states"] = self.chance.sample(names, self.chance.randint(1, 3))
        if version >= 2:
            more["pattern"] = self.chance.choice([".*", "a", "b|a", "[", "c", "(a"])
        more["of"] = self.chance.sample(["a", "b", "plain"], self.chance.randint(1, 2))
        return Step("listed", "", version, more)

    def look(self) -> Step:
        """At all that can be seen."""
        return Step("look", "", 0, {})

    def delete_group(self) -> Step:
        return Step("delete_group", "", 2, {"group": self.chance.choice("gh")})


CHANCES: dict[Callable[[_Making], Step], int] = {
    _Making.produce: 30,
    _Making.end: 14,
    _Making.add: 10,
    _Making.init: 8,
    _Making.commit: 8,
    _Making.look: 6,
    _Making.mark: 5,
    _Making.fetch: 5,
    _Making.listed: 4,
    _Making.add_offsets: 4,
    _Making.delete: 3,
    _Making.ends: 3,
    _Making.delete_group: 1,
}


def sequence(seed: str, length: int) -> list[Step]:
    """Producers begin, do what they like, and then it is looked at all of it."""
    making = _Making(seed)
    found = [Step("init", who, making.chance.choice([0, 3, 5]), {}) for who in ("a", "b", "plain")]
    if making.often(0.3):
        found.append(Step("init", "zombie", 5, {}))
    while len(found) < length:
        found.append(making.pick(CHANCES)(making))
    return [*found, making.look()]
