"""The node as its own process asks it: handlers without a connection.

Owns what the driver is to a connection: seeing a request through its waits to its answer. Every
method runs on the node's loop. Must not decide anything that a handler decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from ottla.cluster.configs import Alteration, ConfigOp, ResourceType
from ottla.cluster.controller import TopicRef
from ottla.cluster.partitions import MorePartitions
from ottla.cluster.topics import NewTopic, Refused, TopicResult
from ottla.core.endpoints import Endpoint
from ottla.core.model import FileSlice
from ottla.core.pending import Pending
from ottla.embedded.errors import KafkaError, raise_for
from ottla.embedded.records import Fetched, Placed
from ottla.handlers.context import ConnectionState, Context, Request
from ottla.handlers.registry import API, Api
from ottla.handlers.reply import Parked
from ottla.handlers.timelines import timeline_of
from ottla.protocol.errors import ErrorCode
from ottla.replication.partition import Partition

BY_NAME_UNTIL = 12
"""The last version of Produce and Fetch that names topics; later ones have their ids."""
FETCH_BYTES_MAX = 1 << 20


class Offsets(NamedTuple):
    """The offsets that a partition can be read at: from `start` up to before `high_watermark`."""

    start: int
    high_watermark: int


class OpenTransaction(NamedTuple):
    """A transaction that holds back those who read committed records from `first_offset` on.

    `since_ms` is when it wrote its first record there, in milliseconds since 1970.
    `transactional_id` is None where no coordinator knows of it: then nobody will end it.
    """

    partition: int
    first_offset: int
    since_ms: int
    producer_id: int
    producer_epoch: int
    transactional_id: str | None


class Inside:
    """What can be asked of a running node."""

    def __init__(self, context: Context, endpoint: Endpoint) -> None:
        self.context = context
        self._state = ConnectionState("the embedding process", "PLAINTEXT", endpoint)

    async def ask(self, body: Any, version: int | None = None) -> Any:
        """The response to a request message, by the handler that a client's would reach.

        Raises KafkaError where the API is not served.
        """
        api = API.get(type(body).KEY)
        if api is None:
            message = f"{type(body).__name__} is not served by this version of ottla"
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, message)
        handle = import_module(f"ottla.handlers.{api.module}").handle
        request = Request(api.key, version or api.highest, 0, "ottla", body, self._state)
        outcome = handle(self.context, request)
        while isinstance(outcome, Parked):
            try:
                await settled(outcome.pending, outcome.deadline_s)
            except asyncio.CancelledError:
                outcome.pending.abandon()
                if outcome.abandon is not None:
                    outcome.abandon()
                raise
            outcome = outcome.resume()
        if type(outcome.body) is bytes:  # a long one, encoded a slice at a time
            return _decoded(api, request.api_version, outcome.body)
        return outcome.body

    # --- topics ----------------------------------------------------------------------------

    async def create_topic(self, new: NewTopic) -> None:
        pending = self.context.controller.create_topics([new])
        await self._topic_result(pending, f"creating topic {new.name!r}")

    async def auto_create(self, name: str) -> None:
        pending = self.context.controller.auto_create([name])
        await self._topic_result(pending, f"creating topic {name!r}")

    async def delete_topic(self, name: str) -> None:
        pending = self.context.controller.delete_topics([TopicRef(name)])
        await self._topic_result(pending, f"deleting topic {name!r}")

    async def create_partitions(self, name: str, count: int) -> None:
        pending = self.context.controller.create_partitions([MorePartitions(name, count)])
        await self._topic_result(pending, f"giving topic {name!r} {count} partitions")

    async def alter_topic(self, name: str, configs: Mapping[str, str | None]) -> None:
        """Set the topic's options; None takes back what was set."""
        changes = [
            (option, ConfigOp.DELETE if text is None else ConfigOp.SET, text)
            for option, text in configs.items()
        ]
        wanted = Alteration(ResourceType.TOPIC, name, changes)
        pending = self.context.controller.alter_configs([wanted])
        await settled(pending)
        [outcome] = pending.result()
        if isinstance(outcome, Refused):
            raise_for(outcome.error, outcome.message, f"changing topic {name!r}")

    @staticmethod
    async def _topic_result(pending: Pending[list[TopicResult]], what: str) -> None:
        await settled(pending)
        [result] = pending.result()
        raise_for(result.error, result.message, what)

    # --- groups ----------------------------------------------------------------------------

    async def group_timeline(self, group: str) -> list[dict[str, Any]]:
        return timeline_of(self.context, group) or []

    # --- offsets ---------------------------------------------------------------------------

    async def offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, Offsets]:
        found = {}
        for number in partitions:
            partition = self._partition(topic, number, "asking for the offsets")
            found[number] = Offsets(partition.log.start, partition.high_watermark)
        return found

    async def open_transactions(
        self, topic: str, partitions: Iterable[int]
    ) -> list[OpenTransaction]:
        """Those that have no end in these partitions yet, and whose they are."""
        found = []
        for number in partitions:
            partition = self._partition(topic, number, "asking for the transactions")
            found += [(number, one) for one in partition.open_transactions()]
        names = await self._transactional_ids({one.producer_id for _, one in found})
        return [
            OpenTransaction(
                number,
                one.first_offset,
                one.since_ms,
                one.producer_id,
                one.epoch,
                names.get(one.producer_id),
            )
            for number, one in found
        ]

    def _partition(self, topic: str, number: int, what: str) -> Partition:
        partition = self.context.table.get(topic, number)
        if isinstance(partition, ErrorCode):
            raise KafkaError(partition, f"{what} of {topic}-{number} was refused")
        return partition

    async def _transactional_ids(self, producers: set[int]) -> dict[int, str]:
        """By producer, as far as a coordinator knows them."""
        from ottla.protocol.messages.list_transactions import ListTransactionsRequest

        if not producers:
            return {}
        body = ListTransactionsRequest(producer_id_filters=sorted(producers))
        states = (await self.ask(body)).transaction_states
        return {one.producer_id: one.transactional_id for one in states}

    async def offset_for_time(self, topic: str, partition: int, timestamp: int) -> int:
        """The first record's at or after `timestamp`; -1 if there is none."""
        from ottla.protocol.messages.list_offsets import (
            ListOffsetsPartition,
            ListOffsetsRequest,
            ListOffsetsTopic,
        )

        asked = ListOffsetsPartition(partition_index=partition, timestamp=timestamp)
        body = ListOffsetsRequest(
            replica_id=-1, topics=[ListOffsetsTopic(name=topic, partitions=[asked])]
        )
        answer = (await self.ask(body)).topics[0].partitions[0]
        what = f"looking for a time in {topic}-{partition}"
        raise_for(answer.error_code, None, what)
        return int(answer.offset)

    # --- records ---------------------------------------------------------------------------

    async def append(
        self, topic: str, batches: Mapping[int, memoryview], timeout_ms: int
    ) -> dict[int, Placed]:
        """Append a batch to each partition with acks=all. Raises KafkaError for the first refusal.

        Those that were not refused are appended all the same.
        """
        from ottla.protocol.messages.produce import (
            PartitionProduceData,
            ProduceRequest,
            TopicProduceData,
        )

        data = [
            PartitionProduceData(index=number, records=batch) for number, batch in batches.items()
        ]
        body = ProduceRequest(
            acks=-1,
            timeout_ms=timeout_ms,
            topic_data=[TopicProduceData(name=topic, partition_data=data)],
        )
        answer = await self.ask(body, BY_NAME_UNTIL)
        placed = {}
        for one in answer.responses[0].partition_responses:
            details = [detail.batch_index_error_message for detail in one.record_errors]
            message = one.error_message or next(filter(None, details), None)
            raise_for(one.error_code, message, f"appending to {topic}-{one.index}")
            placed[one.index] = Placed(one.base_offset, one.log_append_time_ms)
        return placed

    async def fetch(
        self, topic: str, offsets: Mapping[int, int], wait_s: float, *, committed: bool
    ) -> dict[int, Fetched]:
        """Batches of each partition from its offset on; waits up to `wait_s` for the first.

        `committed`: none of a transaction that is open, and the aborted ones are told.
        """
        from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic

        wanted = [
            FetchPartition(
                partition=number, fetch_offset=offset, partition_max_bytes=FETCH_BYTES_MAX
            )
            for number, offset in offsets.items()
        ]
        body = FetchRequest(
            max_wait_ms=round(wait_s * 1000),
            min_bytes=1,
            max_bytes=FETCH_BYTES_MAX,
            isolation_level=int(committed),
            topics=[FetchTopic(topic=topic, partitions=wanted)],
        )
        parts = (await self.ask(body, BY_NAME_UNTIL)).responses[0].partitions
        try:
            for part in parts:
                raise_for(part.error_code, None, f"reading {topic}-{part.partition_index}")
            fetched = {}
            for part in parts:
                aborted = part.aborted_transactions or ()
                fetched[part.partition_index] = Fetched(
                    await self._bytes_of(part.records),
                    [(one.producer_id, one.first_offset) for one in aborted],
                )
            return fetched
        finally:
            release([part.records for part in parts])

    async def _bytes_of(self, records: bytes | FileSlice) -> bytes:
        if not isinstance(records, FileSlice):
            return records
        file, position, length = records.file, records.position, records.length
        found = file.read_nowait(position, length)
        if found is None:
            warmed = self.context.disk.warm(records)
            await settled(warmed)
            warmed.result()
            found = file.read(position, length)
        return found


def release(pieces: Sequence[bytes | FileSlice]) -> None:
    """Let go of the files that slices pin."""
    for piece in pieces:
        if isinstance(piece, FileSlice):
            piece.release()


def _decoded(api: Api, version: int, body: bytes) -> Any:
    from ottla.protocol.codec import decoder  # late: hardly an answer needs it

    messages = import_module(f"ottla.protocol.messages.{api.module}")
    message, _ = decoder(getattr(messages, f"{api.name}Response"), version)(memoryview(body), 0)
    return message


async def settled(pending: Pending[Any], deadline_s: float | None = None) -> None:
    """Return when `pending` is done, or abandoned after `deadline_s`."""
    if pending.done:
        return
    done = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not done.done():
            done.set_result(None)

    pending.then(tell)
    await asyncio.wait((done,), timeout=deadline_s)
    if not pending.done:
        pending.abandon()
