"""Cleaner: compacts the logs of a directory, one after the other, the dirtiest first.

Owns what happens on the loop: the choice, the putting in place, how far each log is compacted. The
reading and writing is a `Work`'s, elsewhere. Must not hold up the loop, nor know topics: what may
be compacted is in a log's settings, and how far in what `bounds` says.

A log whose content can't be compacted is left alone from then on, as in Kafka. Anything else that
goes wrong (a full disk, a worker that ended) is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from ottla.core.model import Offset, TopicPartition
from ottla.core.pending import Pending
from ottla.core.ports import Clock, DiskError, Timers
from ottla.core.value import Value
from ottla.storage.cleaner import swap
from ottla.storage.cleaner.choice import (
    Candidate,
    dirt_of,
    filthiest,
    grouped,
    is_due,
    piece_of,
    plan_for,
)
from ottla.storage.cleaner.round import Cleaned, Noted, Piece, Plan
from ottla.storage.directory import LogDirectory
from ottla.storage.log import Log
from ottla.storage.reading import LogPosition
from ottla.storage.segment import Segment

_LOGS_AT_ONCE = 200
"""How many logs are looked at before other things get their turn."""


class Failure(NamedTuple):
    """Why a round came to nothing. `lasting`: it would every time."""

    text: str
    lasting: bool


class Work(Protocol):
    """Does a round elsewhere. Its Pendings never fail: what goes wrong is a Failure."""

    def note(self, plan: Plan, bytes_per_s_max: float) -> Pending[Noted | Failure]:
        """The first half of `round.Round`. What was begun before is forgotten."""

    def clean(self, group: Sequence[Piece]) -> Pending[Cleaned | Failure]:
        """A group of the round that was begun last."""

    def rest(self) -> None:
        """There will be nothing to do for a while."""


class Limits(Value):
    """What the options ask. Read anew before each round."""

    enabled: bool
    backoff_ms: int
    buffer_bytes: int
    bytes_per_s_max: float
    decompressed_max: int


Bounds = Callable[[TopicPartition], Sequence[LogPosition] | None]
"""What readers of a partition are bounded by: the high watermark, the last stable offset. None:
there is no such partition, or it must not be changed."""


class Cleaner:
    """`start` once the logs are open, `stop` before they are closed."""

    def __init__(
        self,
        directory: LogDirectory,
        ports: tuple[Clock, Timers],
        work: Work,
        bounds: Bounds,
        limits: Callable[[], Limits],
    ) -> None:
        self._directory = directory
        self.clock, self._timers = ports
        self.work = work
        self._bounds = bounds
        self._limits = limits
        self._stopped = True
        self.uncleanable: dict[Log, str] = {}
        """Logs that are left alone, and why."""
        self.rounds_count = 0
        self.on_failure: Callable[[TopicPartition, Failure], None] = _nothing
        """Told of a round that came to nothing; of one that may be tried again only once."""
        self.on_disk_error: Callable[[DiskError], None] = _nothing_either
        """Told where a segment was put in place and the directory doesn't say so."""
        self._failing: set[Log] = set()  # since the last rest
        self._complained: set[Log] = set()  # since they were compacted last

    def start(self) -> None:
        """Begin to look, a little later: there is more urgent work at a start."""
        self._stopped = False
        self._timers.after(min(self._limits().backoff_ms / 1000, 1.0), self._look)

    def stop(self) -> None:
        """Begin nothing more. A round that is under way comes to nothing, or to its end."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        return self._stopped

    # --- choosing

    def _look(self) -> None:
        if self._stopped:
            return
        self.uncleanable = {log: why for log, why in self.uncleanable.items() if not log.closed}
        if not self._limits().enabled:
            self._later()
            return
        self._examine(iter(list(self._directory.logs.items())), [])

    def _examine(self, logs: Iterator[tuple[TopicPartition, Log]], due: list[Candidate]) -> None:
        """Some logs, and the rest in the next turn of the loop."""
        if self._stopped:
            return
        now_ms = self.clock.wall_ms()
        for _, (partition, log) in zip(range(_LOGS_AT_ONCE), logs, strict=False):
            candidate = self._candidate(partition, log, now_ms)
            if candidate is not None:
                due.append(candidate)
        rest = next(logs, None)
        if rest is not None:
            again = iter([rest, *logs])
            self._timers.soon(lambda: self._examine(again, due))
            return
        chosen = filthiest(due)
        if chosen is None:
            self.work.rest()
            self._later()
        else:
            _Going(self, self._directory, chosen).begin(self._limits(), now_ms)

    def _candidate(self, partition: TopicPartition, log: Log, now_ms: int) -> Candidate | None:
        if not log.settings.compacted or log in self.uncleanable or log in self._failing:
            return None
        bounds = self._bounds(partition)
        if bounds is None or log.closed or self._directory.logs.get(partition) is not log:
            return None
        dirt = dirt_of(log, self._directory.checkpoints.cleaned.get(partition), bounds, now_ms)
        if dirt is None or not is_due(log, dirt):
            return None
        return Candidate(partition, log, dirt)

    def _later(self) -> None:
        """Rest; then also try again what has failed."""

        def again() -> None:
            self._failing.clear()
            self._look()

        self._timers.after(max(self._limits().backoff_ms / 1000, 0.02), again)

    # --- what a round comes to

    def done(self, candidate: Candidate, known_to: Offset) -> None:
        """A round is over: write down how far, and look at once whether there is more to do."""
        log = candidate.log
        if log.closed or self._directory.logs.get(candidate.partition) is not log:
            self.given_up()  # a namesake is not compacted by that
            return
        self.rounds_count += 1
        self._complained.discard(log)
        noted = self._directory.checkpoints.note_cleaned(candidate.partition, known_to)

        def finish() -> None:
            try:
                noted.result()
            except DiskError as error:
                self.failed(candidate, Failure(str(error), lasting=False))
            else:
                self._look()

        noted.then(finish)

    def given_up(self) -> None:
        """The log has changed under a round, or is gone: choose anew."""
        self._timers.soon(self._look)

    def failed(self, candidate: Candidate, failure: Failure) -> None:
        """A round came to nothing."""
        log = candidate.log
        if self._stopped or log.closed:
            self.given_up()
            return
        self._failing.add(log)
        if failure.lasting:
            self.uncleanable[log] = failure.text
        if failure.lasting or log not in self._complained:
            self._complained.add(log)
            self.on_failure(candidate.partition, failure)
        self._timers.soon(self._look)


class _Going:
    """One round: keys noted elsewhere, then each group of segments written anew and swapped in."""

    def __init__(self, cleaner: Cleaner, directory: LogDirectory, candidate: Candidate) -> None:
        self._cleaner = cleaner
        self._directory = directory
        self._candidate = candidate
        self._log = candidate.log
        self._groups: list[list[Segment]] = []
        self._known_to = candidate.dirt.first_dirty

    def begin(self, limits: Limits, now_ms: int) -> None:
        plan = plan_for(self._candidate, now_ms, limits.buffer_bytes, limits.decompressed_max)
        pending = self._cleaner.work.note(plan, limits.bytes_per_s_max)
        pending.then(lambda: self._noted(pending.result()))

    def _noted(self, noted: Noted | Failure) -> None:
        if isinstance(noted, Failure):
            self._cleaner.failed(self._candidate, noted)
            return
        assert noted.known_to > self._known_to, "a round that comes no further would go on for ever"
        self._known_to = Offset(noted.known_to)
        self._groups = grouped(self._log, self._known_to, self._candidate.dirt.upper)
        self._next()

    def _next(self) -> None:
        if not self._groups:
            self._cleaner.done(self._candidate, self._known_to)
            return
        group = self._groups.pop(0)
        if not self._is_there(group):
            self._cleaner.given_up()
            return
        pending = self._cleaner.work.clean([piece_of(one) for one in group])
        pending.then(lambda: self._cleaned(group, pending.result()))

    def _is_there(self, group: Sequence[Segment]) -> bool:
        """Whether the log still has these segments, and wants them compacted."""
        log = self._log
        if self._cleaner.stopped or not log.usable or not log.settings.compacted:
            return False
        return group[0] in log.segments and group[-1] in log.segments

    def _cleaned(self, group: Sequence[Segment], cleaned: Cleaned | Failure) -> None:
        if isinstance(cleaned, Failure):
            self._discard(group, cleaned)
            return
        if not self._is_there(group):
            self._discard(group, None)
            return
        log = self._log
        log.replacing = group  # nobody else may rename their files until this is through
        committing = log.disk.perform(swap.commit_steps(log.directory, cleaned))

        def committed() -> None:
            try:
                files = committing.result()
            except DiskError as error:
                log.replacing = ()
                self._discard(group, Failure(str(error), lasting=False))
                return
            if log.closed:  # deleted meanwhile, or the node is stopping: the next start goes on
                for file in files:
                    file.close()
                self._cleaner.given_up()
                return
            segment = cleaned.segment(files)
            segment.created_ms = group[-1].created_ms
            self._settle(group, cleaned, segment)

        committing.then(committed)

    def _settle(self, group: Sequence[Segment], cleaned: Cleaned, segment: Segment) -> None:
        """The new segment holds: read from it, and let the directory say so by their names."""
        log = self._log
        old = [file.path for one in group for file in one.files()]
        files = segment.files()
        for file in files:
            file.retain()  # by its name to come it could not be opened again yet
        log.replace(group, segment)
        log.replacing = [segment]
        bases = [one.base_offset for one in group[1:]]
        settling = log.disk.perform(swap.settle_steps(log.directory, cleaned, old, bases))

        def settled() -> None:
            log.replacing = ()
            for file in files:
                file.release()
            try:
                settling.result()
            except DiskError as error:
                if log.closed or self._cleaner.stopped:
                    self._cleaner.given_up()
                    return
                self._cleaner.on_disk_error(error)
                self._cleaner.failed(self._candidate, Failure(str(error), lasting=True))
                return
            works = [swap.removal_steps(file.path for file in one.files()) for one in group]
            self._directory.removals.add(works, log.settings.file_delete_delay_ms / 1000)
            self._next()

        settling.then(settled)

    def _discard(self, group: Sequence[Segment], failure: Failure | None) -> None:
        """Remove what was written for nothing; what remained would make a later swap doubtful."""
        log = self._log
        if log.closed or self._cleaner.stopped:
            self._cleaner.given_up()  # the files go with the directory, or at the next start
            return
        steps = swap.discard_steps(log.directory, group[0].base_offset)
        discarding = log.disk.perform(steps)

        def discarded() -> None:
            outcome = failure
            try:
                discarding.result()
            except DiskError as error:
                outcome = Failure(str(error), lasting=True)
            if outcome is None:
                self._cleaner.given_up()
            else:
                self._cleaner.failed(self._candidate, outcome)

        discarding.then(discarded)


def _nothing(_partition: TopicPartition, _failure: Failure) -> None:
    pass


def _nothing_either(_error: DiskError) -> None:
    pass
