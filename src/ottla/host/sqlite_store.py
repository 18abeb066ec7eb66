"""SqliteStore: the MetadataStore of one machine, in one file of the data directory.

Owns the database, its schema and the thread that writes. Several transactions that wait at
once become durable with one sync. Must not know what keys mean. One process at a time: the
directory's lock (`host/lock.py`) sees to that. That no transaction is missing is shown by a mark
in a file beside it (`host/store_mark.py`); a store that is refused is left as it was found.

To change the schema, append a step to `UPGRADES`; a released step never changes. Older files
are upgraded step by step, each step in a transaction; newer ones are refused.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NoReturn, TypeAlias

from ottla.cluster.store import (
    Applied,
    Compacted,
    Compare,
    Delete,
    DeletePrefix,
    Entry,
    Failed,
    Outcome,
    Put,
    Snapshot,
    StoreCorrupt,
    StoreError,
    StoreTooNew,
    Unknown,
    Update,
    WatchEvent,
    Write,
    holds,
)
from ottla.core.pending import Pending
from ottla.host.files import open_regular
from ottla.host.mailbox import Mailbox, WakeLoop
from ottla.host.store_mark import SUFFIX as MARK
from ottla.host.store_mark import Mark, MarkFile, read_mark
from ottla.records.crc import crc32c

_log = logging.getLogger("ottla.host")

FILE_NAME = "ottla-metadata.sqlite"

UPGRADES: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE schema_version (version INTEGER NOT NULL)",
        "INSERT INTO schema_version VALUES (0)",
        "CREATE TABLE revision (last INTEGER NOT NULL)",
        "INSERT INTO revision VALUES (0)",
        "CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL,"
        " create_revision INTEGER NOT NULL, mod_revision INTEGER NOT NULL) WITHOUT ROWID",
    ),
    # Of all entries and the revision; SQLite has none of its own. Null: written by an older ottla.
    ("ALTER TABLE revision ADD COLUMN checksum INTEGER",),
)

ADVICE = (
    ". Bring back all files of that name (also -wal and -last) from a copy; or let ottla log "
    "repair say what is lost without them"
)
"""What ends the text of a StoreCorrupt that a start raises."""

_BATCH_MAX = 128
"""Jobs that share one sync."""
_REST_S = 0.2
"""Without a job for so long, the mark is synced: who asks again and again doesn't wait for it."""
_HISTORY_MAX = 64
"""Updates kept for a watch that begins a little late; one that begins later is Compacted."""
_PREFIX_END = "\U0010ffff"
_ROOM_MIN = 64 << 10
_HEADER_SIZE = 512
"""Bytes of the smallest page that there can be, the header in it."""
_COLUMNS = "key, value, create_revision, mod_revision"

Work: TypeAlias = Callable[[], "tuple[Snapshot | Outcome, Update | None]"]


class _Job:
    """One read or transaction, with what became of it."""

    __slots__ = ("pending", "result", "update", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.pending: Pending[Any] = Pending()
        self.result: Snapshot | Outcome | None = None
        self.update: Update | None = None


class _Watch:
    __slots__ = ("_watches", "from_revision", "on_event", "prefix")

    def __init__(
        self,
        watches: list[_Watch],
        prefix: str,
        from_revision: int,
        on_event: Callable[[WatchEvent], None],
    ) -> None:
        self._watches = watches
        self.prefix = prefix
        self.from_revision = from_revision
        self.on_event = on_event

    def deliver(self, update: Update) -> None:
        if update.revision >= self.from_revision:
            self.from_revision = update.revision + 1
            entries = {k: v for k, v in update.entries.items() if k.startswith(self.prefix)}
            self.on_event(Update(update.revision, entries))

    def cancel(self) -> None:
        if self in self._watches:
            self._watches.remove(self)


def _cause(error: sqlite3.Error, path: str) -> str:
    """What went wrong, and what can be done about it.

    Where there is no room for its shared memory SQLite only speaks of input and output.
    """
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and not _room_around(path)):
        return "its disk is full: free some space there, a mebibyte is enough, and start again"
    return str(error)


def _room_around(path: str) -> bool:
    try:
        found = os.statvfs(os.path.dirname(path) or ".")
    except OSError:
        return True  # nobody knows
    return found.f_bavail * found.f_frsize >= _ROOM_MIN


class SqliteStore:
    """The store in `path`. Until `start` every call is done at once and returns a done Pending.

    Afterwards a thread of its own does them, in order. An Update is delivered before the
    Outcome of its transaction.
    """

    def __init__(self, path: str, *, durable: bool = True) -> None:
        """Open or make the file. Raises StoreCorrupt, StoreTooNew, StoreError.

        `durable` of False is for a file that nobody opens again: nothing is synced.
        """
        self._path = path
        self._durable = durable
        self._mark_failed = False
        was_marked = os.path.exists(path + MARK)
        self._known = read_mark(path)
        self._connection = self._open()
        try:
            self._mark = MarkFile(path, durable=durable)
        except OSError as error:
            self._connection.close()
            raise StoreError(f"{path}{MARK} cannot be used: {error.strerror}") from error
        # Of no transaction there is no mark: a start that failed before the first leaves it empty.
        if was_marked and self._known is None and self._last_revision():
            _log.warning("%s%s could not be believed; made anew", path, MARK)
        self._note()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._mailbox: Mailbox | None = None
        self._watches: list[_Watch] = []
        self._history: deque[Update] = deque(maxlen=_HISTORY_MAX)
        self._history_from = self._last_revision() + 1
        self._fault: StoreError | None = None
        self._closed = False

    def start(self, wake_loop: WakeLoop) -> None:
        """From now on nothing blocks: results come by way of `wake_loop`."""
        assert self._mailbox is None, "started twice"
        self._mailbox = Mailbox(wake_loop)

    def read(self, prefix: str) -> Pending[Snapshot]:
        return self._submit(_Job(lambda: (self._read(prefix), None)))

    def transact(self, compares: Sequence[Compare], writes: Sequence[Write]) -> Pending[Outcome]:
        return self._submit(_Job(lambda: self._transact(compares, writes)))

    def watch(
        self, prefix: str, from_revision: int, on_event: Callable[[WatchEvent], None]
    ) -> _Watch:
        watch = _Watch(self._watches, prefix, from_revision, on_event)
        if from_revision < self._history_from:
            on_event(Compacted(self._history_from))
            return watch
        for update in tuple(self._history):
            watch.deliver(update)
        self._watches.append(watch)
        return watch

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        if self._mailbox is not None:
            self._mailbox.drain()
        self._sync_mark()
        self._mark.close()
        self._connection.close()

    def _submit(self, job: _Job) -> Pending[Any]:
        if self._closed:
            job.pending.fail(StoreError(f"the metadata store {self._path} is closed"))
        elif self._mailbox is None:
            self._deliver([job], self._run([job]))
        else:
            self._jobs.put(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._write_on, args=(self._mailbox,), name="ottla-store", daemon=True
                )
                self._thread.start()
        return job.pending

    def _write_on(self, mailbox: Mailbox) -> None:
        stopping = False
        while not stopping:
            try:
                batch = [self._jobs.get(timeout=_REST_S if self._mark.is_behind else None)]
            except Empty:
                self._sync_mark()
                continue
            while len(batch) < _BATCH_MAX:
                try:
                    batch.append(self._jobs.get_nowait())
                except Empty:
                    break
            stopping = None in batch  # the last one: nothing is submitted after close()
            jobs = [job for job in batch if job is not None]
            if jobs:
                error = self._run(jobs)
                mailbox.post(partial(self._deliver, jobs, error))

    def _run(self, jobs: Sequence[_Job]) -> StoreError | None:
        """Do the jobs in one transaction of the database; the error that undid them all."""
        if self._fault is not None:
            return self._fault
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                job.result, job.update = job.work()
        except sqlite3.Error as error:
            self._roll_back()
            return self._failure(error)
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._commit_failed(jobs, error)
        else:
            if any(job.update is not None for job in jobs):
                self._note()
        return None

    def _commit_failed(self, jobs: Sequence[_Job], error: sqlite3.Error) -> None:
        # The frames may already be in the write-ahead log, where a restart would find them: so
        # what was applied is unknown, not undone.
        self._roll_back()
        for job in jobs:
            job.update = None
            if isinstance(job.result, Applied):
                job.result = Unknown(_cause(error, self._path))
        if error.sqlite_errorname.startswith("SQLITE_IOERR"):
            # After a failed sync the kernel may drop pages and report success next time.
            self._fault = self._failure(error)

    def _note(self) -> None:
        """Mark the last transaction, which is durable: before anybody is answered."""
        mark = Mark(*self._connection.execute("SELECT last, checksum FROM revision").fetchone())
        if mark == self._known or not mark.revision:
            return
        try:
            self._mark.write(mark)
        except OSError as error:
            self._tell_mark_failed(error)
        else:
            self._known, self._mark_failed = mark, False

    def _sync_mark(self) -> None:
        try:
            self._mark.sync()
        except OSError as error:
            self._tell_mark_failed(error)

    def _tell_mark_failed(self, error: OSError) -> None:
        # What was applied is in the database and durable. Only the proof of it is behind, until
        # the next transaction: no reason to stop.
        if not self._mark_failed:
            self._mark_failed = True
            _log.warning(
                "%s%s can't be written (%s): if the last transactions went bad on the disk now, a "
                "start could not tell",
                self._path,
                MARK,
                error.strerror,
            )

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _failure(self, error: sqlite3.Error) -> StoreError:
        text = f"the metadata store {self._path} cannot be used: {_cause(error, self._path)}"
        if isinstance(error, sqlite3.OperationalError):
            return StoreError(text)
        return StoreCorrupt(text + ADVICE)

    def _deliver(self, jobs: Sequence[_Job], error: StoreError | None) -> None:
        for job in jobs:
            if error is not None:
                job.pending.fail(error)
                continue
            if job.update is not None:
                if len(self._history) == _HISTORY_MAX:
                    self._history_from = self._history[0].revision + 1
                self._history.append(job.update)
                for watch in tuple(self._watches):
                    watch.deliver(job.update)
            assert job.result is not None
            job.pending.complete(job.result)

    # The database: in the thread once there is one.

    def _read(self, prefix: str) -> Snapshot:
        rows = self._connection.execute(
            "SELECT key, value, create_revision, mod_revision FROM entries"
            " WHERE key >= ? AND key < ?",
            (prefix, prefix + _PREFIX_END),
        )
        entries = {key: Entry(value, create, mod) for key, value, create, mod in rows}
        return Snapshot(self._last_revision(), entries)

    def _transact(
        self, compares: Sequence[Compare], writes: Sequence[Write]
    ) -> tuple[Outcome, Update | None]:
        last, checksum = self._connection.execute("SELECT last, checksum FROM revision").fetchone()
        for compare in compares:
            if not holds(compare, self._entry(compare.key)):
                return Failed(last), None
        revision = last + 1
        changed: dict[str, Entry | None] = {}
        for write in writes:
            checksum ^= self._write(write, revision, changed)
        checksum ^= _checksum_of("", Entry(b"", last, 0)) ^ _checksum_of(
            "", Entry(b"", revision, 0)
        )
        self._connection.execute("UPDATE revision SET last = ?, checksum = ?", (revision, checksum))
        return Applied(revision), Update(revision, changed)

    def _write(self, write: Write, revision: int, changed: dict[str, Entry | None]) -> int:
        """Do it, and note what it changes; by what the checksum of all entries does."""
        checksum = 0
        match write:
            case Put(key, value):
                before = self._entry(key)
                if before is not None:
                    checksum = _checksum_of(key, before)
                entry = Entry(value, before.create_revision if before else revision, revision)
                checksum ^= _checksum_of(key, entry)
                self._connection.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
                    (key, value, entry.create_revision, revision),
                )
                changed[key] = entry
            case Delete(key):
                before = self._entry(key)
                if before is not None:
                    self._connection.execute("DELETE FROM entries WHERE key = ?", (key,))
                    checksum = _checksum_of(key, before)
                    changed[key] = None
            case DeletePrefix(prefix):
                bounds = (prefix, prefix + _PREFIX_END)
                for key, *row in self._connection.execute(
                    f"SELECT {_COLUMNS} FROM entries WHERE key >= ? AND key < ?", bounds
                ).fetchall():
                    checksum ^= _checksum_of(key, Entry(*row))
                    changed[key] = None
                self._connection.execute("DELETE FROM entries WHERE key >= ? AND key < ?", bounds)
        return checksum

    def _entry(self, key: str) -> Entry | None:
        row = self._connection.execute(
            "SELECT value, create_revision, mod_revision FROM entries WHERE key = ?", (key,)
        ).fetchone()
        return Entry(*row) if row else None

    def _last_revision(self) -> int:
        row: tuple[int] = self._connection.execute("SELECT last FROM revision").fetchone()
        return row[0]

    def _open(self) -> sqlite3.Connection:
        connection = None
        self._refuse_lost()
        wal = _content(f"{self._path}-wal")
        try:
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, timeout=5
            )
            connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
            if connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
                raise StoreError(f"{self._path} is on a file system that SQLite's WAL can't use")
            self._refuse_behind(connection)
            self._upgrade(connection)
            if connection.execute("SELECT count(*) FROM revision").fetchone() != (1,):
                raise StoreCorrupt(f"the metadata store {self._path} has lost its revision")
            self._verify(connection)
            return connection
        except (sqlite3.Error, StoreError, TypeError, ValueError) as error:
            if connection is not None:
                connection.close()
                self._bring_back(wal)
            if isinstance(error, sqlite3.DatabaseError):
                raise self._failure(error) from error
            if isinstance(error, TypeError | ValueError):  # text where numbers were, or no text
                self._refuse(str(error))
            raise

    def _refuse_lost(self) -> None:
        """Raises StoreCorrupt where SQLite would begin anew, and delete its log, too."""
        size = os.path.getsize(self._path) if os.path.exists(self._path) else -1
        if size >= _HEADER_SIZE:
            return
        if size > 0:
            self._refuse("it was cut")
        state = "it is missing" if size < 0 else "it is empty"
        if self._known is not None:
            self._refuse(f"{state}, and had {self._known.revision} transactions")
        if _content(f"{self._path}-wal"):
            self._refuse(f"{state}, and its -wal is not")

    def _refuse_behind(self, connection: sqlite3.Connection) -> None:
        """Raises StoreCorrupt where transactions are missing that may have been answered."""
        version = _schema_version(connection)
        if self._known is None or version > len(UPGRADES):
            return
        last = 0
        if version:
            [last] = connection.execute("SELECT last FROM revision").fetchone()
        if last < self._known.revision:
            self._refuse(
                f"it ends with transaction {last}, and there were {self._known.revision}: its -wal "
                "was cut, removed or went bad, or the file is an older copy"
            )

    def _bring_back(self, wal: bytes | None) -> None:
        """Leave the log as it was found, if the database is refused.

        SQLite writes what it believes of it into the database when that is closed, and removes the
        rest. Somebody may still make sense of that; and read once more the log changes nothing.
        """
        if wal and not os.path.exists(f"{self._path}-wal"):
            with suppress(OSError), open(f"{self._path}-wal", "xb") as file:
                file.write(wal)

    def _verify(self, connection: sqlite3.Connection) -> None:
        """Raises StoreCorrupt where it isn't what was written, DatabaseError where SQLite sees."""
        damage = "its checksum doesn't fit"
        last, known = connection.execute("SELECT last, checksum FROM revision").fetchone()
        try:
            found = _checksum_of("", Entry(b"", last, 0))
            for key, *row in connection.execute(f"SELECT {_COLUMNS} FROM entries"):
                found ^= _checksum_of(key, Entry(*row))
        except (TypeError, ValueError, AttributeError):  # a value of another type than was written
            self._refuse(damage)
        [(said,)] = connection.execute("PRAGMA integrity_check(1)").fetchall()
        if said != "ok":
            self._refuse(said)
        if known is not None and known != found:
            self._refuse(damage)
        marked = self._known
        if marked is not None and marked.revision == last and marked.checksum != found:
            self._refuse(f"its {MARK} file is of another one")
        if known is None:
            connection.execute("UPDATE revision SET checksum = ?", (found,))

    def _refuse(self, damage: str) -> NoReturn:
        raise StoreCorrupt(f"the metadata store {self._path} is damaged: {damage}{ADVICE}")

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        found = _schema_version(connection)
        if found > len(UPGRADES):
            raise StoreTooNew(
                f"the metadata store {self._path} has schema {found}, and this version of ottla "
                f"knows {len(UPGRADES)} at most: it was written by a newer ottla, so use that one"
            )
        for version in range(found, len(UPGRADES)):
            connection.execute("BEGIN IMMEDIATE")
            for statement in UPGRADES[version]:
                connection.execute(statement)
            connection.execute("UPDATE schema_version SET version = ?", (version + 1,))
            connection.execute("COMMIT")


def _content(path: str) -> bytes | None:
    """None if there is no such file. Raises StoreError."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error


def _checksum_of(key: str, entry: Entry) -> int:
    """Of one entry. Those of all are combined by exclusive or: each goes in and out by itself."""
    revisions = entry.create_revision, entry.mod_revision
    return crc32c(b"%b\0%d %d\0%b" % (key.encode(), *revisions, entry.value))


def _schema_version(connection: sqlite3.Connection) -> int:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    if not tables:
        return 0
    if ("schema_version",) not in tables:
        raise StoreCorrupt("the metadata store is a database of something else")
    row: tuple[int] | None = connection.execute("SELECT version FROM schema_version").fetchone()
    if row is None:
        raise StoreCorrupt("the metadata store has lost its schema version")
    return row[0]
