"""Logs of many partitions that grow alike: one batch for each partition, many in a request.

Owns the filling of such a topic, and the question how far it was filled. Must not measure.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from socket import create_connection, socket
from typing import BinaryIO

from ottla.bench import asking, filling, wire
from ottla.bench.asking import Address
from ottla.bench.pump import LoadFailed
from ottla.protocol.codec import decoder
from ottla.protocol.messages import list_offsets as lo
from ottla.protocol.messages.produce import ProduceResponse

BATCH = filling.SMALL
"""16 KiB."""
_AT_ONCE = 64  # batches in a request: about a MiB
_IN_FLIGHT = 4
_SECONDS_MAX = 300.0
_LATEST = -1
_BEGUN_AGO_MS = 3_600_000


class Growing:
    """A topic, and how many batches each of its partitions has."""

    def __init__(
        self,
        topic: str,
        partitions_count: int,
        batch: tuple[int, int] = BATCH,
        step_ms: int = 1,
    ) -> None:
        """`batch`: records in each, and bytes of a record; `step_ms` lies between two of them."""
        self.topic = topic
        self.partitions_count = partitions_count
        self._batch = batch
        self._step_ms = step_ms
        self.batches = 0
        # Timestamps rise from batch to batch, as they do in life: an index proves nothing where
        # they are all the same, and a start after a crash would read everything.
        self._clock_ms = int(time.time() * 1000) - _BEGUN_AGO_MS
        self.batch_bytes = len(wire.batch(*self._batch, self._clock_ms))

    def batches_for(self, bytes_count: float) -> int:
        """How many for each partition come to so many bytes, one at least."""
        return max(1, round(bytes_count / self.batch_bytes / self.partitions_count))

    @property
    def size_bytes(self) -> int:
        return self.batches * self.batch_bytes * self.partitions_count

    def grow(self, address: Address, batches: int, acks: int = 1) -> None:
        """Put so many more batches into every partition. Raises LoadFailed, OSError."""
        with create_connection(address, timeout=_SECONDS_MAX) as sock:
            answers = sock.makefile("rb")
            waiting = 0
            for _ in range(batches):
                for request in self._requests(acks):
                    _send(sock, request)
                    waiting += 1
                    if waiting == _IN_FLIGHT:
                        self._answer(answers)
                        waiting -= 1
            for _ in range(waiting):
                self._answer(answers)
            answers.close()
        self.batches += batches

    def _requests(self, acks: int) -> Iterator[list[bytes]]:
        self._clock_ms += self._step_ms
        batch = wire.batch(*self._batch, self._clock_ms)
        for first in range(0, self.partitions_count, _AT_ONCE):
            some = range(first, min(first + _AT_ONCE, self.partitions_count))
            yield wire.produce_to_many(self.topic, some, batch, acks)

    def _answer(self, answers: BinaryIO) -> None:
        size = answers.read(4)
        if len(size) < 4:
            raise LoadFailed("the broker closed a connection")
        raw = memoryview(answers.read(struct.unpack(">i", size)[0]))
        for topic in decoder(ProduceResponse, 9)(raw, 5)[0].responses:
            for one in topic.partition_responses:
                if one.error_code:
                    raise LoadFailed(f"the broker answered error {one.error_code}")

    def is_whole(self, address: Address) -> bool:
        """Whether every partition answers where it ends; False while one has an error.

        Raises LoadFailed where one ends elsewhere than it was filled to, OSError.
        """
        found = ends(address, self.topic, self.partitions_count)
        return ends_at(found, self.batches * self._batch[0])


def _send(sock: socket, pieces: list[bytes]) -> None:
    """All of it, in as few calls as the socket allows."""
    left = deque(memoryview(piece) for piece in pieces)
    while left:
        sent = sock.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.popleft())
        if sent:
            left[0] = left[0][sent:]


def ends(address: Address, topic: str, partitions_count: int) -> list[tuple[int, int]]:
    """Error code and latest offset of each partition. Raises LoadFailed, OSError."""
    wanted = [
        lo.ListOffsetsPartition(partition_index=number, timestamp=_LATEST)
        for number in range(partitions_count)
    ]
    request = lo.ListOffsetsRequest(
        replica_id=-1, topics=[lo.ListOffsetsTopic(name=topic, partitions=wanted)]
    )
    answer = asking.ask(address, request, 7, lo.ListOffsetsResponse)
    return [(one.error_code, one.offset) for topic in answer.topics for one in topic.partitions]


def ends_at(found: Sequence[tuple[int, int]], end: int) -> bool:
    """Whether all answer without an error. Raises LoadFailed if one then ends elsewhere."""
    if any(error for error, _ in found):
        return False
    for number, (_, offset) in enumerate(found):
        if offset != end:
            raise LoadFailed(f"partition {number} ends at {offset:,}, not at {end:,}")
    return True
