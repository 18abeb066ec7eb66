"""Which shard has a key, the topic's making on first use, and its end."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from ottla.coordinator.decision import Do, Ending
from ottla.coordinator.keeper import QUEUED_MAX
from ottla.coordinator.runtime import Runtime, java_hash
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from ottla.testing.simloop import SimLoop
from tests.journals import Codec, MemoryJournal, MemoryJournals
from tests.unit.coordinator.counting import CountingShard, add, look, put


class World:
    def __init__(self, partitions: int) -> None:
        self.journals = MemoryJournals(partitions)
        self.loop = SimLoop()
        self.shards: list[CountingShard] = []
        self.runtime: Runtime[Any] = Runtime(
            self.journals, self.make, Codec(), self.loop, self.loop
        )

    def make(self, partition: int) -> CountingShard:
        self.shards.append(CountingShard(partition))
        return self.shards[-1]


@pytest.mark.parametrize(
    ("text", "hashed"),
    # The last is the known text whose hash is Java's Integer.MIN_VALUE.
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("𝄞", 1772394),
        ("consumer", 567770122),  # a negative one
        ("polygenelubricants", 0),
    ],
)
def test_a_key_is_hashed_as_java_does(text: str, hashed: int) -> None:
    assert java_hash(text) == hashed


def test_i44_keys_that_nobody_has_judged_yet_are_not_kept_however_long_they_are() -> None:
    long = "𝄞" * 30_000
    hashed = java_hash(long)
    tracemalloc.start()
    try:
        for number in range(5):
            assert java_hash(f"{number:04}{long}") != hashed
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000


def test_the_topic_is_made_once_for_all_who_wait_for_it() -> None:
    world = World(0)
    asked = [world.runtime.submit(f"group-{n}", add("a")) for n in range(10)]
    assert world.journals.made_count == 1
    assert not any(one.done for one in asked)
    world.journals.made(3)
    assert all(one.done for one in asked)
    assert sum(shard.values["a"] for shard in world.shards) == 10


def test_who_comes_when_the_topic_is_there_does_not_overtake_those_who_wait_for_it() -> None:
    world = World(0)
    asked: list[Any] = [world.runtime.submit("g", add("a"))]
    made = world.journals.making
    assert made is not None
    world.journals.journals = [MemoryJournal()]  # there, but those who wait have not been told yet
    assert world.runtime.settled("g") is None
    asked += [world.runtime.submit("g", add("a")), world.runtime.ask("g", add("a"))]
    made.complete(ErrorCode.NONE)
    assert [one.result() for one in asked] == [1, 2, 3]
    assert world.journals.made_count == 1


def test_who_is_asked_while_those_who_waited_are_served_comes_after_them() -> None:
    world = World(0)
    asked: list[Any] = []

    def first(shard: CountingShard) -> Any:
        asked.append(world.runtime.submit("g", add("a")))
        return add("a")(shard)

    asked.insert(0, world.runtime.submit("g", first))
    asked.insert(1, world.runtime.submit("g", add("a")))
    world.journals.made(1)
    assert [one.result() for one in asked] == [1, 2, 3]
    assert world.journals.made_count == 1


def test_a_topic_that_cannot_be_made_is_tried_again_by_who_comes_next() -> None:
    world = World(0)
    asked = world.runtime.submit("g", look("a"))
    world.journals.made(0, ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert asked.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    asked = world.runtime.submit("g", look("a"))
    world.journals.made(1)
    assert asked.result() == 0
    assert world.journals.made_count == 2


def test_no_more_than_so_many_wait_for_the_topic() -> None:
    world = World(0)
    for _ in range(QUEUED_MAX):
        world.runtime.submit("g", look("a"))
    late = world.runtime.submit("g", look("a"))
    assert late.result() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


def test_the_same_key_always_has_the_same_shard() -> None:
    world = World(7)
    for n in range(50):
        for _ in range(2):
            world.runtime.submit(f"group-{n}", add(f"group-{n}"))
    for shard in world.shards:
        for topic, number in shard.values.items():
            assert number == 2
            assert world.runtime.partition_for(topic) == shard.partition


def test_a_shard_of_a_deleted_topic_is_gone_and_a_new_topic_begins_empty() -> None:
    world = World(1)
    world.runtime.submit("g", add("a"))
    waiting: Pending[Any] = world.runtime.submit("g", lambda _shard: _waits())
    world.journals.delete()
    assert waiting.result() is ErrorCode.NOT_COORDINATOR
    asked = world.runtime.submit("g", look("a"))
    world.journals.made(2)
    assert asked.result() == 0


def _waits() -> Any:
    from ottla.coordinator.decision import Decision

    return Decision(Pending())


def test_a_shard_that_failed_is_loaded_anew_once_its_journal_can_be_opened() -> None:
    world = World(1)
    world.runtime.submit("g", add("a"))
    journal = world.journals.journals[0]
    journal.fail(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    asked = world.runtime.submit("g", look("a"))
    assert asked.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    world.journals.open_error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    asked = world.runtime.submit("g", look("a"))
    assert asked.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    world.journals.open_error = journal.failure = ErrorCode.NONE
    assert world.runtime.submit("g", look("a")).result() == 1


def test_a_start_loads_what_there_is_one_after_the_other() -> None:
    world = World(5)
    for partition in (1, 3, 4):
        world.journals.journals[partition].write(put("a", partition))
    slow = world.journals.journals[1]
    slow.reads = []
    world.runtime.start()
    world.loop.run()
    assert [shard.partition for shard in world.shards] == [1]
    assert (world.runtime.loaded_shards(), world.runtime.shards()) == ([], world.shards)
    slow.reads[0].complete(slow.bytes_from(0))
    world.loop.run()
    assert [shard.partition for shard in world.shards] == [1, 3, 4]
    assert [shard.values["a"] for shard in world.shards] == [1, 3, 4]


def test_a_stop_answers_who_waits_for_others_and_lets_commits_be_committed() -> None:
    world = World(1)
    world.journals.journals[0].commits_at_once = False
    commit = world.runtime.submit("g", add("a"))
    waiting: Pending[Any] = world.runtime.submit("g", lambda _shard: _waits())
    world.runtime.stop()
    assert waiting.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    late = world.runtime.submit("g", look("a"))
    assert late.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert not commit.done
    world.journals.journals[0].commit()
    assert commit.result() == 1


def test_who_is_asked_for_is_loaded_before_its_turn() -> None:
    world = World(2)
    for journal in world.journals.journals:
        journal.write(put("a", 5))
    world.journals.journals[0].reads = []
    world.runtime.start()
    key = next(f"g{n}" for n in range(9) if world.runtime.partition_for(f"g{n}") == 1)
    assert world.runtime.submit(key, look("a")).result() == 5


def test_what_is_asked_of_all_is_asked_of_every_shard_that_has_anything() -> None:
    world = World(4)
    assert world.runtime.submit_everywhere(look("a")) == []
    world.journals.journals[2].write(put("a", 5))
    asked = world.runtime.submit_everywhere(look("a"))
    assert [one.result() for one in asked] == [5]
    world.journals.open_error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert ErrorCode.COORDINATOR_NOT_AVAILABLE in [
        one.result() for one in world.runtime.submit_everywhere(look("a"))
    ]
    assert World(0).runtime.submit_everywhere(look("a")) == []


def test_a_transactions_end_is_told_to_the_shard_of_its_partition() -> None:
    world = World(3)
    ended = world.runtime.end_transaction(1, Ending(7, 0, True, 0, 2))
    assert ended.result() is ErrorCode.NONE
    assert [(shard.partition, shard.ended) for shard in world.shards] == [(1, [(7, True)])]
    nowhere = world.runtime.end_transaction(3, Ending(7, 0, True, 0, 2))
    assert nowhere.result() is ErrorCode.NOT_COORDINATOR


def test_a_shard_may_ask_of_itself_as_soon_as_it_is_loaded() -> None:
    world = World(1)
    world.journals.journals[0].write(put("a", 5))
    asked: list[Pending[Any]] = []

    def ask() -> None:
        asked.append(world.runtime.submit("g", add("a")))

    effects = [Do(ask)]
    make = world.make

    def make_eager(partition: int) -> CountingShard:
        shard = make(partition)
        shard.effects_when_loaded = effects
        return shard

    world.runtime._make_shard = make_eager  # its own way to a shard is given before
    assert world.runtime.submit("g", add("a")).result() == 7
    assert [one.result() for one in asked] == [6]
    assert len(world.shards) == 1


def test_who_asks_again_by_a_key_is_told_by_the_shard_that_has_it_then() -> None:
    world = World(2)
    runtime = world.runtime

    def ask(key: str = "a") -> Any:
        asked = runtime.ask(key, add(key))
        world.loop.run()
        return asked.result() if isinstance(asked, Pending) else asked

    assert [ask(), ask()] == [1, 2]
    journal = world.journals.journals[runtime.partition_for("a")]
    journal.failure = ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert ask() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    journal.failure = ErrorCode.NONE
    assert [ask(), ask()] == [3, 4]
    assert runtime.settled("a") is world.shards[-1]
    world.journals.delete()
    assert runtime.settled("a") is None
    world.journals.journals = [MemoryJournal(), MemoryJournal()]
    assert [ask(), ask()] == [1, 2]
    assert runtime.settled("a") is world.shards[-1]
