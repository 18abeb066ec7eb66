"""DeleteRecords where transactions are open: readers of committed records, over rolls and restarts.

What of a transaction was deleted is still known to have begun, a crash later too. The list that the
log is held against, and the node that dies, are those of `test_committed_reads`.
"""

from __future__ import annotations

import os

import pytest

from ottla.core.model import Offset
from ottla.protocol.errors import ErrorCode
from tests.sim.histories import named_by, seed_ranges
from tests.sim.test_committed_reads import Client, World

HISTORIES = 3000 if os.environ.get("OTTLA_SOAK") == "1" else 60
PER_TEST = 30
STEPS = 60


class Deleting(World):
    """As World, but that records are deleted, up to any offset that is committed."""

    def delete(self, client: Client) -> None:
        partition = self.partition
        offset = self.chance.randrange(partition.log.start, partition.high_watermark + 1)
        moved = self.node.table.delete_records(partition, Offset(offset))
        assert not isinstance(moved, ErrorCode), moved.name
        self.node.settle()
        moved.result()
        assert partition.log.start == offset

    def check(self) -> None:
        partition = self.partition
        low, high = partition.log.start, partition.high_watermark
        begun: dict[int, int] = {}
        unstable: list[int] = []
        mine: dict[int, list[int]] = {}
        taken_back: set[int] = set()
        for offset, what, pid in self.log:
            if what == "data":
                begun.setdefault(pid, offset)
                mine.setdefault(pid, []).append(offset)
            elif what != "plain" and pid in begun:
                first, ended = begun.pop(pid), mine.pop(pid)
                if offset >= high:
                    unstable.append(first)
                if what == "abort":
                    taken_back.update(ended)
        found = {one.producer_id: one.first_offset for one in partition.open_transactions()}
        assert found == begun
        stable = max(min([high, *begun.values(), *unstable]), low)
        assert partition.last_stable == stable
        start = self.chance.randrange(low, stable + 1)
        expected = [
            one.offset
            for one in self.log[start:stable]
            if one.what in ("data", "plain") and one.offset not in taken_back
        ]
        assert [offset for offset in self.read(start) if offset < stable] == expected

    def step(self) -> None:
        doing = [self.produce, self.plain, self.briefly, self.leave_late, self.arrive]
        doing += [self.end, self.replay, self.delete]
        self.chance.choice(doing)(self.chance.choice(self.clients))
        self.go_on()


@pytest.mark.parametrize("seeds", seed_ranges(HISTORIES, PER_TEST), ids=str)
def test_readers_of_committed_records_go_on_where_records_are_deleted(seeds: range) -> None:  # I38
    for seed in seeds:
        with named_by(seed):
            world = Deleting(seed)
            world.live(STEPS)
