"""Open transactions: what the partitions of this node know of those of any producer.

Owns the port `OpenTransactions` over them. Must not judge a transaction, nor end one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ottla.coordinator.transaction.ports import Open
from ottla.core.model import ProducerId
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.replication.table import PartitionTable


class LocalTransactions:
    """The port `OpenTransactions` over the partitions that this node leads."""

    def __init__(self, table: PartitionTable) -> None:
        self._table = table

    def all(self) -> Iterator[Open]:
        """A few hundred nanoseconds for each partition of the node: most have none."""
        for partition in self._table:
            producers = partition.log.producers
            if producers.unstable.first is None or not partition.log.usable:
                continue
            for one in producers.unstable.open():
                state = producers.get(ProducerId(one.producer_id))
                if state is not None:
                    epoch, coordinator_epoch = state.epoch, state.coordinator_epoch
                    place = one.producer_id, epoch, one.first_offset, coordinator_epoch
                    yield Open(partition.key, *place)

    def is_open(self, one: Open) -> bool:
        partition = self._table.get(*one.place)
        if isinstance(partition, ErrorCode):
            return False
        state = partition.log.producers.get(ProducerId(one.producer_id))
        if state is None or state.transaction is None:
            return False
        return (state.epoch, state.transaction.first_offset) == (one.epoch, one.first_offset)

    def outcomes(
        self, producer_ids: Collection[int]
    ) -> Iterator[Iterator[tuple[tuple[int, int], bool]]]:
        return (partition.log.producers.ended(producer_ids) for partition in list(self._table))

    def epochs(self) -> Iterator[Iterator[tuple[int, int]]]:
        return (partition.log.producers.epochs() for partition in list(self._table))
