"""One of the two brokers, as a sequence of steps sees it.

Owns what a step is asked as, and what can't be the same in two brokers: producer ids become names,
times of markers words. Must not know the other broker, nor what is right. A step is asked once no
transaction is about to end, and again where it is told to wait: how long that takes is luck.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ottla.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from ottla.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from ottla.protocol.messages.delete_groups import DeleteGroupsRequest
from ottla.protocol.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from ottla.protocol.messages.describe_producers import DescribeProducersRequest, TopicRequest
from ottla.protocol.messages.end_txn import EndTxnRequest
from ottla.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from ottla.protocol.messages.init_producer_id import InitProducerIdRequest
from ottla.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from ottla.protocol.messages.list_transactions import ListTransactionsRequest
from ottla.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from ottla.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from ottla.protocol.messages.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from ottla.protocol.schema import Message
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.reader import Record, read_batches, records_of
from tests.oracle.answers.batches import NOW_MS
from tests.oracle.answers.offset_cases import fetch as offsets_of
from tests.oracle.answers.peer import Peer
from tests.oracle.answers.txn_cases import NOT_YET, STRANGER, describe
from tests.oracle.sequences.steps import ACTORS, NEXT, OLD, OVERLAPS, PARTITIONS, Step

BEGAN_MS = NOW_MS - 600_000
"""Of records; a marker bears the time of its writing."""
MARKER_MS = NOW_MS - 300_000
BUSY = (*NOT_YET, "not_enough_replicas")
PATIENCE_S, LESS_S = 60.0, 3.0
"""How long an answer other than "not yet" is waited for, and where it may never come."""
BY_ID, SEVERAL, MEMBERS, KNOWN = 13, 4, 3, 3
SKIPPED = "skipped"
_Key = tuple[int, int, int]


class World:
    """Producers as far as they have come with this broker."""

    def __init__(self, peer: Peer, name: str) -> None:
        self.peer = peer
        self.name = name
        self.topic = f"{name}-topic"
        self.who = dict.fromkeys(ACTORS, (-1, -1))
        self.ids: list[int] = []
        self.due: dict[_Key, int] = {}
        """The next sequence of a producer's epoch in a partition."""
        self.sent: dict[_Key, list[tuple[int, int]]] = {}
        self.tainted: set[tuple[str, int]] = set()
        """Producers and partitions of which a batch was refused, or sent again."""
        self.patience_s = PATIENCE_S
        self.is_stuck = False
        """Whether a transaction does not end."""
        self._sending: list[tuple[int, _Key, int, int]] = []
        peer.case = name
        peer.make(self.topic, PARTITIONS, {})

    def run(self, step: Step) -> Any:
        """What it is told; the last answer, where it was told to come again."""
        deadline_s = time.monotonic() + self.patience_s
        while True:
            self._rest()
            answer = ASKING[step.kind](self, step)
            if time.monotonic() > deadline_s or not _is_busy(answer):
                self._rest()
                return answer

    def states(self) -> Any:
        """Where the transactions are."""
        return self._plain(describe(self.peer, [f"{self.name}-a", f"{self.name}-b"]))

    def _rest(self) -> None:
        deadline_s = time.monotonic() + self.patience_s
        while any("Prepare" in one["transaction_state"] for one in self.states()):
            if time.monotonic() > deadline_s:
                self.is_stuck = True
                return

    # --- who

    def _id(self, who: str | None) -> str | None:
        return who if not who else f"{self.name}-{'a' if who == 'zombie' else who}"

    def _transactional_id(self, step: Step) -> str | None:
        own = None if step.who == "plain" else step.who
        return self._id(step.more.get("name", own))

    def identity(self, step: Step, who: str = "") -> tuple[int, int]:
        """Id and epoch as the producer tells them."""
        producer_id, epoch = self.who[who or step.who]
        lie = step.more.get("lie")
        if lie == "stranger":
            return STRANGER, epoch
        if lie == "nobody":
            return -1, -1
        if isinstance(lie, int) and producer_id >= 0:
            epoch = max(-1, epoch + lie)
        return producer_id, epoch

    def _go_on(self, step: Step, answer: Any) -> Any:
        """Take the id and epoch to heart that it was given."""
        given = isinstance(answer, dict) and answer["error_code"] == "none"
        if given and "producer_id" in answer and not step.more.get("forgets"):
            self.who[step.who] = answer["producer_id"], answer["producer_epoch"]
        return self._plain(answer)

    def _ask(self, request: Message, version: int) -> Any:
        return self._plain(self.peer.ask(request, version))

    # --- steps

    def init(self, step: Step) -> Any:
        more = step.more
        request = InitProducerIdRequest(
            transactional_id=self._transactional_id(step),
            transaction_timeout_ms=more.get("timeout_ms", 60_000),
            producer_id=-1,
            producer_epoch=-1,
        )
        if "known" in more and step.version >= KNOWN:
            known_id, epoch = self.who[more["known"]]
            lie = more["known_lie"]
            if isinstance(lie, int) and known_id >= 0:
                epoch = max(0, epoch + lie)
            request.producer_id = STRANGER if lie == "stranger" else known_id
            request.producer_epoch = -1 if lie == "half" else epoch
        return self._go_on(step, self.peer.ask(request, step.version))

    def add(self, step: Step) -> Any:
        names = {"topic": self.topic, "nowhere": "nowhere", "internal": "__transaction_state"}
        topics = [
            AddPartitionsToTxnTopic(name=names[place], partitions=list(numbers))
            for place, numbers in step.more["places"]
        ]
        name = self._transactional_id(step) or ""
        producer_id, epoch = self.identity(step)
        if step.version >= SEVERAL:
            one = AddPartitionsToTxnTransaction(
                transactional_id=name,
                producer_id=producer_id,
                producer_epoch=epoch,
                verify_only=step.more["verify_only"],
                topics=topics,
            )
            return self._ask(AddPartitionsToTxnRequest(transactions=[one]), step.version)
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=name,
            v3_and_below_producer_id=producer_id,
            v3_and_below_producer_epoch=epoch,
            v3_and_below_topics=topics,
        )
        return self._ask(request, step.version)

    def _own(self, step: Step) -> dict[str, Any]:
        """The fields in which a producer tells who it is."""
        producer_id, epoch = self.identity(step)
        name = self._transactional_id(step) or ""
        return {"transactional_id": name, "producer_id": producer_id, "producer_epoch": epoch}

    def _group(self, step: Step) -> str:
        return f"{self.name}-{step.more['group']}"

    def add_offsets(self, step: Step) -> Any:
        request = AddOffsetsToTxnRequest(group_id=self._group(step), **self._own(step))
        return self._ask(request, step.version)

    def commit(self, step: Step) -> Any:
        parts = [
            TxnOffsetCommitRequestPartition(partition_index=number, committed_offset=offset)
            for number, offset in step.more["offsets"]
        ]
        topics = [TxnOffsetCommitRequestTopic(name=self.topic, partitions=parts)]
        request = TxnOffsetCommitRequest(
            group_id=self._group(step), topics=topics, **self._own(step)
        )
        if step.version >= MEMBERS:
            request.generation_id = step.more.get("generation_id", -1)
            request.member_id = step.more.get("member_id", "")
        return self._ask(request, step.version)

    def produce(self, step: Step) -> Any:
        self._sending = []
        data = []
        for part in step.more["parts"]:
            who = self.identity(step, part.get("other", ""))
            # What nobody may send is compared by cases: its id alone, or nobody's transaction.
            if who[0] >= 0 > who[1] or (who[0] < 0 and part["transactional"]):
                return SKIPPED
            raw = memoryview(self._batch(part, who))
            data.append(PartitionProduceData(index=part["partition"], records=raw))
        topic = TopicProduceData(partition_data=data)
        if step.version >= BY_ID:
            topic.topic_id = self.peer.id_of(self.topic)
        else:
            topic.name = self.topic
        name = self._transactional_id(step)
        request = ProduceRequest(
            transactional_id=name, acks=-1, timeout_ms=5000, topic_data=[topic]
        )
        answer = self._ask(request, step.version)
        if isinstance(answer, dict):
            self._note_sent(step, answer["responses"][0]["partition_responses"])
        return answer

    def _batch(self, part: dict[str, Any], who: tuple[int, int]) -> bytes:
        key = (*who, part["partition"])
        due, before = self.due.get(key, 0), self.sent.get(key, [])
        sequence, count = due, part["count"]
        wanted = part["sequence"]
        if wanted == OLD and len(before) > part["back"]:
            sequence, count = before[-1 - part["back"]]
        elif wanted == OVERLAPS and before:
            sequence, count = before[-1][0], before[-1][1] + 1
        elif isinstance(wanted, int):
            sequence = max(0, due + wanted) if wanted else 0
        self._sending.append((part["partition"], key, sequence, count))
        value = f"{part['partition']}/{sequence}".encode()
        record = Record(value=value, timestamp=BEGAN_MS + part["time"])
        bits = TRANSACTIONAL_BIT if part["transactional"] else 0
        return build_batch([record] * count, producer=Producer(*who, sequence), attributes=bits)

    def _note_sent(self, step: Step, responses: list[dict[str, Any]]) -> None:
        codes = {one["index"]: one["error_code"] for one in responses}
        for part, (number, key, sequence, count) in zip(
            step.more["parts"], self._sending, strict=True
        ):
            before = self.sent.setdefault(key, [])
            if codes[number] == "none" and (sequence, count) not in before:
                before.append((sequence, count))
                self.due[key] = sequence + count
            if codes[number] != "none" or part["sequence"] != NEXT:
                self.tainted.add((self.named(key[0]), number))

    def end(self, step: Step) -> Any:
        request = EndTxnRequest(committed=step.more["committed"], **self._own(step))
        return self._go_on(step, self.peer.ask(request, step.version))

    def mark(self, step: Step) -> Any:
        producer_id, epoch = self.identity(step)
        if producer_id < 0 or epoch < 0:
            return SKIPPED  # by cases
        numbers = step.more["partitions"]
        topics = [WritableTxnMarkerTopic(name=self.topic, partition_indexes=numbers)]
        marker = WritableTxnMarker(
            producer_id=producer_id,
            producer_epoch=epoch,
            transaction_result=step.more["committed"],
            coordinator_epoch=step.more["coordinator_epoch"],
            topics=topics,
        )
        if "transaction_version" in step.more:
            marker.transaction_version = step.more["transaction_version"]
        return self._ask(WriteTxnMarkersRequest(markers=[marker]), step.version)

    def delete(self, step: Step) -> Any:
        number, offset = step.more["partition"], step.more["quarters"]
        if offset >= 0:
            offset = self._end(number) * offset // 4
        parts = [DeleteRecordsPartition(partition_index=number, offset=offset)]
        topics = [DeleteRecordsTopic(name=self.topic, partitions=parts)]
        return self._ask(DeleteRecordsRequest(topics=topics, timeout_ms=5000), step.version)

    def delete_group(self, step: Step) -> Any:
        return self._ask(DeleteGroupsRequest(groups_names=[self._group(step)]), step.version)

    # --- what is told

    def _end(self, number: int) -> int:
        [topic] = self._offsets(-1, 0, 7)["topics"]
        return next(
            int(one["offset"]) for one in topic["partitions"] if one["partition_index"] == number
        )

    def _offsets(self, timestamp: int, level: int, version: int) -> Any:
        parts = [
            ListOffsetsPartition(partition_index=number, timestamp=timestamp)
            for number in range(PARTITIONS)
        ]
        topics = [ListOffsetsTopic(name=self.topic, partitions=parts)]
        request = ListOffsetsRequest(replica_id=-1, isolation_level=level, topics=topics)
        return self._ask(request, version)

    def ends(self, step: Step) -> Any:
        asked = step.more["time"]
        timestamp = asked if asked < 0 else BEGAN_MS + asked
        return [self._offsets(timestamp, level, step.version) for level in (0, 1)]

    def fetch(self, step: Step) -> Any:
        number = step.more["partition"]
        offset = self._end(number) * step.more["quarters"] // 4
        return self._fetch(
            {number: offset}, step.more["level"], step.version, step.more["bytes_max"]
        )

    def _fetch(self, offsets: dict[int, int], level: int, version: int, bytes_max: int) -> Any:
        parts = [
            FetchPartition(partition=number, fetch_offset=offset, partition_max_bytes=bytes_max)
            for number, offset in offsets.items()
        ]
        request = FetchRequest(
            max_wait_ms=0,
            min_bytes=0,
            isolation_level=level,
            topics=[FetchTopic(topic=self.topic, partitions=parts)],
        )
        return self._ask(request, version)

    def listed(self, step: Step) -> Any:
        request = ListTransactionsRequest(state_filters=step.more.get("states", []))
        if step.version < 2:
            request.producer_id_filters = [self.who[one][0] for one in step.more["of"]]
        else:
            request.transactional_id_pattern = f"{self.name}-({step.more['pattern']})"
        answer = self._ask(request, step.version)
        states = answer["transaction_states"]
        prefix = f"{self.name}-"
        own = [one for one in states if one["transactional_id"].startswith(prefix)]
        own.sort(key=lambda one: str(one["transactional_id"]))
        return answer | {"transaction_states": own}

    def look(self, step: Step) -> Any:
        """All that can be seen."""
        firsts = self._offsets(-2, 0, 7)
        starts = {
            one["partition_index"]: one["offset"] for one in firsts["topics"][0]["partitions"]
        }
        numbers = list(range(PARTITIONS))
        topics = [TopicRequest(name=self.topic, partition_indexes=numbers)]
        told: dict[str, Any] = {"states": self.states(), "firsts": firsts}
        told["ends"] = self._offsets(-1, 0, 7)
        for level in (0, 1):
            told[f"fetched {level}"] = self._fetch(starts, level, 12, 1 << 20)
        told["producers"] = self._ask(DescribeProducersRequest(topics=topics), 0)
        for group in "gh":
            for stable in (True, False):
                wanted = {self.topic: numbers}
                name = f"{self.name}-{group}"
                found = offsets_of(self.peer, 8, name, wanted, require_stable=stable)
                told[f"offsets {group} {stable}"] = found
        return told

    # --- names

    def named(self, producer_id: int) -> str:
        if producer_id < 0 or producer_id == STRANGER:
            return str(producer_id)
        if producer_id not in self.ids:
            self.ids.append(producer_id)
        return f"producer {self.ids.index(producer_id)}"

    def _plain(self, value: Any) -> Any:
        """With names for producer ids, and words for times that can't be the same."""
        if isinstance(value, dict):
            return {key: self._field(key, one, value) for key, one in value.items()}
        if isinstance(value, list):
            return [self._plain(one) for one in value]
        return value

    def _field(self, key: str, value: Any, beside: dict[str, Any]) -> Any:
        if key == "producer_id":
            return self.named(value)
        if key == "records":
            return [self._told(one) for one in read_batches(memoryview(value or b""))]
        if key in ("timestamp", "last_timestamp") and value > MARKER_MS:
            return "a marker's"
        if key == "coordinator_epoch":
            return min(value, 0)
        if key == "last_stable_offset":  # see `allowed`: Kafka's may be below the start
            return max(value, beside.get("log_start_offset", value))
        if key.endswith("error_message"):
            return None
        return self._plain(value)

    def _told(self, batch: BatchView) -> tuple[Any, ...]:
        records = [(one.key if batch.is_control else one.value) for one in records_of(batch)]
        who = self.named(batch.producer_id), batch.producer_epoch, batch.base_sequence
        return int(batch.base_offset), batch.attributes, *who, records


def _is_busy(answer: Any) -> bool:
    text = repr(answer)
    return any(f"'{code}'" in text for code in BUSY)


ASKING: dict[str, Callable[[World, Step], Any]] = {
    name: getattr(World, name)
    for name in (
        "init",
        "add",
        "add_offsets",
        "commit",
        "produce",
        "end",
        "mark",
        "delete",
        "delete_group",
        "ends",
        "fetch",
        "listed",
        "look",
    )
}
