"""The joints of the transaction coordinator: what it needs, and what others ask of it.

Owns the Protocols alone. `Markers` and `OpenTransactions` are implemented over this node's
partitions by handlers' modules, as Journal is; `Admission` by `coordinator.Transactions`. Must not
know a partition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from ottla.core.model import TopicPartition
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.coordinator.decision import Ending
    from ottla.core.pending import Soon

Admitted: TypeAlias = ErrorCode | dict[TopicPartition, ErrorCode]
"""What a coordinator says of partitions: the same of all, or something of each."""


def said_of(place: TopicPartition, admitted: Admitted) -> ErrorCode:
    """What it says of this one."""
    return admitted if type(admitted) is ErrorCode else admitted[place]


class Markers(Protocol):
    """The partitions of a transaction, told how it ended."""

    def write(
        self, ending: Ending, partitions: Sequence[TopicPartition]
    ) -> Soon[dict[TopicPartition, ErrorCode]]:
        """Write the marker to each partition; done once each is on disk, or can't be.

        Writing it again is harmless (I43). UNKNOWN_TOPIC_OR_PARTITION: the partition is gone for
        good. INVALID_PRODUCER_EPOCH: it has seen a later producer. Anything else is tried again.
        Never fails.
        """


class Open(NamedTuple):
    """A transaction that is open in a partition: it has no marker there yet."""

    place: TopicPartition
    producer_id: int
    epoch: int
    """The highest that the producer has written with there."""
    first_offset: int
    coordinator_epoch: int
    """Of the last marker of the producer's there; -1 where there was none."""


class OpenTransactions(Protocol):
    """What this node's partitions know of transactions."""

    def all(self) -> Iterator[Open]:
        """Those that are open, of whichever producer, in partitions that can still be written
        to: to the others, nobody ever writes anything again."""

    def is_open(self, one: Open) -> bool:
        """Whether it still is."""

    def outcomes(
        self, producer_ids: Collection[int]
    ) -> Iterator[Iterator[tuple[tuple[int, int], bool]]]:
        """Of each partition whether the last transaction of these producers was committed, by id
        and epoch; only where a marker of the next epoch ended it."""

    def epochs(self) -> Iterator[Iterator[tuple[int, int]]]:
        """Of each partition the producers that it knows, by id and highest epoch."""


class Admission(Protocol):
    """What the paths of data ask before a batch of a transaction is appended (KIP-890)."""

    def admit(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Sequence[TopicPartition],
        *,
        add: bool,
    ) -> Soon[Admitted]:
        """Whether batches of this producer belong to the transaction, in these partitions.

        With `add` the partitions become part of it, durably, and a transaction begins where none
        is (Produce 12 and later, TxnOffsetCommit 5 and later); a transaction before it that is
        about to end is waited for, for a short while. Without, they are looked for:
        TRANSACTION_ABORTABLE where a partition is not in it. For all of them alike:
        INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, INVALID_TXN_STATE,
        NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS. Never fails.
        """
