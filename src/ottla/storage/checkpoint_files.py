"""What the checkpoint files of a log directory say of all its logs: read at a start, then replaced.

Owns which files there are, which logs each may name, and what only they remember: how far logs were
compacted, and what time retention goes by. Must not know how a file looks (`checkpoints` does), or
perform a step that others wait for: it hands them out, and whoever asked puts them in their order.

Offsets that they name were synced before (I31).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from ottla.core.model import NO_TOPIC_ID, Offset, TopicPartition
from ottla.core.pending import Pending
from ottla.core.ports import Disk, File, ReplaceFile, Step, SyncDirectory
from ottla.storage import checkpoints
from ottla.storage.checked import ANYWHERE
from ottla.storage.log import Log
from ottla.storage.opening import read_derived
from ottla.storage.recovery import Hints

_NO_SEALS: checkpoints.AbortedSeals = {}


class Known(NamedTuple):
    """What a start was told of its logs; None of a file that is missing or can't be believed."""

    clean: bool
    """Whether the files of every log are as its stop left them."""
    recovery_points: dict[TopicPartition, Offset] | None
    starts: dict[TopicPartition, Offset] | None
    starts_certain: bool
    """Whether they are what we wrote: Kafka leaves out a start that is a segment's."""
    cleaned: dict[TopicPartition, Offset] | None
    seals: Mapping[TopicPartition, checkpoints.AbortedSeals] | None
    now_ms: int
    unsound: list[str]
    """The files whose loss costs something, and that could not be believed."""

    @property
    def certain(self) -> dict[TopicPartition, Offset] | None:
        """Up to where each log need not be read again; None where none must be read."""
        return None if self.clean else self.recovery_points or {}

    def names(self) -> set[TopicPartition]:
        """Every log that is named in one of them."""
        every = (self.recovery_points, self.starts, self.seals, self.cleaned)
        return {name for one in every for name in one or ()}

    def hints(self, partition: TopicPartition) -> Hints:
        """What recovery is told of one log."""
        # Without its file, any log may have been compacted: holes are then no damage anywhere.
        holes = Offset(0 if self.cleaned is not None else ANYWHERE)
        return Hints(
            self.clean,
            (self.recovery_points or {}).get(partition, Offset(0)),
            (self.starts or {}).get(partition, Offset(0)),
            (self.cleaned or {}).get(partition, holes),
            self.now_ms,
            self.starts_certain,
            None if self.seals is None else self.seals.get(partition, _NO_SEALS),
        )


class CheckpointFiles:
    """The checkpoint files below one path, about the `logs` that are there by now."""

    def __init__(
        self,
        path: str,
        disk: Disk,
        logs: Mapping[TopicPartition, Log],
        adoptable: Collection[TopicPartition],
    ) -> None:
        """`logs` and `adoptable` are the directory's own, as they are at each writing."""
        self._path = path
        self._disk = disk
        self._logs = logs
        self._adoptable = adoptable
        self.cleaned: dict[TopicPartition, Offset] = {}
        """How far logs were compacted. Below that, offsets may be missing for ever."""
        self._cleaned_listed = False  # in its file: a namesake of what is in it must not inherit it
        self._high_watermarks: dict[Log, Offset] = {}
        """Of logs that opened failed: how far they went is not seen of their files."""
        self.retention_ms: Callable[[], int] | None = None
        """What time retention goes by, to be remembered with the rest."""
        self.last_retention_ms: int | None = None
        """What was remembered of that at the last start."""

    # -- read

    def read(self, was_clean: bool, now_ms: int) -> Known:
        """What they say at a start. Raises DiskError."""
        raw = self._raw(checkpoints.RETENTION_CLOCK)
        self.last_retention_ms = checkpoints.decode_clock(raw)
        recovery_points = checkpoints.decode_offsets(self._raw(checkpoints.RECOVERY_POINTS))
        raw_starts = self._raw(checkpoints.LOG_STARTS)
        starts = checkpoints.decode_offsets(raw_starts)
        raw_seals = self._raw(checkpoints.ABORTED)
        seals = checkpoints.decode_aborted_seals(raw_seals)
        # Not believed or not there, it costs another compaction.
        cleaned = checkpoints.decode_offsets(self._raw(checkpoints.CLEANED))
        self._cleaned_listed = bool(cleaned)
        unsound = {
            checkpoints.RECOVERY_POINTS: recovery_points is None,
            checkpoints.LOG_STARTS: starts is None,
            checkpoints.ABORTED: seals is None and raw_seals is not None,
        }
        return Known(
            was_clean and recovery_points is not None,
            recovery_points,
            starts,
            checkpoints.is_sealed(raw_starts),
            cleaned,
            seals,
            now_ms,
            [f"{self._path}/{name}" for name, is_unsound in unsound.items() if is_unsound],
        )

    def take_over(self, known: Known) -> bool:
        """Go on from what was `known`, now that all logs are there; False if it named others, too.

        What is said of a log that is not here would pass for what is known of its namesake.
        """
        cleaned = known.cleaned or {}
        self.cleaned = {name: at for name, at in cleaned.items() if name in self._logs}
        failed = {name: log for name, log in self._logs.items() if log.failed}
        if failed:
            were = checkpoints.decode_offsets(self._raw(checkpoints.HIGH_WATERMARKS)) or {}
            self._high_watermarks = {
                log: were[name] for name, log in failed.items() if name in were
            }
        return known.names() <= self._logs.keys()

    def _raw(self, name: str) -> bytes | None:
        return read_derived(self._disk, f"{self._path}/{name}")

    # -- replaced

    def steps(self) -> list[Step]:
        """Replace them all; one sync of the directory is enough for them."""
        # One without an id may be nobody's: with a recovery point it would pass for its topic's.
        here = {
            name: log
            for name, log in self._logs.items()
            if log.on_disk and (log.topic_id != NO_TOPIC_ID or name in self._adoptable)
        }
        seals = {name: log.aborted_seals() for name, log in here.items()}
        recovery_points = {name: log.recovery_point for name, log in here.items()}
        high_watermarks = {
            name: max(log.flushed, self._high_watermarks.get(log, Offset(0)))
            if log.failed
            else log.flushed
            for name, log in here.items()
        }
        steps = [
            self._replace(checkpoints.ABORTED, checkpoints.encode_aborted_seals(seals)),
            *self.starts_steps(),
            self._offsets(checkpoints.RECOVERY_POINTS, recovery_points),
            self._offsets(checkpoints.HIGH_WATERMARKS, high_watermarks),
        ]
        if self._cleaned_listed:
            steps.append(self._offsets(checkpoints.CLEANED, self.cleaned))
        if self.retention_ms is not None:
            clock = checkpoints.encode_clock(self.retention_ms())
            steps.append(self._replace(checkpoints.RETENTION_CLOCK, clock))
        return [*steps, SyncDirectory(self._path)]

    def starts_steps(self) -> list[Step]:
        """Write down every start but 0; the directory is not synced.

        Kafka leaves out those that are a segment's; but without a recovery point, which is in
        another file, such a log looks as if it had lost its first segments. A directory must say
        whose it is before its start is kept, or a namesake's would begin there if it is lost.
        """
        moved = {name: log for name, log in self._logs.items() if log.on_disk and log.start}
        steps = [step for log in moved.values() for step in log.naming_steps()]
        steps += [SyncDirectory(self._path)] if steps else []
        starts = {name: log.start for name, log in moved.items()}
        return [*steps, self._offsets(checkpoints.LOG_STARTS, starts)]

    def note_cleaned(self, partition: TopicPartition, offset: Offset) -> Pending[list[File]]:
        """A log was compacted up to `offset`; written down when this is done. Fails with DiskError.

        Not synced with its directory: without it the log is compacted once more.
        """
        self.cleaned[partition] = offset
        self._cleaned_listed = True
        return self._disk.perform([self._offsets(checkpoints.CLEANED, self.cleaned)])

    def _offsets(self, name: str, offsets: Mapping[TopicPartition, Offset]) -> Step:
        return self._replace(name, checkpoints.encode_offsets(offsets))

    def _replace(self, name: str, content: bytes) -> Step:
        return ReplaceFile(f"{self._path}/{name}", content, False)
