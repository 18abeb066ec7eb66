"""The states of a classic group, and the moves between them.

Owns the table. Must not know members or requests. Texts are those that tools show (KIP-518).
"""

from __future__ import annotations

from enum import Enum


class GroupState(Enum):
    """Where a classic group is between two generations."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    """It waits for members to join."""
    COMPLETING = "CompletingRebalance"
    """All have joined; it waits for the leader's assignment."""
    STABLE = "Stable"
    DEAD = "Dead"


MOVES: dict[GroupState, frozenset[GroupState]] = {
    GroupState.EMPTY: frozenset({GroupState.PREPARING, GroupState.DEAD}),
    GroupState.PREPARING: frozenset({GroupState.COMPLETING, GroupState.EMPTY, GroupState.DEAD}),
    GroupState.COMPLETING: frozenset({GroupState.STABLE, GroupState.PREPARING, GroupState.DEAD}),
    GroupState.STABLE: frozenset({GroupState.PREPARING, GroupState.DEAD}),
    GroupState.DEAD: frozenset(),
}
