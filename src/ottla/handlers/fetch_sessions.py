"""Incremental fetch sessions (KIP-227): what a client reads, remembered between its fetches.

Owns the sessions, their epochs and which partitions an incremental answer may leave out. Must not
read a log. A session is a cache: losing one costs its client a full fetch, nothing else.

A partition with nothing more to say sleeps: no fetch looks at it until the partition itself wakes
it, by a change of what a fetch would be told. So a fetch costs what is new, not what its session
knows. The answers are those of looking at every partition, in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ottla.core.ports import Clock
    from ottla.protocol.messages.fetch import FetchRequest, PartitionData
    from ottla.replication.partition import Partition, ReadWaiter

NO_SESSION = 0
INITIAL_EPOCH = 0
FINAL_EPOCH = -1
_ID_MAX = (1 << 31) - 1

Key = tuple[str, bytes, int]


class Wanted:
    """One partition that a fetch reads, and what its session last told the client of it."""

    __slots__ = (
        "asleep_in",
        "bytes_max",
        "last_fetched_epoch",
        "leader_epoch",
        "offset",
        "partition",
        "session",
        "since",
        "told",
        "topic",
        "topic_id",
        "turn",
    )

    # Set by the session that takes it in: a full fetch makes thousands that are in none.
    session: Session
    turn: int
    """The session reads what has the least first."""
    since: int
    """Which of the session's requests named it."""

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
        self.asleep_in: Partition | None = None
        """Who wakes it; None while it is awake."""

    def woken(self, partition: Partition, arrived: int, settled: int) -> None:
        """Be looked at again: see `ottla.replication.partition.Sleeper`."""
        self.asleep_in = None
        session = self.session
        session.awake.add(self)
        for waiter in list(session.waiters):
            if id(waiter) not in partition.readers:
                waiter.watch(partition)
                waiter.arrived(settled if waiter.committed else arrived)

    def stop_sleeping(self) -> None:
        """Without having been woken."""
        partition, self.asleep_in = self.asleep_in, None
        if partition is not None and partition.sleepers is not None:
            partition.sleepers.discard(self)
            if not partition.sleepers:
                partition.sleepers = None

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
    """One client's partitions. Those that may have something to say are `awake`."""

    __slots__ = (
        "_manner",
        "_slept",
        "_turn",
        "awake",
        "by_id",
        "ended",
        "epoch",
        "id",
        "last_used",
        "named",
        "partitions",
        "waiters",
    )

    def __init__(self, session_id: int, wanted: list[Wanted], by_id: bool, now: float) -> None:
        self.id = session_id
        self.by_id = by_id
        self.epoch = 1
        self.last_used = now
        self.ended = False
        self.partitions: dict[Key, Wanted] = {}
        self.awake: set[Wanted] = set()
        self.waiters: set[ReadWaiter] = set()
        """Of its parked fetches: they hear of what wakes."""
        self.named = 0
        """How many requests have changed what it reads."""
        self._slept = 0
        self._turn = 0
        self._manner: object = None
        self._take(wanted)

    def change(self, request: FetchRequest) -> None:
        """Take in what an incremental request adds, changes and forgets."""
        if request.topics:
            self.named += 1
        self._take(wanted_by(request))
        for topic in request.forgotten_topics_data:
            for index in topic.partitions:
                one = self.partitions.pop((topic.topic, topic.topic_id, index), None)
                if one is not None:
                    self._drop(one)

    def _take(self, wanted: Iterable[Wanted]) -> None:
        for one in wanted:
            known = self.partitions.get(one.key)
            if known is not None:
                self._drop(known)
                one.told, one.turn = known.told, known.turn
            else:
                self._turn += 1
                one.turn = self._turn
            one.session = self
            one.since = self.named
            self.partitions[one.key] = one
            self.awake.add(one)

    def _drop(self, one: Wanted) -> None:
        one.stop_sleeping()
        self.awake.discard(one)

    def read_as(self, manner: object) -> None:
        """Say how a request reads: what has nothing to say to one may have to another."""
        if manner != self._manner:
            self._manner = manner
            for one in self.partitions.values():
                one.stop_sleeping()
                self.awake.add(one)

    def in_turn(self, named: int) -> list[Wanted]:
        """What must be looked at, in the order in which it is read.

        Not what was named by requests after the first `named`: they have answers of their own.
        """
        if self._slept > len(self.awake):
            # A set keeps the size it once had, and is gone through at that size.
            self.awake, self._slept = set(self.awake), 0
        found = [one for one in self.awake if one.since <= named]
        found.sort(key=_turn_of)
        return found

    def rotate(self, served: list[Wanted]) -> None:
        """Read last, next time, what had data this time: no partition starves another."""
        for one in served:
            self._turn += 1
            one.turn = self._turn

    def sleep(self, one: Wanted, partition: Partition) -> None:
        """It has been told all there is, and there is nothing to read: see it when it changes."""
        if self.ended or self.partitions.get(one.key) is not one:
            return  # by a request that came while the fetch was waiting
        self.awake.discard(one)
        self._slept += 1
        one.asleep_in = partition
        if partition.sleepers is None:
            partition.sleepers = set()
        partition.sleepers.add(one)

    @property
    def any_asleep(self) -> bool:
        return len(self.awake) < len(self.partitions)

    def end(self) -> None:
        """Let go of the partitions. A fetch that waits in it looks after itself from now on."""
        self.ended = True
        for one in self.partitions.values():
            one.stop_sleeping()
            self.awake.add(one)
        for waiter in list(self.waiters):
            waiter.arrived(waiter.missing)


def _turn_of(one: Wanted) -> int:
    return one.turn


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
            session.end()

    def _evict(self, now: float) -> bool:
        oldest = next(iter(self._sessions.values()), None)
        if oldest is None or now - oldest.last_used < self._eviction_s:
            return False
        self.end(oldest.id)
        return True
