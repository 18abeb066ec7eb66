"""Hanging: transactions that are open in a partition, and that no coordinator would ever end.

Owns the search for them, after a start and now and then, and their end. Must not judge one whose
coordinator may know more than can be read, nor write to a partition or a shard itself.

What is asked is this node's own: all partitions and all shards are here. In a cluster a partition's
leader would ask the coordinator as KIP-890 has it, by an AddPartitionsToTxn that only verifies, and
would need to know by which transactional id a producer goes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ottla.coordinator.decision import Ending, Entry
from ottla.coordinator.entries.transaction_log import TransactionLogValue
from ottla.coordinator.loading import Loading
from ottla.coordinator.transaction.ending import Identity
from ottla.coordinator.transaction.metadata import (
    BUMPING,
    CLASSIC,
    EPOCH_MAX,
    EXHAUSTED_EPOCH,
    Transaction,
)
from ottla.coordinator.transaction.states import MOVES, TransactionState
from ottla.core import group_options as options
from ottla.core.pending import Pending, Soon, when_told
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.coordinator.decision import Decision
    from ottla.coordinator.runtime import Runtime
    from ottla.coordinator.transaction.coordinator import Parts
    from ottla.coordinator.transaction.ports import Open
    from ottla.coordinator.transaction.shard import TransactionShard
    from ottla.core.model import TopicPartition
    from ottla.core.ports import Timer

_log = logging.getLogger("ottla.coordinator")

AGAIN_S: Final = 0.5
"""After this long is looked again for what had to wait for markers,"""
AGAIN_S_MAX: Final = 8.0
"""and then after twice as long each time, up to this: a partition may be damaged for days."""
INTERVAL_S_MIN: Final = 1.0
"""A look goes over all partitions: not more often, whatever the option says."""
AT_ONCE: Final = 50
"""Producers that are judged, or partitions asked, before others get their turn."""
NAME_MAX: Final = 100
"""Characters of a transactional id that are worth a place in a log."""
_ENDED_AS = {
    TransactionState.PREPARE_COMMIT: True,
    TransactionState.COMPLETE_COMMIT: True,
    TransactionState.PREPARE_ABORT: False,
    TransactionState.COMPLETE_ABORT: False,
}
Outcomes = Mapping[tuple[int, int], bool]
"""Whether it was committed, by producer id and the epoch of its batches. Only of transactions that
had an epoch of their own."""


class Verdict(Enum):
    """What is to be done about a transaction that is open in a partition."""

    FINE = "its coordinator is going to end it"
    COMMIT = "committed, which its coordinator or another of its partitions knows"
    ABORT = "aborted: no coordinator knows of it"
    TAKE_BACK = "aborted by its coordinator, which had lost it"
    END_AS_MARKED = "ended by its coordinator as another of its partitions was"
    WAIT = "to be judged once the transaction before it has its markers"


def outcome_of(value: TransactionLogValue) -> tuple[tuple[int, int], bool] | None:
    """How a transaction ended, by an entry of its coordinator's; None if it does not tell.

    By the rules of version 1 many transactions share an epoch: which one was meant can't be told.
    """
    state = TransactionState(value.transaction_status)
    committed = _ENDED_AS.get(state)
    if committed is None or value.client_transaction_version < BUMPING:
        return None
    producer_id, epoch = value.producer_id, value.producer_epoch - 1
    if epoch < 0:  # it was the last one of its id; the producer goes on with another
        producer_id, epoch = value.previous_producer_id, EXHAUSTED_EPOCH
    return (producer_id, epoch), committed


def judge(
    one: Open, found: Transaction | None, outcomes: Outcomes, marked: bool | None, is_old: bool
) -> Verdict:
    """What becomes of it. `found` is what the coordinators know of its producer id, `marked` how
    another partition says that it ended. Only of one that is there since before this start,
    `is_old`, can a coordinator have lost anything."""
    own = found if found is not None and found.producer_id == one.producer_id else None
    if own is not None and _has(own, one):
        if own.is_prepared or not is_old or marked is None:
            return Verdict.FINE
        return Verdict.END_AS_MARKED
    committed = outcomes.get((one.producer_id, one.epoch), marked)
    if committed is not None:
        return Verdict.COMMIT if committed else Verdict.ABORT
    if own is None or own.epoch > one.epoch or not is_old:
        return Verdict.ABORT
    # It was begun after all that the coordinator has of this producer. To its producer it may still
    # be open, and it must not go on with it: what it would commit is no longer the whole.
    if own.is_prepared:
        return Verdict.WAIT
    may_be_aborted = TransactionState.PREPARE_ABORT in MOVES[own.state]
    return Verdict.TAKE_BACK if may_be_aborted else Verdict.ABORT


def _has(found: Transaction, one: Open) -> bool:
    """Whether the coordinator is going to end it, sooner or later."""
    if one.place not in found.partitions:
        return False
    if found.state is TransactionState.ONGOING:
        return found.epoch == one.epoch
    if not found.is_prepared:
        return False
    return found.epoch == one.epoch + 1 or (found.epoch == one.epoch and found.version < BUMPING)


class _Outcomes:
    """How transactions of some producers ended, by all that __transaction_state still holds: read
    like a shard, beside those that there are."""

    def __init__(self, producer_ids: Collection[int], found: dict[tuple[int, int], bool]) -> None:
        self._of = producer_ids
        self._found = found

    def replay(self, entry: Entry, producer_id: int = -1) -> None:  # noqa: ARG002  # as the port has it
        value = entry.value
        if isinstance(value, TransactionLogValue) and (
            value.producer_id in self._of or value.previous_producer_id in self._of
        ):
            told = outcome_of(value)
            if told is not None:
                self._found[told[0]] = told[1]

    def end_transaction(self, producer_id: int, committed: bool) -> None:
        """Nothing there is written in a transaction."""

    def loaded(self) -> Decision[None]:
        raise AssertionError("nobody keeps this")


class Hanging:
    """`ask` has a shard decide, as a request does; it never fails."""

    def __init__(
        self,
        parts: Parts,
        runtime: Runtime[TransactionShard],
        ask: Callable[[str, Callable[[TransactionShard], Decision[Any]]], Soon[Any]],
    ) -> None:
        self.doubted: set[int] = set()
        """Producer ids that had a transaction open at the start, until that is judged. Whatever
        they begin meanwhile could not be told apart from it: they are to come again."""
        self.mended_count = 0
        """Transactions that were ended, and producers that were fenced, by what was found here."""
        self._parts = parts
        self._runtime = runtime
        self._ask = ask
        self._old: set[tuple[TopicPartition, int]] = set()
        """Which have been open since before this start: partition and first offset."""
        self._left: set[tuple[TopicPartition, int]] = set()
        """Those that are left as they are, and were told of."""
        self._read: set[int] = set()
        """Producer ids of which all has been read that their coordinators' log says,"""
        self._outcomes: dict[tuple[int, int], bool] = {}
        """which is this."""
        self._ends: Outcomes = {}
        """What partitions say, of the producers that are being judged;"""
        self._knows_all = False
        """whether all shards were whole when it was looked for what they know of those."""
        self._marking: set[tuple[TopicPartition, int]] = set()
        """Those whose marker is on its way."""
        self._again_s = AGAIN_S
        self._is_caught_up = False
        self._is_judging = False
        self._timer: Timer | None = None
        self._stopped = False

    # --- when ------------------------------------------------------------------------------

    def begin(self) -> None:
        """To be called at a start, before anything is asked of a coordinator."""
        for one in self._parts.open_transactions.all():
            self._old.add(_key(one))
            self.doubted.add(one.producer_id)

    def look(self) -> None:
        """Judge what is open; and again at the interval. Not before each shard that can be loaded
        is."""
        if self._stopped or self._is_judging:
            return
        interval_s = self._parts.config[options.TRANSACTIONS_ABORT_CHECK_MS] / 1000
        self._look_again(max(interval_s, INTERVAL_S_MIN))
        self._is_judging = True
        suspects, known = self._suspects()
        if not suspects and not self.doubted and self._is_caught_up:
            self._forget()
            return
        producer_ids = {one.producer_id for one in suspects}
        unread = {
            one.producer_id
            for one in suspects
            if one.producer_id not in self._read and _may_be_told(one, known.get(one.producer_id))
        }
        then = partial(self._hear_all, producer_ids)
        if unread:
            self._read |= unread
            self._read_from(_Outcomes(unread, self._outcomes), 0, then)
        else:
            then()

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _forget(self) -> None:
        """Nothing is to be judged: what was read for that is of no use any more."""
        self._is_judging = False
        self._read.clear()
        self._outcomes.clear()
        self._ends = {}

    def _look_again(self, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._parts.timers.after(after_s, self.look)

    # --- what is known ---------------------------------------------------------------------

    def _suspects(self) -> tuple[list[Open], dict[int, Transaction]]:
        """What is open and not plainly as it should be, and what is known of its producers: the
        transactional ids that have them now, else those that had them last."""
        found = list(self._parts.open_transactions.all())
        self._old.intersection_update(map(_key, found))
        self._left.intersection_update(map(_key, found))
        if not found:
            return found, {}
        shards = self._runtime.loaded_shards()
        ongoing = {one.producer_id: one for shard in shards for one in shard.open.values()}
        suspects = [one for one in found if self._is_suspect(one, ongoing)]
        wanted = {one.producer_id for one in suspects}
        known: dict[int, Transaction] = {}
        for shard in shards if wanted else ():
            for one in shard.transactions.values():
                if one.producer_id in wanted:
                    known[one.producer_id] = one
                elif one.previous_producer_id in wanted:
                    known.setdefault(one.previous_producer_id, one)
        return [one for one in suspects if self._is_suspect(one, known)], known

    def _is_suspect(self, one: Open, known: Mapping[int, Transaction]) -> bool:
        if one.producer_id in self.doubted:
            return True
        found = known.get(one.producer_id)
        return found is None or found.producer_id != one.producer_id or not _has(found, one)

    def _read_from(self, outcomes: _Outcomes, partition: int, then: Callable[[], None]) -> None:
        """Go through __transaction_state once more: an entry that others followed may tell what the
        last one does not. As loading does it, in pieces that keep nobody waiting."""
        parts = self._parts
        while partition < parts.journals.count():
            journal = parts.journals.open(partition)
            partition += 1
            if not isinstance(journal, ErrorCode) and journal.end != journal.start:
                loading = Loading(journal, parts.codec.decode, outcomes, parts.clock)
                self._read_on(loading, partial(self._read_from, outcomes, partition, then))
                return
        then()

    def _read_on(self, loading: Loading, then: Callable[[], None]) -> None:
        if self._stopped:
            return
        outcome = loading.step()
        if isinstance(outcome, Pending):
            outcome.then(partial(self._read_on, loading, then))
        elif outcome is None:
            self._parts.timers.soon(partial(self._read_on, loading, then))
        else:
            self._parts.timers.soon(then)

    def _hear_all(self, producer_ids: Collection[int]) -> None:
        """Have all partitions say how transactions of these producers ended."""
        told = self._parts.open_transactions.outcomes(producer_ids) if producer_ids else iter(())
        self._hear(told, producer_ids, {})

    def _hear(
        self,
        partitions: Iterator[Iterable[tuple[tuple[int, int], bool]]],
        producer_ids: Collection[int],
        marked: dict[tuple[int, int], bool],
    ) -> None:
        if self._stopped:
            return
        some = list(islice(partitions, AT_ONCE))
        for told in some:
            marked.update(told)
        if some:
            self._parts.timers.soon(partial(self._hear, partitions, producer_ids, marked))
        else:
            self._judge_all(producer_ids, marked)

    # --- what is done ----------------------------------------------------------------------

    def _judge_all(self, producer_ids: Collection[int], marked: Outcomes) -> None:
        """By what is open and known now, of those for whom it was asked how they ended: that may
        have taken a while."""
        suspects, known = self._suspects()
        self._ends = marked
        self._knows_all = self._runtime.is_all_whole()
        by_producer: dict[int, list[Open]] = {}
        for one in suspects:
            if one.producer_id in producer_ids:
                by_producer.setdefault(one.producer_id, []).append(one)
        self._judge_some(list(by_producer.values()), known, set())

    def _judge_some(
        self, suspects: Sequence[list[Open]], known: Mapping[int, Transaction], waiting: set[int]
    ) -> None:
        """`waiting` are the producers that can't be judged yet."""
        if self._stopped:
            return
        for of_one in suspects[:AT_ONCE]:
            producer_id = of_one[0].producer_id
            if not self._settle(of_one, known.get(producer_id)):
                waiting.add(producer_id)
        rest = suspects[AT_ONCE:]
        if rest:
            self._parts.timers.soon(partial(self._judge_some, rest, known, waiting))
            return
        self._is_judging = False
        self.doubted.intersection_update(waiting)  # the same set: others hold it
        if waiting:
            self._look_again(self._again_s)
            self._again_s = min(2 * self._again_s, AGAIN_S_MAX)
            return
        self._again_s = AGAIN_S
        if not self._is_caught_up:
            self._is_caught_up = True
            shards = self._runtime.loaded_shards()
            if shards:
                self._catch_up(shards, self._parts.open_transactions.epochs(), {}, {})

    def _settle(self, suspects: Sequence[Open], found: Transaction | None) -> bool:
        """Do about a producer's open transactions what is to be done; False if there is more to be
        done later."""
        if found is not None and self._is_replaced(found):
            return False
        verdicts: dict[Verdict, list[Open]] = {}
        is_under_way = False
        for one in suspects:
            if _key(one) in self._marking:
                is_under_way = True
                continue
            if not self._parts.open_transactions.is_open(one):
                continue  # it has ended since that was asked, and the next one has its place
            verdict = self._judge(one, found)
            if verdict is Verdict.FINE or not self._may_be_known(one, found):
                verdicts.setdefault(verdict, []).append(one)
        for verdict in (Verdict.COMMIT, Verdict.ABORT):
            for one in verdicts.pop(verdict, ()):
                is_under_way |= self._mark(one, verdict, found)
        verdicts.pop(Verdict.FINE, None)
        if not verdicts:
            return not is_under_way
        if is_under_way or Verdict.WAIT in verdicts:
            return False  # what the coordinator did now would overtake those markers
        assert found is not None, "nobody's was taken back"
        marked = verdicts.pop(Verdict.END_AS_MARKED, ())
        if marked:
            return self._end_as_marked(found, marked) and not verdicts
        lost = verdicts[Verdict.TAKE_BACK]
        last = max(one.epoch for one in lost)
        return self._take_back(found, Identity(lost[0].producer_id, last), lost)

    def _judge(self, one: Open, found: Transaction | None) -> Verdict:
        outcomes = self._outcomes
        told = None if found is None else outcome_of(found.as_logged())
        if told is not None:
            outcomes = {**outcomes, told[0]: told[1]}
        marked = self._ends.get((one.producer_id, one.epoch))
        return judge(one, found, outcomes, marked, _key(one) in self._old)

    def _is_replaced(self, found: Transaction) -> bool:
        """Whether its shard was loaded anew, or forgot it, since that was looked for."""
        shard = self._runtime.loaded_shard(found.id)
        return shard is not None and shard.transactions.get(found.id) is not found

    def _is_whole(self, found: Transaction) -> bool:
        """Whether its shard can be asked, and knows all that it was told."""
        shard = self._runtime.loaded_shard(found.id)
        return shard is not None and self._runtime.is_whole(shard.partition)

    def _catch_up(
        self,
        shards: list[TransactionShard],
        partitions: Iterator[Iterator[tuple[int, int]]],
        own: dict[int, Transaction],
        behind: dict[int, int],
    ) -> None:
        """Look for epochs that partitions have heard of and coordinators have not: they were lost,
        and would be given to others once more (I40), whom those partitions refuse."""
        if self._stopped:
            return
        again = partial(self._catch_up, shards, partitions, own, behind)
        if shards:
            own.update({one.producer_id: one for one in shards.pop().transactions.values()})
            self._parts.timers.soon(again)
            return
        some = list(islice(partitions, AT_ONCE))
        for epochs in some:
            for producer_id, epoch in epochs:
                found = own.get(producer_id)
                if found is not None and epoch > found.epoch:
                    behind[producer_id] = max(epoch, behind.get(producer_id, epoch))
        if some:
            self._parts.timers.soon(again)
            return
        for producer_id, epoch in behind.items():
            found = own[producer_id]
            if self._is_whole(found):
                _log.warning(
                    "transactional id %r: its coordinator has lost what came after epoch %d of "
                    "producer %d, of which partitions know epoch %d; its producer is fenced",
                    found.id[:NAME_MAX],
                    found.epoch,
                    producer_id,
                    epoch,
                )
                self._take_back(found, Identity(producer_id, epoch), ())

    def _take_back(self, found: Transaction, producer: Identity, suspects: Sequence[Open]) -> bool:
        """Have its coordinator abort all that the producer may have begun, and fence it. Whether
        that is decided: until then the producer could still commit what is not the whole."""
        name, places = found.id, [one.place for one in suspects]
        asked = self._ask(name, lambda shard: shard.take_back(name, producer, places))

        def again() -> None:
            self._take_back(found, producer, suspects)

        def decided(error: Any) -> None:
            if error is ErrorCode.CONCURRENT_TRANSACTIONS and not self._stopped:
                self._parts.timers.after(AGAIN_S, again)
            elif error is ErrorCode.NONE:
                self.mended_count += not suspects
                for one in suspects:
                    self._say(one, Verdict.TAKE_BACK)

        when_told(asked, decided)
        return not isinstance(asked, Pending) or asked.done

    def _may_be_known(self, one: Open, found: Transaction | None) -> bool:
        """Whether it is to be left alone: a coordinator that can't be read proves nothing."""
        if self._knows_all if found is None else self._is_whole(found):
            return False
        if _key(one) not in self._left:
            self._left.add(_key(one))
            _log.warning(
                "%s: a transaction of producer %d, epoch %d, is open since offset %d, and readers "
                "of what is committed wait there. Its coordinator may be among the partitions of "
                "__transaction_state that can't be read, so it is left as it is. Mend those and "
                "restart; or: ottla txn abort",
                *_told(one),
            )
        return True

    def _mark(self, one: Open, verdict: Verdict, found: Transaction | None) -> bool:
        """End it in its partition alone; whether that takes a while: files or room may have to
        be waited for."""
        committed = verdict is Verdict.COMMIT
        is_live = (
            found is not None
            and found.producer_id == one.producer_id
            and found.epoch <= one.epoch
            and _key(one) not in self._old
        )
        # Its producer goes on with this epoch; or else, whoever has it thinks that it is still in
        # this transaction, and must not go on with it here.
        raises = not is_live and one.epoch < EPOCH_MAX
        epoch, version = (one.epoch + 1, BUMPING) if raises else (one.epoch, CLASSIC)
        ending = Ending(one.producer_id, epoch, committed, max(0, one.coordinator_epoch), version)
        self._marking.add(_key(one))
        written = self._parts.markers.write(ending, (one.place,))
        when_told(written, partial(self._marked, one, verdict))
        if _key(one) not in self._marking:
            told = written.result() if isinstance(written, Pending) else written
            if told[one.place] is not ErrorCode.KAFKA_STORAGE_ERROR:
                return False  # else there may be room again, or the file's name be free
        # What its producer began there meanwhile would be ended with it, or come before its end.
        self.doubted.add(one.producer_id)
        return True

    def _marked(
        self, one: Open, verdict: Verdict, results: Mapping[TopicPartition, ErrorCode]
    ) -> None:
        self._marking.discard(_key(one))
        error = results[one.place]
        if not error:
            self._say(one, verdict)
        elif error is not ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and _key(one) not in self._left:
            self._left.add(_key(one))
            _log.warning(
                "%s: a transaction of producer %d, epoch %d, open since offset %d, should be %s; "
                "its marker waits: %s",
                *_told(one),
                "committed" if verdict is Verdict.COMMIT else "aborted",
                error.name,
            )

    def _end_as_marked(self, found: Transaction, suspects: Sequence[Open]) -> bool:
        """Have its coordinator end an ongoing one in all partitions as it ended in one of them.
        Whether that is decided."""
        name, one = found.id, suspects[0]
        producer = Identity(one.producer_id, one.epoch)
        committed = self._ends[producer]
        asked = self._ask(name, lambda shard: shard.end_as_marked(name, producer, committed))

        def decided(error: Any) -> None:
            if error is ErrorCode.NONE:
                for one in suspects:
                    self._say(one, Verdict.END_AS_MARKED)

        when_told(asked, decided)
        return not isinstance(asked, Pending) or asked.done

    def _say(self, one: Open, verdict: Verdict) -> None:
        self.mended_count += 1
        _log.warning(
            "%s: a transaction of producer %d, epoch %d, open since offset %d, would have held "
            "readers back for ever; it is %s",
            *_told(one),
            verdict.value,
        )


def _key(one: Open) -> tuple[TopicPartition, int]:
    return one.place, one.first_offset


def _may_be_told(one: Open, found: Transaction | None) -> bool:
    """Whether entries that others have followed may tell how it ended, and the last does not."""
    if found is None:
        return True
    if found.producer_id == one.producer_id and found.epoch <= one.epoch:
        return False
    told = outcome_of(found.as_logged())
    return told is None or told[0] != (one.producer_id, one.epoch)


def _told(one: Open) -> tuple[TopicPartition, int, int, int]:
    return one.place, one.producer_id, one.epoch, one.first_offset
