"""A coordinator of transactions without a broker: over journals in memory, in simulated time.

Owns what tests of transactions share. Must not know what is right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from ottla.cluster.store import StoreError
from ottla.coordinator.decision import Ending, Entry
from ottla.coordinator.entries.transaction_log import (
    TransactionLogValue,
    decode_entry,
    encode_entry,
)
from ottla.coordinator.transaction.coordinator import Parts, Transactions
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC, Transaction
from ottla.coordinator.transaction.ports import Open
from ottla.coordinator.transaction.shard import TransactionShard
from ottla.core.model import ProducerId, TopicPartition
from ottla.core.options import broker_config
from ottla.core.pending import Pending, Soon, completed
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.records.reader import pairs_of
from ottla.testing.simloop import SimLoop
from tests.journals import MemoryJournals

R = TypeVar("R")
TIMEOUT_MS = 60_000
EPOCH = 5
"""The coordinator's, which its markers bear."""
P0, P1, P2 = (TopicPartition("t", number) for number in range(3))


class Codec:
    """Entries of __transaction_state."""

    def encode(self, entry: Entry) -> tuple[bytes, bytes | None]:
        return encode_entry(entry)

    def decode(self, key: bytes, value: bytes | None) -> Entry | None:
        return decode_entry(key, value)

    def compression(self) -> int:
        return 0


class FakeMarkers:
    """Partitions that take every marker, but for what a test says."""

    def __init__(self) -> None:
        self.written: list[tuple[Ending, tuple[TopicPartition, ...]]] = []
        self.errors: dict[TopicPartition, ErrorCode] = {}
        """What a partition says, once."""
        self.held: list[tuple[Pending[dict[TopicPartition, ErrorCode]], list[TopicPartition]]] = []
        self.holds = False

    def write(
        self, ending: Ending, partitions: Sequence[TopicPartition]
    ) -> Pending[dict[TopicPartition, ErrorCode]]:
        self.written.append((ending, tuple(sorted(partitions))))
        if self.holds:
            pending: Pending[dict[TopicPartition, ErrorCode]] = Pending()
            self.held.append((pending, list(partitions)))
            return pending
        return completed(self._results(partitions))

    def _results(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, ErrorCode]:
        return {one: self.errors.pop(one, ErrorCode.NONE) for one in partitions}

    def release(self) -> None:
        """All that is held is written."""
        held, self.held = self.held, []
        for pending, partitions in held:
            pending.complete(self._results(partitions))


class FakePartitions:
    """What a test says that partitions know."""

    def __init__(self) -> None:
        self.open: list[Open] = []
        self.outcomes_known: dict[tuple[int, int], bool] = {}
        self.asked: list[int] = []
        """Of how many producers it was asked how their transactions ended, each time."""
        self.seen: list[tuple[int, int]] = []
        """Producer ids and their epochs, each in a partition of its own."""

    def all(self) -> Iterator[Open]:
        return iter(self.open)

    def is_open(self, one: Open) -> bool:
        return one in self.open

    def outcomes(
        self, producer_ids: Collection[int]
    ) -> Iterator[Iterator[tuple[tuple[int, int], bool]]]:
        self.asked.append(len(producer_ids))
        return (iter([one]) for one in self.outcomes_known.items() if one[0][0] in producer_ids)

    def epochs(self) -> Iterator[Iterator[tuple[int, int]]]:
        return (iter([one]) for one in self.seen)


class World:
    """One partition of __transaction_state, its coordinator and what is around it."""

    def __init__(self, **options: str) -> None:
        self.loop = SimLoop()
        self.config = broker_config({name.replace("_", "."): v for name, v in options.items()})
        self.journals = MemoryJournals(1)
        self.journal = self.journals.journals[0]
        self.markers = FakeMarkers()
        self.partitions = FakePartitions()
        self.given_ids = 0
        self.no_ids = False
        self.held_id: Pending[ProducerId] | None = None
        """What whoever needs a producer id has to wait for."""
        self.start()

    def start(self) -> None:
        """A coordinator over what the journal holds."""
        self.transactions = Transactions(
            Parts(
                journals=self.journals,
                codec=Codec(),
                markers=self.markers,
                open_transactions=self.partitions,
                next_producer_id=self._next_producer_id,
                coordinator_epoch=lambda _number: EPOCH,
                config=self.config,
                clock=self.loop,
                timers=self.loop,
            )
        )
        self.transactions.start()
        self.loop.run()

    def restart(self, *, down_s: float = 0.0) -> None:
        """The node is gone and back, without what was not committed yet."""
        self.loop.forget()
        while self.journal.end > self.journal.high_watermark:
            self.journal.batches.pop()
        self.journal._committing.clear()
        self.markers.held.clear()
        self.loop.now_s += down_s
        self.start()

    def _next_producer_id(self) -> Pending[ProducerId]:
        if self.held_id is not None:
            return self.held_id
        pending: Pending[ProducerId] = Pending()
        if self.no_ids:
            pending.fail(StoreError("no"))
        else:
            self.given_ids += 1
            pending.complete(ProducerId(999 + self.given_ids))
        return pending

    # --- what there is

    @property
    def shard(self) -> TransactionShard:
        return self.transactions.runtime.loaded_shards()[0]

    def of(self, name: str = "x") -> Transaction:
        return self.shard.transactions[name]

    def state(self, name: str = "x") -> str:
        return self.of(name).state.title

    def entries(self) -> list[Entry]:
        found = []
        for batch in self.journal.batches:
            for key, value in pairs_of(BatchView(memoryview(batch))):
                entry = decode_entry(key or b"", value)
                assert entry is not None
                found.append(entry)
        return found

    def write(self, entry: Entry) -> None:
        """An entry as somebody else may have written it."""
        self.journal.write(encode_entry(entry))

    # --- what clients do

    def told(self, asked: Soon[R]) -> R:
        """The answer, once nothing is to be done any more."""
        self.loop.run()
        return asked.result() if isinstance(asked, Pending) else asked

    def init(
        self, name: str = "x", expected: Identity | None = None, timeout_ms: int = TIMEOUT_MS
    ) -> Identity | ErrorCode:
        return self.told(self.transactions.init_producer_id(name, timeout_ms, expected))

    def begun(self, name: str = "x", **more: int) -> Identity:
        producer = self.init(name, **more)
        assert isinstance(producer, Identity), producer
        return producer

    def add(
        self,
        producer: Identity,
        *partitions: TopicPartition,
        name: str = "x",
        version: int = CLASSIC,
    ) -> ErrorCode:
        return self.told(
            self.transactions.add_partitions(name, producer, partitions or (P0,), version)
        )

    def end(
        self, producer: Identity, committed: bool = True, *, name: str = "x", version: int = BUMPING
    ) -> Identity | ErrorCode:
        return self.told(self.transactions.end(name, producer, committed, version))

    def ongoing(self, name: str = "x", **more: int) -> Identity:
        """A producer in a transaction with one partition."""
        producer = self.begun(name, **more)
        assert self.add(producer, name=name) is ErrorCode.NONE
        return producer

    def at_epoch(self, epoch: int, name: str = "x") -> Identity:
        """A producer that has come so far: its entry is in the log as it would then be."""
        producer = self.begun(name)
        entry = self.entries()[-1]
        assert isinstance(entry.value, TransactionLogValue)
        entry.value.producer_epoch = epoch
        self.write(entry)
        self.restart()
        return Identity(producer.producer_id, epoch)
