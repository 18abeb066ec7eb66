"""Clients that commit and read offsets of a node whose power fails, or which is killed, at any step.

I35: once a commit is acknowledged, that offset or a newer one is told, whatever happens; what was
told once is never taken back; and of what nobody committed nothing is told.

OTTLA_SEED=n runs one history; OTTLA_SOAK=1 runs many more.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from errno import EIO
from typing import Any

import pytest

from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages import delete_topics, offset_commit, offset_delete, offset_fetch
from ottla.records.batch import BatchView
from ottla.testing.simfile import Fault
from ottla.testing.simnode import Call, SimNode
from tests.asking import ask
from tests.sim.histories import named_by, seed_ranges

HISTORIES = 5_000 if os.environ.get("OTTLA_SOAK") == "1" else 240
SEEDS_PER_TEST = 40
GROUPS = ("a", "b", "c", "d")
PARTITIONS = 2
NOT_NOW = (ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

Place = tuple[str, int]


def commit(
    group: str, offsets: dict[int, int], topic: str = "t", **more: Any
) -> offset_commit.OffsetCommitRequest:
    parts = [
        offset_commit.OffsetCommitRequestPartition(
            partition_index=number, committed_offset=offset, committed_metadata=f"{group}{offset}"
        )
        for number, offset in offsets.items()
    ]
    topics = [offset_commit.OffsetCommitRequestTopic(name=topic, partitions=parts)]
    return offset_commit.OffsetCommitRequest(group_id=group, topics=topics, **more)


def fetch(*groups: str, topic: str | None = "t", **more: Any) -> offset_fetch.OffsetFetchRequest:
    def wanted() -> list[offset_fetch.OffsetFetchRequestTopics] | None:
        if topic is None:
            return None
        numbers = list(range(PARTITIONS))
        return [offset_fetch.OffsetFetchRequestTopics(name=topic, partition_indexes=numbers)]

    asked = [
        offset_fetch.OffsetFetchRequestGroup(group_id=group, topics=wanted()) for group in groups
    ]
    return offset_fetch.OffsetFetchRequest(groups=asked, **more)


def committed(call: Call) -> dict[Place, int]:
    """What an answer tells of each group and partition."""
    return {
        (group.group_id, part.partition_index): part.committed_offset
        for group in call.answer.groups
        for topic in group.topics
        for part in topic.partitions
    }


class History:
    """One run from a seed, and what it was told."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        policy = self.random.choice(("commit", "commit", "commit", "os"))
        self.synced = policy == "commit"
        options = {"offsets_topic_num_partitions": self.random.choice(("1", "3"))}
        if self.random.random() < 0.3:
            options["offsets_topic_segment_bytes"] = "1048576"
        self.node = SimNode(seed, flush_policy=policy, **options)
        self.node.create_topic("t", PARTITIONS)
        self.least: dict[Place, int] = {}
        """What must be told, or something newer."""
        self.sent: dict[Place, int] = {}
        self.flying: list[tuple[dict[Place, int], Call]] = []
        self.reads: list[tuple[dict[Place, int], Call]] = []
        self.seen: Counter[str] = Counter()
        self.connect()

    def connect(self) -> None:
        self.connections = {group: self.node.connect() for group in GROUPS}
        self.readers = [self.node.connect() for _ in range(8)]
        """Others than who commits, behind whose unanswered commits a read would wait its turn."""

    def run(self) -> None:
        for _ in range(self.random.randrange(20, 60)):
            self.random.choice((self.commit, self.commit, self.read))()
            self.node.steps(self.random.choice((0, 0, 1, 3, 10, 40)))
            self.listen()
            if self.random.random() < 0.08 and not self.end_a_life():
                return
        self.check()

    def commit(self) -> None:
        group = self.random.choice(GROUPS)
        numbers = self.random.sample(range(PARTITIONS), self.random.choice((1, 2)))
        places = {(group, number): self.sent.get((group, number), -1) + 1 for number in numbers}
        self.sent |= places
        request = commit(group, {number: offset for (_, number), offset in places.items()})
        call = self.connections[group].ask(request, self.random.choice((2, 8)))
        self.flying.append((places, call))

    def read(self) -> None:
        group = self.random.choice(GROUPS)
        at_least = {place: offset for place, offset in self.least.items() if place[0] == group}
        self.reads.append((at_least, self.random.choice(self.readers).ask(fetch(group), 8)))

    def listen(self) -> None:
        for places, call in [one for one in self.flying if one[1].done]:
            self.flying.remove((places, call))
            for part in call.answer.topics[0].partitions:
                assert part.error_code == 0, part
            self.seen["acknowledged"] += 1
            for place, offset in places.items():
                self.least[place] = max(self.least.get(place, -1), offset)
        for at_least, call in [one for one in self.reads if one[1].done]:
            self.reads.remove((at_least, call))
            self.hear(at_least, call)

    def hear(self, at_least: dict[Place, int], call: Call) -> None:
        self.seen["read"] += 1
        for place, offset in committed(call).items():
            least = at_least.get(place, -1)
            assert least <= offset <= self.sent.get(place, -1), f"{place}: {offset}, not {least}"
            self.least[place] = max(self.least.get(place, -1), offset)

    def end_a_life(self) -> bool:
        """False where the log of a coordinator can't be written any more (see test_node_crashes)."""
        how = self.random.choice(("kill", "crash", "crash", "stop") if self.synced else ("kill",))
        self.seen[how] += 1
        if how == "stop":
            self.node.settle()
            self.listen()
            self.node.stop()
        elif how == "kill":
            self.node.kill()
        else:
            self.node.crash(self.random.choice(("any", "prefix", "nothing", "everything")))
        self.flying.clear()
        self.reads.clear()
        self.connect()
        if any(partition.log.failed for partition in self.node.table):
            assert how == "crash"
            self.seen["damaged"] += 1
            return False
        if self.random.random() < 0.5:
            self.check()
        return True

    def check(self) -> None:
        self.node.settle()
        self.listen()
        call = self.node.connect().ask(fetch(*GROUPS), 8)
        self.node.settle()
        self.hear(self.least, call)


def run_history(seed: int) -> Counter[str]:
    with named_by(seed):
        history = History(seed)
        history.run()
    return history.seen


@pytest.mark.parametrize(
    "seeds", seed_ranges(HISTORIES, SEEDS_PER_TEST), ids=lambda seeds: f"from-{seeds[0]}"
)
def test_i35_whatever_happens_no_commit_that_was_acknowledged_is_lost(seeds: range) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen += run_history(seed)
    if len(seeds) > 1:
        assert {"kill", "crash", "stop", "read", "acknowledged"} <= set(seen), seen
        assert 10 * seen["damaged"] <= seen["crash"], seen


# --- one thing at a time -----------------------------------------------------------------------


def test_the_first_commit_makes_the_topic_and_waits_for_nothing_but_that() -> None:
    node = SimNode()
    node.create_topic("t", PARTITIONS)
    now_s = node.loop.monotonic()
    answer = ask(node, commit("g", {0: 5}), 8)
    assert answer.topics[0].partitions[0].error_code == 0
    assert node.loop.monotonic() == now_s
    topic = node.image.topics["__consumer_offsets"]
    assert len(topic.partitions) == 50
    assert topic.configs["cleanup.policy"] == "compact"
    assert topic.configs["segment.bytes"] == "104857600"


def test_several_who_come_at_once_make_one_topic() -> None:
    node = SimNode()
    node.create_topic("t", PARTITIONS)
    calls = [node.connect().ask(commit(f"g{n}", {0: n}), 8) for n in range(20)]
    node.settle()
    assert all(call.answer.topics[0].partitions[0].error_code == 0 for call in calls)
    call = node.connect().ask(fetch(*(f"g{n}" for n in range(20))), 8)
    node.settle()
    assert [committed(call)[f"g{n}", 0] for n in range(20)] == list(range(20))


def test_a_topic_that_may_not_be_made_is_an_error_that_clients_retry() -> None:
    node = SimNode(max_partitions_per_topic="10")
    node.create_topic("t", PARTITIONS)
    answer = ask(node, commit("g", {0: 5}), 8)
    assert answer.topics[0].partitions[0].error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    for version in (1, 2, 7):
        asked = [offset_fetch.OffsetFetchRequestTopic(name="t", partition_indexes=[0])]
        request = offset_fetch.OffsetFetchRequest(group_id="g", topics=asked)
        answer = ask(node, request, version)
        if version == 1:  # has no place for an error but beside each partition
            (part,) = answer.topics[0].partitions
            assert (part.error_code, part.committed_offset) == (15, -1)
        else:
            assert (answer.error_code, answer.topics) == (15, [])


def test_commits_are_readable_records_of_the_topic_that_nobody_may_produce_to() -> None:
    node = SimNode(offsets_topic_num_partitions="1")
    node.create_topic("t", PARTITIONS)
    ask(node, commit("g", {0: 5, 1: 6}), 8)
    partition = node.partition("__consumer_offsets")
    assert partition.log.end == 2
    assert partition.internal


def test_a_deleted_topics_offsets_are_gone_also_after_a_crash_right_behind() -> None:
    for crash in (False, True):
        node = SimNode()
        node.create_topic("t", PARTITIONS)
        node.create_topic("u", PARTITIONS)
        ask(node, commit("g", {0: 5}), 8)
        ask(node, commit("g", {0: 6}, topic="u"), 8)
        connection = node.connect()
        request = delete_topics.DeleteTopicsRequest(topic_names=["t"], timeout_ms=1000)
        call = connection.ask(request, 5)
        while not call.done:
            assert node.step()
        if crash:
            node.crash("nothing")
        answer = ask(node, fetch("g", topic=None), 8)
        assert [topic.name for topic in answer.groups[0].topics] == ["u"]


def test_deleting_the_topic_itself_forgets_all_groups_and_the_next_commit_makes_it_anew() -> None:
    node = SimNode()
    node.create_topic("t", PARTITIONS)
    ask(node, commit("g", {0: 5}), 8)
    node.delete_topic("__consumer_offsets")
    node.settle()
    call = node.connect().ask(fetch("g"), 8)
    node.settle()
    assert committed(call)["g", 0] == -1
    assert "__consumer_offsets" in node.image.topics


def test_a_disk_that_fails_answers_that_the_coordinator_is_not_there() -> None:
    node = SimNode()
    node.create_topic("t", PARTITIONS)
    ask(node, commit("g", {0: 5}), 8)
    node.disk.faults = [Fault("sync", EIO)]
    answer = ask(node, commit("g", {0: 6}), 8)
    assert answer.topics[0].partitions[0].error_code in NOT_NOW
    answer = ask(node, fetch("g"), 8)
    assert answer.groups[0].error_code in NOT_NOW
    node.crash("nothing")
    call = node.connect().ask(fetch("g"), 8)
    node.settle()
    assert committed(call)["g", 0] == 5


def test_too_many_partitions_are_refused() -> None:
    node = SimNode(request_partitions_max="5")
    node.create_topic("t", 8)
    answer = ask(node, commit("g", dict.fromkeys(range(6), 1)), 8)
    assert {part.error_code for part in answer.topics[0].partitions} == {42}
    answer = ask(node, fetch(*"abcdef"), 8)
    assert {group.error_code for group in answer.groups} == {42}
    parts = [offset_delete.OffsetDeleteRequestPartition(partition_index=n) for n in range(6)]
    topics = [offset_delete.OffsetDeleteRequestTopic(name="t", partitions=parts)]
    request = offset_delete.OffsetDeleteRequest(group_id="g", topics=topics)
    assert ask(node, request, 0).error_code == 42


def test_expired_offsets_go_while_nobody_asks() -> None:
    node = SimNode(offsets_retention_minutes="1", offsets_retention_check_interval_ms="10000")
    node.create_topic("t", PARTITIONS)
    ask(node, commit("g", {0: 5}), 8)
    node.advance(50)
    call = node.connect().ask(fetch("g"), 8)
    node.settle()
    assert committed(call)["g", 0] == 5
    node.advance(25)
    call = node.connect().ask(fetch("g"), 8)
    node.settle()
    assert committed(call)["g", 0] == -1


def test_a_cold_log_is_warmed_before_it_is_loaded() -> None:
    node = SimNode(offsets_topic_num_partitions="1")
    node.create_topic("t", PARTITIONS)
    for number in range(50):
        ask(node, commit(f"g{number}", {0: number}), 8)
    node.crash("everything")
    node.disk.evict()
    call = node.connect().ask(fetch("g7", "g49"), 8)
    node.settle()
    assert committed(call) == {("g7", 0): 7, ("g7", 1): -1, ("g49", 0): 49, ("g49", 1): -1}


def told(node: SimNode, group: str) -> tuple[int, int]:
    """The error and the offset that are told of a group's first partition."""
    call = node.connect().ask(fetch(group), 8)
    node.settle()
    (answer,) = call.answer.groups
    offsets = [part.committed_offset for topic in answer.topics for part in topic.partitions]
    return answer.error_code, (offsets or [-1])[0]


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("skip", range(8))
def test_a_read_that_is_refused_while_a_log_is_loaded_is_not_taken_for_its_end(
    skip: int, cold: bool
) -> None:
    """Or who committed last would be told an older offset, or none, and nobody of any error."""
    node = SimNode(offsets_topic_num_partitions="1")
    node.create_topic("t", PARTITIONS)
    for offset in range(1, 6):
        ask(node, commit("g", {0: offset}), 8)
    node.stop()
    if cold:
        node.disk.evict()
    node.disk.faults = [Fault("read nowait", EIO, path="__consumer_offsets-0", skip=skip)]
    error, offset = told(node, "g")
    assert error in NOT_NOW or (error, offset) == (0, 5)
    assert node.disk.pinned() == []
    node.disk.faults.clear()
    node.kill()
    assert told(node, "g") == (0, 5)


def test_a_log_whose_damage_is_found_by_its_loading_is_not_taken_for_one_that_ends_there() -> None:
    node = SimNode(offsets_topic_num_partitions="1")
    node.create_topic("t", PARTITIONS)
    for offset in range(1, 6):
        ask(node, commit("g", {0: offset}), 8)
    node.stop()
    path = "/data/__consumer_offsets-0/00000000000000000000.log"
    node.disk.on_loop = False
    raw = node.disk.read_file(path)
    assert raw is not None
    node.disk.open(path).write(b"\xff", raw.index(b"g3"))
    node.disk.on_loop = True
    node.disk.evict()
    error, offset = told(node, "g")
    assert error in NOT_NOW, f"{offset} is told, though 5 was committed"


@pytest.mark.parametrize("version", range(2, 11))
def test_commits_in_every_version_are_read_in_every_version(version: int) -> None:
    node = SimNode(offsets_topic_num_partitions="1")
    topic_id = node.create_topic("t", PARTITIONS)
    request = commit("g", {0: 5})
    request.topics[0].topic_id = topic_id
    request.topics[0].partitions[0].committed_leader_epoch = 2
    ((part,),) = (topic.partitions for topic in ask(node, request, version).topics)
    assert part.error_code == 0
    epoch = 2 if version >= 6 else -1
    for reading in range(1, 11):
        if reading < 8:
            named = [offset_fetch.OffsetFetchRequestTopic(name="t", partition_indexes=[0, 1])]
            answer = ask(node, offset_fetch.OffsetFetchRequest(group_id="g", topics=named), reading)
            (topic,) = answer.topics
        else:
            asked = fetch("g")
            asked.groups[0].topics[0].topic_id = topic_id
            (group,) = ask(node, asked, reading).groups
            (topic,) = group.topics
            assert (topic.name, topic.topic_id) == (
                ("t", bytes(16)) if reading < 10 else ("", topic_id)
            )
        first, second = topic.partitions
        assert (first.committed_offset, first.metadata, first.error_code) == (5, "g5", 0)
        assert first.committed_leader_epoch == (epoch if reading >= 5 else -1)
        assert (second.committed_offset, second.metadata, second.error_code) == (-1, "", 0)


def test_topics_that_are_not_there_are_answered_beside_those_that_are() -> None:
    node = SimNode(offsets_topic_num_partitions="1")
    topic_id = node.create_topic("t", PARTITIONS)
    request = commit("g", {0: 5, 7: 5})
    request.topics.append(commit("g", {0: 5}, topic="nothing").topics[0])
    answer = ask(node, request, 8)
    codes = [[part.error_code for part in topic.partitions] for topic in answer.topics]
    assert codes == [[0, 3], [3]]
    request.topics[0].topic_id, request.topics[1].topic_id = topic_id, b"x" * 16
    answer = ask(node, request, 10)
    codes = [[part.error_code for part in topic.partitions] for topic in answer.topics]
    assert codes == [[0, 3], [100]]
    asked = fetch("g")
    asked.groups[0].topics[0].topic_id = b"x" * 16
    (group,) = ask(node, asked, 10).groups
    assert [part.error_code for part in group.topics[0].partitions] == [100, 100]


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_commits_are_kept_in_the_codec_that_the_options_say(codec: int) -> None:
    node = SimNode(offsets_topic_num_partitions="1", offsets_topic_compression_codec=str(codec))
    node.create_topic("t", PARTITIONS)
    ask(node, commit("g", {0: 5, 1: 6}), 8)
    log = node.partition("__consumer_offsets").log
    (segment,) = log.segments
    node.disk.on_loop = False  # a test may read and wait
    assert BatchView(memoryview(segment.log.read(0, 1 << 16))).codec == codec
    node.disk.on_loop = True
    node.crash("nothing")
    call = node.connect().ask(fetch("g"), 8)
    node.settle()
    assert committed(call) == {("g", 0): 5, ("g", 1): 6}
