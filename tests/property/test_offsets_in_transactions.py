"""I35, I38: of offsets committed in transactions all count or none, whatever restarts come between.

Plain commits, commits in transactions of several producers, their ends, deletions and restarts of
the coordinator that lose what was not synced. The model is a list of what was asked, cut where the
log was, and a fold over it that knows nothing of how ottla keeps what is pending.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ottla.cluster.image import ClusterImage, TopicImage
from ottla.coordinator.decision import Ending
from ottla.coordinator.group.shard import Commit, GroupShard, Member
from ottla.coordinator.runtime import Runtime
from ottla.core.model import TopicId
from ottla.core.options import broker_config
from ottla.protocol.errors import ErrorCode
from ottla.records.builder import Producer
from ottla.testing.simloop import SimLoop
from tests.journals import Codec, MemoryJournal, MemoryJournals

T_ID = TopicId(b"t" * 16)
GROUPS, NUMBERS, PRODUCERS = ("a", "b"), (0, 1), (7, 8, 9)
ONE_GROUP, ONE_NUMBER = st.sampled_from(GROUPS), st.sampled_from(NUMBERS)
ONE_PRODUCER = st.sampled_from(PRODUCERS)

Place = tuple[str, int]


def told_by(log: list[tuple[Any, ...]]) -> tuple[dict[Place, int], set[Place]]:
    """What counts after all of a log, and what is pending: looked up backwards for each place."""
    counting: dict[Place, int] = {}
    pending: set[Place] = set()
    for place in [(group, number) for group in GROUPS for number in NUMBERS]:
        ended: dict[int, bool] = {}
        for kind, *rest in reversed(log):
            if kind == "end":
                ended[rest[0]] = rest[1]
            elif rest[:2] != list(place):
                continue
            elif kind == "delete":
                break
            elif kind == "plain":
                counting.setdefault(place, rest[2])
            elif rest[3] not in ended:
                pending.add(place)
            elif ended[rest[3]]:
                counting.setdefault(place, rest[2])
    return counting, pending


class OffsetsInTransactions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = SimLoop()
        self.config = broker_config({})
        topic = TopicImage("t", T_ID, (), {})
        self.image = ClusterImage("c", topics={"t": topic}, by_id={T_ID: topic})
        self.journals = MemoryJournals(1)
        self.log: list[tuple[Any, ...]] = []
        """One for each batch of the journal."""
        self.number = 0
        self.start()

    @property
    def journal(self) -> MemoryJournal:
        return self.journals.journals[0]

    def start(self) -> None:
        self.runtime: Runtime[GroupShard] = Runtime(
            self.journals,
            lambda number: GroupShard(number, self.config, lambda: self.image, self.loop),
            Codec(),
            self.loop,
            self.loop,
        )

    # --- what clients do -------------------------------------------------------------------

    @rule(group=ONE_GROUP, number=ONE_NUMBER)
    def commit(self, group: str, number: int) -> None:
        one = self._next(number)
        self.runtime.submit(
            group, lambda shard: shard.commit_offsets(group, Member(), [one], version=8)
        )
        self.log.append(("plain", group, number, one.offset))

    @rule(group=ONE_GROUP, number=ONE_NUMBER, producer=ONE_PRODUCER)
    def commit_in_a_transaction(self, group: str, number: int, producer: int) -> None:
        one = self._next(number)
        self.runtime.submit(
            group,
            lambda shard: shard.commit_in_transaction(
                group, Member(), [one], Producer(producer, 0), version=3
            ),
        )
        self.log.append(("pending", group, number, one.offset, producer))

    @rule(producer=ONE_PRODUCER, committed=st.booleans(), times=st.integers(1, 2))
    def end_a_transaction(self, producer: int, committed: bool, times: int) -> None:
        """Twice, where the answer to the first was lost (I43)."""
        for _ in range(times):
            self.runtime.end_transaction(0, Ending(producer, 0, committed, 0, 1))
            self.log.append(("end", producer, committed))

    @rule(group=ONE_GROUP, number=ONE_NUMBER)
    def delete(self, group: str, number: int) -> None:
        counting, pending = told_by(self.log)
        self.runtime.submit(group, lambda shard: shard.delete_offsets(group, [("t", number)]))
        if (group, number) in counting or (group, number) in pending:
            self.log.append(("delete", group, number))

    def _next(self, number: int) -> Commit:
        self.number += 1
        return Commit("t", T_ID, number, self.number, -1, "")

    # --- what happens to the node ----------------------------------------------------------

    @rule(at_once=st.booleans())
    def syncs_come_late_or_at_once_from_now_on(self, at_once: bool) -> None:
        self.journal.commit()
        self.journal.commits_at_once = at_once

    @rule(lost=st.integers(0, 5))
    def the_node_restarts_and_loses_some_of_what_was_not_synced(self, lost: int) -> None:
        journal = self.journal
        while lost and journal.end > journal.high_watermark:
            journal.batches.pop()
            self.log.pop()
            lost -= 1
        journal.high_watermark = journal.end
        self.start()

    # --- what must hold --------------------------------------------------------------------

    @invariant()
    def all_of_a_transaction_counts_or_nothing(self) -> None:
        assert len(self.log) == len(self.journal.batches)
        counting, pending = told_by(self.log)
        # Asked of the shard itself: a reply would wait for a sync, and then none is ever lost.
        self.runtime.submit("a", lambda shard: shard.fetch_offsets("a", []))
        (shard,) = self.runtime.loaded_shards()
        for place in [(group, number) for group in GROUPS for number in NUMBERS]:
            group, number = place
            for stable in (True, False):
                decision = shard.fetch_offsets(group, [("t", number)], require_stable=stable)
                assert isinstance(decision.reply, list)
                (told,) = decision.reply
                if stable and place in pending:
                    assert told.error is ErrorCode.UNSTABLE_OFFSET_COMMIT
                else:
                    assert (told.error, told.committed.offset) == (0, counting.get(place, -1))

    @invariant()
    def loading_gives_what_is_there(self) -> None:
        living = self.runtime.loaded_shards()
        before = self.runtime
        self.start()
        self.runtime.submit("a", lambda shard: shard.fetch_offsets("a", []))
        loaded = self.runtime.loaded_shards()
        self.runtime = before
        for one, again in zip(living, loaded, strict=True):
            assert again.offsets.groups.keys() >= {
                group for group, topics in one.offsets.groups.items() if topics
            }
            for group in GROUPS:
                assert list(again.offsets.places(group)) == list(one.offsets.places(group))
                waiting = sorted(one.offsets.pending_places(group))
                assert sorted(again.offsets.pending_places(group)) == waiting


TestOffsetsInTransactions = OffsetsInTransactions.TestCase
TestOffsetsInTransactions.settings = settings(stateful_step_count=40)
