"""Incremental fetch sessions (KIP-227): what a client reads, remembered between its fetches.

Owns the sessions, their epochs and which partitions an incremental answer may leave out. Must not
read a log. A session is a cache: losing one costs its client a full fetch, nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.core.ports import Clock
    from ottla.protocol.messages.fetch import FetchRequest, PartitionData

NO_SESSION = 0
INITIAL_EPOCH = 0
FINAL_EPOCH = -1
_ID_MAX = (1 << 31) - 1

Key = tuple[str, bytes, int]


class Wanted:
    """One partition that a fetch reads, and what its session last told the client of it."""

    __slots__ = (
        "bytes_max",
        "last_fetched_epoch",
        "leader_epoch",
        "offset",
        "partition",
        "told",
        "topic",
        "topic_id",
    )

    def __init__(  # noqa: PLR0913, PLR0917  # the fields of a fetch's partition
        self,
        topic: str,
        topic_id: bytes,
        partition: int,
        offset: int,
        bytes_max: int,
        leader_epoch: int,
        last_fetched_epoch: int,
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.offset = offset
        self.bytes_max = bytes_max
        self.leader_epoch = leader_epoch
        self.last_fetched_epoch = last_fetched_epoch
        self.told: tuple[int, int, int] | None = None
        """Error, high watermark and log start as last sent; None: nothing yet."""

    @property
    def key(self) -> Key:
        return (self.topic, self.topic_id, self.partition)

    def news(self, data: PartitionData) -> bool:
        """Whether an incremental answer must carry `data`; what it carries is remembered."""
        now = (int(data.error_code), data.high_watermark, data.log_start_offset)
        told, self.told = self.told, now
        # An error or a divergence is told each time: the client acts on it each time.
        return (
            bool(data.records)
            or told != now
            or data.error_code != ErrorCode.NONE
            or data.diverging_epoch.epoch >= 0
        )


def wanted_by(request: FetchRequest) -> list[Wanted]:
    """The partitions that a request names, in its order."""
    return [
        Wanted(
            topic.topic,
            topic.topic_id,
            part.partition,
            part.fetch_offset,
            part.partition_max_bytes,
            part.current_leader_epoch,
            part.last_fetched_epoch,
        )
        for topic in request.topics
        for part in topic.partitions
    ]


class Session:
    """One client's partitions, in the order in which they will be read next."""

    __slots__ = ("by_id", "epoch", "id", "last_used", "partitions")

    def __init__(self, session_id: int, wanted: list[Wanted], by_id: bool, now: float) -> None:
        self.id = session_id
        self.by_id = by_id
        self.epoch = 1
        self.last_used = now
        self.partitions: dict[Key, Wanted] = {one.key: one for one in wanted}

    def change(self, request: FetchRequest) -> None:
        """Take in what an incremental request adds, changes and forgets."""
        for one in wanted_by(request):
            known = self.partitions.get(one.key)
            if known is not None:
                one.told = known.told
            self.partitions[one.key] = one
        for topic in request.forgotten_topics_data:
            for index in topic.partitions:
                self.partitions.pop((topic.topic, topic.topic_id, index), None)

    def rotate(self, served: list[Wanted]) -> None:
        """Read last, next time, what had data this time: no partition starves another."""
        for one in served:
            if self.partitions.pop(one.key, None) is not None:
                self.partitions[one.key] = one


class Sessions:
    """All sessions of a node: at most `slots_max`, of which only idle ones are evicted, and of
    all together at most `partitions_max` partitions.

    With no slot to be had a client gets session id 0 and goes on with full fetches.
    """

    __slots__ = (
        "_clock",
        "_eviction_s",
        "_next_id",
        "_partitions_count",
        "_sessions",
        "partitions_max",
        "slots_max",
    )

    def __init__(self, clock: Clock, slots_max: int, partitions_max: int, eviction_ms: int) -> None:
        self._clock = clock
        self.slots_max = slots_max
        self.partitions_max = partitions_max
        self._partitions_count = 0
        self._eviction_s = eviction_ms / 1000
        self._sessions: dict[int, Session] = {}
        # Begun at the clock, so that an id kept from before a restart names no other's session.
        self._next_id = clock.wall_ms() % _ID_MAX

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, wanted: list[Wanted], *, by_id: bool) -> Session | None:
        """A new session, or None when every slot is in use."""
        now = self._clock.monotonic()
        if len(self._sessions) >= self.slots_max and not self._evict(now):
            return None
        while self._partitions_count + len(wanted) > self.partitions_max:
            if not self._evict(now):
                return None
        self._next_id = self._next_id % _ID_MAX + 1
        session = Session(self._next_id, wanted, by_id, now)
        self._sessions[session.id] = session
        self._partitions_count += len(session.partitions)
        return session

    def resume(self, request: FetchRequest, *, by_id: bool) -> Session | ErrorCode:
        """The session of an incremental request, changed by it, or why there is none.

        One that grows past what all may have together is lost: its client begins anew.
        """
        session = self._sessions.get(request.session_id)
        if session is None:
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        if session.epoch != request.session_epoch:
            return ErrorCode.INVALID_FETCH_SESSION_EPOCH
        if session.by_id != by_id:
            return ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
        before = len(session.partitions)
        session.change(request)
        self._partitions_count += len(session.partitions) - before
        if len(session.partitions) > before and self._partitions_count > self.partitions_max:
            self.end(session.id)
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        session.epoch = session.epoch % _ID_MAX + 1
        session.last_used = self._clock.monotonic()
        # Re-inserted, so that the dictionary stays in order of last use.
        del self._sessions[session.id]
        self._sessions[session.id] = session
        return session

    def end(self, session_id: int) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._partitions_count -= len(session.partitions)

    def _evict(self, now: float) -> bool:
        oldest = next(iter(self._sessions.values()), None)
        if oldest is None or now - oldest.last_used < self._eviction_s:
            return False
        self.end(oldest.id)
        return True
