"""The vocabulary of the log: the types that every room above shares.

Owns names and shapes only. Must not know files, sockets, messages or time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NewType

if TYPE_CHECKING:
    from ottla.core.ports import File

Offset = NewType("Offset", int)
"""A record's position in its partition. Exclusive when it names an end; else called `last_*`."""

LeaderEpoch = NewType("LeaderEpoch", int)
ProducerId = NewType("ProducerId", int)
NodeId = NewType("NodeId", int)

TopicId = NewType("TopicId", bytes)
"""16 raw bytes, as on the wire (KIP-516); a `uuid.UUID` costs more than decoding a field."""

NO_TOPIC_ID = TopicId(bytes(16))
NO_PRODUCER_ID = ProducerId(-1)
NO_TIMESTAMP = -1


class TopicPartition(NamedTuple):
    """A partition's name in requests, files and logs."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Kafka's own form, which is also the name of the partition's directory."""
        return f"{self.topic}-{self.partition}"


class FileSlice:
    """Bytes of a file that a reply sends without reading them: what `sendfile` needs.

    Pins its file from birth, so that the descriptor can't be closed and reused under a
    transfer; whoever drops the slice must call `release` exactly once.
    """

    __slots__ = ("file", "length", "position")

    def __init__(self, file: File, position: int, length: int) -> None:
        self.file = file
        self.position = position
        self.length = length
        file.retain()

    def __len__(self) -> int:
        return self.length

    def release(self) -> None:
        self.file.release()
