"""Histories by seed: which seeds a run goes through, and how a failing one names itself.

OTTLA_SEED=n runs one history; OTTLA_SOAK=1 runs many more (each test says how many).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def seed_ranges(count: int, per_test: int) -> list[range]:
    """The seeds below `count` in ranges of one test each; only OTTLA_SEED's where it is set."""
    if "OTTLA_SEED" in os.environ:
        seed = int(os.environ["OTTLA_SEED"])
        return [range(seed, seed + 1)]
    return [range(at, at + per_test) for at in range(0, count, per_test)]


@contextmanager
def named_by(seed: int) -> Iterator[None]:
    """Print how to repeat what fails in here."""
    try:
        yield
    except BaseException:
        print(f"\nOTTLA_SEED={seed} repeats this history")
        raise
