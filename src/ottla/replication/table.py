"""PartitionTable: the partitions of this node, by name and by topic id.

Owns which partitions are here, and what a failing disk means for them. Follows the cluster's
image by its changes. Must not decide who leads, nor read or write a log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EISDIR,
    ELOOP,
    EMFILE,
    ENAMETOOLONG,
    ENFILE,
    ENOENT,
    ENOSPC,
    ENOTDIR,
    EPERM,
)
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from ottla.cluster.changes import (
    PartitionChanged,
    PartitionsAdded,
    TopicConfigChanged,
    TopicCreated,
    TopicDeleted,
)
from ottla.core import options
from ottla.core.metrics import GoneTally
from ottla.core.model import NO_TOPIC_ID, Offset, TopicId, TopicPartition
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.protocol.errors import ErrorCode
from ottla.replication.partition import Partition
from ottla.replication.room import FULL
from ottla.replication.settings import PartitionSettings, partition_settings

if TYPE_CHECKING:
    from ottla.cluster.changes import Change
    from ottla.cluster.image import ClusterImage, TopicImage
    from ottla.core.config import Config
    from ottla.core.ports import Clock
    from ottla.storage.directory import LogDirectory
    from ottla.storage.settings import LogSettings

_log = logging.getLogger("ottla.replication")

_PASSING = {
    ENOSPC: "the disk is full: %s; produce is refused until there is space",
    EDQUOT: "the disk's quota is used up: %s; produce is refused until there is space",
    EMFILE: "no file can be opened: %s; raise the limit (ulimit -n, file.descriptors.reserved)",
    ENFILE: "this machine has no file descriptor left: %s; produce is refused until it has",
}
"""Troubles that end by themselves or by an operator's hand, and cost nothing that was written."""
_OPENING = frozenset({"open", "create", "make directory"})
_OF_A_NAME = frozenset({EACCES, EPERM, EEXIST, EISDIR, ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG})
"""What a name may be refused for: its owner, its permissions, what else stands in its place. That
tells nothing of what was written before, nor of other files; only where it is met is refused."""
_NAME_REFUSED = "%s; produce to that partition is refused until it can be"
_COMPLAINT_EVERY_S = 10.0


class PartitionTable:
    """One node's partitions. `load` once the directory is open, then `apply` every change."""

    def __init__(self, directory: LogDirectory, config: Config, clock: Clock) -> None:
        self.directory = directory
        self.failure: DiskError | None = None
        """Why the log directory is offline; None while it is not."""
        self.little_room = False
        """Whether produce is refused until the disk has more room."""
        self.ran_full: Callable[[], None] = _nothing
        """Called when a write found no room."""
        self.gone = GoneTally()
        self._config = config
        self._clock = clock
        self._by_name: dict[str, list[Partition]] = {}
        self._by_id: dict[bytes, list[Partition]] = {}
        self._committed_by_sync = config[options.FLUSH_POLICY] == "commit"
        self._said_at: dict[str, float] = {}
        directory.rounds.offline = self.take_offline
        directory.removals.failed = self._left_behind
        self._configs: dict[bytes, Mapping[str, str]] = {}
        self._unset: PartitionSettings | None = None
        config.on_change(self._configure_all)

    # --- finding ---------------------------------------------------------------------------

    def get(self, topic: str, partition: int) -> Partition | ErrorCode:
        """The partition, or UNKNOWN_TOPIC_OR_PARTITION."""
        partitions = self._by_name.get(topic)
        if partitions is None or not 0 <= partition < len(partitions):
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return partitions[partition]

    def get_by_id(self, topic_id: bytes, partition: int) -> Partition | ErrorCode:
        """As `get`; UNKNOWN_TOPIC_ID where it is the topic that is unknown (KIP-516)."""
        partitions = self._by_id.get(topic_id)
        if partitions is None:
            return ErrorCode.UNKNOWN_TOPIC_ID
        if not 0 <= partition < len(partitions):
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return partitions[partition]

    def of_topic(self, topic: str) -> Sequence[Partition]:
        """All of a topic, by their numbers; none, if there is no such topic."""
        return self._by_name.get(topic, ())

    def of_topic_id(self, topic_id: bytes) -> Sequence[Partition]:
        """As `of_topic`."""
        return self._by_id.get(topic_id, ())

    def __iter__(self) -> Iterator[Partition]:
        """All of them, topic by topic."""
        return chain.from_iterable(self._by_name.values())

    def __len__(self) -> int:
        return sum(map(len, self._by_name.values()))

    # --- deleting records --------------------------------------------------------------------

    def delete_records(self, partition: Partition, offset: Offset) -> Pending[None] | ErrorCode:
        """Records before `offset` are gone for good once this is done. Fails with DiskError.

        OFFSET_OUT_OF_RANGE past the high watermark; what lies below the start is gone already.
        """
        if not partition.log.usable:
            return ErrorCode.KAFKA_STORAGE_ERROR
        if not 0 <= offset <= partition.high_watermark:
            return ErrorCode.OFFSET_OUT_OF_RANGE
        return self.directory.starts.move(partition.log, offset)

    @staticmethod
    def _left_behind(error: DiskError) -> None:
        _log.warning("files of deleted records are left until the next start: %s", error)

    # --- following the image ---------------------------------------------------------------

    def load(self, image: ClusterImage) -> None:
        """Take over every partition of the image, with its log if there is one. Raises DiskError.

        A log that no topic of the image owns is set aside under a name of its own and kept: its
        topic was deleted just before a crash, or the metadata is not that of this directory.
        A directory whose partition.metadata is damaged or lost is that of the topic so named, and
        so is one that lost everything but its name in a crash.
        """
        strays = []
        for key, log in self.directory.logs.items():
            topic = image.topics.get(key.topic)
            empty = not log.segments and not log.failed
            nameless = log.topic_id == NO_TOPIC_ID
            if topic is not None and nameless and (empty or key in self.directory.adoptable):
                self.directory.adopt(log, topic.id)
            if topic is None or topic.id != log.topic_id or key.partition >= len(topic.partitions):
                strays.append(key)
        for key, aside in zip(strays, self.directory.set_aside(strays), strict=True):
            _log.warning(
                "%s belongs to no topic that is known; kept as %s. Remove it if its topic was "
                "deleted; else bring back the metadata that it belongs to",
                key,
                aside,
            )
        for topic in image.topics.values():
            self._add(topic, 0)

    def settings_for(
        self, image: Callable[[], ClusterImage]
    ) -> Callable[[TopicPartition, TopicId], LogSettings]:
        """What opening the directory asks for each log that it finds."""

        def settings(key: TopicPartition, _topic_id: TopicId) -> LogSettings:
            topic = image().topics.get(key.topic)
            return self._settings({} if topic is None else topic.configs).log

        return settings

    def apply(self, change: Change) -> None:
        """Do what a change of the image means here."""
        match change:
            case TopicCreated(topic):
                self._add(topic, 0)
            case PartitionsAdded(topic, first):
                self._add(topic, first)
            case TopicDeleted(topic):
                self._remove(topic)
            case TopicConfigChanged(topic_id, _, configs):
                self._configure(topic_id, configs)
            case PartitionChanged(topic_id, _, number, _, now):
                partition = self._by_id[topic_id][number]
                partition.leader_epoch = now.leader_epoch
                partition.stir()
            case _:
                pass  # nodes come and go elsewhere

    def _configure(self, topic_id: bytes, configs: Mapping[str, str]) -> None:
        partitions = self._by_id.get(topic_id)
        if partitions is None:
            return
        self._configs[topic_id] = configs
        settings = self._settings(configs)
        for partition in partitions:
            partition.configure(settings)

    def _configure_all(self) -> None:
        """The broker's own settings changed: they are what topics live by that set none."""
        self._unset = None
        for topic_id, configs in list(self._configs.items()):
            self._configure(topic_id, configs)

    def _settings(self, configs: Mapping[str, str]) -> PartitionSettings:
        if configs:
            return partition_settings(self._config, configs)
        # Most topics set nothing, and there may be ten thousand: they share one.
        if self._unset is None:
            self._unset = partition_settings(self._config, {})
        return self._unset

    def _add(self, topic: TopicImage, first: int) -> None:
        settings = self._settings(topic.configs)
        self._configs[topic.id] = topic.configs
        partitions = self._by_name.setdefault(topic.name, [])
        self._by_id[topic.id] = partitions
        for number in range(first, len(topic.partitions)):
            key = TopicPartition(topic.name, number)
            log = self.directory.logs.get(key)
            if log is None:
                log = self.directory.create(key, topic.id, settings.log)
            partition = Partition(
                key,
                topic.id,
                topic.partitions[number].leader_epoch,
                log,
                settings,
                self._clock,
                self.disk_failed,
                self.read_failed,
                committed_by_sync=self._committed_by_sync,
            )
            if self.failure is not None:
                partition.fail()
            log.on_damage = partial(self._quarantined, partition)
            partitions.append(partition)

    def _remove(self, topic: TopicImage) -> None:
        self._by_id.pop(topic.id, None)
        self._configs.pop(topic.id, None)
        for partition in self._by_name.pop(topic.name, ()):
            self.gone.add(
                partition.tally,
                partition.records_in,
                partition.bytes_in,
                partition.batches_by_codec,
            )
            partition.close(deleted=True)
            gone = self.directory.delete(partition.key)
            gone.then(partial(self._removed, partition.key, gone))

    def _removed(self, key: TopicPartition, gone: Pending[None]) -> None:
        try:
            gone.result()
        except DiskError as error:
            _log.error("%s is deleted, but its files could not be removed: %s", key, error)

    # --- a disk that fails -----------------------------------------------------------------

    def disk_failed(self, error: DiskError) -> None:
        """A write failed: what passes refuses this append, anything else ends the directory."""
        text = _PASSING.get(error.errno or 0)
        if text is None and error.action in _OPENING and error.errno in _OF_A_NAME:
            text = _NAME_REFUSED
        if text is None:
            self.take_offline(error)
        else:
            self._complain(text, error)
            if error.errno in FULL:
                self.ran_full()

    def read_failed(self, error: DiskError) -> None:
        """Bytes could not be read: whoever wanted them is told, everything else goes on."""
        self._complain("what a client asked for could not be answered: %s", error)

    @staticmethod
    def _quarantined(partition: Partition, error: DiskError) -> None:
        """What lies below the damage is served; whoever waits for more learns of it now."""
        _log.error(
            "%s is damaged: %s. From offset %d on reads are answered KAFKA_STORAGE_ERROR, and "
            "so is every produce; the file is kept as it is. Try: ottla log repair",
            partition.key,
            error,
            partition.log.damaged_at,
        )
        partition.wake_readers()

    def _complain(self, text: str, error: DiskError) -> None:
        """Log, but not as often as clients can bring it about."""
        now = self._clock.monotonic()
        if now - self._said_at.get(text, -_COMPLAINT_EVERY_S) >= _COMPLAINT_EVERY_S:
            self._said_at[text] = now
            _log.error(text, error)

    def take_offline(self, error: DiskError) -> None:
        """Acknowledge nothing more from this directory (I30); what was synced can still be read."""
        if self.failure is not None:
            return
        self.failure = error
        _log.critical(
            "log directory %s is offline: %s. Nothing more is accepted or acknowledged; what was "
            "acknowledged can still be read. Mend the disk, then restart",
            self.directory.path,
            error,
        )
        for partitions in self._by_name.values():
            for partition in partitions:
                partition.fail()


def _nothing() -> None:
    pass
