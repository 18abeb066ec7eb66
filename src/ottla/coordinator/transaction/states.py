"""The states of a transaction, and the moves between them.

Owns the table. Must not know producers or requests. Numbers are those of __transaction_state,
names those that tools show and ListTransactions filters by (KIP-664).
"""

from __future__ import annotations

from enum import IntEnum


class TransactionState(IntEnum):
    """Where the transaction of a transactional id is."""

    EMPTY = 0
    """A producer is there, and has begun nothing."""
    ONGOING = 1
    PREPARE_COMMIT = 2
    """It is decided and durable how it ends; the partitions are being told."""
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    """Every partition has its marker."""
    COMPLETE_ABORT = 5
    DEAD = 6
    """Expired: the id is forgotten."""
    PREPARE_EPOCH_FENCE = 7
    """Kafka's name for the way from an ongoing transaction of a producer that is fenced to its
    abort; it never reaches the log, there or here, where both are one step."""

    @property
    def title(self) -> str:
        return _TITLES[self]


_S = TransactionState
_TITLES = {state: "".join(word.title() for word in state.name.split("_")) for state in _S}

BY_TITLE = {title: state for state, title in _TITLES.items()}

# From Empty and the two completed states a transaction may be aborted that has no partitions
# yet: under version 2 its producer asks for that, to be given a new epoch (KIP-890).
MOVES: dict[TransactionState, frozenset[TransactionState]] = {
    _S.EMPTY: frozenset({_S.EMPTY, _S.ONGOING, _S.PREPARE_ABORT, _S.DEAD}),
    _S.ONGOING: frozenset({_S.ONGOING, _S.PREPARE_COMMIT, _S.PREPARE_ABORT}),
    _S.PREPARE_COMMIT: frozenset({_S.COMPLETE_COMMIT}),
    _S.PREPARE_ABORT: frozenset({_S.COMPLETE_ABORT}),
    _S.COMPLETE_COMMIT: frozenset({_S.EMPTY, _S.ONGOING, _S.PREPARE_ABORT, _S.DEAD}),
    _S.COMPLETE_ABORT: frozenset({_S.EMPTY, _S.ONGOING, _S.PREPARE_ABORT, _S.DEAD}),
    _S.DEAD: frozenset(),
    _S.PREPARE_EPOCH_FENCE: frozenset({_S.PREPARE_ABORT}),
}

PREPARED = frozenset({_S.PREPARE_COMMIT, _S.PREPARE_ABORT})
"""Until its markers are written, nothing else can be done with it."""
RESTING = frozenset({_S.EMPTY, _S.COMPLETE_COMMIT, _S.COMPLETE_ABORT})
"""Nothing is open: the id may expire."""
