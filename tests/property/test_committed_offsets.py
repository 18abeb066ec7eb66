"""I35: an offset that was acknowledged as committed is told from then on, or a newer one is.

Commits, reads, deletions and expiry over the runtime, with a restart of the coordinator possible
at every step, log syncs that come late, and appends that fail. A dictionary is the model.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ottla.cluster.image import ClusterImage, TopicImage
from ottla.coordinator.group.offsets import PLACE_BYTES
from ottla.coordinator.group.shard import Commit, GroupShard, Member
from ottla.coordinator.runtime import Runtime
from ottla.core.model import TopicId
from ottla.core.options import broker_config
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from ottla.testing.simloop import SimLoop
from tests.journals import Codec, MemoryJournal, MemoryJournals

GROUPS = st.sampled_from(["a", "b", "c"])
TOPICS = st.sampled_from(["t", "u"])
PARTITIONS = st.integers(0, 1)
IDS = {"t": TopicId(b"t" * 16), "u": TopicId(b"u" * 16)}
RETENTION_S = 60.0

Place = tuple[str, str, int]


class CommittedOffsets(RuleBasedStateMachine):
    """`acknowledged` is the model: what must be told, and when it was committed. `maybe` is what
    was asked for since and may have happened."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SimLoop()
        self.config = broker_config({"offsets.retention.minutes": "1"})
        topics = {name: TopicImage(name, ident, (), {}) for name, ident in IDS.items()}
        by_id = {topic.id: topic for topic in topics.values()}
        self.image = ClusterImage("c", topics=topics, by_id=by_id)
        self.journals = MemoryJournals()
        self.acknowledged: dict[Place, int] = {}
        self.maybe: dict[Place, list[int]] = {}
        self.asked: list[tuple[Place, int, Pending[Any]]] = []
        self.number = 0

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        self.journals.journals = [MemoryJournal() for _ in range(count)]
        self._start()

    def _start(self) -> None:
        self.runtime: Runtime[GroupShard] = Runtime(
            self.journals,
            lambda number: GroupShard(number, self.config, lambda: self.image, self.loop),
            Codec(),
            self.loop,
            self.loop,
        )

    # --- what clients do -------------------------------------------------------------------

    @rule(group=GROUPS, topic=TOPICS, partition=PARTITIONS)
    def commit(self, group: str, topic: str, partition: int) -> None:
        """Offsets only differ, they need not rise: a client may go back."""
        self.number += 1
        one = Commit(topic, IDS[topic], partition, self.number, -1, "")
        asked = self.runtime.submit(
            group, lambda shard: shard.commit_offsets(group, Member(), [one], version=8)
        )
        self._note((group, topic, partition), self.number, asked)

    @rule(group=GROUPS, topic=TOPICS, partition=PARTITIONS)
    def delete(self, group: str, topic: str, partition: int) -> None:
        asked = self.runtime.submit(
            group, lambda shard: shard.delete_offsets(group, [(topic, partition)])
        )
        self._note((group, topic, partition), -1, asked)

    @rule(group=GROUPS, epoch=st.integers(0, 3))
    def commit_with_a_generation_that_nobody_has(self, group: str, epoch: int) -> None:
        one = Commit("t", IDS["t"], 0, 999_999, -1, "")
        asked = self.runtime.submit(
            group,
            lambda shard: shard.commit_offsets(group, Member("m", None, epoch), [one], version=8),
        )
        self._sync()
        assert isinstance(asked.result(), ErrorCode)
        assert asked.result()

    def _note(self, place: Place, offset: int, asked: Pending[Any]) -> None:
        self.maybe.setdefault(place, []).append(offset)
        self.asked.append((place, offset, asked))
        self._take_answers()

    def _take_answers(self) -> None:
        waiting = []
        for place, offset, asked in self.asked:
            if not asked.done:
                waiting.append((place, offset, asked))
            elif asked.result() == [ErrorCode.NONE]:
                self.acknowledged[place] = offset
                # Whatever was asked for before it can't be told any more.
                earlier = self.maybe[place]
                del earlier[: earlier.index(offset) + 1]
            elif asked.result() is ErrorCode.GROUP_ID_NOT_FOUND:
                self.maybe[place].remove(offset)  # a group that is not there has nothing to delete
        self.asked = waiting

    # --- what happens to the node ----------------------------------------------------------

    @rule()
    def the_log_is_synced(self) -> None:
        self._sync()

    def _sync(self) -> None:
        for journal in self.journals.journals:
            journal.commit()
        self._take_answers()

    @rule(at_once=st.booleans())
    def syncs_come_late_or_at_once_from_now_on(self, at_once: bool) -> None:
        self._sync()
        for journal in self.journals.journals:
            journal.commits_at_once = at_once

    @rule()
    def the_disk_is_full_for_one_commit(self) -> None:
        for journal in self.journals.journals:
            journal.append_error = ErrorCode.KAFKA_STORAGE_ERROR
        one = Commit("t", IDS["t"], 0, 999_998, -1, "")
        asked = self.runtime.submit(
            "a", lambda shard: shard.commit_offsets("a", Member(), [one], version=8)
        )
        assert asked.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
        for journal in self.journals.journals:
            journal.append_error = ErrorCode.NONE

    @rule(keep=st.integers(0, 5))
    def the_node_restarts_and_loses_some_of_what_was_not_synced(self, keep: int) -> None:
        for journal in self.journals.journals:
            lost = keep
            while lost and journal.end > journal.high_watermark:
                journal.batches.pop()
                lost -= 1
            journal.high_watermark = journal.end
        self.asked.clear()  # its clients' connections are gone
        self._start()
        for place in list(self.acknowledged):
            self._read(place)

    @rule()
    def groups_are_looked_through_for_what_has_expired(self) -> None:
        """Nothing has: the clock stands still but for the rule below."""
        for asked in self.runtime.submit_everywhere(
            lambda shard: shard.retention.expire(list(shard.offsets.groups))
        ):
            self._sync()
            assert asked.done

    @rule()
    def everything_expires(self) -> None:
        self._sync()
        self.loop.now_s += RETENTION_S + 1
        self.runtime.submit_everywhere(
            lambda shard: shard.retention.expire(list(shard.offsets.groups))
        )
        self._sync()
        self.acknowledged.clear()
        self.maybe.clear()

    # --- what must hold --------------------------------------------------------------------

    @rule(group=GROUPS, topic=TOPICS, partition=PARTITIONS)
    def read(self, group: str, topic: str, partition: int) -> None:
        self._read((group, topic, partition))

    def _read(self, place: Place) -> None:
        group, topic, partition = place
        asked = self.runtime.submit(
            group, lambda shard: shard.fetch_offsets(group, [(topic, partition)])
        )
        self._sync()
        (told,) = asked.result()
        possible = [self.acknowledged.get(place, -1), *self.maybe.get(place, [])]
        assert told.committed.offset in possible
        # What was told once is told from then on, and never anything older.
        self.acknowledged[place] = told.committed.offset
        left = self.maybe.get(place, [])
        if told.committed.offset in left:
            del left[: left.index(told.committed.offset) + 1]

    @invariant()
    def loading_gives_what_is_there(self) -> None:
        """Replay alone makes the state: a shard loaded from the log is equal to the living one."""
        if not self.journals.journals:
            return
        living = {shard.partition: shard.offsets for shard in self.runtime.loaded_shards()}
        for number, offsets in living.items():
            again = GroupShard(number, self.config, lambda: self.image, self.loop)
            for entry in self.journals.journals[number].entries():
                assert entry is not None
                again.replay(entry)
            assert again.offsets.groups == offsets.groups
            places = sum(len(list(offsets.places(group))) for group in offsets.groups)
            assert again.offsets.bytes_count == offsets.bytes_count == places * PLACE_BYTES


TestCommittedOffsets = CommittedOffsets.TestCase
TestCommittedOffsets.settings = settings(stateful_step_count=40)
