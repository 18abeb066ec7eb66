"""The store of one machine: its contract, its schema, and what it says when it can't be used."""

import os
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from ottla.cluster.store import (
    Absent,
    Applied,
    Compacted,
    Delete,
    DeletePrefix,
    Entry,
    Failed,
    Present,
    Put,
    SameSince,
    StoreCorrupt,
    StoreError,
    StoreTooNew,
    UnchangedSince,
    Unknown,
    Update,
)
from ottla.host import sqlite_store
from ottla.host.sqlite_store import SqliteStore
from ottla.host.store_mark import read_mark


@pytest.fixture
def path(tmp_path) -> str:
    return f"{tmp_path}/ottla-metadata.sqlite"


@pytest.fixture
def store(path):
    store = SqliteStore(path)
    yield store
    store.close()


class Loop:
    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.wakes_count = 0

    def wake(self, call: Callable[[], None]) -> None:
        self.wakes_count += 1
        self.calls.put(call)

    def until(self, pending):
        while not pending.done:
            self.calls.get(timeout=60)()
        return pending.result()


def read(store, prefix):
    """Before `start` the answer is there at once."""
    return store.read(prefix).result()


def transact(store, compares, writes):
    return store.transact(compares, writes).result()


def test_a_new_store_is_empty_at_revision_zero(store):
    snapshot = read(store, "/")
    assert snapshot.revision == 0
    assert snapshot.entries == {}


def test_a_transaction_writes_all_its_keys_at_one_revision(store):
    assert transact(store, [], [Put("/a", b"1"), Put("/b", b"2")]) == Applied(1)
    assert transact(store, [], [Put("/a", b"3")]) == Applied(2)
    assert read(store, "/").entries == {"/a": Entry(b"3", 1, 2), "/b": Entry(b"2", 1, 1)}


def test_a_prefix_covers_what_begins_so_and_nothing_else(store):
    transact(store, [], [Put(key, b"") for key in ("/t", "/t/a", "/t/é", "/u", "/s")])
    assert set(read(store, "/t/").entries) == {"/t/a", "/t/é"}
    transact(store, [], [DeletePrefix("/t/")])
    assert set(read(store, "").entries) == {"/t", "/u", "/s"}


def test_a_key_that_was_deleted_and_made_again_is_another_one(store):
    transact(store, [], [Put("/a", b"1")])
    transact(store, [], [Delete("/a")])
    transact(store, [], [Put("/a", b"2")])
    assert transact(store, [SameSince("/a", 1)], []) == Failed(3)
    assert transact(store, [SameSince("/a", 3)], []) == Applied(4)


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        (Absent("/a"), Failed(2)),
        (Absent("/z"), Applied(3)),
        (Present("/a"), Applied(3)),
        (Present("/z"), Failed(2)),
        (UnchangedSince("/a", 2), Applied(3)),
        (UnchangedSince("/a", 1), Failed(2)),
        (UnchangedSince("/z", 0), Failed(2)),
        (SameSince("/a", 1), Applied(3)),
        (SameSince("/a", 2), Failed(2)),
    ],
)
def test_a_transaction_is_applied_only_if_its_compare_holds(store, compare, expected):
    transact(store, [], [Put("/a", b"1")])
    transact(store, [], [Put("/a", b"2")])
    assert transact(store, [compare], [Put("/b", b"")]) == expected
    assert ("/b" in read(store, "/").entries) == isinstance(expected, Applied)


def test_one_compare_that_fails_stops_every_write(store):
    compares = [Absent("/a"), Present("/z")]
    assert transact(store, compares, [Put("/a", b""), Put("/b", b"")]) == Failed(0)
    assert read(store, "/").entries == {}


def test_what_was_applied_is_there_after_a_restart(path, store):
    transact(store, [], [Put("/a", b"1")])
    store.close()
    again = SqliteStore(path)
    assert read(again, "/").entries == {"/a": Entry(b"1", 1, 1)}
    assert transact(again, [], [Put("/b", b"")]) == Applied(2)
    again.close()


def test_a_transaction_is_synced_when_it_is_applied(store):
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_watch_gets_every_update_in_order_and_of_its_prefix(store):
    seen = []
    transact(store, [], [Put("/t/a", b"0")])
    watch = store.watch("/t/", 2, seen.append)
    transact(store, [], [Put("/t/a", b"1"), Put("/u", b"")])
    transact(store, [], [Delete("/t/a"), Delete("/none")])
    transact(store, [], [Put("/u", b"2")])
    watch.cancel()
    transact(store, [], [Put("/t/b", b"")])
    assert seen == [
        Update(2, {"/t/a": Entry(b"1", 1, 2)}),
        Update(3, {"/t/a": None}),
        Update(4, {}),
    ]


def test_a_watch_that_begins_late_gets_what_it_missed(store):
    seen = []
    for n in range(3):
        transact(store, [], [Put("/a", b"%d" % n)])
    store.watch("/", 2, seen.append)
    assert [update.revision for update in seen] == [2, 3]


def test_a_watch_that_begins_too_late_is_told_so(path, store):
    seen = []
    for n in range(sqlite_store._HISTORY_MAX + 1):
        transact(store, [], [Put("/a", b"%d" % n)])
    store.watch("/", 1, seen.append)
    assert seen == [Compacted(2)]
    store.close()
    again = SqliteStore(path)
    again.watch("/", 1, seen.append)
    assert seen[1:] == [Compacted(sqlite_store._HISTORY_MAX + 2)]
    again.close()


def test_the_update_comes_before_the_outcome(store):
    loop, seen = Loop(), []
    store.start(loop.wake)
    store.watch("/", 1, seen.append)
    pending = store.transact([], [Put("/a", b"")])
    pending.then(lambda: seen.append("outcome"))
    loop.until(pending)
    assert [type(one) for one in seen] == [Update, str]


def test_no_thread_exists_before_the_first_call_that_must_not_block(store):
    before = threading.active_count()
    store.start(Loop().wake)
    store.watch("/", 1, lambda _: None)
    assert threading.active_count() == before


def test_calls_are_done_in_order_and_those_that_wait_share_a_wake_up(store):
    loop = Loop()
    store.start(loop.wake)
    pendings = [store.transact([], [Put("/n", b"%d" % n)]) for n in range(200)]
    last = store.read("/")
    assert loop.until(last).entries["/n"].value == b"199"
    assert [pending.result() for pending in pendings] == [Applied(n + 1) for n in range(200)]
    assert loop.wakes_count < 200


def test_transactions_that_share_a_sync_see_each_other(store):
    loop = Loop()
    store.start(loop.wake)
    first, second = (store.transact([Absent("/a")], [Put("/a", b"%d" % n)]) for n in range(2))
    assert loop.until(second) == Failed(1)
    assert first.result() == Applied(1)


def test_closing_finishes_what_was_asked_for_and_refuses_what_comes_later(path, store):
    loop = Loop()
    store.start(loop.wake)
    pendings = [store.transact([], [Put("/a", b"%d" % n)]) for n in range(10)]
    store.close()
    assert [pending.result() for pending in pendings] == [Applied(n + 1) for n in range(10)]
    with pytest.raises(StoreError, match="closed"):
        store.read("/").result()
    again = SqliteStore(path)
    assert read(again, "/").entries["/a"].value == b"9"
    again.close()


class Breaking:
    """A connection whose COMMIT, or any statement, fails as SQLite's would."""

    def __init__(self, connection: sqlite3.Connection, statement: str, name: str) -> None:
        self._connection = connection
        self._statement = statement
        self._name = name

    def execute(self, statement: str, *arguments: object) -> sqlite3.Cursor:
        if statement.startswith(self._statement):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = self._name
            raise error
        return self._connection.execute(statement, *arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


def test_a_commit_that_fails_leaves_the_outcome_unknown(store):
    seen = []
    store.watch("/", 1, seen.append)
    store._connection = Breaking(store._connection, "COMMIT", "SQLITE_FULL")
    outcome = transact(store, [], [Put("/a", b"")])
    assert isinstance(outcome, Unknown)
    assert "disk is full: free some space" in outcome.why
    assert transact(store, [Present("/a")], []) == Failed(0)
    assert seen == []
    store._connection = store._connection._connection
    assert transact(store, [], [Put("/a", b"")]) == Applied(1)


def test_after_a_failed_sync_nothing_is_done_any_more(store):
    store._connection = Breaking(store._connection, "COMMIT", "SQLITE_IOERR_FSYNC")
    assert isinstance(transact(store, [], [Put("/a", b"")]), Unknown)
    store._connection = store._connection._connection
    with pytest.raises(StoreError, match="disk I/O error"):
        transact(store, [], [Put("/a", b"")])


def test_a_statement_that_fails_changes_nothing_and_says_so(store):
    store._connection = Breaking(store._connection, "UPDATE", "SQLITE_FULL")
    with pytest.raises(StoreError, match="disk is full"):
        transact(store, [], [Put("/a", b"")])
    store._connection = store._connection._connection
    assert read(store, "/").entries == {}


def test_an_older_store_is_upgraded_and_keeps_its_entries(path, store, monkeypatch):
    transact(store, [], [Put("/a", b"1")])
    store.close()
    newer = (
        *sqlite_store.UPGRADES,
        ("CREATE TABLE more (x INTEGER)",),
        ("INSERT INTO more VALUES (7)",),
    )
    monkeypatch.setattr(sqlite_store, "UPGRADES", newer)
    again = SqliteStore(path)
    assert read(again, "/").entries["/a"].value == b"1"
    assert again._connection.execute("SELECT x FROM more").fetchall() == [(7,)]
    again.close()
    SqliteStore(path).close()  # and once only


def test_a_newer_store_is_refused_with_a_sentence_and_left_alone(path, store, monkeypatch):
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "UPGRADES", (*sqlite_store.UPGRADES, ()))
        SqliteStore(path).close()
    with pytest.raises(StoreTooNew, match=r"schema 3.*newer ottla"):
        SqliteStore(path)


def test_a_file_that_is_no_database_is_refused_with_its_name(path):
    with open(path, "wb") as file:
        file.write(b"not a database" * 100)
    with pytest.raises(StoreCorrupt, match=r"ottla-metadata\.sqlite"):
        SqliteStore(path)


def test_a_database_of_something_else_is_refused(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (name TEXT)")
    other.close()
    with pytest.raises(StoreCorrupt, match="something else"):
        SqliteStore(path)


def test_a_directory_that_is_not_there_is_an_error_of_the_store(tmp_path):
    with pytest.raises(StoreError, match="cannot be used"):
        SqliteStore(f"{tmp_path}/none/store.sqlite")


def test_a_transaction_is_marked_before_anybody_is_answered(path, store):
    marks = []
    store.watch("/", 1, lambda update: marks.append((update.revision, read_mark(path).revision)))
    for _ in range(3):
        transact(store, [], [Put("/a", b"")])
    assert marks == [(1, 1), (2, 2), (3, 3)]


def test_a_transaction_is_not_marked_before_it_is_durable(path, store):
    transact(store, [], [Put("/a", b"")])
    before = read_mark(path)
    store._connection = Breaking(store._connection, "COMMIT", "SQLITE_IOERR_FSYNC")
    transact(store, [], [Put("/a", b"1")])
    assert read_mark(path) == before
    store._connection = store._connection._connection


def without_last_transaction(path, store):
    """As after kill -9 where the log of the database is cut within its last transaction."""
    transact(store, [], [Put("/a", b"1")])
    transact(store, [], [Put("/a", b"2")])
    files = {}
    for suffix in ("", "-wal", "-last"):
        with open(path + suffix, "rb") as file:
            files[suffix] = file.read()
    store.close()
    files["-wal"] = files["-wal"][:-1]
    for suffix, content in files.items():
        with open(path + suffix, "wb") as file:
            file.write(content)
    return files["-wal"]


def test_a_store_that_lacks_a_transaction_says_which_every_time(path, store):
    wal = without_last_transaction(path, store)
    for _ in range(3):
        with pytest.raises(
            StoreCorrupt, match="ends with transaction 1, and there were 2: its -wal"
        ):
            SqliteStore(path)
    with open(f"{path}-wal", "rb") as file:
        assert file.read() == wal, "somebody may still make sense of it"


@pytest.mark.parametrize("emptied", [False, True])
def test_a_store_that_is_gone_is_not_a_new_one(path, store, emptied):
    transact(store, [], [Put("/a", b"1")])
    store.close()
    os.remove(path)
    if emptied:
        with open(path, "wb"):
            pass
    with pytest.raises(StoreCorrupt, match=r"(missing|empty), and had 1 transactions"):
        SqliteStore(path)
    assert os.path.exists(path) == emptied


def test_an_older_copy_of_a_store_is_refused_unless_its_mark_comes_with_it(path, store):
    transact(store, [], [Put("/a", b"1")])
    store.close()
    older = {}
    for suffix in ("", "-last"):
        with open(path + suffix, "rb") as file:
            older[suffix] = file.read()
    with_more = SqliteStore(path)
    transact(with_more, [], [Put("/a", b"2")])
    with_more.close()
    with open(path, "wb") as file:
        file.write(older[""])
    with pytest.raises(StoreCorrupt, match="an older copy"):
        SqliteStore(path)
    with open(f"{path}-last", "wb") as file:
        file.write(older["-last"])
    again = SqliteStore(path)
    assert read(again, "/").entries["/a"].value == b"1"
    again.close()


def test_a_store_with_the_mark_of_another_is_refused(path, store, tmp_path):
    transact(store, [], [Put("/a", b"1")])
    store.close()
    other = SqliteStore(f"{tmp_path}/other.sqlite")
    transact(other, [], [Put("/a", b"2")])
    other.close()
    os.replace(f"{tmp_path}/other.sqlite-last", f"{path}-last")
    with pytest.raises(StoreCorrupt, match="of another one"):
        SqliteStore(path)


@pytest.mark.parametrize("content", [None, b"", bytes(59), b"what" * 100])
def test_a_mark_that_is_missing_or_damaged_is_made_anew(path, store, content, caplog):
    transact(store, [], [Put("/a", b"1")])
    mark = read_mark(path)
    store.close()
    os.remove(f"{path}-last")
    if content is not None:
        with open(f"{path}-last", "wb") as file:
            file.write(content)
    again = SqliteStore(path)
    assert read(again, "/").entries["/a"].value == b"1"
    again.close()
    assert read_mark(path) == mark
    assert ("made anew" in caplog.text) == (content is not None)


def test_a_store_that_never_had_a_transaction_is_opened_again_without_a_word(path, store, caplog):
    store.close()
    SqliteStore(path).close()
    assert caplog.messages == []


def test_a_mark_that_cannot_be_written_is_named_once_and_holds_up_nobody(path, store, caplog):
    transact(store, [], [Put("/a", b"1")])
    fd, store._mark._fd = store._mark._fd, -1
    assert transact(store, [], [Put("/a", b"2")]) == Applied(2)
    assert transact(store, [], [Put("/a", b"3")]) == Applied(3)
    assert read_mark(path).revision == 1
    assert caplog.text.count("can't be written") == 1
    store._mark._fd = fd
    assert transact(store, [], [Put("/a", b"4")]) == Applied(4)
    assert read_mark(path).revision == 4


def test_the_mark_is_synced_when_nothing_else_is_to_do(store, monkeypatch):
    loop, is_synced = Loop(), threading.Event()
    monkeypatch.setattr(sqlite_store, "_REST_S", 0.001)
    monkeypatch.setattr(os, "fsync", lambda _fd: is_synced.set())
    store.start(loop.wake)
    loop.until(store.transact([], [Put("/a", b"")]))
    assert is_synced.wait(30)


def test_who_asks_again_and_again_never_waits_for_the_sync_of_the_mark(store, monkeypatch):
    loop, synced = Loop(), []
    monkeypatch.setattr(sqlite_store, "_REST_S", 3600)
    monkeypatch.setattr(os, "fsync", synced.append)
    store.start(loop.wake)
    for _ in range(20):
        loop.until(store.transact([], [Put("/a", b"")]))
    assert synced == []


def test_the_mark_is_synced_at_the_latest_on_closing(store, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    transact(store, [], [Put("/a", b"")])
    transact(store, [], [Put("/a", b"")])
    assert synced == []
    store.close()
    assert len(synced) == 2, "the file, and its name"
