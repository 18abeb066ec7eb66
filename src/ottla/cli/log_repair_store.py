"""`ottla log repair` and the metadata store: what is lost without it, and going on at that price.

Owns the judgement whether a directory's store is whole, and `--adopt`: the store is set aside, and
a new one lets the next start take over the topics that the directories tell of. Changes nothing
without it: the store is looked at in a copy, since SQLite changes what it opens.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from ottla.cli.errors import CommandError
from ottla.cli.log_files import PartitionFiles, new_aside
from ottla.cli.render import counted, object_line
from ottla.cluster import keys
from ottla.cluster.image import TopicImage
from ottla.cluster.store import Applied, Entry, Put, Snapshot, StoreCorrupt, StoreError
from ottla.host.files import open_regular
from ottla.host.lock import DirectoryInUse, lock_directory
from ottla.host.sqlite_store import ADVICE, FILE_NAME, SqliteStore
from ottla.host.store_mark import SUFFIX as MARK
from ottla.storage.checkpoints import META_PROPERTIES, decode_meta_properties

_SUFFIXES = ("", "-wal", "-shm", MARK)
"""The mark goes last: while it is there, no start takes the directory for one without a store."""
_NOT_KEPT = (keys.CLUSTER, keys.PRODUCER_IDS, keys.ADOPTION, "/b/", "/fence/")
"""What a start finds out anew, from meta.properties and the logs."""

Entries = dict[str, Entry]


class StoreRepair:
    """The store of one data directory. `path` may be that of a partition: then there is none."""

    def __init__(self, path: str, partitions: Sequence[PartitionFiles]) -> None:
        self.path = path
        self._file = os.path.join(path, FILE_NAME)
        self._identity = os.path.join(path, META_PROPERTIES)
        self.is_there = os.path.exists(self._identity) or os.path.exists(self._file)
        self._partitions = partitions
        self._topics: Mapping[str, TopicImage] = {}

    def is_compacted(self, topic: str) -> bool | None:
        """Whether a topic is to be compacted, as the store has it; None where it doesn't tell.

        Known once `repair` has looked. By the broker's own default none is.
        """
        found = self._topics.get(topic)
        return None if found is None else "compact" in found.configs.get("cleanup.policy", "")

    def repair(self, *, adopt: bool, is_locked: bool, as_json: bool) -> bool:
        """Say what is wrong, and go on without the store if that is wanted; whether it is lost.

        To `adopt`, the caller has locked the directory. Raises CommandError, OSError.
        """
        if not self.is_there:
            return False
        with ExitStack() as held:
            if not is_locked and not self._take(held):
                return False  # a broker has it open, and has looked at it
            damage, left = self._look()
            if damage is None:
                return False
            self._tell(damage, left, adopt, as_json)
            if adopt:
                self._begin_anew(left, as_json)
        return True

    def _take(self, held: ExitStack) -> bool:
        """Keep brokers out meanwhile. Where none has ever been, no lock file is made."""
        if os.path.exists(os.path.join(self.path, ".lock")):
            try:
                held.callback(lock_directory(self.path).release)
            except DirectoryInUse:
                return False
        return True

    def _look(self) -> tuple[str | None, Entries]:
        """What is wrong with the store, None if nothing is; and what it can be believed to have had
        at an earlier time."""
        with tempfile.TemporaryDirectory(prefix="ottla-repair-") as folder:
            copy = os.path.join(folder, FILE_NAME)
            for suffix in _SUFFIXES:
                if os.path.exists(self._file + suffix) and suffix != "-shm":
                    shutil.copyfile(self._file + suffix, copy + suffix)
            was_there = os.path.exists(copy)
            try:
                entries = _entries(copy)
                topics = keys.image_of(Snapshot(0, entries)).topics
            except StoreCorrupt as error:
                damage = str(error).removesuffix(ADVICE).replace(copy, self._file)
            except StoreError as error:
                raise CommandError(str(error).replace(copy, self._file)) from error
            else:
                is_known = keys.CLUSTER in entries or keys.ADOPTION in entries
                if is_known or not self._had_one():
                    self._topics = topics
                    return None, {}
                state = "has no cluster" if was_there else "is missing"
                return f"the metadata store {self._file} {state}", {}
            # Without the mark: a store that is whole as far as it goes is still worth something.
            if os.path.exists(copy + MARK):
                os.remove(copy + MARK)
            try:
                left = _entries(copy)
                keys.image_of(Snapshot(0, left))
            except StoreError:
                left = {}
        return damage, left

    def _had_one(self) -> bool:
        """Whether ottla has named the directory: it does so once its store has a cluster."""
        if not os.path.exists(self._identity):
            return False
        with open(self._identity, "rb", opener=open_regular) as file:
            raw = file.read()
        found = decode_meta_properties(raw)
        return found is not None and found.encode() == raw

    def _tell(self, damage: str, left: Entries, adopt: bool, as_json: bool) -> None:
        topics = sorted({one.topic for one in self._partitions})
        remembered = sum(key.startswith("/t/") for key in left)
        if as_json:
            found = {"store": self._file, "damage": damage, "topics_in_directories": topics}
            sys.stdout.write(object_line({**found, "topics_remembered": remembered}))
            return
        partitions = counted(len(self._partitions), "partition")
        lines = [
            damage,
            f"  the directories hold {partitions} of {counted(len(topics), 'topic')}"
            + (f": {', '.join(topics)}" if topics else ""),
        ]
        if left:
            lines.append(
                f"  what it had at an earlier time can be read: {counted(remembered, 'topic')}, "
                "their options, those of brokers and groups"
            )
        if not adopt:
            lines.append("  if there is a copy, bring back from it all files of that name")
            lines.append(f"  else --adopt lets the next start go on: {_price(bool(left))}")
        sys.stdout.write("\n".join(lines) + "\n")

    def _begin_anew(self, left: Entries, as_json: bool) -> None:
        # Whatever of this a power cut keeps is refused by a start, and this can be done again: the
        # database is certainly gone before its mark, without which less of it would be believed.
        aside = new_aside(self.path, "ottla-metadata-0")
        for suffix in _SUFFIXES:
            if suffix == MARK:
                _sync(aside, self.path)
            if os.path.exists(self._file + suffix):
                os.rename(self._file + suffix, os.path.join(aside, FILE_NAME + suffix))
        _sync(aside, self.path)
        kept = [Put(k, one.value) for k, one in left.items() if not k.startswith(_NOT_KEPT)]
        store = SqliteStore(self._file)
        try:
            done = store.transact([], [*kept, Put(keys.ADOPTION, keys.encode({}))]).result()
        finally:
            store.close()
        if not isinstance(done, Applied):
            raise CommandError(f"{self._file} can't be made anew: {done}")
        if not as_json:
            sys.stdout.write(f"  the next start takes over the topics; the files are in {aside}\n")


def _price(is_left: bool) -> str:
    if is_left:
        return (
            "it takes over the topics of the directories, with the options of that earlier time. "
            "Given up is what was changed since, and topics made since that have no record"
        )
    return (
        "it takes over the topics of the directories, which keep all records until they get "
        "options. Given up are options of topics, brokers and groups, and topics without a record"
    )


def _sync(*folders: str) -> None:
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _entries(path: str) -> Entries:
    """All that a store has. Raises StoreError."""
    store = SqliteStore(path, durable=False)
    try:
        return dict(store.read(keys.ROOT).result().entries)
    finally:
        store.close()
