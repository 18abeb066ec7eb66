"""Starts: how a log loses its oldest records for good, and then the segments that held them.

Owns the order of the two: a start is on disk before anything below it goes, or a crash would leave
a log that has lost its first segments. Must not choose where a start moves to: retention and
clients do.
"""

from __future__ import annotations

from ottla.core.model import Offset
from ottla.core.pending import Pending
from ottla.core.ports import Disk, DiskError, RenamePath, Step, SyncDirectory, UnlinkFile
from ottla.storage.checkpoint_files import CheckpointFiles
from ottla.storage.log import Log
from ottla.storage.removal import Removals
from ottla.storage.snapshots import snapshot_path

_DELETED = ".deleted"


class Starts:
    """The starts of the logs in one directory, as they move."""

    def __init__(
        self, path: str, disk: Disk, checkpoints: CheckpointFiles, removals: Removals
    ) -> None:
        self._path = path
        self._disk = disk
        self._checkpoints = checkpoints
        self._removals = removals
        # Who waits for the next writing of the checkpoint, and the logs whose starts go into it.
        self._waiting: list[Pending[None]] = []
        self._moved: dict[Log, None] = {}
        self._writing = False

    def move(self, log: Log, offset: Offset) -> Pending[None]:
        """Records before `offset` are gone, for good when this is done. Fails with DiskError.

        What moves while the checkpoint is being written goes into the next writing. Segments
        below the start follow later: recovery removes what is left of them.
        """
        log.set_start(offset)
        self._moved[log] = None
        pending: Pending[None] = Pending()
        self._waiting.append(pending)
        if not self._writing:
            self._write()
        return pending

    def _write(self) -> None:
        self._writing = True
        waiting, self._waiting = self._waiting, []
        # What is written now: a start may move on before segments are let go.
        moved, self._moved = {log: log.start for log in self._moved}, {}
        done = self._disk.perform([*self._checkpoints.starts_steps(), SyncDirectory(self._path)])

        def finish() -> None:
            self._writing = False
            try:
                done.result()
            except DiskError as error:
                for pending in waiting:
                    pending.fail(error)
            else:
                for log, start in moved.items():
                    self._drop_below(log, start)
                for pending in waiting:
                    pending.complete(None)
            if self._waiting and not self._writing:
                self._write()

        done.then(finish)

    def _drop_below(self, log: Log, start: Offset) -> None:
        """Take segments below a durable start out of their log, and remove their files later.

        Nothing waits for that, and no sync is needed: the next start removes what it finds below.
        The renames are done in the order of all other steps, so that they can't hit the files of a
        namesake to come.
        """
        gone = log.drop_below(start)
        if not gone:
            return
        works: list[list[Step]] = []
        steps: list[Step] = []
        for segment in gone:
            paths = [file.path for file in segment.files()]
            steps += [RenamePath(path, path + _DELETED) for path in paths]
            steps.append(UnlinkFile(snapshot_path(log.directory, segment.base_offset)))
            works.append([UnlinkFile(path + _DELETED) for path in paths])
        renamed = self._disk.perform(steps)
        delay_s = log.settings.file_delete_delay_ms / 1000

        def finish() -> None:
            try:
                renamed.result()
            except DiskError as error:
                self._removals.failed(error)
            else:
                self._removals.add(works, delay_s)

        renamed.then(finish)
