"""What readers of committed records see of a partition, whatever is late, repeated or lost.

Producers write in transactions and outside of them; batches and markers come late, twice and from
zombies; the node crashes, is killed or stops at any step. A list of what the log was given is the
model: it says what is open, what was taken back and where readers must stop.
"""

from __future__ import annotations

import os
import random
from typing import NamedTuple

import pytest

from ottla.core.model import Offset
from ottla.core.pending import Pending
from ottla.embedded.records import Fetched, next_offset, unpack
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import TRANSACTIONAL_BIT, BatchView
from ottla.records.builder import Producer, build_batch
from ottla.records.control import ControlType, EndMarker
from ottla.records.reader import Record
from ottla.replication.partition import Appended, Partition
from ottla.storage.checked import Cold
from ottla.storage.producers import Verification
from ottla.testing.simnode import SimNode
from tests.sim.histories import named_by, seed_ranges

HISTORIES = 3000 if os.environ.get("OTTLA_SOAK") == "1" else 90
PER_TEST = 30
STEPS = 70
LARGE = 300_000
"""Bytes of some records, so that segments roll."""

REFUSALS = (
    ErrorCode.INVALID_TXN_STATE,
    ErrorCode.INVALID_PRODUCER_EPOCH,
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
)


class Written(NamedTuple):
    """A batch or marker of the log. `what`: plain, data, commit or abort."""

    offset: int
    what: str
    pid: int


class Client:
    """A producer and its coordinator in one: what they believe."""

    def __init__(self, pid: int, bumps: bool) -> None:
        self.pid = pid
        self.bumps = bumps
        """Whether it goes by transaction version 2: each transaction has its own epoch."""
        self.epoch = 0
        self.sequence = 0
        self.is_open = False
        self.last: BatchView | None = None
        self.late: tuple[bytes, Verification | None, int] | None = None
        """A batch on its way: its bytes, its verification and how many markers there were."""
        self.markers_count = 0
        self.replay: tuple[int, bool] | None = None
        """Epoch and result of a marker that may come again."""

    def batch(self, size: int, epoch: int | None = None, bits: int = TRANSACTIONAL_BIT) -> bytes:
        who = Producer(self.pid, self.epoch if epoch is None else epoch, self.sequence)
        record = Record(value=bytes(size), timestamp=1_700_000_000_000)
        return build_batch([record], producer=who, attributes=bits)


class World:
    """A node, its partition, and the list that it is held against."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        policy = self.chance.choice(["commit", "commit", "os"])
        self.node = SimNode(seed, flush_policy=policy)
        self.node.coordinates = False  # this is who ends what is open
        self.node.context.transactions.hanging.stop()
        self.policy = policy
        self.node.create_topic("t", segment_bytes=str(1 << 20))
        self.clients = [Client(1, True), Client(2, True), Client(3, False)]
        self.log: list[Written] = []
        self.acked = 0
        self.waiting: list[tuple[int, Pending[None]]] = []

    @property
    def partition(self) -> Partition:
        return self.node.partition("t")

    # --- writing

    def append(self, raw: bytes, verification: Verification | None) -> Appended | ErrorCode:
        batch = BatchView(memoryview(bytearray(raw)))
        while (pending := self.partition.prepare(batch)) is not None:
            self.node.settle()
            pending.result()
        return self.partition.append_as_leader(batch, verification)

    def wrote(self, appended: Appended, what: str, pid: int) -> None:
        self.log.append(Written(appended.base_offset, what, pid))
        pending = self.partition.committed(appended.end)
        if pending is not None:
            self.waiting.append((appended.end, pending))
        elif self.policy == "commit":
            self.acked = max(self.acked, appended.end)

    def verify(self, client: Client, sequence: int, epoch: int) -> Verification | None:
        return self.partition.verify(client.pid, epoch, sequence, bumps=client.bumps)

    def produce(self, client: Client) -> None:
        size = LARGE if self.chance.random() < 0.2 else 10
        raw = client.batch(size)
        verification = self.verify(client, client.sequence, client.epoch)
        outcome = self.append(raw, verification)
        assert isinstance(outcome, Appended), outcome.name
        self.wrote(outcome, "data", client.pid)
        client.is_open = True
        client.sequence += 1
        client.last = BatchView(memoryview(raw))

    def plain(self, client: Client) -> None:
        if client.is_open:
            outcome = self.append(client.batch(10, bits=0), None)
            assert outcome is ErrorCode.INVALID_TXN_STATE
            return
        outcome = self.append(build_batch([Record(value=b"p", timestamp=1_700_000_000_000)]), None)
        assert isinstance(outcome, Appended)
        self.wrote(outcome, "plain", -1)

    def again(self, client: Client) -> None:
        """The last batch comes a second time."""
        if client.last is None:
            return
        end = self.partition.log.end
        verification = self.verify(client, client.last.base_sequence, client.last.producer_epoch)
        outcome = self.append(bytes(client.last.view), verification)
        assert self.partition.log.end == end, "stored twice"
        assert isinstance(outcome, Appended) or outcome in REFUSALS

    def gap(self, client: Client) -> None:
        """One batch of a transaction was lost on the way."""
        if client.is_open:
            client.sequence += 1
            outcome = self.append(client.batch(10), None)
            client.sequence -= 1
            assert outcome is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER

    def briefly(self, client: Client) -> None:
        """A transaction of one batch, at whose end it may or may not be on the disk."""
        self.produce(client)
        self.node.steps(self.chance.randrange(8))
        self.check()
        self.end(client)
        self.node.steps(self.chance.randrange(4))
        self.check()

    def zombie(self, client: Client) -> None:  # I40
        if client.epoch == 0:
            return
        old = client.epoch - 1
        for bits in (TRANSACTIONAL_BIT, 0):
            verification = self.verify(client, client.sequence, old)
            outcome = self.append(client.batch(10, old, bits), verification)
            assert outcome in REFUSALS

    def leave_late(self, client: Client) -> None:
        """A batch was verified, and is on its way."""
        verification = self.verify(client, client.sequence, client.epoch)
        client.late = client.batch(10), verification, client.markers_count

    def arrive(self, client: Client) -> None:  # I41
        if client.late is None:
            return
        raw, verification, markers_count = client.late
        client.late = None
        before = self.partition.log.end
        outcome = self.append(raw, verification)
        if self.partition.log.end == before:
            return  # refused, or a duplicate
        assert isinstance(outcome, Appended)
        assert client.markers_count == markers_count or client.is_open, "behind its marker"
        self.wrote(outcome, "data", client.pid)
        client.is_open = True
        client.sequence += 1
        client.last = BatchView(memoryview(raw))

    def mark(self, client: Client, epoch: int, commit: bool) -> Appended | ErrorCode:
        kind = ControlType.COMMIT if commit else ControlType.ABORT
        version = 2 if client.bumps else 1
        while True:
            outcome = self.partition.append_marker(client.pid, epoch, EndMarker(kind, 0), version)
            if not isinstance(outcome, Pending):
                return outcome
            self.node.settle()
            outcome.result()

    def end(self, client: Client, *, bump: bool | None = None) -> None:
        commit = self.chance.random() < 0.5
        epoch = client.epoch + (client.bumps if bump is None else bump)
        outcome = self.mark(client, epoch, commit)
        assert isinstance(outcome, Appended), outcome.name
        self.wrote(outcome, "commit" if commit else "abort", client.pid)
        client.replay = epoch, commit
        client.markers_count += 1
        client.is_open = False
        if epoch != client.epoch:
            client.epoch, client.sequence, client.last = epoch, 0, None

    def replay(self, client: Client) -> None:  # I43
        """A marker comes again: harmless, and refused where a later transaction is open.

        By the rules of version 1 a broker can't tell; its coordinator sends none twice then.
        """
        if client.replay is None or (client.is_open and not client.bumps):
            return
        epoch, commit = client.replay
        outcome = self.mark(client, epoch, not commit)
        if client.is_open or epoch < client.epoch:
            assert outcome is ErrorCode.INVALID_PRODUCER_EPOCH
        else:
            assert isinstance(outcome, Appended), outcome.name
            self.wrote(outcome, "abort" if commit else "commit", client.pid)
            client.markers_count += 1

    # --- dying

    def die(self) -> None:
        before = len(self.log)
        self.note_acked()
        match self.chance.randrange(3):
            case 0 if self.policy == "commit":
                # Not what may look like damage, of which a log is kept as evidence.
                self.node.crash(self.chance.choice(("prefix", "nothing", "everything")))
            case 0 | 1:
                self.node.kill()
            case _:
                self.node.stop()
                self.acked = max(self.acked, len(self.log))
        self.waiting.clear()
        end = self.partition.log.end
        assert self.acked <= end <= len(self.log), "something acknowledged is gone"
        del self.log[end:]
        goes_on = end == before and self.chance.random() < 0.5
        for client in self.clients:
            client.late = None
            client.replay = None
            if not goes_on:
                self.end(client, bump=True)  # what it had begun is over, as after an error
        self.check()

    def note_acked(self) -> None:
        if self.policy == "commit":
            done = [end for end, pending in self.waiting if pending.done]
            self.acked = max([self.acked, *done])
        self.waiting = [one for one in self.waiting if not one[1].done]

    # --- reading

    def check(self) -> None:
        """Everything that a reader of committed records is told, against the list."""
        partition = self.partition
        assert [one.offset for one in self.log] == list(range(partition.log.end))
        high = partition.high_watermark
        begun: dict[int, int] = {}
        unstable: list[int] = []
        taken_back: set[int] = set()
        mine: dict[int, list[int]] = {}
        for offset, what, pid in self.log:
            if what == "data":
                begun.setdefault(pid, offset)
                mine.setdefault(pid, []).append(offset)
            elif what != "plain" and pid in begun:
                first = begun.pop(pid)
                if offset >= high:
                    unstable.append(first)
                if what == "abort":
                    taken_back.update(mine[pid])
                mine[pid] = []
        assert sorted(
            (one.first_offset, one.producer_id) for one in partition.open_transactions()
        ) == (sorted((first, pid) for pid, first in begun.items()))
        stable = min([high, *begun.values(), *unstable])
        assert partition.last_stable == stable
        start = self.chance.randrange(stable + 1)
        expected = [
            one.offset
            for one in self.log[start:stable]
            if one.what in ("data", "plain") and one.offset not in taken_back
        ]
        # To read what is cold takes time, in which more may become stable.
        found = self.read(start)
        assert all(offset < partition.last_stable for offset in found)
        assert [offset for offset in found if offset < stable] == expected

    def read(self, offset: int) -> list[int]:
        found: list[int] = []
        while True:
            piece = self.partition.read(
                Offset(offset), self.chance.randrange(1 << 20), committed=True
            )
            if piece is None:
                return found
            assert not isinstance(piece, ErrorCode), piece.name
            if isinstance(piece, Cold):
                self.bring(piece)
                continue
            aborted = self.partition.aborted_in(Offset(offset), piece)
            assert not isinstance(aborted, ErrorCode), aborted.name
            content = self.node.sendfile(piece)
            piece.release()
            if isinstance(aborted, Cold):
                self.bring(aborted)
                continue
            fetched = Fetched(content, [(one.producer_id, one.first_offset) for one in aborted])
            found += [one.offset for one in unpack(fetched, 0, offset, 1 << 20)]
            offset = next_offset(content, offset)

    def bring(self, cold: Cold) -> None:
        brought = cold.bring(self.node.disk)
        self.node.settle()
        brought.result()
        cold.slice.release()

    # --- one step

    def step(self) -> None:
        client = self.chance.choice(self.clients)
        doing = self.chance.choices(
            [
                self.produce,
                self.plain,
                self.again,
                self.gap,
                self.briefly,
                self.zombie,
                self.leave_late,
                self.arrive,
                self.end,
                self.replay,
            ],
            [6, 2, 2, 1, 2, 1, 2, 3, 4, 2],
        )[0]
        doing(client)
        self.go_on()

    def live(self, steps: int) -> None:
        """A whole history, to the end of every transaction: none hangs (I41)."""
        for _ in range(steps):
            self.step()
        self.node.settle()
        for client in self.clients:
            self.end(client, bump=True)
        self.node.settle()
        self.check()
        assert self.partition.last_stable == self.partition.log.end

    def go_on(self) -> None:
        """Let the node live for a while, or die, and see whether all is as it must be."""
        match self.chance.randrange(12):
            case 0:
                self.die()
            case 1 | 2:
                self.node.settle()
            case _:
                self.node.steps(self.chance.randrange(6))
        self.note_acked()
        self.check()


@pytest.mark.parametrize("seeds", seed_ranges(HISTORIES, PER_TEST), ids=str)
def test_committed_records_are_all_that_readers_of_them_see(seeds: range) -> None:  # I38 I39
    for seed in seeds:
        with named_by(seed):
            world = World(seed)
            world.live(STEPS)
