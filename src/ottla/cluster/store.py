"""MetadataStore: the port behind which cluster metadata lives.

Owns the shapes of the conversation: keys with revisions, transactions that compare and write,
outcomes that may be unknown, watches without gaps. Consensus is not ours to write: SQLite
stands behind this on one machine (`host/sqlite_store.py`), etcd on many (docs/design/0003).
Must not know what keys or values mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from ottla.core.pending import Pending
from ottla.core.value import Value


class StoreError(Exception):
    """The store can't be used. The text says which, why, and what to do. Nothing was changed."""


class StoreCorrupt(StoreError):
    """What is stored can't be understood."""


class StoreTooNew(StoreError):
    """What is stored was written by a newer version."""


class Entry(Value):
    """A key's value and the revisions of the transactions that created and last wrote it."""

    value: bytes
    create_revision: int
    mod_revision: int


class Snapshot(Value):
    """Every key under a prefix, as of one revision."""

    revision: int
    entries: Mapping[str, Entry]


# What a transaction requires. Each maps to a compare of etcd.


class Absent(Value):
    """There is no such key."""

    key: str


class Present(Value):
    """There is such a key."""

    key: str


class UnchangedSince(Value):
    """The key was last written at exactly this revision."""

    key: str
    mod_revision: int


class SameSince(Value):
    """The key was created at exactly this revision and not deleted since: it is that one still."""

    key: str
    create_revision: int


Compare: TypeAlias = Absent | Present | UnchangedSince | SameSince


# What it writes. A transaction writes a key at most once.


class Put(Value):
    key: str
    value: bytes


class Delete(Value):
    """Delete a key; fine if it is not there."""

    key: str


class DeletePrefix(Value):
    """Delete every key that begins so."""

    prefix: str


Write: TypeAlias = Put | Delete | DeletePrefix


class Applied(Value):
    """Every compare held and every write is durable, at this revision."""

    revision: int


class Failed(Value):
    """A compare did not hold: nothing was written. `revision` is the store's when it looked."""

    revision: int


class Unknown(Value):
    """Nobody can tell: the transaction was applied, was not, or still may be.

    So whoever gives up must not say "no". Repeating the same transaction is safe where its
    compares can't hold once it was applied.
    """

    why: str = ""
    """What is known of the cause, for the operator."""


Outcome: TypeAlias = Applied | Failed | Unknown


class Update(Value):
    """All that one transaction changed; None stands for a key that is gone.

    With no entries it only says that the store has moved on to `revision`.
    """

    revision: int
    entries: Mapping[str, Entry | None]


class Compacted(Value):
    """History before `revision` is no longer kept: read again, then watch from there."""

    revision: int


WatchEvent: TypeAlias = Update | Compacted


class Watch(Protocol):
    def cancel(self) -> None:
        """No event comes after this returns."""


class MetadataStore(Protocol):
    """Reads are linearizable. Each Pending completes on the loop, or fails with StoreError."""

    def read(self, prefix: str) -> Pending[Snapshot]:
        """Every key that begins with `prefix`."""

    def transact(self, compares: Sequence[Compare], writes: Sequence[Write]) -> Pending[Outcome]:
        """Write all, if every compare holds; otherwise nothing."""

    def watch(
        self, prefix: str, from_revision: int, on_event: Callable[[WatchEvent], None]
    ) -> Watch:
        """Every Update under `prefix` from that revision on: in order, none left out.

        Every revision that an Outcome or a Snapshot names is reached by an Update in the end,
        sooner or later than that answer. After a Compacted nothing more comes.
        """

    def close(self) -> None:
        """Finish what was asked for. Whatever is asked later fails with StoreError."""


def holds(compare: Compare, entry: Entry | None) -> bool:
    """Whether a compare holds for what its key has: one meaning for every store."""
    match compare:
        case Absent():
            return entry is None
        case Present():
            return entry is not None
        case UnchangedSince(_, mod_revision):
            return entry is not None and entry.mod_revision == mod_revision
        case SameSince(_, create_revision):
            return entry is not None and entry.create_revision == create_revision
