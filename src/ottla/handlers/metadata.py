"""Metadata, key 3, versions 0 to 13.

Answers from the image in force. A topic that is asked for and created on the way is in the
answer, leader and all, so that no client has to come again.
v0 no topics means all · v1 null means all, controller, rack · v2 cluster id · v4 the client may
forbid creation · v5 offline replicas · v7 leader epoch · v8 authorized operations (v8 to 10 the
cluster's, too) · v9 flexible · v10 topic ids in the answer · v12 asking by id, which beats the
name: with one id in a request only ids are answered · v13 an error for the whole answer (KIP-1102;
there is no reason here to send one).
Not as Kafka: a topic with neither name nor id in v12 is INVALID_REQUEST, not UNKNOWN_SERVER_ERROR;
a name that collides with a topic there is (a_b, a.b) is INVALID_TOPIC_EXCEPTION, not unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.cluster.names import is_internal, name_fault
from ottla.core import options
from ottla.core.model import NO_TOPIC_ID, TopicId
from ottla.handlers.limits import too_many
from ottla.handlers.nodes import (
    CLUSTER_OPERATIONS,
    NOT_ASKED,
    TOPIC_OPERATIONS,
    nodes_for,
    tell_partition,
)
from ottla.handlers.reply import Parked, Reply
from ottla.protocol.errors import ErrorCode
from ottla.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ottla.cluster.image import ClusterImage, TopicImage
    from ottla.handlers.context import Context, Request

NULL_MEANS_ALL_SINCE = 1
BY_ID_SINCE = 12
CREATION_WAIT_S = 10.0


def handle(context: Context, request: Request[MetadataRequest]) -> Reply | Parked:
    """The topics that are there; those that may be created first, then answered."""
    body = request.body
    asked = body.topics
    if not asked and (asked is None or request.api_version < NULL_MEANS_ALL_SINCE):
        return _answer(context, request, None, {})
    assert asked is not None
    if too_many(context, request, len(asked)) or _is_malformed(asked, request.api_version):
        return _refused(asked, request.api_version)
    by_id = [topic for topic in asked if topic.topic_id != NO_TOPIC_ID]
    asked = by_id or asked
    missing = list(_creatable(context, request, asked))
    if not missing:
        return _answer(context, request, asked, {})
    created = context.controller.auto_create(missing)

    def resume() -> Reply:
        results = created.result() if created.done else []
        faults = {result.name: result.error for result in results if result.name is not None}
        return _answer(context, request, asked, faults)

    return (
        resume()
        if created.done
        else Parked(created, resume, deadline_s=CREATION_WAIT_S, abandon=created.abandon)
    )


def _is_malformed(asked: list[MetadataRequestTopic], version: int) -> bool:
    if version >= BY_ID_SINCE:
        return any(topic.name is None and topic.topic_id == NO_TOPIC_ID for topic in asked)
    return any(topic.name is None or topic.topic_id != NO_TOPIC_ID for topic in asked)


def _refused(asked: list[MetadataRequestTopic], version: int) -> Reply:
    """The whole request is INVALID_REQUEST; every topic says so, as in Kafka."""
    code = ErrorCode.INVALID_REQUEST
    topics = [
        MetadataResponseTopic(
            error_code=code,
            name=topic.name if topic.name is not None or version >= BY_ID_SINCE else "",
            topic_id=topic.topic_id,
        )
        for topic in asked
    ]
    return Reply(MetadataResponse(topics=topics, error_code=code))


def _creatable(
    context: Context, request: Request[MetadataRequest], asked: list[MetadataRequestTopic]
) -> Iterator[str]:
    """The names to be created now: allowed, legal, and no more than one request may ask for.

    The cap on all topics is the controller's (H81).
    """
    config = context.config
    if not (request.body.allow_auto_topic_creation and config[options.AUTO_CREATE_TOPICS]):
        return
    topics = context.image().topics
    room = config[options.AUTO_CREATE_REQUEST_MAX]
    found: set[str] = set()
    for topic in asked:
        if len(found) >= room:
            context.complaints.about(
                options.AUTO_CREATE_REQUEST_MAX.name,
                request.connection.peer,
                f"asked for more topics to be created than {room}, the rest are unknown to it",
            )
            return
        name = topic.name
        if topic.topic_id != NO_TOPIC_ID or name is None or name in topics or name in found:
            continue
        # Internal topics come with what keeps its records there, not because someone asks.
        if name_fault(name) is None and not is_internal(name):
            found.add(name)
            yield name


def _answer(
    context: Context,
    request: Request[MetadataRequest],
    asked: list[MetadataRequestTopic] | None,
    faults: Mapping[str, ErrorCode],
) -> Reply:
    image = context.image()
    body = request.body
    operations = TOPIC_OPERATIONS if body.include_topic_authorized_operations else NOT_ASKED
    if asked is None:
        topics = [_topic(image, topic, operations) for topic in image.topics.values()]
    else:
        topics = list(_asked_for(image, asked, faults, operations))
    with_cluster = body.include_cluster_authorized_operations
    return Reply(
        MetadataResponse(
            brokers=[
                MetadataResponseBroker(
                    node_id=node.id, host=node.host, port=node.port, rack=node.rack
                )
                for node in nodes_for(context, image, request.connection)
            ],
            cluster_id=image.cluster_id,
            controller_id=image.controller_id,
            topics=topics,
            cluster_authorized_operations=CLUSTER_OPERATIONS if with_cluster else NOT_ASKED,
        )
    )


def _asked_for(
    image: ClusterImage,
    asked: list[MetadataRequestTopic],
    faults: Mapping[str, ErrorCode],
    operations: int,
) -> Iterator[MetadataResponseTopic]:
    """One answer for each topic, in the request's order; asking twice gives one."""
    seen: set[str | bytes] = set()
    for one in asked:
        by_id = one.topic_id != NO_TOPIC_ID
        key: str | bytes = one.topic_id if by_id else one.name or ""
        if key in seen:
            continue
        seen.add(key)
        if by_id:
            topic = image.by_id.get(TopicId(one.topic_id))
        else:
            topic = image.topics.get(one.name or "")
        if topic is not None:
            yield _topic(image, topic, operations)
        elif by_id:
            yield MetadataResponseTopic(
                error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=one.topic_id
            )
        else:
            yield _unknown(one.name or "", faults, operations)


def _unknown(name: str, faults: Mapping[str, ErrorCode], operations: int) -> MetadataResponseTopic:
    error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if name_fault(name) is not None or faults.get(name) == ErrorCode.INVALID_TOPIC_EXCEPTION:
        error = ErrorCode.INVALID_TOPIC_EXCEPTION
    # Whatever else kept it from being created, clients take the topic as one that isn't there.
    return MetadataResponseTopic(
        error_code=error,
        name=name,
        is_internal=is_internal(name),
        topic_authorized_operations=operations,
    )


def _topic(image: ClusterImage, topic: TopicImage, operations: int) -> MetadataResponseTopic:
    return MetadataResponseTopic(
        name=topic.name,
        topic_id=topic.id,
        is_internal=is_internal(topic.name),
        partitions=[
            tell_partition(MetadataResponsePartition(), image, number, partition)
            for number, partition in enumerate(topic.partitions)
        ],
        topic_authorized_operations=operations,
    )
