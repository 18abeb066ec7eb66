"""Runtime: the shards of one internal topic, and which of them a key belongs to.

Owns the making of the topic on first use, the keepers of its partitions and the order in which
they load at a start. Must not decide anything that a shard decides, nor know a message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ottla.coordinator.decision import Decision, Ending
from ottla.coordinator.keeper import QUEUED_MAX, Codec, Keeper, Operation, S
from ottla.core.pending import Pending, Soon, completed
from ottla.core.ports import Clock, Timers
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.coordinator.journal import Journals

R = TypeVar("R")


_LONG = 256
"""Characters of a key above which it is not remembered: nobody has checked yet how long it is."""
_KEYS_MAX = 4096
"""Keys of which is remembered who has them; then all are forgotten, and looked up anew."""


def java_hash(text: str) -> int:
    """The absolute value of Java's String.hashCode; of the smallest one, which has none, 0.

    As Kafka chooses the partition of a group or a transactional id (Utils.abs). Another choice, be
    it as even, would look for what Kafka wrote in partitions where it is not.
    """
    return _remembered_hash(text) if len(text) <= _LONG else _hash(text)


def _hash(text: str) -> int:
    units = text.encode("utf-16-be", "surrogatepass")
    value = 0
    for at in range(0, len(units), 2):
        value = (31 * value + (units[at] << 8 | units[at + 1])) & 0xFFFFFFFF
    return value if value < 1 << 31 else (1 << 32) - value & 0x7FFFFFFF


_remembered_hash = lru_cache(maxsize=4096)(_hash)


def _nothing() -> None:
    pass


class Runtime(Generic[S]):
    """Shards by partition, each loaded when it is first asked for, or after a start."""

    def __init__(
        self,
        journals: Journals,
        make_shard: Callable[[int], S],
        codec: Codec,
        clock: Clock,
        timers: Timers,
    ) -> None:
        self._journals = journals
        self._make_shard = make_shard
        self._codec = codec
        self._clock = clock
        self._timers = timers
        self._keepers: dict[int, Keeper[S]] = {}
        self._by_key: dict[str, Keeper[S]] = {}
        """By the keys that were asked for: a producer asks two or three times in a transaction."""
        self._waiting: deque[tuple[str, Operation[S]]] = deque()
        self._making = False
        self._stopped = False
        journals.on_gone(self._gone)

    # --- being asked -----------------------------------------------------------------------

    def partition_for(self, key: str) -> int:
        """The partition whose shard has the key. Only while the topic is there."""
        return java_hash(key) % self._journals.count()

    def submit(self, key: str, decide: Callable[[S], Decision[R]]) -> Pending[R | ErrorCode]:
        """Have the key's shard decide, and what it decides done; then its reply.

        An ErrorCode where it could not be done: COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR or
        COORDINATOR_LOAD_IN_PROGRESS, and UNKNOWN_SERVER_ERROR for more than fits in a batch. The
        first call ever makes the topic.
        """
        result: Pending[Any] = Pending()
        operation = Operation(decide, result)
        count = self._journals.count()
        if count and not self._waiting:  # else it would overtake who waits for the topic
            self._ask(java_hash(key) % count, operation)
        elif len(self._waiting) < QUEUED_MAX:
            self._waiting.append((key, operation))
            self._make_topic()
        else:
            operation.refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        return result

    def ask(self, key: str, decide: Callable[[S], Decision[R]]) -> Soon[R | ErrorCode]:
        """As `submit`; but a reply that leaves at once is returned as it is."""
        keeper = self._by_key.get(key) or self._keeper_of(key)
        if keeper is None or keeper.failure or self._stopped or self._waiting:
            return self.submit(key, decide)
        return keeper.ask(decide)

    def settled(self, key: str) -> S | None:
        """The key's shard, where nothing is under way in it and all that it has written is
        committed: what it says at once is what `submit` would be told. Else None: submit."""
        keeper = self._by_key.get(key) or self._keeper_of(key)
        if keeper is None or self._stopped or self._waiting or not keeper.is_settled:
            return None
        return keeper.shard

    def _keeper_of(self, key: str) -> Keeper[S] | None:
        count = self._journals.count()
        keeper = self._keepers.get(java_hash(key) % count) if count else None
        if keeper is not None and len(key) <= _LONG:
            if len(self._by_key) >= _KEYS_MAX:
                self._by_key.clear()
            self._by_key[key] = keeper
        return keeper

    def submit_to(
        self, partition: int, decide: Callable[[S], Decision[R]]
    ) -> Pending[R | ErrorCode]:
        """As `submit`, of a partition: for what concerns a shard and no key of its own.

        NOT_COORDINATOR where there is no such partition.
        """
        result: Pending[Any] = Pending()
        operation = Operation(decide, result)
        if 0 <= partition < self._journals.count():
            self._ask(partition, operation)
        else:
            operation.refused(ErrorCode.NOT_COORDINATOR)
        return result

    def end_transaction(self, partition: int, ending: Ending) -> Pending[ErrorCode]:
        """Write a transaction's end to a partition and take it in, after all that was asked
        before; the reply leaves once it is committed: NONE, or what the log made of it."""
        decision: Decision[ErrorCode] = Decision(ErrorCode.NONE, ending=ending)
        return self.submit_to(partition, lambda _shard: decision)

    def when_made(self) -> Pending[ErrorCode]:
        """NONE once the topic is there, which is made if need be; else why it can't be."""
        if self._journals.count():
            return completed(ErrorCode.NONE)
        return self._journals.make()

    def submit_everywhere(self, decide: Callable[[S], Decision[R]]) -> list[Pending[R | ErrorCode]]:
        """Have every shard decide: for what is asked of all groups. None, without the topic.

        A partition that nothing was ever written to has no shard to ask.
        """
        results: list[Pending[Any]] = []
        for partition in range(self._journals.count()):
            keeper = self._keepers.get(partition)
            if keeper is None:
                journal = self._journals.open(partition)
                if isinstance(journal, ErrorCode):
                    results.append(completed(journal))
                    continue
                if journal.end == journal.start:
                    continue
            result: Pending[Any] = Pending()
            self._ask(partition, Operation(decide, result))
            results.append(result)
        return results

    def loaded_shard(self, key: str) -> S | None:
        """The key's shard, if it could answer now; for what only looks."""
        keeper = self._keeper_of(key)
        return None if keeper is None or keeper.failure or not keeper.is_loaded else keeper.shard

    def loaded_shards(self) -> list[S]:
        """Those that could answer now; for what only looks, such as a listing of timelines."""
        keepers = self._keepers.values()
        return [one.shard for one in keepers if one.is_loaded and not one.failure]

    def shards(self) -> list[S]:
        """All that there are, those that are still loading with what they have read so far."""
        return [keeper.shard for keeper in self._keepers.values() if not keeper.failure]

    def is_whole(self, partition: int) -> bool:
        """Whether its shard knows all that was ever told it: loaded, nothing of it unreadable."""
        keeper = self._keepers.get(partition)
        if keeper is not None:
            return keeper.is_loaded and not keeper.failure and keeper.is_whole
        journal = self._journals.open(partition)
        return not isinstance(journal, ErrorCode) and journal.end == journal.start

    def is_all_whole(self) -> bool:
        """As `is_whole`, of every shard: what none of them knows, none ever will."""
        return all(map(self.is_whole, range(self._journals.count())))

    def _ask(self, partition: int, operation: Operation[S]) -> None:
        known = self._keepers.get(partition)
        if known is not None and not known.failure and not self._stopped:
            known.submit(operation)
            return
        keeper = self._keeper(partition)
        if isinstance(keeper, ErrorCode):
            operation.refused(keeper)
        else:
            keeper.submit(operation)

    def _keeper(self, partition: int) -> Keeper[S] | ErrorCode:
        if self._stopped:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        keeper = self._keepers.get(partition)
        if keeper is None or keeper.failure:  # what failed is tried anew, from the log
            journal = self._journals.open(partition)
            if isinstance(journal, ErrorCode):
                return journal
            keeper = self._keepers[partition] = Keeper(
                self._make_shard(partition), journal, self._codec, self._clock, self._timers
            )
            self._by_key.clear()  # some may be of the one before
            keeper.load()  # not before it can be found, or what it asks for loads it once more
        return keeper

    # --- the topic -------------------------------------------------------------------------

    def _make_topic(self) -> None:
        if not self._making:
            self._making = True
            made = self._journals.make()
            made.then(partial(self._made, made))

    def _made(self, made: Pending[ErrorCode]) -> None:
        error = made.result()
        if not error and not self._journals.count():
            error = ErrorCode.COORDINATOR_NOT_AVAILABLE  # deleted as soon as it was made
        if error:
            self._making = False
            waiting, self._waiting = self._waiting, deque()
            for _key, operation in waiting:
                operation.refused(error)
            return
        try:
            while self._waiting:  # also what comes meanwhile: each after those before it
                key, operation = self._waiting.popleft()
                self._ask(self.partition_for(key), operation)
        finally:
            self._making = False

    def _gone(self) -> None:
        keepers, self._keepers = self._keepers, {}
        self._by_key.clear()
        for keeper in keepers.values():
            keeper.unload(ErrorCode.NOT_COORDINATOR)

    # --- a start and a stop ----------------------------------------------------------------

    def start(self, started: Callable[[], None] = _nothing) -> None:
        """Load what there is, one shard at a time; who is asked for is loaded at once. `started`
        is called when each is loaded, or is known never to be."""
        self._start_from(0, started)

    def stop(self) -> None:
        """Answer whoever waits for other members, which may take minutes, and take nothing more.

        What waits for its commit only is still answered as it should be.
        """
        self._stopped = True
        for keeper in list(self._keepers.values()):
            keeper.unload(ErrorCode.COORDINATOR_NOT_AVAILABLE)

    def _start_from(self, partition: int, started: Callable[[], None]) -> None:
        for number in range(partition, self._journals.count()):
            journal = self._journals.open(number)
            if isinstance(journal, ErrorCode) or journal.end == journal.start:
                continue
            keeper = self._keeper(number)
            if isinstance(keeper, Keeper) and not keeper.is_loaded:
                # By the timers, so that a thousand shards are no thousand frames deep.
                further = partial(self._start_from, number + 1, started)
                keeper.when_loaded(partial(self._timers.soon, further))
                return
        started()
