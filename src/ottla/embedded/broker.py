"""Broker: a whole Kafka broker inside the caller's process, and a handle to reach into it.

Owns the handle. Every method may be called from any thread; each one is carried to the broker's
own thread, waits for the answer there, and raises what came of it. Must not touch the node.
"""

from __future__ import annotations

import asyncio
import os
import warnings
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import count as counter
from time import monotonic
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from ottla.cluster.image import ClusterImage, TopicImage
from ottla.cluster.names import is_internal
from ottla.cluster.topics import USE_DEFAULT, NewTopic
from ottla.core import options
from ottla.core.config import Config, InvalidConfig
from ottla.core.config_entries import topic_entries
from ottla.core.topic_config import topic_config
from ottla.embedded.errors import KafkaError
from ottla.embedded.inside import Inside, Offsets, OpenTransaction
from ottla.embedded.records import (
    BATCH_BYTES_MAX,
    Data,
    Fetched,
    Headers,
    Record,
    batch_of,
    checked,
    located,
    make_record,
    next_offset,
    pack,
    partition_for,
    unpack,
)
from ottla.embedded.running import NOT_RUNNING, Running
from ottla.protocol.errors import ErrorCode

T = TypeVar("T")

Setting = str | int | float | bool

PROFILE: Final = {
    "offsets.topic.num.partitions": "1",
    "shutdown.timeout.ms": "200",
    "transaction.state.log.num.partitions": "1",
}
"""What an embedded broker does otherwise than `ottla serve`: it has few groups, for whose offsets
one partition is enough, and a consumer that was left polling doesn't hold up the end of the `with`
block. Everything else is as it would be in production."""

WAIT_S_MAX: Final = 60.0

Isolation = Literal["read_committed", "read_uncommitted"]
ISOLATIONS: Final = ("read_committed", "read_uncommitted")


class Broker:
    """A Kafka broker in this process: `with ottla.Broker() as broker:`, or `async with`.

    It listens on a free port of 127.0.0.1 and keeps its data in a temporary directory, unless
    told otherwise. Any number of them can run side by side. When the block is left, by whatever
    way, it is gone with everything that it made.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        port: int = 0,
        config: Mapping[str, Setting] | None = None,
        *,
        timeout: float = 30.0,
    ) -> None:
        """A broker that is not running yet.

        `data_dir` is made if missing, and kept; without one the data is temporary. `port` 0 picks
        a free one. `config` has broker options by Kafka's names, such as `{"num.partitions": 3}`.
        `timeout` is how many seconds any one call may take.

        Raises ValueError for an option that does not exist or does not take its value.
        """
        if not 0 <= port <= 65535:
            raise ValueError(f"a port is a number from 0 to 65535, not {port}")
        if timeout <= 0:
            raise ValueError(f"timeout is in seconds and more than 0, not {timeout}")
        given = {name: _text(value) for name, value in (config or {}).items()}
        for name in (options.LOG_DIR.name, options.LOG_DIRS.name):
            if name in given:
                raise ValueError(f"give the directory as data_dir, not as {name}")
        listeners = options.LISTENERS.name
        if port and listeners in given:
            raise ValueError(f"give either a port or {listeners}, not both")
        given.setdefault(listeners, f"PLAINTEXT://127.0.0.1:{port}")
        self._given = {**PROFILE, **given}
        try:
            options.broker_config(self._given)
        except InvalidConfig as error:
            raise ValueError(str(error)) from None
        # The caller may change its working directory while the broker runs.
        self._data_dir = None if data_dir is None else os.path.abspath(os.fspath(data_dir))
        self._timeout_s = timeout
        self._running: Running | None = None
        self._address = ""
        self._turns: dict[bytes, Iterator[int]] = {}

    # --- start and stop --------------------------------------------------------------------

    def start(self) -> Self:
        """Start, and return once clients can connect. `with` does this.

        Raises StartError with one sentence where it can't (the port or the directory is in use),
        RuntimeError the second time.
        """
        running = self._new_running()
        try:
            running.start()
            self._address = str(running.ready.result())
        except BaseException:  # KeyboardInterrupt too: nothing may stay behind
            running.stop()
            running.join()
            raise
        return self

    def close(self) -> None:
        """Stop; return when everything is gone. May be repeated. `with` does this.

        Requests in process are answered first, for up to `shutdown.timeout.ms` (200). In a process
        that was forked from the broker's this does nothing. Raises KafkaError with
        KAFKA_STORAGE_ERROR where the data could not be written.
        """
        running = self._running
        if running is not None and running.pid == os.getpid():
            running.stop()
            running.join()

    def __enter__(self) -> Self:
        running = self._running
        if running is None or running.ended.done():
            return self.start()  # which a closed one refuses
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        """As `start`, without holding up the caller's loop."""
        begun = self._running
        if begun is not None and not begun.ended.done():
            return self
        running = self._new_running()
        try:
            running.start()
            await _done(running.ready)
            self._address = str(running.ready.result())
        except BaseException:
            running.stop()
            running.join()  # holds up the loop for some 10 ms, and leaves nothing behind
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As `close`, without holding up the caller's loop."""
        running = self._running
        if running is not None and running.pid == os.getpid():
            running.stop()
            try:
                await _done(running.ended)
            finally:
                running.join()  # at once, unless the caller was cancelled while it waited

    def __repr__(self) -> str:
        running = self._running
        if running is None:
            return "<ottla.Broker, not started>"
        if running.ended.done():
            return "<ottla.Broker, closed>"
        return f"<ottla.Broker on {self._address or 'its way'}>"

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect: `host:port`, for their option `bootstrap.servers`.

        Raises RuntimeError before the start.
        """
        if not self._address:
            raise RuntimeError("the broker has no address before it is started")
        return self._address

    # --- topics ----------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int | None = None,
        configs: Mapping[str, Setting] | None = None,
    ) -> None:
        """Make a topic; on return every client finds it.

        `partitions` is `num.partitions` by default; `configs` are topic options by Kafka's names.
        Raises KafkaError: TOPIC_ALREADY_EXISTS, INVALID_TOPIC_EXCEPTION for a name that can't be,
        INVALID_PARTITIONS, INVALID_CONFIG.
        """
        wanted = {option: _text(value) for option, value in (configs or {}).items()}
        if partitions is not None and partitions < 1:
            raise ValueError(f"a topic has at least one partition, not {partitions}")
        count = USE_DEFAULT if partitions is None else partitions
        self._do(self._inside().create_topic(NewTopic(name, count, configs=wanted)))

    def delete_topic(self, name: str) -> None:
        """Delete a topic; on return no client finds it. Raises KafkaError."""
        self._do(self._inside().delete_topic(name))

    def topics(self) -> dict[str, int]:
        """The topics by name, each with its number of partitions. Kafka's own are left out."""
        topics = self._image().topics
        return {n: len(topics[n].partitions) for n in sorted(topics) if not is_internal(n)}

    def topic_configs(self, name: str) -> dict[str, str]:
        """Every option of a topic with the value in force, as Kafka writes it.

        Raises KafkaError with UNKNOWN_TOPIC_OR_PARTITION.
        """
        topic = self._topic(name)
        entries = topic_entries(self._config, topic.configs)
        return {one.name: one.text or "" for one in entries}

    def set_topic_configs(self, name: str, configs: Mapping[str, Setting | None]) -> None:
        """Set options of a topic by Kafka's names, while it is in use; None is the default again.

        Others keep their values. Raises KafkaError: UNKNOWN_TOPIC_OR_PARTITION, INVALID_CONFIG.
        """
        self._topic(name)
        wanted = {n: None if value is None else _text(value) for n, value in configs.items()}
        self._do(self._inside().alter_topic(name, wanted))

    def create_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions, `total` in all, while it is in use.

        Raises KafkaError: UNKNOWN_TOPIC_OR_PARTITION, INVALID_PARTITIONS if it has as many.
        """
        self._topic(name)
        self._do(self._inside().create_partitions(name, total))

    # --- groups ----------------------------------------------------------------------------

    def group_timeline(self, group: str) -> list[dict[str, Any]]:
        """What happened to a group lately, of either protocol, oldest first.

        Each event has `at_ms`, `kind`, `generation`, `member`, `text` (who, why) and `took_ms`
        (how long the phase before it took). Empty for a group that is not known or only commits.
        """
        return self._do(self._inside().group_timeline(group))

    # --- watching --------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """What the node has counted so far: what /stats of a served broker says, as a dict.

        docs/metrics.md describes it.
        """
        return self._now_running().stats()

    # --- offsets ---------------------------------------------------------------------------

    def offsets(self, topic: str, partition: int = 0) -> Offsets:
        """The partition's first offset and its high watermark, which is where readers stop.

        Raises KafkaError with UNKNOWN_TOPIC_OR_PARTITION.
        """
        numbers = self._partitions(topic, partition)
        return self._do(self._inside().offsets(topic, numbers))[partition]

    def offset_for_time(self, topic: str, timestamp: int, partition: int = 0) -> int | None:
        """The offset of the first record at or after `timestamp` (ms since 1970), or None.

        Raises KafkaError with UNKNOWN_TOPIC_OR_PARTITION.
        """
        if timestamp < 0:
            raise ValueError(f"a timestamp is in milliseconds since 1970, not {timestamp}")
        self._partitions(topic, partition)
        found = self._do(self._inside().offset_for_time(topic, partition, timestamp))
        return None if found < 0 else found

    def open_transactions(self, topic: str, partition: int | None = None) -> list[OpenTransaction]:
        """The transactions that have no end yet in a partition, or in any: whose, and since when.

        Raises KafkaError with UNKNOWN_TOPIC_OR_PARTITION.
        """
        numbers = self._partitions(topic, partition)
        return self._do(self._inside().open_transactions(topic, numbers))

    # --- records ---------------------------------------------------------------------------

    def append(
        self,
        topic: str,
        value: Data,
        *,
        key: Data = None,
        headers: Headers = (),
        timestamp: int | None = None,
        partition: int | None = None,
    ) -> Record:
        """Append one record, and return it as it was stored, with partition and offset.

        Text is stored as UTF-8. Without a partition the key decides, as in Kafka's own producer
        (murmur2); without a key the partitions take turns. `timestamp` is in ms since 1970, now by
        default. A topic that does not exist is made, if `auto.create.topics.enable`.

        On return the record is committed: it is on the disk and readers see it, as after
        acks=all. Raises KafkaError for what a producer would be refused, TypeError, ValueError.
        """
        record = make_record(value, key, headers, timestamp)
        if partition is not None:
            if partition < 0:
                raise ValueError(f"partitions are numbered from 0 on, and {partition} is none")
            record = record._replace(partition=partition)
        return self.extend(topic, [record])[0]

    def extend(self, topic: str, records: Iterable[Record | Data]) -> list[Record]:
        """Append many records, in batches; a bare value is a record without a key.

        Returns them in their order, as `append` does. A partition's records keep their order.
        After an error the first batches may have been appended.
        """
        image = self._topic_or_new(topic)
        partitions_count = len(image.partitions)
        turns = self._turns.setdefault(image.id, counter())
        now = self._now_ms()
        queues: dict[int, list[Record]] = {}
        places: list[tuple[int, int]] = []
        for one in records:
            record = checked(one) if isinstance(one, Record) else make_record(one, None, (), None)
            number = record.partition
            if number < 0:
                key = record.key
                number = next(turns) if key is None else partition_for(key, partitions_count)
                number %= partitions_count
            elif number >= partitions_count:
                raise _no_partition(topic, number, partitions_count)
            timestamp = now if record.timestamp < 0 else record.timestamp
            queue = queues.setdefault(number, [])
            places.append((number, len(queue)))
            queue.append(record._replace(partition=number, timestamp=timestamp))
        largest = topic_config(self._config, image.configs).max_message_bytes
        stored = self._append(topic, queues, min(largest, BATCH_BYTES_MAX))
        return [stored[number][place] for number, place in places]

    def _append(
        self, topic: str, queues: Mapping[int, list[Record]], bytes_max: int
    ) -> dict[int, list[Record]]:
        """A batch of each partition at a time, which one sync then covers together."""
        stored: dict[int, list[Record]] = {number: [] for number in queues}
        groups = {number: pack(queue, bytes_max) for number, queue in queues.items()}
        timeout_ms = round(self._timeout_s * 1000)
        while turn := {n: group for n, left in groups.items() if (group := next(left, None))}:
            batches = {number: batch_of(group) for number, group in turn.items()}
            placed = self._do(self._inside().append(topic, batches, timeout_ms))
            for number, group in turn.items():
                stored[number] += located(group, placed[number])
        return stored

    def read(
        self,
        topic: str,
        partition: int | None = None,
        *,
        offset: int | None = None,
        count: int | None = None,
        timeout: float | None = None,
        isolation: Isolation = "read_committed",
    ) -> Iterator[Record]:
        """Read records: what is there, from `offset` (or the first) to the high watermark.

        What was written in a transaction is there once that is committed, and never if it is
        aborted; by `isolation` "read_uncommitted" it is there at once, whatever comes of it.
        Without a partition all are read, one after the other. `count` is how many to read at
        most; with a `timeout` in seconds as well, they are waited for.

        Raises KafkaError (UNKNOWN_TOPIC_OR_PARTITION, OFFSET_OUT_OF_RANGE) and ValueError at once;
        while it is iterated KafkaError, and TimeoutError where `count` records did not come.
        """
        if timeout is not None and count is None:
            raise ValueError("a timeout needs a count: how many records to wait for")
        if count is not None and count < 0:
            raise ValueError(f"count is at least 0, not {count}")
        if isolation not in ISOLATIONS:
            raise ValueError(f"isolation is one of {', '.join(ISOLATIONS)}, not {isolation!r}")
        numbers = self._partitions(topic, partition)
        if offset is not None and len(numbers) > 1:
            raise ValueError("an offset belongs to one partition: say which")
        bounds = self._do(self._inside().offsets(topic, numbers))
        at = {number: bounds[number].start for number in numbers}
        if offset is not None:
            [number] = numbers
            if not bounds[number].start <= offset <= bounds[number].high_watermark:
                start, end = bounds[number]
                message = f"{topic}-{number} has offsets from {start} to {end}, not {offset}"
                raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, message)
            at[number] = offset
        reader = _Reader(self, topic, at, count, committed=isolation == "read_committed")
        if timeout is None:
            return reader.read_until({n: bounds[n].high_watermark for n in numbers})
        return reader.read_within(timeout)

    # --- the way to the broker's thread ----------------------------------------------------

    def _fetch(
        self, topic: str, offsets: Mapping[int, int], wait_s: float, *, committed: bool
    ) -> dict[int, Fetched]:
        work = self._inside().fetch(topic, offsets, wait_s, committed=committed)
        return self._do(work, self._timeout_s + wait_s)

    @property
    def _config(self) -> Config:
        """The node's own, which changes while it runs."""
        return self._inside().context.config

    @property
    def _decompressed_max(self) -> int:
        return self._config[options.DECOMPRESSED_BYTES_MAX]

    def _new_running(self) -> Running:
        if self._running is not None:
            raise RuntimeError("a Broker is started once: make another one")
        self._running = running = Running(self._given, self._data_dir)
        weakref.finalize(self, _forgotten, running).atexit = False
        return running

    def _now_running(self) -> Running:
        running = self._running
        if running is None:
            raise RuntimeError(NOT_RUNNING)
        running.check()
        return running

    def _inside(self) -> Inside:
        running = self._now_running()
        if running.inside is None or running.ended.done():
            raise RuntimeError(NOT_RUNNING)
        return running.inside

    def _do(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        return self._now_running().call(work, timeout_s or self._timeout_s)

    def _now_ms(self) -> int:
        return self._inside().context.clock.wall_ms()

    def _image(self) -> ClusterImage:
        # Immutable, and replaced as a whole: fit to be looked at from any thread.
        return self._inside().context.image()

    def _topic(self, name: str) -> TopicImage:
        topic = self._image().topics.get(name)
        if topic is None:
            message = f"there is no topic {name!r}"
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, message)
        return topic

    def _topic_or_new(self, name: str) -> TopicImage:
        if name not in self._image().topics and self._config[options.AUTO_CREATE_TOPICS]:
            self._do(self._inside().auto_create(name))
        return self._topic(name)

    def _partitions(self, topic: str, partition: int | None) -> Sequence[int]:
        """The one partition, or all. Raises KafkaError with UNKNOWN_TOPIC_OR_PARTITION."""
        partitions_count = len(self._topic(topic).partitions)
        if partition is None:
            return range(partitions_count)
        if not 0 <= partition < partitions_count:
            raise _no_partition(topic, partition, partitions_count)
        return [partition]


class _Reader:
    """One reading of a topic: where it is in each partition, and how many records are left."""

    def __init__(
        self, broker: Broker, topic: str, at: dict[int, int], count: int | None, *, committed: bool
    ) -> None:
        self._committed = committed
        self._broker = broker
        self._topic = topic
        self._at = at
        self._count = count
        self._read_count = 0

    def read_until(self, ends: Mapping[int, int]) -> Iterator[Record]:
        """One partition after the other, each up to before its end."""
        for number, end in ends.items():
            while self._at[number] < end and not self._enough():
                before = self._at[number]
                yield from self._unpacked(self._fetch({number: before}, 0.0), end)
                if self._at[number] == before:
                    break  # a transaction is open, or retention or a deletion was faster

    def read_within(self, timeout: float) -> Iterator[Record]:
        """As they come in any partition, until there are enough. Raises TimeoutError."""
        deadline = monotonic() + timeout
        wait_s = 0.0
        while not self._enough():
            yield from self._unpacked(self._fetch(self._at, wait_s))
            left_s = deadline - monotonic()
            if not self._enough() and left_s <= 0:
                raise TimeoutError(
                    f"{self._count} records of {self._topic} did not come within {timeout:g} s: "
                    f"there were {self._read_count}"
                )
            wait_s = min(left_s, WAIT_S_MAX)

    def _fetch(self, offsets: Mapping[int, int], wait_s: float) -> dict[int, Fetched]:
        return self._broker._fetch(self._topic, offsets, wait_s, committed=self._committed)

    def _enough(self) -> bool:
        return self._count is not None and self._read_count >= self._count

    def _unpacked(self, fetched: Mapping[int, Fetched], end: int | None = None) -> Iterator[Record]:
        decompressed_max = self._broker._decompressed_max
        for number, piece in fetched.items():
            start = self._at[number]
            for record in unpack(piece, number, start, decompressed_max):
                if self._enough() or (end is not None and record.offset >= end):
                    return
                self._at[number] = record.offset + 1
                self._read_count += 1
                yield record
            self._at[number] = next_offset(piece.data, start)


async def _done(future: Future[Any]) -> None:
    """Wait on the caller's loop, whatever comes of `future`; it is never cancelled by that."""
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # was looked at
    await asyncio.wait((waiting,))


def _no_partition(topic: str, partition: int, partitions_count: int) -> KafkaError:
    has = "one partition" if partitions_count == 1 else f"{partitions_count} partitions"
    message = f"topic {topic!r} has {has}, and none is number {partition}"
    return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, message)


def _forgotten(running: Running) -> None:
    """A handle went away without `close`. Must not wait: the collector may run in any thread."""
    if running.pid == os.getpid() and not running.ended.done():
        running.stop()  # first: a warning may be made an error
        warnings.warn("a Broker was not closed: use `with`", ResourceWarning, stacklevel=2)


def _text(value: Setting) -> str:
    """A value as Kafka writes it. Raises TypeError."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(f"an option's value is str, int, float or bool, not {type(value).__name__}")
