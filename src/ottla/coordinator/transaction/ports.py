"""The joints of the transaction coordinator: what it needs, and what others ask of it.

Owns the Protocols alone. `Markers` is implemented over this node's partitions by a handler's
module, as Journal is; `Admission` by `coordinator.Transactions`. Must not know a partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

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
