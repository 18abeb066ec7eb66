"""Journal: the log partition that a shard writes to, as its coordinator sees it.

Owns the two ports between coordinators and the logs; `internal_topics.py` implements them over
partitions. Must not know a partition, a log or a topic's settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ottla.coordinator.decision import Ending
    from ottla.core.model import Offset
    from ottla.core.pending import Pending
    from ottla.protocol.errors import ErrorCode
    from ottla.records.batch import BatchView


class Journal(Protocol):
    """One partition of an internal topic. Batches come from `records.builder`."""

    @property
    def batch_bytes_max(self) -> int:
        """The largest batch that the topic takes."""

    @property
    def start(self) -> Offset:
        """Where loading begins."""

    @property
    def end(self) -> Offset:
        """The log's end, exclusive: what the next batch gets."""

    def prepare(self, batch: BatchView) -> Pending[None] | None:
        """None if the batch can be appended now; else wait for this, and ask again.

        The Pending fails with DiskError."""

    def append(self, batch: BatchView, verification: object | None = None) -> Offset | ErrorCode:
        """The end after the batch, or why it could not be written. `prepare` just said None.

        A producer's batch is judged as its others are: INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE.
        Its first in a transaction needs the `verification`: see Decision.
        """

    def put_own(self, built: bytearray, timestamp_ms: int) -> ErrorCode | None:
        """`prepare` and `append` in one, of what `build_single` made of one entry at this time:
        NONE, if it is in, or why it could not be written. None: ask both, nothing was done."""

    def end_transaction(self, ending: Ending) -> Pending[None] | Offset | ErrorCode:
        """The log's end with the marker in it, or why it could not be written; a Pending where
        files must be made first: wait for it, and ask again."""

    def committed(self, end: Offset) -> Pending[None] | None:
        """None if all before `end` is committed; else done when it is, or when it never will be:
        ask `is_committed` then."""

    def is_committed(self, end: Offset) -> bool: ...

    def is_all_committed(self) -> bool: ...

    def state(self) -> ErrorCode:
        """NONE while it takes appends; NOT_COORDINATOR once its topic is deleted, and
        COORDINATOR_NOT_AVAILABLE once its disk has failed."""

    def read(
        self, offset: Offset, bytes_max: int
    ) -> Pending[bytes | ErrorCode] | bytes | ErrorCode:
        """Whole batches from the one that has `offset` on, for loading; b"" at the end.

        A Pending where the bytes are not in memory; it fails with DiskError."""


class Journals(Protocol):
    """An internal topic: as many journals as it has partitions."""

    def count(self) -> int:
        """How many partitions the topic has; 0 while it is not there."""

    def make(self) -> Pending[ErrorCode]:
        """Make the topic. Done, with NONE, when `open` finds its partitions."""

    def open(self, partition: int) -> Journal | ErrorCode:
        """One of them, of those that are there."""

    def on_gone(self, call: Callable[[], None]) -> None:
        """Call when the topic was deleted: every journal of it is of no use any more."""
