"""Room on the disk: asked now and then, and what is done when there is little.

Owns the threshold below which produce is refused, so that what must go on has room: commits,
transactions, checkpoints, deletions. Must not cost a request anything: whoever appends for clients
reads one attribute. What runs full in spite of it is rolled back by the log (I33).
"""

from __future__ import annotations

import logging
from errno import EDQUOT, ENOSPC
from typing import TYPE_CHECKING

from ottla.core import options
from ottla.core.ports import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.core.config import Config
    from ottla.core.ports import Disk, Space, Timers

_log = logging.getLogger("ottla.space")

FULL = frozenset({ENOSPC, EDQUOT})
_DEFAULT_MAX = 1 << 30
_DEFAULT_SHARE = 20
_AFTER_FULL = 64 << 20
_EVERY_S_MIN, _EVERY_S_MAX = 0.1, 10.0
_EVERY_S_LITTLE = 0.5
_BYTES_PER_S_MAX = 2 << 30
"""What the fastest disks take: the less room there is, the sooner it is asked for again."""
_FILES_PER_S_MAX = 1 << 12
_FILES_DEFAULT_MIN, _FILES_DEFAULT_MAX = 1 << 6, 1 << 10
"""A segment takes four, and the fastest disks begin some within the shortest time between looks."""


class Room:
    """How a log directory's file system is filled. `start` once; `little` is what to read."""

    def __init__(
        self,
        path: str,
        disk: Disk,
        timers: Timers,
        config: Config,
        changed: Callable[[bool], None],
    ) -> None:
        """`changed(little)` is called when produce is refused, and when it is taken again."""
        self.little = False
        """Whether produce is refused."""
        self._path = path
        self._disk = disk
        self._timers = timers
        self._config = config
        self._changed = changed
        self._asking = False
        self._turn = 0
        self._failing = False
        self._full = False

    def start(self) -> None:
        """Ask from now on, and at once where the threshold may be another one."""
        self._config.on_change(self._ask)
        self._ask()

    def ran_full(self) -> None:
        """A write found no room: ask now, not when it would be time.

        Until there is some, no more is tried, whatever `log.free.bytes.min` says: each try is a
        write that must be taken back.
        """
        self._full = True
        self._ask()

    def threshold(self, total: int) -> int:
        """Bytes that must be free for produce to be taken: `log.free.bytes.min`, or what is usual.

        With little room it takes a sixteenth more until there is enough: not on and off.
        """
        given = self._config[options.FREE_BYTES_MIN]
        least = min(_DEFAULT_MAX, total // _DEFAULT_SHARE) if given < 0 else given
        if self._full:
            least = max(least, min(_AFTER_FULL, total // _DEFAULT_SHARE))
        return least + least // 16 if self.little else least

    def files_threshold(self, files: int) -> int:
        """As `threshold`, of the files that can be made; 0 where their number is not fixed.

        0 stays 0, also after a write without room: where a file system tells nonsense of its files,
        nothing else would let produce be taken again.
        """
        given = self._config[options.FREE_FILES_MIN]
        if files <= (_FILES_DEFAULT_MIN if given < 0 else 0):
            return 0  # some file systems make up a small number
        usual = max(_FILES_DEFAULT_MIN, min(_FILES_DEFAULT_MAX, files // _DEFAULT_SHARE))
        least = usual if given < 0 else given
        if self._full and given:
            least = max(least, min(_FILES_DEFAULT_MIN, files // 2))
        return least + least // 16 if self.little else least

    def _ask(self) -> None:
        if self._asking:
            return
        self._asking = True
        self._turn += 1  # overtakes the timer that is set
        asked = self._disk.space(self._path)

        def answered() -> None:
            self._asking = False
            try:
                space = asked.result()
            except DiskError as error:
                if not self._failing:
                    _log.error("whether the disk has room is not known: %s", error)
                self._failing = True
                self._later(_EVERY_S_MAX)
            else:
                self._failing = False
                self._take(space)

        asked.then(answered)

    def _take(self, space: Space) -> None:
        threshold, files_threshold = self.threshold(space.total), self.files_threshold(space.files)
        few_files = space.files_usable < files_threshold
        if (space.usable < threshold or few_files) is not self.little:
            self.little = not self.little
            if self.little:
                self._tell_little(space, files_threshold if few_files else threshold, few_files)
            else:
                self._tell_enough(space)
            self._full = self._full and self.little
            self._changed(self.little)
        if self.little:
            self._later(_EVERY_S_LITTLE)
        else:
            left_s = (space.usable - threshold) / _BYTES_PER_S_MAX
            if files_threshold:
                left_s = min(left_s, (space.files_usable - files_threshold) / _FILES_PER_S_MAX)
            self._later(min(max(left_s, _EVERY_S_MIN), _EVERY_S_MAX))

    def _later(self, delay_s: float) -> None:
        turn = self._turn

        def due() -> None:
            if turn == self._turn:
                self._ask()

        self._timers.after(delay_s, due)

    def _tell_little(self, space: Space, threshold: int, few_files: bool) -> None:
        if few_files:
            left, wanted = f"{space.files_usable} files (inodes)", f"{threshold} files"
            option = options.FREE_FILES_MIN.name
        else:
            left, wanted, option = (
                _size(space.usable),
                _size(threshold),
                options.FREE_BYTES_MIN.name,
            )
        _log.error(
            "little room: the file system of %s has %s left, less than the %s that are to be "
            "free (%s). Produce is refused with KAFKA_STORAGE_ERROR, which "
            "clients retry; reading, commits and deletions go on. Delete topics or records, "
            "shorten retention, or make the file system larger: produce is taken again by "
            "itself",
            self._path,
            left,
            wanted,
            option,
            extra={"fields": {"event": "disk-full", "usable": space.usable}},
        )

    def _tell_enough(self, space: Space) -> None:
        files = f" and {space.files_usable} files (inodes)" if space.files else ""
        _log.warning(
            "the file system of %s has %s%s again: produce is taken",
            self._path,
            _size(space.usable),
            files,
            extra={"fields": {"event": "disk-room", "usable": space.usable}},
        )


def _size(count: int) -> str:
    return f"{count / (1 << 20):.4g} MiB" if count < 1 << 30 else f"{count / (1 << 30):.4g} GiB"
