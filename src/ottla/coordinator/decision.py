"""Decision: what a shard wants done. Entries to append, a reply, and effects.

Owns the vocabulary between shards and the runtime. Must not do any of it: to decide is to read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from ottla.core.pending import Pending

if TYPE_CHECKING:
    from ottla.protocol.schema import Message
    from ottla.records.builder import Producer

R = TypeVar("R")


class Entry(NamedTuple):
    """One record of an internal topic: its key, and its value or None for a tombstone.

    `entries.offsets_topic` has the classes, and a `Brief` for what is written most often. Shards
    keep values: nobody may change one.
    """

    key: Message | Brief
    value: Message | tuple[Any, ...] | None


class Brief:
    """A key that is bytes already, of an entry whose value is a tuple: no more than is needed."""

    __slots__ = ("packed",)

    def __init__(self, packed: bytes) -> None:
        self.packed = packed


class Ending(NamedTuple):
    """The end of a producer's transaction in this partition, written as a control batch.

    `version` is the transaction's (KIP-890): from 2 on the epoch is above that of its batches.
    `by_admin`: an admin wrote it, and no coordinator, so that its coordinator's epoch is a claim.
    """

    producer_id: int
    producer_epoch: int
    committed: bool
    coordinator_epoch: int
    version: int
    by_admin: bool = False


class Schedule(NamedTuple):
    """Run `decide` on the shard `delay_s` from now. Takes the place of what has the same key.

    Gone when the shard is unloaded. Where its entries can't be appended it is tried again.
    """

    key: Hashable
    delay_s: float
    decide: Callable[[], Decision[Any]]


class Cancel(NamedTuple):
    """Forget what was scheduled under the key, if anything was."""

    key: Hashable


class Complete(NamedTuple):
    """Give a waiting reply its value, once all that the shard has appended is committed.

    Passed over if it has one already: it was unloaded, or completed by another decision.
    """

    pending: Pending[Any]
    value: Any


class WhenCommitted(partial[None]):
    """Call it once all that the shard has appended is committed; never, if it never is.

    It is the call itself, as is `Do`: `WhenCommitted(f, x)` calls f(x).
    """

    __slots__ = ()


class Do(partial[None]):
    """Change soft state by this call, now that the entries are in the log. Must not fail."""

    __slots__ = ()


class Follow(NamedTuple):
    """Effects that can be told only now that the entries are in. Must not fail."""

    tell: Callable[[], Sequence[Effect]]


Effect: TypeAlias = Schedule | Cancel | Complete | WhenCommitted | Do | Follow

_NOTHING: tuple[Any, ...] = ()


class Decision(Generic[R]):
    """What is to be done, in this order: append `entries`, replay each, run `effects`, reply.

    The reply leaves once all that the shard had appended by then is committed; where it is a
    Pending, once that is done as well. Where the append fails nothing happens, and the reply is
    an ErrorCode. `entries` go into one batch, all or nothing, unless `atomic` is False: then a
    crash may keep a beginning of them.

    With a `producer` they are written in its transaction: they count once that is committed, and
    whether the producer may write at all is for the log to say. An `ending` stands alone: it
    ends the transaction, in the log and then in the shard.
    """

    __slots__ = (
        "any_size",
        "atomic",
        "effects",
        "ending",
        "entries",
        "producer",
        "reply",
        "verification",
    )

    def __init__(
        self,
        reply: R | Pending[R],
        entries: Sequence[Entry] = _NOTHING,
        effects: Sequence[Effect] = _NOTHING,
        *,
        atomic: bool = True,
        producer: Producer | None = None,
        ending: Ending | None = None,
    ) -> None:
        assert atomic or producer is None, "a part of a transaction's batch can't be told apart"
        assert ending is None or not entries, "an ending stands alone"
        self.reply = reply
        self.entries = entries
        self.effects = effects
        self.atomic = atomic
        self.producer = producer
        self.ending = ending
        self.any_size = False
        """Whether the entries may be larger than a batch may be: where they end what was let in
        once, at about that size. Refused, it would never end."""
        self.verification: object | None = None
        """What the log wants to see of a producer whose transaction it does not know yet: begun
        before the transaction's coordinator was asked (KIP-890), set by who asked it."""
