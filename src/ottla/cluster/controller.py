"""Controller: what is decided about the cluster on this node, and written to the store.

Owns creation and deletion of topics, what is changed of them, and a node's beginning. Any node may
decide: the store's compares make it safe. Must not change the image (`view.py` does) and must not
touch a log.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ottla.cluster import keys
from ottla.cluster.changes import Change, TopicCreated
from ottla.cluster.image import NO_NODE, ClusterImage, Node, TopicImage
from ottla.cluster.names import collision, metric_name
from ottla.cluster.operations import UNSURE, Operation, Operations
from ottla.cluster.store import (
    Absent,
    Applied,
    Compare,
    Delete,
    DeletePrefix,
    MetadataStore,
    Outcome,
    Present,
    Put,
    Snapshot,
    StoreError,
    UnchangedSince,
    Unknown,
    Write,
)
from ottla.cluster.topics import NewTopic, Refused, TopicResult, check_name, plan
from ottla.cluster.view import ClusterView
from ottla.core import options
from ottla.core.config import Config
from ottla.core.model import NO_TOPIC_ID, LeaderEpoch, NodeId, TopicId
from ottla.core.pending import Pending, completed, when_all
from ottla.core.value import Value
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.cluster.alterations import Alterations
    from ottla.cluster.alterations import Outcome as Altered
    from ottla.cluster.configs import Alteration, Planned
    from ottla.cluster.partitions import MorePartitions

T = TypeVar("T")
Named = TypeVar("Named", NewTopic, "MorePartitions")

START_ATTEMPTS_MAX = 10


class TopicRef(Value):
    """A topic as a request names it: by name, or by id if `name` is None."""

    name: str | None = None
    topic_id: TopicId = NO_TOPIC_ID


class _Creation:
    """A topic on its way, and who waits for it."""

    __slots__ = ("operation", "seen", "topic", "waiting")

    def __init__(self, topic: TopicImage) -> None:
        self.topic = topic
        self.seen = False
        self.waiting: list[Pending[TopicResult]] = []


class Controller:
    """Every answer comes after the image has what it tells of."""

    def __init__(
        self,
        store: MetadataStore,
        view: ClusterView,
        config: Config,
        node_id: NodeId,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`random_bytes(n)` gives n bytes nobody can guess: ids come from it."""
        self._store = store
        self._view = view
        self._config = config
        self._node_id = node_id
        self._random_bytes = random_bytes
        self._operations = Operations(store, view, node_id)
        self._alterations: Alterations | None = None
        self._creating: dict[str, _Creation] = {}
        self._shown: dict[str, str] = {}
        self._shown_of: ClusterImage | None = None
        self._start_failed = ""
        view.on_change(self._on_change)

    # A node's beginning.

    def start(self, node: Node, cluster_id: str | None = None) -> Pending[ClusterImage]:
        """Register this node and begin a new leader epoch of every partition it leads.

        All in one transaction, durable before the Pending completes; then the view follows the
        store. `cluster_id` is what the data directory says: where the store has none yet it
        takes that, or a new one. Fails with StoreError where they differ.
        """
        pending: Pending[ClusterImage] = Pending()
        self._begin(node, cluster_id, pending, START_ATTEMPTS_MAX)
        return pending

    def _begin(
        self, node: Node, cluster_id: str | None, pending: Pending[ClusterImage], left: int
    ) -> None:
        if left == 0:
            why = f": {self._start_failed}" if self._start_failed else ""
            text = f"this node could not be registered in the metadata store{why}"
            pending.fail(StoreError(text))
            return
        reading = self._store.read(keys.ROOT)
        reading.then(lambda: self._register(node, cluster_id, pending, left, reading))

    def _register(
        self,
        node: Node,
        cluster_id: str | None,
        pending: Pending[ClusterImage],
        left: int,
        reading: Pending[Snapshot],
    ) -> None:
        try:
            compares, writes = self._registration(node, cluster_id, reading.result())
        except StoreError as error:
            pending.fail(error)
            return
        again = partial(self._begin, node, cluster_id, pending, left - 1)
        writing = self._store.transact(compares, writes)
        writing.then(lambda: self._registered(pending, writing, again))

    def _registration(
        self, node: Node, cluster_id: str | None, snapshot: Snapshot
    ) -> tuple[list[Compare], list[Write]]:
        image = keys.image_of(snapshot)
        if cluster_id is not None and image.cluster_id not in ("", cluster_id):
            raise StoreError(
                f"the metadata store belongs to cluster {image.cluster_id}, but the data "
                f"directory to cluster {cluster_id}: they must be from the same cluster"
            )
        writes: list[Write] = [keys.put_node(node), Put(keys.fence_key(node.id), b"{}")]
        compares: list[Compare] = [_unchanged(keys.node_key(node.id), snapshot)]
        if not image.cluster_id:
            cluster = {"id": cluster_id or self._new_cluster_id()}
            compares.append(Absent(keys.CLUSTER))
            writes.append(Put(keys.CLUSTER, keys.encode(cluster)))
        for topic in image.by_id.values():
            for partition, one in enumerate(topic.partitions):
                if one.leader == node.id or (one.leader == NO_NODE and node.id in one.isr):
                    # An offset lost with a torn tail must not be given out twice in one epoch.
                    epoch = LeaderEpoch(one.leader_epoch + 1)
                    now = one.replace(leader=node.id, leader_epoch=epoch)
                    compares.append(
                        UnchangedSince(keys.partition_key(topic.id, partition), one.epoch)
                    )
                    writes.append(keys.put_partition(topic.id, partition, now))
        return compares, writes

    def _registered(
        self,
        pending: Pending[ClusterImage],
        writing: Pending[Outcome],
        again: Callable[[], None],
    ) -> None:
        try:
            outcome = writing.result()
        except StoreError as error:
            pending.fail(error)
            return
        if isinstance(outcome, Applied):
            reading = self._store.read(keys.ROOT)
            reading.then(lambda: self._begun(pending, reading))
        else:
            self._start_failed = outcome.why if isinstance(outcome, Unknown) else ""
            again()  # epochs may be skipped, so one more round does no harm

    def _begun(self, pending: Pending[ClusterImage], reading: Pending[Snapshot]) -> None:
        try:
            self._view.start(reading.result())
        except StoreError as error:
            pending.fail(error)
            return
        pending.complete(self._view.image)

    # Topics are made.

    def create_topics(
        self, topics: Sequence[NewTopic], *, validate_only: bool = False
    ) -> Pending[list[TopicResult]]:
        """Make each topic, or say why not: one result for each name, in order.

        Codes are Apache Kafka 4.3.1's. TOPIC_ALREADY_EXISTS also for the second of two that
        are made at once; REQUEST_TIMED_OUT where the store doesn't tell whether it was done.
        """
        return _each_name(topics, lambda topic: self._create(topic, validate_only))

    def auto_create(self, names: Sequence[str]) -> Pending[list[TopicResult]]:
        """Make each topic that a client asked about, with the broker's defaults, under caps.

        One result for each distinct name, in order; NONE also for one that exists, or that
        someone else is just making. Past a cap: UNKNOWN_TOPIC_OR_PARTITION.
        """
        left = self._config[options.AUTO_CREATE_REQUEST_MAX]
        results: list[Pending[TopicResult]] = []
        for name in dict.fromkeys(names):
            known = self._view.image.topics.get(name)
            if known is not None:
                results.append(completed(_made(known)))
            elif name in self._creating:
                results.append(self._wait_for(self._creating[name]))
            elif left <= 0 or self._topics_count() >= self._config[options.AUTO_CREATE_TOTAL_MAX]:
                message = "No more topics are created automatically (auto.create.topics.*.max)."
                results.append(_refusal(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, message))
            else:
                left -= 1
                results.append(self._create(NewTopic(name), validate_only=False))
        return _together(results)

    def _create(self, new: NewTopic, validate_only: bool) -> Pending[TopicResult]:
        if new.name in self._creating:
            return self._after(self._creating[new.name])
        planned = self._plan(new)
        if isinstance(planned, Refused):
            return _refusal(new.name, planned.error, planned.message)
        if validate_only:
            return completed(_made(planned))
        creation = self._creating[new.name] = _Creation(planned)
        operation = Operation(
            [Absent(keys.name_key(new.name)), Absent(keys.topic_key(planned.id))],
            keys.put_topic(planned),
            lambda: creation.seen or new.name in self._view.image.topics,
        )
        result = self._wait_for(creation)
        running = self._operations.run(operation)
        running.then(lambda: self._created(creation, running))
        return result

    def _plan(self, new: NewTopic) -> TopicImage | Refused:
        image = self._view.image
        if refused := check_name(new.name, image):
            return refused
        if other := self._colliding(new.name):
            message = f"Topic '{new.name}' collides with existing topic: {other}"
            return Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, message)
        within = self._with_coming(image)
        return plan(new, within, self._config, self._new_topic_id(), self._first_node())

    def _with_coming(self, image: ClusterImage) -> ClusterImage:
        """The image, with partitions on their way counted: caps hold for them, too."""
        coming = sum(len(one.topic.partitions) for one in self._creating.values())
        if self._alterations is not None:
            coming += self._alterations.partitions_coming
        return image.replace(partitions_count=image.partitions_count + coming)

    def _first_node(self) -> int:
        return int.from_bytes(self._random_bytes(2), "big")

    def _created(self, creation: _Creation, running: Pending[Operation]) -> None:
        topic = creation.topic
        del self._creating[topic.name]
        try:
            operation = running.result()
        except StoreError as error:
            result = TopicResult(topic.name, ErrorCode.KAFKA_STORAGE_ERROR, str(error))
        else:
            if creation.seen:
                result = _made(topic)
            elif operation.settled:
                result = _exists(topic.name)
            else:
                result = TopicResult(topic.name, ErrorCode.REQUEST_TIMED_OUT, UNSURE)
        for pending in creation.waiting:
            pending.complete(result)

    def _on_change(self, change: Change) -> None:
        if isinstance(change, TopicCreated):
            creation = self._creating.get(change.topic.name)
            if creation is not None and creation.topic.id == change.topic.id:
                creation.seen = True
                creation.topic = change.topic  # with its partitions' epochs

    def _wait_for(self, creation: _Creation) -> Pending[TopicResult]:
        pending: Pending[TopicResult] = Pending()
        creation.waiting.append(pending)
        return pending

    def _after(self, creation: _Creation) -> Pending[TopicResult]:
        """The answer to who wants to make what another is just making."""
        first, second = self._wait_for(creation), Pending[TopicResult]()

        def answer() -> None:
            result = first.result()
            second.complete(result if result.error else _exists(creation.topic.name))

        first.then(answer)
        return second

    def _topics_count(self) -> int:
        return len(self._view.image.topics) + len(self._creating)

    def _colliding(self, name: str) -> str | None:
        """A topic, here or on its way, that metrics could not tell from this one."""
        if "." not in name and "_" not in name:
            return None
        if self._shown_of is not self._view.image:
            # Once per image: a request may make a hundred topics beside ten thousand.
            self._shown_of = self._view.image
            self._shown = {metric_name(one): one for one in self._shown_of.topics}
        return self._shown.get(metric_name(name)) or collision(name, self._creating)

    def _new_topic_id(self) -> TopicId:
        """A random UUID (version 4) whose text doesn't begin with a dash, as Kafka makes them."""
        while True:
            raw = bytearray(self._random_bytes(16))
            raw[6] = raw[6] & 0x0F | 0x40
            raw[8] = raw[8] & 0x3F | 0x80
            topic_id = TopicId(bytes(raw))
            if raw[0] >> 2 != 62 and topic_id not in self._view.image.by_id:
                return topic_id

    def unique_text(self) -> str:
        """A random UUID as text, for ids that others give out."""
        raw = self._new_topic_id().hex()
        return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"

    def _new_cluster_id(self) -> str:
        return urlsafe_b64encode(self._new_topic_id()).decode().rstrip("=")

    # Topics are deleted.

    def delete_topics(self, topics: Sequence[TopicRef]) -> Pending[list[TopicResult]]:
        """Delete each topic, or say why not: one result for each distinct reference, in order.

        But one for all that mean the same topic in different ways, which is refused.
        `topic` of a result is what was deleted. Its files go when partitions learn of it.
        """
        results: list[Pending[TopicResult]] = []
        references = Counter(topics)
        found = {reference: self._find(reference, times) for reference, times in references.items()}
        meant = Counter(one.id for one in found.values() if isinstance(one, TopicImage))
        for reference, one in found.items():
            if isinstance(one, Refused):
                refused = TopicResult(reference.name, one.error, one.message, reference.topic_id)
                results.append(completed(refused))
            elif meant[one.id] == 1:
                results.append(self._delete(one))
            elif reference.name is not None:  # its id is another mention
                message = "The topic is named by its name and by its id."
                refused = TopicResult(one.name, ErrorCode.INVALID_REQUEST, message, one.id)
                results.append(completed(refused))
        return _together(results)

    def _find(self, reference: TopicRef, times: int) -> TopicImage | Refused:
        """What a reference that came so many times means."""
        by_id = reference.topic_id != NO_TOPIC_ID
        if reference.name is None and not by_id:
            message = "Neither topic name nor id were specified."
            return Refused(ErrorCode.INVALID_REQUEST, message)
        if reference.name is not None and by_id:
            message = "You may not specify both topic name and topic id."
            return Refused(ErrorCode.INVALID_REQUEST, message)
        if not self._config[options.DELETE_TOPICS]:
            return Refused(ErrorCode.TOPIC_DELETION_DISABLED, "Topic deletion is disabled.")
        image = self._view.image
        if reference.name is not None:
            topic = image.topics.get(reference.name)
            unknown = Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "There is no such topic.")
        else:
            topic = image.by_id.get(reference.topic_id)
            unknown = Refused(ErrorCode.UNKNOWN_TOPIC_ID, "There is no topic with this id.")
        if topic is None:
            return unknown
        if times > 1:
            return Refused(ErrorCode.INVALID_REQUEST, "Duplicate topic name or id.")
        return topic

    def _delete(self, topic: TopicImage) -> Pending[TopicResult]:
        pending: Pending[TopicResult] = Pending()
        operation = Operation(
            [Present(keys.topic_key(topic.id))],
            [
                Delete(keys.topic_key(topic.id)),
                Delete(keys.name_key(topic.name)),
                Delete(keys.configs_key(topic.id)),
                DeletePrefix(keys.partitions_prefix(topic.id)),
            ],
            lambda: topic.id not in self._view.image.by_id,
        )
        running = self._operations.run(operation)
        running.then(lambda: pending.complete(_deleted(topic, running)))
        return pending

    # Topics grow, and settings change.

    @property
    def _altering(self) -> Alterations:
        """Made, and imported, when somebody first alters something: a start does without."""
        if self._alterations is None:
            from ottla.cluster.alterations import Alterations

            self._alterations = Alterations(self._operations, self._view)
        return self._alterations

    def create_partitions(
        self, topics: Sequence[MorePartitions], *, validate_only: bool = False
    ) -> Pending[list[TopicResult]]:
        """Give each topic more partitions, or say why not: one result for each name, in order.

        Codes are Apache Kafka 4.3.1's; past a cap POLICY_VIOLATION.
        """
        return _each_name(topics, lambda more: self._add_partitions(more, validate_only))

    def _add_partitions(self, more: MorePartitions, validate_only: bool) -> Pending[TopicResult]:
        from ottla.cluster.partitions import plan_more

        def planned() -> TopicImage | Refused:
            image = self._with_coming(self._view.image)
            return plan_more(more, image, self._config, self._first_node())

        return self._altering.add_partitions(more.name, planned, validate_only)

    def alter_configs(
        self, alterations: Sequence[Alteration], *, validate_only: bool = False
    ) -> Pending[list[Altered]]:
        """Set what each says, or say why not: one outcome for each, in order.

        Each resource by itself: one that is refused keeps no other from being altered. A resource
        named more than once is refused each time.
        """
        from ottla.cluster.configs import lane_of, plan_alteration

        def planned(one: Alteration) -> Planned | Refused:
            return plan_alteration(one, self._view.image, self._config, self._node_id)

        times = Counter(lane_of(one) for one in alterations)
        twice = Refused(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
        return _together(
            [
                completed(twice)
                if times[lane_of(one)] > 1
                else self._altering.alter(one, partial(planned, one), validate_only)
                for one in alterations
            ]
        )


def _deleted(topic: TopicImage, running: Pending[Operation]) -> TopicResult:
    error, message = ErrorCode.NONE, None
    try:
        operation = running.result()
    except StoreError as fault:
        error, message = ErrorCode.KAFKA_STORAGE_ERROR, str(fault)
    else:
        if not operation.settled:
            error, message = ErrorCode.REQUEST_TIMED_OUT, UNSURE
        elif not (operation.applied or operation.was_unknown):
            error, message = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "It was just deleted."
    return TopicResult(topic.name, error, message, topic.id, topic)


def _made(topic: TopicImage) -> TopicResult:
    return TopicResult(topic.name, topic_id=topic.id, topic=topic)


def _exists(name: str) -> TopicResult:
    return TopicResult(name, ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")


def _refusal(name: str, error: ErrorCode, message: str | None) -> Pending[TopicResult]:
    return completed(TopicResult(name, error, message))


def _each_name(
    wanted: Sequence[Named], decide: Callable[[Named], Pending[TopicResult]]
) -> Pending[list[TopicResult]]:
    """One result for each name, in order. A name that comes more than once is refused."""
    by_name: dict[str, Named | None] = {}
    for one in wanted:
        by_name[one.name] = None if one.name in by_name else one
    return _together(
        [
            _refusal(name, ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
            if one is None
            else decide(one)
            for name, one in by_name.items()
        ]
    )


def _unchanged(key: str, snapshot: Snapshot) -> Compare:
    entry = snapshot.entries.get(key)
    return UnchangedSince(key, entry.mod_revision) if entry else Absent(key)


def _together(pendings: Sequence[Pending[T]]) -> Pending[list[T]]:
    """All the results, once the last is there."""
    everything: Pending[list[T]] = Pending()
    done = when_all(pendings)
    done.then(lambda: everything.complete([pending.result() for pending in pendings]))
    return everything
