"""Node: one broker, put together from its configuration; started, drained, stopped.

The composition root: the only file that knows all rooms, and the only one besides the connection
boundary that catches everything. Must not decide anything that a room decides.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from ottla.cluster import keys
from ottla.cluster.changes import Change, SettingsChanged
from ottla.cluster.controller import Controller
from ottla.cluster.image import NO_SETTINGS, ClusterImage
from ottla.cluster.image import Node as NodeImage
from ottla.cluster.producer_ids import ProducerIds
from ottla.cluster.store import StoreCorrupt, StoreError
from ottla.cluster.view import ClusterView
from ottla.core import options
from ottla.core.config import Config
from ottla.core.endpoints import Endpoint, parse_listeners
from ottla.core.model import NodeId, TopicPartition
from ottla.core.pending import Pending
from ottla.core.ports import DiskError
from ottla.handlers import internal_topics
from ottla.handlers.context import ConnectionState, Context
from ottla.handlers.dispatch import Dispatch
from ottla.handlers.markers import PartitionMarkers
from ottla.host.clock import SystemClock, stopwatch
from ottla.host.descriptors import descriptors_max, open_files_max
from ottla.host.disk import OsDisk
from ottla.host.lock import DirectoryInUse, DirectoryLock, lock_directory
from ottla.host.offload import WorkerOffload
from ottla.host.residency import residency
from ottla.host.sqlite_store import FILE_NAME, SqliteStore
from ottla.host.timers import TimerWheel
from ottla.protocol.connection import ConnectionLimits, ReceiveMemory
from ottla.replication.retention import Retention
from ottla.replication.room import Room
from ottla.replication.table import PartitionTable
from ottla.server.admin import Admin
from ottla.server.listener import CannotListen, ListenerLimits, Listeners
from ottla.server.poller import Loop, tell_fault
from ottla.server.service import Service
from ottla.storage.checkpoints import (
    META_PROPERTIES,
    MetaProperties,
    decode_meta_properties,
    uuid_text,
)
from ottla.storage.directory import LogDirectory, WrongDirectory, partition_of
from ottla.storage.findings import Case, Finding
from ottla.storage.opening import read_derived
from ottla.storage.scrub import Scrubber

if TYPE_CHECKING:
    from ottla.host.cleaning import Compaction
    from ottla.replication.adoption import Claim

_log = logging.getLogger("ottla.node")

_COMPACTS_AFTER_S = 1.0


class StartError(Exception):
    """Why the node can't start: one sentence that says what to do."""


class Node:
    """One broker on one loop. `start` and `close` block; between them only the loop runs it."""

    def __init__(
        self, config: Config, loop: asyncio.AbstractEventLoop, *, durable: bool = True
    ) -> None:
        """Nothing is opened yet. `durable` of False leaves out every sync, nothing else: for a
        directory that goes when the node does."""
        self.config = config
        self.durable = durable
        self.loop = loop
        loop.set_exception_handler(tell_fault)
        self.id = NodeId(config[options.NODE_ID])
        # As Kafka shows it, whatever was typed; and where the process goes later changes nothing.
        self.path = os.path.abspath(options.data_directory(config))
        self.clock = SystemClock()
        self.timers = TimerWheel(loop)
        wake = loop.call_soon_threadsafe
        self.disk = OsDisk(
            wake,
            durable=durable,
            sync_threads_max=config[options.FLUSH_THREADS],
            files_max=_open_files_max(config),
        )
        self.offload = WorkerOffload(
            wake,
            budget_s=config[options.OFFLOAD_MS_MAX] / 1000,
            tasks_max=config[options.OFFLOAD_TASKS_MAX],
        )
        self.directory = LogDirectory(
            self.path,
            self.disk,
            self.clock,
            self.timers,
            "os" if config[options.FLUSH_POLICY] == "os" else "commit",
        )
        self.table = PartitionTable(self.directory, config, self.clock)
        self.store: SqliteStore | None = None
        self.view: ClusterView | None = None
        self.context: Context | None = None
        self.listeners: Listeners | None = None
        self.scrubber: Scrubber | None = None
        self.compaction: Compaction | None = None
        self.endpoints: list[Endpoint] = []
        self.admin: Admin | None = None
        self._lock: DirectoryLock | None = None
        self._opened = False

    # --- start -----------------------------------------------------------------------------

    def start(self) -> list[Endpoint]:
        """Open everything and listen; where it listens. Raises StartError, InvalidConfig."""
        try:
            return self._start()
        except (CannotListen, DirectoryInUse, WrongDirectory, StoreError) as error:
            said = self._told(error)
            self.close(clean=False)
            raise StartError(said) from error
        except DiskError as error:
            self.close(clean=False)
            raise StartError(f"the data directory can't be used: {error}") from error
        except BaseException:
            self.close(clean=False)
            raise

    def _told(self, error: Exception) -> str:
        if not isinstance(error, StoreCorrupt):
            return str(error)
        from ottla.replication import adoption  # late: hardly a start needs it

        return f"{error}. {adoption.held(self.disk, self.path)}"

    def _start(self) -> list[Endpoint]:
        self._lock = self._take_directory()
        raw = read_derived(self.disk, f"{self.path}/{META_PROPERTIES}")  # `directory` mends it
        identity = decode_meta_properties(raw)
        if identity is not None and options.NODE_ID.name not in self.config.given:
            self.id = NodeId(identity.node_id)
        store_path = f"{self.path}/{FILE_NAME}"
        claimed = None if os.path.exists(store_path) else self._claimed(None)  # before one is made
        self.store = store = SqliteStore(store_path, durable=self.durable)
        if claimed is None and not store.read(keys.CLUSTER).result().entries:
            # A start ended between the two, or the operator has had the store made anew.
            left = keys.image_of(store.read(keys.ROOT).result())
            is_meant = store.read(keys.ADOPTION).result().entries
            claimed = self._claimed(left if is_meant else None)
        self.view = view = ClusterView(store, self.id)
        controller = Controller(store, view, self.config, self.id, os.urandom)
        self.context = context = Context(
            config=self.config,
            node_id=self.id,
            image=lambda: view.image,
            table=self.table,
            controller=controller,
            next_producer_id=ProducerIds(store).next_producer_id,
            clock=self.clock,
            disk=self.disk,
            timers=self.timers,
            offload=self.offload,
        )
        # Bound before a node is registered or a log opened, so that a busy port leaves nothing
        # but an empty store; nobody is accepted before the loop runs.
        self._listen(context)
        me = self._advertised(self.endpoints[0])
        rack = self.config[options.BROKER_RACK] or None
        cluster_id = None if identity is None else identity.cluster_id
        if claimed is not None:
            self._open(claimed.image)
            claimed.adopt(self.directory, store, view.image)
        controller.start(NodeImage(self.id, me.host, me.port, rack), cluster_id).result()
        self._take_settings(view.image)
        if claimed is None:
            self._open(view.image)
        self.table.load(view.image)
        view.on_change(self._settings_changed)
        view.on_change(self.table.apply)
        context.groups = internal_topics.group_runtime(context, view.on_change)
        markers = PartitionMarkers(context)
        context.transactions = internal_topics.transactions(context, view.on_change, markers)
        self.loop.call_soon(context.groups.start)
        self.loop.call_soon(context.transactions.start)
        for path in self.directory.rebuilt:
            _log.warning("%s could not be believed; made anew", path)
        for partition, finding in self.directory.found:
            _tell_finding(partition, finding)
        self._keep_room()
        self.timers.after(_COMPACTS_AFTER_S, self._compact)
        store.start(self.loop.call_soon_threadsafe)
        self._checkpoint_later()
        self._scrub()
        return self.endpoints

    def _claimed(self, left: ClusterImage | None) -> Claim | None:
        """The topics of logs that no store knows yet: what Apache Kafka has left here, or what is
        to be taken over by the operator's word, with what a store was `left` with."""
        names = self.disk.names(self.path)
        if META_PROPERTIES not in names and not any(map(partition_of, names)):
            return None
        from ottla.replication import adoption  # late: hardly a start needs it

        made = [make(self.config) for make in internal_topics.MADE]
        return adoption.claim(self.disk, self.path, self.id, made, os.urandom, left)

    def _open(self, image: ClusterImage) -> None:
        lock = self._lock
        assert lock is not None, "the directory is taken first"
        self._opened = True
        self.directory.open(
            lambda _path: lock,
            MetaProperties(image.cluster_id, self.id, uuid_text(os.urandom(16))),
            self.table.settings_for(lambda: image),
        )

    def _compact(self) -> None:
        """Begin to compact; not at once, because there is more urgent work at a start."""
        from ottla.host.cleaning import Compaction  # late: nothing at a start needs it

        ports, wake = (self.clock, self.timers), self.loop.call_soon_threadsafe
        self.compaction = Compaction(self.table, self.config, ports, wake)

    def _scrub(self) -> None:
        """Look for damage now and then; the first time long after the start."""
        config = self.config
        pace = (
            lambda: config[options.SCRUB_INTERVAL_MS] / 1000,
            lambda: int(config[options.SCRUB_BYTES_PER_S]),
        )
        self.scrubber = Scrubber(
            self.disk, self.timers, self.directory.logs.values, pace, self.table.read_failed
        )
        self.scrubber.start()

    def _keep_room(self) -> None:
        """Delete what retention no longer covers, and mind how full the disk is."""
        retention = Retention(self.table, self.config, self.clock, self.clock, self.timers)
        room = Room(self.path, self.disk, self.timers, self.config, retention.room_changed)
        self.table.ran_full = room.ran_full
        retention.start()
        room.start()

    def _take_directory(self) -> DirectoryLock:
        try:
            os.makedirs(self.path, exist_ok=True)
            return lock_directory(self.path)
        except OSError as error:
            raise StartError(
                f"the data directory {self.path} can't be used: {error.strerror}; choose another"
            ) from error

    def _listen(self, context: Context) -> None:
        config = self.config
        dispatch = Dispatch(context, stopwatch=stopwatch)
        limits = ConnectionLimits(
            frame_bytes_max=config[options.REQUEST_BYTES_MAX],
            requests_max=config[options.CONNECTION_REQUESTS_MAX],
            output_bytes_max=config[options.OUTPUT_BYTES_MAX],
            first_frame_s=config[options.FIRST_FRAME_MS] / 1000,
            frame_s=config[options.FRAME_MS] / 1000,
            bytes_per_s_min=config[options.FRAME_RATE_MIN],
            idle_s=_seconds(config[options.CONNECTION_IDLE_MS]),
            write_s=config[options.WRITE_MS] / 1000,
        )
        readiness = self.loop.readiness if isinstance(self.loop, Loop) else None
        service = Service(
            loop=self.loop,
            dispatcher=dispatch,
            clock=self.clock,
            timers=self.timers,
            limits=limits,
            memory=ReceiveMemory(config[options.QUEUED_BYTES_MAX]),
            complaints=context.complaints,
            readiness=readiness,
            sent=context.metrics.sent,
        )
        if readiness is None:
            service.go_by(dispatch.sampled)
        else:
            context.metrics.turns = turns = readiness.tally
            turns.timing = lambda on: service.go_by(dispatch.timed if on else dispatch.dispatch)
        self.listeners = listeners = Listeners(
            service,
            _listener_limits(config),
            lambda peer, endpoint: ConnectionState(peer, "PLAINTEXT", self._advertised(endpoint)),
        )
        config.on_change(lambda: listeners.limit(_listener_limits(config)))
        hosts: dict[int, list[str]] = {}  # one free port serves all listeners that ask for any
        for listener in parse_listeners(config[options.LISTENERS]):
            hosts.setdefault(listener.endpoint.port, []).append(listener.endpoint.host)
        for port, names in hosts.items():
            self.endpoints += listeners.listen(names, port)
        self._listen_to_watchers(context)

    def _listen_to_watchers(self, context: Context) -> None:
        """Serve figures, if asked to. A broker that can't be watched serves all the same."""
        listeners = self.listeners
        assert listeners is not None, "clients are listened to first"
        self.admin = Admin(self.loop, context, residency, lambda: listeners.connections_count)
        if not self.config[options.ADMIN_LISTENER]:
            return
        [listener, *_] = parse_listeners(self.config[options.ADMIN_LISTENER], "admin.listener")
        host, port = listener.endpoint.host, listener.endpoint.port
        try:
            where = self.admin.listen(host, port)
        except OSError as error:
            _log.warning(
                "no figures at http://%s (%s); choose another place with admin.listener",
                listener.endpoint,
                # Behind what the system says Python repeats the address.
                str(error.strerror).partition(" (while")[0],
            )
        else:
            _log.info("figures at http://%s/stats and /metrics", where)

    def _advertised(self, endpoint: Endpoint) -> Endpoint:
        """What a client that came by `endpoint` is told: what was configured, else the same."""
        given = parse_listeners(self.config[options.ADVERTISED_LISTENERS], "advertised.listeners")
        if not given:
            return endpoint
        advertised = given[0].endpoint
        return advertised if advertised.port else Endpoint(advertised.host, endpoint.port)

    # --- while it runs ---------------------------------------------------------------------

    def _settings_changed(self, change: Change) -> None:
        mine = keys.broker_settings(self.id)
        if isinstance(change, SettingsChanged) and change.whose in (keys.ALL_BROKERS, mine):
            assert self.view is not None, "changes come from the view"
            self._take_settings(self.view.image)

    def _take_settings(self, image: ClusterImage) -> None:
        """Let what clients have set for brokers hold; whoever uses it is told by the config."""
        everybodys = image.settings.get(keys.ALL_BROKERS, NO_SETTINGS)
        mine = image.settings.get(keys.broker_settings(self.id), NO_SETTINGS)
        for fault in self.config.override(everybodys.configs, mine.configs):
            _log.warning("a setting of this broker is passed over: %s", fault)

    def _checkpoint_later(self) -> None:
        interval_s = max(self.config[options.RECOVERY_CHECKPOINT_MS], 1000) / 1000

        def checkpoint() -> None:
            for log in self.directory.logs.values():
                log.expire_producers()
            done = self.directory.checkpoint()
            done.then(lambda: self._checkpointed(done))
            self.timers.after(interval_s, checkpoint)

        self.timers.after(interval_s, checkpoint)

    @staticmethod
    def _checkpointed(done: Pending[None]) -> None:
        try:
            done.result()
        except DiskError as error:
            # Recovery then reads a little more than it must; the next one may work.
            _log.error("the recovery points could not be written: %s", error)

    # --- stop ------------------------------------------------------------------------------

    def forget_in_child(self) -> None:
        """In a process forked from the node's: give back what would keep its clients waiting.

        Sockets only, which the child's copies would hold open after the node has closed its own.
        Nothing else may be touched, for the loop's epoll, the store and the files are shared.
        """
        if self.listeners is not None:
            self.listeners.forget_in_child()

    def drain(self) -> Pending[None]:
        """Accept nothing more; done when every request in process is answered, or in time."""
        assert self.listeners is not None, "only a started node is drained"
        if self.context is not None:
            self.context.groups.stop()
            self.context.transactions.stop()
        drained = self.listeners.stop()
        self.timers.after(self.config[options.SHUTDOWN_MS] / 1000, self.listeners.close)
        return drained

    def close(self, *, clean: bool) -> None:
        """Let go of everything. `clean` syncs all and marks the stop as clean. Raises DiskError,
        that by which the log directory went offline before, too.

        Blocks; the loop must not be running any more.
        """
        if self.listeners is not None:
            self.listeners.close()
        if self.admin is not None:
            self.admin.close()
        if self.scrubber is not None:
            self.scrubber.stop()
        try:
            self.offload.close()
            if self.compaction is not None:
                self.compaction.close()
            # Completes what is in flight: after this nothing touches a log from elsewhere.
            self.disk.close()
            if self._opened and clean:
                image = self.view.image if self.view is not None else None
                me = image.nodes.get(self.id) if image is not None else None
                self.directory.stop(-1 if me is None else me.epoch)
                if self.table.failure is not None:
                    raise self.table.failure
            elif self._opened:
                self.directory.release()
        finally:
            if self.store is not None:
                self.store.close()
            if self._lock is not None:
                self._lock.release()


def _open_files_max(config: Config) -> int:
    """How many files of logs may stay open: what was configured, or what the system's limit gives.

    The rest is for connections, which take what is free but for `file.descriptors.reserved`.
    """
    given = config[options.DESCRIPTORS_LOGS_MAX]
    if given >= 0:
        return given
    return open_files_max(descriptors_max(), config[options.DESCRIPTORS_RESERVED])


def _listener_limits(config: Config) -> ListenerLimits:
    return ListenerLimits(
        connections_max=config[options.CONNECTIONS_MAX],
        connections_per_ip_max=config[options.CONNECTIONS_PER_IP_MAX],
        connections_per_ip_overrides=options.overrides(
            config[options.CONNECTIONS_PER_IP_OVERRIDES]
        ),
        connections_per_s_max=config[options.CONNECTION_RATE_MAX],
        descriptors_max=descriptors_max(),
        descriptors_reserved=config[options.DESCRIPTORS_RESERVED],
        backlog=config[options.LISTEN_BACKLOG],
        send_buffer_bytes=config[options.SEND_BUFFER_BYTES],
        receive_buffer_bytes=config[options.RECEIVE_BUFFER_BYTES],
    )


def _seconds(milliseconds: int) -> float:
    """A time in ms, where -1 means for ever."""
    return float("inf") if milliseconds < 0 else milliseconds / 1000


_NOTEWORTHY = {
    Case.TORN_TAIL: logging.WARNING,
    Case.END_MISSING: logging.WARNING,
    Case.DAMAGED: logging.ERROR,
    Case.QUARANTINED: logging.ERROR,
    Case.UNREADABLE: logging.ERROR,
}
"""What was found in the files and means that something was lost; the rest is housekeeping."""
_REPAIRED = (Case.DAMAGED, Case.QUARANTINED)


def _tell_finding(partition: TopicPartition, finding: Finding) -> None:
    level = _NOTEWORTHY.get(finding.case, logging.INFO)
    _log.log(
        level,
        "%s: %s (%s)%s",
        partition,
        finding.case.value,
        finding.reason or f"{finding.path}, byte {finding.position}",
        "; try: ottla log repair" if finding.case in _REPAIRED else "",
        extra={"fields": {"event": "recovery", "case": finding.case.name.lower()}},
    )
