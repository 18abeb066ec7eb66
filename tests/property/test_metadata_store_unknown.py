"""Nobody is told a lie by a store whose outcomes are unknown: topics, epochs, producer ids.

The store applies, loses or delays what it answers with Unknown, answers out of order, and lets
watches lag and lose their place. A failure prints its seed through hypothesis.
"""

import random

from hypothesis import given
from hypothesis import strategies as st

from ottla.cluster.changes import TopicCreated, TopicDeleted
from ottla.cluster.controller import TopicRef
from ottla.cluster.keys import image_of
from ottla.cluster.producer_ids import BLOCK_SIZE, ProducerIds
from ottla.cluster.store import Snapshot, StoreError
from ottla.cluster.topics import NewTopic
from ottla.protocol.errors import ErrorCode
from ottla.testing.simstore import SimStore
from tests.unit.cluster.support import Cluster

SEEDS = st.integers(0, 2**32 - 1)
UNKNOWN = st.sampled_from([0.0, 0.2, 0.5, 0.8])
GAPS = st.sampled_from([0.0, 0.1])
NAMES = ["a", "b", "c.d"]


def started(store: SimStore, node_id: int) -> Cluster:
    while True:  # a start may give up; whoever starts the node tries again
        try:
            return Cluster(store, node_id=node_id).start()
        except StoreError:
            continue


def creations(store: SimStore) -> list[str]:
    """Every /t key that a transaction made, in order: the truth about creations."""
    made, there = [], set()
    for update in store.history:
        for key, entry in update.entries.items():
            if key.startswith("/t/"):
                if entry is None:
                    there.discard(key)
                elif key not in there:
                    there.add(key)
                    made.append(key)
    return made


class Run:
    """Nodes that create and delete topics at random, and what they were told."""

    def __init__(self, seed: int, unknown: float, gaps: float) -> None:
        self.rng = random.Random(seed)
        self.store = SimStore(seed, unknown=unknown, gaps=gaps)
        self.nodes = [started(self.store, node_id) for node_id in range(2)]
        self.created = []
        self.deleted = []

    def go(self) -> None:
        for _ in range(12):
            node = self.rng.choice(self.nodes)
            names = self.rng.sample(NAMES, 2)
            match self.rng.randrange(3):
                case 0:
                    topics = [NewTopic(name, self.rng.randint(1, 3)) for name in names]
                    self.created.append(node.controller.create_topics(topics))
                case 1:
                    self.created.append(node.controller.auto_create(names))
                case 2:
                    references = [TopicRef(name) for name in names]
                    self.deleted.append(node.controller.delete_topics(references))
            for _ in range(self.rng.randrange(12)):
                self.store.step()
        self.store.run()

    def made(self):
        return [r for p in self.created for r in p.result() if r.error is ErrorCode.NONE]


@given(SEEDS, UNKNOWN, GAPS)
def test_no_topic_is_created_twice_or_lost_after_its_answer(seed, unknown, gaps):
    run = Run(seed, unknown, gaps)
    run.go()
    made = creations(run.store)
    assert len(made) == len(set(made)), "a topic was made again after it had been deleted"
    answered = {f"/t/{result.topic_id.hex()}" for result in run.made()}
    assert answered <= set(made), "an answer said NONE for a topic that never was"
    gone = {
        f"/t/{result.topic_id.hex()}"
        for pending in run.deleted
        for result in pending.result()
        if result.error in (ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT)
    }
    lost = {key for key in answered if key not in run.store.entries} - gone
    if not lost:
        return
    # What is gone must have been taken by a deletion that somebody asked for under its name.
    raise AssertionError(f"lost without a deletion: {lost}")


@given(SEEDS, UNKNOWN)
def test_a_definite_no_stays_a_no(seed, unknown):
    run = Run(seed, unknown, 0.0)
    run.go()
    names_made = [
        change.topic.name for change in run.nodes[0].changes if isinstance(change, TopicCreated)
    ]
    told = [
        result
        for pending in run.created
        for result in pending.result()
        if result.error in (ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT)
    ]
    # Every creation was somebody's yes or somebody's "not known": none was answered with a no.
    assert len(names_made) <= len(told)
    for name in NAMES:
        assert names_made.count(name) <= sum(result.name == name for result in told)


@given(SEEDS, UNKNOWN, GAPS)
def test_every_view_ends_as_the_store_is_and_saw_changes_that_lead_there(seed, unknown, gaps):
    run = Run(seed, unknown, gaps)
    run.go()
    truth = image_of(Snapshot(run.store.revision, run.store.entries))
    names = set(truth.topics)
    assert {entry for entry in run.store.entries if entry.startswith("/name/")} == {
        f"/name/{name}" for name in names
    }
    for node in run.nodes:
        assert node.image.topics == truth.topics
        assert node.image.by_id == truth.by_id
        assert node.image.partitions_count == truth.partitions_count
        there = set()
        for change in node.changes:
            if isinstance(change, TopicCreated):
                assert change.topic.id not in there
                there.add(change.topic.id)
            elif isinstance(change, TopicDeleted):
                there.remove(change.topic.id)
        assert there == set(truth.by_id)


@given(SEEDS, UNKNOWN)
def test_no_start_repeats_a_leader_epoch(seed, unknown):
    store = SimStore(seed, unknown=unknown)
    node = started(store, 0)
    results = node.create(NewTopic("t", 2))
    if results[0].error is not ErrorCode.NONE:
        return
    seen = [0]
    for _ in range(4):
        partitions = started(store, 0).image.topics["t"].partitions
        assert {p.leader_epoch for p in partitions} == {partitions[0].leader_epoch}
        seen.append(partitions[0].leader_epoch)
    assert seen == sorted(set(seen))


@given(SEEDS, UNKNOWN)
def test_no_producer_id_is_given_out_twice(seed, unknown):
    rng = random.Random(seed)
    store = SimStore(seed, unknown=unknown)
    sources = [ProducerIds(store) for _ in range(2)]
    pendings = []
    for _ in range(10):
        source = rng.randrange(2)
        if rng.random() < 0.2:
            sources[source] = ProducerIds(store)  # a restart
        many = rng.choice([1, 3, BLOCK_SIZE + 1])
        pendings += [sources[source].next_producer_id() for _ in range(many)]
        for _ in range(rng.randrange(6)):
            store.step()
    store.run()
    ids = []
    for pending in pendings:
        assert pending.done
        try:
            ids.append(pending.result())
        except StoreError:
            continue
    assert len(ids) == len(set(ids))
    assert min(ids, default=0) >= 0
