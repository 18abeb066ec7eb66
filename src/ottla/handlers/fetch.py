"""Fetch, key 1, versions 4 to 18.

Answers with slices of files that the server sends without reading them. Waits for min_bytes by
counting down the bytes still missing; the append that reaches zero wakes it once. As in Kafka it
does not wait where more is there than it may take in: behind the end of a segment.
v4 isolation level · v5 log start offset · v7 sessions (KIP-227) · v9 leader epoch (KIP-320)
v11 rack (KIP-392) · v12 flexible, diverging epoch (KIP-595) · v13 topic ids (KIP-516)
v15 replica state (KIP-903) · v16 leader endpoints (KIP-951) · v17 directory id · v18 (KIP-1166).
A follower's fetch is answered NOT_LEADER_OR_FOLLOWER: a node has no followers yet. By isolation
level read_committed a fetch ends at the last stable offset, and is told what to skip below it.
Where Kafka 4.3.1 differs: a partition named twice is answered once, by what was named last; limits
below 0 are UNKNOWN_SERVER_ERROR, here they are 0, and so is an isolation level that does not exist,
here INVALID_REQUEST; bytes that are not in memory stall a thread.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from ottla.core import options
from ottla.core.model import FileSlice, LeaderEpoch, Offset
from ottla.core.pending import Pending, when_all
from ottla.core.ports import DiskError
from ottla.handlers.fetch_sessions import (
    FINAL_EPOCH,
    INITIAL_EPOCH,
    NO_SESSION,
    Session,
    Sessions,
    Wanted,
    wanted_by,
)
from ottla.handlers.limits import too_many
from ottla.handlers.offset_for_leader_epoch import end_of_epoch
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.codec import encoder, write_uvarint
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.fetch import (
    AbortedTransaction,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)
from ottla.replication.partition import Partition, ReadWaiter
from ottla.storage.checked import Cold

if TYPE_CHECKING:
    from ottla.handlers.context import Context, Request

FLEXIBLE_SINCE = 12
TOPIC_IDS_SINCE = 13
REPLICA_STATE_SINCE = 15
SESSIONS_SINCE = 7
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
_NONE: frozenset[int] = frozenset()
_WARM_S = 10.0
"""How long a disk may take to bring pages in before the client is told to come again."""
_FILES_MAX = 256
"""Files that one answer may need open at once: who reads thousands of partitions is served by
turns, as the process may not have a descriptor for each."""
_WARMINGS_MAX = 64
"""How often a fetch is tried again when pages leave memory faster than it can send them."""


def handle(context: Context, request: Request[FetchRequest]) -> Reply | Parked:
    """Read every wanted partition; wait for min_bytes until max_wait_ms (KIP-74)."""
    body = request.body
    if not READ_UNCOMMITTED <= body.isolation_level <= READ_COMMITTED:
        return _refused_whole(request, wanted_by(body), ErrorCode.INVALID_REQUEST)
    session: Session | None = None
    incremental = False
    if request.api_version < SESSIONS_SINCE or (
        body.session_epoch == FINAL_EPOCH and body.session_id == NO_SESSION
    ):
        wanted = wanted_by(body)
    else:
        sessions = _shared(context).sessions
        by_id = request.api_version >= TOPIC_IDS_SINCE
        if body.session_epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            sessions.end(body.session_id)
            wanted = wanted_by(body)
            if body.session_epoch == INITIAL_EPOCH:
                session = sessions.begin(wanted, by_id=by_id)
                if session is None and sessions.slots_max:
                    context.complaints.about(
                        options.FETCH_SESSIONS_MAX.name,
                        request.connection.peer,
                        "no room for its fetch session: it goes on with full fetches",
                    )
        else:
            found = sessions.resume(body, by_id=by_id)
            if isinstance(found, ErrorCode):
                return Reply(FetchResponse(error_code=found, session_id=NO_SESSION, responses=[]))
            session, incremental = found, True
            wanted = []  # what is awake, at each attempt
            if not session.partitions:
                sessions.end(session.id)
                session = None
    count = len(session.partitions) if incremental and session is not None else len(wanted)
    if count > 1 and too_many(context, request, count):
        if session is not None:
            _shared(context).sessions.end(session.id)
        return _refused_whole(request, wanted, ErrorCode.INVALID_REQUEST)
    return Fetch(context, request, wanted, session, incremental).attempt()


_pack_offsets = Struct(">qqq").pack  # high watermark, last stable offset, log start
_ANYTHING = _pack_offsets(-2, -2, -2)
_pack_length = Struct(">i").pack


def quick(context: Context, version: int, body: FetchRequest) -> list[bytes | FileSlice] | None:
    """The usual fetch without a session: one partition, of which there is enough to answer.

    Does what `handle` does with it, and knows nothing else: errors, waiting, what is cold and what
    was taken back are left to that.
    """
    topics = body.topics
    if (
        version < SESSIONS_SINCE
        or len(topics) != 1
        or len(topics[0].partitions) != 1
        or body.session_epoch != FINAL_EPOCH
        or body.session_id != NO_SESSION
        or not READ_UNCOMMITTED <= body.isolation_level <= READ_COMMITTED
        or (body.replica_state if version >= REPLICA_STATE_SINCE else body).replica_id >= 0
    ):
        return None
    topic = topics[0]
    part = topic.partitions[0]
    table = context.table
    if version >= TOPIC_IDS_SINCE:
        partition = table.get_by_id(topic.topic_id, part.partition)
    else:
        partition = table.get(topic.topic, part.partition)
    if (
        type(partition) is ErrorCode
        or part.last_fetched_epoch >= 0
        or partition.check_epoch(part.current_leader_epoch)
    ):
        return None
    offset = Offset(part.fetch_offset)
    room = min(part.partition_max_bytes, body.max_bytes, context.config[options.FETCH_BYTES_MAX])
    committed = body.isolation_level == READ_COMMITTED
    piece = partition.read(offset, max(room, 0), committed=committed)
    if type(piece) is not FileSlice:
        if isinstance(piece, Cold):
            piece.slice.release()
        return None
    aborted = partition.aborted_in(offset, piece) if committed else None
    enough = piece.length >= body.min_bytes or partition.more_behind(piece, committed=committed)
    if aborted or not enough:
        partition.give_back(piece)
        if isinstance(aborted, Cold):
            aborted.slice.release()
        return None
    key = -version if committed else version
    before, between, behind = (partition.fetch_answers or {}).get(key) or _around(partition, key)
    high = partition.high_position
    stable = partition.last_stable if partition.stable_position is not high else high.offset
    offsets = _pack_offsets(high.offset, stable, partition.log.start)
    length = piece.length
    size = write_uvarint(length + 1) if version >= FLEXIBLE_SINCE else _pack_length(length)
    return [before + offsets + between + size, piece, behind]


def _around(partition: Partition, key: int) -> tuple[bytes, bytes, bytes]:
    """What stands before, between and behind offsets and records in an answer for one partition.

    Kept there, by the version: below 0 for readers of committed records.
    """
    version = abs(key)
    none, one = (
        _encoded(partition, version, records, committed=key < 0) for records in (b"", b"\0")
    )
    # A length is 1 and 2 in one byte, or 0 and 1 in four.
    at = next(n for n, (a, b) in enumerate(zip(none, one, strict=False)) if a != b) + 1
    size_bytes = 1 if version >= FLEXIBLE_SINCE else 4
    begin = none.rindex(_ANYTHING, 0, at)
    found = none[:begin], none[begin + len(_ANYTHING) : at - size_bytes], none[at:]
    if partition.fetch_answers is None:
        partition.fetch_answers = {}
    partition.fetch_answers[key] = found
    return found


def _encoded(partition: Partition, version: int, records: bytes, *, committed: bool) -> bytes:
    data = PartitionData(
        partition_index=partition.key.partition,
        high_watermark=-2,
        last_stable_offset=-2,
        log_start_offset=-2,
        aborted_transactions=[] if committed else None,
        records=records,
    )
    topic = FetchableTopicResponse(
        topic=partition.key.topic, topic_id=partition.topic_id, partitions=[data]
    )
    answer = FetchResponse(session_id=NO_SESSION, responses=[topic])
    (whole,) = encoder(FetchResponse, version)(answer)
    assert type(whole) is bytes, "there are no slices in it"
    return whole


class Shared:
    """What the fetches of a node have in common: their sessions, and how many are parked."""

    __slots__ = ("parked", "sessions")

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.parked = 0


def _shared(context: Context) -> Shared:
    shared: Shared | None = context.kept.get("fetch")
    if shared is None:
        config = context.config
        sessions = Sessions(
            context.clock,
            config[options.FETCH_SESSIONS_MAX],
            config[options.FETCH_SESSION_PARTITIONS_MAX],
            config[options.FETCH_SESSION_EVICTION_MS],
        )
        shared = context.kept["fetch"] = Shared(sessions)
    return shared


class Fetch:
    """One Fetch request from arrival to answer. Between attempts it holds no slice."""

    __slots__ = (
        "body",
        "bytes_max",
        "committed",
        "context",
        "deadline",
        "files",
        "got",
        "idle",
        "incremental",
        "named",
        "replica_id",
        "request",
        "session",
        "unread",
        "urgent",
        "waited_for",
        "waiter",
        "wanted",
        "warmings_count",
    )

    def __init__(
        self,
        context: Context,
        request: Request[FetchRequest],
        wanted: list[Wanted],
        session: Session | None,
        incremental: bool,
    ) -> None:
        body = request.body
        self.context = context
        self.request = request
        self.body = body
        self.committed = body.isolation_level == READ_COMMITTED
        self.wanted = wanted
        self.session = session
        self.incremental = incremental
        self.waiter: ReadWaiter | None = None
        self.got = 0
        """Bytes that this attempt has found."""
        self.files = 0
        """How many of them it has found them in."""
        self.urgent = False
        """Whether it must be answered at once, however little it is."""
        self.idle: list[tuple[Wanted, Partition]] = []
        """What this attempt has read to its end."""
        self.unread: frozenset[int] = _NONE
        """Partitions that the disk could not read, by id() of what is wanted of them."""
        self.waited_for: frozenset[int] = _NONE
        """Partitions whose bytes had to be brought, likewise: each counts once, however often."""
        self.warmings_count = 0
        self.bytes_max = min(max(body.max_bytes, 0), context.config[options.FETCH_BYTES_MAX])
        state_since = request.api_version >= REPLICA_STATE_SINCE
        self.replica_id = body.replica_state.replica_id if state_since else body.replica_id
        self.deadline: float | None = None
        """Monotonic seconds; known once something has to be waited for."""
        self.named = 0
        """Up to which of the session's requests it counts."""
        if session is not None:
            self.named = session.named
            session.read_as((body.isolation_level, self.replica_id))

    def attempt(self) -> Reply | Parked:
        """Read what is there: answer if it is enough, else park until it may be."""
        read: list[tuple[Wanted, PartitionData]] = []
        watched: list[Partition] = []
        cold: list[tuple[Wanted, Partition, Cold]] = []
        self.got = self.files = 0
        self.idle = []
        session = self.session if self.incremental else None
        for wanted in self.wanted if session is None else session.in_turn(self.named):
            data, partition = self._read(wanted, cold)
            read.append((wanted, data))
            if partition is None:
                self.urgent = True  # an error: the client must hear of it at once
            else:
                watched.append(partition)
        if cold:
            return self._warm(read, cold)
        if self.got >= self.body.min_bytes or self.urgent:
            return self._reply(read)
        if not watched and (session is None or not session.any_asleep):
            return self._reply(read)
        left_s = self._left_s()
        if left_s <= 0:
            return self._reply(read)
        shared = _shared(self.context)
        if shared.parked >= self.context.config[options.FETCH_PARKED_MAX]:
            self.context.complaints.about(
                options.FETCH_PARKED_MAX.name,
                self.request.connection.peer,
                f"{shared.parked} fetches wait already: answered at once",
            )
            return self._reply(read)
        self._give_back(read)
        shared.parked += 1
        missing = self.body.min_bytes - self.got
        self.waiter = waiter = ReadWaiter(missing, committed=self.committed)
        for partition in watched:
            waiter.watch(partition)
        if session is not None:
            session.waiters.add(waiter)
        return Parked(waiter.pending, self._woken, left_s, abandon=self._leave)

    def _left_s(self) -> float:
        """How long may be waited. An answer that is there at once never asks, nor does a clock."""
        now = self.context.clock.monotonic()
        if self.deadline is None:
            config = self.context.config
            wait_ms = min(max(self.body.max_wait_ms, 0), config[options.FETCH_WAIT_MS_MAX])
            self.deadline = now + wait_ms / 1000
        return self.deadline - now

    def _leave(self) -> None:
        assert self.waiter is not None, "only a parked fetch leaves"
        self.waiter.leave()
        if self.session is not None:
            self.session.waiters.discard(self.waiter)
        self.waiter = None
        _shared(self.context).parked -= 1

    def _woken(self) -> Reply | Parked:
        assert self.waiter is not None, "only a parked fetch is woken"
        self.urgent = not self.waiter.pending.done  # by its deadline
        self._leave()
        return self.attempt()

    def _warm(
        self,
        read: list[tuple[Wanted, PartitionData]],
        cold: list[tuple[Wanted, Partition, Cold]],
    ) -> Parked | Reply:
        """Let the disk's threads bring the pages in; the loop never waits for a disk."""

        def release() -> None:
            for _wanted, _partition, missing in cold:
                missing.slice.release()

        if self.warmings_count == _WARMINGS_MAX:
            release()
            return self._reply(read)
        self.warmings_count += 1
        self.waited_for |= {id(wanted) for wanted, _partition, _missing in cold}
        self._left_s()  # the time that warming takes counts
        self._give_back(read)
        warming = [missing.bring(self.context.disk) for _, _, missing in cold]
        warmed = when_all(warming)

        def again() -> Reply | Parked:
            for (wanted, partition, _missing), pending in zip(cold, warming, strict=True):
                if not _is_warm(partition, pending):
                    self.unread |= {id(wanted)}
            # After the deadline the threads may still be reading, as below.
            warmed.then(release)
            return self.attempt()

        def abandon() -> None:
            # The threads may still be reading: let go of the files only when they are done.
            warmed.abandon()
            warmed.then(release)

        return Parked(warmed, again, _WARM_S, abandon=abandon)

    # --- one partition ---------------------------------------------------------------------

    def _read(
        self, wanted: Wanted, cold: list[tuple[Wanted, Partition, Cold]]
    ) -> tuple[PartitionData, Partition | None]:
        """What one partition has to say, and the partition itself unless that is an error."""
        partition = self._find(wanted)
        # `type … is`: isinstance asks an enum's metaclass, which takes five times as long.
        if type(partition) is ErrorCode:
            return _refusal(wanted, partition), None
        high = partition.high_position  # not by its properties: a fetch may ask thousands of these
        moved = partition.stable_position is not high
        data = PartitionData(
            partition_index=wanted.partition,
            high_watermark=high.offset,
            last_stable_offset=partition.last_stable if moved else high.offset,
            log_start_offset=partition.log.start,
            aborted_transactions=[] if self.committed else None,
            records=b"",
        )
        if wanted.last_fetched_epoch >= 0:
            epoch, end = end_of_epoch(partition, LeaderEpoch(wanted.last_fetched_epoch))
            if end < 0:
                return _refusal(wanted, ErrorCode.OFFSET_OUT_OF_RANGE), None
            if epoch < wanted.last_fetched_epoch or end < wanted.offset:
                data.diverging_epoch = EpochEndOffset(epoch=epoch, end_offset=end)
                return data, None
        got = self.got
        room = self.bytes_max - got
        room = min(room, wanted.bytes_max)
        if room <= 0:
            if got:
                return data, partition
            room = 0
        if self.files >= _FILES_MAX:
            self.urgent = True
            return data, partition
        committed = self.committed
        piece = partition.read(Offset(wanted.offset), room, committed=committed)
        if piece is None:
            if self.session is not None:
                self.idle.append((wanted, partition))
            return data, partition
        if committed and type(piece) is FileSlice:
            piece = _with_aborted(data, wanted, partition, piece)
        if type(piece) is FileSlice:
            if got and piece.length > room:
                # only the first batch of an answer may exceed its limits
                partition.give_back(piece)
                data.aborted_transactions = [] if committed else None
            else:
                data.records = piece
                self.got = got + piece.length
                self.files += 1
                if partition.more_behind(piece, committed=committed):
                    self.urgent = True
        elif isinstance(piece, Cold):
            if id(wanted) in self.unread:
                piece.slice.release()
                return _refusal(wanted, ErrorCode.KAFKA_STORAGE_ERROR), None
            cold.append((wanted, partition, piece))
            self.files += 1
            if id(wanted) not in self.waited_for:
                partition.tally.cold += 1
            self.got = got + piece.slice.length  # so that no more is warmed than will be sent
        else:
            assert isinstance(piece, ErrorCode), "the last that a read can be"
            return _refusal(wanted, piece), None
        return data, partition

    def _find(self, wanted: Wanted) -> Partition | ErrorCode:
        table = self.context.table
        if self.request.api_version >= TOPIC_IDS_SINCE:
            partition = table.get_by_id(wanted.topic_id, wanted.partition)
        else:
            partition = table.get(wanted.topic, wanted.partition)
        if type(partition) is ErrorCode:
            return partition
        if self.replica_id >= 0:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        return partition.check_epoch(wanted.leader_epoch) or partition

    def _give_back(self, read: list[tuple[Wanted, PartitionData]]) -> None:
        """Let go of what is not answered now: it will be read again."""
        for wanted, data in read:
            if isinstance(data.records, FileSlice):
                partition = self._find(wanted)
                assert type(partition) is not ErrorCode, "what was read was found"
                partition.give_back(data.records)
                data.records = b""

    # --- the answer ------------------------------------------------------------------------

    def _reply(self, read: list[tuple[Wanted, PartitionData]]) -> Reply:
        session = self.session
        if session is not None:
            served = [wanted for wanted, data in read if data.records]
            told = [one for one in read if one[0].news(one[1])]
            if self.incremental:
                read = told
            session.rotate(served)
            for wanted, partition in self.idle:
                session.sleep(wanted, partition)
        session_id = NO_SESSION if session is None else session.id
        return Reply(FetchResponse(session_id=session_id, responses=_by_topic(read)))


def _with_aborted(
    data: PartitionData, wanted: Wanted, partition: Partition, piece: FileSlice
) -> FileSlice | Cold | ErrorCode:
    """The slice, with what a reader of committed records skips in it noted beside it."""
    aborted = partition.aborted_in(Offset(wanted.offset), piece)
    if isinstance(aborted, list):
        if aborted:
            data.aborted_transactions = [
                AbortedTransaction(producer_id=one.producer_id, first_offset=one.first_offset)
                for one in aborted
            ]
        return piece
    piece.release()
    return aborted


def _is_warm(partition: Partition, warming: Pending[None]) -> bool:
    """Whether the disk did it, and in time; else it is reported."""
    if not warming.done:
        return False
    try:
        warming.result()
    except DiskError as error:
        partition.on_read_error(error)
        return False
    return True


_UNKNOWN = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID)


def _by_topic(read: list[tuple[Wanted, PartitionData]]) -> list[FetchableTopicResponse]:
    topics: dict[tuple[str, bytes], FetchableTopicResponse] = {}
    for wanted, data in read:
        name = (wanted.topic, wanted.topic_id)
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = FetchableTopicResponse(
                topic=wanted.topic, topic_id=wanted.topic_id, partitions=[]
            )
        topic.partitions.append(data)
    return list(topics.values())


def _refused_whole(request: Request[FetchRequest], wanted: list[Wanted], error: ErrorCode) -> Reply:
    """An error for all that was asked: where the version has no place for one, in each part."""
    if request.api_version >= SESSIONS_SINCE:
        return Reply(FetchResponse(error_code=error, responses=[]))
    return Reply(
        FetchResponse(responses=_by_topic([(one, _refusal(one, error)) for one in wanted]))
    )


def _refusal(wanted: Wanted, error: ErrorCode) -> PartitionData:
    return PartitionData(
        partition_index=wanted.partition,
        error_code=error,
        high_watermark=-1,
        last_stable_offset=-1,
        log_start_offset=-1,
        aborted_transactions=[] if error in _UNKNOWN else None,  # as Kafka's answers have it
        records=b"",
    )
