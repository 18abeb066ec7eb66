"""Transactions that are open in a partition and that no coordinator would end: found, and ended (I41)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ottla.coordinator.decision import Decision, Ending, Entry
from ottla.coordinator.entries.transaction_log import TransactionLogValue
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.hanging import AGAIN_S, AGAIN_S_MAX
from ottla.coordinator.transaction.metadata import BUMPING, CLASSIC, EPOCH_MAX, EXHAUSTED_EPOCH
from ottla.coordinator.transaction.ports import Open
from ottla.coordinator.transaction.states import TransactionState
from ottla.core.model import Offset, ProducerId, TopicPartition
from ottla.core.pending import Pending
from ottla.protocol.errors import ErrorCode
from tests.transactions import P0, P1, World

LOOK_S, TIMEOUT_S = 10, 60
STRANGER = 77


@pytest.fixture
def world() -> World:
    return World()


def left_open(
    world: World,
    producer: Identity,
    place: TopicPartition = P0,
    *,
    first_offset: int = 5,
    coordinator_epoch: int = 3,
) -> None:
    """A partition has something of that producer's, and no marker behind it."""
    place_and_producer = place, *producer
    world.partitions.open.append(Open(*place_and_producer, first_offset, coordinator_epoch))


def begun_again(world: World) -> None:
    """The node is back, with all that is in its coordinator's log."""
    world.markers.written.clear()
    world.restart()


def marker(world: World) -> tuple[Ending, Sequence[TopicPartition]]:
    [written] = world.markers.written
    return written


def ended(producer: Identity, *, committed: bool = False, coordinator_epoch: int = 3) -> Ending:
    """By a marker that keeps whoever has that epoch from going on there."""
    return Ending(producer.producer_id, producer.epoch + 1, committed, coordinator_epoch, BUMPING)


# --- what is left alone ------------------------------------------------------------------------


@pytest.mark.parametrize("version", [CLASSIC, BUMPING])
def test_one_that_is_ongoing_is_its_coordinators(world: World, version: int) -> None:
    producer = world.begun()
    world.add(producer, P0, P1, version=version)
    left_open(world, producer)
    begun_again(world)
    assert world.markers.written == []
    world.loop.advance(TIMEOUT_S - 1)
    assert (world.state(), world.markers.written) == ("Ongoing", [])
    assert world.transactions.hanging.mended_count == 0


@pytest.mark.parametrize("version", [CLASSIC, BUMPING])
def test_one_whose_markers_are_on_their_way_gets_no_other(world: World, version: int) -> None:
    producer = world.begun()
    world.add(producer, version=version)
    left_open(world, producer)
    world.markers.holds = True
    world.end(producer, version=version)
    begun_again(world)
    world.loop.advance(5 * LOOK_S)
    assert len(world.markers.written) == 1
    assert world.markers.written[0][0].committed


def test_nothing_is_asked_of_a_coordinator_where_nothing_is_open(world: World) -> None:
    world.ongoing()
    begun_again(world)
    world.loop.advance(5 * LOOK_S)
    assert world.transactions.hanging.mended_count == 0


# --- what no coordinator knows -------------------------------------------------------------------


def test_i41_one_that_no_coordinator_knows_is_aborted_and_told_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.ongoing()
    stranger = Identity(STRANGER, 4)
    left_open(world, stranger, P1)
    begun_again(world)
    assert marker(world) == (ended(stranger), (P1,))
    world.partitions.open.clear()
    world.loop.advance(5 * LOOK_S)
    assert caplog.text.count("would have held readers back for ever") == 1
    assert "t-1: a transaction of producer 77, epoch 4, open since offset 5" in caplog.text


def test_so_it_is_without_any_coordinator() -> None:
    world = World()
    world.journals.delete()
    left_open(world, Identity(STRANGER, 0), coordinator_epoch=-1)
    world.start()
    assert marker(world) == (ended(Identity(STRANGER, 0), coordinator_epoch=0), (P0,))


def test_another_of_its_partitions_may_know_that_it_was_committed(world: World) -> None:
    stranger = Identity(STRANGER, 4)
    left_open(world, stranger)
    world.partitions.outcomes_known[stranger] = True
    begun_again(world)
    assert marker(world) == (ended(stranger, committed=True), (P0,))


def test_one_of_the_last_epoch_is_ended_by_that(world: World) -> None:
    left_open(world, Identity(STRANGER, EPOCH_MAX))
    begun_again(world)
    assert marker(world)[0] == Ending(STRANGER, EPOCH_MAX, False, 3, CLASSIC)


def test_a_hundred_of_as_many_producers_are_aborted_in_their_turns(world: World) -> None:
    for number in range(120):
        left_open(world, Identity(STRANGER + number, 0), TopicPartition("t", number))
    begun_again(world)
    assert len(world.markers.written) == 120


def test_what_comes_to_hang_while_the_node_runs_is_found_at_the_interval(world: World) -> None:
    world.ongoing()
    left_open(world, Identity(STRANGER, 0))
    world.loop.advance(LOOK_S)
    assert marker(world)[1] == (P0,)


def test_then_a_producer_that_goes_on_is_not_fenced_for_it(world: World) -> None:
    """Nothing is lost while a node runs: who is known is told by the marker that it must expect."""
    producer = world.begun()
    left_open(world, producer)
    world.loop.advance(LOOK_S)
    assert marker(world)[0] == Ending(*producer, False, 3, CLASSIC)
    assert world.add(producer) is ErrorCode.NONE


def test_a_marker_that_cannot_be_written_is_tried_again_and_told_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    left_open(world, Identity(STRANGER, 0))
    for seconds in (LOOK_S, AGAIN_S, 2 * AGAIN_S):
        world.markers.errors[P0] = ErrorCode.KAFKA_STORAGE_ERROR
        world.loop.advance(seconds)
    assert len(world.markers.written) == 3
    assert caplog.text.count("its marker waits: KAFKA_STORAGE_ERROR") == 1
    world.loop.advance(4 * AGAIN_S)
    assert world.transactions.hanging.mended_count == 1


def test_i41_its_producer_begins_nothing_there_before_that_marker(world: World) -> None:
    """The disk may have room again for the one or the other first."""
    producer = world.ongoing()
    after = world.end(producer, committed=False)
    assert isinstance(after, Identity)
    world.loop.advance(1)
    left_open(world, producer)
    world.markers.errors[P0] = ErrorCode.KAFKA_STORAGE_ERROR
    begun_again(world)
    assert world.add(after) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    world.loop.advance(AGAIN_S)
    assert world.add(after) is ErrorCode.NONE


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.INVALID_PRODUCER_EPOCH,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ],
)
def test_nobody_waits_for_a_marker_that_may_never_be_written(
    world: World, error: ErrorCode
) -> None:
    """A partition of committed offsets, say, whose log can't be loaded: its shard takes no more
    from the producer, either."""
    producer = world.ongoing()
    after = world.end(producer, committed=False)
    assert isinstance(after, Identity)
    world.loop.advance(1)
    left_open(world, producer)
    world.markers.errors[P0] = error
    begun_again(world)
    assert world.add(after) is ErrorCode.NONE


# --- what a coordinator knows of its end ---------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
def test_a_lost_marker_is_written_again_as_its_coordinator_says(
    world: World, committed: bool
) -> None:
    producer = world.ongoing()
    world.end(producer, committed)
    world.loop.advance(1)  # its completion is in the log
    left_open(world, producer)
    begun_again(world)
    assert marker(world) == (ended(producer, committed=committed), (P0,))


@pytest.mark.parametrize("committed", [True, False])
def test_so_it_is_where_the_producer_has_gone_on_since(world: World, committed: bool) -> None:
    producer = world.ongoing()
    after = world.end(producer, committed)
    assert isinstance(after, Identity)
    world.add(after, P0)
    left_open(world, producer)
    begun_again(world)
    assert marker(world) == (ended(producer, committed=committed), (P0,))
    assert world.state() == "Ongoing", "that is the next one"


def test_so_it_is_where_it_was_the_last_of_its_producer_id(world: World) -> None:
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(producer)
    after = world.end(producer)
    world.loop.advance(1)
    left_open(world, producer)
    begun_again(world)
    assert marker(world) == (ended(producer, committed=True), (P0,))
    assert (world.of().producer_id, world.of().epoch) == after


def test_by_the_rules_of_version_1_nobody_can_tell_and_it_is_aborted(world: World) -> None:
    producer = world.ongoing()
    world.end(producer, version=CLASSIC)
    world.loop.advance(1)
    left_open(world, producer)
    begun_again(world)
    world.loop.run()
    assert not marker(world)[0].committed
    assert world.add(producer) is ErrorCode.PRODUCER_FENCED


def test_one_of_an_earlier_producer_is_aborted_and_the_living_one_left_alone(
    world: World,
) -> None:
    old = world.begun()
    living = world.begun()
    world.add(living, P0, P1)
    left_open(world, old)
    begun_again(world)
    assert marker(world) == (ended(old), (P0,))
    assert world.add(living, P1) is ErrorCode.NONE


# --- what a coordinator has lost -----------------------------------------------------------------


@pytest.mark.parametrize("before", ["Empty", "Ongoing elsewhere", "CompleteCommit", "epochs ago"])
def test_i41_what_its_coordinator_has_lost_is_aborted_there_and_its_producer_fenced(
    world: World, before: str
) -> None:
    """It must not go on: what it would commit is no longer the whole."""
    producer = world.begun()
    if before == "Ongoing elsewhere":
        world.add(producer, P1)
    elif before == "CompleteCommit":
        world.add(producer, P1)
        told = world.end(producer)
        assert isinstance(told, Identity)
        producer = told
        world.loop.advance(1)
    elif before == "epochs ago":
        producer = Identity(producer.producer_id, 9)
    left_open(world, producer)
    begun_again(world)
    [(ending, places)] = world.markers.written
    expected = {P0, P1} if before == "Ongoing elsewhere" else {P0}
    assert (set(places), ending.producer_epoch) == (expected, producer.epoch + 1)
    assert not ending.committed
    assert world.state() == "CompleteAbort"
    assert world.add(producer, P1) is ErrorCode.PRODUCER_FENCED
    assert world.begun().epoch == producer.epoch + 2


def test_where_it_was_the_last_of_its_producer_id_another_id_follows(world: World) -> None:
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    left_open(world, producer)
    begun_again(world)
    assert marker(world)[0].producer_epoch == EPOCH_MAX
    assert (world.of().producer_id, world.of().epoch) == (producer.producer_id + 1, 0)


def behind_one_that_ends(world: World) -> Identity:
    """Left open by a producer whose transaction before waits for its markers; after a start."""
    producer = world.ongoing()
    world.markers.holds = True
    after = world.end(producer)
    assert isinstance(after, Identity)
    left_open(world, after)
    begun_again(world)
    return after


def test_what_came_behind_one_that_is_about_to_end_waits_for_that(world: World) -> None:
    after = behind_one_that_ends(world)
    assert [ending.committed for ending, _ in world.markers.written] == [True]
    assert world.add(after, P1) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    world.markers.holds = False
    world.markers.release()
    world.loop.advance(AGAIN_S)
    assert [ending.committed for ending, _ in world.markers.written] == [True, False]
    assert world.add(after, P1) is ErrorCode.PRODUCER_FENCED


@pytest.mark.parametrize("committed", [True, False])
def test_an_ongoing_one_ends_as_one_of_its_partitions_says_that_it_was_decided(
    world: World, committed: bool
) -> None:
    producer = world.begun()
    world.add(producer, P0, P1, version=BUMPING)
    left_open(world, producer)
    world.partitions.outcomes_known[producer] = committed
    begun_again(world)
    [(ending, places)] = world.markers.written
    assert (ending.committed, set(places)) == (committed, {P0, P1})
    assert world.state() == ("CompleteCommit" if committed else "CompleteAbort")


def test_while_a_node_runs_a_marker_of_an_admins_says_nothing_about_the_rest(world: World) -> None:
    producer = world.begun()
    world.add(producer, P0, P1, version=BUMPING)
    left_open(world, producer)
    world.partitions.outcomes_known[producer] = True
    world.loop.advance(2 * LOOK_S)
    assert (world.state(), world.markers.written) == ("Ongoing", [])


@pytest.mark.parametrize("is_ongoing", [True, False])
def test_i40_epochs_that_partitions_have_seen_are_not_given_again(
    world: World, is_ongoing: bool
) -> None:
    """Else a partition refuses its producer, once for each epoch that was lost."""
    producer = world.ongoing() if is_ongoing else world.begun()
    world.partitions.seen = [(STRANGER, 9), (producer.producer_id, 300), (producer.producer_id, 2)]
    begun_again(world)
    assert world.state() == "CompleteAbort"
    assert world.begun().epoch == 302


def test_epochs_that_are_known_fence_nobody(world: World) -> None:
    producer = world.ongoing()
    after = world.end(producer)
    assert isinstance(after, Identity)
    world.partitions.seen = [after] * 120
    begun_again(world)
    world.loop.advance(LOOK_S)
    assert world.add(after) is ErrorCode.NONE
    assert world.transactions.hanging.mended_count == 0


# --- what is not known yet, or never will be -----------------------------------------------------


def unreadable(world: World, how: str) -> None:
    if how == "it is not there":
        world.journals.open_error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    else:
        world.journal.write((b"\0\0\0\5x", None))
    world.restart()


@pytest.mark.parametrize("how", ["it is not there", "an entry is damaged"])
def test_a_coordinator_that_cannot_be_read_proves_nothing(
    world: World, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.ongoing()
    left_open(world, Identity(STRANGER, 0))
    unreadable(world, how)
    world.loop.advance(5 * LOOK_S)
    assert all(ending.producer_id != STRANGER for ending, _ in world.markers.written)
    assert caplog.text.count("so it is left as it is") == 1


def test_whoever_has_one_open_comes_again_while_the_coordinators_load(world: World) -> None:
    """What it began meanwhile could not be told apart from what it had open."""
    producer = world.begun()
    world.add(producer, P0, version=BUMPING)
    left_open(world, producer)
    world.journal.reads = []
    begun_again(world)
    loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert world.add(producer, P1) is loading
    assert world.end(producer) is loading
    for add in (True, False):
        asked = world.transactions.admit("x", *producer, [P0], add=add)
        assert world.told(asked) is loading
    reads, world.journal.reads = world.journal.reads, None
    for pending in reads:
        pending.complete(world.journal.bytes_from(0))
    world.loop.run()
    assert isinstance(world.end(producer), Identity)


def test_a_state_that_nobody_writes_to_the_log_ends_like_one_that_is_not_known(
    world: World,
) -> None:
    producer = world.begun()
    [entry] = world.entries()
    assert isinstance(entry.value, TransactionLogValue)
    entry.value.transaction_status = TransactionState.DEAD
    world.write(Entry(entry.key, entry.value))
    left_open(world, producer)
    world.partitions.seen = [(producer.producer_id, 9)]
    begun_again(world)
    assert marker(world) == (ended(producer), (P0,))


def test_it_looks_no_more_once_it_is_stopped(world: World) -> None:
    left_open(world, Identity(STRANGER, 0))
    world.transactions.stop()
    world.loop.advance(5 * LOOK_S)
    assert world.markers.written == []


def test_nor_does_it_read_on_then(world: World) -> None:
    producer = world.ongoing()
    after = world.end(producer)
    assert isinstance(after, Identity)
    world.add(after, P0)
    left_open(world, producer)
    reads: list[Pending[bytes]] = []
    world.journal.reads = reads
    world.loop.advance(LOOK_S)
    world.transactions.stop()
    [read] = reads
    read.complete(world.journal.bytes_from(Offset(0)))
    world.loop.run()
    assert world.transactions.hanging._outcomes == {}


def test_what_is_read_once_more_may_have_to_be_waited_for(world: World) -> None:
    left_open(world, Identity(STRANGER, 0))
    world.ongoing()
    world.journal.reads = []
    world.loop.advance(LOOK_S)
    assert world.markers.written == []
    reads: list[Pending[bytes]]
    reads, world.journal.reads = world.journal.reads, None
    assert len(reads) == 1
    world.loop.advance(2 * LOOK_S)  # nobody looks beside that
    reads[0].complete(world.journal.bytes_from(Offset(0)))
    world.loop.run()
    assert marker(world)[1] == (P0,)


# --- while a marker is on its way -----------------------------------------------------------------


def let_markers_go(world: World) -> None:
    """They are written, nothing is open any more, and the next look has been."""
    world.markers.release()
    world.partitions.open.clear()
    world.loop.advance(AGAIN_S)


def test_i41_a_producer_begins_nothing_where_the_marker_of_its_last_one_is_still_to_be_written(
    world: World,
) -> None:
    """What it wrote there first would be ended with that one, or hide that it was aborted."""
    producer = world.ongoing()
    after = world.end(producer, committed=False)
    assert isinstance(after, Identity)
    world.loop.advance(1)
    left_open(world, producer)
    world.markers.holds = True
    begun_again(world)
    assert marker(world) == (ended(producer), (P0,))
    assert world.add(after) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    let_markers_go(world)
    assert world.add(after) is ErrorCode.NONE


def test_nor_while_the_node_runs_and_the_marker_has_its_own_epoch(world: World) -> None:
    producer = world.begun()
    left_open(world, producer)
    world.markers.holds = True
    world.loop.advance(LOOK_S)
    assert marker(world)[0] == Ending(*producer, False, 3, CLASSIC)
    assert world.add(producer) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    let_markers_go(world)
    assert world.add(producer) is ErrorCode.NONE


def test_i43_a_marker_that_waits_is_not_written_once_more_beside_that(world: World) -> None:
    """The second would come to the next transaction of a producer that keeps its epoch."""
    left_open(world, Identity(STRANGER, 4))
    world.markers.holds = True
    world.loop.advance(5 * LOOK_S)
    assert len(world.markers.written) == 1


def test_one_that_has_ended_before_its_turn_came_gets_no_marker(world: World) -> None:
    """Hundreds are judged in turns: by then the place may be the next transaction's."""
    for number in range(120):
        left_open(world, Identity(STRANGER + number, 0), TopicPartition("t", number))
    write, open_ones = world.markers.write, world.partitions.open

    def first_write(*asked: Any) -> Any:
        del open_ones[60:]
        return write(*asked)

    world.markers.write = first_write
    begun_again(world)
    assert len(world.markers.written) == 60
    assert world.transactions.hanging.mended_count == 60


# --- what it costs -------------------------------------------------------------------------------


def test_partitions_are_asked_once_for_all_that_is_judged_and_not_for_what_is_as_it_should_be(
    world: World,
) -> None:
    """One question for each would keep the loop from others: there may be 10,000 partitions."""
    for number in range(3):
        left_open(world, Identity(STRANGER + number, 0), TopicPartition("t", number))
    begun_again(world)
    assert world.partitions.asked[-1:] == [3]
    world.partitions.open.clear()
    world.partitions.asked.clear()
    producer = world.ongoing()
    left_open(world, producer)
    world.loop.advance(LOOK_S)
    world.markers.holds = True
    world.end(producer)
    world.loop.advance(LOOK_S)
    assert world.partitions.asked == []


def test_no_shard_that_came_back_meanwhile_makes_those_unknown_that_were_not_looked_for_in_it(
    world: World,
) -> None:
    """Such a one may be of a transaction that is alive."""
    left_open(world, Identity(STRANGER, 0))
    world.ongoing()
    world.journals.open_error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    begun_again(world)
    hanging = world.transactions.hanging
    for number in range(120):
        left_open(world, Identity(STRANGER + number, 0), TopicPartition("t", number))
    soon, judged = world.loop.soon, []

    def back(call: Any) -> Any:
        if getattr(call, "func", None) == hanging._judge_some and not judged:
            judged.append(call)
            world.journals.open_error = ErrorCode.NONE
            world.transactions.runtime.submit_to(0, lambda _shard: Decision("there"))
        return soon(call)

    world.loop.soon = back
    world.loop.advance(LOOK_S)
    assert judged
    assert world.markers.written == []


def test_it_is_looked_for_ever_less_often_while_something_waits(world: World) -> None:
    """A partition that takes no marker may be damaged for days."""
    after = behind_one_that_ends(world)
    world.partitions.asked.clear()
    world.loop.advance(16 * AGAIN_S_MAX)
    assert len(world.partitions.asked) in range(16, 16 + 5)
    world.markers.holds = False
    world.markers.release()
    world.loop.advance(AGAIN_S_MAX)
    assert world.add(after, P1) is ErrorCode.PRODUCER_FENCED


def test_epochs_are_caught_up_with_in_turns(world: World) -> None:
    producer = world.begun()
    world.partitions.seen = [(STRANGER, 9)] * 120 + [(producer.producer_id, 300)]
    begun_again(world)
    assert world.begun().epoch == 302


def test_i41_a_producer_commits_nothing_until_it_is_decided_that_what_was_lost_is_taken_back(
    world: World,
) -> None:
    """The next producer id that it needs may have to be waited for."""
    producer = world.at_epoch(EXHAUSTED_EPOCH)
    world.add(producer, P1)
    left_open(world, producer)
    fetched: Pending[ProducerId] = Pending()
    world.held_id = fetched
    begun_again(world)
    assert world.end(producer) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    fetched.complete(ProducerId(5000))
    world.loop.run()
    [(ending, places)] = world.markers.written
    assert (ending.committed, set(places)) == (False, {P0, P1})
    world.partitions.open.clear()
    world.loop.advance(1)
    assert world.add(producer, P1) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
