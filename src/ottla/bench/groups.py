"""What groups cost: the first record, commits, a large group, loading.

Owns which of these are measured, and in which order. Must not measure by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ottla.bench import group_first, group_members, group_offsets
from ottla.bench.contenders import Peer
from ottla.bench.group_figures import Figure

Say = Callable[[str], None]

PARTS = ("first", "commits", "members", "loading")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure; `parts` empty means all."""

    parts: Sequence[str] = ()
    rounds: int = 3
    seconds: float = 1.0
    members: int = 1000
    commits: int = 100_000
    peers: Sequence[Peer] = ()


def chosen(parts: Sequence[str]) -> list[str]:
    """In the order in which they are measured. Raises ValueError for one that isn't there."""
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"there is no part {part!r}; there are: {', '.join(PARTS)}")
    return [part for part in PARTS if not parts or part in parts]


def measure(plan: Plan, say: Say) -> Iterator[list[Figure]]:
    """The figures of one part after the other. Raises pump.LoadFailed, usage.Unmeasurable."""
    measured: dict[str, Callable[[], list[Figure]]] = {
        "first": lambda: group_first.measure(plan.rounds, plan.peers, say),
        "commits": lambda: group_offsets.measure_commits(
            plan.rounds, plan.seconds, plan.peers, say
        ),
        "members": lambda: group_members.measure(plan.members, plan.peers, say),
        "loading": lambda: group_offsets.measure_loading(plan.commits, say),
    }
    for part in chosen(plan.parts):
        yield measured[part]()
