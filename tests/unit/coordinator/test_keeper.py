"""One shard, asked in turn: what happens when, and what does not happen."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.coordinator.decision import Cancel, Complete, Decision, Do, Ending, Follow, Schedule
from ottla.coordinator.keeper import AGAIN_S, QUEUED_MAX, Keeper, Operation
from ottla.core.pending import Pending, completed
from ottla.core.ports import DiskError
from ottla.protocol.errors import ErrorCode
from ottla.records.batch import BatchView
from ottla.records.builder import Producer
from ottla.records.control import end_marker_of
from ottla.testing.simloop import SimLoop
from tests.journals import Codec, MemoryJournal
from tests.unit.coordinator.counting import CountingShard, add, look, put

WAYS = ("submit", "ask")


class World:
    """A keeper with all that is around it, asked in one of the two ways."""

    def __init__(
        self, journal: MemoryJournal | None = None, shard: Any = None, way: str = "submit"
    ) -> None:
        self.way = way
        self.journal = journal or MemoryJournal()
        self.loop = SimLoop()
        self.shard = shard or CountingShard()
        self.keeper = Keeper(self.shard, self.journal, Codec(), self.loop, self.loop)
        self.keeper.load()

    def ask(self, decide: Any) -> Pending[Any]:
        if self.way == "ask":
            told = self.keeper.ask(decide)
            return told if isinstance(told, Pending) else completed(told)
        result: Pending[Any] = Pending()
        self.keeper.submit(Operation(decide, result))
        return result


@pytest.fixture(params=WAYS)
def world(request: pytest.FixtureRequest) -> World:
    return World(way=request.param)


@pytest.fixture(params=WAYS)
def slow(request: pytest.FixtureRequest) -> World:
    """Nothing is committed before a test says so."""
    return World(MemoryJournal(commits_at_once=False), way=request.param)


def test_what_needs_not_be_waited_for_is_told_without_a_pending(world: World) -> None:
    assert world.keeper.ask(add("a")) == 1
    assert world.keeper.ask(look("a")) == 1
    world.journal.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    assert world.keeper.ask(add("a")) is ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_who_asks_in_an_operations_effect_has_his_turn_before_its_reply(world: World) -> None:
    """So the end of a transaction, asked for by the decision's effect, comes before the answer."""
    nested: list[Any] = []
    effect = Do(lambda: nested.append(world.keeper.ask(add("a", 10))))
    assert world.ask(add("a", 1, effect)).result() == 1
    assert nested == [11]
    assert world.journal.entries() == [put("a", 1), put("a", 11)]


def test_what_is_decided_is_appended_replayed_and_replied(world: World) -> None:
    assert world.ask(add("a")).result() == 1
    assert world.ask(add("a")).result() == 2
    assert world.journal.entries() == [put("a", 1), put("a", 2)]
    assert world.shard.values == {"a": 2}


def test_a_reply_waits_until_its_entries_are_committed(slow: World) -> None:
    asked = slow.ask(add("a"))
    assert not asked.done
    slow.journal.commit()
    assert asked.result() == 1


def test_a_reply_without_entries_waits_for_what_was_appended_before_it(slow: World) -> None:
    slow.ask(add("a"))
    read = slow.ask(look("a"))
    assert not read.done
    slow.journal.commit()
    assert read.result() == 1


def test_a_reply_without_entries_leaves_at_once_where_nothing_is_on_its_way(slow: World) -> None:
    assert slow.ask(look("a")).result() == 0


def test_operations_queue_while_files_are_made_and_then_run_in_order(world: World) -> None:
    files: Pending[None] = Pending()
    world.journal.files = files
    first, second, third = world.ask(add("a")), world.ask(add("a", 10)), world.ask(look("a"))
    assert not any(one.done for one in (first, second, third))
    assert world.shard.values == {}
    files.complete(None)
    assert [first.result(), second.result(), third.result()] == [1, 11, 11]


def test_files_that_cannot_be_made_leave_the_state_as_it_was(world: World) -> None:
    files: Pending[None] = Pending()
    world.journal.files = files
    first, second = world.ask(add("a")), world.ask(add("a", 10))
    files.fail(DiskError("create", "/x", OSError(28, "full")))
    assert first.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert second.result() == 10


def test_an_append_that_fails_changes_nothing_and_has_no_effect(world: World) -> None:
    done: list[str] = []
    world.journal.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    asked = world.ask(add("a", 1, Do(lambda: done.append("x"))))
    assert asked.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert (world.shard.values, done, world.journal.entries()) == ({}, [], [])
    world.journal.append_error = ErrorCode.NONE
    assert world.ask(add("a")).result() == 1


def test_more_than_a_batch_may_hold_is_refused_as_a_whole(world: World) -> None:
    world.journal.batch_bytes_max = 300
    asked = world.ask(lambda _shard: Decision(0, [put("a", n) for n in range(20)]))
    assert asked.result() is ErrorCode.UNKNOWN_SERVER_ERROR
    assert world.journal.entries() == []


def test_entries_that_may_be_parted_go_into_several_batches(world: World) -> None:
    world.journal.batch_bytes_max = 300
    entries = [put("a", n) for n in range(20)]
    assert world.ask(lambda _shard: Decision(0, entries, atomic=False)).result() == 0
    assert world.journal.entries() == entries
    assert len(world.journal.batches) > 1
    assert max(map(len, world.journal.batches)) <= 300


def test_a_reply_that_waits_is_given_when_another_decision_completes_it(slow: World) -> None:
    reply: Pending[str] = Pending()
    asked = slow.ask(lambda _shard: Decision(reply))
    slow.ask(add("a", 1, Complete(reply, "joined")))
    assert not asked.done
    slow.journal.commit()
    assert asked.result() == "joined"


def test_completing_a_reply_twice_is_passed_over(world: World) -> None:
    reply: Pending[str] = Pending()
    asked = world.ask(lambda _shard: Decision(reply))
    world.ask(lambda _shard: Decision(None, effects=[Complete(reply, "first")]))
    world.ask(lambda _shard: Decision(None, effects=[Complete(reply, "second")]))
    assert asked.result() == "first"


def test_a_reply_that_is_there_already_waits_for_the_commit_all_the_same(slow: World) -> None:
    asked = slow.ask(lambda _shard: Decision(completed("there"), [put("a", 1)]))
    assert not asked.done
    slow.journal.commit()
    assert asked.result() == "there"


def test_what_is_scheduled_decides_in_its_turn(world: World) -> None:
    later = Schedule("key", 5.0, lambda: Decision(None, [put("a", 7)]))
    world.ask(lambda _shard: Decision(None, effects=[later]))
    world.loop.advance(4.9)
    assert world.shard.values == {}
    world.loop.advance(0.2)
    assert world.shard.values == {"a": 7}
    world.loop.advance(100)
    assert len(world.journal.entries()) == 1


def test_what_is_scheduled_under_the_same_key_takes_its_place(world: World) -> None:
    for delay_s, number in ((5.0, 1), (8.0, 2)):
        later = Schedule("key", delay_s, lambda number=number: Decision(None, [put("a", number)]))
        world.ask(lambda _shard, later=later: Decision(None, effects=[later]))
    world.loop.advance(6)
    assert world.shard.values == {}
    world.loop.advance(6)
    assert world.shard.values == {"a": 2}


def test_what_was_cancelled_does_not_happen_even_if_it_was_due_and_queued(world: World) -> None:
    later = Schedule("key", 5.0, lambda: Decision(None, [put("a", 7)]))
    world.ask(lambda _shard: Decision(None, effects=[later]))
    files: Pending[None] = Pending()
    world.journal.files = files
    world.ask(add("b", 1, Cancel("key")))
    world.loop.advance(6)
    files.complete(None)
    assert world.shard.values == {"b": 1}


def test_a_timers_decision_that_cannot_be_written_is_made_again(world: World) -> None:
    later = Schedule("key", 1.0, lambda: Decision(None, [put("a", 7)]))
    world.ask(lambda _shard: Decision(None, effects=[later]))
    world.journal.append_error = ErrorCode.KAFKA_STORAGE_ERROR
    world.loop.advance(1.5)
    world.journal.append_error = ErrorCode.NONE
    world.loop.advance(AGAIN_S)
    assert world.shard.values == {"a": 7}


def test_a_timer_may_schedule_itself_again(world: World) -> None:
    ticks: list[float] = []

    def tick() -> Decision[None]:
        ticks.append(world.loop.monotonic())
        return Decision(None, effects=[Schedule("tick", 1.0, tick)])

    world.ask(lambda _shard: Decision(None, effects=[Schedule("tick", 1.0, tick)]))
    world.loop.advance(3.5)
    assert ticks == [1.0, 2.0, 3.0]


def test_a_journal_that_fails_before_the_commit_ends_the_shard(slow: World) -> None:
    asked, read = slow.ask(add("a")), slow.ask(look("a"))
    waiting = slow.ask(lambda _shard: Decision(Pending()))
    slow.journal.fail(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    for one in (asked, read, waiting, slow.ask(look("a"))):
        assert one.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_who_asks_of_a_deleted_topic_is_told_to_look_for_the_coordinator(world: World) -> None:
    waiting = world.ask(lambda _shard: Decision(Pending()))
    world.journal.fail(ErrorCode.NOT_COORDINATOR)
    assert world.ask(look("a")).result() is ErrorCode.NOT_COORDINATOR
    assert waiting.result() is ErrorCode.NOT_COORDINATOR


def test_nothing_scheduled_happens_after_the_end(world: World) -> None:
    later = Schedule("key", 1.0, lambda: pytest.fail("it happened"))
    world.ask(lambda _shard: Decision(None, effects=[later]))
    world.keeper.unload(ErrorCode.NOT_COORDINATOR)
    world.loop.advance(10)


def test_operations_wait_while_the_shard_loads_and_no_more_than_so_many() -> None:
    journal = MemoryJournal()
    journal.write(put("a", 5))
    journal.reads = []
    world = World(journal)
    asked = [world.ask(add("a")) for _ in range(QUEUED_MAX)]
    assert world.ask(look("a")).result() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert not asked[0].done
    (read,), journal.reads = journal.reads, None
    read.complete(journal.bytes_from(0))
    assert [one.result() for one in asked[:2]] == [6, 7]
    assert world.shard.loaded_count == 1


def test_a_shard_is_loaded_once_all_is_replayed() -> None:
    journal = MemoryJournal()
    for number in range(5):
        journal.write(put("a", number), put("b", number))
    world = World(journal)
    told: list[str] = []
    world.keeper.when_loaded(lambda: told.append("loaded"))
    assert (world.shard.values, told, world.keeper.is_loaded) == (
        {"a": 4, "b": 4},
        ["loaded"],
        True,
    )


def test_a_load_that_fails_refuses_who_waits() -> None:
    journal = MemoryJournal()
    journal.write(put("a", 5))
    journal.reads = []
    world = World(journal)
    asked = world.ask(look("a"))
    journal.reads[0].fail(DiskError("read", "/x", OSError(5, "EIO")))
    assert asked.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert world.shard.loaded_count == 0


def test_what_a_loaded_shard_wants_done_comes_before_what_was_asked() -> None:
    shard = CountingShard()
    order: list[str] = []
    shard.effects_when_loaded = [Do(lambda: order.append("loaded"))]
    journal = MemoryJournal()
    journal.write(put("a", 5))
    journal.reads = []
    world = World(journal, shard)
    world.ask(add("a", 1, Do(lambda: order.append("asked"))))
    journal.reads[0].complete(journal.bytes_from(0))
    assert order == ["loaded", "asked"]


def test_entries_of_a_transaction_are_written_as_its_producers_batch(world: World) -> None:
    world.ask(lambda _shard: Decision(None, [put("a", 5)], producer=Producer(7, 3)))
    (raw,) = world.journal.batches
    batch = BatchView(memoryview(raw))
    written = (batch.is_transactional, batch.producer_id, batch.producer_epoch)
    assert (*written, batch.base_sequence) == (True, 7, 3, -1)
    assert world.shard.pending == {7: [put("a", 5)]}


def test_what_the_log_says_of_a_producers_batch_is_the_reply(world: World) -> None:
    world.journal.append_error = ErrorCode.INVALID_PRODUCER_EPOCH
    asked = world.ask(lambda _shard: Decision(None, [put("a", 5)], producer=Producer(7, 3)))
    assert asked.result() is ErrorCode.INVALID_PRODUCER_EPOCH
    assert world.shard.pending == {}


def test_a_transaction_ends_in_the_log_and_then_in_the_shard(slow: World) -> None:
    asked = slow.ask(lambda _shard: Decision("ended", ending=Ending(7, 3, True, 0, 2)))
    (raw,) = slow.journal.batches
    assert end_marker_of(BatchView(memoryview(raw))) == (1, 0)
    assert (slow.shard.ended, asked.done) == ([(7, True)], False)
    slow.journal.commit()
    assert asked.result() == "ended"


def test_an_ending_that_cannot_be_written_ends_nothing(world: World) -> None:
    world.journal.append_error = ErrorCode.TRANSACTION_COORDINATOR_FENCED
    asked = world.ask(lambda _shard: Decision(None, ending=Ending(7, 3, True, 0, 2)))
    assert asked.result() is ErrorCode.TRANSACTION_COORDINATOR_FENCED
    assert world.shard.ended == []


def test_an_ending_waits_for_files_and_those_behind_it_wait_for_it(world: World) -> None:
    files: Pending[None] = Pending()
    world.journal.files = files
    world.ask(lambda _shard: Decision(None, ending=Ending(7, 3, False, 0, 2)))
    after = world.ask(lambda shard: Decision(list(shard.ended)))
    assert not after.done
    files.complete(None)
    assert after.result() == [(7, False)]


def test_loading_finds_transactions_as_they_were_written() -> None:
    journal = MemoryJournal()
    world = World(journal)
    world.ask(lambda _shard: Decision(None, [put("a", 5)], producer=Producer(7, 3)))
    world.ask(lambda _shard: Decision(None, [put("a", 6)], producer=Producer(8, 0)))
    world.ask(lambda _shard: Decision(None, ending=Ending(7, 3, True, 0, 2)))
    again = World(journal)
    assert again.shard.pending == {7: [put("a", 5)], 8: [put("a", 6)]}
    assert again.shard.ended == [(7, True)]


def test_a_bug_in_one_operation_leaves_the_others_their_turn(world: World) -> None:
    def broken(_shard: Any) -> Decision[None]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        world.ask(broken)
    assert world.ask(add("a")).result() == 1
    files: Pending[None] = Pending()
    world.journal.files = files
    world.ask(add("a"))
    world.ask(broken)
    last = world.ask(look("a"))
    with pytest.raises(RuntimeError):
        files.complete(None)
    world.loop.run()
    assert last.result() == 2


def test_effects_may_be_told_once_the_entries_are_in(world: World) -> None:
    def tell() -> list[Any]:
        number = world.shard.values["a"]
        return [Schedule("key", 1.0, lambda: Decision(None, [put("b", number)]))]

    world.ask(lambda _shard: Decision(None, [put("a", 5)], [Follow(tell)]))
    world.loop.advance(2)
    assert world.shard.values == {"a": 5, "b": 5}


class FullAfter(MemoryJournal):
    """Takes as many batches as it is said to, and then none while `is_full`."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batch_bytes_max = 300
        self.is_full = True
        self._batches_max = batches

    def append(self, batch: BatchView, verification: object | None = None) -> Any:
        full = self.is_full and len(self.batches) >= self._batches_max
        self.append_error = ErrorCode.KAFKA_STORAGE_ERROR if full else ErrorCode.NONE
        return super().append(batch, verification)


def test_what_was_written_in_part_has_its_timers_all_the_same() -> None:
    journal = FullAfter(1)
    world = World(journal)
    done: list[str] = []
    effects = [
        Schedule("session", 5.0, lambda: Decision(None, [put("late", 1)])),
        Do(lambda: done.append("x")),
    ]
    entries = [put("a", n) for n in range(20)]
    asked = world.ask(lambda _shard: Decision(0, entries, effects, atomic=False))
    assert asked.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert world.shard.values == {"a": len(world.journal.entries()) - 1}
    assert done == []
    journal.is_full = False
    world.loop.advance(6)
    assert world.shard.values["late"] == 1


def test_what_was_not_written_at_all_sets_no_timers() -> None:
    world = World(FullAfter(0))
    late = [Schedule("session", 5.0, lambda: pytest.fail("it happened"))]
    entries = [put("a", n) for n in range(20)]
    asked = world.ask(lambda _shard: Decision(0, entries, late, atomic=False))
    assert asked.result() is ErrorCode.COORDINATOR_NOT_AVAILABLE
    world.loop.advance(6)


def test_what_was_written_in_part_leaves_the_timers_that_run_as_they_are() -> None:
    journal = FullAfter(1)
    world = World(journal)
    first = Schedule("session", 5.0, lambda: Decision(None, [put("first", 1)]))
    world.ask(lambda _shard: Decision(None, effects=[first]))
    second = Schedule("session", 50.0, lambda: Decision(None, [put("second", 1)]))
    entries = [put("a", n) for n in range(20)]
    world.ask(lambda _shard: Decision(0, entries, [second], atomic=False))
    journal.is_full = False
    world.loop.advance(60)
    assert world.shard.values["first"] == 1
    assert "second" not in world.shard.values


def test_a_timers_decision_that_was_written_in_part_is_made_again() -> None:
    journal = FullAfter(1)
    world = World(journal)
    ticks: list[float] = []

    def tick() -> Decision[None]:
        ticks.append(world.loop.monotonic())
        entries = [put("a", n) for n in range(20)]
        return Decision(None, entries, [Schedule("tick", 100.0, tick)], atomic=False)

    world.ask(lambda _shard: Decision(None, effects=[Schedule("tick", 1.0, tick)]))
    world.loop.advance(1.1)
    journal.is_full = False
    world.loop.advance(AGAIN_S)
    assert ticks == [1.0, 1.0 + AGAIN_S]
    assert world.shard.values == {"a": 19}


@pytest.mark.parametrize("waits", [False, True])
def test_a_bug_in_an_effect_leaves_those_their_turn_who_asked_while_it_was_decided(
    world: World, waits: bool
) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    world.loop.run()
    asked: list[Pending[Any]] = []

    def decide(_shard: Any) -> Decision[Any]:
        asked.append(Pending())
        world.keeper.submit(Operation(look("a"), asked[0]))
        return Decision(None, effects=[Do(broken)])

    def ask() -> None:
        if waits:
            world.keeper.submit(Operation(decide, Pending()))
        else:
            world.keeper.ask(decide)

    with pytest.raises(RuntimeError):
        ask()
    world.loop.run()
    assert asked[0].done
